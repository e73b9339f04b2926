//! Rows of a table by their indices.

use retrograd_engine::cpu::Real;
use retrograd_engine::device::{Building, DeviceKernel, Entry, Piece, Value};
use retrograd_engine::kernel::{Args, RowRule, Structured};
use retrograd_engine::op::{Class, Cotangents, Io};
use retrograd_engine::{Dims, Error, Lead, Op, Result, Shape, Tape, Ty, Var, structured_kernel};
use smallvec::smallvec;

use crate::check;
use crate::pieces::index_of;
use crate::spec::{Arg, Case, Domain, OpSpec};

/// Rows of a table by their indices: `y[..] = table[indices[..]]`. An embedding; and the product of one-hot vectors
/// with a matrix, without the vectors.
///
/// Shapes: `table [V, D..]` without batch axes, `indices [..]` (`i32`) `-> y [.., D..]`.   Rule: `table_bar` is the sum
/// of the rows of `y_bar` that go to each row of the table; keeps `indices`.
/// Domain: all numbers; an index outside `0..V` gives a row of NaN and adds nothing to the gradient; data should be
/// checked before it gets here.   Errors: a table without an axis or with batch axes; indices that are not `i32`.
pub fn gather(tape: &mut Tape, table: Var, indices: Var) -> Result<Var> {
    tape.push(Gather { missing: Missing::Nan }, &[table, indices])
}

/// Sums of values by index, over all rows and steps: `table[v, ..] = Σ x[..]` where the index is `v`. The adjoint of
/// [`gather`].
///
/// Shapes: `x [.., D..]`, `indices [..]` (`i32`) `-> table [rows, D..]`, without batch axes.   Rule: `x_bar[..] =
/// table_bar[indices[..]]`.   Domain: all numbers; an index outside `0..rows` adds nothing.   Errors: axes of `x`
/// that do not begin with those of the indices; indices that are not `i32`.
pub fn scatter_add(tape: &mut Tape, x: Var, indices: Var, rows: usize) -> Result<Var> {
    let (x_dims, n) = (&tape.shape(x)?.dims, tape.shape(indices)?.dims.len());
    let mut dims = Dims::from_slice(&[rows]);
    dims.extend_from_slice(x_dims.get(n..).unwrap_or_default());
    tape.push(Scatter { dims }, &[x, indices])
}

#[derive(Clone, Copy, Debug)]
struct Gather {
    missing: Missing,
}

/// What an index that is no row of the table gives.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Missing {
    /// NaN, as a value.
    Nan,
    /// Zero, as a cotangent: such a row went nowhere.
    Zero,
}

impl Missing {
    pub(crate) fn value<R: Real>(self) -> R {
        match self {
            Missing::Nan => R::from_f64(f64::NAN),
            Missing::Zero => R::ZERO,
        }
    }
}

/// Sums rows to the rows of a table of `dims`: inputs `y_bar`, `indices`.
#[derive(Clone, Debug)]
struct Scatter {
    dims: Dims,
}

/// Row of the table, if it has it.
fn row(index: i32, rows: usize) -> Option<usize> {
    usize::try_from(index).ok().filter(|&i| i < rows)
}

impl Op for Gather {
    fn name(&self) -> &'static str {
        "gather"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        check::joint_dtype("gather", &inputs[..1])?;
        check::index("gather", inputs, 1)?;
        let (table, indices) = (&inputs[0].shape, &inputs[1].shape);
        if table.lead != Lead::Shared || table.dims.is_empty() {
            return Err(Error::shape("gather", "table", "[V, ..] without batch axes", table));
        }
        let mut dims = indices.dims.clone();
        dims.extend_from_slice(&table.dims[1..]);
        Ok(Ty::new(inputs[0].dtype, Shape { lead: indices.lead, dims }))
    }

    fn class(&self) -> Class<'_> {
        Class::Structured(self)
    }

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        let dims = tape.shape(io.inputs[0])?.dims.clone();
        Ok(smallvec![Some(tape.push(Scatter { dims }, &[y_bar, io.inputs[1]])?), None])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        x_dots[0].map(|d| tape.push(*self, &[d, io.inputs[1]])).transpose()
    }

    fn flops(&self, _: &[Ty], _: &Ty) -> f64 {
        0.0
    }

    fn is_linear(&self) -> bool {
        true
    }

    fn is_lookup(&self) -> bool {
        true
    }
}

