//! Recurrent matrices of the unitary networks are unitary to rounding, and keep norms, after ten thousand updates.
#![allow(clippy::unwrap_used)]

use num_complex::Complex64;
use retrograd::cells::{Declare, ParamStore, Recurrence, Settings, operator};
use retrograd::engine::reference;
use retrograd::train::{TrainConfig, Trainer};
use retrograd::{DType, Params, Tape, Tensor};

const N: usize = 8;

/// What the recurrent operator of the first layer makes of rows.
fn applied(config: &TrainConfig, params: &Params, rows: &Tensor) -> Tensor {
    let (mut tape, mut store) = (Tape::new(), ParamStore::new(0, DType::F64).unwrap());
    let settings: Settings = config.operator.settings.iter().map(|(k, v)| (k.as_str(), v)).collect();
    let mut ctx = Declare::new(&mut tape, &mut store);
    let complex = rows.dtype().is_complex();
    let w = Recurrence { name: "W", gates: &[""], n: N, complex, init: None };
    let w = operator(&config.operator.name, &settings).unwrap().declare(&mut ctx.scope("layer0"), w).unwrap();
    let h = tape.constant(rows.clone());
    let y = w.apply(&mut tape, h, 0).unwrap();
    reference::evaluate(&tape, &[y], &[params]).unwrap().remove(0)
}

/// Rows of the identity: the operator makes columns of its matrix of them.
fn identity(dtype: DType) -> Tensor {
    let mut t = Tensor::zeros(dtype, [N, N]).unwrap();
    t.fill_with(|i| if i.is_multiple_of(N + 1) { 1.0.into() } else { 0.0.into() });
    t
}

/// Largest difference of a product of two rows from that of two rows of the identity.
fn defect(columns: &Tensor) -> f64 {
    let product = |i: usize| -> Complex64 {
        (0..N).map(|k| columns.get(i / N * N + k).conj() * columns.get(i % N * N + k)).sum()
    };
    let one = |i: usize| if i.is_multiple_of(N + 1) { 1.0 } else { 0.0 };
    (0..N * N).map(|i| (product(i) - one(i)).norm()).fold(0.0, f64::max)
}

fn norm(t: &Tensor, row: usize) -> f64 {
    (0..N).map(|k| t.get(row * N + k).norm_sqr()).sum::<f64>().sqrt()
}

/// `cell` is a cell or the name of a published network.
fn check(cell: &str, set: &[&str], state: DType) {
    let mut config = TrainConfig::new("adding", cell, None).unwrap();
    config
        .set_all(["hidden=8", "T=4", "train=100", "valid=10", "batch=2", "eval_batch=2", "steps=10000"])
        .unwrap();
    config.set_all(["precision=f64", "lr=1e-3", "learn_h0=true", "non_finite=skip"]).unwrap();
    config.set_all(set).unwrap();
    config.threads = Some(1);
    let mut trainer = Trainer::new(config.clone()).unwrap();
    let first = applied(&config, trainer.params(), &identity(state));
    for _ in 0..10_000 {
        trainer.step().unwrap();
    }
    let last = applied(&config, trainer.params(), &identity(state));
    let moved = (0..N * N).map(|i| (last.get(i) - first.get(i)).norm()).fold(0.0, f64::max);
    assert!(moved > 1e-3, "{cell} {set:?}: the matrix did not move, {moved:e}");
    assert!(defect(&last) < 1e-14, "{cell} {set:?}: {:e}", defect(&last));
    let mut h = Tensor::zeros(state, [N, N]).unwrap();
    h.fill_with(|i| {
        Complex64::new(
            (0.7 + 5.0 * i as f64).sin(),
            if state.is_complex() { (3.0 * i as f64).cos() } else { 0.0 },
        )
    });
    let y = applied(&config, trainer.params(), &h);
    for row in 0..N {
        let ratio = norm(&y, row) / norm(&h, row);
        assert!((ratio - 1.0).abs() < 1e-14, "{cell} {set:?}: row {row}, ratio {ratio}");
    }
}

#[test]
fn restricted_capacity() {
    check("rc_urnn", &[], DType::C64);
}

#[test]
fn full_capacity() {
    check("fc_urnn", &["cayley.lr=1e-2"], DType::C64);
    check("fc_urnn", &["cayley.lr=1e-3", "cayley.scaling=rmsprop"], DType::C64);
}

#[test]
fn rotations() {
    check("eurnn", &["capacity=4"], DType::C64);
    check("eurnn", &["style=fft", "field=real"], DType::F64);
    check("goru", &["style=fft"], DType::F64);
}

#[test]
fn reflections() {
    check("ornn", &["reflections=5"], DType::F64);
}

/// A gated cell on orthogonal matrices: every gate's stays orthogonal.
#[test]
fn gates_of_orthogonal_matrices() {
    let mut config = TrainConfig::new("adding", "gru", Some("unitary")).unwrap();
    config
        .set_all(["hidden=8", "T=4", "train=100", "valid=10", "batch=2", "steps=300", "precision=f64"])
        .unwrap();
    config.set("cayley.lr", 1e-2).unwrap();
    config.threads = Some(1);
    let mut trainer = Trainer::new(config).unwrap();
    let before = trainer.params().require("layer0.W.z").unwrap().clone();
    for _ in 0..300 {
        trainer.step().unwrap();
    }
    for gate in ["r", "z", "n"] {
        let w = trainer.params().require(&format!("layer0.W.{gate}")).unwrap();
        assert!(defect(w) < 1e-14, "{gate}: {:e}", defect(w));
    }
    assert!(!trainer.params().require("layer0.W.z").unwrap().bit_eq(&before));
}
