//! What the operations' shape rules and derivative rules have in common.

use retrograd_engine::core_ops::{add, conj};
use retrograd_engine::expr::{Expr, Instr, Ternary};
use retrograd_engine::op::Pointwise;
use retrograd_engine::{Error, Result, Tape, Ty, Var};

use crate::mul;

/// `y_bar · conj(d)`: the cotangent through a complex-differentiable function with derivative `d`.
pub(crate) fn times_conj(tape: &mut Tape, y_bar: Var, d: Var) -> Result<Var> {
    let d = conj(tape, d)?;
    mul(tape, y_bar, d)
}

/// Sum of two tangents or cotangents, where nothing is zero.
pub(crate) fn sum_options(tape: &mut Tape, a: Option<Var>, b: Option<Var>) -> Result<Option<Var>> {
    Ok(match (a, b) {
        (Some(a), Some(b)) => Some(add(tape, a, b)?),
        (a, b) => a.or(b),
    })
}

/// Errors for a complex input of an operation on real numbers.
pub(crate) fn only_real(op: &'static str, inputs: &[Ty]) -> Result<()> {
    match inputs.iter().position(|ty| ty.dtype.is_complex()) {
        Some(i) => Err(Error::dtype(op, format!("input {i}"), "f32 or f64", inputs[i].dtype)),
        None => Ok(()),
    }
}

/// Arithmetic instructions of a pointwise operation for one entry of the output.
pub(crate) fn flops(op: &dyn Pointwise, inputs: &[Ty], output: &Ty) -> f64 {
    let mut e = Expr::new();
    let args: Vec<_> = inputs.iter().map(|ty| e.load(ty.dtype.is_complex())).collect();
    op.expr(&mut e, &args);
    let each = |instr: &Instr| match instr {
        Instr::Ternary { op: Ternary::MulAdd, .. } => 2,
        Instr::Unary { .. } | Instr::Binary { .. } | Instr::Ternary { .. } => 1,
        Instr::Const { .. } | Instr::Load { .. } | Instr::Store { .. } => 0,
    };
    e.finish().instrs.iter().map(each).sum::<usize>() as f64 * output.shape.width() as f64
}

/// Name, shape rule, class and cost of a pointwise operation; with `real`, complex inputs are refused.
///
/// ```ignore
/// impl Op for Relu { pointwise_op!("relu", real); .. }
/// // expands to
/// //   fn name(&self) -> &'static str { "relu" }
/// //   fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
/// //       only_real("relu", inputs)?;
/// //       infer_pointwise("relu", self, inputs)
/// //   }
/// //   fn class(&self) -> Class<'_> { Class::Pointwise(self) }
/// //   fn flops(&self, inputs: &[Ty], output: &Ty) -> f64 { flops(self, inputs, output) }
/// ```
macro_rules! pointwise_op {
    ($name:literal $(, $real:ident)?) => {
        $crate::rule::pointwise_op!(|_op| $name $(, $real)?);
    };
    (|$op:ident| $name:expr $(, $real:ident)?) => {
        fn name(&self) -> &'static str {
            let $op = self;
            $name
        }
        fn infer(
            &self,
            inputs: &[::retrograd_engine::Ty],
        ) -> ::retrograd_engine::Result<::retrograd_engine::Ty> {
            $($crate::rule::only_real(self.name(), inputs)?; let _ = stringify!($real);)?
            ::retrograd_engine::op::infer_pointwise(self.name(), self, inputs)
        }
        fn class(&self) -> ::retrograd_engine::op::Class<'_> {
            ::retrograd_engine::op::Class::Pointwise(self)
        }
        fn flops(&self, inputs: &[::retrograd_engine::Ty], output: &::retrograd_engine::Ty) -> f64 {
            $crate::rule::flops(self, inputs, output)
        }
    };
}
pub(crate) use pointwise_op;

/// Both rules of a function of one argument, from a method `through(&self, tape, v, kept)` that multiplies `v`
/// by the derivative, written in terms of the input or of the output (`kept`).
///
/// The adjoint multiplies by the conjugate derivative. All functions this is used for are real on the real axis,
/// so `conj(f'(kept)) = f'(conj(kept))`, and one conjugation of what is kept turns the tangent rule into the
/// adjoint rule; for real numbers there is nothing to conjugate.
///
/// ```ignore
/// impl Op for Exp { pointwise_op!("exp"); rules_through!(output); }
/// // expands to
/// //   fn vjp(..) { let kept = conj(tape, io.output)?; Ok(smallvec![Some(self.through(tape, y_bar, kept)?)]) }
/// //   fn jvp(..) { x_dots[0].map(|x_dot| self.through(tape, x_dot, io.output)).transpose() }
/// ```
macro_rules! rules_through {
    (input) => {
        $crate::rule::rules_through!(|io| io.inputs[0]);
    };
    (output) => {
        $crate::rule::rules_through!(|io| io.output);
    };
    (|$io:ident| $kept:expr) => {
        fn vjp(
            &self,
            tape: &mut ::retrograd_engine::Tape,
            $io: ::retrograd_engine::op::Io<'_>,
            y_bar: ::retrograd_engine::Var,
        ) -> ::retrograd_engine::Result<::retrograd_engine::op::Cotangents> {
            let kept = ::retrograd_engine::core_ops::conj(tape, $kept)?;
            Ok(::smallvec::smallvec![Some(self.through(tape, y_bar, kept)?)])
        }
        fn jvp(
            &self,
            tape: &mut ::retrograd_engine::Tape,
            $io: ::retrograd_engine::op::Io<'_>,
            x_dots: &[Option<::retrograd_engine::Var>],
        ) -> ::retrograd_engine::Result<Option<::retrograd_engine::Var>> {
            x_dots[0].map(|x_dot| self.through(tape, x_dot, $kept)).transpose()
        }
    };
}
pub(crate) use rules_through;

/// The rules of an operation whose derivative is zero wherever it exists.
///
/// ```ignore
/// impl Op for Sign { pointwise_op!("sign", real); no_derivative!(); }
/// // expands to
/// //   fn vjp(..) { Ok(smallvec![None; io.inputs.len()]) }
/// //   fn jvp(..) { Ok(None) }
/// ```
macro_rules! no_derivative {
    () => {
        fn vjp(
            &self,
            _: &mut ::retrograd_engine::Tape,
            io: ::retrograd_engine::op::Io<'_>,
            _: ::retrograd_engine::Var,
        ) -> ::retrograd_engine::Result<::retrograd_engine::op::Cotangents> {
            Ok(::smallvec::smallvec![None; io.inputs.len()])
        }
        fn jvp(
            &self,
            _: &mut ::retrograd_engine::Tape,
            _: ::retrograd_engine::op::Io<'_>,
            _: &[Option<::retrograd_engine::Var>],
        ) -> ::retrograd_engine::Result<Option<::retrograd_engine::Var>> {
            Ok(None)
        }
    };
}
pub(crate) use no_derivative;
