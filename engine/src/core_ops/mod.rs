//! The operations that recording derivatives itself needs: sums of cotangents, sums back over broadcast axes,
//! parts of complex numbers, masks of ended rows. All others live in the `ops` crate.

mod concat;
mod numbers;
mod pointwise;
mod reduce;

pub(crate) use concat::Concat;
pub use concat::concat;
pub use numbers::{active_mask, cast, chunk_start, expand, extent, fill, step_index, zeros_like};
pub(crate) use numbers::{counts_steps, keep_ended};
pub use pointwise::{add, conj, imag, neg, real, select, stop_gradient, times_i, to_complex};
pub use reduce::{sum_dims, sum_rows, sum_steps, sum_to};
