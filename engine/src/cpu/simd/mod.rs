//! Vectors of one instruction set behind one trait.
//!
//! Pattern: trait methods and every generic kernel built on them are `#[inline(always)]`, so they take on the
//! target features of the one function they end up in, a `#[target_feature]` wrapper of [`crate::cpu::real`].
//! Nothing here may be called from anywhere else. No closures in kernels: they would not inherit the features.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod portable;

use crate::cpu::math::consts::Consts;
use crate::cpu::real::Real;

/// A SIMD register of `LANES` real numbers.
///
/// # Safety
///
/// Every method: the running CPU has the instruction set of the implementing type. Loads and stores also need
/// the memory they name to be valid for as many elements as they touch; no alignment is needed.
#[allow(clippy::missing_safety_doc, missing_docs)]
pub(crate) trait Vector: Copy {
    type Scalar: Real;
    type Mask: Copy;
    const LANES: usize;
    /// Whether `mul_add` rounds once.
    const FMA: bool;
    /// Vectors in one panel of a packed matrix: the width of the widest register tile.
    const PANEL: usize;
    /// Rows of the tallest register tile.
    const ROWS: usize;
    /// Whether [`Vector::recip_estimate`] and [`Vector::rsqrt_estimate`] are there.
    const ESTIMATES: bool = false;
    /// Whether [`Vector::scalef`] is there.
    const SCALEF: bool = false;
    /// Whether there is scalar code for what vectors cannot do; if not, NaN is what it would give.
    const SCALARS: bool = true;

    unsafe fn splat(x: Self::Scalar) -> Self;
    unsafe fn load(p: *const Self::Scalar) -> Self;
    unsafe fn store(self, p: *mut Self::Scalar);
    /// The first `n <= LANES` lanes from memory, the others 0.
    unsafe fn load_n(p: *const Self::Scalar, n: usize) -> Self;
    /// Only the first `n <= LANES` lanes to memory.
    unsafe fn store_n(self, p: *mut Self::Scalar, n: usize);

    unsafe fn add(self, o: Self) -> Self;
    unsafe fn sub(self, o: Self) -> Self;
    unsafe fn mul(self, o: Self) -> Self;
    unsafe fn div(self, o: Self) -> Self;
    /// `self * b + c`.
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
    /// `c - self * b`.
    unsafe fn neg_mul_add(self, b: Self, c: Self) -> Self;
    unsafe fn sqrt(self) -> Self;
    unsafe fn floor(self) -> Self;
    /// Nearest integer, ties to even, for `|x| < 2^22` (f32) or `2^51` (f64).
    unsafe fn round(self) -> Self;
    /// `self > o ? self : o`, so `o` where either is NaN.
    unsafe fn max_or(self, o: Self) -> Self;
    /// `self < o ? self : o`, so `o` where either is NaN.
    unsafe fn min_or(self, o: Self) -> Self;

    unsafe fn lt(self, o: Self) -> Self::Mask;
    unsafe fn le(self, o: Self) -> Self::Mask;
    unsafe fn eq(self, o: Self) -> Self::Mask;
    /// `a` where the mask is set, else `b`.
    unsafe fn select(mask: Self::Mask, a: Self, b: Self) -> Self;
    unsafe fn any(mask: Self::Mask) -> bool;

    unsafe fn and(self, o: Self) -> Self;
    unsafe fn or(self, o: Self) -> Self;
    unsafe fn xor(self, o: Self) -> Self;
    /// Lane `l` of the result is lane `l ^ S`, for `S` a power of two below `LANES`.
    unsafe fn swap<const S: usize>(self) -> Self;
    /// The bits shifted left by the width of the mantissa field.
    unsafe fn shl_mantissa(self) -> Self;
    /// The bits shifted right by the width of the mantissa field, zeros from the left.
    unsafe fn shr_mantissa(self) -> Self;

    /// `1 / self` to 14 bits, where [`Vector::ESTIMATES`].
    #[inline(always)]
    unsafe fn recip_estimate(self) -> Self {
        self
    }

    /// `1 / √self` to 14 bits, where [`Vector::ESTIMATES`].
    #[inline(always)]
    unsafe fn rsqrt_estimate(self) -> Self {
        self
    }

    /// `self * 2^⌊n⌋`, rounded once, where [`Vector::SCALEF`].
    #[inline(always)]
    unsafe fn scalef(self, _n: Self) -> Self {
        self
    }

