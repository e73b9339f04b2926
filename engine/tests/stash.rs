//! Values kept for the adjoint in 16 bits: the forward pass does not change, gradients do by as much as rounding does,
//! all plans give the same ones, and memory is what was planned. One test: the meter is global to the process.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{mul, params, random, scale, tanh};
use retrograd_engine::core_ops::{add, fill, real, sum_dims, sum_rows, sum_steps};
use retrograd_engine::{
    DType, Error, Params, Program, Result, RunOptions, Shape, Stash, Tape, Tensor, Ty, Var, grad, matmul,
    scan,
};

/// A gated recurrence, or for complex numbers a quadratic one, with a loss at every step. The `matrix` size decides
/// whether threads share calls.
fn model(dtype: DType, size: usize) -> Result<(Tape, Vec<Var>)> {
    let mut tape = Tape::new();
    let t = &mut tape;
    let w = t.param("w", dtype, [size, size])?;
    let u = t.param("u", dtype, [3, size])?;
    let x = t.input("x", dtype, Shape::sequence([3]))?;
    let zero = fill(t, Ty::new(dtype, Shape::rows([size])), 0.0)?;
    let ((h, c), y) = scan(t, (zero, zero), x, |t, (h, c), x| {
        let (wh, ux) = (matmul(t, h, w)?, matmul(t, x, u)?);
        let z = add(t, wh, ux)?;
        let gate = if dtype.is_complex() { scale(t, z, 0.3)? } else { tanh(t, z)? };
        let mixed = mul(t, gate, c)?;
        let half = scale(t, z, 0.4)?;
        let c = add(t, mixed, half)?;
        let h = if dtype.is_complex() { mul(t, gate, gate)? } else { tanh(t, c)? };
        Ok(((h, c), mul(t, h, h)?))
    })?;
    let y = sum_steps(t, y)?;
    let all = add(t, y, h)?;
    let all = add(t, all, c)?;
    let all = sum_rows(t, all)?;
    let all = real(t, all)?;
    let loss = sum_dims(t, all, &[])?;
    let mut outputs = vec![loss];
    outputs.extend(grad(t, loss, &[w, u])?);
    Ok((tape, outputs))
}

fn values(dtype: DType, size: usize, steps: usize, rows: usize) -> Result<Params> {
    let small = |dims: &[usize], by: f64, seed| -> Result<Tensor> {
        let mut t = random(dtype, dims, seed)?;
        let copy = t.clone();
        t.fill_with(|i| copy.get(i) * by);
        Ok(t)
    };
    Ok(params([
        ("w", small(&[size, size], 0.8 / (size as f64).sqrt(), 1)?),
        ("u", small(&[3, size], 0.3, 2)?),
        ("x", small(&[steps, rows, 3], 0.7, 3)?),
    ]))
}

/// Norm of the difference over the norm.
fn error(got: &[Tensor], exact: &[Tensor]) -> f64 {
    let sum = |f: &dyn Fn(&Tensor, &Tensor, usize) -> f64| -> f64 {
        got.iter().zip(exact).map(|(g, e)| (0..e.len()).map(|i| f(g, e, i)).sum::<f64>()).sum()
    };
    (sum(&|g, e, i| (g.get(i) - e.get(i)).norm_sqr()) / sum(&|_, e, i| e.get(i).norm_sqr())).sqrt()
}

