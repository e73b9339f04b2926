//! What happens to gradients before the optimiser sees them: clipping, and a policy for NaN and infinity.

use retrograd_engine::{Params, Tensor};

use crate::elementwise::{Real, check_like, with_real};
use crate::error::{Error, Result};
use crate::select::Select;
use crate::settings::{OptionSpec, Range, Settings};

/// How gradients are clipped.
#[derive(Clone, Debug, Default)]
pub enum Clip {
    /// Not at all (KRU, RC and FC uRNN, EURNN, GORU).
    #[default]
    None,
    /// Every real component to `[-limit, limit]`, except in the parameters of `except`: the baselines of the RC
    /// uRNN code and LR/LRD-GRU on the adding task with limit 1; on MNIST the LRD code leaves out the first seven
    /// parameters of its list.
    Value {
        /// Largest absolute value of a component.
        limit: f64,
        /// Parameters left alone.
        except: Select,
    },
    /// All gradients together to the Euclidean norm `limit`.
    Norm {
        /// Largest norm.
        limit: f64,
        /// Which formula.
        form: NormForm,
    },
}

/// The formula of clipping by the global norm n to the limit c.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NormForm {
    /// g · c / max(n, c): the LRD memory tasks (c = 1), the LRD-GRU language model, the first TensorFlow (JANET).
    #[default]
    Divide,
    /// g · min(c / (n + 1e-6), 1): PyTorch's `clip_grad_norm_` (NRU, c = 1).
    PyTorch,
}

/// What to do when a gradient holds NaN or infinity.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum NonFinite {
    /// An error that names the parameter and the element.
    #[default]
    Stop,
    /// No update; the caller counts it ([`State::count_skipped`](crate::State::count_skipped)).
    Skip,
    /// Every gradient becomes this multiple of its parameter and goes through the optimiser: an update that
    /// shrinks the parameters. See [`NonFinite::LRD_MEMORY`] and [`NonFinite::LRD_LANGUAGE`].
    Shrink(f64),
}

impl NonFinite {
    /// LR/LRD-GRU code, memory tasks: g := 0.1 θ.
    pub const LRD_MEMORY: NonFinite = NonFinite::Shrink(0.1);
    /// LRD-GRU language-model code, "L2 regularization update": g := 0.01 θ.
    pub const LRD_LANGUAGE: NonFinite = NonFinite::Shrink(0.01);
}

/// Clipping and the policy for gradients that are not finite.
///
/// ```
/// use retrograd_engine::{Params, Tensor};
/// use retrograd_optim::{GradientRules, Settings, Verdict};
///
/// let mut params = Params::new();
/// params.insert("w", Tensor::from_slice([2], &[1.0f64, 1.0])?);
/// let mut grads = Params::new();
/// grads.insert("w", Tensor::from_slice([2], &[3.0f64, 4.0])?);
/// let rules = GradientRules::from_settings(&Settings::parse(["clip=norm", "clip_limit=1"])?)?;
/// let processed = rules.process(&params, &mut grads)?;
/// assert_eq!((processed.norm, processed.verdict), (5.0, Verdict::Clipped));
/// # Ok::<(), retrograd_optim::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct GradientRules {
    /// Clipping.
    pub clip: Clip,
    /// Policy.
    pub non_finite: NonFinite,
}

/// What [`GradientRules::process`] found and did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Processed {
    /// Euclidean norm of all gradients before clipping; NaN if they are not finite.
    pub norm: f64,
    /// What was done.
    pub verdict: Verdict,
}

/// What was done to the gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Kept,
    /// At least one was made smaller.
    Clipped,
    /// They were replaced by multiples of the parameters ([`NonFinite::Shrink`]); no clipping.
    Replaced,
    /// They are not finite and no update must be made ([`NonFinite::Skip`]).
    Skip,
}

const OWNER: &str = "gradients";

/// Settings of [`GradientRules::from_settings`].
pub const GRADIENT_OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        "clip",
        "none",
        "none, value, norm (g c/max(n,c)) or norm-pytorch (c/(n+1e-6)); not of what K-FAC takes whole",
    ),
    OptionSpec::new("clip_limit", "1", "largest component or norm"),
    OptionSpec::new("clip_except", "", "patterns of parameters that clipping by value leaves alone"),
    OptionSpec::new("non_finite", "stop", "stop, skip, shrink (g := 0.1 p) or l2-shrink (g := 0.01 p)"),
    OptionSpec::new("shrink", "(by policy)", "the multiple of the parameter"),
];

