//! Programs of the engine on the emulated device: the processor's results within rounding, equal bits from run to run and
//! under every budget, and the planned peak to the byte.
#![allow(clippy::unwrap_used, clippy::panic)]

mod on_device;

use on_device::{compare, numbers, sum_all};
use retrograd_engine::core_ops::add;
use retrograd_engine::device::{Left, Resident};
use retrograd_engine::{
    DType, Error, Params, Program, RunOptions, Scan, Shape, Tape, Tensor, Var, grad, matmul,
};
use retrograd_ops as ops;

#[test]
fn calls_without_a_loop() {
    let _alone = on_device::alone();
    for dtype in [DType::F32, DType::F64, DType::C32, DType::C64] {
        let mut tape = Tape::new();
        let x = tape.input("x", dtype, Shape::rows([5])).unwrap();
        let w = tape.param("w", dtype, [5, 7]).unwrap();
        let b = tape.param("b", dtype, [7]).unwrap();
        let y = matmul(&mut tape, x, w).unwrap();
        let y = add(&mut tape, y, b).unwrap();
        let y = ops::tanh(&mut tape, y).unwrap();
        let square = ops::abs2(&mut tape, y).unwrap();
        let loss = sum_all(&mut tape, square).unwrap();
        let bars = grad(&mut tape, loss, &[w, b, x]).unwrap();
        let mut values = Params::new();
        values.insert("x", numbers(dtype, &[9, 5], 1));
        values.insert("w", numbers(dtype, &[5, 7], 2));
        values.insert("b", numbers(dtype, &[7], 3));
        let outputs: Vec<Var> = [y, loss].into_iter().chain(bars).collect();
        compare(&format!("{dtype}"), &tape, &outputs, &values, (1, 9), 60.0);
    }
}

/// `h' = tanh(h w + x)`, states and last state, forward or backward in time, with lengths.
#[test]
fn a_scan_and_its_adjoint() {
    let _alone = on_device::alone();
    for (dtype, steps, rows, reverse, lengths) in [
        (DType::F64, 7, 5, false, false),
        (DType::F32, 70, 1, true, false),
        (DType::F64, 130, 9, false, true),
        (DType::F64, 5, 6, true, true),
    ] {
        let mut tape = Tape::new();
        let x = tape.input("x", dtype, Shape::sequence([3])).unwrap();
        let w = tape.param("w", dtype, [3, 3]).unwrap();
        let b = tape.param("b", dtype, [3]).unwrap();
        let h0 = tape.param("h0", dtype, [3]).unwrap();
        let mut values = Params::new();
        values.insert("x", numbers(dtype, &[steps, rows, 3], 1));
        values.insert("w", numbers(dtype, &[3, 3], 2));
        values.insert("b", numbers(dtype, &[3], 4));
        values.insert("h0", numbers(dtype, &[3], 3));
        let mut scan = Scan::new().reverse(reverse);
        if lengths {
            let n = tape.input("lengths", DType::I32, Shape::rows([])).unwrap();
            let given: Vec<i32> = (0..rows).map(|r| (r * 3 % (steps + 1)) as i32).collect();
            values.insert("lengths", Tensor::from_slice([rows], &given).unwrap());
            scan = scan.lengths(Some(n));
        }
        let (last, all) = scan
            .run(&mut tape, h0, x, |tape, h, x| {
                let y = matmul(tape, h, w)?;
                let y = add(tape, y, x)?;
                let y = add(tape, y, b)?;
                let h = ops::tanh(tape, y)?;
                Ok((h, h))
            })
            .unwrap();
        let square = ops::abs2(&mut tape, all).unwrap();
        let (a, b_) = (sum_all(&mut tape, square).unwrap(), sum_all(&mut tape, last).unwrap());
        let loss = add(&mut tape, a, b_).unwrap();
        let bars = grad(&mut tape, loss, &[w, b, h0, x]).unwrap();
        let outputs: Vec<Var> = [all, last, loss].into_iter().chain(bars).collect();
        let what = format!("{dtype} T {steps} N {rows} reverse {reverse} lengths {lengths}");
        compare(&what, &tape, &outputs, &values, (steps, rows), 300.0);
        // The smallest budget of the longest one takes checkpoints and replays.
        if steps == 130 {
            let program = Program::new(&tape, &outputs, on_device::on(&on_device::device(), None)).unwrap();
            let replay = program.smallest_plan(steps, rows).unwrap().summary().replay.unwrap();
            assert!(replay.extra_forward_steps > 0, "{replay:?}");
        }
    }
}

