//! The Kronecker recurrent unit over a whole sequence, one launch forward and one backward.
//!
//! ```text
//! z_t = (W_0 ⊗ … ⊗ W_{F−1}) h_{t−1} + ux_t,   h_t = act(z_t; b)
//! ```
//!
//! What depends on the input alone, `ux_t = U x_t`, comes in from outside as one product over all steps; the
//! cotangent `ux_bar` goes out the same way and is all that the gradients of `U` and of `x` need. A row of the batch
//! is a block, which keeps its state in registers and shared memory and waits for no other block. The backward pass
//! keeps nothing but the states: it forms the inner products of every step again. Gradients of factors are summed by
//! each row over its steps, and over the rows by [`sum_rows`], always in the same order.
//!
//! A chain of 7 to 11 factors of 2x2 (H = 128 … 2048) runs eight elements to a thread, three factors without leaving
//! registers; all other factors run through shared memory.

use super::reduce::sum_rows;
use super::{Expect, KRU, KRU_CHAIN, fit};
use crate::driver::{Arg, Grid, Kernel};
use crate::error::{Error, Result, times};
use crate::gpu::{Buffer, Gpu};

/// What becomes of a pre-activation. The forms of modReLU are those of `retrograd_ops::ModReluForm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// modReLU as published, nothing added.
    Exact,
    /// modReLU of the restricted-capacity uRNN's program.
    RcUrnn,
    /// modReLU of the full-capacity uRNN's program.
    FcUrnn,
    /// modReLU of the low-rank plus diagonal networks' program.
    Lrd,
    /// modReLU of the EURNN's program.
    Eurnn,
    /// Hyperbolic tangent; real.
    Tanh,
    /// Rectifier; real.
    Relu,
    /// Rectifier with slope 0.1 below 0; real.
    LeakyRelu,
}

impl Activation {
    /// Number in `activation.cuh`.
    pub(crate) fn code(self) -> i32 {
        match self {
            Activation::Exact => 0,
            Activation::RcUrnn => 1,
            Activation::FcUrnn => 2,
            Activation::Lrd => 3,
            Activation::Eurnn => 4,
            Activation::Tanh => 16,
            Activation::Relu => 17,
            Activation::LeakyRelu => 18,
        }
    }

    /// Whether it is one of complex numbers.
    pub fn is_complex(self) -> bool {
        self.code() < 16
    }
}

/// Buffers that both directions read. Complex numbers are two `f32`, real part first.
#[derive(Clone, Copy, Debug)]
pub struct KruInputs<'a> {
    /// `[Σ P_f²]`: the factors one after the other, row by row.
    pub factors: &'a Buffer<f32>,
    /// `[T,N,H]`: the input side of every step.
    pub ux: &'a Buffer<f32>,
    /// `[H]`, real: bias of the modulus; none for a real activation.
    pub b: Option<&'a Buffer<f32>>,
    /// `[N,H]`: first state; none: zeros.
    pub h0: Option<&'a Buffer<f32>>,
    /// `[N]`: steps of each row, cut to 0..T; none: T.
    pub lengths: Option<&'a Buffer<i32>>,
}

/// Cotangents of the states.
#[derive(Clone, Copy, Debug, Default)]
pub struct KruCotangents<'a> {
    /// `[T,N,H]`: of every state `h`; none: zeros. Not read from the end of a row's sequence on.
    pub h_bar: Option<&'a Buffer<f32>>,
    /// `[N,H]`: of `last`; none: zeros.
    pub last_bar: Option<&'a Buffer<f32>>,
}

/// What the backward pass writes, and the room it needs.
#[derive(Debug)]
pub struct KruGradients {
    /// `[T,N,H]`.
    pub ux_bar: Buffer<f32>,
    /// `[N,H]`.
    pub h0_bar: Buffer<f32>,
    /// `[Σ P_f²]`.
    pub factors_bar: Buffer<f32>,
    /// `[H]`, real; empty for a real activation.
    pub b_bar: Buffer<f32>,
    /// `[N, Σ P_f²]` and `[N,H]`: sums of each row.
    of_rows: (Buffer<f32>, Buffer<f32>),
}

/// A unit of given sizes on a device.
#[derive(Debug)]
pub struct Kru {
    gpu: Gpu,
    factors: Vec<usize>,
    sizes: Buffer<i32>,
    hidden: usize,
    activation: Activation,
    /// Rounds of the kernel for chains, where it applies.
    rounds: Option<u32>,
}

const THREADS: u32 = 256;

impl Kru {
    /// A unit whose factors have these sizes, outermost first. Complex or real as the activation is.
    ///
    /// Errors: no factors or a factor of size 0; more than 2^20 states; out of memory.
    pub fn new(gpu: &Gpu, factors: &[usize], activation: Activation) -> Result<Kru> {
        let mut unit = Kru::general(gpu, factors, activation)?;
        if factors.iter().all(|f| *f == 2) && (7..=11).contains(&factors.len()) {
            unit.rounds = Some(factors.len().div_ceil(3) as u32);
        }
        Ok(unit)
    }

