//! States that are walked back to instead of kept.
//!
//! Where the state before a step can be computed from the state after it, the adjoint needs no record of the states: it
//! carries the state along with its cotangent and steps back through the inverse. [`Scan::run_reversible`] records
//! the inverse beside the step, and [`Scan::walk_back`] asks for it; the adjoint is then recorded with the inverse in it,
//! as one more loop of the same scan, so it is planned, fused and explained like everything else.
//!
//! What is walked back to is not what was there: every step back rounds, and enlarges what was rounded before by up to
//! the inverse's *expansion*. So the state after every `every` steps is kept exactly and taken up again where the walk
//! passes it. With expansion `L` and `r` roundings a step, each of at most half a unit in the last place `2u`, the state
//! `j` steps back is off by at most
//!
//! ```text
//! r u (1 + L + ... + L^(j-1)),
//! ```
//!
//! of the largest entry of the states, to first order; the bound of a scan is that of `j = every`. `r` is counted from the
//! recorded inverse (operations an element on its longest chain), `L` is stated by whoever wrote the inverse. A plan
//! says the bound ([`Plan::explain`](crate::Plan::explain)), a recording whose bound is above [`LARGEST_DRIFT`] is refused,
//! and every run measures: where a walk ends at a kept state the two are compared, and a difference above the bound is
//! [`Error::Drift`], not a result.
//!
//! Gradients differ from those of kept states by what the states are off. For one `every` they are the same bits under
//! every budget and number of threads.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::Ty;
use crate::tape::{Node, NodeKind, Tape, Var};

/// Largest bound with which states may be walked back, relative to the largest entry of the states.
pub const LARGEST_DRIFT: f64 = 1e-2;

/// The inverse of a step: in its nodes, how the state before follows from the state after.
#[derive(Clone, Debug)]
pub(crate) struct Inverse {
    /// Placeholders of the state after the step.
    pub(crate) after: Vec<Var>,
    /// The state before it, computed from those.
    pub(crate) before: Vec<Var>,
    pub(crate) walk: Walk,
}

/// How far states are walked back, and how well.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Walk {
    /// Steps between kept states.
    pub(crate) every: usize,
    /// Most by which a step back enlarges an error of the state.
    pub(crate) expansion: f64,
    /// Roundings of a step back.
    pub(crate) roundings: f64,
    /// Half a unit in the last place, relative.
    pub(crate) unit: f64,
}

impl Walk {
    /// Bound of what a state is off after `steps` steps back, relative to the largest entry of the states.
    pub(crate) fn bound(&self, steps: usize) -> f64 {
        let (l, n) = (self.expansion, steps as f64);
        let sum = if (l - 1.0).abs() * n < 1e-6 { n } else { (l.powf(n) - 1.0) / (l - 1.0) };
        self.roundings * self.unit * sum
    }

    /// Most steps whose bound is no more than [`LARGEST_DRIFT`].
    pub(crate) fn longest(&self) -> usize {
        let holds = |steps: usize| self.bound(steps) <= LARGEST_DRIFT;
        let (mut low, mut high) = (0, 1usize << 40);
        while low + 1 < high {
            let mid = low + (high - low) / 2;
            if holds(mid) { low = mid } else { high = mid }
        }
        low
    }

    /// Checks what was asked for. Errors: no steps, an expansion that is no number from 1 on, a bound that is too large.
    pub(crate) fn checked(self) -> Result<Walk> {
        if self.every == 0 {
            return Err(Error::argument("walk_back", "a kept state every 0 steps; at least 1"));
        }
        if !(self.expansion >= 1.0 && self.expansion.is_finite()) {
            return Err(Error::argument(
                "walk_back",
                format!("an expansion of {}, at least 1", self.expansion),
            ));
        }
        let bound = self.bound(self.every);
        if bound > LARGEST_DRIFT {
            let what = format!(
                "{} steps back may be off by {bound:.1e} of the states, expected at most {LARGEST_DRIFT:.0e}: keep a \
                 state every {} steps or fewer",
                self.every,
                self.longest()
            );
            return Err(Error::argument("walk_back", what));
        }
        Ok(self)
    }
}

/// The state after a step as a placeholder.
pub(super) fn add_after(inner: &mut Tape, number: usize, ty: Ty, name: &str) -> Var {
    let v = inner.add(NodeKind::After(number), Default::default(), ty);
    inner.label(v, &format!("{name} after"));
    v
}

/// Roundings on the longest chain from the states after to one before, there and back, and half a unit in the last
/// place of the least precise of them.
pub(super) fn roundings(inner: &Tape, before: &[Var]) -> (f64, f64) {
    let inverse = of_inverse(&inner.nodes);
    let mut longest = vec![0.0f64; inner.nodes.len()];
    for (i, node) in inner.nodes.iter().enumerate() {
        // The rest is computed as it was on the way there.
        let NodeKind::Op(op) = &node.kind else { continue };
        if !inverse[i] {
            continue;
        }
        let so_far = node.inputs.iter().map(|v| longest[v.index as usize]).fold(0.0, f64::max);
        let tys: Vec<Ty> = node.inputs.iter().map(|v| inner.nodes[v.index as usize].ty.clone()).collect();
        longest[i] = so_far + op.flops(&tys, &node.ty) / node.ty.shape.width().max(1) as f64;
    }
    let most = before.iter().map(|v| longest[v.index as usize]).fold(1.0, f64::max);
    let unit = |v: &Var| match inner.nodes[v.index as usize].ty.dtype.real() {
        DType::F64 => f64::EPSILON / 2.0,
        _ => f64::from(f32::EPSILON) / 2.0,
    };
    // The step rounded as much on the way there.
    (2.0 * most, before.iter().map(unit).fold(0.0, f64::max))
}

/// Which nodes depend on the state after the step: those of the inverse.
pub(super) fn of_inverse(nodes: &[Node]) -> Vec<bool> {
    let mut out = vec![false; nodes.len()];
    for (i, node) in nodes.iter().enumerate() {
        out[i] = matches!(node.kind, NodeKind::After(_)) || node.inputs.iter().any(|v| out[v.index as usize]);
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn bounds_add_up_and_are_refused_in_time() {
        let walk = Walk { every: 10, expansion: 1.0, roundings: 4.0, unit: 0.5f64.powi(24) };
        assert!((walk.bound(10) - 40.0 * walk.unit).abs() < 1e-18);
        let grows = Walk { expansion: 2.0, ..walk };
        assert!((grows.bound(3) - 7.0 * 4.0 * walk.unit).abs() < 1e-15);
        let longest = grows.longest();
        assert!(grows.bound(longest) <= LARGEST_DRIFT && grows.bound(longest + 1) > LARGEST_DRIFT);
        let error = Walk { every: longest + 1, ..grows }.checked().unwrap_err().to_string();
        assert!(error.contains(&format!("every {longest} steps or fewer")), "{error}");
        for wrong in [Walk { every: 0, ..walk }, Walk { expansion: 0.5, ..walk }] {
            assert!(wrong.checked().is_err());
        }
    }
}
