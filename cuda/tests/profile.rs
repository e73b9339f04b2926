//! Profiles of runs on a device: every launch is part of a line, the lines have the operations of the plan and of the
//! processor's profile, and results have the same bits.
#![allow(clippy::unwrap_used, clippy::panic)]

mod on_device;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use on_device::{numbers, on, profiled, sum_all};
use retrograd_cuda::Gpu;
use retrograd_engine::core_ops::add;
use retrograd_engine::device::{Device, Resident};
use retrograd_engine::profile::{Pass, Profile, Work};
use retrograd_engine::{
    DType, Params, Plan, Program, RunOptions, Shape, Stream, Tape, Tensor, Var, grad, matmul, scan,
};
use retrograd_ops as ops;

/// `h' = tanh(h w + x u)`, on request with a product of all states outside the loop: a loss, and its gradients.
fn recorded(dtype: DType, size: usize, outside: bool) -> (Tape, Vec<Var>) {
    let mut tape = Tape::new();
    let x = tape.input("x", dtype, Shape::sequence([3])).unwrap();
    let w = tape.param("w", dtype, [size, size]).unwrap();
    let u = tape.param("u", dtype, [3, size]).unwrap();
    let h0 = tape.param("h0", dtype, [size]).unwrap();
    let (last, all) = scan(&mut tape, h0, x, |tape, h, x| {
        let (wh, ux) = (matmul(tape, h, w)?, matmul(tape, x, u)?);
        let y = add(tape, wh, ux)?;
        let h = ops::tanh(tape, y)?;
        Ok((h, if outside { h } else { ops::abs2(tape, h)? }))
    })
    .unwrap();
    let read = if outside { matmul(&mut tape, all, w).unwrap() } else { all };
    let square = if outside { ops::abs2(&mut tape, read).unwrap() } else { read };
    let (a, b) = (sum_all(&mut tape, square).unwrap(), sum_all(&mut tape, last).unwrap());
    let loss = add(&mut tape, a, b).unwrap();
    let bars = grad(&mut tape, loss, &[w, u, h0]).unwrap();
    (tape, std::iter::once(loss).chain(bars).collect())
}

fn values(dtype: DType, size: usize, (steps, rows): (usize, usize)) -> (Params, Params) {
    let (mut params, mut batch) = (Params::new(), Params::new());
    params.insert("w", numbers(dtype, &[size, size], 1));
    params.insert("u", numbers(dtype, &[3, size], 2));
    params.insert("h0", numbers(dtype, &[size], 3));
    batch.insert("x", numbers(dtype, &[steps, rows, 3], 4));
    (params, batch)
}

fn same(a: &[Tensor], b: &[Tensor]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.bit_eq(b))
}

/// A form of a scan's step: the scan's number, and whether only states are kept, which makes other steps.
type Form = (bool, usize, Pass);

/// Operations of each form in a profile, and how many steps the plan says that it runs.
fn forms(plan: &Plan, profile: &Profile) -> Vec<(Form, f64, u64)> {
    let summary = plan.summary();
    let mut found = Vec::new();
    for (number, scan) in summary.scans.iter().enumerate() {
        for pass in &scan.passes {
            let of = profile.lines.iter().filter(|l| l.item == scan.item && l.pass == Some(pass.pass));
            let flops = of.map(|l| l.flops).sum();
            found.push(((plan.rebuilds_everything(), number, pass.pass), flops, pass.steps));
        }
    }
    found
}

/// Operations a step of every form that plans of the processor have, by its profiles.
fn on_the_processor(
    (tape, outputs): &(Tape, Vec<Var>),
    values: &[&Params],
    (steps, rows): (usize, usize),
) -> HashMap<Form, f64> {
    let options = RunOptions { threads: Some(1), profile: true, ..RunOptions::default() };
    let mut program = Program::new(tape, outputs, options).unwrap();
    let mut each = HashMap::new();
    for plan in program.tradeoff(steps, rows, 8).unwrap() {
        program.set_budget(Some(plan.peak_bytes()));
        let plan = program.plan(steps, rows).unwrap();
        program.run(values).unwrap();
        for (form, flops, steps) in forms(&plan, program.last_profile().unwrap()) {
            each.insert(form, flops / steps as f64);
        }
    }
    each
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * b.abs()
}

