//! What the comparisons of programs with the processor share.
#![allow(dead_code)]

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use retrograd_cuda::Gpu;
use retrograd_engine::core_ops::{sum_dims, sum_rows, sum_steps};
use retrograd_engine::device::{Device, Products};
use retrograd_engine::{DType, Params, Profile, Program, Result, RunOptions, Stash, Tape, Tensor, Var, grad};
use retrograd_ops as ops;
use retrograd_ops::Recorded;

/// Tests of a file run one after the other: the bytes that the host has at once are counted for the whole process.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the device is the machine's, not the emulated one.
pub(crate) static REAL: AtomicBool = AtomicBool::new(false);

pub(crate) fn device() -> Arc<dyn Device> {
    device_with(Products::Exact)
}

pub(crate) fn device_with(products: Products) -> Arc<dyn Device> {
    Arc::new(gpu().with_products(products))
}

pub(crate) fn gpu() -> Gpu {
    if REAL.load(Relaxed) { Gpu::open(0).unwrap() } else { Gpu::emulated() }
}

pub(crate) fn on(device: &Arc<dyn Device>, budget: Option<usize>) -> RunOptions {
    RunOptions { device: Some(device.clone()), budget, threads: Some(1), ..RunOptions::default() }
}

/// Numbers between −1 and 1, always the same.
pub(crate) fn numbers(dtype: DType, dims: &[usize], seed: u64) -> Tensor {
    let mut t = Tensor::zeros(dtype, dims).unwrap();
    let at = |i: u64| {
        let mut z = (seed << 32 | i).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    t.fill_with(|i| (at(2 * i as u64), at(2 * i as u64 + 1)).into_complex(dtype.is_complex()));
    t
}

trait IntoComplex {
    fn into_complex(self, complex: bool) -> num_complex::Complex64;
}

impl IntoComplex for (f64, f64) {
    fn into_complex(self, complex: bool) -> num_complex::Complex64 {
        num_complex::Complex64::new(self.0, if complex { self.1 } else { 0.0 })
    }
}

/// How far a result is from what is expected, in roundings of its type.
pub(crate) fn ratio(got: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!((got.dtype(), got.dims()), (expected.dtype(), expected.dims()));
    let (mut difference, mut norm) = (0.0f64, 0.0f64);
    for i in 0..got.len() {
        difference += (got.get(i) - expected.get(i)).norm_sqr();
        norm += expected.get(i).norm_sqr();
    }
    let eps = if got.dtype().real() == DType::F64 { f64::EPSILON } else { f64::from(f32::EPSILON) };
    if difference == 0.0 { 0.0 } else { (difference / norm).sqrt() / eps }
}

/// Runs outputs on both sides; on the device twice, and within every budget of a few between all and least. The device has
/// to give what the processor gives but for `most` roundings.
pub(crate) fn compare(
    what: &str,
    tape: &Tape,
    outputs: &[Var],
    values: &Params,
    size: (usize, usize),
    most: f64,
) {
    let compared = compare_within(tape, outputs, values, size, most);
    if let Err(error) = compared {
        panic!("{what}: {error}");
    }
}

pub(crate) fn compare_within(
    tape: &Tape,
    outputs: &[Var],
    values: &Params,
    size: (usize, usize),
    most: f64,
) -> std::result::Result<(), String> {
    compare_on(&device(), tape, outputs, values, size, most).map(|_| ())
}

/// The same on a device of one's own. Returns how far off the worst output is, in roundings.
pub(crate) fn compare_on(
    device: &Arc<dyn Device>,
    tape: &Tape,
    outputs: &[Var],
    values: &Params,
    size: (usize, usize),
    most: f64,
) -> std::result::Result<f64, String> {
    compare_rounded(device, Stash::Exact, tape, outputs, values, size, most)
}

/// The same with values for the adjoint kept in some precision on both sides.
pub(crate) fn compare_rounded(
    device: &Arc<dyn Device>,
    stash: Stash,
    tape: &Tape,
    outputs: &[Var],
    values: &Params,
    (steps, rows): (usize, usize),
    most: f64,
) -> std::result::Result<f64, String> {
    let text = |e: retrograd_engine::Error| e.to_string();
    let options = RunOptions { threads: Some(1), stash, ..RunOptions::default() };
    let expected = Program::new(tape, outputs, options).and_then(|mut p| p.run(&[values])).map_err(text)?;
    let options = RunOptions { stash, ..on(device, None) };
    let mut program = Program::new(tape, outputs, options).map_err(text)?;
    let (mut first, mut worst): (Option<Vec<Tensor>>, f64) = (None, 0.0);
    let plans = program.tradeoff(steps, rows, 3).map_err(text)?;
    let budgets = plans.iter().map(|p| Some(p.peak_bytes())).chain([None, None]);
    for budget in budgets {
        program.set_budget(budget);
        let plan = program.plan(steps, rows).map_err(text)?;
        let got = program.run(&[values]).map_err(text)?;
        if program.last_peak_bytes() != plan.peak_bytes() {
            return Err(format!(
                "measured {} bytes, planned {}",
                program.last_peak_bytes(),
                plan.peak_bytes()
            ));
        }
        match &first {
            None => {
                for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
                    let found = ratio(got, expected);
                    if found.is_nan() || found > most {
                        return Err(format!(
                            "output {i}: off by {found:.1} roundings, allowed are {most}: {:?} and {:?}",
                            (0..got.len().min(6)).map(|i| got.get(i)).collect::<Vec<_>>(),
                            (0..got.len().min(6)).map(|i| expected.get(i)).collect::<Vec<_>>(),
                        ));
                    }
                    worst = worst.max(found);
                }
                first = Some(got);
            }
            Some(first) => {
                for (i, (got, first)) in got.iter().zip(first).enumerate() {
                    if got.as_bytes() != first.as_bytes() {
                        return Err(format!("output {i}: other bits within {budget:?} bytes"));
                    }
                }
            }
        }
    }
    Ok(worst)
}

