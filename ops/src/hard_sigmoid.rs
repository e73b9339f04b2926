//! Piecewise linear logistic function.

use retrograd_engine::core_ops::select;
use retrograd_engine::expr::{Binary, Expr, Num};
use retrograd_engine::op::Pointwise;
use retrograd_engine::{Op, Result, Tape, Var};

use crate::compare::between;
use crate::rule::{pointwise_op, rules_through};
use crate::scale;
use crate::spec::{Arg, Case, Domain, OpSpec};

/// Piecewise linear logistic function, PyTorch's definition: `y = min(max(x + 3, 0), 6) / 6`; real.
///
/// Shapes: `x [..] -> y [..]`.   Rule: `x_bar = y_bar / 6` where `−3 < x < 3`, else 0; keeps `x`. At ±3 the
/// derivative is 0.   Domain: all real numbers.   Errors: complex input.
/// Differs from Keras's earlier one, which is `min(max(0.2 x + 0.5, 0), 1)`.
pub fn hard_sigmoid(tape: &mut Tape, x: Var) -> Result<Var> {
    tape.push(HardSigmoid, &[x])
}

#[derive(Clone, Copy, Debug)]
struct HardSigmoid;

impl Pointwise for HardSigmoid {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        let (three, zero, six) = (e.constant(3.0), e.constant(0.0), e.constant(6.0));
        let y = e.add(x[0], three);
        let y = e.zip(Binary::Max, y, zero);
        let y = e.zip(Binary::Min, y, six);
        e.div(y, six)
    }
}

impl HardSigmoid {
    /// `v / 6` where `−3 < x < 3`.
    fn through(&self, tape: &mut Tape, v: Var, x: Var) -> Result<Var> {
        let (mask, zero) = (between(tape, x, -3.0, 3.0)?, tape.scalar(v, 0.0)?);
        let sixth = scale(tape, v, 1.0 / 6.0)?;
        select(tape, mask, sixth, zero)
    }
}

impl Op for HardSigmoid {
    pointwise_op!("hard_sigmoid", real);
    rules_through!(input);
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "hard_sigmoid",
    summary: "min(max(x + 3, 0), 6) / 6",
    cases: &[
        Case {
            label: "away from the kinks",
            inputs: &[Arg::real("N C", Domain::Between(-2.9, 2.9))],
            build: |tape, x| hard_sigmoid(tape, x[0]),
        },
        Case {
            label: "beyond the kinks",
            inputs: &[Arg::real("N C", Domain::Between(3.1, 5.0))],
            build: |tape, x| hard_sigmoid(tape, x[0]),
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
            hard_sigmoid,
            &[
                (0.0, 0.5, 1.0 / 6.0),
                (1.5, 0.75, 1.0 / 6.0),
                (-3.0, 0.0, 0.0),
                (3.0, 1.0, 0.0),
                (9.0, 1.0, 0.0),
            ],
        )?;
        assert!(refuses_complex(hard_sigmoid)?);
        Ok(())
    }
}
