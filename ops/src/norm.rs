//! p-norms over ordinary axes, and division by them.

use retrograd_engine::core_ops::{conj, real, sum_dims};
use retrograd_engine::cpu::{Multiversion, Real, multiversion};
use retrograd_engine::device::{Building, DeviceKernel, Entry, Piece, Value};
use retrograd_engine::expr::{Binary, Unary};
use retrograd_engine::kernel::{Args, Structured};
use retrograd_engine::op::{Class, Cotangents, Io};
use retrograd_engine::{Dims, Error, Op, Result, Shape, Tape, Ty, Var, structured_kernel};
use smallvec::smallvec;

use crate::fold::{Reduced, for_each, trailing};
use crate::lanes::{is_nan, load, load_part, most_of, total};
use crate::pieces::{larger, reduced};
use crate::spec::{Arg, Case, Domain, OpSpec};
use crate::{abs, axis, div, div_or_zero, maximum, mul, phase, powf};

/// p-norm over ordinary axes: `y = (Σ |x|^p)^(1/p)`, real; `p ≥ 1`, infinity included. With `keep` the axes stay as
/// axes of size 1.
///
/// Shapes: `x [.., a, ..] -> y [.., 1, ..]` or `[.., ..]`.   Rule: `x_bar = |x/y|^(p−1) x/|x| · y_bar`; keeps `x`
/// and `y`. At `p = ∞` the elements of largest modulus share `y_bar` evenly.
/// Domain: all numbers; nothing overflows that the result does not. Subgradient 0 where `y = 0`, and where `x = 0` at
/// `p = 1`; at `1 < p < 2` the second derivative is infinite at `x = 0`.
/// Errors: an axis that does not exist or is named twice; no elements; `p` below 1 or NaN.
pub fn norm(tape: &mut Tape, x: Var, p: f64, axes: &[i32], keep: bool) -> Result<Var> {
    if p.is_nan() || p < 1.0 {
        return Err(Error::argument("norm", format!("p = {p}; at least 1")));
    }
    let reduced = Reduced::not_empty("norm", tape, x, axes)?;
    let y = tape.push(Norm { p, dims: reduced.kept.clone() }, &[x])?;
    reduced.shape(tape, y, keep)
}

/// Division by the p-norm along one axis: `y = x / max(‖x‖_p, eps)`.
///
/// Shapes: `x [.., a, ..] -> y` of the same.   Rule: with `n = ‖x‖_p > eps`,
/// `x_bar = (y_bar − x/|x| |y|^(p−1) · Re Σ conj(y) y_bar) / n`, below it `y_bar / eps`.
/// Domain: all numbers; 0 stays 0.   Errors: as [`norm`]; `eps` that is not positive.
///
/// Source: `torch.nn.functional.normalize`; with `p = 5` in the Non-saturating Recurrent Unit (S. Chandar et al.
/// (2019), "Towards non-saturating recurrent units for modelling long-term dependencies", AAAI).
pub fn normalize(tape: &mut Tape, x: Var, p: f64, axis: i32, eps: f64) -> Result<Var> {
    if eps.is_nan() || eps <= 0.0 {
        return Err(Error::argument("normalize", format!("eps = {eps}; more than 0")));
    }
    axis::axis("normalize", tape.shape(x)?.dims.len(), axis)?;
    let n = norm(tape, x, p, &[axis], true)?;
    let eps = tape.scalar(n, eps)?;
    let n = maximum(tape, n, eps)?;
    div(tape, x, n)
}

/// p-norm down to `dims`, 1 for every axis reduced.
#[derive(Clone, Debug)]
struct Norm {
    p: f64,
    dims: Dims,
}

impl Norm {
    /// The gradient of `y` by `x`, stretched to `x`.
    fn direction(&self, tape: &mut Tape, x: Var, y: Var) -> Result<Var> {
        if self.p == 1.0 {
            return phase(tape, x);
        }
        if self.p == f64::INFINITY {
            let size = abs(tape, x)?;
            let shares = crate::max::shares(tape, size, y, &self.dims)?;
            let unit = phase(tape, x)?;
            return mul(tape, shares, unit);
        }
        let ratio = div_or_zero(tape, x, y)?;
        if self.p == 2.0 {
            return Ok(ratio);
        }
        // |r|^(p−2) r where that is smooth, |r|^(p−1) times the phase where it is not.
        let size = abs(tape, ratio)?;
        let (power, unit) = if self.p > 2.0 {
            (powf(tape, size, self.p - 2.0)?, ratio)
        } else {
            (powf(tape, size, self.p - 1.0)?, phase(tape, x)?)
        };
        mul(tape, power, unit)
    }
}

