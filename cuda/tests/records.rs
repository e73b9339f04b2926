//! What an adjoint finds of the way there, where that is not simply kept: states that are walked back to, and a record in 16
//! bits. Results are the processor's within rounding, with equal bits under every budget and the planned peak to the byte.
#![allow(clippy::unwrap_used, clippy::panic)]

mod on_device;

use std::sync::Arc;

use on_device::{compare_on, compare_rounded, numbers, on, sum_all};
use retrograd_cuda::Gpu;
use retrograd_engine::core_ops::{add, fill, neg, real, sum_rows, sum_steps};
use retrograd_engine::device::Device;
use retrograd_engine::{
    DType, Error, Horizon, Params, Program, RunOptions, Scan, Shape, Stash, Tape, Tensor, Ty, Var, grad,
    matmul, scan,
};
use retrograd_ops as ops;

/// Largest norm of `w` and `v`, and with it how far an error of `(a, b)` grows in a step back:
/// `b = b' - tanh(a' v + x u)`, `a = a' - tanh(b w) / 2`.
const NORM: f64 = 0.5;
const EXPANSION: f64 = (1.0 + NORM) * (1.0 + NORM / 2.0);

/// A loop whose states are walked back.
#[derive(Clone, Copy, Debug)]
struct Walk {
    dtype: DType,
    size: usize,
    every: usize,
    reverse: bool,
    lengths: bool,
    horizon: Option<usize>,
    /// What the inverse is off by on purpose.
    wrong: f64,
    steps: usize,
    rows: usize,
}

const WALK: Walk = Walk {
    dtype: DType::F64,
    size: 5,
    every: 4,
    reverse: false,
    lengths: false,
    horizon: None,
    wrong: 0.0,
    steps: 23,
    rows: 9,
};

/// Two halves of a state that take turns, a loss at every step and one of the last state; and all gradients.
fn walked(walk: Walk) -> (Tape, Vec<Var>, Params) {
    let Walk { dtype, size, steps, rows, .. } = walk;
    let mut tape = Tape::new();
    let t = &mut tape;
    let w = t.param("w", dtype, [size, size]).unwrap();
    let v = t.param("v", dtype, [size, size]).unwrap();
    let u = t.param("u", dtype, [3, size]).unwrap();
    let a0 = t.param("a0", dtype, [size]).unwrap();
    let x = t.input("x", dtype, Shape::sequence([3])).unwrap();
    let lengths = walk.lengths.then(|| t.input("lengths", DType::I32, Shape::rows([])).unwrap());
    let zero = fill(t, Ty::new(dtype, Shape::rows([size])), 0.0).unwrap();
    let turn = move |t: &mut Tape, h: Var, m: Var, more: Option<Var>, by: f64| {
        let mut z = matmul(t, h, m)?;
        if let Some(x) = more {
            let ux = matmul(t, x, u)?;
            z = add(t, z, ux)?;
        }
        let z = if dtype.is_complex() { ops::scale(t, z, 0.9)? } else { ops::tanh(t, z)? };
        ops::scale(t, z, by)
    };
    let horizon = walk.horizon.map_or(Horizon::Full, Horizon::Steps);
    let scan = Scan::new().walk_back(Some(walk.every)).reverse(walk.reverse).lengths(lengths);
    let ((a, b), y) = scan
        .horizon(horizon)
        .run_reversible(
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
            EXPANSION,
            |t, (a, b), x| {
                let other = turn(t, a, v, Some(x), 1.0 + walk.wrong)?;
                let other = neg(t, other)?;
                let b = add(t, b, other)?;
                let half = turn(t, b, w, None, -0.5)?;
                Ok((add(t, a, half)?, b))
            },
        )
        .unwrap();
    let y = ops::scale(t, y, 0.1).unwrap();
    let y = sum_steps(t, y).unwrap();
    let all = add(t, y, a).unwrap();
    let all = add(t, all, b).unwrap();
    let all = real(t, all).unwrap();
    let loss = sum_all(t, all).unwrap();
    let bars = grad(t, loss, &[w, v, u, a0, x]).unwrap();
    let outputs = std::iter::once(loss).chain(bars).collect();
    let mut values = Params::new();
    for (name, seed) in [("w", 1), ("v", 2)] {
        let mut m = numbers(dtype, &[size, size], seed);
        let copy = m.clone();
        let norm = (0..copy.len()).map(|i| copy.get(i).norm_sqr()).sum::<f64>().sqrt();
        m.fill_with(|i| copy.get(i) * (NORM / norm));
        values.insert(name, m);
    }
    values.insert("u", numbers(dtype, &[3, size], 3));
    values.insert("a0", numbers(dtype, &[size], 4));
    values.insert("x", numbers(dtype, &[steps, rows, 3], 5));
    if walk.lengths {
        let ends: Vec<i32> = (0..rows).map(|r| (steps - (r * 3) % steps) as i32).collect();
        values.insert("lengths", Tensor::from_slice([rows], &ends).unwrap());
    }
    (tape, outputs, values)
}

