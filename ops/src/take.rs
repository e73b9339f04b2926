//! Elements of the last axis in the order of indices, and its adjoint.

use retrograd_engine::cpu::Real;
use retrograd_engine::device::{Building, DeviceKernel, Entry, Piece, Value};
use retrograd_engine::kernel::{Args, Structured};
use retrograd_engine::op::{Class, Cotangents, Io};
use retrograd_engine::{Error, Op, Result, Shape, Tape, Ty, Var, structured_kernel};
use smallvec::smallvec;

use crate::check;
use crate::gather::Missing;
use crate::pieces::{index_of, sum};
use crate::spec::{Arg, Case, Domain, OpSpec};

/// Elements of the last axis that the indices name, the same for every row before it: `y_j = x_{index_j}`. A
/// permutation, or any other choice.
///
/// Shapes: `x [.., K]`, `index [M]` (`i32`) `-> y [.., M]`.   Rule: [`put`]; keeps `index`.
/// Domain: an index outside `0..K` gives NaN.   Errors: an `x` without an axis; an index with more than one axis or of
/// another type.
pub fn take(tape: &mut Tape, x: Var, index: Var) -> Result<Var> {
    tape.push(Take { missing: Missing::Nan }, &[x, index])
}

/// Elements of the last axis added up by index, zero where no index points: `x_k = Σ_{j: index_j = k} y_j`. The adjoint
/// of [`take`]; of a permutation its inverse.
///
/// Shapes: `y [.., M]`, `index [M]` (`i32`) `-> x [.., k]`.   Rule: [`take`].   Domain: an index outside `0..k` adds
/// nothing.   Errors: a last axis of another size than the index; an index with more than one axis or of another type.
pub fn put(tape: &mut Tape, y: Var, index: Var, k: usize) -> Result<Var> {
    tape.push(Put { k }, &[y, index])
}

#[derive(Clone, Copy, Debug)]
struct Take {
    missing: Missing,
}

#[derive(Clone, Copy, Debug)]
struct Put {
    k: usize,
}

/// The type with a last axis of another size. Errors: no axis; an index that is not a list of indices.
fn infer(op: &'static str, inputs: &[Ty], size: impl Fn(usize) -> usize) -> Result<Ty> {
    check::joint_dtype(op, &inputs[..1])?;
    check::index(op, inputs, 1)?;
    let (x, index) = (&inputs[0].shape, &inputs[1].shape);
    let &[len] = &index.dims[..] else {
        return Err(Error::shape(op, "index", "one axis [M]", index));
    };
    let mut dims = x.dims.clone();
    match dims.last_mut() {
        Some(last) => *last = size(len),
        None => return Err(Error::shape(op, "values", "at least one axis", x)),
    }
    Ok(Ty::new(inputs[0].dtype, Shape { lead: x.lead.join(index.lead), dims }))
}

impl Op for Take {
    fn name(&self) -> &'static str {
        "take"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        infer("take", inputs, |len| len)
    }

    fn class(&self) -> Class<'_> {
        Class::Structured(self)
    }

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        let k = tape.last_dim("take", io.inputs[0])?;
        Ok(smallvec![Some(put(tape, y_bar, io.inputs[1], k)?), None])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        x_dots[0].map(|d| tape.push(*self, &[d, io.inputs[1]])).transpose()
    }

    fn flops(&self, _: &[Ty], _: &Ty) -> f64 {
        0.0
    }
}

