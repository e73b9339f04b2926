//! Systems of linear equations with a triangular matrix.

use retrograd_engine::cpu::{Multiversion, Real, fma, multiversion};
use retrograd_engine::device::{Building, DeviceKernel, Entry, Piece, Value};
use retrograd_engine::kernel::{Args, Structured};
use retrograd_engine::op::{Class, Cotangents, Io};
use retrograd_engine::profile::Work;
use retrograd_engine::{Error, Op, Result, Shape, Tape, Tensor, Ty, Var, structured_kernel};
use smallvec::smallvec;

use crate::check::joint_dtype;
use crate::rule::sum_options;
use crate::spec::{Arg, Case, Domain, OpSpec};
use crate::{MatMulFlags, add, matmul_with, mul, neg};

/// How the matrix of [`triangular_solve`] is to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Triangle {
    /// Its upper triangle, else its lower one; the other is not read.
    pub upper: bool,
    /// Transposed, after the triangle was taken.
    pub transpose: bool,
    /// Conjugated.
    pub conj: bool,
}

/// Solution of `a' y = b` with a triangular matrix: `y = a'⁻¹ b`, where `'` takes a triangle of `a` with its diagonal,
/// transposes and conjugates as the flags say.
///
/// Shapes: `a [.., M, M]`, `b [.., M, P] -> y [.., M, P]`; the axes before are the same, batch axes join.
/// Rule: `b_bar = a'⁻ᴴ y_bar`, `a'_bar = −b_bar yᴴ` on the triangle, 0 off it; keeps `a` and `y`.
/// Domain: matrices without a 0 on the diagonal; one there gives infinities or NaN.   Errors: fewer than two axes; a
/// matrix that is not square; axes that differ; single with double precision.
///
/// Source: forward and back substitution; rules as in M. Giles (2008), "Collected matrix derivative results for forward
/// and reverse mode algorithmic differentiation".
pub fn triangular_solve(tape: &mut Tape, a: Var, b: Var, read: Triangle) -> Result<Var> {
    // Conjugating real numbers does nothing; without the flag equal systems are recognized as equal.
    let conj = read.conj && tape.dtype(a)?.is_complex();
    tape.push(Solve { read: Triangle { conj, ..read } }, &[a, b])
}

#[derive(Clone, Copy, Debug)]
struct Solve {
    read: Triangle,
}

impl Solve {
    /// `x` on the triangle that is read, 0 off it.
    fn on_triangle(&self, tape: &mut Tape, x: Var) -> Result<Var> {
        let m = tape.last_dim("triangular_solve", x)?;
        let mut mask = Tensor::zeros(tape.dtype(x)?.real(), [m, m])?;
        let inside = |row, column| if self.read.upper { row <= column } else { row >= column };
        mask.fill_with(|i| f64::from(u8::from(inside(i / m, i % m))).into());
        let mask = tape.constant(mask);
        mul(tape, x, mask)
    }
}

impl Op for Solve {
    fn name(&self) -> &'static str {
        "triangular_solve"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        let dtype = joint_dtype("triangular_solve", inputs)?;
        let (a, b) = (&inputs[0].shape, &inputs[1].shape);
        let ([a_over @ .., a0, a1], [b_over @ .., b0, _]) = (&a.dims[..], &b.dims[..]) else {
            let short = if a.dims.len() < 2 { ("a", a) } else { ("b", b) };
            return Err(Error::shape("triangular_solve", short.0, "at least two axes", short.1));
        };
        if a0 != a1 {
            return Err(Error::shape("triangular_solve", "a", "[.., M, M]", a));
        }
        if a_over != b_over || a0 != b0 {
            let expected = format!("{a_over:?} and M={a0}, then P");
            return Err(Error::shape("triangular_solve", format!("b for a {a}"), expected, b));
        }
        Ok(Ty::new(dtype, Shape { lead: a.lead.join(b.lead), dims: b.dims.clone() }))
    }

    fn class(&self) -> Class<'_> {
        Class::Structured(self)
    }

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        let Triangle { upper, transpose, conj } = self.read;
        let adjoint = Triangle { upper, transpose: !transpose, conj: !conj };
        let b_bar = triangular_solve(tape, io.inputs[0], y_bar, adjoint)?;
        if !io.needs[0] {
            return Ok(smallvec![None, Some(b_bar)]);
        }
        // b_bar yᴴ, transposed and conjugated as the matrix was.
        let (left, right) = if transpose { (io.output, b_bar) } else { (b_bar, io.output) };
        let conj_a = transpose != conj;
        let flags = MatMulFlags { transpose_a: false, conj_a, transpose_b: true, conj_b: !conj_a };
        let product = matmul_with(tape, left, right, flags)?;
        let product = self.on_triangle(tape, product)?;
        Ok(smallvec![Some(neg(tape, product)?), Some(b_bar)])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        let from_a = match x_dots[0] {
            None => None,
            Some(a_dot) => {
                let a_dot = self.on_triangle(tape, a_dot)?;
                let flags = MatMulFlags {
                    transpose_a: self.read.transpose,
                    conj_a: self.read.conj,
                    ..MatMulFlags::default()
                };
                let moved = matmul_with(tape, a_dot, io.output, flags)?;
                Some(neg(tape, moved)?)
            }
        };
        let Some(rest) = sum_options(tape, x_dots[1], from_a)? else { return Ok(None) };
        triangular_solve(tape, io.inputs[0], rest, self.read).map(Some)
    }

    fn work(&self) -> Work {
        Work::Product
    }

    fn flops(&self, inputs: &[Ty], output: &Ty) -> f64 {
        let m = inputs[0].shape.dims.last().copied().unwrap_or(0);
        let planes: usize = inputs.iter().map(|ty| ty.dtype.planes()).product();
        output.shape.width() as f64 * m as f64 * planes as f64
    }
}

