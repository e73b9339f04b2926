//! Quotient, element by element.

use retrograd_engine::core_ops::{conj, neg};
use retrograd_engine::expr::{Expr, Num};
use retrograd_engine::op::{Cotangents, Io, Pointwise};
use retrograd_engine::{Op, Result, Tape, Var};
use smallvec::smallvec;

use crate::mul;
use crate::rule::{pointwise_op, sum_options, times_conj};
use crate::spec::{Arg, Case, Domain, OpSpec};

/// Quotient, element by element: `y = a / b`. Real and complex mix.
///
/// Shapes: `a [..]`, `b [..] -> y`, broadcasting.   Rule: `a_bar = y_bar / conj(b)`, `b_bar = −conj(y) · a_bar`;
/// keeps `b` and `y`.   Domain: `b ≠ 0`.   Errors: sizes that do not broadcast, single with double precision.
pub fn div(tape: &mut Tape, a: Var, b: Var) -> Result<Var> {
    tape.push(Div { or_zero: false }, &[a, b])
}

/// [`div()`] that is 0 where `b` is 0, as are the cotangents there.
pub fn div_or_zero(tape: &mut Tape, a: Var, b: Var) -> Result<Var> {
    tape.push(Div { or_zero: true }, &[a, b])
}

#[derive(Clone, Copy, Debug)]
struct Div {
    or_zero: bool,
}

impl Pointwise for Div {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        let y = e.div(x[0], x[1]);
        if !self.or_zero {
            return y;
        }
        let size = e.abs(x[1]);
        let zero = e.constant(0.0);
        e.select(size, y, zero)
    }
}

impl Op for Div {
    pointwise_op!(|op| if op.or_zero { "div_or_zero" } else { "div" });

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        let b = conj(tape, io.inputs[1])?;
        let a_bar = tape.push(*self, &[y_bar, b])?;
        let b_bar = if io.needs[1] {
            let product = times_conj(tape, a_bar, io.output)?;
            Some(neg(tape, product)?)
        } else {
            None
        };
        Ok(smallvec![Some(a_bar), b_bar])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        // (a_dot − y b_dot) / b
        let from_b = match x_dots[1] {
            Some(b_dot) => {
                let product = mul(tape, io.output, b_dot)?;
                Some(neg(tape, product)?)
            }
            None => None,
        };
        let top = sum_options(tape, x_dots[0], from_b)?;
        top.map(|top| tape.push(*self, &[top, io.inputs[1]])).transpose()
    }
}

pub(crate) static DIV: OpSpec = OpSpec {
    name: "div",
    summary: "quotient, element by element",
    cases: &[
        Case {
            label: "equal shapes",
            inputs: &[Arg::either("N C", Domain::Any), Arg::either("N C", Domain::AwayFromZero)],
            build: |tape, x| div(tape, x[0], x[1]),
        },
        Case {
            label: "broadcast",
            inputs: &[Arg::either("D 1", Domain::Any), Arg::either("N 1 C", Domain::AwayFromZero)],
            build: |tape, x| div(tape, x[0], x[1]),
        },
    ],
};

pub(crate) static DIV_OR_ZERO: OpSpec = OpSpec {
    name: "div_or_zero",
    summary: "quotient, 0 where the denominator is 0",
    cases: &[Case {
        label: "away from 0",
        inputs: &[Arg::either("N C", Domain::Any), Arg::either("C", Domain::AwayFromZero)],
        build: |tape, x| div_or_zero(tape, x[0], x[1]),
    }],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{c, check, r};

    #[test]
    fn values() -> Result<()> {
        let op = |tape: &mut Tape, x: &[Var]| div(tape, x[0], x[1]);
        check(op, &[false, false], &[(&[r(3.0), r(2.0)], r(1.5), &[r(0.5), r(-0.75)])])?;
        check(
            op,
            &[true, true],
            &[(&[c(4.0, 2.0), c(0.0, 2.0)], c(1.0, -2.0), &[c(0.0, 0.5), c(1.0, -0.5)])],
        )?;
        // |b|² would overflow and vanish.
        check(
            op,
            &[true, true],
            &[
                (&[c(1e300, 0.0), c(1e300, 0.0)], r(1.0), &[r(1e-300), r(-1e-300)]),
                (&[c(0.0, 1e-200), c(1e-200, 0.0)], c(0.0, 1.0), &[r(1e200), c(0.0, 1e200)]),
            ],
        )
    }

    #[test]
    fn zero_where_the_denominator_is_zero() -> Result<()> {
        let op = |tape: &mut Tape, x: &[Var]| div_or_zero(tape, x[0], x[1]);
        let zero = &[r(0.0), r(0.0)];
        check(op, &[false, false], &[(&[r(3.0), r(0.0)], r(0.0), zero), (zero, r(0.0), zero)])?;
        check(op, &[true, true], &[(&[c(3.0, 1.0), r(0.0)], r(0.0), zero)])
    }
}
