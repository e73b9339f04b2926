//! What several test files share: comparison by ratio, and a program run where several could disturb each other.
#![allow(dead_code)]

pub(crate) mod program;

use std::sync::{Mutex, MutexGuard, PoisonError};

use num_complex::Complex64;
use retrograd_engine::{DType, Tensor};

/// The memory meter counts for the whole process, so tests that read it must not run side by side.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Rounding unit of a type's real component.
pub(crate) fn epsilon(dtype: DType) -> f64 {
    match dtype.real() {
        DType::F32 => f32::EPSILON as f64,
        _ => f64::EPSILON,
    }
}

fn size(z: Complex64) -> f64 {
    z.re.abs().max(z.im.abs())
}

/// `max |a − b| / (max(max |b|, floor) · n · ε)`: how far `a` is from `b`, in units of the rounding of `n` operations
/// on numbers as large as the largest of `b` (at least `floor`). Infinite if types or shapes differ or one is not
/// finite where the other is.
pub(crate) fn ratio(a: &Tensor, b: &Tensor, floor: f64, n: usize) -> f64 {
    if a.dtype() != b.dtype() || a.dims() != b.dims() {
        return f64::INFINITY;
    }
    let scale = (0..b.len()).map(|i| size(b.get(i))).filter(|x| x.is_finite()).fold(floor, f64::max);
    let mut worst = 0.0f64;
    for i in 0..a.len() {
        let (x, y) = (a.get(i), b.get(i));
        let part = |x: f64, y: f64| if x == y || (x.is_nan() && y.is_nan()) { 0.0 } else { (x - y).abs() };
        let off = part(x.re, y.re).max(part(x.im, y.im));
        worst = worst.max(if off.is_nan() { f64::INFINITY } else { off });
    }
    worst / (scale * n.max(1) as f64 * epsilon(a.dtype()))
}
