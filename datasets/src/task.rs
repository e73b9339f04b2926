//! What a task is: the shape of its batches, how its loss is reported, and batches at random access.

use retrograd_engine::Tensor;

use crate::error::Result;

/// Part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// To learn from; its order is shuffled by seed and epoch (streams of text keep their order).
    Train,
    /// To select models by; always in the same order.
    Valid,
    /// To report; always in the same order.
    Test,
}

impl Split {
    /// Every split, in order.
    pub const ALL: [Split; 3] = [Split::Train, Split::Valid, Split::Test];

    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Valid => "valid",
            Split::Test => "test",
        }
    }
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What a network reads at each step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// `x [T,N,C]` of `f32`, `C = width`.
    Dense {
        /// Numbers a step.
        width: usize,
    },
    /// `x [T,N]` of `i32`, each in `0..vocabulary`: a one-hot input that is gathered, not multiplied.
    Index {
        /// Number of symbols.
        vocabulary: usize,
    },
}

impl Input {
    /// Width of the dense or one-hot input.
    pub const fn width(self) -> usize {
        match self {
            Input::Dense { width } => width,
            Input::Index { vocabulary } => vocabulary,
        }
    }
}

/// Where the read-out is scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// After the last step of each sequence.
    Last,
    /// At every step.
    EveryStep,
}

/// The loss of one scored position; losses of several outputs of a position are **summed**.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// `-ln softmax(y)[target]`, targets in `0..classes`.
    SoftmaxCrossEntropy {
        /// Number of classes, the width of the read-out.
        classes: usize,
    },
    /// `Σ (y - target)²` over the width.
    SquaredError {
        /// Width of the read-out.
        width: usize,
    },
    /// `Σ -[target ln σ(y) + (1 - target) ln(1 - σ(y))]` over the width.
    BinaryCrossEntropy {
        /// Width of the read-out.
        width: usize,
    },
}

impl Loss {
    /// Width of the read-out.
    pub const fn width(self) -> usize {
        match self {
            Loss::SoftmaxCrossEntropy { classes } => classes,
            Loss::SquaredError { width } | Loss::BinaryCrossEntropy { width } => width,
        }
    }
}

/// How the loss or the number of hits is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Percentage of positions whose largest output is the target's. Larger is better.
    Accuracy,
    /// Mean loss of a position, in nats.
    CrossEntropy,
    /// Mean loss of a position.
    MeanSquaredError,
    /// Mean loss of a position over ln 2.
    BitsPerCharacter,
    /// `exp` of the mean loss of a position.
    Perplexity,
    /// Negative log-likelihood of a frame in nats: summed over notes, averaged over frames.
    FrameNll,
}

impl Metric {
    /// Name as printed and written to files.
    pub const fn name(self) -> &'static str {
        match self {
            Metric::Accuracy => "accuracy",
            Metric::CrossEntropy => "cross-entropy",
            Metric::MeanSquaredError => "mse",
            Metric::BitsPerCharacter => "bpc",
            Metric::Perplexity => "perplexity",
            Metric::FrameNll => "nll",
        }
    }

    /// Whether larger values are better.
    pub const fn larger_is_better(self) -> bool {
        matches!(self, Metric::Accuracy)
    }

    /// Whether `a` is strictly better than `b`. NaN is better than nothing; any number is better than NaN.
    pub fn better(self, a: f64, b: f64) -> bool {
        match (a.is_nan(), b.is_nan()) {
            (true, _) => false,
            (false, true) => true,
            _ if self.larger_is_better() => a > b,
            _ => a < b,
        }
    }

    /// The metric from the sum of losses, the number of hits and the number of scored positions (the sum of
    /// the mask). NaN if nothing was scored.
    pub fn from_totals(self, loss_sum: f64, hits: f64, count: f64) -> f64 {
        if count <= 0.0 {
            return f64::NAN;
        }
        match self {
            Metric::Accuracy => 100.0 * hits / count,
            Metric::CrossEntropy | Metric::MeanSquaredError | Metric::FrameNll => loss_sum / count,
            Metric::BitsPerCharacter => loss_sum / count / std::f64::consts::LN_2,
            Metric::Perplexity => (loss_sum / count).exp(),
        }
    }

    /// The metric of a mean loss alone; `None` for [`Metric::Accuracy`], which no loss determines.
    pub fn from_mean_loss(self, loss: f64) -> Option<f64> {
        (self != Metric::Accuracy).then(|| self.from_totals(loss, 0.0, 1.0))
    }
}

/// What a network for a task must look like and how it is judged.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskSpec {
    /// Name in the table.
    pub name: &'static str,
    /// What is read at each step.
    pub input: Input,
    /// Loss of a scored position.
    pub loss: Loss,
    /// Where positions are scored.
    pub at: At,
    /// How it is reported.
    pub metric: Metric,
    /// Mean loss of a position for a prediction that ignores the past, as [`TaskSpec::baseline_doc`] says.
    pub baseline: Option<f64>,
    /// What the baseline predicts.
    pub baseline_doc: &'static str,
    /// Whether batch `i + 1` continues the rows of batch `i` (streams): the state is carried over, and starts
    /// afresh at index 0 of an epoch and of a split.
    pub stateful: bool,
    /// Number of steps of every batch; `None` if it varies.
    pub steps: Option<usize>,
}

