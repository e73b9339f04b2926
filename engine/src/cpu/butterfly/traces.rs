//! Partial traces: what the gradients of the factors are made of.

use super::RowsRef;
use crate::cpu::real::{Kernel, Real};
use crate::cpu::simd::Vector;

/// Arguments of [`butterfly_traces`](super::butterfly_traces), checked there.
pub struct TraceArgs<'a, R> {
    pub(super) factors: usize,
    pub(super) rows: usize,
    pub(super) a: RowsRef<'a, R>,
    pub(super) x: RowsRef<'a, R>,
    pub(super) scratch: &'a mut [R],
    pub(super) sums: &'a mut [[[R; 2]; 4]],
    pub(super) complex: bool,
}

impl<R: Real> Kernel<R> for TraceArgs<'_, R> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector<Scalar = R>>(self) {
        // SAFETY: the contract of the arguments, checked by the caller.
        unsafe { if self.complex { all::<V, true>(self) } else { all::<V, false>(self) } }
    }
}

type Pair<V> = (V, V);

/// One of the two operands: planes and distance of rows.
#[derive(Clone, Copy)]
struct Source<S> {
    re: *const S,
    im: *const S,
    stride: usize,
}

impl<S: Copy> Source<S> {
    fn new(rows: RowsRef<'_, S>) -> Source<S> {
        Source { re: rows.re.as_ptr(), im: rows.im.as_ptr(), stride: rows.stride }
    }

    #[inline(always)]
    unsafe fn load<V: Vector<Scalar = S>, const C: bool>(self, row: usize, at: usize) -> Pair<V> {
        // SAFETY: the caller's word that the vector lies in the row.
        unsafe {
            let at = row * self.stride + at * V::LANES;
            let re = V::load(self.re.add(at));
            (re, if C { V::load(self.im.add(at)) } else { re })
        }
    }
}

/// `sum += a conj(x)`.
#[inline(always)]
unsafe fn acc<V: Vector, const C: bool>(sum: &mut Pair<V>, a: Pair<V>, x: Pair<V>) {
    // SAFETY: the caller upholds the contract of `Vector`.
    unsafe {
        sum.0 = a.0.mul_add(x.0, sum.0);
        if C {
            sum.0 = a.1.mul_add(x.1, sum.0);
            sum.1 = a.1.mul_add(x.0, sum.1);
            sum.1 = a.0.neg_mul_add(x.1, sum.1);
        }
    }
}

#[inline(always)]
unsafe fn all<V: Vector, const C: bool>(args: TraceArgs<'_, V::Scalar>) {
    let TraceArgs { factors, rows, a, x, scratch, sums, .. } = args;
    let least = V::LANES.trailing_zeros() as usize;
    let (across, width) = (factors - least, 1 << factors);
    let vectors = 1 << across;
    scratch[..2 * width].fill(V::Scalar::ZERO);
    let diagonal = scratch.as_mut_ptr();
    let (a, x) = (Source::new(a), Source::new(x));
    let first = across.min(2);
    // SAFETY: `rows` rows of `vectors` vectors in both operands, twice that many elements in `diagonal`.
    unsafe {
        let (head, tail) = sums[..factors].split_at_mut(across);
        let inner = &mut head[across - first..];
        match first {
            0 => near::<V, C, 0>(rows, vectors, a, x, diagonal, inner, tail),
            1 => near::<V, C, 1>(rows, vectors, a, x, diagonal, inner, tail),
            _ => near::<V, C, 2>(rows, vectors, a, x, diagonal, inner, tail),
        }
        let mut done = first;
        while done < across {
            let take = (across - done).min(3);
            let here = &mut head[across - done - take..across - done];
            match take {
                1 => far::<V, C, 1>(rows, vectors, 1 << done, a, x, here),
                2 => far::<V, C, 2>(rows, vectors, 1 << done, a, x, here),
                _ => far::<V, C, 3>(rows, vectors, 1 << done, a, x, here),
            }
            done += take;
        }
    }
    // The diagonals, from the outermost factor inwards: each halves what is left.
    let (re, im) = scratch[..2 * width].split_at_mut(width);
    let mut half = width;
    for sum in sums[..factors].iter_mut() {
        half /= 2;
        for (plane, from) in [&mut *re, &mut *im].into_iter().enumerate() {
            let (low, high) = from.split_at_mut(half);
            sum[0][plane] = total(low);
            sum[3][plane] = total(&high[..half]);
            for (l, h) in low.iter_mut().zip(&*high) {
                *l += *h;
            }
        }
    }
}

/// Sum in sixteen interleaved chains.
#[inline(always)]
fn total<R: Real>(x: &[R]) -> R {
    let mut sums = [R::ZERO; 16];
    let mut chunks = x.chunks_exact(16);
    for chunk in &mut chunks {
        for l in 0..16 {
            sums[l] += chunk[l];
        }
    }
    for (s, x) in sums.iter_mut().zip(chunks.remainder()) {
        *s += *x;
    }
    let mut width = 8;
    while width > 0 {
        for l in 0..width {
            let high = sums[l + width];
            sums[l] += high;
        }
        width /= 2;
    }
    sums[0]
}

