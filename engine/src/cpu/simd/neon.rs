//! NEON: 4 f32 or 2 f64.

use super::Vector;
use std::arch::aarch64::*;

/// 4 × f32.
#[derive(Clone, Copy)]
pub(crate) struct F32x4(float32x4_t);
/// 2 × f64.
#[derive(Clone, Copy)]
pub(crate) struct F64x2(float64x2_t);

macro_rules! neon {
    ($name:ident, $scalar:ty, $mask:ty, $lanes:literal, $mantissa:literal, $dup:ident, $ld:ident, $st:ident,
     $add:ident, $sub:ident, $mul:ident, $div:ident, $fma:ident, $fms:ident, $sqrt:ident, $floor:ident,
     $round:ident, $gt:ident, $lt:ident, $le:ident, $eq:ident, $bsl:ident, $to_bits:ident, $from_bits:ident,
     $and:ident, $or:ident, $xor:ident, $shl:ident, $shr:ident, $any:expr,
     |$v:ident| { $($s:literal => $swap:expr),* }) => {
        impl Vector for $name {
            type Scalar = $scalar;
            type Mask = $mask;
            const LANES: usize = $lanes;
            const FMA: bool = true;
            const PANEL: usize = 4;
            const ROWS: usize = 6;

            #[inline(always)]
            unsafe fn load_n(p: *const $scalar, n: usize) -> Self {
                let mut lanes = [0.0; $lanes];
                // SAFETY: the caller upholds the contract of `Vector`; `n` is at most the number of lanes.
                unsafe {
                    std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n);
                    Self::load(lanes.as_ptr())
                }
            }
            #[inline(always)]
            unsafe fn swap<const S: usize>(self) -> Self {
                let $v = self.0;
                // SAFETY: the caller upholds the contract of `Vector`.
                unsafe { $name(match S { $($s => $swap,)* _ => $v }) }
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut $scalar) {
                // SAFETY: the caller upholds the contract of `Vector`.
                unsafe { $st(p, self.0) }
            }
            #[inline(always)]
            unsafe fn store_n(self, p: *mut $scalar, n: usize) {
                let mut lanes = [0.0; $lanes];
                // SAFETY: the caller upholds the contract of `Vector`; `n` is at most the number of lanes.
                unsafe {
                    self.store(lanes.as_mut_ptr());
                    std::ptr::copy_nonoverlapping(lanes.as_ptr(), p, n);
                }
            }
            neon! { @ops
                splat(x: $scalar) -> Self => $name($dup(x));
                load(p: *const $scalar) -> Self => $name($ld(p));
                select(m: $mask, a: Self, b: Self) -> Self => $name($bsl(m, a.0, b.0));
                any(m: $mask) -> bool => $any(m) != 0;
            }
            neon! { @methods
                add(self, o: Self) -> Self => $name($add(self.0, o.0));
                sub(self, o: Self) -> Self => $name($sub(self.0, o.0));
                mul(self, o: Self) -> Self => $name($mul(self.0, o.0));
                div(self, o: Self) -> Self => $name($div(self.0, o.0));
                mul_add(self, b: Self, c: Self) -> Self => $name($fma(c.0, self.0, b.0));
                neg_mul_add(self, b: Self, c: Self) -> Self => $name($fms(c.0, self.0, b.0));
                sqrt(self) -> Self => $name($sqrt(self.0));
                floor(self) -> Self => $name($floor(self.0));
                round(self) -> Self => $name($round(self.0));
                max_or(self, o: Self) -> Self => $name($bsl($gt(self.0, o.0), self.0, o.0));
                min_or(self, o: Self) -> Self => $name($bsl($lt(self.0, o.0), self.0, o.0));
                lt(self, o: Self) -> $mask => $lt(self.0, o.0);
                le(self, o: Self) -> $mask => $le(self.0, o.0);
                eq(self, o: Self) -> $mask => $eq(self.0, o.0);
                and(self, o: Self) -> Self => $name($from_bits($and($to_bits(self.0), $to_bits(o.0))));
                or(self, o: Self) -> Self => $name($from_bits($or($to_bits(self.0), $to_bits(o.0))));
                xor(self, o: Self) -> Self => $name($from_bits($xor($to_bits(self.0), $to_bits(o.0))));
                shl_mantissa(self) -> Self => $name($from_bits($shl::<$mantissa>($to_bits(self.0))));
                shr_mantissa(self) -> Self => $name($from_bits($shr::<$mantissa>($to_bits(self.0))));
            }
        }
    };
    (@ops $($f:ident($($arg:ident: $ty:ty),*) -> $out:ty => $body:expr;)*) => { $(
        #[inline(always)]
        unsafe fn $f($($arg: $ty),*) -> $out {
            // SAFETY: the caller upholds the contract of `Vector`.
            unsafe { $body }
        }
    )* };
    (@methods $($f:ident($self:ident $(, $arg:ident: $ty:ty)*) -> $out:ty => $body:expr;)*) => { $(
        #[inline(always)]
        unsafe fn $f($self $(, $arg: $ty)*) -> $out {
            // SAFETY: the caller upholds the contract of `Vector`.
            unsafe { $body }
        }
    )* };
}

/// Largest lane of a mask of two 64-bit lanes.
#[inline(always)]
unsafe fn any_u64(m: uint64x2_t) -> u32 {
    // SAFETY: NEON, by the contract of `Vector`; the low or high half of a set lane is not zero.
    unsafe { vmaxvq_u32(vreinterpretq_u32_u64(m)) }
}

neon!(
    F32x4,
    f32,
    uint32x4_t,
    4,
    23,
    vdupq_n_f32,
    vld1q_f32,
    vst1q_f32,
    vaddq_f32,
    vsubq_f32,
    vmulq_f32,
    vdivq_f32,
    vfmaq_f32,
    vfmsq_f32,
    vsqrtq_f32,
    vrndmq_f32,
    vrndnq_f32,
    vcgtq_f32,
    vcltq_f32,
    vcleq_f32,
    vceqq_f32,
    vbslq_f32,
    vreinterpretq_u32_f32,
    vreinterpretq_f32_u32,
    vandq_u32,
    vorrq_u32,
    veorq_u32,
    vshlq_n_u32,
    vshrq_n_u32,
    vmaxvq_u32,
    |v| {
        1 => vrev64q_f32(v),
        2 => vextq_f32::<2>(v, v)
    }
);
neon!(
    F64x2,
    f64,
    uint64x2_t,
    2,
    52,
    vdupq_n_f64,
    vld1q_f64,
    vst1q_f64,
    vaddq_f64,
    vsubq_f64,
    vmulq_f64,
    vdivq_f64,
    vfmaq_f64,
    vfmsq_f64,
    vsqrtq_f64,
    vrndmq_f64,
    vrndnq_f64,
    vcgtq_f64,
    vcltq_f64,
    vcleq_f64,
    vceqq_f64,
    vbslq_f64,
    vreinterpretq_u64_f64,
    vreinterpretq_f64_u64,
    vandq_u64,
    vorrq_u64,
    veorq_u64,
    vshlq_n_u64,
    vshrq_n_u64,
    any_u64,
    |v| {
        1 => vextq_f64::<1>(v, v)
    }
);
