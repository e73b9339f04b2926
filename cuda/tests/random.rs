//! Random steps of the engine's tests on the emulated device: values, gradients and second derivatives.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../../engine/tests/common/mod.rs"]
mod common;
mod on_device;
#[path = "../../engine/tests/random_steps/mod.rs"]
mod random_steps;

use random_steps::{Case, bindings, case, looped};

fn check(case: &Case) {
    let values = bindings(case).unwrap();
    let (tape, mut outputs, _, derivatives) = looped(case).unwrap();
    outputs.extend(derivatives);
    let what = format!("seed {}, {} steps, {} rows", case.seed, case.steps, case.rows);
    on_device::compare(&what, &tape, &outputs, &values, (case.steps, case.rows), 20_000.0);
}

#[test]
fn short_sequences() {
    let _alone = on_device::alone();
    (0..24).for_each(|seed| check(&case(seed)));
}

/// Long enough for several chunks, and for segments that are replayed.
#[test]
fn long_sequences() {
    let _alone = on_device::alone();
    for (seed, steps, rows) in [(30, 150, 1), (31, 201, 6), (34, 140, 2)] {
        let lengths =
            case(seed).lengths.map(|_| (0..rows).map(|r| (steps - r * 37 % steps) as i32).collect());
        check(&Case { steps, rows, lengths, ..case(seed) });
    }
}
