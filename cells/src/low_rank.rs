//! Products of two thin matrices, one for each gate: what the low-rank operators have in common.
//!
//! For every gate `g`, `h ↦ L_g (R_g h)` with `R_g` of `D` rows and `L_g` of `D` columns: `2·N·D` multiply-adds a row
//! instead of `N²`. The `R` of all gates lie side by side in one matrix, so gates of the same `h` share one product by
//! it. Tied, there is one `R` for all gates; then their `L` are one product too.

use std::ops::Range;

use retrograd_engine::layout::{Layout, layout};
use retrograd_engine::{Tape, Var, matmul};
use retrograd_ops as ops;

use crate::cell::block;
use crate::declare::Declare;
use crate::error::{Error, Result};
use crate::init::Init;
use crate::operator::Recurrence;
use crate::settings::{OptionDoc, Options};

/// Documentation of the option for the rank.
pub(crate) const RANK: OptionDoc = OptionDoc {
    key: "rank",
    default: "auto",
    doc: "rank of the products, at most the hidden size; auto: a quarter of it, at least 1",
};

/// Documentation of the option that ties gates.
pub(crate) const TIED: OptionDoc = OptionDoc {
    key: "tied",
    default: "false",
    doc: "one R for all gates instead of one for each; true or false",
};

/// Reads [`RANK`]; `None` is `auto`. Errors: what is neither `auto` nor a number of at least 1.
pub(crate) fn rank_option(options: &Options<'_>) -> Result<Option<usize>> {
    match options.text("rank") {
        "auto" => Ok(None),
        text => match text.parse() {
            Ok(rank) if rank > 0 => Ok(Some(rank)),
            _ => Err(options.bad("rank", "a whole number of at least 1, or auto")),
        },
    }
}

/// How a low-rank product is declared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thin<'a> {
    /// Name of the operator, for errors.
    pub(crate) operator: &'static str,
    /// Names of the factor applied last and of the one applied first.
    pub(crate) names: [&'a str; 2],
    /// Rank; `None` takes a quarter of the hidden size.
    pub(crate) rank: Option<usize>,
    /// Whether gates share the factor applied first.
    pub(crate) tied: bool,
    /// How each gate's factors begin.
    pub(crate) init: Init,
}

/// Products, declared or put together from other parameters.
#[derive(Debug)]
pub(crate) struct LowRank {
    /// `[D, G·N]`: blocks `L_gᵀ`.
    pub(crate) last: Var,
    /// `[N, G·D]`: blocks `R_gᵀ`; tied `[N, D]`.
    pub(crate) first: Var,
    /// Size of the state.
    pub(crate) n: usize,
    /// Rank `D`.
    pub(crate) rank: usize,
    /// Whether there is one `R` for all gates.
    pub(crate) tied: bool,
}

impl Thin<'_> {
    /// Declares both factors for every gate, inside the scope of the recurrence's name. Errors: a rank above the
    /// hidden size.
    pub(crate) fn declare(&self, ctx: &mut Declare<'_>, r: &Recurrence<'_>) -> Result<LowRank> {
        let rank = self.rank.unwrap_or_else(|| (r.n / 4).max(1));
        if rank > r.n {
            return Err(Error::Rank { operator: self.operator, rank, hidden: r.n });
        }
        let gates = r.gates.len();
        let of_first = if self.tied { 1 } else { gates };
        let mut ctx = ctx.scope(r.name);
        let last = ctx.blocks(self.names[0], [rank, r.n], gates, r.complex, self.init)?;
        let first = ctx.first_blocks(self.names[1], [r.n, rank], of_first, r.complex, self.init)?;
        Ok(LowRank { last, first, n: r.n, rank, tied: self.tied })
    }
}

impl LowRank {
    /// `R_gateᵀ` and `L_gateᵀ`.
    fn factors(&self, tape: &mut Tape, gate: usize) -> retrograd_engine::Result<[Var; 2]> {
        let first = if self.tied { self.first } else { block(tape, self.first, gate, self.rank)? };
        Ok([first, block(tape, self.last, gate, self.n)?])
    }

    /// `L_gate (R_gate h)`.
    pub(crate) fn apply(&self, tape: &mut Tape, h: Var, gate: usize) -> retrograd_engine::Result<Var> {
        let [first, last] = self.factors(tape, gate)?;
        let y = matmul(tape, h, first)?;
        matmul(tape, y, last)
    }

    /// `(I + L R)² h − h = L (2 I + R L) (R h)` of one gate; `(2 I + R L)ᵀ Lᵀ` is made of parameters alone.
    pub(crate) fn apply_identity_squared(
        &self,
        tape: &mut Tape,
        h: Var,
        gate: usize,
    ) -> retrograd_engine::Result<Var> {
        let [first, last] = self.factors(tape, gate)?;
        let middle = matmul(tape, last, first)?;
        let middle = matmul(tape, middle, last)?;
        let last = ops::scale(tape, last, 2.0)?;
        let last = ops::add(tape, middle, last)?;
        let y = matmul(tape, h, first)?;
        matmul(tape, y, last)
    }

    /// The same for several gates of one `h`: one product by `R` for all, and if tied one by `L`.
    pub(crate) fn apply_all(
        &self,
        tape: &mut Tape,
        h: Var,
        gates: Range<usize>,
    ) -> retrograd_engine::Result<Vec<Var>> {
        let columns = |tape: &mut Tape, w: Var, n: usize| {
            let (start, len) = (gates.start * n, gates.len() * n);
            layout(tape, w, Layout::Slice { axis: 1, start, len })
        };
        if self.tied {
            let y = matmul(tape, h, self.first)?;
            let last = columns(tape, self.last, self.n)?;
            let y = matmul(tape, y, last)?;
            return (0..gates.len()).map(|g| block(tape, y, g, self.n)).collect();
        }
        let first = columns(tape, self.first, self.rank)?;
        let all = matmul(tape, h, first)?;
        let mut out = Vec::with_capacity(gates.len());
        for (g, gate) in gates.clone().enumerate() {
            let y = block(tape, all, g, self.rank)?;
            let last = block(tape, self.last, gate, self.n)?;
            out.push(matmul(tape, y, last)?);
        }
        Ok(out)
    }
}
