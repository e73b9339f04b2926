//! Cross-entropy of the softmax of logits with a class given by its index.

use retrograd_engine::core_ops::{fill, select};
use retrograd_engine::device::{Building, DeviceKernel, Entry, Piece, Value};
use retrograd_engine::expr::Unary;
use retrograd_engine::kernel::{Args, Structured};
use retrograd_engine::layout::{Layout, layout};
use retrograd_engine::op::{Class, Cotangents, Io};
use retrograd_engine::{Error, Op, Result, Shape, Tape, Ty, Var, structured_kernel};
use smallvec::smallvec;

use crate::exp_sum::{Exp, exp_sum, exp_terms, log};
use crate::pieces::{exp_sum as exp_sum_piece, exp_term, index_of};
use crate::rule::sum_options;
use crate::softmax::{check_logits, sum_last, through_softmax};
use crate::spec::{Arg, Case, Domain, OpSpec};
use crate::{check, mul, softmax};

/// Cross-entropy of the softmax over the last axis with a class, in nats: `y = log Σ exp(x) − x[target]`; real.
/// With a mask, `y · mask`, and exactly 0 where the mask is 0, whatever the logits and the target there.
///
/// Shapes: `logits [.., K]`, `targets [..]` (`i32`), `mask [..] -> y [..]`; the mask broadcasts.
/// Rule: `logits_bar = (softmax(logits) − onehot(target)) · y_bar`, and 0 where `y_bar` is 0; keeps `logits`.
/// Domain: real numbers of any size. A target outside `0..K` gives NaN, value and cotangent; data should be checked
/// before it gets here.   Errors: no axis, or one of no elements; sizes of targets that differ; targets that are
/// not `i32`; complex logits.
pub fn softmax_cross_entropy(tape: &mut Tape, logits: Var, targets: Var, mask: Option<Var>) -> Result<Var> {
    let y = tape.push(CrossEntropy, &[logits, targets])?;
    let Some(mask) = mask else { return Ok(y) };
    let masked = mul(tape, y, mask)?;
    let zero = tape.scalar(masked, 0.0)?;
    select(tape, mask, masked, zero)
}

#[derive(Clone, Copy, Debug)]
struct CrossEntropy;

/// `(softmax(logits) − onehot(target)) · weight`: inputs `logits`, `targets`, `weight`.
#[derive(Clone, Copy, Debug)]
struct Surplus;

const NAME: &str = "softmax_cross_entropy";

fn check_inputs(inputs: &[Ty]) -> Result<Shape> {
    check_logits(NAME, inputs)?;
    check::index(NAME, inputs, 1)?;
    let (logits, targets) = (&inputs[0].shape, &inputs[1].shape);
    let entries = &logits.dims[..logits.dims.len() - 1];
    if targets.dims[..] != *entries {
        let what = format!("targets for logits {logits}");
        return Err(Error::shape(NAME, what, format!("{entries:?}"), targets));
    }
    Ok(Shape::new(logits.lead.join(targets.lead), entries))
}

impl Op for CrossEntropy {
    fn name(&self) -> &'static str {
        NAME
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        Ok(Ty::new(inputs[0].dtype, check_inputs(inputs)?))
    }

    fn class(&self) -> Class<'_> {
        Class::Structured(self)
    }

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        Ok(smallvec![Some(tape.push(Surplus, &[io.inputs[0], io.inputs[1], y_bar])?), None])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        let Some(x_dot) = x_dots[0] else { return Ok(None) };
        let ty = tape.ty(io.output)?.clone();
        let one = fill(tape, ty, 1.0)?;
        let surplus = tape.push(Surplus, &[io.inputs[0], io.inputs[1], one])?;
        along(tape, surplus, x_dot).map(Some)
    }

    fn flops(&self, inputs: &[Ty], _: &Ty) -> f64 {
        18.0 * inputs[0].shape.width() as f64
    }
}

/// `Σ a b` over the last axis, dropped.
fn along(tape: &mut Tape, a: Var, b: Var) -> Result<Var> {
    let terms = mul(tape, a, b)?;
    let sum = sum_last(tape, terms)?;
    let mut dims = tape.shape(sum)?.dims.clone();
    dims.pop();
    layout(tape, sum, Layout::Reshape { dims })
}

impl Surplus {
    /// The derivative by the logits times `v`: `weight · softmax' v`.
    fn through(tape: &mut Tape, io: Io<'_>, v: Var) -> Result<Var> {
        let p = softmax(tape, io.inputs[0])?;
        let through = through_softmax(tape, p, v)?;
        let mut dims = tape.shape(io.inputs[2])?.dims.clone();
        dims.push(1);
        let weight = layout(tape, io.inputs[2], Layout::Reshape { dims })?;
        mul(tape, through, weight)
    }
}

