//! Exponential linear unit.

use retrograd_engine::core_ops::select;
use retrograd_engine::expr::{Binary, Expr, Num, Unary};
use retrograd_engine::op::Pointwise;
use retrograd_engine::{Error, Op, Result, Tape, Var};

use crate::compare::positive;
use crate::rule::{pointwise_op, rules_through};
use crate::spec::{Arg, Case, Domain, OpSpec};
use crate::{mul, shift};

/// Exponential linear unit, element by element: `y = x` where `x > 0`, else `alpha · (exp(x) − 1)`; real.
///
/// Shapes: `x [..] -> y [..]`.   Rule: `x_bar = y_bar` where `y > 0`, else `(y + alpha) · y_bar`; keeps `y`. At 0
/// the derivative is `alpha`.   Domain: all real numbers.   Errors: complex input, a negative or infinite `alpha`.
/// Source: Clevert, Unterthiner, Hochreiter (2016), Fast and Accurate Deep Network Learning by ELUs, ICLR.
pub fn elu(tape: &mut Tape, x: Var, alpha: f64) -> Result<Var> {
    if !(alpha.is_finite() && alpha >= 0.0) {
        return Err(Error::argument("elu", format!("alpha = {alpha}, expected a finite number, at least 0")));
    }
    tape.push(Elu { alpha }, &[x])
}

#[derive(Clone, Copy, Debug)]
struct Elu {
    alpha: f64,
}

impl Pointwise for Elu {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        let (zero, alpha) = (e.constant(0.0), e.constant(self.alpha));
        let below = e.map(Unary::Expm1, x[0]);
        let below = e.mul(below, alpha);
        let above = e.zip(Binary::Lt, zero, x[0]);
        e.select(above, x[0], below)
    }
}

impl Elu {
    /// `v` or `v · (y + alpha)`; the output's sign tells which, as `alpha ≥ 0`.
    fn through(&self, tape: &mut Tape, v: Var, y: Var) -> Result<Var> {
        let (above, d) = (positive(tape, y)?, shift(tape, y, self.alpha)?);
        let below = mul(tape, v, d)?;
        select(tape, above, v, below)
    }
}

impl Op for Elu {
    pointwise_op!("elu", real);
    rules_through!(output);
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "elu",
    summary: "x where x > 0, else alpha · (exp(x) - 1)",
    cases: &[Case {
        label: "alpha 1.5",
        inputs: &[Arg::real("N C", Domain::AwayFromZero)],
        build: |tape, x| elu(tape, x[0], 1.5),
    }],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_real, refuses_complex};

    #[test]
    fn values() -> Result<()> {
        let op = |tape: &mut Tape, x| elu(tape, x, 2.0);
        let y = 2.0 * (-1.0f64).exp_m1();
        check_real(op, &[(2.0, 2.0, 1.0), (-1.0, y, y + 2.0), (0.0, 0.0, 2.0), (800.0, 800.0, 1.0)])?;
        assert!(refuses_complex(op)?);
        let mut tape = Tape::new();
        let x = tape.param("x", retrograd_engine::DType::F32, [1])?;
        assert!(elu(&mut tape, x, -1.0).is_err());
        Ok(())
    }
}
