//! Exponential less one.

use retrograd_engine::expr::{Binary, Expr, Num, Ternary, Unary};
use retrograd_engine::op::Pointwise;
use retrograd_engine::{Op, Result, Tape, Var};

use crate::rule::{pointwise_op, rules_through};
use crate::spec::{Arg, Case, Domain, OpSpec};
use crate::{exp, mul};

/// `y = exp(x) − 1`, element by element, without loss near 0; real or complex.
///
/// Shapes: `x [..] -> y [..]`.   Rule: `x_bar = exp(conj(x)) · y_bar`; keeps `x` (`y + 1` would lose small
/// derivatives).   Domain: all numbers; overflows to infinity.   Errors: none of its own.
pub fn expm1(tape: &mut Tape, x: Var) -> Result<Var> {
    tape.push(Expm1, &[x])
}

#[derive(Clone, Copy, Debug)]
struct Expm1;

impl Pointwise for Expm1 {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        let Num::Complex(re, im) = x[0] else { return e.map(Unary::Expm1, x[0]) };
        // Re = expm1(a) cos b − 2 sin²(b/2), Im = eᵃ sin b.
        let (half, minus_two) = (e.constant_reg(0.5), e.constant_reg(-2.0));
        let (m1, m) = (e.unary(Unary::Expm1, re), e.unary(Unary::Exp, re));
        let (c, s) = (e.unary(Unary::Cos, im), e.unary(Unary::Sin, im));
        let b = e.binary(Binary::Mul, im, half);
        let b = e.unary(Unary::Sin, b);
        let b = e.binary(Binary::Mul, b, b);
        let b = e.binary(Binary::Mul, b, minus_two);
        Num::Complex(e.ternary(Ternary::MulAdd, m1, c, b), e.binary(Binary::Mul, m, s))
    }
}

impl Expm1 {
    /// `v · exp(x)`.
    fn through(&self, tape: &mut Tape, v: Var, x: Var) -> Result<Var> {
        let d = exp(tape, x)?;
        mul(tape, v, d)
    }
}

impl Op for Expm1 {
    pointwise_op!("expm1");
    rules_through!(input);
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "expm1",
    summary: "exp(x) - 1 without loss near 0",
    cases: &[Case {
        label: "real and complex",
        inputs: &[Arg::either("N C", Domain::Any)],
        build: |tape, x| expm1(tape, x[0]),
    }],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{c, check_complex, check_real};

    #[test]
    fn values() -> Result<()> {
        check_real(
            expm1,
            &[
                (0.0, 0.0, 1.0),
                (1e-20, 1e-20, 1.0),
                (-50.0, -1.0, (-50.0f64).exp()),
                (1.0, 1.0f64.exp_m1(), 1.0f64.exp()),
            ],
        )?;
        check_complex(
            expm1,
            &[
                (c(0.0, 0.0), c(0.0, 0.0), c(1.0, 0.0)),
                (c(1e-20, 1e-10), c(1e-20 - 5e-21, 1e-10), c(1.0, -1e-10)),
            ],
        )
    }
}