impl GradientRules {
    /// From the settings of [`GRADIENT_OPTIONS`]. Errors: unknown keys, values that do not fit.
    pub fn from_settings(settings: &Settings) -> Result<GradientRules> {
        let read = settings.reader(OWNER, GRADIENT_OPTIONS)?;
        let limit = read.real("clip_limit")?;
        let kind = read.choice("clip", &[("none", 0), ("value", 1), ("norm", 2), ("norm-pytorch", 3)])?;
        let clip = match kind {
            0 => Clip::None,
            1 => Clip::Value { limit, except: Select::patterns(read.text("clip_except")?) },
            2 => Clip::Norm { limit, form: NormForm::Divide },
            _ => Clip::Norm { limit, form: NormForm::PyTorch },
        };
        let policies = [
            ("stop", NonFinite::Stop),
            ("skip", NonFinite::Skip),
            ("shrink", NonFinite::LRD_MEMORY),
            ("l2-shrink", NonFinite::LRD_LANGUAGE),
        ];
        let mut non_finite = read.choice("non_finite", &policies)?;
        if let NonFinite::Shrink(c) = &mut non_finite {
            *c = read.real_or("shrink", *c)?;
        }
        let rules = GradientRules { clip, non_finite };
        rules.validate()?;
        Ok(rules)
    }

    /// Errors: a limit or a multiple out of its range.
    pub fn validate(&self) -> Result<()> {
        if let Clip::Value { limit, .. } | Clip::Norm { limit, .. } = self.clip {
            Range::Positive.check(OWNER, "clip_limit", limit)?;
        }
        if let NonFinite::Shrink(c) = self.non_finite {
            Range::NonNegative.check(OWNER, "shrink", c)?;
        }
        Ok(())
    }

    /// Measures the gradients and changes them by the rules; the check for NaN and infinity comes first. Errors:
    /// not finite under [`NonFinite::Stop`]; under [`NonFinite::Shrink`] a gradient without its parameter or of
    /// another type or sizes. After an error the gradients are as they were.
    pub fn process(&self, params: &Params, grads: &mut Params) -> Result<Processed> {
        self.validate()?;
        let norm = global_norm(grads)?;
        if !norm.is_finite()
            && let Some((name, index, value)) = first_not_finite(grads)?
        {
            let verdict = match self.non_finite {
                NonFinite::Stop => return Err(Error::NotFinite { name, index, value }),
                NonFinite::Skip => Verdict::Skip,
                NonFinite::Shrink(c) => {
                    replace(params, grads, c)?;
                    Verdict::Replaced
                }
            };
            return Ok(Processed { norm: f64::NAN, verdict });
        }
        let mut clipped = false;
        match &self.clip {
            Clip::None => {}
            Clip::Value { limit, except } => {
                for (name, grad) in grads.iter_mut().filter(|(name, _)| !except.contains(name)) {
                    with_real!(grad, name, R => {
                        clipped |= clamp(grad.components_mut::<R>()?, R::of(*limit));
                        Ok::<_, Error>(())
                    })?;
                }
            }
            Clip::Norm { limit, form } => {
                let factor = match form {
                    NormForm::Divide => limit / norm.max(*limit),
                    NormForm::PyTorch => (limit / (norm + 1e-6)).min(1.0),
                };
                clipped = factor < 1.0;
                if clipped {
                    scale(grads, factor)?;
                }
            }
        }
        Ok(Processed { norm, verdict: if clipped { Verdict::Clipped } else { Verdict::Kept } })
    }
}

/// Euclidean norm of all components of all tensors together, summed in `f64` in a fixed order. NaN or infinite
/// only if a component is. Errors: a type without gradients.
pub fn global_norm(tensors: &Params) -> Result<f64> {
    let norm = sum_of_squares(tensors, 1.0)?.sqrt();
    if norm.is_finite() && norm > 1e-150 {
        return Ok(norm);
    }
    // The squares may have left the range of f64 although the components are in it.
    let mut largest = 0.0f64;
    for (name, tensor) in tensors.iter() {
        with_real!(tensor, name, R => {
            for x in tensor.components::<R>()? {
                let x = x.wide().abs();
                // Not `max`, which drops NaN.
                largest = if x > largest || x.is_nan() { x } else { largest };
            }
            Ok::<_, Error>(())
        })?;
        if !largest.is_finite() {
            return Ok(largest);
        }
    }
    if largest == 0.0 {
        return Ok(0.0);
    }
    // The nearest power of two scales exactly; 2^±1022 keeps both it and its inverse finite.
    let unit = 2f64.powf(largest.log2().floor().clamp(-1022.0, 1022.0));
    Ok(sum_of_squares(tensors, 1.0 / unit)?.sqrt() * unit)
}

