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
//! **Differs from the paper**: nothing in the equations; first values are those of the authors' program (EdgeML). A
//! low-rank `W` is the operator `lr`; input weights have full rank. The three phases of training in which weights
//! become sparse are not here.

use std::sync::Arc;

use retrograd_engine::{Tape, Var};
use retrograd_ops as ops;

use crate::cell::{BoundCell, Cell, Input, InputMap, StatePart};
use crate::cells::fastrnn::{RECURRENT_INIT_EDGEML, WEIGHTS, of_recurrence};
use crate::declare::Declare;
use crate::error::Result;
use crate::init::Init;
use crate::operator::{BoundOperator, Recurrence, RecurrentOperator};
use crate::settings::Options;
use crate::table::CellEntry;

/// Fast gated recurrent network; see the [module](self).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FastGrnn {
    /// How the recurrent matrix begins; `None`: see the [module](self).
    pub recurrent_init: Option<Init>,
}

/// Table entry of [`FastGrnn`].
pub const FASTGRNN: CellEntry = CellEntry {
    name: "fastgrnn",
    summary: "fast gated recurrent network: gate and candidate share one recurrent and one input matrix",
    operator: "dense",
    options: &[RECURRENT_INIT_EDGEML],
    build: |options: &Options<'_>| Ok(Arc::new(FastGrnn { recurrent_init: options.init("recurrent_init")? })),
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
        let u = InputMap::declare(ctx, input, 1, hidden, false, WEIGHTS)?;
        let init = of_recurrence(self.recurrent_init, operator);
        let w = Recurrence { name: "W", gates: &[""], n: hidden, complex: false, init };
        let w = operator.declare(ctx, w)?;
        let b_z = ctx.real("b_z", &[hidden], Init::Constant(1.0))?;
        let b_c = ctx.real("b_c", &[hidden], Init::Constant(1.0))?;
        let zeta = ctx.real("zeta", &[1], Init::Constant(1.0))?;
        let nu = ctx.real("nu", &[1], Init::Constant(-4.0))?;
        Ok(Box::new(BoundFastGrnn { u, w, b_z, b_c, zeta, nu, hidden }))
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
    hidden: usize,
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
        let z = ops::sigmoid(tape, z)?; // eq. (2)
        let c = ops::add(tape, p, self.b_c)?; // eq. (3)
        let c = ops::tanh(tape, c)?; // eq. (3)
        let (zeta, nu) = (ops::sigmoid(tape, self.zeta)?, ops::sigmoid(tape, self.nu)?);
        let closed = ops::affine(tape, z, -1.0, 1.0)?; // eq. (4)
        let weight = ops::mul(tape, zeta, closed)?;
        let weight = ops::add(tape, weight, nu)?;
        let added = ops::mul(tape, weight, c)?;
        let kept = ops::mul(tape, z, h)?;
        Ok(vec![ops::add(tape, added, kept)?])
    }
}
