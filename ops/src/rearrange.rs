//! Rearrangements of ordinary axes: reshape, slice, split, join, transpose, flip, broadcast.
//!
//! Batch axes stay in front and are not counted: axis 0 is the first ordinary axis, −1 the last.

use std::ops::Range;

use retrograd_engine::layout::{Layout, layout};
use retrograd_engine::{Dims, Error, Result, Tape, Var, core_ops};

use crate::axis::axis;
use crate::spec::{Arg, Case, Domain, OpSpec};

fn resolve(op: &'static str, tape: &Tape, x: Var, a: i32) -> Result<usize> {
    axis(op, tape.shape(x)?.dims.len(), a)
}

/// The same elements under other sizes; one size may be −1 and is found from the others.
///
/// Shapes: `x [.., dims] -> y [.., dims']`.   Rule: the reverse.   Errors: another number of elements; sizes below
/// −1, several of −1, or one that cannot be found.
pub fn reshape(tape: &mut Tape, x: Var, dims: &[isize]) -> Result<Var> {
    let from = tape.shape(x)?.clone();
    let bad = || {
        Error::shape("reshape", "number of elements", format!("{:?}", &from.dims[..]), format!("{dims:?}"))
    };
    let known = dims
        .iter()
        .filter(|&&d| d != -1)
        .try_fold(1usize, |n, &d| n.checked_mul(usize::try_from(d).ok()?))
        .ok_or_else(bad)?;
    let free = dims.iter().filter(|&&d| d == -1).count();
    let rest = match (free, from.width().checked_div(known)) {
        (0, _) => 0,
        (1, Some(rest)) if rest * known == from.width() => rest,
        _ => return Err(bad()),
    };
    let dims: Dims = dims.iter().map(|&d| usize::try_from(d).unwrap_or(rest)).collect();
    layout(tape, x, Layout::Reshape { dims })
}

/// The entries `range` along an axis.
///
/// Shapes: `x [.., a, ..] -> y [.., range.len(), ..]`.   Rule: `y_bar` with zeros around it.
/// Errors: an axis that does not exist, a range past its end or backwards.
pub fn slice(tape: &mut Tape, x: Var, range: Range<usize>, axis: i32) -> Result<Var> {
    let axis = resolve("slice", tape, x, axis)?;
    let len = range.end.checked_sub(range.start).ok_or_else(|| {
        Error::shape("slice", format!("range along axis {axis}"), "start <= end", format!("{range:?}"))
    })?;
    layout(tape, x, Layout::Slice { axis, start: range.start, len })
}

/// Consecutive parts of the given sizes along an axis.
///
/// Shapes: `x [.., a, ..] -> [.., sizes[i], ..]`.   Rule: the cotangents joined.
/// Errors: sizes that do not add up to the axis.
pub fn split(tape: &mut Tape, x: Var, sizes: &[usize], axis: i32) -> Result<Vec<Var>> {
    let at = resolve("split", tape, x, axis)?;
    let size = tape.shape(x)?.dims[at];
    if sizes.iter().try_fold(0usize, |sum, &n| sum.checked_add(n)) != Some(size) {
        return Err(Error::shape("split", format!("sizes along axis {at}"), size, format!("{sizes:?}")));
    }
    let mut start = 0;
    sizes
        .iter()
        .map(|&len| {
            start += len;
            layout(tape, x, Layout::Slice { axis: at, start: start - len, len })
        })
        .collect()
}

/// `parts` equal parts along an axis: the gates of a cell. As [`split`].
/// Errors: an axis that cannot be divided into as many.
pub fn chunk(tape: &mut Tape, x: Var, parts: usize, axis: i32) -> Result<Vec<Var>> {
    let at = resolve("chunk", tape, x, axis)?;
    let size = tape.shape(x)?.dims[at];
    if parts == 0 || size % parts != 0 {
        return Err(Error::shape("chunk", format!("axis {at}"), format!("a multiple of {parts}"), size));
    }
    split(tape, x, &vec![size / parts; parts], axis)
}

/// Values joined along an axis: `[.., a, ..], [.., b, ..] -> [.., a+b, ..]`. Batch axes join.
///
/// Rule: slices of `y_bar`.   Errors: no values, other axes that differ, element types that differ.
pub fn concat(tape: &mut Tape, parts: &[Var], axis: i32) -> Result<Var> {
    let first = *parts.first().ok_or_else(|| Error::argument("concat", "no inputs"))?;
    let axis = resolve("concat", tape, first, axis)?;
    core_ops::concat(tape, parts, axis)
}

