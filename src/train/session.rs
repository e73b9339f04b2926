//! Training in a run folder: what is written when, and how a run goes on after it was stopped or killed.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use retrograd_datasets::Split;
use retrograd_optim::Verdict;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::config::{Length, TrainConfig};
use super::network::Peak;
use super::position::{Best, Position};
use super::trainer::{Ended, Evaluation, MODEL, Milestone, POSITION, Step, Trainer};
use crate::run::checkpoint::{self, Checkpoint, Metadata};
use crate::run::{
    BEST, CONFIG, CURVES, Chart, Error, LAST, METRICS, Metrics, PREVIOUS, Result, RunFolder, Series,
    TensorBoard, read_config, read_metrics, write_atomic,
};

/// Seconds that training and evaluation took, one JSON object per line. Apart from [`METRICS`], which is the same
/// for an interrupted run and one that was not.
pub const TIMES: &str = "times.jsonl";
/// What came out, JSON.
pub const RESULT: &str = "result.json";

/// Longest time between two checkpoints.
const SAVE_EVERY: Duration = Duration::from_secs(30);
/// Shortest time between two drawings of the curves.
const DRAW_EVERY: Duration = Duration::from_secs(10);

/// Someone who watches a run, and may stop it.
pub trait Watch {
    /// After every update.
    fn step(&mut self, step: &Step, trainer: &Trainer) {
        let _ = (step, trainer);
    }

    /// After every evaluation on validation.
    fn evaluated(&mut self, milestone: &Milestone) {
        let _ = milestone;
    }

    /// A remark for people.
    fn note(&mut self, text: &str) {
        let _ = text;
    }

    /// Asked after every update: whether to save and stop.
    fn stop(&mut self) -> bool {
        false
    }
}

/// Watches nothing.
impl Watch for () {}

/// A training run in a folder.
///
/// The folder holds [`CONFIG`], [`METRICS`], [`TIMES`], [`CURVES`], TensorBoard events, the checkpoints [`LAST`] and
/// [`BEST`], and at the end [`RESULT`]. A checkpoint is written after every evaluation, every half minute, and when
/// the run is stopped. [`Session::resume`] goes on from the newest: the run ends with the bits it would have ended
/// with.
pub struct Session {
    trainer: Trainer,
    folder: RunFolder,
    metrics: Metrics,
    times: Metrics,
    board: TensorBoard,
    clock: Clock,
}

/// Time spent by this process.
#[derive(Debug)]
struct Clock {
    start: Instant,
    saved: Instant,
    drawn: Option<Instant>,
    first_step: u64,
    train: Duration,
    evaluate: Duration,
    /// Training time at the last evaluation.
    noted: Duration,
}

impl Clock {
    fn new(first_step: u64) -> Clock {
        let now = Instant::now();
        let zero = Duration::ZERO;
        Clock { start: now, saved: now, drawn: None, first_step, train: zero, evaluate: zero, noted: zero }
    }
}

/// What came out of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The run folder.
    pub folder: PathBuf,
    /// Task.
    pub task: String,
    /// Network, in words.
    pub network: String,
    /// Why it ended; `None` if it was interrupted.
    #[serde(serialize_with = "ended")]
    pub ended: Option<Ended>,
    /// Updates made.
    pub steps: u64,
    /// Epochs completed.
    pub epochs: u64,
    /// Name of the metric.
    pub metric: &'static str,
    /// Best evaluation on validation.
    #[serde(serialize_with = "best_of")]
    pub best: Option<Best>,
    /// The best network on the test split.
    #[serde(serialize_with = "metric_of")]
    pub test: Option<Evaluation>,
    /// The metric of a prediction that ignores the past.
    pub baseline: Option<f64>,
    /// Real numbers that were trained.
    pub parameters: usize,
    /// Seconds this process spent in all.
    pub seconds: f64,
    /// Updates per second of training time, by this process.
    pub steps_per_second: f64,
    /// Seconds of training time per epoch, by this process.
    pub seconds_per_epoch: f64,
    /// Memory of the largest program.
    pub planned_peak_bytes: usize,
    /// The same, measured.
    pub measured_peak_bytes: usize,
}

fn ended<S: serde::Serializer>(ended: &Option<Ended>, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(ended.map_or("interrupted", Ended::describe))
}

/// As numbers; a checkpoint's text is for numbers that are none.
fn best_of<S: serde::Serializer>(best: &Option<Best>, s: S) -> Result<S::Ok, S::Error> {
    best.map(|best| json!({ "step": best.step, "metric": number(best.metric) })).serialize(s)
}

fn metric_of<S: serde::Serializer>(evaluation: &Option<Evaluation>, s: S) -> Result<S::Ok, S::Error> {
    evaluation.map(|e| e.metric).serialize(s)
}

