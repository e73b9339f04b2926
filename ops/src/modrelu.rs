//! modReLU: a rectifier of the modulus that keeps the phase.

use retrograd_engine::core_ops::{add, conj, imag, real, times_i};
use retrograd_engine::expr::{Binary, Expr, Num, Unary};
use retrograd_engine::op::{Cotangents, Io, Pointwise};
use retrograd_engine::{Error, Op, Result, Tape, Var};
use smallvec::smallvec;

use crate::rule::{pointwise_op, sum_options};
use crate::spec::{Arg, Case, Domain, OpSpec};
use crate::{abs, abs2, div, div_or_zero, mul, phase, relu, shift, sqrt, sub};

/// Which modReLU: the published programs differ in where they add a small number, and so do their results.
///
/// Below `m = |z|` and `b` is the bias.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ModReluForm {
    /// `z/m · max(m + b, 0)`, 0 at `z = 0`: the formula of the paper, nothing added.
    #[default]
    Exact,
    /// `z · max(m + b, 0) / (m + 1e-5)`: the program of the restricted-capacity uRNN (Arjovsky, Shah, Bengio 2016).
    RcUrnn,
    /// The same with `m = √(|z|² + 1e-5)`, in both places: the program of the full-capacity uRNN (Wisdom et al.
    /// 2016).
    FcUrnn,
    /// `z · max(m + b, 0) / (m + 1e-7)`: a variant in the program of low-rank plus diagonal passthrough networks
    /// (Miceli Barone 2018).
    Lrd,
    /// `z/n · max(n + b, 0)` with `n = m + 0.01`; of a real number `sign(z) · max(n + b, 0)`: the program of the
    /// EURNN (Jing et al. 2017).
    Eurnn,
    /// `sign(z) · max(|z| + 0.001 + b, 0)`, real only: the program of the GORU (Jing et al. 2019).
    Goru,
}

impl ModReluForm {
    /// Every form, in the order of declaration.
    pub const ALL: [ModReluForm; 6] = [
        ModReluForm::Exact,
        ModReluForm::RcUrnn,
        ModReluForm::FcUrnn,
        ModReluForm::Lrd,
        ModReluForm::Eurnn,
        ModReluForm::Goru,
    ];

    /// The small number.
    pub const fn epsilon(self) -> f64 {
        match self {
            ModReluForm::Exact => 0.0,
            ModReluForm::RcUrnn | ModReluForm::FcUrnn => 1e-5,
            ModReluForm::Lrd => 1e-7,
            ModReluForm::Eurnn => 0.01,
            ModReluForm::Goru => 0.001,
        }
    }

    /// Lower-case name, as written in configuration.
    pub const fn name(self) -> &'static str {
        match self {
            ModReluForm::Exact => "exact",
            ModReluForm::RcUrnn => "rc-urnn",
            ModReluForm::FcUrnn => "fc-urnn",
            ModReluForm::Lrd => "lrd",
            ModReluForm::Eurnn => "eurnn",
            ModReluForm::Goru => "goru",
        }
    }
}

