//! Diagonal recurrence: every unit sees itself alone.
//!
//! Li, Li, Cook, Zhu, Gao, 2018, "Independently recurrent neural network (IndRNN): building a longer and deeper RNN",
//! CVPR, arXiv:1803.04831, with the cell `rnn` and `activation=relu`. Letters of the paper: `u`.
//!
//! ```text
//! W_g h = u_g ⊙ h     (1)
//! ```
//!
//! | symbol | shape | initialization | meaning |
//! |---|---|---|---|
//! | `W.u` | `[G·N]` | the cell's as far as a vector has it, else uniform on ±1 | diagonals, in the cell's order of gates |
//!
//! `G·N` numbers. Of an initialization of matrices a diagonal takes the diagonal: `identity` is all 1; `orthogonal` is a
//! random sign (a random phase if complex) for every unit. `glorot` and `fan_in` are those of a unit with one input.
//!
//! **Differs from the paper**: there, `u` of the last layer of a network that reads the last step begins near 1, that of
//! others uniform on `[0, 1]`, and it is kept below a bound that depends on the length of sequences.

use std::sync::Arc;

use num_complex::Complex64;
use retrograd_engine::{Tape, Tensor, Var};
use retrograd_ops as ops;

use crate::cell::block;
use crate::declare::Declare;
use crate::error::Result;
use crate::init::Init;
use crate::operator::{BoundOperator, Recurrence, RecurrentOperator};
use crate::settings::{OptionDoc, Options};
use crate::table::OperatorEntry;

/// Diagonal matrices; see the [module](self).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagonal {
    /// Whether the diagonals stay as they begin.
    pub frozen: bool,
}

/// Table entry of [`Diagonal`].
pub const DIAGONAL: OperatorEntry = OperatorEntry {
    name: "diagonal",
    summary: "diagonal matrices: N numbers for each gate (IndRNN with cell rnn)",
    options: &[OptionDoc {
        key: "freeze",
        default: "false",
        doc: "keep the diagonals as they begin; true or false",
    }],
    build: |options: &Options<'_>| Ok(Arc::new(Diagonal { frozen: options.flag("freeze")? })),
};

impl RecurrentOperator for Diagonal {
    fn name(&self) -> &'static str {
        DIAGONAL.name
    }

    fn declare(&self, ctx: &mut Declare<'_>, r: Recurrence<'_>) -> Result<Box<dyn BoundOperator>> {
        let init = r.init.unwrap_or(Init::Uniform(1.0));
        let (dtype, dims) = (ctx.dtype(r.complex), [r.gates.len() * r.n]);
        let u = ctx.scope(r.name).with("u", &dims, dtype, |rng| {
            // Every unit is a matrix of one row and one column.
            let units: Result<Vec<Complex64>> =
                (0..dims[0]).map(|_| Ok(init.tensor(&[1, 1], dtype, rng)?.get(0))).collect();
            let units = units?;
            let mut u = Tensor::zeros(dtype, dims)?;
            u.fill_with(|i| units[i]);
            Ok(u)
        })?;
        if self.frozen {
            ctx.freeze(r.name);
        }
        Ok(Box::new(BoundDiagonal { u, n: r.n }))
    }
}

#[derive(Debug)]
struct BoundDiagonal {
    u: Var,
    n: usize,
}

impl BoundOperator for BoundDiagonal {
    fn apply(&self, tape: &mut Tape, h: Var, gate: usize) -> retrograd_engine::Result<Var> {
        let u = block(tape, self.u, gate, self.n)?;
        ops::mul(tape, u, h) // eq. (1)
    }

    fn apply_twice(&self, tape: &mut Tape, h: Var, gate: usize) -> retrograd_engine::Result<Var> {
        let u = block(tape, self.u, gate, self.n)?;
        let square = ops::square(tape, u)?;
        ops::mul(tape, square, h)
    }
}
