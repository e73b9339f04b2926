//! Axes as arguments: ordinary axes, negative ones counted from the last.

use retrograd_engine::{Error, Result};

/// The axis among `rank`, −1 the last. Errors: out of range.
pub(crate) fn axis(op: &'static str, rank: usize, axis: i32) -> Result<usize> {
    let from_front = if axis < 0 { i64::from(axis) + rank as i64 } else { i64::from(axis) };
    usize::try_from(from_front).ok().filter(|&a| a < rank).ok_or_else(|| {
        Error::shape(op, "axis", format!("one of {rank} ordinary axes, -{rank}..{rank}"), axis)
    })
}

#[cfg(test)]
mod tests {
    use super::axis;

    #[test]
    fn counts_from_both_ends() {
        assert_eq!(axis("t", 3, 0).ok(), Some(0));
        assert_eq!(axis("t", 3, -1).ok(), Some(2));
        assert!(axis("t", 3, 3).is_err());
        assert!(axis("t", 3, -4).is_err());
        assert!(axis("t", 0, 0).is_err());
    }
}
