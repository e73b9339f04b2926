//! K-FAC against first-order optimisers: the training loss by update and by time, and the cost of an update.
//!
//! After Martens, Ba, Johnson, 2018, "Kronecker-factored curvature approximations for recurrent neural networks", ICLR,
//! whose abstract says that K-FAC with curvature over time does much better than momentum and Adam on recurrent networks,
//! by both measures. First-order optimisers are tuned, K-FAC is not.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::run::{Chart, Error, Result, Series, write_atomic};
use crate::train::{TrainConfig, Trainer};

/// A network and a task that optimisers are compared on.
#[derive(Clone, Copy, Debug)]
pub struct Problem {
    /// Name of its table.
    pub name: &'static str,
    /// What it is.
    pub title: &'static str,
    /// Task.
    pub task: &'static str,
    /// Cell.
    pub cell: &'static str,
    /// Settings beyond the defaults.
    pub set: &'static [&'static str],
    /// Updates of a run.
    pub updates: u64,
}

/// The problems.
pub const PROBLEMS: &[Problem] = &[
    Problem {
        name: "rowmnist-rnn",
        title: "rows of MNIST, tanh RNN of 128 units",
        task: "rowmnist",
        cell: "rnn",
        set: &["hidden=128", "batch=250"],
        updates: 500,
    },
    Problem {
        name: "ptbchar-lstm",
        title: "characters of Penn Treebank, LSTM of 128 units, 100 steps",
        task: "ptbchar",
        cell: "lstm",
        set: &["hidden=128", "batch=32", "bptt=100"],
        updates: 500,
    },
    Problem {
        name: "ptbchar-gru",
        title: "characters of Penn Treebank, GRU of 128 units, 100 steps",
        task: "ptbchar",
        cell: "gru",
        set: &["hidden=128", "batch=32", "bptt=100"],
        updates: 500,
    },
    Problem {
        name: "jsb-kru",
        title: "JSB Chorales, KRU of 100 units",
        task: "jsb",
        cell: "kru",
        set: &["hidden=100", "batch=32", "weight_noise=0", "penalty=none"],
        updates: 500,
    },
    Problem {
        name: "adding-irnn",
        title: "adding, T = 200, iRNN of 128 units",
        task: "adding",
        cell: "irnn",
        set: &["hidden=128", "T=200", "batch=64", "online=true", "valid=64", "test=64", "clip=norm-pytorch"],
        updates: 1200,
    },
    Problem {
        name: "adding-irnn-plus",
        title: "adding, T = 200, iRNN of 128 units with the identity's other sign",
        task: "adding",
        cell: "irnn",
        set: &[
            "identity=plus",
            "hidden=128",
            "T=200",
            "batch=64",
            "online=true",
            "valid=64",
            "test=64",
            "clip=norm-pytorch",
        ],
        updates: 400,
    },
];

/// An optimiser that takes part.
#[derive(Clone, Copy, Debug)]
pub struct Entrant {
    /// Name of its row.
    pub name: &'static str,
    /// Settings.
    pub set: &'static [&'static str],
    /// First learning rate to try, in steps of half a decade from 1; `None` for one that is not tuned.
    pub rate: Option<i32>,
}

/// The optimisers. The goal of all is the last loss of the one named [`MEASURE`].
pub const ENTRANTS: &[Entrant] = &[
    Entrant { name: "SGD", set: &["optimizer=sgd", "momentum=0.9"], rate: Some(-2) },
    Entrant { name: "RMSprop", set: &["optimizer=rmsprop"], rate: Some(-5) },
    Entrant { name: MEASURE, set: &["optimizer=adam"], rate: Some(-5) },
    Entrant { name: "K-FAC-independence", set: &["optimizer=kfac", "kfac=independence"], rate: None },
    Entrant { name: "K-FAC-option1", set: &["optimizer=kfac", "kfac=option1"], rate: None },
    Entrant { name: "K-FAC-option2", set: &["optimizer=kfac", "kfac=option2"], rate: None },
];

/// Whose last loss is the goal.
pub const MEASURE: &str = "Adam";

/// Weight of the newest loss in the smoothed one.
const SMOOTHING: f64 = 0.1;

/// A loss counts for at most so many times the smoothed one.
const MOST: f64 = 2.0;

/// A learning rate `k` half decades from 1: 1, 3e-1, 1e-1, ….
pub fn rate(k: i32) -> String {
    let digit = if k.rem_euclid(2) == 0 { 1 } else { 3 };
    match k.div_euclid(2) {
        0 => digit.to_string(),
        decade => format!("{digit}e{decade}"),
    }
}