impl Gather {
    fn kernel<R: Real>(&self, mut args: Args<'_, R>) {
        let (table, indices) = (args.inputs[0], args.inputs[1]);
        let rows = table.dims().first().copied().unwrap_or(0);
        let width = table.dims()[1..].iter().product::<usize>();
        let missing = self.missing.value();
        for r in 0..args.rows {
            let (re, im) = args.output.row_pair(r);
            for (k, &index) in indices.index_row(r).iter().enumerate() {
                let to = k * width..(k + 1) * width;
                match row(index, rows) {
                    Some(i) => {
                        re[to.clone()].copy_from_slice(&table.row(0)[i * width..(i + 1) * width]);
                        if table.is_complex() {
                            im[to].copy_from_slice(&table.row_im(0)[i * width..(i + 1) * width]);
                        }
                    }
                    None => {
                        re[to.clone()].fill(missing);
                        if !im.is_empty() {
                            im[to].fill(missing);
                        }
                    }
                }
            }
        }
    }
}

impl Structured for Gather {
    structured_kernel!();

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }
}

impl DeviceKernel for Gather {
    fn phases(&self, _: &[Entry], output: &Entry) -> Vec<usize> {
        vec![output.width()]
    }

    fn piece(&self, k: &mut Piece<'_, '_>, _: usize, piece: Value) {
        let dims = &k.inputs[0].dims;
        let (rows, width) = (dims.first().copied().unwrap_or(0), dims[1..].iter().product::<usize>());
        let missing = k.number(self.missing.value::<f64>());
        if rows == 0 {
            (0..k.planes()).for_each(|plane| k.store(plane, piece, missing));
            return;
        }
        let (entry, element) = (k.code().div(piece, width), k.code().rem(piece, width));
        let index = k.input(1, 0, entry);
        let (there, index) = index_of(k, index, rows);
        let at = k.code().mul(index, width);
        let at = k.code().add(at, element);
        for plane in 0..k.planes() {
            let x = k.input(0, plane, at);
            let y = k.code().select(there, x, missing);
            k.store(plane, piece, y);
        }
    }
}

impl Op for Scatter {
    fn name(&self) -> &'static str {
        "scatter_add"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        check::joint_dtype("scatter_add", &inputs[..1])?;
        check::index("scatter_add", inputs, 1)?;
        let mut expected = inputs[1].shape.dims.clone();
        expected.extend_from_slice(&self.dims[1..]);
        if inputs[0].shape.dims != expected {
            return Err(Error::shape("scatter_add", "x", format!("{:?}", &expected[..]), &inputs[0].shape));
        }
        Ok(Ty::new(inputs[0].dtype, Shape { lead: Lead::Shared, dims: self.dims.clone() }))
    }

    fn class(&self) -> Class<'_> {
        Class::Structured(self)
    }

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, table_bar: Var) -> Result<Cotangents> {
        Ok(smallvec![Some(tape.push(Gather { missing: Missing::Zero }, &[table_bar, io.inputs[1]])?), None])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        x_dots[0].map(|d| tape.push(self.clone(), &[d, io.inputs[1]])).transpose()
    }

    fn flops(&self, inputs: &[Ty], _: &Ty) -> f64 {
        inputs[0].shape.width() as f64
    }

    fn is_linear(&self) -> bool {
        true
    }
}

impl Scatter {
    fn kernel<R: Real>(&self, mut args: Args<'_, R>) {
        let (from, indices) = (args.inputs[0], args.inputs[1]);
        let (rows, width) = (self.dims[0], self.dims[1..].iter().product::<usize>());
        let (re, im) = args.output.row_pair(0);
        let add = |to: &mut [R], from: &[R]| to.iter_mut().zip(from).for_each(|(t, f)| *t += *f);
        for r in 0..args.rows {
            for (k, &index) in indices.index_row(r).iter().enumerate() {
                let Some(i) = row(index, rows) else { continue };
                let (to, at) = (i * width..(i + 1) * width, k * width..(k + 1) * width);
                add(&mut re[to.clone()], &from.row(r)[at.clone()]);
                if from.is_complex() {
                    add(&mut im[to], &from.row_im(r)[at]);
                }
            }
        }
    }
}

impl Structured for Scatter {
    fn rows(&self) -> RowRule {
        RowRule::Reduce
    }

    structured_kernel!();

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }
}

/// Columns of the table that a thread of a device sums, so that it reads each index once for all of them.
const COLUMNS: usize = 8;

impl DeviceKernel for Scatter {
    fn phases(&self, _: &[Entry], _: &Entry) -> Vec<usize> {
        let width: usize = self.dims[1..].iter().product();
        vec![self.dims[0] * width.div_ceil(COLUMNS)]
    }

