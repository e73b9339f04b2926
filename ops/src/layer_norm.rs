//! Layer normalization.

use retrograd_engine::core_ops::{add, neg, sum_dims};
use retrograd_engine::cpu::Real;
use retrograd_engine::device::{Building, DeviceKernel, Entry, Piece, Value};
use retrograd_engine::expr::Unary;
use retrograd_engine::kernel::{Args, Structured};
use retrograd_engine::op::{Class, Cotangents, Io};
use retrograd_engine::{Dims, Error, Op, Result, Shape, Tape, Ty, Var, structured_kernel};
use smallvec::smallvec;

use crate::lanes::sum_by;
use crate::pieces::sum;
use crate::rule::sum_options;
use crate::spec::{Arg, Case, Domain, OpSpec};
use crate::{check, mul, scale, square};

/// Layer normalization over the last axis: `y = gain · (x − μ) / sqrt(σ² + eps) + bias`, with mean `μ` and variance
/// `σ²` (divided by the number of elements) of each row; real.
///
/// Shapes: `x [.., C]`, `gain [C]`, `bias [C] -> y [.., C]` (gain and bias broadcast).   Rule: with the normalized
/// `x̂`, `s = 1/sqrt(σ² + eps)` and `b = gain · y_bar`, `x_bar = s (b − mean(b) − x̂ mean(b x̂))`; keeps `x`.
/// Domain: all real numbers.   Errors: no axis, or one of no elements; `eps` that is not positive; complex inputs.
///
/// Source: J. L. Ba, J. R. Kiros, G. E. Hinton (2016), "Layer normalization", arXiv:1607.06450.
pub fn layer_norm(tape: &mut Tape, x: Var, gain: Var, bias: Var, eps: f64) -> Result<Var> {
    if eps.is_nan() || eps <= 0.0 {
        return Err(Error::argument("layer_norm", format!("eps = {eps}; more than 0")));
    }
    let x = tape.push(Standardize { eps }, &[x])?;
    let y = mul(tape, x, gain)?;
    let ty = tape.ty(y)?.clone();
    check::real("layer_norm", &[ty], 0)?;
    add(tape, y, bias)
}

/// `(x − μ) / sqrt(σ² + eps)` over the last axis.
#[derive(Clone, Copy, Debug)]
struct Standardize {
    eps: f64,
}

/// The Jacobian of [`Standardize`] at `x`, which is symmetric, times a vector: inputs `x`, `b`.
#[derive(Clone, Copy, Debug)]
struct Jacobian {
    eps: f64,
}

/// `1 / sqrt(σ² + eps)`: `[.., C] -> [.., 1]`.
#[derive(Clone, Copy, Debug)]
struct InverseDeviation {
    eps: f64,
}

fn infer(inputs: &[Ty]) -> Result<Ty> {
    check::real("layer_norm", inputs, 0)?;
    let shape = &inputs[0].shape;
    if shape.dims.last().is_none_or(|&c| c == 0) {
        return Err(Error::shape("layer_norm", "x", "a last axis of at least one element", shape));
    }
    Ok(inputs[0].clone())
}

fn last_as_one(tape: &Tape, x: Var) -> Result<Dims> {
    let mut dims = tape.shape(x)?.dims.clone();
    if let Some(last) = dims.last_mut() {
        *last = 1;
    }
    Ok(dims)
}

/// `Σ a b` over the last axis, kept.
fn dot(tape: &mut Tape, a: Var, b: Var) -> Result<Var> {
    let terms = mul(tape, a, b)?;
    let dims = last_as_one(tape, terms)?;
    sum_dims(tape, terms, &dims)
}

impl Standardize {
    /// The Jacobian at `x` times `v`.
    fn through(self, tape: &mut Tape, x: Var, v: Var) -> Result<Var> {
        tape.push(Jacobian { eps: self.eps }, &[x, v])
    }
}

impl Op for Standardize {
    fn name(&self) -> &'static str {
        "standardize"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        infer(inputs)
    }

    fn class(&self) -> Class<'_> {
        Class::Structured(self)
    }

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        Ok(smallvec![Some(self.through(tape, io.inputs[0], y_bar)?)])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        x_dots[0].map(|x_dot| self.through(tape, io.inputs[0], x_dot)).transpose()
    }

    fn flops(&self, _: &[Ty], output: &Ty) -> f64 {
        6.0 * output.shape.width() as f64
    }
}

impl Jacobian {
    /// `x̂`, `1/sqrt(σ² + eps)` and `1/C`.
    fn parts(self, tape: &mut Tape, x: Var) -> Result<(Var, Var, f64)> {
        let hat = tape.push(Standardize { eps: self.eps }, &[x])?;
        let s = tape.push(InverseDeviation { eps: self.eps }, &[x])?;
        let count = tape.last_dim("layer_norm", x)?;
        Ok((hat, s, 1.0 / count as f64))
    }
}

