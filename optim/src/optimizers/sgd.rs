//! Stochastic gradient descent, with momentum.

use retrograd_engine::Params;

use crate::elementwise::{Arith, Component, Elementwise, Rule, SHARED, for_each};
use crate::error::{Error, Result};
use crate::optimizer::{Optimizer, scaled_lr};
use crate::settings::{OptionSpec, Range, Settings};
use crate::state::{Slot, State};
use crate::table::Entry;

/// Stochastic gradient descent with momentum (Polyak 1964) or Nesterov's momentum, in the form of Sutskever et
/// al. (2013, "On the importance of initialization and momentum in deep learning") as PyTorch writes it.
///
/// ```text
/// g ← g + λ θ                 weight decay λ
/// m ← μ m + g                 momentum μ
/// d = g + μ m                 Nesterov;   else d = m;   without momentum d = g
/// θ ← θ − η d
/// ```
///
/// Defaults: η = 1e-3, μ = 0, λ = 0, no Nesterov (PyTorch's).
/// State: `m`, the parameter's type and sizes, starts at 0; nothing if μ = 0.
///
/// **Differs from** PyTorch: no dampening, no maximization. From Sutskever's paper: the rate multiplies the
/// direction, not the velocity, so the two differ when the rate changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Sgd {
    /// η, learning rate per update.
    pub lr: f64,
    /// μ, momentum.
    pub momentum: f64,
    /// Whether to look ahead (Nesterov).
    pub nesterov: bool,
    /// λ, weight decay added to the gradient.
    pub weight_decay: f64,
}

impl Default for Sgd {
    fn default() -> Sgd {
        Sgd { lr: 1e-3, momentum: 0.0, nesterov: false, weight_decay: 0.0 }
    }
}

const M: Slot = Slot { suffix: "m", initial: 0.0 };

impl Optimizer for Sgd {
    fn name(&self) -> &'static str {
        "sgd"
    }

    fn settings(&self) -> Settings {
        Settings::new()
            .with("lr", self.lr)
            .with("momentum", self.momentum)
            .with("nesterov", self.nesterov)
            .with("weight_decay", self.weight_decay)
    }

    fn learning_rate(&self) -> f64 {
        self.lr
    }

    fn slots(&self) -> Vec<Slot> {
        if self.momentum > 0.0 { vec![M] } else { vec![] }
    }

    fn validate(&self) -> Result<()> {
        let name = self.name();
        Range::NonNegative.check(name, "lr", self.lr)?;
        Range::Below1.check(name, "momentum", self.momentum)?;
        Range::NonNegative.check(name, "weight_decay", self.weight_decay)?;
        if self.nesterov && self.momentum == 0.0 {
            let (expected, got) = ("a momentum above 0 with nesterov=true".into(), "0".into());
            return Err(Error::Value { owner: name, key: "momentum".into(), expected, got });
        }
        Ok(())
    }

    fn update(&self, grads: &Params, state: &mut State, params: &mut Params, lr_scale: f64) -> Result<()> {
        let lr = scaled_lr(self, lr_scale)?;
        for_each(&self.slots(), grads, state, params, &Step { sgd: self, lr })
    }

    fn elementwise(&self, _: u64, lr_scale: f64) -> Result<Option<Box<dyn Elementwise + '_>>> {
        Ok(Some(Box::new(Step { sgd: self, lr: scaled_lr(self, lr_scale)? })))
    }
}

struct Step<'a> {
    sgd: &'a Sgd,
    lr: f64,
}

impl Rule for Step<'_> {
    fn numbers(&self) -> [f64; SHARED] {
        [self.lr, self.sgd.momentum, self.sgd.weight_decay, 0.0, 0.0, 0.0, 0.0, 0.0]
    }

    #[inline(always)]
    fn apply<A: Arith>(&self, a: &mut A, n: &[A::Number; SHARED], c: Component<'_, A::Number>) -> A::Number {
        let [lr, mu, decay, ..] = *n;
        let shrinking = a.mul(decay, c.p);
        let g = a.add(c.g, shrinking);
        let mut d = g;
        if let [m] = c.slots {
            let before = a.mul(mu, *m);
            *m = a.add(before, g);
            d = *m;
            if self.sgd.nesterov {
                let ahead = a.mul(mu, *m);
                d = a.add(g, ahead);
            }
        }
        let step = a.mul(lr, d);
        a.sub(c.p, step)
    }
}

/// Row of the table.
pub(super) const ENTRY: Entry<dyn Optimizer> = Entry {
    name: "sgd",
    summary: "stochastic gradient descent: momentum, Nesterov, weight decay",
    options: &[
        OptionSpec::new("lr", "1e-3", "learning rate per update"),
        OptionSpec::new("momentum", "0", "momentum, 0 for none"),
        OptionSpec::new("nesterov", "false", "Nesterov's momentum"),
        OptionSpec::new("weight_decay", "0", "multiple of the parameter added to its gradient"),
    ],
    build,
};

fn build(settings: &Settings) -> Result<Box<dyn Optimizer>> {
    let read = settings.reader(ENTRY.name, ENTRY.options)?;
    let sgd = Sgd {
        lr: read.real("lr")?,
        momentum: read.real("momentum")?,
        nesterov: read.flag("nesterov")?,
        weight_decay: read.real("weight_decay")?,
    };
    sgd.validate()?;
    Ok(Box::new(sgd))
}
