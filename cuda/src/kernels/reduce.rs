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
    Expect::new("sum_rows", "partial [R,C]", &[rows, columns])?.of(partial)?;
    let blocks = fit::<i32>("sum_rows", "number of columns", columns)? as u32;
    let kernel = Kernel { module: &REDUCE, name: "sum_rows" };
    let args = [partial.input(), out.output(), Arg::I64(rows as i64), Arg::I64(columns as i64)];
    gpu.launch(kernel, Grid::row(blocks, THREADS, 0), &args)
}
