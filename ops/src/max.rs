//! Largest element over ordinary axes.

use retrograd_engine::core_ops::sum_dims;
use retrograd_engine::cpu::Real;
use retrograd_engine::kernel::{Args, Structured};
use retrograd_engine::layout::{Layout, layout};
use retrograd_engine::op::{Class, Cotangents, Io};
use retrograd_engine::{Dims, Error, Op, Result, Shape, Tape, Ty, Var, structured_kernel};
use smallvec::smallvec;

use crate::reduce::reduced;
use crate::rule::only_real;
use crate::spec::{Arg, Case, Domain, OpSpec};
use crate::{div, eq, mul};

/// Largest element over ordinary axes.
///
/// Shapes: as [`sum`](crate::sum).   Rule: `y_bar` goes to the largest element, in equal parts to all that are
/// equally large (as PyTorch's `amax`); keeps `x` and `y`.   Domain: real; NaN if any element is NaN; −∞ for no
/// elements.   Errors: an axis that does not exist, a complex input.
pub fn max(tape: &mut Tape, x: Var, axes: &[i32], keep: bool) -> Result<Var> {
    let (ones, without) = reduced("max", &tape.shape(x)?.dims, axes)?;
    let y = tape.push(Max { dims: ones }, &[x])?;
    if keep { Ok(y) } else { layout(tape, y, Layout::Reshape { dims: without }) }
}

#[derive(Clone, Debug)]
struct Max {
    dims: Dims,
}

impl Max {
    /// `v` times the share of each element in the largest one.
    fn shared(&self, tape: &mut Tape, io: Io<'_>, v: Var) -> Result<Var> {
        let hit = eq(tape, io.inputs[0], io.output)?;
        let count = sum_dims(tape, hit, &self.dims)?;
        let share = div(tape, hit, count)?;
        mul(tape, share, v)
    }

    fn kernel<R: Real>(&self, mut args: Args<'_, R>) {
        let x = args.inputs[0];
        let from = x.dims();
        let mut strides = vec![0usize; from.len()];
        let mut step = 1;
        for a in (0..from.len()).rev() {
            strides[a] = if self.dims[a] == from[a] { step } else { 0 };
            step *= self.dims[a];
        }
        for r in 0..args.rows {
            let y = args.output.row(r);
            y.fill(R::from_f64(f64::NEG_INFINITY));
            let mut at = vec![0usize; from.len()];
            let mut j = 0;
            for &v in x.row(r) {
                // A NaN is larger than everything and stays.
                if v > y[j] || v.partial_cmp(&v).is_none() {
                    y[j] = v;
                }
                for a in (0..from.len()).rev() {
                    at[a] += 1;
                    j += strides[a];
                    if at[a] < from[a] {
                        break;
                    }
                    j -= strides[a] * from[a];
                    at[a] = 0;
                }
            }
        }
    }
}

impl Structured for Max {
    structured_kernel!();
}

impl Op for Max {
    fn name(&self) -> &'static str {
        "max"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        only_real("max", inputs)?;
        let x = &inputs[0];
        if !x.dtype.is_differentiable() {
            return Err(Error::dtype("max", "input 0", "f32 or f64", x.dtype));
        }
        Ok(Ty::new(x.dtype, Shape { lead: x.shape.lead, dims: self.dims.clone() }))
    }

    fn class(&self) -> Class<'_> {
        Class::Structured(self)
    }

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        Ok(smallvec![Some(self.shared(tape, io, y_bar)?)])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        let Some(x_dot) = x_dots[0] else { return Ok(None) };
        let y = self.shared(tape, io, x_dot)?;
        sum_dims(tape, y, &self.dims).map(Some)
    }

    fn flops(&self, inputs: &[Ty], _: &Ty) -> f64 {
        inputs[0].shape.width() as f64
    }
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "max",
    summary: "largest element over ordinary axes",
    cases: &[
        Case {
            label: "last axis",
            inputs: &[Arg::real("N C", Domain::Separated)],
            build: |t, x| max(t, x[0], &[-1], true),
        },
        Case {
            label: "first axis",
            inputs: &[Arg::real("B C", Domain::Separated)],
            build: |t, x| max(t, x[0], &[0], false),
        },
    ],
};

#[cfg(test)]
mod tests {
    use super::*;
    use retrograd_engine::{Params, Tensor, grad, reference};

    #[test]
    fn ties_share_and_nan_wins() -> Result<()> {
        let mut tape = Tape::new();
        let x = tape.param("x", retrograd_engine::DType::F64, [4])?;
        let y = max(&mut tape, x, &[0], false)?;
        let g = grad(&mut tape, y, &[x])?[0];
        let mut p = Params::new();
        p.insert("x", Tensor::from_slice([4], &[1.0, 3.0, 3.0, -1.0])?);
        let out = reference::evaluate(&tape, &[y, g], &[&p])?;
        assert_eq!(out[0].item()?, 3.0);
        assert_eq!(out[1].as_slice::<f64>()?, [0.0, 0.5, 0.5, 0.0]);
        p.insert("x", Tensor::from_slice([4], &[1.0, f64::NAN, 3.0, -1.0])?);
        assert!(reference::evaluate(&tape, &[y], &[&p])?[0].item()?.is_nan());
        Ok(())
    }
}