/// A line that starts like this, outside the loops.
fn line<'p>(profile: &'p Profile, text: &str) -> Option<&'p retrograd_engine::profile::ProfileLine> {
    profile.lines.iter().find(|l| l.scan.is_none() && l.text().starts_with(text))
}

/// Plans from the smallest budget to none.
fn check_plans(gpu: &Gpu, dtype: DType, size: usize, extent: (usize, usize)) {
    let device: Arc<dyn Device> = Arc::new(gpu.clone());
    let recorded = recorded(dtype, size, false);
    let (params, batch) = values(dtype, size, extent);
    let values = [&params, &batch];
    let here = on_the_processor(&recorded, &values, extent);
    let mut program = Program::new(&recorded.0, &recorded.1, on(&device, None)).unwrap();
    let expected = program.run(&values).unwrap();
    assert!(program.last_profile().is_none());
    let mut compared: Vec<Pass> = Vec::new();
    let plans = program.tradeoff(extent.0, extent.1, 4).unwrap();
    for budget in plans.iter().map(|plan| Some(plan.peak_bytes())).chain([None]) {
        program.set_budget(budget);
        let plan = program.plan(extent.0, extent.1).unwrap();
        let what = format!("{dtype} {extent:?} within {budget:?}");
        let profile = profiled(gpu, &mut program, &values, &expected, &what);
        assert_eq!((profile.steps, profile.rows, profile.threads), (extent.0, extent.1, 1), "{what}");
        assert_eq!(profile.device.as_deref(), Some(gpu.describe().name.as_str()), "{what}");
        // A program that has not run before lists its launches.
        assert!(line(&profile, "list launches").is_some(), "{what}");
        if plan.segments().is_none() {
            assert!(near(profile.flops(), plan.flops()), "{what}: {} of {}", profile.flops(), plan.flops());
        }
        for (form, flops, steps) in forms(&plan, &profile) {
            assert!(flops > 0.0, "{what}: {form:?}");
            if let Some(each) = here.get(&form) {
                assert!(
                    near(flops / steps as f64, *each),
                    "{what}: {form:?}: {flops} in {steps} steps, {each}"
                );
                compared.push(form.2);
            }
        }
        // Every form is one kernel of each scan.
        let summary = plan.summary();
        for scan in &summary.scans {
            let of = profile.lines.iter().filter(|l| l.item == scan.item);
            let passes: Vec<Pass> = of.clone().filter_map(|l| l.pass).collect();
            let planned: Vec<Pass> = scan.passes.iter().map(|p| p.pass).collect();
            assert_eq!(passes, planned, "{what}: {}", scan.label);
            let kernels = of.filter(|l| l.pass.is_some());
            assert!(
                kernels.clone().all(|l| l.phase == "steps" && l.step_by_step && !l.instruction),
                "{what}"
            );
            assert!(kernels.clone().all(|l| l.work == Work::Product && l.bytes > 0.0), "{what}");
        }
        let marks = profile.lines.iter().filter(|l| l.text() == "store and restore states");
        assert_eq!(marks.count() > 0, summary.replay.is_some(), "{what}");
        // Again, now that everything is there.
        let profile = profiled(gpu, &mut program, &values, &expected, &what);
        assert!(line(&profile, "list launches").is_none(), "{what}");
        let copied = line(&profile, "copy values to the device").unwrap();
        assert_eq!(copied.bytes, 2.0 * batch.get("x").unwrap().as_bytes().len() as f64, "{what}");
        assert!(line(&profile, "copy outputs from the device").unwrap().bytes > 0.0, "{what}");
        program.run(&values).unwrap();
        assert!(program.last_profile().is_none(), "{what}");
    }
    for pass in [Pass::Run, Pass::Sweep, Pass::Advance, Pass::Record] {
        assert!(compared.contains(&pass), "{dtype} {extent:?}: no plan of both had {}", pass.name());
    }
}

