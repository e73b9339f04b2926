//! Adam with decoupled weight decay.

use retrograd_engine::Params;

use super::Adam;
use crate::elementwise::{Elementwise, for_each};
use crate::error::Result;
use crate::optimizer::{Optimizer, scaled_lr};
use crate::settings::{OptionSpec, Settings};
use crate::state::{Slot, State};
use crate::table::Entry;

/// AdamW (Loshchilov and Hutter 2019, "Decoupled weight decay regularization").
///
/// ```text
/// θ ← (1 − η λ) θ
/// m ← β₁ m + (1−β₁) g        v ← β₂ v + (1−β₂) g²       per real component
/// w = v;   AMSGrad: w ← max(w, v)
/// θ ← θ − η m̂ / (√ŵ + ε)                                corrections as in Adam
/// ```
///
/// Defaults: η = 1e-3, β₁ = 0.9, β₂ = 0.999, ε = 1e-8, λ = 1e-2 (PyTorch's).
/// State: as [`Adam`].
///
/// **Differs from** the paper, as PyTorch does: the decay is multiplied by η, not only by the schedule's factor.
/// From PyTorch: one step counter for all parameters (see [`Adam`]).
#[derive(Clone, Debug, PartialEq)]
pub struct AdamW {
    /// The settings; `weight_decay` is λ, decoupled.
    pub adam: Adam,
}

impl Default for AdamW {
    fn default() -> AdamW {
        AdamW { adam: Adam { weight_decay: 1e-2, ..Adam::default() } }
    }
}

impl Optimizer for AdamW {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn settings(&self) -> Settings {
        self.adam.settings()
    }

    fn learning_rate(&self) -> f64 {
        self.adam.lr
    }

    fn slots(&self) -> Vec<Slot> {
        self.adam.slots()
    }

    fn validate(&self) -> Result<()> {
        self.adam.validate_for(self.name())
    }

    fn update(&self, grads: &Params, state: &mut State, params: &mut Params, lr_scale: f64) -> Result<()> {
        let rule = self.adam.step(scaled_lr(self, lr_scale)?, true, state.step() + 1);
        for_each(&self.slots(), grads, state, params, &rule)
    }

    fn elementwise(&self, step: u64, lr_scale: f64) -> Result<Option<Box<dyn Elementwise + '_>>> {
        Ok(Some(Box::new(self.adam.step(scaled_lr(self, lr_scale)?, true, step))))
    }
}

/// Row of the table.
pub(super) const ENTRY: Entry<dyn Optimizer> = Entry {
    name: "adamw",
    summary: "Adam with decoupled weight decay",
    options: &[
        OptionSpec::new("lr", "1e-3", "learning rate per update"),
        OptionSpec::new("beta1", "0.9", "decay of the mean"),
        OptionSpec::new("beta2", "0.999", "decay of the mean square"),
        OptionSpec::new("eps", "1e-8", "epsilon, outside the root"),
        OptionSpec::new("raw_eps", "false", "epsilon before the bias correction"),
        OptionSpec::new("weight_decay", "1e-2", "the parameter shrinks by this times the learning rate"),
        OptionSpec::new("amsgrad", "false", "the denominator may only grow"),
    ],
    build,
};

fn build(settings: &Settings) -> Result<Box<dyn Optimizer>> {
    let read = settings.reader(ENTRY.name, ENTRY.options)?;
    let adamw = AdamW {
        adam: Adam {
            lr: read.real("lr")?,
            beta1: read.real("beta1")?,
            beta2: read.real("beta2")?,
            eps: read.real("eps")?,
            raw_eps: read.flag("raw_eps")?,
            weight_decay: read.real("weight_decay")?,
            amsgrad: read.flag("amsgrad")?,
        },
    };
    adamw.validate()?;
    Ok(Box::new(adamw))
}
