//! Exponential.

use retrograd_engine::expr::{Expr, Num, Unary};
use retrograd_engine::op::Pointwise;
use retrograd_engine::{Op, Result, Tape, Var};

use crate::mul;
use crate::rule::{pointwise_op, rules_through};
use crate::spec::{Arg, Case, Domain, OpSpec};

/// Exponential, element by element: `y = exp(x)`, real or complex.
///
/// Shapes: `x [..] -> y [..]`.   Rule: `x_bar = conj(y) · y_bar`; keeps `y`.
/// Domain: all numbers; overflows to infinity.   Errors: none of its own.
pub fn exp(tape: &mut Tape, x: Var) -> Result<Var> {
    tape.push(Exp, &[x])
}

#[derive(Clone, Copy, Debug)]
struct Exp;

impl Pointwise for Exp {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        expr_exp(e, x[0])
    }
}

/// `exp(a + ib) = eᵃ (cos b + i sin b)`.
pub(crate) fn expr_exp(e: &mut Expr, x: Num) -> Num {
    match x {
        Num::Real(_) => e.map(Unary::Exp, x),
        Num::Complex(re, im) => {
            let (m, c, s) = (e.unary(Unary::Exp, re), e.unary(Unary::Cos, im), e.unary(Unary::Sin, im));
            e.mul(Num::Complex(c, s), Num::Real(m))
        }
    }
}

impl Exp {
    /// `v · y`.
    fn through(&self, tape: &mut Tape, v: Var, y: Var) -> Result<Var> {
        mul(tape, v, y)
    }
}

impl Op for Exp {
    pointwise_op!("exp");
    rules_through!(output);
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "exp",
    summary: "exponential",
    cases: &[Case {
        label: "real and complex",
        inputs: &[Arg::either("N C", Domain::Any)],
        build: |tape, x| exp(tape, x[0]),
    }],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{c, check_complex, check_real};

    #[test]
    fn values() -> Result<()> {
        let e = 1.0f64.exp();
        check_real(exp, &[(0.0, 1.0, 1.0), (1.0, e, e), (-800.0, 0.0, 0.0), (f64::NEG_INFINITY, 0.0, 0.0)])?;
        let (s, k) = 1.0f64.sin_cos();
        check_complex(
            exp,
            &[(c(0.0, 0.0), c(1.0, 0.0), c(1.0, 0.0)), (c(1.0, 1.0), c(e * k, e * s), c(e * k, -e * s))],
        )
    }
}
