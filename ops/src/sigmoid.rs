//! Logistic function.

use retrograd_engine::expr::{Binary, Expr, Num, Ternary, Unary};
use retrograd_engine::op::Pointwise;
use retrograd_engine::{Op, Result, Tape, Var};

use crate::rule::{pointwise_op, rules_through};
use crate::spec::{Arg, Case, Domain, OpSpec};
use crate::{affine, mul};

/// Logistic function, element by element: `y = 1 / (1 + exp(−x))`, real or complex.
///
/// Shapes: `x [..] -> y [..]`.   Rule: `x_bar = conj(y (1 − y)) · y_bar`; keeps `y`.
/// Domain: all finite `x`, no overflow; complex poles at `i(2k + 1)π`.   Errors: none of its own.
pub fn sigmoid(tape: &mut Tape, x: Var) -> Result<Var> {
    tape.push(Sigmoid, &[x])
}

#[derive(Clone, Copy, Debug)]
struct Sigmoid;

impl Pointwise for Sigmoid {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        let Num::Complex(a, b) = x[0] else { return e.map(Unary::Sigmoid, x[0]) };
        // With E = exp(−x) for Re x ≥ 0 and exp(x) for Re x < 0, |E| ≤ 1: 1/(1 + E) and E/(1 + E).
        let (zero, one) = (e.constant_reg(0.0), e.constant_reg(1.0));
        let abs = e.unary(Unary::Abs, a);
        let w = e.unary(Unary::Neg, abs);
        let m = e.unary(Unary::Exp, w);
        let (s, c) = (e.unary(Unary::Sin, b), e.unary(Unary::Cos, b));
        let minus_s = e.unary(Unary::Neg, s);
        let left = e.binary(Binary::Lt, a, zero);
        let s = e.ternary(Ternary::Select, left, s, minus_s);
        let small = e.mul(Num::Complex(c, s), Num::Real(m));
        let top = e.select(Num::Real(left), small, Num::Real(one));
        let bottom = e.add(small, Num::Real(one));
        e.div(top, bottom)
    }
}

impl Sigmoid {
    /// `v · y (1 − y)`.
    fn through(&self, tape: &mut Tape, v: Var, y: Var) -> Result<Var> {
        let rest = affine(tape, y, -1.0, 1.0)?;
        let d = mul(tape, y, rest)?;
        mul(tape, v, d)
    }
}

impl Op for Sigmoid {
    pointwise_op!("sigmoid");
    rules_through!(output);
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "sigmoid",
    summary: "logistic function",
    cases: &[Case {
        label: "real and complex",
        inputs: &[Arg::either("N C", Domain::Any)],
        build: |tape, x| sigmoid(tape, x[0]),
    }],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{c, check_complex, check_real};

    #[test]
    fn values() -> Result<()> {
        let y = 1.0 / (1.0 + (-2.0f64).exp());
        check_real(
            sigmoid,
            &[
                (0.0, 0.5, 0.25),
                (2.0, y, y * (1.0 - y)),
                (-40.0, (-40.0f64).exp(), (-40.0f64).exp()),
                (800.0, 1.0, 0.0),
            ],
        )?;
        check_complex(
            sigmoid,
            &[
                (c(0.0, 0.0), c(0.5, 0.0), c(0.25, 0.0)),
                (c(800.0, 1.0), c(1.0, 0.0), c(0.0, 0.0)),
                (c(-800.0, 1.0), c(0.0, 0.0), c(0.0, 0.0)),
                (c(0.0, 1.0), c(0.5, 0.5 * 0.5f64.tan()), c(0.25 * (1.0 + 0.5f64.tan().powi(2)), 0.0)),
            ],
        )
    }
}
