//! SRU: statistical recurrent unit.
//!
//! Oliva, Póczos, Schneider, 2017, "The statistical recurrent unit", ICML, arXiv:1703.00381. (Not the simple recurrent
//! unit of Lei et al.) Letters of the paper.
//!
//! ```text
//! r_t = relu(W_r μ_{t−1} + b_r)                                          (1)  a summary of the past
//! φ_t = relu(W r_t + U x_t + b)                                          (2)  statistics of this step
//! μ_t^(α) = α μ_{t−1}^(α) + (1 − α) φ_t,   for every rate α              (3)  their moving averages
//! o_t = relu(W_o μ_t + b_o)                                              (4)  what the read-out and the next layer see
//! ```
//!
//! There is no gate: what is old and what is new is told from averages over several lengths of time, `μ_t` being all of
//! them. `R` is the number of rates, `D` the size of the summary, `O` that of the output.
//!
//! | symbol | shape | initialization | meaning |
//! |---|---|---|---|
//! | `W_r`, `b_r` | `[R·H, D]`, `[D]` | Glorot, 0 | to the summary |
//! | `U` | `[C, H]` | Glorot | input weights |
//! | `W` | the operator's; `[D, H]` where `D ≠ H` | `recurrent_init`, else the operator's | from the summary |
//! | `b` | `[H]` | 0 | bias |
//! | `W_o`, `b_o` | `[R·H, O]`, `[O]` | Glorot, 0 | to the output |
//! | `mu` | `[N, R·H]` | 0 or learned | state, averages in the order of the rates |
//!
//! `H` is the number of statistics. `R·H·(D + O) + C·H + D·H + D + H + O` numbers on a dense matrix.
//!
//! **Differs from the paper**: nothing in the equations. Rates and sizes come from a search for each task there; the
//! default rates are those its public re-implementations use, and `D = O = H`. A summary of another size than `H` needs
//! the operator `dense`, since every other one is square.

use std::sync::Arc;

use num_complex::Complex64;
use retrograd_engine::{Tape, Tensor, Var, matmul};
use retrograd_ops as ops;

use crate::cell::{BoundCell, Cell, Input, InputMap, StatePart};
use crate::cells::rnn::RECURRENT_INIT;
use crate::declare::Declare;
use crate::error::{Error, Result};
use crate::init::Init;
use crate::operator::{BoundOperator, Recurrence, RecurrentOperator};
use crate::operators::dense;
use crate::settings::{OptionDoc, Options};
use crate::table::CellEntry;

/// Rates of the moving averages where none are given.
const RATES: [f64; 5] = [0.0, 0.5, 0.9, 0.99, 0.999];

/// Statistical recurrent unit; see the [module](self).
#[derive(Clone, Debug, PartialEq)]
pub struct Sru {
    /// Rates `α` of the averages, at least one, each in `[0, 1)`.
    pub rates: Vec<f64>,
    /// Size `D` of the summary; `None` takes the hidden size.
    pub summary: Option<usize>,
    /// Size `O` of the output; `None` takes the hidden size.
    pub output: Option<usize>,
    /// How the recurrent matrix begins; `None` leaves it to the operator.
    pub recurrent_init: Option<Init>,
}

impl Default for Sru {
    fn default() -> Sru {
        Sru { rates: RATES.to_vec(), summary: None, output: None, recurrent_init: None }
    }
}

/// Table entry of [`Sru`].
pub const SRU: CellEntry = CellEntry {
    name: "sru",
    summary: "statistical recurrent unit: moving averages at several rates, no gates",
    operator: "dense",
    options: &[
        OptionDoc {
            key: "rates",
            default: "0,0.5,0.9,0.99,0.999",
            doc: "rates of the moving averages, each at least 0 and less than 1, joined by commas",
        },
        OptionDoc {
            key: "summary",
            default: "auto",
            doc: "size of the summary of the past; auto: the hidden size; another one takes operator dense",
        },
        OptionDoc { key: "output", default: "auto", doc: "size of the output; auto: the hidden size" },
        RECURRENT_INIT,
    ],
    build: |options: &Options<'_>| {
        Ok(Arc::new(Sru {
            rates: rates(options.text("rates"))
                .ok_or_else(|| options.bad("rates", "numbers from 0 to less than 1, joined by commas"))?,
            summary: size(options, "summary")?,
            output: size(options, "output")?,
            recurrent_init: options.init("recurrent_init")?,
        }))
    },
};

fn rates(text: &str) -> Option<Vec<f64>> {
    let rate = |s: &str| s.trim().parse().ok().filter(|rate| (0.0..1.0).contains(rate));
    text.split(',').map(rate).collect()
}

fn size(options: &Options<'_>, key: &str) -> Result<Option<usize>> {
    match options.text(key) {
        "auto" => Ok(None),
        text => match text.parse() {
            Ok(size) if size > 0 => Ok(Some(size)),
            _ => Err(options.bad(key, "a whole number of at least 1, or auto")),
        },
    }
}