#[test]
fn a_walk_has_its_lines_in_a_profile() {
    let _alone = on_device::alone();
    let gpu = on_device::gpu();
    let device: Arc<dyn Device> = Arc::new(gpu.clone());
    let (tape, outputs, values) = walked(WALK);
    let mut program = Program::new(&tape, &outputs, on(&device, None)).unwrap();
    let expected = program.run(&[&values]).unwrap();
    let profile = on_device::profiled(&gpu, &mut program, &[&values], &expected, "a walk");
    // States are kept before every segment and after the last, and taken up as often.
    let kept = WALK.steps.div_ceil(WALK.every) + 1;
    for (text, calls) in [
        ("store and restore states", kept),
        ("compare and take up kept states", kept),
        ("put drifts of tiles together", 1),
    ] {
        let of = profile.lines.iter().filter(|l| l.text() == text).map(|l| l.calls).sum::<u64>();
        assert_eq!(of, calls as u64, "{text}");
    }
}

/// Compares a loop with the processor's, and how far off its states are with the bound.
fn check_walk(device: &Arc<dyn Device>, walk: Walk) {
    let (tape, outputs, values) = walked(walk);
    let mut program = Program::new(&tape, &outputs, on(device, None)).unwrap();
    let plan = program.plan(walk.steps, walk.rows).unwrap();
    let bound = plan.summary().walks[0].bound;
    program.run(&[&values]).unwrap();
    let drift = program.last_drift().unwrap();
    assert!(drift <= bound, "{walk:?}: off by {drift:e}, the bound is {bound:e}");
    program.run(&[&values]).unwrap();
    assert_eq!(program.last_drift(), Some(drift), "{walk:?}");
    assert!(walk.steps < 2 * walk.every || drift > 0.0, "{walk:?}: nothing was compared");
    // Slopes are at most 1, so gradients are off by about what the states are, on both sides.
    let eps = if walk.dtype.real() == DType::F64 { f64::EPSILON } else { f64::from(f32::EPSILON) };
    let most = 100.0 + 20.0 * bound / eps;
    compare_on(device, &tape, &outputs, &values, (walk.steps, walk.rows), most)
        .unwrap_or_else(|e| panic!("{walk:?}: {e}"));
}

#[test]
fn states_that_are_walked_back() {
    let _alone = on_device::alone();
    let device = on_device::device();
    for dtype in [DType::F32, DType::F64, DType::C64] {
        let walk = Walk { dtype, ..WALK };
        check_walk(&device, walk);
        check_walk(&device, Walk { reverse: true, every: 5, steps: 40, rows: 2, ..walk });
        check_walk(&device, Walk { lengths: true, every: 3, ..walk });
        check_walk(&device, Walk { horizon: Some(7), every: 6, steps: 31, ..walk });
        check_walk(&device, Walk { every: 9, steps: 9, rows: 1, ..walk });
        check_walk(&device, Walk { every: 9, steps: 1, ..walk });
    }
}

