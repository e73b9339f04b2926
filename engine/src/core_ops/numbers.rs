//! Values made from nothing or from positions: fills, extents, step numbers, masks of ended rows, casts.

use smallvec::smallvec;

use super::select;
use crate::cpu::Real;
use crate::device::{Building, DeviceKernel, Entry, Piece, Type, Value};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::kernel::{Args, Origin, Structured};
use crate::op::{Class, Cotangents, Io, Op, Ty};
use crate::shape::{Lead, Shape};
use crate::structured_kernel;
use crate::tape::{Tape, Var};

/// A constant of any type and shape; `bits` of the `f64` value, so that equal fills are recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fill {
    ty: Ty,
    bits: u64,
}

/// A real value everywhere. Shapes: `[] -> shape`.
pub fn fill(tape: &mut Tape, ty: Ty, value: f64) -> Result<Var> {
    if !ty.dtype.is_differentiable() {
        return Err(Error::dtype("fill", "output", "f32, f64, c32 or c64", ty.dtype));
    }
    tape.push(Fill { ty, bits: value.to_bits() }, &[])
}

/// Zeros of the type of `x`.
pub fn zeros_like(tape: &mut Tape, x: Var) -> Result<Var> {
    let ty = tape.ty(x)?.clone();
    fill(tape, ty, 0.0)
}

/// Number of entries a lead stands for at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    lead: Lead,
    dtype: DType,
}

/// How many entries `lead` stands for in the run at hand, as a real number: `N`, `T`, `T·N`, or 1.
pub fn extent(tape: &mut Tape, lead: Lead, dtype: DType) -> Result<Var> {
    tape.push(Extent { lead, dtype: dtype.real() }, &[])
}

