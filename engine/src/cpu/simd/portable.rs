//! Plain Rust, whatever the target: 8 f32 or 4 f64; `mul_add` rounds twice.

use super::Vector;

/// 8 × f32.
#[derive(Clone, Copy)]
pub(crate) struct P32([f32; 8]);
/// 4 × f64.
#[derive(Clone, Copy)]
pub(crate) struct P64([f64; 4]);

macro_rules! portable {
    ($name:ident, $scalar:ty, $bits:ty, $lanes:literal, $mantissa:literal, $magic:expr) => {
        impl Vector for $name {
            type Scalar = $scalar;
            type Mask = [bool; $lanes];
            const LANES: usize = $lanes;
            const FMA: bool = false;
            const PANEL: usize = 1;
            const ROWS: usize = 4;

            #[inline(always)]
            unsafe fn splat(x: $scalar) -> Self {
                $name([x; $lanes])
            }
            #[inline(always)]
            unsafe fn load(p: *const $scalar) -> Self {
                // SAFETY: the caller upholds the contract of `Vector`; a read of an array needs no more
                // than its bytes, `read_unaligned` no alignment.
                unsafe { $name(p.cast::<[$scalar; $lanes]>().read_unaligned()) }
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut $scalar) {
                // SAFETY: as in `load`.
                unsafe { p.cast::<[$scalar; $lanes]>().write_unaligned(self.0) }
            }
            #[inline(always)]
            unsafe fn load_n(p: *const $scalar, n: usize) -> Self {
                let mut lanes = [0.0; $lanes];
                // SAFETY: the caller upholds the contract of `Vector`; `n` is at most the number of lanes.
                unsafe { std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n) };
                $name(lanes)
            }
            #[inline(always)]
            unsafe fn store_n(self, p: *mut $scalar, n: usize) {
                // SAFETY: the caller upholds the contract of `Vector`; `n` is at most the number of lanes.
                unsafe { std::ptr::copy_nonoverlapping(self.0.as_ptr(), p, n) }
            }
            #[inline(always)]
            unsafe fn swap<const S: usize>(self) -> Self {
                let mut out = self.0;
                for i in 0..$lanes {
                    out[i] = self.0[(i ^ S) % $lanes];
                }
                $name(out)
            }
            #[inline(always)]
            unsafe fn select(m: Self::Mask, a: Self, b: Self) -> Self {
                let mut out = b.0;
                for i in 0..$lanes {
                    out[i] = if m[i] { a.0[i] } else { b.0[i] };
                }
                $name(out)
            }
            #[inline(always)]
            unsafe fn any(m: Self::Mask) -> bool {
                let mut any = false;
                for i in 0..$lanes {
                    any |= m[i];
                }
                any
            }
            portable! { @map $name, $lanes, self;
                add(o) x => x + o;
                sub(o) x => x - o;
                mul(o) x => x * o;
                div(o) x => x / o;
                mul_add(b, c) x => x * b + c;
                neg_mul_add(b, c) x => c - x * b;
                sqrt() x => x.sqrt();
                floor() x => x.floor();
                round() x => (x + $magic) - $magic;
                max_or(o) x => if x > o { x } else { o };
                min_or(o) x => if x < o { x } else { o };
                and(o) x => <$scalar>::from_bits(x.to_bits() & o.to_bits());
                or(o) x => <$scalar>::from_bits(x.to_bits() | o.to_bits());
                xor(o) x => <$scalar>::from_bits(x.to_bits() ^ o.to_bits());
                shl_mantissa() x => <$scalar>::from_bits(x.to_bits() << $mantissa);
                shr_mantissa() x => <$scalar>::from_bits(x.to_bits() >> $mantissa);
            }
            portable! { @compare $lanes, self; lt(<) le(<=) eq(==) }
        }
    };
    (@map $name:ident, $lanes:literal, $self:ident;
     $($f:ident($($arg:ident),*) $x:ident => $body:expr;)*) => { $(
        #[inline(always)]
        unsafe fn $f(self $(, $arg: Self)*) -> Self {
            let mut out = self.0;
            for i in 0..$lanes {
                let $x = self.0[i];
                $(let $arg = $arg.0[i];)*
                out[i] = $body;
            }
            $name(out)
        }
    )* };
    (@compare $lanes:literal, $self:ident; $($f:ident($op:tt))*) => { $(
        #[inline(always)]
        unsafe fn $f(self, o: Self) -> Self::Mask {
            let mut out = [false; $lanes];
            for i in 0..$lanes {
                out[i] = self.0[i] $op o.0[i];
            }
            out
        }
    )* };
}

portable!(P32, f32, u32, 8, 23, 12582912.0); // 1.5 * 2^23
portable!(P64, f64, u64, 4, 52, 6755399441055744.0); // 1.5 * 2^52
