//! Complex numbers from modulus and angle.

use retrograd_engine::core_ops::{conj, real, times_i};
use retrograd_engine::expr::{Expr, Num, Unary};
use retrograd_engine::op::{Cotangents, Io, Pointwise};
use retrograd_engine::{Op, Result, Tape, Var};
use smallvec::smallvec;

use crate::mul;
use crate::rule::{only_real, pointwise_op};
use crate::spec::{Arg, Case, Domain, OpSpec};

/// The complex number with this modulus and angle, element by element: `y = r · exp(iθ)`.
///
/// Shapes: `r [..]`, `theta [..] -> y` complex, broadcasting.   Rule: `r_bar = Re(conj(exp(iθ)) y_bar)`,
/// `θ_bar = Re(conj(i y) y_bar)`; keeps `r` and `exp(iθ)`.   Domain: all real numbers.
/// Errors: complex input, sizes that do not broadcast, single with double precision.
pub fn polar(tape: &mut Tape, r: Var, theta: Var) -> Result<Var> {
    only_real("polar", &[tape.ty(r)?.clone(), tape.ty(theta)?.clone()])?;
    let turn = cis(tape, theta)?;
    mul(tape, r, turn)
}

/// The number of modulus 1 with this angle, element by element: `y = exp(iθ) = cos θ + i sin θ`.
///
/// Shapes: `theta [..] -> y [..]` complex.   Rule: `θ_bar = Re(conj(i y) y_bar)`; keeps `y`.
/// Domain: all real numbers.   Errors: complex input.
pub fn cis(tape: &mut Tape, theta: Var) -> Result<Var> {
    tape.push(Cis, &[theta])
}

#[derive(Clone, Copy, Debug)]
struct Cis;

impl Pointwise for Cis {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        let theta = x[0].re();
        Num::Complex(e.unary(Unary::Cos, theta), e.unary(Unary::Sin, theta))
    }
}

impl Op for Cis {
    pointwise_op!("cis", real);

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        let d = times_i(tape, io.output)?;
        let d = conj(tape, d)?;
        let x_bar = mul(tape, d, y_bar)?;
        Ok(smallvec![Some(real(tape, x_bar)?)])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        let Some(x_dot) = x_dots[0] else { return Ok(None) };
        let d = times_i(tape, io.output)?;
        mul(tape, d, x_dot).map(Some)
    }
}

pub(crate) static POLAR: OpSpec = OpSpec {
    name: "polar",
    summary: "complex numbers from modulus and angle",
    cases: &[
        Case {
            label: "equal shapes",
            inputs: &[Arg::real("N C", Domain::Any), Arg::real("N C", Domain::Any)],
            build: |tape, x| polar(tape, x[0], x[1]),
        },
        Case {
            label: "broadcast",
            inputs: &[Arg::real("N 1", Domain::Any), Arg::real("C", Domain::Any)],
            build: |tape, x| polar(tape, x[0], x[1]),
        },
    ],
};

pub(crate) static CIS: OpSpec = OpSpec {
    name: "cis",
    summary: "exp(i x)",
    cases: &[Case {
        label: "real angles",
        inputs: &[Arg::real("N C", Domain::Any)],
        build: |tape, x| cis(tape, x[0]),
    }],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{c, check, r, refuses_complex};

    #[test]
    fn values() -> Result<()> {
        let op = |tape: &mut Tape, x: &[Var]| polar(tape, x[0], x[1]);
        let (s, k) = 0.5f64.sin_cos();
        check(
            op,
            &[false, false],
            &[
                (&[r(2.0), r(0.5)], c(2.0 * k, 2.0 * s), &[r(k), r(-2.0 * s)]),
                (&[r(0.0), r(0.5)], r(0.0), &[r(k), r(0.0)]),
                (&[r(-1.0), r(0.0)], r(-1.0), &[r(1.0), r(0.0)]),
            ],
        )?;
        assert!(refuses_complex(|tape, z| polar(tape, z, z))?);
        assert!(refuses_complex(cis)?);
        Ok(())
    }
}
