//! Largest norm of a row.

use retrograd_engine::{Params, Tensor};

use crate::constraint::Constraint;
use crate::elementwise::{Real, not_differentiable, with_real};
use crate::error::{Error, Result};
use crate::select::Select;
use crate::settings::{OptionSpec, Range, Reader, Settings};
use crate::table::Entry;

/// Along which axis of a matrix the norm is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Along {
    /// Over the last axis: every stored row is bounded.
    #[default]
    Row,
    /// Over the axis before the last: every stored column is bounded. With weights stored `[in, out]` these are
    /// the incoming weights of one unit.
    Column,
}

impl Along {
    /// The option.
    pub(super) const OPTION: OptionSpec = OptionSpec::new("along", "row", "row or column, as stored");

    const CHOICES: [(&str, Along); 2] = [("row", Along::Row), ("column", Along::Column)];

    /// Reads [`Along::OPTION`].
    pub(super) fn read(read: &Reader<'_>) -> Result<Along> {
        read.choice(Along::OPTION.key, &Along::CHOICES)
    }

    /// As the option has it.
    pub(super) fn word(self) -> &'static str {
        if self == Along::Row { "row" } else { "column" }
    }
}

/// Rows with a Euclidean norm above `limit` are scaled down to it; the others stay to the bit.
///
/// Shapes: `[.., R, S]`; leading axes count matrices. Defaults: limit 10, rows, every parameter of the patterns
/// given. Source: Miceli Barone (2018), weight-normalized variant on the memory tasks, which bounds row norms by 10
/// after each update. **Differs from** it: nothing known; what a row is depends on how weights are stored, see
/// [`Along`].
#[derive(Clone, Debug)]
pub struct MaxNorm {
    /// Largest norm.
    pub limit: f64,
    /// Rows or columns.
    pub along: Along,
    /// Parameters it applies to.
    pub select: Select,
}

impl MaxNorm {
    /// Rows of the parameters of `select` bounded by `limit`.
    pub fn new(limit: f64, select: Select) -> MaxNorm {
        MaxNorm { limit, along: Along::Row, select }
    }
}

impl Constraint for MaxNorm {
    fn name(&self) -> &'static str {
        "max-norm"
    }

    fn settings(&self) -> Settings {
        Settings::new()
            .with("limit", self.limit)
            .with("along", self.along.word())
            .with("params", self.select.text())
    }

    fn validate(&self) -> Result<()> {
        Range::Positive.check(self.name(), "limit", self.limit)
    }

    fn project(&self, params: &mut Params) -> Result<usize> {
        self.validate()?;
        scale_lines(params, self.name(), &self.select, self.along, |norm| {
            (norm > self.limit).then(|| self.limit / norm)
        })
    }
}

/// Scales every row or column of the selected parameters by what `factor` makes of its Euclidean norm, and counts those
/// that it scales. Errors: nothing selected, a parameter of fewer than two axes.
pub(super) fn scale_lines(
    params: &mut Params,
    constraint: &'static str,
    select: &Select,
    along: Along,
    factor: impl Fn(f64) -> Option<f64>,
) -> Result<usize> {
    let names = select.names(constraint, params)?;
    for name in &names {
        let param = params.require(name)?;
        if !param.dtype().is_differentiable() {
            return Err(not_differentiable(name, param.dtype()));
        }
        if param.dims().len() < 2 {
            let (what, expected) = (format!("{constraint}: parameter `{name}`"), "[.., R, S]".into());
            return Err(Error::Mismatch { what, expected, got: format!("{:?}", param.dims()) });
        }
    }
    let mut moved = 0;
    for name in &names {
        let Some(param) = params.get_mut(name) else { continue };
        moved += with_real!(param, name, R => scale::<R>(param, along, &factor))?;
    }
    Ok(moved)
}

fn scale<R: Real>(param: &mut Tensor, along: Along, factor: &impl Fn(f64) -> Option<f64>) -> Result<usize> {
    let planes = param.dtype().planes();
    let [.., rows, cols] = *param.dims() else { return Ok(0) };
    let size = rows * cols * planes;
    if size == 0 {
        return Ok(0);
    }
    let mut moved = 0;
    for matrix in param.components_mut::<R>()?.chunks_exact_mut(size) {
        let lines = if along == Along::Row { rows } else { cols };
        let mut squares = vec![0.0f64; lines];
        // Which line component `i` of the matrix belongs to.
        let line = |i: usize| if along == Along::Row { i / (cols * planes) } else { i / planes % cols };
        for (i, x) in matrix.iter().enumerate() {
            squares[line(i)] += x.wide() * x.wide();
        }
        let factors: Vec<Option<f64>> = squares.iter().map(|s| factor(s.sqrt())).collect();
        let scaled = factors.iter().flatten().count();
        if scaled > 0 {
            for (i, x) in matrix.iter_mut().enumerate() {
                if let Some(factor) = factors[line(i)] {
                    *x = R::of(x.wide() * factor);
                }
            }
        }
        moved += scaled;
    }
    Ok(moved)
}

/// Row of the table.
pub(super) const ENTRY: Entry<dyn Constraint> = Entry {
    name: "max-norm",
    summary: "rows (or columns) of matrices keep a norm below a limit",
    options: &[
        OptionSpec::new("limit", "10", "largest norm"),
        Along::OPTION,
        OptionSpec::new("params", "*", "patterns of the parameters it applies to"),
    ],
    build: |settings| {
        let read = settings.reader(ENTRY.name, ENTRY.options)?;
        let along = Along::read(&read)?;
        let select = Select::patterns(read.text("params")?);
        let constraint = MaxNorm { limit: read.real("limit")?, along, select };
        constraint.validate()?;
        Ok(Box::new(constraint))
    },
};