/// Sums over many steps and rows go in parts: of products, of values, of values at every step, of the rows of a table, of
/// what blocks form in phases.
#[test]
fn sums_in_parts() {
    let _alone = on_device::alone();
    // Few rows and many; a number of entries that is no multiple of the parts.
    for (dtype, steps, rows) in [(DType::F64, 23, 17), (DType::C32, 2, 99)] {
        let mut tape = Tape::new();
        let x = tape.input("x", dtype, Shape::sequence([5])).unwrap();
        let w = tape.param("w", dtype, [5, 6]).unwrap();
        let b = tape.param("b", dtype, [6]).unwrap();
        let factors = [tape.param("f0", dtype, [2, 2]).unwrap(), tape.param("f1", dtype, [3, 3]).unwrap()];
        let table = tape.param("table", dtype, [4, 6]).unwrap();
        let symbols = tape.input("symbols", DType::I32, Shape::sequence([])).unwrap();
        let y = matmul(&mut tape, x, w).unwrap();
        let y = add(&mut tape, y, b).unwrap();
        let y = ops::kron_apply(&mut tape, y, &factors).unwrap();
        let looked = ops::gather(&mut tape, table, symbols).unwrap();
        let y = ops::mul(&mut tape, y, looked).unwrap();
        let y = ops::tanh(&mut tape, y).unwrap();
        let of_steps = retrograd_engine::core_ops::sum_rows(&mut tape, y).unwrap();
        let of_rows = retrograd_engine::core_ops::sum_steps(&mut tape, y).unwrap();
        let square = ops::abs2(&mut tape, y).unwrap();
        let loss = sum_all(&mut tape, square).unwrap();
        let bars = grad(&mut tape, loss, &[w, b, factors[0], factors[1], table]).unwrap();
        let mut values = Params::new();
        values.insert("x", numbers(dtype, &[steps, rows, 5], 1));
        values.insert("w", numbers(dtype, &[5, 6], 2));
        values.insert("b", numbers(dtype, &[6], 3));
        values.insert("f0", numbers(dtype, &[2, 2], 4));
        values.insert("f1", numbers(dtype, &[3, 3], 5));
        values.insert("table", numbers(dtype, &[4, 6], 6));
        let symbols: Vec<i32> = (0..steps * rows).map(|i| (i * 7 % 11 % 4) as i32).collect();
        values.insert("symbols", Tensor::from_slice([steps, rows], &symbols).unwrap());
        let outputs: Vec<Var> = [of_steps, of_rows, loss].into_iter().chain(bars).collect();
        compare(&format!("{dtype}"), &tape, &outputs, &values, (steps, rows), 300.0);
        let plan = Program::new(&tape, &outputs, on_device::on(&on_device::device(), None)).unwrap();
        let text = plan.plan(steps, rows).unwrap().explain();
        assert!(text.contains(" parts"), "{text}");
    }
}

