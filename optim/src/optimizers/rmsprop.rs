//! RMSprop, in every form that recurrent-network papers call by that name.

use retrograd_engine::Params;

use crate::elementwise::{Arith, Component, Elementwise, Rule, SHARED, for_each};
use crate::error::Result;
use crate::optimizer::{Optimizer, scaled_lr};
use crate::settings::{OptionSpec, Range, Settings};
use crate::state::{Slot, State};
use crate::table::Entry;

/// Where ε stands under the gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Epsilon {
    /// √r
    None,
    /// √(r + ε)
    Inside(f64),
    /// √r + ε
    Outside(f64),
}

/// A published form of RMSprop. They differ in the start of the mean square and in the place of ε, and their
/// first updates differ much: with r₀ = 1 they are small, with r₀ = 0 every component moves by η/√(1−ρ).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RmsPropVariant {
    /// RC uRNN code (Arjovsky, Shah, Bengio 2016), LR/LRD-GRU code (adding, MNIST), FC uRNN code (copy):
    /// r₀ = 1e-3, no ε. The KRU paper follows this setup.
    Urnn,
    /// LR/LRD-GRU code, memory tasks: r₀ = 1e-3, ε = 1e-8 inside the root.
    UrnnEps,
    /// FC uRNN code, MNIST (Wisdom et al. 2016): r₀ = 0, ε = 1e-8 outside.
    FcUrnn,
    /// First TensorFlow's optimiser, used by the EURNN and GORU codes: r₀ = 1, ε = 1e-10 inside.
    Tf1,
    /// oRNN code (Mhammedi et al. 2017): r₀ = 0, ε = 1e-6 inside.
    Ornn,
    /// `torch.optim.RMSprop`: r₀ = 0, ρ = 0.99, ε = 1e-8 outside, η = 1e-2.
    PyTorch,
}

impl RmsPropVariant {
    /// Every variant by name.
    pub const ALL: &[(&str, RmsPropVariant)] = &[
        ("uRNN", RmsPropVariant::Urnn),
        ("uRNN-eps", RmsPropVariant::UrnnEps),
        ("FC-uRNN", RmsPropVariant::FcUrnn),
        ("TF1", RmsPropVariant::Tf1),
        ("oRNN", RmsPropVariant::Ornn),
        ("pytorch", RmsPropVariant::PyTorch),
    ];
}

/// RMSprop (Tieleman and Hinton 2012, lecture 6.5): the gradient over the root of its running mean square.
///
/// ```text
/// g ← g + λ θ                                        weight decay λ
/// r ← ρ r + (1−ρ) g²,   r starts at r₀               per real component
/// a ← ρ a + (1−ρ) g,    v = max(r − a², 0)           centered;  else v = r
/// d = g/√v   |   g/√(v+ε)   |   g/(√v+ε)             by the place of ε; 0 where the denominator is 0
/// m ← μ m + d,  θ ← θ − η m                          with momentum;  else θ ← θ − η d
/// ```
///
/// Defaults: variant `uRNN` with η = 1e-3, ρ = 0.9, r₀ = 1e-3, no ε. The others: [`RmsPropVariant`]; all but
/// `pytorch` have η = 1e-3, ρ = 0.9.
/// State: `r` (starts at r₀), `m` with momentum and `a` if centered (start at 0), the parameter's type and sizes.
///
/// **Differs from** PyTorch: centered with r < a² by rounding is NaN there and uses 0 here. From the codes without
/// ε: 0/0 is NaN there and moves nothing here. From the first TensorFlow with momentum: the rate multiplies `m`
/// here and `d` there, which differs when the rate changes.
#[derive(Clone, Debug, PartialEq)]
pub struct RmsProp {
    /// η, learning rate per update.
    pub lr: f64,
    /// ρ, decay of the running means.
    pub decay: f64,
    /// r₀, start of the mean square.
    pub r0: f64,
    /// ε and its place.
    pub epsilon: Epsilon,
    /// μ, momentum.
    pub momentum: f64,
    /// Whether the running mean of the gradient is taken off.
    pub centered: bool,
    /// λ, weight decay added to the gradient.
    pub weight_decay: f64,
}

