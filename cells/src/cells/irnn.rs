//! iRNN: incremental recurrent neural network, and SiRNN, its single step.
//!
//! Kag, Zhang, Saligrama, 2020, "RNNs incrementally evolving on an equilibrium manifold: a panacea for vanishing and
//! exploding gradients?", ICLR. Letters of the paper in brackets where they differ: recurrent `W` \[`U`\], input `U`
//! \[`W`\].
//!
//! ```text
//! g_0 = h_{t−1}, or 0                                                              (1)
//! g_k = g_{k−1} + η_{t,k} (φ(z_k) − α s_k),   s_k = g_{k−1} + h_{t−1},   k = 1 … K (2)
//! z_k = W s_k + U x_t + b                                                          (3a)
//! z_k = P (W s_k + U x_t + b),   P = W = I + V H                                   (3b)
//! h_t = g_K                                                                        (4)
//! ```
//!
//! Where the inner steps have converged, `φ(z) = α (g + h_{t−1})`, and then `∂h_t/∂h_{t−1} = −I`: gradients neither
//! vanish nor explode, their sign alternates. The paper remarks that with `s_k = g_{k−1} − h_{t−1}` the limit is `+I`:
//! `identity=plus`.
//!
//! | symbol | shape | initialization | meaning |
//! |---|---|---|---|
//! | `U` | `[C, H]` | normal, deviation 0.1 | input weights |
//! | `W` | the operator's | `recurrent_init`, else the operator's | recurrent weights, and `P` in (3b) |
//! | `b` | `[H]`; `b.2` … `b.L` | 0 | bias |
//! | `eta` | `[K]`, with `eta_steps` `[S, K]` | `eta` | step sizes `η` |
//! | `h` | `[N, H]` | 0 or learned | state |
//!
//! Eq. (3b) is what the paper's experiments use, with the operator `ivh`. It is computed as `W² (g + h) + W (U x + b)`:
//! the second term depends on the input alone and leaves the time loop, and of `I + V H` the square is another
//! low-rank product. `K = 1` is SiRNN; it needs `g_0 = h_{t−1}` to have an identity path.
//!
//! **Fully converged**: with `solver` the inner steps run until `φ(z) = α (g + h_{t−1})` holds to `tolerance`, by
//! [`fixed_point`](ops::fixed_point()) on `g ↦ g + φ(z(g)) − α (g + h_{t−1})`; `K` is then the most steps, `rate` stands
//! for the step sizes, which are not learned, and `gradient` says how the solution is differentiated. Rows that are not
//! solved are counted in the state `unconverged`, which training and [`Recorded::unconverged`](crate::Recorded) show.
//! A solution is unique if `‖W‖ < α` (for (3b) `‖W²‖ < α`), which nothing enforces: with the operator `ivh` the norm
//! begins near 1; `recurrent_init` of a small `dense` operator and `twice=false` satisfy it.
//!
//! Converged, `s_t = g + h_{t−1}` solves `φ(W s + U x_t + b) = α s` and so depends on `x_t` alone: `h_t = s_t − h_{t−1}` is
//! an alternating sum over the sequence, and whether two inputs add up or cancel in the last state is decided
//! by the parity of the steps between them.
//!
//! **`identity=plus`**: `g − h_{t−1}` begins at 0 with `g_0 = h_{t−1}`, and no inner step sees `h_{t−1}` otherwise, so that
//! `h_t − h_{t−1}` depends on `x_t` alone whether or not it has converged: `h_t` is a sum over the sequence, `∂h_t/∂h_{t−1}` is
//! `I` exactly, and of the order of the inputs it knows what step sizes by time step tell.
//!
//! **Deep transition**: with `depth` `L > 1` the argument of the last `φ` goes through more matrices of the operator,
//! `z^1` as in (3), `z^{l+1} = W_{l+1} φ(z^l) + b_{l+1}`, and `φ(z^L)` stands for `φ(z)` in (2).
//!
//! **Differs from the paper**: there every time step has step sizes of its own, which fixes the length of sequences.
//! Here they are shared by all steps unless `eta_steps` gives the number `S` of rows; steps beyond it take the last
//! row. The deviation of the input weights is that of the public program of the authors' later TARNN, the paper says
//! that it is small; that of the recurrent weights is the operator's. The paper learns step sizes at the rate of the
//! weights, 1e-2, from 1e-2 on. One update by Adam then moves a step size by as much as it is, and with `‖W‖` above 1
//! every time step multiplies states by up to `1 + 2 K η (‖W‖² − 1)`: they overflow. `frozen=layer0.eta` keeps them.

