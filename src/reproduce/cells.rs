//! All cells with as many parameters on three memory tasks: updates until each has learned it.
//!
//! Copying and denoising after Chandar et al., 2019, "Towards non-saturating recurrent units", AAAI, figures 2 to 4: about
//! 23 500 parameters each, batches of 10 made on line. Adding is not theirs: it has the smaller of the two batches of Jose
//! et al., 2018, 20.
//!
//! A network is trained with the optimizer, the rate and the clipping that it was published with on the task
//! ([`MemoryTask::published`]). One that no paper has on a task is trained at each rate of [`SEARCHED`], and the quickest
//! counts.

use retrograd_cells::network;

use super::size::{Sized, at_most_near};
use crate::run::Result;
use crate::train::{Parts, TrainConfig, model_spec};

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
pub(super) const FAMILIES: [(Family, &str); 4] = [
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
    row("SiRNN", Plain, "sirnn", &[]),
    row("iRNN", Plain, "irnn", &[]),
    row("NRU", Plain, "nru", &["memory=64"]),
    row("UnICORNN", Plain, "unicornn", &[]),
];

/// How networks were published on a task.
#[derive(Clone, Copy, Debug)]
pub struct Training {
    /// Names of the networks.
    pub networks: &'static [&'static str],
    /// Optimizer, rate, clipping and what else belongs to it.
    pub set: &'static [&'static str],
    /// Whose it is.
    pub source: &'static str,
}

/// A task of the comparison.
#[derive(Clone, Copy, Debug)]
pub struct MemoryTask {
    /// Name in the table of tasks.
    pub name: &'static str,
    /// Steps.
    pub steps: usize,
    /// What all networks have in common on it.
    pub set: &'static [&'static str],
    /// How networks are trained that were published on it.
    pub published: &'static [Training],
    /// What the papers report, in words.
    pub reported: &'static str,
}

/// Rates of Adam that networks without a published one are trained at, each in a run of its own; norms of gradients are
/// clipped at 1. The rates are those of Chandar et al. and of Kag et al.
pub const SEARCHED: &[&str] = &["lr=1e-3", "lr=1e-2"];

const ADAM: &[&str] = &["lr=1e-3"];
const ADAM_WITHOUT_CLIPPING: &[&str] = &["lr=1e-3", "clip=none"];
const RMSPROP: &[&str] = &["optimizer=rmsprop", "lr=1e-3", "clip=none"];

/// The rows of Chandar et al. whose gradients are clipped.
const CHANDAR: &[&str] = &["RNN-orth", "RNN-id", "LSTM", "LSTM-chrono", "GRU", "JANET", "SRU", "NRU"];
const CHANDAR_SOURCE: &str = "Chandar et al. 2019";

/// The three tasks.
pub const MEMORY_TASKS: &[MemoryTask] = &[
    MemoryTask {
        name: "copy",
        steps: 200,
        set: &["batch=10"],
        published: &[
            Training { networks: CHANDAR, set: ADAM, source: CHANDAR_SOURCE },
            Training { networks: &["EURNN", "GORU"], set: ADAM_WITHOUT_CLIPPING, source: CHANDAR_SOURCE },
            Training {
                networks: &["KRU"],
                set: &["optimizer=rmsprop", "lr=1e-3", "clip=none", "operator.freeze=true"],
                source: "Jose et al. 2018",
            },
            Training { networks: &["RC-uRNN", "FC-uRNN"], set: RMSPROP, source: "Wisdom et al. 2016" },
            Training {
                networks: &["LR-GRU", "LRD-GRU", "LRD-GRU-tied"],
                set: &[
                    "optimizer=rmsprop",
                    "rmsprop.variant=uRNN-eps",
                    "lr=1e-3",
                    "clip=norm",
                    "non_finite=shrink",
                ],
                source: "Miceli Barone 2018",
            },
        ],
        reported: "Chandar et al.: EURNN within a few hundred updates, NRU next, JANET after two to three times as \
                   many; RNN-orth and RNN-id stay at the baseline. Kag et al.: of theirs iRNN alone reaches zero",
    },
    MemoryTask {
        name: "adding",
        steps: 200,
        set: &["batch=20"],
        published: &[
            Training { networks: &["KRU", "RC-uRNN", "FC-uRNN"], set: RMSPROP, source: "Jose et al. 2018" },
            Training {
                networks: &["RNN", "LSTM"],
                set: &["optimizer=rmsprop", "lr=1e-3", "clip=value"],
                source: "Jose et al. 2018",
            },
            Training {
                networks: &["LR-GRU", "LRD-GRU", "LRD-GRU-tied"],
                set: &["optimizer=rmsprop", "lr=1e-3", "clip=value"],
                source: "Miceli Barone 2018",
            },
            // Learned at the rate of the weights, step sizes soon make states overflow.
            Training {
                networks: &["iRNN"],
                set: &["lr=1e-2", "eta=0.001", "frozen=layer0.eta"],
                source: "Kag et al. 2020, step sizes ours",
            },
            Training {
                networks: &["SiRNN"],
                set: &["lr=1e-2", "eta=0.005", "frozen=layer0.eta"],
                source: "Kag et al. 2020, step sizes ours",
            },
        ],
        reported: "KRU fastest, LSTM solves it, RC and FC uRNN unstable (Jose et al.); LR- and LRD-GRU solve it (Miceli \
                   Barone); iRNN within 300 updates, FastRNN with twice as many (Kag et al.)",
    },
    MemoryTask {
        name: "denoise",
        steps: 100,
        set: &["batch=10"],
        published: &[
            Training { networks: CHANDAR, set: ADAM, source: CHANDAR_SOURCE },
            Training { networks: &["EURNN", "GORU"], set: ADAM_WITHOUT_CLIPPING, source: CHANDAR_SOURCE },
        ],
        reported: "Chandar et al.: all but EURNN converge in about as many updates, NRU starts faster",
    },
];

