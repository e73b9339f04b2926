//! Gradients of well-conditioned factors from `x` and `x_bar = Wᴴ y_bar` alone.
//!
//! `W_f_bar = Σ z_bar xᴴ` along axis `f`, where `z_bar` is `y_bar` with all adjoint factors but `f` applied. Factors
//! commute, so `x_bar = W_fᴴ z_bar` along that axis and `W_f_bar = W_f^{−H} Q_f` with `Q_f = Σ x_bar xᴴ`: neither
//! product has to be formed again. Rounding errors grow by the condition number of `W_f`, 1 for a unitary factor,
//! so only well-conditioned ones go this way.

use num_complex::Complex64;
use retrograd_engine::cpu::butterfly::{butterfly_traces, butterfly_traces_scratch};
use retrograd_engine::cpu::{Isa, Real};
use retrograd_engine::kernel::{Args, In, Out};
use smallvec::SmallVec;

use super::butterfly::{Two, takes_call};
use super::kernel::{Chain, Stage, contract_axis, read, take};
use super::{Stored, across};

/// Largest factor that goes this way.
pub(super) const LARGEST: usize = 16;

/// Largest `‖W‖ ‖W⁻¹‖ / P` (Frobenius; 1 for a unitary factor) that goes this way.
const CONDITION: f64 = 8.0;

/// Real elements of scratch memory.
pub(super) fn scratch(chain: &Chain, lanes: usize) -> usize {
    let traces = butterfly_traces_scratch(chain.stages.len().min(usize::BITS as usize - 3));
    let rows = chain.block(lanes);
    let along = 4 * rows * chain.from + 2 * rows * chain.right(lanes) + 2 * LARGEST * LARGEST;
    let general = if chain.grads_go_across(lanes) { chain.across_trace_scratch(lanes) } else { along };
    if chain.stages.iter().all(|s| (s.p, s.q) == (2, 2)) { traces.max(general) } else { general }
}

/// Entries of matrices, one after the other.
type Entries = SmallVec<[Complex64; LARGEST * LARGEST]>;

fn norm(entries: &[Complex64]) -> f64 {
    entries.iter().map(|z| z.norm_sqr()).sum::<f64>().sqrt()
}

/// The matrix meant by a stored factor, `n` its size; `false` if it is too large or not square.
fn read_square<R: Real>(how: Stored, w: &In<'_, R>, square: &mut Entries) -> bool {
    let n = w.dims().first().copied().unwrap_or(0);
    if n > LARGEST || w.dims() != [n, n] {
        return false;
    }
    square.clear();
    for i in 0..n {
        for j in 0..n {
            let k = if how.transpose { j * n + i } else { i * n + j };
            let im = if w.is_complex() { w.row_im(0)[k].to_f64() } else { 0.0 };
            square.push(Complex64::new(w.row(0)[k].to_f64(), if how.conj { -im } else { im }));
        }
    }
    true
}

/// The inverse of a matrix of `n` rows (Gauss and Jordan, largest pivots), in place of the identity; `false` if the
/// matrix is not well conditioned. Spoils the matrix.
fn invert(n: usize, matrix: &mut [Complex64], inverse: &mut [Complex64]) -> bool {
    let size = norm(matrix);
    for c in 0..n {
        let weight = |r: &usize| matrix[r * n + c].norm_sqr();
        let Some(pivot) = (c..n).max_by(|a, b| weight(a).total_cmp(&weight(b))) else { return false };
        for j in 0..n {
            matrix.swap(c * n + j, pivot * n + j);
            inverse.swap(c * n + j, pivot * n + j);
        }
        let scale = matrix[c * n + c].inv();
        for m in [&mut *matrix, &mut *inverse] {
            m[c * n..(c + 1) * n].iter_mut().for_each(|z| *z *= scale);
        }
        for r in (0..n).filter(|&r| r != c) {
            let by = matrix[r * n + c];
            for m in [&mut *matrix, &mut *inverse] {
                for j in 0..n {
                    let from = m[c * n + j];
                    m[r * n + j] -= by * from;
                }
            }
        }
    }
    // Not a number, from a singular matrix or a bad factor, is not well conditioned either.
    size * norm(inverse) / n as f64 <= CONDITION
}