/// Blocks that share a tile share its walk; where there is next to no shared memory, few lanes compare.
#[test]
fn walks_of_teams() {
    let _alone = on_device::alone();
    for (shared, multiprocessors, size) in [(600, 8, 12), (32, 1, 5), (40, 2, 5)] {
        let device = Arc::new(Gpu::emulated_as(shared, multiprocessors)) as Arc<dyn Device>;
        let walk = Walk { size, ..WALK };
        let (tape, outputs, _) = walked(walk);
        let program = Program::new(&tape, &outputs, on(&device, None)).unwrap();
        let plan = program.plan(walk.steps, walk.rows).unwrap();
        let team = plan.summary().scans.iter().map(|s| s.team).max().unwrap();
        assert!((team > 1) == (multiprocessors > 1), "{shared} bytes: {team}");
        check_walk(&device, walk);
    }
}

/// States that are further off than the bound are found out, in whichever tile and walk they are; and by as much as on the
/// processor.
#[test]
fn what_is_no_inverse_is_found_out() {
    let _alone = on_device::alone();
    let device = on_device::device();
    let (tape, outputs, mut values) = walked(Walk { wrong: 1e-6, ..WALK });
    let mut there = Program::new(&tape, &outputs, on(&device, None)).unwrap();
    let mut here = Program::new(&tape, &outputs, RunOptions::default()).unwrap();
    let found = |program: &mut Program, values: &Params| match program.run(&[values]) {
        Err(Error::Drift { every: 4, bound, found, .. }) if found > bound => found,
        other => panic!("{:?}", other.map(|o| o.len())),
    };
    let a0 = Tensor::zeros(DType::F64, [WALK.size]).unwrap();
    values.insert("a0", a0);
    let all = values.require("x").unwrap().clone();
    let mut first = None;
    for row in 0..WALK.rows {
        for step in [1, 9, 21] {
            // All other rows are zero at all times.
            let mut x = all.clone();
            let of = |i: usize| (i / 3 / WALK.rows, i / 3 % WALK.rows, i % 3);
            x.fill_with(|i| if of(i).0 >= step && of(i).1 == row { all.get(of(i).2) } else { 0.0.into() });
            values.insert("x", x);
            let drift = found(&mut there, &values);
            let expected = found(&mut here, &values);
            assert!((drift / expected - 1.0).abs() < 1e-6, "row {row} from {step}: {drift:e}, {expected:e}");
            if step == 1 {
                assert_eq!(*first.get_or_insert(drift), drift, "row {row}");
            }
        }
    }
    // What was found before is forgotten.
    values.insert("x", Tensor::zeros(DType::F64, [WALK.steps, WALK.rows, 3]).unwrap());
    there.run(&[&values]).unwrap();
    assert_eq!(there.last_drift(), Some(0.0));
}