#[test]
fn every_launch_has_its_line_under_every_plan() {
    let _alone = on_device::alone();
    let gpu = on_device::gpu();
    check_plans(&gpu, DType::F32, 6, (150, 5));
    check_plans(&gpu, DType::F64, 5, (170, 9));
}

/// Teams: some of the tiles at a time.
#[test]
fn launches_of_teams() {
    let _alone = on_device::alone();
    let gpu = Gpu::emulated_as(1 << 10, 8);
    let device: Arc<dyn Device> = Arc::new(gpu.clone());
    let (recorded, extent) = (recorded(DType::F32, 24, false), (12, 41));
    let (params, batch) = values(DType::F32, 24, extent);
    let mut program = Program::new(&recorded.0, &recorded.1, on(&device, None)).unwrap();
    let plan = program.plan(extent.0, extent.1).unwrap();
    let summary = plan.summary();
    let expected = program.run(&[&params, &batch]).unwrap();
    let profile = profiled(&gpu, &mut program, &[&params, &batch], &expected, "teams");
    assert!(near(profile.flops(), plan.flops()), "{} of {}", profile.flops(), plan.flops());
    for scan in &summary.scans {
        assert!(scan.team > 1 && scan.tiles * scan.team > 8, "{} teams of {}", scan.tiles, scan.team);
        let run = profile.lines.iter().find(|l| l.item == scan.item && l.pass == Some(Pass::Run)).unwrap();
        assert_eq!(run.calls, scan.tiles.div_ceil(8 / scan.team) as u64, "{}", scan.label);
    }
}

