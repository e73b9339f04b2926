//! The LSTM with full matrices over a whole sequence, one launch forward and one backward.
//!
//! ```text
//! [i f g o] = h W + ux;  i, f, o = σ(·), g = tanh(·);  c' = f ⊙ c + i ⊙ g;  h' = o ⊙ tanh(c')
//! ```
//!
//! `W` is `[H,4·H]`, gates in the order i, f, g, o. Where it lies and what is kept: as in [`rnn`](super::rnn).

use super::dense::{Cotangents, Inputs, choose, threads};
use super::kru::optional;
use super::matmul::{Matrix, accumulate, room};
use super::rnn::{check_cotangents, check_hidden, check_inputs};
use super::{Expect, LSTM};
use crate::driver::{Arg, Grid, Kernel};
use crate::error::Result;
use crate::gpu::{Buffer, Gpu};

/// A network of a given size on a device.
#[derive(Debug)]
pub struct Lstm {
    gpu: Gpu,
    hidden: usize,
}

/// The states of a sequence.
#[derive(Debug)]
pub struct LstmStates {
    /// `[T,N,H]`: what others see.
    pub h: Buffer<f32>,
    /// `[T,N,H]`: the cells.
    pub c: Buffer<f32>,
    /// `[N,H]`: `h` at the end of each row's sequence.
    pub last: Buffer<f32>,
    /// `[N,H]`: `c` at the end of each row's sequence.
    pub last_c: Buffer<f32>,
}

/// What the backward pass writes, and the room it needs.
#[derive(Debug)]
pub struct LstmGradients {
    /// `[H,4·H]`.
    pub w_bar: Buffer<f32>,
    /// `[T,N,4·H]`.
    pub ux_bar: Buffer<f32>,
    /// `[N,H]`.
    pub h0_bar: Buffer<f32>,
    /// `[N,H]`.
    pub c0_bar: Buffer<f32>,
    before: Buffer<f32>,
    room: Buffer<f32>,
}

impl Lstm {
    /// A network with `hidden` states. Errors: none or more than 2^15 of them.
    pub fn new(gpu: &Gpu, hidden: usize) -> Result<Lstm> {
        Ok(Lstm { gpu: gpu.clone(), hidden: check_hidden("lstm", hidden)? })
    }

    fn plan(&self, rows: usize, backward: bool) -> Result<(Kernel<'static>, Grid)> {
        let (h, threads) = (self.hidden as u64, threads(4 * self.hidden));
        let (wide, narrow) = ((4 * h).max(u64::from(threads)), h.max(u64::from(threads)));
        let (names, floats) = match backward {
            false => (["lstm_forward_shared", "lstm_forward_global"], 2 * h + wide),
            true => (["lstm_backward_shared", "lstm_backward_global"], 6 * h + wide + narrow),
        };
        choose(&self.gpu, &LSTM, names, threads, (floats, h * (4 * h + 1)), rows)
    }

    fn arguments(inputs: &Inputs<'_>, c0: Option<&Buffer<f32>>) -> Vec<Arg> {
        let Inputs { w, ux, h0, lengths } = inputs;
        vec![w.input(), ux.input(), optional(*h0), optional(c0), optional(*lengths)]
    }

    fn sizes(&self, steps: usize, rows: usize) -> [Arg; 3] {
        [Arg::I64(steps as i64), Arg::I64(rows as i64), Arg::I32(self.hidden as i32)]
    }

    fn check(&self, name: &'static str, (steps, rows): (usize, usize), states: &LstmStates) -> Result<()> {
        for (argument, buffer) in [("h [T,N,H]", &states.h), ("c [T,N,H]", &states.c)] {
            Expect::new(name, argument, &[steps, rows, self.hidden])?.of(buffer)?;
        }
        for (argument, buffer) in [("last [N,H]", &states.last), ("last_c [N,H]", &states.last_c)] {
            Expect::new(name, argument, &[rows, self.hidden])?.of(buffer)?;
        }
        Ok(())
    }

