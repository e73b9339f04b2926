//! Restriction to an interval.

use retrograd_engine::core_ops::select;
use retrograd_engine::expr::{Binary, Expr, Num};
use retrograd_engine::op::Pointwise;
use retrograd_engine::{Error, Op, Result, Tape, Var};

use crate::compare::within;
use crate::rule::{pointwise_op, rules_through};
use crate::spec::{Arg, Case, Domain, OpSpec};

/// Restriction to `[lo, hi]`, element by element: `y = min(max(x, lo), hi)`; real. A NaN stays.
///
/// Shapes: `x [..] -> y [..]`.   Rule: `x_bar = y_bar` where `lo ≤ x ≤ hi`, else 0; keeps `x`. At the bounds the
/// derivative is 1, as PyTorch's.   Domain: all real numbers.   Errors: complex input, bounds that are NaN or in
/// the wrong order.
pub fn clamp(tape: &mut Tape, x: Var, lo: f64, hi: f64) -> Result<Var> {
    if lo.is_nan() || hi.is_nan() || lo > hi {
        return Err(Error::argument("clamp", format!("bounds {lo} and {hi}, expected lo <= hi")));
    }
    tape.push(Clamp { lo, hi }, &[x])
}

#[derive(Clone, Copy, Debug)]
struct Clamp {
    lo: f64,
    hi: f64,
}

impl Pointwise for Clamp {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        let (lo, hi) = (e.constant(self.lo), e.constant(self.hi));
        let y = e.zip(Binary::Max, x[0], lo);
        e.zip(Binary::Min, y, hi)
    }
}

impl Clamp {
    /// `v` where `x` lies within the bounds.
    fn through(&self, tape: &mut Tape, v: Var, x: Var) -> Result<Var> {
        let (mask, zero) = (within(tape, x, self.lo, self.hi)?, tape.scalar(v, 0.0)?);
        select(tape, mask, v, zero)
    }
}

impl Op for Clamp {
    pointwise_op!("clamp", real);
    rules_through!(input);
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "clamp",
    summary: "min(max(x, lo), hi)",
    cases: &[
        Case {
            label: "away from the bounds",
            inputs: &[Arg::real("N C", Domain::Separated)],
            build: |tape, x| clamp(tape, x[0], -0.45, 1.05),
        },
        Case {
            label: "inside",
            inputs: &[Arg::real("N C", Domain::Unit)],
            build: |tape, x| clamp(tape, x[0], 0.0, 1.0),
        },
    ],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_real, refuses_complex};

    #[test]
    fn values() -> Result<()> {
        let op = |tape: &mut Tape, x| clamp(tape, x, -1.0, 2.0);
        check_real(
            op,
            &[
                (0.5, 0.5, 1.0),
                (-3.0, -1.0, 0.0),
                (3.0, 2.0, 0.0),
                (-1.0, -1.0, 1.0),
                (2.0, 2.0, 1.0),
                (f64::NAN, f64::NAN, 0.0),
            ],
        )?;
        check_real(|tape, x| clamp(tape, x, 0.0, f64::INFINITY), &[(5.0, 5.0, 1.0), (-5.0, 0.0, 0.0)])?;
        assert!(refuses_complex(op)?);
        let mut tape = Tape::new();
        let x = tape.param("x", retrograd_engine::DType::F32, [1])?;
        assert!(clamp(&mut tape, x, 1.0, -1.0).is_err());
        Ok(())
    }
}
