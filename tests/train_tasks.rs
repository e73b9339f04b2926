//! Every task of the table, where its data is here, with its own way of training made small: a run begins, and the loss
//! of what it is trained on falls.
#![allow(clippy::unwrap_used, clippy::panic)]

use retrograd::datasets::{TASKS, data_dir};
use retrograd::train::{TrainConfig, Trainer};

/// Settings that make a task small: few sequences, which every update sees.
fn small(task: &str) -> Vec<&'static str> {
    let rows = |more: &[&'static str]| {
        [&["train=16", "valid=4", "test=4", "batch=16", "eval_batch=4"], more].concat()
    };
    match task {
        "copy" | "adding" | "denoise" => rows(&["T=10"]),
        "ptbchar" => vec!["train=320", "valid=100", "test=100", "batch=16", "bptt=20", "eval_batch=5"],
        "ptbword" => vec!["train=160", "valid=100", "test=100", "batch=16", "bptt=10", "eval_batch=5"],
        "jsb" | "piano-midi" | "nottingham" | "musedata" => {
            vec!["train=2", "valid=1", "test=1", "batch=8", "chunk=30", "eval_batch=1"]
        }
        "noisymnist" => rows(&["T=40"]),
        // A thousand steps of four rows are enough to see.
        "mnist" | "psmnist" => rows(&["train=4", "batch=4"]),
        // Of these sets only a part may be here.
        "cifar" => rows(&["set=part", "train=4", "batch=4"]),
        "rowcifar" => rows(&["set=part"]),
        "noisycifar" => rows(&["set=part", "T=40"]),
        "dsa-19" => rows(&["people=2", "segments=4"]),
        "timit" => vec!["held-out=2", "train=2", "valid=1", "test=1", "batch=2", "eval_batch=1"],
        "series" => vec!["channels=1", "batch=4"],
        "yelp-5" => rows(&["reviews=100", "T=30", "vocabulary=200"]),
        _ => rows(&[]),
    }
}

#[test]
fn training_begins_and_the_loss_falls() {
    // What a task reads that has no data of its own: a sine, 400 steps of it.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sine");
    let sine: Vec<u8> = (0..400).flat_map(|t| (t as f32 * 0.3).sin().to_le_bytes()).collect();
    std::fs::write(&file, sine).unwrap();
    for task in TASKS {
        if let Some(need) = task.needs.iter().find(|need| data_dir::find_any(None, need).is_err()) {
            println!("{}: skipped, {need} is not here", task.name);
            continue;
        }
        let mut config = TrainConfig::new(task.name, "gru", None).unwrap();
        config.set_all(small(task.name)).unwrap();
        if task.name == "series" {
            config.set_all([format!("file={}", file.display())]).unwrap();
        }
        let settings =
            ["optimizer=adam", "lr=1e-2", "schedule=constant", "weight_noise=0", "hidden=12", "steps=24"];
        config.set_all(settings).unwrap();
        let mut trainer = Trainer::new(config).unwrap_or_else(|e| panic!("{}: {e}", task.name));
        let losses: Vec<f64> = (0..24).map(|_| trainer.step().unwrap().loss).collect();
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        let (first, last) = (mean(&losses[..4]), mean(&losses[20..]));
        println!("{}: {first:.4} to {last:.4}", task.name);
        assert!(last < first, "{}: {losses:?}", task.name);
    }
}
