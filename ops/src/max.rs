//! Maximum over ordinary axes.

use retrograd_engine::core_ops::sum_dims;
use retrograd_engine::cpu::Real;
use retrograd_engine::device::{Building, DeviceKernel, Entry, Piece, Value};
use retrograd_engine::kernel::{Args, Structured};
use retrograd_engine::op::{Class, Cotangents, Io};
use retrograd_engine::{Dims, Op, Result, Shape, Tape, Ty, Var, structured_kernel};
use smallvec::smallvec;

use crate::fold::{Reduced, for_each};
use crate::lanes::is_nan;
use crate::pieces::{larger, reduced};
use crate::spec::{Arg, Case, Domain, OpSpec};
use crate::{check, div, eq, mul};

/// Maximum over ordinary axes; real. With `keep` they stay as axes of size 1.
///
/// Shapes: `x [.., a, ..] -> y [.., 1, ..]` or `[.., ..]`.   Rule: `x_bar = y_bar` where `x = y`, shared evenly by
/// those that tie (a subgradient, PyTorch's of `amax`); keeps `x` and `y`.
/// Domain: real numbers; NaN where one of them is.   Errors: an axis that does not exist or is named twice; no
/// elements; complex `x`.
pub fn max(tape: &mut Tape, x: Var, axes: &[i32], keep: bool) -> Result<Var> {
    let reduced = Reduced::not_empty("max", tape, x, axes)?;
    let y = tape.push(Max { dims: reduced.kept.clone() }, &[x])?;
    reduced.shape(tape, y, keep)
}

/// Maximum down to `dims`, 1 for every axis reduced.
#[derive(Clone, Debug)]
struct Max {
    dims: Dims,
}

/// 1 where `x` is `y`, divided by the number of such elements.
pub(crate) fn shares(tape: &mut Tape, x: Var, y: Var, dims: &[usize]) -> Result<Var> {
    let hit = eq(tape, x, y)?;
    let count = sum_dims(tape, hit, dims)?;
    div(tape, hit, count)
}

impl Op for Max {
    fn name(&self) -> &'static str {
        "max"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        check::real("max", inputs, 0)?;
        Ok(Ty::new(inputs[0].dtype, Shape::new(inputs[0].shape.lead, &self.dims)))
    }

    fn class(&self) -> Class<'_> {
        Class::Structured(self)
    }

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        let shares = shares(tape, io.inputs[0], io.output, &self.dims)?;
        Ok(smallvec![Some(mul(tape, shares, y_bar)?)])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        let Some(x_dot) = x_dots[0] else { return Ok(None) };
        let shares = shares(tape, io.inputs[0], io.output, &self.dims)?;
        let terms = mul(tape, shares, x_dot)?;
        sum_dims(tape, terms, &self.dims).map(Some)
    }

    fn flops(&self, inputs: &[Ty], _: &Ty) -> f64 {
        inputs[0].shape.width() as f64
    }
}

impl Max {
    fn kernel<R: Real>(&self, mut args: Args<'_, R>) {
        let x = args.inputs[0];
        for r in 0..args.rows {
            let (x, y) = (x.row(r), args.output.row(r));
            y.fill(R::from_f64(f64::NEG_INFINITY));
            for_each(args.inputs[0].dims(), &self.dims, |i, j| {
                // A NaN on either side stays.
                if x[i] > y[j] || is_nan(x[i]) {
                    y[j] = x[i];
                }
            });
        }
    }
}

impl Structured for Max {
    structured_kernel!();

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }
}

impl DeviceKernel for Max {
    fn phases(&self, _: &[Entry], output: &Entry) -> Vec<usize> {
        vec![output.width()]
    }

    fn by_warp(&self, inputs: &[Entry], _: &Entry) -> bool {
        inputs[0].is_long_to(&self.dims)
    }

    fn piece(&self, k: &mut Piece<'_, '_>, _: usize, piece: Value) {
        let (base, axes) = reduced(k, &self.dims, piece);
        let least = k.number(f64::NEG_INFINITY);
        let most = k.variable(least);
        k.each_along(&axes, base, &mut |k, at| {
            let x = k.input(0, 0, at);
            let next = larger(k, most, x);
            k.code().set(most, next);
        });
        let most = k.join(most, larger);
        k.once(|k| k.store(0, piece, most));
    }
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "max",
    summary: "maximum over axes",
    cases: &[
        Case {
            label: "last axis",
            inputs: &[Arg::real("N B C", Domain::Separated)],
            build: |tape, x| max(tape, x[0], &[-1], false),
        },
        Case {
            label: "more elements than a warp has lanes",
            inputs: &[Arg::real("N 2 41", Domain::Separated)],
            build: |tape, x| max(tape, x[0], &[-1], false),
        },
        Case {
            label: "other axes, kept",
            inputs: &[Arg::real("N B C D", Domain::Separated)],
            build: |tape, x| max(tape, x[0], &[0, 2], true),
        },
    ],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::refuses_complex;

    #[test]
    fn ties_share_and_nan_stays() -> Result<()> {
        use retrograd_engine::{DType, Params, Tensor, grad, reference};
        let nan = f64::NAN;
        let rows = [
            ([1.0, 3.0, 3.0], 3.0, [0.0, 0.5, 0.5]),
            ([-5.0, -2.0, -7.0], -2.0, [0.0, 1.0, 0.0]),
            ([f64::NEG_INFINITY; 3], f64::NEG_INFINITY, [1.0 / 3.0; 3]),
            ([1.0, nan, 2.0], nan, [nan; 3]),
            ([nan, 1.0, 2.0], nan, [nan; 3]),
        ];
        for (x, y, x_bar) in rows {
            let mut tape = Tape::new();
            let v = tape.param("x", DType::F64, [3])?;
            let m = max(&mut tape, v, &[0], false)?;
            let g = grad(&mut tape, m, &[v])?;
            let values = Params::from_iter([("x".to_string(), Tensor::from_slice([3], &x)?)]);
            let found = reference::evaluate(&tape, &[m, g[0]], &[&values])?;
            let same = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan());
            assert!(same(found[0].item()?, y), "{x:?} {:?}", found[0]);
            for (a, b) in found[1].as_slice::<f64>()?.iter().zip(&x_bar) {
                assert!(same(*a, *b), "{x:?} {:?}", found[1]);
            }
        }
        assert!(refuses_complex(|tape, x| max(tape, x, &[0], false))?);
        Ok(())
    }
}