impl Op for Jacobian {
    fn name(&self) -> &'static str {
        "standardize_jacobian"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        let ty = infer(inputs)?;
        if inputs[1].dtype != ty.dtype {
            return Err(Error::dtype("layer_norm", "cotangent", ty.dtype, inputs[1].dtype));
        }
        if inputs[1].shape.dims != ty.shape.dims {
            return Err(Error::shape("layer_norm", "cotangent", &ty.shape, &inputs[1].shape));
        }
        let lead = ty.shape.lead.join(inputs[1].shape.lead);
        Ok(Ty::new(ty.dtype, Shape { lead, dims: ty.shape.dims }))
    }

    fn class(&self) -> Class<'_> {
        Class::Structured(self)
    }

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, z_bar: Var) -> Result<Cotangents> {
        let (x, b) = (io.inputs[0], io.inputs[1]);
        // With J symmetric, J z_bar is the cotangent of b; that of x is the gradient of z_barᵀ J(x) b, which is
        // −(s/C) [ (z_bar·Jb) x̂ + (b·x̂) J z_bar + (z_bar·x̂) J b ].
        let through = tape.push(*self, &[x, z_bar])?;
        if !io.needs[0] {
            return Ok(smallvec![None, Some(through)]);
        }
        let (hat, s, inverse) = self.parts(tape, x)?;
        let first = dot(tape, z_bar, io.output)?;
        let first = mul(tape, first, hat)?;
        let second = dot(tape, b, hat)?;
        let second = mul(tape, second, through)?;
        let third = dot(tape, z_bar, hat)?;
        let third = mul(tape, third, io.output)?;
        let sum = add(tape, first, second)?;
        let sum = add(tape, sum, third)?;
        let factor = scale(tape, s, -inverse)?;
        Ok(smallvec![Some(mul(tape, sum, factor)?), Some(through)])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        let (x, b) = (io.inputs[0], io.inputs[1]);
        let from_b = x_dots[1].map(|b_dot| tape.push(*self, &[x, b_dot])).transpose()?;
        let Some(x_dot) = x_dots[0] else { return Ok(from_b) };
        // −(s/C) [ (x̂·x_dot) J b + (b·x̂) J x_dot + (b·J x_dot) x̂ ]
        let (hat, s, inverse) = self.parts(tape, x)?;
        let through = tape.push(*self, &[x, x_dot])?;
        let first = dot(tape, hat, x_dot)?;
        let first = mul(tape, first, io.output)?;
        let second = dot(tape, b, hat)?;
        let second = mul(tape, second, through)?;
        let third = dot(tape, b, through)?;
        let third = mul(tape, third, hat)?;
        let sum = add(tape, first, second)?;
        let sum = add(tape, sum, third)?;
        let factor = scale(tape, s, -inverse)?;
        let from_x = mul(tape, sum, factor)?;
        sum_options(tape, Some(from_x), from_b)
    }

    fn flops(&self, _: &[Ty], output: &Ty) -> f64 {
        12.0 * output.shape.width() as f64
    }
}

impl InverseDeviation {
    /// `−s²/C · v`, to be multiplied by `x̂`.
    fn factor(self, tape: &mut Tape, io: Io<'_>, v: Var) -> Result<Var> {
        let count = tape.last_dim("layer_norm", io.inputs[0])?;
        let squared = square(tape, io.output)?;
        let v = mul(tape, squared, v)?;
        let v = scale(tape, v, 1.0 / count as f64)?;
        neg(tape, v)
    }
}

impl Op for InverseDeviation {
    fn name(&self) -> &'static str {
        "inverse_deviation"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        let mut ty = infer(inputs)?;
        if let Some(last) = ty.shape.dims.last_mut() {
            *last = 1;
        }
        Ok(ty)
    }

    fn class(&self) -> Class<'_> {
        Class::Structured(self)
    }

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        let factor = self.factor(tape, io, y_bar)?;
        let hat = tape.push(Standardize { eps: self.eps }, &[io.inputs[0]])?;
        Ok(smallvec![Some(mul(tape, factor, hat)?)])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        let Some(x_dot) = x_dots[0] else { return Ok(None) };
        let hat = tape.push(Standardize { eps: self.eps }, &[io.inputs[0]])?;
        let along = dot(tape, hat, x_dot)?;
        self.factor(tape, io, along).map(Some)
    }

    fn flops(&self, inputs: &[Ty], _: &Ty) -> f64 {
        4.0 * inputs[0].shape.width() as f64
    }
}

