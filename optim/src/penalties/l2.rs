//! Squared norm.

use retrograd_engine::Params;

use crate::elementwise::{Real, with_real};
use crate::error::{Error, Result};
use crate::penalty::{Penalty, selected};
use crate::select::Select;
use crate::settings::{OptionSpec, Range, Settings};
use crate::table::Entry;

/// Squared norm: `λ Σ |θ|²`, gradient `2λθ`.
///
/// Default: λ = 1e-4 on every parameter. As a `weight_decay` of [`Sgd`](crate::Sgd) this is 2λ; in RMSprop and
/// Adam both go through the mean square (decoupled decay is [`AdamW`](crate::AdamW)).
#[derive(Clone, Debug)]
pub struct L2 {
    /// λ.
    pub lambda: f64,
    /// Parameters it applies to.
    pub select: Select,
}

impl Default for L2 {
    fn default() -> L2 {
        L2 { lambda: 1e-4, select: Select::all() }
    }
}

impl Penalty for L2 {
    fn name(&self) -> &'static str {
        "l2"
    }

    fn settings(&self) -> Settings {
        Settings::new().with("lambda", self.lambda).with("params", self.select.text())
    }

    fn validate(&self) -> Result<()> {
        Range::NonNegative.check(self.name(), "lambda", self.lambda)
    }

    fn penalty(&self, params: &Params, grads: &mut Params) -> Result<f64> {
        self.validate()?;
        let mut total = 0.0;
        for (name, param) in selected(self.name(), &self.select, params, grads)? {
            let Some(grad) = grads.get_mut(&name) else { continue };
            total += with_real!(param, &name, R => {
                let twice = R::of(2.0 * self.lambda);
                let mut sum = 0.0;
                for (g, &p) in grad.components_mut::<R>()?.iter_mut().zip(param.components::<R>()?) {
                    *g += twice * p;
                    sum += p.wide() * p.wide();
                }
                Ok::<_, Error>(sum)
            })?;
        }
        Ok(self.lambda * total)
    }
}

/// Row of the table.
pub(super) const ENTRY: Entry<dyn Penalty> = Entry {
    name: "l2",
    summary: "lambda times the squared norm of the parameters",
    options: &[
        OptionSpec::new("lambda", "1e-4", "amplitude"),
        OptionSpec::new("params", "*", "patterns of the parameters it applies to"),
    ],
    build: |settings| {
        let read = settings.reader(ENTRY.name, ENTRY.options)?;
        let penalty = L2 { lambda: read.real("lambda")?, select: Select::patterns(read.text("params")?) };
        penalty.validate()?;
        Ok(Box::new(penalty))
    },
};
