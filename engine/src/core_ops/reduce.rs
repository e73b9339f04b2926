//! Sums over axes, and the one place where broadcasting is undone.

use smallvec::smallvec;

use super::{expand, real, to_complex};
use crate::cpu::{Multiversion, Real, multiversion};
use crate::device::{Building, DeviceKernel, Entry, Piece, Value};
use crate::error::{Error, Result};
use crate::kernel::{Args, RowRule, Structured};
use crate::layout::{Layout, layout};
use crate::op::{Class, Cotangents, Io, Op, Ty};
use crate::shape::{Dims, Lead, Shape, broadcast_dims};
use crate::structured_kernel;
use crate::tape::{Tape, Var};

/// Sum over ordinary axes down to `dims` (as broadcasting would stretch them back).
#[derive(Clone, Debug, PartialEq, Eq)]
struct SumDims {
    dims: Dims,
}

/// Sum over the row axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SumRows;

/// Sum over the time axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SumSteps;

/// Sums ordinary axes so that the sizes become `dims`; the inverse of a broadcast.
///
/// Shapes: `x [.., dims'] -> y [.., dims]` with `dims` broadcastable to `dims'`. Rule: broadcast of `y_bar`.
pub fn sum_dims(tape: &mut Tape, x: Var, dims: &[usize]) -> Result<Var> {
    if tape.shape(x)?.dims[..] == *dims {
        return Ok(x);
    }
    tape.push(SumDims { dims: Dims::from_slice(dims) }, &[x])
}

/// Sum over rows: `[N,..] -> [..]`, `[T,N,..] -> [T,..]`. Rule: `x_bar = y_bar`, stretched over rows.
/// Errors: no row axis.
pub fn sum_rows(tape: &mut Tape, x: Var) -> Result<Var> {
    tape.push(SumRows, &[x])
}

/// Sum over steps: `[T,N,..] -> [N,..]`, `[T,..] -> [..]`. Rule: `x_bar = y_bar` at every step.
/// Errors: no time axis.
pub fn sum_steps(tape: &mut Tape, x: Var) -> Result<Var> {
    tape.push(SumSteps, &[x])
}

/// Makes a cotangent fit its value: takes the real part for a real value, sums over axes that were broadcast,
/// stretches over axes it lacks.
pub fn sum_to(tape: &mut Tape, g: Var, target: &Ty) -> Result<Var> {
    let mut g = g;
    if !target.dtype.is_complex() {
        g = real(tape, g)?;
    }
    let to = &target.shape;
    let from = tape.shape(g)?.clone();
    if broadcast_dims(&from.dims, &to.dims).as_ref() != Some(&to.dims) {
        g = sum_dims(tape, g, &to.dims)?;
    }
    if from.lead.has_t() && !to.lead.has_t() {
        g = sum_steps(tape, g)?;
    }
    if from.lead.has_n() && !to.lead.has_n() {
        g = sum_rows(tape, g)?;
    }
    g = layout(tape, g, Layout::Broadcast { dims: to.dims.clone() })?;
    g = expand(tape, g, to.lead)?;
    if target.dtype.is_complex() { to_complex(tape, g) } else { Ok(g) }
}

impl Op for SumDims {
    fn name(&self) -> &'static str {
        "sum_dims"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        let x = &inputs[0];
        if broadcast_dims(&x.shape.dims, &self.dims).as_ref() != Some(&x.shape.dims) {
            let expected = format!("sizes that stretch to {}", x.shape);
            return Err(Error::shape("sum_dims", "dims", expected, format!("{:?}", &self.dims[..])));
        }
        if !x.dtype.is_differentiable() {
            return Err(Error::dtype("sum_dims", "input", "f32, f64, c32 or c64", x.dtype));
        }
        Ok(Ty::new(x.dtype, Shape { lead: x.shape.lead, dims: self.dims.clone() }))
    }

    fn class(&self) -> Class<'_> {
        Class::Structured(self)
    }

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        let dims = tape.shape(io.inputs[0])?.dims.clone();
        Ok(smallvec![Some(layout(tape, y_bar, Layout::Broadcast { dims })?)])
    }

    fn jvp(&self, tape: &mut Tape, _: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        x_dots[0].map(|d| sum_dims(tape, d, &self.dims)).transpose()
    }

    fn flops(&self, inputs: &[Ty], _: &Ty) -> f64 {
        inputs[0].shape.width() as f64
    }

    fn is_linear(&self) -> bool {
        true
    }
}