/// One system: real and imaginary planes of the matrix, and of the right side, which the solution replaces.
struct Substitute<'a, R> {
    read: Triangle,
    m: usize,
    ar: &'a [R],
    ai: &'a [R],
    yr: &'a mut [R],
    yi: &'a mut [R],
}

/// Row `i`, to be written, and another row `j`, of rows of `p` elements.
#[inline(always)]
fn two_rows<R>(y: &mut [R], i: usize, j: usize, p: usize) -> (&mut [R], &[R]) {
    let (head, tail) = y.split_at_mut(i.max(j) * p);
    if i > j { (&mut tail[..p], &head[j * p..][..p]) } else { (&mut head[i * p..][..p], &tail[..p]) }
}

/// `y += v x`.
#[inline(always)]
fn add_scaled<R: Real, const FMA: bool>(y: &mut [R], v: R, x: &[R]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = fma::<R, FMA>(v, *x, *y);
    }
}

impl<R: Real> Multiversion for Substitute<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Substitute { read, m, ar, ai, yr, yi } = self;
        let p = yr.len() / m;
        let entry = |row: usize, column: usize| {
            let at = if read.transpose { column * m + row } else { row * m + column };
            let im = ai.get(at).map_or(R::ZERO, |im| if read.conj { -*im } else { *im });
            (ar[at], im)
        };
        // An upper triangle is solved from its last row.
        let from_below = read.upper != read.transpose;
        for k in 0..m {
            let i = if from_below { m - 1 - k } else { k };
            let (start, end) = if from_below { (i + 1, m) } else { (0, i) };
            for j in start..end {
                let (re, im) = entry(i, j);
                let (to, from) = two_rows(yr, i, j, p);
                add_scaled::<R, FMA>(to, -re, from);
                if yi.is_empty() {
                    continue;
                }
                let (to_im, from_im) = two_rows(yi, i, j, p);
                add_scaled::<R, FMA>(to_im, -re, from_im);
                if !ai.is_empty() {
                    add_scaled::<R, FMA>(to, im, from_im);
                    add_scaled::<R, FMA>(to_im, -im, from);
                }
            }
            let (re, im) = entry(i, i);
            let own = i * p..(i + 1) * p;
            if ai.is_empty() {
                yr[own.clone()].iter_mut().for_each(|y| *y = *y / re);
                yi.iter_mut().skip(own.start).take(p).for_each(|y| *y = *y / re);
            } else {
                let [re, im] = reciprocal(re, im);
                for (yr, yi) in yr[own.clone()].iter_mut().zip(&mut yi[own]) {
                    (*yr, *yi) = (*yr * re - *yi * im, *yr * im + *yi * re);
                }
            }
        }
    }
}

/// `1/(re + i·im)` without overflow on the way (R. L. Smith (1962), "Algorithm 116: complex division").
#[inline(always)]
fn reciprocal<R: Real>(re: R, im: R) -> [R; 2] {
    if re.abs() >= im.abs() {
        let ratio = im / re;
        let whole = re + im * ratio;
        [R::ONE / whole, -ratio / whole]
    } else {
        let ratio = re / im;
        let whole = re * ratio + im;
        [ratio / whole, -R::ONE / whole]
    }
}

