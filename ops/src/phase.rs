//! The phase of a complex number, as a number of modulus 1 and not as an angle.

use retrograd_engine::core_ops::{conj, imag, times_i};
use retrograd_engine::expr::{Binary, Expr, Num};
use retrograd_engine::op::{Cotangents, Io, Pointwise};
use retrograd_engine::{Op, Result, Tape, Var};
use smallvec::smallvec;

use crate::rule::pointwise_op;
use crate::spec::{Arg, Case, Domain, OpSpec};
use crate::{abs, div_or_zero, mul, sign};

/// Phase, element by element: `y = x / |x|`, 0 at 0 and where `1/|x|` would be infinite (denormal numbers). Of a real number its [`sign()`](crate::sign()).
///
/// Shapes: `x [..] -> y [..]`.   Rule: `x_bar = i y · Im(conj(y) y_bar) / |x|`, 0 at 0; keeps `x` and `y`.
/// Domain: all numbers; the derivative grows without bound towards 0.   Errors: none of its own.
pub fn phase(tape: &mut Tape, x: Var) -> Result<Var> {
    if !tape.dtype(x)?.is_complex() {
        return sign(tape, x);
    }
    tape.push(Phase, &[x])
}

#[derive(Clone, Copy, Debug)]
struct Phase;

impl Pointwise for Phase {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        let (re, im) = e.parts(x[0]);
        // 0 at 0.
        let r = e.binary(Binary::RecipHypot, re, im);
        e.mul(Num::Complex(re, im), Num::Real(r))
    }
}

impl Phase {
    /// `i y · Im(conj(y) v) / |x|`: the part of `v` across `x`. The map is its own adjoint.
    fn through(&self, tape: &mut Tape, io: Io<'_>, v: Var) -> Result<Var> {
        let y = conj(tape, io.output)?;
        let across = mul(tape, y, v)?;
        let across = imag(tape, across)?;
        let m = abs(tape, io.inputs[0])?;
        let turn = div_or_zero(tape, across, m)?;
        let iy = times_i(tape, io.output)?;
        mul(tape, turn, iy)
    }
}

impl Op for Phase {
    pointwise_op!("phase");

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        Ok(smallvec![Some(self.through(tape, io, y_bar)?)])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        x_dots[0].map(|x_dot| self.through(tape, io, x_dot)).transpose()
    }
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "phase",
    summary: "x/|x|, 0 at 0",
    cases: &[Case {
        label: "away from 0",
        inputs: &[Arg::either("N C", Domain::AwayFromZero)],
        build: |tape, x| phase(tape, x[0]),
    }],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{c, check_complex, check_real};

    #[test]
    fn values() -> Result<()> {
        check_real(phase, &[(2.0, 1.0, 0.0), (-2.0, -1.0, 0.0), (0.0, 0.0, 0.0)])?;
        check_complex(
            phase,
            &[
                (c(0.0, 2.0), c(0.0, 1.0), c(0.5, 0.0)),
                (c(2.0, 0.0), c(1.0, 0.0), c(0.0, 0.0)),
                (c(0.0, 0.0), c(0.0, 0.0), c(0.0, 0.0)),
                (c(0.0, -1e-300), c(0.0, -1.0), c(1e300, 0.0)),
            ],
        )
    }
}
