//! NRU: non-saturating recurrent unit.
//!
//! Chandar, Sankar, Vorontsov, Kahou, Bengio, 2019, "Towards non-saturating recurrent units for modelling long-term
//! dependencies", AAAI, arXiv:1902.06704. Letters of the paper: heads `k`, memory `m` of `M` numbers, and
//! `s = sqrt(k·M)`.
//!
//! ```text
//! h_t = relu(LN(W h_{t−1} + U x_t + W_m m_{t−1} + b))                       (1)  LN is optional
//! [α; β; p^α; p^β; r^α; r^β] = A_h h_t + A_m m_{t−1} + a                    (2)  of k, k, s, s, s, s numbers
//! v^α = normalize(f(rows(p^α r^αᵀ))),  v^β = normalize(f(rows(p^β r^βᵀ)))   (3)  k directions of M numbers
//! m_t = m_{t−1} + 1/k Σ_i (f(α_i) v^α_i − f(β_i) v^β_i)                     (4)  write and erase
//! ```
//!
//! `rows` cuts the `s × s` outer product, read row by row, into `k` rows of `M` numbers; `normalize` divides each by its
//! 5-norm, at least 1e-12. `f` is the identity (linear heads) or ReLU. Nothing saturates: no gate, no squashing.
//!
//! | symbol | shape | initialization | meaning |
//! |---|---|---|---|
//! | `U` | `[C, H]` | uniform ±1/sqrt(C+H+M) | input weights |
//! | `W` | the operator's | `recurrent_init`, else a dense matrix as `U`, others the operator's | recurrent weights |
//! | `W_m` | `[M, H]` | as `U` | from the memory |
//! | `b` | `[H]` | as `U` | bias |
//! | `g`, `s` | `[H]` | 1, 0 | gain and shift of the normalization (option `layer_norm`) |
//! | `A` | `[H+M, 2·k+4·s]` | uniform ±1/sqrt(H+M) | heads: `A_hᵀ` above `A_mᵀ`, columns in the order of (2) |
//! | `a` | `[2·k+4·s]` | as `A` | biases of the heads |
//! | `h`, `m` | `[N, H]`, `[N, M]` | 0 or learned | state and memory; `h` is read out |
//!
//! **Differs from the paper**: where the authors' program does, it is followed. The update of the memory is the mean
//! over heads; the paper has the sum, `combine=sum`. Heads read `h_t` and `m_{t−1}` alone; the paper lists `x_t` too,
//! `heads_see_input=true`, with `A_x` `[C, 2·k+4·s]` beside `A`. One outer product serves all heads. Heads have biases.
//! The program's read-out begins normal (`init=readout.V:normal:S`), here Glorot uniform of the same variance.

use std::sync::Arc;

use num_complex::Complex64;
use retrograd_engine::layout::{Layout, layout};
use retrograd_engine::{Tape, Tensor, Var, matmul};
use retrograd_ops as ops;

use crate::cell::{BoundCell, Cell, Input, InputMap, StatePart};
use crate::cells::rnn::{NORM_EPS, RECURRENT_INIT};
use crate::declare::Declare;
use crate::error::{Error, Result};
use crate::init::Init;
use crate::operator::{BoundOperator, Recurrence, RecurrentOperator};
use crate::operators::dense;
use crate::settings::{OptionDoc, Options};
use crate::table::CellEntry;

/// Smallest norm a direction is divided by.
const SMALLEST_NORM: f64 = 1e-12;

/// The nonlinearity `f` of the heads of [`Nru`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeadActivation {
    /// The identity.
    #[default]
    Linear,
    /// Rectified linear, as published for language models.
    Relu,
}

