//! Rectifier.

use retrograd_engine::core_ops::select;
use retrograd_engine::expr::{Binary, Expr, Num};
use retrograd_engine::op::Pointwise;
use retrograd_engine::{Op, Result, Tape, Var};

use crate::rule::{pointwise_op, rules_through};
use crate::spec::{Arg, Case, Domain, OpSpec};

/// Rectifier, element by element: `y = max(x, 0)`; real.
///
/// Shapes: `x [..] -> y [..]`.   Rule: `x_bar = y_bar` where `y > 0`, else 0; keeps `y`. At 0 the derivative is 0.
/// Domain: all real numbers.   Errors: complex input ([`crelu()`](crate::crelu()), [`zrelu()`](crate::zrelu()) and
/// [`modrelu()`](crate::modrelu()) take one).
pub fn relu(tape: &mut Tape, x: Var) -> Result<Var> {
    tape.push(Relu, &[x])
}

#[derive(Clone, Copy, Debug)]
struct Relu;

impl Pointwise for Relu {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        let zero = e.constant(0.0);
        e.zip(Binary::Max, x[0], zero)
    }
}

impl Relu {
    /// `v` where `y` is not zero.
    fn through(&self, tape: &mut Tape, v: Var, y: Var) -> Result<Var> {
        // y > 0 exactly where y ≠ 0; a NaN is passed on.
        let zero = tape.scalar(v, 0.0)?;
        select(tape, y, v, zero)
    }
}

impl Op for Relu {
    pointwise_op!("relu", real);
    rules_through!(output);
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "relu",
    summary: "max(x, 0)",
    cases: &[Case {
        label: "away from 0",
        inputs: &[Arg::real("N C", Domain::Separated)],
        build: |tape, x| relu(tape, x[0]),
    }],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_real, refuses_complex};

    #[test]
    fn values() -> Result<()> {
        check_real(relu, &[(2.0, 2.0, 1.0), (-2.0, 0.0, 0.0), (0.0, 0.0, 0.0), (f64::NAN, f64::NAN, 1.0)])?;
        assert!(refuses_complex(relu)?);
        Ok(())
    }
}
