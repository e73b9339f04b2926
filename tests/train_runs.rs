//! Training: interrupted, killed and resumed runs end with the same bits; streams carry their state; training ends
//! when it should.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::Path;

use retrograd::datasets::Split;
use retrograd::run::{BEST, LAST, METRICS, RunFolder, read_metrics};
use retrograd::train::{Ended, RESULT, Session, Step, Summary, TrainConfig, Trainer, Watch, stored_config};

fn config(settings: &[&str]) -> TrainConfig {
    let mut config = TrainConfig::new("adding", "gru", None).unwrap();
    let tiny =
        ["T=8", "train=70", "valid=20", "test=20", "batch=10", "eval_batch=20", "hidden=5", "log_every=1"];
    config.set_all(tiny.iter().chain(settings)).unwrap();
    config
}

fn start(config: &TrainConfig, folder: &Path) -> Session {
    Session::start(Trainer::new(config.clone()).unwrap(), RunFolder::create(folder).unwrap()).unwrap()
}

fn resume(folder: &Path) -> Session {
    let trainer = Trainer::new(stored_config(folder).unwrap()).unwrap();
    let (session, lost) = Session::resume(trainer, RunFolder::resume(folder).unwrap()).unwrap();
    assert!(lost.is_none());
    session
}

/// Stops after so many updates, by Ctrl-C so to speak.
struct StopAfter(u64);

impl Watch for StopAfter {
    fn step(&mut self, _: &Step, _: &Trainer) {
        self.0 -= 1;
    }
    fn stop(&mut self) -> bool {
        self.0 == 0
    }
}

fn same_end(a: &Path, b: &Path) {
    for file in [LAST, BEST, METRICS] {
        assert!(fs::read(a.join(file)).unwrap() == fs::read(b.join(file)).unwrap(), "{file} differs");
    }
}

fn same_results(a: &Summary, b: &Summary) {
    assert_eq!((a.test, a.best, a.steps, a.ended), (b.test, b.best, b.steps, b.ended));
}

#[test]
fn a_run_stopped_anywhere_resumes_to_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    // Two layers with dropout, momentum, a schedule that reduces, clipping, and an epoch of 7 batches.
    let config = config(&[
        "layers=2",
        "dropout=0.3",
        "optimizer=rmsprop",
        "momentum=0.5",
        "clip=norm",
        "clip_limit=0.1",
        "schedule=plateau",
        "schedule.patience=0",
        "schedule.gamma=0.5",
        "eval_every=4",
        "epochs=4",
        "lr=0.02",
    ]);
    let whole = dir.path().join("whole");
    let expected = start(&config, &whole).run(&mut ()).unwrap();
    assert_eq!((expected.steps, expected.ended), (28, Some(Ended::Done)));
    for first in [1, 3, 4, 7, 8, 27, 28] {
        let folder = dir.path().join(format!("stopped-{first}"));
        let stopped = start(&config, &folder).run(&mut StopAfter(first)).unwrap();
        assert_eq!(stopped.steps, first);
        let mut summary = stopped;
        while summary.ended.is_none() {
            summary = resume(&folder).run(&mut StopAfter(9)).unwrap();
        }
        same_results(&summary, &expected);
        same_end(&folder, &whole);
    }
}

#[test]
fn a_finished_run_can_be_resumed_and_continued() {
    let dir = tempfile::tempdir().unwrap();
    let (short, long) = (dir.path().join("short"), dir.path().join("long"));
    let first = start(&config(&["steps=8", "eval_every=4"]), &short).run(&mut ()).unwrap();
    let again = resume(&short).run(&mut ()).unwrap();
    same_results(&first, &again);

    let mut longer = stored_config(&short).unwrap();
    longer.set("steps", 16).unwrap();
    let (session, _) =
        Session::resume(Trainer::new(longer).unwrap(), RunFolder::resume(&short).unwrap()).unwrap();
    // Were it killed now, nothing would say that it is over.
    assert!(!short.join(RESULT).exists());
    let continued = session.run(&mut ()).unwrap();
    assert!(short.join(RESULT).exists());
    let whole = start(&config(&["steps=16", "eval_every=4"]), &long).run(&mut ()).unwrap();
    same_results(&continued, &whole);
    same_end(&short, &long);

    let mut other = stored_config(&short).unwrap();
    other.seed = 9;
    let error =
        Session::resume(Trainer::new(other).unwrap(), RunFolder::resume(&short).unwrap()).err().unwrap();
    assert!(error.to_string().contains("seed is 9, was 1"), "{error}");
}

