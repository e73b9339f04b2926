//! Rectifier that passes the first quadrant.

use retrograd_engine::core_ops::{real, select};
use retrograd_engine::expr::{Binary, Expr, Num};
use retrograd_engine::op::{Cotangents, Io, Pointwise};
use retrograd_engine::{Op, Result, Tape, Var};
use smallvec::smallvec;

use crate::crelu::only_complex;
use crate::rule::pointwise_op;
use crate::spec::{Arg, Case, Domain, OpSpec};

/// Rectifier that passes the first quadrant: `y = x` where `Re x > 0` and `Im x > 0`, else 0; complex.
///
/// Shapes: `x [..] -> y [..]`.   Rule: `x_bar = y_bar` where `y` is not 0, else 0; keeps `y`. On the axes value and
/// derivative are 0.   Domain: all complex numbers.   Errors: real input.
/// Source: Guberman (2016), On Complex Valued Convolutional Neural Networks, arXiv:1602.09046.
pub fn zrelu(tape: &mut Tape, x: Var) -> Result<Var> {
    only_complex("zrelu", tape, x)?;
    tape.push(Zrelu, &[x])
}

#[derive(Clone, Copy, Debug)]
struct Zrelu;

impl Pointwise for Zrelu {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        let (re, im) = e.parts(x[0]);
        let zero = e.constant_reg(0.0);
        let (right, up) = (e.binary(Binary::Lt, zero, re), e.binary(Binary::Lt, zero, im));
        let inside = e.binary(Binary::Mul, right, up);
        e.select(Num::Real(inside), x[0], Num::Real(zero))
    }
}

impl Zrelu {
    /// `v` where `y` is not 0, which its real part tells.
    fn through(&self, tape: &mut Tape, v: Var, y: Var) -> Result<Var> {
        let (mask, zero) = (real(tape, y)?, tape.scalar(v, 0.0)?);
        select(tape, mask, v, zero)
    }
}

impl Op for Zrelu {
    pointwise_op!("zrelu");

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        Ok(smallvec![Some(self.through(tape, y_bar, io.output)?)])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        x_dots[0].map(|x_dot| self.through(tape, x_dot, io.output)).transpose()
    }
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "zrelu",
    summary: "x in the first quadrant, else 0",
    cases: &[Case {
        label: "away from the axes",
        inputs: &[Arg::complex("N C", Domain::Separated)],
        build: |tape, x| zrelu(tape, x[0]),
    }],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{c, check_complex};

    #[test]
    fn values() -> Result<()> {
        let zero = c(0.0, 0.0);
        check_complex(
            zrelu,
            &[
                (c(1.0, 2.0), c(1.0, 2.0), c(1.0, 0.0)),
                (c(-1.0, 2.0), zero, zero),
                (c(1.0, -2.0), zero, zero),
                (c(1.0, 0.0), zero, zero),
                (c(0.0, 1.0), zero, zero),
                (zero, zero, zero),
            ],
        )?;
        let mut tape = Tape::new();
        let x = tape.param("x", retrograd_engine::DType::F32, [1])?;
        assert!(zrelu(&mut tape, x).is_err());
        Ok(())
    }
}
