//! The plain recurrent network with a full matrix over a whole sequence, one launch forward and one backward.
//!
//! `h_t = act(h_{t−1} W + ux_t)`. The matrix stays in shared memory where it fits (H up to about 230 on an H100) and is
//! read through the caches where it does not. The backward pass keeps the states alone; the gradient of `W` is one
//! product over all steps and rows.

use super::dense::{Cotangents, Inputs, choose, threads};
use super::kru::{Activation, optional};
use super::matmul::{Matrix, accumulate, room};
use super::{Expect, RNN, fit};
use crate::driver::{Arg, Grid, Kernel};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Gpu};

pub use super::dense::{Cotangents as RnnCotangents, Inputs as RnnInputs};

/// A network of a given size on a device.
#[derive(Debug)]
pub struct Rnn {
    gpu: Gpu,
    hidden: usize,
    activation: Activation,
}

/// What the backward pass writes, and the room it needs.
#[derive(Debug)]
pub struct RnnGradients {
    /// `[H,H]`.
    pub w_bar: Buffer<f32>,
    /// `[T,N,H]`.
    pub ux_bar: Buffer<f32>,
    /// `[N,H]`.
    pub h0_bar: Buffer<f32>,
    before: Buffer<f32>,
    room: Buffer<f32>,
}

impl Rnn {
    /// A network with `hidden` states. Errors: none or more than 2^15 of them; an activation of complex numbers.
    pub fn new(gpu: &Gpu, hidden: usize, activation: Activation) -> Result<Rnn> {
        if activation.is_complex() {
            let (got, expected) = (format!("{activation:?}"), "one of real numbers".into());
            return Err(Error::Unsupported { kernel: "rnn", argument: "activation", got, expected });
        }
        Ok(Rnn { gpu: gpu.clone(), hidden: check_hidden("rnn", hidden)?, activation })
    }

    fn plan(&self, rows: usize, backward: bool) -> Result<(Kernel<'static>, Grid)> {
        let (h, threads) = (self.hidden as u64, threads(self.hidden));
        let wide = h.max(u64::from(threads));
        let (names, floats) = match backward {
            false => (["rnn_forward_shared", "rnn_forward_global"], h + wide),
            true => (["rnn_backward_shared", "rnn_backward_global"], 2 * h + 2 * wide),
        };
        choose(&self.gpu, &RNN, names, threads, (floats, h * (h + 1)), rows)
    }

    fn check(&self, name: &'static str, steps: usize, rows: usize, inputs: &Inputs<'_>) -> Result<()> {
        check_inputs(name, steps, rows, (self.hidden, 1), inputs)
    }

    fn arguments(inputs: &Inputs<'_>) -> Vec<Arg> {
        vec![inputs.w.input(), inputs.ux.input(), optional(inputs.h0), optional(inputs.lengths)]
    }

    fn sizes(&self, steps: usize, rows: usize) -> [Arg; 4] {
        let (t, n) = (Arg::I64(steps as i64), Arg::I64(rows as i64));
        [t, n, Arg::I32(self.hidden as i32), Arg::I32(self.activation.code())]
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
        self.check(kernel.name, steps, rows, &inputs)?;
        Expect::new(kernel.name, "h [T,N,H]", &[steps, rows, self.hidden])?.of(h)?;
        Expect::new(kernel.name, "last [N,H]", &[rows, self.hidden])?.of(last)?;
        let mut args = Self::arguments(&inputs);
        args.extend([h.output(), last.output()]);
        args.extend(self.sizes(steps, rows));
        self.gpu.launch(kernel, grid, &args)
    }

    /// Room for what [`Rnn::backward`] writes. Errors: out of memory.
    pub fn gradients(&self, steps: usize, rows: usize) -> Result<RnnGradients> {
        let (h, gpu) = (self.hidden, &self.gpu);
        let states = steps * rows * h;
        Ok(RnnGradients {
            w_bar: gpu.uninitialized(h * h)?,
            ux_bar: gpu.uninitialized(states)?,
            h0_bar: gpu.uninitialized(rows * h)?,
            before: gpu.uninitialized(states)?,
            room: gpu.uninitialized(room(h, h, steps * rows))?,
        })
    }

    /// Gradients for cotangents of the states `h [T,N,H]` that [`Rnn::forward`] gave. One launch for the sequence, and
    /// two for the gradient of `W`. Errors: as [`Rnn::forward`].
    pub fn backward(
        &self,
        steps: usize,
        rows: usize,
        inputs: Inputs<'_>,
        h: &Buffer<f32>,
        cotangents: Cotangents<'_>,
        out: &mut RnnGradients,
    ) -> Result<()> {
        let (kernel, grid) = self.plan(rows, true)?;
        let hidden = self.hidden;
        self.check(kernel.name, steps, rows, &inputs)?;
        check_cotangents(kernel.name, steps, rows, hidden, h, &cotangents)?;
        Expect::new(kernel.name, "ux_bar [T,N,H]", &[steps, rows, hidden])?.of(&out.ux_bar)?;
        Expect::new(kernel.name, "h0_bar [N,H]", &[rows, hidden])?.of(&out.h0_bar)?;
        let mut args = Self::arguments(&inputs);
        args.extend([h.input(), optional(cotangents.h_bar), optional(cotangents.last_bar)]);
        args.extend([out.ux_bar.output(), out.before.output(), out.h0_bar.output()]);
        args.extend(self.sizes(steps, rows));
        self.gpu.launch(kernel, grid, &args)?;
        let before = Matrix::new(&out.before, steps * rows, hidden).transposed();
        let of_argument = Matrix::new(&out.ux_bar, steps * rows, hidden);
        accumulate(&self.gpu, before, of_argument, &mut out.room, &mut out.w_bar, (hidden, 0))
    }
}

/// A number of states that the kernels' 32-bit indices can take. Errors: none, or too many.
pub(super) fn check_hidden(kernel: &'static str, hidden: usize) -> Result<usize> {
    if (1..=1 << 15).contains(&hidden) {
        return Ok(hidden);
    }
    let (got, expected) = (hidden.to_string(), "1 to 32768".into());
    Err(Error::Unsupported { kernel, argument: "hidden size", got, expected })
}

/// Checks what a cell with `gates` gates reads.
pub(super) fn check_inputs(
    name: &'static str,
    steps: usize,
    rows: usize,
    (hidden, gates): (usize, usize),
    inputs: &Inputs<'_>,
) -> Result<()> {
    fit::<i32>(name, "number of steps", steps)?;
    Expect::new(name, "w [H,G·H]", &[hidden, gates * hidden])?.of(inputs.w)?;
    Expect::new(name, "ux [T,N,G·H]", &[steps, rows, gates * hidden])?.of(inputs.ux)?;
    Expect::new(name, "h0 [N,H]", &[rows, hidden])?.of_any(inputs.h0)?;
    Expect::new(name, "lengths [N]", &[rows])?.of_any(inputs.lengths)
}

/// Checks what the backward pass of a cell with one shown state reads besides.
pub(super) fn check_cotangents(
    name: &'static str,
    steps: usize,
    rows: usize,
    hidden: usize,
    h: &Buffer<f32>,
    cotangents: &Cotangents<'_>,
) -> Result<()> {
    Expect::new(name, "h [T,N,H]", &[steps, rows, hidden])?.of(h)?;
    Expect::new(name, "h_bar [T,N,H]", &[steps, rows, hidden])?.of_any(cotangents.h_bar)?;
    Expect::new(name, "last_bar [N,H]", &[rows, hidden])?.of_any(cotangents.last_bar)
}
