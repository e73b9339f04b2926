//! Pointwise operations of the engine itself.

use smallvec::smallvec;

use crate::error::{Error, Result};
use crate::expr::{Expr, Num, Unary};
use crate::op::{Class, Cotangents, Io, Op, Pointwise, Ty, infer_pointwise};
use crate::tape::{Tape, Var};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Core {
    Add,
    Neg,
    Real,
    Imag,
    Conj,
    ToComplex,
    TimesI,
    Select,
    StopGradient,
}

/// Sum, element by element: `y = a + b`. Broadcasts; real and complex mix. Rule: `a_bar = b_bar = y_bar`.
pub fn add(tape: &mut Tape, a: Var, b: Var) -> Result<Var> {
    tape.push(Core::Add, &[a, b])
}

/// `y = −x`. Rule: `x_bar = −y_bar`.
pub fn neg(tape: &mut Tape, x: Var) -> Result<Var> {
    tape.push(Core::Neg, &[x])
}

/// Real part; a real number itself. Rule: `x_bar = y_bar + 0i`.
pub fn real(tape: &mut Tape, x: Var) -> Result<Var> {
    if !tape.dtype(x)?.is_complex() {
        return Ok(x);
    }
    tape.push(Core::Real, &[x])
}

/// Imaginary part of a complex number (0 of a real one). Rule: `x_bar = i · y_bar`.
pub fn imag(tape: &mut Tape, x: Var) -> Result<Var> {
    tape.push(Core::Imag, &[x])
}

/// Complex conjugate; a real number itself. Rule: `x_bar = conj(y_bar)`.
pub fn conj(tape: &mut Tape, x: Var) -> Result<Var> {
    if !tape.dtype(x)?.is_complex() {
        return Ok(x);
    }
    tape.push(Core::Conj, &[x])
}

/// The complex number with this real part; a complex number itself. Rule: `x_bar = Re y_bar`.
pub fn to_complex(tape: &mut Tape, x: Var) -> Result<Var> {
    if tape.dtype(x)?.is_complex() {
        return Ok(x);
    }
    tape.push(Core::ToComplex, &[x])
}

/// `y = i · x`, complex. Rule: `x_bar = −i · y_bar`.
pub fn times_i(tape: &mut Tape, x: Var) -> Result<Var> {
    tape.push(Core::TimesI, &[x])
}

/// `a` where the real `condition` is not zero, else `b`, element by element, broadcasting. A NaN in the branch
/// not chosen is seen neither forward nor backward. Rule: the cotangent goes to the branch chosen.
pub fn select(tape: &mut Tape, condition: Var, a: Var, b: Var) -> Result<Var> {
    tape.push(Core::Select, &[condition, a, b])
}

/// The value itself, with derivative zero.
pub fn stop_gradient(tape: &mut Tape, x: Var) -> Result<Var> {
    tape.push(Core::StopGradient, &[x])
}

impl Pointwise for Core {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        match self {
            Core::Add => e.add(x[0], x[1]),
            Core::Neg => e.neg(x[0]),
            Core::Real => Num::Real(x[0].re()),
            Core::Imag => Num::Real(e.parts(x[0]).1),
            Core::Conj => e.conj(x[0]),
            Core::ToComplex => {
                let (re, im) = e.parts(x[0]);
                Num::Complex(re, im)
            }
            Core::TimesI => {
                let (re, im) = e.parts(x[0]);
                Num::Complex(e.unary(Unary::Neg, im), re)
            }
            Core::Select => e.select(x[0], x[1], x[2]),
            Core::StopGradient => x[0],
        }
    }
}

impl Op for Core {
    fn name(&self) -> &'static str {
        match self {
            Core::Add => "add",
            Core::Neg => "neg",
            Core::Real => "real",
            Core::Imag => "imag",
            Core::Conj => "conj",
            Core::ToComplex => "to_complex",
            Core::TimesI => "times_i",
            Core::Select => "select",
            Core::StopGradient => "stop_gradient",
        }
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        if *self == Core::Select && inputs[0].dtype.is_complex() {
            return Err(Error::dtype("select", "condition", "f32 or f64", inputs[0].dtype));
        }
        infer_pointwise(self.name(), self, inputs)
    }

    fn class(&self) -> Class<'_> {
        Class::Pointwise(self)
    }

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        Ok(match self {
            Core::Add => smallvec![Some(y_bar), Some(y_bar)],
            Core::Neg => smallvec![Some(neg(tape, y_bar)?)],
            Core::Real => smallvec![Some(y_bar)],
            Core::Imag => smallvec![Some(times_i(tape, y_bar)?)],
            Core::Conj => smallvec![Some(conj(tape, y_bar)?)],
            Core::ToComplex => smallvec![Some(y_bar)],
            Core::TimesI => {
                let y = times_i(tape, y_bar)?;
                smallvec![Some(neg(tape, y)?)]
            }
            Core::Select => {
                let zero = tape.scalar(y_bar, 0.0)?;
                let c = io.inputs[0];
                smallvec![None, Some(select(tape, c, y_bar, zero)?), Some(select(tape, c, zero, y_bar)?)]
            }
            Core::StopGradient => smallvec![None],
        })
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        Ok(match self {
            Core::Add => match (x_dots[0], x_dots[1]) {
                (Some(a), Some(b)) => Some(add(tape, a, b)?),
                (a, b) => a.or(b),
            },
            Core::Select => {
                if x_dots[1].is_none() && x_dots[2].is_none() {
                    return Ok(None);
                }
                let zero = tape.scalar(io.output, 0.0)?;
                let (a, b) = (x_dots[1].unwrap_or(zero), x_dots[2].unwrap_or(zero));
                Some(select(tape, io.inputs[0], a, b)?)
            }
            Core::StopGradient => None,
            _ => x_dots[0].map(|d| tape.push(*self, &[d])).transpose()?,
        })
    }

    fn is_linear(&self) -> bool {
        !matches!(self, Core::Select | Core::StopGradient)
    }
}
