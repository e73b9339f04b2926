//! The discrete Fourier transform of the last axis and its inverse, both unitary.

use std::sync::Arc;

use num_complex::Complex;
use retrograd_engine::cpu::{Isa, Real};
use retrograd_engine::device::{Building, Code, DeviceKernel, Entry, Op as Machine, Piece, Type, Value};
use retrograd_engine::expr::Unary;
use retrograd_engine::kernel::{Args, Structured};
use retrograd_engine::op::{Class, Cotangents, Io};
use retrograd_engine::profile::Work;
use retrograd_engine::{DType, Error, Op, Result, Tape, Ty, Var};
use rustfft::{Fft, FftDirection, FftNum, FftPlanner, FftPlannerScalar};
use smallvec::smallvec;

use crate::spec::{Arg, Case, Domain, OpSpec};

/// Discrete Fourier transform of the last axis: `y_k = N^{−1/2} Σ_j x_j e^{−2πi jk/N}`.
///
/// Shapes: `x [.., N] -> y [.., N]`, complex, any `N`.   Rule: [`ifft`] of `y_bar`, since the transform is unitary;
/// keeps nothing.   Domain: all numbers.   Errors: real `x`; an `x` without an axis.
pub fn fft(tape: &mut Tape, x: Var) -> Result<Var> {
    record(tape, x, FftDirection::Forward)
}

/// Inverse of [`fft`]: `y_j = N^{−1/2} Σ_k x_k e^{2πi jk/N}`.
///
/// Shapes: `x [.., N] -> y [.., N]`, complex, any `N`.   Rule: [`fft`] of `y_bar`; keeps nothing.
/// Domain: all numbers.   Errors: real `x`; an `x` without an axis.
pub fn ifft(tape: &mut Tape, x: Var) -> Result<Var> {
    record(tape, x, FftDirection::Inverse)
}

fn record(tape: &mut Tape, x: Var, direction: FftDirection) -> Result<Var> {
    let op = name(direction);
    let ty = tape.ty(x)?;
    let plan = match (ty.dtype, ty.shape.dims.last()) {
        (_, None) => return Err(Error::shape(op, "x", "at least one axis", &ty.shape)),
        (DType::C32 | DType::C64, Some(0 | 1)) => return Ok(x),
        (DType::C32, Some(&n)) => Plan::Single(plan(n, direction)),
        (DType::C64, Some(&n)) => Plan::Double(plan(n, direction)),
        (other, _) => return Err(Error::dtype(op, "x", "c32 or c64", other)),
    };
    tape.push(Transform { direction, plan }, &[x])
}

fn name(direction: FftDirection) -> &'static str {
    match direction {
        FftDirection::Forward => "fft",
        FftDirection::Inverse => "ifft",
    }
}

/// A transform prepared for a size, with its tables. The portable instruction set takes portable code.
fn plan<R: FftNum>(n: usize, direction: FftDirection) -> Arc<dyn Fft<R>> {
    match Isa::detect() {
        Isa::Portable => FftPlannerScalar::new().plan_fft(n, direction),
        _ => FftPlanner::new().plan_fft(n, direction),
    }
}

#[derive(Clone)]
enum Plan {
    Single(Arc<dyn Fft<f32>>),
    Double(Arc<dyn Fft<f64>>),
}

impl Plan {
    /// Complex numbers of scratch memory, the row included.
    fn scratch(&self) -> usize {
        match self {
            Plan::Single(plan) => plan.len() + plan.get_inplace_scratch_len(),
            Plan::Double(plan) => plan.len() + plan.get_inplace_scratch_len(),
        }
    }
}

/// A transform of rows whose size, at least 2, is the plan's.
#[derive(Clone)]
struct Transform {
    direction: FftDirection,
    plan: Plan,
}

// A plan has no text of its own; size and precision are what it is made from.
impl std::fmt::Debug for Transform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (real, n) = match &self.plan {
            Plan::Single(plan) => (DType::F32, plan.len()),
            Plan::Double(plan) => (DType::F64, plan.len()),
        };
        write!(f, "Transform({} {real} {n})", name(self.direction))
    }
}

