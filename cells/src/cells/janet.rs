//! JANET: just another network, an LSTM that has its forget gate alone.
//!
//! Van der Westhuizen, Lasenby, 2018, "The unreasonable effectiveness of the forget gate", arXiv:1804.04849. Letters of
//! the paper in brackets where they differ: recurrent `W` \[`U`\], input `U` \[`W`\].
//!
//! ```text
//! s_t = W_f h_{t−1} + U_f x_t + b_f                      (1)
//! n_t = tanh(W_n h_{t−1} + U_n x_t + b_n)                (2)  candidate [c̃]
//! h_t = σ(s_t) ⊙ h_{t−1} + (1 − σ(s_t − β)) ⊙ n_t        (3)  [c_t; h_t = c_t]
//! ```
//!
//! | symbol | shape | initialization | meaning |
//! |---|---|---|---|
//! | `U` | `[C, 2·H]` | Glorot for each gate | input weights, gates in the order f, n |
//! | `W` | the operator's, 2 gates | `recurrent_init`, else the operator's | recurrent weights |
//! | `b` | `[2·H]` | `b_f = forget_bias`, `b_n = 0`; chrono: `b_f = log U(1, Tmax−1)` | biases |
//! | `h` | `[N, H]` | 0 or learned | state |
//!
//! `2·(N² + C·N + N)` numbers on dense matrices. `β` lets a little more in than is forgotten.
//!
//! **Differs from the paper**: nothing. The authors' program draws the chrono bias from `log U(1, Tmax)`, the paper it
//! cites (Tallec, Ollivier, 2018) from `log U(1, Tmax−1)`, as here.

use std::sync::Arc;

use num_complex::Complex64;
use retrograd_engine::{Tape, Tensor, Var};
use retrograd_ops as ops;

use crate::cell::{BoundCell, Cell, Input, InputMap, StatePart};
use crate::cells::lstm::{CHRONO, chrono_option};
use crate::cells::rnn::RECURRENT_INIT;
use crate::declare::Declare;
use crate::error::Result;
use crate::init::{Init, chrono};
use crate::operator::{BoundOperator, Recurrence, RecurrentOperator};
use crate::settings::{OptionDoc, Options};
use crate::table::CellEntry;

/// LSTM of a forget gate alone; see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Janet {
    /// First value of `b_f`; without meaning under `chrono`.
    pub forget_bias: f64,
    /// `Tmax` of the chrono initialization, at least 3.
    pub chrono: Option<usize>,
    /// `β`.
    pub beta: f64,
    /// How the recurrent matrices begin; `None` leaves it to the operator.
    pub recurrent_init: Option<Init>,
}

impl Default for Janet {
    fn default() -> Janet {
        Janet { forget_bias: 1.0, chrono: None, beta: 1.0, recurrent_init: None }
    }
}

/// Table entry of [`Janet`].
pub const JANET: CellEntry = CellEntry {
    name: "janet",
    summary: "LSTM with a forget gate alone",
    operator: "dense",
    options: &[
        OptionDoc { key: "forget_bias", default: "1", doc: "first value of the forget gate's bias" },
        CHRONO,
        OptionDoc { key: "beta", default: "1", doc: "what is taken from the gate of the candidate" },
        RECURRENT_INIT,
    ],
    build: |options: &Options<'_>| {
        Ok(Arc::new(Janet {
            forget_bias: options.number("forget_bias")?,
            chrono: chrono_option(options)?,
            beta: options.number("beta")?,
            recurrent_init: options.init("recurrent_init")?,
        }))
    },
};

const GATES: [&str; 2] = ["f", "n"];

impl Cell for Janet {
    fn name(&self) -> &'static str {
        JANET.name
    }

    fn declare(
        &self,
        ctx: &mut Declare<'_>,
        input: Input,
        hidden: usize,
        operator: &dyn RecurrentOperator,
    ) -> Result<Box<dyn BoundCell>> {
        let u = InputMap::declare(ctx, input, GATES.len(), hidden, false, Init::Glorot)?;
        let init = self.recurrent_init;
        let w = Recurrence { name: "W", gates: &GATES, n: hidden, complex: false, init };
        let w = operator.declare(ctx, w)?;
        let (dtype, dims) = (ctx.dtype(false), [GATES.len() * hidden]);
        let b = ctx.real_with("b", &dims, |rng| {
            let forget = match self.chrono {
                Some(steps) => chrono(JANET.name, steps, hidden, rng)?,
                None => vec![self.forget_bias; hidden],
            };
            let mut b = Tensor::zeros(dtype, dims)?;
            b.fill_with(|k| Complex64::new(forget.get(k).copied().unwrap_or(0.0), 0.0));
            Ok(b)
        })?;
        Ok(Box::new(BoundJanet { u: u.with_bias(b), w, beta: self.beta, hidden }))
    }
}

#[derive(Debug)]
struct BoundJanet {
    u: InputMap,
    w: Box<dyn BoundOperator>,
    beta: f64,
    hidden: usize,
}

impl BoundCell for BoundJanet {
    fn state(&self) -> Vec<StatePart> {
        vec![StatePart { name: "h", width: self.hidden, complex: false }]
    }

    fn step(&self, tape: &mut Tape, state: &[Var], x: Var) -> retrograd_engine::Result<Vec<Var>> {
        let h = state[0];
        let ux = self.u.apply(tape, x)?;
        let wh = self.w.apply_all(tape, h, 0..GATES.len())?;
        let s = ops::add(tape, wh[0], ux[0])?; // eq. (1)
        let n = ops::add(tape, wh[1], ux[1])?; // eq. (2)
        let n = ops::tanh(tape, n)?; // eq. (2)
        let keep = ops::sigmoid(tape, s)?; // eq. (3)
        let write = ops::affine(tape, s, -1.0, self.beta)?; // eq. (3), 1 − σ(s − β) = σ(β − s)
        let write = ops::sigmoid(tape, write)?;
        let kept = ops::mul(tape, keep, h)?;
        let written = ops::mul(tape, write, n)?;
        Ok(vec![ops::add(tape, kept, written)?])
    }
}
