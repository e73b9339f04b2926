//! The larger and the smaller of two numbers.

use retrograd_engine::expr::{Binary, Expr, Num};
use retrograd_engine::op::{Cotangents, Io, Pointwise};
use retrograd_engine::{Op, Result, Tape, Var};
use smallvec::smallvec;

use crate::compare::share;
use crate::mul;
use crate::rule::{pointwise_op, sum_options};
use crate::spec::{Arg, Case, Domain, OpSpec};

/// The larger, element by element: `y = max(a, b)`; real. NaN where either is NaN.
///
/// Shapes: `a [..]`, `b [..] -> y`, broadcasting.   Rule: the cotangent goes to the larger, half to each where they
/// are equal (as PyTorch's); keeps both.   Domain: all real numbers.
/// Errors: complex input, sizes that do not broadcast, single with double precision.
pub fn maximum(tape: &mut Tape, a: Var, b: Var) -> Result<Var> {
    tape.push(Extremum { max: true }, &[a, b])
}

/// The smaller, element by element: `y = min(a, b)`; real. As [`maximum()`].
pub fn minimum(tape: &mut Tape, a: Var, b: Var) -> Result<Var> {
    tape.push(Extremum { max: false }, &[a, b])
}

#[derive(Clone, Copy, Debug)]
struct Extremum {
    max: bool,
}

impl Pointwise for Extremum {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        e.zip(if self.max { Binary::Max } else { Binary::Min }, x[0], x[1])
    }
}

impl Extremum {
    /// `v` times the share of input `i`.
    fn through(&self, tape: &mut Tape, io: Io<'_>, i: usize, v: Var) -> Result<Var> {
        let (this, other) = (io.inputs[i], io.inputs[1 - i]);
        let w = if self.max { share(tape, this, other)? } else { share(tape, other, this)? };
        mul(tape, v, w)
    }
}

impl Op for Extremum {
    pointwise_op!(|op| if op.max { "maximum" } else { "minimum" }, real);

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        let a_bar = if io.needs[0] { Some(self.through(tape, io, 0, y_bar)?) } else { None };
        let b_bar = if io.needs[1] { Some(self.through(tape, io, 1, y_bar)?) } else { None };
        Ok(smallvec![a_bar, b_bar])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        let from_a = x_dots[0].map(|d| self.through(tape, io, 0, d)).transpose()?;
        let from_b = x_dots[1].map(|d| self.through(tape, io, 1, d)).transpose()?;
        sum_options(tape, from_a, from_b)
    }
}

pub(crate) static MAXIMUM: OpSpec = OpSpec {
    name: "maximum",
    summary: "the larger of two",
    cases: &[
        Case {
            label: "apart",
            inputs: &[Arg::real("N C", Domain::Separated), Arg::real("N C", Domain::Separated)],
            build: |tape, x| maximum(tape, x[0], x[1]),
        },
        Case {
            label: "broadcast",
            inputs: &[Arg::real("N 1", Domain::Separated), Arg::real("C", Domain::Separated)],
            build: |tape, x| maximum(tape, x[0], x[1]),
        },
    ],
};

pub(crate) static MINIMUM: OpSpec = OpSpec {
    name: "minimum",
    summary: "the smaller of two",
    cases: &[
        Case {
            label: "apart",
            inputs: &[Arg::real("N C", Domain::Separated), Arg::real("N C", Domain::Separated)],
            build: |tape, x| minimum(tape, x[0], x[1]),
        },
        Case {
            label: "broadcast",
            inputs: &[Arg::real("C", Domain::Separated), Arg::real("N 1", Domain::Separated)],
            build: |tape, x| minimum(tape, x[0], x[1]),
        },
    ],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, r, refuses_complex};

    #[test]
    fn values() -> Result<()> {
        check(
            |tape, x| maximum(tape, x[0], x[1]),
            &[false, false],
            &[
                (&[r(1.0), r(2.0)], r(2.0), &[r(0.0), r(1.0)]),
                (&[r(3.0), r(2.0)], r(3.0), &[r(1.0), r(0.0)]),
                (&[r(2.0), r(2.0)], r(2.0), &[r(0.5), r(0.5)]),
                (&[r(f64::NAN), r(2.0)], r(f64::NAN), &[r(0.0), r(0.0)]),
            ],
        )?;
        check(
            |tape, x| minimum(tape, x[0], x[1]),
            &[false, false],
            &[(&[r(1.0), r(2.0)], r(1.0), &[r(1.0), r(0.0)]), (&[r(2.0), r(2.0)], r(2.0), &[r(0.5), r(0.5)])],
        )?;
        assert!(refuses_complex(|tape, z| maximum(tape, z, z))?);
        Ok(())
    }
}
