//! Sums and means over ordinary axes, and over everything.

use retrograd_engine::core_ops::{extent, sum_dims, sum_rows, sum_steps};
use retrograd_engine::layout::{Layout, layout};
use retrograd_engine::{Dims, Result, Tape, Var};

use crate::axis::axis;
use crate::spec::{Arg, Case, Domain, OpSpec};
use crate::{div, scale};

/// Sizes with `axes` reduced to 1, and without them.
pub(crate) fn reduced(op: &'static str, dims: &[usize], axes: &[i32]) -> Result<(Dims, Dims)> {
    let mut ones = Dims::from_slice(dims);
    let mut gone = vec![false; dims.len()];
    for &a in axes {
        let a = axis(op, dims.len(), a)?;
        ones[a] = 1;
        gone[a] = true;
    }
    let without = dims.iter().zip(&gone).filter(|(_, gone)| !**gone).map(|(d, _)| *d).collect();
    Ok((ones, without))
}

/// Sum over ordinary axes.
///
/// Shapes: `x [.., dims] -> y`, without `axes`, or with size 1 there if `keep`.
/// Rule: `x_bar = y_bar`, stretched.   Domain: all.   Errors: an axis that does not exist.
pub fn sum(tape: &mut Tape, x: Var, axes: &[i32], keep: bool) -> Result<Var> {
    let (ones, without) = reduced("sum", &tape.shape(x)?.dims, axes)?;
    let y = sum_dims(tape, x, &ones)?;
    if keep { Ok(y) } else { layout(tape, y, Layout::Reshape { dims: without }) }
}

/// Mean over ordinary axes; shapes as [`sum`]. Rule: `x_bar = y_bar / n`, stretched. The mean of nothing is NaN.
pub fn mean(tape: &mut Tape, x: Var, axes: &[i32], keep: bool) -> Result<Var> {
    let dims = tape.shape(x)?.dims.clone();
    let (ones, _) = reduced("mean", &dims, axes)?;
    let kept: usize = ones.iter().product();
    let n = dims.iter().product::<usize>() as f64 / kept.max(1) as f64;
    let y = sum(tape, x, axes, keep)?;
    scale(tape, y, 1.0 / n)
}

/// Sum over all axes, batch axes included: `x [..] -> y []`.
pub fn sum_all(tape: &mut Tape, x: Var) -> Result<Var> {
    let mut y = sum_dims(tape, x, &[])?;
    if tape.shape(y)?.lead.has_t() {
        y = sum_steps(tape, y)?;
    }
    if tape.shape(y)?.lead.has_n() {
        y = sum_rows(tape, y)?;
    }
    Ok(y)
}

/// Mean over all axes, batch axes included: `x [..] -> y []`.
pub fn mean_all(tape: &mut Tape, x: Var) -> Result<Var> {
    let (lead, width) = (tape.shape(x)?.lead, tape.shape(x)?.width());
    let dtype = tape.dtype(x)?;
    let y = sum_all(tape, x)?;
    let entries = extent(tape, lead, dtype)?;
    let n = scale(tape, entries, width as f64)?;
    div(tape, y, n)
}

pub(crate) static SUM: OpSpec = OpSpec {
    name: "sum",
    summary: "sum over ordinary axes",
    cases: &[
        Case {
            label: "last axis",
            inputs: &[Arg::either("N B C", Domain::Any)],
            build: |t, x| sum(t, x[0], &[-1], false),
        },
        Case {
            label: "first axis, kept",
            inputs: &[Arg::real("N B C", Domain::Any)],
            build: |t, x| sum(t, x[0], &[0], true),
        },
        Case {
            label: "two of three",
            inputs: &[Arg::real("B C D", Domain::Any)],
            build: |t, x| sum(t, x[0], &[0, 2], false),
        },
    ],
};

pub(crate) static MEAN: OpSpec = OpSpec {
    name: "mean",
    summary: "mean over ordinary axes",
    cases: &[Case {
        label: "all",
        inputs: &[Arg::either("N B C", Domain::Any)],
        build: |t, x| mean(t, x[0], &[0, 1], false),
    }],
};

pub(crate) static SUM_ALL: OpSpec = OpSpec {
    name: "sum_all",
    summary: "sum over all axes, batch axes included",
    cases: &[Case {
        label: "rows",
        inputs: &[Arg::either("N C", Domain::Any)],
        build: |t, x| sum_all(t, x[0]),
    }],
};

pub(crate) static MEAN_ALL: OpSpec = OpSpec {
    name: "mean_all",
    summary: "mean over all axes, batch axes included",
    cases: &[Case {
        label: "sequence",
        inputs: &[Arg::real("T N C", Domain::Any)],
        build: |t, x| mean_all(t, x[0]),
    }],
};