impl Op for Surplus {
    fn name(&self) -> &'static str {
        "softmax_surplus"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        let entries = check_inputs(inputs)?;
        if inputs[2].dtype != inputs[0].dtype {
            return Err(Error::dtype(NAME, "weights", inputs[0].dtype, inputs[2].dtype));
        }
        if inputs[2].shape.dims != entries.dims {
            return Err(Error::shape(NAME, "weights", entries, &inputs[2].shape));
        }
        let lead = entries.lead.join(inputs[2].shape.lead);
        Ok(Ty::new(inputs[0].dtype, Shape { lead, dims: inputs[0].shape.dims.clone() }))
    }

    fn class(&self) -> Class<'_> {
        Class::Structured(self)
    }

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, z_bar: Var) -> Result<Cotangents> {
        let logits_bar = if io.needs[0] { Some(Surplus::through(tape, io, z_bar)?) } else { None };
        let weight_bar = if io.needs[2] {
            let ty = tape.ty(io.inputs[2])?.clone();
            let one = fill(tape, ty, 1.0)?;
            let surplus = tape.push(Surplus, &[io.inputs[0], io.inputs[1], one])?;
            Some(along(tape, surplus, z_bar)?)
        } else {
            None
        };
        Ok(smallvec![logits_bar, None, weight_bar])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        let from_logits = x_dots[0].map(|d| Surplus::through(tape, io, d)).transpose()?;
        let from_weight =
            x_dots[2].map(|d| tape.push(Surplus, &[io.inputs[0], io.inputs[1], d])).transpose()?;
        sum_options(tape, from_logits, from_weight)
    }

    fn flops(&self, inputs: &[Ty], _: &Ty) -> f64 {
        20.0 * inputs[0].shape.width() as f64
    }
}

/// The class, if it is one of `classes`.
fn class(target: i32, classes: usize) -> Option<usize> {
    usize::try_from(target).ok().filter(|&t| t < classes)
}

impl CrossEntropy {
    fn kernel<R: Exp>(&self, mut args: Args<'_, R>) {
        let (x, targets) = (args.inputs[0], args.inputs[1]);
        let Some(&classes) = x.dims().last() else { return };
        for r in 0..args.rows {
            let entries = x.row(r).chunks_exact(classes).zip(targets.index_row(r));
            for ((x, &target), y) in entries.zip(args.output.row(r)) {
                *y = match class(target, classes) {
                    Some(t) => {
                        let (most, sum) = exp_sum(x);
                        (most - x[t]) + log(sum)
                    }
                    None => R::from_f64(f64::NAN),
                };
            }
        }
    }
}

impl Structured for CrossEntropy {
    structured_kernel!();

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }
}

impl DeviceKernel for CrossEntropy {
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
        let target = k.input(1, 0, piece);
        let (is_class, target) = index_of(k, target, classes);
        let at = k.code().add(base, target);
        let x = k.input(0, 0, at);
        let less = k.code().sub(most, x);
        let log = k.unary(Unary::Log, sum);
        let y = k.code().add(less, log);
        let nan = k.number(f64::NAN);
        let y = k.code().select(is_class, y, nan);
        k.once(|k| k.store(0, piece, y));
    }
}

impl Surplus {
    fn kernel<R: Exp>(&self, mut args: Args<'_, R>) {
        let (x, targets, weight) = (args.inputs[0], args.inputs[1], args.inputs[2]);
        let Some(&classes) = x.dims().last() else { return };
        for r in 0..args.rows {
            let entries = x.row(r).chunks_exact(classes).zip(targets.index_row(r)).zip(weight.row(r));
            let rows = args.output.row(r).chunks_exact_mut(classes);
            for (((x, &target), &weight), y) in entries.zip(rows) {
                if weight == R::ZERO {
                    y.fill(R::ZERO);
                } else if let Some(t) = class(target, classes) {
                    let (_, sum) = exp_terms(x, y);
                    let factor = weight / sum;
                    for y in y.iter_mut() {
                        *y *= factor;
                    }
                    y[t] -= weight;
                } else {
                    y.fill(R::from_f64(f64::NAN));
                }
            }
        }
    }
}

impl Structured for Surplus {
    structured_kernel!();

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }
}