impl RmsProp {
    /// A published form.
    pub fn variant(variant: RmsPropVariant) -> RmsProp {
        let (lr, decay) = if variant == RmsPropVariant::PyTorch { (1e-2, 0.99) } else { (1e-3, 0.9) };
        let (r0, epsilon) = match variant {
            RmsPropVariant::Urnn => (1e-3, Epsilon::None),
            RmsPropVariant::UrnnEps => (1e-3, Epsilon::Inside(1e-8)),
            RmsPropVariant::FcUrnn | RmsPropVariant::PyTorch => (0.0, Epsilon::Outside(1e-8)),
            RmsPropVariant::Tf1 => (1.0, Epsilon::Inside(1e-10)),
            RmsPropVariant::Ornn => (0.0, Epsilon::Inside(1e-6)),
        };
        RmsProp { lr, decay, r0, epsilon, momentum: 0.0, centered: false, weight_decay: 0.0 }
    }
}

impl Default for RmsProp {
    fn default() -> RmsProp {
        RmsProp::variant(RmsPropVariant::Urnn)
    }
}

impl Optimizer for RmsProp {
    fn name(&self) -> &'static str {
        "rmsprop"
    }

    fn settings(&self) -> Settings {
        let (place, eps) = match self.epsilon {
            Epsilon::None => ("none", 0.0),
            Epsilon::Inside(eps) => ("inside", eps),
            Epsilon::Outside(eps) => ("outside", eps),
        };
        Settings::new()
            .with("lr", self.lr)
            .with("decay", self.decay)
            .with("r0", self.r0)
            .with("eps", eps)
            .with("eps_place", place)
            .with("momentum", self.momentum)
            .with("centered", self.centered)
            .with("weight_decay", self.weight_decay)
    }

    fn learning_rate(&self) -> f64 {
        self.lr
    }

    fn slots(&self) -> Vec<Slot> {
        let mut slots = vec![Slot { suffix: "r", initial: self.r0 }];
        slots.extend((self.momentum > 0.0).then_some(Slot { suffix: "m", initial: 0.0 }));
        slots.extend(self.centered.then_some(Slot { suffix: "a", initial: 0.0 }));
        slots
    }

    fn validate(&self) -> Result<()> {
        let name = self.name();
        Range::NonNegative.check(name, "lr", self.lr)?;
        Range::Below1.check(name, "decay", self.decay)?;
        Range::NonNegative.check(name, "r0", self.r0)?;
        if let Epsilon::Inside(eps) | Epsilon::Outside(eps) = self.epsilon {
            Range::NonNegative.check(name, "eps", eps)?;
        }
        Range::Below1.check(name, "momentum", self.momentum)?;
        Range::NonNegative.check(name, "weight_decay", self.weight_decay)
    }

    fn update(&self, grads: &Params, state: &mut State, params: &mut Params, lr_scale: f64) -> Result<()> {
        let lr = scaled_lr(self, lr_scale)?;
        for_each(&self.slots(), grads, state, params, &Step { rms: self, lr })
    }

    fn elementwise(&self, _: u64, lr_scale: f64) -> Result<Option<Box<dyn Elementwise + '_>>> {
        Ok(Some(Box::new(Step { rms: self, lr: scaled_lr(self, lr_scale)? })))
    }
}

struct Step<'a> {
    rms: &'a RmsProp,
    lr: f64,
}

