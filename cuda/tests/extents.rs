//! More steps than a grid of CUDA has blocks along an axis, a batch of thousands of rows, and one row: on one block and on
//! teams.
#![allow(clippy::unwrap_used, clippy::panic)]

mod on_device;

use std::sync::Arc;

use on_device::{numbers, on, ratio, sum_all};
use retrograd_cuda::Gpu;
use retrograd_engine::core_ops::add;
use retrograd_engine::device::Device;
use retrograd_engine::{DType, Params, Program, RunOptions, Scan, Shape, Tape, Tensor, Var, grad, matmul};
use retrograd_ops as ops;

/// `h' = tanh(h w + x)`: loss and gradients on both sides, with the record kept and, if `replays`, within the fewest bytes.
fn compare(device: &Arc<dyn Device>, width: usize, (steps, rows): (usize, usize), replays: bool) {
    let dtype = DType::F64;
    let mut tape = Tape::new();
    let x = tape.input("x", dtype, Shape::sequence([width])).unwrap();
    let w = tape.param("w", dtype, [width, width]).unwrap();
    let h0 = tape.param("h0", dtype, [width]).unwrap();
    let mut values = Params::new();
    values.insert("x", numbers(dtype, &[steps, rows, width], 1));
    // Small enough for gradients that do not grow from step to step.
    let mut matrix = numbers(dtype, &[width, width], 2);
    let large = matrix.clone();
    matrix.fill_with(|i| large.get(i) / width as f64);
    values.insert("w", matrix);
    values.insert("h0", numbers(dtype, &[width], 3));
    let (last, all) = Scan::new()
        .run(&mut tape, h0, x, |tape, h, x| {
            let y = matmul(tape, h, w)?;
            let y = add(tape, y, x)?;
            let h = ops::tanh(tape, y)?;
            Ok((h, h))
        })
        .unwrap();
    let square = ops::abs2(&mut tape, all).unwrap();
    let sums = [sum_all(&mut tape, square).unwrap(), sum_all(&mut tape, last).unwrap()];
    let loss = add(&mut tape, sums[0], sums[1]).unwrap();
    let bars = grad(&mut tape, loss, &[w, h0]).unwrap();
    let outputs: Vec<Var> = std::iter::once(loss).chain(bars).collect();
    let options = RunOptions { threads: Some(1), ..RunOptions::default() };
    let expected = Program::new(&tape, &outputs, options).unwrap().run(&[&values]).unwrap();
    let mut program = Program::new(&tape, &outputs, on(device, None)).unwrap();
    let got = program.run(&[&values]).unwrap();
    for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
        let off = ratio(got, expected);
        // Sums of as many terms: each rounds once.
        let most = 100.0 + ((steps * rows) as f64).sqrt();
        assert!(off < most, "{steps} steps of {rows} rows, output {i}: off by {off} roundings of {most}");
    }
    if replays {
        let least = program.smallest_plan(steps, rows).unwrap().peak_bytes();
        program.set_budget(Some(least));
        let again = program.run(&[&values]).unwrap();
        assert_eq!(program.last_peak_bytes(), least);
        for (got, again) in got.iter().zip(&again) {
            assert_eq!(got.as_bytes(), again.as_bytes(), "{steps} steps of {rows} rows within {least} bytes");
        }
    }
}

#[test]
fn long_sequences_and_large_batches() {
    let _alone = on_device::alone();
    let (alone, teams): (Arc<dyn Device>, Arc<dyn Device>) =
        (Arc::new(Gpu::emulated()), Arc::new(Gpu::emulated_as(2200, 8)));
    for (device, width, size, replays) in [
        (&alone, 1, (66_000, 1), false),
        (&alone, 2, (2, 4096), true),
        (&teams, 20, (2, 300), true),
        (&teams, 20, (1, 1), true),
        (&alone, 2, (1, 1), true),
        // Tiles times rows are more than 32 bits.
        (&alone, 1, (1, 100_000), false),
    ] {
        compare(device, width, size, replays);
    }
}

#[test]
#[ignore = "needs a CUDA device"]
fn long_sequences_and_large_batches_on_a_device() {
    let _alone = on_device::alone();
    let device: Arc<dyn Device> = Arc::new(Gpu::open(0).unwrap());
    for (width, size, replays) in [
        (2, (70_000, 1), false),
        (24, (2, 4096), true),
        (2, (1, 100_000), true),
        (512, (200, 300), true),
        (512, (1, 1), true),
    ] {
        compare(&device, width, size, replays);
    }
}

/// A record that the device has no room for: the error says what a budget could do with.
#[test]
fn what_does_not_fit_names_the_least_budget() {
    let _alone = on_device::alone();
    let device: Arc<dyn Device> = Arc::new(Gpu::emulated());
    let (steps, rows, width) = (20_000, 100, 300);
    let mut tape = Tape::new();
    let x = tape.input("x", DType::F64, Shape::sequence([1])).unwrap();
    let w = tape.param("w", DType::F64, [width]).unwrap();
    let h0 = tape.param("h0", DType::F64, [width]).unwrap();
    let (last, ()) = Scan::new()
        .run(&mut tape, h0, x, |tape, h, x| {
            let y = ops::mul(tape, h, w)?;
            let y = add(tape, y, x)?;
            Ok((ops::tanh(tape, y)?, ()))
        })
        .unwrap();
    let loss = sum_all(&mut tape, last).unwrap();
    let bar = grad(&mut tape, loss, &[w]).unwrap();
    let mut values = Params::new();
    for (name, dims) in [("x", vec![steps, rows, 1]), ("w", vec![width]), ("h0", vec![width])] {
        values.insert(name, Tensor::zeros(DType::F64, dims).unwrap());
    }
    let mut program = Program::new(&tape, &bar, on(&device, None)).unwrap();
    let least = program.smallest_plan(steps, rows).unwrap().peak_bytes();
    let error = program.run(&[&values]).unwrap_err().to_string();
    let expected = format!("{:.1} MiB", least as f64 / f64::from(1 << 20));
    assert!(error.contains("GiB") && error.contains(&format!("budget of {expected} at least")), "{error}");
}
