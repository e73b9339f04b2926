//! Antisymmetric recurrence, shifted: `A − Aᵀ − γ I`.
//!
//! Chang, Chen, Haber, Chi, 2019, "AntisymmetricRNN: a dynamical system view on recurrent neural networks", ICLR,
//! arXiv:1902.09689. Letters of the paper: diffusion `γ`.
//!
//! ```text
//! W_g h = (A_g − A_gᵀ − γ I) h,   A_g strictly lower triangular     (1)  A_gᴴ if complex
//! ```
//!
//! Eigenvalues of an antisymmetric (skew-Hermitian) matrix are imaginary, so those of `W_g` have the real part `−γ`.
//!
//! | symbol | shape | initialization | meaning |
//! |---|---|---|---|
//! | `W.A` | `[G·N·(N−1)/2]` | the cell's, else normal, see below | below the diagonal of `A_g`, row by row, for every gate |
//!
//! `G·N·(N−1)/2` numbers, since antisymmetric matrices have no more: the full matrix is put together once a call. A
//! hidden size of 1 keeps one number that nothing reads.
//!
//! Without an initialization of the cell's, the deviation is `1/(2·sqrt(N))` (for each part `1/sqrt(8·N)` if complex): the
//! largest eigenvalue then has a modulus near 1. The cell `antisymmetric_rnn` asks for `1/sqrt(N)`.
//!
//! **Differs from the paper**: `γ` comes from a search there; the default, 0.01, is one that Kag, Zhang, Saligrama,
//! 2020, ICLR compare with. Complex states and more than one gate are ours; the diagonal of a skew-Hermitian matrix
//! may be imaginary, here it is 0.

use std::sync::Arc;

use num_complex::Complex64;
use retrograd_engine::{Tape, Tensor, Var};
use retrograd_ops as ops;

use crate::declare::Declare;
use crate::error::Result;
use crate::init::Init;
use crate::operator::{BoundOperator, Recurrence, RecurrentOperator};
use crate::operators::dense::BoundDense;
use crate::settings::{OptionDoc, Options};
use crate::table::OperatorEntry;

/// Antisymmetric matrices, shifted; see the [module](self).
#[derive(Clone, Debug, PartialEq)]
pub struct Antisymmetric {
    /// Diffusion `γ`.
    pub gamma: f64,
    /// Whether the matrices stay as they begin.
    pub frozen: bool,
}

impl Default for Antisymmetric {
    fn default() -> Antisymmetric {
        Antisymmetric { gamma: 0.01, frozen: false }
    }
}

/// Table entry of [`Antisymmetric`].
pub const ANTISYMMETRIC: OperatorEntry = OperatorEntry {
    name: "antisymmetric",
    summary: "A − Aᵀ − γ·I: N(N−1)/2 numbers for each gate, eigenvalues of real part −γ",
    options: &[
        OptionDoc { key: "gamma", default: "0.01", doc: "diffusion: minus the real part of the eigenvalues" },
        OptionDoc { key: "freeze", default: "false", doc: "keep the matrices as they begin; true or false" },
    ],
    build: |options: &Options<'_>| {
        Ok(Arc::new(Antisymmetric { gamma: options.number("gamma")?, frozen: options.flag("freeze")? }))
    },
};

/// Number of entries below the diagonal, at least 1.
fn below(n: usize) -> usize {
    (n * n.saturating_sub(1) / 2).max(1)
}

/// Place of entry `(row, column)`, `row > column`, among those below the diagonal.
fn place(row: usize, column: usize) -> usize {
    row * (row - 1) / 2 + column
}

impl RecurrentOperator for Antisymmetric {
    fn name(&self) -> &'static str {
        ANTISYMMETRIC.name
    }

    fn declare(&self, ctx: &mut Declare<'_>, r: Recurrence<'_>) -> Result<Box<dyn BoundOperator>> {
        let (n, gates, each) = (r.n, r.gates.len(), below(r.n));
        let parts = if r.complex { 2.0 } else { 1.0 };
        let init = r.init.unwrap_or(Init::Normal(0.5 / (parts * n.max(1) as f64).sqrt()));
        let (dtype, count) = (ctx.dtype(r.complex), gates * each);
        let a = ctx.scope(r.name).with("A", &[count], dtype, |rng| {
            let mut packed = Tensor::zeros(dtype, [count])?;
            let mut values = Vec::with_capacity(count);
            for _ in 0..gates {
                let full = init.tensor(&[n, n], dtype, rng)?;
                let rows = (1..n.max(2)).flat_map(|row| (0..row).map(move |column| row * n + column));
                values.extend(rows.map(|i| if i < n * n { full.get(i) } else { Complex64::ZERO }));
            }
            packed.fill_with(|i| values[i]);
            Ok(packed)
        })?;
        if self.frozen {
            ctx.freeze(r.name);
        }
        let w = self.matrices(ctx.tape(), a, n, gates)?;
        Ok(Box::new(BoundDense { w, n })) // eq. (1)
    }
}

impl Antisymmetric {
    /// Blocks `W_gᵀ` side by side, `[N, G·N]`, by choosing from the numbers, their negatives and `−γ`.
    fn matrices(&self, tape: &mut Tape, a: Var, n: usize, gates: usize) -> retrograd_engine::Result<Var> {
        let (each, count) = (below(n), gates * below(n));
        let minus = ops::conj(tape, a)?;
        let minus = ops::neg(tape, minus)?;
        let diagonal = tape.constant(Tensor::full(tape.dtype(a)?, [1], -self.gamma)?);
        let choices = ops::concat(tape, &[a, minus, diagonal], 0)?;
        let mut from = Vec::with_capacity(n * gates * n);
        for column in 0..n {
            for (gate, row) in (0..gates).flat_map(|gate| (0..n).map(move |row| (gate, row))) {
                // Row `column` of the transposed matrix.
                let index = match row.cmp(&column) {
                    std::cmp::Ordering::Greater => gate * each + place(row, column),
                    std::cmp::Ordering::Less => count + gate * each + place(column, row),
                    std::cmp::Ordering::Equal => 2 * count,
                };
                from.push(i32::try_from(index).unwrap_or(i32::MAX));
            }
        }
        let from = tape.constant(Tensor::from_slice([n, gates * n], &from)?);
        ops::gather(tape, choices, from)
    }
}
