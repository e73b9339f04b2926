//! Variational dropout of recurrent states, around any operator.
//!
//! Gal, Ghahramani, 2016, "A theoretically grounded application of dropout in recurrent neural networks", NeurIPS: one
//! mask for a whole sequence. As used by Miceli Barone, 2018, "Low-rank passthrough neural networks", arXiv:1603.03116,
//! on LRD-GRU and LRD-LSTM: `W_g (m_g ⊙ h)`, in LRD also `δ_g ⊙ (m_g ⊙ h)`, kept values divided by the probability of
//! keeping them. Untied operators have a mask `m_g` for every gate, tied ones share one `m` among the gates.

use std::ops::Range;

use retrograd_engine::{Shape, Tape, Var};
use retrograd_ops as ops;

use crate::declare::Declare;
use crate::error::Result;
use crate::operator::{BoundOperator, Recurrence, RecurrentOperator};

/// An operator that reads states through masks.
#[derive(Debug)]
pub(crate) struct Masked<'a> {
    pub(crate) operator: &'a dyn RecurrentOperator,
    pub(crate) seed: Var,
    /// Probability of keeping an element of the state.
    pub(crate) keep: f64,
    /// Whether all gates share one mask.
    pub(crate) shared: bool,
}

#[derive(Debug)]
struct BoundMasked {
    operator: Box<dyn BoundOperator>,
    /// `[N, H]` each: one for every gate, or one for all.
    masks: Vec<Var>,
}

impl RecurrentOperator for Masked<'_> {
    fn name(&self) -> &'static str {
        self.operator.name()
    }

    fn declare(&self, ctx: &mut Declare<'_>, recurrence: Recurrence<'_>) -> Result<Box<dyn BoundOperator>> {
        let operator = self.operator.declare(ctx, recurrence)?;
        let (dtype, n) = (ctx.dtype(false), recurrence.n);
        let count = if self.shared { 1 } else { recurrence.gates.len() };
        let mut masks = Vec::with_capacity(count);
        for gate in &recurrence.gates[..count] {
            let stream = stream(&ctx.full_name(&recurrence.gate_name(gate)));
            // Recorded outside of every step: the same for the whole sequence.
            masks.push(ops::dropout_mask(ctx.tape(), self.seed, self.keep, dtype, Shape::rows([n]), stream)?);
        }
        Ok(Box::new(BoundMasked { operator, masks }))
    }
}

/// A stream of random numbers of its own for every name (FNV-1a).
fn stream(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl BoundMasked {
    fn masked(&self, tape: &mut Tape, h: Var, gate: usize) -> retrograd_engine::Result<Var> {
        ops::mul(tape, h, self.masks[gate.min(self.masks.len() - 1)])
    }
}

impl BoundOperator for BoundMasked {
    fn apply(&self, tape: &mut Tape, h: Var, gate: usize) -> retrograd_engine::Result<Var> {
        let h = self.masked(tape, h, gate)?;
        self.operator.apply(tape, h, gate)
    }

    fn apply_twice(&self, tape: &mut Tape, h: Var, gate: usize) -> retrograd_engine::Result<Var> {
        let h = self.masked(tape, h, gate)?;
        self.operator.apply_twice(tape, h, gate)
    }

    fn apply_all(&self, tape: &mut Tape, h: Var, gates: Range<usize>) -> retrograd_engine::Result<Vec<Var>> {
        if self.masks.len() == 1 {
            let h = self.masked(tape, h, 0)?;
            return self.operator.apply_all(tape, h, gates);
        }
        gates.map(|gate| self.apply(tape, h, gate)).collect()
    }
}
