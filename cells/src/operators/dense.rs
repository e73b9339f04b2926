//! Dense recurrence: one full matrix for each gate.
//!
//! `W_g h` for every gate `g`, with all matrices side by side in one parameter so that gates of the same `h` are
//! one product.
//!
//! | symbol | shape | initialization | meaning |
//! |---|---|---|---|
//! | `W` | `[N, G·N]` | the cell's, else Glorot (orthogonal if complex) | blocks `W_gᵀ`, in the cell's order of gates |
//!
//! **Differs from the paper**: nothing; stored `[in, out]`, so row `h` becomes `h W`.

use std::ops::Range;

use retrograd_engine::layout::{Layout, layout};
use retrograd_engine::{Tape, Var, matmul};

use crate::cell::block;
use crate::declare::Declare;
use crate::error::Result;
use crate::init::Init;
use crate::operator::{BoundOperator, Recurrence, RecurrentOperator};
use crate::settings::{OptionDoc, Options};
use crate::table::OperatorEntry;

/// Full matrices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dense {
    /// Whether the matrices stay as they begin.
    pub frozen: bool,
}

/// Table entry of [`Dense`].
pub const DENSE: OperatorEntry = OperatorEntry {
    name: "dense",
    summary: "full matrices: N² numbers for each gate",
    options: &[OptionDoc {
        key: "freeze",
        default: "false",
        doc: "keep the recurrent matrices as they begin; true or false",
    }],
    build: |options: &Options<'_>| Ok(std::sync::Arc::new(Dense { frozen: options.flag("freeze")? })),
};

impl RecurrentOperator for Dense {
    fn name(&self) -> &'static str {
        DENSE.name
    }

    fn declare(&self, ctx: &mut Declare<'_>, r: Recurrence<'_>) -> Result<Box<dyn BoundOperator>> {
        let init = r.init.unwrap_or(if r.complex { Init::Orthogonal } else { Init::Glorot });
        let w = ctx.blocks(r.name, [r.n, r.n], r.gates.len(), r.complex, init)?;
        if self.frozen {
            ctx.freeze(r.name);
        }
        Ok(Box::new(BoundDense { w, n: r.n }))
    }
}

/// Full matrices, declared or put together from other parameters.
#[derive(Debug)]
pub(crate) struct BoundDense {
    /// `[N, G·N]`: blocks `W_gᵀ`.
    pub(crate) w: Var,
    pub(crate) n: usize,
}

impl BoundOperator for BoundDense {
    fn apply(&self, tape: &mut Tape, h: Var, gate: usize) -> retrograd_engine::Result<Var> {
        let w = block(tape, self.w, gate, self.n)?;
        matmul(tape, h, w)
    }

    fn apply_all(&self, tape: &mut Tape, h: Var, gates: Range<usize>) -> retrograd_engine::Result<Vec<Var>> {
        let (start, len) = (gates.start * self.n, gates.len() * self.n);
        let w = layout(tape, self.w, Layout::Slice { axis: 1, start, len })?;
        let y = matmul(tape, h, w)?;
        (0..gates.len()).map(|g| block(tape, y, g, self.n)).collect()
    }
}
