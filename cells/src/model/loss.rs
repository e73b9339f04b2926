//! Losses of rows, and their sums.

use retrograd_engine::core_ops::{extent, sum_dims, sum_rows, sum_steps};
use retrograd_engine::{DType, Lead, Result, Shape, Tape, Var};
use retrograd_ops as ops;

use super::{Loss, Readout};

/// Element type and shape of the targets.
pub(super) fn target_ty(loss: Loss, readout: Readout, output: usize, real: DType) -> (DType, Shape) {
    let lead = match readout {
        Readout::Last => Lead::N,
        Readout::EveryStep => Lead::TN,
    };
    match loss {
        Loss::SoftmaxCrossEntropy => (DType::I32, Shape::new(lead, [])),
        Loss::SquaredError | Loss::BinaryCrossEntropy => (real, Shape::new(lead, [output])),
    }
}

/// The loss of every row: `y [.., O]` and targets to `[..]`, times the mask. A class where the mask is 0 is not
/// looked at, so padding may hold any number.
pub(super) fn row_losses(tape: &mut Tape, loss: Loss, y: Var, target: Var, mask: Option<Var>) -> Result<Var> {
    let losses = match loss {
        Loss::SoftmaxCrossEntropy => return ops::softmax_cross_entropy(tape, y, target, mask),
        Loss::SquaredError => {
            let squares = ops::squared_error(tape, y, target)?;
            let sum = sum_dims(tape, squares, &[])?;
            let outputs = tape.last_dim("squared_error", y)?;
            ops::scale(tape, sum, 1.0 / outputs as f64)?
        }
        Loss::BinaryCrossEntropy => {
            let parts = ops::bce_with_logits(tape, y, target)?;
            sum_dims(tape, parts, &[])?
        }
    };
    weighted(tape, losses, mask)
}

/// `x · mask`, if there is one.
pub(super) fn weighted(tape: &mut Tape, x: Var, mask: Option<Var>) -> Result<Var> {
    match mask {
        Some(mask) => ops::mul(tape, x, mask),
        None => Ok(x),
    }
}

/// What a loss adds up to, over rows and steps.
pub(super) struct Totals {
    pub(super) loss: Var,
    pub(super) count: Var,
    pub(super) correct: Option<Var>,
}

/// Sum over whatever batch axes there are, `[..] -> []`.
pub(super) fn total(tape: &mut Tape, x: Var) -> Result<Var> {
    let lead = tape.shape(x)?.lead;
    let x = if lead.has_t() { sum_steps(tape, x)? } else { x };
    if lead.has_n() { sum_rows(tape, x) } else { Ok(x) }
}

/// Number of entries of `lead`, or the sum of the weights.
pub(super) fn count(tape: &mut Tape, weights: Option<Var>, lead: Lead, real: DType) -> Result<Var> {
    match weights {
        Some(w) => total(tape, w),
        None => extent(tape, lead, real),
    }
}

/// `sum / count`, 0 where nothing counts.
pub(super) fn mean(tape: &mut Tape, sum: Var, count: Var) -> Result<Var> {
    ops::div_or_zero(tape, sum, count)
}