/// Outside the loops a call is an instruction, with the operations of the processor's, and a sum has its parts put together.
#[test]
fn calls_outside_the_loops_are_instructions() {
    let _alone = on_device::alone();
    let gpu = on_device::gpu();
    let device: Arc<dyn Device> = Arc::new(gpu.clone());
    let (recorded, extent) = (recorded(DType::F32, 6, true), (70, 5));
    let (params, batch) = values(DType::F32, 6, extent);
    let mut program = Program::new(&recorded.0, &recorded.1, on(&device, None)).unwrap();
    let expected = program.run(&[&params, &batch]).unwrap();
    let profile = profiled(&gpu, &mut program, &[&params, &batch], &expected, "outside");
    let options = RunOptions { threads: Some(1), profile: true, ..RunOptions::default() };
    let mut here = Program::new(&recorded.0, &recorded.1, options).unwrap();
    here.run(&[&params, &batch]).unwrap();
    let lines = |p: &Profile| -> Vec<(Vec<String>, f64, u64)> {
        let outside = p.lines.iter().filter(|l| l.instruction && l.scan.is_none());
        outside.map(|l| (l.operations.clone(), l.flops, l.calls)).collect()
    };
    assert_eq!(lines(&profile), lines(here.last_profile().unwrap()));
    assert!(line(&profile, "matmul(").is_some_and(|l| l.work == Work::Product && l.calls == 1));
    assert!(line(&profile, "add parts of ").is_some_and(|l| !l.instruction && l.bytes > 0.0));

    let text = profile.explain();
    for part in
        ["the run", "outside the loops", "  steps: kernel of", "matmul(", "idle", &gpu.describe().name]
    {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    assert!(text.lines().all(|l| l.chars().count() <= 106), "{text}");
    let top = profile.explain_top(3);
    assert_eq!(top.lines().count(), 4, "{top}");
    let plan = program.plan(extent.0, extent.1).unwrap();
    assert!(plan.svg_with(&profile).contains("Time of a run"));
}

/// Values that are on the device already are not copied, and outputs that stay neither.
#[test]
fn values_that_stay() {
    let _alone = on_device::alone();
    let gpu = on_device::gpu();
    let device: Arc<dyn Device> = Arc::new(gpu.clone());
    let (recorded, extent) = (recorded(DType::F64, 4, true), (9, 3));
    let (params, batch) = values(DType::F64, 4, extent);
    let options = RunOptions { profile: true, ..on(&device, None) };
    let mut program = Program::new(&recorded.0, &recorded.1, options).unwrap();
    let bytes = |p: &Params| p.iter().map(|(_, t)| t.as_bytes().len()).sum::<usize>() as f64;
    let moved = |program: &Program| {
        let profile = program.last_profile().unwrap();
        ["copy values to", "copy outputs from"].map(|text| line(profile, text).unwrap().bytes)
    };
    let outputs = program.run(&[&params, &batch]).unwrap();
    let out = |outputs: &[Tensor]| outputs.iter().map(|t| 2.0 * t.as_bytes().len() as f64).sum::<f64>();
    assert_eq!(moved(&program), [2.0 * (bytes(&params) + bytes(&batch)), out(&outputs)]);
    let held = Resident::of(&device, &params).unwrap();
    let (some, left) = program.run_with(&held, &[&batch], 1).unwrap();
    assert_eq!((some.len(), left.len()), (1, 3));
    assert_eq!(moved(&program), [2.0 * bytes(&batch), out(&some)]);
}

/// Sequences that arrive piece by piece are not profiled, as on the processor.
#[test]
fn streams_leave_none() {
    let _alone = on_device::alone();
    let device: Arc<dyn Device> = Arc::new(on_device::gpu());
    let mut tape = Tape::new();
    let t = &mut tape;
    let x = t.input("x", DType::F64, Shape::sequence([3])).unwrap();
    let h0 = t.param("h0", DType::F64, [3]).unwrap();
    let step = |t: &mut Tape, h: Var, x: Var| {
        let h = add(t, h, x)?;
        Ok((ops::tanh(t, h)?, ()))
    };
    let (last, ()) = scan(t, h0, x, step).unwrap();
    let loss = sum_all(t, last).unwrap();
    let outputs = [loss, grad(t, loss, &[h0]).unwrap()[0]];
    let (params, batch) = values(DType::F64, 3, (9, 2));
    for device in [None, Some(device)] {
        let options = RunOptions { profile: true, device, ..RunOptions::default() };
        let mut program = Program::new(&tape, &outputs, options).unwrap();
        let whole = program.run(&[&params, &batch]).unwrap();
        assert!(program.last_profile().is_some());
        let mut read = |from: usize, most: usize| {
            let steps = 9usize.saturating_sub(from).min(most);
            let mut piece = Params::new();
            piece.insert("x", numbers(DType::F64, &[steps, 2, 3], 4));
            Ok((steps > 0).then_some(piece))
        };
        let stream = Stream { segment: 64, checkpoints: 2 };
        let streamed = program.run_stream(&[&params], &mut read, &stream).unwrap();
        assert!(same(&streamed.outputs, &whole));
        assert!(program.last_profile().is_none());
    }
}

/// A run with a clock changes nothing for those before and after it, which are graphs from the second on.
#[test]
fn runs_around_it_stay_graphs() {
    let _alone = on_device::alone();
    let gpu = on_device::gpu();
    let device: Arc<dyn Device> = Arc::new(gpu.clone());
    let (recorded, extent) = (recorded(DType::F32, 6, false), (20, 5));
    let (params, batch) = values(DType::F32, 6, extent);
    let mut program = Program::new(&recorded.0, &recorded.1, on(&device, None)).unwrap();
    let mut first: Option<Vec<Tensor>> = None;
    let waits = std::env::var_os("RETROGRAD_LAUNCHES_WAIT").is_some_and(|v| v == "1");
    let graphs = on_device::REAL.load(Relaxed) && !waits;
    for (run, profile) in [true, false, false, true, false].into_iter().enumerate() {
        let before = gpu.graphs();
        program.set_profile(profile);
        let got = program.run(&[&params, &batch]).unwrap();
        assert_eq!(program.last_profile().is_some(), profile, "run {run}");
        assert!(same(&got, first.get_or_insert(got.clone())), "run {run}");
        assert_eq!(gpu.graphs() > before, graphs && !profile && run > 1, "run {run}");
    }
}

#[test]
#[ignore = "needs a CUDA device"]
fn profiles_on_a_device() {
    on_device::REAL.store(true, Relaxed);
    every_launch_has_its_line_under_every_plan();
    calls_outside_the_loops_are_instructions();
    values_that_stay();
    streams_leave_none();
    runs_around_it_stay_graphs();
}