/// A gated recurrence, or for complex numbers a quadratic one, with a loss at every step; and all gradients. `mixes`: rows
/// depend on each other, by a value without rows that is kept.
fn gated(
    (dtype, size): (DType, usize),
    (steps, rows): (usize, usize),
    (mixes, lengths): (bool, bool),
) -> (Tape, Vec<Var>, Params) {
    let mut tape = Tape::new();
    let t = &mut tape;
    let w = t.param("w", dtype, [size, size]).unwrap();
    let u = t.param("u", dtype, [3, size]).unwrap();
    let x = t.input("x", dtype, Shape::sequence([3])).unwrap();
    let zero = fill(t, Ty::new(dtype, Shape::rows([size])), 0.0).unwrap();
    let ends = lengths.then(|| t.input("lengths", DType::I32, Shape::rows([])).unwrap());
    let ((h, c), y) = Scan::new()
        .lengths(ends)
        .run(t, (zero, zero), x, |t, (h, c), x| {
            let (wh, ux) = (matmul(t, h, w)?, matmul(t, x, u)?);
            let mut z = add(t, wh, ux)?;
            if mixes {
                let all = sum_rows(t, h)?;
                let all = ops::scale(t, all, 0.1)?;
                let all = ops::tanh(t, all)?;
                z = ops::mul(t, z, all)?;
                z = add(t, z, ux)?;
            }
            let gate = if dtype.is_complex() { ops::scale(t, z, 0.3)? } else { ops::tanh(t, z)? };
            let mixed = ops::mul(t, gate, c)?;
            let half = ops::scale(t, z, 0.4)?;
            let c = add(t, mixed, half)?;
            let h = if dtype.is_complex() { ops::mul(t, gate, gate)? } else { ops::tanh(t, c)? };
            Ok(((h, c), ops::mul(t, h, h)?))
        })
        .unwrap();
    let y = sum_steps(t, y).unwrap();
    let all = add(t, y, h).unwrap();
    let all = add(t, all, c).unwrap();
    let all = real(t, all).unwrap();
    let loss = sum_all(t, all).unwrap();
    let bars = grad(t, loss, &[w, u, x]).unwrap();
    let outputs = std::iter::once(loss).chain(bars).collect();
    let mut values = Params::new();
    let mut insert = |name: &str, dims: &[usize], by: f64, seed| {
        let mut t = numbers(dtype, dims, seed);
        let copy = t.clone();
        t.fill_with(|i| copy.get(i) * by);
        values.insert(name, t);
    };
    insert("w", &[size, size], 0.8 / (size as f64).sqrt(), 1);
    insert("u", &[3, size], 0.3, 2);
    insert("x", &[steps, rows, 3], 0.7, 3);
    if lengths {
        let ends: Vec<i32> = (0..rows).map(|r| (r * 5 % (steps + 1)) as i32).collect();
        values.insert("lengths", Tensor::from_slice([rows], &ends).unwrap());
    }
    (tape, outputs, values)
}

/// Compares a loop whose record is rounded with the processor's; in double precision no number is rounded to another one
/// there, and few in single precision, where the numbers themselves differ in their last bits.
fn check_rounded(device: &Arc<dyn Device>, what: (DType, usize), size: (usize, usize), more: (bool, bool)) {
    let (tape, outputs, values) = gated(what, size, more);
    let record = |stash| {
        let program = Program::new(&tape, &outputs, RunOptions { stash, ..on(device, None) }).unwrap();
        program.plan(size.0, size.1).unwrap().recorded_bytes() as f64
    };
    let exact = record(Stash::Exact);
    for stash in [Stash::Bf16, Stash::F16] {
        let share = record(stash) / exact * what.0.real().size() as f64;
        // What is small is mostly gaps: every part of it begins at a multiple of 64 bytes.
        assert!(
            exact < 16_384.0 || (share - 2.0).abs() < 0.1,
            "{what:?} {size:?} {more:?} {stash}: {share} bytes a number"
        );
        compare_rounded(device, stash, &tape, &outputs, &values, size, 800.0)
            .unwrap_or_else(|e| panic!("{what:?} {size:?} {more:?} {stash}: {e}"));
    }
}

#[test]
fn a_rounded_record() {
    let _alone = on_device::alone();
    let device = on_device::device();
    for (dtype, size, steps, rows, more) in [
        (DType::F64, 5, 130, 9, (false, false)),
        (DType::F32, 5, 23, 6, (false, false)),
        (DType::F32, 3, 1, 1, (false, false)),
        (DType::C64, 3, 20, 5, (false, false)),
        (DType::C32, 3, 12, 2, (false, false)),
        (DType::F64, 4, 70, 7, (true, false)),
        (DType::F64, 4, 19, 6, (false, true)),
    ] {
        check_rounded(&device, (dtype, size), (steps, rows), more);
    }
    // The smallest budget takes checkpoints and replays.
    let (tape, outputs, _) = gated((DType::F64, 5), (130, 9), (false, false));
    let options = RunOptions { stash: Stash::Bf16, ..on(&device, None) };
    let program = Program::new(&tape, &outputs, options).unwrap();
    let replay = program.smallest_plan(130, 9).unwrap().summary().replay.unwrap();
    assert!(replay.extra_forward_steps > 0, "{replay:?}");
}

