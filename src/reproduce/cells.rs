//! All cells with as many parameters on three memory tasks: updates until each has learned it.
//!
//! After Chandar et al., 2019, "Towards non-saturating recurrent units", AAAI, figures 2 to 4: about 23 500 parameters
//! each, Adam at 1e-3, gradients of norm 1 at most, batches of 10 made on line. There the tasks are copying over 100 and
//! 200 steps and denoising over 100; adding over 200 steps is here too.

use std::path::Path;

use serde_json::Value;

use super::size::{Sized, at_most_near};
use crate::run::{Chart, METRICS, Result, Series, read_metrics};
use crate::train::{Ended, Parts, RESULT, TrainConfig, model_spec};

/// Parameters of every network, as in the paper.
pub const PARAMETERS: usize = 23_500;

/// A network of the comparison.
#[derive(Clone, Copy, Debug)]
pub struct Contestant {
    /// Name of its row.
    pub name: &'static str,
    /// Cell.
    pub cell: &'static str,
    /// Operator.
    pub operator: &'static str,
    /// Settings beyond the defaults.
    pub set: &'static [&'static str],
}

const fn row(
    name: &'static str,
    cell: &'static str,
    operator: &'static str,
    set: &'static [&'static str],
) -> Contestant {
    Contestant { name, cell, operator, set }
}

/// Every network that is compared.
pub const CONTESTANTS: &[Contestant] = &[
    row("RNN", "rnn", "dense", &[]),
    row("RNN-orth", "rnn", "dense", &["recurrent_init=orthogonal", "layer_norm=true"]),
    row("RNN-id", "rnn", "dense", &["activation=relu", "recurrent_init=identity", "layer_norm=true"]),
    row("LSTM", "lstm", "dense", &[]),
    row("LSTM-chrono", "lstm", "dense", &["chrono=200"]),
    row("GRU", "gru", "dense", &[]),
    row("JANET", "janet", "dense", &["chrono=200"]),
    row("SRU", "sru", "dense", &[]),
    row("UGRNN", "ugrnn", "dense", &[]),
    row("FastRNN", "fastrnn", "dense", &[]),
    row("FastGRNN", "fastgrnn", "dense", &[]),
    row("AntisymmetricRNN", "antisymmetric_rnn", "antisymmetric", &[]),
    row("AntisymmetricRNN-gated", "antisymmetric_rnn", "antisymmetric", &["gated=true"]),
    row("oRNN", "rnn", "householder", &[]),
    row("SpectralRNN", "rnn", "svd", &[]),
    row("RC-uRNN", "rc_urnn", "rc", &[]),
    row("FC-uRNN", "fc_urnn", "unitary", &[]),
    row("EURNN", "eurnn", "eunn", &[]),
    row("GORU", "goru", "eunn", &[]),
    row("KRU", "kru", "kron", &[]),
    row("KRU-LSTM", "lstm", "kron", &[]),
    row("KRU-GRU", "gru", "kron", &[]),
    row("LR-GRU", "gru", "lr", &["rank=24"]),
    row("LRD-GRU", "gru", "lrd", &["rank=24", "carry_bias=4"]),
    row("LRD-GRU-tied", "gru", "lrd", &["rank=24", "tied=true", "carry_bias=4"]),
    row("LRD-LSTM", "lstm", "lrd", &["rank=24"]),
    row("SiRNN", "irnn", "ivh", &["K=1"]),
    row("iRNN", "irnn", "ivh", &["K=5"]),
    row("NRU", "nru", "dense", &["memory=64"]),
];

/// A task of the comparison.
#[derive(Clone, Copy, Debug)]
pub struct MemoryTask {
    /// Name in the table of tasks.
    pub name: &'static str,
    /// Steps.
    pub steps: usize,
    /// What the papers report, in words.
    pub reported: &'static str,
}

