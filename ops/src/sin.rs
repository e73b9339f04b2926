//! Sine.

use retrograd_engine::expr::{Binary, Expr, Num, Reg, Unary};
use retrograd_engine::op::Pointwise;
use retrograd_engine::{Op, Result, Tape, Var};

use crate::rule::{pointwise_op, rules_through};
use crate::spec::{Arg, Case, Domain, OpSpec};
use crate::{cos, mul};

/// Sine, element by element: `y = sin(x)`, real or complex.
///
/// Shapes: `x [..] -> y [..]`.   Rule: `x_bar = cos(conj(x)) · y_bar`; keeps `x`.
/// Domain: all numbers; overflows where `|Im x| > 709` in double precision.   Errors: none of its own.
pub fn sin(tape: &mut Tape, x: Var) -> Result<Var> {
    tape.push(Sin, &[x])
}

#[derive(Clone, Copy, Debug)]
struct Sin;

impl Pointwise for Sin {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        let Num::Complex(a, b) = x[0] else { return e.map(Unary::Sin, x[0]) };
        // sin a cosh b + i cos a sinh b
        let (s, c) = (e.unary(Unary::Sin, a), e.unary(Unary::Cos, a));
        let (sinh, cosh) = sinh_cosh(e, b);
        Num::Complex(e.binary(Binary::Mul, s, cosh), e.binary(Binary::Mul, c, sinh))
    }
}

/// Hyperbolic sine and cosine of a real number from one `expm1`, without loss near 0.
pub(crate) fn sinh_cosh(e: &mut Expr, x: Reg) -> (Reg, Reg) {
    let (half, one) = (e.constant_reg(0.5), e.constant_reg(1.0));
    let (a, sign) = (e.unary(Unary::Abs, x), e.unary(Unary::Sign, x));
    let m1 = e.unary(Unary::Expm1, a);
    let m = e.binary(Binary::Add, m1, one);
    let inverse = e.unary(Unary::Recip, m);
    // sinh |x| = (m − 1/m)/2 = (m − 1)(1 + 1/m)/2
    let s = e.binary(Binary::Add, inverse, one);
    let s = e.binary(Binary::Mul, s, m1);
    let half_sign = e.binary(Binary::Mul, sign, half);
    let sinh = e.binary(Binary::Mul, s, half_sign);
    let cosh = e.binary(Binary::Add, m, inverse);
    (sinh, e.binary(Binary::Mul, cosh, half))
}

impl Sin {
    /// `v · cos x`.
    fn through(&self, tape: &mut Tape, v: Var, x: Var) -> Result<Var> {
        let d = cos(tape, x)?;
        mul(tape, v, d)
    }
}

impl Op for Sin {
    pointwise_op!("sin");
    rules_through!(input);
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "sin",
    summary: "sine",
    cases: &[Case {
        label: "real and complex",
        inputs: &[Arg::either("N C", Domain::Any)],
        build: |tape, x| sin(tape, x[0]),
    }],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{c, check_complex, check_real};

    #[test]
    fn values() -> Result<()> {
        check_real(sin, &[(0.0, 0.0, 1.0), (1.0, 1.0f64.sin(), 1.0f64.cos())])?;
        check_complex(
            sin,
            &[
                (c(0.0, 0.0), c(0.0, 0.0), c(1.0, 0.0)),
                (c(0.0, 1.0), c(0.0, 1.0f64.sinh()), c(1.0f64.cosh(), 0.0)),
                (c(0.0, -1e-9), c(0.0, -1e-9), c(1.0, 0.0)),
                (c(0.0, -30.0), c(0.0, (-30.0f64).sinh()), c(30.0f64.cosh(), 0.0)),
            ],
        )
    }
}
