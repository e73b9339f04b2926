//! Initializations: first values of parameters.
//!
//! Numbers come from ChaCha8 with the run's seed as key and a hash of the parameter's name as stream, so the
//! value of a parameter depends on these two alone and not on what else a model declares.

use std::str::FromStr;

use num_complex::Complex64;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use retrograd_engine::{DType, Tensor};

use crate::error::{Error, Result};

/// How a parameter begins. Matrices are `[in, out]`; a complex entry draws its two parts independently.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All 0.
    Zeros,
    /// All the same real number.
    Constant(f64),
    /// The identity matrix.
    Identity,
    /// Uniform on `(-a, a)`.
    Uniform(f64),
    /// Normal, mean 0, with this standard deviation.
    Normal(f64),
    /// Uniform on `±sqrt(6 / (in + out))` (Glorot, Bengio 2010).
    Glorot,
    /// Uniform on `±1/sqrt(in)`.
    FanIn,
    /// A random matrix with orthonormal rows or columns, uniform under the Haar measure: orthogonal if real,
    /// unitary if complex.
    Orthogonal,
}

impl Init {
    /// How an initialization is written.
    pub const SYNTAX: &str =
        "zeros, constant:C, identity, uniform:A, normal:S, glorot, fan_in, orthogonal or unitary";

    /// A first value. Errors: an identity that is not square; orthonormal columns for something that is not a
    /// matrix.
    pub fn tensor(self, dims: &[usize], dtype: DType, rng: &mut ChaCha8Rng) -> Result<Tensor> {
        let mut t = Tensor::zeros(dtype, dims)?;
        let (fan_in, fan_out) = (dims.first().copied().unwrap_or(1), dims.last().copied().unwrap_or(1));
        let complex = dtype.is_complex();
        let entry = |rng: &mut ChaCha8Rng, f: fn(&mut ChaCha8Rng) -> f64, scale: f64| {
            let re = scale * f(rng);
            Complex64::new(re, if complex { scale * f(rng) } else { 0.0 })
        };
        match self {
            Init::Zeros => {}
            Init::Constant(c) => t.fill_with(|_| Complex64::new(c, 0.0)),
            Init::Identity => {
                square(dims)?;
                let one_at = |i: usize| if i / fan_out == i % fan_out { 1.0 } else { 0.0 };
                t.fill_with(|i| Complex64::new(one_at(i), 0.0));
            }
            Init::Uniform(a) => t.fill_with(|_| entry(rng, symmetric, a)),
            Init::Normal(s) => t.fill_with(|_| entry(rng, normal, s)),
            Init::Glorot => {
                let a = (6.0 / (fan_in + fan_out) as f64).sqrt();
                t.fill_with(|_| entry(rng, symmetric, a));
            }
            Init::FanIn => {
                let a = 1.0 / (fan_in as f64).sqrt();
                t.fill_with(|_| entry(rng, symmetric, a));
            }
            Init::Orthogonal => {
                let [rows, columns] = matrix(dims)?;
                let n = rows.max(columns);
                let q = if complex { haar::<Complex64>(n, rng) } else { haar::<f64>(n, rng) };
                t.fill_with(|i| q[i / columns * n + i % columns]);
            }
        }
        Ok(t)
    }
}

fn matrix(dims: &[usize]) -> Result<[usize; 2]> {
    <[usize; 2]>::try_from(dims)
        .map_err(|_| Error::model(format!("an orthogonal initialization needs a matrix, got {dims:?}")))
}

fn square(dims: &[usize]) -> Result<()> {
    match dims {
        [a, b] if a == b => Ok(()),
        _ => Err(Error::model(format!("an identity initialization needs a square matrix, got {dims:?}"))),
    }
}

impl std::fmt::Display for Init {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Init::Zeros => f.write_str("zeros"),
            Init::Constant(c) => write!(f, "constant:{c}"),
            Init::Identity => f.write_str("identity"),
            Init::Uniform(a) => write!(f, "uniform:{a}"),
            Init::Normal(s) => write!(f, "normal:{s}"),
            Init::Glorot => f.write_str("glorot"),
            Init::FanIn => f.write_str("fan_in"),
            Init::Orthogonal => f.write_str("orthogonal"),
        }
    }
}

impl FromStr for Init {
    type Err = Error;

