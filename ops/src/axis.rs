//! Axes as arguments: ordinary axes, negative ones counted from the last.

use retrograd_engine::{Error, Result};

/// The axis among `rank`, −1 the last. Errors: out of range.
pub(crate) fn axis(op: &'static str, rank: usize, axis: i32) -> Result<usize> {
    let from_front = if axis < 0 { i64::from(axis) + rank as i64 } else { i64::from(axis) };
    usize::try_from(from_front).ok().filter(|&a| a < rank).ok_or_else(|| {
        Error::shape(op, "axis", format!("one of {rank} ordinary axes, -{rank}..{rank}"), axis)
    })
}

/// For each of `rank` axes whether it is among `axes`. Errors: one out of range, one named twice.
pub(crate) fn axes(op: &'static str, rank: usize, axes: &[i32]) -> Result<Vec<bool>> {
    let mut named = vec![false; rank];
    for &a in axes {
        if std::mem::replace(&mut named[axis(op, rank, a)?], true) {
            return Err(Error::argument(op, format!("axis {a} is named twice in {axes:?}")));
        }
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::{axes, axis};

    #[test]
    fn sets_of_axes() {
        assert_eq!(axes("t", 3, &[-1, 0]).ok(), Some(vec![true, false, true]));
        assert_eq!(axes("t", 3, &[]).ok(), Some(vec![false; 3]));
        assert!(axes("t", 3, &[2, -1]).is_err());
        assert!(axes("t", 3, &[-4]).is_err());
    }

    #[test]
    fn counts_from_both_ends() {
        assert_eq!(axis("t", 3, 0).ok(), Some(0));
        assert_eq!(axis("t", 3, -1).ok(), Some(2));
        assert!(axis("t", 3, 3).is_err());
        assert!(axis("t", 3, -4).is_err());
        assert!(axis("t", 0, 0).is_err());
    }
}
