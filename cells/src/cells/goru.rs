//! GORU: gated orthogonal recurrent unit.
//!
//! Jing, Gulcehre, Peurifoy, Shen, Tegmark, Soljačić, Bengio, 2019, "Gated orthogonal recurrent units: on learning to
//! forget", Neural Computation 31, arXiv:1706.02761.
//!
//! ```text
//! r_t = σ(U_r x_t + W_r h_{t−1} + b_r)             (1)  reset
//! g_t = σ(U_g x_t + W_g h_{t−1} + b_g)             (2)  update
//! c_t = modReLU(U_c x_t + r_t ⊙ (Q h_{t−1}); b_c)  (3)  Q the operator, here rotations
//! h_t = g_t ⊙ h_{t−1} + (1 − g_t) ⊙ c_t            (4)
//! ```
//!
//! | symbol | shape | initialization | meaning |
//! |---|---|---|---|
//! | `U` | `[C, 3H]` | uniform ±0.01 | blocks `U_rᵀ`, `U_gᵀ`, `U_cᵀ` |
//! | `G` | `[H, 2H]` | uniform ±0.01 | blocks `W_rᵀ`, `W_gᵀ` |
//! | `W` | the operator's, real | `recurrent_init`, else the operator's own | `Q` |
//! | `b` | `[2H]` | `b_r` 2, `b_g` uniform on ±√(3/H) | biases of the gates |
//! | `b_c` | `[H]` | 0.01 | bias of the modulus |
//! | `h` | `[N, H]` | 0 or learned | state |
//!
//! `3HC + 2H² + 3H` numbers and those of `Q`. Published with the operator's `style=fft`, for powers of two.
//!
//! **Differs from the paper**: modReLU is the program's, `sign(z) · max(|z| + 0.001 + b, 0)`; `b_g` begins as the
//! program's framework begins it (Glorot of a vector). The read-out is the model's.

use std::sync::Arc;

use retrograd_engine::{Tape, Tensor, Var};
use retrograd_ops::{self as ops, ModReluForm};

use crate::cell::{BoundCell, Cell, Input, InputMap, StatePart, block};
use crate::cells::rnn::RECURRENT_INIT;
use crate::declare::Declare;
use crate::error::Result;
use crate::init::Init;
use crate::operator::{BoundOperator, Recurrence, RecurrentOperator};
use crate::settings::Options;
use crate::table::CellEntry;

/// Gated orthogonal recurrent unit; see the [module](self).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Goru {
    /// How the operator begins; `None` leaves it to the operator.
    pub recurrent_init: Option<Init>,
}

/// Table entry of [`Goru`].
pub const GORU: CellEntry = CellEntry {
    name: "goru",
    summary: "gated orthogonal recurrent unit: gates of a GRU, modReLU, plane rotations",
    operator: "eunn",
    options: &[RECURRENT_INIT],
    build: |options: &Options<'_>| Ok(Arc::new(Goru { recurrent_init: options.init("recurrent_init")? })),
};

/// How `U` and `G` begin.
const WEIGHTS: Init = Init::Uniform(0.01);

impl Cell for Goru {
    fn name(&self) -> &'static str {
        GORU.name
    }

    fn declare(
        &self,
        ctx: &mut Declare<'_>,
        input: Input,
        hidden: usize,
        operator: &dyn RecurrentOperator,
    ) -> Result<Box<dyn BoundCell>> {
        let u = InputMap::declare(ctx, input, 3, hidden, false, WEIGHTS)?;
        let g = ctx.blocks("G", [hidden, hidden], 2, false, WEIGHTS)?;
        let init = self.recurrent_init;
        let q = Recurrence { name: "W", gates: &[""], n: hidden, complex: false, init };
        let q = operator.declare(ctx, q)?;
        let (dims, dtype) = ([2 * hidden], ctx.dtype(false));
        let b = ctx.real_with("b", &dims, |rng| {
            let update = Init::Uniform((3.0 / hidden as f64).sqrt()).tensor(&[hidden], dtype, rng)?;
            let mut b = Tensor::zeros(dtype, dims)?;
            b.fill_with(|i| if i < hidden { 2.0.into() } else { update.get(i - hidden) });
            Ok(b)
        })?;
        let b_c = ctx.real("b_c", &[hidden], Init::Constant(0.01))?;
        Ok(Box::new(BoundGoru { u, g, q, b, b_c, hidden }))
    }
}

#[derive(Debug)]
struct BoundGoru {
    u: InputMap,
    g: Var,
    q: Box<dyn BoundOperator>,
    b: Var,
    b_c: Var,
    hidden: usize,
}

impl BoundCell for BoundGoru {
    fn state(&self) -> Vec<StatePart> {
        vec![StatePart { name: "h", width: self.hidden, complex: false }]
    }

    fn step(&self, tape: &mut Tape, state: &[Var], x: Var) -> retrograd_engine::Result<Vec<Var>> {
        let h = state[0];
        let ux = self.u.apply(tape, x)?;
        let wh = ops::matmul(tape, h, self.g)?;
        let wh = ops::add(tape, wh, self.b)?;
        let gate = |tape: &mut Tape, k: usize| {
            let a = block(tape, wh, k, self.hidden)?;
            let a = ops::add(tape, a, ux[k])?;
            ops::sigmoid(tape, a)
        };
        let r = gate(tape, 0)?; // eq. (1)
        let g = gate(tape, 1)?; // eq. (2)
        let qh = self.q.apply(tape, h, 0)?;
        let c = ops::mul(tape, r, qh)?;
        let c = ops::add(tape, c, ux[2])?;
        let c = ops::modrelu(tape, c, self.b_c, ModReluForm::Goru)?; // eq. (3)
        let change = ops::sub(tape, h, c)?;
        let change = ops::mul(tape, g, change)?;
        Ok(vec![ops::add(tape, c, change)?]) // eq. (4)
    }
}