/// Rectifier of the modulus: `y = z · max(|z| + b, 0) / |z|`, with the small number of `form`; the phase is never
/// changed. `b` is real; `z` complex or real.
///
/// Shapes: `z [..]`, `b [..] -> y`, broadcasting (usually `z [N,H]`, `b [H]`).
/// Rule: of the exact form from `y` and `b` alone, with `p = y/|y|` and `|z| = |y| − b`, so that a recurrence keeps its
/// states and nothing else; `|z|` is had back with a rounding error of the size of `b`'s. The others are recorded from
/// their parts. Either can be differentiated again. With `m = |z|`, `s = max(m + b, 0)/(m + ε)`,
/// `on = 1` where `m + b > 0` and `r = Re(conj(y_bar) z)` it comes to
/// `z_bar = s y_bar + (on/(m + ε) − max(m + b, 0)/(m + ε)²) · r · z/m` and `b_bar = on · r/(m + ε)`.
/// Domain: all numbers. At `z = 0` the value is 0 and `z/m` counts as 0, so `z_bar = s y_bar`; the exact form, which
/// jumps there if `b > 0`, has cotangents 0. At `m + b = 0` the derivative of the maximum counts as 0.
/// Errors: complex `b`; complex `z` for the real GORU; sizes that do not broadcast.
/// Source: Arjovsky, Shah, Bengio (2016), Unitary Evolution Recurrent Neural Networks, ICML, eq. (8).
pub fn modrelu(tape: &mut Tape, z: Var, b: Var, form: ModReluForm) -> Result<Var> {
    let (z_type, b_type) = (tape.dtype(z)?, tape.dtype(b)?);
    if b_type.is_complex() {
        return Err(Error::dtype("modrelu", "b", b_type.real(), b_type));
    }
    if z_type.is_complex() && form == ModReluForm::Goru {
        return Err(Error::dtype("modrelu", "z of the real form `goru`", z_type.real(), z_type));
    }
    if form == ModReluForm::Exact {
        let y = tape.push(ModRelu, &[z, b])?;
        tape.label(y, "modrelu");
        return Ok(y);
    }
    let eps = form.epsilon();
    let (size, by_phase) = match form {
        ModReluForm::Exact | ModReluForm::RcUrnn | ModReluForm::Lrd => (abs(tape, z)?, false),
        ModReluForm::FcUrnn => {
            let m2 = abs2(tape, z)?;
            let m2 = shift(tape, m2, eps)?;
            (sqrt(tape, m2)?, false)
        }
        ModReluForm::Eurnn | ModReluForm::Goru => {
            let m = abs(tape, z)?;
            (shift(tape, m, eps)?, !z_type.is_complex())
        }
    };
    let top = add(tape, size, b)?;
    let top = relu(tape, top)?;
    let y = if by_phase {
        let p = phase(tape, z)?;
        mul(tape, p, top)?
    } else {
        let bottom = if form == ModReluForm::Eurnn { size } else { shift(tape, size, eps)? };
        let s = div(tape, top, bottom)?;
        mul(tape, z, s)?
    };
    tape.label(y, "modrelu");
    Ok(y)
}

/// The exact form, whose derivatives need the result alone.
#[derive(Clone, Copy, Debug)]
struct ModRelu;

impl Pointwise for ModRelu {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        let size = e.abs(x[0]);
        let sum = e.add(size, x[1]);
        let zero = e.constant_reg(0.0);
        let top = Num::Real(e.binary(Binary::Max, sum.re(), zero));
        match x[0] {
            Num::Real(z) => {
                let sign = Num::Real(e.unary(Unary::Sign, z));
                e.mul(sign, top)
            }
            Num::Complex(re, im) => {
                let r = Num::Real(e.binary(Binary::RecipHypot, re, im));
                let phase = e.mul(x[0], r);
                e.mul(phase, top)
            }
        }
    }
}

impl ModRelu {
    /// `|y|/|z|`, which is `|y|/(|y| − b)` where the rectifier is on; 0 where it is off.
    fn shrinking(tape: &mut Tape, io: &Io<'_>) -> Result<Var> {
        let size = abs(tape, io.output)?;
        let m = sub(tape, size, io.inputs[1])?;
        let m = abs(tape, m)?;
        div_or_zero(tape, size, m)
    }

    /// `i p · Im(conj(p) v) · |y|/|z|`: what of `v` turns `z`. The map is its own adjoint.
    fn across(tape: &mut Tape, io: &Io<'_>, p: Var, conj_p_v: Var) -> Result<Var> {
        let across = imag(tape, conj_p_v)?;
        let shrinking = ModRelu::shrinking(tape, io)?;
        let across = mul(tape, across, shrinking)?;
        let turned = times_i(tape, p)?;
        mul(tape, across, turned)
    }
}

