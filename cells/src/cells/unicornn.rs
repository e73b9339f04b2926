//! UnICORNN: undamped independent controlled oscillatory recurrent neural network. Its steps can be inverted.
//!
//! Rusch, Mishra, 2021, "UnICORNN: A recurrent model for learning very long time dependencies", ICML, arXiv:2103.05487.
//! With the operator `diagonal`, `W h = w ⊙ h`. Letters of the paper in brackets where they differ: input `U` \[`V`\],
//! time step `dt` \[`Δt`\].
//!
//! ```text
//! y_t = y_{t−1} + dt σ̂(c) ⊙ z_t                                               (1)
//! z_t = z_{t−1} − dt σ̂(c) ⊙ (tanh(W y_{t−1} + U x_t + b) + α y_{t−1})         (2)
//! ```
//!
//! with `σ̂(u) = 0.5 + 0.5 tanh(u/2)`, the logistic function: a symplectic step of Euler's method for oscillators that are
//! driven and coupled through the layers alone. What (2) adds to `z` it computes from `y` before, and what (1) adds to
//! `y` from `z` after, so the state before a step follows from the state after it:
//!
//! ```text
//! y_{t−1} = y_t − dt σ̂(c) ⊙ z_t
//! z_{t−1} = z_t + dt σ̂(c) ⊙ (tanh(W y_{t−1} + U x_t + b) + α y_{t−1})
//! ```
//!
//! and training may walk the states back instead of keeping them ([`ModelSpec::walk_back`](crate::ModelSpec)).
//!
//! | symbol | shape | initialization | meaning |
//! |---|---|---|---|
//! | `U` | `[C, H]` | uniform on `±sqrt(6/C)` | input weights |
//! | `W` | the operator's, one matrix | the operator's: `diagonal` uniform on ±1 | recurrent weights `w` |
//! | `b` | `[H]` | 0 | bias |
//! | `c` | `[H]` | uniform on ±0.1 | time scale of each oscillator |
//! | `y`, `z` | `[N, H]` | 0 or learned | position and velocity; `y` is what others see |
//!
//! `C·H + 3·H` numbers.
//!
//! **Expansion.** For one oscillator whose slope `θ = w tanh'` stayed the same a step back would keep an ellipse, whatever
//! `θ`. As it varies between 0 and `w`, in the norm that belongs to its middle an error grows by at most
//! `1 + s |w|/2 (1/sqrt(α + |w|/2) + s)` a step, `s = dt σ̂(c) ≤ dt`. The cell says that for `|w| ≤ 2`. On other operators
//! than `diagonal` it says `(1 + s)(1 + s (α + ‖W‖))` with `‖W‖ ≤ 2`, which allows fewer steps. Every run compares.
//!
//! **Differs from the paper**: there `w` begins uniform on `[0, 1]`, and `dt` and `α` come from a search for each task;
//! the defaults here are 0.1 and 1. The additional residual connections between layers of its deeper networks are not
//! here.

use std::sync::Arc;

use retrograd_engine::{Tape, Var};
use retrograd_ops as ops;

use crate::cell::{BoundCell, Cell, Input, InputMap, StatePart};
use crate::declare::Declare;
use crate::error::{Error, Result};
use crate::init::Init;
use crate::operator::{BoundOperator, Recurrence, RecurrentOperator};
use crate::operators::diagonal;
use crate::settings::{OptionDoc, Options};
use crate::table::CellEntry;

/// Largest recurrent weight (or norm) for which the expansion of the inverse is stated.
const LARGEST_WEIGHT: f64 = 2.0;

/// Oscillators with steps that can be inverted; see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unicornn {
    /// Time step.
    pub dt: f64,
    /// Stiffness `α`, the square of the frequency of an oscillator without drive.
    pub alpha: f64,
}

impl Default for Unicornn {
    fn default() -> Unicornn {
        Unicornn { dt: 0.1, alpha: 1.0 }
    }
}