use std::sync::Arc;

use num_complex::Complex64;
use retrograd_engine::core_ops::step_index;
use retrograd_engine::{Tape, Tensor, Var, matmul};
use retrograd_ops as ops;
use retrograd_ops::{FixedPoint, Gradient, Solver};

use crate::cell::{BoundCell, Cell, Input, InputMap, StatePart, UNCONVERGED, block};
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

/// What `∂h_t/∂h_{t−1}` is where the inner steps have converged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Limit {
    /// `−I`: inner steps see `g + h_{t−1}`, as in the published experiments.
    #[default]
    Minus,
    /// `+I`: they see `g − h_{t−1}`.
    Plus,
}

/// Which kind of solver runs the inner steps to their fixed point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SolverKind {
    /// Damped iteration, the inner steps themselves.
    Damped,
    /// Anderson's mixture of the last four differences.
    Anderson,
    /// Broyden's method.
    Broyden,
}

/// How the fixed point is differentiated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GradientKind {
    /// By the implicit function theorem.
    #[default]
    Implicit,
    /// Through the steps as they were made.
    Unrolled,
    /// Through four more steps.
    Phantom,
}

/// How the inner steps run to their fixed point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Converge {
    /// Solver.
    pub solver: SolverKind,
    /// Derivative.
    pub gradient: GradientKind,
    /// Relative residual of a solution.
    pub tolerance: f64,
    /// Step size of damped iteration and of phantom gradients, mixing of Anderson's method.
    pub rate: f64,
}

impl Converge {
    fn options(self, steps: usize) -> FixedPoint {
        let solver = match self.solver {
            SolverKind::Damped => Solver::damped(self.rate),
            SolverKind::Anderson => Solver::Anderson { memory: 4, mixing: self.rate },
            SolverKind::Broyden => Solver::Broyden,
        };
        let gradient = match self.gradient {
            GradientKind::Unrolled => Gradient::Unrolled,
            // The adjoint's system shrinks as fast as the equation itself.
            GradientKind::Implicit => {
                Gradient::Implicit { solver: solver.clone(), steps: 2 * steps, tolerance: self.tolerance }
            }
            GradientKind::Phantom => Gradient::Phantom { steps: 4, rate: self.rate },
        };
        FixedPoint { solver, gradient, steps, tolerance: self.tolerance }
    }
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
    /// Sign of `h_{t−1}` in the inner steps, eq. (2).
    pub identity: Limit,
    /// Whether `W` is applied once more to the whole argument of `φ`: eq. (3b), else (3a).
    pub twice: bool,
    /// Number of matrices that the argument of the last `φ` goes through, at least 1.
    pub depth: usize,
    /// Runs the inner steps to their fixed point, [`Irnn::inner`] of them at most.
    pub converge: Option<Converge>,
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
            identity: Limit::Minus,
            twice: true,
            depth: 1,
            converge: None,
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
            key: "identity",
            default: "minus",
            doc: "what the Jacobian of a converged step is: minus the identity (published) or plus it (previous state \
                  subtracted instead of added)",
        },
        OptionDoc {
            key: "twice",
            default: "true",
            doc: "apply the recurrent matrix once more to the whole argument of the activation, as in the published \
                  experiments; true or false",
        },
        OptionDoc {
            key: "depth",
            default: "1",
            doc: "matrices that the argument of the activation goes through (deep transition)",
        },
        OptionDoc {
            key: "solver",
            default: "none",
            doc: "run inner steps to their fixed point, K of them at most: damped, anderson or broyden; or none",
        },
        OptionDoc {
            key: "gradient",
            default: "implicit",
            doc: "how the fixed point is differentiated: implicit, unrolled or phantom",
        },
        OptionDoc { key: "tolerance", default: "1e-5", doc: "relative residual of a fixed point" },
        OptionDoc { key: "rate", default: "1", doc: "step size of the solver" },
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
            identity: options.choice("identity", &[("minus", Limit::Minus), ("plus", Limit::Plus)])?,
            twice: options.flag("twice")?,
            depth: options.count("depth")?.ok_or_else(|| options.bad("depth", "at least 1 matrix"))?,
            converge: converge(options)?,
            recurrent_init: options.init("recurrent_init")?,
        }))
    },
};

