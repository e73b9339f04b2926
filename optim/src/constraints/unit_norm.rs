//! Rows of norm 1.

use retrograd_engine::Params;

use super::max_norm::{Along, scale_lines};
use crate::constraint::Constraint;
use crate::error::Result;
use crate::select::Select;
use crate::settings::{OptionSpec, Settings};
use crate::table::Entry;

/// Every row is divided by its Euclidean norm; rows of zeros stay.
///
/// Shapes: `[.., R, S]`; leading axes count matrices. Defaults: rows, every parameter of the patterns given.
/// Source: Mhammedi et al. (2017), "Efficient orthogonal parametrisation of recurrent neural networks using Householder
/// reflections", where the vectors of the reflections, columns as stored, have length 1 after each update; Salimans,
/// Kingma (2016), "Weight normalization". **Differs from** them: nothing known.
#[derive(Clone, Debug)]
pub struct UnitNorm {
    /// Rows or columns.
    pub along: Along,
    /// Parameters it applies to.
    pub select: Select,
}

impl UnitNorm {
    /// Rows of the parameters of `select`.
    pub fn new(select: Select) -> UnitNorm {
        UnitNorm { along: Along::Row, select }
    }
}

impl Constraint for UnitNorm {
    fn name(&self) -> &'static str {
        "unit-norm"
    }

    fn settings(&self) -> Settings {
        Settings::new().with("along", self.along.word()).with("params", self.select.text())
    }

    fn validate(&self) -> Result<()> {
        Ok(())
    }

    fn project(&self, params: &mut Params) -> Result<usize> {
        scale_lines(params, self.name(), &self.select, self.along, |norm| {
            (norm > 0.0 && norm != 1.0).then(|| 1.0 / norm)
        })
    }
}

/// Row of the table.
pub(super) const ENTRY: Entry<dyn Constraint> = Entry {
    name: "unit-norm",
    summary: "rows (or columns) of matrices keep norm 1",
    options: &[Along::OPTION, OptionSpec::new("params", "*", "patterns of the parameters it applies to")],
    build: |settings| {
        let read = settings.reader(ENTRY.name, ENTRY.options)?;
        let along = Along::read(&read)?;
        let select = Select::patterns(read.text("params")?);
        Ok(Box::new(UnitNorm { along, select }))
    },
};
