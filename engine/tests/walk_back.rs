//! States that are walked back to instead of kept: gradients are those of kept states to the bound, the same bits under
//! every number of threads and budget, memory is that of the checkpoints, and what is no inverse is found out.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{params, random, scale, tanh};
use proptest::prelude::*;
use retrograd_engine::core_ops::{add, fill, neg, real, sum_dims, sum_rows, sum_steps};
use retrograd_engine::scan::LARGEST_DRIFT;
use retrograd_engine::{
    DType, Error, Horizon, Params, Program, Result, RunOptions, Scan, Shape, Stash, Tape, Tensor, Ty, Var,
    grad, matmul,
};

/// Largest norm of `w` and `v`, and with it how far an error of `(a, b)` grows in a step back:
/// `b = b' - tanh(a' v + x u)`, `a = a' - tanh(b w) / 2`.
const NORM: f64 = 0.5;
const EXPANSION: f64 = (1.0 + NORM) * (1.0 + NORM / 2.0);

/// What else there is about the loop.
#[derive(Clone, Copy, Debug)]
struct Kind {
    dtype: DType,
    size: usize,
    walk_back: Option<usize>,
    reverse: bool,
    lengths: bool,
    horizon: Option<usize>,
    expansion: f64,
    /// What the inverse is off by on purpose.
    wrong: f64,
}

const PLAIN: Kind = Kind {
    dtype: DType::F64,
    size: 5,
    walk_back: None,
    reverse: false,
    lengths: false,
    horizon: None,
    expansion: EXPANSION,
    wrong: 0.0,
};

/// Two halves of a state that take turns, a loss at every step and one of the last state.
fn model(kind: Kind) -> Result<(Tape, Vec<Var>)> {
    let Kind { dtype, size, .. } = kind;
    let mut tape = Tape::new();
    let t = &mut tape;
    let w = t.param("w", dtype, [size, size])?;
    let v = t.param("v", dtype, [size, size])?;
    let u = t.param("u", dtype, [3, size])?;
    let a0 = t.param("a0", dtype, [size])?;
    let x = t.input("x", dtype, Shape::sequence([3]))?;
    let lengths = if kind.lengths { Some(t.input("lengths", DType::I32, Shape::rows([]))?) } else { None };
    let zero = fill(t, Ty::new(dtype, Shape::rows([size])), 0.0)?;
    let turn = move |t: &mut Tape, h: Var, m: Var, more: Option<Var>, by: f64| -> Result<Var> {
        let mut z = matmul(t, h, m)?;
        if let Some(x) = more {
            let ux = matmul(t, x, u)?;
            z = add(t, z, ux)?;
        }
        let z = if dtype.is_complex() { scale(t, z, 0.9)? } else { tanh(t, z)? };
        scale(t, z, by)
    };
    let horizon = kind.horizon.map_or(Horizon::Full, Horizon::Steps);
    let scan = Scan::new().walk_back(kind.walk_back).reverse(kind.reverse).lengths(lengths).horizon(horizon);
    let ((a, b), y) = scan.run_reversible(
        t,
        (a0, zero),
        x,
        |t, (a, b), x| {
            let half = turn(t, b, w, None, 0.5)?;
            let a = add(t, a, half)?;
            let other = turn(t, a, v, Some(x), 1.0)?;
            let b = add(t, b, other)?;
            Ok(((a, b), b))
        },
        kind.expansion,
        |t, (a, b), x| {
            let other = turn(t, a, v, Some(x), 1.0 + kind.wrong)?;
            let other = neg(t, other)?;
            let b = add(t, b, other)?;
            let half = turn(t, b, w, None, -0.5)?;
            Ok((add(t, a, half)?, b))
        },
    )?;
    let y = scale(t, y, 0.1)?;
    let y = sum_steps(t, y)?;
    let all = add(t, y, a)?;
    let all = add(t, all, b)?;
    let all = sum_rows(t, all)?;
    let all = real(t, all)?;
    let loss = sum_dims(t, all, &[])?;
    let mut outputs = vec![loss];
    outputs.extend(grad(t, loss, &[w, v, u, a0])?);
    outputs.extend(grad(t, loss, &[x])?);
    Ok((tape, outputs))
}