#[test]
fn training_ends_at_the_goal_or_when_patience_does() {
    let dir = tempfile::tempdir().unwrap();
    let goal = start(&config(&["goal=10", "eval_every=2"]), &dir.path().join("goal")).run(&mut ()).unwrap();
    assert_eq!((goal.steps, goal.ended), (2, Some(Ended::Goal)));
    // Without a learning rate nothing ever improves.
    let settings = ["optimizer=sgd", "lr=0", "patience=3", "eval_every=2"];
    let folder = dir.path().join("patience");
    let patience = start(&config(&settings), &folder).run(&mut ()).unwrap();
    assert_eq!((patience.steps, patience.ended), (8, Some(Ended::Patience)));
    let records = read_metrics(folder.join(METRICS)).unwrap();
    let best: Vec<_> =
        records.iter().filter(|r| r["kind"] == "valid").map(|r| r["best"].as_bool().unwrap()).collect();
    assert_eq!(best, [true, false, false, false]);
}

#[test]
fn it_learns() {
    let settings = ["optimizer=adam", "lr=0.02", "T=4", "train=2000", "hidden=16", "steps=300", "valid=200"];
    let mut trainer = Trainer::new(config(&settings)).unwrap();
    while trainer.ended().is_none() {
        trainer.step().unwrap();
    }
    let mse = trainer.evaluate(Split::Valid, None).unwrap().metric;
    assert!(mse < 0.02, "{mse}, a constant prediction has 0.167");
}

/// A data folder with a small text in place of the Penn Treebank.
fn text() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("ptb")).unwrap();
    for (split, lines) in [("train", 40), ("valid", 9), ("test", 11)] {
        let text: String =
            (0..lines).map(|i| format!("a b c _ {} a \n ", ["d e", "e d d", "b"][i % 3])).collect();
        fs::write(dir.path().join(format!("ptb/ptb.char.{split}.txt")), text).unwrap();
    }
    dir
}

#[test]
fn streams_carry_their_state_through_stop_and_resume() {
    let (data, dir) = (text(), tempfile::tempdir().unwrap());
    let mut config = TrainConfig::new("ptbchar", "lstm", None).unwrap();
    config.data = Some(data.path().into());
    config.set_all(["hidden=6", "batch=4", "eval_batch=3", "bptt=7", "epochs=2", "log_every=1"]).unwrap();
    let whole = dir.path().join("whole");
    let expected = start(&config, &whole).run(&mut ()).unwrap();
    for first in [2, expected.steps / 2 + 1] {
        let folder = dir.path().join(format!("stopped-{first}"));
        start(&config, &folder).run(&mut StopAfter(first)).unwrap();
        let summary = resume(&folder).run(&mut ()).unwrap();
        same_results(&summary, &expected);
        same_end(&folder, &whole);
    }

    // The state matters: one window of the whole text says the same as many that carry it.
    let mut one = Trainer::new(config.clone()).unwrap();
    config.set("bptt", 100_000).unwrap();
    let mut many = Trainer::new(config).unwrap();
    let (a, b) = (one.evaluate(Split::Test, None).unwrap(), many.evaluate(Split::Test, None).unwrap());
    assert_eq!(a.count, b.count);
    assert!((a.metric - b.metric).abs() < 1e-5, "{} {}", a.metric, b.metric);
}

#[test]
fn music_of_any_length_trains_with_masks_and_lengths() {
    let data = tempfile::tempdir().unwrap();
    fs::create_dir(data.path().join("music")).unwrap();
    let piece = |frames: usize| -> Vec<Vec<u32>> {
        (0..frames as u32).map(|t| vec![40 + t % 12, 52 + t % 7]).collect()
    };
    let pieces = |lengths: &[usize]| lengths.iter().map(|&n| piece(n)).collect::<Vec<_>>();
    let json = serde_json::json!({
        "train": pieces(&[5, 9, 3, 7, 8, 4, 6]), "valid": pieces(&[6, 4]), "test": pieces(&[5, 8, 3]),
    });
    fs::write(data.path().join("music/jsb_chorales.json"), json.to_string()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut config = TrainConfig::new("jsb", "kru", None).unwrap();
    config.data = Some(data.path().into());
    config.set_all(["first=skip", "hidden=8", "batch=3", "eval_batch=2", "epochs=3", "log_every=1"]).unwrap();
    let folder = dir.path().join("run");
    let summary = start(&config, &folder).run(&mut ()).unwrap();
    assert!(summary.best.unwrap().metric < 88.0 * 2f64.ln(), "{:?}", summary.best);
    let records = read_metrics(folder.join(METRICS)).unwrap();
    let penalized = |r: &&serde_json::Map<String, serde_json::Value>| r.contains_key("penalty");
    assert!(records.iter().any(|r| penalized(&r)), "the published soft unitary penalty acts on the factors");
    // Batches of one row say the same as batches that pad.
    let mut alone = config.clone();
    alone.eval_batch = 1;
    let (mut padded, mut alone) = (Trainer::new(config).unwrap(), Trainer::new(alone).unwrap());
    let (a, b) = (padded.evaluate(Split::Test, None).unwrap(), alone.evaluate(Split::Test, None).unwrap());
    assert_eq!((a.count, b.count), (13.0, 13.0));
    assert!((a.metric - b.metric).abs() < 1e-4, "{} {}", a.metric, b.metric);
}
