//! Series: numbers from a file of yours; at every step the numbers of the next one are predicted.
//!
//! The file ([`readers::steps`](crate::readers::steps)) is one recording of `L` steps of `C` numbers. Its first steps are
//! for training, those behind for validation, its last for testing. A part of `P` steps in a batch of `N` rows is cut
//! into `N` stretches of `R = (P - 1) / N` steps, rounded down: row `n` reads steps `nR ..` and predicts each one's
//! successor, with the state carried over from batch to batch. What does not fill a row is left out.
//!
//! With `window=all`, a batch is a whole part. It is never in memory: the file is read piece by piece
//! ([`Pieces`]), as often as the schedule of checkpoints asks for it. So a recording may be longer than memory, and
//! gradients still go back from its end to its start. With `window=K` gradients go back `K` steps, as for texts.
//!
//! `scale=standard` subtracts each channel's mean over the training part and divides by its deviation, both found in one
//! pass over the file; channels that never change become 0.

use std::path::Path;

use retrograd_engine::{DType, Tensor};

use crate::data_dir;
use crate::error::{Error, Result};
use crate::examples::check;
use crate::options::{OptionDoc, Options};
use crate::readers::steps::Recording;
use crate::task::{At, Batch, Input, Loss, Metric, Pieces, Request, Split, Task, TaskSpec};
use crate::tasks::TaskEntry;

pub(crate) const ENTRY: TaskEntry = TaskEntry {
    name: "series",
    summary: "a file of numbers, of any length: the next step's from those before",
    options: &[
        OptionDoc::new("file", "none", "NumPy's .npy of [T] or [T,C], or bare 32-bit floats"),
        OptionDoc::new("channels", "1", "numbers a step of a file of bare floats"),
        OptionDoc::new("window", "all", "steps of a batch; all: all of the part, read piece by piece"),
        OptionDoc::new("valid", "10", "per cent of the steps for validation, behind those for training"),
        OptionDoc::new("test", "10", "per cent of the steps for testing, at the end"),
        OptionDoc::new("scale", "standard", "standard: mean 0 and variance 1 in training; none: as they are"),
    ],
    needs: &[],
    module: module_path!(),
    build,
};

struct Series {
    spec: TaskSpec,
    recording: Recording,
    /// First step and number of steps of each split.
    parts: [(usize, usize); 3],
    /// Steps of a batch; `None`: of the whole part.
    window: Option<usize>,
    /// What is subtracted from each channel and what it is multiplied with then.
    scales: Vec<(f32, f32)>,
}

fn build(options: &Options) -> Result<Box<dyn Task>> {
    let s = options.read(ENTRY.name, ENTRY.options)?;
    let file = s.text("file")?;
    if file == "none" {
        let expected = "the path of a file of numbers, as file=signal.npy".into();
        return Err(Error::BadOption { task: ENTRY.name, key: "file", value: file.into(), expected });
    }
    let path = match Path::new(file) {
        here if here.is_file() => here.to_path_buf(),
        _ => data_dir::find(s.options().data(), file)?,
    };
    let recording = Recording::open(&path, s.integer("channels", 1..=1 << 20)?)?;
    let (valid, test) = (s.integer("valid", 0..=99)?, s.integer("test", 0..=99)?);
    if valid + test > 99 {
        let expected = format!("at most {}, as valid is {valid}", 99 - valid);
        return Err(Error::BadOption { task: ENTRY.name, key: "test", value: test.to_string(), expected });
    }
    let steps = recording.steps();
    let share = |percent: usize| (steps as u128 * percent as u128 / 100) as usize;
    let (valid, test) = (share(valid), share(test));
    let train = steps - valid - test;
    if train < 2 {
        return Err(Error::data(path, format!("{train} steps for training, expected at least 2")));
    }
    let moments = moments(&path, &recording, train)?;
    let standard = s.choice("scale", &["standard", "none"])? == "standard";
    let scale = |&(mean, variance): &(f64, f64)| match (standard, variance > 0.0) {
        (true, true) => (mean as f32, variance.sqrt().recip() as f32),
        (true, false) => (mean as f32, 0.0),
        (false, _) => (0.0, 1.0),
    };
    let scales: Vec<(f32, f32)> = moments.iter().map(scale).collect();
    let loss =
        moments.iter().zip(&scales).map(|((_, variance), (_, by))| variance * f64::from(by * by)).sum();
    let width = recording.channels();
    let (input, squared) = (Input::Dense { width }, Loss::SquaredError { width });
    let spec = TaskSpec::new(ENTRY.name, input, squared, At::EveryStep, Metric::MeanSquaredError)
        .with_baseline(loss, "always predicts the mean of the training part")
        .with_carried_state();
    let parts = [(0, train), (train, valid), (train + valid, test)];
    Ok(Box::new(Series { spec, recording, parts, window: s.limit("window")?, scales }))
}

