//! Five-point central differences with a step that adapts.

use num_complex::Complex64;

use super::Options;
use super::random::Random;
use super::report::Part;
use crate::error::Result;
use crate::tensor::Tensor;

/// Halvings of the first step: down to `2⁻¹⁸` of the value.
const HALVINGS: usize = 12;

/// Disagreement, in units of the one that ends the search, above which a growing one is not yet rounding error: the
/// steps still reach across points where the derivative jumps.
const FAR: f64 = 1e3;

/// What is moved: one real component of a value, or all of them along a direction.
pub(super) enum Probe {
    Component { at: usize, imaginary: bool },
    Direction(Vec<Complex64>),
}

impl Probe {
    /// Every real component; of a value with more than allowed a random subset, and random directions.
    pub(super) fn choose(value: &Tensor, options: &Options, random: &mut Random) -> Vec<Probe> {
        let planes = value.dtype().planes();
        let components = value.len() * planes;
        let component = |c: usize| Probe::Component { at: c / planes, imaginary: c % planes == 1 };
        if components <= options.max_components {
            return (0..components).map(component).collect();
        }
        let mut probes: Vec<Probe> =
            random.subset(options.max_components, components).into_iter().map(component).collect();
        for _ in 0..options.directions {
            // About the length of one, so that one first step suits both kinds of probe.
            let scale = (3.0 / components as f64).sqrt();
            let mut direction = Vec::new();
            for _ in 0..value.len() {
                let z = random.complex() * scale;
                direction.push(if planes == 2 { z } else { z.re.into() });
            }
            probes.push(Probe::Direction(direction));
        }
        probes
    }

    /// The directional derivative, from the gradient.
    pub(super) fn derivative_from(&self, gradient: &Tensor) -> f64 {
        match self {
            Probe::Component { at, imaginary: false } => gradient.get(*at).re,
            Probe::Component { at, imaginary: true } => gradient.get(*at).im,
            Probe::Direction(d) => d.iter().enumerate().map(|(i, d)| (d.conj() * gradient.get(i)).re).sum(),
        }
    }

    /// Size of what is moved, at least 1.
    pub(super) fn scale(&self, value: &Tensor) -> f64 {
        match self {
            Probe::Component { at, imaginary: false } => value.get(*at).re.abs().max(1.0),
            Probe::Component { at, imaginary: true } => value.get(*at).im.abs().max(1.0),
            Probe::Direction(_) => 1.0,
        }
    }

    /// The value moved by `h`.
    pub(super) fn moved(&self, value: &Tensor, h: f64) -> Tensor {
        let mut moved = value.clone();
        moved.fill_with(|i| {
            let by = match self {
                Probe::Component { at, .. } if *at != i => Complex64::ZERO,
                Probe::Component { imaginary: false, .. } => Complex64::new(h, 0.0),
                Probe::Component { imaginary: true, .. } => Complex64::new(0.0, h),
                Probe::Direction(d) => d[i] * h,
            };
            value.get(i) + by
        });
        moved
    }

    /// Index along each axis (empty for a direction), and which part.
    pub(super) fn describe(&self, dims: &[usize], complex: bool) -> (Vec<usize>, Part) {
        match self {
            Probe::Direction(_) => (Vec::new(), Part::Direction),
            Probe::Component { at, imaginary } => {
                let mut rest = *at;
                let mut index = vec![0; dims.len()];
                for (i, &d) in index.iter_mut().zip(dims).rev() {
                    *i = rest % d;
                    rest /= d;
                }
                let part = match (complex, imaginary) {
                    (false, _) => Part::Real,
                    (true, false) => Part::Re,
                    (true, true) => Part::Im,
                };
                (index, part)
            }
        }
    }
}

/// Derivative at 0 of the sum of the terms `f(h)`, and the disagreement of the two steps it was settled by.
///
/// Terms are differenced one by one, so that those that do not change add no rounding error. The search ends when
/// the disagreement is below `stop` of the derivative (of `floor` for a smaller one), or grows by rounding.
pub(super) fn central(
    scale: f64,
    stop: f64,
    floor: f64,
    f: &mut dyn FnMut(f64) -> Result<Vec<f64>>,
) -> Result<(f64, f64)> {
    // A power of two: adding it to a number near 1 rounds nothing away.
    let mut h = scale.log2().floor().exp2() / 64.0;
    let mut pair = |h: f64| -> Result<Vec<f64>> {
        let (plus, minus) = (f(h)?, f(-h)?);
        Ok(plus.iter().zip(&minus).map(|(p, m)| p - m).collect())
    };
    let mut outer = pair(2.0 * h)?;
    let mut last = f64::NAN;
    let mut best = (f64::NAN, f64::INFINITY);
    let mut worse = 0;
    for _ in 0..HALVINGS {
        let inner = pair(h)?;
        let value = inner.iter().zip(&outer).map(|(i, o)| 8.0 * i - o).sum::<f64>() / (12.0 * h);
        let disagreement = (value - last).abs();
        if disagreement < best.1 {
            best = (value, disagreement);
            worse = 0;
        } else if best.1.is_finite() {
            worse += 1;
        }
        let size = stop * value.abs().max(floor);
        if best.1 <= size || (worse == 3 && best.1 <= FAR * size) {
            break;
        }
        last = value;
        outer = inner;
        h /= 2.0;
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_adapt() -> Result<()> {
        // (function, derivative at 0): smooth, stiff, undefined beyond 0.01, steep, constant, with kinks nearby.
        let rows: [(fn(f64) -> f64, f64); 6] = [
            (f64::exp, 1.0),
            (|h| (200.0 * h + 0.3).sin(), 200.0 * 0.3f64.cos()),
            (|h| (0.01 + h).ln(), 100.0),
            (|h| 1e6 * (h + 1.0).powi(3), 3e6),
            (|_| 5.0, 0.0),
            (
                |h| h.exp() + (h - 0.012).max(0.0) - 3.0 * (h - 0.007).max(0.0) + 2.0 * (0.0004 - h).min(0.0),
                1.0,
            ),
        ];
        for (i, (f, expected)) in rows.into_iter().enumerate() {
            let (value, uncertainty) = central(1.0, 5e-11, 0.01 * f(0.0).abs(), &mut |h| Ok(vec![f(h)]))?;
            let error = (value - expected).abs() / expected.abs().max(0.01 * f(0.0).abs());
            assert!(error < 3e-10, "row {i}: {value} for {expected}, error {error:e}");
            assert!(uncertainty < 1e-9 * expected.abs().max(1.0), "row {i}: {uncertainty}");
        }
        Ok(())
    }
}