impl Op for ModRelu {
    pointwise_op!("modrelu");

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        // 0 where the rectifier is off.
        let p = phase(tape, io.output)?;
        let complex = tape.dtype(io.output)?.is_complex();
        let conj_p = conj(tape, p)?;
        let product = mul(tape, conj_p, y_bar)?;
        let along = if complex { real(tape, product)? } else { product };
        let mut z_bar = mul(tape, along, p)?;
        if complex {
            let across = ModRelu::across(tape, &io, p, product)?;
            z_bar = add(tape, z_bar, across)?;
        }
        Ok(smallvec![Some(z_bar), Some(along)])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        let p = phase(tape, io.output)?;
        let complex = tape.dtype(io.output)?.is_complex();
        let from_z = match x_dots[0] {
            Some(z_dot) => {
                let conj_p = conj(tape, p)?;
                let product = mul(tape, conj_p, z_dot)?;
                let along = if complex { real(tape, product)? } else { product };
                let along = mul(tape, along, p)?;
                Some(if complex {
                    let across = ModRelu::across(tape, &io, p, product)?;
                    add(tape, along, across)?
                } else {
                    along
                })
            }
            None => None,
        };
        let from_b = x_dots[1].map(|b_dot| mul(tape, p, b_dot)).transpose()?;
        sum_options(tape, from_z, from_b)
    }
}

const fn case(
    label: &'static str,
    inputs: &'static [Arg],
    build: fn(&mut Tape, &[Var]) -> Result<Var>,
) -> Case {
    Case { label, inputs, build }
}

/// `|z| + b > 0` throughout.
const ON: &[Arg] = &[Arg::either("N C", Domain::AwayFromZero), Arg::real("C", Domain::Between(-0.2, 0.2))];
/// `|z| + b < 0` throughout.
const OFF: &[Arg] = &[Arg::either("N C", Domain::AwayFromZero), Arg::real("C", Domain::Between(-3.0, -2.5))];
/// Of a real number these forms are nearly linear, so that their second derivative is rounding.
const COMPLEX: &[Arg] =
    &[Arg::complex("N C", Domain::AwayFromZero), Arg::real("C", Domain::Between(-0.2, 0.2))];