impl Session {
    /// Starts a run in a new folder: writes the configuration and the checkpoint of step 0.
    pub fn start(trainer: Trainer, folder: RunFolder) -> Result<Session> {
        // First, as a folder without it is no run: what is killed from here on can be resumed.
        folder.write_config(&trainer.config().to_json()?)?;
        let metrics = Metrics::create(folder.file(METRICS))?;
        let times = Metrics::create(folder.file(TIMES))?;
        let board = TensorBoard::create(folder.path())?;
        let mut session = Session { trainer, folder, metrics, times, board, clock: Clock::new(0) };
        session.save()?;
        Ok(session)
    }

    /// Goes on with the run in `folder` from its newest checkpoint. `trainer` is one for the configuration of the
    /// folder ([`stored_config`]), which may say another length, budget and number of threads by now.
    ///
    /// Errors: a configuration that differs in anything else; a checkpoint that is damaged or does not fit.
    pub fn resume(mut trainer: Trainer, folder: RunFolder) -> Result<(Session, Option<Error>)> {
        let stored = TrainConfig::from_json(folder.config()?)?;
        if let [difference, ..] = &*trainer.config().differences(&stored.resumed_as(trainer.config()))? {
            return Err(Error::run_folder(folder.path(), format!("another configuration: {difference}")));
        }
        let lost = match never_saved(&folder) {
            true => None,
            false => {
                let (checkpoint, lost) = checkpoint::load_last(folder.path())?;
                trainer.restore(checkpoint).map_err(|reason| Error::checkpoint(folder.file(LAST), reason))?;
                lost
            }
        };
        let step = trainer.position().step;
        let metrics = Metrics::resume(folder.file(METRICS), step)?;
        let times = Metrics::resume(folder.file(TIMES), step)?;
        let board = TensorBoard::resume(folder.path(), step)?;
        // The result of a run that had fewer updates to make: were this one killed, it would say that it is over.
        if trainer.ended().is_none() {
            let result = folder.file(RESULT);
            match std::fs::remove_file(&result) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io(&result)(error));
                }
                _ => {}
            }
        }
        folder.write_config(&trainer.config().to_json()?)?;
        Ok((Session { trainer, folder, metrics, times, board, clock: Clock::new(step) }, lost))
    }

    /// The trainer.
    pub fn trainer(&self) -> &Trainer {
        &self.trainer
    }

    /// The run folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Trains until the end, or until `watch` says stop; then judges the best network on the test split.
    ///
    /// Errors: [`Error::NonFinite`], with the last good checkpoint kept; the disk; the budget. Whatever was saved
    /// before can be resumed.
    pub fn run(mut self, watch: &mut dyn Watch) -> Result<Summary> {
        let mut interrupted = false;
        while self.trainer.ended().is_none() && !interrupted {
            let started = Instant::now();
            let step = self.trainer.step().map_err(|error| self.explained(error))?;
            self.clock.train += started.elapsed();
            if step.step.is_multiple_of(self.trainer.config().log_every) {
                self.log(&step)?;
            }
            watch.step(&step, &self.trainer);
            if self.trainer.config().snapshots.is_some_and(|every| step.step.is_multiple_of(every)) {
                self.save_snapshot(step.step)?;
            }
            if self.trainer.evaluation_due() {
                let milestone = self.milestone()?;
                watch.evaluated(&milestone);
            } else if self.clock.saved.elapsed() >= SAVE_EVERY {
                self.save()?;
            }
            interrupted = watch.stop();
        }
        if interrupted && self.trainer.ended().is_none() {
            self.save()?;
            self.draw(true);
            return Ok(self.summary(None, None));
        }
        self.draw(true);
        self.finish()
    }

    /// One evaluation, with all that is written after it.
    fn milestone(&mut self) -> Result<Milestone> {
        let started = Instant::now();
        let milestone = self.trainer.evaluate_and_learn()?;
        self.clock.evaluate += started.elapsed();
        let name = self.trainer.task().metric.name();
        let m = &milestone;
        self.metrics.append(
            m.step,
            &json!({
                "kind": "valid", "epoch": m.epoch, "metric": m.valid.metric, "loss": m.valid.loss,
                "train_metric": m.train_metric, "train_loss": m.train_loss, "best": m.is_best,
            }),
        )?;
        let spent = self.clock.train - self.clock.noted;
        self.clock.noted = self.clock.train;
        let times = json!({
            "epoch": m.epoch, "train_seconds": spent.as_secs_f64(),
            "evaluate_seconds": started.elapsed().as_secs_f64(),
        });
        self.times.append(m.step, &times)?;
        let tags = [format!("{name}/valid"), format!("{name}/train")];
        self.board.scalars(m.step, &[(&tags[0], m.valid.metric), (&tags[1], m.train_metric)])?;
        if m.is_best {
            self.save_best(m)?;
        }
        self.save()?;
        self.draw(false);
        Ok(milestone)
    }

    fn log(&mut self, step: &Step) -> Result<()> {
        let mut fields = Map::new();
        fields.insert("kind".into(), "train".into());
        fields.insert("loss".into(), number(step.loss));
        fields.insert("lr".into(), number(step.lr));
        fields.insert("norm".into(), number(step.norm));
        if step.penalty != 0.0 {
            fields.insert("penalty".into(), number(step.penalty));
        }
        if let Some(accuracy) = step.accuracy {
            fields.insert("accuracy".into(), number(accuracy));
        }
        if let Some(unconverged) = step.unconverged {
            fields.insert("unconverged".into(), number(unconverged));
        }
        match step.verdict {
            Verdict::Kept => None,
            Verdict::Clipped => fields.insert("gradients".into(), "clipped".into()),
            Verdict::Replaced => fields.insert("gradients".into(), "replaced".into()),
            Verdict::Skip => fields.insert("gradients".into(), "skipped".into()),
        };
        self.metrics.append(step.step, &fields)?;
        self.board.scalars(
            step.step,
            &[("loss/train", step.loss), ("optimizer/lr", step.lr), ("optimizer/gradient norm", step.norm)],
        )
    }

    /// The newest checkpoint. Errors: a parameter that is not finite, so that what was good stays.
    fn save(&mut self) -> Result<()> {
        self.trainer.fetch()?;
        if let Some(name) = self.trainer.not_finite() {
            let (step, what) = (self.trainer.position().step, format!("parameter `{name}` is not finite"));
            return Err(self.explained(Error::NonFinite { step, what, kept: String::new() }));
        }
        self.metrics.sync()?;
        self.times.sync()?;
        let snapshot = self.trainer.snapshot()?;
        checkpoint::save_last(self.folder.path(), &snapshot.groups(), &snapshot.metadata)?;
        self.clock.saved = Instant::now();
        Ok(())
    }

    fn save_best(&self, milestone: &Milestone) -> Result<()> {
        let metadata = Metadata::from([
            ("step".to_string(), milestone.step.to_string()),
            (self.trainer.task().metric.name().to_string(), milestone.valid.metric.to_string()),
        ]);
        checkpoint::save(self.folder.file(BEST), &[(MODEL, self.trainer.params())], &metadata)
    }

    /// The network as it stands, kept under the number of its step. A run that is resumed before it writes it again.
    fn save_snapshot(&mut self, step: u64) -> Result<()> {
        self.trainer.fetch()?;
        let folder = self.folder.file(SNAPSHOTS);
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let metadata = Metadata::from([("step".to_string(), step.to_string())]);
        let file = folder.join(format!("{step}.safetensors"));
        checkpoint::save(file, &[(MODEL, self.trainer.params())], &metadata)
    }

    /// A stop for numbers that are not finite, with what is left of the run.
    fn explained(&self, error: Error) -> Error {
        match error {
            Error::NonFinite { step, what, .. } => {
                let kept = format!(
                    "kept the last good checkpoint {}; try a smaller lr, clip=norm or non_finite=skip",
                    self.folder.file(LAST).display()
                );
                Error::NonFinite { step, what, kept }
            }
            error => error,
        }
    }

    /// Draws the learning curves. A picture is not worth stopping a run for.
    fn draw(&mut self, now: bool) {
        if now || self.clock.drawn.is_none_or(|at| at.elapsed() >= DRAW_EVERY) {
            if let Ok(chart) = self.chart() {
                chart.save(self.folder.file(CURVES)).ok();
            }
            self.clock.drawn = Some(Instant::now());
        }
    }

    fn chart(&self) -> Result<Chart> {
        let (task, config) = (self.trainer.task(), self.trainer.config());
        let records = read_metrics(self.metrics.path())?;
        let point = |record: &Map<String, Value>, key: &str| -> Option<(f64, f64)> {
            Some((record.get("step")?.as_f64()?, record.get(key)?.as_f64()?))
        };
        let of = |kind: &str, key: &str| -> Vec<(f64, f64)> {
            let right = records.iter().filter(|r| r.get("kind").and_then(Value::as_str) == Some(kind));
            right.filter_map(|r| point(r, key)).collect()
        };
        let train = match task.metric.from_mean_loss(1.0) {
            Some(_) => {
                let metric = |(step, loss)| Some((step, task.metric.from_mean_loss(loss)?));
                of("train", "loss").into_iter().filter_map(metric).collect()
            }
            None => of("valid", "train_metric"),
        };
        let baseline = task.baseline.and_then(|loss| task.metric.from_mean_loss(loss));
        Ok(Chart {
            title: format!("{}, {} with {} units", task.name, config.network(), config.hidden),
            x_label: "update".into(),
            y_label: task.metric.name().into(),
            log_x: false,
            log_y: !task.metric.larger_is_better(),
            series: vec![
                Series { name: "training".into(), points: train },
                Series { name: "validation".into(), points: of("valid", "metric") },
            ],
            baseline: baseline.map(|value| (format!("baseline: {}", task.baseline_doc), value)),
        })
    }

    /// Judges the best network on the test split.
    fn finish(mut self) -> Result<Summary> {
        let ended = self.trainer.ended();
        let started = Instant::now();
        if self.trainer.position().best.is_some() {
            load_model(&mut self.trainer, &self.folder.file(BEST))?;
        }
        let test = self.trainer.evaluate(Split::Test, None)?;
        self.clock.evaluate += started.elapsed();
        let summary = self.summary(ended, Some(test));
        let text = serde_json::to_string_pretty(&summary).map_err(|e| Error::config("result", e))?;
        write_atomic(self.folder.file(RESULT), format!("{text}\n").as_bytes())?;
        Ok(summary)
    }

    fn summary(&self, ended: Option<Ended>, test: Option<Evaluation>) -> Summary {
        let (task, config, p) = (self.trainer.task(), self.trainer.config(), self.trainer.position());
        let Peak { planned_bytes, measured_bytes } = self.trainer.peak();
        let steps = (p.step - self.clock.first_step) as f64;
        let train = self.clock.train.as_secs_f64();
        let rate = if train > 0.0 { steps / train } else { 0.0 };
        Summary {
            folder: self.folder.path().to_path_buf(),
            task: task.name.to_string(),
            network: config.network(),
            ended,
            steps: p.step,
            epochs: p.epoch,
            metric: task.metric.name(),
            best: p.best,
            test,
            baseline: task.baseline.and_then(|loss| task.metric.from_mean_loss(loss)),
            parameters: self.trainer.trained_count(),
            seconds: self.clock.start.elapsed().as_secs_f64(),
            steps_per_second: rate,
            seconds_per_epoch: if rate > 0.0 { self.trainer.batches() as f64 / rate } else { 0.0 },
            planned_peak_bytes: planned_bytes,
            measured_peak_bytes: measured_bytes,
        }
    }
}