impl SumDims {
    fn kernel<R: Real>(&self, mut args: Args<'_, R>) {
        let x = args.inputs[0];
        let sum = AxisSum::new(x.dims(), &self.dims);
        // Asked of the output: an input without elements has no planes to tell.
        let complex = args.output.is_complex();
        for r in 0..args.rows {
            let (re, im) = args.output.row_pair(r);
            multiversion(AxisSumOf { sum: &sum, x: x.row(r), y: re });
            if complex {
                multiversion(AxisSumOf { sum: &sum, x: x.row_im(r), y: im });
            }
        }
    }
}

struct AxisSumOf<'a, R> {
    sum: &'a AxisSum,
    x: &'a [R],
    y: &'a mut [R],
}

impl<R: Real> Multiversion for AxisSumOf<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        self.sum.run(self.x, self.y);
    }
}

impl Structured for SumDims {
    structured_kernel!();

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }
}

impl DeviceKernel for SumDims {
    fn phases(&self, _: &[Entry], output: &Entry) -> Vec<usize> {
        vec![output.width()]
    }

    fn by_warp(&self, inputs: &[Entry], _: &Entry) -> bool {
        inputs[0].is_long_to(&self.dims)
    }

    fn piece(&self, k: &mut Piece<'_, '_>, _: usize, piece: Value) {
        let dims = k.inputs[0].dims.clone();
        let (mut from, mut to, mut base, mut summed) = (1, 1, Value::Int(0), Vec::new());
        for axis in (0..dims.len()).rev() {
            let kept = self.dims.len().checked_sub(dims.len() - axis).map_or(1, |a| self.dims[a]);
            if kept == dims[axis] {
                let along = k.code().div(piece, to);
                let along = k.code().rem(along, kept);
                let skip = k.code().mul(along, from);
                base = k.code().add(base, skip);
            } else {
                summed.push((dims[axis], from));
            }
            (from, to) = (from * dims[axis], to * kept);
        }
        for plane in 0..k.planes() {
            let zero = k.number(0.0);
            let sum = k.variable(zero);
            k.each_along(&summed, base, &mut |k, index| {
                let x = k.input(0, plane, index);
                let y = k.code().add(sum, x);
                k.code().set(sum, y);
            });
            let sum = k.join(sum, |k, a, b| k.code().add(a, b));
            k.once(|k| k.store(plane, piece, sum));
        }
    }
}

/// Where each element goes when axes are summed.
enum AxisSum {
    /// `[outer, mid, inner] -> [outer, inner]`.
    Block { outer: usize, mid: usize, inner: usize },
    /// Sizes of the input and strides in the output (0 where summed).
    General { dims: Vec<usize>, strides: Vec<usize> },
}

impl AxisSum {
    fn new(from: &[usize], to: &[usize]) -> AxisSum {
        let skip = from.len() - to.len();
        let summed = |a: usize| from[a] != 1 && (a < skip || to[a - skip] == 1);
        let first = (0..from.len()).find(|&a| summed(a)).unwrap_or(0);
        let last = (0..from.len()).rfind(|&a| summed(a)).map_or(0, |a| a + 1);
        if (first..last).all(|a| summed(a) || from[a] == 1) {
            return AxisSum::Block {
                outer: from[..first].iter().product(),
                mid: from[first..last].iter().product(),
                inner: from[last..].iter().product(),
            };
        }
        let mut strides = vec![0; from.len()];
        let mut step = 1;
        for a in (skip..from.len()).rev() {
            strides[a] = if summed(a) { 0 } else { step };
            step *= to[a - skip];
        }
        AxisSum::General { dims: from.to_vec(), strides }
    }

    #[inline(always)]
    fn run<R: Real>(&self, x: &[R], y: &mut [R]) {
        match self {
            AxisSum::Block { outer, mid, inner: 1 } => {
                for o in 0..*outer {
                    y[o] = lane_sum(&x[o * mid..(o + 1) * mid]);
                }
            }
            AxisSum::Block { outer, mid, inner } => {
                for o in 0..*outer {
                    let y = &mut y[o * inner..(o + 1) * inner];
                    y.fill(R::from_f64(0.0));
                    for m in 0..*mid {
                        let x = &x[(o * mid + m) * inner..][..*inner];
                        add(y, x);
                    }
                }
            }
            AxisSum::General { dims, strides } => {
                y.fill(R::from_f64(0.0));
                let mut at = vec![0; dims.len()];
                let mut j = 0;
                for &v in x {
                    y[j] += v;
                    for a in (0..dims.len()).rev() {
                        at[a] += 1;
                        j += strides[a];
                        if at[a] < dims[a] {
                            break;
                        }
                        j -= strides[a] * dims[a];
                        at[a] = 0;
                    }
                }
            }
        }
    }
}

