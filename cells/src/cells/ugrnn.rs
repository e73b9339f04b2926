//! UGRNN: update gate recurrent neural network.
//!
//! Collins, Sohl-Dickstein, Sussillo, 2017, "Capacity and trainability in recurrent neural networks", ICLR,
//! arXiv:1611.09913. First values are those of its program in EdgeML, the library of Kusupati et al., 2018.
//!
//! ```text
//! z_t = σ(W_z h_{t−1} + U_z x_t + b_z)               (1)  update gate: the share of the old state
//! c_t = tanh(W_c h_{t−1} + U_c x_t + b_c)            (2)  candidate
//! h_t = z_t ⊙ h_{t−1} + (1 − z_t) ⊙ c_t              (3)
//! ```
//!
//! | symbol | shape | initialization | meaning |
//! |---|---|---|---|
//! | `U` | `[C, 2·H]` | normal, deviation 0.1 | input weights, gates in the order z, c |
//! | `W` | the operator's, 2 gates | `recurrent_init`, else full and low-rank ones as `U`, others the operator's | recurrent weights |
//! | `b` | `[2·H]` | 1 | biases |
//! | `h` | `[N, H]` | 0 or learned | state |
//!
//! `2·(N² + C·N + N)` numbers on dense matrices.
//!
//! **Differs from the paper**: the initialization, see above. A low-rank `W` is the operator `lr` (`tied=true` as in
//! EdgeML); `input_rank` `R` is that of `U = U_1 U_2`, with one `U` `[C, R]` for both gates and `U.2` `[R, 2·H]`.

use std::sync::Arc;

use retrograd_engine::{Tape, Var};
use retrograd_ops as ops;

use crate::cell::{BoundCell, Cell, Input, InputMap, StatePart};
use crate::cells::fastrnn::{INPUT_RANK, RECURRENT_INIT_EDGEML, WEIGHTS, of_recurrence};
use crate::declare::Declare;
use crate::error::Result;
use crate::init::Init;
use crate::operator::{BoundOperator, Recurrence, RecurrentOperator};
use crate::settings::Options;
use crate::table::CellEntry;

/// Update gate recurrent network; see the [module](self).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ugrnn {
    /// Rank of the input weights; `None` is full.
    pub input_rank: Option<usize>,
    /// How the recurrent matrices begin; `None`: see the [module](self).
    pub recurrent_init: Option<Init>,
}

/// Table entry of [`Ugrnn`].
pub const UGRNN: CellEntry = CellEntry {
    name: "ugrnn",
    summary: "update gate recurrent network: one gate shares old state and candidate",
    operator: "dense",
    options: &[INPUT_RANK, RECURRENT_INIT_EDGEML],
    build: |options: &Options<'_>| {
        Ok(Arc::new(Ugrnn {
            input_rank: options.count("input_rank")?,
            recurrent_init: options.init("recurrent_init")?,
        }))
    },
};

const GATES: [&str; 2] = ["z", "c"];

impl Cell for Ugrnn {
    fn name(&self) -> &'static str {
        UGRNN.name
    }

    fn declare(
        &self,
        ctx: &mut Declare<'_>,
        input: Input,
        hidden: usize,
        operator: &dyn RecurrentOperator,
    ) -> Result<Box<dyn BoundCell>> {
        let u = InputMap::of_rank(ctx, input, GATES.len(), hidden, self.input_rank, WEIGHTS)?;
        let init = of_recurrence(self.recurrent_init, operator);
        let w = Recurrence { name: "W", gates: &GATES, n: hidden, complex: false, init };
        let w = operator.declare(ctx, w)?;
        let b = ctx.real("b", &[GATES.len() * hidden], Init::Constant(1.0))?;
        Ok(Box::new(BoundUgrnn { u: u.with_bias(b), w, hidden }))
    }
}

#[derive(Debug)]
struct BoundUgrnn {
    u: InputMap,
    w: Box<dyn BoundOperator>,
    hidden: usize,
}

impl BoundCell for BoundUgrnn {
    fn state(&self) -> Vec<StatePart> {
        vec![StatePart { name: "h", width: self.hidden, complex: false }]
    }

    fn step(&self, tape: &mut Tape, state: &[Var], x: Var) -> retrograd_engine::Result<Vec<Var>> {
        let h = state[0];
        let ux = self.u.apply(tape, x)?;
        let wh = self.w.apply_all(tape, h, 0..GATES.len())?;
        let z = ops::add(tape, wh[0], ux[0])?; // eq. (1)
        let z = ops::sigmoid(tape, z)?; // eq. (1)
        let c = ops::add(tape, wh[1], ux[1])?; // eq. (2)
        let c = ops::tanh(tape, c)?; // eq. (2)
        let change = ops::sub(tape, h, c)?; // eq. (3), as c + z ⊙ (h − c)
        let kept = ops::mul(tape, z, change)?;
        Ok(vec![ops::add(tape, c, kept)?])
    }
}
