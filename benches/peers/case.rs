//! What is measured, the same for every peer: a case, its network and data, the protocol of a worker process.
//!
//! A worker is started with `--request FILE`, JSON of a [`Request`]; it reads weights and inputs from the data
//! file, computes loss and gradients, leaves the gradients in a file under this engine's names, and prints one line
//! of JSON, a [`Report`].

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use retrograd::cells::{self, Cell, Input, Layer, Loss, Model, ModelSpec, Readout, Recorded, Settings};
use retrograd::run::checkpoint;
use retrograd::{DType, Params, Tensor};
use serde::{Deserialize, Serialize};

use crate::mgu::Mgu;

/// Result of everything here: what goes wrong ends the process with its message.
pub(crate) type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// A network and the sizes of its batch: one layer, read out after the last step, cross-entropy over classes.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Case {
    /// Name of a cell of the table, or `mgu`, the cell written beside this file.
    pub(crate) cell: String,
    /// Its recurrent operator.
    pub(crate) operator: String,
    /// Settings of the cell.
    #[serde(default)]
    pub(crate) cell_settings: BTreeMap<String, String>,
    /// Settings of the operator.
    #[serde(default)]
    pub(crate) operator_settings: BTreeMap<String, String>,
    /// Time steps `T`.
    pub(crate) steps: usize,
    /// Batch rows `N`.
    pub(crate) rows: usize,
    /// Input channels `C`.
    pub(crate) input: usize,
    /// State size `H`.
    pub(crate) hidden: usize,
    /// Classes `O`.
    pub(crate) output: usize,
}

/// What one worker process is asked to do.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Request {
    /// The case.
    pub(crate) case: Case,
    /// Which formulation, of peers that have several.
    #[serde(default)]
    pub(crate) variant: String,
    /// File of weights (group `model`) and inputs (group `batch`).
    pub(crate) data: PathBuf,
    /// File to write the gradients to (group `grad`).
    pub(crate) grads: PathBuf,
    /// Threads to compute with.
    pub(crate) threads: usize,
    /// Seconds to go on measuring for.
    pub(crate) seconds: f64,
    /// Runs to measure even if that takes longer.
    pub(crate) least_runs: usize,
}

/// What a worker process prints.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Version of what was measured.
    pub(crate) version: String,
    /// Why nothing was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) skipped: Option<String>,
    /// Loss at the last step.
    pub(crate) loss: f64,
    /// Seconds of every measured run: forward, loss, all gradients.
    pub(crate) seconds: Vec<f64>,
    /// By how much resident memory rose above what it was before the first run, at most.
    pub(crate) resident_bytes: u64,
    /// Peak the plan foresees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) planned_peak_bytes: Option<usize>,
    /// Peak the engine measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) measured_peak_bytes: Option<usize>,
    /// Whether denormals were flushed.
    pub(crate) denormals_flushed: bool,
}

impl Case {
    /// The network, recorded. `Err(Ok(reason))` if this engine has no such cell or operator.
    pub(crate) fn network(&self, seed: u64) -> Result<Recorded, Result<String, Box<dyn std::error::Error>>> {
        if self.cell != Mgu::NAME && !cells::CELLS.iter().any(|e| e.name == self.cell) {
            return Err(Ok(format!("no cell `{}`", self.cell)));
        }
        if !cells::OPERATORS.iter().any(|e| e.name == self.operator) {
            return Err(Ok(format!("no operator `{}`", self.operator)));
        }
        self.record(seed).map_err(Err)
    }

    fn record(&self, seed: u64) -> Fallible<Recorded> {
        let settings = |map: &BTreeMap<String, String>| map.iter().collect::<Settings>();
        let cell: Arc<dyn Cell> = match self.cell.as_str() {
            Mgu::NAME => Arc::new(Mgu),
            name => cells::cell(name, &settings(&self.cell_settings))?,
        };
        let operator = cells::operator(&self.operator, &settings(&self.operator_settings))?;
        let layers = vec![Layer { cell, operator, hidden: self.hidden }];
        let input = Input::Dense(self.input);
        let spec = ModelSpec::new(input, layers, Readout::Last, self.output, Loss::SoftmaxCrossEntropy);
        Ok(Model::new(spec)?.record(seed)?)
    }

