//! Recordings of a model for methods that use curvature: statistics of its linear maps, and exact products with the
//! Gauss-Newton matrix of its loss.
//!
//! The losses are minus logarithms of distributions with the outputs as natural parameters: a softmax, Bernoulli
//! variables, normal variables of the variance that makes the squared error their logarithm. So the Gauss-Newton matrix of
//! the mean loss is the Fisher information of a row, every position weighted as in the loss.

use retrograd_engine::core_ops::extent;
use retrograd_engine::curvature::tangents;
use retrograd_engine::statistics::{Statistics, StatisticsOptions, vjp_with_statistics};
use retrograd_engine::{DType, Lead, Shape, Tape, Var, vjp};
use retrograd_ops as ops;

use super::loss::{row_losses, target_ty};
use super::{Loss, Mode, Model, ModelSpec, Readout, Recorded, record};
use crate::error::{Error, Result};

/// Where the targets come from that statistics are taken with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drawn {
    /// From what the model predicts, by noise in the input `noise`; see [`Noise`].
    FromModel,
    /// From the data. The input `signs` `[N]` multiplies the loss of each row; with random signs the square of the sum of
    /// gradients has the mean of the sum of squares.
    FromData,
}

/// What the numbers of the input `noise` have to be, one for each output of each scored position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noise {
    /// `−log(−log u)` for `u` uniform on (0, 1): the largest of outputs plus noise is a draw from their softmax.
    Gumbel,
    /// Uniform on [0, 1).
    Uniform,
    /// Standard normal.
    Normal,
}

impl Noise {
    /// What a loss needs.
    pub fn of(loss: Loss) -> Noise {
        match loss {
            Loss::SoftmaxCrossEntropy => Noise::Gumbel,
            Loss::BinaryCrossEntropy => Noise::Uniform,
            Loss::SquaredError => Noise::Normal,
        }
    }
}

/// A model recorded for its statistics.
#[derive(Debug)]
pub struct RecordedStatistics {
    /// The tape.
    pub tape: Tape,
    /// Statistics of the linear maps among the trained parameters.
    pub statistics: Statistics,
    /// Gradients of the trained parameters: of the sum over rows of `−log p` of the targets drawn, with signs if any.
    pub gradients: Vec<Var>,
    /// Parameters that are trained.
    pub trainable: Vec<(String, Var)>,
}

/// A model recorded for products with its Gauss-Newton matrix.
#[derive(Debug)]
pub struct RecordedProducts {
    /// The tape. Direction `k` of parameter `w` is the input [`direction_name`]`(k, "w")`, of its type and sizes.
    pub tape: Tape,
    /// `d_iᵀ F d_j` for `i ≤ j`, row by row.
    pub products: Vec<Var>,
    /// Parameters that are trained.
    pub trainable: Vec<(String, Var)>,
}

/// Name of the input of direction `k` for parameter `name`.
pub fn direction_name(k: usize, name: &str) -> String {
    format!("direction.{k}.{name}")
}

