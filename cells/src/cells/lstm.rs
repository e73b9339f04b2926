//! LSTM: long short-term memory.
//!
//! Hochreiter, Schmidhuber, 1997, "Long short-term memory", Neural Computation 9(8); forget gate of Gers, Schmidhuber,
//! Cummins, 2000, "Learning to forget", Neural Computation 12(10); peepholes of Gers, Schraudolph, Schmidhuber, 2002,
//! "Learning precise timing with LSTM recurrent networks", JMLR 3; chrono initialization of Tallec, Ollivier, 2018,
//! "Can recurrent neural networks warp time?", ICLR.
//!
//! ```text
//! i_t = σ(W_i h_{t−1} + U_i x_t + b_i [+ p_i ⊙ c_{t−1}])               (1)  input gate
//! f_t = σ(W_f h_{t−1} + U_f x_t + b_f [+ p_f ⊙ c_{t−1}])               (2)  forget gate
//! g_t = tanh(W_g h_{t−1} + U_g x_t + b_g)                              (3)  candidate
//! c_t = f_t ⊙ c_{t−1} + i_t ⊙ g_t                                      (4)
//! o_t = σ(W_o h_{t−1} + U_o x_t + b_o [+ p_o ⊙ c_t] [+ V_o c_t])       (5)  output gate
//! h_t = o_t ⊙ tanh(c_t)                                                (6)
//! ```
//!
//! | symbol | shape | initialization | meaning |
//! |---|---|---|---|
//! | `U` | `[C, 4·H]` | Glorot for each gate | input weights, gates in the order i, f, g, o |
//! | `W` | the operator's, 4 gates | `recurrent_init`, else the operator's | recurrent weights |
//! | `b` | `[4·H]` | `b_f = forget_bias`, others 0; chrono: `b_f = log U(1, Tmax−1)`, `b_i = −b_f` | biases |
//! | `p_i`, `p_f`, `p_o` | `[H]` | `±1/sqrt(H)` | peepholes (option `peephole`) |
//! | `V_o` | `[H, H]` | Glorot | cell to output gate (option `cell_to_output`, as in Arjovsky et al. 2016's code) |
//! | `h`, `c` | `[N, H]` | 0 or learned | state |
//!
//! Names it goes by, with their settings: LSTM-chrono (Chandar et al., 2019), `chrono=Tmax`; the LSTM of the program of
//! Arjovsky, Shah, Bengio, 2016, `cell_to_output=true recurrent_init=glorot` with a learned first state, whose `V_o` the
//! parameter counts published with it leave out.
//!
//! With Kronecker recurrent matrices, each gate having its own factors, this is the KRU-LSTM of Jose, Cisse,
//! Fleuret, 2017, arXiv:1705.10142; with low-rank plus diagonal ones, the LRD-LSTM of Miceli Barone, 2018,
//! arXiv:1603.03116.
//!
//! **Differs from the paper**: of 1997, by the forget gate. Gate biases begin with a forget bias of 1 (Jozefowicz et
//! al. 2015).

use std::sync::Arc;

use num_complex::Complex64;
use retrograd_engine::{Tape, Tensor, Var, matmul};
use retrograd_ops as ops;

use crate::cell::{BoundCell, Cell, Input, InputMap, StatePart};
use crate::cells::rnn::RECURRENT_INIT;
use crate::declare::Declare;
use crate::error::Result;
use crate::init::{Init, chrono};
use crate::operator::{BoundOperator, Recurrence, RecurrentOperator};
use crate::settings::{OptionDoc, Options};
use crate::table::CellEntry;

/// Long short-term memory; see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lstm {
    /// First value of `b_f`; without meaning under `chrono`.
    pub forget_bias: f64,
    /// `Tmax` of the chrono initialization, at least 3.
    pub chrono: Option<usize>,
    /// Whether gates see the cell through `p_i`, `p_f`, `p_o`.
    pub peephole: bool,
    /// Whether the output gate sees the cell through a full matrix `V_o`.
    pub cell_to_output: bool,
    /// How the recurrent matrices begin; `None` leaves it to the operator.
    pub recurrent_init: Option<Init>,
}

impl Default for Lstm {
    fn default() -> Lstm {
        Lstm { forget_bias: 1.0, chrono: None, peephole: false, cell_to_output: false, recurrent_init: None }
    }
}

/// Documentation of the option for the chrono initialization.
pub(crate) const CHRONO: OptionDoc = OptionDoc {
    key: "chrono",
    default: "none",
    doc: "chrono initialization for dependencies up to this many steps (at least 3), or none",
};

/// Reads [`CHRONO`]. Errors: fewer than 3 steps.
pub(crate) fn chrono_option(options: &Options<'_>) -> Result<Option<usize>> {
    match options.count("chrono")? {
        Some(steps) if steps < 3 => Err(options.bad("chrono", "at least 3 steps, or none")),
        steps => Ok(steps),
    }
}