/// Axes in another order: axis `i` of the result is axis `order[i]` of `x`. An empty order reverses all.
///
/// Shapes: `x [.., a, b] -> y [.., b, a]`.   Rule: the reverse.   Errors: an order that does not name every axis
/// once.
pub fn transpose(tape: &mut Tape, x: Var, order: &[i32]) -> Result<Var> {
    let rank = tape.shape(x)?.dims.len();
    let order: Dims = if order.is_empty() {
        (0..rank).rev().collect()
    } else {
        order.iter().map(|&a| axis("transpose", rank, a)).collect::<Result<_>>()?
    };
    if order.iter().copied().eq(0..rank) {
        return Ok(x);
    }
    layout(tape, x, Layout::Permute { order })
}

/// Reversed along an axis. Rule: the same.   Errors: an axis that does not exist.
pub fn flip(tape: &mut Tape, x: Var, axis: i32) -> Result<Var> {
    let axis = resolve("flip", tape, x, axis)?;
    layout(tape, x, Layout::Flip { axis })
}

/// Stretched to these sizes by the broadcasting rule.
///
/// Shapes: `x [.., 1, b] -> y [.., a, b]`.   Rule: sum over what was stretched.   Errors: sizes the value does not
/// stretch to.
pub fn broadcast(tape: &mut Tape, x: Var, dims: &[usize]) -> Result<Var> {
    layout(tape, x, Layout::Broadcast { dims: Dims::from_slice(dims) })
}

pub(crate) static RESHAPE: OpSpec = OpSpec {
    name: "reshape",
    summary: "the same elements under other sizes",
    cases: &[Case {
        label: "flattened and unflattened",
        inputs: &[Arg::either("N C 2 3", Domain::Any)],
        build: |tape, x| {
            let flat = reshape(tape, x[0], &[-1])?;
            reshape(tape, flat, &[3, -1, 2])
        },
    }],
};

pub(crate) static SLICE: OpSpec = OpSpec {
    name: "slice",
    summary: "a range along an axis",
    cases: &[
        Case {
            label: "last axis",
            inputs: &[Arg::either("N C 5", Domain::Any)],
            build: |tape, x| slice(tape, x[0], 1..4, -1),
        },
        Case {
            label: "first axis, overlapping slices",
            inputs: &[Arg::either("N 4 C", Domain::Any)],
            build: |tape, x| {
                let (a, b) = (slice(tape, x[0], 0..3, 0)?, slice(tape, x[0], 1..4, 0)?);
                crate::mul(tape, a, b)
            },
        },
    ],
};

pub(crate) static SPLIT: OpSpec = OpSpec {
    name: "split",
    summary: "consecutive parts along an axis",
    cases: &[Case {
        label: "two parts multiplied",
        inputs: &[Arg::either("N 5 C", Domain::Any)],
        build: |tape, x| {
            let parts = split(tape, x[0], &[2, 2, 1], -2)?;
            let product = crate::mul(tape, parts[0], parts[1])?;
            crate::mul(tape, product, parts[2])
        },
    }],
};

pub(crate) static CHUNK: OpSpec = OpSpec {
    name: "chunk",
    summary: "equal parts along an axis",
    cases: &[Case {
        label: "two parts multiplied",
        inputs: &[Arg::either("N C 6", Domain::Any)],
        build: |tape, x| {
            let parts = chunk(tape, x[0], 2, -1)?;
            crate::mul(tape, parts[0], parts[1])
        },
    }],
};

pub(crate) static CONCAT: OpSpec = OpSpec {
    name: "concat",
    summary: "joined along an axis",
    cases: &[
        Case {
            label: "last axis",
            inputs: &[Arg::real("N C", Domain::Any), Arg::real("N D", Domain::Any)],
            build: |tape, x| concat(tape, x, -1),
        },
        Case {
            label: "first axis, complex, batch axes join",
            inputs: &[Arg::complex("N 2 C", Domain::Any), Arg::complex("D C", Domain::Any)],
            build: |tape, x| concat(tape, x, 0),
        },
    ],
};

pub(crate) static TRANSPOSE: OpSpec = OpSpec {
    name: "transpose",
    summary: "axes in another order",
    cases: &[
        Case {
            label: "reversed",
            inputs: &[Arg::either("N C D", Domain::Any)],
            build: |tape, x| transpose(tape, x[0], &[]),
        },
        Case {
            label: "cycle",
            inputs: &[Arg::either("B C D", Domain::Any)],
            build: |tape, x| transpose(tape, x[0], &[1, -1, 0]),
        },
    ],
};

