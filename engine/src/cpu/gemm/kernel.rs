//! The register tile: up to 6 rows by up to 4 vectors of the result, over all of `k`.

use super::Accumulate;
use crate::cpu::simd::Vector;

/// One tile of a product: element `(i, k)` of `a` at `a + i * a_row + k * a_k`, row `k` of `b` at `b + k * b_k`
/// and as long as whole vectors, in panels of `V::PANEL` of them `b_panel` apart, row `i` of `c` at `c + i * ldc`, of which `cols` elements count.
#[derive(Clone, Copy)]
pub(super) struct Tile<R> {
    pub(super) k: usize,
    pub(super) a: *const R,
    pub(super) a_row: usize,
    pub(super) a_k: usize,
    pub(super) b: *const R,
    pub(super) b_k: usize,
    /// Elements from a panel of `b` to the next, for a tile of several.
    pub(super) b_panel: usize,
    pub(super) c: *mut R,
    pub(super) ldc: usize,
    pub(super) cols: usize,
    pub(super) accumulate: Accumulate,
}

/// Runs a tile of so many rows and vectors, at most `V::ROWS` and `V::PANEL`.
///
/// # Safety
///
/// The contract of [`Vector`]; the operands readable and the result writable over the tile.
#[inline(always)]
pub(super) unsafe fn tile<V: Vector>(rows: usize, vectors: usize, t: Tile<V::Scalar>) {
    // SAFETY: the caller's contract is the same.
    unsafe {
        match vectors {
            1 => columns::<V, 1>(rows, t),
            2 if V::PANEL >= 2 => columns::<V, 2>(rows, t),
            3 if V::PANEL >= 3 => columns::<V, 3>(rows, t),
            4 if V::PANEL >= 4 => columns::<V, 4>(rows, t),
            _ => unreachable!("bug: gemm tile of {vectors} vectors"),
        }
    }
}

/// Runs a tile of up to three rows and two whole panels: with one row or two, a panel alone has fewer sums than
/// multiply-adds are under way.
///
/// # Safety
///
/// As [`tile`].
#[inline(always)]
pub(super) unsafe fn two_panels<V: Vector>(rows: usize, t: Tile<V::Scalar>) {
    // SAFETY: the caller's contract is the same.
    unsafe {
        match (V::PANEL, rows) {
            (4, 1) => micro::<V, 1, 8>(t),
            (4, 2) => micro::<V, 2, 8>(t),
            (4, 3) => micro::<V, 3, 8>(t),
            (3, 1) => micro::<V, 1, 6>(t),
            (3, 2) => micro::<V, 2, 6>(t),
            (3, 3) => micro::<V, 3, 6>(t),
            (2, 1) => micro::<V, 1, 4>(t),
            (2, 2) => micro::<V, 2, 4>(t),
            (2, 3) => micro::<V, 3, 4>(t),
            (1, 1) => micro::<V, 1, 2>(t),
            (1, 2) => micro::<V, 2, 2>(t),
            (1, 3) => micro::<V, 3, 2>(t),
            _ => unreachable!("bug: gemm tile of {rows} rows and two panels of {}", V::PANEL),
        }
    }
}

/// Runs a tile of one row and four whole panels, which reads a matrix from the second-level cache as fast as that gives
/// it.
///
/// # Safety
///
/// As [`tile`].
#[inline(always)]
pub(super) unsafe fn four_panels<V: Vector>(t: Tile<V::Scalar>) {
    // SAFETY: the caller's contract is the same.
    unsafe {
        match V::PANEL {
            4 => micro::<V, 1, 16>(t),
            3 => micro::<V, 1, 12>(t),
            2 => micro::<V, 1, 8>(t),
            1 => micro::<V, 1, 4>(t),
            panel => unreachable!("bug: gemm tile of four panels of {panel}"),
        }
    }
}

#[inline(always)]
unsafe fn columns<V: Vector, const NV: usize>(rows: usize, t: Tile<V::Scalar>) {
    // SAFETY: the caller's contract is the same.
    unsafe {
        match rows {
            1 => micro::<V, 1, NV>(t),
            2 => micro::<V, 2, NV>(t),
            3 => micro::<V, 3, NV>(t),
            4 => micro::<V, 4, NV>(t),
            6 if V::ROWS >= 6 => micro::<V, 6, NV>(t),
            _ => unreachable!("bug: gemm tile of {rows} rows"),
        }
    }
}

/// Repeats a statement for every row of a tile, `$i` being a constant: loops as long as these are not unrolled
/// reliably, and an accumulator indexed by a variable does not stay in a register.
macro_rules! rows {
    ($rows:ident, $i:ident => $body:block) => {
        rows!(@ $rows, $i, $body, 0 1 2 3 4 5)
    };
    (@ $rows:ident, $i:ident, $body:block, $($n:literal)*) => { $(
        if $n < $rows {
            const $i: usize = $n;
            $body
        }
    )* };
}

/// Subtraction keeps minus the chain in the registers: negation is exact, so that is the chain of negated
/// fused multiply-adds.
#[inline(always)]
unsafe fn micro<V: Vector, const MR: usize, const NV: usize>(t: Tile<V::Scalar>) {
    // SAFETY: the caller vouches for the operands over the tile. Only the last vector of a row of `c` can be
    // partial. The accumulator has room for all rows the macro names; those beyond `MR` are never touched.
    unsafe {
        let last = t.cols - (NV - 1) * V::LANES;
        let mut acc = [[V::zero(); NV]; 6];
        if t.accumulate != Accumulate::Set {
            rows!(MR, I => {
                for v in 0..NV {
                    let p = t.c.add(I * t.ldc + v * V::LANES);
                    let y = if v + 1 < NV || last == V::LANES { V::load(p) } else { V::load_n(p, last) };
                    acc[I][v] = if t.accumulate == Accumulate::Sub { y.neg() } else { y };
                }
            });
        }
        let (mut a, mut b) = (t.a, t.b);
        for _ in 0..t.k {
            let mut row = [V::zero(); NV];
            for v in 0..NV {
                row[v] = V::load(b.add(v / V::PANEL * t.b_panel + v % V::PANEL * V::LANES));
            }
            rows!(MR, I => {
                let x = V::splat(*a.add(I * t.a_row));
                for v in 0..NV {
                    acc[I][v] = x.mul_add(row[v], acc[I][v]);
                }
            });
            // Past the end after the last round, where nothing is read.
            a = a.wrapping_add(t.a_k);
            b = b.wrapping_add(t.b_k);
        }
        rows!(MR, I => {
            for v in 0..NV {
                let p = t.c.add(I * t.ldc + v * V::LANES);
                let y = if t.accumulate == Accumulate::Sub { acc[I][v].neg() } else { acc[I][v] };
                if v + 1 < NV || last == V::LANES {
                    y.store(p);
                } else {
                    y.store_n(p, last);
                }
            }
        });
    }
}