impl Op for Transform {
    fn name(&self) -> &'static str {
        name(self.direction)
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        let (dtype, n) = match &self.plan {
            Plan::Single(plan) => (DType::C32, plan.len()),
            Plan::Double(plan) => (DType::C64, plan.len()),
        };
        if inputs[0].dtype != dtype {
            return Err(Error::dtype(self.name(), "x", dtype, inputs[0].dtype));
        }
        if inputs[0].shape.dims.last() != Some(&n) {
            return Err(Error::shape(self.name(), "last axis of x", n, &inputs[0].shape));
        }
        Ok(inputs[0].clone())
    }

    fn class(&self) -> Class<'_> {
        Class::Structured(self)
    }

    fn vjp(&self, tape: &mut Tape, _: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        Ok(smallvec![Some(record(tape, y_bar, self.direction.opposite_direction())?)])
    }

    fn jvp(&self, tape: &mut Tape, _: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        x_dots[0].map(|d| record(tape, d, self.direction)).transpose()
    }

    fn flops(&self, inputs: &[Ty], _: &Ty) -> f64 {
        // The usual count, exact for none but a fair one for all.
        let n = inputs[0].shape.dims.last().copied().unwrap_or(1) as f64;
        5.0 * inputs[0].shape.width() as f64 * n.log2()
    }

    fn is_linear(&self) -> bool {
        true
    }

    fn work(&self) -> Work {
        Work::Product
    }
}

impl Structured for Transform {
    fn efficiency(&self) -> f64 {
        0.07
    }

    fn run_f32(&self, args: Args<'_, f32>) {
        if let Plan::Single(plan) = &self.plan {
            run(&**plan, args);
        }
    }

    fn run_f64(&self, args: Args<'_, f64>) {
        if let Plan::Double(plan) = &self.plan {
            run(&**plan, args);
        }
    }

    fn scratch(&self, _: &[Ty]) -> usize {
        2 * self.plan.scratch()
    }

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }
}

/// Numbers of shared memory that butterflies of a row may take; beyond, a line is multiplied by the matrix of roots.
const MOST_SHARED: usize = 24 << 10;

/// Stages of butterflies for lines of a power of two, half of the roots and the row in shared memory.
fn stages(x: &Entry) -> Option<usize> {
    let n = x.line();
    let fits = n + 2 * x.width() <= MOST_SHARED;
    (n >= 4 && n.is_power_of_two() && fits).then(|| n.ilog2() as usize)
}

impl DeviceKernel for Transform {
    fn phases(&self, inputs: &[Entry], output: &Entry) -> Vec<usize> {
        let n = inputs[0].line();
        match stages(&inputs[0]) {
            // Roots, the row by reversed bits, butterflies.
            Some(stages) => {
                let butterflies = std::iter::repeat_n(output.width() / 2, stages);
                [n / 2, output.width()].into_iter().chain(butterflies).collect()
            }
            None => vec![n, output.width()],
        }
    }

    fn shared(&self, inputs: &[Entry], _: &Entry) -> usize {
        let n = inputs[0].line();
        match stages(&inputs[0]) {
            Some(_) => n + 2 * inputs[0].width(),
            None => 2 * n,
        }
    }

    fn piece(&self, k: &mut Piece<'_, '_>, phase: usize, piece: Value) {
        let n = k.inputs[0].line();
        match (stages(&k.inputs[0]), phase) {
            (Some(_), 0) => roots(k, piece, n / 2),
            (Some(stages), 1) => reversed(k, piece, stages),
            (Some(stages), _) => self.butterfly(k, piece, phase - 2, stages),
            (None, 0) => roots(k, piece, n),
            (None, _) => self.product(k, piece),
        }
    }
}

/// Root number `piece` of the first `count` ones, in double precision before it is rounded.
fn roots(k: &mut Piece<'_, '_>, piece: Value, count: usize) {
    let (n, ty) = (k.inputs[0].line(), k.ty());
    let angle = k.code().convert(piece, Type::F64);
    let angle = k.code().mul(angle, Code::real(Type::F64, std::f64::consts::TAU / n as f64));
    for (plane, op) in [Unary::Cos, Unary::Sin].into_iter().enumerate() {
        let value = k.unary(op, angle);
        let value = k.code().convert(value, ty);
        let at = k.code().add(piece, plane * count);
        k.store_shared(at, value);
    }
}

