//! The comparison of K-FAC with first-order optimisers: tuned, resumable, with a table and two pictures.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn run(dir: &Path, more: &[&str]) -> Output {
    let args = ["reproduce", "kfac", "--task", "adding-irnn", "--quiet", "--threads", "1", "--out", "kfac"];
    Command::new(env!("CARGO_BIN_EXE_retrograd")).args(args).args(more).current_dir(dir).output().unwrap()
}

#[test]
fn a_few_updates_of_two_optimisers() {
    let dir = tempfile::tempdir().unwrap();
    let json = || -> Value {
        let few = ["--updates", "3", "--only", "adam", "--only", "K-FAC-option2", "--json"];
        let output = run(dir.path(), &few);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let first = json();
    let rows = first["tasks"][0]["optimizers"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert!(rows[0]["lr"].is_string() && rows[0]["updates_to_goal"].is_u64(), "{first}");
    assert!(rows[1]["lr"].is_null() && rows[1]["loss"].as_f64().unwrap() > 0.0, "{first}");
    let at = |file: &str| fs::read_to_string(dir.path().join("kfac").join(file)).unwrap();
    assert!(at("adding-irnn.md").contains("| K-FAC-option2 |"));
    for picture in ["adding-irnn-updates.svg", "adding-irnn-seconds.svg"] {
        assert!(roxmltree::Document::parse(&at(picture)).is_ok());
    }
    // At least three rates were tried, and nothing is run twice.
    let runs = || -> Vec<_> {
        let files = fs::read_dir(dir.path().join("kfac/adding-irnn")).unwrap().map(|f| f.unwrap());
        let mut all: Vec<_> = files.map(|f| (f.path(), f.metadata().unwrap().modified().unwrap())).collect();
        all.sort();
        all
    };
    let before = runs();
    assert!(before.len() >= 4, "{before:?}");
    assert_eq!(json(), first);
    assert_eq!(runs(), before);
}

#[test]
fn unknown_names_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    for (args, want) in [(["--task", "adding"], "cost"), (["--only", "Adm"], "K-FAC-option1")] {
        let output = Command::new(env!("CARGO_BIN_EXE_retrograd"))
            .args(["reproduce", "kfac"])
            .args(args)
            .current_dir(dir.path())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr.contains(want), "{stderr}");
    }
}
