//! Cosine.

use retrograd_engine::core_ops::neg;
use retrograd_engine::expr::{Binary, Expr, Num, Unary};
use retrograd_engine::op::Pointwise;
use retrograd_engine::{Op, Result, Tape, Var};

use crate::mul;
use crate::rule::{pointwise_op, rules_through};
use crate::sin::{sin, sinh_cosh};
use crate::spec::{Arg, Case, Domain, OpSpec};

/// Cosine, element by element: `y = cos(x)`, real or complex.
///
/// Shapes: `x [..] -> y [..]`.   Rule: `x_bar = −sin(conj(x)) · y_bar`; keeps `x`.
/// Domain: all numbers; overflows where `|Im x| > 709` in double precision.   Errors: none of its own.
pub fn cos(tape: &mut Tape, x: Var) -> Result<Var> {
    tape.push(Cos, &[x])
}

#[derive(Clone, Copy, Debug)]
struct Cos;

impl Pointwise for Cos {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        let Num::Complex(a, b) = x[0] else { return e.map(Unary::Cos, x[0]) };
        // cos a cosh b − i sin a sinh b
        let (s, c) = (e.unary(Unary::Sin, a), e.unary(Unary::Cos, a));
        let (sinh, cosh) = sinh_cosh(e, b);
        let minus_s = e.unary(Unary::Neg, s);
        Num::Complex(e.binary(Binary::Mul, c, cosh), e.binary(Binary::Mul, minus_s, sinh))
    }
}

impl Cos {
    /// `−v · sin x`.
    fn through(&self, tape: &mut Tape, v: Var, x: Var) -> Result<Var> {
        let d = sin(tape, x)?;
        let d = mul(tape, v, d)?;
        neg(tape, d)
    }
}

impl Op for Cos {
    pointwise_op!("cos");
    rules_through!(input);
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "cos",
    summary: "cosine",
    cases: &[Case {
        label: "real and complex",
        inputs: &[Arg::either("N C", Domain::Any)],
        build: |tape, x| cos(tape, x[0]),
    }],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{c, check_complex, check_real};

    #[test]
    fn values() -> Result<()> {
        check_real(cos, &[(0.0, 1.0, 0.0), (1.0, 1.0f64.cos(), -1.0f64.sin())])?;
        check_complex(
            cos,
            &[
                (c(0.0, 0.0), c(1.0, 0.0), c(0.0, 0.0)),
                (c(0.0, 1.0), c(1.0f64.cosh(), 0.0), c(0.0, 1.0f64.sinh())),
            ],
        )
    }
}
