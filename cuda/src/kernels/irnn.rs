//! The iRNN over a whole sequence with all inner steps, one launch forward and one backward.
//!
//! ```text
//! g_0 = h_{t−1}, or 0;  s_k = g_{k−1} + h_{t−1};  g_k = g_{k−1} + η_{t,k} (φ(z_k) − α s_k);  h_t = g_K
//! full:  z_k = s_k W + ux_t            thin:  z_k = s_k + (s_k A) B + ux_t
//! ```
//!
//! The published form, which applies `I + V H` twice, is the thin one with the square multiplied out:
//! `(I + A B)² = I + A (2 I + B A) B`. Where the matrices lie: as in [`rnn`](super::rnn). The backward pass keeps the
//! states alone and takes the inner steps again; the gradient of the matrices is a product over all inner steps.

use super::dense::{Cotangents, choose, threads};
use super::kru::optional;
use super::matmul::{Matrix, accumulate, matmul, room};
use super::reduce::sum_rows;
use super::rnn::{check_cotangents, check_hidden};
use super::{Expect, IRNN, fit};
use crate::driver::{Arg, Grid, Kernel};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Gpu};

/// The nonlinearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phi {
    /// Hyperbolic tangent.
    Tanh,
    /// Rectifier.
    Relu,
    /// Logistic sigmoid.
    Sigmoid,
}

/// What a network is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IrnnSpec {
    /// `H`.
    pub hidden: usize,
    /// `D`: columns of `A`; none: a full matrix.
    pub rank: Option<usize>,
    /// `K`, at least 1.
    pub inner: usize,
    /// `α`.
    pub alpha: f32,
    /// `φ`.
    pub phi: Phi,
    /// Whether `g_0` is 0 instead of the state.
    pub from_zero: bool,
}

/// What both directions read.
#[derive(Clone, Copy, Debug)]
pub struct IrnnInputs<'a> {
    /// `[H,H]`; of a thin matrix `A [H,D]` and behind it `B [D,H]`.
    pub w: &'a Buffer<f32>,
    /// `[S,K]`: step sizes of the first S steps; later ones take the last row.
    pub eta: &'a Buffer<f32>,
    /// `[T,N,H]`: input side of every step, bias included.
    pub ux: &'a Buffer<f32>,
    /// `[N,H]`: first state; none: zeros.
    pub h0: Option<&'a Buffer<f32>>,
    /// `[N]`: steps of each row, cut to 0..T; none: T.
    pub lengths: Option<&'a Buffer<i32>>,
}

/// A network on a device.
#[derive(Debug)]
pub struct Irnn {
    gpu: Gpu,
    spec: IrnnSpec,
}

/// What the backward pass writes, and the room it needs.
#[derive(Debug)]
pub struct IrnnGradients {
    /// As `w`.
    pub w_bar: Buffer<f32>,
    /// `[T,K]`: of the step sizes used at each step. Where steps share a row of `eta`, its gradient is their sum.
    pub eta_bar: Buffer<f32>,
    /// `[T,N,H]`.
    pub ux_bar: Buffer<f32>,
    /// `[N,H]`.
    pub h0_bar: Buffer<f32>,
    /// `[T,K,N,H]`: `s_k` and the cotangent of `z_k`.
    inner: (Buffer<f32>, Buffer<f32>),
    eta_of_rows: Buffer<f32>,
    /// Of a thin matrix `[T·K·N, D]`: one side of each gradient.
    thin: Buffer<f32>,
    room: Buffer<f32>,
}

impl Irnn {
    /// A network. Errors: a size that is 0 or more than 2^15; more than 2^12 inner steps.
    pub fn new(gpu: &Gpu, spec: IrnnSpec) -> Result<Irnn> {
        check_hidden("irnn", spec.hidden)?;
        check_hidden("irnn", spec.rank.unwrap_or(1))?;
        if !(1..=1 << 12).contains(&spec.inner) {
            let (got, expected) = (spec.inner.to_string(), "1 to 4096".into());
            return Err(Error::Unsupported {
                kernel: "irnn",
                argument: "number of inner steps",
                got,
                expected,
            });
        }
        Ok(Irnn { gpu: gpu.clone(), spec })
    }

