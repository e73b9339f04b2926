//! The GRU with full matrices, reset before the product, over a whole sequence, one launch forward and one backward.
//!
//! ```text
//! r = σ(h W_r + ux_r);  z = σ(h W_z + ux_z);  n = tanh((r ⊙ h) W_n + ux_n);  h' = n + z ⊙ (h − n)
//! ```
//!
//! `W` is `[H,3·H]`, gates in the order r, z, n. Where it lies and what is kept: as in [`rnn`](super::rnn).

use super::dense::{Cotangents, Inputs, choose, threads};
use super::kru::optional;
use super::matmul::{Matrix, accumulate, room};
use super::rnn::{check_cotangents, check_hidden, check_inputs};
use super::{Expect, GRU};
use crate::driver::{Arg, Grid, Kernel};
use crate::error::Result;
use crate::gpu::{Buffer, Gpu};

/// A unit of a given size on a device.
#[derive(Debug)]
pub struct Gru {
    gpu: Gpu,
    hidden: usize,
}

/// What the backward pass writes, and the room it needs.
#[derive(Debug)]
pub struct GruGradients {
    /// `[H,3·H]`.
    pub w_bar: Buffer<f32>,
    /// `[T,N,3·H]`.
    pub ux_bar: Buffer<f32>,
    /// `[N,H]`.
    pub h0_bar: Buffer<f32>,
    before: Buffer<f32>,
    rooms: (Buffer<f32>, Buffer<f32>),
}

impl Gru {
    /// A unit with `hidden` states. Errors: none or more than 2^15 of them.
    pub fn new(gpu: &Gpu, hidden: usize) -> Result<Gru> {
        Ok(Gru { gpu: gpu.clone(), hidden: check_hidden("gru", hidden)? })
    }

    fn plan(&self, rows: usize, backward: bool) -> Result<(Kernel<'static>, Grid)> {
        let (h, threads) = (self.hidden as u64, threads(2 * self.hidden));
        let (wide, narrow) = ((2 * h).max(u64::from(threads)), h.max(u64::from(threads)));
        let (names, floats) = match backward {
            false => (["gru_forward_shared", "gru_forward_global"], 4 * h + wide),
            true => (["gru_backward_shared", "gru_backward_global"], 8 * h + wide + narrow),
        };
        choose(&self.gpu, &GRU, names, threads, (floats, h * (3 * h + 1)), rows)
    }

    fn arguments(inputs: &Inputs<'_>) -> Vec<Arg> {
        vec![inputs.w.input(), inputs.ux.input(), optional(inputs.h0), optional(inputs.lengths)]
    }

    fn sizes(&self, steps: usize, rows: usize) -> [Arg; 3] {
        [Arg::I64(steps as i64), Arg::I64(rows as i64), Arg::I32(self.hidden as i32)]
    }

    /// The states of `steps` steps of `rows` rows, into `h [T,N,H]`, 0 from the end of a row's sequence on, and the
    /// state at that end, into `last [N,H]`. One launch. Errors: sizes that do not fit.
    pub fn forward(
        &self,
        steps: usize,
        rows: usize,
        inputs: Inputs<'_>,
        h: &mut Buffer<f32>,
        last: &mut Buffer<f32>,
    ) -> Result<()> {
        let (kernel, grid) = self.plan(rows, false)?;
        check_inputs(kernel.name, steps, rows, (self.hidden, 3), &inputs)?;
        Expect::new(kernel.name, "h [T,N,H]", &[steps, rows, self.hidden])?.of(h)?;
        Expect::new(kernel.name, "last [N,H]", &[rows, self.hidden])?.of(last)?;
        let mut args = Self::arguments(&inputs);
        args.extend([h.output(), last.output()]);
        args.extend(self.sizes(steps, rows));
        self.gpu.launch(kernel, grid, &args)
    }

    /// Room for what [`Gru::backward`] writes. Errors: out of memory.
    pub fn gradients(&self, steps: usize, rows: usize) -> Result<GruGradients> {
        let (h, gpu) = (self.hidden, &self.gpu);
        let (states, sums) = (steps * rows * h, steps * rows);
        Ok(GruGradients {
            w_bar: gpu.uninitialized(3 * h * h)?,
            ux_bar: gpu.uninitialized(3 * states)?,
            h0_bar: gpu.uninitialized(rows * h)?,
            before: gpu.uninitialized(2 * states)?,
            rooms: (gpu.uninitialized(room(h, 2 * h, sums))?, gpu.uninitialized(room(h, h, sums))?),
        })
    }

    /// Gradients for cotangents of the states `h [T,N,H]` that [`Gru::forward`] gave. One launch for the sequence, and
    /// four for the gradient of `W`. Errors: as [`Gru::forward`].
    pub fn backward(
        &self,
        steps: usize,
        rows: usize,
        inputs: Inputs<'_>,
        h: &Buffer<f32>,
        cotangents: Cotangents<'_>,
        out: &mut GruGradients,
    ) -> Result<()> {
        let (kernel, grid) = self.plan(rows, true)?;
        let hidden = self.hidden;
        check_inputs(kernel.name, steps, rows, (hidden, 3), &inputs)?;
        check_cotangents(kernel.name, steps, rows, hidden, h, &cotangents)?;
        Expect::new(kernel.name, "ux_bar [T,N,3·H]", &[steps, rows, 3 * hidden])?.of(&out.ux_bar)?;
        Expect::new(kernel.name, "h0_bar [N,H]", &[rows, hidden])?.of(&out.h0_bar)?;
        let mut args = Self::arguments(&inputs);
        args.extend([h.input(), optional(cotangents.h_bar), optional(cotangents.last_bar)]);
        args.extend([out.ux_bar.output(), out.before.output(), out.h0_bar.output()]);
        args.extend(self.sizes(steps, rows));
        self.gpu.launch(kernel, grid, &args)?;
        // Of r and z with the state; of n with the state behind the reset.
        let before = Matrix::new(&out.before, steps * rows, 2 * hidden);
        let of_argument = Matrix::new(&out.ux_bar, steps * rows, 3 * hidden);
        let (state, reset) =
            (before.columns(0, hidden).transposed(), before.columns(hidden, hidden).transposed());
        let (gates, proposal) = (of_argument.columns(0, 2 * hidden), of_argument.columns(2 * hidden, hidden));
        let w_bar = &mut out.w_bar;
        accumulate(&self.gpu, state, gates, &mut out.rooms.0, w_bar, (3 * hidden, 0))?;
        accumulate(&self.gpu, reset, proposal, &mut out.rooms.1, w_bar, (3 * hidden, 2 * hidden))
    }
}
