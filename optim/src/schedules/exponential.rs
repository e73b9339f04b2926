//! Exponential decay.

use crate::error::Result;
use crate::schedule::{Clock, LrSchedule, LrState, Unit};
use crate::settings::{OptionSpec, Range, Settings};
use crate::table::Entry;

/// Exponential decay: factor γᵗ, t in epochs (or updates). PyTorch's `ExponentialLR`.
///
/// Default: γ = 0.95 per epoch; PyTorch has no default. **Differs from** PyTorch: nothing but rounding.
#[derive(Clone, Debug, PartialEq)]
pub struct Exponential {
    /// γ.
    pub gamma: f64,
    /// Unit of t.
    pub unit: Unit,
}

impl Default for Exponential {
    fn default() -> Exponential {
        Exponential { gamma: 0.95, unit: Unit::Epoch }
    }
}

impl LrSchedule for Exponential {
    fn name(&self) -> &'static str {
        "exponential"
    }

    fn settings(&self) -> Settings {
        Settings::new().with("gamma", self.gamma).with("unit", self.unit.name())
    }

    fn validate(&self) -> Result<()> {
        Range::Unit.check(self.name(), "gamma", self.gamma)
    }

    fn factor(&self, clock: Clock, _: &LrState) -> f64 {
        self.gamma.powf(self.unit.of(clock) as f64)
    }
}

/// Row of the table.
pub(super) const ENTRY: Entry<dyn LrSchedule> = Entry {
    name: "exponential",
    summary: "multiply the rate by gamma after every epoch or update",
    options: &[
        OptionSpec::new("gamma", "0.95", "factor per unit"),
        OptionSpec::new("unit", "epoch", "epoch or step"),
    ],
    build: |settings| {
        let read = settings.reader(ENTRY.name, ENTRY.options)?;
        let schedule = Exponential { gamma: read.real("gamma")?, unit: Unit::read(&read)? };
        schedule.validate()?;
        Ok(Box::new(schedule))
    },
};
