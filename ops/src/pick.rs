//! One element of the last axis, by index, and its adjoint.

use retrograd_engine::cpu::Real;
use retrograd_engine::device::{Building, DeviceKernel, Entry, Piece, Value};
use retrograd_engine::kernel::{Args, Structured};
use retrograd_engine::op::{Class, Cotangents, Io};
use retrograd_engine::{DType, Dims, Error, Op, Result, Shape, Tape, Ty, Var, structured_kernel};
use smallvec::smallvec;

use crate::gather::Missing;
use crate::pieces::index_of;
use crate::spec::{Arg, Case, Domain, OpSpec};

/// The element of the last axis that `index` names.
///
/// Shapes: `x [.., K]`, `index [..]` (i32) `-> y [..]`.   Rule: `y_bar` at the place named, zero elsewhere; keeps
/// `index`.   Domain: an index outside `0..K` gives NaN.   Errors: other axes than the last differ.
pub fn pick(tape: &mut Tape, x: Var, index: Var) -> Result<Var> {
    tape.push(Pick { missing: Missing::Nan }, &[x, index])
}

/// `y` at the place `index` names along a new last axis of size `k`, zero elsewhere; the adjoint of [`pick`].
///
/// Shapes: `y [..]`, `index [..]` (i32) `-> x [.., k]`.   Rule: [`pick`].   An index outside `0..k` places nothing.
pub fn place(tape: &mut Tape, y: Var, index: Var, k: usize) -> Result<Var> {
    tape.push(Place { k }, &[y, index])
}

#[derive(Clone, Copy, Debug)]
struct Pick {
    missing: Missing,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    k: usize,
}

fn check(op: &'static str, x: &Ty, index: &Ty, dims: &[usize]) -> Result<Shape> {
    if !x.dtype.is_differentiable() {
        return Err(Error::dtype(op, "values", "f32, f64, c32 or c64", x.dtype));
    }
    if index.dtype != DType::I32 {
        return Err(Error::dtype(op, "index", DType::I32, index.dtype));
    }
    if index.shape.dims[..] != *dims {
        return Err(Error::shape(op, "index", format!("axes {dims:?}"), &index.shape));
    }
    Ok(Shape { lead: x.shape.lead.join(index.shape.lead), dims: Dims::from_slice(dims) })
}

impl Op for Pick {
    fn name(&self) -> &'static str {
        "pick"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        let Some((_, dims)) = inputs[0].shape.dims.split_last() else {
            return Err(Error::shape("pick", "values", "at least one axis", &inputs[0].shape));
        };
        Ok(Ty::new(inputs[0].dtype, check("pick", &inputs[0], &inputs[1], dims)?))
    }

    fn class(&self) -> Class<'_> {
        Class::Structured(self)
    }

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        let k = tape.last_dim("pick", io.inputs[0])?;
        Ok(smallvec![Some(place(tape, y_bar, io.inputs[1], k)?), None])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        x_dots[0].map(|d| tape.push(*self, &[d, io.inputs[1]])).transpose()
    }
}

impl Pick {
    fn kernel<R: Real>(&self, mut args: Args<'_, R>) {
        let (x, index) = (args.inputs[0], args.inputs[1]);
        let k = x.dims().last().copied().unwrap_or(1);
        let at = |v: &[R], j: usize, i: i32| match usize::try_from(i) {
            Ok(i) if i < k => v[j * k + i],
            _ => self.missing.value(),
        };
        for r in 0..args.rows {
            let (re, im) = args.output.row_pair(r);
            for (j, &i) in index.index_row(r).iter().enumerate() {
                re[j] = at(x.row(r), j, i);
                if x.is_complex() {
                    im[j] = at(x.row_im(r), j, i);
                }
            }
        }
    }
}

impl Structured for Pick {
    structured_kernel!();

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }
}

impl DeviceKernel for Pick {
    fn phases(&self, _: &[Entry], output: &Entry) -> Vec<usize> {
        vec![output.width()]
    }

    fn piece(&self, k: &mut Piece<'_, '_>, _: usize, piece: Value) {
        let count = k.inputs[0].dims.last().copied().unwrap_or(1);
        let missing = k.number(self.missing.value::<f64>());
        if count == 0 {
            (0..k.planes()).for_each(|plane| k.store(plane, piece, missing));
            return;
        }
        let index = k.input(1, 0, piece);
        let (there, index) = index_of(k, index, count);
        let at = k.code().mul(piece, count);
        let at = k.code().add(at, index);
        for plane in 0..k.planes() {
            let x = k.input(0, plane, at);
            let y = k.code().select(there, x, missing);
            k.store(plane, piece, y);
        }
    }
}

impl Op for Place {
    fn name(&self) -> &'static str {
        "place"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        let mut shape = check("place", &inputs[0], &inputs[1], &inputs[0].shape.dims)?;
        shape.dims.push(self.k);
        Ok(Ty::new(inputs[0].dtype, shape))
    }

    fn class(&self) -> Class<'_> {
        Class::Structured(self)
    }

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        Ok(smallvec![Some(tape.push(Pick { missing: Missing::Zero }, &[y_bar, io.inputs[1]])?), None])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        x_dots[0].map(|d| place(tape, d, io.inputs[1], self.k)).transpose()
    }

    fn is_cheap(&self) -> bool {
        true
    }
}

impl Place {
    fn kernel<R: Real>(&self, mut args: Args<'_, R>) {
        let (y, index) = (args.inputs[0], args.inputs[1]);
        for r in 0..args.rows {
            let (re, im) = args.output.row_pair(r);
            re.fill(R::ZERO);
            im.fill(R::ZERO);
            for (j, &i) in index.index_row(r).iter().enumerate() {
                let Some(i) = usize::try_from(i).ok().filter(|&i| i < self.k) else { continue };
                re[j * self.k + i] = y.row(r)[j];
                if y.is_complex() {
                    im[j * self.k + i] = y.row_im(r)[j];
                }
            }
        }
    }
}

impl Structured for Place {
    structured_kernel!();

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }
}

impl DeviceKernel for Place {
    fn phases(&self, _: &[Entry], output: &Entry) -> Vec<usize> {
        vec![output.width()]
    }

    fn piece(&self, k: &mut Piece<'_, '_>, _: usize, piece: Value) {
        let (entry, own) = (k.code().div(piece, self.k), k.code().rem(piece, self.k));
        let index = k.input(1, 0, entry);
        let here = k.code().eq(index, own);
        for plane in 0..k.planes() {
            let (x, zero) = (k.input(0, plane, entry), k.number(0.0));
            let y = k.code().select(here, x, zero);
            k.store(plane, piece, y);
        }
    }
}

pub(crate) static PICK: OpSpec = OpSpec {
    name: "pick",
    summary: "one element of the last axis, by index",
    cases: &[
        Case {
            label: "rows",
            inputs: &[Arg::either("N K", Domain::Any), Arg::index("N", "K")],
            build: |t, x| pick(t, x[0], x[1]),
        },
        Case {
            label: "axes before",
            inputs: &[Arg::real("N B K", Domain::Any), Arg::index("N B", "K")],
            build: |t, x| pick(t, x[0], x[1]),
        },
    ],
};

pub(crate) static PLACE: OpSpec = OpSpec {
    name: "place",
    summary: "a value at the place an index names, zero elsewhere",
    cases: &[Case {
        label: "rows",
        inputs: &[Arg::either("N", Domain::Any), Arg::index("N", "4")],
        build: |t, x| place(t, x[0], x[1], 4),
    }],
};