    /// Room for what [`Lstm::forward`] writes. Errors: out of memory.
    pub fn states(&self, steps: usize, rows: usize) -> Result<LstmStates> {
        let (states, gpu) = (steps * rows * self.hidden, &self.gpu);
        Ok(LstmStates {
            h: gpu.uninitialized(states)?,
            c: gpu.uninitialized(states)?,
            last: gpu.uninitialized(rows * self.hidden)?,
            last_c: gpu.uninitialized(rows * self.hidden)?,
        })
    }

    /// The states of `steps` steps of `rows` rows; `c0 [N,H]`: the first cells, zeros if there are none. 0 from the
    /// end of a row's sequence on. One launch. Errors: sizes that do not fit.
    pub fn forward(
        &self,
        steps: usize,
        rows: usize,
        inputs: Inputs<'_>,
        c0: Option<&Buffer<f32>>,
        out: &mut LstmStates,
    ) -> Result<()> {
        let (kernel, grid) = self.plan(rows, false)?;
        check_inputs(kernel.name, steps, rows, (self.hidden, 4), &inputs)?;
        Expect::new(kernel.name, "c0 [N,H]", &[rows, self.hidden])?.of_any(c0)?;
        self.check(kernel.name, (steps, rows), out)?;
        let mut args = Self::arguments(&inputs, c0);
        args.extend([out.h.output(), out.c.output(), out.last.output(), out.last_c.output()]);
        args.extend(self.sizes(steps, rows));
        self.gpu.launch(kernel, grid, &args)
    }

    /// Room for what [`Lstm::backward`] writes. Errors: out of memory.
    pub fn gradients(&self, steps: usize, rows: usize) -> Result<LstmGradients> {
        let (h, gpu) = (self.hidden, &self.gpu);
        let states = steps * rows * h;
        Ok(LstmGradients {
            w_bar: gpu.uninitialized(4 * h * h)?,
            ux_bar: gpu.uninitialized(4 * states)?,
            h0_bar: gpu.uninitialized(rows * h)?,
            c0_bar: gpu.uninitialized(rows * h)?,
            before: gpu.uninitialized(states)?,
            room: gpu.uninitialized(room(h, 4 * h, steps * rows))?,
        })
    }

    /// Gradients for cotangents of the states that [`Lstm::forward`] gave; `last_c_bar [N,H]` is that of the last
    /// cells. One launch for the sequence, and two for the gradient of `W`. Errors: as [`Lstm::forward`].
    pub fn backward(
        &self,
        steps: usize,
        rows: usize,
        inputs: (Inputs<'_>, Option<&Buffer<f32>>),
        states: &LstmStates,
        (cotangents, last_c_bar): (Cotangents<'_>, Option<&Buffer<f32>>),
        out: &mut LstmGradients,
    ) -> Result<()> {
        let (kernel, grid) = self.plan(rows, true)?;
        let (hidden, (inputs, c0)) = (self.hidden, inputs);
        check_inputs(kernel.name, steps, rows, (hidden, 4), &inputs)?;
        check_cotangents(kernel.name, steps, rows, hidden, &states.h, &cotangents)?;
        self.check(kernel.name, (steps, rows), states)?;
        Expect::new(kernel.name, "c0 [N,H]", &[rows, hidden])?.of_any(c0)?;
        Expect::new(kernel.name, "last_c_bar [N,H]", &[rows, hidden])?.of_any(last_c_bar)?;
        Expect::new(kernel.name, "ux_bar [T,N,4·H]", &[steps, rows, 4 * hidden])?.of(&out.ux_bar)?;
        Expect::new(kernel.name, "h0_bar [N,H]", &[rows, hidden])?.of(&out.h0_bar)?;
        let mut args = Self::arguments(&inputs, c0);
        args.extend([states.h.input(), states.c.input()]);
        args.extend([optional(cotangents.h_bar), optional(cotangents.last_bar), optional(last_c_bar)]);
        args.extend([out.ux_bar.output(), out.before.output(), out.h0_bar.output(), out.c0_bar.output()]);
        args.extend(self.sizes(steps, rows));
        self.gpu.launch(kernel, grid, &args)?;
        let before = Matrix::new(&out.before, steps * rows, hidden).transposed();
        let of_argument = Matrix::new(&out.ux_bar, steps * rows, 4 * hidden);
        accumulate(&self.gpu, before, of_argument, &mut out.room, &mut out.w_bar, (4 * hidden, 0))
    }
}
