//! LR: low-rank recurrence.
//!
//! Miceli Barone, 2018, "Low-rank passthrough neural networks", DeepLo workshop at ACL, arXiv:1603.03116. On the cell
//! `gru` it is the LR-GRU. Letters of the paper: rank `d`.
//!
//! ```text
//! W_g h = L_g (R_g h)     (1)  untied: factors of its own for every gate g
//! W_g h = L_g (R h)       (2)  tied: one R for all gates
//! ```
//!
//! | symbol | shape | initialization | meaning |
//! |---|---|---|---|
//! | `W.L` | `[d, G·N]` | the cell's for each gate, else Glorot | blocks `L_gᵀ`, in the cell's order of gates |
//! | `W.R` | `[N, G·d]`, tied `[N, d]` | the same | blocks `R_gᵀ` |
//!
//! `2·G·N·d` numbers, tied `(G + 1)·N·d`.
//!
//! **Differs from the paper**: nothing. The weight normalization of one of its memory tasks is a choice of the model,
//! [`ModelSpec::weight_norm`](crate::ModelSpec::weight_norm).

use std::ops::Range;
use std::sync::Arc;

use retrograd_engine::{Tape, Var};

use crate::declare::Declare;
use crate::error::Result;
use crate::init::Init;
use crate::low_rank::{LowRank, RANK, TIED, Thin, rank_option};
use crate::operator::{BoundOperator, Recurrence, RecurrentOperator};
use crate::settings::{OptionDoc, Options};
use crate::table::OperatorEntry;

/// Low-rank matrices; see the [module](self).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lr {
    /// Rank `d`; `None` takes a quarter of the hidden size, at least 1.
    pub rank: Option<usize>,
    /// Whether all gates share one `R`.
    pub tied: bool,
    /// Whether the factors stay as they begin.
    pub frozen: bool,
}

/// Table entry of [`Lr`].
pub const LR: OperatorEntry = OperatorEntry {
    name: "lr",
    summary: "low-rank products L·R: 2·N·rank numbers for each gate (LR-GRU with cell gru)",
    options: &[
        RANK,
        TIED,
        OptionDoc { key: "freeze", default: "false", doc: "keep the factors as they begin; true or false" },
    ],
    build: |options: &Options<'_>| {
        Ok(Arc::new(Lr {
            rank: rank_option(options)?,
            tied: options.flag("tied")?,
            frozen: options.flag("freeze")?,
        }))
    },
};

impl RecurrentOperator for Lr {
    fn name(&self) -> &'static str {
        LR.name
    }

    fn declare(&self, ctx: &mut Declare<'_>, r: Recurrence<'_>) -> Result<Box<dyn BoundOperator>> {
        let init = r.init.unwrap_or(Init::Glorot);
        let thin = Thin { operator: LR.name, names: ["L", "R"], rank: self.rank, tied: self.tied, init };
        let product = thin.declare(ctx, &r)?;
        if self.frozen {
            ctx.freeze(r.name);
        }
        Ok(Box::new(BoundLr(product)))
    }
}

#[derive(Debug)]
struct BoundLr(LowRank);

impl BoundOperator for BoundLr {
    fn apply(&self, tape: &mut Tape, h: Var, gate: usize) -> retrograd_engine::Result<Var> {
        self.0.apply(tape, h, gate) // eq. (1), (2)
    }

    fn apply_all(&self, tape: &mut Tape, h: Var, gates: Range<usize>) -> retrograd_engine::Result<Vec<Var>> {
        self.0.apply_all(tape, h, gates) // eq. (1), (2)
    }
}
