//! One operation on whole values, by class.

use std::rc::Rc;

use num_complex::Complex;
use num_traits::Float;

use super::value::{Extents, Planes, Scalar, Value};
use super::{bug, pointwise};
use crate::cpu::Real;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::kernel::{Args, In, Origin, Out, RowRule, Structured};
use crate::layout::Layout;
use crate::matmul::{MatMul, RowContract};
use crate::op::{Class, Op, Ty};
use crate::tape::{Node, Var};

/// An input of an operation.
#[derive(Clone)]
pub(super) struct Operand<'a> {
    pub(super) ty: &'a Ty,
    pub(super) value: Rc<Value>,
}

impl<'a> Operand<'a> {
    pub(super) fn new(nodes: &'a [Node], values: &[Option<Rc<Value>>], v: Var) -> Result<Operand<'a>> {
        let at = v.index as usize;
        let value = values[at].clone().ok_or_else(|| bug("a value read before it is there"))?;
        Ok(Operand { ty: &nodes[at].ty, value })
    }

    pub(super) fn planes<R: Scalar>(&self) -> Result<&Planes<R>> {
        R::planes(&self.value).ok_or_else(|| Error::dtype("evaluate", "input", R::DTYPE, self.ty.dtype))
    }
}

/// The output of `op`; `step` is the number of the step inside a scan.
pub(super) fn apply(
    op: &dyn Op,
    inputs: &[Operand<'_>],
    ty: &Ty,
    extents: Extents,
    step: Option<usize>,
) -> Result<Value> {
    match ty.dtype.real() {
        DType::F32 => apply_in::<f32>(op, inputs, ty, extents, step),
        DType::F64 => apply_in::<f64>(op, inputs, ty, extents, step),
        // Indices are only moved.
        _ => match op.class() {
            Class::Layout(layout) => rearrange(layout, &inputs[0], extents),
            Class::Expand => Ok(stretch(&inputs[0], ty, extents)),
            _ => Err(Error::dtype(op.name(), "output", "f32, f64, c32 or c64", ty.dtype)),
        },
    }
}

fn apply_in<R: Scalar>(
    op: &dyn Op,
    inputs: &[Operand<'_>],
    ty: &Ty,
    extents: Extents,
    step: Option<usize>,
) -> Result<Value> {
    match op.class() {
        Class::Pointwise(body) => pointwise::apply::<R>(body, inputs, ty, extents),
        Class::MatMul(flags) => matmul::<R>(flags, &inputs[0], &inputs[1], ty, extents),
        Class::RowContract(flags) => row_contract::<R>(flags, &inputs[0], &inputs[1], ty, extents),
        Class::Structured(kernel) => structured::<R>(kernel, inputs, ty, extents, step),
        Class::Layout(layout) => rearrange(layout, &inputs[0], extents),
        Class::Expand => Ok(stretch(&inputs[0], ty, extents)),
        Class::Cast => match inputs[0].value.as_ref() {
            Value::F32(p) => Ok(R::wrap(convert(p))),
            Value::F64(p) => Ok(R::wrap(convert(p))),
            Value::Index(_) => Err(Error::dtype("cast", "input", "f32, f64, c32 or c64", DType::I32)),
        },
        Class::SumSteps => sum_over_steps(&inputs[0].value, ty, extents),
    }
}

fn convert<A: Scalar, B: Scalar>(p: &Planes<A>) -> Planes<B> {
    let each = |x: &Vec<A>| x.iter().map(|&x| <B as Real>::from_f64(Real::to_f64(x))).collect();
    Planes { re: each(&p.re), im: each(&p.im) }
}

fn conj_if<R: Scalar>(flag: bool, z: Complex<R>) -> Complex<R> {
    if flag { z.conj() } else { z }
}

fn matmul<R: Scalar>(
    flags: &MatMul,
    a: &Operand<'_>,
    b: &Operand<'_>,
    ty: &Ty,
    extents: Extents,
) -> Result<Value> {
    let (x, w) = (a.planes::<R>()?, b.planes::<R>()?);
    let (k, m) = match (flags.transpose_b, &b.ty.shape.dims[..]) {
        (false, &[k, m]) | (true, &[m, k]) => (k, m),
        _ => return Err(bug("matmul by something that is not a matrix")),
    };
    let rows = extents.entries(a.ty.shape.lead)
        * a.ty.shape.dims[..a.ty.shape.dims.len() - 1].iter().product::<usize>();
    let mut out = Planes::full(rows * m, ty.dtype.is_complex(), R::ZERO);
    for row in 0..rows {
        for j in 0..m {
            for i in 0..k {
                let at = if flags.transpose_b { j * k + i } else { i * m + j };
                let (a, b) = (x.get(row * k + i), w.get(at));
                out.accumulate(row * m + j, conj_if(flags.conj_a, a) * conj_if(flags.conj_b, b));
            }
        }
    }
    Ok(R::wrap(out))
}

fn row_contract<R: Scalar>(
    flags: &RowContract,
    left: &Operand<'_>,
    right: &Operand<'_>,
    ty: &Ty,
    extents: Extents,
) -> Result<Value> {
    let (l, r) = (left.planes::<R>()?, right.planes::<R>()?);
    let (ls, rs) = (&left.ty.shape, &right.ty.shape);
    let (rows_i, rows_j) = match ty.shape.dims[..] {
        [i, j] => (i, j),
        _ => return Err(bug("row_contract to something that is not a matrix")),
    };
    let within: usize = ls.dims[..ls.dims.len() - 1].iter().product();
    let lead = ls.lead.join(rs.lead);
    let mut out = Planes::full(rows_i * rows_j, ty.dtype.is_complex(), R::ZERO);
    for t in 0..if lead.has_t() { extents.steps } else { 1 } {
        for n in 0..if lead.has_n() { extents.rows } else { 1 } {
            for row in 0..within {
                let at_l = (extents.entry(ls.lead, t, n) * within + row) * rows_i;
                let at_r = (extents.entry(rs.lead, t, n) * within + row) * rows_j;
                for i in 0..rows_i {
                    for j in 0..rows_j {
                        let (a, b) = (l.get(at_l + i), r.get(at_r + j));
                        let term = conj_if(flags.conj_left, a) * conj_if(flags.conj_right, b);
                        out.accumulate(i * rows_j + j, term);
                    }
                }
            }
        }
    }
    Ok(R::wrap(out))
}

fn rearrange(layout: &Layout, x: &Operand<'_>, extents: Extents) -> Result<Value> {
    let map = layout.map(&x.ty.shape.dims)?;
    let width = x.ty.shape.width();
    let entries = extents.entries(x.ty.shape.lead);
    Ok(x.value.pick(
        (0..entries).flat_map(|e| map.iter().map(move |&i| usize::try_from(i).ok().map(|i| e * width + i))),
    ))
}

fn stretch(x: &Operand<'_>, ty: &Ty, extents: Extents) -> Value {
    let (from, to) = (x.ty.shape.lead, ty.shape.lead);
    let width = ty.shape.width();
    let steps = if to.has_t() { extents.steps } else { 1 };
    let rows = if to.has_n() { extents.rows } else { 1 };
    x.value.pick((0..steps * rows * width).map(|at| {
        let (entry, j) = (at / width, at % width);
        Some(extents.entry(from, entry / rows, entry % rows) * width + j)
    }))
}

/// Sums blocks of the type `ty`, one for each step.
pub(super) fn sum_over_steps(x: &Value, ty: &Ty, extents: Extents) -> Result<Value> {
    fn sum<R: Scalar>(x: &Planes<R>, ty: &Ty, extents: Extents) -> Planes<R> {
        let len = extents.entries(ty.shape.lead) * ty.shape.width();
        let mut out = Planes::full(len, ty.dtype.is_complex(), R::ZERO);
        for t in 0..extents.steps {
            for i in 0..len {
                out.accumulate(i, x.get(t * len + i));
            }
        }
        out
    }
    match x {
        Value::F32(p) => Ok(Value::F32(sum(p, ty, extents))),
        Value::F64(p) => Ok(Value::F64(sum(p, ty, extents))),
        Value::Index(_) => Err(Error::dtype("sum_steps", "input", "f32, f64, c32 or c64", DType::I32)),
    }
}

/// Calls the operation's own kernel, once for each step.
fn structured<R: Scalar>(
    kernel: &dyn Structured,
    inputs: &[Operand<'_>],
    ty: &Ty,
    extents: Extents,
    step: Option<usize>,
) -> Result<Value> {
    let lead = inputs.iter().fold(ty.shape.lead, |lead, x| lead.join(x.ty.shape.lead));
    let steps = if lead.has_t() { extents.steps } else { 1 };
    let rows = if lead.has_n() { extents.rows } else { 1 };
    let reduce = kernel.rows() == RowRule::Reduce;
    if !reduce && ty.shape.lead != lead {
        return Err(bug("a kernel works row by row, but its output lacks a batch axis of its inputs"));
    }
    let tys: Vec<Ty> = inputs.iter().map(|x| x.ty.clone()).collect();
    // What a kernel must not read is NaN, so that it shows if it does.
    let start = if reduce { R::ZERO } else { Float::nan() };
    let mut scratch = vec![Float::nan(); kernel.scratch(&tys)];
    let width = ty.shape.width();
    let mut out = Planes::full(extents.entries(ty.shape.lead) * width, ty.dtype.is_complex(), start);
    for t in 0..steps {
        let mut ins: Vec<In<'_, R>> = Vec::new();
        for x in inputs {
            let shape = &x.ty.shape;
            let from = extents.entry(shape.lead, t, 0) * shape.width();
            let stride = if shape.lead.has_n() { shape.width() } else { 0 };
            ins.push(match x.value.as_ref() {
                Value::Index(index) => In::indices(&index[from..], stride, &shape.dims),
                _ => {
                    let p = x.planes::<R>()?;
                    let im = if p.im.is_empty() { &p.im[..] } else { &p.im[from..] };
                    In::new(&p.re[from..], im, stride, &shape.dims)
                }
            });
        }
        let from = extents.entry(ty.shape.lead, t, 0) * width;
        let im = if out.im.is_empty() { &mut out.im[..] } else { &mut out.im[from..] };
        let stride = if ty.shape.lead.has_n() { width } else { 0 };
        let output = Out::new(&mut out.re[from..], im, stride, &ty.shape.dims);
        let origin = Origin { step: step.unwrap_or(t), row: 0, steps: extents.steps, batch: extents.rows };
        R::run(kernel, Args { rows, inputs: &ins, output, scratch: &mut scratch, origin });
    }
    Ok(R::wrap(out))
}