/// Element `piece` of the row, to where its bits read backwards say.
fn reversed(k: &mut Piece<'_, '_>, piece: Value, stages: usize) {
    let (n, width) = (k.inputs[0].line(), k.inputs[0].width());
    let own = k.code().rem(piece, n);
    let line = k.code().sub(piece, own);
    let mut to = line;
    for bit in 0..stages {
        let from = k.code().op(Machine::Shr, Type::Int, &[own, Value::from(bit)]);
        let from = k.code().op(Machine::And, Type::Int, &[from, Value::Int(1)]);
        let weight = k.code().mul(from, 1usize << (stages - 1 - bit));
        to = k.code().add(to, weight);
    }
    for plane in 0..2 {
        let x = k.input(0, plane, piece);
        let at = k.code().add(to, n + plane * width);
        k.store_shared(at, x);
    }
}

impl Transform {
    /// Butterfly `piece` of a stage; those of the last one write the result.
    fn butterfly(&self, k: &mut Piece<'_, '_>, piece: Value, stage: usize, stages: usize) {
        let (n, width, half) = (k.inputs[0].line(), k.inputs[0].width(), 1usize << stage);
        // Pairs `half` apart, in groups of `half` pairs; each line is a whole number of groups.
        let (group, own) = (k.code().div(piece, half), k.code().rem(piece, half));
        let start = k.code().mul(group, 2 * half);
        let first = k.code().add(start, own);
        let second = k.code().add(first, half);
        let root = k.code().mul(own, n / 2 / half);
        let c = k.shared(root);
        let at = k.code().add(root, n / 2);
        let s = k.shared(at);
        // The root is c ∓ i s.
        let s = if self.direction == FftDirection::Forward { k.code().neg(s) } else { s };
        let read = |k: &mut Piece<'_, '_>, at: Value, plane: usize| {
            let at = k.code().add(at, n + plane * width);
            k.shared(at)
        };
        let (a, b) = ([0, 1].map(|plane| read(k, first, plane)), [0, 1].map(|plane| read(k, second, plane)));
        let minus = k.code().neg(s);
        let re = k.code().mul(c, b[0]);
        let re = k.code().fma(minus, b[1], re);
        let im = k.code().mul(c, b[1]);
        let im = k.code().fma(s, b[0], im);
        let scale = k.number(1.0 / (n as f64).sqrt());
        for (plane, turned) in [re, im].into_iter().enumerate() {
            let (sum, rest) = (k.code().add(a[plane], turned), k.code().sub(a[plane], turned));
            for (at, value) in [(first, sum), (second, rest)] {
                if stage + 1 == stages {
                    let value = k.code().mul(scale, value);
                    k.store(plane, at, value);
                } else {
                    let at = k.code().add(at, n + plane * width);
                    k.store_shared(at, value);
                }
            }
        }
    }

    /// Element `piece` as a row of the matrix of roots times its line.
    fn product(&self, k: &mut Piece<'_, '_>, piece: Value) {
        let n = k.inputs[0].line();
        let (row, own) = (k.code().div(piece, n), k.code().rem(piece, n));
        let base = k.code().mul(row, n);
        let zero = k.number(0.0);
        let (re, im) = (k.variable(zero), k.variable(zero));
        let turn = k.variable(Value::Int(0));
        let forward = self.direction == FftDirection::Forward;
        k.each(0, n, |k, j| {
            let at = k.code().add(base, j);
            let (x, y) = (k.input(0, 0, at), k.input(0, 1, at));
            let c = k.shared(turn);
            let at = k.code().add(turn, n);
            let s = k.shared(at);
            // The root is c ∓ i s.
            let s = if forward { k.code().neg(s) } else { s };
            let minus = k.code().neg(s);
            for (sum, a, b) in [(re, c, minus), (im, s, c)] {
                let next = k.code().fma(a, x, sum);
                let next = k.code().fma(b, y, next);
                k.code().set(sum, next);
            }
            let next = k.code().add(turn, own);
            let less = k.code().sub(next, n);
            let inside = k.code().lt(next, n);
            let next = k.code().select(inside, next, less);
            k.code().set(turn, next);
        });
        let scale = k.number(1.0 / (n as f64).sqrt());
        let (re, im) = (k.code().mul(scale, re), k.code().mul(scale, im));
        k.store(0, piece, re);
        k.store(1, piece, im);
    }
}

