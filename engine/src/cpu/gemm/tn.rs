//! `c += aᵀ b` over many rows: the gradient of a weight, deferred to the end of a chunk of time.

use std::mem::MaybeUninit;

use super::{ALIAS, Accumulate, check, kernel, tile_rows};
use crate::cpu::isa::Isa;
use crate::cpu::real::{Kernel, Real};
use crate::cpu::simd::Vector;

/// Rows of `a` and `b` taken together; their packed columns stay in the L1 cache.
const ROWS: usize = 64;
/// The same where the result is larger than [`LARGE`] bytes: it is read and written for every such block of rows, and
/// comes from further away than the packed columns.
const LARGE_ROWS: usize = 256;
const LARGE: usize = 1 << 19;
/// Columns of `a` packed together, a multiple of every tile height.
const A_COLS: usize = 192;

/// Panels of `b` up to which `a` is read where it lies.
const FEW_PANELS: usize = 4;

/// Size of the buffer for the transpose of a result of few columns.
const NARROW_ROWS: usize = 8;
const NARROW_COLS: usize = 128;

/// Arguments of [`gemm_tn_raw`].
pub struct TnArgs<R> {
    rows: usize,
    m: usize,
    n: usize,
    a: *const R,
    lda: usize,
    b: *const R,
    ldb: usize,
    c: *mut R,
    ldc: usize,
    accumulate: Accumulate,
}

/// `c[i,j] = (0 or c[i,j]) ± Σ_r a[r,i] b[r,j]` for `a [rows,m]`, `b [rows,n]`, `c [m,n]`, over ascending `r`;
/// `lda`, `ldb`, `ldc` are elements from one row to the next.
///
/// Panics (`bug:`) if a slice is too short for its sizes.
pub fn gemm_tn<R: Real>(
    isa: Isa,
    rows: usize,
    m: usize,
    n: usize,
    a: &[R],
    lda: usize,
    b: &[R],
    ldb: usize,
    c: &mut [R],
    ldc: usize,
    accumulate: Accumulate,
) {
    check("gemm_tn", "a", a.len(), rows, m, lda);
    check("gemm_tn", "b", b.len(), rows, n, ldb);
    check("gemm_tn", "c", c.len(), m, n, ldc);
    // SAFETY: the slices are long enough, and borrowed.
    unsafe { gemm_tn_raw(isa, rows, m, n, a.as_ptr(), lda, b.as_ptr(), ldb, c.as_mut_ptr(), ldc, accumulate) }
}

/// [`gemm_tn`] by pointer, so that several threads can work on columns of one result.
///
/// # Safety
///
/// `a`, `b` and `c` are valid for what [`gemm_tn`] reads and writes; no other thread touches the elements of
/// `c` meanwhile; `c` overlaps neither `a` nor `b`.
pub unsafe fn gemm_tn_raw<R: Real>(
    isa: Isa,
    rows: usize,
    m: usize,
    n: usize,
    a: *const R,
    lda: usize,
    b: *const R,
    ldb: usize,
    c: *mut R,
    ldc: usize,
    accumulate: Accumulate,
) {
    // SAFETY: the caller's word.
    unsafe { R::gemm_tn(isa, TnArgs { rows, m, n, a, lda, b, ldb, c, ldc, accumulate }) }
}

impl<R: Real> Kernel<R> for TnArgs<R> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector<Scalar = R>>(self) {
        // Few columns: the transpose of the product, so that vectors run along `m`. A product of two numbers
        // does not depend on their order, so the bits are the same.
        let narrow = self.n < self.m && self.n * 2 <= V::LANES;
        let mut buffer = [R::ZERO; NARROW_COLS * NARROW_ROWS];
        let mut i = 0;
        loop {
            let cols = NARROW_COLS.min(self.m - i);
            // SAFETY: the caller of `gemm_tn_raw` has given its word. If narrow, `n <= NARROW_ROWS` rows of
            // `cols` fit in the buffer; columns `i..i + cols` of `a` and rows of `c` exist.
            unsafe {
                if narrow {
                    for r in 0..cols {
                        for j in 0..self.n {
                            buffer[j * NARROW_COLS + r] = *self.c.add((i + r) * self.ldc + j);
                        }
                    }
                }
                let part = TnArgs {
                    m: self.n,
                    n: cols,
                    a: self.b,
                    lda: self.ldb,
                    b: self.a.wrapping_add(i),
                    ldb: self.lda,
                    c: buffer.as_mut_ptr(),
                    ldc: NARROW_COLS,
                    ..self
                };
                // The only call, because all tiles are inlined in it.
                wide::<V>(if narrow { &part } else { &self });
                if !narrow {
                    return;
                }
                for r in 0..cols {
                    for j in 0..self.n {
                        self.c.add((i + r) * self.ldc + j).write(buffer[j * NARROW_COLS + r]);
                    }
                }
            }
            i += cols;
            if i >= self.m {
                return;
            }
        }
    }
}