fn sum_of_squares(tensors: &Params, scale: f64) -> Result<f64> {
    let mut total = 0.0;
    for (name, tensor) in tensors.iter() {
        total += with_real!(tensor, name, R => {
            // Eight sums side by side vectorize, and their order does not depend on the machine.
            let mut sums = [0.0f64; 8];
            let (blocks, rest) = tensor.components::<R>()?.as_chunks::<8>();
            for block in blocks {
                for (sum, &x) in sums.iter_mut().zip(block) {
                    let x = x.wide() * scale;
                    *sum += x * x;
                }
            }
            let rest: f64 = rest.iter().map(|&x| (x.wide() * scale).powi(2)).sum();
            Ok::<_, Error>(sums.iter().sum::<f64>() + rest)
        })?;
    }
    Ok(total)
}

fn first_not_finite(grads: &Params) -> Result<Option<(String, usize, String)>> {
    for (name, grad) in grads.iter() {
        let planes = grad.dtype().planes();
        let found = with_real!(grad, name, R => {
            Ok::<_, Error>(grad.components::<R>()?.iter().position(|x| !x.wide().is_finite()))
        })?;
        if let Some(at) = found {
            let (index, z) = (at / planes, grad.get(at / planes));
            let value = if planes == 2 { z.to_string() } else { z.re.to_string() };
            return Ok(Some((name.into(), index, value)));
        }
    }
    Ok(None)
}

fn clamp<R: Real>(components: &mut [R], limit: R) -> bool {
    let mut clipped = false;
    for x in components {
        let y = x.max(-limit).min(limit);
        clipped |= y != *x;
        *x = y;
    }
    clipped
}

fn scale(grads: &mut Params, factor: f64) -> Result<()> {
    for (name, grad) in grads.iter_mut() {
        with_real!(grad, name, R => {
            let factor = R::of(factor);
            grad.components_mut::<R>()?.iter_mut().for_each(|x| *x *= factor);
            Ok::<_, Error>(())
        })?;
    }
    Ok(())
}