fn values(kind: Kind, steps: usize, rows: usize) -> Result<Params> {
    let Kind { dtype, size, .. } = kind;
    // A matrix whose rows sum up to less than the norm.
    let matrix = |seed| -> Result<Tensor> {
        let mut m = random(dtype, &[size, size], seed)?;
        let copy = m.clone();
        let norm = (0..copy.len()).map(|i| copy.get(i).norm_sqr()).sum::<f64>().sqrt();
        m.fill_with(|i| copy.get(i) * (NORM / norm));
        Ok(m)
    };
    let mut p = params([
        ("w", matrix(1)?),
        ("v", matrix(2)?),
        ("u", random(dtype, &[3, size], 3)?),
        ("a0", random(dtype, &[size], 4)?),
        ("x", random(dtype, &[steps, rows, 3], 5)?),
    ]);
    if kind.lengths {
        let ends: Vec<i32> = (0..rows).map(|r| (steps - (r * 3) % steps) as i32).collect();
        p.insert("lengths", Tensor::from_slice([rows], &ends)?);
    }
    Ok(p)
}

fn options(threads: usize) -> RunOptions {
    RunOptions { threads: Some(threads), ..RunOptions::default() }
}

/// Largest difference over the largest entry, of all outputs.
fn off(got: &[Tensor], exact: &[Tensor]) -> f64 {
    let one = |(g, e): (&Tensor, &Tensor)| {
        let most = (0..e.len()).map(|i| e.get(i).norm()).fold(0.0, f64::max);
        (0..e.len()).map(|i| (g.get(i) - e.get(i)).norm()).fold(0.0, f64::max) / most.max(1e-300)
    };
    got.iter().zip(exact).map(one).fold(0.0, f64::max)
}

fn check(kind: Kind, every: usize, steps: usize, rows: usize) -> Result<()> {
    let (tape, outputs) = model(kind)?;
    let p = values(kind, steps, rows)?;
    let exact = Program::new(&tape, &outputs, options(1))?.run(&[&p])?;
    let (tape, outputs) = model(Kind { walk_back: Some(every), ..kind })?;
    let mut first: Option<Vec<Tensor>> = None;
    for threads in [1, 3] {
        let mut program = Program::new(&tape, &outputs, options(threads))?;
        let plan = program.plan(steps, rows)?;
        let walk = plan.summary().walks[0].clone();
        assert_eq!((walk.every, walk.states.len()), (every, 2));
        // A budget changes nothing but whether it fits.
        program.set_budget(Some(plan.peak_bytes()));
        let got = program.run(&[&p])?;
        let drift = program.last_drift().unwrap();
        assert!(drift <= walk.bound && walk.bound <= LARGEST_DRIFT, "{drift} {}", walk.bound);
        assert_eq!(got[0], exact[0], "the forward pass");
        // Slopes are at most 1, so gradients are off by about what the states are.
        let error = off(&got, &exact);
        assert!(error <= 10.0 * walk.bound, "{kind:?} every {every}: {error:.1e}, bound {:.1e}", walk.bound);
        match &first {
            Some(first) => assert_eq!(&got, first, "{threads} threads"),
            None => first = Some(got),
        }
        let text = plan.explain();
        assert!(text.contains("walked back"), "{text}");
        let error = program.plan_within(steps, rows, Some(plan.peak_bytes() - 1)).unwrap_err();
        assert!(matches!(error, Error::Budget { smallest, .. } if smallest == plan.peak_bytes()), "{error}");
    }
    Ok(())
}

