//! AntisymmetricRNN: a recurrent network that is one step of Euler's method for a stable differential equation.
//!
//! Chang, Chen, Haber, Chi, 2019, "AntisymmetricRNN: a dynamical system view on recurrent neural networks", ICLR,
//! arXiv:1902.09689. With the operator `antisymmetric`, `W = A − Aᵀ − γ I`. Letters of the paper in brackets where they
//! differ: input `U` \[`V`\].
//!
//! ```text
//! h_t = h_{t−1} + ε tanh(W h_{t−1} + U_h x_t + b_h)               (1)
//! z_t = σ(W h_{t−1} + U_z x_t + b_z)                              (2)  gate; it shares W with the proposal
//! h_t = h_{t−1} + ε z_t ⊙ tanh(W h_{t−1} + U_h x_t + b_h)         (3)  gated, in place of (1)
//! ```
//!
//! The eigenvalues of `W` have the real part `−γ`: the equation `h' = tanh(W h + …)` neither grows nor forgets at
//! `γ = 0`, and a little `γ` keeps the steps of Euler's method stable.
//!
//! | symbol | shape | initialization | meaning |
//! |---|---|---|---|
//! | `U` | `[C, H]`, gated `[C, 2·H]` | normal, deviation `1/sqrt(C)` | input weights; gated in the order h, z |
//! | `W` | the operator's, one matrix | `recurrent_init`, else normal, deviation `1/sqrt(N)`, if `antisymmetric`, others the operator's | recurrent weights |
//! | `b` | `[H]`, gated `[2·H]` | 0 | biases |
//! | `h` | `[N, H]` | 0 or learned | state |
//!
//! `N·(N−1)/2 + C·N + N` numbers, gated `C·N + N` more.
//!
//! **Differs from the paper**: its `ε`, `γ` and the deviation of its weights come from a search for each task; the
//! default `ε = 0.1` and `γ = 0.01` are one of the two pairs that Kag, Zhang, Saligrama, 2020, ICLR compare with. On
//! other operators than `antisymmetric` it is a residual recurrent network, and nothing of the above holds.

use std::sync::Arc;

use retrograd_engine::{Tape, Var};
use retrograd_ops as ops;

use crate::cell::{BoundCell, Cell, Input, InputMap, StatePart};
use crate::cells::rnn::RECURRENT_INIT;
use crate::declare::Declare;
use crate::error::Result;
use crate::init::Init;
use crate::operator::{BoundOperator, Recurrence, RecurrentOperator};
use crate::operators::antisymmetric;
use crate::settings::{OptionDoc, Options};
use crate::table::CellEntry;

/// Residual recurrent network for antisymmetric matrices; see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AntisymmetricRnn {
    /// Step size `ε`.
    pub epsilon: f64,
    /// Whether the proposal is gated: eq. (3), else (1).
    pub gated: bool,
    /// How the recurrent matrix begins; `None`: see the [module](self).
    pub recurrent_init: Option<Init>,
}

impl Default for AntisymmetricRnn {
    fn default() -> AntisymmetricRnn {
        AntisymmetricRnn { epsilon: 0.1, gated: false, recurrent_init: None }
    }
}

/// Table entry of [`AntisymmetricRnn`].
pub const ANTISYMMETRIC_RNN: CellEntry = CellEntry {
    name: "antisymmetric_rnn",
    summary: "Euler steps of a stable differential equation, plain or gated",
    operator: "antisymmetric",
    options: &[
        OptionDoc { key: "epsilon", default: "0.1", doc: "step size" },
        OptionDoc { key: "gated", default: "false", doc: "multiply the proposal by a gate; true or false" },
        OptionDoc {
            key: RECURRENT_INIT.key,
            default: RECURRENT_INIT.default,
            doc: "how the recurrent matrix (or its factors) begins: auto (an antisymmetric one normal, of deviation 1/sqrt(N), others \
                  the operator's own), glorot, orthogonal, identity, fan_in, uniform:A, normal:S",
        },
    ],
    build: |options: &Options<'_>| {
        Ok(Arc::new(AntisymmetricRnn {
            epsilon: options.number("epsilon")?,
            gated: options.flag("gated")?,
            recurrent_init: options.init("recurrent_init")?,
        }))
    },
};

impl Cell for AntisymmetricRnn {
    fn name(&self) -> &'static str {
        ANTISYMMETRIC_RNN.name
    }

    fn declare(
        &self,
        ctx: &mut Declare<'_>,
        input: Input,
        hidden: usize,
        operator: &dyn RecurrentOperator,
    ) -> Result<Box<dyn BoundCell>> {
        let gates = if self.gated { 2 } else { 1 };
        let of_input = Init::Normal(1.0 / (input.size().max(1) as f64).sqrt());
        let u = InputMap::declare(ctx, input, gates, hidden, false, of_input)?;
        let published = Init::Normal(1.0 / (hidden.max(1) as f64).sqrt());
        let published = (operator.name() == antisymmetric::ANTISYMMETRIC.name).then_some(published);
        let init = self.recurrent_init.or(published);
        let w = Recurrence { name: "W", gates: &[""], n: hidden, complex: false, init };
        let w = operator.declare(ctx, w)?;
        let b = ctx.real("b", &[gates * hidden], Init::Zeros)?;
        Ok(Box::new(BoundAntisymmetricRnn { u: u.with_bias(b), w, epsilon: self.epsilon, hidden }))
    }
}

#[derive(Debug)]
struct BoundAntisymmetricRnn {
    u: InputMap,
    w: Box<dyn BoundOperator>,
    epsilon: f64,
    hidden: usize,
}

impl BoundCell for BoundAntisymmetricRnn {
    fn state(&self) -> Vec<StatePart> {
        vec![StatePart { name: "h", width: self.hidden, complex: false }]
    }

    fn step(&self, tape: &mut Tape, state: &[Var], x: Var) -> retrograd_engine::Result<Vec<Var>> {
        let h = state[0];
        let ux = self.u.apply(tape, x)?;
        let wh = self.w.apply(tape, h, 0)?;
        let a = ops::add(tape, wh, ux[0])?; // eq. (1), (3)
        let mut change = ops::tanh(tape, a)?; // eq. (1), (3)
        if let Some(&ux) = ux.get(1) {
            let z = ops::add(tape, wh, ux)?; // eq. (2)
            let z = ops::sigmoid(tape, z)?; // eq. (2)
            change = ops::mul(tape, z, change)?; // eq. (3)
        }
        let change = ops::scale(tape, change, self.epsilon)?;
        Ok(vec![ops::add(tape, h, change)?])
    }
}