impl Rule for Step<'_> {
    fn numbers(&self) -> [f64; SHARED] {
        let rms = self.rms;
        let (inside, outside) = match rms.epsilon {
            Epsilon::None => (0.0, 0.0),
            Epsilon::Inside(eps) => (eps, 0.0),
            Epsilon::Outside(eps) => (0.0, eps),
        };
        [self.lr, rms.decay, 1.0 - rms.decay, rms.momentum, rms.weight_decay, inside, outside, 0.0]
    }

    #[inline(always)]
    fn apply<A: Arith>(&self, a: &mut A, n: &[A::Number; SHARED], c: Component<'_, A::Number>) -> A::Number {
        let [lr, rho, rest, mu, decay, inside, outside, _] = *n;
        let zero = a.number(0.0);
        let (r, more) = match c.slots {
            [r, more @ ..] => (r, more),
            [] => return c.p,
        };
        // `⟨x⟩ ← ρ ⟨x⟩ + (1−ρ) x`
        let mean = |a: &mut A, before: A::Number, x: A::Number| {
            let (before, x) = (a.mul(rho, before), a.mul(rest, x));
            a.add(before, x)
        };
        let shrinking = a.mul(decay, c.p);
        let g = a.add(c.g, shrinking);
        let square = a.mul(g, g);
        *r = mean(a, *r, square);
        let mut v = *r;
        if self.rms.centered
            && let Some(of_g) = more.last_mut()
        {
            *of_g = mean(a, *of_g, g);
            let square = a.mul(*of_g, *of_g);
            v = a.sub(v, square);
            v = a.larger(v, zero);
        }
        let under = a.add(v, inside);
        let under = a.sqrt(under);
        let under = a.add(under, outside);
        let d = a.div(g, under);
        let mut d = a.at_zero(under, zero, d);
        if self.rms.momentum > 0.0
            && let Some(m) = more.first_mut()
        {
            let before = a.mul(mu, *m);
            *m = a.add(before, d);
            d = *m;
        }
        let step = a.mul(lr, d);
        a.sub(c.p, step)
    }
}

/// Row of the table.
pub(super) const ENTRY: Entry<dyn Optimizer> = Entry {
    name: "rmsprop",
    summary: "gradient over the root of its running mean square, in six published variants",
    options: &[
        OptionSpec::new("variant", "uRNN", "uRNN, uRNN-eps, FC-uRNN, TF1, oRNN or pytorch"),
        OptionSpec::new("lr", "(by variant)", "learning rate per update: 1e-3, pytorch 1e-2"),
        OptionSpec::new("decay", "(by variant)", "decay of the running means: 0.9, pytorch 0.99"),
        OptionSpec::new("r0", "(by variant)", "start of the mean square"),
        OptionSpec::new("eps", "(by variant)", "epsilon"),
        OptionSpec::new("eps_place", "(by variant)", "none, inside or outside the root"),
        OptionSpec::new("momentum", "0", "momentum, 0 for none"),
        OptionSpec::new("centered", "false", "take off the running mean of the gradient"),
        OptionSpec::new("weight_decay", "0", "multiple of the parameter added to its gradient"),
    ],
    build,
};

#[derive(Clone, Copy)]
enum Place {
    None,
    Inside,
    Outside,
}

fn build(settings: &Settings) -> Result<Box<dyn Optimizer>> {
    let read = settings.reader(ENTRY.name, ENTRY.options)?;
    let base = RmsProp::variant(read.choice("variant", RmsPropVariant::ALL)?);
    let (place, eps) = match base.epsilon {
        Epsilon::None => (Place::None, 0.0),
        Epsilon::Inside(eps) => (Place::Inside, eps),
        Epsilon::Outside(eps) => (Place::Outside, eps),
    };
    let places = [("none", Place::None), ("inside", Place::Inside), ("outside", Place::Outside)];
    let place = if read.given("eps_place") { read.choice("eps_place", &places)? } else { place };
    let eps = read.real_or("eps", eps)?;
    if matches!(place, Place::None) && eps != 0.0 {
        let (owner, key) = (ENTRY.name, "eps".to_string());
        let expected = "0, or eps_place=inside or outside".to_string();
        return Err(crate::Error::Value { owner, key, expected, got: eps.to_string() });
    }
    let rms = RmsProp {
        lr: read.real_or("lr", base.lr)?,
        decay: read.real_or("decay", base.decay)?,
        r0: read.real_or("r0", base.r0)?,
        epsilon: match place {
            Place::None => Epsilon::None,
            Place::Inside => Epsilon::Inside(eps),
            Place::Outside => Epsilon::Outside(eps),
        },
        momentum: read.real("momentum")?,
        centered: read.flag("centered")?,
        weight_decay: read.real("weight_decay")?,
    };
    rms.validate()?;
    Ok(Box::new(rms))
}
