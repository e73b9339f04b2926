//! Square root.

use retrograd_engine::expr::{Binary, Expr, Num, Ternary, Unary};
use retrograd_engine::op::Pointwise;
use retrograd_engine::{Op, Result, Tape, Var};

use crate::rule::{pointwise_op, rules_through};
use crate::spec::{Arg, Case, Domain, OpSpec};
use crate::{div, scale};

/// Square root, element by element: `y = √x`; of a complex number the one with a real part that is not negative.
///
/// Shapes: `x [..] -> y [..]`.   Rule: `x_bar = y_bar / (2 conj(y))`; keeps `y`. At 0 it is infinite for a
/// cotangent other than 0 and NaN for 0.   Domain: real `x ≥ 0` (NaN below); all complex numbers. The cut is the
/// negative real axis, where the value is that from above: signed zeros are not told apart.
/// Errors: none of its own.
pub fn sqrt(tape: &mut Tape, x: Var) -> Result<Var> {
    tape.push(Sqrt, &[x])
}

#[derive(Clone, Copy, Debug)]
struct Sqrt;

impl Pointwise for Sqrt {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        let Num::Complex(re, im) = x[0] else { return e.map(Unary::Sqrt, x[0]) };
        // The larger part is t = √((|x| + |re|)/2), the other |im|/2t; halved before the sum, which may overflow.
        let (half, zero, one) = (e.constant_reg(0.5), e.constant_reg(0.0), e.constant_reg(1.0));
        let (m, a) = (e.binary(Binary::Hypot, re, im), e.unary(Unary::Abs, re));
        let a = e.binary(Binary::Mul, a, half);
        let t = e.ternary(Ternary::MulAdd, m, half, a);
        let t = e.unary(Unary::Sqrt, t);
        let at_least = e.ternary(Ternary::Select, t, t, one);
        let u = e.binary(Binary::Mul, im, half);
        let u = e.binary(Binary::Div, u, at_least);
        let (minus_t, abs_u) = (e.unary(Unary::Neg, t), e.unary(Unary::Abs, u));
        let below = e.binary(Binary::Lt, im, zero);
        let signed_t = e.ternary(Ternary::Select, below, minus_t, t);
        let left = e.binary(Binary::Lt, re, zero);
        Num::Complex(
            e.ternary(Ternary::Select, left, abs_u, t),
            e.ternary(Ternary::Select, left, signed_t, u),
        )
    }
}

impl Sqrt {
    /// `v / 2y`.
    fn through(&self, tape: &mut Tape, v: Var, y: Var) -> Result<Var> {
        let half = scale(tape, v, 0.5)?;
        div(tape, half, y)
    }
}

impl Op for Sqrt {
    pointwise_op!("sqrt");
    rules_through!(output);
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "sqrt",
    summary: "square root, principal value",
    cases: &[Case {
        label: "away from the cut",
        inputs: &[Arg::either("N C", Domain::Positive)],
        build: |tape, x| sqrt(tape, x[0]),
    }],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{c, check_complex, check_real};

    #[test]
    fn values() -> Result<()> {
        check_real(
            sqrt,
            &[(4.0, 2.0, 0.25), (0.0, 0.0, f64::INFINITY), (f64::INFINITY, f64::INFINITY, 0.0)],
        )?;
        check_complex(
            sqrt,
            &[
                (c(4.0, 0.0), c(2.0, 0.0), c(0.25, 0.0)),
                (c(0.0, 2.0), c(1.0, 1.0), c(0.25, 0.25)),
                (c(0.0, -2.0), c(1.0, -1.0), c(0.25, -0.25)),
                (c(3.0, 4.0), c(2.0, 1.0), c(0.2, 0.1)),
                (c(-3.0, -4.0), c(1.0, -2.0), c(0.1, -0.2)),
                // On the cut: the value from above.
                (c(-4.0, 0.0), c(0.0, 2.0), c(0.0, 0.25)),
            ],
        )
    }

    #[test]
    fn at_zero_the_value_is_zero() -> Result<()> {
        check_complex(sqrt, &[(c(0.0, 0.0), c(0.0, 0.0), c(f64::NAN, f64::NAN))])
    }
}
