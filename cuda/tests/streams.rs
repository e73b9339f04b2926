//! Sequences that arrive piece by piece, on the emulated device: the bits of a run there that has all of the sequence, and
//! the bytes that were said.
#![allow(clippy::unwrap_used, clippy::panic)]

mod on_device;

use std::sync::Arc;

use on_device::{numbers, on, ratio};
use retrograd_cuda::Gpu;
use retrograd_engine::core_ops::{add, extent, real, sum_dims, sum_rows, sum_steps};
use retrograd_engine::device::Device;
use retrograd_engine::{
    DType, Error, Lead, Params, Program, Result, RunOptions, Scan, Shape, Source, Stash, Stream, Tape,
    Tensor, Var, grad, matmul,
};
use retrograd_ops as ops;

/// A recurrence with a loss at every step that reads a second sequence, and a state for each row to begin with; the loss
/// has a weight that depends on the number of steps.
fn model(dtype: DType, size: usize) -> (Tape, Vec<Var>) {
    let mut tape = Tape::new();
    let t = &mut tape;
    let w = t.param("w", dtype, [size, size]).unwrap();
    let u = t.param("u", dtype, [3, size]).unwrap();
    let h0 = t.input("h0", dtype, Shape::rows([size])).unwrap();
    let x = t.input("x", dtype, Shape::sequence([3])).unwrap();
    let target = t.input("target", dtype, Shape::sequence([size])).unwrap();
    let (h, y) = Scan::new()
        .run(t, h0, (x, target), |t, h, (x, target)| {
            let (wh, ux) = (matmul(t, h, w)?, matmul(t, x, u)?);
            let z = add(t, wh, ux)?;
            let h = if dtype.is_complex() { ops::mul(t, z, z)? } else { ops::tanh(t, z)? };
            let y = ops::mul(t, h, target)?;
            Ok((h, y))
        })
        .unwrap();
    let sum = sum_steps(t, y).unwrap();
    let sum = add(t, sum, h).unwrap();
    let sum = sum_rows(t, sum).unwrap();
    let sum = real(t, sum).unwrap();
    let sum = sum_dims(t, sum, &[]).unwrap();
    let count = extent(t, Lead::T, dtype).unwrap();
    let weight = ops::scale(t, count, 0.125).unwrap();
    let weight = real(t, weight).unwrap();
    let loss = ops::mul(t, sum, weight).unwrap();
    let bars = grad(t, loss, &[w, u, h0]).unwrap();
    let outputs = [loss, h].into_iter().chain(bars).collect();
    (tape, outputs)
}

fn values(dtype: DType, size: usize, steps: usize, rows: usize) -> (Params, Params) {
    let small = |dims: &[usize], by: f64, seed| {
        let mut t = numbers(dtype, dims, seed);
        let copy = t.clone();
        t.fill_with(|i| copy.get(i) * by);
        t
    };
    let (mut shared, mut sequence) = (Params::new(), Params::new());
    shared.insert("w", small(&[size, size], 0.9 / (size as f64).sqrt(), 1));
    shared.insert("u", small(&[3, size], 0.2, 2));
    shared.insert("h0", small(&[rows, size], 0.2, 3));
    sequence.insert("x", small(&[steps, rows, 3], 0.7, 4));
    sequence.insert("target", small(&[steps, rows, size], 1.0, 5));
    (shared, sequence)
}

/// Steps `from..from + most` of all sequences, as far as there are any.
fn cut(sequence: &Params, from: usize, most: usize) -> Result<Option<Params>> {
    let mut piece = Params::new();
    for (name, whole) in sequence.iter() {
        let dims = whole.dims();
        let steps = dims[0].saturating_sub(from).min(most);
        if steps == 0 {
            return Ok(None);
        }
        let width: usize = dims[1..].iter().product();
        let mut part = Tensor::zeros(whole.dtype(), [&[steps], &dims[1..]].concat())?;
        part.fill_with(|i| whole.get(from * width + i));
        piece.insert(name, part);
    }
    Ok(Some(piece))
}

