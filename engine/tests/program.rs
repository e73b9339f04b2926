//! Planned programs against the reference evaluator, and against each other.
#![allow(clippy::unwrap_used, clippy::panic)]

use retrograd_engine::core_ops::{self, add, sum_dims, sum_rows, sum_steps};
use retrograd_engine::matmul::{MatMul, matmul_with};
use retrograd_engine::{
    DType, Error, Horizon, Params, Program, Result, RunOptions, Scan, Shape, Tape, Tensor, Ty, Var, grad,
    matmul, reference,
};

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as f64 / (1u64 << 31) as f64) * 2.0 - 1.0
    }
    fn tensor(&mut self, dtype: DType, dims: &[usize], scale: f64) -> Tensor {
        let mut t = Tensor::zeros(dtype, dims).unwrap();
        t.fill_with(|_| num_complex::Complex64::new(self.next() * scale, self.next() * scale));
        t
    }
}

/// A recurrence of two layers, real or complex, with a loss at every step.
fn model(dtype: DType, reverse: bool, horizon: Horizon, lengths: bool) -> Result<(Tape, Vec<Var>)> {
    let mut tape = Tape::new();
    let t = &mut tape;
    let (c, h) = (3, 5);
    let u = t.param("u", dtype, [c, h])?;
    let w = t.param("w", dtype, [h, h])?;
    let v = t.param("v", dtype, [h, h])?;
    let w2 = t.param("w2", dtype, [h, h])?;
    let b = t.param("b", dtype, [h])?;
    let x = t.input("x", dtype, Shape::sequence([c]))?;
    let len = if lengths { Some(t.input("lengths", DType::I32, Shape::rows([]))?) } else { None };
    let zero = core_ops::fill(t, Ty::new(dtype, Shape::rows([h])), 0.0)?;
    let scan = Scan::new().reverse(reverse).horizon(horizon).lengths(len);
    let ((h1, h2), y) = scan.run(t, (zero, zero), x, |t, (h1, h2), x| {
        let a = matmul(t, x, u)?;
        let r = matmul(t, h1, w)?;
        let z = add(t, a, r)?;
        let n1 = add(t, z, b)?;
        let up = matmul(t, n1, v)?;
        let r2 = matmul(t, h2, w2)?;
        let n2 = add(t, up, r2)?;
        let y = core_ops::conj(t, n2)?;
        Ok(((n1, n2), y))
    })?;
    let s = sum_steps(t, y)?;
    let total = add(t, s, h1)?;
    let total = add(t, total, h2)?;
    let total = sum_rows(t, total)?;
    let total = core_ops::real(t, total)?;
    let loss = sum_dims(t, total, &[])?;
    let mut outputs = vec![loss, y];
    outputs.extend(grad(t, loss, &[u, w, v, w2, b, x])?);
    Ok((tape, outputs))
}

fn values(dtype: DType, steps: usize, rows: usize, seed: u64) -> Params {
    let mut rng = Rng(seed);
    let mut p = Params::new();
    let params =
        [("u", vec![3, 5]), ("w", vec![5, 5]), ("v", vec![5, 5]), ("w2", vec![5, 5]), ("b", vec![5])];
    for (name, dims) in params {
        p.insert(name, rng.tensor(dtype, &dims, 0.35));
    }
    p.insert("x", rng.tensor(dtype, &[steps, rows, 3], 1.0));
    let lengths: Vec<i32> = (0..rows).map(|r| ((r * 7 + 3) % (steps + 1)) as i32).collect();
    p.insert("lengths", Tensor::from_slice([rows], &lengths).unwrap());
    p
}

fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let norm: f64 = (0..b.len()).map(|i| b.get(i).norm_sqr()).sum::<f64>().sqrt();
    let diff: f64 = (0..b.len()).map(|i| (a.get(i) - b.get(i)).norm_sqr()).sum::<f64>().sqrt();
    if diff == 0.0 { 0.0 } else { diff / norm.max(1e-300) }
}

