//! Multiplication by, and addition of, real constants.

use retrograd_engine::expr::{Expr, Num, Ternary};
use retrograd_engine::op::{Cotangents, Io, Pointwise};
use retrograd_engine::{Op, Result, Tape, Var};
use smallvec::smallvec;

use crate::rule::pointwise_op;
use crate::spec::{Arg, Case, Domain, OpSpec};

/// `y = factor · x`, element by element, with a real constant; the value itself for a factor of 1.
///
/// Shapes: `x [..] -> y [..]`.   Rule: `x_bar = factor · y_bar`; keeps nothing.
/// Domain: all numbers.   Errors: none of its own.
pub fn scale(tape: &mut Tape, x: Var, factor: f64) -> Result<Var> {
    affine(tape, x, factor, 0.0)
}

/// `y = x + offset`, element by element, with a real constant; the value itself for an offset of 0.
///
/// Shapes: `x [..] -> y [..]`.   Rule: `x_bar = y_bar`; keeps nothing.
/// Domain: all numbers.   Errors: none of its own.
pub fn shift(tape: &mut Tape, x: Var, offset: f64) -> Result<Var> {
    affine(tape, x, 1.0, offset)
}

/// `y = factor · x + offset`, element by element, with real constants.
///
/// Shapes: `x [..] -> y [..]`.   Rule: `x_bar = factor · y_bar`; keeps nothing.
/// Domain: all numbers.   Errors: none of its own.
pub fn affine(tape: &mut Tape, x: Var, factor: f64, offset: f64) -> Result<Var> {
    if factor == 1.0 && offset == 0.0 {
        return Ok(x);
    }
    tape.push(Affine { factor, offset }, &[x])
}

#[derive(Clone, Copy, Debug)]
struct Affine {
    factor: f64,
    offset: f64,
}

impl Pointwise for Affine {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        let (factor, offset) =
            (Num::Real(e.constant_reg(self.factor)), Num::Real(e.constant_reg(self.offset)));
        if self.factor == 1.0 {
            e.add(x[0], offset)
        } else if self.offset == 0.0 {
            e.mul(x[0], factor)
        } else {
            let re = e.ternary(Ternary::MulAdd, x[0].re(), factor.re(), offset.re());
            match x[0] {
                Num::Real(_) => Num::Real(re),
                Num::Complex(_, im) => Num::Complex(re, e.mul(Num::Real(im), factor).re()),
            }
        }
    }
}

impl Op for Affine {
    pointwise_op!("affine");

    fn vjp(&self, tape: &mut Tape, _: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        Ok(smallvec![Some(scale(tape, y_bar, self.factor)?)])
    }

    fn jvp(&self, tape: &mut Tape, _: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        x_dots[0].map(|x_dot| scale(tape, x_dot, self.factor)).transpose()
    }

    fn is_linear(&self) -> bool {
        self.offset == 0.0
    }
}

pub(crate) static SCALE: OpSpec = OpSpec {
    name: "scale",
    summary: "product with a real constant",
    cases: &[Case {
        label: "by -1.7",
        inputs: &[Arg::either("N C", Domain::Any)],
        build: |tape, x| scale(tape, x[0], -1.7),
    }],
};

pub(crate) static SHIFT: OpSpec = OpSpec {
    name: "shift",
    summary: "sum with a real constant",
    cases: &[Case {
        label: "by 0.3",
        inputs: &[Arg::either("N C", Domain::Any)],
        build: |tape, x| shift(tape, x[0], 0.3),
    }],
};

pub(crate) static AFFINE: OpSpec = OpSpec {
    name: "affine",
    summary: "product with a real constant, plus another",
    cases: &[Case {
        label: "1 - 2x",
        inputs: &[Arg::either("N C", Domain::Any)],
        build: |tape, x| affine(tape, x[0], -2.0, 1.0),
    }],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{c, check_complex, check_real};

    #[test]
    fn values() -> Result<()> {
        check_real(|tape, x| affine(tape, x, -2.0, 1.0), &[(3.0, -5.0, -2.0), (0.0, 1.0, -2.0)])?;
        check_complex(|tape, x| affine(tape, x, 2.0, 1.0), &[(c(3.0, 4.0), c(7.0, 8.0), c(2.0, 0.0))])?;
        check_complex(|tape, x| shift(tape, x, 1.0), &[(c(3.0, 4.0), c(4.0, 4.0), c(1.0, 0.0))])?;
        check_real(|tape, x| scale(tape, x, 0.0), &[(3.0, 0.0, 0.0)])
    }
}