impl Op for Norm {
    fn name(&self) -> &'static str {
        "norm"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        crate::check::joint_dtype("norm", inputs)?;
        Ok(Ty::new(inputs[0].dtype.real(), Shape::new(inputs[0].shape.lead, &self.dims)))
    }

    fn class(&self) -> Class<'_> {
        Class::Structured(self)
    }

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        let direction = self.direction(tape, io.inputs[0], io.output)?;
        Ok(smallvec![Some(mul(tape, direction, y_bar)?)])
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        let Some(x_dot) = x_dots[0] else { return Ok(None) };
        let direction = self.direction(tape, io.inputs[0], io.output)?;
        let direction = conj(tape, direction)?;
        let terms = mul(tape, direction, x_dot)?;
        let terms = real(tape, terms)?;
        sum_dims(tape, terms, &self.dims).map(Some)
    }

    fn flops(&self, inputs: &[Ty], _: &Ty) -> f64 {
        // A modulus, a scaling, a power, a sum.
        8.0 * inputs[0].shape.width() as f64
    }
}

/// `x^p`, elements apart, for `x ≥ 0`; `P` is `p`, or 0 for any other.
#[inline(always)]
fn powers<R: Real, const P: u32>(p: f64, x: [R; 16]) -> [R; 16] {
    match P {
        1 => x,
        2 => square(x),
        3 => times(x, square(x)),
        4 => square(square(x)),
        5 => times(x, square(square(x))),
        _ if p == p.trunc() && p <= 64.0 => {
            let (mut n, mut base, mut y) = (p as u32, x, [R::ONE; 16]);
            while n > 0 {
                if n & 1 == 1 {
                    y = times(y, base);
                }
                base = square(base);
                n >>= 1;
            }
            y
        }
        _ => x.map(|v| R::from_f64(v.to_f64().powf(p))),
    }
}

#[inline(always)]
fn times<R: Real>(x: [R; 16], y: [R; 16]) -> [R; 16] {
    let mut z = x;
    for l in 0..16 {
        z[l] = x[l] * y[l];
    }
    z
}

#[inline(always)]
fn square<R: Real>(x: [R; 16]) -> [R; 16] {
    times(x, x)
}

/// `sqrt(re² + im²)` of numbers of moduli up to 1.
fn modulus<R: Real>(re: R, im: R) -> R {
    (re * re + im * im).sqrt()
}

/// The largest modulus of a run of elements, and the sum of powers relative to it, which do not overflow: the norm is the
/// first times the root of the second, which is 1 where the first says it all.
fn of_slice<R: Real>(p: f64, re: &[R], im: &[R]) -> (R, R) {
    if im.is_empty() && p == p.trunc() && p <= 64.0 {
        let x = re;
        let found = match p as u32 {
            1 => multiversion(SumOfPowers::<R, 1> { p, x }),
            2 => multiversion(SumOfPowers::<R, 2> { p, x }),
            3 => multiversion(SumOfPowers::<R, 3> { p, x }),
            4 => multiversion(SumOfPowers::<R, 4> { p, x }),
            5 => multiversion(SumOfPowers::<R, 5> { p, x }),
            _ => multiversion(SumOfPowers::<R, 0> { p, x }),
        };
        if let Some((largest, sum)) = found {
            return (largest, sum);
        }
    }
    let mut largest = R::ZERO;
    for v in re.iter().chain(im) {
        // A NaN stays.
        let size = v.abs();
        if size > largest || is_nan(size) {
            largest = size;
        }
    }
    let plain = im.is_empty() && p == f64::INFINITY;
    if plain || largest == R::ZERO || !largest.to_f64().is_finite() {
        return (largest, R::ONE);
    }
    let inverse = R::ONE / largest;
    // The reciprocal of a subnormal number may overflow.
    let scale = |v: R| if inverse.to_f64().is_finite() { v * inverse } else { v / largest };
    let mut sums = [R::ZERO; 16];
    let mut most = R::ZERO;
    for (c, chunk) in re.chunks(16).enumerate() {
        let mut sizes = [R::ZERO; 16];
        for (l, v) in chunk.iter().enumerate() {
            sizes[l] =
                if im.is_empty() { scale(*v).abs() } else { modulus(scale(*v), scale(im[16 * c + l])) };
        }
        if p == f64::INFINITY {
            most = sizes.iter().fold(most, |most, v| if *v > most { *v } else { most });
        } else {
            let sizes = powers::<R, 0>(p, sizes);
            for l in 0..16 {
                sums[l] += sizes[l];
            }
        }
    }
    if p == f64::INFINITY {
        return (largest * most, R::ONE);
    }
    (largest, total(sums))
}