impl Take {
    fn kernel<R: Real>(&self, mut args: Args<'_, R>) {
        let (x, index) = (args.inputs[0], args.inputs[1]);
        let (k, len) = (x.dims().last().copied().unwrap_or(0), index.width());
        let missing = self.missing.value();
        let one = |from: &[R], to: &mut [R], index: &[i32]| {
            for row in 0..from.len().checked_div(k).unwrap_or(0) {
                let from = &from[row * k..(row + 1) * k];
                for (y, &i) in to[row * len..(row + 1) * len].iter_mut().zip(index) {
                    *y = usize::try_from(i).ok().and_then(|i| from.get(i)).copied().unwrap_or(missing);
                }
            }
        };
        for r in 0..args.rows {
            let (re, im) = args.output.row_pair(r);
            // Of no elements none can be taken.
            if k == 0 {
                re.fill(missing);
                im.fill(missing);
                continue;
            }
            one(x.row(r), re, index.index_row(r));
            if x.is_complex() {
                one(x.row_im(r), im, index.index_row(r));
            }
        }
    }
}

impl Structured for Take {
    structured_kernel!();

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }
}

impl DeviceKernel for Take {
    fn phases(&self, _: &[Entry], output: &Entry) -> Vec<usize> {
        vec![output.width()]
    }

    fn piece(&self, k: &mut Piece<'_, '_>, _: usize, piece: Value) {
        let (count, len) = (k.inputs[0].dims.last().copied().unwrap_or(0), k.inputs[1].width());
        let missing = k.number(self.missing.value::<f64>());
        if count == 0 {
            (0..k.planes()).for_each(|plane| k.store(plane, piece, missing));
            return;
        }
        let (row, at) = (k.code().div(piece, len), k.code().rem(piece, len));
        let index = k.input(1, 0, at);
        let (there, index) = index_of(k, index, count);
        let at = k.code().mul(row, count);
        let at = k.code().add(at, index);
        for plane in 0..k.planes() {
            let x = k.input(0, plane, at);
            let y = k.code().select(there, x, missing);
            k.store(plane, piece, y);
        }
    }
}

impl Op for Put {
    fn name(&self) -> &'static str {
        "put"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        let (last, index) = (inputs[0].shape.dims.last(), inputs[1].shape.dims.first());
        if last.is_some() && index.is_some() && last != index {
            return Err(Error::shape(
                "put",
                "index",
                format!("{last:?}, as the last axis"),
                &inputs[1].shape,
            ));
        }
        infer("put", inputs, |_| self.k)
    }

    fn class(&self) -> Class<'_> {
        Class::Structured(self)
    }

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, x_bar: Var) -> Result<Cotangents> {
        Ok(smallvec![Some(tape.push(Take { missing: Missing::Zero }, &[x_bar, io.inputs[1]])?), None])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, y_dots: &[Option<Var>]) -> Result<Option<Var>> {
        y_dots[0].map(|d| put(tape, d, io.inputs[1], self.k)).transpose()
    }

    fn flops(&self, inputs: &[Ty], _: &Ty) -> f64 {
        inputs[0].shape.width() as f64
    }
}

impl Put {
    fn kernel<R: Real>(&self, mut args: Args<'_, R>) {
        let (y, index, k) = (args.inputs[0], args.inputs[1], self.k);
        let len = index.width();
        let one = |from: &[R], to: &mut [R], index: &[i32]| {
            to.fill(R::ZERO);
            for row in 0..to.len().checked_div(k).unwrap_or(0) {
                let to = &mut to[row * k..(row + 1) * k];
                for (y, &i) in from[row * len..(row + 1) * len].iter().zip(index) {
                    if let Some(x) = usize::try_from(i).ok().and_then(|i| to.get_mut(i)) {
                        *x += *y;
                    }
                }
            }
        };
        for r in 0..args.rows {
            let (re, im) = args.output.row_pair(r);
            one(y.row(r), re, index.index_row(r));
            match y.is_complex() {
                true => one(y.row_im(r), im, index.index_row(r)),
                // Of no elements there are no imaginary parts to see.
                false => im.fill(R::ZERO),
            }
        }
    }
}

impl Structured for Put {
    structured_kernel!();

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }
}

impl DeviceKernel for Put {
    fn phases(&self, _: &[Entry], output: &Entry) -> Vec<usize> {
        vec![output.width()]
    }