    fn piece(&self, k: &mut Piece<'_, '_>, _: usize, piece: Value) {
        let width: usize = self.dims[1..].iter().product();
        // So far apart that threads beside each other read what lies beside each other.
        let apart = width.div_ceil(COLUMNS);
        let (row, first) = (k.code().div(piece, apart), k.code().rem(piece, apart));
        let columns: Vec<Value> = (0..COLUMNS).map(|i| k.code().add(first, i * apart)).collect();
        let (entries, planes) = (k.inputs[1].width(), k.planes());
        let zero = k.number(0.0);
        let sums: Vec<Value> = (0..COLUMNS * planes).map(|_| k.variable(zero)).collect();
        let each = |k: &mut Piece<'_, '_>, body: &mut dyn FnMut(&mut Piece<'_, '_>, Value, Value, usize)| {
            for (i, (column, sums)) in columns.iter().zip(sums.chunks(planes)).enumerate() {
                let mut all = |k: &mut Piece<'_, '_>| {
                    sums.iter().enumerate().for_each(|(plane, sum)| body(k, *column, *sum, plane));
                };
                if (i + 1) * apart <= width {
                    all(k);
                } else {
                    let there = k.code().lt(*column, width);
                    k.when(there, all);
                }
            }
        };
        k.each_row(|k| {
            k.each(0, entries, |k, i| {
                let index = k.input(1, 0, i);
                let own = k.code().eq(index, row);
                k.when(own, |k| {
                    let start = k.code().mul(i, width);
                    each(k, &mut |k, column, sum, plane| {
                        let at = k.code().add(start, column);
                        let x = k.input(0, plane, at);
                        let next = k.code().add(sum, x);
                        k.code().set(sum, next);
                    });
                });
            });
        });
        let start = k.code().mul(row, width);
        each(k, &mut |k, column, sum, plane| {
            let at = k.code().add(start, column);
            k.add(plane, at, sum);
        });
    }
}

pub(crate) static GATHER: OpSpec = OpSpec {
    name: "gather",
    summary: "rows of a table by index",
    cases: &[
        Case {
            label: "an index a row",
            inputs: &[Arg::either("V D", Domain::Any), Arg::index("N", "V")],
            build: |tape, x| gather(tape, x[0], x[1]),
        },
        Case {
            label: "several indices a step and row, rows of matrices",
            inputs: &[Arg::either("V D E", Domain::Any), Arg::index("T N 3", "V")],
            build: |tape, x| gather(tape, x[0], x[1]),
        },
        Case {
            label: "numbers, shared indices",
            inputs: &[Arg::either("V", Domain::Any), Arg::index("B", "V")],
            build: |tape, x| gather(tape, x[0], x[1]),
        },
    ],
};

pub(crate) static SCATTER_ADD: OpSpec = OpSpec {
    name: "scatter_add",
    summary: "sums of values by index",
    cases: &[
        Case {
            label: "an index a row",
            inputs: &[Arg::either("N D", Domain::Any), Arg::index("N", "4")],
            build: |tape, x| scatter_add(tape, x[0], x[1], 4),
        },
        Case {
            label: "some out of range",
            inputs: &[Arg::either("N 3 D", Domain::Any), Arg::index("N 3", "4")],
            build: |tape, x| scatter_add(tape, x[0], x[1], 2),
        },
    ],
};

#[cfg(test)]
mod tests {
    use retrograd_engine::{DType, Params, Tensor, grad, reference};

    use super::*;
    use crate::{mul, sum_all};

    #[test]
    fn indices_twice_and_out_of_range() -> Result<()> {
        let mut tape = Tape::new();
        let table = tape.param("table", DType::F64, [3, 2])?;
        let weight = tape.param("weight", DType::F64, [4, 2])?;
        let indices = tape.input("indices", DType::I32, Shape::shared([4]))?;
        let y = gather(&mut tape, table, indices)?;
        let weighted = mul(&mut tape, y, weight)?;
        let loss = sum_all(&mut tape, weighted)?;
        let g = grad(&mut tape, loss, &[table])?;
        let values = Params::from_iter([
            ("table".to_string(), Tensor::from_slice([3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?),
            ("weight".to_string(), Tensor::from_slice([4, 2], &[1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6, 1e7])?),
            ("indices".to_string(), Tensor::from_slice([4], &[2, -1, 2, 3])?),
        ]);
        let found = reference::evaluate(&tape, &[y, g[0]], &[&values])?;
        let y = found[0].as_slice::<f64>()?;
        assert_eq!((&y[..2], &y[4..6]), (&[5.0, 6.0][..], &[5.0, 6.0][..]));
        assert!(y[2].is_nan() && y[3].is_nan() && y[6].is_nan() && y[7].is_nan());
        assert_eq!(found[1].as_slice::<f64>()?, [0.0, 0.0, 0.0, 0.0, 10001.0, 100010.0]);
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_an_error() -> Result<()> {
        let mut tape = Tape::new();
        let table = tape.param("table", DType::F32, [3, 2])?;
        let rows = tape.input("rows", DType::F32, Shape::rows([3, 2]))?;
        let number = tape.param("number", DType::F32, [])?;
        let indices = tape.input("indices", DType::I32, Shape::rows([]))?;
        for (table, indices) in [(rows, indices), (number, indices), (table, table), (indices, indices)] {
            assert!(gather(&mut tape, table, indices).is_err());
        }
        Ok(())
    }
}
