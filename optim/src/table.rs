//! Tables: what can be built by name.

use crate::error::{Error, Result, nearest};
use crate::settings::{OptionSpec, Settings};

/// One row of a table: how to build a `T` by name from settings.
pub struct Entry<T: ?Sized> {
    /// Name, as written in configuration and on the command line.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Settings it understands.
    pub options: &'static [OptionSpec],
    /// Builds it. Errors: unknown keys, values that do not fit.
    pub build: fn(&Settings) -> Result<Box<T>>,
}

impl<T: ?Sized> std::fmt::Debug for Entry<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry")
            .field("name", &self.name)
            .field("summary", &self.summary)
            .finish_non_exhaustive()
    }
}

/// The row called `name`, upper or lower case. Errors: no such row, with the nearest name.
pub fn find<T: ?Sized>(
    kind: &'static str,
    table: &'static [Entry<T>],
    name: &str,
) -> Result<&'static Entry<T>> {
    table.iter().find(|e| e.name.eq_ignore_ascii_case(name)).ok_or_else(|| {
        let names: Vec<_> = table.iter().map(|e| e.name).collect();
        let nearest = nearest(name, names.iter().copied());
        Error::UnknownName { kind, got: name.into(), nearest, known: names.join(", ") }
    })
}
