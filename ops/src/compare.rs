//! Comparisons: 1 where they hold, else 0.

use retrograd_engine::expr::{Binary, Expr, Num};
use retrograd_engine::op::Pointwise;
use retrograd_engine::{Op, Result, Tape, Ty, Var};

use crate::rule::{flops, no_derivative, only_real, pointwise_op};
use crate::spec::{Arg, Case, Domain, OpSpec};

/// 1 where `a = b`, else 0; real or complex. A NaN equals nothing.
///
/// Shapes: `a [..]`, `b [..] -> y` real, broadcasting.   Rule: the derivative is 0.
/// Errors: sizes that do not broadcast, single with double precision.
pub fn eq(tape: &mut Tape, a: Var, b: Var) -> Result<Var> {
    tape.push(Compare::Eq, &[a, b])
}

/// 1 where `a ≠ b`, else 0; real or complex. As [`eq`].
pub fn ne(tape: &mut Tape, a: Var, b: Var) -> Result<Var> {
    tape.push(Compare::Ne, &[a, b])
}

/// 1 where `a < b`, else 0; real. 0 where either is NaN.
///
/// Shapes: `a [..]`, `b [..] -> y`, broadcasting.   Rule: the derivative is 0.
/// Errors: complex input, sizes that do not broadcast, single with double precision.
pub fn lt(tape: &mut Tape, a: Var, b: Var) -> Result<Var> {
    tape.push(Compare::Lt, &[a, b])
}

/// 1 where `a ≤ b`, else 0; real. As [`lt`].
pub fn le(tape: &mut Tape, a: Var, b: Var) -> Result<Var> {
    tape.push(Compare::Le, &[a, b])
}

/// 1 where `a > b`, else 0; real. As [`lt`].
pub fn gt(tape: &mut Tape, a: Var, b: Var) -> Result<Var> {
    tape.push(Compare::Lt, &[b, a])
}

/// 1 where `a ≥ b`, else 0; real. As [`lt`].
pub fn ge(tape: &mut Tape, a: Var, b: Var) -> Result<Var> {
    tape.push(Compare::Le, &[b, a])
}

/// 1 where `a > b`, ½ where they are equal, else 0: the share of `a` in the cotangent of the larger.
pub(crate) fn share(tape: &mut Tape, a: Var, b: Var) -> Result<Var> {
    tape.push(Compare::Share, &[a, b])
}

/// 1 where `lo < x < hi`, else 0.
pub(crate) fn between(tape: &mut Tape, x: Var, lo: f64, hi: f64) -> Result<Var> {
    tape.push(Between { lo, hi, closed: false }, &[x])
}

/// 1 where `lo ≤ x ≤ hi`, else 0.
pub(crate) fn within(tape: &mut Tape, x: Var, lo: f64, hi: f64) -> Result<Var> {
    tape.push(Between { lo, hi, closed: true }, &[x])
}

/// 1 where `x > 0`, else 0.
pub(crate) fn positive(tape: &mut Tape, x: Var) -> Result<Var> {
    let zero = tape.scalar(x, 0.0)?;
    gt(tape, x, zero)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compare {
    Eq,
    Ne,
    Lt,
    Le,
    Share,
}

impl Pointwise for Compare {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        let (a, b) = (x[0], x[1]);
        match self {
            Compare::Lt => e.zip(Binary::Lt, a, b),
            Compare::Le => e.zip(Binary::Le, a, b),
            Compare::Eq => equal(e, a, b),
            Compare::Ne => {
                let (one, same) = (e.constant(1.0), equal(e, a, b));
                e.sub(one, same)
            }
            Compare::Share => {
                let (above, not_below) = (e.zip(Binary::Lt, b, a), e.zip(Binary::Le, b, a));
                let (sum, half) = (e.add(above, not_below), e.constant(0.5));
                e.mul(sum, half)
            }
        }
    }
}

fn equal(e: &mut Expr, a: Num, b: Num) -> Num {
    if let (Num::Real(_), Num::Real(_)) = (a, b) {
        return e.zip(Binary::Eq, a, b);
    }
    let ((ar, ai), (br, bi)) = (e.parts(a), e.parts(b));
    let (re, im) = (e.binary(Binary::Eq, ar, br), e.binary(Binary::Eq, ai, bi));
    Num::Real(e.binary(Binary::Mul, re, im))
}

impl Op for Compare {
    fn name(&self) -> &'static str {
        match self {
            Compare::Eq => "eq",
            Compare::Ne => "ne",
            Compare::Lt => "lt",
            Compare::Le => "le",
            Compare::Share => "share",
        }
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        if !matches!(self, Compare::Eq | Compare::Ne) {
            only_real(self.name(), inputs)?;
        }
        retrograd_engine::op::infer_pointwise(self.name(), self, inputs)
    }

    fn class(&self) -> retrograd_engine::op::Class<'_> {
        retrograd_engine::op::Class::Pointwise(self)
    }

    fn flops(&self, inputs: &[Ty], output: &Ty) -> f64 {
        flops(self, inputs, output)
    }

    no_derivative!();
}

#[derive(Clone, Copy, Debug)]
struct Between {
    lo: f64,
    hi: f64,
    closed: bool,
}

impl Pointwise for Between {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        let order = if self.closed { Binary::Le } else { Binary::Lt };
        let (lo, hi) = (e.constant(self.lo), e.constant(self.hi));
        let (above, below) = (e.zip(order, lo, x[0]), e.zip(order, x[0], hi));
        e.mul(above, below)
    }
}