fn replace(params: &Params, grads: &mut Params, factor: f64) -> Result<()> {
    let mut shrinking = Params::new();
    for (name, grad) in grads.iter() {
        let param: &Tensor =
            params.get(name).ok_or_else(|| Error::Unexpected { what: format!("gradient of `{name}`") })?;
        check_like(|| format!("gradient of `{name}`"), param, grad)?;
        shrinking.insert(name, param.clone());
    }
    scale(&mut shrinking, factor)?;
    *grads = shrinking;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use num_complex::Complex32;
    use retrograd_engine::DType;

    fn params(values: &[(&str, &[f64])]) -> Params {
        values.iter().map(|(n, v)| (n.to_string(), Tensor::from_slice([v.len()], v).unwrap())).collect()
    }

    fn rules(texts: &[&str]) -> GradientRules {
        GradientRules::from_settings(&Settings::parse(texts).unwrap()).unwrap()
    }

    #[test]
    fn norms_beyond_the_range_of_squares() -> Result<()> {
        for (values, expected) in [
            (&[3e200, 4e200][..], 5e200),
            (&[3e-200, -4e-200], 5e-200),
            (&[3e-320, 4e-320], 5e-320),
            (&[0.0, -0.0], 0.0),
            (&[f64::NEG_INFINITY, 1.0], f64::INFINITY),
        ] {
            let norm = global_norm(&params(&[("a", values)]))?;
            assert!(norm == expected || (norm / expected - 1.0).abs() < 1e-3, "{values:?}: {norm}");
        }
        assert!(global_norm(&params(&[("a", &[1.0, f64::NAN, 1e300])]))?.is_nan());
        Ok(())
    }

    #[test]
    fn norm_counts_both_parts_of_complex_numbers_and_all_parameters() -> Result<()> {
        let mut grads = params(&[("a", &[1.0; 11])]);
        grads.insert("z", Tensor::from_slice([1], &[Complex32::new(3.0, 2.0)])?);
        assert_eq!(global_norm(&grads)?, (11.0f64 + 13.0).sqrt());
        Ok(())
    }

    #[test]
    fn clipping() -> Result<()> {
        let rows: [(&[&str], [f64; 2], [f64; 2], Verdict); 7] = [
            (&[], [30.0, 40.0], [30.0, 40.0], Verdict::Kept),
            (&["clip=norm", "clip_limit=5"], [30.0, 40.0], [3.0, 4.0], Verdict::Clipped),
            (&["clip=norm"], [0.3, 0.4], [0.3, 0.4], Verdict::Kept),
            (
                &["clip=norm-pytorch", "clip_limit=5"],
                [3.0, 4.0],
                [3.0 / 1.0000002, 4.0 / 1.0000002],
                Verdict::Clipped,
            ),
            (&["clip=value"], [-3.0, 0.5], [-1.0, 0.5], Verdict::Clipped),
            (&["clip=value", "clip_except=first, a*"], [-3.0, 4.0], [-3.0, 4.0], Verdict::Kept),
            (&["clip=value", "clip_limit=4"], [-3.0, 4.0], [-3.0, 4.0], Verdict::Kept),
        ];
        for (texts, before, after, verdict) in rows {
            let mut grads = params(&[("a", &before)]);
            let processed = rules(texts).process(&Params::new(), &mut grads)?;
            assert_eq!(processed.verdict, verdict, "{texts:?}");
            assert_eq!(processed.norm, before[0].hypot(before[1]));
            for (x, y) in grads.require("a")?.as_slice::<f64>()?.iter().zip(after) {
                assert!((x - y).abs() <= 1e-15 * y.abs(), "{texts:?}: {x} {y}");
            }
        }
        Ok(())
    }

    #[test]
    fn policies_for_gradients_that_are_not_finite() -> Result<()> {
        let theta = params(&[("a", &[1.0, 2.0]), ("b", &[-4.0])]);
        let bad = params(&[("a", &[1.0, 1.0]), ("b", &[f64::INFINITY])]);
        let mut grads = bad.clone();
        let stop = rules(&["clip=value"]).process(&theta, &mut grads);
        assert_eq!(stop, Err(Error::NotFinite { name: "b".into(), index: 0, value: "inf".into() }));
        assert_eq!(grads, bad);
        let skip = rules(&["non_finite=skip"]).process(&theta, &mut grads)?;
        assert_eq!(skip.verdict, Verdict::Skip);
        assert!(skip.norm.is_nan());
        for (texts, c) in [
            (&["non_finite=shrink"][..], 0.1),
            (&["non_finite=l2-shrink"], 0.01),
            (&["non_finite=shrink", "shrink=0.5"], 0.5),
        ] {
            let mut grads = bad.clone();
            assert_eq!(rules(texts).process(&theta, &mut grads)?.verdict, Verdict::Replaced);
            assert_eq!(grads, params(&[("a", &[1.0 * c, 2.0 * c]), ("b", &[-4.0 * c])]));
        }
        Ok(())
    }

    #[test]
    fn every_error() -> Result<()> {
        for (texts, part) in [
            (&["clip=vlaue"][..], "did you mean `value`"),
            (&["clip=value", "clip_limit=0"], "`clip_limit`, expected a finite number above 0"),
            (&["non_finite=shrink", "shrink=-1"], "`shrink`"),
            (&["clpi=none"], "did you mean `clip`"),
        ] {
            let message = GradientRules::from_settings(&Settings::parse(texts)?).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
        let mut grads = params(&[("a", &[f64::NAN])]);
        let shrink = rules(&["non_finite=shrink"]);
        assert!(matches!(shrink.process(&Params::new(), &mut grads), Err(Error::Unexpected { .. })));
        let other = params(&[("a", &[1.0, 2.0])]);
        assert!(matches!(shrink.process(&other, &mut grads), Err(Error::Mismatch { .. })));
        grads.insert("i", Tensor::zeros(DType::I32, [1])?);
        assert!(matches!(shrink.process(&other, &mut grads), Err(Error::Mismatch { .. })));
        let mut z = Params::new();
        z.insert("z", Tensor::from_slice([2], &[Complex32::new(1.0, 1.0), Complex32::new(1.0, f32::NAN)])?);
        let stop = rules(&[]).process(&Params::new(), &mut z);
        assert_eq!(stop, Err(Error::NotFinite { name: "z".into(), index: 1, value: "1+NaNi".into() }));
        Ok(())
    }
}
