//! IVH: identity plus low-rank recurrence.
//!
//! Kag, Zhang, Saligrama, 2020, "RNNs incrementally evolving on an equilibrium manifold: a panacea for vanishing and
//! exploding gradients?", ICLR: what `U` is in all of its experiments. Letters of the paper: hidden size `D_h` (here
//! `N`), rank `d_1`.
//!
//! ```text
//! W_g h  = h + V_g (H_g h)                        (1)
//! W_g² h = h + V_g (2 I + H_g V_g) (H_g h)        (2)  the middle is small and the same at every step
//! ```
//!
//! | symbol | shape | initialization | meaning |
//! |---|---|---|---|
//! | `W.V` | `[d_1, G·N]` | the cell's for each gate, else normal, see below | blocks `V_gᵀ`, in the cell's order of gates |
//! | `W.H` | `[N, G·d_1]` | the same | blocks `H_gᵀ` |
//!
//! `2·G·N·d_1` numbers.
//!
//! Without an initialization of the cell's, the deviation is `sqrt(0.1)/(sqrt(N) + sqrt(d_1))` (for each part
//! `1/sqrt(2)` of it if complex): whatever the sizes are, `‖V H‖` is then about 0.1.
//!
//! **Differs from the paper**: the paper says of the initialization that it is Gaussian with mean 0 and a small
//! variance, no more. The public program of the authors' later TARNN has a deviation of 0.1 for all weights
//! (`recurrent_init=normal:0.1`); here that makes `‖V H‖` nearly 3 at `N = 128`, and 1000 inner steps of size 0.01 then
//! multiply a state by up to `e^{20 (‖W²‖ − 1)}`: the first losses are not finite. More than one gate is ours.

use std::ops::Range;
use std::sync::Arc;

use retrograd_engine::{Tape, Var};
use retrograd_ops as ops;

use crate::declare::Declare;
use crate::error::Result;
use crate::init::Init;
use crate::low_rank::{LowRank, RANK, Thin, rank_option};
use crate::operator::{BoundOperator, Recurrence, RecurrentOperator};
use crate::settings::{OptionDoc, Options};
use crate::table::OperatorEntry;

/// The identity plus low-rank matrices; see the [module](self).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ivh {
    /// Rank `d_1`; `None` takes a quarter of the hidden size, at least 1.
    pub rank: Option<usize>,
    /// Whether the factors stay as they begin.
    pub frozen: bool,
}

/// Table entry of [`Ivh`].
pub const IVH: OperatorEntry = OperatorEntry {
    name: "ivh",
    summary: "the identity plus low-rank products, I + V·H (as published with cell irnn)",
    options: &[
        RANK,
        OptionDoc { key: "freeze", default: "false", doc: "keep the factors as they begin; true or false" },
    ],
    build: |options: &Options<'_>| {
        Ok(Arc::new(Ivh { rank: rank_option(options)?, frozen: options.flag("freeze")? }))
    },
};

impl RecurrentOperator for Ivh {
    fn name(&self) -> &'static str {
        IVH.name
    }

    fn declare(&self, ctx: &mut Declare<'_>, r: Recurrence<'_>) -> Result<Box<dyn BoundOperator>> {
        let init = r.init.unwrap_or_else(|| self.small(r.n, r.complex));
        let thin = Thin { operator: IVH.name, names: ["V", "H"], rank: self.rank, tied: false, init };
        let product = thin.declare(ctx, &r)?;
        if self.frozen {
            ctx.freeze(r.name);
        }
        Ok(Box::new(BoundIvh(product)))
    }
}

/// What `‖V H‖` begins at, about.
const FIRST_NORM: f64 = 0.1;

impl Ivh {
    /// Normal numbers of that deviation have `‖V H‖` at most `FIRST_NORM`, nearly always: the norm of a Gaussian
    /// matrix is about the sum of the roots of its sides.
    fn small(&self, n: usize, complex: bool) -> Init {
        let rank = self.rank.unwrap_or((n / 4).max(1));
        let parts = if complex { 2.0 } else { 1.0f64 };
        Init::Normal((FIRST_NORM / parts).sqrt() / ((n as f64).sqrt() + (rank as f64).sqrt()))
    }
}

/// The identity plus products of thin matrices.
#[derive(Debug)]
pub(crate) struct BoundIvh(pub(crate) LowRank);

impl BoundOperator for BoundIvh {
    fn apply(&self, tape: &mut Tape, h: Var, gate: usize) -> retrograd_engine::Result<Var> {
        let y = self.0.apply(tape, h, gate)?;
        ops::add(tape, h, y) // eq. (1)
    }

    fn apply_twice(&self, tape: &mut Tape, h: Var, gate: usize) -> retrograd_engine::Result<Var> {
        let y = self.0.apply_identity_squared(tape, h, gate)?;
        ops::add(tape, h, y) // eq. (2)
    }

    fn apply_all(&self, tape: &mut Tape, h: Var, gates: Range<usize>) -> retrograd_engine::Result<Vec<Var>> {
        let products = self.0.apply_all(tape, h, gates)?;
        products.into_iter().map(|y| ops::add(tape, h, y)).collect() // eq. (1)
    }
}