    fn plan(&self, rows: usize, backward: bool) -> Result<(Kernel<'static>, Grid)> {
        let (h, k) = (self.spec.hidden as u64, self.spec.inner as u64);
        let threads = threads(self.spec.hidden);
        let wide = |n: u64| n.max(u64::from(threads));
        let (names, floats) = match backward {
            false => (["irnn_forward_shared", "irnn_forward_global"], 3 * h + wide(h)),
            true => (["irnn_backward_shared", "irnn_backward_global"], (k + 4) * h + 32 + 2 * wide(h)),
        };
        let (thin, matrix) = match self.spec.rank {
            None => (0, h * (h + 1)),
            Some(d) => (d as u64 + wide(d as u64), h * (d as u64 + 1) + d as u64 * (h + 1)),
        };
        choose(&self.gpu, &IRNN, names, threads, (floats + thin, matrix), rows)
    }

    fn matrix_len(&self) -> usize {
        self.spec.hidden * self.spec.rank.map_or(self.spec.hidden, |d| 2 * d)
    }

    fn check(&self, name: &'static str, steps: usize, rows: usize, inputs: &IrnnInputs<'_>) -> Result<usize> {
        let IrnnSpec { hidden, inner, .. } = self.spec;
        fit::<i32>(name, "number of steps", steps)?;
        Expect::new(name, "w", &[self.matrix_len()])?.of(inputs.w)?;
        let eta_rows = (inputs.eta.len() / inner).max(1);
        Expect::new(name, "eta [S,K]", &[eta_rows, inner])?.of(inputs.eta)?;
        Expect::new(name, "ux [T,N,H]", &[steps, rows, hidden])?.of(inputs.ux)?;
        Expect::new(name, "h0 [N,H]", &[rows, hidden])?.of_any(inputs.h0)?;
        Expect::new(name, "lengths [N]", &[rows])?.of_any(inputs.lengths)?;
        Ok(eta_rows)
    }

    fn arguments(inputs: &IrnnInputs<'_>) -> Vec<Arg> {
        let IrnnInputs { w, eta, ux, h0, lengths } = inputs;
        vec![w.input(), eta.input(), ux.input(), optional(*h0), optional(*lengths)]
    }

    fn sizes(&self, steps: usize, rows: usize, eta_rows: usize) -> Vec<Arg> {
        let spec = &self.spec;
        let form = match spec.phi {
            Phi::Tanh => 16,
            Phi::Relu => 17,
            Phi::Sigmoid => 20,
        };
        let mut args = vec![Arg::I64(steps as i64), Arg::I64(rows as i64)];
        let counts = [spec.hidden, spec.rank.unwrap_or(0), spec.inner, eta_rows.min(i32::MAX as usize)];
        args.extend(counts.map(|n| Arg::I32(n as i32)));
        args.extend([Arg::F32(spec.alpha), Arg::I32(form), Arg::I32(spec.from_zero.into())]);
        args
    }

    /// The states of `steps` steps of `rows` rows, into `h [T,N,H]`, 0 from the end of a row's sequence on, and the
    /// state at that end, into `last [N,H]`. One launch. Errors: sizes that do not fit.
    pub fn forward(
        &self,
        steps: usize,
        rows: usize,
        inputs: IrnnInputs<'_>,
        h: &mut Buffer<f32>,
        last: &mut Buffer<f32>,
    ) -> Result<()> {
        let (kernel, grid) = self.plan(rows, false)?;
        let eta_rows = self.check(kernel.name, steps, rows, &inputs)?;
        Expect::new(kernel.name, "h [T,N,H]", &[steps, rows, self.spec.hidden])?.of(h)?;
        Expect::new(kernel.name, "last [N,H]", &[rows, self.spec.hidden])?.of(last)?;
        let mut args = Self::arguments(&inputs);
        args.extend([h.output(), last.output()]);
        args.extend(self.sizes(steps, rows, eta_rows));
        self.gpu.launch(kernel, grid, &args)
    }