fn run<R: Real + FftNum>(plan: &dyn Fft<R>, mut args: Args<'_, R>)
where
    Complex<R>: bytemuck::Pod,
{
    let (x, n) = (args.inputs[0], plan.len());
    let scale = R::ONE / Real::sqrt(<R as Real>::from_f64(n as f64));
    let scratch: &mut [Complex<R>] =
        bytemuck::cast_slice_mut(&mut args.scratch[..2 * (n + plan.get_inplace_scratch_len())]);
    let (row, scratch) = scratch.split_at_mut(n);
    for r in 0..args.rows {
        let (re, im) = args.output.row_pair(r);
        let planes = x.row(r).chunks_exact(n).zip(x.row_im(r).chunks_exact(n));
        let outputs = re.chunks_exact_mut(n).zip(im.chunks_exact_mut(n));
        for ((x_re, x_im), (re, im)) in planes.zip(outputs) {
            for j in 0..n {
                row[j] = Complex::new(x_re[j], x_im[j]);
            }
            plan.process_with_scratch(row, scratch);
            for j in 0..n {
                re[j] = scale * row[j].re;
                im[j] = scale * row[j].im;
            }
        }
    }
}

const CASES: [&[Arg]; 4] = [
    &[Arg::complex("N C", Domain::Any)],
    &[Arg::complex("T N 2 3", Domain::Any)],
    &[Arg::complex("N 16", Domain::Any)],
    &[Arg::complex("7", Domain::Any)],
];

pub(crate) static FFT: OpSpec = OpSpec {
    name: "fft",
    summary: "discrete Fourier transform of the last axis, unitary",
    cases: &[
        Case { label: "any size", inputs: CASES[0], build: |t, x| fft(t, x[0]) },
        Case { label: "axes before", inputs: CASES[1], build: |t, x| fft(t, x[0]) },
        Case { label: "a power of two", inputs: CASES[2], build: |t, x| fft(t, x[0]) },
        Case { label: "a prime", inputs: CASES[3], build: |t, x| fft(t, x[0]) },
    ],
};

pub(crate) static IFFT: OpSpec = OpSpec {
    name: "ifft",
    summary: "inverse discrete Fourier transform of the last axis, unitary",
    cases: &[
        Case { label: "any size", inputs: CASES[0], build: |t, x| ifft(t, x[0]) },
        Case { label: "axes before", inputs: CASES[1], build: |t, x| ifft(t, x[0]) },
        Case { label: "a power of two", inputs: CASES[2], build: |t, x| ifft(t, x[0]) },
        Case { label: "a prime", inputs: CASES[3], build: |t, x| ifft(t, x[0]) },
    ],
};

#[cfg(test)]
mod tests {
    use num_complex::Complex64;
    use retrograd_engine::{Params, Shape, reference};

    use super::*;
    use crate::spec::Sampler;

    #[test]
    fn equal_to_the_sum_and_inverse_to_each_other() -> Result<()> {
        for n in [1, 2, 3, 8, 17, 60, 97] {
            for (dtype, tolerance) in [(DType::C64, 1e-13), (DType::C32, 2e-5)] {
                let mut tape = Tape::new();
                let x = tape.input("x", dtype, Shape::rows([n]))?;
                let y = fft(&mut tape, x)?;
                let z = ifft(&mut tape, y)?;
                let mut sampler = Sampler::new(3).with_size("N", 3).with_size("H", n);
                let values = sampler.tensor(&Arg::complex("N H", Domain::Any), dtype)?;
                let mut params = Params::new();
                params.insert("x", values.clone());
                let found = reference::evaluate(&tape, &[y, z], &[&params])?;
                for i in 0..values.len() {
                    let (row, k) = (i / n, i % n);
                    let turn =
                        |j: usize| Complex64::cis(-std::f64::consts::TAU * ((j * k) % n) as f64 / n as f64);
                    let sum: Complex64 = (0..n).map(|j| values.get(row * n + j) * turn(j)).sum();
                    let expected = sum / (n as f64).sqrt();
                    let worst =
                        (found[0].get(i) - expected).norm().max((found[1].get(i) - values.get(i)).norm());
                    assert!(worst < tolerance, "{dtype} {n}: {worst:e}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn errors() -> Result<()> {
        let mut tape = Tape::new();
        let real = tape.input("real", DType::F32, Shape::rows([4]))?;
        let none = tape.input("none", DType::C32, Shape::rows([]))?;
        assert!(matches!(fft(&mut tape, real), Err(Error::DType { .. })));
        assert!(matches!(ifft(&mut tape, none), Err(Error::Shape { .. })));
        Ok(())
    }
}