impl Op for Between {
    pointwise_op!("between", real);
    no_derivative!();
}

pub(crate) static EQ: OpSpec = OpSpec {
    name: "eq",
    summary: "1 where a = b, else 0",
    cases: &[
        Case {
            label: "apart",
            inputs: &[Arg::either("N C", Domain::Separated), Arg::either("N C", Domain::Separated)],
            build: |tape, x| eq(tape, x[0], x[1]),
        },
        Case {
            label: "broadcast",
            inputs: &[Arg::either("N 1", Domain::Separated), Arg::either("C", Domain::Separated)],
            build: |tape, x| eq(tape, x[0], x[1]),
        },
    ],
};

pub(crate) static NE: OpSpec = OpSpec {
    name: "ne",
    summary: "1 where a ≠ b, else 0",
    cases: &[
        Case {
            label: "apart",
            inputs: &[Arg::either("N C", Domain::Separated), Arg::either("N C", Domain::Separated)],
            build: |tape, x| ne(tape, x[0], x[1]),
        },
        Case {
            label: "broadcast",
            inputs: &[Arg::either("N 1", Domain::Separated), Arg::either("C", Domain::Separated)],
            build: |tape, x| ne(tape, x[0], x[1]),
        },
    ],
};

pub(crate) static LT: OpSpec = OpSpec {
    name: "lt",
    summary: "1 where a < b, else 0",
    cases: &[
        Case {
            label: "apart",
            inputs: &[Arg::real("N C", Domain::Separated), Arg::real("N C", Domain::Separated)],
            build: |tape, x| lt(tape, x[0], x[1]),
        },
        Case {
            label: "broadcast",
            inputs: &[Arg::real("N 1", Domain::Separated), Arg::real("C", Domain::Separated)],
            build: |tape, x| lt(tape, x[0], x[1]),
        },
    ],
};

pub(crate) static LE: OpSpec = OpSpec {
    name: "le",
    summary: "1 where a ≤ b, else 0",
    cases: &[
        Case {
            label: "apart",
            inputs: &[Arg::real("N C", Domain::Separated), Arg::real("N C", Domain::Separated)],
            build: |tape, x| le(tape, x[0], x[1]),
        },
        Case {
            label: "broadcast",
            inputs: &[Arg::real("N 1", Domain::Separated), Arg::real("C", Domain::Separated)],
            build: |tape, x| le(tape, x[0], x[1]),
        },
    ],
};

pub(crate) static GT: OpSpec = OpSpec {
    name: "gt",
    summary: "1 where a > b, else 0",
    cases: &[
        Case {
            label: "apart",
            inputs: &[Arg::real("N C", Domain::Separated), Arg::real("N C", Domain::Separated)],
            build: |tape, x| gt(tape, x[0], x[1]),
        },
        Case {
            label: "broadcast",
            inputs: &[Arg::real("N 1", Domain::Separated), Arg::real("C", Domain::Separated)],
            build: |tape, x| gt(tape, x[0], x[1]),
        },
    ],
};

pub(crate) static GE: OpSpec = OpSpec {
    name: "ge",
    summary: "1 where a ≥ b, else 0",
    cases: &[
        Case {
            label: "apart",
            inputs: &[Arg::real("N C", Domain::Separated), Arg::real("N C", Domain::Separated)],
            build: |tape, x| ge(tape, x[0], x[1]),
        },
        Case {
            label: "broadcast",
            inputs: &[Arg::real("N 1", Domain::Separated), Arg::real("C", Domain::Separated)],
            build: |tape, x| ge(tape, x[0], x[1]),
        },
    ],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{c, check, r, refuses_complex};

    /// Holds of: less, equal, greater, NaN.
    fn table(op: fn(&mut Tape, Var, Var) -> Result<Var>, holds: [f64; 4]) -> Result<()> {
        let zero = &[r(0.0), r(0.0)];
        check(
            |tape, x| op(tape, x[0], x[1]),
            &[false, false],
            &[
                (&[r(1.0), r(2.0)], r(holds[0]), zero),
                (&[r(2.0), r(2.0)], r(holds[1]), zero),
                (&[r(3.0), r(2.0)], r(holds[2]), zero),
                (&[r(f64::NAN), r(2.0)], r(holds[3]), zero),
            ],
        )
    }

    #[test]
    fn values() -> Result<()> {
        table(eq, [0.0, 1.0, 0.0, 0.0])?;
        table(ne, [1.0, 0.0, 1.0, 1.0])?;
        table(lt, [1.0, 0.0, 0.0, 0.0])?;
        table(le, [1.0, 1.0, 0.0, 0.0])?;
        table(gt, [0.0, 0.0, 1.0, 0.0])?;
        table(ge, [0.0, 1.0, 1.0, 0.0])?;
        table(share, [0.0, 0.5, 1.0, 0.0])
    }

    #[test]
    fn complex_numbers_are_equal_or_not() -> Result<()> {
        let zero = &[r(0.0), r(0.0)];
        let rows = &[
            (&[c(1.0, 2.0), c(1.0, 2.0)][..], r(1.0), &zero[..]),
            (&[c(1.0, 2.0), c(1.0, 3.0)], r(0.0), zero),
        ];
        check(|tape, x| eq(tape, x[0], x[1]), &[true, true], rows)?;
        assert!(refuses_complex(|tape, z| lt(tape, z, z))?);
        Ok(())
    }
}
