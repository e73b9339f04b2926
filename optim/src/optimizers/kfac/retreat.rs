//! Steps taken back. The quadratic model knows nothing of a recurrence that begins to expand.

use retrograd_engine::{Params, Tensor};

use super::{Kfac, LAMBDA, LOSS, StepRule, velocity};
use crate::error::{Error, Result};
use crate::kfac::Curvature;
use crate::kfac::vector::{add_scaled, dot};

/// A step is taken back where the loss after it is so many times the loss before.
const MUCH_WORSE: f64 = 2.0;
/// Adaptations that a step taken back counts for.
const BACK: i32 = 4;

impl Kfac {
    /// Takes the last step back where the loss of this batch says that it made things much worse, with more damping from
    /// now on; whether it did.
    pub(super) fn much_worse(
        &self,
        step: u64,
        curvature: &dyn Curvature,
        tensors: &mut Params,
        moved: &mut Params,
    ) -> Result<bool> {
        let (before, now) = (Kfac::scalar(tensors, LOSS)?, curvature.loss_before());
        if before > 0.0 && now > MUCH_WORSE * before && self.undo(step, tensors, moved)? {
            return Ok(true);
        }
        if before > 0.0 && !now.is_finite() {
            return Err(Error::NotFinite { name: "loss".into(), index: 0, value: now.to_string() });
        }
        let mean = if before > 0.0 { 0.5 * (before + now) } else { now };
        tensors.insert(LOSS, Tensor::scalar(mean));
        Ok(false)
    }

    /// Undoes the last step and damps more, if there was one and damping is adapted.
    pub(super) fn undo(&self, step: u64, tensors: &mut Params, moved: &mut Params) -> Result<bool> {
        let steps = self.blocked(moved);
        let steps = steps.names().filter_map(|n| Some((n.to_string(), tensors.get(&velocity(n))?.clone())));
        let steps: Params = steps.collect();
        let possible =
            self.step == StepRule::Quadratic && step > self.schedule.burn_in && dot(&steps, &steps)? > 0.0;
        let Some(lm) = self.adaptation.filter(|_| possible) else { return Ok(false) };
        add_scaled(moved, &steps, -1.0)?;
        for (name, step) in steps.iter() {
            tensors.insert(velocity(name), Tensor::zeros(step.dtype(), step.dims())?);
        }
        let lambda = Kfac::scalar(tensors, LAMBDA)? * lm.decay.powf(-(lm.every as f64) * f64::from(BACK));
        tensors.insert(LAMBDA, Tensor::scalar(lambda));
        Ok(true)
    }
}
