//! Absolute value.

use retrograd_engine::core_ops::{conj, real};
use retrograd_engine::expr::{Expr, Num};
use retrograd_engine::op::{Cotangents, Io, Pointwise};
use retrograd_engine::{Op, Result, Tape, Var};
use smallvec::smallvec;

use crate::rule::pointwise_op;
use crate::spec::{Arg, Case, Domain, OpSpec};
use crate::{mul, phase};

/// Absolute value, element by element: `y = |x|`, real; of a complex number without overflow.
///
/// Shapes: `x [..] -> y [..]`.   Rule: `x_bar = x/|x| · y_bar`, 0 at 0 (the least subgradient); keeps `x`.
/// Domain: all numbers.   Errors: none of its own.
pub fn abs(tape: &mut Tape, x: Var) -> Result<Var> {
    tape.push(Abs, &[x])
}

#[derive(Clone, Copy, Debug)]
struct Abs;

impl Pointwise for Abs {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        e.abs(x[0])
    }
}

impl Op for Abs {
    pointwise_op!("abs");

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        let p = phase(tape, io.inputs[0])?;
        Ok(smallvec![Some(mul(tape, y_bar, p)?)])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        // Re(conj(p) x_dot)
        let Some(x_dot) = x_dots[0] else { return Ok(None) };
        let p = phase(tape, io.inputs[0])?;
        let p = conj(tape, p)?;
        let y_dot = mul(tape, p, x_dot)?;
        real(tape, y_dot).map(Some)
    }
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "abs",
    summary: "absolute value",
    cases: &[Case {
        label: "away from 0",
        inputs: &[Arg::either("N C", Domain::AwayFromZero)],
        build: |tape, x| abs(tape, x[0]),
    }],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{c, check_complex, check_real};

    #[test]
    fn values() -> Result<()> {
        check_real(abs, &[(2.0, 2.0, 1.0), (-2.0, 2.0, -1.0), (0.0, 0.0, 0.0), (-0.0, 0.0, 0.0)])?;
        check_complex(
            abs,
            &[
                (c(3.0, -4.0), c(5.0, 0.0), c(0.6, -0.8)),
                (c(0.0, 0.0), c(0.0, 0.0), c(0.0, 0.0)),
                (c(3e300, 4e300), c(5e300, 0.0), c(0.6, 0.8)),
            ],
        )
    }
}
