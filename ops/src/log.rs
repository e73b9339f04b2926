//! Natural logarithm.

use retrograd_engine::expr::{Binary, Expr, Num, Reg, Ternary, Unary};
use retrograd_engine::op::Pointwise;
use retrograd_engine::{Op, Result, Tape, Var};

use crate::div;
use crate::rule::{pointwise_op, rules_through};
use crate::spec::{Arg, Case, Domain, OpSpec};

/// Natural logarithm, element by element: `y = log(x)`; of a complex number the principal value,
/// `log|x| + i arg x` with `arg x` in (−π, π].
///
/// Shapes: `x [..] -> y [..]`.   Rule: `x_bar = y_bar / conj(x)`; keeps `x`.
/// Domain: real `x > 0` (−∞ at 0, NaN below); complex `x ≠ 0`. The cut is the negative real axis, where the value
/// is that from above: signed zeros are not told apart.   Errors: none of its own.
pub fn log(tape: &mut Tape, x: Var) -> Result<Var> {
    tape.push(Log, &[x])
}

#[derive(Clone, Copy, Debug)]
struct Log;

impl Pointwise for Log {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        match x[0] {
            Num::Real(_) => e.map(Unary::Log, x[0]),
            Num::Complex(re, im) => Num::Complex(log_abs(e, re, im), arg(e, re, im)),
        }
    }
}

/// `log √(a² + b²)` without overflow and without loss near 1.
pub(crate) fn log_abs(e: &mut Expr, re: Reg, im: Reg) -> Reg {
    let (a, b) = (e.unary(Unary::Abs, re), e.unary(Unary::Abs, im));
    let (large, small) = (e.binary(Binary::Max, a, b), e.binary(Binary::Min, a, b));
    let m = e.binary(Binary::Hypot, re, im);
    let far = e.unary(Unary::Log, m);
    // Near 1: log1p(m² − 1)/2 with m² − 1 = (large − 1)(large + 1) + small².
    let (half, one, two) = (e.constant_reg(0.5), e.constant_reg(1.0), e.constant_reg(2.0));
    let (below, above) = (e.binary(Binary::Sub, large, one), e.binary(Binary::Add, large, one));
    let (product, square) = (e.binary(Binary::Mul, below, above), e.binary(Binary::Mul, small, small));
    let excess = e.binary(Binary::Add, product, square);
    let near = e.unary(Unary::Log1p, excess);
    let near = e.binary(Binary::Mul, near, half);
    let (lo, hi) = (e.binary(Binary::Lt, half, m), e.binary(Binary::Lt, m, two));
    let is_near = e.binary(Binary::Mul, lo, hi);
    e.ternary(Ternary::Select, is_near, near, far)
}

