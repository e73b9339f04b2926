//! Full-capacity unitary recurrence: a dense matrix that is kept unitary (orthogonal) by the way it is updated.
//!
//! Wisdom, Powers, Hershey, Le Roux, Atlas, 2016, "Full-capacity unitary recurrent neural networks", NIPS,
//! arXiv:1611.00035. On the cell `fc_urnn` it is the network of that paper.
//!
//! `W h` with `W ∈ U(N)`. An update moves along the manifold of unitary matrices by a Cayley transform of the gradient;
//! it is the optimizers' part (`cayley` in retrograd-optim), which find the names of these matrices in
//! [`ParamStore::trained_unitary`](crate::ParamStore::trained_unitary). With any other update `W` is an ordinary
//! matrix that begins unitary.
//!
//! | symbol | shape | initialization | meaning |
//! |---|---|---|---|
//! | `W` or `W.gate` | `[N, N]` | the cell's, else a random matrix of the operator `rc`; real: Haar orthogonal | acts on columns, as published |
//!
//! `2N²` numbers for each gate, `N²` of a real state; the authors count `N²`, the dimension of `U(N)`.
//!
//! **Differs from the paper**: a real state, and with it orthogonal matrices, is ours.

use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;
use retrograd_engine::{DType, Tape, Tensor, Var, reference};
use retrograd_ops::{self as ops, MatMulFlags};

use super::rc::Product;
use crate::declare::{Declare, ParamStore};
use crate::error::Result;
use crate::init::Init;
use crate::operator::{BoundOperator, Recurrence, RecurrentOperator};
use crate::settings::{OptionDoc, Options};
use crate::table::OperatorEntry;

/// Unitary matrices; see the [module](self).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unitary {
    /// Whether the matrices stay as they begin.
    pub frozen: bool,
}

/// Table entry of [`Unitary`].
pub const UNITARY: OperatorEntry = OperatorEntry {
    name: "unitary",
    summary: "full unitary (real: orthogonal) matrices, kept so by Cayley updates (as published with fc_urnn)",
    options: &[OptionDoc {
        key: "freeze",
        default: "false",
        doc: "keep the recurrent matrices as they begin; true or false",
    }],
    build: |options: &Options<'_>| Ok(Arc::new(Unitary { frozen: options.flag("freeze")? })),
};

impl RecurrentOperator for Unitary {
    fn name(&self) -> &'static str {
        UNITARY.name
    }

    fn declare(&self, ctx: &mut Declare<'_>, r: Recurrence<'_>) -> Result<Box<dyn BoundOperator>> {
        let dims = [r.n, r.n];
        let mut gates = Vec::new();
        for gate in r.gates {
            let (name, dtype) = (r.gate_name(gate), ctx.dtype(r.complex));
            let first = |rng: &mut ChaCha8Rng| match (r.init, r.complex) {
                (Some(init), _) => init.tensor(&dims, dtype, rng),
                (None, true) => random_product(r.n, dtype, rng),
                (None, false) => Init::Orthogonal.tensor(&dims, dtype, rng),
            };
            gates.push(ctx.with(&name, &dims, dtype, first)?);
            ctx.mark_unitary(&name);
        }
        if self.frozen {
            ctx.freeze(r.name);
        }
        Ok(Box::new(BoundUnitary { gates }))
    }
}

/// The matrix of a random product of the operator `rc`.
fn random_product(n: usize, dtype: DType, rng: &mut ChaCha8Rng) -> Result<Tensor> {
    let (mut tape, mut store) = (Tape::new(), ParamStore::new(rng.next_u64(), DType::F64)?);
    let mut ctx = Declare::new(&mut tape, &mut store);
    let product = Product::declare(&mut ctx, n, Init::Uniform(std::f64::consts::PI))?;
    // Row i of the identity becomes W e_i, column i of W.
    let identity = Init::Identity.tensor(&[n, n], DType::C64, rng)?;
    let identity = tape.constant(identity);
    let columns = product.apply(&mut tape, identity)?;
    let columns = reference::evaluate(&tape, &[columns], &[store.params()])?.remove(0);
    let mut matrix = Tensor::zeros(dtype, [n, n])?;
    matrix.fill_with(|i| columns.get(i % n * n + i / n));
    Ok(matrix)
}

#[derive(Debug)]
struct BoundUnitary {
    gates: Vec<Var>,
}

impl BoundOperator for BoundUnitary {
    fn apply(&self, tape: &mut Tape, h: Var, gate: usize) -> retrograd_engine::Result<Var> {
        let columns = MatMulFlags { transpose_b: true, ..MatMulFlags::default() };
        ops::matmul_with(tape, h, self.gates[gate], columns)
    }
}
