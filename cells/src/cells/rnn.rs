//! RNN: recurrent neural network.
//!
//! Elman, 1990, "Finding structure in time", Cognitive Science 14. With ReLU and `W = I`, the IRNN of Le, Jaitly,
//! Hinton, 2015, "A simple way to initialize recurrent networks of rectified linear units", arXiv:1504.00941. With
//! layer normalization (Ba, Kiros, Hinton, 2016, arXiv:1607.06450), the RNN-orth and RNN-id of Chandar et al., 2019,
//! "Towards non-saturating recurrent units for modelling long-term dependencies", AAAI.
//!
//! ```text
//! a_t = W h_{t−1} + U x_t + b                                  (1)
//! a_t = g ⊙ (a_t − mean(a_t)) / sqrt(var(a_t) + 1e-5) + s      (2)  with layer normalization
//! h_t = tanh(a_t),  relu(a_t)  or  max(a_t, 0.1·a_t)           (3)
//! ```
//!
//! | symbol | shape | initialization | meaning |
//! |---|---|---|---|
//! | `U` | `[C, H]` | Glorot | input weights |
//! | `W` | the operator's | `recurrent_init`, else the operator's | recurrent weights |
//! | `b` | `[H]` | 0 | bias |
//! | `g`, `s` | `[H]` | 1, 0 | gain and shift of the normalization |
//! | `h` | `[N, H]` | 0 or learned | state |
//!
//! Names it goes by, with their settings:
//!
//! | name | settings | of |
//! |---|---|---|
//! | IRNN, RNN-id | `activation=relu recurrent_init=identity`, RNN-id also `layer_norm=true` | Le et al.; Chandar et al. |
//! | RNN-orth | `recurrent_init=orthogonal layer_norm=true` | Chandar et al. |
//! | oRNN | operator `householder`, `activation=leaky_relu`, a learned first state | Mhammedi et al., 2017 |
//! | Spectral-RNN | operator `svd`, `activation=relu` | Zhang, Lei, Dhillon, 2018 |
//! | IndRNN | operator `diagonal`, `activation=relu` | Li et al., 2018 |
//!
//! **Differs from the paper**: nothing.

use std::sync::Arc;

use retrograd_engine::{Tape, Var};
use retrograd_ops as ops;

use crate::cell::{BoundCell, Cell, Input, InputMap, StatePart};
use crate::declare::Declare;
use crate::error::Result;
use crate::init::Init;
use crate::operator::{BoundOperator, Recurrence, RecurrentOperator};
use crate::settings::{OptionDoc, Options};
use crate::table::CellEntry;

/// Added to the variance in layer normalization (PyTorch's default).
pub(crate) const NORM_EPS: f64 = 1e-5;

/// The nonlinearity of [`Rnn`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// Hyperbolic tangent.
    #[default]
    Tanh,
    /// Rectified linear.
    Relu,
    /// Rectified linear with slope 0.1 below 0, as in the program of the oRNN.
    LeakyRelu,
}

impl Activation {
    /// Values of the option, as its documentation lists them.
    pub(crate) const WORDS: &str = "tanh, relu or leaky_relu, of slope 0.1 below 0";

    /// Values of the option.
    pub(crate) const CHOICES: &[(&str, Activation)] =
        &[("tanh", Activation::Tanh), ("relu", Activation::Relu), ("leaky_relu", Activation::LeakyRelu)];

    /// The nonlinearity, element by element.
    pub(crate) fn apply(self, tape: &mut Tape, x: Var) -> retrograd_engine::Result<Var> {
        match self {
            Activation::Tanh => ops::tanh(tape, x),
            Activation::Relu => ops::relu(tape, x),
            Activation::LeakyRelu => ops::leaky_relu(tape, x, 0.1),
        }
    }
}

/// Plain recurrent network; see the [module](self).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rnn {
    /// Nonlinearity.
    pub activation: Activation,
    /// How `W` begins; `None` leaves it to the operator.
    pub recurrent_init: Option<Init>,
    /// Whether pre-activations are normalized.
    pub layer_norm: bool,
}

/// Documentation of the option every cell has for its recurrent matrices.
pub(crate) const RECURRENT_INIT: OptionDoc = OptionDoc {
    key: "recurrent_init",
    default: "auto",
    doc: "how recurrent matrices (or their factors) begin: auto (the operator's own), glorot, orthogonal, \
          identity, fan_in, uniform:A, normal:S",
};

/// Table entry of [`Rnn`].
pub const RNN: CellEntry = CellEntry {
    name: "rnn",
    summary: "plain recurrent network (IRNN with activation=relu and recurrent_init=identity)",
    operator: "dense",
    options: &[
        OptionDoc { key: "activation", default: "tanh", doc: Activation::WORDS },
        RECURRENT_INIT,
        OptionDoc { key: "layer_norm", default: "false", doc: "normalize pre-activations; true or false" },
    ],
    build: |options: &Options<'_>| {
        Ok(Arc::new(Rnn {
            activation: options.choice("activation", Activation::CHOICES)?,
            recurrent_init: options.init("recurrent_init")?,
            layer_norm: options.flag("layer_norm")?,
        }))
    },
};

impl Cell for Rnn {
    fn name(&self) -> &'static str {
        RNN.name
    }

    fn declare(
        &self,
        ctx: &mut Declare<'_>,
        input: Input,
        hidden: usize,
        operator: &dyn RecurrentOperator,
    ) -> Result<Box<dyn BoundCell>> {
        let u = InputMap::declare(ctx, input, 1, hidden, false, Init::Glorot)?;
        let init = self.recurrent_init;
        let w = Recurrence { name: "W", gates: &[""], n: hidden, complex: false, init };
        let w = operator.declare(ctx, w)?;
        let b = ctx.real("b", &[hidden], Init::Zeros)?;
        let norm = match self.layer_norm {
            true => {
                Some((ctx.real("g", &[hidden], Init::Constant(1.0))?, ctx.real("s", &[hidden], Init::Zeros)?))
            }
            false => None,
        };
        Ok(Box::new(BoundRnn { u: u.with_bias(b), w, norm, activation: self.activation, hidden }))
    }
}

#[derive(Debug)]
struct BoundRnn {
    u: InputMap,
    w: Box<dyn BoundOperator>,
    norm: Option<(Var, Var)>,
    activation: Activation,
    hidden: usize,
}

impl BoundCell for BoundRnn {
    fn state(&self) -> Vec<StatePart> {
        vec![StatePart { name: "h", width: self.hidden, complex: false }]
    }

    fn step(&self, tape: &mut Tape, state: &[Var], x: Var) -> retrograd_engine::Result<Vec<Var>> {
        let h = state[0];
        let ux = self.u.apply(tape, x)?[0];
        let wh = self.w.apply(tape, h, 0)?;
        let mut a = ops::add(tape, wh, ux)?; // eq. (1)
        if let Some((g, s)) = self.norm {
            a = ops::layer_norm(tape, a, g, s, NORM_EPS)?; // eq. (2)
        }
        Ok(vec![self.activation.apply(tape, a)?]) // eq. (3)
    }
}