/// `y += x`. By index: adapters of iterators are not always inlined into functions with more target features.
#[inline(always)]
fn add<R: Real>(y: &mut [R], x: &[R]) {
    let n = y.len().min(x.len());
    let (y, x) = (&mut y[..n], &x[..n]);
    for i in 0..n {
        y[i] += x[i];
    }
}

/// Sum in sixteen interleaved partial sums: the order depends on the length alone, and it vectorises.
#[inline(always)]
pub(crate) fn lane_sum<R: Real>(x: &[R]) -> R {
    let mut lanes = [R::ZERO; 16];
    let (whole, rest) = x.as_chunks::<16>();
    for i in 0..whole.len() {
        for l in 0..16 {
            lanes[l] += whole[i][l];
        }
    }
    for i in 0..rest.len() {
        lanes[i] += rest[i];
    }
    // Spelled out: a loop over widths stays a loop over memory.
    for l in 0..8 {
        lanes[l] += lanes[l + 8];
    }
    for l in 0..4 {
        lanes[l] += lanes[l + 4];
    }
    (lanes[0] + lanes[2]) + (lanes[1] + lanes[3])
}

impl Op for SumRows {
    fn name(&self) -> &'static str {
        "sum_rows"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        let x = &inputs[0];
        if !x.shape.lead.has_n() {
            return Err(Error::shape("sum_rows", "input", "a row axis", &x.shape));
        }
        let lead = Lead::from_axes(x.shape.lead.has_t(), false);
        Ok(Ty::new(x.dtype, Shape { lead, dims: x.shape.dims.clone() }))
    }

    fn class(&self) -> Class<'_> {
        Class::Structured(self)
    }

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        let lead = tape.lead(io.inputs[0])?;
        Ok(smallvec![Some(expand(tape, y_bar, lead)?)])
    }

    fn jvp(&self, tape: &mut Tape, _: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        x_dots[0].map(|d| sum_rows(tape, d)).transpose()
    }

    fn flops(&self, inputs: &[Ty], _: &Ty) -> f64 {
        inputs[0].shape.width() as f64
    }

    fn is_linear(&self) -> bool {
        true
    }
}

impl SumRows {
    fn kernel<R: Real>(&self, mut args: Args<'_, R>) {
        let x = args.inputs[0];
        let (re, im) = args.output.row_pair(0);
        for r in 0..args.rows {
            multiversion(Add { y: re, x: x.row(r) });
            if x.is_complex() {
                multiversion(Add { y: im, x: x.row_im(r) });
            }
        }
    }
}

struct Add<'a, R> {
    y: &'a mut [R],
    x: &'a [R],
}

impl<R: Real> Multiversion for Add<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        add(self.y, self.x);
    }
}

impl Structured for SumRows {
    fn rows(&self) -> RowRule {
        RowRule::Reduce
    }

    structured_kernel!();

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }
}

impl DeviceKernel for SumRows {
    fn phases(&self, _: &[Entry], output: &Entry) -> Vec<usize> {
        vec![output.width()]
    }

    fn piece(&self, k: &mut Piece<'_, '_>, _: usize, piece: Value) {
        for plane in 0..k.planes() {
            let zero = k.number(0.0);
            let sum = k.variable(zero);
            k.each_row(|k| {
                let x = k.input(0, plane, piece);
                let y = k.code().add(sum, x);
                k.code().set(sum, y);
            });
            k.add(plane, piece, sum);
        }
    }
}

impl Op for SumSteps {
    fn name(&self) -> &'static str {
        "sum_steps"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        let x = &inputs[0];
        if !x.shape.lead.has_t() {
            return Err(Error::shape("sum_steps", "input", "a time axis", &x.shape));
        }
        let lead = Lead::from_axes(false, x.shape.lead.has_n());
        Ok(Ty::new(x.dtype, Shape { lead, dims: x.shape.dims.clone() }))
    }

    fn class(&self) -> Class<'_> {
        Class::SumSteps
    }

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        let lead = tape.lead(io.inputs[0])?;
        Ok(smallvec![Some(expand(tape, y_bar, lead)?)])
    }

    fn jvp(&self, tape: &mut Tape, _: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        x_dots[0].map(|d| sum_steps(tape, d)).transpose()
    }

    fn is_linear(&self) -> bool {
        true
    }
}