    /// Room for what [`Irnn::backward`] writes. Errors: out of memory.
    pub fn gradients(&self, steps: usize, rows: usize) -> Result<IrnnGradients> {
        let (IrnnSpec { hidden: h, inner: k, rank, .. }, gpu) = (self.spec, &self.gpu);
        let sums = steps * rows * k;
        let d = rank.unwrap_or(0);
        Ok(IrnnGradients {
            w_bar: gpu.uninitialized(self.matrix_len())?,
            eta_bar: gpu.uninitialized(steps * k)?,
            ux_bar: gpu.uninitialized(steps * rows * h)?,
            h0_bar: gpu.uninitialized(rows * h)?,
            inner: (gpu.uninitialized(sums * h)?, gpu.uninitialized(sums * h)?),
            eta_of_rows: gpu.uninitialized(sums)?,
            thin: gpu.uninitialized(sums * d)?,
            room: gpu.uninitialized(room(h, rank.unwrap_or(h), sums))?,
        })
    }

    /// Gradients for cotangents of the states `h [T,N,H]` that [`Irnn::forward`] gave. One launch for the sequence, the
    /// rest are products and sums. Errors: as [`Irnn::forward`].
    pub fn backward(
        &self,
        steps: usize,
        rows: usize,
        inputs: IrnnInputs<'_>,
        h: &Buffer<f32>,
        cotangents: Cotangents<'_>,
        out: &mut IrnnGradients,
    ) -> Result<()> {
        let (kernel, grid) = self.plan(rows, true)?;
        let (hidden, gpu) = (self.spec.hidden, &self.gpu);
        let eta_rows = self.check(kernel.name, steps, rows, &inputs)?;
        check_cotangents(kernel.name, steps, rows, hidden, h, &cotangents)?;
        Expect::new(kernel.name, "ux_bar [T,N,H]", &[steps, rows, hidden])?.of(&out.ux_bar)?;
        Expect::new(kernel.name, "h0_bar [N,H]", &[rows, hidden])?.of(&out.h0_bar)?;
        let mut args = Self::arguments(&inputs);
        args.extend([h.input(), optional(cotangents.h_bar), optional(cotangents.last_bar)]);
        args.extend([out.ux_bar.output(), out.inner.0.output(), out.inner.1.output()]);
        args.extend([out.eta_of_rows.output(), out.h0_bar.output()]);
        args.extend(self.sizes(steps, rows, eta_rows));
        gpu.launch(kernel, grid, &args)?;
        sum_rows(gpu, rows, &out.eta_of_rows, &mut out.eta_bar)?;
        let sums = steps * rows * self.spec.inner;
        let (s, z_bar) = (Matrix::new(&out.inner.0, sums, hidden), Matrix::new(&out.inner.1, sums, hidden));
        let Some(d) = self.spec.rank else {
            return accumulate(gpu, s.transposed(), z_bar, &mut out.room, &mut out.w_bar, (hidden, 0));
        };
        let split = hidden * d;
        let (a, b) = (Matrix::new(inputs.w, hidden, d), Matrix::new(inputs.w, d, hidden).after(split));
        matmul(gpu, z_bar, b.transposed(), None, &mut out.thin)?;
        let thin = Matrix::new(&out.thin, sums, d);
        accumulate(gpu, s.transposed(), thin, &mut out.room, &mut out.w_bar, (d, 0))?;
        matmul(gpu, s, a, None, &mut out.thin)?;
        let thin = Matrix::new(&out.thin, sums, d);
        accumulate(gpu, thin.transposed(), z_bar, &mut out.room, &mut out.w_bar, (hidden, split))
    }
}
