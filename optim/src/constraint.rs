//! The trait of all constraints.

use std::collections::BTreeMap;

use retrograd_engine::Params;

use crate::error::Result;
use crate::schedule::Clock;
use crate::settings::Settings;

/// Of some parameters, by name, the entries that may be other than 0.
pub type Support = BTreeMap<String, Vec<bool>>;

/// A set that parameters must stay in: after an update they are put back into it.
pub trait Constraint: Send + Sync {
    /// Name in [`CONSTRAINTS`](crate::CONSTRAINTS).
    fn name(&self) -> &'static str;

    /// All settings with their values: building from them gives this constraint again (a predicate in place of
    /// patterns has no text form).
    fn settings(&self) -> Settings;

    /// Errors: a configuration out of its range.
    fn validate(&self) -> Result<()>;

    /// Puts the selected parameters back; returns how many parts (rows, entries) had to move. Errors: nothing
    /// selected, a shape the constraint does not take. After an error the parameters are as they were.
    fn project(&self, params: &mut Params) -> Result<usize>;

    /// What [`Constraint::project_at`] must know of the parameters before an update. `clock` counts before it.
    fn support(&self, params: &Params, clock: Clock) -> Result<Option<Support>> {
        let _ = (params, clock);
        Ok(None)
    }

    /// [`Constraint::project`] of constraints that change with time. `clock` counts before the update that was made,
    /// `support` is what [`Constraint::support`] said then.
    fn project_at(&self, params: &mut Params, clock: Clock, support: Option<&Support>) -> Result<usize> {
        let _ = (clock, support);
        self.project(params)
    }
}