/// Loops read matrices and leave values in shared memory where it is large enough, and otherwise in that of the device: with
/// the same bits.
#[test]
fn with_little_shared_memory() {
    let _alone = on_device::alone();
    if on_device::REAL.load(std::sync::atomic::Ordering::Relaxed) {
        return;
    }
    for dtype in [DType::F32, DType::C64] {
        let mut tape = Tape::new();
        let x = tape.input("x", dtype, Shape::sequence([6])).unwrap();
        let w = tape.param("w", dtype, [6, 6]).unwrap();
        let h0 = tape.param("h0", dtype, [6]).unwrap();
        let (h, ()) = retrograd_engine::scan(&mut tape, h0, x, |tape, h, x| {
            let wh = matmul(tape, h, w)?;
            let y = add(tape, wh, x)?;
            Ok((ops::tanh(tape, y)?, ()))
        })
        .unwrap();
        let square = ops::abs2(&mut tape, h).unwrap();
        let loss = sum_all(&mut tape, square).unwrap();
        let outputs: Vec<Var> =
            std::iter::once(loss).chain(grad(&mut tape, loss, &[w, h0]).unwrap()).collect();
        let mut values = Params::new();
        values.insert("x", numbers(dtype, &[3, 5, 6], 1));
        values.insert("w", numbers(dtype, &[6, 6], 2));
        values.insert("h0", numbers(dtype, &[6], 3));
        let run = |gpu: retrograd_cuda::Gpu| {
            let device: std::sync::Arc<dyn retrograd_engine::device::Device> =
                std::sync::Arc::new(gpu.clone());
            let mut program = Program::new(&tape, &outputs, on_device::on(&device, None)).unwrap();
            (program.run(&[&values]).unwrap(), gpu.counts().unwrap().shared_accesses)
        };
        let (all, used) = run(retrograd_cuda::Gpu::emulated());
        let (none, unused) = run(retrograd_cuda::Gpu::emulated_with(32));
        assert!(all.iter().zip(&none).all(|(a, b)| a.bit_eq(b)), "{dtype}");
        assert!(used > 0 && unused == 0, "{dtype}: {used} and {unused} accesses of shared memory");
    }
}

/// Values without steps and rows are copied once, and again when they have changed; a program reads those that are on the
/// device where they are, and leaves its last outputs there.
#[test]
fn values_that_stay() {
    let _alone = on_device::alone();
    let gpu = retrograd_cuda::Gpu::emulated();
    let device: std::sync::Arc<dyn retrograd_engine::device::Device> = std::sync::Arc::new(gpu.clone());
    for dtype in [DType::F32, DType::C64] {
        let mut tape = Tape::new();
        let x = tape.input("x", dtype, Shape::rows([3])).unwrap();
        let w = tape.param("w", dtype, [3, 2]).unwrap();
        let y = matmul(&mut tape, x, w).unwrap();
        let square = ops::abs2(&mut tape, y).unwrap();
        let loss = sum_all(&mut tape, square).unwrap();
        let w_bar = grad(&mut tape, loss, &[w]).unwrap()[0];
        let mut program = Program::new(&tape, &[loss, w_bar], on_device::on(&device, None)).unwrap();
        let mut here = Program::new(&tape, &[loss, w_bar], RunOptions::default()).unwrap();
        let mut params = Params::new();
        params.insert("w", numbers(dtype, &[3, 2], 1));
        let mut batch = Params::new();
        batch.insert("x", numbers(dtype, &[4, 3], 2));
        let batch_bytes = (12 * dtype.size()) as u64;
        let first = program.run(&[&params, &batch]).unwrap();
        for changed in [false, true, false] {
            if changed {
                let w = params.get_mut("w").unwrap();
                let half = numbers(dtype, &[3, 2], 3);
                w.fill_with(|i| half.get(i));
            }
            let before = gpu.written_bytes();
            let out = program.run(&[&params, &batch]).unwrap();
            let expected = batch_bytes + if changed { (6 * dtype.size()) as u64 } else { 0 };
            assert_eq!(gpu.written_bytes() - before, expected, "{dtype}, changed {changed}");
            assert_eq!(program.last_peak_bytes(), program.plan(1, 4).unwrap().peak_bytes());
            let found = here.run(&[&params, &batch]).unwrap();
            assert!(out.iter().zip(&found).all(|(a, b)| on_device::ratio(a, b) < 30.0));
            if !changed {
                let held = Resident::of(&device, &params).unwrap();
                let (mut read, left) = program.run_with(&held, &[&batch], 1).unwrap();
                assert!(matches!(left[..], [Left::At(array)] if array.len == 6 && array.dtype == dtype));
                read.push(program.run(&[&params, &batch]).unwrap().remove(1));
                assert!(read.iter().zip(&out).all(|(a, b)| a.bit_eq(b)));
                assert!(held.get("w").unwrap().bit_eq(params.require("w").unwrap()));
                // Its own copy has gone meanwhile.
                program.run(&[&params, &batch]).unwrap();
            }
        }
        assert_eq!(first.len(), 2);
        let other = Resident::of(&device, &batch).unwrap();
        assert!(
            matches!(program.run_with(&other, &[&params], 2), Err(Error::Binding { name, .. }) if name == "x")
        );
        assert!(matches!(program.run_with(&other, &[&params], 0), Err(Error::Binding { .. })));
    }
}

