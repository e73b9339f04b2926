//! Hyperbolic tangent.

use retrograd_engine::expr::{Binary, Expr, Num, Ternary, Unary};
use retrograd_engine::op::Pointwise;
use retrograd_engine::{Op, Result, Tape, Var};

use crate::rule::{pointwise_op, rules_through};
use crate::spec::{Arg, Case, Domain, OpSpec};
use crate::{affine, mul, square};

/// Hyperbolic tangent, element by element: `y = tanh(x)`, real or complex.
///
/// Shapes: `x [..] -> y [..]`.   Rule: `x_bar = conj(1 − y²) · y_bar`; keeps `y`.
/// Domain: all finite `x`; complex poles at `i(π/2 + kπ)`.   Errors: none of its own.
pub fn tanh(tape: &mut Tape, x: Var) -> Result<Var> {
    tape.push(Tanh, &[x])
}

#[derive(Clone, Copy, Debug)]
struct Tanh;

impl Pointwise for Tanh {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        let Num::Complex(a, b) = x[0] else { return e.map(Unary::Tanh, x[0]) };
        // With q = exp(−2|a|) and p = 1 − q: (sign(a) p (1 + q) + 4i q sin b cos b) / (p² + 4 q cos² b).
        // Nothing overflows, and the denominator is a sum of squares.
        let (one, four, minus_two) = (e.constant_reg(1.0), e.constant_reg(4.0), e.constant_reg(-2.0));
        let (abs, sign) = (e.unary(Unary::Abs, a), e.unary(Unary::Sign, a));
        let w = e.binary(Binary::Mul, abs, minus_two);
        let (minus_p, q) = (e.unary(Unary::Expm1, w), e.unary(Unary::Exp, w));
        let p = e.unary(Unary::Neg, minus_p);
        let (s, c) = (e.unary(Unary::Sin, b), e.unary(Unary::Cos, b));
        let qc = e.binary(Binary::Mul, q, c);
        let qc = e.binary(Binary::Mul, qc, four);
        let pp = e.binary(Binary::Mul, p, p);
        let bottom = e.ternary(Ternary::MulAdd, qc, c, pp);
        let re = e.binary(Binary::Add, q, one);
        let re = e.binary(Binary::Mul, re, p);
        let re = e.binary(Binary::Mul, re, sign);
        let im = e.binary(Binary::Mul, qc, s);
        Num::Complex(e.binary(Binary::Div, re, bottom), e.binary(Binary::Div, im, bottom))
    }
}

impl Tanh {
    /// `v · (1 − y²)`.
    fn through(&self, tape: &mut Tape, v: Var, y: Var) -> Result<Var> {
        let y2 = square(tape, y)?;
        let d = affine(tape, y2, -1.0, 1.0)?;
        mul(tape, v, d)
    }
}

impl Op for Tanh {
    pointwise_op!("tanh");
    rules_through!(output);
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "tanh",
    summary: "hyperbolic tangent",
    cases: &[
        Case { label: "real", inputs: &[Arg::real("N C", Domain::Any)], build: |tape, x| tanh(tape, x[0]) },
        Case {
            label: "complex, away from poles",
            inputs: &[Arg::complex("N C", Domain::Between(-1.2, 1.2))],
            build: |tape, x| tanh(tape, x[0]),
        },
    ],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{c, check_complex, check_real};

    #[test]
    fn values() -> Result<()> {
        let y = 0.5f64.tanh();
        check_real(tanh, &[(0.0, 0.0, 1.0), (0.5, y, 1.0 - y * y), (400.0, 1.0, 0.0), (-400.0, -1.0, 0.0)])?;
        check_complex(
            tanh,
            &[
                (c(0.0, 0.0), c(0.0, 0.0), c(1.0, 0.0)),
                (c(0.0, 0.5), c(0.0, 0.5f64.tan()), c(1.0 + 0.5f64.tan().powi(2), 0.0)),
                (c(1e-20, 1e-20), c(1e-20, 1e-20), c(1.0, 0.0)),
                (c(-400.0, 1.0), c(-1.0, 0.0), c(0.0, 0.0)),
            ],
        )
    }
}
