//! Product, element by element.

use retrograd_engine::expr::{Expr, Num};
use retrograd_engine::op::{Cotangents, Io, Pointwise};
use retrograd_engine::{Op, Result, Tape, Var};
use smallvec::smallvec;

use crate::rule::{pointwise_op, sum_options, times_conj};
use crate::spec::{Arg, Case, Domain, OpSpec};

/// Product, element by element: `y = a · b`. Real and complex mix.
///
/// Shapes: `a [..]`, `b [..] -> y`, broadcasting.   Rule: `a_bar = y_bar · conj(b)`, `b_bar = y_bar · conj(a)`;
/// keeps both.   Domain: all numbers.   Errors: sizes that do not broadcast, single with double precision.
pub fn mul(tape: &mut Tape, a: Var, b: Var) -> Result<Var> {
    // The product commutes to the last bit; one order makes equal products recognisable.
    let (a, b) = if b < a { (b, a) } else { (a, b) };
    tape.push(Mul, &[a, b])
}

#[derive(Clone, Copy, Debug)]
struct Mul;

impl Pointwise for Mul {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        e.mul(x[0], x[1])
    }
}

impl Op for Mul {
    pointwise_op!("mul");

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        let (a, b) = (io.inputs[0], io.inputs[1]);
        let a_bar = if io.needs[0] { Some(times_conj(tape, y_bar, b)?) } else { None };
        let b_bar = if io.needs[1] { Some(times_conj(tape, y_bar, a)?) } else { None };
        Ok(smallvec![a_bar, b_bar])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        let from_a = x_dots[0].map(|d| mul(tape, d, io.inputs[1])).transpose()?;
        let from_b = x_dots[1].map(|d| mul(tape, io.inputs[0], d)).transpose()?;
        sum_options(tape, from_a, from_b)
    }
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "mul",
    summary: "product, element by element",
    cases: &[
        Case {
            label: "equal shapes",
            inputs: &[Arg::either("N C", Domain::Any), Arg::either("N C", Domain::Any)],
            build: |tape, x| mul(tape, x[0], x[1]),
        },
        Case {
            label: "broadcast",
            inputs: &[Arg::either("N 1 C", Domain::Any), Arg::either("D 1", Domain::Any)],
            build: |tape, x| mul(tape, x[0], x[1]),
        },
        Case {
            label: "each has axes that the other lacks, long ones last",
            inputs: &[Arg::either("N 2 3 1", Domain::Any), Arg::either("N 2 1 33", Domain::Any)],
            build: |tape, x| mul(tape, x[0], x[1]),
        },
        Case {
            label: "by itself",
            inputs: &[Arg::either("N C", Domain::Any)],
            build: |tape, x| mul(tape, x[0], x[0]),
        },
    ],
};
