//! How much of a step the batch after it would have made.
//!
//! The quadratic model is minimised on one batch, noise and all; late in training the gradient of a small batch is mostly
//! noise, and the least point of its model is far from that of the loss. The next batch says so: its slope along the step
//! just made, `∇ᵀv`, over the curvature along it, `vᵀFv`, is 0 on average where steps are as long as they should be, 1
//! where the whole step was noise, and below 0 where it fell short. A factor κ on all steps follows that.
//!
//! It has a lower bound, for two reasons. What is best for the next batch alone is too short for the run (Wu, Ren, Liao,
//! Grosse 2018, "Understanding short-horizon bias in stochastic meta-optimization"). And where few batches make an epoch
//! the noise of one is in part undone by the next, so that every step seems to have gone too far.

use retrograd_engine::{Params, Tensor};

use super::{Kfac, TRUST};
use crate::error::Result;

/// κ after a batch whose slope along the last step is `slope`, where the curvature along it is `curvature`.
fn next(trust: f64, rate: f64, least: f64, (slope, curvature): (f64, f64)) -> f64 {
    let excess = slope / curvature;
    if !excess.is_finite() {
        return trust;
    }
    (trust * (-rate * excess.clamp(-1.0, 1.0)).exp()).clamp(least, 1.0)
}

impl Kfac {
    /// κ, once it has learned from the slope of this batch along the last step and the curvature along it.
    pub(super) fn trusted(&self, slope: f64, curvature: f64, tensors: &mut Params) -> Result<f64> {
        let trust =
            next(Kfac::scalar(tensors, TRUST)?, self.trust_rate, self.trust_least, (slope, curvature));
        tensors.insert(TRUST, Tensor::scalar(trust));
        Ok(trust)
    }
}

#[cfg(test)]
mod tests {
    use super::next;

    /// On `½ E[(x − ε)²]`, `ε` normal, the least point of a batch is its own `ε`: of an `x` that is near 0 the right part of
    /// a step is small, of one that is far away it is all.
    #[test]
    fn steps_become_as_long_as_the_signal_allows() {
        let mut state = 7u64;
        let mut unit = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
        };
        let mut normal = || (-2.0 * unit().ln()).sqrt() * (std::f64::consts::TAU * unit()).cos();
        let (mut x, mut trust, mut before) = (1e4, 1.0, 0.0);
        let mut squares = 0.0;
        for update in 0..2000 {
            let gradient = x - normal();
            if before != 0.0 {
                trust = next(trust, 0.1, 0.01, (gradient * before, before * before));
            }
            if update == 1 {
                assert!(trust > 0.89, "the first step was right: {trust}");
            }
            before = -trust * gradient;
            x += before;
            if update >= 1000 {
                squares += x * x / 1000.0;
            }
        }
        assert!(trust < 0.5 && squares < 0.5, "trust {trust}, mean square {squares}; with whole steps 1");
    }

    #[test]
    fn what_is_no_number_teaches_nothing() {
        assert_eq!(next(0.5, 0.1, 0.1, (0.0, 0.0)), 0.5);
        assert_eq!(next(0.5, 0.1, 0.1, (f64::NAN, 1.0)), 0.5);
        assert_eq!(next(1.0, 0.1, 0.1, (-1.0, 1.0)), 1.0, "never longer than the model says");
        assert_eq!(next(0.1, 0.1, 0.1, (9.0, 1.0)), 0.1);
    }
}