    fn from_str(text: &str) -> Result<Init> {
        let bad = || Error::Value {
            owner: "init".into(),
            key: "init".into(),
            value: text.into(),
            expected: Init::SYNTAX.into(),
        };
        let (word, number) = match text.split_once(':') {
            Some((word, n)) => (word, Some(n.parse::<f64>().ok().filter(|x| x.is_finite()).ok_or_else(bad)?)),
            None => (text, None),
        };
        match (word, number) {
            ("zeros", None) => Ok(Init::Zeros),
            ("constant", Some(c)) => Ok(Init::Constant(c)),
            ("identity", None) => Ok(Init::Identity),
            ("uniform", Some(a)) => Ok(Init::Uniform(a)),
            ("normal", Some(s)) => Ok(Init::Normal(s)),
            ("glorot", None) => Ok(Init::Glorot),
            ("fan_in", None) => Ok(Init::FanIn),
            ("orthogonal" | "unitary", None) => Ok(Init::Orthogonal),
            _ => Err(bad()),
        }
    }
}

/// The generator of a parameter: key from the seed, stream from the name (64-bit FNV-1a).
pub fn rng_for(seed: u64, name: &str) -> ChaCha8Rng {
    let hash = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(name.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, hash));
    rng
}

/// Uniform on `[0, 1)` with 53 random bits.
pub fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// Uniform on `[-1, 1)`.
fn symmetric(rng: &mut ChaCha8Rng) -> f64 {
    2.0 * uniform(rng) - 1.0
}

/// Standard normal (Box and Muller 1958; one of the pair).
pub fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let radius = (-2.0 * (1.0 - uniform(rng)).ln()).sqrt();
    radius * (std::f64::consts::TAU * uniform(rng)).cos()
}

/// First values of a forget gate's bias for dependencies of up to `steps` steps, `log U(1, steps − 1)` (Tallec, Ollivier,
/// 2018, "Can recurrent neural networks warp time?", ICLR). Errors: fewer than 3 steps.
pub(crate) fn chrono(cell: &str, steps: usize, n: usize, rng: &mut ChaCha8Rng) -> Result<Vec<f64>> {
    if steps < 3 {
        return Err(Error::model(format!("{cell}: chrono over {steps} steps, at least 3")));
    }
    Ok((0..n).map(|_| (1.0 + (steps as f64 - 2.0) * uniform(rng)).ln()).collect())
}

/// A number of the field a random matrix is over.
trait Field: Copy {
    fn random(rng: &mut ChaCha8Rng) -> Self;
    fn of(z: Complex64) -> Self;
    fn to(self) -> Complex64;
    /// `self + a·b`.
    fn fma(self, a: Self, b: Self) -> Self;
    fn conj(self) -> Self;
}

impl Field for f64 {
    fn random(rng: &mut ChaCha8Rng) -> f64 {
        normal(rng)
    }
    fn of(z: Complex64) -> f64 {
        z.re
    }
    fn to(self) -> Complex64 {
        Complex64::new(self, 0.0)
    }
    fn fma(self, a: f64, b: f64) -> f64 {
        self + a * b
    }
    fn conj(self) -> f64 {
        self
    }
}

impl Field for Complex64 {
    fn random(rng: &mut ChaCha8Rng) -> Complex64 {
        Complex64::new(normal(rng), normal(rng))
    }
    fn of(z: Complex64) -> Complex64 {
        z
    }
    fn to(self) -> Complex64 {
        self
    }
    fn fma(self, a: Complex64, b: Complex64) -> Complex64 {
        self + a * b
    }
    fn conj(self) -> Complex64 {
        Complex64::conj(&self)
    }
}