/// Mean and `1 / sqrt(σ² + eps)`; the variance from differences to the mean, so that it cannot cancel.
fn moments<R: Real>(x: &[R], eps: f64) -> (R, R) {
    let count = R::from_f64(x.len() as f64);
    let mean = sum_by(x.len(), |i| x[i]) / count;
    let variance = sum_by(x.len(), |i| (x[i] - mean) * (x[i] - mean)) / count;
    (mean, R::ONE / (variance + R::from_f64(eps)).sqrt())
}

/// [`moments`] of `count` elements of input 0 from `base`, on a device.
fn moments_piece(k: &mut Piece<'_, '_>, base: Value, count: usize, eps: f64) -> (Value, Value) {
    let of = |k: &mut Piece<'_, '_>, i: Value| {
        let at = k.code().add(base, i);
        k.input(0, 0, at)
    };
    let number = k.number(count as f64);
    let total = sum(k, count, of);
    let mean = k.code().div(total, number);
    let squares = sum(k, count, |k, i| {
        let x = of(k, i);
        let x = k.code().sub(x, mean);
        k.code().mul(x, x)
    });
    let variance = k.code().div(squares, number);
    let eps = k.number(eps);
    let variance = k.code().add(variance, eps);
    let root = k.unary(Unary::Sqrt, variance);
    let one = k.number(1.0);
    (mean, k.code().div(one, root))
}

impl Standardize {
    fn kernel<R: Real>(&self, mut args: Args<'_, R>) {
        let x = args.inputs[0];
        let Some(&count) = x.dims().last() else { return };
        for r in 0..args.rows {
            let rows = x.row(r).chunks_exact(count).zip(args.output.row(r).chunks_exact_mut(count));
            for (x, y) in rows {
                let (mean, s) = moments(x, self.eps);
                for (y, x) in y.iter_mut().zip(x) {
                    *y = (*x - mean) * s;
                }
            }
        }
    }
}

impl Structured for Standardize {
    structured_kernel!();

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }
}

impl DeviceKernel for Standardize {
    fn phases(&self, inputs: &[Entry], _: &Entry) -> Vec<usize> {
        let count = inputs[0].line();
        vec![inputs[0].width() / count]
    }

    fn by_warp(&self, inputs: &[Entry], _: &Entry) -> bool {
        inputs[0].is_long()
    }

    fn piece(&self, k: &mut Piece<'_, '_>, _: usize, piece: Value) {
        let count = k.inputs[0].line();
        let base = k.code().mul(piece, count);
        let (mean, s) = moments_piece(k, base, count, self.eps);
        k.each_of(count, |k, i| {
            let at = k.code().add(base, i);
            let x = k.input(0, 0, at);
            let x = k.code().sub(x, mean);
            let y = k.code().mul(x, s);
            k.store(0, at, y);
        });
    }
}

impl Jacobian {
    fn kernel<R: Real>(&self, mut args: Args<'_, R>) {
        let (x, b) = (args.inputs[0], args.inputs[1]);
        let Some(&count) = x.dims().last() else { return };
        let inverse = R::from_f64(1.0 / count as f64);
        for r in 0..args.rows {
            let inputs = x.row(r).chunks_exact(count).zip(b.row(r).chunks_exact(count));
            for ((x, b), y) in inputs.zip(args.output.row(r).chunks_exact_mut(count)) {
                let (mean, s) = moments(x, self.eps);
                let b_mean = sum_by(count, |i| b[i]) * inverse;
                let along = sum_by(count, |i| b[i] * ((x[i] - mean) * s)) * inverse;
                for i in 0..count {
                    y[i] = s * (b[i] - b_mean - (x[i] - mean) * s * along);
                }
            }
        }
    }
}

impl Structured for Jacobian {
    structured_kernel!();

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }
}

impl DeviceKernel for Jacobian {
    fn phases(&self, inputs: &[Entry], _: &Entry) -> Vec<usize> {
        let count = inputs[0].line();
        vec![inputs[0].width() / count]
    }

    fn by_warp(&self, inputs: &[Entry], _: &Entry) -> bool {
        inputs[0].is_long()
    }

