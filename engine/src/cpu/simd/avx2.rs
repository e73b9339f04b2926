//! AVX2 with FMA: 8 f32 or 4 f64.

use super::Vector;
use std::arch::x86_64::*;

/// 8 × f32.
#[derive(Clone, Copy)]
pub(crate) struct F32x8(__m256);
/// 4 × f64.
#[derive(Clone, Copy)]
pub(crate) struct F64x4(__m256d);

macro_rules! avx2 {
    ($name:ident, $scalar:ty, $mask:ty, $lanes:literal, $mantissa:literal, $set1:ident, $loadu:ident,
     $storeu:ident, $add:ident, $sub:ident, $mul:ident, $div:ident,
     $fmadd:ident, $fnmadd:ident, $sqrt:ident, $round:ident, $max:ident, $min:ident, $cmp:ident,
     $blend:ident, $movemask:ident, $and:ident, $or:ident, $xor:ident, $to_int:ident, $from_int:ident, $shl:ident, $shr:ident,
     |$v:ident| { $($s:literal => $swap:expr),* }) => {
        impl Vector for $name {
            type Scalar = $scalar;
            type Mask = $mask;
            const LANES: usize = $lanes;
            const FMA: bool = true;
            const PANEL: usize = 2;
            const ROWS: usize = 6;

            avx2! { @ops $name, $scalar, $mask;
                splat(x: $scalar) => $name($set1(x));
                load(p: *const $scalar) => $name($loadu(p));
                load_n(p: *const $scalar, n: usize) => {
                    let mut lanes = [0.0; $lanes];
                    std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n);
                    Self::load(lanes.as_ptr())
                };
                select(m: $mask, a: Self, b: Self) => $name($blend(b.0, a.0, m));
            }
            avx2! { @methods $name;
                add(self, o: Self) => $name($add(self.0, o.0));
                sub(self, o: Self) => $name($sub(self.0, o.0));
                mul(self, o: Self) => $name($mul(self.0, o.0));
                div(self, o: Self) => $name($div(self.0, o.0));
                mul_add(self, b: Self, c: Self) => $name($fmadd(self.0, b.0, c.0));
                neg_mul_add(self, b: Self, c: Self) => $name($fnmadd(self.0, b.0, c.0));
                sqrt(self) => $name($sqrt(self.0));
                floor(self) => $name($round::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(self.0));
                round(self) => $name($round::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0));
                max_or(self, o: Self) => $name($max(self.0, o.0));
                min_or(self, o: Self) => $name($min(self.0, o.0));
                and(self, o: Self) => $name($and(self.0, o.0));
                or(self, o: Self) => $name($or(self.0, o.0));
                xor(self, o: Self) => $name($xor(self.0, o.0));
                shl_mantissa(self) => $name($from_int($shl::<$mantissa>($to_int(self.0))));
                shr_mantissa(self) => $name($from_int($shr::<$mantissa>($to_int(self.0))));
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
                unsafe { $storeu(p, self.0) }
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
            #[inline(always)]
            unsafe fn lt(self, o: Self) -> $mask {
                // SAFETY: the caller upholds the contract of `Vector`.
                unsafe { $cmp::<_CMP_LT_OQ>(self.0, o.0) }
            }
            #[inline(always)]
            unsafe fn le(self, o: Self) -> $mask {
                // SAFETY: the caller upholds the contract of `Vector`.
                unsafe { $cmp::<_CMP_LE_OQ>(self.0, o.0) }
            }
            #[inline(always)]
            unsafe fn eq(self, o: Self) -> $mask {
                // SAFETY: the caller upholds the contract of `Vector`.
                unsafe { $cmp::<_CMP_EQ_OQ>(self.0, o.0) }
            }
            #[inline(always)]
            unsafe fn any(mask: $mask) -> bool {
                // SAFETY: the caller upholds the contract of `Vector`.
                unsafe { $movemask(mask) != 0 }
            }
        }
    };
    (@ops $name:ident, $scalar:ty, $mask:ty; $($f:ident($($arg:ident: $ty:ty),*) => $body:expr;)*) => { $(
        #[inline(always)]
        unsafe fn $f($($arg: $ty),*) -> Self {
            // SAFETY: the caller upholds the contract of `Vector`.
            unsafe { $body }
        }
    )* };
    (@methods $name:ident; $($f:ident($self:ident $(, $arg:ident: $ty:ty)*) => $body:expr;)*) => { $(
        #[inline(always)]
        unsafe fn $f($self $(, $arg: $ty)*) -> Self {
            // SAFETY: the caller upholds the contract of `Vector`.
            unsafe { $body }
        }
    )* };
}

avx2!(
    F32x8,
    f32,
    __m256,
    8,
    23,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_add_ps,
    _mm256_sub_ps,
    _mm256_mul_ps,
    _mm256_div_ps,
    _mm256_fmadd_ps,
    _mm256_fnmadd_ps,
    _mm256_sqrt_ps,
    _mm256_round_ps,
    _mm256_max_ps,
    _mm256_min_ps,
    _mm256_cmp_ps,
    _mm256_blendv_ps,
    _mm256_movemask_ps,
    _mm256_and_ps,
    _mm256_or_ps,
    _mm256_xor_ps,
    _mm256_castps_si256,
    _mm256_castsi256_ps,
    _mm256_slli_epi32,
    _mm256_srli_epi32,
    |v| {
        1 => _mm256_permute_ps::<0b10_11_00_01>(v),
        2 => _mm256_permute_ps::<0b01_00_11_10>(v),
        4 => _mm256_permute2f128_ps::<1>(v, v)
    }
);
avx2!(
    F64x4,
    f64,
    __m256d,
    4,
    52,
    _mm256_set1_pd,
    _mm256_loadu_pd,
    _mm256_storeu_pd,
    _mm256_add_pd,
    _mm256_sub_pd,
    _mm256_mul_pd,
    _mm256_div_pd,
    _mm256_fmadd_pd,
    _mm256_fnmadd_pd,
    _mm256_sqrt_pd,
    _mm256_round_pd,
    _mm256_max_pd,
    _mm256_min_pd,
    _mm256_cmp_pd,
    _mm256_blendv_pd,
    _mm256_movemask_pd,
    _mm256_and_pd,
    _mm256_or_pd,
    _mm256_xor_pd,
    _mm256_castpd_si256,
    _mm256_castsi256_pd,
    _mm256_slli_epi64,
    _mm256_srli_epi64,
    |v| {
        1 => _mm256_permute_pd::<0b0101>(v),
        2 => _mm256_permute2f128_pd::<1>(v, v)
    }
);
