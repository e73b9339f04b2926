//! `c += aᵀ b` over many rows: the gradient of a weight, deferred to the end of a chunk of time.

use std::mem::MaybeUninit;

use super::{ALIAS, Accumulate, check, kernel, tile_rows};
use crate::cpu::isa::Isa;
use crate::cpu::real::{Kernel, Real};
use crate::cpu::simd::Vector;

/// Most rows of `a` and `b` taken together; their packed columns stay in the L1 cache.
const ROWS: usize = 128;
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

/// Rows of a matrix, in groups of equal size: those of several steps of time, say, which need not follow each other.
#[derive(Clone, Copy, Debug)]
pub struct Rows<R> {
    /// First element.
    pub ptr: *const R,
    /// Elements from one row of a group to the next; 0 is the same row again.
    pub stride: usize,
    /// Elements from one group to the next.
    pub group: usize,
}

impl<R> Rows<R> {
    /// The same rows from column `j` on.
    fn starting_at(self, j: usize) -> Rows<R> {
        Rows { ptr: self.ptr.wrapping_add(j), ..self }
    }

    /// The same rows as one group, if the groups of `rows` rows follow each other.
    fn flat(self, groups: usize, rows: usize) -> Option<Rows<R>> {
        match (groups, rows) {
            (0 | 1, _) => Some(self),
            (_, 1) => Some(Rows { stride: self.group, ..self }),
            _ => (self.group == rows * self.stride).then_some(self),
        }
    }

    /// Rows from number `at` on, one after the other, for groups of `rows`.
    #[inline(always)]
    fn walk(self, at: usize, rows: usize) -> Walk<R> {
        let (group, row) = (at / rows, at % rows);
        Walk {
            ptr: self.ptr.wrapping_add(group * self.group + row * self.stride),
            left: rows - row,
            rows,
            stride: self.stride,
            jump: self.group.wrapping_sub((rows - 1) * self.stride),
        }
    }
}

/// A walk over rows.
struct Walk<R> {
    ptr: *const R,
    /// Rows of the group from this one on.
    left: usize,
    rows: usize,
    stride: usize,
    /// Elements from the last row of a group to the first of the next.
    jump: usize,
}

impl<R> Walk<R> {
    /// This row; then the next one.
    #[inline(always)]
    fn next(&mut self) -> *const R {
        let here = self.ptr;
        self.left -= 1;
        if self.left == 0 {
            (self.ptr, self.left) = (here.wrapping_add(self.jump), self.rows);
        } else {
            self.ptr = here.wrapping_add(self.stride);
        }
        here
    }
}

/// Arguments of [`gemm_tn_raw`].
pub struct TnArgs<R> {
    groups: usize,
    rows: usize,
    m: usize,
    n: usize,
    a: Rows<R>,
    b: Rows<R>,
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
    let a = Rows { ptr: a.as_ptr(), stride: lda, group: 0 };
    let b = Rows { ptr: b.as_ptr(), stride: ldb, group: 0 };
    // SAFETY: the slices are long enough, and borrowed.
    unsafe { gemm_tn_raw(isa, (1, rows), m, n, a, b, c.as_mut_ptr(), ldc, accumulate) }
}