#[test]
fn rounded_records_of_teams() {
    let _alone = on_device::alone();
    let device = Arc::new(Gpu::emulated_as(600, 8)) as Arc<dyn Device>;
    for (dtype, size) in [(DType::F32, 18), (DType::F64, 13)] {
        let (tape, outputs, _) = gated((dtype, size), (9, 11), (false, false));
        let program = Program::new(&tape, &outputs, on(&device, None)).unwrap();
        let summary = program.plan(9, 11).unwrap().summary();
        assert!(summary.scans.iter().any(|s| s.team > 1), "{dtype}: no teams");
        check_rounded(&device, (dtype, size), (9, 11), (false, false));
    }
}

/// The gradient of a factor that a state is multiplied with once is the state as it was rounded: to the processor's bits,
/// between two neighbours and beside, at the ends of the formats and beyond.
#[test]
fn numbers_are_rounded_as_on_the_processor() {
    let _alone = on_device::alone();
    let device = on_device::device();
    for dtype in [DType::F32, DType::F64] {
        let mut states: Vec<f64> = Vec::new();
        for digits in [8, 11] {
            let (half, little) = (2f64.powi(-digits), 2f64.powi(if dtype == DType::F64 { -40 } else { -20 }));
            states.extend(
                [half, half + little, half - little, 3.0 * half, 3.0 * half - little].map(|d| 1.0 + d),
            );
        }
        states.extend([0.0, 65_504.0, 65_519.0, 65_520.0, 3.3e38, 1e30, 6e-8, 2.9e-8, 3.1e-8, 1e-30, 0.1]);
        if dtype == DType::F64 {
            states.extend([1e300, 3.4028235e38, 3.402_823_6e38, 1e-300]);
        }
        let states: Vec<f64> = states.iter().flat_map(|x| [*x, -x]).collect();
        let count = states.len();
        let mut tape = Tape::new();
        let t = &mut tape;
        let w = t.param("w", dtype, [count]).unwrap();
        let h0 = t.param("h0", dtype, [count]).unwrap();
        let x = t.input("x", dtype, Shape::sequence([1])).unwrap();
        let (h, ()) = scan(t, h0, x, |t, h, x| {
            let wh = ops::mul(t, h, w)?;
            Ok((add(t, wh, x)?, ()))
        })
        .unwrap();
        let loss = sum_all(t, h).unwrap();
        let w_bar = grad(t, loss, &[w]).unwrap()[0];
        let mut values = Params::new();
        let mut h0 = Tensor::zeros(dtype, [count]).unwrap();
        h0.fill_with(|i| states[i].into());
        values.insert("h0", h0);
        values.insert("w", Tensor::full(dtype, [count], 0.5).unwrap());
        values.insert("x", Tensor::zeros(dtype, [1, 1, 1]).unwrap());
        for stash in Stash::ALL {
            let run = |options: RunOptions| {
                let mut program = Program::new(&tape, &[w_bar], RunOptions { stash, ..options }).unwrap();
                program.run(&[&values]).unwrap().remove(0)
            };
            let (here, there) = (run(RunOptions::default()), run(on(&device, None)));
            let bits = |t: &Tensor, i: usize| t.get(i).re.to_bits();
            for (i, state) in states.iter().enumerate() {
                let (got, expected) = (there.get(i).re, here.get(i).re);
                assert_eq!(
                    bits(&there, i),
                    bits(&here, i),
                    "{dtype} {stash} {state:e}: {got:e}, {expected:e}"
                );
            }
        }
    }
}

#[test]
#[ignore = "needs a CUDA device"]
fn all_of_it_on_a_device() {
    on_device::REAL.store(true, std::sync::atomic::Ordering::Relaxed);
    states_that_are_walked_back();
    what_is_no_inverse_is_found_out();
    a_rounded_record();
    numbers_are_rounded_as_on_the_processor();
}