/// The three tasks.
pub const MEMORY_TASKS: &[MemoryTask] = &[
    MemoryTask {
        name: "copy",
        steps: 200,
        reported: "Chandar et al.: EURNN within a few hundred updates, NRU next, JANET after two to three times as \
                   many; RNN-orth and RNN-id stay at the baseline. Kag et al.: of theirs iRNN alone reaches zero",
    },
    MemoryTask {
        name: "adding",
        steps: 200,
        reported: "KRU fastest, LSTM solves it, RC and FC uRNN unstable (Jose et al.); LR- and LRD-GRU solve it (Miceli \
                   Barone); iRNN within 300 updates, FastRNN with twice as many (Kag et al.)",
    },
    MemoryTask {
        name: "denoise",
        steps: 100,
        reported: "Chandar et al.: all but EURNN converge in about as many updates, NRU starts faster",
    },
];

/// The configuration of a contestant on a task: the same training for all, a hidden size for about `parameters`
/// parameters, an end once the validation loss is a tenth of the baseline or after `updates` updates.
///
/// Errors: no hidden size that works; what the parts say of their settings.
pub fn contestant_config(
    contestant: &Contestant,
    task: &MemoryTask,
    parameters: usize,
    updates: u64,
    seed: u64,
) -> Result<(TrainConfig, Sized)> {
    let mut config = TrainConfig::bare(task.name, contestant.cell, contestant.operator);
    config.set_all(contestant.set)?;
    config.set_all([
        "optimizer=adam",
        "lr=1e-3",
        "clip=norm-pytorch",
        "batch=10",
        "online=true",
        "valid=200",
        "test=1000",
        "eval_batch=100",
        "eval_every=100",
    ])?;
    config.set("T", task.steps)?;
    config.set("steps", updates.max(1))?;
    config.seed = seed;
    let parts = Parts::new(&config)?;
    let spec = parts.task.spec();
    config.goal = spec.baseline.and_then(|loss| spec.metric.from_mean_loss(loss / 10.0));
    let sized = at_most_near(parameters, |hidden| {
        let config = TrainConfig { hidden, ..config.clone() };
        let store = retrograd_cells::Model::new(model_spec(&config, &parts)?)?.declare(0)?;
        let trained = |name: &str| store.params().get(name).map_or(0, |t| t.len() * t.dtype().planes());
        Ok(store.trainable().map(|(name, _)| trained(name)).sum())
    })?;
    config.hidden = sized.hidden;
    Ok((config, sized))
}

/// How a contestant fared, from the folder of its run.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Name of the contestant.
    pub name: String,
    /// Size.
    pub sized: Sized,
    /// Updates until the goal was reached; `None` if it was not.
    pub converged: Option<u64>,
    /// Updates made.
    pub updates: u64,
    /// Best metric on validation.
    pub best: Option<f64>,
    /// Why it stopped before its end, in words.
    pub stopped: Option<String>,
    /// Validation metric over updates.
    pub curve: Vec<(f64, f64)>,
}

/// Reads how a run fared. `stopped` says why it stopped before its end. Errors: a folder that cannot be read.
pub fn outcome(
    folder: &Path,
    contestant: &Contestant,
    sized: Sized,
    stopped: Option<String>,
) -> Result<Outcome> {
    let records = match folder.join(METRICS).exists() {
        true => read_metrics(folder.join(METRICS))?,
        false => Vec::new(),
    };
    let valid = records.iter().filter(|r| r.get("kind").and_then(Value::as_str) == Some("valid"));
    let point =
        |r: &serde_json::Map<String, Value>| Some((r.get("step")?.as_f64()?, r.get("metric")?.as_f64()?));
    let curve: Vec<(f64, f64)> = valid.filter_map(point).collect();
    let result = std::fs::read(folder.join(RESULT)).ok();
    let result: Option<Value> = result.and_then(|text| serde_json::from_slice(&text).ok());
    let updates = records.iter().filter_map(|r| r.get("step")?.as_u64()).max().unwrap_or(0);
    let ended = result.as_ref().and_then(|r| r.get("ended")?.as_str().map(String::from));
    let best = curve.iter().map(|(_, y)| *y).fold(f64::NAN, f64::min);
    Ok(Outcome {
        name: contestant.name.into(),
        sized,
        converged: ended.filter(|e| e == Ended::Goal.describe()).map(|_| updates),
        updates,
        best: best.is_finite().then_some(best),
        stopped,
        curve,
    })
}