impl Model {
    /// Records the statistics of the model's linear maps. `lag` and `widest` as in [`StatisticsOptions`]. Inputs are those
    /// of a recording for training, without `target` for targets from the model, and `noise` or `signs`.
    pub fn record_statistics(
        &self,
        seed: u64,
        drawn: Drawn,
        lag: bool,
        widest: usize,
    ) -> Result<RecordedStatistics> {
        let (mut recorded, y) = self.with_predictions(seed)?;
        let (spec, tape) = (self.spec(), &mut recorded.tape);
        let weight = weight(tape, spec, recorded.count)?;
        let bar = match drawn {
            Drawn::FromModel => {
                let shape = tape.shape(y)?.clone();
                let noise = tape.input("noise", spec.dtype, shape)?;
                let bar = sampled(tape, spec.loss, y, noise)?;
                // The weight of a square.
                let root = ops::sqrt(tape, weight)?;
                by_row(tape, bar, root)?
            }
            Drawn::FromData => {
                let (dtype, shape) = target_ty(spec.loss, spec.readout, spec.output, spec.dtype);
                let target = tape.input("target", dtype, shape)?;
                let mask = mask(tape, spec)?;
                let losses = row_losses(tape, spec.loss, y, target, mask)?;
                let signs = tape.input("signs", spec.dtype, Shape::rows([]))?;
                let lead = tape.shape(losses)?.lead;
                let bare = bare_weight(tape, spec, recorded.count)?;
                let root = ops::sqrt(tape, bare)?;
                let signs = ops::mul(tape, signs, root)?;
                let signs = retrograd_engine::core_ops::expand(tape, signs, lead)?;
                let bars = vjp(tape, &[(losses, signs)], &[y])?;
                match bars[0] {
                    Some(bar) => bar,
                    None => return Err(Error::model("bug: a loss that does not depend on the outputs")),
                }
            }
        };
        let wrt: Vec<Var> = recorded.trainable.iter().map(|(_, v)| *v).collect();
        let lengths = match spec.lengths {
            true => Some(tape.input("lengths", DType::I32, Shape::rows([]))?),
            false => None,
        };
        let options = StatisticsOptions { lengths, lag, widest };
        let (bars, statistics) = vjp_with_statistics(tape, &[(y, bar)], &wrt, &wrt, &options)?;
        let mut gradients = Vec::new();
        for (&w, bar) in wrt.iter().zip(bars) {
            gradients.push(match bar {
                Some(bar) => bar,
                None => retrograd_engine::core_ops::zeros_like(tape, w)?,
            });
        }
        Ok(RecordedStatistics { tape: recorded.tape, statistics, gradients, trainable: recorded.trainable })
    }

    /// Records products of `directions` directions with the Gauss-Newton matrix of the mean loss. Inputs are those of a
    /// recording for training without `target`, and the directions.
    pub fn record_products(&self, seed: u64, directions: usize) -> Result<RecordedProducts> {
        let (mut recorded, y) = self.with_predictions(seed)?;
        let (spec, tape) = (self.spec(), &mut recorded.tape);
        let bare = {
            let count = recorded.count;
            let one = tape.scalar(count, 1.0)?;
            ops::div_or_zero(tape, one, count)?
        };
        let weight = masked(tape, spec, bare)?;
        let wrt: Vec<Var> = recorded.trainable.iter().map(|(_, v)| *v).collect();
        let (mut moved, mut curved) = (Vec::new(), Vec::new());
        for k in 0..directions {
            let mut direction = Vec::new();
            for (name, v) in &recorded.trainable {
                let ty = tape.ty(*v)?.clone();
                direction.push(tape.input(&direction_name(k, name), ty.dtype, ty.shape)?);
            }
            let found = tangents(tape, &[y], &wrt, &direction)?;
            let Some(&Some(u)) = found.first() else {
                return Err(Error::model("no output depends on a trained parameter"));
            };
            let h = hessian_product(tape, spec.loss, y, u)?;
            curved.push(by_row(tape, h, weight)?);
            moved.push(u);
        }
        let mut products = Vec::new();
        for (i, &u) in moved.iter().enumerate() {
            for &h in &curved[i..] {
                let product = ops::mul(tape, u, h)?;
                products.push(ops::sum_all(tape, product)?);
            }
        }
        Ok(RecordedProducts { tape: recorded.tape, products, trainable: recorded.trainable })
    }

    fn with_predictions(&self, seed: u64) -> Result<(Recorded, Var)> {
        let spec = ModelSpec { predictions: true, ..self.spec().clone() };
        let recorded = record::record(&spec, Mode::Train, seed)?;
        let y = recorded.predictions.ok_or_else(|| Error::model("bug: no predictions"))?;
        Ok((recorded, y))
    }
}

