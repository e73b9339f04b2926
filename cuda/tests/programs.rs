//! Programs of the engine on the emulated device: the processor's results within rounding, equal bits from run to run and
//! under every budget, and the planned peak to the byte.
#![allow(clippy::unwrap_used, clippy::panic)]

mod on_device;

use on_device::{compare, numbers, sum_all};
use retrograd_engine::core_ops::add;
use retrograd_engine::{
    DType, Error, Params, Program, RunOptions, Scan, Shape, Stash, Tape, Tensor, Var, grad, matmul,
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

/// What does not run there is said when the program is made; a budget and a memory too small are named as ever.
#[test]
fn what_does_not_run_is_named() {
    let _alone = on_device::alone();
    let device = on_device::device();
    let mut tape = Tape::new();
    let x = tape.input("x", DType::F64, Shape::rows([4])).unwrap();
    let p = tape.param("p", DType::F64, [4]).unwrap();
    let power = ops::pow(&mut tape, x, p).unwrap();
    let sum = sum_all(&mut tape, x).unwrap();
    let made = |outputs: &[Var], options: RunOptions| Program::new(&tape, outputs, options);
    match made(&[power], on_device::on(&device, None)) {
        Err(Error::NoDeviceKernel { op, .. }) => assert!(op.contains("pow"), "{op}"),
        other => panic!("{other:?}"),
    }
    let rounded = RunOptions { stash: Stash::Bf16, ..on_device::on(&device, None) };
    assert!(matches!(made(&[sum], rounded), Err(Error::NoDeviceKernel { .. })));
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
