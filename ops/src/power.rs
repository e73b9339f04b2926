//! Powers.

use retrograd_engine::core_ops::{fill, select};
use retrograd_engine::expr::{Binary, Expr, Num};
use retrograd_engine::op::{Cotangents, Io, Pointwise};
use retrograd_engine::{Op, Result, Tape, Var};
use smallvec::smallvec;

use crate::rule::{pointwise_op, rules_through, sum_options};
use crate::spec::{Arg, Case, Domain, OpSpec};
use crate::square::{expr_square, square};
use crate::{exp, log, mul, recip, scale, shift, sqrt};

/// Power with a constant whole exponent, element by element: `y = xⁿ`, real or complex, by repeated squaring.
///
/// Shapes: `x [..] -> y [..]`.   Rule: `x_bar = n conj(xⁿ⁻¹) · y_bar`; keeps `x`.
/// Domain: all numbers, `x ≠ 0` for a negative exponent; `x⁰ = 1`. About `|n|` roundings.
/// Errors: none of its own.
pub fn powi(tape: &mut Tape, x: Var, n: i32) -> Result<Var> {
    match n {
        0 => {
            let ty = tape.ty(x)?.clone();
            fill(tape, ty, 1.0)
        }
        1 => Ok(x),
        2 => square(tape, x),
        -1 => recip(tape, x),
        _ => tape.push(Powi { n }, &[x]),
    }
}

/// Power with a constant real exponent, element by element: `y = xᵖ`; real `x`, or a whole exponent.
///
/// A whole exponent up to 64 is [`powi`], ½ is [`sqrt()`](crate::sqrt()).
///
/// Shapes: `x [..] -> y [..]`.   Rule: `x_bar = p xᵖ⁻¹ · y_bar`; keeps `x`.
/// Domain: `x ≥ 0` (NaN below), `x > 0` for a negative exponent; at 0 the derivative is infinite for `p < 1`.
/// Errors: complex `x` with an exponent that is not whole ([`pow`] takes it).
pub fn powf(tape: &mut Tape, x: Var, p: f64) -> Result<Var> {
    if p == p.trunc() && p.abs() <= 64.0 {
        powi(tape, x, p as i32)
    } else if p == 0.5 {
        sqrt(tape, x)
    } else {
        tape.push(Powf { p }, &[x])
    }
}

/// Power, element by element: `y = xᵖ`. Real numbers by the conventions of IEEE 754; with a complex one among
/// them `exp(p log x)`, the principal value.
///
/// Shapes: `x [..]`, `p [..] -> y`, broadcasting.   Rule: `x_bar = p xᵖ⁻¹ · y_bar`, 0 where `p = 0`;
/// `p_bar = y log(x) · y_bar`, 0 where `x = 0`; keeps `x`, `p` and `y`.
/// Domain: real `x > 0`, or `x = 0` and `p ≥ 0`; below 0 the cotangent of `p` is NaN. Complex `x ≠ 0`.
/// Errors: sizes that do not broadcast, single with double precision.
pub fn pow(tape: &mut Tape, x: Var, p: Var) -> Result<Var> {
    if tape.dtype(x)?.is_complex() || tape.dtype(p)?.is_complex() {
        let z = retrograd_engine::core_ops::to_complex(tape, x)?;
        let z = log(tape, z)?;
        let z = mul(tape, p, z)?;
        return exp(tape, z);
    }
    tape.push(Pow, &[x, p])
}

#[derive(Clone, Copy, Debug)]
struct Powi {
    n: i32,
}

impl Pointwise for Powi {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        let mut n = self.n.unsigned_abs();
        let mut base = x[0];
        let mut y = None;
        while n > 0 {
            if n & 1 == 1 {
                y = Some(match y {
                    Some(y) => e.mul(y, base),
                    None => base,
                });
            }
            n >>= 1;
            if n > 0 {
                base = expr_square(e, base);
            }
        }
        let one = e.constant(1.0);
        let y = y.unwrap_or(one);
        if self.n < 0 { e.div(one, y) } else { y }
    }
}

impl Powi {
    /// `v · n xⁿ⁻¹`.
    fn through(&self, tape: &mut Tape, v: Var, x: Var) -> Result<Var> {
        let d = match self.n.checked_sub(1) {
            Some(less) => powi(tape, x, less)?,
            // n = −2³¹: the least exponent has no next one.
            None => {
                let (y, inverse) = (powi(tape, x, self.n)?, recip(tape, x)?);
                mul(tape, y, inverse)?
            }
        };
        let d = scale(tape, d, f64::from(self.n))?;
        mul(tape, v, d)
    }
}

impl Op for Powi {
    pointwise_op!("powi");
    rules_through!(input);
}

#[derive(Clone, Copy, Debug)]
struct Powf {
    p: f64,
}

impl Pointwise for Powf {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        let p = e.constant(self.p);
        e.zip(Binary::Pow, x[0], p)
    }
}

impl Powf {
    /// `v · p xᵖ⁻¹`.
    fn through(&self, tape: &mut Tape, v: Var, x: Var) -> Result<Var> {
        let d = powf(tape, x, self.p - 1.0)?;
        let d = scale(tape, d, self.p)?;
        mul(tape, v, d)
    }
}

impl Op for Powf {
    pointwise_op!("powf", real);
    rules_through!(input);
}

#[derive(Clone, Copy, Debug)]
struct Pow;

impl Pointwise for Pow {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        e.zip(Binary::Pow, x[0], x[1])
    }
}

