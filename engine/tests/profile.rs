//! Profiles: every instruction is there, as often as the plan says; times add up; nothing else changes.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::sync::Mutex;

use common::{mul, tanh};
use retrograd_engine::core_ops::{add, fill, sum_dims, sum_rows, sum_steps};
use retrograd_engine::plan::{PlanSummary, ScanSummary};
use retrograd_engine::profile::{Pass, Profile, Work};
use retrograd_engine::{
    DType, Error, Params, Program, Result, RunOptions, Shape, Tape, Tensor, Ty, Var, grad, matmul, scan,
};

/// The meter counts the tensors of all tests.
static ALONE: Mutex<()> = Mutex::new(());

const H: usize = 8;

/// The gradients of a gated recurrence, with what is bound to it.
fn model(dtype: DType, steps: usize, rows: usize) -> Result<(Tape, Vec<Var>, Params)> {
    let mut tape = Tape::new();
    let t = &mut tape;
    let u = t.param("u", dtype, [3, H])?;
    let w = t.param("w", dtype, [H, H])?;
    let x = t.input("x", dtype, Shape::sequence([3]))?;
    let zero = fill(t, Ty::new(dtype, Shape::rows([H])), 0.0)?;
    let (_, y) = scan(t, zero, x, |t, h, x| {
        let (ux, wh) = (matmul(t, x, u)?, matmul(t, h, w)?);
        let a = add(t, ux, wh)?;
        let g = if dtype.is_complex() { mul(t, a, a)? } else { tanh(t, a)? };
        let gh = mul(t, g, h)?;
        let h = add(t, g, gh)?;
        Ok((h, h))
    })?;
    let y = matmul(t, y, w)?;
    let sum = sum_steps(t, y)?;
    let sum = sum_rows(t, sum)?;
    let sum = retrograd_engine::core_ops::real(t, sum)?;
    let loss = sum_dims(t, sum, &[])?;
    let mut outputs = vec![loss];
    outputs.extend(grad(t, loss, &[u, w])?);
    let mut values = Params::new();
    values.insert("u", Tensor::full(dtype, [3, H], 0.1)?);
    values.insert("w", Tensor::full(dtype, [H, H], 0.01)?);
    values.insert("x", Tensor::full(dtype, [steps, rows, 3], 0.5)?);
    Ok((tape, outputs, values))
}

/// How often the plan says that an instruction of this scan is called.
fn planned_calls(s: &ScanSummary, pass: Pass, step_by_step: bool) -> u64 {
    let passes = s.passes.iter().filter(|p| p.pass == pass);
    let calls: u64 = passes.map(|p| if step_by_step { p.steps } else { p.chunks }).sum();
    calls * s.tiles as u64
}

fn check_calls(s: &PlanSummary, p: &Profile, what: &str) {
    for line in p.lines.iter().filter(|l| l.instruction) {
        let calls = match (s.scans.iter().find(|x| x.item == line.item), line.pass) {
            (Some(scan), Some(pass)) => planned_calls(scan, pass, line.step_by_step),
            (None, None) => 1,
            other => panic!("{what}: {line:?} lies in {other:?}"),
        };
        assert_eq!(line.calls, calls, "{what}: {line:?}");
    }
    // Every call of the plan has its line: those of phases in the scan's own pass, in order.
    for scan in &s.scans {
        for phase in scan.phases.iter().filter(|p| p.name != "once") {
            let lines = p
                .lines
                .iter()
                .filter(|l| l.item == scan.item && l.pass == Some(Pass::Run) && l.phase == phase.name);
            let lines: Vec<_> = lines.map(|l| (&l.operations, &l.writes)).collect();
            let calls: Vec<_> = phase.calls.iter().map(|c| (&c.operations, &c.writes)).collect();
            assert_eq!(lines, calls, "{what}: {}", phase.name);
        }
    }
    let once = s.scans.iter().flat_map(|x| &x.phases).filter(|p| p.name == "once").flat_map(|p| &p.calls);
    let mut outside: Vec<_> = once.chain(&s.outside).map(|c| c.item).collect();
    outside.sort_unstable();
    let lines: Vec<_> =
        p.lines.iter().filter(|l| l.instruction && l.scan.is_none()).map(|l| l.item).collect();
    assert_eq!(lines, outside, "{what}");
}