/// Mean and variance of each channel over the first steps. Errors: numbers that are not finite.
fn moments(path: &Path, recording: &Recording, steps: usize) -> Result<Vec<(f64, f64)>> {
    let width = recording.channels();
    let at_once = ((1 << 16) / width).clamp(1, steps);
    let mut buffer = vec![0.0f32; at_once * width];
    let (mut sums, mut squares) = (vec![0.0f64; width], vec![0.0f64; width]);
    // Moments about the first step: no cancellation where a mean is large.
    let mut origin = vec![0.0f32; width];
    recording.read(0, &mut origin)?;
    for from in (0..steps).step_by(at_once) {
        let part = &mut buffer[..at_once.min(steps - from) * width];
        recording.read(from, part)?;
        if let Some(i) = part.iter().position(|x| !x.is_finite()) {
            let (step, channel) = (from + i / width, i % width);
            let reason = format!("step {step}, channel {channel}: {}, expected a finite number", part[i]);
            return Err(Error::data(path, reason));
        }
        for step in part.chunks_exact(width) {
            for c in 0..width {
                let x = f64::from(step[c]) - f64::from(origin[c]);
                sums[c] += x;
                squares[c] += x * x;
            }
        }
    }
    let n = steps as f64;
    let of = |c: usize| {
        let mean = sums[c] / n;
        (mean + f64::from(origin[c]), (squares[c] / n - mean * mean).max(0.0))
    };
    Ok((0..width).map(of).collect())
}

impl Series {
    /// Steps of a row of a part.
    fn stretch(&self, split: Split, rows: usize) -> usize {
        self.parts[split as usize].1.saturating_sub(1) / rows.max(1)
    }
}

impl Task for Series {
    fn spec(&self) -> &TaskSpec {
        &self.spec
    }

    fn batches(&self, split: Split, batch_size: usize) -> usize {
        let stretch = self.stretch(split, batch_size);
        stretch.div_ceil(self.window.unwrap_or(stretch).max(1))
    }

    fn batch(&self, request: &Request) -> Result<Batch> {
        self.piece(request, 0, usize::MAX)
    }

    fn examples(&self, _: Split) -> usize {
        1
    }

    fn as_pieces(&self) -> Option<&dyn Pieces> {
        self.window.is_none().then_some(self)
    }
}

impl Pieces for Series {
    fn size(&self, request: &Request) -> Result<(usize, usize)> {
        let &Request { split, batch_size, index, .. } = request;
        check(ENTRY.name, request, self.batches(split, batch_size))?;
        let stretch = self.stretch(split, batch_size);
        let window = self.window.unwrap_or(stretch);
        Ok((window.min(stretch - index * window), batch_size))
    }

    fn piece(&self, request: &Request, from: usize, most: usize) -> Result<Batch> {
        let (all, n) = self.size(request)?;
        if from >= all {
            return Err(Error::Request {
                task: ENTRY.name,
                what: format!("step {from} of a batch of {all}"),
            });
        }
        let steps = most.min(all - from);
        let stretch = self.stretch(request.split, n);
        let first = self.parts[request.split as usize].0 + request.index * self.window.unwrap_or(0) + from;
        let width = self.recording.channels();
        let mut x = Tensor::zeros(DType::F32, [steps, n, width])?;
        let mut target = Tensor::zeros(DType::F32, [steps, n, width])?;
        let (xs, ys) = (x.as_mut_slice::<f32>()?, target.as_mut_slice::<f32>()?);
        // A few steps at a time: reading takes little memory beside the piece.
        let at_once = ((1 << 14) / width).clamp(1, steps);
        let mut read = vec![0.0f32; (at_once + 1) * width];
        for row in 0..n {
            for start in (0..steps).step_by(at_once) {
                let here = at_once.min(steps - start);
                let read = &mut read[..(here + 1) * width];
                self.recording.read(first + row * stretch + start, read)?;
                for (i, x) in read.iter_mut().enumerate() {
                    let (mean, by) = self.scales[i % width];
                    *x = (*x - mean) * by;
                }
                for t in 0..here {
                    let at = ((start + t) * n + row) * width;
                    xs[at..][..width].copy_from_slice(&read[t * width..][..width]);
                    ys[at..][..width].copy_from_slice(&read[(t + 1) * width..][..width]);
                }
            }
        }
        Ok(Batch { x, target, mask: None, lengths: None })
    }
}