#[test]
fn program_agrees_with_the_reference() -> Result<()> {
    for dtype in [DType::F64, DType::C64] {
        for reverse in [false, true] {
            for (horizon, lengths) in
                [(Horizon::Full, false), (Horizon::Steps(4), false), (Horizon::Full, true)]
            {
                for (steps, rows) in [(0, 2), (1, 1), (9, 1), (7, 3), (33, 40)] {
                    let (tape, outputs) = model(dtype, reverse, horizon, lengths)?;
                    let p = values(dtype, steps, rows, 11);
                    let expected = reference::evaluate(&tape, &outputs, &[&p])?;
                    let mut program = Program::new(&tape, &outputs, RunOptions::default())?;
                    let got = program.run(&[&p])?;
                    let plan = program.plan(steps, rows)?;
                    for (i, (a, b)) in got.iter().zip(&expected).enumerate() {
                        let d = distance(a, b);
                        assert!(
                            d < 1e-12,
                            "{dtype} reverse {reverse} {horizon:?} lengths {lengths} T={steps} N={rows}: \
                             output {i} off by {d}\n{a:?}\n{b:?}\n{}",
                            plan.explain()
                        );
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn no_plan_changes_a_bit() -> Result<()> {
    for dtype in [DType::F32, DType::C64] {
        for (steps, rows) in [(200, 3), (150, 40)] {
            for reverse in [false, true] {
                let (tape, outputs) = model(dtype, reverse, Horizon::Full, false)?;
                // Without the stacked outputs and the gradient of the input, which no budget can shrink.
                let outputs = [&outputs[..1], &outputs[2..7]].concat();
                let p = values(dtype, steps, rows, 5);
                let mut first: Option<Vec<Tensor>> = None;
                for threads in [1, 2, 3] {
                    let with = |budget| RunOptions { threads: Some(threads), budget, ..Default::default() };
                    let most = Program::new(&tape, &outputs, with(None))?.plan(steps, rows)?.peak_bytes();
                    let tight = Program::new(&tape, &outputs, with(Some(1)))?;
                    let Err(Error::Budget { smallest, .. }) = tight.plan(steps, rows) else {
                        panic!("a budget of one byte is met")
                    };
                    assert!(smallest < most, "{smallest} {most}");
                    let budgets = (0..5).map(|part| Some(smallest + (most - smallest) * part / 5));
                    for budget in budgets.chain([None]) {
                        let mut program = Program::new(&tape, &outputs, with(budget))?;
                        let plan = program.plan(steps, rows)?;
                        let got = program.run(&[&p])?;
                        assert!(budget.is_none_or(|b| plan.peak_bytes() <= b));
                        let Some(f) = &first else {
                            first = Some(got);
                            continue;
                        };
                        for (i, (a, b)) in got.iter().zip(f).enumerate() {
                            assert!(
                                a.bit_eq(b),
                                "{dtype} T={steps} N={rows} threads {threads} budget {budget:?}: \
                                 output {i} differs by {}\n{}",
                                distance(a, b),
                                plan.explain()
                            );
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

/// Sizes beyond counting are refused by name, and those that can be counted are planned, without a run.
#[test]
fn sizes_of_any_size_are_planned_or_refused() -> Result<()> {
    let (tape, outputs) = model(DType::F32, false, Horizon::Full, false)?;
    let outputs = [&outputs[..1], &outputs[2..7]].concat();
    for steps in [0, 1, 1 << 31, 1 << 40, 1 << 62, usize::MAX] {
        for rows in [0, 1, 8, 1 << 31, 1 << 62, usize::MAX] {
            for budget in [None, Some(1 << 26), Some(usize::MAX)] {
                let options = RunOptions { budget, threads: Some(2), ..RunOptions::default() };
                match Program::new(&tape, &outputs, options)?.plan(steps, rows) {
                    Ok(plan) => assert!(budget.is_none_or(|b| plan.peak_bytes() <= b)),
                    Err(Error::Overflow { what, sizes }) => assert!(!what.is_empty() && !sizes.is_empty()),
                    Err(Error::Budget { smallest, .. }) => assert!(smallest > 1 << 26, "T={steps} N={rows}"),
                    Err(other) => panic!("T={steps} N={rows} {budget:?}: {other}"),
                }
            }
        }
    }
    // A million million steps in 64 MiB.
    let options = RunOptions { budget: Some(64 << 20), threads: Some(2), ..RunOptions::default() };
    let plan = Program::new(&tape, &outputs, options)?.plan(1_000_000_000_000, 1)?;
    assert!(plan.peak_bytes() <= 64 << 20);
    Ok(())
}

#[test]
fn memory_that_is_not_there_is_an_error() {
    let Err(Error::OutOfMemory { bytes, .. }) = Tensor::zeros(DType::F64, [1usize << 56]) else {
        panic!("there are not that many bytes")
    };
    assert_eq!(bytes, 1 << 59);
}

/// Few rows and a matrix that no cache holds: threads share every call.
#[test]
fn threads_that_share_calls_change_no_bit() -> Result<()> {
    for (dtype, h) in [(DType::F32, 531), (DType::C32, 373), (DType::F64, 371)] {
        let mut tape = Tape::new();
        let t = &mut tape;
        let (u, b) = (t.param("u", dtype, [3, h])?, t.param("b", dtype, [h])?);
        let w = t.param("w", dtype, [h, h])?;
        let x = t.input("x", dtype, Shape::sequence([3]))?;
        let zero = core_ops::fill(t, Ty::new(dtype, Shape::rows([h])), 0.0)?;
        let (last, y) = Scan::new().run(t, zero, x, |t, state, x| {
            let ux = matmul(t, x, u)?;
            let z = matmul_with(t, state, w, MatMul { conj_b: true, ..MatMul::default() })?;
            let z = add(t, z, ux)?;
            let z = add(t, z, b)?;
            let y = core_ops::real(t, z)?;
            Ok((z, y))
        })?;
        let total = sum_steps(t, y)?;
        let last = core_ops::real(t, last)?;
        let total = add(t, total, last)?;
        let total = sum_rows(t, total)?;
        let loss = sum_dims(t, total, &[])?;
        let mut outputs = vec![loss, y];
        outputs.extend(grad(t, loss, &[u, w, b])?);
        let (steps, rows) = (9, 5);
        let mut rng = Rng(3);
        let mut p = Params::new();
        for (name, dims) in
            [("u", vec![3, h]), ("w", vec![h, h]), ("b", vec![h]), ("x", vec![steps, rows, 3])]
        {
            p.insert(name, rng.tensor(dtype, &dims, 0.05));
        }
        let run = |threads: usize| -> Result<Vec<Tensor>> {
            let options = RunOptions { threads: Some(threads), ..RunOptions::default() };
            let mut program = Program::new(&tape, &outputs, options)?;
            let plan = program.plan(steps, rows)?;
            assert!(plan.summary().scans.iter().all(|s| s.members == threads && s.tiles == 1));
            program.run(&[&p])
        };
        let alone = run(1)?;
        for (a, b) in alone.iter().zip(&reference::evaluate(&tape, &outputs, &[&p])?) {
            assert!(distance(a, b) < 1e-4, "{dtype}: {}", distance(a, b));
        }
        for threads in [2, 3, 5] {
            let together = run(threads)?;
            assert!(together.iter().zip(&alone).all(|(a, b)| a.bit_eq(b)), "{dtype}, {threads} threads");
        }
    }
    Ok(())
}