fn mask(tape: &mut Tape, spec: &ModelSpec) -> Result<Option<Var>> {
    let lead = match spec.readout {
        Readout::Last => Lead::N,
        Readout::EveryStep => Lead::TN,
    };
    Ok(match spec.masked {
        true => Some(tape.input("mask", spec.dtype, Shape::new(lead, []))?),
        false => None,
    })
}

/// `weight · mask`.
fn masked(tape: &mut Tape, spec: &ModelSpec, weight: Var) -> Result<Var> {
    match mask(tape, spec)? {
        Some(mask) => Ok(ops::mul(tape, mask, weight)?),
        None => Ok(weight),
    }
}

/// `N / count`: what the mean loss weights the position of a row with, times the number of rows.
fn bare_weight(tape: &mut Tape, spec: &ModelSpec, count: Var) -> Result<Var> {
    let rows = extent(tape, Lead::N, spec.dtype)?;
    Ok(ops::div_or_zero(tape, rows, count)?)
}

fn weight(tape: &mut Tape, spec: &ModelSpec, count: Var) -> Result<Var> {
    let bare = bare_weight(tape, spec, count)?;
    masked(tape, spec, bare)
}

/// `x [.., O]` times a weight `[..]` or `[]`.
fn by_row(tape: &mut Tape, x: Var, weight: Var) -> Result<Var> {
    let weight = match tape.shape(weight)?.lead {
        Lead::Shared => weight,
        _ => ops::reshape(tape, weight, &[1])?,
    };
    Ok(ops::mul(tape, x, weight)?)
}

/// The cotangent of outputs `[.., O]` under `−log p` of targets that the noise draws; see [`Noise`].
///
/// Softmax: `softmax(y) − onehot`; Bernoulli: `σ(y) − [u < σ(y)]`; squared error, the mean over `O` outputs of `(y − t)²`:
/// `√(2/O) ε`, whose square has the mean of the Hessian.
pub fn sampled(tape: &mut Tape, loss: Loss, y: Var, noise: Var) -> Result<Var> {
    Ok(match loss {
        Loss::SoftmaxCrossEntropy => {
            let p = ops::softmax(tape, y)?;
            let z = ops::add(tape, y, noise)?;
            let most = ops::max(tape, z, &[-1], true)?;
            let drawn = ops::ge(tape, z, most)?;
            ops::sub(tape, p, drawn)?
        }
        Loss::BinaryCrossEntropy => {
            let p = ops::sigmoid(tape, y)?;
            let drawn = ops::lt(tape, noise, p)?;
            ops::sub(tape, p, drawn)?
        }
        Loss::SquaredError => {
            let outputs = tape.last_dim("squared_error", y)?;
            ops::scale(tape, noise, (2.0 / outputs as f64).sqrt())?
        }
    })
}

/// What the Hessian of a row's loss by its outputs does to a tangent `u` of the outputs `y`.
///
/// Softmax: `p u − p (p·u)`; Bernoulli: `σ (1 − σ) u`; squared error: `2/O u`.
pub fn hessian_product(tape: &mut Tape, loss: Loss, y: Var, u: Var) -> Result<Var> {
    Ok(match loss {
        Loss::SoftmaxCrossEntropy => {
            let p = ops::softmax(tape, y)?;
            let pu = ops::mul(tape, p, u)?;
            let along = ops::sum(tape, pu, &[-1], true)?;
            let back = ops::mul(tape, p, along)?;
            ops::sub(tape, pu, back)?
        }
        Loss::BinaryCrossEntropy => {
            let p = ops::sigmoid(tape, y)?;
            let square = ops::square(tape, p)?;
            let slope = ops::sub(tape, p, square)?;
            ops::mul(tape, slope, u)?
        }
        Loss::SquaredError => {
            let outputs = tape.last_dim("squared_error", y)?;
            ops::scale(tape, u, 2.0 / outputs as f64)?
        }
    })
}
