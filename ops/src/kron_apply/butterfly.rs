//! Products whose factors are all 2 × 2: the engine's butterfly kernel does several at a time in registers.

use retrograd_engine::cpu::butterfly::{butterfly, butterfly_least, butterfly_table, butterfly_table_len};
use retrograd_engine::cpu::{Isa, Real};
use retrograd_engine::device::{DeviceKernel, Entry, Piece, Value};
use retrograd_engine::kernel::{Args, In, Structured};
use retrograd_engine::op::{Class, Cotangents, Io};
use retrograd_engine::{DType, Lead, Op, Result, Shape, Tape, Ty, Var, structured_kernel};
use smallvec::{SmallVec, smallvec};

use super::Stored;
use crate::check::joint_dtype;

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

/// The matrix meant by a stored 2 × 2 factor.
pub(super) fn entries<R: Real>(how: Stored, w: &In<'_, R>) -> Two<R> {
    let sign = if how.conj { -R::ONE } else { R::ONE };
    let entry = |k: usize| [w.row(0)[k], if w.is_complex() { sign * w.row_im(0)[k] } else { R::ZERO }];
    if how.transpose { [0, 2, 1, 3].map(entry) } else { [0, 1, 2, 3].map(entry) }
}

/// What the kernel reads of 2 × 2 factors, its only inputs: made once for as long as they stay the same. Nothing is
/// differentiated through it; the product has the factors beside it.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) factors: SmallVec<[Stored; 8]>,
}

impl Op for Table {
    fn name(&self) -> &'static str {
        "kron_table"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        let dtype = joint_dtype("kron_table", inputs)?.real();
        let len = match dtype {
            DType::F64 => butterfly_table_len::<f64>(Isa::detect(), self.factors.len()),
            _ => butterfly_table_len::<f32>(Isa::detect(), self.factors.len()),
        };
        Ok(Ty::new(dtype, Shape { lead: Lead::Shared, dims: smallvec![len] }))
    }

    fn class(&self) -> Class<'_> {
        Class::Structured(self)
    }

    fn vjp(&self, _: &mut Tape, io: Io<'_>, _: Var) -> Result<Cotangents> {
        Ok(smallvec![None; io.inputs.len()])
    }

    fn jvp(&self, _: &mut Tape, _: Io<'_>, _: &[Option<Var>]) -> Result<Option<Var>> {
        Ok(None)
    }

    fn flops(&self, _: &[Ty], output: &Ty) -> f64 {
        output.shape.width() as f64
    }
}

impl Structured for Table {
    structured_kernel!();

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }
}

impl DeviceKernel for Table {
    fn phases(&self, _: &[Entry], output: &Entry) -> Vec<usize> {
        vec![output.width()]
    }

    fn piece(&self, k: &mut Piece<'_, '_>, _: usize, piece: Value) {
        // Only the processor's kernel reads it.
        let zero = k.number(0.0);
        k.store(0, piece, zero);
    }
}

impl Table {
    fn kernel<R: Real>(&self, mut args: Args<'_, R>) {
        if args.rows == 0 {
            return;
        }
        let matrices: SmallVec<[Two<R>; 16]> =
            self.factors.iter().zip(args.inputs).map(|(&how, w)| entries(how, w)).collect();
        butterfly_table(Isa::detect(), &matrices, args.output.row(0));
    }
}

/// The product for every row: inputs `x`, then as many factors, then their [`Table`].
pub(super) fn run<R: Real>(factors: usize, args: Args<'_, R>) {
    let (x, table, mut output) = (args.inputs[0], args.inputs[factors + 1], args.output);
    butterfly(Isa::detect(), factors, args.rows, table.row(0), x.planes(), output.planes());
}
