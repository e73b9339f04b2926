//! Optimisers of retrograd: updates on the host for [`Params`](retrograd_engine::Params), and what surrounds them.
//!
//! - [`Optimizer`]: configuration in `self`, memory in a [`State`] of named tensors that a checkpoint stores to the
//!   bit. [`Sgd`], [`RmsProp`] in six published variants, [`Adam`], [`AdamW`]; [`Cayley`] for unitary matrices, beside
//!   one of the others in a [`Divided`]; [`Kfac`], which asks the network about its curvature ([`kfac`]).
//! - [`GradientRules`]: clipping by value or norm, and what to do about NaN.
//! - [`LrSchedule`]: the factor on the rate; [`ReduceOnPlateau`] looks at the validation metric.
//! - [`Penalty`] (a term of the loss in the parameters, as KRU's [`SoftUnitary`]) and [`Constraint`] (a set the
//!   parameters must stay in).
//! - [`Recipe`]: all of them, in order. [`DeviceUpdate`]: updates where the parameters are on a device.
//!
//! Complex parameters are pairs of reals: gradients are ∂L/∂x + i ∂L/∂y for z = x + iy, a step subtracts them
//! without conjugation, and there is one second moment per real component.
//!
//! ```
//! use retrograd_engine::{Params, Tensor};
//! use retrograd_optim::{Settings, optimizer};
//!
//! // The least of (w − 3)².
//! let adam = optimizer("adam", &Settings::parse(["lr=0.1"])?)?;
//! let mut params: Params = [("w".to_string(), Tensor::scalar(0.0f64))].into_iter().collect();
//! let mut state = adam.init(&params)?;
//! for _ in 0..500 {
//!     let w = params.require("w")?.item()?;
//!     let grads = [("w".to_string(), Tensor::scalar(2.0 * (w - 3.0)))].into_iter().collect();
//!     adam.update(&grads, &mut state, &mut params, 1.0)?;
//! }
//! assert!((params.require("w")?.item()? - 3.0).abs() < 1e-3);
//! # Ok::<(), retrograd_optim::Error>(())
//! ```
//!
//! # How to add an optimiser
//!
//! Write one file `src/optimizers/NAME.rs` with the optimiser, its doc (equations with their source, defaults, state,
//! **Differs from**) and its row `ENTRY`; add its `mod` line and its table line below. The configuration, the
//! program, `tests/inventory.rs` and the properties in `tests/optim` pick it up by the table. A schedule,
//! a penalty or a constraint is added the same way, in its own folder.
//!
//! ```
//! use retrograd_engine::{Params, Tensor};
//! use retrograd_optim::elementwise::{Arith, Component, Elementwise, Rule, SHARED, for_each};
//! use retrograd_optim::{Entry, OptionSpec, Optimizer, Range, Result, Settings, Slot, State, scaled_lr};
//!
//! /// Sign descent: `m ← μ m + (1−μ) g`, `θ ← θ − η sign(m)`.
//! struct SignDescent {
//!     lr: f64,
//!     momentum: f64,
//! }
//!
//! impl Optimizer for SignDescent {
//!     fn name(&self) -> &'static str {
//!         "sign"
//!     }
//!     fn settings(&self) -> Settings {
//!         Settings::new().with("lr", self.lr).with("momentum", self.momentum)
//!     }
//!     fn learning_rate(&self) -> f64 {
//!         self.lr
//!     }
//!     fn slots(&self) -> Vec<Slot> {
//!         vec![Slot { suffix: "m", initial: 0.0 }]
//!     }
//!     fn validate(&self) -> Result<()> {
//!         Range::NonNegative.check(self.name(), "lr", self.lr)?;
//!         Range::Below1.check(self.name(), "momentum", self.momentum)
//!     }
//!     fn update(&self, grads: &Params, state: &mut State, params: &mut Params, lr_scale: f64) -> Result<()> {
//!         let rule = Step { lr: scaled_lr(self, lr_scale)?, momentum: self.momentum };
//!         for_each(&self.slots(), grads, state, params, &rule)
//!     }
//!     // The same on a device.
//!     fn elementwise(&self, _: u64, lr_scale: f64) -> Result<Option<Box<dyn Elementwise + '_>>> {
//!         Ok(Some(Box::new(Step { lr: scaled_lr(self, lr_scale)?, momentum: self.momentum })))
//!     }
//! }
//!
//! struct Step {
//!     lr: f64,
//!     momentum: f64,
//! }
//!
//! impl Rule for Step {
//!     fn numbers(&self) -> [f64; SHARED] {
//!         [self.lr, self.momentum, 1.0 - self.momentum, 0.0, 0.0, 0.0, 0.0, 0.0]
//!     }
//!     fn apply<A: Arith>(&self, a: &mut A, n: &[A::Number; SHARED], c: Component<'_, A::Number>) -> A::Number {
//!         let ([lr, mu, rest, ..], [m]) = (*n, c.slots) else { return c.p };
//!         let (before, now) = (a.mul(mu, *m), a.mul(rest, c.g));
//!         *m = a.add(before, now);
//!         let zero = a.number(0.0);
//!         let other = a.sub(zero, *m);
//!         let size = a.larger(*m, other);
//!         let sign = a.div(*m, size);
//!         let sign = a.at_zero(size, zero, sign);
//!         let step = a.mul(lr, sign);
//!         a.sub(c.p, step)
//!     }
//! }
//!
//! const ENTRY: Entry<dyn Optimizer> = Entry {
//!     name: "sign",
//!     summary: "steps of equal size against the sign of the running mean",
//!     options: &[
//!         OptionSpec::new("lr", "1e-3", "learning rate per update"),
//!         OptionSpec::new("momentum", "0.9", "decay of the mean"),
//!     ],
//!     build: |settings| {
//!         let read = settings.reader(ENTRY.name, ENTRY.options)?;
//!         let sign = SignDescent { lr: read.real("lr")?, momentum: read.real("momentum")? };
//!         sign.validate()?;
//!         Ok(Box::new(sign))
//!     },
//! };
//!
//! let sign = (ENTRY.build)(&Settings::parse(["lr=0.25"])?)?;
//! let mut params: Params = [("w".to_string(), Tensor::scalar(1.0f32))].into_iter().collect();
//! let grads = [("w".to_string(), Tensor::scalar(-7.0f32))].into_iter().collect();
//! let mut state = sign.init(&params)?;
//! sign.update(&grads, &mut state, &mut params, 1.0)?;
//! assert_eq!(params.require("w")?.item()?, 1.25);
//! assert!(state.tensors().get("w/m").is_some());
//! # Ok::<(), retrograd_optim::Error>(())
//! ```