/// Whether an operation reads the number of steps in all.
pub(crate) fn counts_steps(op: &dyn Op) -> bool {
    let any = op as &dyn std::any::Any;
    any.downcast_ref::<Extent>().is_some_and(|e| e.lead.has_t())
        || any.downcast_ref::<ChunkStart>().is_some_and(|c| c.reverse)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct StepIndex {
    dtype: DType,
}

/// Number of the step, from 0, as a real number; inside a step only. Exact up to 2²⁴ in `F32`.
pub fn step_index(tape: &mut Tape, dtype: DType) -> Result<Var> {
    if !tape.is_step() {
        return Err(Error::argument("step_index", "used outside the step of a scan"));
    }
    tape.push(StepIndex { dtype: dtype.real() }, &[])
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ChunkStart {
    k: usize,
    reverse: bool,
    dtype: DType,
}

/// 1 at steps where the walk enters another chunk `[i·k, (i+1)·k)` of steps, else 0; inside a step only. The walk
/// goes down if `reverse`; its first step starts it and enters nothing. Errors: `k` of 0.
pub fn chunk_start(tape: &mut Tape, k: usize, reverse: bool, dtype: DType) -> Result<Var> {
    if !tape.is_step() || k == 0 {
        return Err(Error::argument("chunk_start", format!("k = {k}, inside a step: {}", tape.is_step())));
    }
    tape.push(ChunkStart { k, reverse, dtype: dtype.real() }, &[])
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ActiveMask {
    dtype: DType,
}

/// 1 for rows whose sequence still runs at this step (`step < length`), else 0; inside a step only.
///
/// Shapes: `lengths [N] (i32) -> [N]`. Counts in integers, so it is exact at any length.
pub fn active_mask(tape: &mut Tape, lengths: Var, dtype: DType) -> Result<Var> {
    if !tape.is_step() {
        return Err(Error::argument("active_mask", "used outside the step of a scan"));
    }
    tape.push(ActiveMask { dtype: dtype.real() }, &[lengths])
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cast {
    dtype: DType,
}

/// Converts between single and double precision, keeping real real and complex complex.
/// Rule: the cotangent is converted back. Errors: storage and index types (convert the tensor instead).
pub fn cast(tape: &mut Tape, x: Var, real: DType) -> Result<Var> {
    let from = tape.dtype(x)?;
    let to = if from.is_complex() { real.complex() } else { Some(real.real()) };
    match to {
        Some(to) if to == from => Ok(x),
        Some(to) if from.is_differentiable() && to.is_differentiable() => tape.push(Cast { dtype: to }, &[x]),
        _ => Err(Error::dtype("cast", "input", "f32, f64, c32 or c64 on both sides", from)),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Expand {
    lead: Lead,
}

/// The same value for every row or step of more batch axes. Rule: sum over the axes added.
/// Errors: an axis would be lost.
pub fn expand(tape: &mut Tape, x: Var, lead: Lead) -> Result<Var> {
    if tape.lead(x)? == lead {
        return Ok(x);
    }
    tape.push(Expand { lead }, &[x])
}

/// Ends the derivative of an operation without differentiable inputs.
macro_rules! no_inputs {
    () => {
        fn vjp(&self, _: &mut Tape, io: Io<'_>, _: Var) -> Result<Cotangents> {
            Ok(smallvec![None; io.inputs.len()])
        }
        fn jvp(&self, _: &mut Tape, _: Io<'_>, _: &[Option<Var>]) -> Result<Option<Var>> {
            Ok(None)
        }
        fn class(&self) -> Class<'_> {
            Class::Structured(self)
        }
        fn is_cheap(&self) -> bool {
            true
        }
    };
}

impl Op for Fill {
    fn name(&self) -> &'static str {
        "fill"
    }
    fn infer(&self, _: &[Ty]) -> Result<Ty> {
        Ok(self.ty.clone())
    }
    no_inputs!();
}

impl Fill {
    fn kernel<R: Real>(&self, mut args: Args<'_, R>) {
        for r in 0..args.rows {
            let (re, im) = args.output.row_pair(r);
            re.fill(R::from_f64(f64::from_bits(self.bits)));
            im.fill(R::from_f64(0.0));
        }
    }
}

impl Structured for Fill {
    structured_kernel!();

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }
}

impl DeviceKernel for Fill {
    fn phases(&self, _: &[Entry], output: &Entry) -> Vec<usize> {
        vec![output.width()]
    }

    fn piece(&self, k: &mut Piece<'_, '_>, _: usize, piece: Value) {
        for plane in 0..k.planes() {
            let value = k.number(if plane == 0 { f64::from_bits(self.bits) } else { 0.0 });
            k.store(plane, piece, value);
        }
    }
}

impl Op for Extent {
    fn name(&self) -> &'static str {
        "extent"
    }
    fn infer(&self, _: &[Ty]) -> Result<Ty> {
        Ok(Ty::new(self.dtype, Shape::shared([])))
    }
    no_inputs!();
}

impl Extent {
    fn kernel<R: Real>(&self, mut args: Args<'_, R>) {
        let count = |t: bool, n: bool| {
            (if t { args.origin.steps } else { 1 }) as f64 * (if n { args.origin.batch } else { 1 }) as f64
        };
        let value = count(self.lead.has_t(), self.lead.has_n());
        args.output.row(0)[0] = R::from_f64(value);
    }
}

impl Structured for Extent {
    structured_kernel!();
    fn needs_origin(&self) -> bool {
        true
    }

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }
}

impl DeviceKernel for Extent {
    fn phases(&self, _: &[Entry], output: &Entry) -> Vec<usize> {
        vec![output.width()]
    }

    fn piece(&self, k: &mut Piece<'_, '_>, _: usize, piece: Value) {
        let (steps, batch) = k.extent();
        let mut count = Value::Real(1f64.to_bits(), Type::F64);
        for (has, number) in [(self.lead.has_t(), steps), (self.lead.has_n(), batch)] {
            if has {
                let number = k.code().convert(number, Type::F64);
                count = k.code().mul(count, number);
            }
        }
        let ty = k.ty();
        let count = k.code().convert(count, ty);
        k.store(0, piece, count);
    }
}

impl Op for StepIndex {
    fn name(&self) -> &'static str {
        "step_index"
    }
    fn infer(&self, _: &[Ty]) -> Result<Ty> {
        Ok(Ty::new(self.dtype, Shape::shared([])))
    }
    fn varies_with_step(&self) -> bool {
        true
    }
    no_inputs!();
}

impl StepIndex {
    fn kernel<R: Real>(&self, mut args: Args<'_, R>) {
        args.output.row(0)[0] = R::from_f64(args.origin.step as f64);
    }
}

impl Structured for StepIndex {
    structured_kernel!();
    fn needs_origin(&self) -> bool {
        true
    }

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }
}

impl DeviceKernel for StepIndex {
    fn phases(&self, _: &[Entry], output: &Entry) -> Vec<usize> {
        vec![output.width()]
    }

    fn piece(&self, k: &mut Piece<'_, '_>, _: usize, piece: Value) {
        let (step, ty) = (k.step(), k.ty());
        let step = k.code().convert(step, ty);
        k.store(0, piece, step);
    }
}

impl Op for ChunkStart {
    fn name(&self) -> &'static str {
        "chunk_start"
    }
    fn infer(&self, _: &[Ty]) -> Result<Ty> {
        Ok(Ty::new(self.dtype, Shape::shared([])))
    }
    fn varies_with_step(&self) -> bool {
        true
    }
    no_inputs!();
}

impl ChunkStart {
    fn kernel<R: Real>(&self, mut args: Args<'_, R>) {
        let Origin { step, steps, .. } = args.origin;
        // The boundary before the chunk lies below the step, above it for a walk that goes down.
        let boundary = if self.reverse { step + 1 } else { step };
        let hit = boundary.is_multiple_of(self.k) && boundary != if self.reverse { steps } else { 0 };
        args.output.row(0)[0] = R::from_f64(if hit { 1.0 } else { 0.0 });
    }
}