/// [`gemm_tn`] by pointer, so that several threads can work on columns of one result, over `groups` groups of `rows`
/// rows, one group after the other.
///
/// # Safety
///
/// `a`, `b` and `c` are valid for what [`gemm_tn`] reads and writes; no other thread touches the elements of
/// `c` meanwhile; `c` overlaps neither `a` nor `b`.
pub unsafe fn gemm_tn_raw<R: Real>(
    isa: Isa,
    (groups, rows): (usize, usize),
    m: usize,
    n: usize,
    a: Rows<R>,
    b: Rows<R>,
    c: *mut R,
    ldc: usize,
    accumulate: Accumulate,
) {
    let (groups, rows) = if rows == 0 { (1, 0) } else { (groups, rows) };
    // SAFETY: the caller's word.
    unsafe { R::gemm_tn(isa, TnArgs { groups, rows, m, n, a, b, c, ldc, accumulate }) }
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
                    b: self.a.starting_at(i),
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
    let (a_flat, b_flat) = (t.a.flat(t.groups, t.rows), t.b.flat(t.groups, t.rows));
    // Of about equal length: the result is read and written once for each.
    let total = t.groups * t.rows;
    let blocks = total.div_ceil(if large { LARGE_ROWS } else { ROWS }).max(1);
    let block = total.div_ceil(blocks);
    // Columns of `a` are read once for each panel of `b`: few times, and they are not worth packing, unless its rows
    // share sets of the cache, or do not follow each other.
    let stride = a_flat.map_or(0, |a| a.stride);
    let packs = t.n > FEW_PANELS * panel_cols || (stride * size_of::<V::Scalar>()).is_multiple_of(ALIAS);
    let mut r = 0;
    let mut accumulate = t.accumulate;
    loop {
        let rows = block.min(total - r);
        let mut i0 = 0;
        while i0 < t.m {
            let m = A_COLS.min(t.m - i0);
            let (a, lda) = match a_flat {
                Some(a) if !packs => (a.ptr.wrapping_add(r * a.stride + i0), a.stride),
                _ => {
                    let to = packed_a.as_mut_ptr().cast::<V::Scalar>();
                    // SAFETY: rows `r..r + rows` and columns `i0..i0 + m` of `a` exist, by the caller's word, and fit.
                    unsafe { pack_a(to, t.a.starting_at(i0), (r, t.rows), rows, m, V::ROWS) };
                    (to.cast_const(), 0)
                }
            };
            let mut j = 0;
            while j < t.n {
                // A single row of tiles reads whole vectors where they lie; and of few rows, two panels at once.
                let lies = b_flat.filter(|_| m <= V::ROWS);
                let (cols, panels) = match m {
                    1..=3 if lies.is_some() && t.n - j >= 2 * panel_cols => (2 * panel_cols, 2),
                    _ => (panel_cols.min(t.n - j), 1),
                };
                let vectors = cols.div_ceil(V::LANES);
                let (b, b_k) = match lies {
                    Some(b) if cols % V::LANES == 0 => (b.ptr.wrapping_add(r * b.stride + j), b.stride),
                    _ => {
                        let to = packed_b.as_mut_ptr().cast::<V::Scalar>();
                        // SAFETY: as for `a`; `vectors <= 4`.
                        unsafe { pack_b::<V>(to, t.b.starting_at(j), (r, t.rows), rows, cols, vectors) };
                        (to.cast_const(), vectors * V::LANES)
                    }
                };
                let mut i = 0;
                while i < m {
                    let tall = tile_rows(m - i, V::ROWS);
                    // SAFETY: the tile lies in the packed blocks and in `c`. Tiles before this one fill
                    // `rows * i` elements of the packed `a`.
                    unsafe {
                        let tile = kernel::Tile {
                            k: rows,
                            a: a.add(if lda == 0 { rows * i } else { i }),
                            a_row: 1,
                            a_k: if lda == 0 { tall } else { lda },
                            b,
                            b_k,
                            b_panel: panel_cols,
                            c: t.c.add((i0 + i) * t.ldc + j),
                            ldc: t.ldc,
                            cols,
                            accumulate,
                        };
                        if panels == 2 {
                            kernel::two_panels::<V>(tall, tile);
                        } else {
                            kernel::tile::<V>(tall, vectors, tile);
                        }
                    }
                    i += tall;
                }
                j += cols;
            }
            i0 += m;
        }
        r += rows;
        if r >= total {
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
/// `from` has `rows` rows of `m` from row `at` on, in groups of `of`; `to` has room for all.
#[inline(always)]
unsafe fn pack_a<R: Copy>(
    mut to: *mut R,
    from: Rows<R>,
    (at, of): (usize, usize),
    rows: usize,
    m: usize,
    tallest: usize,
) {
    let mut i = 0;
    while i < m {
        let tall = tile_rows(m - i, tallest);
        let walk = from.starting_at(i).walk(at, of.max(1));
        // SAFETY: the caller's word.
        unsafe {
            // Lengths known here are copied by whole words.
            match tall {
                // Eight are one vector; the two too many lie in the row, and the next group or row replaces them.
                6 if i + 8 <= m => pack_columns::<R, 6, 8>(to, walk, rows),
                6 => pack_columns::<R, 6, 6>(to, walk, rows),
                4 => pack_columns::<R, 4, 4>(to, walk, rows),
                3 => pack_columns::<R, 3, 3>(to, walk, rows),
                2 => pack_columns::<R, 2, 2>(to, walk, rows),
                _ => pack_columns::<R, 1, 1>(to, walk, rows),
            }
            to = to.add(rows * tall);
        }
        i += tall;
    }
}

/// `N` columns, row after row, copied `M` at a time.
///
/// # Safety
///
/// The walk has `rows` more rows of `M`; `to` has room for all rows of `N` and `M - N` elements more.
#[inline(always)]
unsafe fn pack_columns<R: Copy, const N: usize, const M: usize>(to: *mut R, mut walk: Walk<R>, rows: usize) {
    for r in 0..rows {
        // SAFETY: the caller's word.
        unsafe { std::ptr::copy_nonoverlapping(walk.next(), to.add(r * N), M) }
    }
}

/// Columns of `b` as rows of whole vectors, padded with zeros.
///
/// # Safety
///
/// The contract of [`Vector`]; `from` has `rows` rows of `cols` from row `at` on, in groups of `of`; `to` has room for
/// `rows * vectors` vectors, and `cols` fill `vectors` but for the last one's end.
#[inline(always)]
unsafe fn pack_b<V: Vector>(
    to: *mut V::Scalar,
    from: Rows<V::Scalar>,
    (at, of): (usize, usize),
    rows: usize,
    cols: usize,
    vectors: usize,
) {
    let mut walk = from.walk(at, of.max(1));
    for r in 0..rows {
        let row = walk.next();
        for v in 0..vectors {
            // SAFETY: the caller's word.
            unsafe {
                let p = row.add(v * V::LANES);
                let left = cols - v * V::LANES;
                let x = if left >= V::LANES { V::load(p) } else { V::load_n(p, left) };
                x.store(to.add((r * vectors + v) * V::LANES));
            }
        }
    }
}