impl Cell for Sru {
    fn name(&self) -> &'static str {
        SRU.name
    }

    fn declare(
        &self,
        ctx: &mut Declare<'_>,
        input: Input,
        hidden: usize,
        operator: &dyn RecurrentOperator,
    ) -> Result<Box<dyn BoundCell>> {
        if self.rates.is_empty() || self.rates.iter().any(|rate| !(0.0..1.0).contains(rate)) {
            return Err(Error::model(format!("sru: rates {:?}, at least one, each in [0, 1)", self.rates)));
        }
        let (summary, output) = (self.summary.unwrap_or(hidden), self.output.unwrap_or(hidden));
        let (count, width) = (self.rates.len(), self.rates.len() * hidden);
        let w_r = ctx.real("W_r", &[width, summary], Init::Glorot)?;
        let b_r = ctx.real("b_r", &[summary], Init::Zeros)?;
        let u = InputMap::declare(ctx, input, 1, hidden, false, Init::Glorot)?;
        let init = self.recurrent_init;
        let w = if summary == hidden {
            let w = Recurrence { name: "W", gates: &[""], n: hidden, complex: false, init };
            FromSummary::Square(operator.declare(ctx, w)?)
        } else if operator.name() == dense::DENSE.name {
            FromSummary::Full(ctx.real("W", &[summary, hidden], init.unwrap_or(Init::Glorot))?)
        } else {
            let operator = operator.name();
            return Err(Error::model(format!(
                "sru: summary of {summary} to {hidden} statistics on operator {operator}, which is square; \
                 use operator dense"
            )));
        };
        let b = ctx.real("b", &[hidden], Init::Zeros)?;
        let w_o = ctx.real("W_o", &[width, output], Init::Glorot)?;
        let b_o = ctx.real("b_o", &[output], Init::Zeros)?;
        let dtype = ctx.dtype(false);
        let mut column = |f: fn(f64) -> f64| -> Result<Var> {
            let mut t = Tensor::zeros(dtype, [count, 1])?;
            t.fill_with(|k| Complex64::new(f(self.rates[k]), 0.0));
            Ok(ctx.tape().constant(t))
        };
        let (old, new) = (column(|rate| rate)?, column(|rate| 1.0 - rate)?);
        let sizes = Sizes { hidden, count, output };
        Ok(Box::new(BoundSru { w_r, b_r, u: u.with_bias(b), w, w_o, b_o, old, new, sizes }))
    }
}

#[derive(Clone, Copy, Debug)]
struct Sizes {
    hidden: usize,
    /// Number of rates.
    count: usize,
    output: usize,
}

/// `W` of eq. (2).
#[derive(Debug)]
enum FromSummary {
    /// The operator's, where the summary has the size of the statistics.
    Square(Box<dyn BoundOperator>),
    /// `[D, H]`.
    Full(Var),
}

#[derive(Debug)]
struct BoundSru {
    w_r: Var,
    b_r: Var,
    u: InputMap,
    w: FromSummary,
    w_o: Var,
    b_o: Var,
    /// `α`, `[R, 1]`.
    old: Var,
    /// `1 − α`, `[R, 1]`.
    new: Var,
    sizes: Sizes,
}

/// `relu(w x + b)`.
fn rectified(tape: &mut Tape, x: Var, w: Var, b: Var) -> retrograd_engine::Result<Var> {
    let y = matmul(tape, x, w)?;
    let y = ops::add(tape, y, b)?;
    ops::relu(tape, y)
}

impl BoundCell for BoundSru {
    fn state(&self) -> Vec<StatePart> {
        vec![StatePart { name: "mu", width: self.sizes.count * self.sizes.hidden, complex: false }]
    }

    fn step(&self, tape: &mut Tape, state: &[Var], x: Var) -> retrograd_engine::Result<Vec<Var>> {
        let Sizes { hidden, count, .. } = self.sizes;
        let mu = state[0];
        let ux = self.u.apply(tape, x)?[0];
        let r = rectified(tape, mu, self.w_r, self.b_r)?; // eq. (1)
        let wr = match &self.w {
            FromSummary::Square(w) => w.apply(tape, r, 0)?,
            FromSummary::Full(w) => matmul(tape, r, *w)?,
        };
        let phi = ops::add(tape, wr, ux)?; // eq. (2)
        let phi = ops::relu(tape, phi)?; // eq. (2)
        let mu = ops::reshape(tape, mu, &[count as isize, hidden as isize])?;
        let phi = ops::reshape(tape, phi, &[1, hidden as isize])?;
        let kept = ops::mul(tape, self.old, mu)?; // eq. (3)
        let added = ops::mul(tape, self.new, phi)?; // eq. (3)
        let mu = ops::add(tape, kept, added)?;
        Ok(vec![ops::reshape(tape, mu, &[(count * hidden) as isize])?])
    }

    fn output(&self, tape: &mut Tape, state: &[Var]) -> retrograd_engine::Result<Var> {
        rectified(tape, state[0], self.w_o, self.b_o) // eq. (4)
    }

    fn output_width(&self) -> usize {
        self.sizes.output
    }
}