impl TaskSpec {
    /// A task whose batches stand alone, of varying length, without a baseline.
    pub const fn new(name: &'static str, input: Input, loss: Loss, at: At, metric: Metric) -> TaskSpec {
        let (baseline, baseline_doc, stateful, steps) = (None, "", false, None);
        TaskSpec { name, input, loss, at, metric, baseline, baseline_doc, stateful, steps }
    }

    /// The same with the loss of a prediction that ignores the past.
    pub const fn with_baseline(mut self, loss: f64, doc: &'static str) -> TaskSpec {
        self.baseline = Some(loss);
        self.baseline_doc = doc;
        self
    }

    /// The same with a fixed number of steps.
    pub const fn with_steps(mut self, steps: usize) -> TaskSpec {
        self.steps = Some(steps);
        self
    }

    /// The same as a stream.
    pub const fn with_carried_state(mut self) -> TaskSpec {
        self.stateful = true;
        self
    }
}

/// Which batch. Nothing else determines its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Part of the data set.
    pub split: Split,
    /// Rows `N`; the last batch of an epoch may have fewer.
    pub batch_size: usize,
    /// Pass over the training split, from 0; shuffles it. Other splits ignore it.
    pub epoch: u64,
    /// Batch of the epoch, `0..task.batches(split, batch_size)`.
    pub index: usize,
    /// Seed of shuffling, of on-line generation and of fresh noise.
    pub seed: u64,
}

/// One mini-batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// `[T,N,C]` of `f32`, or `[T,N]` of `i32`.
    pub x: Tensor,
    /// Scored at the last step: `[N]` of `i32` or `[N,W]` of `f32`; at every step: `[T,N]` or `[T,N,W]`.
    pub target: Tensor,
    /// Weight of each position, `[T,N]` of `f32`, 0 for padding. `None`: all ones.
    pub mask: Option<Tensor>,
    /// Steps of each row, `[N]` of `i32`, at most `T`. `None`: all `T`.
    pub lengths: Option<Tensor>,
}

impl Batch {
    /// Number of steps `T`.
    pub fn steps(&self) -> usize {
        self.x.dims().first().copied().unwrap_or(0)
    }

    /// Number of rows `N`.
    pub fn rows(&self) -> usize {
        self.x.dims().get(1).copied().unwrap_or(0)
    }

    /// Number of scored positions: the sum of the mask, else the number of targets.
    pub fn count(&self, at: At) -> f64 {
        match (&self.mask, at) {
            (_, At::Last) => self.rows() as f64,
            (Some(mask), At::EveryStep) => (0..mask.len()).map(|i| mask.get(i).re).sum(),
            (None, At::EveryStep) => (self.steps() * self.rows()) as f64,
        }
    }
}

/// A benchmark: batches at random access, and how a network is judged on them.
///
/// [`Task::batch`] is a **pure function** of the request: the same request gives the same bits, in any order,
/// on any thread, in any process. A run that resumes therefore sees what it would have seen.
pub trait Task: Send + Sync {
    /// What a network for it must look like and how it is judged.
    fn spec(&self) -> &TaskSpec;

    /// Number of batches of an epoch. Every example (every position, for streams) is in exactly one of them,
    /// so the last batch may have fewer rows (steps, for streams).
    fn batches(&self, split: Split, batch_size: usize) -> usize;

    /// The batch asked for. Errors: a batch size of 0, an index past the end.
    fn batch(&self, request: &Request) -> Result<Batch>;

    /// Number of sequences of a split (1 for a stream).
    fn examples(&self, split: Split) -> usize {
        self.batches(split, 1)
    }

    /// Its batches piece by piece, if they are to be read that way because they may be longer than memory.
    fn as_pieces(&self) -> Option<&dyn Pieces> {
        None
    }
}

/// Batches that are read piece by piece, without masks and lengths, and scored at every step. Pieces are pure functions
/// of the request too; one behind the other they are what [`Task::batch`] gives.
pub trait Pieces: Send + Sync {
    /// Numbers of steps and rows of the batch asked for. Errors: as [`Task::batch`].
    fn size(&self, request: &Request) -> Result<(usize, usize)>;

    /// Steps `from..from + most` of the batch asked for, or as many of them as there are. Errors: as [`Task::batch`]; no
    /// step `from`; files that cannot be read.
    fn piece(&self, request: &Request, from: usize, most: usize) -> Result<Batch>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics() {
        let cases = [
            (Metric::Accuracy, 25.0),
            (Metric::CrossEntropy, 2.0),
            (Metric::MeanSquaredError, 2.0),
            (Metric::BitsPerCharacter, 2.0 / std::f64::consts::LN_2),
            (Metric::Perplexity, 2f64.exp()),
            (Metric::FrameNll, 2.0),
        ];
        for (metric, value) in cases {
            assert_eq!(metric.from_totals(16.0, 2.0, 8.0), value, "{}", metric.name());
            assert!(metric.from_totals(0.0, 0.0, 0.0).is_nan());
            assert_eq!(metric.better(2.0, 1.0), metric == Metric::Accuracy);
            assert_eq!(metric.better(1.0, 2.0), metric != Metric::Accuracy);
            assert!(
                !metric.better(1.0, 1.0) && !metric.better(f64::NAN, 1.0) && metric.better(1.0, f64::NAN)
            );
        }
    }
}
