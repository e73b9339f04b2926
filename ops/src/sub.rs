//! Difference, element by element.

use retrograd_engine::core_ops::neg;
use retrograd_engine::expr::{Expr, Num};
use retrograd_engine::op::{Cotangents, Io, Pointwise};
use retrograd_engine::{Op, Result, Tape, Var};
use smallvec::smallvec;

use crate::rule::pointwise_op;
use crate::spec::{Arg, Case, Domain, OpSpec};

/// Difference, element by element: `y = a − b`. Real and complex mix.
///
/// Shapes: `a [..]`, `b [..] -> y`, broadcasting.   Rule: `a_bar = y_bar`, `b_bar = −y_bar`; keeps nothing.
/// Domain: all numbers.   Errors: sizes that do not broadcast, single with double precision.
pub fn sub(tape: &mut Tape, a: Var, b: Var) -> Result<Var> {
    tape.push(Sub, &[a, b])
}

#[derive(Clone, Copy, Debug)]
struct Sub;

impl Pointwise for Sub {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        e.sub(x[0], x[1])
    }
}

impl Op for Sub {
    pointwise_op!("sub");

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        let b_bar = if io.needs[1] { Some(neg(tape, y_bar)?) } else { None };
        Ok(smallvec![Some(y_bar), b_bar])
    }

    fn jvp(&self, tape: &mut Tape, _: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        Ok(match (x_dots[0], x_dots[1]) {
            (Some(a), Some(b)) => Some(sub(tape, a, b)?),
            (None, Some(b)) => Some(neg(tape, b)?),
            (a, None) => a,
        })
    }

    fn is_linear(&self) -> bool {
        true
    }
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "sub",
    summary: "difference, element by element",
    cases: &[
        Case {
            label: "equal shapes",
            inputs: &[Arg::either("N C", Domain::Any), Arg::either("N C", Domain::Any)],
            build: |tape, x| sub(tape, x[0], x[1]),
        },
        Case {
            label: "broadcast",
            inputs: &[Arg::either("D 1", Domain::Any), Arg::either("N 1 C", Domain::Any)],
            build: |tape, x| sub(tape, x[0], x[1]),
        },
    ],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{c, check, r};

    #[test]
    fn values() -> Result<()> {
        let op = |tape: &mut Tape, x: &[Var]| sub(tape, x[0], x[1]);
        check(op, &[false, false], &[(&[r(3.0), r(5.0)], r(-2.0), &[r(1.0), r(-1.0)])])?;
        check(op, &[false, true], &[(&[r(3.0), c(5.0, 1.0)], c(-2.0, -1.0), &[r(1.0), r(-1.0)])])
    }
}