/// Table entry of [`Lstm`].
pub const LSTM: CellEntry = CellEntry {
    name: "lstm",
    summary: "long short-term memory (KRU-LSTM with operator kron, LRD-LSTM with lrd)",
    operator: "dense",
    options: &[
        OptionDoc { key: "forget_bias", default: "1", doc: "first value of the forget gate's bias" },
        CHRONO,
        OptionDoc { key: "peephole", default: "false", doc: "gates see the cell; true or false" },
        OptionDoc {
            key: "cell_to_output",
            default: "false",
            doc: "the output gate sees the cell through a full matrix; true or false",
        },
        RECURRENT_INIT,
    ],
    build: |options: &Options<'_>| {
        Ok(Arc::new(Lstm {
            forget_bias: options.number("forget_bias")?,
            chrono: chrono_option(options)?,
            peephole: options.flag("peephole")?,
            cell_to_output: options.flag("cell_to_output")?,
            recurrent_init: options.init("recurrent_init")?,
        }))
    },
};

const GATES: [&str; 4] = ["i", "f", "g", "o"];

impl Lstm {
    fn declare_bias(&self, ctx: &mut Declare<'_>, hidden: usize) -> Result<Var> {
        let dtype = ctx.dtype(false);
        let dims = [GATES.len() * hidden];
        ctx.real_with("b", &dims, |rng| {
            let forget = match self.chrono {
                Some(steps) => chrono(LSTM.name, steps, hidden, rng)?,
                None => vec![self.forget_bias; hidden],
            };
            let mut b = Tensor::zeros(dtype, dims)?;
            b.fill_with(|k| {
                let value = match (k / hidden, self.chrono) {
                    (0, Some(_)) => -forget[k % hidden],
                    (1, _) => forget[k % hidden],
                    _ => 0.0,
                };
                Complex64::new(value, 0.0)
            });
            Ok(b)
        })
    }
}

impl Cell for Lstm {
    fn name(&self) -> &'static str {
        LSTM.name
    }

    fn declare(
        &self,
        ctx: &mut Declare<'_>,
        input: Input,
        hidden: usize,
        operator: &dyn RecurrentOperator,
    ) -> Result<Box<dyn BoundCell>> {
        let u = InputMap::declare(ctx, input, GATES.len(), hidden, false, Init::Glorot)?;
        let init = self.recurrent_init;
        let w = Recurrence { name: "W", gates: &GATES, n: hidden, complex: false, init };
        let w = operator.declare(ctx, w)?;
        let b = self.declare_bias(ctx, hidden)?;
        let peepholes = match self.peephole {
            true => Some(Peepholes {
                i: ctx.real("p_i", &[hidden], Init::FanIn)?,
                f: ctx.real("p_f", &[hidden], Init::FanIn)?,
                o: ctx.real("p_o", &[hidden], Init::FanIn)?,
            }),
            false => None,
        };
        let v_o = match self.cell_to_output {
            true => Some(ctx.real("V_o", &[hidden, hidden], Init::Glorot)?),
            false => None,
        };
        Ok(Box::new(BoundLstm { u: u.with_bias(b), w, peepholes, v_o, hidden }))
    }
}

#[derive(Clone, Copy, Debug)]
struct Peepholes {
    i: Var,
    f: Var,
    o: Var,
}

#[derive(Debug)]
struct BoundLstm {
    u: InputMap,
    w: Box<dyn BoundOperator>,
    peepholes: Option<Peepholes>,
    v_o: Option<Var>,
    hidden: usize,
}

impl BoundCell for BoundLstm {
    fn state(&self) -> Vec<StatePart> {
        ["h", "c"].map(|name| StatePart { name, width: self.hidden, complex: false }).to_vec()
    }

    fn step(&self, tape: &mut Tape, state: &[Var], x: Var) -> retrograd_engine::Result<Vec<Var>> {
        let (h, c) = (state[0], state[1]);
        let ux = self.u.apply(tape, x)?;
        let wh = self.w.apply_all(tape, h, 0..GATES.len())?;
        let mut a = Vec::new();
        for (wh, ux) in wh.into_iter().zip(ux) {
            a.push(ops::add(tape, wh, ux)?);
        }
        let (mut i, mut f, g, mut o) = (a[0], a[1], a[2], a[3]);
        if let Some(p) = self.peepholes {
            i = add_product(tape, i, p.i, c)?; // eq. (1)
            f = add_product(tape, f, p.f, c)?; // eq. (2)
        }
        let i = ops::sigmoid(tape, i)?; // eq. (1)
        let f = ops::sigmoid(tape, f)?; // eq. (2)
        let g = ops::tanh(tape, g)?; // eq. (3)
        let fc = ops::mul(tape, f, c)?; // eq. (4)
        let c = add_product(tape, fc, i, g)?; // eq. (4)
        if let Some(p) = self.peepholes {
            o = add_product(tape, o, p.o, c)?; // eq. (5)
        }
        if let Some(v_o) = self.v_o {
            let vc = matmul(tape, c, v_o)?; // eq. (5)
            o = ops::add(tape, o, vc)?;
        }
        let o = ops::sigmoid(tape, o)?; // eq. (5)
        let squashed = ops::tanh(tape, c)?; // eq. (6)
        let h = ops::mul(tape, o, squashed)?; // eq. (6)
        Ok(vec![h, c])
    }
}

/// `y + a ⊙ b`.
fn add_product(tape: &mut Tape, y: Var, a: Var, b: Var) -> retrograd_engine::Result<Var> {
    let ab = ops::mul(tape, a, b)?;
    ops::add(tape, y, ab)
}