/// The configuration of an optimiser on a problem, at a learning rate if it is tuned, with more settings.
///
/// Errors: what the parts say of their settings.
pub fn problem_config(
    problem: &Problem,
    entrant: &Entrant,
    lr: Option<&str>,
    more: &[String],
    seed: u64,
) -> Result<TrainConfig> {
    let mut config = TrainConfig::new(problem.task, problem.cell, None)?;
    config.set_all(["clip=none", "schedule=constant"])?;
    config.set_all(problem.set)?;
    config.set_all(entrant.set)?;
    if let Some(lr) = lr {
        config.set("lr", lr)?;
    }
    config.set_all(more)?;
    config.seed = seed;
    Ok(config)
}

/// A moment of a run, after an update.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Smoothed training loss; `None` where it is not finite.
    pub loss: Option<f64>,
    /// Seconds since the start, evaluation of nothing else in between.
    pub seconds: f64,
    /// Seconds of processor time since the start, of all threads; the same as `seconds` where the system does not say.
    pub cpu: f64,
}

/// One run of an optimiser.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Learning rate, if it is tuned.
    pub rate: Option<String>,
    /// Updates asked for; fewer moments are there if the loss was no number.
    pub updates: u64,
    /// After each update.
    pub moments: Vec<Moment>,
}

impl Run {
    /// Trains. `go_on` is asked after each update, with their number and the loss; `None` if it said no.
    ///
    /// Errors: those of [`Trainer::step`], but for numbers that are not finite, which end the run.
    pub fn train(
        config: TrainConfig,
        rate: Option<String>,
        updates: u64,
        go_on: &mut dyn FnMut(u64, f64) -> bool,
    ) -> Result<Option<Run>> {
        let mut trainer = Trainer::new(config)?;
        // Compiling is no part of an update.
        trainer.plan()?;
        let (start, cpu) = (Instant::now(), processor_seconds());
        let mut run = Run { rate, updates, moments: Vec::new() };
        let mut smooth = f64::NAN;
        for n in 1..=updates {
            let loss = match trainer.step() {
                // No number, but the step that led there was taken back.
                Ok(step) if !step.loss.is_finite() => f64::MAX,
                Ok(step) => step.loss,
                Err(Error::NonFinite { .. }) => f64::NAN,
                Err(error) => return Err(error),
            };
            // One loss of a step that is taken back must not hide those of the next hundred.
            let bounded = if loss.is_finite() { loss.min(MOST * smooth) } else { loss };
            smooth = if n == 1 { loss } else { smooth + SMOOTHING * (bounded - smooth) };
            let seconds = start.elapsed().as_secs_f64();
            let spent = cpu.zip(processor_seconds()).map_or(seconds, |(before, now)| now - before);
            run.moments.push(Moment { loss: smooth.is_finite().then_some(smooth), seconds, cpu: spent });
            if !smooth.is_finite() {
                break;
            }
            if !go_on(n, smooth) {
                return Ok(None);
            }
        }
        Ok(Some(run))
    }

    /// The last loss; infinite if it was no number.
    pub fn last(&self) -> f64 {
        self.moments.last().and_then(|m| m.loss).unwrap_or(f64::INFINITY)
    }

    /// Updates until the loss is at most `goal`, and the moment.
    pub fn reaches(&self, goal: f64) -> Option<(usize, Moment)> {
        let at = self.moments.iter().position(|m| m.loss.is_some_and(|loss| loss <= goal))?;
        Some((at + 1, self.moments[at]))
    }

    /// Milliseconds of processor time an update, the first tenth left out: programs are compiled there.
    pub fn cost(&self) -> Option<f64> {
        let first = self.moments.get(self.moments.len() / 10)?;
        let last = self.moments.last()?;
        let updates = self.moments.len() - 1 - self.moments.len() / 10;
        (updates > 0).then(|| 1e3 * (last.cpu - first.cpu) / updates as f64)
    }

    /// Reads a run. `None` if there is none in the file, or one of another number of updates.
    pub fn load(file: &Path, updates: u64) -> Option<Run> {
        let run: Run = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
        (run.updates == updates).then_some(run)
    }

    /// Writes it. Errors: the disk.
    pub fn save(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string(self).map_err(|e| Error::config("run", e))?;
        write_atomic(file, text.as_bytes())
    }
}