#[test]
fn every_kind_of_loop() -> Result<()> {
    for dtype in [DType::F32, DType::F64, DType::C64] {
        let kind = Kind { dtype, ..PLAIN };
        check(kind, 4, 23, 3)?;
        check(Kind { reverse: true, ..kind }, 5, 40, 2)?;
        check(Kind { lengths: true, ..kind }, 3, 19, 4)?;
        check(Kind { horizon: Some(7), ..kind }, 6, 31, 3)?;
        check(kind, 9, 9, 1)?;
        check(kind, 9, 1, 2)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_length_and_distance(
        steps in 1usize..90,
        every in 1usize..20,
        rows in 1usize..40,
        size in 1usize..9,
        reverse: bool,
        lengths: bool,
    ) {
        check(Kind { size, reverse, lengths, ..PLAIN }, every, steps, rows).unwrap();
    }
}

/// What is kept does not grow with the steps but for a state every so many of them.
#[test]
fn memory_is_that_of_the_states_kept() -> Result<()> {
    let kind = Kind { dtype: DType::F32, size: 32, expansion: 1.0, ..PLAIN };
    let (tape, outputs) = model(Kind { walk_back: Some(500), ..kind })?;
    let plan = Program::new(&tape, &outputs[..5], options(2))?.plan(10_000, 16)?;
    // 20 segments have 21 ends, where two states of 32 numbers are kept for 16 rows.
    assert_eq!(plan.recorded_bytes(), 21 * 2 * 32 * 4 * 16);
    let (tape, outputs) = model(kind)?;
    let kept = Program::new(&tape, &outputs[..5], options(2))?.plan(10_000, 16)?;
    assert!(kept.recorded_bytes() > 400 * plan.recorded_bytes(), "{}", kept.recorded_bytes());
    assert!(plan.everything_bytes() >= kept.recorded_bytes() / 2);
    Ok(())
}

#[test]
fn what_is_no_inverse_is_found_out() -> Result<()> {
    let kind = Kind { walk_back: Some(10), wrong: 1e-6, ..PLAIN };
    let (tape, outputs) = model(kind)?;
    let p = values(kind, 30, 2)?;
    let error = Program::new(&tape, &outputs, options(1))?.run(&[&p]).unwrap_err();
    assert!(matches!(error, Error::Drift { every: 10, bound, found, .. } if found > bound), "{error}");
    Ok(())
}

#[test]
fn what_cannot_be_bounded_is_refused() {
    let error = model(Kind { walk_back: Some(200), ..PLAIN }).unwrap_err().to_string();
    assert!(error.contains("200 steps back may be off by"), "{error}");
    // The number it names is one that works.
    let longest = error.split("every ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(model(Kind { walk_back: Some(longest), ..PLAIN }).is_ok());
    assert!(model(Kind { walk_back: Some(longest + 1), ..PLAIN }).is_err());
    assert!(model(Kind { walk_back: Some(0), ..PLAIN }).is_err());
    assert!(model(Kind { walk_back: Some(3), expansion: 0.9, ..PLAIN }).is_err());
    assert!(model(Kind { walk_back: Some(3), expansion: f64::NAN, ..PLAIN }).is_err());
}

/// A rounded stash has nothing to round where states are walked back.
#[test]
fn a_rounded_stash_changes_nothing() -> Result<()> {
    let kind = Kind { walk_back: Some(8), ..PLAIN };
    let (tape, outputs) = model(kind)?;
    let p = values(kind, 40, 3)?;
    let exact = Program::new(&tape, &outputs, options(2))?.run(&[&p])?;
    let rounded = RunOptions { stash: Stash::Bf16, ..options(2) };
    assert_eq!(Program::new(&tape, &outputs, rounded)?.run(&[&p])?, exact);
    Ok(())
}

/// Derivatives of derivatives: an adjoint that walks back hands its states out to its own adjoint.
#[test]
fn derivatives_of_derivatives() {
    let run = |walk_back| -> Result<Vec<Tensor>> {
        let kind = Kind { size: 3, walk_back, ..PLAIN };
        let (mut tape, outputs) = model(kind)?;
        let mut second = fill(&mut tape, Ty::new(DType::F64, Shape::shared([])), 0.0)?;
        for &bar in &outputs[1..4] {
            let square = matmul(&mut tape, bar, bar);
            // Matrices that are not square: their elements.
            let square = square.or_else(|_| tanh(&mut tape, bar))?;
            let sum = sum_dims(&mut tape, square, &[])?;
            second = add(&mut tape, second, sum)?;
        }
        let wrt: Vec<Var> = tape.params().map(|(_, v, _)| v).collect();
        let bars = grad(&mut tape, second, &wrt)?;
        let outputs: Vec<Var> = std::iter::once(second).chain(bars).collect();
        let options = RunOptions { threads: Some(1), ..RunOptions::default() };
        Program::new(&tape, &outputs, options)?.run(&[&values(kind, 9, 4)?])
    };
    let kept = run(None).unwrap();
    for (i, (walked, kept)) in run(Some(4)).unwrap().iter().zip(&kept).enumerate() {
        let norm = |t: &dyn Fn(usize) -> f64| (0..kept.len()).map(t).fold(0.0, f64::max);
        let off = norm(&|j| (walked.get(j) - kept.get(j)).norm());
        let size = norm(&|j| kept.get(j).norm());
        assert!(off <= 1e-9 * size.max(1e-3), "output {i}: off by {off:e} of {size:e}");
    }
}