fn converge(options: &Options<'_>) -> Result<Option<Converge>> {
    let solvers = [
        ("none", None),
        ("damped", Some(SolverKind::Damped)),
        ("anderson", Some(SolverKind::Anderson)),
        ("broyden", Some(SolverKind::Broyden)),
    ];
    let gradients = [
        ("implicit", GradientKind::Implicit),
        ("unrolled", GradientKind::Unrolled),
        ("phantom", GradientKind::Phantom),
    ];
    let gradient = options.choice("gradient", &gradients)?;
    let (tolerance, rate) = (options.number("tolerance")?, options.number("rate")?);
    if tolerance.is_nan() || tolerance <= 0.0 {
        return Err(options.bad("tolerance", "more than 0"));
    }
    if rate.is_nan() || rate <= 0.0 {
        return Err(options.bad("rate", "more than 0"));
    }
    let solver = options.choice("solver", &solvers)?;
    Ok(solver.map(|solver| Converge { solver, gradient, tolerance, rate }))
}

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
        if self.inner == 0 || self.depth == 0 {
            let (k, l) = (self.inner, self.depth);
            return Err(Error::model(format!("irnn: {k} inner steps and depth {l}, at least 1")));
        }
        let u = InputMap::declare(ctx, input, 1, hidden, false, Init::Normal(0.1))?;
        let init = self.recurrent_init;
        let numbers: Vec<String> = (1..=self.depth).map(|l| l.to_string()).collect();
        let names: Vec<&str> = match self.depth {
            1 => vec![""],
            _ => numbers.iter().map(String::as_str).collect(),
        };
        let w = Recurrence { name: "W", gates: &names, n: hidden, complex: false, init };
        let w = operator.declare(ctx, w)?;
        let b = ctx.real("b", &[hidden], Init::Zeros)?;
        let deeper = numbers[1..].iter().map(|l| ctx.real(&format!("b.{l}"), &[hidden], Init::Zeros));
        let deeper = deeper.collect::<Result<Vec<Var>>>()?;
        let init = Init::Constant(self.eta);
        let eta = match self.eta_steps {
            _ if self.converge.is_some() => Eta::Fixed,
            None => Eta::Shared(ctx.real("eta", &[self.inner], init)?),
            Some(steps) => {
                let table = ctx.real("eta", &[steps, self.inner], init)?;
                let mut numbers = Tensor::zeros(ctx.dtype(false), [steps])?;
                numbers.fill_with(|i| Complex64::new(i as f64, 0.0));
                Eta::Rows { table, numbers: ctx.tape().constant(numbers), steps }
            }
        };
        Ok(Box::new(BoundIrnn { cell: *self, u: u.with_bias(b), w, deeper, eta, hidden }))
    }
}

/// The step sizes.
#[derive(Clone, Copy, Debug)]
enum Eta {
    /// None: the solver has rates of its own.
    Fixed,
    /// `[K]`, the same at every time step.
    Shared(Var),
    /// `table [S, K]`, a row for every time step, and the numbers `0 … S−1`.
    Rows { table: Var, numbers: Var, steps: usize },
}

impl Eta {
    /// `η_t`, `[K]`. The row is chosen by a product with a one-hot vector: it depends on no state, and its gradient
    /// is one product over all steps.
    fn at_this_step(self, tape: &mut Tape) -> retrograd_engine::Result<Option<Var>> {
        match self {
            Eta::Fixed => Ok(None),
            Eta::Shared(eta) => Ok(Some(eta)),
            Eta::Rows { table, numbers, steps } => {
                let dtype = tape.dtype(table)?;
                let t = step_index(tape, dtype)?;
                let last = tape.scalar(table, (steps - 1) as f64)?;
                let t = ops::minimum(tape, t, last)?;
                let one_hot = ops::eq(tape, numbers, t)?;
                matmul(tape, one_hot, table).map(Some)
            }
        }
    }
}

#[derive(Debug)]
struct BoundIrnn {
    cell: Irnn,
    u: InputMap,
    w: Box<dyn BoundOperator>,
    /// Biases `b.2` … of a deep transition.
    deeper: Vec<Var>,
    eta: Eta,
    hidden: usize,
}