impl DeviceKernel for Surplus {
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
        let (target, weight) = (k.input(1, 0, piece), k.input(2, 0, piece));
        let (is_class, target) = index_of(k, target, classes);
        let factor = k.code().div(weight, sum);
        let (zero, nan) = (k.number(0.0), k.number(f64::NAN));
        let none = k.code().eq(weight, zero);
        k.each_of(classes, |k, i| {
            let term = exp_term(k, base, i, most);
            let y = k.code().mul(term, factor);
            let own = k.code().eq(i, target);
            let less = k.code().select(own, weight, zero);
            let y = k.code().sub(y, less);
            let y = k.code().select(is_class, y, nan);
            let y = k.code().select(none, zero, y);
            let at = k.code().add(base, i);
            k.store(0, at, y);
        });
    }
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "softmax_cross_entropy",
    summary: "cross-entropy of the softmax with a class",
    cases: &[
        Case {
            label: "rows",
            inputs: &[Arg::real("N K", Domain::Any), Arg::index("N", "K")],
            build: |tape, x| softmax_cross_entropy(tape, x[0], x[1], None),
        },
        Case {
            label: "rows of rows, more classes than lanes",
            inputs: &[Arg::real("N B 18", Domain::Any), Arg::index("N B", "18")],
            build: |tape, x| softmax_cross_entropy(tape, x[0], x[1], None),
        },
        Case {
            label: "more classes than a warp has lanes",
            inputs: &[Arg::real("N 70", Domain::Any), Arg::index("N", "70")],
            build: |tape, x| softmax_cross_entropy(tape, x[0], x[1], None),
        },
        Case {
            label: "mask",
            inputs: &[
                Arg::real("N B K", Domain::Any),
                Arg::index("N B", "K"),
                Arg::real("N 1", Domain::AwayFromZero),
            ],
            build: |tape, x| softmax_cross_entropy(tape, x[0], x[1], Some(x[2])),
        },
    ],
};

#[cfg(test)]
mod tests {
    use retrograd_engine::{DType, Params, Shape, Tensor, grad, reference};

    use super::*;
    use crate::sum_all;

    /// Losses and the gradient of their sum for logits of three classes.
    fn run(x: &[[f64; 3]], t: &[i32], mask: Option<&[f64]>) -> Result<(Vec<f64>, Vec<f64>)> {
        let mut tape = Tape::new();
        let logits = tape.input("x", DType::F64, Shape::rows([3]))?;
        let targets = tape.input("t", DType::I32, Shape::rows([]))?;
        let mut values = Params::from_iter([
            ("x".to_string(), Tensor::from_slice([x.len(), 3], x.as_flattened())?),
            ("t".to_string(), Tensor::from_slice([t.len()], t)?),
        ]);
        let mask = match mask {
            Some(m) => {
                values.insert("m", Tensor::from_slice([m.len()], m)?);
                Some(tape.input("m", DType::F64, Shape::rows([]))?)
            }
            None => None,
        };
        let y = softmax_cross_entropy(&mut tape, logits, targets, mask)?;
        let loss = sum_all(&mut tape, y)?;
        let g = grad(&mut tape, loss, &[logits])?;
        let found = reference::evaluate(&tape, &[y, g[0]], &[&values])?;
        Ok((found[0].as_slice::<f64>()?.to_vec(), found[1].as_slice::<f64>()?.to_vec()))
    }

    #[test]
    fn values_of_any_size() -> Result<()> {
        let (y, g) = run(&[[0.0; 3], [1e4, -1e4, 0.0], [1e4, -1e4, 0.0]], &[1, 0, 1], None)?;
        assert!((y[0] - 3f64.ln()).abs() < 1e-15);
        assert_eq!(y[1..], [0.0, 2e4]);
        assert!((g[1] + 2.0 / 3.0).abs() < 1e-15 && (g[0] - 1.0 / 3.0).abs() < 1e-15);
        assert_eq!(g[3..], [0.0, 0.0, 0.0, 1.0, -1.0, 0.0]);
        Ok(())
    }

    #[test]
    fn a_target_that_is_no_class_is_nan_unless_masked() -> Result<()> {
        let x = [[1.0, 2.0, 3.0]; 3];
        let (y, g) = run(&x, &[3, -1, 2], None)?;
        assert!(y[0].is_nan() && y[1].is_nan() && y[2].is_finite());
        assert!(g[..6].iter().all(|v| v.is_nan()) && g[6..].iter().all(|v| v.is_finite()));
        let (y, g) = run(&[[1.0, 2.0, f64::NAN], x[0], x[0]], &[1, -1, 2], Some(&[0.0, 0.0, 2.0]))?;
        assert_eq!(y[..2], [0.0, 0.0]);
        assert_eq!(g[..6], [0.0; 6]);
        assert_eq!(y[2], 2.0 * run(&x, &[2, 2, 2], None)?.0[0]);
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_an_error() -> Result<()> {
        let mut tape = Tape::new();
        let x = tape.input("x", DType::F32, Shape::rows([3]))?;
        let t = tape.input("t", DType::I32, Shape::rows([]))?;
        let wide = tape.input("wide", DType::I32, Shape::rows([3]))?;
        assert!(softmax_cross_entropy(&mut tape, x, x, None).is_err());
        assert!(softmax_cross_entropy(&mut tape, x, wide, None).is_err());
        assert!(softmax_cross_entropy(&mut tape, t, t, None).is_err());
        assert!(softmax_cross_entropy(&mut tape, x, t, None).is_ok());
        Ok(())
    }
}
