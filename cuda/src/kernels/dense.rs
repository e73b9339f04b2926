//! What the kernels with full matrices share: how many threads, and whether a matrix fits on the chip.

use super::fit;
use crate::driver::{Grid, Kernel, Module};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Gpu};

/// What both directions of a cell with one state read. All are `f32`.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// `[H, G·H]`: recurrent matrices, from a state (left) to a state, gates side by side.
    pub w: &'a Buffer<f32>,
    /// `[T,N,G·H]`: input side of every step, biases included.
    pub ux: &'a Buffer<f32>,
    /// `[N,H]`: first state; none: zeros.
    pub h0: Option<&'a Buffer<f32>>,
    /// `[N]`: steps of each row, cut to 0..T; none: T.
    pub lengths: Option<&'a Buffer<i32>>,
}

/// Cotangents of the states.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cotangents<'a> {
    /// `[T,N,H]`: of every state; none: zeros. Not read from the end of a row's sequence on.
    pub h_bar: Option<&'a Buffer<f32>>,
    /// `[N,H]`: of the last state; none: zeros.
    pub last_bar: Option<&'a Buffer<f32>>,
}

/// Threads of a block that forms `outputs` results at a time: about four for each, so that long sums are shared.
pub(super) fn threads(outputs: usize) -> u32 {
    (4 * outputs.next_multiple_of(32)).clamp(64, 512) as u32
}

/// The kernel and its launch: the variant that keeps the matrix in shared memory if the chip has room for it.
///
/// `floats`: what a block needs besides; `matrix`: what the matrix takes. Errors: even the other variant does not fit.
pub(super) fn choose(
    gpu: &Gpu,
    module: &'static Module,
    [shared, global]: [&'static str; 2],
    threads: u32,
    (floats, matrix): (u64, u64),
    rows: usize,
) -> Result<(Kernel<'static>, Grid)> {
    let limit = u64::from(gpu.describe().shared_bytes);
    let (name, bytes) = match 4 * (floats + matrix) <= limit {
        true => (shared, 4 * (floats + matrix)),
        false => (global, 4 * floats),
    };
    if bytes > limit {
        return Err(Error::SharedMemory { kernel: name, asked: bytes, limit });
    }
    let blocks = fit::<i32>(name, "number of rows", rows)? as u32;
    Ok((Kernel { module, name }, Grid::row(blocks, threads, bytes as u32)))
}
