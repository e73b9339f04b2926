//! SVD recurrence: matrices by their singular value decomposition, with singular values near 1.
//!
//! Zhang, Lei, Dhillon, 2018, "Stabilizing gradients for deep neural networks via efficient SVD parameterization",
//! ICML, arXiv:1803.09327; with the cell `rnn` and `activation=relu` it is the Spectral-RNN. Letters of the paper:
//! margin `r`, parameters `p` of the singular values.
//!
//! ```text
//! W_g = P Σ Qᵀ,   P and Q products of n_r Householder reflections each       (1)  Qᴴ if complex
//! σ_i = 1 + 2 r (σ(p_i) − 1/2)                                               (2)  within 1 ± r
//! ```
//!
//! | symbol | shape | initialization | meaning |
//! |---|---|---|---|
//! | `W.P`, `W.Q` | `[N, G·n_r]` | the cell's, else normal; above the diagonal 0, columns of length 1 | reflections, as in `householder` |
//! | `W.p` | `[G·N]` | 0: all singular values are 1 | singular values |
//!
//! `G·(2·N·n_r + N)` numbers are stored; `n_r·(n_r−1)` of a gate's, above the diagonals, stay 0.
//!
//! **Differs from the paper**: `P` and `Q` are its `U` and `V`, letters that cells have for the input and the read-out.
//! Complex states (then `P` and `Q` are unitary, `Σ` stays real) and more than one gate are ours.

use std::ops::Range;
use std::sync::Arc;

use retrograd_engine::{Tape, Var};
use retrograd_ops as ops;

use crate::cell::block;
use crate::declare::Declare;
use crate::error::Result;
use crate::init::Init;
use crate::operator::{BoundOperator, Recurrence, RecurrentOperator};
use crate::operators::ivh::BoundIvh;
use crate::reflections::{self, REFLECTIONS, reflections_option};
use crate::settings::{OptionDoc, Options};
use crate::table::OperatorEntry;

/// Matrices by their singular value decomposition; see the [module](self).
#[derive(Clone, Debug, PartialEq)]
pub struct Svd {
    /// Number of reflections `n_r` of each factor; `None` takes a quarter of the hidden size, at least 1.
    pub reflections: Option<usize>,
    /// How far singular values are from 1 at most, `r`, from 0 to 1.
    pub margin: f64,
    /// Whether all stays as it begins.
    pub frozen: bool,
}

/// The published margin.
const MARGIN: f64 = 0.01;

impl Default for Svd {
    fn default() -> Svd {
        Svd { reflections: None, margin: MARGIN, frozen: false }
    }
}

/// Table entry of [`Svd`].
pub const SVD: OperatorEntry = OperatorEntry {
    name: "svd",
    summary: "P·Σ·Qᵀ of reflections and singular values within 1 ± margin (Spectral-RNN with cell rnn)",
    options: &[
        REFLECTIONS,
        OptionDoc {
            key: "margin",
            default: "0.01",
            doc: "how far singular values are from 1 at most, from 0 to 1",
        },
        OptionDoc { key: "freeze", default: "false", doc: "keep all as it begins; true or false" },
    ],
    build: |options: &Options<'_>| {
        let margin = options.number("margin")?;
        if !(0.0..=1.0).contains(&margin) {
            return Err(options.bad("margin", "a number from 0 to 1"));
        }
        Ok(Arc::new(Svd {
            reflections: reflections_option(options)?,
            margin,
            frozen: options.flag("freeze")?,
        }))
    },
};

impl RecurrentOperator for Svd {
    fn name(&self) -> &'static str {
        SVD.name
    }

    fn declare(&self, ctx: &mut Declare<'_>, r: Recurrence<'_>) -> Result<Box<dyn BoundOperator>> {
        let count = reflections::reflections(SVD.name, self.reflections, r.n)?;
        let init = r.init.unwrap_or(Init::Normal(0.01));
        let p = reflections::declare(&mut ctx.scope(r.name), "P", &r, count, init)?;
        let q = reflections::declare(&mut ctx.scope(r.name), "Q", &r, count, init)?;
        let sigma = ctx.scope(r.name).real("p", &[r.gates.len() * r.n], Init::Zeros)?;
        if self.frozen {
            ctx.freeze(r.name);
        }
        let tape = ctx.tape();
        let last = BoundIvh(reflections::thin(tape, p, &r, count, false)?);
        let first = BoundIvh(reflections::thin(tape, q, &r, count, true)?);
        let sigma = ops::sigmoid(tape, sigma)?;
        let sigma = ops::affine(tape, sigma, 2.0 * self.margin, 1.0 - self.margin)?; // eq. (2)
        Ok(Box::new(BoundSvd { first, sigma, last, n: r.n }))
    }
}

#[derive(Debug)]
struct BoundSvd {
    /// `Qᴴ`.
    first: BoundIvh,
    /// `[G·N]`.
    sigma: Var,
    /// `P`.
    last: BoundIvh,
    n: usize,
}

impl BoundSvd {
    /// `P_gate Σ_gate y`.
    fn rest(&self, tape: &mut Tape, y: Var, gate: usize) -> retrograd_engine::Result<Var> {
        let sigma = block(tape, self.sigma, gate, self.n)?;
        let y = ops::mul(tape, sigma, y)?;
        self.last.apply(tape, y, gate)
    }
}

impl BoundOperator for BoundSvd {
    fn apply(&self, tape: &mut Tape, h: Var, gate: usize) -> retrograd_engine::Result<Var> {
        let y = self.first.apply(tape, h, gate)?; // eq. (1)
        self.rest(tape, y, gate)
    }

    fn apply_all(&self, tape: &mut Tape, h: Var, gates: Range<usize>) -> retrograd_engine::Result<Vec<Var>> {
        let firsts = self.first.apply_all(tape, h, gates.clone())?; // eq. (1)
        firsts.into_iter().zip(gates).map(|(y, gate)| self.rest(tape, y, gate)).collect()
    }
}