    /// The same, on the kernels for any factors even where there is a faster one. Errors: as [`Kru::new`].
    pub fn general(gpu: &Gpu, factors: &[usize], activation: Activation) -> Result<Kru> {
        let hidden = factors.iter().try_fold(1usize, |p, f| p.checked_mul(*f).filter(|p| *p <= 1 << 20));
        let Some(hidden) = hidden.filter(|h| *h > 0 && !factors.is_empty()) else {
            return Err(Error::Unsupported {
                kernel: "kru",
                argument: "factors",
                got: times(factors),
                expected: "sizes of at least 1 with a product of at most 2^20".into(),
            });
        };
        let sizes: Vec<i32> = factors.iter().map(|f| *f as i32).collect();
        let sizes = gpu.upload(&sizes)?;
        Ok(Kru { gpu: gpu.clone(), factors: factors.to_vec(), sizes, hidden, activation, rounds: None })
    }

    /// `H`.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// Reals in a number of the state.
    fn width(&self) -> usize {
        if self.activation.is_complex() { 2 } else { 1 }
    }

    fn entries(&self) -> usize {
        self.factors.iter().map(|f| f * f).sum::<usize>() * self.width()
    }

    /// Names of the kernels with `direction` (`forward`, `backward`).
    fn kernel(&self, backward: bool) -> Kernel<'static> {
        let (module, name) = match (self.rounds, backward, self.activation.is_complex()) {
            (None, false, false) => (&KRU, "kru_forward_real"),
            (None, false, true) => (&KRU, "kru_forward_complex"),
            (None, true, false) => (&KRU, "kru_backward_real"),
            (None, true, true) => (&KRU, "kru_backward_complex"),
            (Some(3), false, false) => (&KRU_CHAIN, "kru_chain_forward_real_3"),
            (Some(3), false, true) => (&KRU_CHAIN, "kru_chain_forward_complex_3"),
            (Some(3), true, false) => (&KRU_CHAIN, "kru_chain_backward_real_3"),
            (Some(3), true, true) => (&KRU_CHAIN, "kru_chain_backward_complex_3"),
            (Some(_), false, false) => (&KRU_CHAIN, "kru_chain_forward_real_4"),
            (Some(_), false, true) => (&KRU_CHAIN, "kru_chain_forward_complex_4"),
            (Some(_), true, false) => (&KRU_CHAIN, "kru_chain_backward_real_4"),
            (Some(_), true, true) => (&KRU_CHAIN, "kru_chain_backward_complex_4"),
        };
        Kernel { module, name }
    }

    /// Threads of a block and bytes of its shared memory.
    fn block(&self, backward: bool) -> (u32, u64) {
        let (h, f, number) = (self.hidden as u64, self.factors.len() as u64, 4 * self.width() as u64);
        match self.rounds {
            Some(rounds) => {
                let threads = self.hidden as u32 / 8;
                let (rounds, warps) = (u64::from(rounds), u64::from(threads.div_ceil(32)));
                let forward = 2 * (h + h / 8) + 4 * f;
                let extra = if backward { rounds * h + 12 * rounds * warps } else { 0 };
                (threads, number * (forward + extra))
            }
            None => {
                let threads = (self.hidden as u32).next_multiple_of(32).min(THREADS);
                let bytes = match backward {
                    false => number * 2 * h,
                    true => number * ((f + 2) * h + f * u64::from(threads)) + 4 * h,
                };
                (threads, bytes)
            }
        }
    }

    fn grid(&self, name: &'static str, rows: usize, backward: bool) -> Result<Grid> {
        let (threads, shared) = self.block(backward);
        let limit = u64::from(self.gpu.describe().shared_bytes);
        if shared > limit {
            return Err(Error::SharedMemory { kernel: name, asked: shared, limit });
        }
        Ok(Grid::row(fit::<i32>(name, "number of rows", rows)? as u32, threads, shared as u32))
    }

    fn check(&self, name: &'static str, steps: usize, rows: usize, inputs: &KruInputs<'_>) -> Result<()> {
        let (h, w) = (self.hidden, self.width());
        let expect = |argument: &str, sizes: &[usize]| Expect::new(name, argument, sizes);
        fit::<i32>(name, "number of steps", steps)?;
        expect("factors", &[self.entries()])?.of(inputs.factors)?;
        expect("ux [T,N,H,parts]", &[steps, rows, h, w])?.of(inputs.ux)?;
        expect("h0 [N,H,parts]", &[rows, h, w])?.of_any(inputs.h0)?;
        expect("lengths [N]", &[rows])?.of_any(inputs.lengths)?;
        match inputs.b {
            Some(b) if self.activation.is_complex() => expect("b [H]", &[h])?.of(b),
            None if !self.activation.is_complex() => Ok(()),
            b => Err(Error::Unsupported {
                kernel: name,
                argument: "b",
                got: if b.is_some() { "given".into() } else { "missing".into() },
                expected: format!("which is not what {:?} takes", self.activation),
            }),
        }
    }

    /// First arguments of every kernel.
    fn arguments(&self, inputs: &KruInputs<'_>) -> Vec<Arg> {
        let mut args = vec![inputs.factors.input()];
        match self.rounds {
            Some(_) => args.push(Arg::I32(self.factors.len() as i32)),
            None => args.extend([self.sizes.input(), Arg::I32(self.factors.len() as i32)]),
        }
        args.extend([inputs.ux.input(), optional(inputs.b), optional(inputs.h0), optional(inputs.lengths)]);
        args
    }

    /// Last arguments of every kernel.
    fn sizes(&self, steps: usize, rows: usize) -> Vec<Arg> {
        let mut args = vec![Arg::I64(steps as i64), Arg::I64(rows as i64)];
        if self.rounds.is_none() {
            args.push(Arg::I32(self.hidden as i32));
        }
        args.push(Arg::I32(self.activation.code()));
        args
    }

    /// The states of `steps` steps of `rows` rows, into `h [T,N,H]`, 0 from the end of a row's sequence on, and the
    /// state at that end, into `last [N,H]`. One launch.
    ///
    /// Errors: sizes that do not fit; factors that need more shared memory than a block has.
    pub fn forward(
        &self,
        steps: usize,
        rows: usize,
        inputs: KruInputs<'_>,
        h: &mut Buffer<f32>,
        last: &mut Buffer<f32>,
    ) -> Result<()> {
        let kernel = self.kernel(false);
        self.check(kernel.name, steps, rows, &inputs)?;
        Expect::new(kernel.name, "h [T,N,H,parts]", &[steps, rows, self.hidden, self.width()])?.of(h)?;
        Expect::new(kernel.name, "last [N,H,parts]", &[rows, self.hidden, self.width()])?.of(last)?;
        let grid = self.grid(kernel.name, rows, false)?;
        let mut args = self.arguments(&inputs);
        args.extend([h.output(), last.output()]);
        args.extend(self.sizes(steps, rows));
        self.gpu.launch(kernel, grid, &args)
    }

    /// Room for what [`Kru::backward`] writes. Errors: out of memory.
    pub fn gradients(&self, steps: usize, rows: usize) -> Result<KruGradients> {
        let (h, w, gpu) = (self.hidden, self.width(), &self.gpu);
        let b = if self.activation.is_complex() { h } else { 0 };
        let states = Expect::new("kru", "ux_bar [T,N,H,parts]", &[steps, rows, h, w])?.elements as usize;
        Ok(KruGradients {
            ux_bar: gpu.uninitialized(states)?,
            h0_bar: gpu.uninitialized(rows * h * w)?,
            factors_bar: gpu.uninitialized(self.entries())?,
            b_bar: gpu.uninitialized(b)?,
            of_rows: (gpu.uninitialized(rows * self.entries())?, gpu.uninitialized(rows * b)?),
        })
    }

    /// Gradients for cotangents of the states `h [T,N,H]` that [`Kru::forward`] gave. One launch, and one for each
    /// sum over rows.
    ///
    /// Errors: as [`Kru::forward`].
    pub fn backward(
        &self,
        steps: usize,
        rows: usize,
        inputs: KruInputs<'_>,
        h: &Buffer<f32>,
        cotangents: KruCotangents<'_>,
        out: &mut KruGradients,
    ) -> Result<()> {
        let kernel = self.kernel(true);
        let (hidden, w) = (self.hidden, self.width());
        let expect = |argument: &str, sizes: &[usize]| Expect::new(kernel.name, argument, sizes);
        self.check(kernel.name, steps, rows, &inputs)?;
        expect("h [T,N,H,parts]", &[steps, rows, hidden, w])?.of(h)?;
        expect("h_bar [T,N,H,parts]", &[steps, rows, hidden, w])?.of_any(cotangents.h_bar)?;
        expect("last_bar [N,H,parts]", &[rows, hidden, w])?.of_any(cotangents.last_bar)?;
        expect("ux_bar [T,N,H,parts]", &[steps, rows, hidden, w])?.of(&out.ux_bar)?;
        expect("h0_bar [N,H,parts]", &[rows, hidden, w])?.of(&out.h0_bar)?;
        expect("factors of rows", &[rows, self.entries()])?.of(&out.of_rows.0)?;
        let grid = self.grid(kernel.name, rows, true)?;
        let mut args = self.arguments(&inputs);
        args.extend([h.input(), optional(cotangents.h_bar), optional(cotangents.last_bar)]);
        let of_b = if self.activation.is_complex() { out.of_rows.1.output() } else { Arg::Address(0) };
        args.extend([out.ux_bar.output(), out.h0_bar.output(), out.of_rows.0.output(), of_b]);
        args.extend(self.sizes(steps, rows));
        self.gpu.launch(kernel, grid, &args)?;
        sum_rows(&self.gpu, rows, &out.of_rows.0, &mut out.factors_bar)?;
        if self.activation.is_complex() {
            sum_rows(&self.gpu, rows, &out.of_rows.1, &mut out.b_bar)?;
        }
        Ok(())
    }
}

/// The address of a buffer, or null.
pub(crate) fn optional<T: bytemuck::Pod>(buffer: Option<&Buffer<T>>) -> Arg {
    buffer.map_or(Arg::Address(0), Buffer::input)
}
