//! Every cell on every operator that takes its states, from the tables: it learns, and what is saved is what was there.
#![allow(clippy::unwrap_used, clippy::panic)]

use retrograd::cells::{NETWORKS, combinations};
use retrograd::datasets::Split;
use retrograd::run::{BEST, RunFolder};
use retrograd::train::{Session, TrainConfig, Trainer, load_model};

/// A constant prediction of the sum of two marked numbers has 1/6.
const BASELINE: f64 = 1.0 / 6.0;

/// Cells of continuous time whose time step by default is made for long sequences: in four of them nothing would move.
const TIME_STEPS: [(&str, &str); 1] = [("unicornn", "dt=2")];

/// Trains for a moment in a folder; says what is wrong, if anything.
fn learns(name: &str, mut config: TrainConfig) -> Option<String> {
    let small = ["T=4", "train=256", "valid=64", "test=64", "batch=32", "eval_batch=64", "hidden=8"];
    config.set_all(small).unwrap();
    config.set_all(["optimizer=adam", "lr=1e-2", "clip=norm", "steps=250", "eval_every=250"]).unwrap();
    let cell_name = config.cell.name.clone();
    for (_, setting) in TIME_STEPS.iter().filter(|(cell, _)| *cell == cell_name) {
        config.set_all([*setting]).unwrap();
    }
    config.threads = Some(1);
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("run");
    let trainer = Trainer::new(config.clone()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let session = Session::start(trainer, RunFolder::create(&folder).unwrap()).unwrap();
    let summary = session.run(&mut ()).unwrap_or_else(|e| panic!("{name}: {e}"));

    // A fresh network takes the checkpoint and is the one that was trained, to the bit.
    let mut again = Trainer::new(config).unwrap();
    load_model(&mut again, &folder.join(BEST)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let valid = again.evaluate(Split::Valid, None).unwrap().metric;
    let saved = summary.best.unwrap().metric;
    if valid.to_bits() != saved.to_bits() {
        return Some(format!("{name}: {valid} from the checkpoint, {saved} when it was saved"));
    }
    (valid > 0.7 * BASELINE).then(|| format!("{name}: {valid:.4}, a constant prediction has {BASELINE:.4}"))
}

fn none(failures: impl Iterator<Item = Option<String>>) {
    let failures: Vec<String> = failures.flatten().collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_cell_on_every_operator_learns_and_is_saved() {
    none(combinations().into_iter().map(|(cell, operator)| {
        let config = TrainConfig::bare("adding", cell.name, operator.name);
        learns(&format!("{} on {}", cell.name, operator.name), config)
    }));
}

#[test]
fn every_published_network_learns_and_is_saved() {
    none(NETWORKS.iter().map(|network| {
        let mut config = TrainConfig::bare("adding", network.cell, network.operator);
        config.become_network(network);
        learns(network.name, config)
    }));
}
