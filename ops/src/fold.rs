//! What reductions over ordinary axes share: the sizes they leave, and where each element goes.

use retrograd_engine::layout::{Layout, layout};
use retrograd_engine::{Dims, Error, Result, Tape, Var};

use crate::axis::axes;

/// Sizes of a reduction over some axes.
pub(crate) struct Reduced {
    /// Sizes with 1 for every axis reduced.
    pub(crate) kept: Dims,
    /// Sizes without the axes reduced.
    pub(crate) dropped: Dims,
    /// Elements that become one.
    pub(crate) count: usize,
}

impl Reduced {
    /// Errors: as [`axes`].
    pub(crate) fn new(op: &'static str, tape: &Tape, x: Var, over: &[i32]) -> Result<Reduced> {
        let dims = &tape.shape(x)?.dims;
        let over = axes(op, dims.len(), over)?;
        let sizes = || dims.iter().zip(&over);
        Ok(Reduced {
            kept: sizes().map(|(&d, &over)| if over { 1 } else { d }).collect(),
            dropped: sizes().filter(|(_, over)| !**over).map(|(&d, _)| d).collect(),
            count: sizes().filter(|(_, over)| **over).map(|(&d, _)| d).product(),
        })
    }

    /// As [`Reduced::new`]; also errors where nothing would be reduced to something.
    pub(crate) fn not_empty(op: &'static str, tape: &Tape, x: Var, over: &[i32]) -> Result<Reduced> {
        let reduced = Reduced::new(op, tape, x, over)?;
        if reduced.count == 0 {
            let what = format!("axes {over:?}");
            return Err(Error::shape(op, what, "at least one element", tape.shape(x)?));
        }
        Ok(reduced)
    }

    /// The value with its reduced axes kept as 1, or without them.
    pub(crate) fn shape(self, tape: &mut Tape, y: Var, keep: bool) -> Result<Var> {
        if keep { Ok(y) } else { layout(tape, y, Layout::Reshape { dims: self.dropped }) }
    }
}

/// Calls `visit(i, j)` for every element `i` of an entry of sizes `from`, in order, with the element `j` it goes
/// to in an entry of sizes `to`, of the same number of axes and 1 for those reduced.
pub(crate) fn for_each(from: &[usize], to: &[usize], mut visit: impl FnMut(usize, usize)) {
    let count: usize = from.iter().product();
    if count == 0 {
        return;
    }
    // The axes behind the last one reduced run along; so do those of the block that is reduced to one element.
    let last = (0..from.len()).rev().find(|&a| from[a] != to[a]).map_or(0, |a| a + 1);
    let inner: usize = from[last..].iter().product();
    for block in 0..count / inner {
        let (mut rest, mut j, mut step) = (block, 0, inner);
        for a in (0..last).rev() {
            if to[a] != 1 {
                j += rest % from[a] * step;
            }
            step *= to[a];
            rest /= from[a];
        }
        for k in 0..inner {
            visit(block * inner + k, j + k);
        }
    }
}

/// Size of the trailing block that is reduced to one element, if only trailing axes are reduced.
pub(crate) fn trailing(from: &[usize], to: &[usize]) -> Option<usize> {
    let first = (0..from.len()).find(|&a| from[a] != to[a]).unwrap_or(from.len());
    to[first..].iter().all(|&d| d == 1).then(|| from[first..].iter().product())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let list = |from: &[usize], to: &[usize]| {
            let mut out = Vec::new();
            for_each(from, to, |i, j| {
                assert_eq!(i, out.len());
                out.push(j);
            });
            out
        };
        assert_eq!(list(&[2, 3], &[1, 3]), [0, 1, 2, 0, 1, 2]);
        assert_eq!(list(&[2, 3], &[2, 1]), [0, 0, 0, 1, 1, 1]);
        assert_eq!(list(&[2, 2, 2], &[1, 2, 1]), [0, 0, 1, 1, 0, 0, 1, 1]);
        assert_eq!(list(&[2, 2, 2], &[2, 1, 2]), [0, 1, 0, 1, 2, 3, 2, 3]);
        assert_eq!(list(&[2, 2], &[2, 2]), [0, 1, 2, 3]);
        assert_eq!(list(&[], &[]), [0]);
        assert_eq!(trailing(&[2, 3, 4], &[2, 1, 1]), Some(12));
        assert_eq!(trailing(&[2, 3, 4], &[2, 1, 4]), None);
        assert_eq!(trailing(&[2, 3], &[2, 3]), Some(1));
    }
}
