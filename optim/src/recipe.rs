//! Everything that happens between a gradient and the next parameters, in order.

use retrograd_engine::Params;

use crate::constraint::{Constraint, Support};
use crate::error::Result;
use crate::gradients::{Clip, GradientRules, Verdict};
use crate::kfac::{Curvature, NoCurvature};
use crate::optimizer::Optimizer;
use crate::penalty::Penalty;
use crate::schedule::{Clock, LrSchedule, LrState};
use crate::state::State;

/// An optimiser with all that surrounds it. One update is: penalties add to the gradients; the gradients are
/// checked and, unless the optimiser takes them whole, clipped; the optimiser moves the parameters at the scheduled rate; constraints put them back.
pub struct Recipe {
    /// Moves the parameters.
    pub optimizer: Box<dyn Optimizer>,
    /// Factor on its rate.
    pub schedule: Box<dyn LrSchedule>,
    /// Clipping and the policy for NaN.
    pub gradients: GradientRules,
    /// Terms added to the loss.
    pub penalties: Vec<Box<dyn Penalty>>,
    /// Sets the parameters must stay in.
    pub constraints: Vec<Box<dyn Constraint>>,
}

/// What one update did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// Learning rate used.
    pub lr: f64,
    /// Sum of the penalties.
    pub penalty: f64,
    /// Norm of the gradients, penalties included, before clipping; NaN if not finite.
    pub norm: f64,
    /// What was done to the gradients; with [`Verdict::Skip`] no parameter moved.
    pub verdict: Verdict,
}

impl Recipe {
    /// The optimiser at a constant rate, with nothing around it.
    pub fn new(optimizer: Box<dyn Optimizer>) -> Recipe {
        Recipe {
            optimizer,
            schedule: Box::new(crate::Constant),
            gradients: GradientRules::default(),
            penalties: Vec::new(),
            constraints: Vec::new(),
        }
    }

    /// One update. `clock` counts before it. Errors: those of the parts; parameters and state are then as they
    /// were, unless it is a constraint's.
    pub fn update(
        &self,
        grads: &mut Params,
        state: &mut State,
        lr_state: &LrState,
        params: &mut Params,
        clock: Clock,
    ) -> Result<Update> {
        self.update_with(grads, state, lr_state, params, clock, &mut NoCurvature)
    }

    /// [`Recipe::update`] for an optimiser that asks the network about its curvature.
    pub fn update_with(
        &self,
        grads: &mut Params,
        state: &mut State,
        lr_state: &LrState,
        params: &mut Params,
        clock: Clock,
        curvature: &mut dyn Curvature,
    ) -> Result<Update> {
        let factor = self.schedule.factor(clock, lr_state);
        let finite = curvature.loss_before().is_finite() && grads.iter().all(|(_, g)| g.is_finite());
        if !finite && self.optimizer.take_back(state, params)? {
            let lr = self.optimizer.learning_rate() * factor;
            return Ok(Update { lr, penalty: 0.0, norm: f64::INFINITY, verdict: Verdict::Skip });
        }
        let mut penalty = 0.0;
        for term in &self.penalties {
            penalty += term.penalty(params, grads)?;
        }
        let whole;
        let rules = match self.optimizer.takes_whole_gradients() {
            true => {
                whole = GradientRules { clip: Clip::None, ..self.gradients.clone() };
                &whole
            }
            false => &self.gradients,
        };
        let processed = rules.process(params, grads)?;
        let lr = self.optimizer.learning_rate() * factor;
        let done = Update { lr, penalty, norm: processed.norm, verdict: processed.verdict };
        if processed.verdict == Verdict::Skip {
            state.count_skipped();
            return Ok(done);
        }
        let supports: Vec<Option<Support>> =
            self.constraints.iter().map(|c| c.support(params, clock)).collect::<Result<_>>()?;
        self.optimizer.update_with(grads, state, params, factor, curvature)?;
        for (constraint, support) in self.constraints.iter().zip(&supports) {
            constraint.project_at(params, clock, support.as_ref())?;
        }
        Ok(done)
    }
}
