//! Rows of the tables of cells and operators.

use std::sync::Arc;

use retrograd_engine::{DType, Tape};

use crate::cell::{Cell, Input};
use crate::declare::{Declare, ParamStore};
use crate::error::{Error, Result, nearest};
use crate::operator::RecurrentOperator;
use crate::settings::{OptionDoc, Options, Settings};

/// A cell by name.
#[derive(Clone, Copy, Debug)]
pub struct CellEntry {
    /// Name.
    pub name: &'static str,
    /// What it is, in a line.
    pub summary: &'static str,
    /// The operator it is published with: the one to take where none is asked for.
    pub operator: &'static str,
    /// Its settings.
    pub options: &'static [OptionDoc],
    /// Makes it; settings are checked against `options` before.
    pub build: fn(&Options<'_>) -> Result<Arc<dyn Cell>>,
}

/// A recurrent operator by name.
#[derive(Clone, Copy, Debug)]
pub struct OperatorEntry {
    /// Name.
    pub name: &'static str,
    /// What it is, in a line.
    pub summary: &'static str,
    /// Its settings.
    pub options: &'static [OptionDoc],
    /// Makes it; settings are checked against `options` before.
    pub build: fn(&Options<'_>) -> Result<Arc<dyn RecurrentOperator>>,
}

impl CellEntry {
    /// Makes the cell. Errors: unknown settings, values that do not fit.
    pub fn make(&self, settings: &Settings) -> Result<Arc<dyn Cell>> {
        (self.build)(&Options::new(self.name, self.options, settings)?)
    }
}

impl OperatorEntry {
    /// Makes the operator. Errors: unknown settings, values that do not fit.
    pub fn make(&self, settings: &Settings) -> Result<Arc<dyn RecurrentOperator>> {
        (self.build)(&Options::new(self.name, self.options, settings)?)
    }
}

fn find<'a, E>(
    kind: &'static str,
    entries: &'a [&'static E],
    name_of: impl Fn(&E) -> &'static str,
    name: &str,
) -> Result<&'a &'static E> {
    entries.iter().find(|e| name_of(e) == name).ok_or_else(|| Error::UnknownName {
        kind,
        name: name.into(),
        nearest: nearest(name, entries.iter().map(|e| name_of(e))),
        known: entries.iter().map(|e| name_of(e).to_string()).collect(),
    })
}

/// The table's cell of that name. Errors: unknown, with the nearest known name.
pub fn cell_entry(name: &str) -> Result<&'static CellEntry> {
    find("cell", crate::CELLS, |e| e.name, name).copied()
}

/// The table's operator of that name. Errors: unknown, with the nearest known name.
pub fn operator_entry(name: &str) -> Result<&'static OperatorEntry> {
    find("operator", crate::OPERATORS, |e| e.name, name).copied()
}

/// A cell by name and settings.
///
/// ```
/// use retrograd_cells::{Settings, cell};
/// let lstm = cell("lstm", &Settings::new().with("forget_bias", 2))?;
/// assert_eq!(lstm.name(), "lstm");
/// let typo = cell("lsmt", &Settings::new()).unwrap_err().to_string();
/// assert_eq!(typo, "unknown cell `lsmt`; did you mean `lstm`?");
/// # Ok::<(), retrograd_cells::Error>(())
/// ```
pub fn cell(name: &str, settings: &Settings) -> Result<Arc<dyn Cell>> {
    cell_entry(name)?.make(settings)
}

/// A recurrent operator by name and settings.
pub fn operator(name: &str, settings: &Settings) -> Result<Arc<dyn RecurrentOperator>> {
    operator_entry(name)?.make(settings)
}

/// Every cell of the table on every operator of the table that takes its states, real or complex.
pub fn combinations() -> Vec<(&'static CellEntry, &'static OperatorEntry)> {
    let all = crate::CELLS.iter().flat_map(|&c| crate::OPERATORS.iter().map(move |&o| (c, o)));
    all.filter(|(cell, operator)| !matches!(declared(cell, operator), Err(Error::Field { .. }))).collect()
}

/// Declares a small layer. Errors: what cell and operator say about it.
fn declared(cell: &CellEntry, operator: &OperatorEntry) -> Result<()> {
    let (cell, operator) = (cell.make(&Settings::new())?, operator.make(&Settings::new())?);
    let (mut tape, mut store) = (Tape::new(), ParamStore::new(0, DType::F32)?);
    cell.declare(&mut Declare::new(&mut tape, &mut store), Input::Dense(1), 4, &*operator)?;
    Ok(())
}
