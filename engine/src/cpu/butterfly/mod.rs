//! Products of rows with a Kronecker product of 2 × 2 matrices, several factors at a time in registers.
//!
//! A row of `2^F` elements is `2^F / L` vectors of `L` lanes. A factor whose axis steps over whole vectors combines
//! two of them; one whose axis lies within a vector combines the vector with itself, neighbors swapped. Three
//! factors of the first kind go in one pass over the row, and two or three of them together with all of the
//! second kind in the last. Rows stay as they lie in memory: nothing is transposed, and any number of rows will do.
//!
//! Gradients of well-conditioned factors need neither intermediate results nor a product of their own: with
//! `x_bar = Wᴴ y_bar`, the gradient of factor `f` is `W_f^{−H} Q_f`, where `Q_f[i][j] = Σ x_bar[i] conj(x[j])` is a
//! sum over all rows and all other axes ([`butterfly_traces`]).

mod apply;
#[cfg(test)]
mod tests;
mod traces;

use super::isa::Isa;
use super::real::Real;
pub use apply::ApplyArgs;
pub use traces::TraceArgs;

/// Rows of real or complex numbers, `stride` elements apart.
#[derive(Clone, Copy, Debug)]
pub struct RowsRef<'a, R> {
    /// Real parts.
    pub re: &'a [R],
    /// Imaginary parts; empty if real.
    pub im: &'a [R],
    /// Elements from one row to the next.
    pub stride: usize,
}

/// Rows to be written.
#[derive(Debug)]
pub struct RowsMut<'a, R> {
    /// Real parts.
    pub re: &'a mut [R],
    /// Imaginary parts; empty if real.
    pub im: &'a mut [R],
    /// Elements from one row to the next.
    pub stride: usize,
}

impl<R> RowsRef<'_, R> {
    fn assert_holds(&self, rows: usize, width: usize, complex: bool) {
        let needs = if rows == 0 { 0 } else { (rows - 1) * self.stride + width };
        assert!(self.re.len() >= needs, "bug: butterfly reads {needs} of {} elements", self.re.len());
        assert!(!complex || self.im.len() >= needs, "bug: butterfly reads {needs} imaginary parts");
    }
}

/// Fewest factors [`butterfly`] takes: a row must be at least a vector.
pub fn butterfly_least<R: Real>(isa: Isa) -> usize {
    R::lanes(isa).trailing_zeros() as usize
}

/// Real elements of the table of coefficients of `factors` factors.
pub fn butterfly_table_len<R: Real>(isa: Isa, factors: usize) -> usize {
    let lanes = R::lanes(isa);
    8 * factors.saturating_sub(butterfly_least::<R>(isa)) + 4 * lanes * butterfly_least::<R>(isa)
}

/// Writes the table of coefficients: `factors[f]` is `[[re, im]; 4]`, the entries `00 01 10 11` of factor `f`, 0 the
/// outermost.
///
/// Panics (`bug:`) if the table is shorter than [`butterfly_table_len`] or there are too few factors.
pub fn butterfly_table<R: Real>(isa: Isa, factors: &[[[R; 2]; 4]], table: &mut [R]) {
    let (lanes, least) = (R::lanes(isa), butterfly_least::<R>(isa));
    assert!(factors.len() >= least, "bug: butterfly of {} factors, needs {least}", factors.len());
    let (across, within) = factors.split_at(factors.len() - least);
    let (head, tail) = table.split_at_mut(8 * across.len());
    for (w, to) in across.iter().zip(head.chunks_exact_mut(8)) {
        for (entry, to) in w.iter().zip(to.chunks_exact_mut(2)) {
            to.copy_from_slice(entry);
        }
    }
    // Per lane: what it is multiplied by, and what its neighbor is; real parts, then imaginary ones.
    for (k, w) in within.iter().enumerate() {
        let bit = least - 1 - k;
        let to = &mut tail[4 * lanes * k..4 * lanes * (k + 1)];
        for l in 0..lanes {
            let i = l >> bit & 1;
            let (own, other) = (w[3 * i], w[1 + i]);
            to[l] = own[0];
            to[lanes + l] = own[1];
            to[2 * lanes + l] = other[0];
            to[3 * lanes + l] = other[1];
        }
    }
}

/// `y = (W_0 ⊗ … ⊗ W_{F−1}) x` for every row: `2^F` elements each, coefficients as [`butterfly_table`] wrote them.
/// Complex if `y` has imaginary parts.
///
/// Panics (`bug:`) if a slice is too short.
pub fn butterfly<R: Real>(
    isa: Isa,
    factors: usize,
    rows: usize,
    table: &[R],
    x: RowsRef<'_, R>,
    y: RowsMut<'_, R>,
) {
    let width = 1 << factors;
    let complex = !y.im.is_empty();
    assert!(table.len() >= butterfly_table_len::<R>(isa, factors), "bug: butterfly table");
    assert!(factors >= butterfly_least::<R>(isa), "bug: butterfly of {factors} factors");
    x.assert_holds(rows, width, complex);
    RowsRef { re: y.re, im: y.im, stride: y.stride }.assert_holds(rows, width, complex);
    if rows > 0 {
        let args = ApplyArgs { factors, rows, table, x, y, complex };
        // SAFETY: all slices are as long as the kernel reads and writes, just checked.
        unsafe { R::butterfly(isa, args) }
    }
}

/// Real elements of scratch memory of [`butterfly_traces`].
pub fn butterfly_traces_scratch(factors: usize) -> usize {
    2 << factors
}

/// `sums[f] = [Q_f[0][0], Q_f[0][1], Q_f[1][0], Q_f[1][1]]`, `[re, im]` each, with `Q_f[i][j] = Σ a[i] conj(x[j])`: a
/// sum over all rows and over all indices but that of factor `f`.
///
/// Panics (`bug:`) if a slice is too short.
pub fn butterfly_traces<R: Real>(
    isa: Isa,
    factors: usize,
    rows: usize,
    a: RowsRef<'_, R>,
    x: RowsRef<'_, R>,
    scratch: &mut [R],
    sums: &mut [[[R; 2]; 4]],
) {
    let width = 1 << factors;
    let complex = !x.im.is_empty();
    assert!(scratch.len() >= butterfly_traces_scratch(factors), "bug: scratch of butterfly traces");
    assert!(sums.len() >= factors && factors >= butterfly_least::<R>(isa), "bug: butterfly traces");
    a.assert_holds(rows, width, complex);
    x.assert_holds(rows, width, complex);
    let args = TraceArgs { factors, rows, a, x, scratch, sums, complex };
    // SAFETY: all slices are as long as the kernel reads and writes, just checked.
    unsafe { R::butterfly_traces(isa, args) }
}
