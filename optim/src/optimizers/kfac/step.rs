//! How far to go along `F̂^{−1} ∇`: to the least point of an exact quadratic model, or by a learning rate.

use retrograd_engine::Params;

use super::{Kfac, velocity};
use crate::error::Result;
use crate::kfac::block::apply_all;
use crate::kfac::vector::{add_scaled, dot, scaled};
use crate::kfac::{Curvature, Plane};

/// How long a step is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StepRule {
    /// The least point of the quadratic model.
    #[default]
    Quadratic,
    /// The learning rate.
    Fixed,
}

/// Where momentum goes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MomentumForm {
    /// On the gradient, before the inverse.
    #[default]
    Adam,
    /// On the step.
    Regular,
}

/// What a step is made for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Occasion {
    /// Number of the update.
    pub(super) at: u64,
    /// Factor of the schedule.
    pub(super) lr_scale: f64,
    /// Damping.
    pub(super) lambda: f64,
    /// Whether blocks have just been inverted.
    pub(super) inverted: bool,
    /// Whether damping is adapted after it.
    pub(super) judged: bool,
}

impl Kfac {
    /// `F̂^{−1} z`.
    fn preconditioned(&self, tensors: &Params, z: &Params, threads: usize) -> Result<Params> {
        let mut out = scaled(z, 0.0)?;
        apply_all(&self.blocks, self.approximation, tensors, z, &mut out, threads)?;
        Ok(out)
    }

    /// The step of the blocked parameters, and what the model without damping says of it where it is judged.
    pub(super) fn next_step(
        &self,
        occasion: Occasion,
        grads: &Params,
        tensors: &mut Params,
        curvature: &mut dyn Curvature,
    ) -> Result<(Params, Option<f64>)> {
        let kept = |(name, _): (&str, _)| Some((name.to_string(), tensors.get(&velocity(name))?.clone()));
        let before: Params = grads.iter().filter_map(kept).collect();
        let (step, kept, predicted) = match self.step {
            StepRule::Quadratic => {
                let Some((step, predicted)) =
                    self.least_point(occasion, grads, &before, tensors, curvature)?
                else {
                    // A gradient of 0, or no curvature along it at all: there is nothing to do.
                    return Ok((scaled(grads, 0.0)?, None));
                };
                (step.clone(), step, Some(predicted))
            }
            StepRule::Fixed => {
                let (step, v) =
                    self.fixed(occasion.lr_scale, grads, &before, tensors, curvature.threads())?;
                let predicted = match occasion.judged {
                    true => Some(dot(grads, &step)? + 0.5 * curvature.products(occasion.at, &[&step])?[0]),
                    false => None,
                };
                (step, v, predicted)
            }
        };
        for (name, tensor) in kept.iter() {
            tensors.insert(velocity(name), tensor.clone());
        }
        Ok((step, predicted))
    }

    /// `κ (α Δ + μ v)` for the least point `(α, μ)` of the damped model, and what the model without damping says of it.
    fn least_point(
        &self,
        occasion: Occasion,
        grads: &Params,
        before: &Params,
        tensors: &mut Params,
        curvature: &mut dyn Curvature,
    ) -> Result<Option<(Params, f64)>> {
        let Occasion { at, lr_scale, lambda, .. } = occasion;
        let mut delta = self.preconditioned(tensors, grads, curvature.threads())?;
        if occasion.inverted && self.block_scales {
            self.measure_scales(at, grads, &delta, lambda, tensors, curvature)?;
        }
        self.scale_groups(tensors, &mut delta)?;
        let resting = dot(before, before)? == 0.0;
        let directions: &[&Params] = if resting { &[&delta] } else { &[&delta, before] };
        let f = curvature.products(at, directions)?;
        let n = directions.len();
        let fisher = |i: usize, j: usize| if i < n && j < n { f[i * n + j] } else { 0.0 };
        let plane = Plane {
            curvature: [
                fisher(0, 0) + lambda * dot(&delta, &delta)?,
                fisher(0, 1) + lambda * dot(&delta, before)?,
                fisher(1, 1) + lambda * dot(before, before)?,
            ],
            slope: [dot(grads, &delta)?, dot(grads, before)?],
        };
        let Some(found) = plane.solve(None) else { return Ok(None) };
        let trust = self.trusted(plane.slope[1], fisher(1, 1), tensors)? * lr_scale;
        let (alpha, mu) = (found.alpha * trust, found.mu * trust);
        let mut step = scaled(&delta, alpha)?;
        add_scaled(&mut step, before, mu)?;
        let quadratic =
            alpha * alpha * fisher(0, 0) + 2.0 * alpha * mu * fisher(0, 1) + mu * mu * fisher(1, 1);
        let predicted = alpha * plane.slope[0] + mu * plane.slope[1] + 0.5 * quadratic;
        Ok(Some((step, predicted)))
    }

    /// The step by the learning rate, and the velocity.
    fn fixed(
        &self,
        lr_scale: f64,
        grads: &Params,
        before: &Params,
        tensors: &Params,
        threads: usize,
    ) -> Result<(Params, Params)> {
        let lr = self.lr * lr_scale;
        let mut v = scaled(before, self.momentum)?;
        let limit = |d: &Params, g: &Params| -> Result<f64> {
            let square = lr * lr * dot(d, g)?;
            let fits = self.constraint == 0.0 || square.is_nan() || square <= self.constraint;
            Ok(if fits { 1.0 } else { (self.constraint / square).sqrt() })
        };
        let step = match self.momentum_form {
            MomentumForm::Adam => {
                add_scaled(&mut v, grads, 1.0)?;
                let d = self.preconditioned(tensors, &v, threads)?;
                let factor = limit(&d, &v)?;
                scaled(&d, -lr * factor)?
            }
            MomentumForm::Regular => {
                let d = self.preconditioned(tensors, grads, threads)?;
                let factor = limit(&d, grads)?;
                add_scaled(&mut v, &d, factor)?;
                scaled(&v, -lr)?
            }
        };
        Ok((step, v))
    }
}