impl TrainConfig {
    /// This configuration with what may change when a run is resumed taken from `newer`: length, budget, threads,
    /// and where the data is.
    pub fn resumed_as(&self, newer: &TrainConfig) -> TrainConfig {
        let length: Length = newer.length;
        let TrainConfig { budget, threads, data, .. } = newer.clone();
        TrainConfig { length, budget, threads, data, ..self.clone() }
    }
}

/// Folder of the networks that are kept on the way, inside that of the run.
pub const SNAPSHOTS: &str = "snapshots";

/// Number of updates made when a checkpoint of [`LAST`] was saved.
pub(crate) fn stored_step(checkpoint: &Checkpoint) -> Option<u64> {
    let position: Position = serde_json::from_str(checkpoint.metadata.get(POSITION)?).ok()?;
    Some(position.step)
}

/// The configuration of the run in `folder`. Errors: no run there, or one this library cannot read.
pub fn stored_config(folder: impl AsRef<Path>) -> Result<TrainConfig> {
    let folder = folder.as_ref();
    TrainConfig::from_json(read_config(folder)?)
        .map_err(|error| Error::run_folder(folder, format!("{CONFIG}: {error}")))
}

/// Gives a trainer the parameters of a checkpoint. Errors: a file that is missing, damaged, or of another network.
pub fn load_model(trainer: &mut Trainer, file: &Path) -> Result<()> {
    let loaded = checkpoint::load(file)?;
    trainer.restore_model(loaded).map_err(|reason| Error::checkpoint(file, reason))
}

/// Whether a run was killed before its first checkpoint, which is that of step 0: nothing was recorded then either.
fn never_saved(folder: &RunFolder) -> bool {
    let empty = |name: &str| std::fs::metadata(folder.file(name)).map_or(true, |m| m.len() == 0);
    !folder.file(LAST).exists() && !folder.file(PREVIOUS).exists() && empty(METRICS)
}

/// Numbers that are not finite become `null`, as everywhere in the metrics.
fn number(value: f64) -> Value {
    serde_json::Number::from_f64(value).map_or(Value::Null, Value::Number)
}
