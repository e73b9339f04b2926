//! LRD: low-rank plus diagonal recurrence.
//!
//! Miceli Barone, 2018, "Low-rank passthrough neural networks", DeepLo workshop at ACL, arXiv:1603.03116. On the cell
//! `gru` it is the LRD-GRU, on `lstm` the LRD-LSTM. Letters of the paper: rank `d`, diagonal `δ`.
//!
//! ```text
//! W_g h = L_g (R_g h) + δ_g ⊙ h     (1)  untied: factors of its own for every gate g
//! W_g h = L_g (R h) + δ_g ⊙ h       (2)  tied: one R for all gates
//! ```
//!
//! In a GRU with the reset before the product, `h` of the proposal is `r ⊙ h` in both terms.
//!
//! | symbol | shape | initialization | meaning |
//! |---|---|---|---|
//! | `W.L` | `[d, G·N]` | the cell's for each gate, else Glorot | blocks `L_gᵀ`, in the cell's order of gates |
//! | `W.R` | `[N, G·d]`, tied `[N, d]` | the same | blocks `R_gᵀ` |
//! | `W.delta` | `[G·N]` | `diagonal_init`: uniform ±0.01 | diagonals `δ_g` |
//!
//! `2·G·N·d + G·N` numbers, tied `(G + 1)·N·d + G·N`.
//!
//! The published programs begin differently from task to task. Memory and MNIST: the defaults here. Character models
//! of the GRU: factors `normal:0.01`, reset after the product. LRD-LSTM: every number uniform on ±0.04, which is
//! `recurrent_init=uniform:0.04` and `diagonal_init=uniform:0.04` here.
//!
//! **Differs from the paper**: nothing known. The dropout on recurrent states of its character models and the weight
//! normalization of one of its memory tasks are choices of the model,
//! [`ModelSpec::recurrent_dropout`](crate::ModelSpec::recurrent_dropout) and
//! [`ModelSpec::weight_norm`](crate::ModelSpec::weight_norm).

use std::ops::Range;
use std::sync::Arc;

use retrograd_engine::{Tape, Var};
use retrograd_ops as ops;

use crate::cell::block;
use crate::declare::Declare;
use crate::error::Result;
use crate::init::Init;
use crate::low_rank::{LowRank, RANK, TIED, Thin, rank_option};
use crate::operator::{BoundOperator, Recurrence, RecurrentOperator};
use crate::settings::{OptionDoc, Options};
use crate::table::OperatorEntry;

/// Low-rank matrices plus diagonals; see the [module](self).
#[derive(Clone, Debug, PartialEq)]
pub struct Lrd {
    /// Rank `d`; `None` takes a quarter of the hidden size, at least 1.
    pub rank: Option<usize>,
    /// Whether all gates share one `R`.
    pub tied: bool,
    /// How the diagonals begin.
    pub diagonal_init: Init,
    /// Whether factors and diagonals stay as they begin.
    pub frozen: bool,
}

impl Default for Lrd {
    fn default() -> Lrd {
        Lrd { rank: None, tied: false, diagonal_init: DIAGONAL, frozen: false }
    }
}

/// How the published diagonals begin.
const DIAGONAL: Init = Init::Uniform(0.01);

/// Table entry of [`Lrd`].
pub const LRD: OperatorEntry = OperatorEntry {
    name: "lrd",
    summary: "low-rank products plus diagonals, L·R + diag(δ) (LRD-GRU, LRD-LSTM with cells gru, lstm)",
    options: &[
        RANK,
        TIED,
        OptionDoc {
            key: "diagonal_init",
            default: "uniform:0.01",
            doc: "how the diagonals begin: zeros, constant:C, uniform:A, normal:S; auto: uniform:0.01",
        },
        OptionDoc {
            key: "freeze",
            default: "false",
            doc: "keep factors and diagonals as they begin; true or false",
        },
    ],
    build: |options: &Options<'_>| {
        let diagonal_init = options.init("diagonal_init")?.unwrap_or(DIAGONAL);
        if matches!(diagonal_init, Init::Orthogonal | Init::Identity) {
            return Err(options.bad("diagonal_init", "zeros, constant:C, uniform:A or normal:S"));
        }
        Ok(Arc::new(Lrd {
            rank: rank_option(options)?,
            tied: options.flag("tied")?,
            diagonal_init,
            frozen: options.flag("freeze")?,
        }))
    },
};

impl RecurrentOperator for Lrd {
    fn name(&self) -> &'static str {
        LRD.name
    }

    fn declare(&self, ctx: &mut Declare<'_>, r: Recurrence<'_>) -> Result<Box<dyn BoundOperator>> {
        let init = r.init.unwrap_or(Init::Glorot);
        let thin = Thin { operator: LRD.name, names: ["L", "R"], rank: self.rank, tied: self.tied, init };
        let product = thin.declare(ctx, &r)?;
        let dims = [r.gates.len() * r.n];
        let delta = match r.complex {
            true => ctx.scope(r.name).complex("delta", &dims, self.diagonal_init)?,
            false => ctx.scope(r.name).real("delta", &dims, self.diagonal_init)?,
        };
        if self.frozen {
            ctx.freeze(r.name);
        }
        Ok(Box::new(BoundLrd { product, delta, n: r.n }))
    }
}

#[derive(Debug)]
struct BoundLrd {
    product: LowRank,
    delta: Var,
    n: usize,
}

impl BoundLrd {
    fn add_diagonal(&self, tape: &mut Tape, y: Var, h: Var, gate: usize) -> retrograd_engine::Result<Var> {
        let delta = block(tape, self.delta, gate, self.n)?;
        let scaled = ops::mul(tape, delta, h)?;
        ops::add(tape, y, scaled)
    }
}

impl BoundOperator for BoundLrd {
    fn apply(&self, tape: &mut Tape, h: Var, gate: usize) -> retrograd_engine::Result<Var> {
        let y = self.product.apply(tape, h, gate)?; // eq. (1), (2)
        self.add_diagonal(tape, y, h, gate)
    }

    fn apply_all(&self, tape: &mut Tape, h: Var, gates: Range<usize>) -> retrograd_engine::Result<Vec<Var>> {
        let products = self.product.apply_all(tape, h, gates.clone())?; // eq. (1), (2)
        products.into_iter().zip(gates).map(|(y, gate)| self.add_diagonal(tape, y, h, gate)).collect()
    }
}
