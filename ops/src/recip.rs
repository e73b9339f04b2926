//! Reciprocal.

use retrograd_engine::core_ops::neg;
use retrograd_engine::expr::{Expr, Num, Unary};
use retrograd_engine::op::Pointwise;
use retrograd_engine::{Op, Result, Tape, Var};

use crate::rule::{pointwise_op, rules_through};
use crate::spec::{Arg, Case, Domain, OpSpec};
use crate::{mul, square};

/// Reciprocal, element by element: `y = 1 / x`, real or complex.
///
/// Shapes: `x [..] -> y [..]`.   Rule: `x_bar = −conj(y²) · y_bar`; keeps `y`.
/// Domain: `x ≠ 0` (infinite at a real 0, NaN at a complex 0).   Errors: none of its own.
pub fn recip(tape: &mut Tape, x: Var) -> Result<Var> {
    tape.push(Recip, &[x])
}

#[derive(Clone, Copy, Debug)]
struct Recip;

impl Pointwise for Recip {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        match x[0] {
            Num::Real(_) => e.map(Unary::Recip, x[0]),
            Num::Complex(..) => {
                let one = e.constant(1.0);
                e.div(one, x[0])
            }
        }
    }
}

impl Recip {
    /// `−v · y²`.
    fn through(&self, tape: &mut Tape, v: Var, y: Var) -> Result<Var> {
        let d = square(tape, y)?;
        let d = mul(tape, v, d)?;
        neg(tape, d)
    }
}

impl Op for Recip {
    pointwise_op!("recip");
    rules_through!(output);
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "recip",
    summary: "1 / x",
    cases: &[Case {
        label: "away from 0",
        inputs: &[Arg::either("N C", Domain::AwayFromZero)],
        build: |tape, x| recip(tape, x[0]),
    }],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{c, check_complex, check_real};

    #[test]
    fn values() -> Result<()> {
        check_real(recip, &[(2.0, 0.5, -0.25), (-4.0, -0.25, -0.0625), (f64::INFINITY, 0.0, 0.0)])?;
        check_complex(
            recip,
            &[(c(0.0, 2.0), c(0.0, -0.5), c(0.25, 0.0)), (c(1e200, 1e200), c(5e-201, -5e-201), c(0.0, 0.0))],
        )
    }
}