#![forbid(unsafe_code)]

mod constraint;
mod device;
mod divided;
pub mod elementwise;
mod error;
mod gradients;
pub mod kfac;
mod optimizer;
mod penalty;
mod recipe;
mod schedule;
mod select;
mod settings;
mod state;
mod table;

pub use constraint::{Constraint, Support};
pub use device::DeviceUpdate;
pub use divided::Divided;
pub use error::{Error, Result};
pub use gradients::{
    Clip, GRADIENT_OPTIONS, GradientRules, NonFinite, NormForm, Processed, Verdict, global_norm,
};
pub use kfac::{CgOptions, CgResult, Curvature, NoCurvature, conjugate_gradients};
pub use optimizer::{Optimizer, scaled_lr};
pub use penalty::Penalty;
pub use recipe::{Recipe, Update};
pub use schedule::{Clock, LrSchedule, LrState, Unit};
pub use select::Select;
pub use settings::{OptionSpec, Range, Reader, Settings};
pub use state::{Slot, State};
pub use table::{Entry, find};

/// A row of [`OPTIMIZERS`].
pub type OptimizerEntry = Entry<dyn Optimizer>;
/// A row of [`SCHEDULES`].
pub type ScheduleEntry = Entry<dyn LrSchedule>;
/// A row of [`PENALTIES`].
pub type PenaltyEntry = Entry<dyn Penalty>;
/// A row of [`CONSTRAINTS`].
pub type ConstraintEntry = Entry<dyn Constraint>;

