//! Softmax, its logarithm, and the logarithm of a sum of exponentials.

use retrograd_engine::core_ops::sum_dims;
use retrograd_engine::device::{Building, DeviceKernel, Entry, Piece, Value};
use retrograd_engine::expr::Unary;
use retrograd_engine::kernel::{Args, Structured};
use retrograd_engine::layout::{Layout, layout};
use retrograd_engine::op::{Class, Cotangents, Io};
use retrograd_engine::{Dims, Error, Op, Result, Tape, Ty, Var, structured_kernel};
use smallvec::smallvec;

use crate::exp_sum::{Exp, exp_sum, exp_terms, log};
use crate::lanes::is_nan;
use crate::pieces::{exp_sum as exp_sum_piece, exp_term};
use crate::spec::{Arg, Case, Domain, OpSpec};
use crate::{check, exp, mul, sub};

/// Softmax over the last axis: `y = exp(x) / Σ exp(x)`; real.
///
/// Shapes: `x [.., K] -> y [.., K]`.   Rule: `x_bar = y · (y_bar − Σ y y_bar)`; keeps `y`.
/// Domain: real numbers of any size, −∞ included; NaN for a row of a NaN, a +∞ or only −∞.
/// Errors: no axis, or one of no elements; complex `x`.
pub fn softmax(tape: &mut Tape, x: Var) -> Result<Var> {
    tape.push(Softmax, &[x])
}

/// Logarithm of the softmax over the last axis: `y = x − log Σ exp(x)`; real.
///
/// Shapes: `x [.., K] -> y [.., K]`.   Rule: `x_bar = y_bar − exp(y) Σ y_bar`; keeps `y`.
/// Domain: as [`softmax`].   Errors: as [`softmax`].
pub fn log_softmax(tape: &mut Tape, x: Var) -> Result<Var> {
    tape.push(LogSoftmax, &[x])
}

/// Logarithm of a sum of exponentials over the last axis: `y = log Σ exp(x)`; real.
///
/// Shapes: `x [.., K] -> y [..]`.   Rule: `x_bar = softmax(x) · y_bar`; keeps `x`.
/// Domain: real numbers of any size; −∞ for a row of only −∞, +∞ with a +∞, where the cotangent is NaN.
/// Errors: as [`softmax`].
pub fn logsumexp(tape: &mut Tape, x: Var) -> Result<Var> {
    let y = tape.push(LogSumExp, &[x])?;
    let mut dims = tape.shape(y)?.dims.clone();
    dims.pop();
    layout(tape, y, Layout::Reshape { dims })
}

#[derive(Clone, Copy, Debug)]
struct Softmax;

#[derive(Clone, Copy, Debug)]
struct LogSoftmax;

/// `[.., K] -> [.., 1]`.
#[derive(Clone, Copy, Debug)]
struct LogSumExp;

/// Errors unless input 0 is real and has classes.
pub(crate) fn check_logits(op: &'static str, inputs: &[Ty]) -> Result<()> {
    check::real(op, inputs, 0)?;
    let shape = &inputs[0].shape;
    if shape.dims.last().is_none_or(|&k| k == 0) {
        return Err(Error::shape(op, "input 0", "a last axis of at least one element", shape));
    }
    Ok(())
}

/// Sum over the last axis, kept.
pub(crate) fn sum_last(tape: &mut Tape, x: Var) -> Result<Var> {
    let mut dims: Dims = tape.shape(x)?.dims.clone();
    if let Some(last) = dims.last_mut() {
        *last = 1;
    }
    sum_dims(tape, x, &dims)
}

/// The Jacobian of softmax at its value `y`, which is symmetric, times `v`: `y (v − Σ y v)`.
pub(crate) fn through_softmax(tape: &mut Tape, y: Var, v: Var) -> Result<Var> {
    let weighted = mul(tape, y, v)?;
    let mean = sum_last(tape, weighted)?;
    let apart = sub(tape, v, mean)?;
    mul(tape, y, apart)
}

impl Op for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        check_logits("softmax", inputs)?;
        Ok(inputs[0].clone())
    }

    fn class(&self) -> Class<'_> {
        Class::Structured(self)
    }

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        Ok(smallvec![Some(through_softmax(tape, io.output, y_bar)?)])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        x_dots[0].map(|x_dot| through_softmax(tape, io.output, x_dot)).transpose()
    }

    fn flops(&self, _: &[Ty], output: &Ty) -> f64 {
        20.0 * output.shape.width() as f64
    }
}

impl Softmax {
    fn kernel<R: Exp>(&self, mut args: Args<'_, R>) {
        let x = args.inputs[0];
        let Some(&classes) = x.dims().last() else { return };
        for r in 0..args.rows {
            let rows = x.row(r).chunks_exact(classes).zip(args.output.row(r).chunks_exact_mut(classes));
            for (x, y) in rows {
                let (_, sum) = exp_terms(x, y);
                for y in y {
                    *y = *y / sum;
                }
            }
        }
    }
}

impl Structured for Softmax {
    structured_kernel!();

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }
}

