//! The quadratic model of the loss: how far to go, how much of the step before to keep, how much to trust it.

use faer::Mat;
use faer::linalg::solvers::Solve;

/// The least point of `q(α Δ + μ v) = ∇ᵀδ + ½ δᵀ (F + λ I) δ`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Multiple of the preconditioned gradient.
    pub alpha: f64,
    /// Multiple of the step before.
    pub mu: f64,
    /// `q` there, damping included.
    pub change: f64,
}

/// Inner products of a direction `Δ` and the step before, `v`, which may be absent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plane {
    /// `Δᵀ C Δ`, `Δᵀ C v`, `vᵀ C v` with `C = F + λ I`.
    pub curvature: [f64; 3],
    /// `∇ᵀ Δ`, `∇ᵀ v`.
    pub slope: [f64; 2],
}

impl Plane {
    /// `(α, μ)ᵀ = −M^{−1} (∇ᵀΔ, ∇ᵀv)ᵀ`; where `v` is 0 or along `Δ`, `α` alone; with `momentum` given, `α` for that `μ`.
    /// `None` where the model has no least point: curvature that is not positive or not finite.
    pub fn solve(&self, momentum: Option<f64>) -> Option<Step> {
        let ([dd, dv, vv], [gd, gv]) = (self.curvature, self.slope);
        let usable = |x: f64| x.is_finite() && x > 0.0;
        if !usable(dd) || !gd.is_finite() {
            return None;
        }
        let at = |alpha: f64, mu: f64| {
            let change =
                alpha * gd + mu * gv + 0.5 * (alpha * alpha * dd + 2.0 * alpha * mu * dv + mu * mu * vv);
            Step { alpha, mu, change }
        };
        if let Some(mu) = momentum {
            let mu = if usable(vv) { mu } else { 0.0 };
            let alpha = -(mu * dv + gd) / dd;
            return Some(if mu == 0.0 { at(-gd / dd, 0.0) } else { at(alpha, mu) });
        }
        let determinant = dd * vv - dv * dv;
        if !usable(vv) || !gv.is_finite() || determinant.is_nan() || determinant <= 1e-12 * dd * vv {
            return Some(at(-gd / dd, 0.0));
        }
        let m = Mat::from_fn(2, 2, |i, j| [[dd, dv], [dv, vv]][i][j]);
        let slope = Mat::from_fn(2, 1, |i, _| [gd, gv][i]);
        let x = m.partial_piv_lu().solve(&slope);
        let step = at(-x[(0, 0)], -x[(1, 0)]);
        (step.alpha.is_finite() && step.mu.is_finite()).then_some(step)
    }
}

/// Levenberg–Marquardt adaptation of the damping (Moré 1978; Martens, Grosse 2015, section 6.5).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adaptation {
    /// Updates between two adaptations, `k`.
    pub every: u64,
    /// Factor per update; `λ` changes by `decay^k`.
    pub decay: f64,
    /// Least `λ`.
    pub least: f64,
}

impl Default for Adaptation {
    fn default() -> Adaptation {
        Adaptation { every: 5, decay: 0.95, least: 1e-8 }
    }
}

impl Adaptation {
    /// The damping after a step that changed the loss by `change` where the model without damping said `predicted`:
    /// smaller for `ρ = change / predicted` above ¾, or where the loss fell although the model said it would rise; larger
    /// for `ρ` below ¼ or a loss that is not finite.
    pub fn next(&self, lambda: f64, change: f64, predicted: f64) -> f64 {
        let omega = self.decay.powf(self.every as f64);
        let ratio = change / predicted;
        let next = if change < 0.0 && predicted >= 0.0 {
            lambda * omega
        } else if predicted >= 0.0 || !ratio.is_finite() || ratio < 0.25 {
            lambda / omega
        } else if ratio > 0.75 {
            lambda * omega
        } else {
            lambda
        };
        next.max(self.least)
    }
}
