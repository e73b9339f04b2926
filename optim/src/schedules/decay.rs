//! Step decay.

use crate::error::{Error, Result};
use crate::schedule::{Clock, LrSchedule, LrState, Unit};
use crate::settings::{OptionSpec, Range, Settings};
use crate::table::Entry;

/// Step decay: factor γ^⌊t/every⌋, t in epochs or updates. PyTorch's `StepLR`.
///
/// Defaults: every 10 epochs, γ = 0.1. **Differs from** PyTorch: nothing but rounding.
#[derive(Clone, Debug, PartialEq)]
pub struct StepDecay {
    /// Units between two reductions, at least 1.
    pub every: u64,
    /// γ.
    pub gamma: f64,
    /// Unit of `every`.
    pub unit: Unit,
}

impl Default for StepDecay {
    fn default() -> StepDecay {
        StepDecay { every: 10, gamma: 0.1, unit: Unit::Epoch }
    }
}

impl LrSchedule for StepDecay {
    fn name(&self) -> &'static str {
        "decay"
    }

    fn settings(&self) -> Settings {
        Settings::new().with("every", self.every).with("gamma", self.gamma).with("unit", self.unit.name())
    }

    fn validate(&self) -> Result<()> {
        if self.every == 0 {
            let (key, expected, got) = ("every".into(), "a whole number of at least 1".into(), "0".into());
            return Err(Error::Value { owner: self.name(), key, expected, got });
        }
        Range::Unit.check(self.name(), "gamma", self.gamma)
    }

    fn factor(&self, clock: Clock, _: &LrState) -> f64 {
        self.gamma.powf((self.unit.of(clock) / self.every.max(1)) as f64)
    }
}

/// Row of the table.
pub(super) const ENTRY: Entry<dyn LrSchedule> = Entry {
    name: "decay",
    summary: "multiply the rate by gamma every so many epochs or updates",
    options: &[
        OptionSpec::new("every", "10", "units between two reductions"),
        OptionSpec::new("gamma", "0.1", "factor of one reduction"),
        OptionSpec::new("unit", "epoch", "epoch or step"),
    ],
    build: |settings| {
        let read = settings.reader(ENTRY.name, ENTRY.options)?;
        let (every, gamma, unit) = (read.count("every")?, read.real("gamma")?, Unit::read(&read)?);
        let schedule = StepDecay { every, gamma, unit };
        schedule.validate()?;
        Ok(Box::new(schedule))
    },
};
