//! A training run on the terminal: the progress line, Ctrl-C, and the words at its end.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use retrograd::Error;
use retrograd::run::CURVES;
use retrograd::run::progress::{Mode, Progress, Status, format_bytes, format_duration};
use retrograd::train::{Cost, Milestone, Session, Step, Summary, Trainer, Watch};
use serde_json::{Value, json};

use super::{Output, Report, Result};

/// Updates over which the loss on the progress line is smoothed.
const SMOOTHING: f64 = 50.0;

/// Set by Ctrl-C (or a request to terminate): the step under way is finished and saved. A second one ends at once.
pub(super) fn stop_on_interrupt() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let set = stop.clone();
    ctrlc::set_handler(move || {
        if set.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(super::output::INTERRUPTED));
        }
    })
    .map_err(|e| Error::config("Ctrl-C", e))?;
    Ok(stop)
}

struct Live {
    progress: Progress,
    stop: Arc<AtomicBool>,
    metric: &'static str,
    baseline: Option<f64>,
    newest: Option<f64>,
    loss: Option<f64>,
    /// Whether every evaluation is worth a line.
    milestones: bool,
    /// Rows and steps that were not solved since the last evaluation, and updates with any.
    unconverged: (f64, u64),
}

impl Watch for Live {
    fn step(&mut self, step: &Step, trainer: &Trainer) {
        let loss = match self.loss.filter(|l| l.is_finite()) {
            Some(loss) => loss + (step.loss - loss) / SMOOTHING,
            None => step.loss,
        };
        self.loss = Some(loss);
        if let Some(count) = step.unconverged.filter(|&count| count != 0.0) {
            if self.unconverged.1 == 0 {
                self.progress.note(&format!(
                    "step {}: the fixed point of {count} rows and steps was not found",
                    step.step
                ));
            }
            self.unconverged = (self.unconverged.0 + count, self.unconverged.1 + 1);
        }
        self.progress.update(&Status {
            step: step.step,
            epoch: Some(step.epoch),
            loss,
            metric: self.newest.map(|value| (self.metric, value)),
            peak_bytes: trainer.peak().measured_bytes,
            cost: trainer.uses_curvature().then(|| update_cost(&trainer.cost())),
        });
    }

    fn evaluated(&mut self, m: &Milestone) {
        self.newest = Some(m.valid.metric);
        let (count, updates) = std::mem::take(&mut self.unconverged);
        if updates > 1 {
            self.progress
                .note(&format!("step {}: not found in {updates} updates, {count} times in all", m.step));
        }
        if let Some(factor) = m.reduced_to {
            self.progress.note(&format!("step {}: learning rate reduced to {factor} of the first", m.step));
        }
        if self.milestones {
            let beside = self.baseline.map_or(String::new(), |b| format!("   baseline {}", number(b)));
            let best = if m.is_best { "   best so far" } else { "" };
            let value = number(m.valid.metric);
            self.progress.note(&format!("step {:>6}   {} {value}{beside}{best}", m.step, self.metric));
        }
    }

    fn note(&mut self, text: &str) {
        self.progress.note(text);
    }

    fn stop(&mut self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

/// Milliseconds of an update, and of its loss and gradient alone.
fn update_cost(cost: &Cost) -> (f64, f64) {
    let mean = |time: Duration| 1e3 * time.as_secs_f64() / cost.updates.max(1) as f64;
    (mean(cost.first_order + cost.optimizer), mean(cost.first_order))
}

/// How a run is shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Show {
    /// Progress line.
    pub(super) mode: Mode,
    /// A line for every evaluation.
    pub(super) milestones: bool,
}

/// Trains to the end or to Ctrl-C.
pub(super) fn train(session: Session, show: Show) -> Result<Summary> {
    train_until(session, show, stop_on_interrupt()?)
}

/// Trains to the end or until `stop` is set. A program has one handler of Ctrl-C, which several runs share.
pub(super) fn train_until(session: Session, show: Show, stop: Arc<AtomicBool>) -> Result<Summary> {
    let trainer = session.trainer();
    let (task, config) = (trainer.task().clone(), trainer.config());
    let may_end_early = config.patience.is_some() || config.goal.is_some();
    let progress = Progress::new(show.mode, trainer.position().step, trainer.total_steps(), may_end_early);
    let mut live = Live {
        progress,
        stop,
        metric: task.metric.name(),
        baseline: task.baseline.and_then(|loss| task.metric.from_mean_loss(loss)),
        newest: None,
        loss: None,
        milestones: show.milestones,
        unconverged: (0.0, 0),
    };
    let result = session.run(&mut live);
    live.progress.finish();
    result
}

/// Words at the end of a run.
pub(super) fn describe(summary: &Summary, out: &Output) {
    let metric = summary.metric;
    match (summary.ended, &summary.test) {
        (Some(ended), Some(test)) => {
            let best = summary.best.map_or(String::new(), |b| {
                format!("   valid {metric} {} (best, step {})", number(b.metric), b.step)
            });
            let baseline = summary.baseline.map_or(String::new(), |b| format!("   baseline {}", number(b)));
            out.line(format!("test {metric} {}{best}{baseline}", number(test.metric)));
            out.line(format!("{} steps, {} epochs: {}", summary.steps, summary.epochs, ended.describe()));
        }
        _ => {
            out.line(format!("interrupted after step {}; all of it is saved", summary.steps));
            out.line(format!("go on with: retrograd train --resume --out {}", summary.folder.display()));
        }
    }
    out.line(speed(summary));
    out.line(format!("run folder {}   picture {}", summary.folder.display(), picture(&summary.folder)));
}

/// Speed and memory in a line.
pub(super) fn speed(s: &Summary) -> String {
    let time = |seconds: f64| format_duration(Duration::try_from_secs_f64(seconds).unwrap_or_default());
    let epoch =
        if s.epochs > 0 { format!(", {} an epoch", time(s.seconds_per_epoch)) } else { String::new() };
    let all = time(s.seconds);
    format!(
        "{all}, {:.1} steps/s{epoch}   peak memory planned {}, measured {}",
        s.steps_per_second,
        format_bytes(s.planned_peak_bytes),
        format_bytes(s.measured_peak_bytes)
    )
}

pub(super) fn picture(folder: &Path) -> String {
    folder.join(CURVES).display().to_string()
}

/// What `--json` prints of a run.
pub(super) fn report(summary: &Summary) -> Result<Report> {
    let mut json = serde_json::to_value(summary).map_err(|e| Error::config("result", e))?;
    if let Value::Object(fields) = &mut json {
        fields.insert("picture".into(), json!(picture(&summary.folder)));
    }
    Ok(Report::new(json).interrupted_if(summary.ended.is_none()))
}

/// Five significant digits, and no more than needed.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        a if (1e-3..1e5).contains(&a) => {
            let digits = (4 - a.log10().floor() as i32).clamp(0, 7) as usize;
            format!("{value:.digits$}")
        }
        0.0 => "0".into(),
        a if a.is_finite() => format!("{value:.4e}"),
        _ => value.to_string(),
    }
}