    /// All lanes 0.
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller upholds the trait's contract.
        unsafe { Self::splat(Self::Scalar::ZERO) }
    }

    #[inline(always)]
    unsafe fn neg(self) -> Self {
        // SAFETY: the caller upholds the trait's contract.
        unsafe { self.xor(Self::splat(Self::Scalar::SIGN)) }
    }

    #[inline(always)]
    unsafe fn abs(self) -> Self {
        // SAFETY: the caller upholds the trait's contract.
        unsafe { self.and(Self::splat(Self::Scalar::NOT_SIGN)) }
    }

    /// Magnitude of `self`, sign of `s`; `self` must not be negative.
    #[inline(always)]
    unsafe fn with_sign_of(self, s: Self) -> Self {
        // SAFETY: the caller upholds the trait's contract.
        unsafe { self.or(s.and(Self::splat(Self::Scalar::SIGN))) }
    }

    /// The larger, NaN if either is NaN.
    #[inline(always)]
    unsafe fn max(self, o: Self) -> Self {
        // SAFETY: the caller upholds the trait's contract. `max_or` gives `o` if that is NaN.
        unsafe { Self::select(self.eq(self), self.max_or(o), self) }
    }

    /// The smaller, NaN if either is NaN.
    #[inline(always)]
    unsafe fn min(self, o: Self) -> Self {
        // SAFETY: the caller upholds the trait's contract. `min_or` gives `o` if that is NaN.
        unsafe { Self::select(self.eq(self), self.min_or(o), self) }
    }

    // Divisions and roots take 16 cycles and more a vector where there are estimates; an estimate and a step of
    // Newton's method take 3, and a last correction of the result rounds it as well as a division would, nearly
    // always.

    /// `self / d` to within an ulp, for positive normal `d` whose square is normal too.
    #[inline(always)]
    unsafe fn ratio(self, d: Self) -> Self {
        // SAFETY: the caller upholds the trait's contract.
        unsafe {
            if !Self::ESTIMATES {
                return self.div(d);
            }
            let r = d.recip_estimate();
            let r = d.neg_mul_add(r, Self::splat(Self::Scalar::ONE)).mul_add(r, r);
            let q = self.mul(r);
            d.neg_mul_add(q, self).mul_add(r, q)
        }
    }

    /// `1 / √self` to within an ulp, for positive normal `self`.
    #[inline(always)]
    unsafe fn rsqrt(self) -> Self {
        // SAFETY: the caller upholds the trait's contract.
        unsafe {
            if !Self::ESTIMATES {
                return Self::splat(Self::Scalar::ONE).div(self.sqrt());
            }
            let r = self.rsqrt_estimate();
            let error = self.mul(r).neg_mul_add(r, Self::splat(Self::Scalar::ONE));
            error.mul(Self::splat(Self::Scalar::HALF)).mul_add(r, r)
        }
    }

    /// `√self` to within an ulp, for positive normal `self`.
    #[inline(always)]
    unsafe fn sqrt_normal(self) -> Self {
        // SAFETY: the caller upholds the trait's contract.
        unsafe {
            if !Self::ESTIMATES {
                return self.sqrt();
            }
            let r = self.rsqrt();
            let y = self.mul(r);
            y.neg_mul_add(y, self).mul_add(r.mul(Self::splat(Self::Scalar::HALF)), y)
        }
    }

    /// `2^n` for integral `n` in the range of normal exponents.
    #[inline(always)]
    unsafe fn exp2i(self) -> Self {
        // SAFETY: the caller upholds the trait's contract. Adding the magic number leaves `n + bias` in the
        // lowest bits of the mantissa; the shift makes them the exponent and drops the rest.
        unsafe { self.add(Self::splat(Self::Scalar::EXP_MAGIC)).shl_mantissa() }
    }

    /// `self * 2^n` for integral `n`, also where `2^n` is a little beyond the normal numbers.
    #[inline(always)]
    unsafe fn scale(self, n: Self) -> Self {
        // SAFETY: the caller upholds the trait's contract. Else in two factors, each a normal number.
        unsafe {
            if Self::SCALEF {
                return self.scalef(n);
            }
            let first = n.mul(Self::splat(Self::Scalar::HALF)).floor();
            self.mul(first.exp2i()).mul(n.sub(first).exp2i())
        }
    }

    /// The biased exponent of a positive number, as a number.
    #[inline(always)]
    unsafe fn biased_exponent(self) -> Self {
        // SAFETY: the caller upholds the trait's contract. The exponent becomes the low mantissa bits of
        // `2^mantissa_bits`, which is then taken away.
        unsafe {
            let unit = Self::splat(Self::Scalar::MANTISSA_UNIT);
            self.shr_mantissa().or(unit).sub(unit)
        }
    }
}
