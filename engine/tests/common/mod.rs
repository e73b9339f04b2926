//! What the engine's tests share: two nonlinear operations (the engine's own are linear but for products with
//! shared matrices), random tensors, comparisons.
#![allow(dead_code)]

use num_complex::Complex64;
use retrograd_engine::core_ops::{add, conj, neg};
use retrograd_engine::expr::{Expr, Num, Unary};
use retrograd_engine::op::{Class, Cotangents, Io, Op, Pointwise, Ty, infer_pointwise};
use retrograd_engine::{DType, Params, Result, Tape, Tensor, Var};
use smallvec::smallvec;

/// A deliberate mistake in a rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mistake {
    None,
    /// `vjp` off by this factor.
    Factor(f64),
    /// `vjp` without the conjugate.
    NoConj,
    /// `vjp` and `jvp` off by this factor, so that they agree.
    Both(f64),
}

/// `a · b`, element by element.
#[derive(Clone, Copy, Debug)]
struct Mul(Mistake);

pub(crate) fn mul(tape: &mut Tape, a: Var, b: Var) -> Result<Var> {
    wrong_mul(tape, a, b, Mistake::None)
}

pub(crate) fn wrong_mul(tape: &mut Tape, a: Var, b: Var, mistake: Mistake) -> Result<Var> {
    tape.push(Mul(mistake), &[a, b])
}

pub(crate) fn scale(tape: &mut Tape, x: Var, by: f64) -> Result<Var> {
    let by = tape.scalar(x, by)?;
    mul(tape, x, by)
}

impl Pointwise for Mul {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        e.mul(x[0], x[1])
    }
}

impl Op for Mul {
    fn name(&self) -> &'static str {
        "test_mul"
    }
    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        infer_pointwise("test_mul", self, inputs)
    }
    fn class(&self) -> Class<'_> {
        Class::Pointwise(self)
    }
    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        let y_bar = match self.0 {
            Mistake::Factor(f) | Mistake::Both(f) => scale(tape, y_bar, f)?,
            _ => y_bar,
        };
        let factor = |tape: &mut Tape, x: Var| if self.0 == Mistake::NoConj { Ok(x) } else { conj(tape, x) };
        let (a, b) = (factor(tape, io.inputs[0])?, factor(tape, io.inputs[1])?);
        Ok(smallvec![Some(mul(tape, y_bar, b)?), Some(mul(tape, y_bar, a)?)])
    }
    fn jvp(&self, tape: &mut Tape, io: Io<'_>, dots: &[Option<Var>]) -> Result<Option<Var>> {
        let a = dots[0].map(|d| mul(tape, d, io.inputs[1])).transpose()?;
        let b = dots[1].map(|d| mul(tape, io.inputs[0], d)).transpose()?;
        let sum = match (a, b) {
            (Some(a), Some(b)) => Some(add(tape, a, b)?),
            (a, b) => a.or(b),
        };
        match (self.0, sum) {
            (Mistake::Both(f), Some(sum)) => scale(tape, sum, f).map(Some),
            _ => Ok(sum),
        }
    }
}

/// Real hyperbolic tangent; of both parts of a complex number.
#[derive(Clone, Copy, Debug)]
struct Tanh;

pub(crate) fn tanh(tape: &mut Tape, x: Var) -> Result<Var> {
    assert!(!tape.dtype(x)?.is_complex());
    tape.push(Tanh, &[x])
}

impl Pointwise for Tanh {
    fn expr(&self, e: &mut Expr, x: &[Num]) -> Num {
        e.map(Unary::Tanh, x[0])
    }
}

fn tanh_rule(tape: &mut Tape, y: Var, bar: Var) -> Result<Var> {
    let square = mul(tape, y, y)?;
    let minus = neg(tape, square)?;
    let one = tape.scalar(y, 1.0)?;
    let slope = add(tape, one, minus)?;
    mul(tape, slope, bar)
}

impl Op for Tanh {
    fn name(&self) -> &'static str {
        "test_tanh"
    }
    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        infer_pointwise("test_tanh", self, inputs)
    }
    fn class(&self) -> Class<'_> {
        Class::Pointwise(self)
    }
    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        Ok(smallvec![Some(tanh_rule(tape, io.output, y_bar)?)])
    }
    fn jvp(&self, tape: &mut Tape, io: Io<'_>, dots: &[Option<Var>]) -> Result<Option<Var>> {
        dots[0].map(|d| tanh_rule(tape, io.output, d)).transpose()
    }
}

/// Reproducible numbers in (−1, 1), away from 0 by 0.05.
pub(crate) fn random(dtype: DType, dims: &[usize], seed: u64) -> Result<Tensor> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let x = (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0;
        x.signum() * (0.05 + 0.95 * x.abs())
    };
    for _ in 0..8 {
        next();
    }
    let mut tensor = Tensor::zeros(dtype, dims)?;
    tensor.fill_with(|_| Complex64::new(next(), next()));
    Ok(tensor)
}

pub(crate) fn params<'a>(list: impl IntoIterator<Item = (&'a str, Tensor)>) -> Params {
    list.into_iter().map(|(name, t)| (name.to_string(), t)).collect()
}

/// Largest difference of elements, relative to the largest element (at least 1).
pub(crate) fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!((a.dtype(), a.dims()), (b.dtype(), b.dims()));
    let size = (0..a.len()).map(|i| a.get(i).norm()).fold(1.0, f64::max);
    (0..a.len()).map(|i| (a.get(i) - b.get(i)).norm()).fold(0.0, f64::max) / size
}

/// Asserts that two lists of tensors agree to rounding.
pub(crate) fn assert_close(what: &str, a: &[Tensor], b: &[Tensor]) {
    assert_eq!(a.len(), b.len(), "{what}");
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        let d = distance(a, b);
        assert!(d < 1e-13, "{what}, value {i}: off by {d:e}\n  {a:?}\n  {b:?}");
    }
}