/// Non-saturating recurrent unit; see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Nru {
    /// Number of heads `k`, at least 1.
    pub heads: usize,
    /// Size of the memory `M`, `k·M` a square; `None` takes the smallest one of at least the hidden size.
    pub memory: Option<usize>,
    /// Nonlinearity of the heads.
    pub head_activation: HeadActivation,
    /// Which norm divides the directions, at least 1.
    pub p: f64,
    /// Whether pre-activations of `h` are normalized.
    pub layer_norm: bool,
    /// Whether heads are summed instead of averaged.
    pub summed: bool,
    /// Whether heads read `x_t` too.
    pub heads_see_input: bool,
    /// How the recurrent matrix begins; `None`: see the [module](self).
    pub recurrent_init: Option<Init>,
}

impl Default for Nru {
    fn default() -> Nru {
        Nru {
            heads: 4,
            memory: None,
            head_activation: HeadActivation::Linear,
            p: 5.0,
            layer_norm: false,
            summed: false,
            heads_see_input: false,
            recurrent_init: None,
        }
    }
}

/// Table entry of [`Nru`].
pub const NRU: CellEntry = CellEntry {
    name: "nru",
    summary: "non-saturating recurrent unit: a memory that heads write to and erase from, no gates",
    operator: "dense",
    options: &[
        OptionDoc { key: "heads", default: "4", doc: "number of heads, at least 1" },
        OptionDoc {
            key: "memory",
            default: "auto",
            doc: "numbers in the memory, a square when multiplied by the heads; auto: the smallest such size that \
                  is not below the hidden size",
        },
        OptionDoc { key: "head_activation", default: "linear", doc: "linear or relu" },
        OptionDoc { key: "p", default: "5", doc: "which norm divides the directions, at least 1" },
        OptionDoc { key: "layer_norm", default: "false", doc: "normalize pre-activations; true or false" },
        OptionDoc {
            key: "combine",
            default: "mean",
            doc: "what the memory moves by: mean over heads, as in the program, or sum, as in the paper",
        },
        OptionDoc {
            key: "heads_see_input",
            default: "false",
            doc: "heads read the input too, as the paper writes; true or false",
        },
        OptionDoc {
            key: RECURRENT_INIT.key,
            default: RECURRENT_INIT.default,
            doc: "how the recurrent matrix (or its factors) begins: auto (a full matrix as published, others the \
                  operator's own), glorot, orthogonal, identity, fan_in, uniform:A, normal:S",
        },
    ],
    build: |options: &Options<'_>| {
        let p = options.number("p")?;
        if p < 1.0 {
            return Err(options.bad("p", "at least 1"));
        }
        let memory = match options.text("memory") {
            "auto" => None,
            text => match text.parse() {
                Ok(memory) if memory > 0 => Some(memory),
                _ => return Err(options.bad("memory", "a whole number of at least 1, or auto")),
            },
        };
        let activations = [("linear", HeadActivation::Linear), ("relu", HeadActivation::Relu)];
        Ok(Arc::new(Nru {
            heads: options.count("heads")?.ok_or_else(|| options.bad("heads", "at least 1 head"))?,
            memory,
            head_activation: options.choice("head_activation", &activations)?,
            p,
            layer_norm: options.flag("layer_norm")?,
            summed: options.choice("combine", &[("mean", false), ("sum", true)])?,
            heads_see_input: options.flag("heads_see_input")?,
            recurrent_init: options.init("recurrent_init")?,
        }))
    },
};

/// The root of a square.
fn root(n: usize) -> Option<usize> {
    let s = n.isqrt();
    (s * s == n && s > 0).then_some(s)
}

impl Nru {
    /// Size of the memory `M` and `s = sqrt(k·M)` for a hidden size. Errors: no heads; `k·M` that is no square.
    pub fn sizes(&self, hidden: usize) -> Result<[usize; 2]> {
        if self.heads == 0 || self.memory == Some(0) {
            return Err(Error::model(format!(
                "nru: {} heads, memory {:?}, at least 1",
                self.heads, self.memory
            )));
        }
        let side = |memory: usize| self.heads.checked_mul(memory).and_then(root);
        // Multiplied by their number of heads once more, k·j² is a square: one is never far.
        let above = |from: usize| (from.max(1)..).find_map(|m| Some([m, side(m)?]));
        let next =
            |from: usize| above(from).ok_or_else(|| Error::model(format!("nru: memory {from} too large")));
        let Some(memory) = self.memory else { return next(hidden) };
        match side(memory) {
            Some(s) => Ok([memory, s]),
            None => {
                let below = (1..memory).rev().find(|&m| side(m).is_some());
                let above = next(memory)?[0];
                Err(Error::Memory { heads: self.heads, memory, below, above })
            }
        }
    }
}