impl Pow {
    /// `v · p xᵖ⁻¹`, 0 where `p` is 0.
    fn through_base(tape: &mut Tape, v: Var, x: Var, p: Var) -> Result<Var> {
        let less = shift(tape, p, -1.0)?;
        let d = tape.push(Pow, &[x, less])?;
        let d = mul(tape, p, d)?;
        let zero = tape.scalar(d, 0.0)?;
        let d = select(tape, p, d, zero)?;
        mul(tape, v, d)
    }

    /// `v · y log x`, 0 where `x` is 0.
    fn through_exponent(tape: &mut Tape, v: Var, x: Var, y: Var) -> Result<Var> {
        let d = log(tape, x)?;
        let d = mul(tape, y, d)?;
        let zero = tape.scalar(d, 0.0)?;
        let d = select(tape, x, d, zero)?;
        mul(tape, v, d)
    }
}

impl Op for Pow {
    pointwise_op!("pow", real);

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        let (x, p) = (io.inputs[0], io.inputs[1]);
        let x_bar = if io.needs[0] { Some(Pow::through_base(tape, y_bar, x, p)?) } else { None };
        let p_bar = if io.needs[1] { Some(Pow::through_exponent(tape, y_bar, x, io.output)?) } else { None };
        Ok(smallvec![x_bar, p_bar])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        let (x, p) = (io.inputs[0], io.inputs[1]);
        let from_x = x_dots[0].map(|d| Pow::through_base(tape, d, x, p)).transpose()?;
        let from_p = x_dots[1].map(|d| Pow::through_exponent(tape, d, x, io.output)).transpose()?;
        sum_options(tape, from_x, from_p)
    }
}

pub(crate) static POWI: OpSpec = OpSpec {
    name: "powi",
    summary: "power with a constant whole exponent",
    cases: &[
        Case {
            label: "fifth power",
            inputs: &[Arg::either("N C", Domain::AwayFromZero)],
            build: |tape, x| powi(tape, x[0], 5),
        },
        Case {
            label: "power -3",
            inputs: &[Arg::either("N C", Domain::Positive)],
            build: |tape, x| powi(tape, x[0], -3),
        },
    ],
};

pub(crate) static POWF: OpSpec = OpSpec {
    name: "powf",
    summary: "power with a constant real exponent",
    cases: &[Case {
        label: "power 2.5",
        inputs: &[Arg::real("N C", Domain::Positive)],
        build: |tape, x| powf(tape, x[0], 2.5),
    }],
};

pub(crate) static POW: OpSpec = OpSpec {
    name: "pow",
    summary: "power, principal value",
    cases: &[Case {
        label: "positive base, broadcast",
        inputs: &[Arg::either("N C", Domain::Positive), Arg::either("C", Domain::Any)],
        build: |tape, x| pow(tape, x[0], x[1]),
    }],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{c, check, check_complex, check_real, r, refuses_complex};

    #[test]
    fn whole_exponents() -> Result<()> {
        check_real(|tape, x| powi(tape, x, 3), &[(-2.0, -8.0, 12.0), (0.0, 0.0, 0.0)])?;
        check_real(|tape, x| powi(tape, x, 0), &[(0.0, 1.0, 0.0), (5.0, 1.0, 0.0)])?;
        check_real(|tape, x| powi(tape, x, 1), &[(3.0, 3.0, 1.0)])?;
        check_real(|tape, x| powi(tape, x, -2), &[(2.0, 0.25, -0.25)])?;
        check_real(|tape, x| powi(tape, x, i32::MIN), &[(1.0, 1.0, f64::from(i32::MIN))])?;
        check_complex(|tape, x| powi(tape, x, 4), &[(c(0.0, 2.0), c(16.0, 0.0), c(0.0, 32.0))])
    }

    #[test]
    fn real_exponents() -> Result<()> {
        check_real(|tape, x| powf(tape, x, 1.5), &[(4.0, 8.0, 3.0), (0.0, 0.0, 0.0)])?;
        check_real(|tape, x| powf(tape, x, 0.25), &[(16.0, 2.0, 0.03125), (0.0, 0.0, f64::INFINITY)])?;
        check_real(|tape, x| powf(tape, x, 3.0), &[(-2.0, -8.0, 12.0)])?;
        assert!(refuses_complex(|tape, x| powf(tape, x, 1.5))?);
        Ok(())
    }

    #[test]
    fn exponents_that_are_values() -> Result<()> {
        let op = |tape: &mut Tape, x: &[Var]| pow(tape, x[0], x[1]);
        let log2 = 2.0f64.ln();
        check(
            op,
            &[false, false],
            &[
                (&[r(2.0), r(3.0)], r(8.0), &[r(12.0), r(8.0 * log2)]),
                (&[r(0.0), r(0.0)], r(1.0), &[r(0.0), r(0.0)]),
                (&[r(0.0), r(2.0)], r(0.0), &[r(0.0), r(0.0)]),
                (&[r(-2.0), r(0.0)], r(1.0), &[r(0.0), r(f64::NAN)]),
            ],
        )?;
        // The principal value: i^i = exp(−π/2).
        let y = (-std::f64::consts::FRAC_PI_2).exp();
        check(
            op,
            &[true, true],
            &[(&[c(0.0, 1.0), c(0.0, 1.0)], r(y), &[r(y), c(0.0, -y * std::f64::consts::FRAC_PI_2)])],
        )
    }
}
