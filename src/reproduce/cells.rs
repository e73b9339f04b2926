//! All cells with as many parameters on three memory tasks: updates until each has learned it.
//!
//! Copying and denoising after Chandar et al., 2019, "Towards non-saturating recurrent units", AAAI, figures 2 to 4: about
//! 23 500 parameters each, Adam at 1e-3, gradients of norm 1 at most, batches of 10 made on line. Adding is not theirs: it
//! has the rate of Kag et al., 2020, 1e-2, and the smaller of the two batches of Jose et al., 2018, 20.

use std::path::Path;

use retrograd_cells::network;
use serde_json::Value;

use super::size::{Sized, at_most_near};
use crate::run::{Chart, METRICS, Result, Series, panels, read_metrics};
use crate::train::{Ended, Parts, RESULT, TrainConfig, model_spec};

/// Parameters of every network, as in the paper.
pub const PARAMETERS: usize = 23_500;

/// What networks have in common: each family has a panel of the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// States without gates.
    Plain,
    /// Gates, and full matrices.
    Gated,
    /// Orthogonal or unitary matrices.
    Unitary,
    /// Gates, and matrices of few parameters.
    Factored,
}

/// Every family and its name.
const FAMILIES: [(Family, &str); 4] = [
    (Family::Plain, "no gates"),
    (Family::Gated, "gates"),
    (Family::Unitary, "orthogonal and unitary"),
    (Family::Factored, "gates, structured matrices"),
];

/// A network of the comparison.
#[derive(Clone, Copy, Debug)]
pub struct Contestant {
    /// Name of its row.
    pub name: &'static str,
    /// Family.
    pub family: Family,
    /// The network, by its name.
    pub network: &'static str,
    /// Settings beyond those of the network and the task.
    pub set: &'static [&'static str],
}

impl Contestant {
    /// Its own learning rate, if it has one, as a setting.
    fn rate(&self) -> Option<&'static str> {
        self.set.iter().copied().find(|s| s.starts_with("lr="))
    }
}

const fn row(
    name: &'static str,
    family: Family,
    network: &'static str,
    set: &'static [&'static str],
) -> Contestant {
    Contestant { name, family, network, set }
}

use Family::{Factored, Gated, Plain, Unitary};

/// Every network that is compared.
pub const CONTESTANTS: &[Contestant] = &[
    row("RNN", Plain, "rnn", &[]),
    row("RNN-orth", Plain, "rnn-orth", &[]),
    row("RNN-id", Plain, "rnn-id", &[]),
    row("LSTM", Gated, "lstm", &[]),
    row("LSTM-chrono", Gated, "lstm-chrono", &[]),
    row("GRU", Gated, "gru", &[]),
    row("JANET", Gated, "janet-chrono", &[]),
    row("SRU", Plain, "sru", &[]),
    row("UGRNN", Gated, "ugrnn", &[]),
    row("FastRNN", Plain, "fastrnn", &[]),
    row("FastGRNN", Gated, "fastgrnn", &[]),
    row("AntisymmetricRNN", Plain, "antisymmetric_rnn", &[]),
    row("AntisymmetricRNN-gated", Plain, "antisymmetric-rnn-gated", &[]),
    row("oRNN", Unitary, "ornn", &[]),
    row("SpectralRNN", Unitary, "spectral-rnn", &[]),
    row("RC-uRNN", Unitary, "rc_urnn", &[]),
    row("FC-uRNN", Unitary, "fc_urnn", &[]),
    row("EURNN", Unitary, "eurnn", &[]),
    row("GORU", Unitary, "goru", &[]),
    row("KRU", Unitary, "kru", &[]),
    row("KRU-LSTM", Factored, "kru-lstm", &[]),
    row("KRU-GRU", Factored, "kru-gru", &[]),
    row("LR-GRU", Factored, "lr-gru", &["rank=24"]),
    row("LRD-GRU", Factored, "lrd-gru", &["rank=24"]),
    row("LRD-GRU-tied", Factored, "lrd-gru-tied", &["rank=24"]),
    row("LRD-LSTM", Factored, "lrd-lstm", &["rank=24"]),
    // At a rate of 1e-2 its states soon overflow at this size.
    row("SiRNN", Plain, "sirnn", &["lr=1e-3"]),
    row("iRNN", Plain, "irnn", &["lr=1e-3"]),
    row("NRU", Plain, "nru", &["memory=64"]),
];

/// A task of the comparison.
#[derive(Clone, Copy, Debug)]
pub struct MemoryTask {
    /// Name in the table of tasks.
    pub name: &'static str,
    /// Steps.
    pub steps: usize,
    /// How every network is trained on it.
    pub set: &'static [&'static str],
    /// What the papers report, in words.
    pub reported: &'static str,
}

