//! The packed right factor of a product: panels of columns, each row of a panel contiguous.

use super::check;
use crate::cpu::isa::Isa;
use crate::cpu::real::Real;

/// Elements of a packed `[k,n]` matrix.
pub fn packed_len<R: Real>(isa: Isa, k: usize, n: usize) -> usize {
    k * n.next_multiple_of(R::lanes(isa))
}

/// Packs `b [k,n]` for [`gemm_packed`](super::gemm_packed): panels as wide as a register tile, the last padded
/// with zeros to whole vectors. With `transposed`, `b` is stored as `[n,k]`. `ldb`: elements from one stored
/// row to the next.
///
/// Panics (`bug:`) if a slice is too short for its sizes.
pub fn pack<R: Real>(isa: Isa, k: usize, n: usize, b: &[R], ldb: usize, transposed: bool, dst: &mut [R]) {
    let (rows, cols) = if transposed { (n, k) } else { (k, n) };
    check("pack", "b", b.len(), rows, cols, ldb);
    let needed = packed_len::<R>(isa, k, n);
    assert!(dst.len() >= needed, "bug: pack: packed b has {}, needs {needed}", dst.len());
    if k == 0 || n == 0 {
        return;
    }
    let lanes = R::lanes(isa);
    let panel = R::panel(isa) * lanes;
    let mut rest = &mut dst[..needed];
    let mut j = 0;
    while j < n {
        let cols = panel.min(n - j);
        let width = cols.next_multiple_of(lanes);
        let (here, next) = rest.split_at_mut(k * width);
        for (p, row) in here.chunks_exact_mut(width).enumerate() {
            if transposed {
                for (c, x) in row[..cols].iter_mut().enumerate() {
                    *x = b[(j + c) * ldb + p];
                }
            } else {
                row[..cols].copy_from_slice(&b[p * ldb + j..][..cols]);
            }
            row[cols..].fill(R::ZERO);
        }
        rest = next;
        j += cols;
    }
}