/// Angle of `re + i im` in (−π, π], 0 at 0.
///
/// The arctangent is that of Moshier's Cephes (`atan.c`): a rational function on [0, 0.66] after one reduction
/// by π/4; about two roundings in double precision.
pub(crate) fn arg(e: &mut Expr, re: Reg, im: Reg) -> Reg {
    const P: [f64; 5] = [
        -8.750_608_600_031_904e-1,
        -1.615_753_718_733_365_1e1,
        -7.500_855_792_314_705e1,
        -1.228_866_684_490_136_1e2,
        -6.485_021_904_942_025e1,
    ];
    const Q: [f64; 6] = [
        1.0,
        2.485_846_490_142_306_2e1,
        1.650_270_098_316_988_5e2,
        4.328_810_604_912_903e2,
        4.853_903_996_359_137e2,
        1.945_506_571_482_614e2,
    ];
    /// What π/2 is more than its nearest double.
    const REST: f64 = 6.123_233_995_736_766e-17;
    use std::f64::consts::{FRAC_PI_2, FRAC_PI_4, PI};

    let (a, b) = (e.unary(Unary::Abs, re), e.unary(Unary::Abs, im));
    let (large, small) = (e.binary(Binary::Max, a, b), e.binary(Binary::Min, a, b));
    let (zero, one) = (e.constant_reg(0.0), e.constant_reg(1.0));

    // t = small/large, or where that is more than 0.66 (t − 1)/(t + 1) and π/4 besides.
    let limit = e.constant_reg(0.66);
    let limit = e.binary(Binary::Mul, limit, large);
    let steep = e.binary(Binary::Lt, limit, small);
    let (difference, sum) = (e.binary(Binary::Sub, small, large), e.binary(Binary::Add, small, large));
    let top = e.ternary(Ternary::Select, steep, difference, small);
    let bottom = e.ternary(Ternary::Select, steep, sum, large);
    let bottom = e.ternary(Ternary::Select, large, bottom, one);
    let t = e.binary(Binary::Div, top, bottom);

    let z = e.binary(Binary::Mul, t, t);
    let (p, q) = (polynomial(e, z, &P), polynomial(e, z, &Q));
    let r = e.binary(Binary::Div, p, q);
    let r = e.binary(Binary::Mul, r, z);
    let r = e.ternary(Ternary::MulAdd, r, t, t);
    let shifted = sum_with(e, r, FRAC_PI_4, 0.5 * REST);
    let r = e.ternary(Ternary::Select, steep, shifted, r);

    let minus = e.unary(Unary::Neg, r);
    let over = sum_with(e, minus, FRAC_PI_2, REST);
    let swapped = e.binary(Binary::Lt, a, b);
    let r = e.ternary(Ternary::Select, swapped, over, r);

    let minus = e.unary(Unary::Neg, r);
    let over = sum_with(e, minus, PI, 2.0 * REST);
    let left = e.binary(Binary::Lt, re, zero);
    let r = e.ternary(Ternary::Select, left, over, r);

    let minus = e.unary(Unary::Neg, r);
    let below = e.binary(Binary::Lt, im, zero);
    e.ternary(Ternary::Select, below, minus, r)
}

/// `x + (rest + constant)`, the small part first.
fn sum_with(e: &mut Expr, x: Reg, constant: f64, rest: f64) -> Reg {
    let (constant, rest) = (e.constant_reg(constant), e.constant_reg(rest));
    let x = e.binary(Binary::Add, x, rest);
    e.binary(Binary::Add, x, constant)
}

/// Horner's rule, the highest coefficient first.
fn polynomial(e: &mut Expr, x: Reg, coefficients: &[f64]) -> Reg {
    let mut sum = e.constant_reg(0.0);
    for &k in coefficients {
        let k = e.constant_reg(k);
        sum = e.ternary(Ternary::MulAdd, sum, x, k);
    }
    sum
}

impl Log {
    /// `v / x`.
    fn through(&self, tape: &mut Tape, v: Var, x: Var) -> Result<Var> {
        div(tape, v, x)
    }
}

impl Op for Log {
    pointwise_op!("log");
    rules_through!(input);
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "log",
    summary: "natural logarithm, principal value",
    cases: &[Case {
        label: "away from the cut",
        inputs: &[Arg::either("N C", Domain::Positive)],
        build: |tape, x| log(tape, x[0]),
    }],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{c, check_complex, check_real};

    #[test]
    fn values() -> Result<()> {
        check_real(
            log,
            &[(1.0, 0.0, 1.0), (2.0, 2.0f64.ln(), 0.5), (0.0, f64::NEG_INFINITY, f64::INFINITY)],
        )?;
        let quarter = std::f64::consts::FRAC_PI_2;
        check_complex(
            log,
            &[
                (c(1.0, 0.0), c(0.0, 0.0), c(1.0, 0.0)),
                (c(0.0, 2.0), c(2.0f64.ln(), quarter), c(0.0, 0.5)),
                (c(0.0, -2.0), c(2.0f64.ln(), -quarter), c(0.0, -0.5)),
                // On the cut: the value from above.
                (c(-1.0, 0.0), c(0.0, 2.0 * quarter), c(-1.0, 0.0)),
                // |z|² = 1 + 1e-16, where log(|z|) rounds to 0.
                (c(1.0, 1e-8), c(5e-17, 1e-8), c(1.0, 1e-8)),
            ],
        )
    }

    #[test]
    fn angles() -> Result<()> {
        let points: Vec<_> = (0..97)
            .map(|k| c((k as f64 * 0.37).sin() * (1.0 + k as f64), (k as f64 * 1.3).cos()))
            .map(|z| (z, z.ln(), 1.0 / z.conj()))
            .collect();
        check_complex(log, &points)
    }
}