/// The best of the runs of an optimiser that is tuned: rates half a decade apart are tried around the first one until
/// the best has a worse neighbour on either side. `run` trains at a rate, `None` if it was told to stop.
///
/// Errors: those of `run`.
pub fn tuned(first: i32, mut run: impl FnMut(&str) -> Result<Option<Run>>) -> Result<Option<Run>> {
    /// From the first rate, both ways.
    const FARTHEST: i32 = 6;
    let mut known: BTreeMap<i32, Run> = BTreeMap::new();
    let mut at = first;
    loop {
        for k in [at, at + 1, at - 1] {
            if let Entry::Vacant(place) = known.entry(k) {
                let Some(found) = run(&rate(k))? else { return Ok(None) };
                place.insert(found);
            }
        }
        let best = known.iter().min_by(|a, b| a.1.last().total_cmp(&b.1.last())).map(|(&k, _)| k);
        match best {
            Some(best) if best != at && (best - first).abs() < FARTHEST => at = best,
            _ => return Ok(best.and_then(|best| known.remove(&best))),
        }
    }
}

/// Processor time this process has used, where the system says.
fn processor_seconds() -> Option<f64> {
    /// Clock ticks a second, in what Linux tells to programs.
    const TICKS: f64 = 100.0;
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is a name in parentheses, which may hold anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS)
}

/// The best run of each optimiser on a problem, as a table in Markdown.
pub fn kfac_table(problem: &Problem, runs: &[(&Entrant, Run)]) -> String {
    let goal = runs.iter().find(|(e, _)| e.name == MEASURE).map(|(_, run)| run.last());
    let mut text = format!("## {}\n\n", problem.title);
    text += &format!(
        "| optimiser | loss after {} updates | updates to {MEASURE}'s | ms an update | s to {MEASURE}'s |\n",
        problem.updates
    );
    text += "|---|---|---|---|---|\n";
    for (entrant, run) in runs {
        let rate = run.rate.as_ref().map_or(String::new(), |rate| format!(", lr {rate}"));
        let last = if run.last().is_finite() { format!("{:.4}", run.last()) } else { "no number".into() };
        let cost = run.cost().map_or("-".into(), |ms| format!("{ms:.1}"));
        let (updates, seconds) = match goal.and_then(|goal| run.reaches(goal)) {
            Some((updates, moment)) => (updates.to_string(), format!("{:.1}", moment.cpu)),
            None => ("not reached".into(), "-".into()),
        };
        text += &format!("| {}{rate} | {last} | {updates} | {cost} | {seconds} |\n", entrant.name);
    }
    text
}

/// The curves of a problem by updates, or by seconds of processor time.
pub fn kfac_chart(problem: &Problem, runs: &[(&Entrant, Run)], by_seconds: bool) -> Chart {
    let series = |(entrant, run): &(&Entrant, Run)| Series {
        name: run.rate.as_ref().map_or(entrant.name.into(), |rate| format!("{}, lr {rate}", entrant.name)),
        points: (run.moments.iter().enumerate())
            .filter_map(|(i, m)| Some((if by_seconds { m.cpu } else { (i + 1) as f64 }, m.loss?)))
            .collect(),
    };
    Chart {
        title: problem.title.into(),
        x_label: if by_seconds { "seconds of processor time" } else { "update" }.into(),
        y_label: "training loss, smoothed".into(),
        log_x: false,
        log_y: true,
        series: runs.iter().map(series).collect(),
        baseline: None,
    }
}

/// Cost of an update of an LSTM, as [`update_cost`] found it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UpdateCost {
    /// Name of the optimiser.
    pub optimizer: &'static str,
    /// Units.
    pub hidden: usize,
    /// Milliseconds of an update.
    pub milliseconds: f64,
    /// Of them, of loss and gradient.
    pub first_order: f64,
    /// Of them, of statistics, products and losses that the optimiser asked for.
    pub curvature: f64,
}

/// Sizes of the LSTM whose updates are timed.
pub const COST_SIZES: &[usize] = &[128, 256, 512];