/// The profile of one run of a program on `gpu`, which has to give the bits expected. Every launch has its line, and the
/// lines take no longer than the run.
pub(crate) fn profiled(
    gpu: &Gpu,
    program: &mut Program,
    values: &[&Params],
    expected: &[Tensor],
    what: &str,
) -> Profile {
    let before = gpu.counts();
    program.set_profile(true);
    let got = program.run(values).unwrap();
    program.set_profile(false);
    assert!(got.len() == expected.len() && got.iter().zip(expected).all(|(a, b)| a.bit_eq(b)), "{what}");
    let profile = program.last_profile().unwrap().clone();
    // Copies have the number of items, which no launch has.
    let items = profile.lines.iter().map(|l| l.item).max().unwrap();
    let launches: u64 = profile.lines.iter().filter(|l| l.item < items).map(|l| l.calls).sum();
    assert!(launches > 0, "{what}");
    if let (Some(before), Some(after)) = (before, gpu.counts()) {
        assert_eq!(launches, after.launches - before.launches, "{what}");
    }
    assert!(profile.lines.iter().all(|l| l.calls > 0 && l.seconds >= 0.0), "{what}");
    let (busy, wall) = (profile.busy_seconds(), profile.wall_seconds);
    assert!(0.0 < busy && busy <= wall * 1.01 + 1e-5, "{what}: busy {busy} of {wall}");
    assert!((busy + profile.idle_seconds() - profile.thread_seconds()).abs() <= wall * 0.01 + 1e-5, "{what}");
    profile
}

/// The sum over every axis there is.
pub(crate) fn sum_all(tape: &mut Tape, x: Var) -> Result<Var> {
    let mut x = sum_dims(tape, x, &[])?;
    if tape.shape(x)?.lead.has_t() {
        x = sum_steps(tape, x)?;
    }
    if tape.shape(x)?.lead.has_n() { sum_rows(tape, x) } else { Ok(x) }
}

/// Value and gradients of an operation on both sides.
pub(crate) fn compare_case(mut recorded: Recorded) -> std::result::Result<(), String> {
    let text = |e: retrograd_engine::Error| e.to_string();
    let tape = &mut recorded.tape;
    let mut outputs = vec![recorded.output];
    let wrt: Vec<Var> = recorded.inputs.iter().copied().filter(|v| differentiable(tape, *v)).collect();
    if !wrt.is_empty() && differentiable(tape, recorded.output) {
        // Fourth powers: squares are what rotations and norms leave as they are.
        let square = ops::abs2(tape, recorded.output).map_err(text)?;
        let fourth = ops::abs2(tape, square).map_err(text)?;
        let loss = sum_all(tape, fourth).map_err(text)?;
        outputs.extend(grad(tape, loss, &wrt).map_err(text)?);
    }
    let (mut steps, mut rows) = (1, 1);
    for (name, _, ty) in tape.inputs() {
        let (lead, dims) = (ty.shape.lead, recorded.values.get(name).unwrap().dims());
        if lead.has_t() {
            steps = dims[0];
        }
        if lead.has_n() {
            rows = dims[usize::from(lead.has_t())];
        }
    }
    compare_within(tape, &outputs, &recorded.values, (steps, rows), 2000.0)
}

fn differentiable(tape: &Tape, v: Var) -> bool {
    tape.dtype(v).is_ok_and(DType::is_differentiable)
}