pub(crate) static FLIP: OpSpec = OpSpec {
    name: "flip",
    summary: "reversed along an axis",
    cases: &[Case {
        label: "first of two",
        inputs: &[Arg::either("N C D", Domain::Any)],
        build: |tape, x| flip(tape, x[0], -2),
    }],
};

pub(crate) static BROADCAST: OpSpec = OpSpec {
    name: "broadcast",
    summary: "stretched to sizes",
    cases: &[Case {
        label: "two axes",
        inputs: &[Arg::either("N 1 C", Domain::Any)],
        build: |tape, x| {
            let last = tape.last_dim("broadcast", x[0])?;
            broadcast(tape, x[0], &[2, 3, last])
        },
    }],
};

#[cfg(test)]
mod tests {
    use retrograd_engine::{DType, Params, Tensor, reference};

    use super::*;

    /// Applies `op` to `[[1, 2, 3], [4, 5, 6]]`: sizes and elements.
    fn apply(op: impl FnOnce(&mut Tape, Var) -> Result<Var>) -> Result<(Vec<usize>, Vec<f64>)> {
        let mut tape = Tape::new();
        let x = tape.param("x", DType::F64, [2, 3])?;
        let y = op(&mut tape, x)?;
        let value = Tensor::from_slice([2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?;
        let values = Params::from_iter([("x".to_string(), value)]);
        let y = reference::evaluate(&tape, &[y], &[&values])?.remove(0);
        Ok((y.dims().to_vec(), y.as_slice::<f64>()?.to_vec()))
    }

    #[test]
    fn values() -> Result<()> {
        let all = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        assert_eq!(apply(|t, x| reshape(t, x, &[3, -1]))?, (vec![3, 2], all.clone()));
        assert_eq!(apply(|t, x| reshape(t, x, &[6]))?, (vec![6], all));
        assert_eq!(apply(|t, x| slice(t, x, 1..3, -1))?, (vec![2, 2], vec![2.0, 3.0, 5.0, 6.0]));
        assert_eq!(apply(|t, x| transpose(t, x, &[]))?, (vec![3, 2], vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0]));
        assert_eq!(apply(|t, x| flip(t, x, 1))?, (vec![2, 3], vec![3.0, 2.0, 1.0, 6.0, 5.0, 4.0]));
        assert_eq!(apply(|t, x| Ok(chunk(t, x, 3, 1)?[1]))?, (vec![2, 1], vec![2.0, 5.0]));
        assert_eq!(apply(|t, x| Ok(split(t, x, &[0, 2], 0)?[0]))?, (vec![0, 3], vec![]));
        let joined = apply(|t, x| {
            let parts = split(t, x, &[1, 2], -1)?;
            concat(t, &[parts[1], parts[0]], -1)
        })?;
        assert_eq!(joined, (vec![2, 3], vec![2.0, 3.0, 1.0, 5.0, 6.0, 4.0]));
        let stretched = apply(|t, x| {
            let x = slice(t, x, 0..1, 0)?;
            broadcast(t, x, &[2, 2, 3])
        })?;
        assert_eq!(stretched, (vec![2, 2, 3], [1.0, 2.0, 3.0].repeat(4)));
        Ok(())
    }

    #[test]
    fn errors() {
        assert!(apply(|t, x| reshape(t, x, &[4, -1])).is_err());
        assert!(apply(|t, x| reshape(t, x, &[-1, -1])).is_err());
        assert!(apply(|t, x| reshape(t, x, &[-2, -3])).is_err());
        assert!(apply(|t, x| reshape(t, x, &[0, -1])).is_err());
        assert!(apply(|t, x| reshape(t, x, &[isize::MAX, 4])).is_err());
        assert!(apply(|t, x| slice(t, x, 2..4, 1)).is_err());
        #[allow(clippy::reversed_empty_ranges)]
        let backwards = apply(|t, x| slice(t, x, 2..1, 1));
        assert!(backwards.is_err());
        assert!(apply(|t, x| Ok(split(t, x, &[1, 1], 1)?[0])).is_err());
        assert!(apply(|t, x| Ok(chunk(t, x, 2, 1)?[0])).is_err());
        assert!(apply(|t, x| Ok(chunk(t, x, 0, 1)?[0])).is_err());
        assert!(apply(|t, _| concat(t, &[], 0)).is_err());
        assert!(apply(|t, x| transpose(t, x, &[0, 0])).is_err());
        assert!(apply(|t, x| flip(t, x, 2)).is_err());
        assert!(apply(|t, x| broadcast(t, x, &[2, 2])).is_err());
    }
}