impl Solve {
    fn kernel<R: Real>(&self, mut args: Args<'_, R>) {
        let (a, b) = (args.inputs[0], args.inputs[1]);
        let ([.., m, _], [.., p]) = (a.dims(), b.dims()) else { return };
        let (m, p) = (*m, *p);
        if m * p == 0 {
            return;
        }
        for r in 0..args.rows {
            let (yr, yi) = args.output.row_pair(r);
            yr.copy_from_slice(b.row(r));
            match b.is_complex() {
                true => yi.copy_from_slice(b.row_im(r)),
                false => yi.fill(R::ZERO),
            }
            let a_im = if a.is_complex() { a.row_im(r) } else { &[] };
            for (k, ar) in a.row(r).chunks_exact(m * m).enumerate() {
                let of_y = k * m * p..(k + 1) * m * p;
                let ai = a_im.get(k * m * m..(k + 1) * m * m).unwrap_or(&[]);
                let yi = yi.get_mut(of_y.clone()).unwrap_or(&mut []);
                let yr = &mut yr[of_y];
                multiversion(Substitute { read: self.read, m, ar, ai, yr, yi });
            }
        }
    }
}

impl Structured for Solve {
    structured_kernel!();

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }
}

impl DeviceKernel for Solve {
    fn phases(&self, inputs: &[Entry], output: &Entry) -> Vec<usize> {
        // A column of a right-hand side; the last two axes are its rows and columns.
        let rows = inputs[1].dims.iter().rev().nth(1).copied().unwrap_or(1).max(1);
        vec![output.width() / rows]
    }

    fn piece(&self, k: &mut Piece<'_, '_>, _: usize, piece: Value) {
        let (rows, columns) = match k.inputs[1].dims[..] {
            [.., m, p] => (m, p),
            _ => return,
        };
        let (system, column) = (k.code().div(piece, columns), k.code().rem(piece, columns));
        let a0 = k.code().mul(system, rows * rows);
        let y0 = k.code().mul(system, rows * columns);
        let y0 = k.code().add(y0, column);
        let read = self.read;
        // Which end is known first.
        let upward = read.upper != read.transpose;
        let (by_row, by_column) = if read.transpose { (1, rows) } else { (rows, 1) };
        let complex = k.planes() == 2;
        let entry = |k: &mut Piece<'_, '_>, i: Value, j: Value| {
            let (di, dj) = (k.code().mul(i, by_row), k.code().mul(j, by_column));
            let at = k.code().add(di, dj);
            let at = k.code().add(a0, at);
            let re = k.input(0, 0, at);
            let im = (complex && k.is_complex(0)).then(|| {
                let im = k.input(0, 1, at);
                if read.conj { k.code().neg(im) } else { im }
            });
            (re, im)
        };
        let of = |k: &mut Piece<'_, '_>, i: Value| {
            let skip = k.code().mul(i, columns);
            k.code().add(y0, skip)
        };
        k.each(0, rows, |k, n| {
            let i = if upward { k.code().sub(rows - 1, n) } else { n };
            let at = of(k, i);
            let right: Vec<Value> = (0..k.planes()).map(|plane| k.input(1, plane, at)).collect();
            let sums: Vec<Value> = right.into_iter().map(|b| k.variable(b)).collect();
            k.each(0, n, |k, l| {
                let j = if upward { k.code().sub(rows - 1, l) } else { l };
                let (re, im) = entry(k, i, j);
                let at = of(k, j);
                let y: Vec<Value> = (0..k.planes()).map(|plane| k.written(plane, at)).collect();
                let less = |k: &mut Piece<'_, '_>, plane: usize, minus: bool, a: Value, y: Value| {
                    let a = if minus { k.code().neg(a) } else { a };
                    let next = k.code().fma(a, y, sums[plane]);
                    k.code().set(sums[plane], next);
                };
                less(k, 0, true, re, y[0]);
                if complex {
                    less(k, 1, true, re, y[1]);
                }
                if let Some(im) = im {
                    less(k, 0, false, im, y[1]);
                    less(k, 1, true, im, y[0]);
                }
            });
            let (re, im) = entry(k, i, i);
            match im {
                None => {
                    for (plane, sum) in sums.iter().enumerate() {
                        let y = k.code().div(*sum, re);
                        k.store(plane, at, y);
                    }
                }
                Some(im) => {
                    // By the conjugate over the squared modulus.
                    let square = k.code().mul(im, im);
                    let square = k.code().fma(re, re, square);
                    let (ry, iy) = (k.code().mul(im, sums[1]), k.code().mul(im, sums[0]));
                    let iy = k.code().neg(iy);
                    let (y_re, y_im) = (k.code().fma(re, sums[0], ry), k.code().fma(re, sums[1], iy));
                    let (y_re, y_im) = (k.code().div(y_re, square), k.code().div(y_im, square));
                    k.store(0, at, y_re);
                    k.store(1, at, y_im);
                }
            }
        });
    }
}

