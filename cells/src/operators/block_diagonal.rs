//! Block-diagonal recurrence: groups of units that see themselves alone.
//!
//! Full matrices on the diagonal, zeros elsewhere: the recurrent heads of Beck et al., 2024, "xLSTM: extended long
//! short-term memory", NeurIPS, arXiv:2405.04517 (section 2.2), and of group recurrences before it.
//!
//! ```text
//! W_g h = [B_{g,0} h_0; …; B_{g,K−1} h_{K−1}],   h = [h_0; …; h_{K−1}]     (1)
//! ```
//!
//! | symbol | shape | initialization | meaning |
//! |---|---|---|---|
//! | `W.0` … `W.K−1` | `[N/K, G·N/K]` | the cell's for each block, else Glorot (orthogonal if complex) | blocks `B_{g,k}ᵀ`, in the cell's order of gates |
//!
//! `G·N²/K` numbers, and as many multiply-adds a row.
//!
//! **Differs from the paper**: initialization; there are more ways to use heads in it than this one.

use std::ops::Range;
use std::sync::Arc;

use retrograd_engine::layout::{Layout, layout};
use retrograd_engine::{Tape, Var, matmul};
use retrograd_ops as ops;

use crate::cell::block;
use crate::declare::Declare;
use crate::error::{Error, Result};
use crate::init::Init;
use crate::operator::{BoundOperator, Recurrence, RecurrentOperator};
use crate::settings::{OptionDoc, Options};
use crate::table::OperatorEntry;

/// Block-diagonal matrices; see the [module](self).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockDiagonal {
    /// Number of blocks `K`; `None` takes the largest of 4, 3, 2 and 1 that divides the hidden size.
    pub blocks: Option<usize>,
    /// Whether the blocks stay as they begin.
    pub frozen: bool,
}

/// Table entry of [`BlockDiagonal`].
pub const BLOCK_DIAGONAL: OperatorEntry = OperatorEntry {
    name: "block_diagonal",
    summary: "full blocks on the diagonal (recurrent heads): N²/blocks numbers for each gate",
    options: &[
        OptionDoc {
            key: "blocks",
            default: "auto",
            doc: "number of blocks, a divisor of the hidden size; auto: the largest of 4, 3, 2 and 1 that is one",
        },
        OptionDoc { key: "freeze", default: "false", doc: "keep the blocks as they begin; true or false" },
    ],
    build: |options: &Options<'_>| {
        let blocks = match options.text("blocks") {
            "auto" => None,
            text => match text.parse() {
                Ok(blocks) if blocks > 0 => Some(blocks),
                _ => return Err(options.bad("blocks", "a whole number of at least 1, or auto")),
            },
        };
        Ok(Arc::new(BlockDiagonal { blocks, frozen: options.flag("freeze")? }))
    },
};

impl BlockDiagonal {
    /// Number of blocks and size of one. Errors: a number that does not divide the hidden size.
    pub fn sizes(&self, n: usize) -> Result<[usize; 2]> {
        let fits = |blocks: &usize| *blocks > 0 && n.is_multiple_of(*blocks);
        let found = match self.blocks {
            Some(blocks) => Some(blocks).filter(fits),
            None => [4, 3, 2, 1].into_iter().find(fits),
        };
        let Some(blocks) = found else {
            let asked = self.blocks.unwrap_or(0);
            let below = (1..asked.min(n)).rev().find(fits).unwrap_or(1);
            let above = (asked + 1..=n).find(fits);
            let use_ = above.map_or_else(|| below.to_string(), |above| format!("{below} or {above}"));
            return Err(Error::model(format!(
                "block_diagonal: {asked} blocks do not divide the hidden size {n}; use blocks={use_}"
            )));
        };
        Ok([blocks, n / blocks])
    }
}

impl RecurrentOperator for BlockDiagonal {
    fn name(&self) -> &'static str {
        BLOCK_DIAGONAL.name
    }

    fn declare(&self, ctx: &mut Declare<'_>, r: Recurrence<'_>) -> Result<Box<dyn BoundOperator>> {
        let [blocks, size] = self.sizes(r.n)?;
        let init = r.init.unwrap_or(if r.complex { Init::Orthogonal } else { Init::Glorot });
        let mut b = Vec::with_capacity(blocks);
        for k in 0..blocks {
            let name = k.to_string();
            b.push(ctx.scope(r.name).blocks(&name, [size, size], r.gates.len(), r.complex, init)?);
        }
        if self.frozen {
            ctx.freeze(r.name);
        }
        Ok(Box::new(BoundBlockDiagonal { b, size }))
    }
}

#[derive(Debug)]
struct BoundBlockDiagonal {
    /// For each block `[N/K, G·N/K]`.
    b: Vec<Var>,
    /// `N/K`.
    size: usize,
}

impl BoundOperator for BoundBlockDiagonal {
    fn apply(&self, tape: &mut Tape, h: Var, gate: usize) -> retrograd_engine::Result<Var> {
        let mut parts = Vec::with_capacity(self.b.len());
        for (k, &b) in self.b.iter().enumerate() {
            let h = block(tape, h, k, self.size)?;
            let b = block(tape, b, gate, self.size)?;
            parts.push(matmul(tape, h, b)?); // eq. (1)
        }
        ops::concat(tape, &parts, -1)
    }

    fn apply_all(&self, tape: &mut Tape, h: Var, gates: Range<usize>) -> retrograd_engine::Result<Vec<Var>> {
        let (start, len) = (gates.start * self.size, gates.len() * self.size);
        let mut products = Vec::with_capacity(self.b.len());
        for (k, &b) in self.b.iter().enumerate() {
            let h = block(tape, h, k, self.size)?;
            let b = layout(tape, b, Layout::Slice { axis: 1, start, len })?;
            products.push(matmul(tape, h, b)?); // eq. (1)
        }
        let mut out = Vec::with_capacity(gates.len());
        for gate in 0..gates.len() {
            let parts: retrograd_engine::Result<Vec<Var>> =
                products.iter().map(|&y| block(tape, y, gate, self.size)).collect();
            out.push(ops::concat(tape, &parts?, -1)?);
        }
        Ok(out)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_blocks() {
        let sizes = |blocks, n| BlockDiagonal { blocks, frozen: false }.sizes(n);
        assert_eq!(sizes(None, 12).unwrap(), [4, 3]);
        assert_eq!(sizes(None, 6).unwrap(), [3, 2]);
        assert_eq!(sizes(None, 7).unwrap(), [1, 7]);
        assert_eq!(sizes(Some(6), 12).unwrap(), [6, 2]);
        let message = sizes(Some(5), 12).unwrap_err().to_string();
        assert_eq!(
            message,
            "model: block_diagonal: 5 blocks do not divide the hidden size 12; use blocks=4 or 6"
        );
        let message = sizes(Some(20), 12).unwrap_err().to_string();
        assert!(message.ends_with("use blocks=6"), "{message}");
    }
}
