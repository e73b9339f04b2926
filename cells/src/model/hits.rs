//! Whether the largest output is at the target.

use retrograd_engine::cpu::Real;
use retrograd_engine::device::{Building, DeviceKernel, Entry, Piece, Value};
use retrograd_engine::kernel::{Args, Structured};
use retrograd_engine::op::{Class, Cotangents, Io, Op};
use retrograd_engine::{DType, Error, Result, Tape, Ty, Var, structured_kernel};

/// 1 where the largest of a row's outputs (the first, among equal ones) is at its target, else 0.
///
/// Shapes: `y [.., K]`, `target [..] (i32) -> [..]`, real. Rule: none, the derivative is 0.
/// Domain: a row with a NaN, and a target outside `0..K`, count 0.
/// Errors: outputs that are not real; targets that are not indices or differ in shape from the rows of `y`.
pub fn hits(tape: &mut Tape, y: Var, target: Var) -> Result<Var> {
    tape.push(Hits, &[y, target])
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hits;

impl Op for Hits {
    fn name(&self) -> &'static str {
        "hits"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        let (y, target) = (&inputs[0], &inputs[1]);
        if !matches!(y.dtype, DType::F32 | DType::F64) {
            return Err(Error::dtype("hits", "y", "f32 or f64", y.dtype));
        }
        if target.dtype != DType::I32 {
            return Err(Error::dtype("hits", "target", DType::I32, target.dtype));
        }
        let mut rows = y.shape.clone();
        if rows.dims.pop().is_none() || rows.dims != target.shape.dims {
            return Err(Error::shape("hits", "target", format!("the rows of y {}", y.shape), &target.shape));
        }
        rows.lead = rows.lead.join(target.shape.lead);
        Ok(Ty::new(y.dtype, rows))
    }

    fn class(&self) -> Class<'_> {
        Class::Structured(self)
    }

    fn vjp(&self, _: &mut Tape, io: Io<'_>, _: Var) -> Result<Cotangents> {
        Ok(io.inputs.iter().map(|_| None).collect())
    }

    fn jvp(&self, _: &mut Tape, _: Io<'_>, _: &[Option<Var>]) -> Result<Option<Var>> {
        Ok(None)
    }

    fn flops(&self, inputs: &[Ty], _: &Ty) -> f64 {
        inputs[0].shape.width() as f64
    }
}

impl Hits {
    fn kernel<R: Real>(&self, mut args: Args<'_, R>) {
        let classes = args.inputs[0].dims().last().copied().unwrap_or(1).max(1);
        for r in 0..args.rows {
            let (y, target) = (args.inputs[0].row(r), args.inputs[1].index_row(r));
            let rows = y.chunks_exact(classes).zip(target);
            for (hit, (y, &t)) in args.output.row(r).iter_mut().zip(rows) {
                let best = usize::try_from(t).ok().and_then(|t| y.get(t).map(|&v| (t, v)));
                let wins = best.is_some_and(|(t, v)| {
                    y[..t].iter().all(|&other| other < v) && y[t..].iter().all(|&other| other <= v)
                });
                *hit = R::from_f64(if wins { 1.0 } else { 0.0 });
            }
        }
    }
}

impl Structured for Hits {
    structured_kernel!();

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }
}

impl DeviceKernel for Hits {
    fn phases(&self, inputs: &[Entry], _: &Entry) -> Vec<usize> {
        let classes = inputs[0].line();
        vec![inputs[0].width() / classes]
    }

    fn piece(&self, k: &mut Piece<'_, '_>, _: usize, piece: Value) {
        let classes = k.inputs[0].line();
        let base = k.code().mul(piece, classes);
        let target = k.input(1, 0, piece);
        let near = k.code().max(target, 0);
        let near = k.code().min(near, classes - 1);
        let is_class = k.code().eq(near, target);
        let at = k.code().add(base, near);
        let best = k.input(0, 0, at);
        let (one, zero) = (k.number(1.0), k.number(0.0));
        let first = k.code().select(is_class, one, zero);
        let wins = k.variable(first);
        k.each(0, classes, |k, i| {
            let at = k.code().add(base, i);
            let other = k.input(0, 0, at);
            let (less, no_more) = (k.code().lt(other, best), k.code().le(other, best));
            let before = k.code().lt(i, near);
            let strictly = k.code().select(less, wins, zero);
            let loosely = k.code().select(no_more, wins, zero);
            let next = k.code().select(before, strictly, loosely);
            k.code().set(wins, next);
        });
        k.store(0, piece, wins);
    }
}
