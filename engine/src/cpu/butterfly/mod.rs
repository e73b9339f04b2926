//! Products of rows with a Kronecker product of 2 × 2 matrices, several factors at a time in registers.
//!
//! A row of `2^F` elements is `2^F / L` vectors of `L` lanes. A factor whose axis steps over whole vectors combines
//! two of them; one whose axis lies within a vector combines the vector with itself, neighbors swapped. Three
//! factors of the first kind go in one pass over the row, and two or three of them together with all of the
//! second kind in the last. Rows stay as they lie in memory: nothing is transposed, and any number of rows will do.
//!
//! Half of the multiplications are saved by taking the entries of the diagonal out of a factor's rows: with
//! `[[a, b], [c, d]] = diag(a, d) [[1, b/a], [c/d, 1]]` every element costs one multiplication instead of two, and the
//! diagonals of all factors are one diagonal, `⊗ diag(a_f, d_f)`, which is applied at the end. Errors of rounding are
//! those of the plain way; only intermediate results are larger by what the rows have been divided by. Where that
//! could leave the range of numbers (`LARGEST_GROWTH`), as with a zero on a diagonal, factors are applied as they are.
//!
//! Gradients of well-conditioned factors need neither intermediate results nor a product of their own: with
//! `x_bar = Wᴴ y_bar`, the gradient of factor `f` is `W_f^{−H} Q_f`, where `Q_f[i][j] = Σ x_bar[i] conj(x[j])` is a
//! sum over all rows and all other axes ([`butterfly_traces`]).

mod apply;
#[cfg(test)]
mod tests;
mod traces;

use num_complex::Complex64;
use smallvec::SmallVec;

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

/// Most by which intermediate results may be larger for the diagonals taken out, counted on the safe side:
/// `Π (1 + |b/a|) (1 + |c/d|)`.
const LARGEST_GROWTH: f64 = (1u64 << 40) as f64;

/// Real elements of the table of `factors` factors: their coefficients, the real and the imaginary parts of the
/// diagonal, and whether that has been taken out of them (1 or 0).
pub fn butterfly_table_len<R: Real>(isa: Isa, factors: usize) -> usize {
    coefficients::<R>(isa, factors) + (2 << factors) + 1
}

/// Real elements of the coefficients: eight for each factor over vectors, four vectors for each within.
fn coefficients<R: Real>(isa: Isa, factors: usize) -> usize {
    let least = butterfly_least::<R>(isa);
    8 * factors.saturating_sub(least) + 4 * R::lanes(isa) * least
}

/// `b/a` and `c/d` of every factor; `None` if the entries of the diagonals cannot be taken out.
fn quotients<R: Real>(factors: &[[[R; 2]; 4]]) -> Option<SmallVec<[[[R; 2]; 2]; 16]>> {
    let mut growth = 1.0;
    let mut quotient = |small: [R; 2], large: [R; 2]| {
        let [small, large] = [small, large].map(|[re, im]| Complex64::new(re.to_f64(), im.to_f64()));
        let (quotient, size) = (small / large, large.norm_sqr());
        growth *= 1.0 + quotient.norm();
        size.is_normal().then(|| [R::from_f64(quotient.re), R::from_f64(quotient.im)])
    };
    let found = factors.iter().map(|[a, b, c, d]| Some([quotient(*b, *a)?, quotient(*c, *d)?])).collect();
    // What is no number, or not finite, is no growth to be accepted either.
    if growth <= LARGEST_GROWTH { found } else { None }
}

/// The product of all factors' diagonals, from the innermost factor out, each time twice as long.
fn write_diagonal<R: Real>(factors: &[[[R; 2]; 4]], to: &mut [R]) {
    let complex = factors.iter().flatten().any(|e| e[1] != R::ZERO);
    let (re, im) = to.split_at_mut(1 << factors.len());
    (re[0], im[0]) = (R::ONE, R::ZERO);
    for (f, [upper, .., lower]) in factors.iter().rev().enumerate() {
        let (re, re_to) = re.split_at_mut(1 << f);
        let (im, im_to) = im.split_at_mut(1 << f);
        let (re_to, im_to) = (&mut re_to[..1 << f], &mut im_to[..1 << f]);
        if !complex {
            for i in 0..1 << f {
                (re_to[i], im_to[i]) = (lower[0] * re[i], R::ZERO);
                re[i] *= upper[0];
            }
            continue;
        }
        for i in 0..1 << f {
            let (x, y) = (re[i], im[i]);
            (re_to[i], im_to[i]) = (lower[0] * x - lower[1] * y, lower[0] * y + lower[1] * x);
            (re[i], im[i]) = (upper[0] * x - upper[1] * y, upper[0] * y + upper[1] * x);
        }
    }
}

/// Writes what [`butterfly`] reads: `factors[f]` is `[[re, im]; 4]`, the entries `00 01 10 11` of factor `f`, 0 the
/// outermost.
///
/// Panics (`bug:`) if the table is shorter than [`butterfly_table_len`] or there are too few factors.
pub fn butterfly_table<R: Real>(isa: Isa, factors: &[[[R; 2]; 4]], table: &mut [R]) {
    let (lanes, least) = (R::lanes(isa), butterfly_least::<R>(isa));
    let count = factors.len();
    assert!(count >= least, "bug: butterfly of {count} factors, needs {least}");
    let table = &mut table[..butterfly_table_len::<R>(isa, count)];
    let (coefficients, diagonal) = table.split_at_mut(coefficients::<R>(isa, count));
    let quotients = quotients(factors);
    let (head, tail) = coefficients.split_at_mut(8 * (count - least));
    for (f, to) in head.chunks_exact_mut(8).enumerate() {
        let entries = quotients.as_ref().map_or(&factors[f][..], |q| &q[f][..]);
        to.fill(R::ZERO);
        for (entry, to) in entries.iter().zip(to.chunks_exact_mut(2)) {
            to.copy_from_slice(entry);
        }
    }
    // Per lane: what its neighbor is multiplied by, and what it is; real parts, then imaginary ones.
    for (k, to) in tail.chunks_exact_mut(4 * lanes).enumerate() {
        let (f, bit) = (count - least + k, least - 1 - k);
        for l in 0..lanes {
            let i = l >> bit & 1;
            let (other, own) = match &quotients {
                Some(q) => (q[f][i], [R::ONE, R::ZERO]),
                None => (factors[f][1 + i], factors[f][3 * i]),
            };
            to[l] = other[0];
            to[lanes + l] = other[1];
            to[2 * lanes + l] = own[0];
            to[3 * lanes + l] = own[1];
        }
    }
    let (diagonal, taken) = diagonal.split_at_mut(2 << count);
    write_diagonal(factors, diagonal);
    taken[0] = if quotients.is_some() { R::ONE } else { R::ZERO };
}

/// `y = (W_0 ⊗ … ⊗ W_{F−1}) x` for every row: `2^F` elements each, the table as [`butterfly_table`] wrote it. Complex if
/// `y` has imaginary parts.
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
        let (coefficients, rest) = table.split_at(coefficients::<R>(isa, factors));
        let diagonal = (rest[2 << factors] == R::ONE).then_some(&rest[..2 << factors]);
        let args = ApplyArgs { factors, rows, coefficients, diagonal, x, y, complex };
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