fn check(device: &Arc<dyn Device>, dtype: DType, size: usize, (steps, rows): (usize, usize), stash: Stash) {
    let (tape, outputs) = model(dtype, size);
    let (shared, sequence) = values(dtype, size, steps, rows);
    let options = RunOptions { stash, ..on(device, None) };
    let mut program = Program::new(&tape, &outputs, options.clone()).unwrap();
    let mut forward = Program::new(&tape, &outputs[..2], options).unwrap();
    let whole = program.run(&[&shared, &sequence]).unwrap();
    let options = RunOptions { stash, ..RunOptions::default() };
    let here = Program::new(&tape, &outputs, options).unwrap().run(&[&shared, &sequence]).unwrap();
    assert!(whole.iter().zip(&here).all(|(a, b)| ratio(a, b) < 2000.0));
    for (segment, checkpoints) in [(1, 2), (64, 3), (5000, 1)] {
        let stream = Stream { segment, checkpoints };
        let what = format!("{dtype} {stash} size {size} T={steps} N={rows} {stream:?}");
        let run = |program: &mut Program| {
            let mut read = |from: usize, most: usize| cut(&sequence, from, most);
            program.run_stream(&[&shared], &mut read, &stream).unwrap_or_else(|e| panic!("{what}: {e}"))
        };
        let streamed = run(&mut program);
        assert_eq!(streamed.steps, steps, "{what}");
        for (i, (a, b)) in streamed.outputs.iter().zip(&whole).enumerate() {
            assert!(a.bit_eq(b), "{what}: output {i} has other bits\n{a:?}\n{b:?}");
        }
        let planned = program.stream_bytes(rows, &stream).unwrap();
        assert_eq!(streamed.peak_bytes, planned, "{what}");
        // The pieces are the caller's: two at a time, and one that is being cut.
        let piece = 3 * (rows * streamed.segment.min(steps) * (3 + size) * dtype.size() + 256);
        let measured = program.last_peak_bytes();
        assert!((planned..=planned + piece).contains(&measured), "{what}: {measured}, planned {planned}");
        let forward = run(&mut forward);
        assert!(forward.outputs.iter().zip(&whole).all(|(a, b)| a.bit_eq(b)), "{what}: forward");
        assert!(forward.peak_bytes < streamed.peak_bytes, "{what}");
    }
    // Runs and streams take turns.
    let again = program.run(&[&shared, &sequence]).unwrap();
    assert!(again.iter().zip(&whole).all(|(a, b)| a.bit_eq(b)));
}

#[test]
fn streams_have_the_bits_of_runs() {
    let _alone = on_device::alone();
    let device = on_device::device();
    for (dtype, size, steps, rows, stash) in [
        (DType::F32, 5, 300, 3, Stash::Exact),
        (DType::F64, 4, 150, 9, Stash::Exact),
        (DType::C32, 3, 257, 2, Stash::Exact),
        (DType::F64, 5, 1, 2, Stash::Exact),
        (DType::F32, 5, 200, 5, Stash::Bf16),
    ] {
        check(&device, dtype, size, (steps, rows), stash);
    }
}

/// Teams of blocks count themselves on over all launches.
#[test]
fn streams_of_teams() {
    let _alone = on_device::alone();
    let device = Arc::new(Gpu::emulated_as(600, 8)) as Arc<dyn Device>;
    let (tape, outputs) = model(DType::F64, 13);
    let program = Program::new(&tape, &outputs, on(&device, None)).unwrap();
    let summary = program.plan(70, 9).unwrap().summary();
    assert!(summary.scans.iter().any(|s| s.team > 1), "no teams");
    check(&device, DType::F64, 13, (70, 9), Stash::Exact);
}

#[test]
fn what_cannot_be_streamed_is_named() {
    let _alone = on_device::alone();
    let device = on_device::device();
    let (tape, outputs) = model(DType::F32, 4);
    let (shared, sequence) = values(DType::F32, 4, 300, 2);
    let mut program = Program::new(&tape, &outputs, on(&device, None)).unwrap();
    let stream = Stream { segment: 16, checkpoints: 2 };
    let mut ask = |read: &mut dyn Source| program.run_stream(&[&shared], read, &stream);
    assert!(ask(&mut |_, _| Ok(None)).unwrap_err().to_string().contains("the source has no step"));
    let mut times = 0;
    let mut forgets = |from: usize, most: usize| {
        times += usize::from(from == 0);
        if times > 2 { Ok(None) } else { cut(&sequence, from, most) }
    };
    let error = program
        .run_stream(&[&shared], &mut forgets, &Stream { segment: 1, ..stream })
        .unwrap_err()
        .to_string();
    assert!(error.contains("cannot be read again"), "{error}");
    let plan = program.stream_within(300, 2, None).unwrap();
    program.set_budget(Some(100));
    let mut read = |from: usize, most: usize| cut(&sequence, from, most);
    let small = program.run_stream(&[&shared], &mut read, &plan.stream);
    assert!(matches!(small, Err(Error::Budget { budget: 100, .. })), "{small:?}");
}

#[test]
#[ignore = "needs a CUDA device"]
fn all_of_it_on_a_device() {
    on_device::REAL.store(true, std::sync::atomic::Ordering::Relaxed);
    streams_have_the_bits_of_runs();
    what_cannot_be_streamed_is_named();
}
