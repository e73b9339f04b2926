//! Softmax and its relatives over the last axis.

use retrograd_engine::core_ops::stop_gradient;
use retrograd_engine::{Result, Tape, Var};

use crate::spec::{Arg, Case, Domain, OpSpec};
use crate::{add, div, exp, log, max, sub, sum};

/// `exp(x − m)` with the largest element `m` of the last axis, its sum, and `m`.
///
/// `m` only keeps the exponentials in range; results do not depend on it, so no gradient passes through it.
fn shifted(tape: &mut Tape, x: Var) -> Result<(Var, Var, Var)> {
    let m = max(tape, x, &[-1], true)?;
    let m = stop_gradient(tape, m)?;
    let centered = sub(tape, x, m)?;
    let e = exp(tape, centered)?;
    let s = sum(tape, e, &[-1], true)?;
    Ok((e, s, m))
}

/// Softmax over the last axis: `y = exp(x) / Σ exp(x)`, without overflow.
///
/// Shapes: `x [.., K] -> y [.., K]`, real.   Rule: by those of its parts (exponential, sum, quotient).
/// Domain: all finite `x`.   Errors: no axis, a complex input.
pub fn softmax(tape: &mut Tape, x: Var) -> Result<Var> {
    let (e, s, _) = shifted(tape, x)?;
    div(tape, e, s)
}

/// `log Σ exp(x)` over the last axis, without overflow.
///
/// Shapes: `x [.., K] -> y [..]`, real.   Rule: `x_bar = softmax(x) · y_bar`.   Errors as [`softmax`].
pub fn logsumexp(tape: &mut Tape, x: Var) -> Result<Var> {
    let (_, s, m) = shifted(tape, x)?;
    let y = log(tape, s)?;
    let y = add(tape, y, m)?;
    sum(tape, y, &[-1], false)
}

/// `x − log Σ exp(x)` over the last axis.
///
/// Shapes: `x [.., K] -> y [.., K]`, real.   Rule: by those of its parts.   Errors as [`softmax`].
pub fn log_softmax(tape: &mut Tape, x: Var) -> Result<Var> {
    let (_, s, m) = shifted(tape, x)?;
    let l = log(tape, s)?;
    let centered = sub(tape, x, m)?;
    sub(tape, centered, l)
}

/// Cross-entropy of a softmax with a class: `y = log Σ exp(x) − x[target]`, for every entry.
///
/// Shapes: `logits [.., K]`, `targets [..]` (i32), `mask [..]` (weights, optional) `-> y [..]`.
/// Rule: `x_bar = (softmax(x) − onehot(target)) · y_bar · mask`.   Domain: a target outside `0..K` gives NaN, unless
/// its mask is zero.   Errors: shapes that differ, targets that are not `I32`.
pub fn softmax_cross_entropy(tape: &mut Tape, logits: Var, targets: Var, mask: Option<Var>) -> Result<Var> {
    let l = logsumexp(tape, logits)?;
    let x = crate::pick(tape, logits, targets)?;
    let y = sub(tape, l, x)?;
    let Some(mask) = mask else { return Ok(y) };
    let weighted = crate::mul(tape, y, mask)?;
    let zero = tape.scalar(y, 0.0)?;
    crate::where_(tape, mask, weighted, zero)
}

/// Cross-entropy of `σ(x)` with a target in `[0, 1]`, element by element, without overflow:
/// `y = log(1 + exp(x)) − t·x`.
///
/// Shapes: `logits [..]`, `targets [..]` (real) `-> y [..]`.   Rule: `x_bar = (σ(x) − t) · y_bar`.
pub fn bce_with_logits(tape: &mut Tape, logits: Var, targets: Var) -> Result<Var> {
    let s = crate::softplus(tape, logits)?;
    let tx = crate::mul(tape, targets, logits)?;
    sub(tape, s, tx)
}

/// `|a − b|²`, element by element, real. Shapes: broadcast. Rule: `a_bar = 2 (a − b) · y_bar`.
pub fn squared_error(tape: &mut Tape, a: Var, b: Var) -> Result<Var> {
    let d = sub(tape, a, b)?;
    crate::abs2(tape, d)
}