impl Cell for Nru {
    fn name(&self) -> &'static str {
        NRU.name
    }

    fn declare(
        &self,
        ctx: &mut Declare<'_>,
        input: Input,
        hidden: usize,
        operator: &dyn RecurrentOperator,
    ) -> Result<Box<dyn BoundCell>> {
        let [memory, s] = self.sizes(hidden)?;
        let fan_in = |n: usize| Init::Uniform(1.0 / (n as f64).sqrt());
        let of_state = fan_in(input.size() + hidden + memory);
        let u = InputMap::declare(ctx, input, 1, hidden, false, of_state)?;
        // Of the three parts of one published matrix, this is the only one that can be something else.
        let published = (operator.name() == dense::DENSE.name).then_some(of_state);
        let init = self.recurrent_init.or(published);
        let w = Recurrence { name: "W", gates: &[""], n: hidden, complex: false, init };
        let w = operator.declare(ctx, w)?;
        let w_m = ctx.real("W_m", &[memory, hidden], of_state)?;
        let b = ctx.real("b", &[hidden], of_state)?;
        let norm = match self.layer_norm {
            true => {
                Some((ctx.real("g", &[hidden], Init::Constant(1.0))?, ctx.real("s", &[hidden], Init::Zeros)?))
            }
            false => None,
        };
        let seen = if self.heads_see_input { input.size() } else { 0 };
        let of_heads = fan_in(seen + hidden + memory);
        let columns = 2 * self.heads + 4 * s;
        let a_x = match self.heads_see_input {
            true => Some(InputMap::declare_as(ctx, "A_x", input, 1, columns, false, of_heads)?),
            false => None,
        };
        let a_q = ctx.real("A", &[hidden + memory, columns], of_heads)?;
        let a = ctx.real("a", &[columns], of_heads)?;
        // Eq. (4): what α is multiplied by, then what β is.
        let mut shares = Tensor::zeros(ctx.dtype(false), [2 * self.heads])?;
        let share = if self.summed { 1.0 } else { 1.0 / self.heads as f64 };
        shares.fill_with(|i| Complex64::new(if i < self.heads { share } else { -share }, 0.0));
        let shares = ctx.tape().constant(shares);
        let sizes = Sizes { hidden, memory, heads: self.heads, s };
        Ok(Box::new(BoundNru { cell: *self, u: u.with_bias(b), w, w_m, norm, a_x, a_q, a, shares, sizes }))
    }
}

#[derive(Clone, Copy, Debug)]
struct Sizes {
    hidden: usize,
    memory: usize,
    heads: usize,
    s: usize,
}

#[derive(Debug)]
struct BoundNru {
    cell: Nru,
    u: InputMap,
    w: Box<dyn BoundOperator>,
    w_m: Var,
    norm: Option<(Var, Var)>,
    a_x: Option<InputMap>,
    a_q: Var,
    a: Var,
    shares: Var,
    sizes: Sizes,
}

impl BoundNru {
    /// `f`.
    fn activate(&self, tape: &mut Tape, x: Var) -> retrograd_engine::Result<Var> {
        match self.cell.head_activation {
            HeadActivation::Linear => Ok(x),
            HeadActivation::Relu => ops::relu(tape, x),
        }
    }

