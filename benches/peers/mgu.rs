//! MGU: minimal gated unit, a cell a user might write, outside the crates and with an activation of its own.
//!
//! Zhou, Wu, Zhang, Zhou, 2016, "Minimal gated unit for recurrent neural networks", arXiv:1603.09420, with softsign
//! in place of tanh.
//!
//! ```text
//! f_t = σ(W_f h_{t−1} + U_f x_t + b_f)                    (1)
//! a_t = W_n (f_t ⊙ h_{t−1}) + U_n x_t + b_n               (2)
//! n_t = a_t / (1 + |a_t|)                                 (3)  the activation
//! h_t = h_{t−1} + f_t ⊙ (n_t − h_{t−1})                   (4)
//! ```
//!
//! | symbol | shape | initialization | meaning |
//! |---|---|---|---|
//! | `U`, `b` | `[C, 2·H]`, `[2·H]` | Glorot for each gate, 0 | input weights and biases, gates in the order f, n |
//! | `W` | the operator's, 2 gates | the operator's | recurrent weights |
//!
//! **Differs from the paper**: by the activation.

use retrograd::cells::{
    BoundCell, BoundOperator, Cell, Declare, Init, Input, InputMap, Recurrence, RecurrentOperator, Result,
    StatePart,
};
use retrograd::{Tape, Var, engine, ops};

/// Minimal gated unit with softsign; see the [module](self).
#[derive(Debug)]
pub(crate) struct Mgu;

impl Mgu {
    /// Name in the table of cases.
    pub(crate) const NAME: &str = "mgu";
}

const GATES: [&str; 2] = ["f", "n"];

impl Cell for Mgu {
    fn name(&self) -> &'static str {
        Mgu::NAME
    }

    fn declare(
        &self,
        ctx: &mut Declare<'_>,
        input: Input,
        n: usize,
        operator: &dyn RecurrentOperator,
    ) -> Result<Box<dyn BoundCell>> {
        let u = InputMap::declare(ctx, input, GATES.len(), n, false, Init::Glorot)?;
        let w = Recurrence { name: "W", gates: &GATES, n, complex: false, init: None };
        let w = operator.declare(ctx, w)?;
        let b = ctx.real("b", &[GATES.len() * n], Init::Zeros)?;
        Ok(Box::new(BoundMgu { u: u.with_bias(b), w, n }))
    }
}

#[derive(Debug)]
struct BoundMgu {
    u: InputMap,
    w: Box<dyn BoundOperator>,
    n: usize,
}

impl BoundCell for BoundMgu {
    fn state(&self) -> Vec<StatePart> {
        vec![StatePart { name: "h", width: self.n, complex: false }]
    }

    fn step(&self, tape: &mut Tape, state: &[Var], x: Var) -> engine::Result<Vec<Var>> {
        let h = state[0];
        let ux = self.u.apply(tape, x)?;
        let f = self.w.apply(tape, h, 0)?; // eq. (1)
        let f = ops::add(tape, f, ux[0])?;
        let f = ops::sigmoid(tape, f)?;
        let fh = ops::mul(tape, f, h)?; // eq. (2)
        let a = self.w.apply(tape, fh, 1)?;
        let a = ops::add(tape, a, ux[1])?;
        let n = softsign(tape, a)?; // eq. (3)
        let change = ops::sub(tape, n, h)?; // eq. (4)
        let change = ops::mul(tape, f, change)?;
        Ok(vec![ops::add(tape, h, change)?])
    }
}

/// `a / (1 + |a|)`, from operations of the library.
fn softsign(tape: &mut Tape, a: Var) -> engine::Result<Var> {
    let size = ops::abs(tape, a)?;
    let size = ops::shift(tape, size, 1.0)?;
    ops::div(tape, a, size)
}
