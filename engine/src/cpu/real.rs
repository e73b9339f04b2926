//! The two element types of the kernels, and the way into each instruction set's code.

use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign};

use super::butterfly::{ApplyArgs, TraceArgs};
use super::gemm::{GemmArgs, TnArgs};
use super::isa::Isa;
use super::math::consts::Consts;
#[cfg(target_arch = "x86_64")]
use super::pointwise::Compiled;
use super::pointwise::RunArgs;
#[cfg(target_arch = "x86_64")]
use super::pointwise::jit::{self, Recording};
use super::simd::{self, Vector};
use super::transpose::TransposeArgs;
use crate::dtype::Element;

/// `f32` or `f64`: a real number kernels are compiled for. Sealed.
pub trait Real:
    Element
    + Copy
    + Default
    + PartialOrd
    + std::fmt::Display
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + hooks::Hooks
    + Consts
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Distance from 1 to the next larger number.
    const EPSILON: Self;
    /// Nearest of this type.
    fn from_f64(x: f64) -> Self;
    /// The same number as `f64`.
    fn to_f64(self) -> f64;
    /// `self * b + c`, rounded once (slow where the target has no such instruction; see
    /// [`fma`](super::fma)).
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Absolute value.
    fn abs(self) -> Self;
}

/// A generic kernel with its arguments; `run` must be `#[inline(always)]`.
pub(crate) trait Kernel<R> {
    /// What it returns.
    type Output;
    /// The kernel's code over vectors of one instruction set.
    ///
    /// # Safety
    ///
    /// The contract of [`Vector`] and that of the kernel's own arguments.
    unsafe fn run<V: Vector<Scalar = R>>(self) -> Self::Output;
}

/// What the kernels need of a type beyond the public [`Real`]: entry points that are compiled in this crate
/// only, once a type.
pub(super) mod hooks {
    use super::*;