/// A Haar-distributed orthogonal or unitary `n × n` matrix, row-major: the `Q` of the QR factorization of a
/// Gaussian matrix with its signs (phases) fixed, built directly from Householder reflections of Gaussian vectors
/// (Stewart 1980, "The efficient generation of random orthogonal matrices").
fn haar<F: Field>(n: usize, rng: &mut ChaCha8Rng) -> Vec<Complex64> {
    let zero = F::of(Complex64::ZERO);
    let mut q = vec![zero; n * n];
    for k in (0..n).rev() {
        // The reflection H = I − v vᴴ·scale takes x to −phase(x₀)·‖x‖·e₀; the block below and right of k is
        // [1 0; 0 Q'] so far, and becomes H·diag(−phase, Q').
        let mut v: Vec<F> = (k..n).map(|_| F::random(rng)).collect();
        let x0 = v[0].to();
        let norm = v.iter().map(|x| x.to().norm_sqr()).sum::<f64>().sqrt();
        let phase = if x0.norm() > 0.0 { x0 / x0.norm() } else { Complex64::ONE };
        q[k * n + k] = F::of(-phase);
        if norm == 0.0 {
            continue;
        }
        v[0] = F::of(x0 + phase * norm);
        let scale = 2.0 / v.iter().map(|x| x.to().norm_sqr()).sum::<f64>();
        let mut dot = vec![zero; n - k];
        for (i, vi) in v.iter().enumerate() {
            let row = &q[(k + i) * n + k..(k + i + 1) * n];
            dot.iter_mut().zip(row).for_each(|(d, x)| *d = d.fma(vi.conj(), *x));
        }
        for (i, vi) in v.iter().enumerate() {
            let factor = F::of(-vi.to() * scale);
            let row = &mut q[(k + i) * n + k..(k + i + 1) * n];
            row.iter_mut().zip(&dot).for_each(|(x, d)| *x = x.fma(factor, *d));
        }
    }
    q.into_iter().map(F::to).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Largest entry of `QᴴQ − I`.
    fn defect(q: &Tensor) -> f64 {
        let [rows, columns] = matrix(q.dims()).unwrap();
        let at = |r: usize, c: usize| q.get(r * columns + c);
        let (outer, inner, tall) = (rows.min(columns), rows.max(columns), rows >= columns);
        let pick = |k: usize, i: usize| if tall { at(k, i) } else { at(i, k) };
        (0..outer)
            .flat_map(|i| (0..outer).map(move |j| (i, j)))
            .map(|(i, j)| {
                let dot: Complex64 = (0..inner).map(|k| pick(k, i).conj() * pick(k, j)).sum();
                (dot - if i == j { 1.0 } else { 0.0 }).norm()
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn orthonormal() {
        for dtype in [DType::F64, DType::C64] {
            for dims in [[1, 1], [2, 2], [7, 7], [5, 3], [3, 5], [40, 40]] {
                let q = Init::Orthogonal.tensor(&dims, dtype, &mut rng_for(3, "q")).unwrap();
                assert!(defect(&q) < 1e-14, "{dtype} {dims:?}: {}", defect(&q));
            }
        }
    }

    /// Under the Haar measure every entry has mean 0 and E|q|² = 1/n; real ones take both determinants.
    #[test]
    fn haar_moments() {
        let mut rng = rng_for(1, "moments");
        let (samples, n) = (4000, 3);
        let mut mean = [Complex64::ZERO; 9];
        let mut power = [0.0; 9];
        let mut positive = 0;
        for _ in 0..samples {
            let q = haar::<Complex64>(n, &mut rng);
            for i in 0..9 {
                mean[i] += q[i] / samples as f64;
                power[i] += q[i].norm_sqr() / samples as f64;
            }
            let r: Vec<f64> = haar::<f64>(2, &mut rng).iter().map(|z| z.re).collect();
            positive += usize::from(r[0] * r[3] - r[1] * r[2] > 0.0);
        }
        // Standard errors: 0.009 of the mean's parts, 0.004 of the power, 32 of the count.
        assert!(mean.iter().all(|m| m.norm() < 0.05), "{mean:?}");
        assert!(power.iter().all(|p| (p - 1.0 / 3.0).abs() < 0.02), "{power:?}");
        assert!((1840..2160).contains(&positive), "{positive}");
    }

    #[test]
    fn ranges_and_moments() {
        let dims = [60, 40];
        let draw = |init: Init, dtype| init.tensor(&dims, dtype, &mut rng_for(0, "w")).unwrap();
        let a = (6.0f64 / 100.0).sqrt();
        for dtype in [DType::F64, DType::C64] {
            let t = draw(Init::Glorot, dtype);
            let largest = (0..t.len()).map(|i| t.get(i).re.abs().max(t.get(i).im.abs())).fold(0.0, f64::max);
            assert!(largest <= a && largest > 0.99 * a, "{largest} of {a}");
        }
        let t = draw(Init::Normal(0.1), DType::F64);
        let var = (0..t.len()).map(|i| t.get(i).re.powi(2)).sum::<f64>() / t.len() as f64;
        assert!((var - 0.01).abs() < 0.001, "{var}");
        let eye = Init::Identity.tensor(&[3, 3], DType::F32, &mut rng_for(0, "i")).unwrap();
        assert_eq!(eye.as_slice::<f32>().unwrap(), [1., 0., 0., 0., 1., 0., 0., 0., 1.]);
        assert!(Init::Identity.tensor(&[3, 2], DType::F32, &mut rng_for(0, "i")).is_err());
    }

    #[test]
    fn names_separate_and_seeds_repeat() {
        let draw =
            |seed, name: &str| Init::Glorot.tensor(&[4, 4], DType::F64, &mut rng_for(seed, name)).unwrap();
        assert!(draw(1, "U").bit_eq(&draw(1, "U")));
        assert!(!draw(1, "U").bit_eq(&draw(1, "W")));
        assert!(!draw(1, "U").bit_eq(&draw(2, "U")));
    }

    #[test]
    fn text_round_trips() {
        for init in
            [Init::Zeros, Init::Constant(0.5), Init::Uniform(0.01), Init::Normal(2.0), Init::Orthogonal]
        {
            assert_eq!(init.to_string().parse(), Ok(init));
        }
        for bad in ["", "uniform", "zeros:1", "normal:x", "uniform:inf"] {
            assert!(bad.parse::<Init>().is_err(), "{bad}");
        }
    }
}