/// The three tasks.
pub const MEMORY_TASKS: &[MemoryTask] = &[
    MemoryTask {
        name: "copy",
        steps: 200,
        set: &["lr=1e-3", "batch=10"],
        reported: "Chandar et al.: EURNN within a few hundred updates, NRU next, JANET after two to three times as \
                   many; RNN-orth and RNN-id stay at the baseline. Kag et al.: of theirs iRNN alone reaches zero",
    },
    MemoryTask {
        name: "adding",
        steps: 200,
        set: &["lr=1e-2", "batch=20"],
        reported: "KRU fastest, LSTM solves it, RC and FC uRNN unstable (Jose et al.); LR- and LRD-GRU solve it (Miceli \
                   Barone); iRNN within 300 updates, FastRNN with twice as many (Kag et al.)",
    },
    MemoryTask {
        name: "denoise",
        steps: 100,
        set: &["lr=1e-3", "batch=10"],
        reported: "Chandar et al.: all but EURNN converge in about as many updates, NRU starts faster",
    },
];

/// The configuration of a contestant on a task: the same training for all, a hidden size for about `parameters`
/// parameters, an end once the validation loss is a tenth of the baseline or after `updates` updates. `more` are
/// `key=value` settings that go before all of it.
///
/// Errors: no hidden size that works; what the parts say of their settings.
pub fn contestant_config(
    contestant: &Contestant,
    task: &MemoryTask,
    parameters: usize,
    updates: u64,
    seed: u64,
    more: &[String],
) -> Result<(TrainConfig, Sized)> {
    let network = network(contestant.network)?;
    let mut config = TrainConfig::bare(task.name, network.cell, network.operator);
    config.become_network(&network);
    config.set_all([
        "optimizer=adam",
        "clip=norm-pytorch",
        "online=true",
        "valid=200",
        "test=1000",
        "eval_batch=100",
        "eval_every=100",
    ])?;
    config.set_all(task.set)?;
    config.set("T", task.steps)?;
    config.set("steps", updates.max(1))?;
    config.set_all(contestant.set)?;
    config.set_all(more)?;
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
pub fn table(task: &MemoryTask, outcomes: &[Outcome], baseline: Option<f64>) -> String {
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
    let of = |o: &Outcome| CONTESTANTS.iter().find(|c| c.name == o.name);
    let rates = outcomes.iter().filter_map(|o| Some((o.name.as_str(), of(o)?.rate()?)));
    let others: Vec<String> =
        rates.filter(|(_, rate)| !task.set.contains(rate)).map(|(n, rate)| format!("; {n} {rate}")).collect();
    text += &format!("\nAdam, {}{}. ", task.set.join(" "), others.concat());
    if let Some(baseline) = baseline {
        text += &format!("A prediction that remembers nothing has {baseline:.4}. ");
    }
    text + &format!("Reported: {}.\n", task.reported)
}

/// Losses above this many times the baseline are not drawn: some networks begin far above.
const DRAWN: f64 = 30.0;

/// The curves of a task, a panel for each family.
pub fn picture(task: &MemoryTask, outcomes: &[Outcome], baseline: Option<f64>) -> String {
    let ceiling = baseline.map_or(f64::INFINITY, |b| DRAWN * b);
    let series = |o: &Outcome| {
        let points = o.curve.iter().map(|&(x, y)| (x, if y > ceiling { f64::NAN } else { y })).collect();
        Series { name: o.name.clone(), points }
    };
    let of_family = |(family, what): &(Family, &str)| {
        let belongs = |o: &&Outcome| CONTESTANTS.iter().any(|c| c.name == o.name && c.family == *family);
        Chart {
            title: format!("{}, T = {}: {what}", task.name, task.steps),
            x_label: "update".into(),
            y_label: "validation loss".into(),
            log_x: false,
            log_y: true,
            series: outcomes.iter().filter(belongs).map(series).collect(),
            baseline: baseline.map(|b| ("baseline".into(), b)),
        }
    };
    let charts: Vec<Chart> = FAMILIES.iter().map(of_family).filter(|c| !c.series.is_empty()).collect();
    panels(&charts, 2)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_cell_of_the_table_takes_part() {
        let cells: BTreeSet<&str> = retrograd_cells::CELLS.iter().map(|c| c.name).collect();
        let here: BTreeSet<&str> = CONTESTANTS.iter().map(|c| network(c.network).unwrap().cell).collect();
        assert_eq!(cells, here);
        let names: BTreeSet<&str> = CONTESTANTS.iter().map(|c| c.name).collect();
        assert_eq!(names.len(), CONTESTANTS.len());
    }

    #[test]
    fn sizes_are_near_what_is_wanted() {
        for contestant in CONTESTANTS {
            let (config, sized) = contestant_config(contestant, &MEMORY_TASKS[0], PARAMETERS, 10, 1, &[])
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
        let outcomes =
            [outcome("RNN", None, 0.1), outcome("GRU", Some(500), 0.01), outcome("KRU", None, 0.05)];
        let text = table(&MEMORY_TASKS[2], &outcomes, Some(0.2));
        let order: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("| ")?.split(' ').next()).collect();
        assert_eq!(order, ["network", "GRU", "KRU", "RNN"]);
        assert!(text.contains("not within 900") && text.contains("nothing has 0.2000"), "{text}");
        let picture = picture(&MEMORY_TASKS[2], &outcomes, Some(0.2));
        assert_eq!(picture.matches("<polyline").count() + picture.matches("<circle").count(), 3, "{picture}");
        assert_eq!(picture.matches("<svg").count(), 1 + 3, "a panel for each family that takes part");
    }
}
