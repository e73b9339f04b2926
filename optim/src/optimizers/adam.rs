//! Adam and AMSGrad.

use retrograd_engine::Params;

use crate::elementwise::{Arith, Component, Elementwise, Rule, SHARED, for_each};
use crate::error::Result;
use crate::optimizer::{Optimizer, scaled_lr};
use crate::settings::{OptionSpec, Range, Settings};
use crate::state::{Slot, State};
use crate::table::Entry;

/// Adam (Kingma and Ba 2015), with AMSGrad (Reddi, Kale, Kumar 2018) as an option.
///
/// ```text
/// g ← g + λ θ                                           weight decay λ (L2)
/// m ← β₁ m + (1−β₁) g        v ← β₂ v + (1−β₂) g²       per real component
/// w = v;   AMSGrad: w ← max(w, v)
/// θ ← θ − η m̂ / (√ŵ + ε),    m̂ = m/(1−β₁ᵗ),  ŵ = w/(1−β₂ᵗ)                         t counts from 1
/// raw ε:  θ ← θ − η √(1−β₂ᵗ)/(1−β₁ᵗ) · m / (√w + ε)
/// ```
///
/// Defaults: η = 1e-3, β₁ = 0.9, β₂ = 0.999, ε = 1e-8, λ = 0 (the paper's and PyTorch's).
/// State: `m`, `v`, with AMSGrad `w`: the parameter's type and sizes, start at 0.
///
/// **Differs from** PyTorch: one step counter for all parameters, so a parameter that gets its first gradient late
/// is corrected as if it had been there from the start. AMSGrad keeps the maximum before bias correction, as
/// PyTorch does and the paper (which has no correction) leaves open. The raw ε is the paper's second form, which
/// the first TensorFlow and the LRD-GRU language-model code use: there ε is not bias-corrected.
#[derive(Clone, Debug, PartialEq)]
pub struct Adam {
    /// η, learning rate per update.
    pub lr: f64,
    /// β₁, decay of the mean.
    pub beta1: f64,
    /// β₂, decay of the mean square.
    pub beta2: f64,
    /// ε.
    pub eps: f64,
    /// Whether ε is added to the root before its bias correction.
    pub raw_eps: bool,
    /// λ, weight decay added to the gradient.
    pub weight_decay: f64,
    /// Whether the denominator may only grow.
    pub amsgrad: bool,
}

impl Default for Adam {
    fn default() -> Adam {
        Adam {
            lr: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            raw_eps: false,
            weight_decay: 0.0,
            amsgrad: false,
        }
    }
}

impl Adam {
    /// The checks that Adam and AdamW share, on behalf of `owner`.
    pub(super) fn validate_for(&self, owner: &'static str) -> Result<()> {
        Range::NonNegative.check(owner, "lr", self.lr)?;
        Range::Below1.check(owner, "beta1", self.beta1)?;
        Range::Below1.check(owner, "beta2", self.beta2)?;
        Range::NonNegative.check(owner, "eps", self.eps)?;
        Range::NonNegative.check(owner, "weight_decay", self.weight_decay)
    }

    /// Update number `t`, counted from 1, that Adam and AdamW share.
    pub(super) fn step(&self, lr: f64, decoupled: bool, t: u64) -> Step<'_> {
        let t = t as f64;
        let root2 = (1.0 - self.beta2.powf(t)).sqrt();
        let mut rule =
            Step { adam: self, scale: lr / (1.0 - self.beta1.powf(t)), root2, shrink: 1.0, l2: 0.0 };
        if self.raw_eps {
            rule.scale *= root2;
            rule.root2 = 1.0;
        }
        if decoupled {
            rule.shrink = 1.0 - lr * self.weight_decay;
        } else {
            rule.l2 = self.weight_decay;
        }
        rule
    }
}