impl Structured for ChunkStart {
    structured_kernel!();
    fn needs_origin(&self) -> bool {
        true
    }

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }
}

impl DeviceKernel for ChunkStart {
    fn phases(&self, _: &[Entry], output: &Entry) -> Vec<usize> {
        vec![output.width()]
    }

    fn piece(&self, k: &mut Piece<'_, '_>, _: usize, piece: Value) {
        let (step, (steps, _)) = (k.step(), k.extent());
        let boundary = if self.reverse { k.code().add(step, 1) } else { step };
        let end = if self.reverse { steps } else { Value::Int(0) };
        let rest = k.code().rem(boundary, self.k);
        let (whole, edge) = (k.code().eq(rest, 0), k.code().eq(boundary, end));
        let (one, zero) = (k.number(1.0), k.number(0.0));
        let hit = k.code().select(whole, one, zero);
        let hit = k.code().select(edge, zero, hit);
        k.store(0, piece, hit);
    }
}

impl Op for ActiveMask {
    fn name(&self) -> &'static str {
        "active_mask"
    }
    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        let lengths = &inputs[0];
        if lengths.dtype != DType::I32 {
            return Err(Error::dtype("active_mask", "lengths", DType::I32, lengths.dtype));
        }
        if lengths.shape != Shape::rows([]) {
            return Err(Error::shape("active_mask", "lengths", "[N]", &lengths.shape));
        }
        Ok(Ty::new(self.dtype, Shape::rows([])))
    }
    fn varies_with_step(&self) -> bool {
        true
    }
    no_inputs!();
}

impl ActiveMask {
    fn kernel<R: Real>(&self, mut args: Args<'_, R>) {
        let step = args.origin.step as i64;
        for r in 0..args.rows {
            let length = args.inputs[0].index_row(r)[0] as i64;
            args.output.row(r)[0] = R::from_f64(if step < length { 1.0 } else { 0.0 });
        }
    }
}

impl Structured for ActiveMask {
    structured_kernel!();
    fn needs_origin(&self) -> bool {
        true
    }

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }
}

impl DeviceKernel for ActiveMask {
    fn phases(&self, _: &[Entry], output: &Entry) -> Vec<usize> {
        vec![output.width()]
    }

    fn piece(&self, k: &mut Piece<'_, '_>, _: usize, piece: Value) {
        let length = k.input(0, 0, 0);
        let step = k.step();
        let runs = k.code().lt(step, length);
        let (one, zero) = (k.number(1.0), k.number(0.0));
        let mask = k.code().select(runs, one, zero);
        k.store(0, piece, mask);
    }
}

impl Op for Cast {
    fn name(&self) -> &'static str {
        "cast"
    }
    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        Ok(inputs[0].with_dtype(self.dtype))
    }
    fn class(&self) -> Class<'_> {
        Class::Cast
    }
    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        let real = tape.dtype(io.inputs[0])?.real();
        Ok(smallvec![Some(cast(tape, y_bar, real)?)])
    }
    fn jvp(&self, tape: &mut Tape, _: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        x_dots[0].map(|d| cast(tape, d, self.dtype.real())).transpose()
    }
    fn is_linear(&self) -> bool {
        true
    }
}

impl Op for Expand {
    fn name(&self) -> &'static str {
        "expand"
    }
    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        let from = &inputs[0].shape;
        if from.lead.join(self.lead) != self.lead {
            return Err(Error::shape("expand", "batch axes", format!("within {:?}", self.lead), from));
        }
        Ok(Ty::new(inputs[0].dtype, Shape { lead: self.lead, dims: from.dims.clone() }))
    }
    fn class(&self) -> Class<'_> {
        Class::Expand
    }
    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        let ty = tape.ty(io.inputs[0])?.clone();
        Ok(smallvec![Some(super::sum_to(tape, y_bar, &ty)?)])
    }
    fn jvp(&self, tape: &mut Tape, _: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        x_dots[0].map(|d| expand(tape, d, self.lead)).transpose()
    }
    fn is_linear(&self) -> bool {
        true
    }
}

/// `new` for rows that still run, `old` for rows that have ended; see [`active_mask`].
pub(crate) fn keep_ended(tape: &mut Tape, mask: Var, new: Var, old: Var) -> Result<Var> {
    // The mask is [N]; give it as many axes of one as the value has, so that it broadcasts.
    let rank = tape.shape(new)?.dims.len();
    let ones = smallvec![1; rank];
    let mask = crate::layout::layout(tape, mask, crate::layout::Layout::Reshape { dims: ones })?;
    let real = tape.dtype(new)?.real();
    let mask = cast(tape, mask, real)?;
    select(tape, mask, new, old)
}
