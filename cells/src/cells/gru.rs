//! GRU: gated recurrent unit.
//!
//! Cho et al., 2014, "Learning phrase representations using RNN encoder-decoder for statistical machine translation",
//! EMNLP (reset before the product); the variant with the reset after the product is that of Chung et al. and of
//! cuDNN. Letters here with those of Miceli Barone, 2018, "Low-rank passthrough neural networks", in brackets.
//!
//! ```text
//! r_t = σ(W_r h_{t−1} + U_r x_t + b_r)                      (1)   reset [ω]
//! z_t = σ(W_z h_{t−1} + U_z x_t + b_z)                      (2)   carry [γ]
//! n_t = tanh(W_n (r_t ⊙ h_{t−1}) + U_n x_t + b_n)           (3a)  proposal [π], reset before
//! n_t = tanh(r_t ⊙ (W_n h_{t−1} + d) + U_n x_t + b_n)       (3b)  proposal, reset after
//! h_t = (1 − z_t) ⊙ n_t + z_t ⊙ h_{t−1}                     (4)
//! ```
//!
//! | symbol | shape | initialization | meaning |
//! |---|---|---|---|
//! | `U` | `[C, 3·H]` | Glorot for each gate | input weights, gates in the order r, z, n |
//! | `W` | the operator's, 3 gates | `recurrent_init`, else the operator's | recurrent weights |
//! | `b` | `[3·H]` | 0; `b_z = carry_bias` | biases |
//! | `d` | `[H]` | 0 | bias inside the reset (reset after only) |
//! | `h` | `[N, H]` | 0 or learned | state |
//!
//! **Differs from the paper**: `z` is the share of the **old** state (as in Miceli Barone and in PyTorch); Cho et al.
//! write the equation that way, Chung et al. swap it. PyTorch keeps a second bias for r and z too, which adds nothing.

use std::sync::Arc;

use num_complex::Complex64;
use retrograd_engine::{Tape, Tensor, Var};
use retrograd_ops as ops;

use crate::cell::{BoundCell, Cell, Input, InputMap, StatePart};
use crate::cells::rnn::RECURRENT_INIT;
use crate::declare::Declare;
use crate::error::Result;
use crate::init::Init;
use crate::operator::{BoundOperator, Recurrence, RecurrentOperator};
use crate::settings::{OptionDoc, Options};
use crate::table::CellEntry;

/// Where the reset gate acts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reset {
    /// On the state, before the recurrent product: eq. (3a).
    #[default]
    Before,
    /// On the recurrent product: eq. (3b).
    After,
}

/// Gated recurrent unit; see the [module](self).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gru {
    /// Where the reset gate acts.
    pub reset: Reset,
    /// First value of `b_z`; large values carry the state for longer.
    pub carry_bias: f64,
    /// How the recurrent matrices begin; `None` leaves it to the operator.
    pub recurrent_init: Option<Init>,
}

/// Table entry of [`Gru`].
pub const GRU: CellEntry = CellEntry {
    name: "gru",
    summary: "gated recurrent unit, reset before or after the product (KRU-GRU with operator kron, LR-GRU and LRD-GRU with lr and lrd)",
    operator: "dense",
    options: &[
        OptionDoc { key: "reset", default: "before", doc: "before or after the recurrent product" },
        OptionDoc { key: "carry_bias", default: "0", doc: "first value of the carry gate's bias" },
        RECURRENT_INIT,
    ],
    build: |options: &Options<'_>| {
        Ok(Arc::new(Gru {
            reset: options.choice("reset", &[("before", Reset::Before), ("after", Reset::After)])?,
            carry_bias: options.number("carry_bias")?,
            recurrent_init: options.init("recurrent_init")?,
        }))
    },
};

const GATES: [&str; 3] = ["r", "z", "n"];

impl Cell for Gru {
    fn name(&self) -> &'static str {
        GRU.name
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
        let b = ctx.real_with("b", &dims, |_| {
            let mut b = Tensor::zeros(dtype, dims)?;
            b.fill_with(|k| Complex64::new(if k / hidden == 1 { self.carry_bias } else { 0.0 }, 0.0));
            Ok(b)
        })?;
        let d = match self.reset {
            Reset::Before => None,
            Reset::After => Some(ctx.real("d", &[hidden], Init::Zeros)?),
        };
        Ok(Box::new(BoundGru { u: u.with_bias(b), w, d, hidden }))
    }
}

#[derive(Debug)]
struct BoundGru {
    u: InputMap,
    w: Box<dyn BoundOperator>,
    /// Reset after the product, with this bias; before it if `None`.
    d: Option<Var>,
    hidden: usize,
}

impl BoundCell for BoundGru {
    fn state(&self) -> Vec<StatePart> {
        vec![StatePart { name: "h", width: self.hidden, complex: false }]
    }

    fn step(&self, tape: &mut Tape, state: &[Var], x: Var) -> retrograd_engine::Result<Vec<Var>> {
        let h = state[0];
        let ux = self.u.apply(tape, x)?;
        let products = if self.d.is_some() { 0..3 } else { 0..2 };
        let wh = self.w.apply_all(tape, h, products)?;
        let r = ops::add(tape, wh[0], ux[0])?; // eq. (1)
        let r = ops::sigmoid(tape, r)?; // eq. (1)
        let z = ops::add(tape, wh[1], ux[1])?; // eq. (2)
        let z = ops::sigmoid(tape, z)?; // eq. (2)
        let n = match self.d {
            None => {
                let rh = ops::mul(tape, r, h)?; // eq. (3a)
                self.w.apply(tape, rh, 2)?
            }
            Some(d) => {
                let inner = ops::add(tape, wh[2], d)?; // eq. (3b)
                ops::mul(tape, r, inner)?
            }
        };
        let n = ops::add(tape, n, ux[2])?; // eq. (3)
        let n = ops::tanh(tape, n)?; // eq. (3)
        let change = ops::sub(tape, h, n)?; // eq. (4), as n + z ⊙ (h − n)
        let kept = ops::mul(tape, z, change)?;
        Ok(vec![ops::add(tape, n, kept)?])
    }
}