/// One way to train a contestant on a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// What its folder has after the name of the contestant: nothing for published settings, else the rate.
    pub suffix: &'static str,
    /// Settings.
    pub set: &'static [&'static str],
    /// Whose they are; `None` if they are searched.
    pub source: Option<&'static str>,
}

impl Trial {
    /// The settings in words.
    pub fn describe(&self) -> String {
        let adam = !self.set.iter().any(|s| s.starts_with("optimizer="));
        let words = adam.then_some("adam").into_iter().chain(self.set.iter().copied());
        let words: Vec<&str> = words.map(|s| s.strip_prefix("optimizer=").unwrap_or(s)).collect();
        format!("{} ({})", words.join(" "), self.source.unwrap_or("best of two rates"))
    }
}

/// How `contestant` is trained on `task`: as published, or at each rate of [`SEARCHED`].
pub fn trials(contestant: &Contestant, task: &MemoryTask) -> Vec<Trial> {
    match task.published.iter().find(|t| t.networks.contains(&contestant.name)) {
        Some(t) => vec![Trial { suffix: "", set: t.set, source: Some(t.source) }],
        None => SEARCHED.chunks(1).map(|set| Trial { suffix: set[0], set, source: None }).collect(),
    }
}

/// The configuration of a contestant on a task: a hidden size for about `parameters` parameters, an end once the
/// validation loss is a tenth of the baseline or after `updates` updates. `more` are `key=value` settings that go before
/// all of it.
///
/// Errors: no hidden size that works; what the parts say of their settings.
pub fn contestant_config(
    contestant: &Contestant,
    task: &MemoryTask,
    trial: &Trial,
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
    config.set_all(trial.set)?;
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
        let task = &MEMORY_TASKS[0];
        for contestant in CONTESTANTS {
            for trial in trials(contestant, task) {
                let (config, sized) = contestant_config(contestant, task, &trial, PARAMETERS, 10, 1, &[])
                    .unwrap_or_else(|e| panic!("{}: {e}", contestant.name));
                let near = sized.parameters as f64 / PARAMETERS as f64;
                // Some operators have few sizes.
                assert!((0.85..1.15).contains(&near), "{}: {sized:?}", contestant.name);
                assert_eq!(config.hidden, sized.hidden);
                assert!((config.goal.unwrap() - 0.009452).abs() < 1e-5, "{:?}", config.goal);
            }
        }
    }

    #[test]
    fn published_settings_are_those_of_contestants_and_name_each_once() {
        for task in MEMORY_TASKS {
            let mut seen = BTreeSet::new();
            for name in task.published.iter().flat_map(|t| t.networks) {
                assert!(CONTESTANTS.iter().any(|c| c.name == *name), "{}: {name}", task.name);
                assert!(seen.insert(name), "{}: {name} twice", task.name);
            }
        }
        let by_name = |name| CONTESTANTS.iter().find(|c| c.name == name).unwrap();
        let published = trials(by_name("EURNN"), &MEMORY_TASKS[0]);
        assert_eq!((published.len(), published[0].suffix), (1, ""));
        assert_eq!(published[0].describe(), "adam lr=1e-3 clip=none (Chandar et al. 2019)");
        let searched = trials(by_name("UGRNN"), &MEMORY_TASKS[1]);
        assert_eq!(searched.iter().map(|t| t.suffix).collect::<Vec<_>>(), SEARCHED);
    }
}