impl DeviceKernel for Softmax {
    fn phases(&self, inputs: &[Entry], _: &Entry) -> Vec<usize> {
        let classes = inputs[0].line();
        vec![inputs[0].width() / classes]
    }

    fn by_warp(&self, inputs: &[Entry], _: &Entry) -> bool {
        inputs[0].is_long()
    }

    fn piece(&self, k: &mut Piece<'_, '_>, _: usize, piece: Value) {
        let classes = k.inputs[0].line();
        let base = k.code().mul(piece, classes);
        let (most, sum) = exp_sum_piece(k, base, classes);
        k.each_of(classes, |k, i| {
            let term = exp_term(k, base, i, most);
            let y = k.code().div(term, sum);
            let at = k.code().add(base, i);
            k.store(0, at, y);
        });
    }
}

impl Op for LogSoftmax {
    fn name(&self) -> &'static str {
        "log_softmax"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        check_logits("log_softmax", inputs)?;
        Ok(inputs[0].clone())
    }

    fn class(&self) -> Class<'_> {
        Class::Structured(self)
    }

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        let p = exp(tape, io.output)?;
        let sum = sum_last(tape, y_bar)?;
        let part = mul(tape, p, sum)?;
        Ok(smallvec![Some(sub(tape, y_bar, part)?)])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        let Some(x_dot) = x_dots[0] else { return Ok(None) };
        let p = exp(tape, io.output)?;
        let weighted = mul(tape, p, x_dot)?;
        let mean = sum_last(tape, weighted)?;
        sub(tape, x_dot, mean).map(Some)
    }

    fn flops(&self, _: &[Ty], output: &Ty) -> f64 {
        20.0 * output.shape.width() as f64
    }
}

impl LogSoftmax {
    fn kernel<R: Exp>(&self, mut args: Args<'_, R>) {
        let x = args.inputs[0];
        let Some(&classes) = x.dims().last() else { return };
        for r in 0..args.rows {
            let rows = x.row(r).chunks_exact(classes).zip(args.output.row(r).chunks_exact_mut(classes));
            for (x, y) in rows {
                let (most, sum) = exp_sum(x);
                let log = log(sum);
                for (y, x) in y.iter_mut().zip(x) {
                    *y = (*x - most) - log;
                }
            }
        }
    }
}

impl Structured for LogSoftmax {
    structured_kernel!();

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }
}

impl DeviceKernel for LogSoftmax {
    fn phases(&self, inputs: &[Entry], _: &Entry) -> Vec<usize> {
        let classes = inputs[0].line();
        vec![inputs[0].width() / classes]
    }

    fn by_warp(&self, inputs: &[Entry], _: &Entry) -> bool {
        inputs[0].is_long()
    }

    fn piece(&self, k: &mut Piece<'_, '_>, _: usize, piece: Value) {
        let classes = k.inputs[0].line();
        let base = k.code().mul(piece, classes);
        let (most, sum) = exp_sum_piece(k, base, classes);
        let log = k.unary(Unary::Log, sum);
        k.each_of(classes, |k, i| {
            let at = k.code().add(base, i);
            let x = k.input(0, 0, at);
            let x = k.code().sub(x, most);
            let y = k.code().sub(x, log);
            k.store(0, at, y);
        });
    }
}

impl Op for LogSumExp {
    fn name(&self) -> &'static str {
        "logsumexp"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        check_logits("logsumexp", inputs)?;
        let mut ty = inputs[0].clone();
        if let Some(last) = ty.shape.dims.last_mut() {
            *last = 1;
        }
        Ok(ty)
    }

    fn class(&self) -> Class<'_> {
        Class::Structured(self)
    }

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        let p = softmax(tape, io.inputs[0])?;
        Ok(smallvec![Some(mul(tape, p, y_bar)?)])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        let Some(x_dot) = x_dots[0] else { return Ok(None) };
        let p = softmax(tape, io.inputs[0])?;
        let weighted = mul(tape, p, x_dot)?;
        sum_last(tape, weighted).map(Some)
    }

    fn flops(&self, inputs: &[Ty], _: &Ty) -> f64 {
        18.0 * inputs[0].shape.width() as f64
    }
}

impl LogSumExp {
    fn kernel<R: Exp>(&self, mut args: Args<'_, R>) {
        let x = args.inputs[0];
        let Some(&classes) = x.dims().last() else { return };
        for r in 0..args.rows {
            for (x, y) in x.row(r).chunks_exact(classes).zip(args.output.row(r)) {
                let (most, sum) = exp_sum(x);
                // An infinite maximum is the result, unless there is a NaN.
                let nan = x.iter().any(|v| is_nan(*v));
                let infinite = most.to_f64().is_infinite() && !nan;
                *y = if infinite { most } else { most + log(sum) };
            }
        }
    }
}

impl Structured for LogSumExp {
    structured_kernel!();

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }
}

impl DeviceKernel for LogSumExp {
    fn phases(&self, inputs: &[Entry], _: &Entry) -> Vec<usize> {
        let classes = inputs[0].line();
        vec![inputs[0].width() / classes]
    }

