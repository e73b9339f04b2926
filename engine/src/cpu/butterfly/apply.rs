//! The product itself.

use super::{RowsMut, RowsRef};
use crate::cpu::real::{Kernel, Real};
use crate::cpu::simd::Vector;

/// Arguments of [`butterfly`](super::butterfly), checked there.
pub struct ApplyArgs<'a, R> {
    pub(super) factors: usize,
    pub(super) rows: usize,
    pub(super) coefficients: &'a [R],
    /// What the results are multiplied by, if by anything: real parts, then imaginary ones.
    pub(super) diagonal: Option<&'a [R]>,
    pub(super) x: RowsRef<'a, R>,
    pub(super) y: RowsMut<'a, R>,
    pub(super) complex: bool,
}

impl<R: Real> Kernel<R> for ApplyArgs<'_, R> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector<Scalar = R>>(self) {
        // SAFETY: the contract of the arguments, checked by the caller.
        unsafe {
            match (self.complex, self.diagonal.is_some()) {
                (false, false) => rows::<V, false, false>(self),
                (false, true) => rows::<V, false, true>(self),
                (true, false) => rows::<V, true, false>(self),
                (true, true) => rows::<V, true, true>(self),
            }
        }
    }
}

/// Real and imaginary parts of `LANES` elements.
type Pair<V> = (V, V);

/// First elements of the two planes of a row.
type Planes<S> = (*const S, *const S);
type PlanesMut<S> = (*mut S, *mut S);

/// All rows; complex if `C`, with what was taken out of the factors' rows as a diagonal if `D`.
#[inline(always)]
unsafe fn rows<V: Vector, const C: bool, const D: bool>(args: ApplyArgs<'_, V::Scalar>) {
    let ApplyArgs { factors, rows, coefficients, diagonal, x, y, .. } = args;
    let least = V::LANES.trailing_zeros() as usize;
    let across = factors - least;
    let table = coefficients.as_ptr();
    let diagonal = diagonal.unwrap_or(coefficients);
    // Not read where it is not the diagonal.
    let diagonal = (diagonal.as_ptr(), diagonal.as_ptr().wrapping_add(1 << factors));
    for r in 0..rows {
        // SAFETY: row `r` of operands that hold all rows; passes stay within the row, the table has its length.
        unsafe {
            let mut from = (x.re.as_ptr().add(r * x.stride), x.im.as_ptr());
            let mut to = (y.re.as_ptr().cast_mut().add(r * y.stride), y.im.as_ptr().cast_mut());
            if C {
                from.1 = from.1.add(r * x.stride);
                to.1 = to.1.add(r * y.stride);
            }
            let vectors = 1 << across;
            let mut done = 0;
            while across - done > 3 {
                // At least two factors are left to the last pass, which has most to do in registers.
                let take = (across - done - 2).min(3);
                let stride = vectors >> (done + take);
                let w = table.add(8 * done);
                match take {
                    1 => pass::<V, C, D, 1>(vectors, stride, w, from, to),
                    2 => pass::<V, C, D, 2>(vectors, stride, w, from, to),
                    _ => pass::<V, C, D, 3>(vectors, stride, w, from, to),
                }
                from = (to.0.cast_const(), to.1.cast_const());
                done += take;
            }
            let (w, within) = (table.add(8 * done), table.add(8 * across));
            match across - done {
                0 => last::<V, C, D, 0>(vectors, w, within, diagonal, from, to),
                1 => last::<V, C, D, 1>(vectors, w, within, diagonal, from, to),
                2 => last::<V, C, D, 2>(vectors, w, within, diagonal, from, to),
                _ => last::<V, C, D, 3>(vectors, w, within, diagonal, from, to),
            }
        }
    }
}

#[inline(always)]
unsafe fn load<V: Vector, const C: bool>(p: Planes<V::Scalar>, at: usize) -> Pair<V> {
    // SAFETY: the caller's word that the vector lies in the row.
    unsafe {
        let re = V::load(p.0.add(at * V::LANES));
        (re, if C { V::load(p.1.add(at * V::LANES)) } else { re })
    }
}

#[inline(always)]
unsafe fn store<V: Vector, const C: bool>(p: PlanesMut<V::Scalar>, at: usize, v: Pair<V>) {
    // SAFETY: the caller's word that the vector lies in the row.
    unsafe {
        v.0.store(p.0.add(at * V::LANES));
        if C {
            v.1.store(p.1.add(at * V::LANES));
        }
    }
}

/// `K` factors whose axes step over vectors, the innermost by `stride` of them.
#[inline(always)]
unsafe fn pass<V: Vector, const C: bool, const D: bool, const K: usize>(
    vectors: usize,
    stride: usize,
    w: *const V::Scalar,
    from: Planes<V::Scalar>,
    to: PlanesMut<V::Scalar>,
) {
    let mut block = 0;
    while block < vectors {
        for i in block..block + stride {
            // SAFETY: the vectors lie in the row, whose number of vectors is a multiple of the block's.
            unsafe {
                let mut v = [load::<V, C>(from, i); 8];
                for k in 1..1 << K {
                    v[k] = load::<V, C>(from, i + k * stride);
                }
                radix::<V, C, D, K>(&mut v, w);
                for k in 0..1 << K {
                    store::<V, C>(to, i + k * stride, v[k]);
                }
            }
        }
        block += stride << K;
    }
}

