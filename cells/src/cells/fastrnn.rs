//! FastRNN: a recurrent neural network with a weighted residual connection.
//!
//! Kusupati, Singh, Bhatia, Kumar, Jain, Varma, 2018, "FastGRNN: a fast, accurate, stable and tiny kilobyte sized gated
//! recurrent neural network", NeurIPS, arXiv:1901.02358. Letters of the paper in brackets where they differ: recurrent
//! `W` \[`U`\], input `U` \[`W`\].
//!
//! ```text
//! c_t = φ(W h_{t−1} + U x_t + b)               (1)
//! h_t = σ(β) h_{t−1} + σ(α) c_t                (2)  α and β are numbers; they are learned
//! ```
//!
//! | symbol | shape | initialization | meaning |
//! |---|---|---|---|
//! | `U` | `[C, H]` | normal, deviation 0.1 | input weights |
//! | `W` | the operator's | `recurrent_init`, else full and low-rank ones as `U`, others the operator's | recurrent weights |
//! | `b` | `[H]` | 1 | bias |
//! | `alpha`, `beta` | `[1]` | −3, 3 | weight of the candidate, 0.047, and of the state, 0.953 |
//! | `h` | `[N, H]` | 0 or learned | state |
//!
//! `N² + C·N + N + 2` numbers on a dense matrix.
//!
//! **Differs from the paper**: nothing in the equations; first values are those of the authors' program (EdgeML).
//!
//! Low rank and sparse, as FastGRNN: the operator `lr` for `W`, `input_rank` `R` for `U = U_1 U_2` with `U` `[C, R]` and
//! `U.2` `[R, H]`; the constraint `sparse` on `layer0.U*` and `layer0.W*`.

use std::sync::Arc;

use retrograd_engine::{Tape, Var};
use retrograd_ops as ops;

use crate::cell::{BoundCell, Cell, Input, InputMap, StatePart};
use crate::cells::rnn::{Activation, RECURRENT_INIT};
use crate::declare::Declare;
use crate::error::Result;
use crate::init::Init;
use crate::operator::{BoundOperator, Recurrence, RecurrentOperator};
use crate::operators::{dense, lr};
use crate::settings::{OptionDoc, Options};
use crate::table::CellEntry;

/// How weights begin in EdgeML.
pub(crate) const WEIGHTS: Init = Init::Normal(0.1);

/// Documentation of the option for the rank of input weights.
pub(crate) const INPUT_RANK: OptionDoc =
    OptionDoc { key: "input_rank", default: "none", doc: "rank of the input weights, or none: full" };

/// Documentation of the option for the recurrent matrices in the cells of EdgeML.
pub(crate) const RECURRENT_INIT_EDGEML: OptionDoc = OptionDoc {
    key: RECURRENT_INIT.key,
    default: RECURRENT_INIT.default,
    doc: "how recurrent matrices (or their factors) begin: auto (normal:0.1 if full or low-rank, others the \
          operator's own), glorot, orthogonal, identity, fan_in, uniform:A, normal:S",
};

/// How recurrent matrices begin: as asked, else as published where the operator is one of the published ones. A
/// product of factors would be far smaller than each of them.
pub(crate) fn of_recurrence(asked: Option<Init>, operator: &dyn RecurrentOperator) -> Option<Init> {
    let published = [dense::DENSE.name, lr::LR.name].contains(&operator.name());
    asked.or(published.then_some(WEIGHTS))
}

/// Recurrent network with a weighted residual connection; see the [module](self).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FastRnn {
    /// Nonlinearity `φ`.
    pub activation: Activation,
    /// Rank of the input weights; `None` is full.
    pub input_rank: Option<usize>,
    /// How the recurrent matrix begins; `None`: see the [module](self).
    pub recurrent_init: Option<Init>,
}

/// Table entry of [`FastRnn`].
pub const FASTRNN: CellEntry = CellEntry {
    name: "fastrnn",
    summary: "recurrent network with a weighted residual connection: two learned numbers in place of gates",
    operator: "dense",
    options: &[
        OptionDoc { key: "activation", default: "tanh", doc: Activation::WORDS },
        INPUT_RANK,
        RECURRENT_INIT_EDGEML,
    ],
    build: |options: &Options<'_>| {
        Ok(Arc::new(FastRnn {
            activation: options.choice("activation", Activation::CHOICES)?,
            input_rank: options.count("input_rank")?,
            recurrent_init: options.init("recurrent_init")?,
        }))
    },
};

impl Cell for FastRnn {
    fn name(&self) -> &'static str {
        FASTRNN.name
    }

    fn declare(
        &self,
        ctx: &mut Declare<'_>,
        input: Input,
        hidden: usize,
        operator: &dyn RecurrentOperator,
    ) -> Result<Box<dyn BoundCell>> {
        let u = InputMap::of_rank(ctx, input, 1, hidden, self.input_rank, WEIGHTS)?;
        let init = of_recurrence(self.recurrent_init, operator);
        let w = Recurrence { name: "W", gates: &[""], n: hidden, complex: false, init };
        let w = operator.declare(ctx, w)?;
        let b = ctx.real("b", &[hidden], Init::Constant(1.0))?;
        let alpha = ctx.real("alpha", &[1], Init::Constant(-3.0))?;
        let beta = ctx.real("beta", &[1], Init::Constant(3.0))?;
        Ok(Box::new(BoundFastRnn { u: u.with_bias(b), w, alpha, beta, activation: self.activation, hidden }))
    }
}

#[derive(Debug)]
struct BoundFastRnn {
    u: InputMap,
    w: Box<dyn BoundOperator>,
    alpha: Var,
    beta: Var,
    activation: Activation,
    hidden: usize,
}

impl BoundCell for BoundFastRnn {
    fn state(&self) -> Vec<StatePart> {
        vec![StatePart { name: "h", width: self.hidden, complex: false }]
    }

    fn step(&self, tape: &mut Tape, state: &[Var], x: Var) -> retrograd_engine::Result<Vec<Var>> {
        let h = state[0];
        let ux = self.u.apply(tape, x)?[0];
        let wh = self.w.apply(tape, h, 0)?;
        let c = ops::add(tape, wh, ux)?; // eq. (1)
        let c = self.activation.apply(tape, c)?; // eq. (1)
        let (alpha, beta) = (ops::sigmoid(tape, self.alpha)?, ops::sigmoid(tape, self.beta)?);
        let kept = ops::mul(tape, beta, h)?; // eq. (2)
        let added = ops::mul(tape, alpha, c)?;
        Ok(vec![ops::add(tape, kept, added)?])
    }
}
