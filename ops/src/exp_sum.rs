//! The exponentials of a row less its maximum, and their sum: what softmax and its relatives are made of.

use retrograd_engine::cpu::{Multiversion, Real, fma, multiversion};

use crate::lanes::{store, total};

/// Real numbers with a branch-free exponential that compiles to vector code.
pub(crate) trait Exp: Real {
    /// `exp(self)` for `self ≤ 0`, 0 where the result would be subnormal; within 2 roundings.
    fn exp_not_positive<const FMA: bool>(self) -> Self;
}

/// Cody and Waite's reduction `x = n log 2 + r` and the Taylor polynomial of `exp(r)`, `|r| ≤ log(2)/2`.
macro_rules! exp {
    ($ty:ident, $bits:ident, $mantissa:literal, $bias:literal, $least:literal, $log2_hi:literal, $log2_lo:literal,
     [$($c:expr),*]) => {
        impl Exp for $ty {
            #[inline(always)]
            fn exp_not_positive<const FMA: bool>(self) -> $ty {
                // Adding 1.5 · 2^mantissa rounds to a whole number and leaves it in the lowest bits.
                const MAGIC: $ty = 1.5 * (1u64 << $mantissa) as $ty;
                let t = fma::<$ty, FMA>(self, std::$ty::consts::LOG2_E, MAGIC);
                let n = t - MAGIC;
                let r = fma::<$ty, FMA>(n, -$log2_hi, self);
                let r = fma::<$ty, FMA>(n, -$log2_lo, r);
                let mut y: $ty = 0.0;
                $( y = fma::<$ty, FMA>(y, r, $c); )*
                let exponent = t.to_bits().wrapping_sub(MAGIC.to_bits()).wrapping_add($bias) << $mantissa;
                let power = $ty::from_bits(exponent);
                if self < $least { 0.0 } else { y * power }
            }
        }
    };
}

exp!(
    f32,
    u32,
    23,
    127,
    -87.3,
    0.693_359_4,
    -2.121_944_4e-4,
    [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0]
);
exp!(
    f64,
    u64,
    52,
    1023,
    -708.3,
    0.693_147_180_369_123_8,
    1.908_214_929_270_587_7e-10,
    [
        1.0 / 6_227_020_800.0,
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0
    ]
);

/// The maximum `m` of `x` and `Σ exp(x − m)`. NaN in the sum where `x` has a NaN or an infinity that is largest.
pub(crate) fn exp_sum<R: Exp>(x: &[R]) -> (R, R) {
    multiversion(ExpSum { x, y: &mut [] })
}

/// [`exp_sum`], and the terms of the sum in `y`.
pub(crate) fn exp_terms<R: Exp>(x: &[R], y: &mut [R]) -> (R, R) {
    multiversion(ExpSum { x, y })
}

/// `y` is as long as `x`, or empty.
struct ExpSum<'a, R> {
    x: &'a [R],
    y: &'a mut [R],
}

impl<R: Exp> Multiversion for ExpSum<'_, R> {
    type Output = (R, R);

    #[inline(always)]
    fn run<const FMA: bool>(self) -> (R, R) {
        let least = R::from_f64(f64::NEG_INFINITY);
        let (whole, rest) = self.x.as_chunks::<16>();
        let mut most = [least; 16];
        for chunk in whole {
            for l in 0..16 {
                most[l] = if chunk[l] > most[l] { chunk[l] } else { most[l] };
            }
        }
        let m = most.iter().chain(rest).fold(least, |m, v| if *v > m { *v } else { m });
        let mut sums = [R::ZERO; 16];
        for (c, chunk) in whole.iter().enumerate() {
            let mut terms = [R::ZERO; 16];
            for l in 0..16 {
                terms[l] = (chunk[l] - m).exp_not_positive::<FMA>();
                sums[l] += terms[l];
            }
            if !self.y.is_empty() {
                store(&mut self.y[16 * c..], &terms);
            }
        }
        for (l, v) in rest.iter().enumerate() {
            let term = (*v - m).exp_not_positive::<FMA>();
            sums[l] += term;
            if !self.y.is_empty() {
                self.y[16 * whole.len() + l] = term;
            }
        }
        (m, total(sums))
    }
}

/// Natural logarithm.
pub(crate) fn log<R: Real>(x: R) -> R {
    R::from_f64(x.to_f64().ln())
}

#[cfg(test)]
mod tests {
    use retrograd_engine::cpu::{Isa, multiversion_on};

    use super::*;

    #[test]
    fn exponentials_within_two_roundings() {
        for isa in Isa::available() {
            for i in 0..20_000 {
                let x = -(i as f64) * 0.0355;
                let (m, s) = multiversion_on(isa, ExpSum { x: &[0.0, x], y: &mut [] });
                assert_eq!(m, 0.0);
                let mut y = [0.0; 2];
                multiversion_on(isa, ExpSum { x: &[0.0, x], y: &mut y });
                assert_eq!((y[0], s), (1.0, 1.0 + y[1]));
                let expected = if x < -708.3 { 0.0 } else { x.exp() };
                assert!((y[1] - expected).abs() <= 2.0 * f64::EPSILON * expected, "{isa} {x}: {}", y[1]);
                let mut y = [0.0f32; 2];
                multiversion_on(isa, ExpSum { x: &[0.0, x as f32], y: &mut y });
                let expected = if x < -87.3 { 0.0 } else { (x as f32 as f64).exp() };
                let error = (y[1] as f64 - expected).abs();
                assert!(error <= 2.0 * f32::EPSILON as f64 * expected, "{isa} {x}: {}", y[1]);
            }
        }
    }

    #[test]
    fn special_values() {
        let inf = f64::INFINITY;
        assert_eq!(exp_sum(&[-inf, 3.0, 3.0]), (3.0, 2.0));
        assert!(exp_sum(&[-inf, -inf]).1.is_nan());
        assert!(exp_sum(&[inf, 0.0]).1.is_nan());
        assert!(exp_sum(&[f64::NAN, 0.0]).1.is_nan());
    }
}
