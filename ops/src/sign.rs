//! Sign of a real number.

use retrograd_engine::expr::{Expr, Num, Unary};
use retrograd_engine::op::Pointwise;
use retrograd_engine::{Op, Result, Tape, Var};

use crate::rule::{no_derivative, pointwise_op};
use crate::spec::{Arg, Case, Domain, OpSpec};

/// Sign, element by element: −1, 0 or 1; 0 at ±0; real ([`phase()`](crate::phase()) is that of a complex number).
///
/// Shapes: `x [..] -> y [..]`.   Rule: the derivative is 0.   Domain: all real numbers.   Errors: complex input.
pub fn sign(tape: &mut Tape, x: Var) -> Result<Var> {
    tape.push(Sign, &[x])
}

#[derive(Clone, Copy, Debug)]
struct Sign;

impl Pointwise for Sign {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        e.map(Unary::Sign, x[0])
    }
}

impl Op for Sign {
    pointwise_op!("sign", real);
    no_derivative!();
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "sign",
    summary: "sign: -1, 0 or 1",
    cases: &[Case {
        label: "away from 0",
        inputs: &[Arg::real("N C", Domain::Separated)],
        build: |tape, x| sign(tape, x[0]),
    }],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_real, refuses_complex};

    #[test]
    fn values() -> Result<()> {
        check_real(
            sign,
            &[
                (2.0, 1.0, 0.0),
                (-2.0, -1.0, 0.0),
                (0.0, 0.0, 0.0),
                (-0.0, 0.0, 0.0),
                (f64::NAN, f64::NAN, 0.0),
            ],
        )?;
        assert!(refuses_complex(sign)?);
        Ok(())
    }
}
