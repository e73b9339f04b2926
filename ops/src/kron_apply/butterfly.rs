//! Products whose factors are all 2 × 2: the engine's butterfly kernel does several at a time in registers.

use retrograd_engine::cpu::butterfly::{butterfly, butterfly_least, butterfly_table, butterfly_table_len};
use retrograd_engine::cpu::{Isa, Real};
use retrograd_engine::kernel::{Args, In};
use smallvec::SmallVec;

use super::Stored;

/// Entries `00 01 10 11` of a factor, real and imaginary parts.
pub(super) type Two<R> = [[R; 2]; 4];

/// Whether the butterfly kernel takes a product with these matrices: enough of them, all 2 × 2, and no complex
/// ones for an `x` without imaginary parts.
pub(super) fn takes<'a, R: Real>(
    x_complex: bool,
    mut matrices: impl ExactSizeIterator<Item = (&'a [usize], bool)>,
) -> bool {
    // One vector's worth of factors is as well multiplied out.
    matrices.len() > butterfly_least::<R>(Isa::detect())
        && matrices.all(|(dims, complex)| *dims == [2, 2] && (x_complex || !complex))
}

/// As [`takes`], of the operands of a call.
pub(super) fn takes_call<R: Real>(x: &In<'_, R>, matrices: &[In<'_, R>]) -> bool {
    takes::<R>(x.is_complex(), matrices.iter().map(|w| (w.dims(), w.is_complex())))
}

/// Real elements of scratch memory.
pub(super) fn scratch<R: Real>(factors: usize) -> usize {
    butterfly_table_len::<R>(Isa::detect(), factors)
}

/// The matrix meant by a stored 2 × 2 factor.
pub(super) fn entries<R: Real>(how: Stored, w: &In<'_, R>) -> Two<R> {
    let sign = if how.conj { -R::ONE } else { R::ONE };
    let entry = |k: usize| [w.row(0)[k], if w.is_complex() { sign * w.row_im(0)[k] } else { R::ZERO }];
    if how.transpose { [0, 2, 1, 3].map(entry) } else { [0, 1, 2, 3].map(entry) }
}

/// The product for every row: inputs `x`, then the factors.
pub(super) fn run<R: Real>(factors: &[Stored], args: Args<'_, R>) {
    let isa = Isa::detect();
    let matrices: SmallVec<[Two<R>; 16]> =
        factors.iter().zip(&args.inputs[1..]).map(|(&how, w)| entries(how, w)).collect();
    let table = &mut args.scratch[..butterfly_table_len::<R>(isa, matrices.len())];
    butterfly_table(isa, &matrices, table);
    let (x, mut output) = (args.inputs[0], args.output);
    butterfly(isa, matrices.len(), args.rows, table, x.planes(), output.planes());
}