    /// `1/k Σ_i (f(α_i) v^α_i − f(β_i) v^β_i)` from the heads, `[.., 2·k+4·s] -> [.., M]`.
    fn update(&self, tape: &mut Tape, heads: Var) -> retrograd_engine::Result<Var> {
        let Sizes { memory, heads: k, s, .. } = self.sizes;
        let parts = ops::split(tape, heads, &[2 * k, 2 * s, 2 * s], -1)?;
        let sides = [2, s as isize];
        let p = ops::reshape(tape, parts[1], &sides)?;
        let r = ops::reshape(tape, parts[2], &sides)?;
        let v = ops::outer(tape, p, r)?; // eq. (3)
        let v = ops::reshape(tape, v, &[2 * k as isize, memory as isize])?;
        let v = self.activate(tape, v)?;
        let v = ops::normalize(tape, v, self.cell.p, -1, SMALLEST_NORM)?; // eq. (3)
        let strength = self.activate(tape, parts[0])?;
        let strength = ops::mul(tape, strength, self.shares)?; // eq. (4)
        let strength = ops::reshape(tape, strength, &[2 * k as isize, 1])?;
        let v = ops::mul(tape, strength, v)?;
        ops::sum(tape, v, &[-2], false)
    }
}

impl BoundCell for BoundNru {
    fn state(&self) -> Vec<StatePart> {
        let part = |name, width| StatePart { name, width, complex: false };
        vec![part("h", self.sizes.hidden), part("m", self.sizes.memory)]
    }

    fn step(&self, tape: &mut Tape, state: &[Var], x: Var) -> retrograd_engine::Result<Vec<Var>> {
        let Sizes { hidden, memory, .. } = self.sizes;
        let (h, m) = (state[0], state[1]);
        let ux = self.u.apply(tape, x)?[0];
        // Everything the memory is multiplied by is one product.
        let rows = |start, len| Layout::Slice { axis: 0, start, len };
        let a_h = layout(tape, self.a_q, rows(0, hidden))?;
        let a_m = layout(tape, self.a_q, rows(hidden, memory))?;
        let from_memory = ops::concat(tape, &[self.w_m, a_m], -1)?;
        let from_memory = matmul(tape, m, from_memory)?;
        let columns = tape.last_dim("nru", from_memory)?;
        let from_memory = ops::split(tape, from_memory, &[hidden, columns - hidden], -1)?;

        let wh = self.w.apply(tape, h, 0)?;
        let z = ops::add(tape, wh, ux)?;
        let mut z = ops::add(tape, z, from_memory[0])?; // eq. (1)
        if let Some((g, s)) = self.norm {
            z = ops::layer_norm(tape, z, g, s, NORM_EPS)?;
        }
        let h = ops::relu(tape, z)?; // eq. (1)

        let heads = matmul(tape, h, a_h)?; // eq. (2)
        let heads = ops::add(tape, heads, from_memory[1])?;
        let mut heads = ops::add(tape, heads, self.a)?;
        if let Some(a_x) = &self.a_x {
            let ax = a_x.apply(tape, x)?[0];
            heads = ops::add(tape, heads, ax)?;
        }
        let update = self.update(tape, heads)?; // eq. (3), (4)
        Ok(vec![h, ops::add(tape, m, update)?])
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_the_memory() {
        let nru = |heads, memory| Nru { heads, memory, ..Nru::default() };
        assert_eq!(nru(4, Some(256)).sizes(212).unwrap(), [256, 32]);
        assert_eq!(nru(4, None).sizes(200).unwrap(), [225, 30]);
        assert_eq!(nru(3, None).sizes(7).unwrap(), [12, 6]);
        assert_eq!(nru(1, None).sizes(1).unwrap(), [1, 1]);
        let message = nru(4, Some(60)).sizes(80).unwrap_err().to_string();
        assert_eq!(message, "nru: 4 heads times a memory of 60 is 240, not a square; use memory 49 or 64");
        let message = nru(2, Some(1)).sizes(80).unwrap_err().to_string();
        assert_eq!(message, "nru: 2 heads times a memory of 1 is 2, not a square; use memory 2");
        assert!(nru(0, None).sizes(80).is_err());
    }
}
