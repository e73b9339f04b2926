//! Runs that are killed without warning, at any moment, as often as it takes.
#![cfg(all(feature = "cli", unix))]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use retrograd::run::{BEST, CURVES, LAST, METRICS};
use serde_json::Value;

fn train(folder: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_retrograd"));
    let settings = [
        "hidden=12",
        "T=30",
        "train=400",
        "valid=20",
        "test=20",
        "batch=16",
        "eval_batch=20",
        "eval_every=7",
        "log_every=1",
        "steps=400",
        "optimizer=adam",
    ];
    command.args(["train", "adding", "--cell", "lstm", "--quiet", "--json", "--resume", "--out"]).arg(folder);
    command.args(settings.iter().flat_map(|s| ["--set", s])).args(more);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn finish(mut command: Command) -> Value {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn same_end(a: &Path, b: &Path) {
    for file in [LAST, BEST, METRICS] {
        assert!(fs::read(a.join(file)).unwrap() == fs::read(b.join(file)).unwrap(), "{file} differs");
    }
}

#[test]
fn a_killed_run_resumes_to_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
    let started = Instant::now();
    let expected = finish(train(&whole, &[]));
    let time = started.elapsed();
    // Another moment each round, from before the first checkpoint to near the end.
    let mut kills = 0;
    for part in [0.02, 0.1, 0.33, 0.25, 0.4] {
        let mut child = train(&killed, &["--threads", "1"]).spawn().unwrap();
        sleep(time.mul_f64(part));
        kills += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let summary = finish(train(&killed, &[]));
    assert!(kills >= 2, "{kills} kills in {time:?}");
    for key in ["test", "best", "steps", "ended"] {
        assert_eq!(summary[key], expected[key], "{key}");
    }
    same_end(&killed, &whole);
}

#[test]
fn an_interrupted_run_saves_and_says_how_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, folder) = (dir.path().join("whole"), dir.path().join("run"));
    let child = train(&folder, &[]).spawn().unwrap();
    let output = interrupt(child, &folder);
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["ended"], "interrupted");
    let resumed = finish(train(&folder, &[]));
    let expected = finish(train(&whole, &[]));
    assert_eq!(resumed["test"], expected["test"]);
    same_end(&folder, &whole);
}

/// Sends Ctrl-C once the run has recorded a step, so that it is training; what the program said.
fn interrupt(child: Child, folder: &Path) -> Output {
    let deadline = Instant::now() + Duration::from_secs(60);
    while fs::metadata(folder.join(METRICS)).map_or(0, |m| m.len()) == 0 && Instant::now() < deadline {
        sleep(Duration::from_millis(2));
    }
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn the_program_alone_trains_and_can_be_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_retrograd"));
    command.current_dir(dir.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = interrupt(command.spawn().unwrap(), &dir.path().join("runs/adding-kru-1"));
    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["adding: kru with 128 units", "1/6", "retrograd train --resume --out runs/adding-kru-1"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    assert!(dir.path().join("runs/adding-kru-1").join(CURVES).is_file());
}
