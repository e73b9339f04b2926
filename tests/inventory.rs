//! What is written down about the program is what the program is.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use retrograd::{cells, datasets, ops, optim};

fn program(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_retrograd")).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Names of the commands, from the help.
fn commands() -> BTreeSet<String> {
    let help = program(&["--help"]);
    let lines = help.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    lines.filter_map(|l| l.split_whitespace().next()).filter(|n| *n != "help").map(str::to_string).collect()
}

#[test]
fn the_readme_names_every_command_and_no_other() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let rows = readme.lines().filter_map(|l| l.strip_prefix("| `retrograd ")?.split(['`', ' ']).next());
    let written: BTreeSet<String> = rows.map(str::to_string).collect();
    assert_eq!(written, commands());
    assert!(readme.lines().any(|l| l == "cargo run --release"));
    assert!(readme.lines().any(|l| l == "cargo test --workspace"));
}

#[test]
fn every_command_helps_with_examples() {
    for command in commands() {
        let help = program(&[&command, "--help"]);
        assert!(help.contains("Examples:") && help.contains("--json"), "{command}: {help}");
    }
}

#[test]
fn everything_with_a_name_is_listed() {
    let text = program(&["list", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
    let names = |kind: &str| -> BTreeSet<&str> {
        listed[kind].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect()
    };
    assert_eq!(names("cells"), cells::CELLS.iter().map(|e| e.name).collect());
    assert_eq!(names("networks"), cells::NETWORKS.iter().map(|n| n.name).collect());
    assert_eq!(names("operators"), cells::OPERATORS.iter().map(|e| e.name).collect());
    assert_eq!(names("tasks"), datasets::TASKS.iter().map(|e| e.name).collect());
    assert_eq!(names("optimizers"), optim::OPTIMIZERS.iter().map(|e| e.name).collect());
    assert_eq!(names("schedules"), optim::SCHEDULES.iter().map(|e| e.name).collect());
    assert_eq!(names("penalties"), optim::PENALTIES.iter().map(|e| e.name).collect());
    assert_eq!(names("ops"), ops::OPS.iter().map(|e| e.name).collect());
}

/// Each crate's files are compared with its table there; here, that no two kinds of thing share a name, so that
/// `retrograd list NAME` is clear.
#[test]
fn cells_operators_and_tasks_have_names_of_their_own() {
    let mut seen = BTreeSet::new();
    let all = cells::CELLS.iter().map(|e| e.name).chain(cells::OPERATORS.iter().map(|e| e.name));
    let all = all.chain(cells::NETWORKS.iter().map(|n| n.name));
    for name in
        all.chain(datasets::TASKS.iter().map(|e| e.name)).chain(optim::OPTIMIZERS.iter().map(|e| e.name))
    {
        assert!(seen.insert(name), "two things are called {name}");
    }
}
