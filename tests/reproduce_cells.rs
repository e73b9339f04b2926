//! The comparison of all cells: resumable, with a table and a picture.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::{Command, Output};

use serde_json::Value;

fn run(dir: &std::path::Path, more: &[&str]) -> Output {
    let mut args = vec!["reproduce", "cells", "--parameters", "300", "--quiet"];
    if !more.contains(&"--out") {
        args.extend(["--out", "cells"]);
    }
    Command::new(env!("CARGO_BIN_EXE_retrograd")).args(args).args(more).current_dir(dir).output().unwrap()
}

fn json(dir: &std::path::Path, more: &[&str]) -> Value {
    let output = run(dir, &[more, &["--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_few_updates_of_two_networks() {
    let dir = tempfile::tempdir().unwrap();
    let few = ["--task", "denoise", "--only", "GRU", "--only", "janet", "--updates", "100"];
    let first = json(dir.path(), &few);
    let networks = first["tasks"][0]["networks"].as_array().unwrap();
    assert_eq!(networks.len(), 2);
    for network in networks {
        assert_eq!(network["updates"], 100);
        assert!(network["best"].as_f64().unwrap() > 0.0);
        let parameters = network["parameters"].as_u64().unwrap();
        assert!((200..450).contains(&parameters), "{network}");
    }
    let table = std::fs::read_to_string(dir.path().join("cells/denoise.md")).unwrap();
    assert!(
        table.contains("| GRU |") && table.contains("| JANET |") && table.contains("not within 100"),
        "{table}"
    );
    let picture = std::fs::read_to_string(dir.path().join("cells/denoise.svg")).unwrap();
    assert!(roxmltree::Document::parse(&picture).is_ok());

    // Tables of what there is need no training, whatever else is in the comparison.
    let read = json(dir.path(), &["--task", "denoise", "--read"]);
    assert_eq!(read["tasks"][0]["networks"], first["tasks"][0]["networks"]);

    // The same again reads what is there; more updates go on with it.
    let file = dir.path().join("cells/denoise/GRU/metrics.jsonl");
    let before = std::fs::read(&file).unwrap();
    assert_eq!(json(dir.path(), &few), first);
    assert_eq!(std::fs::read(&file).unwrap(), before);
    let longer = ["--task", "denoise", "--only", "GRU", "--updates", "200"];
    let more = json(dir.path(), &[&longer[..], &["--threads", "1"]].concat());
    assert_eq!(more["tasks"][0]["networks"][0]["updates"], 200);
    assert!(std::fs::read(&file).unwrap().starts_with(&before));
    // A run stays what it was.
    let output = run(dir.path(), &[&longer[..], &["--set", "lr=0.5"]].concat());
    assert!(String::from_utf8_lossy(&output.stderr).contains("another configuration"), "{output:?}");
}

#[test]
fn a_network_without_published_settings_is_trained_at_two_rates() {
    let dir = tempfile::tempdir().unwrap();
    let few = ["--task", "adding", "--only", "UGRNN", "--updates", "100"];
    let found = json(dir.path(), &few);
    let networks = found["tasks"][0]["networks"].as_array().unwrap();
    assert_eq!(networks.len(), 1, "one row for both");
    let best = |rate: &str| {
        let text = std::fs::read_to_string(dir.path().join(format!("cells/adding/UGRNN-{rate}/result.json")));
        let result: Value = serde_json::from_str(&text.unwrap()).unwrap();
        result["best"]["metric"].as_f64().unwrap()
    };
    let (slow, quick) = (best("lr=1e-3"), best("lr=1e-2"));
    assert_eq!(networks[0]["best"].as_f64().unwrap(), slow.min(quick));
    let training = networks[0]["training"].as_str().unwrap();
    assert!(training.contains(if slow < quick { "lr=1e-3" } else { "lr=1e-2" }), "{training}");
    // At a rate of the caller's there is one run.
    let one = json(dir.path(), &[&few[..], &["--set", "lr=1e-3", "--out", "one"]].concat());
    assert_eq!(one["tasks"][0]["networks"].as_array().unwrap().len(), 1);
    assert!(!dir.path().join("one/adding/UGRNN-lr=1e-2").exists());
}

#[test]
fn unknown_names_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    for (args, want) in [(["--task", "coping"], "one of copy, adding, denoise"), (["--only", "LTSM"], "LSTM")]
    {
        let output = run(dir.path(), &args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr.contains(want), "{stderr}");
    }
}
