//! Complex numbers from their parts.

use retrograd_engine::core_ops::{imag, real};
use retrograd_engine::expr::{Expr, Num};
use retrograd_engine::op::{Cotangents, Io, Pointwise};
use retrograd_engine::{Op, Result, Tape, Var};
use smallvec::smallvec;

use crate::rule::pointwise_op;
use crate::spec::{Arg, Case, Domain, OpSpec};

/// The complex number with these parts, element by element: `y = re + i · im`.
///
/// Shapes: `re [..]`, `im [..] -> y` complex, broadcasting.   Rule: `re_bar = Re y_bar`, `im_bar = Im y_bar`; keeps
/// nothing.   Domain: all real numbers.   Errors: complex input, sizes that do not broadcast, single with double
/// precision.
pub fn complex(tape: &mut Tape, re: Var, im: Var) -> Result<Var> {
    tape.push(Complex, &[re, im])
}

#[derive(Clone, Copy, Debug)]
struct Complex;

impl Pointwise for Complex {
    fn expr(&self, _: &mut Expr, x: &[Num]) -> Num {
        Num::Complex(x[0].re(), x[1].re())
    }
}

impl Op for Complex {
    pointwise_op!("complex", real);

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        let re_bar = if io.needs[0] { Some(real(tape, y_bar)?) } else { None };
        let im_bar = if io.needs[1] { Some(imag(tape, y_bar)?) } else { None };
        Ok(smallvec![re_bar, im_bar])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        if x_dots[0].is_none() && x_dots[1].is_none() {
            return Ok(None);
        }
        let zero = tape.scalar(io.output, 0.0)?;
        complex(tape, x_dots[0].unwrap_or(zero), x_dots[1].unwrap_or(zero)).map(Some)
    }

    fn is_linear(&self) -> bool {
        true
    }
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "complex",
    summary: "complex numbers from their parts",
    cases: &[
        Case {
            label: "equal shapes",
            inputs: &[Arg::real("N C", Domain::Any), Arg::real("N C", Domain::Any)],
            build: |tape, x| complex(tape, x[0], x[1]),
        },
        Case {
            label: "broadcast",
            inputs: &[Arg::real("C", Domain::Any), Arg::real("N 1", Domain::Any)],
            build: |tape, x| complex(tape, x[0], x[1]),
        },
    ],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{c, check, r, refuses_complex};

    #[test]
    fn values() -> Result<()> {
        let op = |tape: &mut Tape, x: &[Var]| complex(tape, x[0], x[1]);
        check(op, &[false, false], &[(&[r(1.0), r(2.0)], c(1.0, 2.0), &[r(1.0), r(0.0)])])?;
        assert!(refuses_complex(|tape, z| complex(tape, z, z))?);
        Ok(())
    }
}
