//! AVX-512 (F, DQ): 16 f32 or 8 f64.

use super::Vector;
use std::arch::x86_64::*;

/// 16 × f32.
#[derive(Clone, Copy)]
pub(crate) struct F32x16(__m512);
/// 8 × f64.
#[derive(Clone, Copy)]
pub(crate) struct F64x8(__m512d);

macro_rules! avx512 {
    ($name:ident, $scalar:ty, $mask:ty, $lanes:literal, $mantissa:literal, $set1:ident, $loadu:ident,
     $storeu:ident, $maskz_loadu:ident, $mask_storeu:ident, $add:ident, $sub:ident, $mul:ident, $div:ident,
     $fmadd:ident, $fnmadd:ident, $sqrt:ident, $roundscale:ident, $max:ident, $min:ident, $cmp:ident,
     $blend:ident, $and:ident, $or:ident, $xor:ident, $to_int:ident, $from_int:ident, $shl:ident, $shr:ident, $scalef:ident,
     |$v:ident| { $($s:literal => $swap:expr),* },
     { $($more:tt)* }) => {
        impl Vector for $name {
            type Scalar = $scalar;
            type Mask = $mask;
            const LANES: usize = $lanes;
            const FMA: bool = true;
            const PANEL: usize = 4;
            const ROWS: usize = 6;
            const SCALEF: bool = true;

            avx512! { @ops $name, $scalar, $mask;
                splat(x: $scalar) => $name($set1(x));
                load(p: *const $scalar) => $name($loadu(p));
                load_n(p: *const $scalar, n: usize) => $name($maskz_loadu(((1u32 << n) - 1) as $mask, p));
                select(m: $mask, a: Self, b: Self) => $name($blend(m, b.0, a.0));
            }
            avx512! { @methods $name;
                add(self, o: Self) => $name($add(self.0, o.0));
                sub(self, o: Self) => $name($sub(self.0, o.0));
                mul(self, o: Self) => $name($mul(self.0, o.0));
                div(self, o: Self) => $name($div(self.0, o.0));
                mul_add(self, b: Self, c: Self) => $name($fmadd(self.0, b.0, c.0));
                neg_mul_add(self, b: Self, c: Self) => $name($fnmadd(self.0, b.0, c.0));
                scalef(self, n: Self) => $name($scalef(self.0, n.0));
                sqrt(self) => $name($sqrt(self.0));
                floor(self) => $name($roundscale::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(self.0));
                round(self) => $name($roundscale::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0));
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
                // SAFETY: the caller upholds the contract of `Vector`; masked lanes are not touched.
                unsafe { $mask_storeu(p, ((1u32 << n) - 1) as $mask, self.0) }
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
                mask != 0
            }
            $($more)*
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

avx512!(
    F32x16,
    f32,
    __mmask16,
    16,
    23,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_maskz_loadu_ps,
    _mm512_mask_storeu_ps,
    _mm512_add_ps,
    _mm512_sub_ps,
    _mm512_mul_ps,
    _mm512_div_ps,
    _mm512_fmadd_ps,
    _mm512_fnmadd_ps,
    _mm512_sqrt_ps,
    _mm512_roundscale_ps,
    _mm512_max_ps,
    _mm512_min_ps,
    _mm512_cmp_ps_mask,
    _mm512_mask_blend_ps,
    _mm512_and_ps,
    _mm512_or_ps,
    _mm512_xor_ps,
    _mm512_castps_si512,
    _mm512_castsi512_ps,
    _mm512_slli_epi32,
    _mm512_srli_epi32,
    _mm512_scalef_ps,
    |v| {
        1 => _mm512_permute_ps::<0b10_11_00_01>(v),
        2 => _mm512_permute_ps::<0b01_00_11_10>(v),
        4 => _mm512_shuffle_f32x4::<0b10_11_00_01>(v, v),
        8 => _mm512_shuffle_f32x4::<0b01_00_11_10>(v, v)
    },
    {
        const ESTIMATES: bool = true;
        #[inline(always)]
        unsafe fn recip_estimate(self) -> Self {
            // SAFETY: the caller upholds the contract of `Vector`.
            unsafe { F32x16(_mm512_rcp14_ps(self.0)) }
        }
        #[inline(always)]
        unsafe fn rsqrt_estimate(self) -> Self {
            // SAFETY: the caller upholds the contract of `Vector`.
            unsafe { F32x16(_mm512_rsqrt14_ps(self.0)) }
        }
    }
);
avx512!(
    F64x8,
    f64,
    __mmask8,
    8,
    52,
    _mm512_set1_pd,
    _mm512_loadu_pd,
    _mm512_storeu_pd,
    _mm512_maskz_loadu_pd,
    _mm512_mask_storeu_pd,
    _mm512_add_pd,
    _mm512_sub_pd,
    _mm512_mul_pd,
    _mm512_div_pd,
    _mm512_fmadd_pd,
    _mm512_fnmadd_pd,
    _mm512_sqrt_pd,
    _mm512_roundscale_pd,
    _mm512_max_pd,
    _mm512_min_pd,
    _mm512_cmp_pd_mask,
    _mm512_mask_blend_pd,
    _mm512_and_pd,
    _mm512_or_pd,
    _mm512_xor_pd,
    _mm512_castpd_si512,
    _mm512_castsi512_pd,
    _mm512_slli_epi64,
    _mm512_srli_epi64,
    _mm512_scalef_pd,
    |v| {
        1 => _mm512_permute_pd::<0b01010101>(v),
        2 => _mm512_shuffle_f64x2::<0b10_11_00_01>(v, v),
        4 => _mm512_shuffle_f64x2::<0b01_00_11_10>(v, v)
    },
    {}
);
