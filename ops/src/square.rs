//! Square.

use retrograd_engine::expr::{Binary, Expr, Num};
use retrograd_engine::op::Pointwise;
use retrograd_engine::{Op, Result, Tape, Var};

use crate::rule::{pointwise_op, rules_through};
use crate::spec::{Arg, Case, Domain, OpSpec};
use crate::{mul, scale};

/// Square, element by element: `y = x²`, real or complex ([`abs2()`](crate::abs2()) is `|x|²`).
///
/// Shapes: `x [..] -> y [..]`.   Rule: `x_bar = 2 conj(x) · y_bar`; keeps `x`.
/// Domain: all numbers.   Errors: none of its own.
pub fn square(tape: &mut Tape, x: Var) -> Result<Var> {
    tape.push(Square, &[x])
}

#[derive(Clone, Copy, Debug)]
struct Square;

impl Pointwise for Square {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        expr_square(e, x[0])
    }
}

/// `(a + ib)² = (a − b)(a + b) + 2iab`.
pub(crate) fn expr_square(e: &mut Expr, x: Num) -> Num {
    let Num::Complex(a, b) = x else { return e.mul(x, x) };
    let (less, more, twice) =
        (e.binary(Binary::Sub, a, b), e.binary(Binary::Add, a, b), e.binary(Binary::Add, a, a));
    Num::Complex(e.binary(Binary::Mul, less, more), e.binary(Binary::Mul, twice, b))
}

impl Square {
    /// `v · 2x`.
    fn through(&self, tape: &mut Tape, v: Var, x: Var) -> Result<Var> {
        let d = scale(tape, x, 2.0)?;
        mul(tape, v, d)
    }
}

impl Op for Square {
    pointwise_op!("square");
    rules_through!(input);
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "square",
    summary: "x²",
    cases: &[Case {
        label: "real and complex",
        inputs: &[Arg::either("N C", Domain::Any)],
        build: |tape, x| square(tape, x[0]),
    }],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{c, check_complex, check_real};

    #[test]
    fn values() -> Result<()> {
        check_real(square, &[(0.0, 0.0, 0.0), (-3.0, 9.0, -6.0)])?;
        check_complex(
            square,
            &[(c(1.0, 2.0), c(-3.0, 4.0), c(2.0, -4.0)), (c(0.0, 0.0), c(0.0, 0.0), c(0.0, 0.0))],
        )
    }
}
