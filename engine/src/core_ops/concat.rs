//! Concatenation along an ordinary axis.

use crate::cpu::Real;
use crate::device::{Building, DeviceKernel, Entry, Piece, Value};
use crate::error::{Error, Result};
use crate::kernel::{Args, Structured};
use crate::layout::{Layout, layout};
use crate::op::{Class, Cotangents, Io, Op, Ty};
use crate::profile::Work;
use crate::shape::Shape;
use crate::structured_kernel;
use crate::tape::{Tape, Var};

/// Concatenation along ordinary axis `axis`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Concat {
    pub(crate) axis: usize,
}

/// Joins values along ordinary axis `axis`: `[.., a, ..], [.., b, ..] -> [.., a+b, ..]`.
///
/// Batch axes join. Rule: slices of `y_bar`. Errors: no inputs, other axes that differ, element types that
/// differ.
pub fn concat(tape: &mut Tape, parts: &[Var], axis: usize) -> Result<Var> {
    match parts {
        [one] => Ok(*one),
        _ => tape.push(Concat { axis }, parts),
    }
}

impl Op for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        let first = inputs.first().ok_or_else(|| Error::argument("concat", "no inputs"))?;
        if !first.dtype.is_differentiable() {
            return Err(Error::dtype("concat", "input 0", "f32, f64, c32 or c64", first.dtype));
        }
        let mut shape = first.shape.clone();
        if self.axis >= shape.dims.len() {
            return Err(Error::shape(
                "concat",
                format!("axis {}", self.axis),
                "an axis of the input",
                &shape,
            ));
        }
        shape.dims[self.axis] = 0;
        for (i, x) in inputs.iter().enumerate() {
            let mut others = x.shape.dims.clone();
            let rank_fits = others.len() == shape.dims.len();
            let size =
                if rank_fits { std::mem::replace(&mut others[self.axis], shape.dims[self.axis]) } else { 0 };
            if !rank_fits || others != shape.dims {
                let expected = format!("{} but for axis {}", first.shape, self.axis);
                return Err(Error::shape("concat", format!("input {i}"), expected, &x.shape));
            }
            if x.dtype != first.dtype {
                return Err(Error::dtype("concat", format!("input {i}"), first.dtype, x.dtype));
            }
            shape = Shape { lead: shape.lead.join(x.shape.lead), dims: shape.dims };
            shape.dims[self.axis] += size;
        }
        Ok(Ty::new(first.dtype, shape))
    }

    fn class(&self) -> Class<'_> {
        Class::Structured(self)
    }

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        let mut start = 0;
        io.inputs
            .iter()
            .map(|&x| {
                let len = tape.shape(x)?.dims[self.axis];
                start += len;
                Ok(Some(layout(tape, y_bar, Layout::Slice { axis: self.axis, start: start - len, len })?))
            })
            .collect()
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        let parts = io
            .inputs
            .iter()
            .zip(x_dots)
            .map(|(&x, d)| match d {
                Some(d) => Ok(*d),
                None => super::zeros_like(tape, x),
            })
            .collect::<Result<Vec<_>>>()?;
        concat(tape, &parts, self.axis).map(Some)
    }

    fn work(&self) -> Work {
        Work::Movement
    }

    fn flops(&self, _: &[Ty], _: &Ty) -> f64 {
        0.0
    }

    fn is_linear(&self) -> bool {
        true
    }

    fn is_cheap(&self) -> bool {
        true
    }
}

impl Concat {
    fn kernel<R: Real>(&self, mut args: Args<'_, R>) {
        let outer: usize = args.output.dims()[..self.axis].iter().product();
        let stride = args.output.width() / outer.max(1);
        for r in 0..args.rows {
            let (re, im) = args.output.row_pair(r);
            let mut at = 0;
            for x in args.inputs {
                let part = x.width() / outer.max(1);
                for o in 0..outer {
                    re[o * stride + at..][..part].copy_from_slice(&x.row(r)[o * part..][..part]);
                    if x.is_complex() {
                        im[o * stride + at..][..part].copy_from_slice(&x.row_im(r)[o * part..][..part]);
                    }
                }
                at += part;
            }
        }
    }
}

impl Structured for Concat {
    structured_kernel!();

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }
}

impl DeviceKernel for Concat {
    fn phases(&self, inputs: &[Entry], _: &Entry) -> Vec<usize> {
        vec![inputs.iter().map(Entry::width).max().unwrap_or(0)]
    }

    fn piece(&self, k: &mut Piece<'_, '_>, _: usize, piece: Value) {
        let outer: usize = k.output.dims[..self.axis].iter().product();
        let stride = k.output.width() / outer.max(1);
        let mut start = 0;
        for i in 0..k.inputs.len() {
            let (width, part) = (k.inputs[i].width(), k.inputs[i].width() / outer.max(1));
            if part > 0 {
                let inside = k.code().lt(piece, width);
                k.when(inside, |k| {
                    let (o, j) = (k.code().div(piece, part), k.code().rem(piece, part));
                    let to = k.code().mul(o, stride);
                    let to = k.code().add(to, start);
                    let to = k.code().add(to, j);
                    for plane in 0..k.planes() {
                        let x = k.input(i, plane, piece);
                        k.store(plane, to, x);
                    }
                });
            }
            start += part;
        }
    }
}
