//! Auto-vectorised plain Rust for every instruction set, without `unsafe` at the call site.

use super::isa::Isa;
use super::real::Real;

/// A loop in plain Rust that [`multiversion`] compiles once for every instruction set.
///
/// Mark `run` and everything it calls `#[inline(always)]` (and use no closures that are not inlined), or it
/// is compiled for the baseline only. It must not depend on the instruction set but through [`fma`], nor its
/// result on how an array is split: then every split gives the same bits.
///
/// ```
/// use retrograd_engine::cpu::{Multiversion, fma, multiversion};
///
/// struct Axpy<'a> {
///     a: f32,
///     x: &'a [f32],
///     y: &'a mut [f32],
/// }
///
/// impl Multiversion for Axpy<'_> {
///     type Output = ();
///     #[inline(always)]
///     fn run<const FMA: bool>(self) {
///         for (y, x) in self.y.iter_mut().zip(self.x) {
///             *y = fma::<f32, FMA>(self.a, *x, *y);
///         }
///     }
/// }
///
/// let mut y = vec![1.0; 5];
/// multiversion(Axpy { a: 2.0, x: &[0.0, 1.0, 2.0, 3.0, 4.0], y: &mut y });
/// assert_eq!(y, [1.0, 3.0, 5.0, 7.0, 9.0]);
/// ```
pub trait Multiversion {
    /// What it returns.
    type Output;
    /// The loop. `FMA`: whether a fused multiply-add is one instruction here.
    fn run<const FMA: bool>(self) -> Self::Output;
}

/// Runs a loop compiled for the active instruction set, [`Isa::detect`].
pub fn multiversion<K: Multiversion>(kernel: K) -> K::Output {
    multiversion_on(Isa::detect(), kernel)
}

/// Runs a loop compiled for this instruction set, or for the baseline where the CPU does not have it.
pub fn multiversion_on<K: Multiversion>(isa: Isa, kernel: K) -> K::Output {
    if !isa.is_available() {
        return kernel.run::<false>();
    }
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the CPU has these features, just checked.
        Isa::Avx512 => unsafe { avx512(kernel) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the CPU has these features, just checked.
        Isa::Avx2 => unsafe { avx2(kernel) },
        Isa::Neon => kernel.run::<true>(),
        _ => kernel.run::<false>(),
    }
}

/// `a * b + c`: rounded once if `FMA`, else twice.
#[inline(always)]
pub fn fma<R: Real, const FMA: bool>(a: R, b: R, c: R) -> R {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx2,fma")]
fn avx512<K: Multiversion>(kernel: K) -> K::Output {
    kernel.run::<true>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2<K: Multiversion>(kernel: K) -> K::Output {
    kernel.run::<true>()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Residual(f64);
    impl Multiversion for Residual {
        type Output = f64;
        #[inline(always)]
        fn run<const FMA: bool>(self) -> f64 {
            fma::<f64, FMA>(self.0, self.0, -(self.0 * self.0))
        }
    }

    #[test]
    fn fused_where_the_instruction_set_is() {
        let x = 1.0 + f64::EPSILON;
        for isa in Isa::available() {
            let expected = if isa == Isa::Portable { 0.0 } else { f64::EPSILON * f64::EPSILON };
            assert_eq!(multiversion_on(isa, Residual(x)), expected, "{isa}");
        }
    }
}
