//! Transposed copies: rows into the lanes of vectors and back, for kernels that work on as many rows at once.

use super::isa::Isa;
use super::real::{Kernel, Real};
use super::simd::Vector;

/// Arguments of the kernel, which reads and writes `rows` × `columns` elements.
#[derive(Debug)]
pub struct TransposeArgs<'a, R> {
    rows: usize,
    columns: usize,
    from: &'a [R],
    from_pitch: usize,
    to: &'a mut [R],
    to_pitch: usize,
}

/// `to[c · to_pitch + r] = from[r · from_pitch + c]` for `r` below `rows` and `c` below `columns`; nothing else is written.
///
/// Panics (`bug:`) if a slice is too short, or rows of one overlap.
pub fn transpose<R: Real>(
    isa: Isa,
    (rows, columns): (usize, usize),
    from: &[R],
    from_pitch: usize,
    to: &mut [R],
    to_pitch: usize,
) {
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(from.len() >= (rows - 1) * from_pitch + columns, "bug: transpose reads past the end");
    assert!(to.len() >= (columns - 1) * to_pitch + rows, "bug: transpose writes past the end");
    assert!(to_pitch >= rows, "bug: transpose writes rows that overlap");
    // SAFETY: all elements lie in the slices, just checked.
    unsafe { R::transpose(isa, TransposeArgs { rows, columns, from, from_pitch, to, to_pitch }) }
}

/// Lanes of the widest vector.
const MOST_LANES: usize = 16;

/// The lanes with bit `s` set.
///
/// # Safety
///
/// The contract of [`Vector`].
#[inline(always)]
unsafe fn lanes_with<V: Vector>(s: usize) -> V::Mask {
    let mut bit = [V::Scalar::ZERO; MOST_LANES];
    for l in 0..MOST_LANES {
        bit[l] = if l & s != 0 { V::Scalar::ONE } else { V::Scalar::ZERO };
    }
    // SAFETY: the caller upholds the contract of `Vector`; the pattern is as long as the longest vector.
    unsafe { V::zero().lt(V::load(bit.as_ptr())) }
}

/// Exchanges bit `S` of the row with bit `S` of the lane, `set` being the lanes that have it.
///
/// # Safety
///
/// The contract of [`Vector`].
#[inline(always)]
unsafe fn exchange<V: Vector, const S: usize>(m: &mut [V; MOST_LANES], set: V::Mask) {
    if V::LANES <= S {
        return;
    }
    for i in 0..V::LANES {
        if i & S == 0 {
            let (a, b) = (m[i], m[i + S]);
            // SAFETY: the caller upholds the contract of `Vector`.
            unsafe {
                m[i] = V::select(set, b.swap::<S>(), a);
                m[i + S] = V::select(set, b, a.swap::<S>());
            }
        }
    }
}

impl<R: Real> Kernel<R> for TransposeArgs<'_, R> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector<Scalar = R>>(self) {
        let TransposeArgs { rows, columns, from, from_pitch, to, to_pitch } = self;
        let (from, to) = (from.as_ptr(), to.as_mut_ptr());
        // SAFETY: the caller upholds the contract of `Vector`.
        let set = unsafe { [lanes_with::<V>(1), lanes_with::<V>(2), lanes_with::<V>(4), lanes_with::<V>(8)] };
        let mut r = 0;
        while r < rows {
            let high = V::LANES.min(rows - r);
            let mut c = 0;
            while c < columns {
                let wide = V::LANES.min(columns - c);
                // SAFETY: rows from `r` to `r + high` and columns from `c` to `c + wide` lie in both matrices, by the
                // contract of the arguments; no other element is read or written.
                unsafe {
                    let mut m = [V::zero(); MOST_LANES];
                    let whole = high == V::LANES && wide == V::LANES;
                    if whole {
                        for i in 0..V::LANES {
                            m[i] = V::load(from.add((r + i) * from_pitch + c));
                        }
                    } else {
                        for i in 0..high {
                            m[i] = V::load_n(from.add((r + i) * from_pitch + c), wide);
                        }
                    }
                    exchange::<V, 1>(&mut m, set[0]);
                    exchange::<V, 2>(&mut m, set[1]);
                    exchange::<V, 4>(&mut m, set[2]);
                    exchange::<V, 8>(&mut m, set[3]);
                    if whole {
                        for i in 0..V::LANES {
                            m[i].store(to.add((c + i) * to_pitch + r));
                        }
                    } else {
                        for i in 0..wide {
                            m[i].store_n(to.add((c + i) * to_pitch + r), high);
                        }
                    }
                }
                c += V::LANES;
            }
            r += V::LANES;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<R: Real>() {
        for isa in Isa::available() {
            for (rows, columns) in
                [(1, 1), (16, 16), (5, 243), (16, 9), (243, 16), (17, 33), (3, 2), (0, 4), (4, 0)]
            {
                let (from_pitch, to_pitch) = (columns + 3, rows + 2);
                let from: Vec<R> = (0..(rows + 1) * from_pitch).map(|i| R::from_f64(i as f64)).collect();
                let untouched = R::from_f64(-1.0);
                let mut to = vec![untouched; (columns + 1) * to_pitch];
                transpose(isa, (rows, columns), &from, from_pitch, &mut to, to_pitch);
                for (k, &got) in to.iter().enumerate() {
                    let (c, r) = (k / to_pitch, k % to_pitch);
                    let expected = if r < rows && c < columns { from[r * from_pitch + c] } else { untouched };
                    assert_eq!(got, expected, "{isa}: {rows} x {columns}, row {r}, column {c}");
                }
            }
        }
    }

    #[test]
    fn every_element_is_where_it_belongs() {
        check::<f32>();
        check::<f64>();
    }
}
