//! The meter against the operating system: a run makes the process as much larger as the meter says, to a few per cent.
//! Alone in its binary: the largest resident size is that of the process. Linux only: it is read from `/proc`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{mul, params, random, tanh};
use retrograd_engine::core_ops::{add, fill, sum_dims, sum_rows};
use retrograd_engine::{DType, Program, Result, RunOptions, Shape, Stash, Tape, Ty, Var, grad, matmul, scan};

/// A line of `/proc/self/status` in bytes: `VmRSS` is resident now, `VmHWM` the most that ever was.
fn status(field: &str) -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|l| l.starts_with(field)).unwrap();
    let kilobytes: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes << 10
}

fn model(size: usize) -> Result<(Tape, Vec<Var>)> {
    let mut tape = Tape::new();
    let t = &mut tape;
    let (w, u) = (t.param("w", DType::F32, [size, size])?, t.param("u", DType::F32, [2, size])?);
    let x = t.input("x", DType::F32, Shape::sequence([2]))?;
    let zero = fill(t, Ty::new(DType::F32, Shape::rows([size])), 0.0)?;
    let (h, ()) = scan(t, zero, x, |t, h, x| {
        let (wh, ux) = (matmul(t, h, w)?, matmul(t, x, u)?);
        let z = add(t, wh, ux)?;
        let gate = tanh(t, z)?;
        let mixed = mul(t, gate, z)?;
        Ok((tanh(t, mixed)?, ()))
    })?;
    let sum = sum_rows(t, h)?;
    let loss = sum_dims(t, sum, &[])?;
    let mut outputs = vec![loss];
    outputs.extend(grad(t, loss, &[w, u])?);
    Ok((tape, outputs))
}

/// What the process needs beside what the meter counts: plans, stacks of threads, the allocator's own.
const BESIDE: usize = 2 << 20;

#[test]
fn resident_size_is_what_the_meter_counts() -> Result<()> {
    let (size, rows) = (64, 32);
    let (tape, outputs) = model(size)?;
    let values = |steps| -> Result<_> {
        Ok(params([
            ("w", random(DType::F32, &[size, size], 1)?),
            ("u", random(DType::F32, &[2, size], 2)?),
            ("x", random(DType::F32, &[steps, rows, 2], 3)?),
        ]))
    };
    let long = values(8_000)?;
    // From the smallest to the largest: the system does not forget a peak.
    for (stash, budget) in [(Stash::Exact, Some(16 << 20)), (Stash::Bf16, None), (Stash::Exact, None)] {
        let options = RunOptions { stash, budget, threads: Some(2), ..RunOptions::default() };
        let mut program = Program::new(&tape, &outputs, options)?;
        // Threads and code are there once a run has ended; a budget that is set gives its arena back.
        program.run(&[&values(8)?])?;
        program.set_budget(budget);
        let before = status("VmRSS:");
        drop(program.run(&[&long])?);
        let grown = status("VmHWM:").saturating_sub(before);
        let counted = program.last_peak_bytes();
        assert!(counted > 12 << 20, "{counted} bytes are too few to tell");
        let allowed = counted / 20 + BESIDE;
        assert!(
            grown.abs_diff(counted) <= allowed,
            "{stash} {budget:?}: resident grew by {grown} bytes, the meter counts {counted}, {allowed} may be between"
        );
    }
    Ok(())
}