impl BoundIrnn {
    /// `U x + b`; of eq. (3b) the part that depends on `x` alone.
    fn read(&self, tape: &mut Tape, x: Var) -> retrograd_engine::Result<Var> {
        let ux = self.u.apply(tape, x)?[0];
        if self.cell.twice { self.w.apply(tape, ux, 0) } else { Ok(ux) }
    }

    /// `s = g ± h`, eq. (2).
    fn sum(&self, tape: &mut Tape, g: Var, h: Var) -> retrograd_engine::Result<Var> {
        match self.cell.identity {
            Limit::Minus => ops::add(tape, g, h),
            Limit::Plus => ops::sub(tape, g, h),
        }
    }

    /// `φ(z) − α s`: what an inner step adds, eq. (2), and 0 at the fixed point.
    fn slope(&self, tape: &mut Tape, sum: Var, ux: Var) -> retrograd_engine::Result<Var> {
        let ws = match self.cell.twice {
            true => self.w.apply_twice(tape, sum, 0)?, // eq. (3b)
            false => self.w.apply(tape, sum, 0)?,      // eq. (3a)
        };
        let z = ops::add(tape, ws, ux)?;
        let mut phi = self.phi(tape, z)?;
        for (l, &b) in self.deeper.iter().enumerate() {
            let z = self.w.apply(tape, phi, l + 1)?;
            let z = ops::add(tape, z, b)?;
            phi = self.phi(tape, z)?;
        }
        let decay = ops::scale(tape, sum, self.cell.alpha)?;
        ops::sub(tape, phi, decay)
    }

    fn phi(&self, tape: &mut Tape, z: Var) -> retrograd_engine::Result<Var> {
        match self.cell.phi {
            Phi::Relu => ops::relu(tape, z),
            Phi::Sigmoid => ops::sigmoid(tape, z),
            Phi::Tanh => ops::tanh(tape, z),
        }
    }

    /// The state where the inner steps have converged, and the count of those that have not.
    fn converged(
        &self,
        tape: &mut Tape,
        state: &[Var],
        ux: Var,
        converge: Converge,
    ) -> retrograd_engine::Result<Vec<Var>> {
        let h = state[0];
        let start = match self.cell.start {
            Start::State => h, // eq. (1)
            Start::Zero => ops::zeros_like(tape, h)?,
        };
        let found = ops::fixed_point(tape, start, &converge.options(self.cell.inner), |tape, g| {
            let sum = self.sum(tape, g, h)?;
            let slope = self.slope(tape, sum, ux)?;
            ops::add(tape, g, slope)
        })?;
        let missed = ops::affine(tape, found.converged, -1.0, 1.0)?;
        Ok(vec![found.z, ops::add(tape, state[1], missed)?])
    }
}

impl BoundCell for BoundIrnn {
    fn state(&self) -> Vec<StatePart> {
        let mut parts = vec![StatePart { name: "h", width: self.hidden, complex: false }];
        if self.cell.converge.is_some() {
            parts.push(StatePart { name: UNCONVERGED, width: 1, complex: false });
        }
        parts
    }

    fn step(&self, tape: &mut Tape, state: &[Var], x: Var) -> retrograd_engine::Result<Vec<Var>> {
        let h = state[0];
        let ux = self.read(tape, x)?;
        if let Some(converge) = self.cell.converge {
            return self.converged(tape, state, ux, converge);
        }
        let eta = self.eta.at_this_step(tape)?;
        let mut g = match self.cell.start {
            Start::State => Some(h), // eq. (1)
            Start::Zero => None,
        };
        for k in 0..self.cell.inner {
            let sum = match (g, self.cell.identity) {
                (Some(g), _) => self.sum(tape, g, h)?,
                (None, Limit::Minus) => h,
                (None, Limit::Plus) => ops::neg(tape, h)?,
            };
            let mut change = self.slope(tape, sum, ux)?; // eq. (2)
            if let Some(eta) = eta {
                let eta = block(tape, eta, k, 1)?;
                change = ops::mul(tape, eta, change)?;
            }
            g = Some(match g {
                Some(g) => ops::add(tape, g, change)?,
                None => change,
            });
        }
        Ok(vec![g.unwrap_or(h)]) // eq. (4)
    }

    fn inner(&self, tape: &mut Tape, state: &[Var], x: Var, g: Var) -> retrograd_engine::Result<Option<Var>> {
        let ux = self.read(tape, x)?;
        let sum = self.sum(tape, g, state[0])?;
        self.slope(tape, sum, ux).map(Some)
    }
}
