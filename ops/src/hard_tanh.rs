//! Piecewise linear hyperbolic tangent.

use retrograd_engine::core_ops::select;
use retrograd_engine::expr::{Binary, Expr, Num};
use retrograd_engine::op::Pointwise;
use retrograd_engine::{Op, Result, Tape, Var};

use crate::compare::between;
use crate::rule::{pointwise_op, rules_through};
use crate::spec::{Arg, Case, Domain, OpSpec};

/// Piecewise linear hyperbolic tangent: `y = min(max(x, −1), 1)`; real.
///
/// Shapes: `x [..] -> y [..]`.   Rule: `x_bar = y_bar` where `−1 < y < 1`, else 0; keeps `y`. At ±1 the derivative
/// is 0 (as PyTorch's `hardtanh`; that of [`clamp()`](crate::clamp()) is 1 at its bounds).
/// Domain: all real numbers.   Errors: complex input.
pub fn hard_tanh(tape: &mut Tape, x: Var) -> Result<Var> {
    tape.push(HardTanh, &[x])
}

#[derive(Clone, Copy, Debug)]
struct HardTanh;

impl Pointwise for HardTanh {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        let (lo, hi) = (e.constant(-1.0), e.constant(1.0));
        let y = e.zip(Binary::Max, x[0], lo);
        e.zip(Binary::Min, y, hi)
    }
}

impl HardTanh {
    /// `v` where `−1 < y < 1`.
    fn through(&self, tape: &mut Tape, v: Var, y: Var) -> Result<Var> {
        let (mask, zero) = (between(tape, y, -1.0, 1.0)?, tape.scalar(v, 0.0)?);
        select(tape, mask, v, zero)
    }
}

impl Op for HardTanh {
    pointwise_op!("hard_tanh", real);
    rules_through!(output);
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "hard_tanh",
    summary: "min(max(x, -1), 1)",
    cases: &[
        Case {
            label: "away from the kinks",
            inputs: &[Arg::real("N C", Domain::Between(-0.9, 0.9))],
            build: |tape, x| hard_tanh(tape, x[0]),
        },
        Case {
            label: "beyond the kinks",
            inputs: &[Arg::real("N C", Domain::Between(1.1, 3.0))],
            build: |tape, x| hard_tanh(tape, x[0]),
        },
    ],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_real, refuses_complex};

    #[test]
    fn values() -> Result<()> {
        check_real(
            hard_tanh,
            &[(0.5, 0.5, 1.0), (-2.0, -1.0, 0.0), (2.0, 1.0, 0.0), (1.0, 1.0, 0.0), (-1.0, -1.0, 0.0)],
        )?;
        assert!(refuses_complex(hard_tanh)?);
        Ok(())
    }
}
