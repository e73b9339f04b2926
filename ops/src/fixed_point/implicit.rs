//! The gradient of a fixed point by the implicit function theorem.
//!
//! With `z = f(z, θ)`: `z_dot = J z_dot + ∂f/∂θ θ_dot`, `J = ∂f/∂z`, and for cotangents `u = y_bar + J* u`, after which
//! `u` goes through `f` once.

use retrograd_engine::core_ops::{select, stop_gradient};
use retrograd_engine::expr::{Expr, Num};
use retrograd_engine::op::{Cotangents, Io, Pointwise};
use retrograd_engine::{Error, Op, Result, Tape, Var, vjp};
use smallvec::smallvec;

use super::Solver;
use super::solvers::{distance, solve};
use crate::rule::pointwise_op;
use crate::{add, le, mul, scale};

/// `image = f(fixed)` with the gradient of the fixed point that `fixed` is. `fixed` has no gradient of its own.
pub(super) fn implicit(
    tape: &mut Tape,
    image: Var,
    fixed: Var,
    solver: &Solver,
    steps: usize,
    tolerance: f64,
) -> Result<Var> {
    tape.push(Implicit { solver: solver.clone(), steps, tolerance }, &[image, fixed])
}

#[derive(Clone, Debug)]
struct Implicit {
    solver: Solver,
    steps: usize,
    tolerance: f64,
}

impl Implicit {
    /// Solves `u = right + linear(u)` and makes rows that are not solved NaN.
    fn resolve(
        &self,
        tape: &mut Tape,
        right: Var,
        linear: impl Fn(&mut Tape, Var) -> Result<Option<Var>>,
    ) -> Result<Var> {
        let mut map = |tape: &mut Tape, u: Var| match linear(tape, u)? {
            Some(rest) => add(tape, right, rest),
            None => Ok(right),
        };
        let mut u = solve(tape, right, &self.solver, self.steps, self.tolerance, &mut map)?.z;
        if self.tolerance > 0.0 {
            let image = map(tape, u)?;
            let d = crate::sub(tape, image, u)?;
            let residual = distance(tape, d, u)?;
            let limit = tape.scalar(residual, self.tolerance)?;
            let solved = le(tape, residual, limit)?;
            let nan = tape.scalar(u, f64::NAN)?;
            u = select(tape, solved, u, nan)?;
        }
        tape.push(Once, &[u])
    }
}

impl Pointwise for Implicit {
    fn expr(&self, _: &mut Expr, x: &[Num]) -> Num {
        x[0]
    }
}

impl Op for Implicit {
    pointwise_op!("fixed_point");

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        let (image, fixed) = (io.inputs[0], io.inputs[1]);
        let through_f = |tape: &mut Tape, u: Var| Ok(vjp(tape, &[(image, u)], &[fixed])?[0]);
        Ok(smallvec![Some(self.resolve(tape, y_bar, through_f)?), None])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        let (image, fixed) = (io.inputs[0], io.inputs[1]);
        let Some(image_dot) = x_dots[0] else { return Ok(None) };
        // `J u` as the adjoint of `v ↦ J* v`, which is linear: a tangent of the tape would go through everything that was
        // recorded for the one before.
        let v = stop_gradient(tape, fixed)?;
        let v = scale(tape, v, 0.0)?;
        let Some(adjoint) = vjp(tape, &[(image, v)], &[fixed])?[0] else {
            return Ok(Some(self.resolve(tape, image_dot, |_, _| Ok(None))?));
        };
        let through_f = |tape: &mut Tape, u: Var| Ok(vjp(tape, &[(adjoint, u)], &[v])?[0]);
        Ok(Some(self.resolve(tape, image_dot, through_f)?))
    }
}

/// The value itself, which cannot be differentiated: `J` was taken at a value whose own dependence was cut.
#[derive(Clone, Copy, Debug)]
struct Once;

impl Pointwise for Once {
    fn expr(&self, _: &mut Expr, x: &[Num]) -> Num {
        x[0]
    }
}

impl Op for Once {
    pointwise_op!("fixed_point_adjoint");

    fn vjp(&self, _: &mut Tape, _: Io<'_>, _: Var) -> Result<Cotangents> {
        let what =
            "implicit gradients cannot be differentiated again; Gradient::Unrolled and Gradient::Phantom can";
        Err(Error::argument("fixed_point", what))
    }

    /// Tangents of a whole tape are recorded whether or not anybody wants them, so this one is NaN instead of an error.
    fn jvp(&self, tape: &mut Tape, _: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        let Some(dot) = x_dots[0] else { return Ok(None) };
        let nan = tape.scalar(dot, f64::NAN)?;
        mul(tape, dot, nan).map(Some)
    }
}