/// `x^(1/p)`.
fn root<R: Real>(p: f64, x: R) -> R {
    match p {
        1.0 => x,
        2.0 => x.sqrt(),
        _ => R::from_f64(x.to_f64().powf(1.0 / p)),
    }
}

/// `x^(1/p)` of sixteen numbers in place, which are positive and finite.
struct Roots<'a, R> {
    p: f64,
    x: &'a mut [R; 16],
}

impl<R: Real> Multiversion for Roots<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Roots { p, x } = self;
        // In single precision 1e-13 is as good as exact, and sixteen such roots take the time of one power.
        if size_of::<R>() > 4 || p != p.trunc() || !(3.0..=8.0).contains(&p) {
            *x = x.map(|x| root(p, x));
            return;
        }
        let mut wide = [0.0; 16];
        for l in 0..16 {
            wide[l] = x[l].to_f64();
        }
        let roots = whole_roots(p as u32, &wide);
        for l in 0..16 {
            x[l] = R::from_f64(roots[l]);
        }
    }
}

/// `x^(1/n)` to 1e-13 for positive normal `x` and `n` up to 8: Newton's method for `r = x^(−1/n)`, which divides by nothing.
#[inline(always)]
fn whole_roots(n: u32, x: &[f64; 16]) -> [f64; 16] {
    let one = 1f64.to_bits() as i64;
    let share = 1.0 / f64::from(n);
    let mut r = [0.0; 16];
    for l in 0..16 {
        // The bits of a number are its logarithm, but for what lies between powers of 2: off by a sixteenth at most.
        let log = (x[l].to_bits() as i64 - one) as f64;
        r[l] = f64::from_bits((one - (log * share) as i64) as u64);
    }
    for _ in 0..5 {
        let power = powers::<f64, 0>(f64::from(n), r);
        for l in 0..16 {
            r[l] += r[l] * ((1.0 - x[l] * power[l]) * share);
        }
    }
    times(*x, powers::<f64, 0>(f64::from(n - 1), r))
}

/// Keeps the largest moduli; numbers that are none are passed over.
#[inline(always)]
fn look<R: Real>(most: &mut [R; 16], v: [R; 16]) {
    let mut sizes = v;
    for l in 0..16 {
        sizes[l] = v[l].abs();
    }
    for l in 0..16 {
        most[l] = if sizes[l] > most[l] { sizes[l] } else { most[l] };
    }
}

/// `sums += |v · inverse|^p`.
#[inline(always)]
fn add_powers<R: Real, const P: u32>(p: f64, inverse: R, sums: &mut [R; 16], v: [R; 16]) {
    let mut sizes = v;
    for l in 0..16 {
        sizes[l] = (v[l] * inverse).abs();
    }
    let sizes = powers::<R, P>(p, sizes);
    for l in 0..16 {
        sums[l] += sizes[l];
    }
}

/// The largest modulus of real numbers and the sum of `|x / largest|^p` for a whole `p` up to 64; nothing where one is
/// not finite, all are 0 or the largest has no reciprocal. `P`: see [`powers`].
struct SumOfPowers<'a, R, const P: u32> {
    p: f64,
    x: &'a [R],
}