/// Table entry of [`Unicornn`].
pub const UNICORNN: CellEntry = CellEntry {
    name: "unicornn",
    summary: "undamped oscillators; steps that can be inverted, for training that walks states back",
    operator: "diagonal",
    options: &[
        OptionDoc { key: "dt", default: "0.1", doc: "time step" },
        OptionDoc { key: "alpha", default: "1", doc: "stiffness of an oscillator" },
    ],
    build: |options: &Options<'_>| {
        let cell = Unicornn { dt: options.number("dt")?, alpha: options.number("alpha")? };
        if !(cell.dt > 0.0 && cell.dt.is_finite() && cell.alpha >= 0.0 && cell.alpha.is_finite()) {
            let what =
                format!("unicornn: dt {} and alpha {}, expected dt > 0 and alpha >= 0", cell.dt, cell.alpha);
            return Err(Error::model(what));
        }
        Ok(Arc::new(cell))
    },
};

impl Cell for Unicornn {
    fn name(&self) -> &'static str {
        UNICORNN.name
    }

    fn declare(
        &self,
        ctx: &mut Declare<'_>,
        input: Input,
        hidden: usize,
        operator: &dyn RecurrentOperator,
    ) -> Result<Box<dyn BoundCell>> {
        let of_input = Init::Uniform((6.0 / input.size().max(1) as f64).sqrt());
        let u = InputMap::declare(ctx, input, 1, hidden, false, of_input)?;
        let w = Recurrence { name: "W", gates: &[""], n: hidden, complex: false, init: None };
        let w = operator.declare(ctx, w)?;
        let b = ctx.real("b", &[hidden], Init::Zeros)?;
        let c = ctx.real("c", &[hidden], Init::Uniform(0.1))?;
        let tape = ctx.tape();
        let scale = ops::sigmoid(tape, c)?;
        let scale = ops::scale(tape, scale, self.dt)?;
        let alone = operator.name() == diagonal::DIAGONAL.name;
        Ok(Box::new(BoundUnicornn { u: u.with_bias(b), w, scale, cell: *self, hidden, alone }))
    }
}

#[derive(Debug)]
struct BoundUnicornn {
    u: InputMap,
    w: Box<dyn BoundOperator>,
    /// `dt σ̂(c)`.
    scale: Var,
    cell: Unicornn,
    hidden: usize,
    /// Whether every oscillator sees itself alone.
    alone: bool,
}

impl BoundUnicornn {
    /// What (2) takes from `z`: `dt σ̂(c) ⊙ (tanh(W y + U x + b) + α y)`.
    fn force(&self, tape: &mut Tape, y: Var, x: Var) -> retrograd_engine::Result<Var> {
        let ux = self.u.apply(tape, x)?[0];
        let wy = self.w.apply(tape, y, 0)?;
        let a = ops::add(tape, wy, ux)?;
        let driven = ops::tanh(tape, a)?;
        let pulled = ops::scale(tape, y, self.cell.alpha)?;
        let sum = ops::add(tape, driven, pulled)?;
        ops::mul(tape, self.scale, sum)
    }
}

impl BoundCell for BoundUnicornn {
    fn state(&self) -> Vec<StatePart> {
        let part = |name| StatePart { name, width: self.hidden, complex: false };
        vec![part("y"), part("z")]
    }

    fn step(&self, tape: &mut Tape, state: &[Var], x: Var) -> retrograd_engine::Result<Vec<Var>> {
        let force = self.force(tape, state[0], x)?;
        let z = ops::sub(tape, state[1], force)?; // eq. (2)
        let moved = ops::mul(tape, self.scale, z)?;
        let y = ops::add(tape, state[0], moved)?; // eq. (1)
        Ok(vec![y, z])
    }

    fn inverse(&self, tape: &mut Tape, after: &[Var], x: Var) -> retrograd_engine::Result<Vec<Var>> {
        let moved = ops::mul(tape, self.scale, after[1])?;
        let y = ops::sub(tape, after[0], moved)?; // eq. (1)
        let force = self.force(tape, y, x)?;
        let z = ops::add(tape, after[1], force)?; // eq. (2)
        Ok(vec![y, z])
    }

    fn expansion(&self) -> Option<f64> {
        let (s, alpha, w) = (self.cell.dt, self.cell.alpha, LARGEST_WEIGHT);
        Some(if self.alone {
            1.0 + s * w / 2.0 * (1.0 / (alpha + w / 2.0).sqrt() + s)
        } else {
            (1.0 + s) * (1.0 + s * (alpha + w))
        })
    }
}
