//! Sums in an order that is always the same.

use super::{Expect, REDUCE, fit};
use crate::driver::{Arg, Grid, Kernel};
use crate::error::Result;
use crate::gpu::{Buffer, Gpu};

const THREADS: u32 = 128;

/// `out[c] = Σ_r partial[r,c]`, without atomics: the same bits every time.
///
/// Shapes: `partial [R,C]`, `out [C]`. Errors: other sizes; 2^31 columns or more.
pub fn sum_rows(gpu: &Gpu, rows: usize, partial: &Buffer<f32>, out: &mut Buffer<f32>) -> Result<()> {
    let columns = out.len();
    sum_rows_into(gpu, rows, columns, partial, out, (columns.max(1), columns, 0))
}

/// The same, into a block of columns: result `c` goes to `out[c / width · stride + c % width + offset]`.
pub(crate) fn sum_rows_into(
    gpu: &Gpu,
    rows: usize,
    columns: usize,
    partial: &Buffer<f32>,
    out: &mut Buffer<f32>,
    (width, stride, offset): (usize, usize, usize),
) -> Result<()> {
    Expect::new("sum_rows", "partial [R,C]", &[rows, columns])?.of(partial)?;
    let last = columns.saturating_sub(1);
    let end = last / width * stride + last % width + offset + columns.min(1);
    Expect::at_least("sum_rows", "out", end)?.of(out)?;
    let blocks = fit::<i32>("sum_rows", "number of columns", columns)? as u32;
    let kernel = Kernel { module: &REDUCE, name: "sum_rows" };
    let sizes = [rows, columns, width, stride].map(|n| Arg::I64(n as i64));
    let args = [&[partial.input(), out.output().offset(offset)], &sizes[..]].concat();
    gpu.launch(kernel, Grid::row(blocks, THREADS, 0), &args)
}
