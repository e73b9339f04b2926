//! Cross-entropy of the softmax of logits with a class, and its cotangent, in one launch.

use super::kru::optional;
use super::{Expect, SOFTMAX, fit};
use crate::driver::{Arg, Grid, Kernel};
use crate::error::Result;
use crate::gpu::{Buffer, Gpu};

const NAME: &str = "softmax_cross_entropy";

/// What the losses are of.
#[derive(Clone, Copy, Debug)]
pub struct Classes<'a> {
    /// `[R,O]`.
    pub logits: &'a Buffer<f32>,
    /// `[R]`: a class outside `0..O` gives NaN.
    pub targets: &'a Buffer<i32>,
    /// `[R]`: factor of each row; none: 1. Where it is 0 everything is 0, whatever the logits and the target.
    pub weights: Option<&'a Buffer<f32>>,
}

/// `loss[r] = w_r (log Σ exp(x_r) − x_r[target])` and, if wanted, `logits_bar = scale · w_r (softmax(x_r) − onehot)`.
///
/// Shapes: `loss [R]`, `logits_bar [R,O]`; `scale` is `1/R` for the cotangents of a mean. One launch. Errors: sizes
/// that do not fit.
pub fn softmax_cross_entropy(
    gpu: &Gpu,
    classes: Classes<'_>,
    loss: &mut Buffer<f32>,
    logits_bar: Option<&mut Buffer<f32>>,
    scale: f32,
) -> Result<()> {
    let rows = loss.len();
    let outputs = classes.logits.len().checked_div(rows).unwrap_or(0);
    Expect::new(NAME, "logits [R,O]", &[rows, outputs])?.of(classes.logits)?;
    Expect::new(NAME, "targets [R]", &[rows])?.of(classes.targets)?;
    Expect::new(NAME, "weights [R]", &[rows])?.of_any(classes.weights)?;
    Expect::new(NAME, "logits_bar [R,O]", &[rows, outputs])?.of_any(logits_bar.as_deref())?;
    let blocks = fit::<i32>(NAME, "number of rows", rows.div_ceil(4))? as u32;
    let mut args = vec![classes.logits.input(), classes.targets.input(), optional(classes.weights)];
    args.extend([loss.output(), logits_bar.map_or(Arg::Address(0), Buffer::output)]);
    args.extend([Arg::I64(rows as i64), Arg::I64(outputs as i64), Arg::F32(scale)]);
    gpu.launch(Kernel { module: &SOFTMAX, name: NAME }, Grid::row(blocks, 128, 0), &args)
}
