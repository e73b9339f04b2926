//! Row-major real matrix products with a fixed order of summation.
//!
//! Every element of the result is one chain of fused multiply-adds over ascending `k` (or row, in [`gemm_tn`]).
//! The chain may be interrupted by a store and a reload, which keep all bits. So a product may be split over
//! rows, columns and `k` (with [`Accumulate::Add`]) at will.

mod kernel;
mod pack;
mod peak;
#[cfg(test)]
mod tests;
mod tn;

use std::mem::MaybeUninit;

use super::isa::Isa;
use super::real::{Kernel, Real};
use super::simd::Vector;

pub use pack::{pack, packed_len};
pub use peak::product_peak;
pub use tn::{Rows, TnArgs, gemm_tn, gemm_tn_raw};

/// What a product does with what is in the result already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Accumulate {
    /// `c = Σ`.
    Set,
    /// `c = c + Σ`, the chain going on from `c`.
    Add,
    /// `c = c - Σ`, the chain going on from `c`.
    Sub,
}

/// Arguments of [`gemm_packed_raw`].
pub struct GemmArgs<R> {
    m: usize,
    k: usize,
    n: usize,
    a: *const R,
    lda: usize,
    packed: *const R,
    c: *mut R,
    ldc: usize,
    accumulate: Accumulate,
}

/// `c[i,j] = (0 or c[i,j]) ± Σ_k a[i,k] b[k,j]` for `a [m,k]`, `b [k,n]` packed by [`pack`] for the same
/// instruction set, `c [m,n]`; `lda`, `ldc` are elements from one row to the next.
///
/// Panics (`bug:`) if a slice is too short for its sizes.
pub fn gemm_packed<R: Real>(
    isa: Isa,
    m: usize,
    k: usize,
    n: usize,
    a: &[R],
    lda: usize,
    packed: &[R],
    c: &mut [R],
    ldc: usize,
    accumulate: Accumulate,
) {
    check("gemm_packed", "a", a.len(), m, k, lda);
    check("gemm_packed", "c", c.len(), m, n, ldc);
    let needed = packed_len::<R>(isa, k, n);
    assert!(packed.len() >= needed, "bug: gemm_packed: packed b has {}, needs {needed}", packed.len());
    // SAFETY: the slices are long enough, and borrowed.
    unsafe {
        gemm_packed_raw(isa, m, k, n, a.as_ptr(), lda, packed.as_ptr(), c.as_mut_ptr(), ldc, accumulate)
    }
}

/// [`gemm_packed`] by pointer, so that several threads can work on columns of one result.
///
/// # Safety
///
/// `a`, `packed` and `c` are valid for what [`gemm_packed`] reads and writes; no other thread touches the
/// elements of `c` meanwhile; `c` overlaps neither `a` nor `packed`.
pub unsafe fn gemm_packed_raw<R: Real>(
    isa: Isa,
    m: usize,
    k: usize,
    n: usize,
    a: *const R,
    lda: usize,
    packed: *const R,
    c: *mut R,
    ldc: usize,
    accumulate: Accumulate,
) {
    // SAFETY: the caller's word.
    unsafe { R::gemm(isa, GemmArgs { m, k, n, a, lda, packed, c, ldc, accumulate }) }
}

/// Checks that a matrix fits its slice.
#[track_caller]
fn check(op: &str, what: &str, len: usize, rows: usize, cols: usize, stride: usize) {
    if rows == 0 || cols == 0 {
        return;
    }
    assert!(stride >= cols || rows == 1, "bug: {op}: {what} has row stride {stride}, needs {cols}");
    let needed = (rows - 1).checked_mul(stride).and_then(|x| x.checked_add(cols));
    assert!(
        needed.is_some_and(|needed| len >= needed),
        "bug: {op}: {what} [{rows},{cols}] with row stride {stride} does not fit in {len}"
    );
}

/// Rows of the tile that starts with `left` rows to go: the tallest, but the last two are about equal.
#[inline(always)]
fn tile_rows(left: usize, tallest: usize) -> usize {
    match left {
        5 if tallest >= 6 => 3,
        7 | 8 if tallest >= 6 => 4,
        5 => 3,
        l if l >= tallest => tallest,
        l => l,
    }
}

/// Rows and columns of `a` that are copied together where its rows lie badly.
const A_ROWS: usize = 64;
const A_COLS: usize = 256;
/// Elements between rows of the copy: a few cache lines more than its columns.
const A_STRIDE: usize = A_COLS + 16;
/// Rows so many bytes apart share one set of the first-level cache, which a tile's rows then do not fit.
const ALIAS: usize = 4096;

impl<R: Real> Kernel<R> for GemmArgs<R> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector<Scalar = R>>(self) {
        let panel_cols = V::PANEL * V::LANES;
        let mut copy = [const { MaybeUninit::<R>::uninit() }; A_ROWS * A_STRIDE];
        let copy = copy.as_mut_ptr().cast::<R>();
        let aliased = (self.lda * size_of::<R>()).is_multiple_of(ALIAS);
        let copies = aliased && self.m >= 4 && self.k >= 2 * A_COLS && self.n > panel_cols;
        let (block_rows, block_cols) = if copies { (A_ROWS, A_COLS) } else { (self.m, self.k) };
        let mut i0 = 0;
        while i0 < self.m {
            let m = block_rows.min(self.m - i0);
            let (mut k0, mut accumulate) = (0, self.accumulate);
            loop {
                let k = block_cols.min(self.k - k0);
                let (mut a, mut lda) = (self.a.wrapping_add(i0 * self.lda + k0), self.lda);
                if copies {
                    for r in 0..m {
                        // SAFETY: rows `i0..i0 + m` and columns `k0..k0 + k` of `a` exist, by the caller's word,
                        // and fit in the copy.
                        unsafe { std::ptr::copy_nonoverlapping(a.add(r * lda), copy.add(r * A_STRIDE), k) }
                    }
                    (a, lda) = (copy, A_STRIDE);
                }
                let mut j = 0;
                while j < self.n {
                    let panels = match (m, (self.n - j) / panel_cols) {
                        (1, 4..) => 4,
                        (1..=3, 2..) => 2,
                        _ => 1,
                    };
                    let cols = (panels * panel_cols).min(self.n - j);
                    // Of a panel.
                    let vectors = (cols / panels).div_ceil(V::LANES);
                    let mut i = 0;
                    while i < m {
                        let rows = tile_rows(m - i, V::ROWS);
                        // SAFETY: the tile lies in the matrices, for which the caller has given its word. All
                        // panels before this one are full, so it starts `self.k * j` elements into the packed
                        // matrix.
                        unsafe {
                            let tile = kernel::Tile {
                                k,
                                a: a.add(i * lda),
                                a_row: lda,
                                a_k: 1,
                                b: self.packed.add(self.k * j + k0 * vectors * V::LANES),
                                b_k: vectors * V::LANES,
                                b_panel: self.k * panel_cols,
                                c: self.c.add((i0 + i) * self.ldc + j),
                                ldc: self.ldc,
                                cols,
                                accumulate,
                            };
                            match panels {
                                4 => kernel::four_panels::<V>(tile),
                                2 => kernel::two_panels::<V>(rows, tile),
                                _ => kernel::tile::<V>(rows, vectors, tile),
                            }
                        }
                        i += rows;
                    }
                    j += cols;
                }
                k0 += k;
                if k0 >= self.k {
                    break;
                }
                if accumulate == Accumulate::Set {
                    accumulate = Accumulate::Add;
                }
            }
            i0 += m;
        }
    }
}
