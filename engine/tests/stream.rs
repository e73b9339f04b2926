//! Sequences of unknown length: the bits of a run that has all of the sequence, in memory that does not grow with it.
//! One test: the meter is global to the process.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{mul, random, scale, tanh};
use retrograd_engine::core_ops::{add, extent, fill, real, sum_dims, sum_rows, sum_steps};
use retrograd_engine::{
    DType, Error, Lead, Params, Program, Result, RunOptions, Scan, Shape, Stash, Stream, Tape, Tensor, Ty,
    Var, grad, matmul,
};

/// A recurrence with a loss at every step that reads a second sequence; the mean over steps and rows of it.
fn model(dtype: DType, size: usize) -> Result<(Tape, Vec<Var>)> {
    let mut tape = Tape::new();
    let t = &mut tape;
    let (w, u) = (t.param("w", dtype, [size, size])?, t.param("u", dtype, [3, size])?);
    let h0 = t.param("h0", dtype, [size])?;
    let x = t.input("x", dtype, Shape::sequence([3]))?;
    let target = t.input("target", dtype, Shape::sequence([size]))?;
    let (h, y) = Scan::new().run(t, h0, (x, target), |t, h, (x, target)| {
        let (wh, ux) = (matmul(t, h, w)?, matmul(t, x, u)?);
        let z = add(t, wh, ux)?;
        let h = if dtype.is_complex() { mul(t, z, z)? } else { tanh(t, z)? };
        let y = mul(t, h, target)?;
        Ok((h, y))
    })?;
    let sum = sum_steps(t, y)?;
    let sum = add(t, sum, h)?;
    let sum = sum_rows(t, sum)?;
    let sum = real(t, sum)?;
    let sum = sum_dims(t, sum, &[])?;
    // A weight that depends on the number of steps.
    let count = extent(t, Lead::T, dtype)?;
    let weight = scale(t, count, 0.125)?;
    let loss = mul(t, sum, weight)?;
    let mut outputs = vec![loss, h];
    outputs.extend(grad(t, loss, &[w, u, h0])?);
    Ok((tape, outputs))
}