pub(crate) static SOFTMAX: OpSpec = OpSpec {
    name: "softmax",
    summary: "softmax over the last axis",
    cases: &[Case {
        label: "rows",
        inputs: &[Arg::real("N K", Domain::Separated)],
        build: |t, x| softmax(t, x[0]),
    }],
};

pub(crate) static LOGSUMEXP: OpSpec = OpSpec {
    name: "logsumexp",
    summary: "log of the sum of exponentials over the last axis",
    cases: &[Case {
        label: "rows",
        inputs: &[Arg::real("N B K", Domain::Separated)],
        build: |t, x| logsumexp(t, x[0]),
    }],
};

pub(crate) static LOG_SOFTMAX: OpSpec = OpSpec {
    name: "log_softmax",
    summary: "log of the softmax over the last axis",
    cases: &[Case {
        label: "rows",
        inputs: &[Arg::real("N K", Domain::Separated)],
        build: |t, x| log_softmax(t, x[0]),
    }],
};

pub(crate) static CROSS_ENTROPY: OpSpec = OpSpec {
    name: "softmax_cross_entropy",
    summary: "cross-entropy of a softmax with integer classes, masked",
    // Four classes: with one the loss is zero and its derivatives are nothing but rounding.
    cases: &[
        Case {
            label: "rows",
            inputs: &[Arg::real("N 4", Domain::Separated), Arg::index("N", "4")],
            build: |t, x| softmax_cross_entropy(t, x[0], x[1], None),
        },
        Case {
            label: "masked",
            inputs: &[
                Arg::real("N 4", Domain::Separated),
                Arg::index("N", "4"),
                Arg::real("N", Domain::Unit),
            ],
            build: |t, x| softmax_cross_entropy(t, x[0], x[1], Some(x[2])),
        },
    ],
};

pub(crate) static BCE: OpSpec = OpSpec {
    name: "bce_with_logits",
    summary: "binary cross-entropy of logits",
    cases: &[Case {
        label: "rows",
        inputs: &[Arg::real("N C", Domain::Any), Arg::real("N C", Domain::Unit)],
        build: |t, x| bce_with_logits(t, x[0], x[1]),
    }],
};

pub(crate) static SQUARED_ERROR: OpSpec = OpSpec {
    name: "squared_error",
    summary: "squared distance, element by element",
    cases: &[Case {
        label: "rows",
        inputs: &[Arg::either("N C", Domain::Any), Arg::either("N C", Domain::Any)],
        build: |t, x| squared_error(t, x[0], x[1]),
    }],
};

#[cfg(test)]
mod tests {
    use super::*;
    use retrograd_engine::{DType, Params, Shape, Tensor, grad, reference};

    #[test]
    fn large_logits_do_not_overflow_and_masked_entries_do_not_count() -> Result<()> {
        let mut tape = Tape::new();
        let x = tape.input("x", DType::F64, Shape::rows([2]))?;
        let c = tape.input("c", DType::I32, Shape::rows([]))?;
        let m = tape.input("m", DType::F64, Shape::rows([]))?;
        let y = softmax_cross_entropy(&mut tape, x, c, Some(m))?;
        let total = crate::sum_all(&mut tape, y)?;
        let g = grad(&mut tape, total, &[x])?[0];
        let mut p = Params::new();
        p.insert("x", Tensor::from_slice([3, 2], &[1000.0, 0.0, -1000.0, 0.0, 1.0, 2.0])?);
        // The last target does not exist; its mask is zero.
        p.insert("c", Tensor::from_slice([3], &[1, 1, 7])?);
        p.insert("m", Tensor::from_slice([3], &[1.0, 1.0, 0.0])?);
        let out = reference::evaluate(&tape, &[y, g], &[&p])?;
        assert_eq!(out[0].as_slice::<f64>()?, [1000.0, 0.0, 0.0]);
        assert_eq!(out[1].as_slice::<f64>()?, [1.0, -1.0, 0.0, 0.0, 0.0, 0.0]);
        p.insert("m", Tensor::from_slice([3], &[1.0, 1.0, 1.0])?);
        assert!(reference::evaluate(&tape, &[y], &[&p])?[0].as_slice::<f64>()?[2].is_nan());
        Ok(())
    }
}