/// The last `K` factors whose axes step over vectors, and those within vectors.
#[inline(always)]
unsafe fn last<V: Vector, const C: bool, const D: bool, const K: usize>(
    vectors: usize,
    w: *const V::Scalar,
    within: *const V::Scalar,
    diagonal: Planes<V::Scalar>,
    from: Planes<V::Scalar>,
    to: PlanesMut<V::Scalar>,
) {
    let mut i = 0;
    while i < vectors {
        // SAFETY: the vectors lie in the row; the table has four vectors for each factor within.
        unsafe {
            let mut v = [load::<V, C>(from, i); 8];
            for k in 1..1 << K {
                v[k] = load::<V, C>(from, i + k);
            }
            radix::<V, C, D, K>(&mut v, w);
            let mut t = within;
            if V::LANES > 8 {
                swapped::<V, C, D, K, 8>(&mut v, t);
                t = t.add(4 * V::LANES);
            }
            if V::LANES > 4 {
                swapped::<V, C, D, K, 4>(&mut v, t);
                t = t.add(4 * V::LANES);
            }
            if V::LANES > 2 {
                swapped::<V, C, D, K, 2>(&mut v, t);
                t = t.add(4 * V::LANES);
            }
            swapped::<V, C, D, K, 1>(&mut v, t);
            if D {
                for k in 0..1 << K {
                    let (re, im) = load::<V, C>(diagonal, i + k);
                    let (a, b) = v[k];
                    v[k].0 = a.mul(re);
                    if C {
                        v[k] = (b.neg_mul_add(im, a.mul(re)), a.mul_add(im, b.mul(re)));
                    }
                }
            }
            for k in 0..1 << K {
                store::<V, C>(to, i + k, v[k]);
            }
        }
        i += 1 << K;
    }
}

/// `K` factors over `2^K` vectors, the first the outermost.
#[inline(always)]
unsafe fn radix<V: Vector, const C: bool, const D: bool, const K: usize>(
    v: &mut [Pair<V>; 8],
    w: *const V::Scalar,
) {
    for k in 0..K {
        let distance = 1 << (K - 1 - k);
        for i in 0..1 << K {
            if i & distance == 0 {
                // SAFETY: eight coefficients a factor.
                unsafe { (v[i], v[i + distance]) = two::<V, C, D>(v[i], v[i + distance], w.add(8 * k)) };
            }
        }
    }
}

/// One factor over two vectors.
#[inline(always)]
unsafe fn two<V: Vector, const C: bool, const D: bool>(
    a: Pair<V>,
    b: Pair<V>,
    w: *const V::Scalar,
) -> (Pair<V>, Pair<V>) {
    // SAFETY: eight coefficients, by the caller's word.
    unsafe {
        if D {
            (plus::<V, C>(a, b, w), plus::<V, C>(b, a, w.add(2)))
        } else {
            (row::<V, C>(a, b, w), row::<V, C>(a, b, w.add(4)))
        }
    }
}

/// One row of a factor that has a 1: `a + w b`.
#[inline(always)]
unsafe fn plus<V: Vector, const C: bool>(a: Pair<V>, b: Pair<V>, w: *const V::Scalar) -> Pair<V> {
    // SAFETY: two coefficients, by the caller's word.
    unsafe {
        let r = V::splat(*w);
        let re = b.0.mul_add(r, a.0);
        if !C {
            return (re, re);
        }
        let i = V::splat(*w.add(1));
        (b.1.neg_mul_add(i, re), b.0.mul_add(i, b.1.mul_add(r, a.1)))
    }
}

/// One row of a factor: `w0 a + w1 b`.
#[inline(always)]
unsafe fn row<V: Vector, const C: bool>(a: Pair<V>, b: Pair<V>, w: *const V::Scalar) -> Pair<V> {
    // SAFETY: four coefficients, by the caller's word.
    unsafe {
        let (r0, r1) = (V::splat(*w), V::splat(*w.add(2)));
        let re = b.0.mul_add(r1, a.0.mul(r0));
        if !C {
            return (re, re);
        }
        let (i0, i1) = (V::splat(*w.add(1)), V::splat(*w.add(3)));
        let im = b.1.mul_add(r1, a.1.mul(r0));
        (b.1.neg_mul_add(i1, a.1.neg_mul_add(i0, re)), b.0.mul_add(i1, a.0.mul_add(i0, im)))
    }
}

/// One factor within vectors, between lanes `S` apart: `own ⊙ v + other ⊙ swap(v)`, with `D` all of `own` is 1.
#[inline(always)]
unsafe fn swapped<V: Vector, const C: bool, const D: bool, const K: usize, const S: usize>(
    v: &mut [Pair<V>; 8],
    table: *const V::Scalar,
) {
    // SAFETY: four vectors of coefficients, by the caller's word.
    unsafe {
        let (other_re, other_im) = (V::load(table), V::load(table.add(V::LANES)));
        let (own_re, own_im) = (V::load(table.add(2 * V::LANES)), V::load(table.add(3 * V::LANES)));
        for k in 0..1 << K {
            let (a, b) = (v[k].0, v[k].0.swap::<S>());
            let re = b.mul_add(other_re, if D { a } else { a.mul(own_re) });
            if C {
                let (c, d) = (v[k].1, v[k].1.swap::<S>());
                let im = d.mul_add(other_re, if D { c } else { c.mul(own_re) });
                let (re, im) = if D { (re, im) } else { (c.neg_mul_add(own_im, re), a.mul_add(own_im, im)) };
                v[k] = (d.neg_mul_add(other_im, re), b.mul_add(other_im, im));
            } else {
                v[k].0 = re;
            }
        }
    }
}