impl Optimizer for Adam {
    fn name(&self) -> &'static str {
        "adam"
    }

    fn settings(&self) -> Settings {
        Settings::new()
            .with("lr", self.lr)
            .with("beta1", self.beta1)
            .with("beta2", self.beta2)
            .with("eps", self.eps)
            .with("raw_eps", self.raw_eps)
            .with("weight_decay", self.weight_decay)
            .with("amsgrad", self.amsgrad)
    }

    fn learning_rate(&self) -> f64 {
        self.lr
    }

    fn slots(&self) -> Vec<Slot> {
        let suffixes: &[&str] = if self.amsgrad { &["m", "v", "w"] } else { &["m", "v"] };
        suffixes.iter().map(|suffix| Slot { suffix, initial: 0.0 }).collect()
    }

    fn validate(&self) -> Result<()> {
        self.validate_for(self.name())
    }

    fn update(&self, grads: &Params, state: &mut State, params: &mut Params, lr_scale: f64) -> Result<()> {
        let rule = self.step(scaled_lr(self, lr_scale)?, false, state.step() + 1);
        for_each(&self.slots(), grads, state, params, &rule)
    }

    fn elementwise(&self, step: u64, lr_scale: f64) -> Result<Option<Box<dyn Elementwise + '_>>> {
        Ok(Some(Box::new(self.step(scaled_lr(self, lr_scale)?, false, step))))
    }
}

/// One update.
pub(super) struct Step<'a> {
    adam: &'a Adam,
    /// η over the bias correction of the mean.
    scale: f64,
    /// Root of the bias correction of the mean square.
    root2: f64,
    /// Factor of the parameter (decoupled weight decay).
    shrink: f64,
    /// Multiple of the parameter added to the gradient.
    l2: f64,
}

impl Rule for Step<'_> {
    fn numbers(&self) -> [f64; SHARED] {
        let adam = self.adam;
        [
            adam.beta1,
            1.0 - adam.beta1,
            adam.beta2,
            1.0 - adam.beta2,
            self.scale,
            self.root2,
            self.shrink,
            self.l2,
        ]
    }

    #[inline(always)]
    fn apply<A: Arith>(&self, a: &mut A, n: &[A::Number; SHARED], c: Component<'_, A::Number>) -> A::Number {
        let [b1, c1, b2, c2, scale, root2, shrink, l2] = *n;
        let (eps, zero) = (a.number(self.adam.eps), a.number(0.0));
        let (m, v, more) = match c.slots {
            [m, v, more @ ..] => (m, v, more),
            _ => return c.p,
        };
        let decay = a.mul(l2, c.p);
        let g = a.add(c.g, decay);
        let p = a.mul(c.p, shrink);
        let (before, now) = (a.mul(b1, *m), a.mul(c1, g));
        *m = a.add(before, now);
        let square = a.mul(g, g);
        let (before, now) = (a.mul(b2, *v), a.mul(c2, square));
        *v = a.add(before, now);
        let mut under = *v;
        if let [w] = more {
            *w = a.larger(*v, *w);
            under = *w;
        }
        let under = a.sqrt(under);
        let under = a.div(under, root2);
        let under = a.add(under, eps);
        // With ε = 0 a component that never had a gradient is 0/0: it stays.
        let direction = a.div(*m, under);
        let direction = a.at_zero(under, zero, direction);
        let step = a.mul(scale, direction);
        a.sub(p, step)
    }
}

/// Row of the table.
pub(super) const ENTRY: Entry<dyn Optimizer> = Entry {
    name: "adam",
    summary: "running mean over the root of the running mean square, bias-corrected; optional AMSGrad",
    options: &[
        OptionSpec::new("lr", "1e-3", "learning rate per update"),
        OptionSpec::new("beta1", "0.9", "decay of the mean"),
        OptionSpec::new("beta2", "0.999", "decay of the mean square"),
        OptionSpec::new("eps", "1e-8", "epsilon, outside the root"),
        OptionSpec::new(
            "raw_eps",
            "false",
            "epsilon before the bias correction (first TensorFlow, LRD-GRU LM)",
        ),
        OptionSpec::new("weight_decay", "0", "multiple of the parameter added to its gradient"),
        OptionSpec::new("amsgrad", "false", "the denominator may only grow"),
    ],
    build,
};

fn build(settings: &Settings) -> Result<Box<dyn Optimizer>> {
    let read = settings.reader(ENTRY.name, ENTRY.options)?;
    let adam = Adam {
        lr: read.real("lr")?,
        beta1: read.real("beta1")?,
        beta2: read.real("beta2")?,
        eps: read.real("eps")?,
        raw_eps: read.flag("raw_eps")?,
        weight_decay: read.real("weight_decay")?,
        amsgrad: read.flag("amsgrad")?,
    };
    adam.validate()?;
    Ok(Box::new(adam))
}
