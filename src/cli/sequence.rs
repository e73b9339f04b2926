//! Cells that have kernels for whole sequences, on random numbers: what `retrograd device` times.

use clap::ValueEnum;
use retrograd::cuda::kernels::gru::{Gru, GruGradients};
use retrograd::cuda::kernels::irnn::{Irnn, IrnnGradients, IrnnInputs, IrnnSpec, Phi};
use retrograd::cuda::kernels::kru::{Activation, Kru, KruCotangents, KruGradients, KruInputs};
use retrograd::cuda::kernels::lstm::{Lstm, LstmGradients, LstmStates};
use retrograd::cuda::kernels::rnn::{Rnn, RnnCotangents, RnnGradients, RnnInputs};
use retrograd::cuda::{Buffer, Error, Gpu};

use super::Result;

/// A cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Sequence {
    /// Kronecker recurrent unit, complex, factors of 2x2
    Kru,
    /// tanh network with a full matrix
    Rnn,
    /// GRU with full matrices
    Gru,
    /// LSTM with full matrices
    Lstm,
    /// iRNN with a full matrix and 5 inner steps
    Irnn,
}

/// The two passes over a sequence. The cotangent is that of the last state.
pub(super) trait Passes {
    fn forward(&mut self) -> Result<(), Error>;
    fn backward(&mut self) -> Result<(), Error>;
}

/// Everything on the device that a pass needs. Errors: sizes the kernels do not take; out of memory.
pub(super) fn passes(
    gpu: &Gpu,
    cell: Sequence,
    hidden: usize,
    steps: usize,
    rows: usize,
) -> Result<Box<dyn Passes>> {
    let size = (steps, rows);
    let scale = (3.0 / hidden as f32).sqrt();
    let dense = |gates: usize| -> Result<Dense, Error> {
        Ok(Dense {
            size,
            w: numbers(gpu, hidden * gates * hidden, scale)?,
            ux: numbers(gpu, steps * rows * gates * hidden, 1.0)?,
            last_bar: numbers(gpu, rows * hidden, 1.0)?,
            h: gpu.zeros(steps * rows * hidden)?,
            last: gpu.zeros(rows * hidden)?,
        })
    };
    Ok(match cell {
        Sequence::Kru => {
            let (factors, form) = (vec![2; hidden.ilog2() as usize], Activation::Exact);
            if !hidden.is_power_of_two() {
                let reason =
                    format!("{hidden} is not a power of two, which the KRU with factors of 2x2 needs");
                return Err(retrograd::Error::config("hidden", reason));
            }
            let (unit, states) = (Kru::new(gpu, &factors, form)?, steps * rows * hidden * 2);
            Box::new(OfKru {
                size,
                factors: numbers(gpu, 8 * factors.len(), 0.9)?,
                ux: numbers(gpu, states, 1.0)?,
                b: numbers(gpu, hidden, 0.01)?,
                last_bar: numbers(gpu, rows * hidden * 2, 1.0)?,
                h: gpu.zeros(states)?,
                last: gpu.zeros(rows * hidden * 2)?,
                out: unit.gradients(steps, rows)?,
                unit,
            })
        }
        Sequence::Rnn => {
            let net = Rnn::new(gpu, hidden, Activation::Tanh)?;
            Box::new(OfRnn { on: dense(1)?, out: net.gradients(steps, rows)?, net })
        }
        Sequence::Gru => {
            let net = Gru::new(gpu, hidden)?;
            Box::new(OfGru { on: dense(3)?, out: net.gradients(steps, rows)?, net })
        }
        Sequence::Lstm => {
            let net = Lstm::new(gpu, hidden)?;
            let (states, out) = (net.states(steps, rows)?, net.gradients(steps, rows)?);
            Box::new(OfLstm { on: dense(4)?, states, out, net })
        }
        Sequence::Irnn => {
            let spec =
                IrnnSpec { hidden, rank: None, inner: 5, alpha: 1.0, phi: Phi::Relu, from_zero: false };
            let net = Irnn::new(gpu, spec)?;
            Box::new(OfIrnn {
                on: dense(1)?,
                eta: numbers(gpu, 5, 0.1)?,
                out: net.gradients(steps, rows)?,
                net,
            })
        }
    })
}

/// Numbers between -scale and scale, the same every time.
fn numbers(gpu: &Gpu, len: usize, scale: f32) -> Result<Buffer<f32>, Error> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * scale
    };
    gpu.upload(&(0..len).map(|_| next()).collect::<Vec<f32>>())
}