    fn piece(&self, k: &mut Piece<'_, '_>, _: usize, piece: Value) {
        let count = k.inputs[0].line();
        let base = k.code().mul(piece, count);
        let (mean, s) = moments_piece(k, base, count, self.eps);
        let inverse = k.number(1.0 / count as f64);
        let standard = |k: &mut Piece<'_, '_>, i: Value| {
            let at = k.code().add(base, i);
            let x = k.input(0, 0, at);
            let x = k.code().sub(x, mean);
            k.code().mul(x, s)
        };
        let of_b = |k: &mut Piece<'_, '_>, i: Value| {
            let at = k.code().add(base, i);
            k.input(1, 0, at)
        };
        let b_sum = sum(k, count, of_b);
        let b_mean = k.code().mul(b_sum, inverse);
        let along = sum(k, count, |k, i| {
            let (b, x) = (of_b(k, i), standard(k, i));
            k.code().mul(b, x)
        });
        let along = k.code().mul(along, inverse);
        k.each_of(count, |k, i| {
            let (b, x) = (of_b(k, i), standard(k, i));
            let b = k.code().sub(b, b_mean);
            let x = k.code().mul(x, along);
            let y = k.code().sub(b, x);
            let y = k.code().mul(s, y);
            let at = k.code().add(base, i);
            k.store(0, at, y);
        });
    }
}

impl InverseDeviation {
    fn kernel<R: Real>(&self, mut args: Args<'_, R>) {
        let x = args.inputs[0];
        let Some(&count) = x.dims().last() else { return };
        for r in 0..args.rows {
            for (x, y) in x.row(r).chunks_exact(count).zip(args.output.row(r)) {
                *y = moments(x, self.eps).1;
            }
        }
    }
}

impl Structured for InverseDeviation {
    structured_kernel!();

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }
}

impl DeviceKernel for InverseDeviation {
    fn phases(&self, inputs: &[Entry], _: &Entry) -> Vec<usize> {
        let count = inputs[0].line();
        vec![inputs[0].width() / count]
    }

    fn by_warp(&self, inputs: &[Entry], _: &Entry) -> bool {
        inputs[0].is_long()
    }

    fn piece(&self, k: &mut Piece<'_, '_>, _: usize, piece: Value) {
        let count = k.inputs[0].line();
        let base = k.code().mul(piece, count);
        let (_, s) = moments_piece(k, base, count, self.eps);
        k.once(|k| k.store(0, piece, s));
    }
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "layer_norm",
    summary: "layer normalization over the last axis",
    cases: &[
        Case {
            label: "gain and bias",
            inputs: &[
                Arg::real("N 5", Domain::Separated),
                Arg::real("5", Domain::Any),
                Arg::real("5", Domain::Any),
            ],
            build: |tape, x| layer_norm(tape, x[0], x[1], x[2], 1e-5),
        },
        Case {
            label: "more elements than a warp has lanes",
            inputs: &[
                Arg::real("N 45", Domain::Any),
                Arg::real("45", Domain::Any),
                Arg::real("45", Domain::Any),
            ],
            build: |tape, x| layer_norm(tape, x[0], x[1], x[2], 1e-5),
        },
        Case {
            label: "rows of rows, an eps that counts",
            inputs: &[
                Arg::real("N B C", Domain::Any),
                Arg::real("C", Domain::Any),
                Arg::real("B C", Domain::Any),
            ],
            build: |tape, x| layer_norm(tape, x[0], x[1], x[2], 0.5),
        },
    ],
};

#[cfg(test)]
mod tests {
    use retrograd_engine::{DType, Params, Tensor, reference};

    use super::*;

    #[test]
    fn mean_zero_variance_one_even_far_from_zero() -> Result<()> {
        let mut tape = Tape::new();
        let x = tape.param("x", DType::F32, [4])?;
        let one = tape.param("one", DType::F32, [4])?;
        let y = layer_norm(&mut tape, x, one, one, 1e-10)?;
        let values = Params::from_iter([
            ("x".to_string(), Tensor::from_slice([4], &[4096.0f32, 4098.0, 4096.0, 4098.0])?),
            ("one".to_string(), Tensor::full(DType::F32, [4], 1.0)?),
        ]);
        let found = reference::evaluate(&tape, &[y], &[&values])?;
        assert_eq!(found[0].as_slice::<f32>()?, [0.0, 2.0, 0.0, 2.0]);
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_an_error() -> Result<()> {
        let mut tape = Tape::new();
        let x = tape.param("x", DType::F32, [4])?;
        let z = tape.param("z", DType::C32, [4])?;
        let none = tape.param("none", DType::F32, [])?;
        let empty = tape.param("empty", DType::F32, [2, 0])?;
        assert!(layer_norm(&mut tape, x, x, x, 0.0).is_err());
        assert!(layer_norm(&mut tape, z, x, x, 1e-5).is_err());
        assert!(layer_norm(&mut tape, x, z, x, 1e-5).is_err());
        assert!(layer_norm(&mut tape, none, none, none, 1e-5).is_err());
        assert!(layer_norm(&mut tape, empty, empty, empty, 1e-5).is_err());
        Ok(())
    }
}
