//! Rows of a table by index: embeddings, and one-hot inputs that are never formed.

use retrograd_engine::cpu::Real;
use retrograd_engine::kernel::{Args, RowRule, Structured};
use retrograd_engine::op::{Class, Cotangents, Io};
use retrograd_engine::{DType, Dims, Error, Lead, Op, Result, Shape, Tape, Ty, Var, structured_kernel};
use smallvec::smallvec;

use crate::rule::sum_options;
use crate::spec::{Arg, Case, Domain, OpSpec};

/// Rows of a table: `y[..] = table[index[..]]`. The product of a one-hot input with a matrix, without the zeros.
///
/// Shapes: `table [V, D..]` (no batch axis), `index [.., I..]` (i32) `-> y [.., I.., D..]`.
/// Rule: `table_bar[v] = Σ y_bar` where `index = v` (deferred, summed over rows and steps); keeps `index`.
/// Domain: an index outside `0..V` gives NaN.   Errors: a table with a batch axis, indices that are not `I32`.
pub fn gather(tape: &mut Tape, table: Var, index: Var) -> Result<Var> {
    tape.push(Gather, &[table, index])
}

/// The adjoint of [`gather`]: `table[v] = Σ x[..]` where `index = v`, over all rows and steps.
///
/// Shapes: `x [.., I.., D..]`, `index [.., I..] -> table [v, D..]`.   Rule: [`gather`].
pub fn scatter_add(tape: &mut Tape, x: Var, index: Var, v: usize) -> Result<Var> {
    tape.push(ScatterAdd { v }, &[x, index])
}

#[derive(Clone, Copy, Debug)]
struct Gather;

#[derive(Clone, Copy, Debug)]
struct ScatterAdd {
    v: usize,
}

fn check_index(op: &'static str, values: &Ty, index: &Ty) -> Result<()> {
    if !values.dtype.is_differentiable() {
        return Err(Error::dtype(op, "values", "f32, f64, c32 or c64", values.dtype));
    }
    if index.dtype != DType::I32 {
        return Err(Error::dtype(op, "index", DType::I32, index.dtype));
    }
    Ok(())
}

impl Op for Gather {
    fn name(&self) -> &'static str {
        "gather"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        let (table, index) = (&inputs[0], &inputs[1]);
        check_index("gather", table, index)?;
        if table.shape.lead != Lead::Shared || table.shape.dims.is_empty() {
            return Err(Error::shape("gather", "table", "[V, ..] without batch axes", &table.shape));
        }
        let dims = index.shape.dims.iter().chain(&table.shape.dims[1..]).copied().collect();
        Ok(Ty::new(table.dtype, Shape { lead: index.shape.lead, dims }))
    }

    fn class(&self) -> Class<'_> {
        Class::Structured(self)
    }

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        let v = tape.shape(io.inputs[0])?.dims[0];
        Ok(smallvec![Some(scatter_add(tape, y_bar, io.inputs[1], v)?), None])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        x_dots[0].map(|d| gather(tape, d, io.inputs[1])).transpose()
    }

    fn is_cheap(&self) -> bool {
        true
    }
}

impl Gather {
    fn kernel<R: Real>(&self, mut args: Args<'_, R>) {
        let (table, index) = (args.inputs[0], args.inputs[1]);
        let v = table.dims()[0];
        let d = table.width() / v.max(1);
        let copy = |from: &[R], to: &mut [R], i: i32| match usize::try_from(i) {
            Ok(i) if i < v => to.copy_from_slice(&from[i * d..(i + 1) * d]),
            _ => to.fill(R::from_f64(f64::NAN)),
        };
        for r in 0..args.rows {
            let (re, im) = args.output.row_pair(r);
            for (j, &i) in index.index_row(r).iter().enumerate() {
                copy(table.row(0), &mut re[j * d..(j + 1) * d], i);
                if table.is_complex() {
                    copy(table.row_im(0), &mut im[j * d..(j + 1) * d], i);
                }
            }
        }
    }
}

impl Structured for Gather {
    structured_kernel!();
}

impl Op for ScatterAdd {
    fn name(&self) -> &'static str {
        "scatter_add"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        let (x, index) = (&inputs[0], &inputs[1]);
        check_index("scatter_add", x, index)?;
        let n = index.shape.dims.len();
        if x.shape.dims.len() < n || x.shape.dims[..n] != index.shape.dims[..] {
            let expected = format!("axes starting with {:?}", &index.shape.dims[..]);
            return Err(Error::shape("scatter_add", "values", expected, &x.shape));
        }
        let mut dims = Dims::from_slice(&[self.v]);
        dims.extend_from_slice(&x.shape.dims[n..]);
        Ok(Ty::new(x.dtype, Shape { lead: Lead::Shared, dims }))
    }

    fn class(&self) -> Class<'_> {
        Class::Structured(self)
    }

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        Ok(smallvec![Some(gather(tape, y_bar, io.inputs[1])?), None])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        let y = x_dots[0].map(|d| scatter_add(tape, d, io.inputs[1], self.v)).transpose()?;
        sum_options(tape, y, None)
    }

    fn flops(&self, inputs: &[Ty], _: &Ty) -> f64 {
        inputs[0].shape.width() as f64
    }
}

impl ScatterAdd {
    fn kernel<R: Real>(&self, mut args: Args<'_, R>) {
        let (x, index) = (args.inputs[0], args.inputs[1]);
        let (re, im) = args.output.row_pair(0);
        let d = re.len() / self.v.max(1);
        let add = |from: &[R], to: &mut [R]| to.iter_mut().zip(from).for_each(|(y, x)| *y += *x);
        for r in 0..args.rows {
            for (j, &i) in index.index_row(r).iter().enumerate() {
                let Some(i) = usize::try_from(i).ok().filter(|&i| i < self.v) else { continue };
                add(&x.row(r)[j * d..(j + 1) * d], &mut re[i * d..(i + 1) * d]);
                if x.is_complex() {
                    add(&x.row_im(r)[j * d..(j + 1) * d], &mut im[i * d..(i + 1) * d]);
                }
            }
        }
    }
}

impl Structured for ScatterAdd {
    fn rows(&self) -> RowRule {
        RowRule::Reduce
    }

    structured_kernel!();
}

pub(crate) static GATHER: OpSpec = OpSpec {
    name: "gather",
    summary: "rows of a table by index (embedding, one-hot product)",
    cases: &[
        Case {
            label: "symbols",
            inputs: &[Arg::either("V D", Domain::Any), Arg::index("N", "V")],
            build: |t, x| gather(t, x[0], x[1]),
        },
        Case {
            label: "several a row",
            inputs: &[Arg::real("V D", Domain::Any), Arg::index("N 3", "V")],
            build: |t, x| gather(t, x[0], x[1]),
        },
    ],
};

pub(crate) static SCATTER_ADD: OpSpec = OpSpec {
    name: "scatter_add",
    summary: "sums of values by index",
    cases: &[Case {
        label: "rows",
        inputs: &[Arg::either("N D", Domain::Any), Arg::index("N", "4")],
        build: |t, x| scatter_add(t, x[0], x[1], 4),
    }],
};