struct OfKru {
    size: (usize, usize),
    unit: Kru,
    factors: Buffer<f32>,
    ux: Buffer<f32>,
    b: Buffer<f32>,
    last_bar: Buffer<f32>,
    h: Buffer<f32>,
    last: Buffer<f32>,
    out: KruGradients,
}

impl Passes for OfKru {
    fn forward(&mut self) -> Result<(), Error> {
        let inputs =
            KruInputs { factors: &self.factors, ux: &self.ux, b: Some(&self.b), h0: None, lengths: None };
        self.unit.forward(self.size.0, self.size.1, inputs, &mut self.h, &mut self.last)
    }

    fn backward(&mut self) -> Result<(), Error> {
        let inputs =
            KruInputs { factors: &self.factors, ux: &self.ux, b: Some(&self.b), h0: None, lengths: None };
        let bars = KruCotangents { h_bar: None, last_bar: Some(&self.last_bar) };
        self.unit.backward(self.size.0, self.size.1, inputs, &self.h, bars, &mut self.out)
    }
}

/// What all cells with full matrices have.
struct Dense {
    size: (usize, usize),
    w: Buffer<f32>,
    ux: Buffer<f32>,
    last_bar: Buffer<f32>,
    h: Buffer<f32>,
    last: Buffer<f32>,
}

impl Dense {
    fn bars(&self) -> RnnCotangents<'_> {
        RnnCotangents { h_bar: None, last_bar: Some(&self.last_bar) }
    }
}

struct OfRnn {
    on: Dense,
    net: Rnn,
    out: RnnGradients,
}

impl Passes for OfRnn {
    fn forward(&mut self) -> Result<(), Error> {
        let on = &mut self.on;
        let inputs = RnnInputs { w: &on.w, ux: &on.ux, h0: None, lengths: None };
        self.net.forward(on.size.0, on.size.1, inputs, &mut on.h, &mut on.last)
    }

    fn backward(&mut self) -> Result<(), Error> {
        let on = &self.on;
        let inputs = RnnInputs { w: &on.w, ux: &on.ux, h0: None, lengths: None };
        self.net.backward(on.size.0, on.size.1, inputs, &on.h, on.bars(), &mut self.out)
    }
}

struct OfGru {
    on: Dense,
    net: Gru,
    out: GruGradients,
}

impl Passes for OfGru {
    fn forward(&mut self) -> Result<(), Error> {
        let on = &mut self.on;
        let inputs = RnnInputs { w: &on.w, ux: &on.ux, h0: None, lengths: None };
        self.net.forward(on.size.0, on.size.1, inputs, &mut on.h, &mut on.last)
    }

    fn backward(&mut self) -> Result<(), Error> {
        let on = &self.on;
        let inputs = RnnInputs { w: &on.w, ux: &on.ux, h0: None, lengths: None };
        self.net.backward(on.size.0, on.size.1, inputs, &on.h, on.bars(), &mut self.out)
    }
}

struct OfLstm {
    on: Dense,
    net: Lstm,
    states: LstmStates,
    out: LstmGradients,
}

impl Passes for OfLstm {
    fn forward(&mut self) -> Result<(), Error> {
        let on = &self.on;
        let inputs = RnnInputs { w: &on.w, ux: &on.ux, h0: None, lengths: None };
        self.net.forward(on.size.0, on.size.1, inputs, None, &mut self.states)
    }

    fn backward(&mut self) -> Result<(), Error> {
        let on = &self.on;
        let inputs = RnnInputs { w: &on.w, ux: &on.ux, h0: None, lengths: None };
        let (steps, rows) = on.size;
        self.net.backward(steps, rows, (inputs, None), &self.states, (on.bars(), None), &mut self.out)
    }
}

struct OfIrnn {
    on: Dense,
    eta: Buffer<f32>,
    net: Irnn,
    out: IrnnGradients,
}

impl Passes for OfIrnn {
    fn forward(&mut self) -> Result<(), Error> {
        let on = &mut self.on;
        let inputs = IrnnInputs { w: &on.w, eta: &self.eta, ux: &on.ux, h0: None, lengths: None };
        self.net.forward(on.size.0, on.size.1, inputs, &mut on.h, &mut on.last)
    }

    fn backward(&mut self) -> Result<(), Error> {
        let on = &self.on;
        let inputs = IrnnInputs { w: &on.w, eta: &self.eta, ux: &on.ux, h0: None, lengths: None };
        self.net.backward(on.size.0, on.size.1, inputs, &on.h, on.bars(), &mut self.out)
    }
}