/// The diagonals, the `K` innermost factors between vectors, and the factors within vectors.
#[inline(always)]
unsafe fn near<V: Vector, const C: bool, const K: usize>(
    rows: usize,
    vectors: usize,
    a: Source<V::Scalar>,
    x: Source<V::Scalar>,
    diagonal: *mut V::Scalar,
    across: &mut [[[V::Scalar; 2]; 4]],
    within: &mut [[[V::Scalar; 2]; 4]],
) {
    let width = vectors * V::LANES;
    // SAFETY: the caller's word on operands and diagonal; groups of `2^K` vectors divide the row.
    unsafe {
        let zero = (V::zero(), V::zero());
        let mut between = [zero; 4];
        let mut inside = [zero; 4];
        for r in 0..rows {
            let mut i = 0;
            while i < vectors {
                let mut u = [zero; 4];
                for k in 0..1 << K {
                    u[k] = x.load::<V, C>(r, i + k);
                }
                for k in 0..1 << K {
                    let v = a.load::<V, C>(r, i + k);
                    let at = diagonal.add((i + k) * V::LANES);
                    let mut d = (V::load(at), V::load(at.add(width)));
                    acc::<V, C>(&mut d, v, u[k]);
                    d.0.store(at);
                    if C {
                        d.1.store(at.add(width));
                    }
                    for f in 0..K {
                        // Entry 01 for the lower vector, 10 for the upper one.
                        let distance = 1 << (K - 1 - f);
                        acc::<V, C>(&mut between[2 * f + usize::from(k & distance != 0)], v, u[k ^ distance]);
                    }
                    if V::LANES > 8 {
                        acc::<V, C>(&mut inside[0], v, (u[k].0.swap::<8>(), u[k].1.swap::<8>()));
                    }
                    if V::LANES > 4 {
                        acc::<V, C>(&mut inside[1], v, (u[k].0.swap::<4>(), u[k].1.swap::<4>()));
                    }
                    if V::LANES > 2 {
                        acc::<V, C>(&mut inside[2], v, (u[k].0.swap::<2>(), u[k].1.swap::<2>()));
                    }
                    acc::<V, C>(&mut inside[3], v, (u[k].0.swap::<1>(), u[k].1.swap::<1>()));
                }
                i += 1 << K;
            }
        }
        for (f, sum) in across.iter_mut().enumerate() {
            for (entry, s) in [(1, between[2 * f]), (2, between[2 * f + 1])] {
                sum[entry] = [lanes_of::<V>(s.0, 0, 0), lanes_of::<V>(s.1, 0, 0)];
            }
        }
        for (f, sum) in within.iter_mut().enumerate() {
            let s = inside[4 - within_len::<V>() + f];
            let distance = V::LANES >> (f + 1);
            for (entry, bit) in [(1, 0), (2, distance)] {
                sum[entry] = [lanes_of::<V>(s.0, distance, bit), lanes_of::<V>(s.1, distance, bit)];
            }
        }
    }
}

/// Number of factors within a vector.
#[inline(always)]
fn within_len<V: Vector>() -> usize {
    V::LANES.trailing_zeros() as usize
}

/// Sum of the lanes `l` with `l & mask == bit`, in ascending order.
#[inline(always)]
unsafe fn lanes_of<V: Vector>(v: V, mask: usize, bit: usize) -> V::Scalar {
    let mut lanes = [V::Scalar::ZERO; 16];
    // SAFETY: at most 16 lanes.
    unsafe { v.store(lanes.as_mut_ptr()) };
    let mut sum = V::Scalar::ZERO;
    for l in 0..V::LANES {
        if l & mask == bit {
            sum += lanes[l];
        }
    }
    sum
}

/// `K` factors between vectors `stride` and more apart.
#[inline(always)]
unsafe fn far<V: Vector, const C: bool, const K: usize>(
    rows: usize,
    vectors: usize,
    stride: usize,
    a: Source<V::Scalar>,
    x: Source<V::Scalar>,
    sums: &mut [[[V::Scalar; 2]; 4]],
) {
    // SAFETY: the caller's word on the operands; blocks of `2^K` times the stride divide the row.
    unsafe {
        let zero = (V::zero(), V::zero());
        let mut between = [zero; 6];
        for r in 0..rows {
            let mut block = 0;
            while block < vectors {
                for i in block..block + stride {
                    let mut u = [zero; 8];
                    for k in 0..1 << K {
                        u[k] = x.load::<V, C>(r, i + k * stride);
                    }
                    for k in 0..1 << K {
                        let v = a.load::<V, C>(r, i + k * stride);
                        for f in 0..K {
                            let distance = 1 << (K - 1 - f);
                            let entry = 2 * f + usize::from(k & distance != 0);
                            acc::<V, C>(&mut between[entry], v, u[k ^ distance]);
                        }
                    }
                }
                block += stride << K;
            }
        }
        for (f, sum) in sums.iter_mut().enumerate() {
            for (entry, s) in [(1, between[2 * f]), (2, between[2 * f + 1])] {
                sum[entry] = [lanes_of::<V>(s.0, 0, 0), lanes_of::<V>(s.1, 0, 0)];
            }
        }
    }
}
