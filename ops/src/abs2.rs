//! Squared absolute value.

use retrograd_engine::core_ops::{conj, real};
use retrograd_engine::expr::{Binary, Expr, Num, Ternary};
use retrograd_engine::op::{Cotangents, Io, Pointwise};
use retrograd_engine::{Op, Result, Tape, Var};
use smallvec::smallvec;

use crate::rule::pointwise_op;
use crate::spec::{Arg, Case, Domain, OpSpec};
use crate::{mul, scale, square};

/// Squared absolute value, element by element: `y = |x|² = Re² + Im²`, real. Of a real number its square.
///
/// Shapes: `x [..] -> y [..]`.   Rule: `x_bar = 2x · y_bar`; keeps `x`.
/// Domain: all numbers.   Errors: none of its own.
pub fn abs2(tape: &mut Tape, x: Var) -> Result<Var> {
    if !tape.dtype(x)?.is_complex() {
        return square(tape, x);
    }
    tape.push(Abs2, &[x])
}

#[derive(Clone, Copy, Debug)]
struct Abs2;

impl Pointwise for Abs2 {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        let (re, im) = e.parts(x[0]);
        let square = e.binary(Binary::Mul, im, im);
        Num::Real(e.ternary(Ternary::MulAdd, re, re, square))
    }
}

impl Op for Abs2 {
    pointwise_op!("abs2");

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        let twice = scale(tape, io.inputs[0], 2.0)?;
        Ok(smallvec![Some(mul(tape, y_bar, twice)?)])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        // 2 Re(conj(x) x_dot)
        let Some(x_dot) = x_dots[0] else { return Ok(None) };
        let x = conj(tape, io.inputs[0])?;
        let twice = scale(tape, x, 2.0)?;
        let y_dot = mul(tape, twice, x_dot)?;
        real(tape, y_dot).map(Some)
    }
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "abs2",
    summary: "squared absolute value",
    cases: &[Case {
        label: "real and complex",
        inputs: &[Arg::either("N C", Domain::Any)],
        build: |tape, x| abs2(tape, x[0]),
    }],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{c, check_complex, check_real};

    #[test]
    fn the_gradient_is_twice_the_number() -> Result<()> {
        check_complex(
            abs2,
            &[(c(3.0, -4.0), c(25.0, 0.0), c(6.0, -8.0)), (c(0.0, 0.0), c(0.0, 0.0), c(0.0, 0.0))],
        )?;
        check_real(abs2, &[(-3.0, 9.0, -6.0)])
    }
}