/// The system with 3 added along the diagonal of the matrix, so that it is far from singular.
fn away_from_singular(tape: &mut Tape, x: &[Var], read: Triangle) -> Result<Var> {
    let m = tape.last_dim("triangular_solve", x[0])?;
    let mut three = Tensor::zeros(tape.dtype(x[0])?.real(), [m, m])?;
    three.fill_with(|i| if i / m == i % m { 3.0.into() } else { 0.0.into() });
    let three = tape.constant(three);
    let a = add(tape, x[0], three)?;
    triangular_solve(tape, a, x[1], read)
}

macro_rules! read {
    ($upper:literal $transpose:literal $conj:literal) => {
        Triangle { upper: $upper, transpose: $transpose, conj: $conj }
    };
}

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "triangular_solve",
    summary: "solution of a triangular system of linear equations",
    cases: &[
        Case {
            label: "lower, shared",
            inputs: &[Arg::either("M M", Domain::Unit), Arg::either("M P", Domain::Any)],
            build: |tape, x| away_from_singular(tape, x, read!(false false false)),
        },
        Case {
            label: "upper, shared matrix, right sides with rows",
            inputs: &[Arg::either("M M", Domain::Unit), Arg::either("N M P", Domain::Any)],
            build: |tape, x| away_from_singular(tape, x, read!(true false false)),
        },
        Case {
            label: "upper transposed, both with rows, several each",
            inputs: &[Arg::either("N D M M", Domain::Unit), Arg::either("N D M 1", Domain::Any)],
            build: |tape, x| away_from_singular(tape, x, read!(true true false)),
        },
        Case {
            label: "lower, transposed and conjugated",
            inputs: &[Arg::either("N M M", Domain::Unit), Arg::either("M 19", Domain::Any)],
            build: |tape, x| away_from_singular(tape, x, read!(false true true)),
        },
        Case {
            label: "upper, conjugated",
            inputs: &[Arg::either("M M", Domain::Unit), Arg::either("M P", Domain::Any)],
            build: |tape, x| away_from_singular(tape, x, read!(true false true)),
        },
    ],
};

#[cfg(test)]
mod tests {
    use num_complex::Complex64;
    use retrograd_engine::{DType, Params, reference};

    use super::*;

    /// The other triangle is not read, and the system is solved, under all flags.
    #[test]
    fn solves_what_it_reads() -> Result<()> {
        let (m, p) = (3, 2);
        let entry = |i: usize| Complex64::new(1.0 + i as f64, 0.5 * i as f64 - 2.0);
        for bits in 0..8 {
            let read = Triangle { upper: bits & 1 == 1, transpose: bits & 2 == 2, conj: bits & 4 == 4 };
            let inside = |row, column| if read.upper { row <= column } else { row >= column };
            let mut tape = Tape::new();
            let a = tape.param("a", DType::C64, [m, m])?;
            let b = tape.param("b", DType::C64, [m, p])?;
            let y = triangular_solve(&mut tape, a, b, read)?;
            let mut stored = Tensor::zeros(DType::C64, [m, m])?;
            stored.fill_with(|i| if inside(i / m, i % m) { entry(i) } else { Complex64::new(f64::NAN, 0.0) });
            let mut right = Tensor::zeros(DType::C64, [m, p])?;
            right.fill_with(|i| Complex64::new(0.25 * i as f64, 1.0));
            let values = Params::from_iter([("a".to_string(), stored), ("b".to_string(), right.clone())]);
            let y = &reference::evaluate(&tape, &[y], &[&values])?[0];
            for (row, column) in (0..m).flat_map(|row| (0..p).map(move |column| (row, column))) {
                let got: Complex64 = (0..m)
                    .filter_map(|k| {
                        let (i, j) = if read.transpose { (k, row) } else { (row, k) };
                        let a = if read.conj { entry(i * m + j).conj() } else { entry(i * m + j) };
                        inside(i, j).then(|| a * y.get(k * p + column))
                    })
                    .sum();
                let expected = right.get(row * p + column);
                assert!((got - expected).norm() < 1e-13, "{read:?}: {got} {expected}");
            }
        }
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_an_error() -> Result<()> {
        let mut tape = Tape::new();
        let square = tape.param("square", DType::F32, [3, 3])?;
        let long = tape.param("long", DType::F32, [3, 2])?;
        let vector = tape.param("vector", DType::F32, [3])?;
        let many = tape.param("many", DType::F32, [2, 3, 3])?;
        let double = tape.param("double", DType::F64, [3, 2])?;
        let read = Triangle::default();
        for (a, b) in [(long, long), (square, vector), (vector, long), (many, long), (square, double)] {
            assert!(triangular_solve(&mut tape, a, b, read).is_err());
        }
        assert!(triangular_solve(&mut tape, square, long, read).is_ok());
        Ok(())
    }
}