/// Inverses of the wanted factors, each where the factor's gradient stands in the output; `None` if a wanted factor
/// is not well conditioned.
fn inverses<R: Real>(factors: &[Stored], wanted: &[bool], matrices: &[In<'_, R>]) -> Option<Entries> {
    let (mut all, mut square) = (Entries::new(), Entries::new());
    for ((&how, w), &wanted) in factors.iter().zip(matrices).zip(wanted) {
        let start = all.len();
        all.resize(start + w.width(), Complex64::ZERO);
        if !wanted {
            continue;
        }
        let n = w.dims()[0];
        if !read_square(how, w, &mut square) {
            return None;
        }
        for i in 0..n {
            all[start + i * n + i] = Complex64::ONE;
        }
        if !invert(n, &mut square, &mut all[start..]) {
            return None;
        }
    }
    Some(all)
}

/// Gradients of the factors, one after the other as stored, added to the output: inputs `x`, `y_bar`, `x_bar`, then
/// the factors. `false`, and nothing done, if a factor is badly conditioned.
pub(super) fn run<R: Real, const L: usize>(
    factors: &[Stored],
    wanted: &[bool],
    chain: impl Fn() -> Chain,
    args: &mut Args<'_, R>,
) -> bool {
    let matrices = &args.inputs[3..];
    // Every inverse is found before anything is written, so that the other way can still be taken.
    let Some(inverses) = inverses(factors, wanted, matrices) else { return false };
    let (x, x_bar) = (args.inputs[0], args.inputs[2]);
    let mut start = 0;
    if takes_call(&x, matrices) && takes_call(&x_bar, matrices) {
        let mut sums: SmallVec<[Two<R>; 16]> = SmallVec::from_elem([[R::ZERO; 2]; 4], factors.len());
        let (rows, scratch) = (args.rows, &mut *args.scratch);
        butterfly_traces(Isa::detect(), factors.len(), rows, x_bar.planes(), x.planes(), scratch, &mut sums);
        for (f, sum) in sums.iter().enumerate() {
            if wanted[f] {
                let q = |k: usize| Complex64::new(sum[k][0].to_f64(), sum[k][1].to_f64());
                add(factors[f], &inverses[start..start + 4], q, start, &mut args.output);
            }
            start += 4;
        }
        return true;
    }
    let chain = chain();
    if chain.grads_go_across(L) {
        let (rows, scratch) = (args.rows, &mut *args.scratch);
        across::traces::<R, L>(&chain, (&x, &x_bar), wanted, rows, scratch, |f, re, im| {
            let q = |k: usize| Complex64::new(re[k].to_f64(), im.get(k).map_or(0.0, |v| v.to_f64()));
            let (from, to) = (chain.start_of(f), chain.start_of(f + 1));
            add(factors[f], &inverses[from..to], q, from, &mut args.output);
        });
        return true;
    }
    let block = chain.block(L);
    for (f, stage) in chain.stages.iter().enumerate() {
        let n = stage.p;
        if wanted[f] {
            let mut pool = &mut *args.scratch;
            let planes = |len: usize| (len, (chain.planes - 1) * len);
            let (re, im) = planes(n * n);
            let sum = (take(&mut pool, re), take(&mut pool, im));
            let (re, im) = planes(block * chain.from);
            let from = (take(&mut pool, re), take(&mut pool, im));
            let bars = (take(&mut pool, re), take(&mut pool, im));
            let (re, im) = planes(block * chain.right(L));
            let right = (take(&mut pool, re), take(&mut pool, im));
            sum.0.fill(R::ZERO);
            sum.1.fill(R::ZERO);
            let plain = Stage { transpose: false, conj: false, ..*stage };
            let mut at = 0;
            while at < args.rows {
                let rows = block.min(args.rows - at);
                read(&x, at, rows, (&mut *from.0, &mut *from.1));
                read(&x_bar, at, rows, (&mut *bars.0, &mut *bars.1));
                let (x, y) = ((&*from.0, &*from.1), (&*bars.0, &*bars.1));
                let right = (&mut *right.0, &mut *right.1);
                contract_axis::<R, L>(&plain, rows, x, y, right, (&mut *sum.0, &mut *sum.1));
                at += rows;
            }
            let im = |k: usize| sum.1.get(k).map_or(0.0, |v| v.to_f64());
            let q = |k: usize| Complex64::new(sum.0[k].to_f64(), im(k));
            add(factors[f], &inverses[start..start + n * n], q, start, &mut args.output);
        }
        start += n * n;
    }
    true
}

/// Adds `W^{−H} Q` to the output from `start`, as the factor is stored.
fn add<R: Real>(
    how: Stored,
    inverse: &[Complex64],
    q: impl Fn(usize) -> Complex64,
    start: usize,
    output: &mut Out<'_, R>,
) {
    let n = inverse.len().isqrt();
    let (re, im) = output.row_pair(0);
    for i in 0..n {
        for j in 0..n {
            let terms = (0..n).map(|k| inverse[k * n + i].conj() * q(k * n + j));
            let entry: Complex64 = terms.sum();
            let at = start + if how.transpose { j * n + i } else { i * n + j };
            re[at] += R::from_f64(entry.re);
            if !im.is_empty() {
                im[at] += R::from_f64(if how.conj { -entry.im } else { entry.im });
            }
        }
    }
}