const REAL: &[Arg] = &[Arg::real("N C", Domain::AwayFromZero), Arg::real("C", Domain::Between(-0.2, 0.2))];

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "modrelu",
    summary: "rectifier of the modulus that keeps the phase",
    cases: &[
        case("exact", ON, |tape, x| modrelu(tape, x[0], x[1], ModReluForm::Exact)),
        case("off", OFF, |tape, x| modrelu(tape, x[0], x[1], ModReluForm::Exact)),
        case("rc-urnn", COMPLEX, |tape, x| modrelu(tape, x[0], x[1], ModReluForm::RcUrnn)),
        case("rc-urnn, off", OFF, |tape, x| modrelu(tape, x[0], x[1], ModReluForm::RcUrnn)),
        case("fc-urnn", COMPLEX, |tape, x| modrelu(tape, x[0], x[1], ModReluForm::FcUrnn)),
        case("lrd", COMPLEX, |tape, x| modrelu(tape, x[0], x[1], ModReluForm::Lrd)),
        case("eurnn", ON, |tape, x| modrelu(tape, x[0], x[1], ModReluForm::Eurnn)),
        case("goru", REAL, |tape, x| modrelu(tape, x[0], x[1], ModReluForm::Goru)),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Row, c, check, r};
    use num_complex::Complex64;

    /// Value and cotangents (of `y_bar = 1`) as the closed form of the doc has them.
    fn closed_form(z: Complex64, b: f64, form: ModReluForm) -> (Complex64, [Complex64; 2]) {
        let eps = form.epsilon();
        let unit = if z == r(0.0) { r(0.0) } else { z / z.norm() };
        // Modulus inside the maximum, its derivative by |z|, and the denominator.
        let (m, m_dot, bottom) = match form {
            ModReluForm::FcUrnn => {
                let m = (eps + z.norm_sqr()).sqrt();
                (m, z.norm() / m, m + eps)
            }
            ModReluForm::Eurnn => (z.norm() + eps, 1.0, z.norm() + eps),
            _ => (z.norm(), 1.0, z.norm() + eps),
        };
        let (top, on) = ((m + b).max(0.0), if m + b > 0.0 { 1.0 } else { 0.0 });
        let r_ = z.re; // Re(conj(y_bar) z) for y_bar = 1
        if form == ModReluForm::Exact && z == r(0.0) {
            return (r(0.0), [r(0.0), r(0.0)]);
        }
        let s = top / bottom;
        let z_bar = s + (on / bottom - top / (bottom * bottom)) * m_dot * r_ * unit;
        (z * s, [z_bar, r(on * r_ / bottom)])
    }

    #[test]
    fn the_recorded_rule_is_the_closed_form() -> Result<()> {
        for form in ModReluForm::ALL.into_iter().filter(|&f| f != ModReluForm::Goru) {
            let mut rows = Vec::new();
            for b in [-0.7, -0.01, 0.0, 0.01, 0.5] {
                for (re, im) in
                    [(0.0, 0.0), (0.3, -0.4), (-1.5, 0.2), (0.0, 2.0), (1e-3, 1e-3), (0.4, 0.0), (-1.3, 0.0)]
                {
                    // |z| + b = 0 to the last bit is a row of its own below. The exact form has |z| back from y
                    // with the rounding error of b, for which this check is too sharp.
                    if form == ModReluForm::Exact && b > 10.0 * f64::hypot(re, im) && re != 0.0 {
                        continue;
                    }
                    let (y, bars) = closed_form(c(re, im), b, form);
                    rows.push(([c(re, im), r(b)], y, bars));
                }
            }
            let rows: Vec<Row<'_>> = rows.iter().map(|(x, y, d)| (&x[..], *y, &d[..])).collect();
            check(|tape, x| modrelu(tape, x[0], x[1], form), &[true, false], &rows)?;
            // Of real numbers the same, but for the EURNN's own real form.
            if form != ModReluForm::Eurnn {
                let rows: Vec<Row<'_>> = rows.into_iter().filter(|(x, ..)| x[0].im == 0.0).collect();
                check(|tape, x| modrelu(tape, x[0], x[1], form), &[false, false], &rows)?;
            }
        }
        Ok(())
    }

    #[test]
    fn at_the_kink_and_at_zero() -> Result<()> {
        let op = |form| move |tape: &mut Tape, x: &[Var]| modrelu(tape, x[0], x[1], form);
        let zero = &[r(0.0), r(0.0)];
        // |z| + b = 0 exactly.
        for form in [ModReluForm::Exact, ModReluForm::RcUrnn, ModReluForm::Lrd] {
            check(op(form), &[true, false], &[(&[c(3.0, 4.0), r(-5.0)], r(0.0), zero)])?;
        }
        // z = 0: the exact form has no derivative there, the others s = max(b, 0)/ε.
        check(op(ModReluForm::Exact), &[true, false], &[(&[r(0.0), r(0.5)], r(0.0), zero)])?;
        let s = 0.5 / 1e-5;
        check(op(ModReluForm::RcUrnn), &[true, false], &[(&[r(0.0), r(0.5)], r(0.0), &[r(s), r(0.0)])])
    }

    #[test]
    fn real_forms() -> Result<()> {
        for (form, eps) in [(ModReluForm::Eurnn, 0.01), (ModReluForm::Goru, 0.001), (ModReluForm::Exact, 0.0)]
        {
            check(
                |tape, x| modrelu(tape, x[0], x[1], form),
                &[false, false],
                &[
                    (&[r(-2.0), r(0.5)], r(-(2.0 + eps + 0.5)), &[r(1.0), r(-1.0)]),
                    (&[r(2.0), r(-1.0)], r(2.0 + eps - 1.0), &[r(1.0), r(1.0)]),
                    (&[r(2.0), r(-3.0)], r(0.0), &[r(0.0), r(0.0)]),
                    (&[r(0.0), r(0.5)], r(0.0), &[r(0.0), r(0.0)]),
                ],
            )?;
        }
        Ok(())
    }

    #[test]
    fn errors() -> Result<()> {
        let mut tape = Tape::new();
        let z = tape.param("z", retrograd_engine::DType::C32, [2])?;
        let b = tape.param("b", retrograd_engine::DType::F32, [2])?;
        assert!(matches!(modrelu(&mut tape, z, z, ModReluForm::Exact), Err(Error::DType { .. })));
        assert!(matches!(modrelu(&mut tape, z, b, ModReluForm::Goru), Err(Error::DType { .. })));
        let wide = tape.param("wide", retrograd_engine::DType::F32, [3])?;
        assert!(matches!(modrelu(&mut tape, z, wide, ModReluForm::Exact), Err(Error::Shape { .. })));
        Ok(())
    }
}