/// Times `updates` updates of an LSTM on the adding problem with 100 steps and 64 rows, in the steady state: after the
/// first inversion and with whole periods of the schedules.
///
/// Errors: those of training.
pub fn update_cost(
    entrant: &Entrant,
    hidden: usize,
    more: &[String],
    threads: Option<usize>,
    updates: u64,
) -> Result<UpdateCost> {
    let mut config = TrainConfig::new("adding", "lstm", None)?;
    config.set_all([
        "clip=none",
        "schedule=constant",
        "T=100",
        "batch=64",
        "train=1024",
        "valid=64",
        "test=64",
    ])?;
    config.set_all(entrant.set)?;
    match entrant.rate {
        Some(_) => config.set("lr", "1e-3")?,
        // The denser schedules of the first updates are no steady state.
        None => config.set("dense", 0)?,
    }
    config.set_all(more)?;
    config.set("hidden", hidden)?;
    config.threads = threads;
    let mut trainer = Trainer::new(config)?;
    /// Statistics alone, the first inversion, a step with both directions.
    const FIRST: u64 = 12;
    for _ in 0..FIRST {
        trainer.step()?;
    }
    let before = trainer.cost();
    for _ in 0..updates {
        trainer.step()?;
    }
    let after = trainer.cost();
    let mean = |of: fn(&crate::train::Cost) -> std::time::Duration| {
        1e3 * (of(&after) - of(&before)).as_secs_f64() / updates.max(1) as f64
    };
    Ok(UpdateCost {
        optimizer: entrant.name,
        hidden,
        milliseconds: mean(|c| c.first_order + c.optimizer),
        first_order: mean(|c| c.first_order),
        curvature: mean(|c| c.curvature),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn run(rate: Option<&str>, losses: &[f64]) -> Run {
        let moment = |(i, &loss): (usize, &f64)| Moment {
            loss: loss.is_finite().then_some(loss),
            seconds: i as f64,
            cpu: 2.0 * i as f64,
        };
        let moments = losses.iter().enumerate().map(moment).collect();
        Run { rate: rate.map(str::to_string), updates: losses.len() as u64, moments }
    }

    #[test]
    fn rates_are_half_decades() {
        let rates: Vec<String> = (-7..=1).map(rate).collect();
        assert_eq!(rates, ["3e-4", "1e-3", "3e-3", "1e-2", "3e-2", "1e-1", "3e-1", "1", "3"]);
    }

    #[test]
    fn tuning_ends_between_two_worse_rates() {
        let mut tried = Vec::new();
        let best = tuned(-5, |rate| {
            tried.push(rate.to_string());
            let away = (rate.parse::<f64>().unwrap().log10() + 1.0).abs();
            Ok(Some(run(Some(rate), &[if rate == "3e-1" { f64::NAN } else { away }])))
        });
        assert_eq!(best.unwrap().unwrap().rate.unwrap(), "1e-1");
        assert_eq!(tried, ["3e-3", "1e-2", "1e-3", "3e-2", "1e-1", "3e-1"]);
        assert!(tuned(0, |_| Ok(None)).unwrap().is_none());
    }

    #[test]
    fn tables_count_updates_to_the_goal() {
        let adam = run(Some("1e-3"), &[3.0, 2.0, 1.5, 1.0]);
        let kfac = run(None, &[3.0, 0.9, 0.5, 0.1]);
        let sgd = run(Some("1"), &[3.0, f64::NAN]);
        let runs = [(&ENTRANTS[0], sgd), (&ENTRANTS[2], adam), (&ENTRANTS[3], kfac)];
        let text = kfac_table(&PROBLEMS[0], &runs);
        assert!(text.contains("| Adam, lr 1e-3 | 1.0000 | 4 | 2000.0 | 6.0 |"), "{text}");
        assert!(text.contains("| K-FAC-independence | 0.1000 | 2 | 2000.0 | 2.0 |"), "{text}");
        assert!(text.contains("| SGD, lr 1 | no number | not reached |"), "{text}");
        let chart = kfac_chart(&PROBLEMS[0], &runs, true);
        assert_eq!(chart.series[2].points[1], (2.0, 0.9));
        assert!(chart.to_svg().starts_with("<svg"));
    }

    #[test]
    fn problems_have_configurations() {
        for problem in PROBLEMS {
            for entrant in ENTRANTS {
                let lr = entrant.rate.map(rate);
                let config = problem_config(problem, entrant, lr.as_deref(), &[], 1).unwrap();
                assert_eq!(config.task.name, problem.task);
            }
        }
    }

    #[test]
    fn processor_time_goes_on() {
        let Some(before) = processor_seconds() else { return };
        let sum = (0..30_000_000u64).fold(1u64, |a, i| a.wrapping_mul(3).wrapping_add(i));
        assert!(sum != 1 && processor_seconds().unwrap() >= before);
    }
}