fn check_times(p: &Profile, what: &str) {
    let busy: f64 = Work::ALL.into_iter().map(|work| p.seconds(work)).sum();
    assert!((busy - p.busy_seconds()).abs() <= 1e-9 * busy, "{what}");
    // Tallies are whole nanoseconds, as is the run's own time.
    assert!(busy <= p.thread_seconds() + 1e-6, "{what}: busy {busy} of {}", p.thread_seconds());
    assert!((busy + p.idle_seconds() - p.thread_seconds()).abs() <= 1e-6, "{what}");
    assert!(p.seconds(Work::Product) > 0.0 && p.seconds(Work::Pointwise) > 0.0, "{what}");
    assert!(p.lines.iter().all(|l| l.seconds >= 0.0 && l.flops >= 0.0 && l.bytes >= 0.0), "{what}");
}

#[test]
fn every_instruction_is_timed_and_nothing_else_changes() -> Result<()> {
    let _alone = ALONE.lock();
    for (dtype, steps, rows) in [(DType::F32, 150, 5), (DType::F64, 40, 37), (DType::C32, 130, 20)] {
        let (tape, outputs, values) = model(dtype, steps, rows)?;
        for threads in 1..=3 {
            let compile = |budget, profile| {
                let options = RunOptions { threads: Some(threads), budget, profile, ..RunOptions::default() };
                Program::new(&tape, &outputs, options)
            };
            let smallest = match compile(Some(1), false)?.plan(steps, rows) {
                Err(Error::Budget { smallest, .. }) => smallest,
                other => panic!("a budget of one byte: {other:?}"),
            };
            let most = compile(None, false)?.plan(steps, rows)?.peak_bytes();
            for budget in [None, Some(smallest), Some((smallest + most) / 2)] {
                let what = format!("{dtype} T={steps} N={rows} {threads} threads {budget:?}");
                let mut plain = compile(budget, false)?;
                let expected = plain.run(&[&values])?;
                assert!(plain.last_profile().is_none());
                let mut timed = compile(budget, true)?;
                let plan = timed.plan(steps, rows)?;
                assert_eq!(plan.peak_bytes(), plain.plan(steps, rows)?.peak_bytes(), "{what}");
                let got = timed.run(&[&values])?;
                assert_eq!(timed.last_peak_bytes(), plan.peak_bytes(), "{what}");
                assert!(got.iter().zip(&expected).all(|(a, b)| a.bit_eq(b)), "{what}");
                let profile = timed.last_profile().unwrap();
                assert_eq!((profile.steps, profile.rows, profile.threads), (steps, rows, threads));
                let summary = plan.summary();
                check_calls(&summary, profile, &what);
                check_times(profile, &what);
                if plan.segments().is_none() {
                    let (counted, planned) = (profile.flops(), plan.flops());
                    assert!((counted / planned - 1.0).abs() < 1e-9, "{what}: {counted} of {planned}");
                }
                timed.set_profile(false);
                timed.run(&[&values])?;
                assert!(timed.last_profile().is_none());
            }
        }
    }
    Ok(())
}

#[test]
fn calls_are_those_of_the_sizes() -> Result<()> {
    let _alone = ALONE.lock();
    let (steps, rows) = (150, 5);
    let (tape, outputs, values) = model(DType::F32, steps, rows)?;
    let options = RunOptions { threads: Some(2), profile: true, ..RunOptions::default() };
    let mut program = Program::new(&tape, &outputs, options)?;
    program.run(&[&values])?;
    let plan = program.plan(steps, rows)?;
    let summary = plan.summary();
    let profile = program.last_profile().unwrap();
    let forward = &summary.scans[0];
    let product =
        profile.lines.iter().find(|l| l.item == forward.item && l.step_by_step && l.operations == ["matmul"]);
    let product = product.unwrap();
    // One call for every step and tile: h [N,H] times w [H,H], single precision.
    assert_eq!(product.calls, (steps * forward.tiles) as u64);
    assert_eq!(product.flops, (2 * H * H * steps * rows) as f64);
    let bytes = 4 * (2 * H * steps * rows) + product.calls as usize * 4 * H * H;
    // The packed matrix is padded to whole vectors.
    assert!(product.bytes >= bytes as f64 && product.bytes <= 3.0 * bytes as f64, "{}", product.bytes);

    let text = profile.explain();
    for part in ["products", "pointwise", "idle", "carry", "matmul(", "outside the loops"] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    assert!(text.lines().all(|l| l.chars().count() <= 106), "{text}");
    assert_eq!(profile.explain_top(3).lines().count(), 4);
    let drawn = plan.svg_with(profile);
    assert!(roxmltree::Document::parse(&drawn).is_ok() && drawn.contains("Time of a run"));
    assert!(!plan.svg().contains("Time of a run"));
    Ok(())
}
