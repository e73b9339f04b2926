//! Products of matrices in single precision: sums in a fixed order, no rounding of the factors.

use super::reduce::sum_rows_into;
use super::{Expect, MATMUL, fit};
use crate::driver::{Arg, Grid, Kernel};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Gpu};

const TILE: usize = 64;
const THREADS: u32 = 256;

/// A matrix in a buffer.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    buffer: &'a Buffer<f32>,
    /// Sizes as it lies in memory.
    stored: (usize, usize),
    /// Elements from one row to the next, and before the first one.
    stride: usize,
    offset: usize,
    across: bool,
}

impl<'a> Matrix<'a> {
    /// All of a buffer as `[rows, columns]`.
    pub fn new(buffer: &'a Buffer<f32>, rows: usize, columns: usize) -> Matrix<'a> {
        Matrix { buffer, stored: (rows, columns), stride: columns, offset: 0, across: false }
    }

    /// Columns `[start, start + len)`.
    pub fn columns(self, start: usize, len: usize) -> Matrix<'a> {
        let offset = self.offset + start;
        Matrix { stored: (self.stored.0, len), offset, ..self }
    }

    /// The same, `elements` further on in the buffer.
    pub(crate) fn after(self, elements: usize) -> Matrix<'a> {
        Matrix { offset: self.offset + elements, ..self }
    }

    /// The transpose of it.
    pub fn transposed(self) -> Matrix<'a> {
        Matrix { across: !self.across, ..self }
    }

    /// Rows and columns.
    fn sizes(&self) -> (usize, usize) {
        let (rows, columns) = self.stored;
        if self.across { (columns, rows) } else { (rows, columns) }
    }

    fn check(&self, argument: &str) -> Result<()> {
        let (rows, columns) = self.stored;
        if rows == 0 || columns == 0 {
            return Ok(());
        }
        let elements = (rows - 1).checked_mul(self.stride).and_then(|n| n.checked_add(columns + self.offset));
        Expect::at_least("matmul", argument, elements.unwrap_or(usize::MAX))?.of(self.buffer)
    }

    fn input(&self) -> Arg {
        self.buffer.input().offset(self.offset)
    }
}

/// Into how many parts a sum over `k` terms is cut. It depends on nothing else, so that the bits do not either.
pub(crate) fn parts(k: usize) -> usize {
    (k / 512).clamp(1, 64)
}

fn inner<'a>(a: &Matrix<'a>, b: &Matrix<'a>) -> Result<(usize, usize, usize)> {
    let ((m, k), (kb, n)) = (a.sizes(), b.sizes());
    if k == kb {
        return Ok((m, n, k));
    }
    let expected = format!("as many rows as a [M,K]=[{m},{k}] has columns");
    Err(Error::Unsupported { kernel: "matmul", argument: "b [K,N]", got: format!("[{kb},{n}]"), expected })
}

/// `c = a b + bias`.
///
/// Shapes: `a [M,K]`, `b [K,N]`, `bias [N] -> c [M,N]`. Errors: sizes that do not fit.
pub fn matmul(
    gpu: &Gpu,
    a: Matrix<'_>,
    b: Matrix<'_>,
    bias: Option<&Buffer<f32>>,
    c: &mut Buffer<f32>,
) -> Result<()> {
    let (m, n, _) = inner(&a, &b)?;
    Expect::new("matmul", "c [M,N]", &[m, n])?.of(c)?;
    launch(gpu, a, b, bias, (c, 0), 1)
}

fn launch(
    gpu: &Gpu,
    a: Matrix<'_>,
    b: Matrix<'_>,
    bias: Option<&Buffer<f32>>,
    (c, offset): (&mut Buffer<f32>, usize),
    parts: usize,
) -> Result<()> {
    let (m, n, k) = inner(&a, &b)?;
    a.check("a [M,K]")?;
    b.check("b [K,N]")?;
    Expect::new("matmul", "bias [N]", &[n])?.of_any(bias)?;
    let tiles = fit::<i32>("matmul", "number of tiles", m.div_ceil(TILE) * n.div_ceil(TILE))?;
    let mut args = vec![a.input(), b.input(), super::kru::optional(bias), c.output().offset(offset)];
    args.extend([m, n, k, a.stride, b.stride].map(|n| Arg::I64(n as i64)));
    args.extend([a.across, b.across].map(|across| Arg::I32(across.into())));
    let kernel = Kernel { module: &MATMUL, name: "matmul" };
    let blocks = (tiles as u32, parts as u32);
    gpu.launch(kernel, Grid { blocks, threads: THREADS, shared_bytes: 0, cooperative: false }, &args)
}

/// Elements of the room that [`accumulate`] needs.
pub(crate) fn room(m: usize, n: usize, k: usize) -> usize {
    m * n * parts(k)
}

/// `c[.., columns] = a b`, a sum over so many steps and rows that it is formed in parts.
pub(crate) fn accumulate(
    gpu: &Gpu,
    a: Matrix<'_>,
    b: Matrix<'_>,
    room: &mut Buffer<f32>,
    c: &mut Buffer<f32>,
    (stride, offset): (usize, usize),
) -> Result<()> {
    let (m, n, k) = inner(&a, &b)?;
    let parts = parts(k);
    if parts == 1 && stride == n {
        Expect::at_least("matmul", "c [M,N]", m * n + offset)?.of(c)?;
        return launch(gpu, a, b, None, (c, offset), 1);
    }
    Expect::new("matmul", "room", &[m * n * parts])?.of(room)?;
    launch(gpu, a, b, None, (room, 0), parts)?;
    sum_rows_into(gpu, parts, m * n, room, c, (n.max(1), stride, offset))
}