    fn by_warp(&self, inputs: &[Entry], _: &Entry) -> bool {
        inputs[0].is_long()
    }

    fn piece(&self, k: &mut Piece<'_, '_>, _: usize, piece: Value) {
        let classes = k.inputs[0].line();
        let base = k.code().mul(piece, classes);
        let (most, sum) = exp_sum_piece(k, base, classes);
        let (zero, one) = (k.number(0.0), k.number(1.0));
        let numbers = k.variable(one);
        k.each_of(classes, |k, i| {
            let at = k.code().add(base, i);
            let x = k.input(0, 0, at);
            let number = k.code().eq(x, x);
            let next = k.code().select(number, numbers, zero);
            k.code().set(numbers, next);
        });
        let numbers = k.join(numbers, |k, a, b| k.code().mul(a, b));
        let size = k.code().abs(most);
        let infinite = k.number(f64::INFINITY);
        let infinite = k.code().eq(size, infinite);
        let log = k.unary(Unary::Log, sum);
        let y = k.code().add(most, log);
        let end = k.code().select(infinite, most, y);
        // An infinite maximum is the result, unless there is a NaN.
        let plain = k.code().eq(numbers, one);
        let y = k.code().select(plain, end, y);
        k.once(|k| k.store(0, piece, y));
    }
}

pub(crate) static SOFTMAX: OpSpec = OpSpec {
    name: "softmax",
    summary: "exponentials divided by their sum",
    cases: &[
        Case {
            label: "rows",
            inputs: &[Arg::real("N K", Domain::Any)],
            build: |tape, x| softmax(tape, x[0]),
        },
        Case {
            label: "more classes than a vector has lanes",
            inputs: &[Arg::real("B 19", Domain::Any)],
            build: |tape, x| softmax(tape, x[0]),
        },
        Case {
            label: "more classes than a warp has lanes",
            inputs: &[Arg::real("N B 67", Domain::Any)],
            build: |tape, x| softmax(tape, x[0]),
        },
    ],
};

pub(crate) static LOG_SOFTMAX: OpSpec = OpSpec {
    name: "log_softmax",
    summary: "logarithm of the softmax",
    cases: &[
        Case {
            label: "rows",
            inputs: &[Arg::real("N K", Domain::Any)],
            build: |tape, x| log_softmax(tape, x[0]),
        },
        Case {
            label: "more classes than a vector has lanes",
            inputs: &[Arg::real("B 35", Domain::Any)],
            build: |tape, x| log_softmax(tape, x[0]),
        },
    ],
};

pub(crate) static LOGSUMEXP: OpSpec = OpSpec {
    name: "logsumexp",
    summary: "logarithm of a sum of exponentials",
    cases: &[
        Case {
            label: "rows of rows",
            inputs: &[Arg::real("N B K", Domain::Any)],
            build: |tape, x| logsumexp(tape, x[0]),
        },
        Case {
            label: "more classes than a warp has lanes",
            inputs: &[Arg::real("N 40", Domain::Any)],
            build: |tape, x| logsumexp(tape, x[0]),
        },
    ],
};

#[cfg(test)]
mod tests {
    use retrograd_engine::{DType, Params, Tensor, reference};

    use super::*;

    fn run(op: fn(&mut Tape, Var) -> Result<Var>, x: &[f64]) -> Result<Vec<f64>> {
        let mut tape = Tape::new();
        let v = tape.param("x", DType::F64, [x.len()])?;
        let y = op(&mut tape, v)?;
        let values = Params::from_iter([("x".to_string(), Tensor::from_slice([x.len()], x)?)]);
        Ok(reference::evaluate(&tape, &[y], &[&values])?[0].as_slice::<f64>()?.to_vec())
    }

    #[test]
    fn large_and_infinite_numbers() -> Result<()> {
        let inf = f64::INFINITY;
        let log2 = 2f64.ln();
        assert_eq!(run(softmax, &[1e300, 1e300, -1e300])?, [0.5, 0.5, 0.0]);
        assert_eq!(run(softmax, &[-inf, -5.0])?, [0.0, 1.0]);
        assert!(run(softmax, &[-inf, -inf])?[0].is_nan());
        assert_eq!(run(log_softmax, &[1000.0, 1000.0])?, [-log2, -log2]);
        assert_eq!(run(log_softmax, &[0.0, -inf])?, [0.0, -inf]);
        assert_eq!(run(logsumexp, &[-1000.0, -1000.0])?, [-1000.0 + log2]);
        assert_eq!(run(logsumexp, &[-inf, -inf])?, [-inf]);
        assert_eq!(run(logsumexp, &[inf, 0.0])?, [inf]);
        assert!(run(logsumexp, &[inf, f64::NAN])?[0].is_nan());
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_an_error() -> Result<()> {
        let mut tape = Tape::new();
        let bad = [
            tape.param("z", DType::C32, [4])?,
            tape.param("none", DType::F32, [])?,
            tape.param("empty", DType::F32, [2, 0])?,
        ];
        for v in bad {
            for op in [softmax, log_softmax, logsumexp] {
                assert!(op(&mut tape, v).is_err());
            }
        }
        Ok(())
    }
}