    fn piece(&self, k: &mut Piece<'_, '_>, _: usize, piece: Value) {
        let len = k.inputs[1].width();
        let (row, own) = (k.code().div(piece, self.k), k.code().rem(piece, self.k));
        let base = k.code().mul(row, len);
        for plane in 0..k.planes() {
            let y = sum(k, len, |k, i| {
                let index = k.input(1, 0, i);
                let here = k.code().eq(index, own);
                let at = k.code().add(base, i);
                let (x, zero) = (k.input(0, plane, at), k.number(0.0));
                k.code().select(here, x, zero)
            });
            k.store(plane, piece, y);
        }
    }
}

pub(crate) static TAKE: OpSpec = OpSpec {
    name: "take",
    summary: "elements of the last axis by index, the same for every row: permutations",
    cases: &[
        Case {
            label: "rows",
            inputs: &[Arg::either("N K", Domain::Any), Arg::index("M", "K")],
            build: |t, x| take(t, x[0], x[1]),
        },
        Case {
            label: "axes before, indices of each row",
            inputs: &[Arg::either("N B K", Domain::Any), Arg::index("N M", "K")],
            build: |t, x| take(t, x[0], x[1]),
        },
    ],
};

pub(crate) static PUT: OpSpec = OpSpec {
    name: "put",
    summary: "elements of the last axis added up by index, the same for every row",
    cases: &[Case {
        label: "rows",
        inputs: &[Arg::either("N B M", Domain::Any), Arg::index("M", "4")],
        build: |t, x| put(t, x[0], x[1], 4),
    }],
};

#[cfg(test)]
mod tests {
    use retrograd_engine::{DType, Params, Tensor, reference, vjp};

    use super::*;

    #[test]
    fn a_permutation_and_indices_that_are_none() -> Result<()> {
        let mut tape = Tape::new();
        let x = tape.param("x", DType::F64, [3])?;
        let index = tape.param("index", DType::I32, [4])?;
        let y = take(&mut tape, x, index)?;
        let y_bar = tape.param("y_bar", DType::F64, [4])?;
        let x_bar = vjp(&mut tape, &[(y, y_bar)], &[x])?[0].ok_or(Error::argument("test", "no cotangent"))?;
        let mut values = Params::new();
        values.insert("x", Tensor::from_slice([3], &[1.0, 2.0, 3.0])?);
        values.insert("y_bar", Tensor::from_slice([4], &[10.0, 20.0, 40.0, 80.0])?);
        for (indices, expected, bars) in [
            ([2, 0, 1, 2], [3.0, 1.0, 2.0, 3.0], [20.0, 40.0, 90.0]),
            ([0, 3, -1, 1], [1.0, f64::NAN, f64::NAN, 2.0], [10.0, 80.0, 0.0]),
        ] {
            values.insert("index", Tensor::from_slice([4], &indices)?);
            let found = reference::evaluate(&tape, &[y, x_bar], &[&values])?;
            let same = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan());
            assert!((0..4).all(|i| same(found[0].get(i).re, expected[i])), "{:?}", found[0]);
            assert!((0..3).all(|i| found[1].get(i).re == bars[i]), "{:?}", found[1]);
        }
        Ok(())
    }

    #[test]
    fn errors() -> Result<()> {
        let mut tape = Tape::new();
        let x = tape.param("x", DType::F64, [3])?;
        let scalar = tape.param("scalar", DType::F64, [])?;
        let index = tape.param("index", DType::I32, [4])?;
        let table = tape.param("table", DType::I32, [2, 2])?;
        assert!(matches!(take(&mut tape, x, x), Err(Error::DType { .. })));
        assert!(matches!(take(&mut tape, x, table), Err(Error::Shape { .. })));
        assert!(matches!(take(&mut tape, scalar, index), Err(Error::Shape { .. })));
        assert!(matches!(put(&mut tape, x, index, 5), Err(Error::Shape { .. })));
        Ok(())
    }
}
