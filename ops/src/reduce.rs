//! Sums and means over ordinary axes, and over everything.

use retrograd_engine::core_ops::{sum_dims, sum_rows, sum_steps};
use retrograd_engine::{Error, Result, Tape, Var};

use crate::fold::Reduced;
use crate::spec::{Arg, Case, Domain, OpSpec};
use crate::{div, extent, scale};

/// Sum over ordinary axes. With `keep` they stay as axes of size 1; no axes is the value itself.
///
/// Shapes: `x [.., a, ..] -> y [.., 1, ..]` or `[.., ..]`.   Rule: `x_bar = y_bar`, stretched.
/// Domain: all numbers; an empty sum is 0.   Errors: an axis that does not exist or is named twice.
pub fn sum(tape: &mut Tape, x: Var, axes: &[i32], keep: bool) -> Result<Var> {
    let reduced = Reduced::new("sum", tape, x, axes)?;
    let y = sum_dims(tape, x, &reduced.kept)?;
    reduced.shape(tape, y, keep)
}

/// Mean over ordinary axes; see [`sum`].
///
/// Shapes: as [`sum`].   Rule: `x_bar = y_bar / count`, stretched.   Domain: all numbers.
/// Errors: an axis that does not exist or is named twice; no elements.
pub fn mean(tape: &mut Tape, x: Var, axes: &[i32], keep: bool) -> Result<Var> {
    let reduced = Reduced::not_empty("mean", tape, x, axes)?;
    let y = sum_dims(tape, x, &reduced.kept)?;
    let y = scale(tape, y, 1.0 / reduced.count as f64)?;
    reduced.shape(tape, y, keep)
}

/// Sum over everything: ordinary axes, steps and rows. Of rows whose sequence has ended a scan's outputs are 0.
///
/// Shapes: `x [..] -> y []`, shared.   Rule: `x_bar = y_bar`.   Domain: all numbers.   Errors: none of its own.
pub fn sum_all(tape: &mut Tape, x: Var) -> Result<Var> {
    let lead = tape.shape(x)?.lead;
    let mut y = sum_dims(tape, x, &[])?;
    if lead.has_t() {
        y = sum_steps(tape, y)?;
    }
    if lead.has_n() {
        y = sum_rows(tape, y)?;
    }
    Ok(y)
}

/// Mean over everything: ordinary axes, steps and rows, their numbers being those of the run at hand. Entries of
/// ended sequences count as entries; divide [`sum_all`] by a sum of masks where they should not.
///
/// Shapes: `x [..] -> y []`, shared.   Rule: `x_bar = y_bar / count`.   Domain: all numbers; NaN for a run of no
/// rows or steps.   Errors: an entry of no elements.
pub fn mean_all(tape: &mut Tape, x: Var) -> Result<Var> {
    let shape = tape.shape(x)?.clone();
    if shape.width() == 0 {
        return Err(Error::shape("mean_all", "x", "at least one element", shape));
    }
    let dtype = tape.dtype(x)?;
    let y = sum_all(tape, x)?;
    let y = scale(tape, y, 1.0 / shape.width() as f64)?;
    let entries = extent(tape, shape.lead, dtype)?;
    div(tape, y, entries)
}

pub(crate) static SUM: OpSpec = OpSpec {
    name: "sum",
    summary: "sum over axes",
    cases: &[
        Case {
            label: "last axis",
            inputs: &[Arg::either("N B C", Domain::Any)],
            build: |tape, x| sum(tape, x[0], &[-1], false),
        },
        Case {
            label: "outer axes, kept",
            inputs: &[Arg::either("N B C D", Domain::Any)],
            build: |tape, x| sum(tape, x[0], &[0, 2], true),
        },
        Case {
            label: "no axes",
            inputs: &[Arg::either("B", Domain::Any)],
            build: |tape, x| sum(tape, x[0], &[], false),
        },
    ],
};

pub(crate) static MEAN: OpSpec = OpSpec {
    name: "mean",
    summary: "mean over axes",
    cases: &[
        Case {
            label: "first axis",
            inputs: &[Arg::either("N B C", Domain::Any)],
            build: |tape, x| mean(tape, x[0], &[0], false),
        },
        Case {
            label: "all axes, kept",
            inputs: &[Arg::either("B C", Domain::Any)],
            build: |tape, x| mean(tape, x[0], &[0, 1], true),
        },
    ],
};

pub(crate) static SUM_ALL: OpSpec = OpSpec {
    name: "sum_all",
    summary: "sum over everything",
    cases: &[
        Case {
            label: "rows",
            inputs: &[Arg::either("N B C", Domain::Any)],
            build: |tape, x| sum_all(tape, x[0]),
        },
        Case {
            label: "steps and rows",
            inputs: &[Arg::either("T N C", Domain::Any)],
            build: |tape, x| sum_all(tape, x[0]),
        },
        Case {
            label: "shared",
            inputs: &[Arg::either("C", Domain::Any)],
            build: |tape, x| sum_all(tape, x[0]),
        },
    ],
};

pub(crate) static MEAN_ALL: OpSpec = OpSpec {
    name: "mean_all",
    summary: "mean over everything",
    cases: &[
        Case {
            label: "steps and rows",
            inputs: &[Arg::either("T N C", Domain::Any)],
            build: |tape, x| mean_all(tape, x[0]),
        },
        Case {
            label: "steps",
            inputs: &[Arg::either("T C", Domain::Any)],
            build: |tape, x| mean_all(tape, x[0]),
        },
    ],
};

#[cfg(test)]
mod tests {
    use retrograd_engine::{DType, Params, Shape, Tensor, reference};

    use super::*;

    #[test]
    fn values() -> Result<()> {
        let mut tape = Tape::new();
        let x = tape.input("x", DType::F64, Shape::sequence([2]))?;
        let outputs = [
            sum(&mut tape, x, &[0], false)?,
            mean(&mut tape, x, &[-1], true)?,
            sum_all(&mut tape, x)?,
            mean_all(&mut tape, x)?,
        ];
        assert_eq!(tape.shape(outputs[1])?.to_string(), "[T,N,1]");
        let data = Tensor::from_slice([2, 1, 2], &[1.0, 2.0, 3.0, 6.0])?;
        let found = reference::evaluate(&tape, &outputs, &[&Params::from_iter([("x".to_string(), data)])])?;
        let expected = [vec![3.0, 9.0], vec![1.5, 4.5], vec![12.0], vec![3.0]];
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found.as_slice::<f64>()?, expected);
        }
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_an_error() -> Result<()> {
        let mut tape = Tape::new();
        let x = tape.param("x", DType::F32, [2, 0])?;
        assert!(sum(&mut tape, x, &[2], false).is_err());
        assert!(sum(&mut tape, x, &[1, -1], false).is_err());
        assert!(mean(&mut tape, x, &[1], false).is_err());
        assert!(mean_all(&mut tape, x).is_err());
        assert!(mean(&mut tape, x, &[0], false).is_ok());
        Ok(())
    }
}
