//! FastGRNN: fast gated recurrent neural network, whose gate and candidate share their matrices.
//!
//! Kusupati, Singh, Bhatia, Kumar, Jain, Varma, 2018, "FastGRNN: a fast, accurate, stable and tiny kilobyte sized gated
//! recurrent neural network", NeurIPS, arXiv:1901.02358. Letters of the paper in brackets where they differ: recurrent
//! `W` \[`U`\], input `U` \[`W`\].
//!
//! ```text
//! p_t = W h_{t−1} + U x_t                                          (1)
//! z_t = σ(p_t + b_z)                                               (2)
//! c_t = tanh(p_t + b_c)                                            (3)
//! h_t = (σ(ζ) (1 − z_t) + σ(ν)) ⊙ c_t + z_t ⊙ h_{t−1}              (4)  ζ and ν are numbers; they are learned
//! ```
//!
//! | symbol | shape | initialization | meaning |
//! |---|---|---|---|
//! | `U` | `[C, H]` | normal, deviation 0.1 | input weights |
//! | `W` | the operator's | `recurrent_init`, else full and low-rank ones as `U`, others the operator's | recurrent weights |
//! | `b_z`, `b_c` | `[H]` | 1 | biases of gate and candidate |
//! | `zeta`, `nu` | `[1]` | 1, −4 | weight of the closed gate, 0.731, and what always comes in, 0.018 |
//! | `h` | `[N, H]` | 0 or learned | state |
//!
//! `N² + C·N + 2·N + 2` numbers on a dense matrix.
//!
//! The recipe for kilobyte-sized models, FastGRNN-LSQ in the paper: **l**ow rank, **s**parse, **q**uantized.
//!
//! - Low rank: the operator `lr` for `W`; `input_rank` `R` for `U = U_1 U_2` with `U` `[C, R]` and `U.2` `[R, H]`.
//! - Sparse: the constraint `sparse` on `layer0.U*` and `layer0.W*` (dense, then hard thresholding, then a fixed support).
//! - Quantized: `nonlinearity=quantized` computes `σ` and `tanh` as straight lines, which integers can do:
//!   `tanh ≈ min(max(p, −1), 1)`, `σ ≈ min(max((p + 1)/2, 0), 1)`; the constraint `grid` rounds weights to 8 bits.
//!
//! **Differs from the paper**: nothing in the equations; first values are those of the authors' program (EdgeML).

use std::sync::Arc;

use retrograd_engine::{Tape, Var};
use retrograd_ops as ops;

use crate::cell::{BoundCell, Cell, Input, InputMap, StatePart};
use crate::cells::fastrnn::{INPUT_RANK, RECURRENT_INIT_EDGEML, WEIGHTS, of_recurrence};
use crate::declare::Declare;
use crate::error::Result;
use crate::init::Init;
use crate::operator::{BoundOperator, Recurrence, RecurrentOperator};
use crate::settings::{OptionDoc, Options};
use crate::table::CellEntry;

/// Fast gated recurrent network; see the [module](self).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FastGrnn {
    /// Rank of the input weights; `None` is full.
    pub input_rank: Option<usize>,
    /// Whether gate and candidate are straight lines between their bounds.
    pub quantized: bool,
    /// How the recurrent matrix begins; `None`: see the [module](self).
    pub recurrent_init: Option<Init>,
}

/// Table entry of [`FastGrnn`].
pub const FASTGRNN: CellEntry = CellEntry {
    name: "fastgrnn",
    summary: "fast gated recurrent network: gate and candidate share one recurrent and one input matrix",
    operator: "dense",
    options: &[
        INPUT_RANK,
        OptionDoc {
            key: "nonlinearity",
            default: "exact",
            doc: "exact, or quantized: straight lines between the bounds",
        },
        RECURRENT_INIT_EDGEML,
    ],
    build: |options: &Options<'_>| {
        Ok(Arc::new(FastGrnn {
            input_rank: options.count("input_rank")?,
            quantized: options.choice("nonlinearity", &[("exact", false), ("quantized", true)])?,
            recurrent_init: options.init("recurrent_init")?,
        }))
    },
};

impl Cell for FastGrnn {
    fn name(&self) -> &'static str {
        FASTGRNN.name
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
        let b_z = ctx.real("b_z", &[hidden], Init::Constant(1.0))?;
        let b_c = ctx.real("b_c", &[hidden], Init::Constant(1.0))?;
        let zeta = ctx.real("zeta", &[1], Init::Constant(1.0))?;
        let nu = ctx.real("nu", &[1], Init::Constant(-4.0))?;
        Ok(Box::new(BoundFastGrnn { u, w, b_z, b_c, zeta, nu, quantized: self.quantized, hidden }))
    }
}

#[derive(Debug)]
struct BoundFastGrnn {
    u: InputMap,
    w: Box<dyn BoundOperator>,
    b_z: Var,
    b_c: Var,
    zeta: Var,
    nu: Var,
    quantized: bool,
    hidden: usize,
}

impl BoundFastGrnn {
    fn tanh(&self, tape: &mut Tape, p: Var) -> retrograd_engine::Result<Var> {
        if self.quantized { ops::hard_tanh(tape, p) } else { ops::tanh(tape, p) }
    }

    fn sigmoid(&self, tape: &mut Tape, p: Var) -> retrograd_engine::Result<Var> {
        if !self.quantized {
            return ops::sigmoid(tape, p);
        }
        let p = ops::hard_tanh(tape, p)?;
        ops::affine(tape, p, 0.5, 0.5)
    }
}

impl BoundCell for BoundFastGrnn {
    fn state(&self) -> Vec<StatePart> {
        vec![StatePart { name: "h", width: self.hidden, complex: false }]
    }

    fn step(&self, tape: &mut Tape, state: &[Var], x: Var) -> retrograd_engine::Result<Vec<Var>> {
        let h = state[0];
        let ux = self.u.apply(tape, x)?[0];
        let wh = self.w.apply(tape, h, 0)?;
        let p = ops::add(tape, wh, ux)?; // eq. (1)
        let z = ops::add(tape, p, self.b_z)?; // eq. (2)
        let z = self.sigmoid(tape, z)?; // eq. (2)
        let c = ops::add(tape, p, self.b_c)?; // eq. (3)
        let c = self.tanh(tape, c)?; // eq. (3)
        let (zeta, nu) = (ops::sigmoid(tape, self.zeta)?, ops::sigmoid(tape, self.nu)?);
        let closed = ops::affine(tape, z, -1.0, 1.0)?; // eq. (4)
        let weight = ops::mul(tape, zeta, closed)?;
        let weight = ops::add(tape, weight, nu)?;
        let added = ops::mul(tape, weight, c)?;
        let kept = ops::mul(tape, z, h)?;
        Ok(vec![ops::add(tape, added, kept)?])
    }
}