impl<R: Real, const P: u32> Multiversion for SumOfPowers<'_, R, P> {
    type Output = Option<(R, R)>;

    #[inline(always)]
    fn run<const FMA: bool>(self) -> Option<(R, R)> {
        // Four chains apart: one alone would wait for itself.
        let (blocks, rest) = self.x.as_chunks::<64>();
        let mut most = [[R::ZERO; 16]; 4];
        for block in blocks {
            for (c, most) in most.iter_mut().enumerate() {
                look(most, load(&block[16 * c..]));
            }
        }
        for (c, most) in most.iter_mut().enumerate() {
            look(most, load_part(rest.get(16 * c..).unwrap_or_default()));
        }
        let [mut first, second, third, fourth] = most;
        look(&mut first, second);
        look(&mut first, third);
        look(&mut first, fourth);
        let largest = most_of(first);
        let inverse = R::ONE / largest;
        if largest == R::ZERO || !inverse.to_f64().is_finite() {
            return None;
        }
        let mut sums = [[R::ZERO; 16]; 4];
        for block in blocks {
            for (c, sums) in sums.iter_mut().enumerate() {
                add_powers::<R, P>(self.p, inverse, sums, load(&block[16 * c..]));
            }
        }
        for (c, sums) in sums.iter_mut().enumerate() {
            let part = load_part(rest.get(16 * c..).unwrap_or_default());
            add_powers::<R, P>(self.p, inverse, sums, part);
        }
        for l in 0..16 {
            sums[0][l] = (sums[0][l] + sums[1][l]) + (sums[2][l] + sums[3][l]);
        }
        // Infinity times 0, and what is no number, have come through.
        let sum = total(sums[0]);
        sum.to_f64().is_finite().then_some((largest, sum))
    }
}

impl Norm {
    fn kernel<R: Real>(&self, mut args: Args<'_, R>) {
        let x = args.inputs[0];
        let together = trailing(x.dims(), &self.dims).is_some();
        for r in 0..args.rows {
            let (re, im) = (x.row(r), if x.is_complex() { x.row_im(r) } else { &[] });
            let y = args.output.row(r);
            let len = re.len() / y.len().max(1);
            if together {
                of_runs(self.p, len, re, im, y);
                continue;
            }
            // Elements that are reduced together are brought together.
            let (to_re, rest) = args.scratch.split_at_mut(re.len());
            gather(x.dims(), &self.dims, re, to_re, y);
            gather(x.dims(), &self.dims, im, rest, y);
            of_runs(self.p, len, to_re, if im.is_empty() { im } else { rest }, y);
        }
    }
}

/// The norms of runs of `len` elements, sixteen roots at a time.
fn of_runs<R: Real>(p: f64, len: usize, re: &[R], im: &[R], y: &mut [R]) {
    for (c, y) in y.chunks_mut(16).enumerate() {
        let mut sums = [R::ONE; 16];
        for (l, y) in y.iter_mut().enumerate() {
            let at = (16 * c + l) * len..(16 * c + l + 1) * len;
            (*y, sums[l]) = of_slice(p, &re[at.clone()], if im.is_empty() { im } else { &im[at] });
        }
        multiversion(Roots { p, x: &mut sums });
        for (l, y) in y.iter_mut().enumerate() {
            *y *= sums[l];
        }
    }
}

/// Moves the elements that go to output `j` next to each other; `next` counts those seen so far.
fn gather<R: Real>(from: &[usize], dims: &[usize], x: &[R], to: &mut [R], next: &mut [R]) {
    if x.is_empty() {
        return;
    }
    let len = x.len() / next.len();
    next.fill(R::ZERO);
    for_each(from, dims, |i, j| {
        to[j * len + next[j].to_f64() as usize] = x[i];
        next[j] += R::ONE;
    });
}

impl Structured for Norm {
    structured_kernel!();

    fn scratch(&self, inputs: &[Ty]) -> usize {
        let x = &inputs[0];
        let moved = trailing(&x.shape.dims, &self.dims).is_none();
        if moved { x.shape.width() * x.dtype.planes() } else { 0 }
    }

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }
}

/// `x^p` of `0 ≤ x ≤ 1`.
fn whole_power(k: &mut Piece<'_, '_>, p: f64, x: Value) -> Value {
    if p == p.trunc() && p <= 64.0 {
        let mut power = x;
        for _ in 1..p as usize {
            power = k.code().mul(power, x);
        }
        return power;
    }
    let zero = k.number(0.0);
    let (log, p) = (k.unary(Unary::Log, x), k.number(p));
    let log = k.code().mul(log, p);
    let power = k.unary(Unary::Exp, log);
    let none = k.code().eq(x, zero);
    k.code().select(none, zero, power)
}