#[inline(always)]
unsafe fn wide<V: Vector>(t: &TnArgs<V::Scalar>) {
    let panel_cols = V::PANEL * V::LANES;
    let mut packed_b = [const { MaybeUninit::<V>::uninit() }; LARGE_ROWS * 4];
    let mut packed_a = [const { MaybeUninit::<V::Scalar>::uninit() }; LARGE_ROWS * A_COLS];
    let large = t.m * t.n * size_of::<V::Scalar>() > LARGE;
    let block = if large { LARGE_ROWS } else { ROWS };
    // Columns of `a` are read once for each panel of `b`: few times, and they are not worth packing, unless its rows
    // share sets of the cache.
    let packs = t.n > FEW_PANELS * panel_cols || (t.lda * size_of::<V::Scalar>()).is_multiple_of(ALIAS);
    let mut r = 0;
    let mut accumulate = t.accumulate;
    loop {
        let rows = block.min(t.rows - r);
        let mut i0 = 0;
        while i0 < t.m {
            let m = A_COLS.min(t.m - i0);
            let lying = t.a.wrapping_add(r * t.lda + i0);
            let a = if packs {
                let to = packed_a.as_mut_ptr().cast::<V::Scalar>();
                // SAFETY: rows `r..r + rows` and columns `i0..i0 + m` of `a` exist, by the caller's word, and fit.
                unsafe { pack_a(to, lying, t.lda, rows, m, V::ROWS) };
                to.cast_const()
            } else {
                lying
            };
            let mut j = 0;
            while j < t.n {
                let cols = panel_cols.min(t.n - j);
                let vectors = cols.div_ceil(V::LANES);
                // A single row of tiles reads whole vectors where they lie.
                let in_place = m <= V::ROWS && cols % V::LANES == 0;
                let (b, b_k) = if in_place {
                    (t.b.wrapping_add(r * t.ldb + j), t.ldb)
                } else {
                    let to = packed_b.as_mut_ptr().cast::<V::Scalar>();
                    // SAFETY: as for `a`; `vectors <= 4`.
                    unsafe { pack_b::<V>(to, t.b.wrapping_add(r * t.ldb + j), t.ldb, rows, cols, vectors) };
                    (to.cast_const(), vectors * V::LANES)
                };
                let mut i = 0;
                while i < m {
                    let tall = tile_rows(m - i, V::ROWS);
                    // SAFETY: the tile lies in the packed blocks and in `c`. Tiles before this one fill
                    // `rows * i` elements of the packed `a`.
                    unsafe {
                        let tile = kernel::Tile {
                            k: rows,
                            a: a.add(if packs { rows * i } else { i }),
                            a_row: 1,
                            a_k: if packs { tall } else { t.lda },
                            b,
                            b_k,
                            c: t.c.add((i0 + i) * t.ldc + j),
                            ldc: t.ldc,
                            cols,
                            accumulate,
                        };
                        kernel::tile::<V>(tall, vectors, tile);
                    }
                    i += tall;
                }
                j += cols;
            }
            i0 += m;
        }
        r += rows;
        if r >= t.rows {
            break;
        }
        if accumulate == Accumulate::Set {
            accumulate = Accumulate::Add;
        }
    }
}

/// Columns of `a` in groups as wide as the tiles are tall, each group row after row.
///
/// # Safety
///
/// `from` has `rows` rows of `m`, `stride` apart; `to` has room for all.
#[inline(always)]
unsafe fn pack_a<R: Copy>(
    mut to: *mut R,
    from: *const R,
    stride: usize,
    rows: usize,
    m: usize,
    tallest: usize,
) {
    let mut i = 0;
    while i < m {
        let tall = tile_rows(m - i, tallest);
        for r in 0..rows {
            for x in 0..tall {
                // SAFETY: the caller's word.
                unsafe {
                    to.write(*from.add(r * stride + i + x));
                    to = to.add(1);
                }
            }
        }
        i += tall;
    }
}

/// Columns of `b` as rows of whole vectors, padded with zeros.
///
/// # Safety
///
/// The contract of [`Vector`]; `from` has `rows` rows of `cols`, `stride` apart; `to` has room for
/// `rows * vectors` vectors, and `cols` fill `vectors` but for the last one's end.
#[inline(always)]
unsafe fn pack_b<V: Vector>(
    to: *mut V::Scalar,
    from: *const V::Scalar,
    stride: usize,
    rows: usize,
    cols: usize,
    vectors: usize,
) {
    for r in 0..rows {
        for v in 0..vectors {
            // SAFETY: the caller's word.
            unsafe {
                let p = from.add(r * stride + v * V::LANES);
                let left = cols - v * V::LANES;
                let x = if left >= V::LANES { V::load(p) } else { V::load_n(p, left) };
                x.store(to.add((r * vectors + v) * V::LANES));
            }
        }
    }
}
