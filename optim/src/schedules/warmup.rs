//! Linear warm-up, then another schedule.

use super::Constant;
use crate::error::{Error, Result};
use crate::schedule::{Clock, LrSchedule, LrState};
use crate::settings::{OptionSpec, Range, Settings};
use crate::table::Entry;

/// Linear warm-up: factor s + (1−s)·min((t+1)/T, 1), t in updates, times the factor of another schedule, which
/// sees the clock as it is (the warm-up counts).
///
/// Defaults: T = 1000 updates, s = 0, then constant.
/// **Differs from** PyTorch's `LinearLR`: starts at s + (1−s)/T, not at s, so s = 0 wastes no update.
pub struct WarmUp {
    /// T, updates until the full rate, at least 1.
    pub steps: u64,
    /// s, factor to start from.
    pub start: f64,
    /// The schedule it multiplies.
    pub then: Box<dyn LrSchedule>,
}

impl Default for WarmUp {
    fn default() -> WarmUp {
        WarmUp { steps: 1000, start: 0.0, then: Box::new(Constant) }
    }
}

impl LrSchedule for WarmUp {
    fn name(&self) -> &'static str {
        "warmup"
    }

    fn settings(&self) -> Settings {
        let mut settings = Settings::new().with("steps", self.steps).with("start", self.start);
        settings.set("then", self.then.name());
        for (key, value) in self.then.settings().iter() {
            settings.set(format!("then.{key}"), value);
        }
        settings
    }

    fn validate(&self) -> Result<()> {
        if self.steps == 0 {
            let (key, expected, got) = ("steps".into(), "a whole number of at least 1".into(), "0".into());
            return Err(Error::Value { owner: self.name(), key, expected, got });
        }
        Range::Unit.check(self.name(), "start", self.start)?;
        self.then.validate()
    }

    fn factor(&self, clock: Clock, state: &LrState) -> f64 {
        let risen = (clock.step.saturating_add(1) as f64 / self.steps.max(1) as f64).min(1.0);
        (self.start + (1.0 - self.start) * risen) * self.then.factor(clock, state)
    }

    fn observe(&self, metric: f64, state: &mut LrState) -> bool {
        self.then.observe(metric, state)
    }
}

/// Row of the table.
pub(super) const ENTRY: Entry<dyn LrSchedule> = Entry {
    name: "warmup",
    summary: "a linear rise over the first updates, times another schedule",
    options: &[
        OptionSpec::new("steps", "1000", "updates until the full rate"),
        OptionSpec::new("start", "0", "factor to start from"),
        OptionSpec::new("then", "constant", "the other schedule; its settings are written then.KEY"),
    ],
    build: |settings| {
        let (inner, own) = settings.split("then.");
        let read = own.reader(ENTRY.name, ENTRY.options)?;
        let (steps, start) = (read.count("steps")?, read.real("start")?);
        let schedule = WarmUp { steps, start, then: crate::schedule(read.text("then")?, &inner)? };
        schedule.validate()?;
        Ok(Box::new(schedule))
    },
};