/// What does not run there is said when the program is made; a budget and a memory too small are named as ever.
#[test]
fn what_does_not_run_is_named() {
    let _alone = on_device::alone();
    let device = on_device::device();
    let mut tape = Tape::new();
    let x = tape.input("x", DType::F64, Shape::rows([4])).unwrap();
    let sum = sum_all(&mut tape, x).unwrap();
    let made = |outputs: &[Var], options: RunOptions| Program::new(&tape, outputs, options);
    if !on_device::REAL.load(std::sync::atomic::Ordering::Relaxed) {
        let little: std::sync::Arc<dyn retrograd_engine::device::Device> =
            std::sync::Arc::new(retrograd_cuda::Gpu::emulated_with(16));
        let mut tape = Tape::new();
        let x = tape.input("x", DType::F64, Shape::rows([35])).unwrap();
        let factors = [5, 7].map(|n| tape.param(&format!("f{n}"), DType::F64, [n, n]).unwrap());
        let y = ops::kron_apply(&mut tape, x, &factors).unwrap();
        match Program::new(&tape, &[y], on_device::on(&little, None)) {
            Err(Error::NoDeviceKernel { what, .. }) => assert!(what.ends_with("a block has 16"), "{what}"),
            other => panic!("{:?}", other.map(|_| ())),
        }
    }
    let mut values = Params::new();
    values.insert("x", numbers(DType::F64, &[8, 4], 1));
    let mut small = made(&[sum], on_device::on(&device, Some(64))).unwrap();
    assert!(matches!(small.run(&[&values]), Err(Error::Budget { budget: 64, .. })));
    // The emulated device has 4 GiB.
    let wide = Tensor::zeros(DType::F64, [1, 4]).unwrap();
    let mut much = Tape::new();
    let x = much.input("x", DType::F64, Shape::rows([4])).unwrap();
    let stretched = retrograd_engine::core_ops::expand(&mut much, x, retrograd_engine::Lead::TN).unwrap();
    let t = much.input("t", DType::F64, Shape::steps([])).unwrap();
    let product = ops::mul(&mut much, stretched, t).unwrap();
    let mut program = Program::new(&much, &[product], on_device::on(&device, None)).unwrap();
    let mut values = Params::new();
    values.insert("x", wide);
    values.insert("t", Tensor::zeros(DType::F64, [200_000_000]).unwrap());
    match program.run(&[&values]) {
        Err(Error::OutOfMemory { what, .. }) => assert!(what.contains("emulated device"), "{what}"),
        other => panic!("{:?}", other.map(|o| o.len())),
    }
}

#[test]
#[ignore = "needs a CUDA device"]
fn all_of_it_on_a_device() {
    on_device::REAL.store(true, std::sync::atomic::Ordering::Relaxed);
    calls_without_a_loop();
    a_scan_and_its_adjoint();
    sums_in_parts();
}