    /// Changes first values with which the last bit of a number would decide about its gradient, so that gradients can be
    /// compared; the arithmetic stays the same.
    ///
    /// KRU: with a positive bias modReLU jumps at 0; biases become negative. NRU: nothing in it saturates, and over
    /// hundreds of steps its memory grows until the loss is without bound; its heads become a tenth, what reads the memory
    /// a hundredth, of longer sequences as much less as they are longer. Rounding picks the
    /// side of those of its rectified sums that are near 0 (of 15.7 million, 131 are within 1e-6 of what was added, and
    /// three are on another side in f32 than in f64); biases become -1 and 1 in turn and recurrent matrices small, so that
    /// half of the units are off and half are on, and none is nearer 0 than half of what was added.
    pub(crate) fn condition(&self, weights: &mut Params) -> Fallible<()> {
        type Change<'a> = &'a dyn Fn(usize, f32) -> f32;
        let (negative, tenth): (Change<'_>, Change<'_>) = (&|_, b| -b.abs(), &|_, w| 0.1 * w);
        let in_turn: Change<'_> = &|unit, _| if unit % 2 == 0 { -1.0 } else { 1.0 };
        let length = (784.0 / self.steps as f32).min(1.0);
        let heads: Change<'_> = &|_, w| 0.1 * length * w;
        let reading: Change<'_> = &|_, w| 0.01 * length * w;
        let changes: &[(&str, Change<'_>)] = match self.cell.as_str() {
            "kru" => &[("layer0.b", negative)],
            "nru" => &[
                ("layer0.A", heads),
                ("layer0.a", heads),
                ("layer0.W", tenth),
                ("layer0.W_m", reading),
                ("layer0.b", in_turn),
            ],
            _ => &[],
        };
        for (name, change) in changes {
            let weight = weights.get_mut(name).ok_or_else(|| format!("no parameter `{name}`"))?;
            weight.as_mut_slice::<f32>()?.iter_mut().enumerate().for_each(|(k, w)| *w = change(k, *w));
        }
        Ok(())
    }

    /// Inputs `x [T,N,C]`, spread over `[0, 1)` without a pattern, and targets `[N]`.
    pub(crate) fn batch(&self) -> Fallible<Params> {
        let mut x = Tensor::zeros(DType::F32, [self.steps, self.rows, self.input])?;
        // The fractional parts of multiples of the golden ratio, squared: spread evenly, and never 0 again.
        x.fill_with(|k| (((k + 1) as f64 * 0.618_033_988_749_894_9).fract().powi(2)).into());
        let classes: Vec<i32> = (0..self.rows).map(|row| (row * 7 % self.output) as i32).collect();
        let mut batch = Params::new();
        batch.insert("x", x);
        batch.insert("target", Tensor::from_slice([self.rows], &classes)?);
        Ok(batch)
    }
}

impl Request {
    /// The request named on the command line, if there is one.
    pub(crate) fn from_args() -> Fallible<Option<Request>> {
        let mut args = std::env::args().skip_while(|arg| arg != "--request");
        let Some(_) = args.next() else { return Ok(None) };
        let path = args.next().ok_or("--request without a file")?;
        Ok(Some(serde_json::from_str(&fs::read_to_string(path)?)?))
    }

    /// Weights and inputs.
    pub(crate) fn read_data(&self) -> Fallible<(Params, Params)> {
        let mut groups = checkpoint::load(&self.data)?.groups;
        let mut take = |name: &str| groups.remove(name).ok_or(format!("no group `{name}` in the data file"));
        Ok((take("model")?, take("batch")?))
    }

    /// Writes the gradients.
    pub(crate) fn write_grads(&self, grads: &Params) -> Fallible<()> {
        Ok(checkpoint::save(&self.grads, &[("grad", grads)], &Default::default())?)
    }

    /// Times `run`: once unmeasured, then again and again. The result of the first run, seconds of the others, and
    /// by how much resident memory rose.
    pub(crate) fn measure<T>(&self, mut run: impl FnMut() -> Fallible<T>) -> Fallible<(T, Vec<f64>, u64)> {
        let before = Resident::reset();
        let first = run()?;
        let (start, mut seconds) = (Instant::now(), Vec::new());
        while seconds.len() < self.least_runs || start.elapsed().as_secs_f64() < self.seconds {
            let started = Instant::now();
            drop(run()?);
            seconds.push(started.elapsed().as_secs_f64());
        }
        Ok((first, seconds, before.growth()))
    }
}

impl Report {
    /// Prints it.
    pub(crate) fn print(&self) -> Fallible<()> {
        println!("{}", serde_json::to_string(self)?);
        Ok(())
    }
}

/// Resident memory of this process as Linux counts it; 0 elsewhere.
struct Resident {
    start: u64,
}

impl Resident {
    /// Starts a new peak, at what is resident now.
    fn reset() -> Resident {
        // Refused to some processes; the peak then counts from the start of the process.
        let _ = fs::write(Path::new("/proc/self/clear_refs"), "5");
        Resident { start: status_bytes("VmRSS:") }
    }

    fn growth(&self) -> u64 {
        status_bytes("VmHWM:").saturating_sub(self.start)
    }
}

fn status_bytes(key: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