fn values(dtype: DType, size: usize, steps: usize, rows: usize) -> Result<(Params, Params)> {
    let small = |dims: &[usize], by: f64, seed| -> Result<Tensor> {
        let mut t = random(dtype, dims, seed)?;
        let copy = t.clone();
        t.fill_with(|i| copy.get(i) * by);
        Ok(t)
    };
    let (mut shared, mut sequence) = (Params::new(), Params::new());
    shared.insert("w", small(&[size, size], 0.9 / (size as f64).sqrt(), 1)?);
    shared.insert("u", small(&[3, size], 0.2, 2)?);
    shared.insert("h0", small(&[size], 0.2, 3)?);
    sequence.insert("x", small(&[steps, rows, 3], 0.7, 4)?);
    sequence.insert("target", small(&[steps, rows, size], 1.0, 5)?);
    Ok((shared, sequence))
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

fn program_options(threads: usize, stash: Stash) -> RunOptions {
    RunOptions { threads: Some(threads), stash, ..RunOptions::default() }
}

fn streams_have_the_bits_of_runs() -> Result<()> {
    for (dtype, size, steps, rows, threads, stash) in [
        (DType::F32, 8, 1000, 3, 2, Stash::Exact),
        (DType::F32, 8, 320, 40, 3, Stash::Exact),
        (DType::C32, 5, 257, 2, 1, Stash::Exact),
        (DType::F64, 8, 1, 2, 2, Stash::Exact),
        (DType::F32, 8, 640, 5, 2, Stash::Bf16),
        // The matrix is larger than a cache: threads share the calls.
        (DType::F32, 531, 150, 2, 2, Stash::Exact),
    ] {
        let (tape, outputs) = model(dtype, size)?;
        let (shared, sequence) = values(dtype, size, steps, rows)?;
        let mut program = Program::new(&tape, &outputs, program_options(threads, stash))?;
        let mut forward = Program::new(&tape, &outputs[..2], program_options(threads, stash))?;
        let whole = program.run(&[&shared, &sequence])?;
        for (segment, checkpoints) in [(1, 2), (64, 3), (100, 1), (5000, 1)] {
            let stream = Stream { segment, checkpoints };
            let what = format!("{dtype} {stash} size {size} T={steps} N={rows} {stream:?}");
            let mut read = |from, most| cut(&sequence, from, most);
            let run = program.run_stream(&[&shared], &mut read, &stream)?;
            assert_eq!(run.steps, steps, "{what}");
            assert!(run.segment >= segment, "{what}");
            for (i, (a, b)) in run.outputs.iter().zip(&whole).enumerate() {
                assert!(a.bit_eq(b), "{what}: output {i} has other bits\n{a:?}\n{b:?}");
            }
            assert_eq!(run.peak_bytes, program.stream_bytes(rows, &stream)?, "{what}");
            // Without gradients nothing is stored; sums are formed the same way.
            let mut read = |from, most| cut(&sequence, from, most);
            let forward = forward.run_stream(&[&shared], &mut read, &stream)?;
            assert!(forward.outputs.iter().zip(&whole).all(|(a, b)| a.bit_eq(b)), "{what}: forward");
            assert!(forward.peak_bytes < run.peak_bytes, "{what}");
            let advanced = steps.div_ceil(run.segment) - 1;
            assert!(run.extra_forward_steps >= (advanced * run.segment) as u64, "{what}");
        }
    }
    Ok(())
}

/// Memory does not depend on the length, and is what was said: the source is the only thing beside it.
fn memory_is_what_was_said() -> Result<()> {
    let (tape, outputs) = model(DType::F32, 8)?;
    let mut program =
        Program::new(&tape, &outputs, RunOptions { threads: Some(2), ..RunOptions::default() })?;
    let stream = Stream { segment: 64, checkpoints: 5 };
    let planned = program.stream_bytes(3, &stream)?;
    for steps in [100, 20_000] {
        let (shared, _) = values(DType::F32, 8, 1, 3)?;
        let mut most_bytes = 0;
        let mut read = |from: usize, most: usize| {
            let n = steps.min(from + most).saturating_sub(from);
            let mut piece = Params::new();
            piece.insert("x", Tensor::full(DType::F32, [n, 3, 3], 0.1)?);
            piece.insert("target", Tensor::full(DType::F32, [n, 3, 8], 0.2)?);
            most_bytes = most_bytes.max(n * 3 * 11 * 4 + 128);
            Ok((n > 0).then_some(piece))
        };
        let run = program.run_stream(&[&shared], &mut read, &stream)?;
        assert_eq!((run.steps, run.peak_bytes), (steps, planned));
        drop(run);
        let measured = program.last_peak_bytes();
        assert!(
            (planned..=planned + 3 * most_bytes).contains(&measured),
            "T={steps}: {measured}, planned {planned}"
        );
    }
    Ok(())
}

/// Plans for a known length stay within any budget, and more bytes never cost more steps.
fn plans_of_a_known_length_fit_their_budget() -> Result<()> {
    let (tape, outputs) = model(DType::F32, 8)?;
    let (shared, sequence) = values(DType::F32, 8, 5000, 3)?;
    let options = RunOptions { threads: Some(2), ..RunOptions::default() };
    let mut program = Program::new(&tape, &outputs, options.clone())?;
    let whole = program.run(&[&shared, &sequence])?;
    let (smallest, dominant) = match program.stream_within(5000, 3, Some(1)) {
        Err(Error::Budget { budget: 1, smallest, dominant }) => (smallest, dominant),
        other => panic!("{other:?}"),
    };
    assert!(!dominant.is_empty());
    assert!(matches!(program.stream_within(5000, 3, Some(smallest - 1)), Err(Error::Budget { .. })));
    let mut more = u64::MAX;
    for budget in [smallest, smallest + 1000, smallest + 20_000, 300_000, 10_000_000] {
        let plan = program.stream_within(5000, 3, Some(budget))?;
        assert!(plan.peak_bytes <= budget && plan.extra_forward_steps <= more, "{plan:?} in {budget}");
        more = plan.extra_forward_steps;
        let mut read = |from, most| cut(&sequence, from, most);
        let run = program.run_stream(&[&shared], &mut read, &plan.stream)?;
        assert!(run.outputs.iter().zip(&whole).all(|(a, b)| a.bit_eq(b)), "{plan:?}");
        // A checkpoint, a row of the arena or a piece is rounded up to 64 bytes.
        let measured = program.last_peak_bytes();
        assert!(measured <= plan.peak_bytes + 1024, "{measured}, planned {plan:?}");
        // Placing checkpoints without knowing the end may cost a little more than the formula.
        let advanced = run.extra_forward_steps as f64;
        assert!(advanced <= 1.15 * plan.extra_forward_steps as f64 + 5000.0, "{advanced}, planned {plan:?}");
    }
    assert_eq!(more, 0);
    let plan = program.stream_within(5000, 3, None)?;
    assert!(plan.extra_forward_steps < 5000 && plan.peak_bytes < 200_000, "{plan:?}");
    // Without gradients nothing is stored.
    let forward = Program::new(&tape, &outputs[..2], options)?;
    let plan = forward.stream_within(5000, 3, None)?;
    assert!(plan.extra_forward_steps == 0 && plan.peak_bytes < smallest, "{plan:?}");
    Ok(())
}

fn what_cannot_be_streamed_is_named() -> Result<()> {
    let (shared, sequence) = values(DType::F32, 4, 300, 2)?;
    let mut read = |from, most| cut(&sequence, from, most);
    let stream = Stream { segment: 16, checkpoints: 2 };
    let refusal = |outputs: &dyn Fn(&mut Tape) -> Result<Vec<Var>>,
                   read: &mut dyn retrograd_engine::Source| {
        let mut tape = Tape::new();
        let outputs = outputs(&mut tape).unwrap();
        match Program::new(&tape, &outputs, RunOptions::default()).unwrap().run_stream(
            &[&shared],
            read,
            &stream,
        ) {
            Err(e) => e.to_string(),
            Ok(run) => panic!("streamed {} steps", run.steps),
        }
    };
    let scanned = |t: &mut Tape, reverse: bool, stacked: bool, outside: bool| -> Result<Vec<Var>> {
        let mut x = t.input("x", DType::F32, Shape::sequence([3]))?;
        if outside {
            x = scale(t, x, 2.0)?;
        }
        let zero = fill(t, Ty::new(DType::F32, Shape::rows([3])), 0.0)?;
        let (h, y) = Scan::new().reverse(reverse).run(t, zero, x, |t, h, x| {
            let h = add(t, h, x)?;
            Ok((h, h))
        })?;
        Ok(if stacked { vec![y] } else { vec![h] })
    };
    let summed = |t: &mut Tape| -> Result<Vec<Var>> {
        let x = t.input("x", DType::F32, Shape::sequence([3]))?;
        let zero = fill(t, Ty::new(DType::F32, Shape::rows([3])), 0.0)?;
        let (h, ()) = Scan::new().run(t, zero, x, |t, h, x| Ok((add(t, h, x)?, ())))?;
        let sum = sum_steps(t, x)?;
        Ok(vec![add(t, h, sum)?])
    };
    let rows: [(&dyn Fn(&mut Tape) -> Result<Vec<Var>>, &str); 4] = [
        (&|t| scanned(t, true, false, false), "walks from the end"),
        (&|t| scanned(t, false, true, false), "has a time axis outside the scan"),
        (&|t| scanned(t, false, false, true), "has a time axis outside the scan"),
        (&|t| summed(t), "`x` is read outside the scan"),
    ];
    for (outputs, message) in rows {
        let text = refusal(outputs, &mut read);
        assert!(text.contains(message), "{text}");
    }
    let (tape, outputs) = model(DType::F32, 4)?;
    let mut program = Program::new(&tape, &outputs, RunOptions::default())?;
    let mut ask = |read: &mut dyn retrograd_engine::Source, stream: &Stream| {
        program.run_stream(&[&shared], read, stream).err().unwrap().to_string()
    };
    let none = ask(&mut |_, _| Ok(None), &stream);
    assert!(none.contains("the source has no step"), "{none}");
    let slots = ask(&mut read, &Stream { checkpoints: 0, ..stream });
    assert!(slots.contains("0 checkpoints"), "{slots}");
    let mut times = 0;
    let other = ask(
        &mut |from: usize, most: usize| {
            times += usize::from(from == 0);
            if times > 2 { Ok(None) } else { cut(&sequence, from, most) }
        },
        &Stream { segment: 1, ..stream },
    );
    assert!(other.contains("cannot be read again"), "{other}");
    program.set_budget(Some(100));
    let small = program.run_stream(&[&shared], &mut read, &stream);
    assert!(matches!(small, Err(Error::Budget { budget: 100, .. })), "{small:?}");
    Ok(())
}

#[test]
fn sequences_of_unknown_length() -> Result<()> {
    streams_have_the_bits_of_runs()?;
    memory_is_what_was_said()?;
    plans_of_a_known_length_fit_their_budget()?;
    what_cannot_be_streamed_is_named()
}
