//! The parts that rules of pointwise operations have in common.

use retrograd_engine::core_ops::{add, conj};
use retrograd_engine::op::Cotangents;
use retrograd_engine::{Error, Result, Tape, Ty, Var};
use smallvec::smallvec;

use crate::mul;

/// `y_bar · conj(d)`: the cotangent through a complex-differentiable function with derivative `d`.
pub(crate) fn times_conj(tape: &mut Tape, y_bar: Var, d: Var) -> Result<Var> {
    let d = conj(tape, d)?;
    mul(tape, y_bar, d)
}

/// The rule of a complex-differentiable function of one argument with derivative `d`.
pub(crate) fn unary_vjp(tape: &mut Tape, y_bar: Var, d: Var) -> Result<Cotangents> {
    Ok(smallvec![Some(times_conj(tape, y_bar, d)?)])
}

/// The tangent of a complex-differentiable function of one argument with derivative `d`.
pub(crate) fn unary_jvp(tape: &mut Tape, x_dots: &[Option<Var>], d: Var) -> Result<Option<Var>> {
    x_dots[0].map(|x_dot| mul(tape, d, x_dot)).transpose()
}

/// Sum of two tangents or cotangents, where nothing is zero.
pub(crate) fn sum_options(tape: &mut Tape, a: Option<Var>, b: Option<Var>) -> Result<Option<Var>> {
    Ok(match (a, b) {
        (Some(a), Some(b)) => Some(add(tape, a, b)?),
        (a, b) => a.or(b),
    })
}

/// Name, shape rule and class of a pointwise operation.
///
/// ```ignore
/// impl Op for Tanh { pointwise_op!("tanh"); .. }
/// // expands to
/// //   fn name(&self) -> &'static str { "tanh" }
/// //   fn infer(&self, inputs: &[Ty]) -> Result<Ty> { infer_pointwise("tanh", self, inputs) }
/// //   fn class(&self) -> Class<'_> { Class::Pointwise(self) }
/// ```
///
/// `pointwise_op!("relu", real)` refuses complex inputs.
macro_rules! pointwise_op {
    ($name:expr) => {
        fn name(&self) -> &'static str {
            $name
        }
        fn infer(
            &self,
            inputs: &[::retrograd_engine::Ty],
        ) -> ::retrograd_engine::Result<::retrograd_engine::Ty> {
            ::retrograd_engine::op::infer_pointwise($name, self, inputs)
        }
        fn class(&self) -> ::retrograd_engine::op::Class<'_> {
            ::retrograd_engine::op::Class::Pointwise(self)
        }
    };
    ($name:expr, real) => {
        fn name(&self) -> &'static str {
            $name
        }
        fn infer(
            &self,
            inputs: &[::retrograd_engine::Ty],
        ) -> ::retrograd_engine::Result<::retrograd_engine::Ty> {
            $crate::rule::only_real($name, inputs)?;
            ::retrograd_engine::op::infer_pointwise($name, self, inputs)
        }
        fn class(&self) -> ::retrograd_engine::op::Class<'_> {
            ::retrograd_engine::op::Class::Pointwise(self)
        }
    };
}
pub(crate) use pointwise_op;

/// Errors for a complex input of an operation on real numbers.
pub(crate) fn only_real(op: &'static str, inputs: &[Ty]) -> Result<()> {
    match inputs.iter().position(|ty| ty.dtype.is_complex()) {
        Some(i) => Err(Error::dtype(op, format!("input {i}"), "f32 or f64", inputs[i].dtype)),
        None => Ok(()),
    }
}
