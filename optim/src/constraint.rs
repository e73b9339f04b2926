//! The trait of all constraints.

use retrograd_engine::Params;

use crate::error::Result;
use crate::settings::Settings;

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
}
