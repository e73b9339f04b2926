//! Squared norm, or squared distance from a number.

use retrograd_engine::{Params, Tensor};

use crate::elementwise::{Real, with_real};
use crate::error::{Error, Result};
use crate::penalty::{Penalty, selected};
use crate::select::Select;
use crate::settings::{OptionSpec, Range, Settings};
use crate::table::Entry;

/// Squared norm: `λ Σ |θ − c|²`, gradient `2λ(θ − c)`.
///
/// Default: λ = 1e-4, `c` = 0, on every parameter. Another `c`, which parameters are to stay near, is for real ones. As a `weight_decay` of [`Sgd`](crate::Sgd) this is 2λ; in RMSprop and
/// Adam both go through the mean square (decoupled decay is [`AdamW`](crate::AdamW)).
#[derive(Clone, Debug)]
pub struct L2 {
    /// λ.
    pub lambda: f64,
    /// `c`: what parameters are drawn to.
    pub target: f64,
    /// Parameters it applies to.
    pub select: Select,
}

impl Default for L2 {
    fn default() -> L2 {
        L2 { lambda: 1e-4, target: 0.0, select: Select::all() }
    }
}

impl Penalty for L2 {
    fn name(&self) -> &'static str {
        "l2"
    }

    fn settings(&self) -> Settings {
        let settings = Settings::new().with("lambda", self.lambda);
        settings.with("target", self.target).with("params", self.select.text())
    }

    fn validate(&self) -> Result<()> {
        Range::NonNegative.check(self.name(), "lambda", self.lambda)?;
        Range::Finite.check(self.name(), "target", self.target)
    }

    fn penalty(&self, params: &Params, grads: &mut Params) -> Result<f64> {
        self.validate()?;
        let chosen = selected(self.name(), &self.select, params, grads)?;
        let complex = |(_, param): &&(String, &Tensor)| param.dtype().is_complex();
        if let Some((name, param)) = chosen.iter().find(complex).filter(|_| self.target != 0.0) {
            let what = format!("l2 with target {}: parameter `{name}`", self.target);
            return Err(Error::Mismatch { what, expected: "real".into(), got: param.dtype().to_string() });
        }
        let mut total = 0.0;
        for (name, param) in chosen {
            let Some(grad) = grads.get_mut(&name) else { continue };
            total += with_real!(param, &name, R => {
                let (twice, target) = (R::of(2.0 * self.lambda), R::of(self.target));
                let mut sum = 0.0;
                for (g, &p) in grad.components_mut::<R>()?.iter_mut().zip(param.components::<R>()?) {
                    let p = p - target;
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
    summary: "lambda times the squared norm of the parameters, or of their distance from a number",
    options: &[
        OptionSpec::new("lambda", "1e-4", "amplitude"),
        OptionSpec::new("target", "0", "what parameters are drawn to; other than 0 for real ones only"),
        OptionSpec::new("params", "*", "patterns of the parameters it applies to"),
    ],
    build: |settings| {
        let read = settings.reader(ENTRY.name, ENTRY.options)?;
        let select = Select::patterns(read.text("params")?);
        let penalty = L2 { lambda: read.real("lambda")?, target: read.real("target")?, select };
        penalty.validate()?;
        Ok(Box::new(penalty))
    },
};