impl DeviceKernel for Norm {
    fn phases(&self, _: &[Entry], output: &Entry) -> Vec<usize> {
        vec![output.width()]
    }

    fn by_warp(&self, inputs: &[Entry], _: &Entry) -> bool {
        inputs[0].is_long_to(&self.dims)
    }

    fn piece(&self, k: &mut Piece<'_, '_>, _: usize, piece: Value) {
        let (base, axes) = reduced(k, &self.dims, piece);
        let complex = k.is_complex(0);
        let zero = k.number(0.0);
        let largest = k.variable(zero);
        let size_of = |k: &mut Piece<'_, '_>, at: Value, by: Option<Value>| {
            let mut parts = vec![k.input(0, 0, at)];
            if complex {
                parts.push(k.input(0, 1, at));
            }
            if let Some(by) = by {
                parts = parts.into_iter().map(|x| k.code().div(x, by)).collect();
            }
            match parts[..] {
                [re, im] => k.binary(Binary::Hypot, re, im),
                _ => k.code().abs(parts[0]),
            }
        };
        k.each_along(&axes, base, &mut |k, at| {
            let size = size_of(k, at, None);
            let next = larger(k, largest, size);
            k.code().set(largest, next);
        });
        let largest = k.join(largest, larger);
        let norm = if self.p == f64::INFINITY {
            largest
        } else {
            let one = k.number(1.0);
            let none = k.code().eq(largest, zero);
            let by = k.code().select(none, one, largest);
            let sum = k.variable(zero);
            k.each_along(&axes, base, &mut |k, at| {
                let size = size_of(k, at, Some(by));
                let power = whole_power(k, self.p, size);
                let next = k.code().add(sum, power);
                k.code().set(sum, next);
            });
            let sum = k.join(sum, |k, a, b| k.code().add(a, b));
            let root = match self.p {
                1.0 => sum,
                2.0 => k.unary(Unary::Sqrt, sum),
                p => {
                    // The sum of the powers of a largest 1 is at least 1.
                    let log = k.unary(Unary::Log, sum);
                    let share = k.number(1.0 / p);
                    let log = k.code().mul(log, share);
                    k.unary(Unary::Exp, log)
                }
            };
            let norm = k.code().mul(by, root);
            // Zero, infinity and NaN are themselves.
            let infinite = k.number(f64::INFINITY);
            let finite = k.code().lt(largest, infinite);
            let norm = k.code().select(finite, norm, largest);
            k.code().select(none, zero, norm)
        };
        k.once(|k| k.store(0, piece, norm));
    }
}

pub(crate) static NORM: OpSpec = OpSpec {
    name: "norm",
    summary: "p-norm over axes",
    cases: &[
        Case {
            label: "p = 1",
            inputs: &[Arg::either("N 2 3", Domain::AwayFromZero)],
            build: |tape, x| norm(tape, x[0], 1.0, &[-1], false),
        },
        Case {
            label: "p = 1.5",
            inputs: &[Arg::either("N 3", Domain::AwayFromZero)],
            build: |tape, x| norm(tape, x[0], 1.5, &[-1], true),
        },
        Case {
            label: "p = 3, more elements than a warp has lanes",
            inputs: &[Arg::either("N 37", Domain::AwayFromZero)],
            build: |tape, x| norm(tape, x[0], 3.0, &[-1], false),
        },
        Case {
            label: "p = 2, all axes",
            inputs: &[Arg::either("N 2 3", Domain::AwayFromZero)],
            build: |tape, x| norm(tape, x[0], 2.0, &[0, 1], false),
        },
        Case {
            label: "p = 5, axes that are not last, kept",
            inputs: &[Arg::either("N 2 C 3", Domain::AwayFromZero)],
            build: |tape, x| norm(tape, x[0], 5.0, &[0, 2], true),
        },
        Case {
            label: "p = ∞",
            inputs: &[Arg::real("N 2 3", Domain::Separated)],
            build: |tape, x| norm(tape, x[0], f64::INFINITY, &[0], false),
        },
    ],
};

