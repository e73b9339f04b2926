//! Logarithm of one and a small number.

use retrograd_engine::expr::{Binary, Expr, Num, Ternary, Unary};
use retrograd_engine::op::Pointwise;
use retrograd_engine::{Op, Result, Tape, Var};

use crate::log::{arg, log_abs};
use crate::rule::{pointwise_op, rules_through};
use crate::spec::{Arg, Case, Domain, OpSpec};
use crate::{div, shift};

/// `y = log(1 + x)`, element by element, without loss near 0; of complex numbers the principal value.
///
/// Shapes: `x [..] -> y [..]`.   Rule: `x_bar = y_bar / conj(1 + x)`; keeps `x`.
/// Domain: real `x > −1` (−∞ at −1, NaN below); complex `x ≠ −1`, cut as [`log()`](crate::log()).
/// Errors: none of its own.
pub fn log1p(tape: &mut Tape, x: Var) -> Result<Var> {
    tape.push(Log1p, &[x])
}

#[derive(Clone, Copy, Debug)]
struct Log1p;

impl Pointwise for Log1p {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        let Num::Complex(re, im) = x[0] else { return e.map(Unary::Log1p, x[0]) };
        let (half, one, two) = (e.constant_reg(0.5), e.constant_reg(1.0), e.constant_reg(2.0));
        let shifted = e.binary(Binary::Add, re, one);
        let far = log_abs(e, shifted, im);
        // Near 0: log1p(|1 + x|² − 1)/2 with |1 + x|² − 1 = re (re + 2) + im².
        let more = e.binary(Binary::Add, re, two);
        let (product, square) = (e.binary(Binary::Mul, re, more), e.binary(Binary::Mul, im, im));
        let excess = e.binary(Binary::Add, product, square);
        let near = e.unary(Unary::Log1p, excess);
        let near = e.binary(Binary::Mul, near, half);
        let m = e.binary(Binary::Hypot, re, im);
        let is_near = e.binary(Binary::Lt, m, half);
        Num::Complex(e.ternary(Ternary::Select, is_near, near, far), arg(e, shifted, im))
    }
}

impl Log1p {
    /// `v / (1 + x)`.
    fn through(&self, tape: &mut Tape, v: Var, x: Var) -> Result<Var> {
        let one_more = shift(tape, x, 1.0)?;
        div(tape, v, one_more)
    }
}

impl Op for Log1p {
    pointwise_op!("log1p");
    rules_through!(input);
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "log1p",
    summary: "log(1 + x) without loss near 0",
    cases: &[Case {
        label: "away from the cut",
        inputs: &[Arg::either("N C", Domain::Between(-0.6, 2.0))],
        build: |tape, x| log1p(tape, x[0]),
    }],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{c, check_complex, check_real};

    #[test]
    fn values() -> Result<()> {
        check_real(
            log1p,
            &[
                (0.0, 0.0, 1.0),
                (1e-20, 1e-20, 1.0),
                (1.0, 2.0f64.ln(), 0.5),
                (-1.0, f64::NEG_INFINITY, f64::INFINITY),
            ],
        )?;
        check_complex(
            log1p,
            &[
                (c(0.0, 0.0), c(0.0, 0.0), c(1.0, 0.0)),
                (c(1e-20, 1e-20), c(1e-20, 1e-20), c(1.0, 1e-20)),
                (c(-2.0, 0.0), c(0.0, std::f64::consts::PI), c(-1.0, 0.0)),
            ],
        )
    }
}
