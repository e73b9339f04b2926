//! Softplus.

use retrograd_engine::expr::{Expr, Num, Unary};
use retrograd_engine::op::Pointwise;
use retrograd_engine::{Op, Result, Tape, Var};

use crate::rule::{pointwise_op, rules_through};
use crate::spec::{Arg, Case, Domain, OpSpec};
use crate::{mul, sigmoid};

/// Softplus, element by element: `y = log(1 + exp(x))`, without overflow; real.
///
/// Shapes: `x [..] -> y [..]`.   Rule: `x_bar = sigmoid(x) · y_bar`; keeps `x`.
/// Domain: all real numbers.   Errors: complex input.
pub fn softplus(tape: &mut Tape, x: Var) -> Result<Var> {
    tape.push(Softplus, &[x])
}

#[derive(Clone, Copy, Debug)]
struct Softplus;

impl Pointwise for Softplus {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        e.map(Unary::Softplus, x[0])
    }
}

impl Softplus {
    /// `v · sigmoid x`.
    fn through(&self, tape: &mut Tape, v: Var, x: Var) -> Result<Var> {
        let d = sigmoid(tape, x)?;
        mul(tape, v, d)
    }
}

impl Op for Softplus {
    pointwise_op!("softplus", real);
    rules_through!(input);
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "softplus",
    summary: "log(1 + exp(x)) without overflow",
    cases: &[Case {
        label: "real",
        inputs: &[Arg::real("N C", Domain::Any)],
        build: |tape, x| softplus(tape, x[0]),
    }],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_real, refuses_complex};

    #[test]
    fn values() -> Result<()> {
        check_real(
            softplus,
            &[(0.0, 2.0f64.ln(), 0.5), (800.0, 800.0, 1.0), (-40.0, (-40.0f64).exp(), (-40.0f64).exp())],
        )?;
        assert!(refuses_complex(softplus)?);
        Ok(())
    }
}
