//! No schedule.

use crate::error::Result;
use crate::schedule::{Clock, LrSchedule, LrState};
use crate::settings::Settings;
use crate::table::Entry;

/// The rate stays: factor 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Constant;

impl LrSchedule for Constant {
    fn name(&self) -> &'static str {
        "constant"
    }

    fn settings(&self) -> Settings {
        Settings::new()
    }

    fn validate(&self) -> Result<()> {
        Ok(())
    }

    fn factor(&self, _: Clock, _: &LrState) -> f64 {
        1.0
    }
}

/// Row of the table.
pub(super) const ENTRY: Entry<dyn LrSchedule> = Entry {
    name: "constant",
    summary: "the rate stays",
    options: &[],
    build: |settings| {
        settings.reader(ENTRY.name, ENTRY.options)?;
        Ok(Box::new(Constant))
    },
};