pub(crate) static NORMALIZE: OpSpec = OpSpec {
    name: "normalize",
    summary: "division by the p-norm along an axis",
    cases: &[
        Case {
            label: "p = 5",
            inputs: &[Arg::either("N 2 3", Domain::AwayFromZero)],
            build: |tape, x| normalize(tape, x[0], 5.0, -1, 1e-12),
        },
        Case {
            label: "p = 2, first axis",
            inputs: &[Arg::either("N 2 3", Domain::AwayFromZero)],
            build: |tape, x| normalize(tape, x[0], 2.0, 0, 1e-12),
        },
        Case {
            label: "norms below eps",
            inputs: &[Arg::either("N 3", Domain::AwayFromZero)],
            build: |tape, x| normalize(tape, x[0], 2.0, -1, 100.0),
        },
    ],
};

#[cfg(test)]
mod tests {
    use retrograd_engine::{DType, Params, Tensor, grad, reference};

    use super::*;

    /// Value and gradient of the norm of one vector.
    fn of(p: f64, x: &[f64]) -> Result<(f64, Vec<f64>)> {
        let mut tape = Tape::new();
        let v = tape.param("x", DType::F64, [x.len()])?;
        let y = norm(&mut tape, v, p, &[0], false)?;
        let g = grad(&mut tape, y, &[v])?;
        let values = Params::from_iter([("x".to_string(), Tensor::from_slice([x.len()], x)?)]);
        let found = reference::evaluate(&tape, &[y, g[0]], &[&values])?;
        Ok((found[0].item()?, found[1].as_slice::<f64>()?.to_vec()))
    }

    #[test]
    fn roots_of_whole_order() {
        for n in 3..=8 {
            assert_eq!(whole_roots(n, &[1.0; 16]), [1.0; 16]);
            for k in -4..4000 {
                let x = 1.013f64.powi(k);
                let (got, expected) =
                    (whole_roots(n, &[x; 16])[k.unsigned_abs() as usize % 16], x.powf(1.0 / f64::from(n)));
                assert!((got - expected).abs() <= 1e-13 * expected, "{n}: {x}: {got}, expected {expected}");
            }
        }
    }

    #[test]
    fn special_points() -> Result<()> {
        let close = |a: f64, b: f64| a == b || (a - b).abs() <= 1e-14 * b.abs();
        let rows: &[(f64, &[f64], f64, &[f64])] = &[
            (2.0, &[3.0, -4.0], 5.0, &[0.6, -0.8]),
            (1.0, &[3.0, 0.0, -4.0], 7.0, &[1.0, 0.0, -1.0]),
            (f64::INFINITY, &[4.0, 1.0, -4.0], 4.0, &[0.5, 0.0, -0.5]),
            (5.0, &[0.0, 0.0], 0.0, &[0.0, 0.0]),
            (2.0, &[0.0, 0.0], 0.0, &[0.0, 0.0]),
            (5.0, &[1e300, 1e300], 1e300 * 2f64.powf(0.2), &[2f64.powf(-0.8); 2]),
            (2.0, &[3e-300, 4e-300], 5e-300, &[0.6, 0.8]),
            (2.0, &[0.0, 1e-310], 1e-310, &[0.0, 1.0]),
        ];
        for (p, x, y, x_bar) in rows {
            let (value, gradient) = of(*p, x)?;
            assert!(close(value, *y), "p {p} {x:?}: {value}");
            assert!(gradient.iter().zip(*x_bar).all(|(a, b)| close(*a, *b)), "p {p} {x:?}: {gradient:?}");
        }
        assert!(of(5.0, &[1.0, f64::NAN, 2.0])?.0.is_nan());
        assert_eq!(of(2.0, &[1.0, f64::NEG_INFINITY])?.0, f64::INFINITY);
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_an_error() -> Result<()> {
        let mut tape = Tape::new();
        let x = tape.param("x", DType::F32, [2, 0])?;
        for p in [0.5, f64::NAN, -1.0] {
            assert!(norm(&mut tape, x, p, &[0], false).is_err());
        }
        assert!(norm(&mut tape, x, 2.0, &[1], false).is_err());
        assert!(normalize(&mut tape, x, 2.0, 0, 0.0).is_err());
        assert!(normalize(&mut tape, x, 2.0, 2, 1.0).is_err());
        Ok(())
    }
}
