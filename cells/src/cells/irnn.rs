//! iRNN: incremental recurrent neural network, and SiRNN, its single step.
//!
//! Kag, Zhang, Saligrama, 2020, "RNNs incrementally evolving on an equilibrium manifold: a panacea for vanishing and
//! exploding gradients?", ICLR. Letters of the paper in brackets where they differ: recurrent `W` \[`U`\], input `U`
//! \[`W`\].
//!
//! ```text
//! g_0 = h_{t−1}, or 0                                                              (1)
//! g_k = g_{k−1} + η_{t,k} (φ(z_k) − α (g_{k−1} + h_{t−1})),   k = 1 … K            (2)
//! z_k = W (g_{k−1} + h_{t−1}) + U x_t + b                                          (3a)
//! z_k = P (W (g_{k−1} + h_{t−1}) + U x_t + b),   P = W = I + V H                   (3b)
//! h_t = g_K                                                                        (4)
//! ```
//!
//! Where the inner steps have converged, `φ(z) = α (g + h_{t−1})`, and then `∂h_t/∂h_{t−1} = −I`: gradients neither
//! vanish nor explode, their sign alternates.
//!
//! | symbol | shape | initialization | meaning |
//! |---|---|---|---|
//! | `U` | `[C, H]` | normal, deviation 0.1 | input weights |
//! | `W` | the operator's | `recurrent_init`, else the operator's | recurrent weights, and `P` in (3b) |
//! | `b` | `[H]` | 0 | bias |
//! | `eta` | `[K]`, with `eta_steps` `[S, K]` | `eta` | step sizes `η` |
//! | `h` | `[N, H]` | 0 or learned | state |
//!
//! Eq. (3b) is what the paper's experiments use, with the operator `ivh`. It is computed as `W² (g + h) + W (U x + b)`:
//! the second term depends on the input alone and leaves the time loop, and of `I + V H` the square is another
//! low-rank product. `K = 1` is SiRNN; it needs `g_0 = h_{t−1}` to have an identity path.
//!
//! **Differs from the paper**: there every time step has step sizes of its own, which fixes the length of sequences.
//! Here they are shared by all steps unless `eta_steps` gives the number `S` of rows; steps beyond it take the last
//! row. The deviation of the weights is that of the public program of the authors' later TARNN, the paper says that it
//! is small.

use std::sync::Arc;

use num_complex::Complex64;
use retrograd_engine::core_ops::step_index;
use retrograd_engine::{Tape, Tensor, Var, matmul};
use retrograd_ops as ops;

use crate::cell::{BoundCell, Cell, Input, InputMap, StatePart, block};
use crate::cells::rnn::RECURRENT_INIT;
use crate::declare::Declare;
use crate::error::{Error, Result};
use crate::init::Init;
use crate::operator::{BoundOperator, Recurrence, RecurrentOperator};
use crate::settings::{OptionDoc, Options};
use crate::table::CellEntry;

/// The nonlinearity `φ` of [`Irnn`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phi {
    /// Rectified linear.
    #[default]
    Relu,
    /// Logistic sigmoid.
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
}

/// Where the inner steps begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// `g_0 = h_{t−1}`.
    #[default]
    State,
    /// `g_0 = 0`.
    Zero,
}

/// Incremental recurrent neural network; see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Irnn {
    /// Number of inner steps `K`, at least 1.
    pub inner: usize,
    /// First value of every step size `η`.
    pub eta: f64,
    /// Number of time steps with step sizes of their own; `None` shares them over time.
    pub eta_steps: Option<usize>,
    /// Decay `α`.
    pub alpha: f64,
    /// Nonlinearity `φ`.
    pub phi: Phi,
    /// `g_0`.
    pub start: Start,
    /// Whether `W` is applied once more to the whole argument of `φ`: eq. (3b), else (3a).
    pub twice: bool,
    /// How the recurrent matrix begins; `None` leaves it to the operator.
    pub recurrent_init: Option<Init>,
}

impl Default for Irnn {
    fn default() -> Irnn {
        Irnn {
            inner: 5,
            eta: 0.01,
            eta_steps: None,
            alpha: 1.0,
            phi: Phi::Relu,
            start: Start::State,
            twice: true,
            recurrent_init: None,
        }
    }
}

/// Table entry of [`Irnn`].
pub const IRNN: CellEntry = CellEntry {
    name: "irnn",
    summary: "incremental recurrent network: K inner steps toward an equilibrium (SiRNN with K=1)",
    operator: "ivh",
    options: &[
        OptionDoc { key: "K", default: "5", doc: "number of inner steps, at least 1" },
        OptionDoc { key: "eta", default: "0.01", doc: "first value of the learned step sizes" },
        OptionDoc {
            key: "eta_steps",
            default: "none",
            doc: "number of time steps with step sizes of their own (published: the length of the sequences), or \
                  none: shared by all",
        },
        OptionDoc { key: "alpha", default: "1", doc: "decay of the state in the inner equation" },
        OptionDoc { key: "activation", default: "relu", doc: "relu, sigmoid or tanh" },
        OptionDoc { key: "start", default: "state", doc: "where inner steps begin: state or zero" },
        OptionDoc {
            key: "twice",
            default: "true",
            doc: "apply the recurrent matrix once more to the whole argument of the activation, as in the published \
                  experiments; true or false",
        },
        RECURRENT_INIT,
    ],
    build: |options: &Options<'_>| {
        let phis = [("relu", Phi::Relu), ("sigmoid", Phi::Sigmoid), ("tanh", Phi::Tanh)];
        Ok(Arc::new(Irnn {
            inner: options.count("K")?.ok_or_else(|| options.bad("K", "at least 1 inner step"))?,
            eta: options.number("eta")?,
            eta_steps: options.count("eta_steps")?,
            alpha: options.number("alpha")?,
            phi: options.choice("activation", &phis)?,
            start: options.choice("start", &[("state", Start::State), ("zero", Start::Zero)])?,
            twice: options.flag("twice")?,
            recurrent_init: options.init("recurrent_init")?,
        }))
    },
};

