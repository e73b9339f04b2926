//! What a look inside a network says where the answer is known.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

use retrograd::diagnose::{FOLDER, Findings, Measured, NUMBERS, Options, diagnose};
use retrograd::run::{LAST, RunFolder};
use retrograd::train::{Session, TrainConfig, Trainer};

/// A short run, and what is found in it.
fn look(folder: &Path, task: &str, cell: &str, operator: Option<&str>, set: &[&str]) -> Findings {
    let mut config = TrainConfig::new(task, cell, operator).unwrap();
    let tiny =
        ["T=12", "train=40", "valid=10", "test=10", "batch=10", "eval_batch=10", "hidden=6", "steps=4"];
    config.set_all(tiny).unwrap();
    config.set_all(["optimizer=sgd", "lr=0", "eval_every=2", "clip=none", "snapshots=2"]).unwrap();
    config.set_all(set).unwrap();
    let session = Session::start(Trainer::new(config).unwrap(), RunFolder::create(folder).unwrap());
    session.unwrap().run(&mut ()).unwrap();
    let options = Options { checkpoint: LAST.into(), rows: 4, ..Options::default() };
    diagnose(folder, &options).unwrap()
}

fn measure<'a>(findings: &'a Findings, name: &str) -> &'a Measured {
    &findings.measures.iter().find(|(n, _)| *n == name).unwrap().1
}

fn number(findings: &Findings, name: &str, key: &str) -> f64 {
    measure(findings, name).numbers.get(key).unwrap().as_f64().unwrap()
}

/// A column of a table, as numbers.
fn column(findings: &Findings, name: &str, file: &str, column: &str) -> Vec<f64> {
    let (_, table) = measure(findings, name).tables.iter().find(|(f, _)| *f == file).unwrap();
    let at = table.columns.iter().position(|c| c == column).unwrap();
    table.rows.iter().map(|row| row[at].as_f64().unwrap_or(f64::NAN)).collect()
}

/// At the equilibrium a step turns the state around: Jacobians of norm √H, exponents 0, eigenvalues on the left.
#[test]
fn a_converged_irnn_neither_grows_nor_shrinks() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("irnn");
    let set = [
        "solver=damped",
        "K=30",
        "rate=0.7",
        "tolerance=1e-10",
        "activation=sigmoid",
        "twice=false",
        "recurrent_init=uniform:0.1",
        "precision=f64",
    ];
    let found = look(&folder, "adding", "irnn", Some("dense"), &set);
    for norm in column(&found, "jacobians", "jacobians", "norm") {
        assert!((norm - 6f64.sqrt()).abs() < 1e-6, "{norm}");
    }
    assert!((number(&found, "jacobians", "ratio") - 1.0).abs() < 1e-6);
    let exponents = measure(&found, "lyapunov").numbers["exponents"].as_array().unwrap();
    assert_eq!(exponents.len(), 6);
    assert!(exponents.iter().all(|x| x.as_f64().unwrap().abs() < 1e-6), "{exponents:?}");
    assert!(number(&found, "equilibrium", "residual") < 1e-9);
    assert!(number(&found, "equilibrium", "largest_real_part") < 0.0);
    // Steps of half the size: 1 − 0.5 (1 − ‖W‖/4) with a sigmoid's slope of 1/4 at most.
    let rate = number(&found, "equilibrium", "linear_rate");
    assert!((0.4..0.6).contains(&rate), "{rate}");
    assert_eq!(column(&found, "equilibrium", "equilibrium", "real").len(), 6);
    // The gradient by the state has one size at all steps too.
    let norms = column(&found, "gradients", "gradients", "norm");
    assert_eq!(norms.len(), 12);
    assert!(norms.iter().all(|n| (n / norms[11] - 1.0).abs() < 1e-6), "{norms:?}");
    assert!(measure(&found, "memory").left_out.is_some());
}

/// An orthogonal matrix is as it is at every checkpoint.
#[test]
fn spectra_of_an_orthogonal_matrix() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("rnn");
    let found = look(&folder, "copy", "rnn", None, &["recurrent_init=orthogonal", "T=5"]);
    assert!((number(&found, "operators", "layer0.W.condition") - 1.0).abs() < 1e-5);
    assert!(number(&found, "operators", "layer0.W.unitarity_distance") < 1e-5);
    // Snapshots after two and four updates; the best is the first of them, the newest the last.
    assert_eq!(column(&found, "operators", "operators", "step"), [2.0, 4.0]);
    for radius in column(&found, "operators", "operators", "radius") {
        assert!((radius - 1.0).abs() < 1e-5, "{radius}");
    }
    assert_eq!(measure(&found, "equilibrium").left_out.as_deref(), Some("the cell solves no equation"));
}

/// Every cell with its own operator, real or complex, with and without memories.
#[test]
fn every_cell_can_be_looked_into() {
    let dir = tempfile::tempdir().unwrap();
    for cell in retrograd::cells::CELLS {
        let folder = dir.path().join(cell.name);
        // Learned first states, two layers, a task that is scored at every step.
        let found = look(&folder, "copy", cell.name, None, &["T=4", "layers=2", "learn_h0=true", "hidden=8"]);
        for name in ["gradients", "jacobians", "operators", "lyapunov"] {
            let m = measure(&found, name);
            assert!(m.left_out.is_none(), "{}: {name}: {:?}", cell.name, m.left_out);
            for (file, table) in &m.tables {
                assert!(!table.rows.is_empty(), "{}: {file}", cell.name);
                assert!(table.to_csv().lines().count() == table.rows.len() + 1, "{}: {file}", cell.name);
            }
        }
        let memories = measure(&found, "memory").left_out.is_none();
        assert_eq!(memories, ["lstm", "nru", "unicornn"].contains(&cell.name), "{}", cell.name);
        for file in &found.files {
            let text = std::fs::read_to_string(file).unwrap();
            match file.extension().and_then(|e| e.to_str()) {
                Some("svg") => assert!(roxmltree::Document::parse(&text).is_ok(), "{}", file.display()),
                Some("json") => assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok()),
                _ => assert!(text.contains(','), "{}", file.display()),
            }
        }
        assert!(folder.join(FOLDER).join(NUMBERS).exists());
    }
}

#[test]
fn what_is_not_there_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let error = diagnose(dir.path(), &Options::default()).err().unwrap().to_string();
    assert!(error.contains(&dir.path().display().to_string()), "{error}");
    let folder = dir.path().join("run");
    look(&folder, "copy", "gru", None, &["T=4"]);
    let options = Options { checkpoint: "other.safetensors".into(), ..Options::default() };
    let error = diagnose(&folder, &options).err().unwrap().to_string();
    assert!(error.contains("other.safetensors"), "{error}");
}