    /// See the module.
    #[allow(clippy::missing_safety_doc, missing_docs)]
    pub trait Hooks: Sized {
        unsafe fn gemm(isa: Isa, args: GemmArgs<Self>);
        unsafe fn gemm_tn(isa: Isa, args: TnArgs<Self>);
        unsafe fn pointwise(isa: Isa, args: RunArgs<'_, Self>);
        unsafe fn butterfly(isa: Isa, args: ApplyArgs<'_, Self>);
        unsafe fn butterfly_traces(isa: Isa, args: TraceArgs<'_, Self>);
        unsafe fn transpose(isa: Isa, args: TransposeArgs<'_, Self>);
        #[cfg(target_arch = "x86_64")]
        fn record(isa: Isa, program: &Compiled) -> Option<Recording>;
        fn lanes(isa: Isa) -> usize;
        fn panel(isa: Isa) -> usize;
        fn pow_scalar(self, e: Self) -> Self;
        fn sin_scalar(self) -> Self;
        fn cos_scalar(self) -> Self;
    }
}

/// Asks each vector type for one of its constants.
macro_rules! vector_const {
    ($isa:expr, $v512:ty, $v256:ty, $neon:ident, $portable:ty, $name:ident) => {
        match $isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => <$v512 as Vector>::$name,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => <$v256 as Vector>::$name,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => <simd::neon::$neon as Vector>::$name,
            _ => <$portable as Vector>::$name,
        }
    };
}

macro_rules! real {
    ($ty:ident, $dispatch:ident, $v512:ident, $v256:ident, $neon:ident, $portable:ident) => {
        impl Real for $ty {
            const ZERO: $ty = 0.0;
            const ONE: $ty = 1.0;
            const EPSILON: $ty = $ty::EPSILON;
            #[inline(always)]
            fn from_f64(x: f64) -> $ty {
                x as $ty
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self as f64
            }
            #[inline(always)]
            fn mul_add(self, b: $ty, c: $ty) -> $ty {
                $ty::mul_add(self, b, c)
            }
            #[inline(always)]
            fn sqrt(self) -> $ty {
                $ty::sqrt(self)
            }
            #[inline(always)]
            fn abs(self) -> $ty {
                $ty::abs(self)
            }
        }

        /// Runs a kernel over vectors of an instruction set.
        ///
        /// # Safety
        ///
        /// The contract of the kernel's arguments. (That the CPU has the instruction set is checked here.)
        pub(crate) unsafe fn $dispatch<K: Kernel<$ty>>(isa: Isa, kernel: K) -> K::Output {
            assert!(isa.is_available(), "bug: kernel asked for {isa}, which this CPU does not have");
            match isa {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the CPU has AVX-512 (just checked); the rest is the caller's.
                Isa::Avx512 => unsafe { avx512::<$ty, simd::avx512::$v512, K>(kernel) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the CPU has AVX2 and FMA (just checked); the rest is the caller's.
                Isa::Avx2 => unsafe { avx2::<$ty, simd::avx2::$v256, K>(kernel) },
                #[cfg(target_arch = "aarch64")]
                // SAFETY: the CPU has NEON (just checked); the rest is the caller's.
                Isa::Neon => unsafe { neon::<$ty, simd::neon::$neon, K>(kernel) },
                // SAFETY: plain Rust needs nothing of the CPU; the rest is the caller's.
                _ => unsafe { kernel.run::<simd::portable::$portable>() },
            }
        }

        impl hooks::Hooks for $ty {
            unsafe fn gemm(isa: Isa, args: GemmArgs<$ty>) {
                // SAFETY: the caller upholds the contract of `GemmArgs`.
                unsafe { $dispatch(isa, args) }
            }
            unsafe fn gemm_tn(isa: Isa, args: TnArgs<$ty>) {
                // SAFETY: the caller upholds the contract of `TnArgs`.
                unsafe { $dispatch(isa, args) }
            }
            unsafe fn pointwise(isa: Isa, args: RunArgs<'_, $ty>) {
                // SAFETY: the caller upholds the contract of `RunArgs`.
                unsafe { $dispatch(isa, args) }
            }
            unsafe fn butterfly(isa: Isa, args: ApplyArgs<'_, $ty>) {
                // SAFETY: the caller upholds the contract of `ApplyArgs`.
                unsafe { $dispatch(isa, args) }
            }
            unsafe fn butterfly_traces(isa: Isa, args: TraceArgs<'_, $ty>) {
                // SAFETY: the caller upholds the contract of `TraceArgs`.
                unsafe { $dispatch(isa, args) }
            }
            unsafe fn transpose(isa: Isa, args: TransposeArgs<'_, $ty>) {
                // SAFETY: the caller upholds the contract of `TransposeArgs`.
                unsafe { $dispatch(isa, args) }
            }
            #[cfg(target_arch = "x86_64")]
            fn record(isa: Isa, program: &Compiled) -> Option<Recording> {
                (isa == Isa::Avx512).then(|| jit::record::<simd::avx512::$v512>(program)).flatten()
            }
            fn lanes(isa: Isa) -> usize {
                vector_const!(
                    isa,
                    simd::avx512::$v512,
                    simd::avx2::$v256,
                    $neon,
                    simd::portable::$portable,
                    LANES
                )
            }
            fn panel(isa: Isa) -> usize {
                vector_const!(
                    isa,
                    simd::avx512::$v512,
                    simd::avx2::$v256,
                    $neon,
                    simd::portable::$portable,
                    PANEL
                )
            }
            fn pow_scalar(self, e: $ty) -> $ty {
                self.powf(e)
            }
            fn sin_scalar(self) -> $ty {
                self.sin()
            }
            fn cos_scalar(self) -> $ty {
                self.cos()
            }
        }
    };
}

real!(f32, dispatch_f32, F32x16, F32x8, F32x4, P32);
real!(f64, dispatch_f64, F64x8, F64x4, F64x2, P64);

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx2,fma")]
unsafe fn avx512<R, V: Vector<Scalar = R>, K: Kernel<R>>(kernel: K) -> K::Output {
    // SAFETY: this function has the vector type's features; the rest is the caller's.
    unsafe { kernel.run::<V>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<R, V: Vector<Scalar = R>, K: Kernel<R>>(kernel: K) -> K::Output {
    // SAFETY: this function has the vector type's features; the rest is the caller's.
    unsafe { kernel.run::<V>() }
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
unsafe fn neon<R, V: Vector<Scalar = R>, K: Kernel<R>>(kernel: K) -> K::Output {
    // SAFETY: this function has the vector type's features; the rest is the caller's.
    unsafe { kernel.run::<V>() }
}