/// The table of a task in Markdown, the quickest first; those that did not get there by their best loss.
pub fn table(task: &MemoryTask, outcomes: &[Outcome]) -> String {
    let mut sorted: Vec<&Outcome> = outcomes.iter().collect();
    let key = |o: &Outcome| (o.converged.unwrap_or(u64::MAX), o.best.unwrap_or(f64::INFINITY));
    sorted.sort_by(|a, b| key(a).0.cmp(&key(b).0).then(key(a).1.total_cmp(&key(b).1)));
    let mut text = format!("## {}, T = {}\n\n", task.name, task.steps);
    text += "| network | units | parameters | updates to a tenth of the baseline | best validation loss |\n";
    text += "|---|---|---|---|---|\n";
    for o in sorted {
        let updates = match (o.converged, &o.stopped) {
            (Some(updates), _) => updates.to_string(),
            (None, Some(why)) => format!("{why} (after {})", o.updates),
            (None, None) => format!("not within {}", o.updates),
        };
        let best = o.best.map_or("-".into(), |b| format!("{b:.4e}"));
        text +=
            &format!("| {} | {} | {} | {updates} | {best} |\n", o.name, o.sized.hidden, o.sized.parameters);
    }
    text + &format!("\nReported: {}.\n", task.reported)
}

/// The curves of a task.
pub fn chart(task: &MemoryTask, outcomes: &[Outcome], baseline: Option<f64>) -> Chart {
    let series = |o: &Outcome| Series { name: o.name.clone(), points: o.curve.clone() };
    Chart {
        title: format!("{}, T = {}: validation loss", task.name, task.steps),
        x_label: "update".into(),
        y_label: "loss".into(),
        log_x: false,
        log_y: true,
        series: outcomes.iter().map(series).collect(),
        baseline: baseline.map(|b| ("baseline".into(), b)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_cell_of_the_table_takes_part() {
        let cells: BTreeSet<&str> = retrograd_cells::CELLS.iter().map(|c| c.name).collect();
        let here: BTreeSet<&str> = CONTESTANTS.iter().map(|c| c.cell).collect();
        assert_eq!(cells, here);
        let names: BTreeSet<&str> = CONTESTANTS.iter().map(|c| c.name).collect();
        assert_eq!(names.len(), CONTESTANTS.len());
    }

    #[test]
    fn sizes_are_near_what_is_wanted() {
        for contestant in CONTESTANTS {
            let (config, sized) = contestant_config(contestant, &MEMORY_TASKS[0], PARAMETERS, 10, 1)
                .unwrap_or_else(|e| panic!("{}: {e}", contestant.name));
            let near = sized.parameters as f64 / PARAMETERS as f64;
            // Some operators have few sizes.
            assert!((0.85..1.15).contains(&near), "{}: {sized:?}", contestant.name);
            assert_eq!(config.hidden, sized.hidden);
            assert!((config.goal.unwrap() - 0.009452).abs() < 1e-5, "{:?}", config.goal);
        }
    }

    #[test]
    fn tables_begin_with_the_quickest() {
        let outcome = |name: &str, converged, best| Outcome {
            name: name.into(),
            sized: Sized { hidden: 3, parameters: 7 },
            converged,
            updates: 900,
            best: Some(best),
            stopped: None,
            curve: vec![(100.0, best)],
        };
        let outcomes = [outcome("a", None, 0.1), outcome("b", Some(500), 0.01), outcome("c", None, 0.05)];
        let text = table(&MEMORY_TASKS[2], &outcomes);
        let order: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("| ")?.split(' ').next()).collect();
        assert_eq!(order, ["network", "b", "c", "a"]);
        assert!(text.contains("not within 900"), "{text}");
        assert!(chart(&MEMORY_TASKS[2], &outcomes, Some(0.2)).to_svg().starts_with("<svg"));
    }
}