/// One folder's table. `table!(/// doc  NAME: dyn Trait = a::A, b::{B, C})` gives
///
/// ```text
/// pub use a::A;
/// pub use b::{B, C};
/// /// doc
/// pub const NAME: &[crate::Entry<dyn Trait>] = &[a::ENTRY, b::ENTRY];
/// ```
macro_rules! table {
    ($(#[$doc:meta])* $table:ident: $kind:ty = $($module:ident::{$($item:ident),+}),+ $(,)?) => {
        $(pub use $module::{$($item),+};)+
        $(#[$doc])*
        pub const $table: &[crate::Entry<$kind>] = &[$($module::ENTRY),+];
    };
}

mod optimizers {
    mod adam;
    mod adamw;
    mod kfac;
    mod rmsprop;
    mod sgd;

    table! {
        /// Every optimiser that can be built by name.
        OPTIMIZERS: dyn crate::Optimizer =
            sgd::{Sgd},
            rmsprop::{RmsProp, RmsPropVariant, Epsilon},
            adam::{Adam},
            adamw::{AdamW},
            kfac::{Kfac, KfacSchedule, StepRule, MomentumForm},
    }
}

/// Optimisers of one kind of parameter, that keep it of its kind.
mod multiplicative {
    mod cayley;

    table! {
        /// Every optimiser for unitary matrices that can be built by name. They take square matrices alone, so they
        /// stand beside another one, see [`Divided`](crate::Divided).
        MULTIPLICATIVE: dyn crate::Optimizer = cayley::{Cayley}
    }
}

mod schedules {
    mod constant;
    mod cosine;
    mod decay;
    mod exponential;
    mod plateau;
    mod warmup;

    table! {
        /// Every learning-rate schedule that can be built by name.
        SCHEDULES: dyn crate::LrSchedule =
            constant::{Constant},
            decay::{StepDecay},
            exponential::{Exponential},
            cosine::{Cosine},
            warmup::{WarmUp},
            plateau::{ReduceOnPlateau},
    }
}

mod penalties {
    mod l2;
    mod soft_unitary;

    table! {
        /// Every penalty that can be built by name.
        PENALTIES: dyn crate::Penalty = soft_unitary::{SoftUnitary}, l2::{L2}
    }
}

mod constraints {
    mod grid;
    mod max_norm;
    mod sparse;
    mod unit_norm;

    table! {
        /// Every constraint that can be built by name.
        CONSTRAINTS: dyn crate::Constraint =
            max_norm::{MaxNorm, Along},
            unit_norm::{UnitNorm},
            sparse::{Sparse},
            grid::{Grid},
    }
}

pub use constraints::*;
pub use multiplicative::*;
pub use optimizers::*;
pub use penalties::*;
pub use schedules::*;

/// The optimiser called `name`. Errors: an unknown name or key, with the nearest known one; values that do not fit.
pub fn optimizer(name: &str, settings: &Settings) -> Result<Box<dyn Optimizer>> {
    (find("optimizer", OPTIMIZERS, name)?.build)(settings)
}

/// The optimiser for unitary matrices called `name`. Errors: as [`optimizer`].
pub fn multiplicative(name: &str, settings: &Settings) -> Result<Box<dyn Optimizer>> {
    (find("optimizer of unitary matrices", MULTIPLICATIVE, name)?.build)(settings)
}

/// The schedule called `name`. Errors: as [`optimizer`].
pub fn schedule(name: &str, settings: &Settings) -> Result<Box<dyn LrSchedule>> {
    (find("schedule", SCHEDULES, name)?.build)(settings)
}

/// The penalty called `name`. Errors: as [`optimizer`].
pub fn penalty(name: &str, settings: &Settings) -> Result<Box<dyn Penalty>> {
    (find("penalty", PENALTIES, name)?.build)(settings)
}

/// The constraint called `name`. Errors: as [`optimizer`].
pub fn constraint(name: &str, settings: &Settings) -> Result<Box<dyn Constraint>> {
    (find("constraint", CONSTRAINTS, name)?.build)(settings)
}
