//! A cell written outside the crates (the example's) trains, is explained, checked and budgeted like those inside.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, unreachable_pub)]
#[path = "../examples/custom_cell.rs"]
mod example;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Tests run one after the other: bytes are counted for the whole process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn it_trains() {
    let _alone = alone();
    let mse = example::train().unwrap();
    assert!(mse < 0.01, "{mse}, a constant prediction has 0.167");
}

#[test]
fn it_is_explained() {
    let _alone = alone();
    let plan = example::explain().unwrap();
    for part in ["sigmoid+", "kron_apply", "step by step", "chunk at once", "adjoint scan", "kept states"] {
        assert!(plan.contains(part), "{part} is missing in\n{plan}");
    }
}

#[test]
fn its_gradients_are_right() {
    let _alone = alone();
    assert!(example::check().unwrap());
}

#[test]
fn it_keeps_a_budget_without_changing_a_bit() {
    let _alone = alone();
    assert!(example::budget().unwrap());
}
