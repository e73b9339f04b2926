//! The trait of all learning-rate schedules.

use retrograd_engine::{Params, Tensor};

use crate::error::{Error, Result};
use crate::settings::{Range, Reader, Settings};

/// Where training stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// Updates made so far.
    pub step: u64,
    /// Epochs completed so far.
    pub epoch: u64,
}

/// What a schedule counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unit {
    /// Completed epochs.
    #[default]
    Epoch,
    /// Updates.
    Step,
}

impl Unit {
    /// Units passed.
    pub fn of(self, clock: Clock) -> u64 {
        match self {
            Unit::Epoch => clock.epoch,
            Unit::Step => clock.step,
        }
    }

    /// Name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Epoch => "epoch",
            Unit::Step => "step",
        }
    }

    pub(crate) fn read(reader: &Reader<'_>) -> Result<Unit> {
        reader.choice("unit", &[("epoch", Unit::Epoch), ("step", Unit::Step)])
    }
}

/// What a schedule remembers of the metrics it was shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LrState {
    /// Factor reached so far.
    pub factor: f64,
    /// Best metric so far; NaN before the first.
    pub best: f64,
    /// Observations without improvement in a row.
    pub bad: u64,
    /// Observations still to be let pass after a reduction.
    pub cooldown: u64,
}

impl Default for LrState {
    fn default() -> LrState {
        LrState { factor: 1.0, best: f64::NAN, bad: 0, cooldown: 0 }
    }
}

impl LrState {
    /// As one tensor, to be stored beside the optimiser's: `schedule` = f64 `[factor, best, bad, cooldown]`.
    pub fn to_params(&self) -> Result<Params> {
        let values = [self.factor, self.best, self.bad as f64, self.cooldown as f64];
        Ok([("schedule".to_string(), Tensor::from_slice([4], &values)?)].into_iter().collect())
    }

    /// The inverse of [`LrState::to_params`], to the bit. Errors: not there, not four `f64`, counts that are none.
    pub fn from_params(params: &Params) -> Result<LrState> {
        let what = || "state `schedule`".to_string();
        let tensor = params.get("schedule").ok_or_else(|| Error::Missing { what: what() })?;
        let count = |x: f64| (x >= 0.0 && x.fract() == 0.0 && x <= u32::MAX as f64).then_some(x as u64);
        if let Ok(&[factor, best, bad, cooldown]) = tensor.as_slice::<f64>()
            && let (Some(bad), Some(cooldown)) = (count(bad), count(cooldown))
            && Range::NonNegative.check("schedule", "factor", factor).is_ok()
        {
            return Ok(LrState { factor, best, bad, cooldown });
        }
        let expected = "f64 [4] of factor, best, bad, cooldown".into();
        Err(Error::Mismatch { what: what(), expected, got: format!("{tensor:?}") })
    }
}

/// A learning-rate schedule: the factor on the optimiser's rate. Its configuration is in `self`; what it remembers
/// is in an [`LrState`].
pub trait LrSchedule: Send + Sync {
    /// Name in [`SCHEDULES`](crate::SCHEDULES).
    fn name(&self) -> &'static str;

    /// All settings with their values: building from them gives this schedule again.
    fn settings(&self) -> Settings;

    /// Errors: a configuration out of its range.
    fn validate(&self) -> Result<()>;

    /// Factor for the next update.
    fn factor(&self, clock: Clock, state: &LrState) -> f64;

    /// Shows the validation metric; `true` if the rate was reduced for it. Most schedules do not look.
    fn observe(&self, metric: f64, state: &mut LrState) -> bool {
        let _ = (metric, state);
        false
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn state_is_stored_to_the_bit() -> Result<()> {
        let state = LrState { factor: 0.3 * 0.3, best: 0.1 + 0.2, bad: 2, cooldown: 1 };
        assert_eq!(LrState::from_params(&state.to_params()?)?, state);
        let fresh = LrState::from_params(&LrState::default().to_params()?)?;
        assert!(fresh.best.is_nan() && fresh.factor == 1.0);
        Ok(())
    }

    #[test]
    fn bad_states_are_errors() {
        assert!(matches!(LrState::from_params(&Params::new()), Err(Error::Missing { .. })));
        for values in
            [&[1.0, 0.0, 0.5, 0.0][..], &[1.0, 0.0, 0.0], &[f64::NAN, 0.0, 0.0, 0.0], &[1.0, 0.0, 0.0, -1.0]]
        {
            let tensor = Tensor::from_slice([values.len()], values).unwrap();
            let params = [("schedule".to_string(), tensor)].into_iter().collect();
            assert!(matches!(LrState::from_params(&params), Err(Error::Mismatch { .. })), "{values:?}");
        }
    }
}
