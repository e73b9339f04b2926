//! Cosine decay.

use crate::error::{Error, Result};
use crate::schedule::{Clock, LrSchedule, LrState, Unit};
use crate::settings::{OptionSpec, Range, Settings};
use crate::table::Entry;

/// Cosine decay (Loshchilov and Hutter 2017, without restarts): factor f + (1−f)(1 + cos(π t/T))/2 until T, then f.
/// PyTorch's `CosineAnnealingLR` up to T.
///
/// Defaults: T = 100 epochs, f = 0. **Differs from** PyTorch: stays at f after T instead of rising again.
#[derive(Clone, Debug, PartialEq)]
pub struct Cosine {
    /// T, units until the end, at least 1.
    pub over: u64,
    /// f, factor at the end.
    pub floor: f64,
    /// Unit of T.
    pub unit: Unit,
}

impl Default for Cosine {
    fn default() -> Cosine {
        Cosine { over: 100, floor: 0.0, unit: Unit::Epoch }
    }
}

impl LrSchedule for Cosine {
    fn name(&self) -> &'static str {
        "cosine"
    }

    fn settings(&self) -> Settings {
        Settings::new().with("over", self.over).with("floor", self.floor).with("unit", self.unit.name())
    }

    fn validate(&self) -> Result<()> {
        if self.over == 0 {
            let (key, expected, got) = ("over".into(), "a whole number of at least 1".into(), "0".into());
            return Err(Error::Value { owner: self.name(), key, expected, got });
        }
        Range::Unit.check(self.name(), "floor", self.floor)
    }

    fn factor(&self, clock: Clock, _: &LrState) -> f64 {
        let t = self.unit.of(clock).min(self.over) as f64 / self.over.max(1) as f64;
        self.floor + (1.0 - self.floor) * (1.0 + (std::f64::consts::PI * t).cos()) / 2.0
    }
}

/// Row of the table.
pub(super) const ENTRY: Entry<dyn LrSchedule> = Entry {
    name: "cosine",
    summary: "half a cosine from the full rate down to a floor",
    options: &[
        OptionSpec::new("over", "100", "units until the end"),
        OptionSpec::new("floor", "0", "factor at the end and after"),
        OptionSpec::new("unit", "epoch", "epoch or step"),
    ],
    build: |settings| {
        let read = settings.reader(ENTRY.name, ENTRY.options)?;
        let (over, floor, unit) = (read.count("over")?, read.real("floor")?, Unit::read(&read)?);
        let schedule = Cosine { over, floor, unit };
        schedule.validate()?;
        Ok(Box::new(schedule))
    },
};