impl Cell for Irnn {
    fn name(&self) -> &'static str {
        IRNN.name
    }

    fn declare(
        &self,
        ctx: &mut Declare<'_>,
        input: Input,
        hidden: usize,
        operator: &dyn RecurrentOperator,
    ) -> Result<Box<dyn BoundCell>> {
        if self.inner == 0 {
            return Err(Error::model("irnn: 0 inner steps, at least 1"));
        }
        let u = InputMap::declare(ctx, input, 1, hidden, false, Init::Normal(0.1))?;
        let init = self.recurrent_init;
        let w = Recurrence { name: "W", gates: &[""], n: hidden, complex: false, init };
        let w = operator.declare(ctx, w)?;
        let b = ctx.real("b", &[hidden], Init::Zeros)?;
        let init = Init::Constant(self.eta);
        let eta = match self.eta_steps {
            None => Eta::Shared(ctx.real("eta", &[self.inner], init)?),
            Some(steps) => {
                let table = ctx.real("eta", &[steps, self.inner], init)?;
                let mut numbers = Tensor::zeros(ctx.dtype(false), [steps])?;
                numbers.fill_with(|i| Complex64::new(i as f64, 0.0));
                Eta::Rows { table, numbers: ctx.tape().constant(numbers), steps }
            }
        };
        Ok(Box::new(BoundIrnn { cell: *self, u: u.with_bias(b), w, eta, hidden }))
    }
}

/// The step sizes.
#[derive(Clone, Copy, Debug)]
enum Eta {
    /// `[K]`, the same at every time step.
    Shared(Var),
    /// `table [S, K]`, a row for every time step, and the numbers `0 … S−1`.
    Rows { table: Var, numbers: Var, steps: usize },
}

impl Eta {
    /// `η_t`, `[K]`. The row is chosen by a product with a one-hot vector: it depends on no state, and its gradient
    /// is one product over all steps.
    fn at_this_step(self, tape: &mut Tape) -> retrograd_engine::Result<Var> {
        match self {
            Eta::Shared(eta) => Ok(eta),
            Eta::Rows { table, numbers, steps } => {
                let dtype = tape.dtype(table)?;
                let t = step_index(tape, dtype)?;
                let last = tape.scalar(table, (steps - 1) as f64)?;
                let t = ops::minimum(tape, t, last)?;
                let one_hot = ops::eq(tape, numbers, t)?;
                matmul(tape, one_hot, table)
            }
        }
    }
}

#[derive(Debug)]
struct BoundIrnn {
    cell: Irnn,
    u: InputMap,
    w: Box<dyn BoundOperator>,
    eta: Eta,
    hidden: usize,
}

impl BoundCell for BoundIrnn {
    fn state(&self) -> Vec<StatePart> {
        vec![StatePart { name: "h", width: self.hidden, complex: false }]
    }

    fn step(&self, tape: &mut Tape, state: &[Var], x: Var) -> retrograd_engine::Result<Vec<Var>> {
        let h = state[0];
        let mut ux = self.u.apply(tape, x)?[0];
        if self.cell.twice {
            ux = self.w.apply(tape, ux, 0)?; // eq. (3b), the part that depends on x alone
        }
        let eta = self.eta.at_this_step(tape)?;
        let mut g = match self.cell.start {
            Start::State => Some(h), // eq. (1)
            Start::Zero => None,
        };
        for k in 0..self.cell.inner {
            let sum = match g {
                Some(g) => ops::add(tape, g, h)?,
                None => h,
            };
            let ws = match self.cell.twice {
                true => self.w.apply_twice(tape, sum, 0)?, // eq. (3b)
                false => self.w.apply(tape, sum, 0)?,      // eq. (3a)
            };
            let z = ops::add(tape, ws, ux)?;
            let phi = match self.cell.phi {
                Phi::Relu => ops::relu(tape, z)?,
                Phi::Sigmoid => ops::sigmoid(tape, z)?,
                Phi::Tanh => ops::tanh(tape, z)?,
            };
            let decay = ops::scale(tape, sum, self.cell.alpha)?;
            let slope = ops::sub(tape, phi, decay)?; // eq. (2)
            let eta = block(tape, eta, k, 1)?;
            let change = ops::mul(tape, eta, slope)?;
            g = Some(match g {
                Some(g) => ops::add(tape, g, change)?,
                None => change,
            });
        }
        Ok(vec![g.unwrap_or(h)]) // eq. (4)
    }
}