fn every_plan_agrees(dtype: DType, size: usize, (steps, rows): (usize, usize)) -> Result<()> {
    let (tape, outputs) = model(dtype, size)?;
    let p = values(dtype, size, steps, rows)?;
    let options =
        |stash, threads, budget| RunOptions { stash, threads: Some(threads), budget, ..Default::default() };
    let mut exact = Program::new(&tape, &outputs, options(Stash::Exact, 1, None))?;
    let recorded = exact.plan(steps, rows)?.recorded_bytes();
    let exact = exact.run(&[&p])?;
    for (stash, unit) in [(Stash::Bf16, 2f64.powi(-9)), (Stash::F16, 2f64.powi(-12))] {
        let what = format!("{dtype} {stash} size {size} T={steps} N={rows}");
        let mut first: Option<Vec<Tensor>> = None;
        for threads in [1, 2, 3] {
            let whole = Program::new(&tape, &outputs, options(stash, threads, None))?.plan(steps, rows)?;
            let share = whole.recorded_bytes() as f64 / recorded as f64;
            let expected = 2.0 / dtype.real().size() as f64;
            assert!((share - expected).abs() < 0.02, "{what}: {share} of the exact record");
            let tight = Program::new(&tape, &outputs, options(stash, threads, Some(1)))?;
            let Err(Error::Budget { smallest, .. }) = tight.plan(steps, rows) else {
                panic!("a budget of one byte is met")
            };
            let most = whole.peak_bytes();
            let budgets = (0..4).map(|part| Some(smallest + (most - smallest) * part / 4));
            let mut replays = 0;
            for budget in budgets.chain([None]) {
                let mut program = Program::new(&tape, &outputs, options(stash, threads, budget))?;
                let plan = program.plan(steps, rows)?;
                replays += usize::from(plan.segments().is_some());
                let got = program.run(&[&p])?;
                assert_eq!(program.last_peak_bytes(), plan.peak_bytes(), "{what} {budget:?}");
                drop(program);
                match &first {
                    None => first = Some(got),
                    Some(first) => {
                        let same = got.iter().zip(first).all(|(a, b)| a.bit_eq(b));
                        assert!(same, "{what} threads {threads} {budget:?}\n{}", plan.explain());
                    }
                }
            }
            assert!(replays > 0 || steps < 100, "{what}: no plan replays");
        }
        let first = first.unwrap();
        assert!(first[0].bit_eq(&exact[0]), "{what}: the loss has other bits");
        // Each kept number is off by at most a unit; a few of them make a term of the sum, and most errors cancel.
        let off = error(&first[1..], &exact[1..]);
        assert!(
            off > unit / 1000.0 && off < 10.0 * unit,
            "{what}: gradients are off by {off:e}, a unit is {unit:e}"
        );
    }
    Ok(())
}

/// The gradient of a matrix that a state is multiplied with once: the state as it was rounded.
fn a_state_is_rounded_once() -> Result<()> {
    let mut tape = Tape::new();
    let t = &mut tape;
    let w = t.param("w", DType::F32, [1, 1])?;
    let (h0, x) = (t.param("h0", DType::F32, [1])?, t.input("x", DType::F32, Shape::sequence([1]))?);
    let (h, ()) = scan(t, h0, x, |t, h, x| {
        let wh = matmul(t, h, w)?;
        Ok((add(t, wh, x)?, ()))
    })?;
    let sum = sum_rows(t, h)?;
    let loss = sum_dims(t, sum, &[])?;
    let w_bar = grad(t, loss, &[w])?[0];
    let state = 1.0 + 2f32.powi(-8) + 2f32.powi(-9);
    let p = params([
        ("w", Tensor::from_slice([1, 1], &[3f32])?),
        ("h0", Tensor::from_slice([1], &[state])?),
        ("x", Tensor::from_slice([1, 1, 1], &[0.25f32])?),
    ]);
    for (stash, read) in [(Stash::Exact, state), (Stash::Bf16, 1.0 + 2f32.powi(-7)), (Stash::F16, state)] {
        let out =
            Program::new(&tape, &[loss, w_bar], RunOptions { stash, ..Default::default() })?.run(&[&p])?;
        assert_eq!(
            (out[0].item()?, out[1].item()?),
            (f64::from(3.0 * state + 0.25), f64::from(read)),
            "{stash}"
        );
    }
    Ok(())
}

#[test]
fn a_rounded_record() -> Result<()> {
    a_state_is_rounded_once()?;
    for (dtype, sizes) in [
        (DType::F32, (150, 3)),
        (DType::F32, (130, 40)),
        (DType::C32, (140, 5)),
        (DType::F64, (20, 2)),
        (DType::C64, (120, 1)),
    ] {
        every_plan_agrees(dtype, 16, sizes)?;
    }
    // The matrix is larger than a cache: threads share the calls of few rows.
    every_plan_agrees(DType::F32, 531, (9, 5))
}
