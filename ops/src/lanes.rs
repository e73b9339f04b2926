//! Short vectors: arrays of a fixed length whose loops compile to vector registers.

use retrograd_engine::cpu::{Real, fma};

/// The first `L` elements.
#[inline(always)]
#[allow(clippy::manual_memcpy)] // A loop is a vector load; a call to copy may stay a call. Half the run time.
pub(crate) fn load<R: Real, const L: usize>(x: &[R]) -> [R; L] {
    let (x, mut v) = (&x[..L], [R::ZERO; L]);
    for l in 0..L {
        v[l] = x[l];
    }
    v
}

/// All elements, at most `L`, and zeros behind them.
#[inline(always)]
#[allow(clippy::manual_memcpy)] // As in `load`.
pub(crate) fn load_part<R: Real, const L: usize>(x: &[R]) -> [R; L] {
    let mut v = [R::ZERO; L];
    for l in 0..L.min(x.len()) {
        v[l] = x[l];
    }
    v
}

/// Writes the vector to the first `L` elements.
#[inline(always)]
#[allow(clippy::manual_memcpy)] // As in `load`.
pub(crate) fn store<R: Real, const L: usize>(y: &mut [R], v: &[R; L]) {
    let y = &mut y[..L];
    for l in 0..L {
        y[l] = v[l];
    }
}

/// Writes the first `len` elements of the vector, `stride` apart. (By value, lest the vector is kept in memory.)
#[inline(always)]
pub(crate) fn store_spread<R: Real, const L: usize>(y: &mut [R], v: [R; L], len: usize, stride: usize) {
    for (y, v) in y.iter_mut().step_by(stride).zip(v).take(len) {
        *y = v;
    }
}

/// `acc += a · x`.
#[inline(always)]
pub(crate) fn axpy<R: Real, const L: usize, const FMA: bool>(acc: &mut [R; L], a: R, x: &[R; L]) {
    for l in 0..L {
        acc[l] = fma::<R, FMA>(a, x[l], acc[l]);
    }
}

/// `acc += x · y`, lane by lane.
#[inline(always)]
pub(crate) fn mul_acc<R: Real, const L: usize, const FMA: bool>(acc: &mut [R; L], x: &[R; L], y: &[R; L]) {
    for l in 0..L {
        acc[l] = fma::<R, FMA>(x[l], y[l], acc[l]);
    }
}

/// `s · x`.
#[inline(always)]
pub(crate) fn scaled<R: Real, const L: usize>(s: R, x: &[R; L]) -> [R; L] {
    let mut v = *x;
    for l in 0..L {
        v[l] = s * v[l];
    }
    v
}

/// Sum of the lanes, halves added to halves.
#[inline(always)]
pub(crate) fn total<R: Real, const L: usize>(mut v: [R; L]) -> R {
    // Spelled out: a loop over widths stays a loop over memory.
    halve::<R, L, 16>(&mut v);
    halve::<R, L, 8>(&mut v);
    halve::<R, L, 4>(&mut v);
    halve::<R, L, 2>(&mut v);
    halve::<R, L, 1>(&mut v);
    v[0]
}

/// Adds the second `W` elements to the first, if there are as many.
#[inline(always)]
fn halve<R: Real, const L: usize, const W: usize>(v: &mut [R; L]) {
    if L >= 2 * W {
        for l in 0..W {
            v[l] += v[l + W];
        }
    }
}

/// Largest of the lanes, none of which is NaN, halves against halves.
#[inline(always)]
pub(crate) fn most_of<R: Real>(mut v: [R; 16]) -> R {
    larger_half::<R, 8>(&mut v);
    larger_half::<R, 4>(&mut v);
    larger_half::<R, 2>(&mut v);
    larger_half::<R, 1>(&mut v);
    v[0]
}

#[inline(always)]
fn larger_half<R: Real, const W: usize>(v: &mut [R; 16]) {
    for l in 0..W {
        v[l] = if v[l + W] > v[l] { v[l + W] } else { v[l] };
    }
}

/// Sums of eight vectors, all at once, in the order of [`total`].
#[inline(always)]
pub(crate) fn totals<R: Real>(v: [[R; 16]; 8]) -> [R; 8] {
    let mut by_8 = [[R::ZERO; 8]; 8];
    for r in 0..8 {
        for l in 0..8 {
            by_8[r][l] = v[r][l] + v[r][l + 8];
        }
    }
    let mut by_4 = [[R::ZERO; 8]; 4];
    for r in 0..8 {
        for l in 0..4 {
            by_4[l][r] = by_8[r][l] + by_8[r][l + 4];
        }
    }
    let mut y = [R::ZERO; 8];
    for r in 0..8 {
        y[r] = (by_4[0][r] + by_4[2][r]) + (by_4[1][r] + by_4[3][r]);
    }
    y
}

/// Sum of `f(0) .. f(n − 1)` in sixteen interleaved partial sums: the order depends on `n` alone.
#[inline]
pub(crate) fn sum_by<R: Real>(n: usize, f: impl Fn(usize) -> R) -> R {
    let mut sums = [R::ZERO; 16];
    let mut i = 0;
    while i + 16 <= n {
        for l in 0..16 {
            sums[l] += f(i + l);
        }
        i += 16;
    }
    for l in 0..n - i {
        sums[l] += f(i + l);
    }
    total(sums)
}

/// Whether `x` is not a number.
#[inline]
pub(crate) fn is_nan<R: Real>(x: R) -> bool {
    x.to_f64().is_nan()
}
