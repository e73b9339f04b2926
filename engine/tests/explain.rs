//! Plans explained: as numbers, as text, as a picture.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{mul, tanh};
use retrograd_engine::core_ops::{add, fill, sum_dims, sum_rows, sum_steps};
use retrograd_engine::cpu::Isa;
use retrograd_engine::plan::{MemoryKind, PhaseSummary, ScanRole, ScanSummary};
use retrograd_engine::{
    DType, Error, Plan, Program, Rates, Result, RunOptions, Scan, Shape, Tape, Ty, Var, grad, matmul,
};

/// A compiled model and what it computes.
struct Model {
    tape: Tape,
    outputs: Vec<Var>,
}

impl Model {
    fn plan(&self, steps: usize, rows: usize, budget: Option<usize>) -> Result<Plan> {
        let options = RunOptions { threads: Some(2), budget, ..RunOptions::default() };
        Program::new(&self.tape, &self.outputs, options)?.plan(steps, rows)
    }

    /// The smallest budget that works.
    fn smallest(&self, steps: usize, rows: usize) -> usize {
        match self.plan(steps, rows, Some(1)) {
            Err(Error::Budget { smallest, .. }) => smallest,
            other => panic!("a budget of one byte: {other:?}"),
        }
    }
}

/// The sum of a value over everything, and its gradients.
fn with_gradients(mut tape: Tape, value: Var, wrt: &[Var]) -> Result<Model> {
    let t = &mut tape;
    let mut v = value;
    if t.shape(v)?.lead.has_t() {
        v = sum_steps(t, v)?;
    }
    let v = sum_rows(t, v)?;
    let loss = sum_dims(t, v, &[])?;
    let bars = grad(t, loss, wrt)?;
    let outputs = [vec![loss], bars].concat();
    Ok(Model { tape, outputs })
}

retrograd_engine::state! {
    /// State of the gated unit.
    struct Gated {
        h,
        c,
    }
}

const C: usize = 6;
const H: usize = 16;

/// A gated unit with two states, two products, and a read-out at every step.
fn gated(dtype: DType, reverse: bool) -> Result<Model> {
    let mut tape = Tape::new();
    let t = &mut tape;
    let u = t.param("u", dtype, [C, H])?;
    let w = t.param("w", dtype, [H, H])?;
    let b = t.param("b", dtype, [H])?;
    let v = t.param("v", dtype, [H, 3])?;
    let x = t.input("x", dtype, Shape::sequence([C]))?;
    let zero = fill(t, Ty::new(dtype, Shape::rows([H])), 0.0)?;
    let start = Gated { h: zero, c: zero };
    let (_, y) = Scan::new().reverse(reverse).run(t, start, x, |t, s, x| {
        let (ux, wh) = (matmul(t, x, u)?, matmul(t, s.h, w)?);
        let z = add(t, ux, wh)?;
        let z = add(t, z, b)?;
        let g = tanh(t, z)?;
        t.label(g, "g <gate>");
        let c = mul(t, g, s.c)?;
        let c = add(t, c, g)?;
        let squashed = tanh(t, c)?;
        let h = mul(t, squashed, g)?;
        Ok((Gated { h, c }, matmul(t, h, v)?))
    })?;
    with_gradients(tape, y, &[u, w, b, v])
}

/// Two layers in one scan.
fn stack() -> Result<Model> {
    let mut tape = Tape::new();
    let t = &mut tape;
    let dtype = DType::F64;
    let u = t.param("u", dtype, [C, H])?;
    let w = t.param("w", dtype, [H, H])?;
    let up = t.param("up", dtype, [H, H])?;
    let w2 = t.param("w2", dtype, [H, H])?;
    let x = t.input("x", dtype, Shape::sequence([C]))?;
    let zero = fill(t, Ty::new(dtype, Shape::rows([H])), 0.0)?;
    let ((_, last), ()) = Scan::new().run(t, (zero, zero), x, |t, (a, b), x| {
        let (ux, wa) = (matmul(t, x, u)?, matmul(t, a, w)?);
        let z = add(t, ux, wa)?;
        let a = tanh(t, z)?;
        let (ua, wb) = (matmul(t, a, up)?, matmul(t, b, w2)?);
        let z = add(t, ua, wb)?;
        Ok(((a, tanh(t, z)?), ()))
    })?;
    with_gradients(tape, last, &[u, w, up, w2])
}

/// A complex linear recurrence; only the loss is asked for.
fn complex_forward() -> Result<Model> {
    let mut tape = Tape::new();
    let t = &mut tape;
    let w = t.param("w", DType::C32, [4, 4])?;
    let x = t.input("x", DType::C32, Shape::sequence([4]))?;
    let zero = fill(t, Ty::new(DType::C32, Shape::rows([4])), 0.0)?;
    let (h, ()) = Scan::new().run(t, zero, x, |t, h, x| {
        let wh = matmul(t, h, w)?;
        Ok((add(t, wh, x)?, ()))
    })?;
    Ok(Model { tape, outputs: vec![h] })
}

fn named(
    plans: &mut Vec<(String, Plan)>,
    name: &str,
    model: &Model,
    steps: usize,
    rows: usize,
) -> Result<()> {
    plans.push((format!("{name} T={steps} N={rows}"), model.plan(steps, rows, None)?));
    let Ok(most) = model.plan(steps, rows, None).map(|p| p.peak_bytes()) else { return Ok(()) };
    if model.outputs.len() > 1 && steps > 20 {
        let least = model.smallest(steps, rows);
        for part in 0..4 {
            let budget = least + (most - least) * part / 4;
            let plan = model.plan(steps, rows, Some(budget))?;
            plans.push((format!("{name} T={steps} N={rows} budget {budget}"), plan));
        }
    }
    Ok(())
}

fn all_plans() -> Result<Vec<(String, Plan)>> {
    let mut plans = Vec::new();
    let p = &mut plans;
    let (steps, rows) = (400, 5);
    named(p, "gated", &gated(DType::F32, false)?, steps, rows)?;
    named(p, "gated reverse", &gated(DType::F32, true)?, steps, rows)?;
    named(p, "stack", &stack()?, steps, rows)?;
    for (steps, rows) in [(0, 2), (1, 1), (7, 40)] {
        named(p, "gated", &gated(DType::F64, false)?, steps, rows)?;
        named(p, "complex", &complex_forward()?, steps, rows)?;
    }
    Ok(plans)
}

fn phase<'a>(s: &'a ScanSummary, name: &str) -> &'a PhaseSummary {
    let found = s.phases.iter().find(|p| p.name == name);
    found.unwrap_or_else(|| panic!("no phase {name} in {:?}", s.phases.iter().map(|p| &p.name)))
}

fn scan_of(plan: &Plan, role: ScanRole) -> ScanSummary {
    plan.summary().scans.into_iter().find(|s| s.role == role).unwrap()
}

#[test]
fn memory_adds_up_to_the_peak() -> Result<()> {
    for (name, plan) in all_plans()? {
        let s = plan.summary();
        let at_peak: usize = s.memory.iter().map(|l| l.at_peak).sum();
        assert_eq!(at_peak, plan.peak_bytes(), "{name}");
        assert_eq!(s.peak_bytes, s.arena_bytes + s.output_bytes, "{name}");
        assert!(s.memory.is_sorted_by_key(|l| l.kind), "{name}");
        for line in &s.memory {
            let alive = (line.items.0..=line.items.1).contains(&s.peak_item);
            let free = matches!(line.kind, MemoryKind::Gaps | MemoryKind::Outputs);
            assert_eq!(line.at_peak, if alive || free { line.bytes } else { 0 }, "{name}: {line:?}");
            assert!(line.items.0 <= line.items.1 && line.items.1 <= s.items, "{name}: {line:?}");
        }
        // Gaps are what placement wastes: little.
        let gaps: usize = s.memory.iter().filter(|l| l.kind == MemoryKind::Gaps).map(|l| l.bytes).sum();
        assert!(gaps * 10 <= s.arena_bytes, "{name}: {gaps} of {}", s.arena_bytes);
    }
    Ok(())
}

#[test]
fn recorded_bytes_are_those_of_the_values() -> Result<()> {
    let model = gated(DType::F32, false)?;
    let (steps, rows) = (400, 6);
    let whole = model.plan(steps, rows, None)?.summary();
    let of = |kind| whole.memory.iter().filter(move |l| l.kind == kind);
    // Six rows are two tiles of three: no padding but to 64 bytes for each tile.
    for line in of(MemoryKind::KeptStates) {
        let exact = (steps + 1) * rows * H * 4;
        assert_eq!(line.entry_bytes, H * 4);
        assert!((exact..=exact + 128).contains(&line.bytes), "{line:?}");
    }
    for line in of(MemoryKind::KeptValues) {
        assert_eq!(line.entry_bytes * steps * rows, line.bytes, "{line:?}");
    }
    assert_eq!(of(MemoryKind::Checkpoints).count(), 0);
    assert!(whole.replay.is_none());

    let plan = model.plan(steps, rows, Some(model.smallest(steps, rows) + 8192))?;
    let tight = plan.summary();
    let replay = tight.replay.clone().unwrap();
    assert_eq!(Some((replay.leaf, replay.slots)), plan.segments());
    assert_eq!(replay.segments, steps.div_ceil(replay.leaf));
    assert_eq!(replay.extra_forward_steps, plan.extra_forward_steps());
    for line in tight.memory.iter().filter(|l| l.kind == MemoryKind::Checkpoints) {
        let exact = replay.slots * rows * H * 4;
        assert!((exact..=exact + 128).contains(&line.bytes), "{line:?}");
    }
    Ok(())
}

#[test]
fn phases_are_told_apart() -> Result<()> {
    let plan = gated(DType::F32, false)?.plan(50, 4, None)?;
    let forward = scan_of(&plan, ScanRole::Forward);
    let names: Vec<&str> = forward.phases.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["once", "ahead", "carry", "after"]);
    let reads = |s: &ScanSummary, name: &str| -> Vec<String> {
        phase(s, name).calls.iter().flat_map(|c| c.reads.clone()).collect()
    };
    assert_eq!(reads(&forward, "ahead"), ["x", "u"]);
    assert_eq!(phase(&forward, "after").calls[0].reads, ["h", "v"]);
    assert!(reads(&forward, "carry").contains(&"w".to_string()));
    let once = phase(&forward, "once");
    for packed in ["packed u", "packed v", "packed w"] {
        assert!(once.calls.iter().any(|c| c.writes[0].starts_with(packed)), "{packed}: {once:?}");
    }
    for p in &forward.phases {
        assert_eq!(p.step_by_step, p.name == "carry");
    }
    // 2·C·H operations a row for the input, 2·H·H for the state.
    let product = |p: &PhaseSummary| p.calls.iter().find(|c| c.operations == ["matmul"]).unwrap().flops;
    assert_eq!(product(phase(&forward, "ahead")), (2 * C * H) as f64);
    assert_eq!(product(phase(&forward, "carry")), (2 * H * H) as f64);
    assert!(phase(&forward, "ahead").flops >= (4 * 2 * C * H) as f64);

    let adjoint = scan_of(&plan, ScanRole::Adjoint);
    let contractions = |name: &str| {
        let calls = &phase(&adjoint, name).calls;
        calls.iter().filter(|c| c.operations == ["row_contract"]).count()
    };
    // Weight gradients are deferred: that of the read-out needs no cotangent of the state.
    assert_eq!((contractions("ahead"), contractions("carry"), contractions("after")), (1, 0, 2));
    for s in [&forward, &adjoint] {
        let sum: f64 = s.phases.iter().filter(|p| p.name != "once").map(|p| p.flops).sum();
        let share: f64 = s.phases.iter().map(|p| p.share).sum();
        assert!((sum - s.step_flops).abs() <= 1e-9 * sum && (share - 1.0).abs() < 1e-9);
    }
    Ok(())
}

#[test]
fn a_stack_has_a_loop_for_each_layer() -> Result<()> {
    let plan = stack()?.plan(50, 4, None)?;
    let forward = scan_of(&plan, ScanRole::Forward);
    let names: Vec<&str> = forward.phases.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["once", "ahead", "loop 1", "between 1 and 2", "loop 2"]);
    let between = phase(&forward, "between 1 and 2");
    assert_eq!(between.calls[0].reads, ["state.0", "up"]);
    assert!(!between.step_by_step && phase(&forward, "loop 2").step_by_step);
    let adjoint = scan_of(&plan, ScanRole::Adjoint);
    assert!(phase(&adjoint, "between 1 and 2").calls.iter().any(|c| c.reads.contains(&"upᵀ".to_string())));
    Ok(())
}

#[test]
fn kept_and_rebuilt_have_names() -> Result<()> {
    let model = gated(DType::F32, false)?;
    let plan = model.plan(400, 5, None)?;
    let forward = scan_of(&plan, ScanRole::Forward);
    assert_eq!(forward.kept[..2], ["h", "c"]);
    assert_eq!(forward.kept[2..], ["g <gate>"]);
    let adjoint = scan_of(&plan, ScanRole::Adjoint);
    assert_eq!(adjoint.rebuilt, ["test_tanh"]);
    let text = plan.explain();
    for part in ["kept      h, c, g <gate>", "rebuilt   test_tanh", "kept values: g <gate>"] {
        assert!(text.contains(part), "{part}:\n{text}");
    }

    // One byte less on a machine that computes faster than it remembers, and only states are kept.
    let budget = Some(plan.peak_bytes() - 1);
    let rates = Some(Rates::typical(Isa::detect()).with("memory=1e6,near=1e6,cache=1")?);
    let options = RunOptions { budget, rates, threads: Some(2), ..RunOptions::default() };
    let states = Program::new(&model.tape, &model.outputs, options)?.plan(400, 5)?;
    assert!(states.rebuilds_everything());
    assert_eq!(scan_of(&states, ScanRole::Forward).kept, ["h", "c"]);
    let rebuilt = scan_of(&states, ScanRole::Adjoint).rebuilt;
    assert!(rebuilt.contains(&"matmul".to_string()) && rebuilt.contains(&"g <gate>".to_string()));
    assert!(states.explain().contains("(only states are kept)"));
    Ok(())
}

#[test]
fn without_a_budget_less_is_recorded_where_that_is_expected_to_take_no_longer() -> Result<()> {
    let model = gated(DType::F32, false)?;
    let plan = |rates: &str| -> Result<Plan> {
        let rates = Some(Rates::typical(Isa::detect()).with(rates)?);
        let options = RunOptions { rates, threads: Some(2), ..RunOptions::default() };
        Program::new(&model.tape, &model.outputs, options)?.plan(4000, 5)
    };
    // All is in a cache; memory is as fast as a cache; memory is slow, and the shared cache has room for a part.
    let caches = ["memory=1e7,shared=1e12", "memory=1e18,near=1e18,cache=1,shared=1"];
    let [held, fast] = [plan(caches[0])?, plan(caches[1])?];
    let slow = plan("memory=1e7,near=1e18,cache=1,shared=65536")?;
    assert_eq!(held.peak_bytes(), fast.peak_bytes());
    assert!(held.summary().replay.is_none() && fast.summary().replay.is_none());
    assert!(2 * slow.peak_bytes() <= held.peak_bytes(), "{} and {}", slow.peak_bytes(), held.peak_bytes());
    assert!(slow.summary().replay.is_some_and(|r| r.extra_forward_steps > 0));
    Ok(())
}

#[test]
fn replaying_costs_what_it_says() -> Result<()> {
    let model = gated(DType::F32, false)?;
    let (steps, rows) = (400, 5);
    let whole = model.plan(steps, rows, None)?;
    assert_eq!(whole.summary().slowdown, 1.0);
    assert!(whole.explain().contains("replayed  nothing"));
    let tight = model.plan(steps, rows, Some(model.smallest(steps, rows)))?;
    let s = tight.summary();
    assert!((s.slowdown - tight.flops() / whole.flops()).abs() < 1e-9 && s.slowdown > 1.0);
    let replayed: f64 = s.scans.iter().map(|s| s.replay_flops).sum();
    let passes: f64 = s.scans.iter().map(|s| s.step_flops * steps as f64).sum();
    let around: f64 =
        s.scans.iter().flat_map(|s| &s.phases).filter(|p| p.name == "once").map(|p| p.flops).sum();
    let outside: f64 = s.outside.iter().map(|c| c.total_flops).sum();
    let sum = replayed + passes + around + outside;
    assert!((sum - tight.flops()).abs() <= 1e-9 * sum, "{sum} {}", tight.flops());
    let text = tight.explain();
    let replay = s.replay.unwrap();
    for part in [
        format!("{} segments of {} steps", replay.segments, replay.leaf),
        format!("{:.2} times those of the plan without a budget", s.slowdown),
        "of replayed forward steps in the run".into(),
    ] {
        assert!(text.contains(&part), "{part}:\n{text}");
    }
    Ok(())
}

#[test]
fn text_is_complete_narrow_and_stable() -> Result<()> {
    for (name, plan) in all_plans()? {
        let (text, s) = (plan.explain(), plan.summary());
        for line in text.lines() {
            assert!(line.chars().count() < 110, "{name}: {line}");
            assert_eq!(line, line.trim_end(), "{name}");
        }
        for line in &s.memory {
            assert!(text.contains(line.kind.name()), "{name}: {}\n{text}", line.kind.name());
        }
        for scan in &s.scans {
            assert!(text.contains(&format!("{} (item {})", scan.label, scan.item)), "{name}\n{text}");
            for p in &scan.phases {
                assert!(text.contains(&format!("  {}: ", p.name)), "{name}: {}\n{text}", p.name);
            }
        }
        assert_eq!(text, plan.explain(), "{name}");
    }
    // Compiled again, from scratch.
    let explain = || -> Result<_> { Ok(gated(DType::F32, false)?.plan(60, 3, None)?.explain()) };
    assert_eq!(explain()?, explain()?);
    Ok(())
}

/// All text of a picture.
fn labels(svg: &str) -> String {
    let document = roxmltree::Document::parse(svg).unwrap();
    let root = document.root_element();
    assert_eq!(root.tag_name().name(), "svg");
    assert!(document.descendants().filter(|n| n.is_element()).all(|n| !n.has_attribute("href")));
    let texts = document.descendants().filter(|n| n.has_tag_name(("http://www.w3.org/2000/svg", "text")));
    texts.filter_map(|n| n.text()).collect::<Vec<_>>().join("\n")
}

/// Numbers of an attribute of all elements of a kind.
fn numbers(svg: &str, tag: &str, attribute: &str) -> Vec<f64> {
    let document = roxmltree::Document::parse(svg).unwrap();
    let elements = document.descendants().filter(|n| n.tag_name().name() == tag);
    elements.filter_map(|n| n.attribute(attribute)?.parse().ok()).collect()
}

#[test]
fn pictures_are_xml_with_every_phase() -> Result<()> {
    for (name, plan) in all_plans()? {
        let svg = plan.svg();
        let text = labels(&svg);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{name}");
        for scan in plan.summary().scans {
            assert!(text.contains(&scan.label), "{name}: {}\n{text}", scan.label);
            for value in scan.kept {
                assert!(text.contains(&value), "{name}: {value}\n{text}");
            }
            for p in &scan.phases {
                assert!(text.contains(&p.name), "{name}: {}\n{text}", p.name);
            }
        }
        assert!(text.contains("peak "), "{name}");
        assert_eq!(text.contains("budget "), plan.summary().budget.is_some(), "{name}");
        for x in numbers(&svg, "rect", "x").into_iter().chain(numbers(&svg, "line", "x2")) {
            assert!((0.0..=1200.0).contains(&x), "{name}: x {x}");
        }
    }
    Ok(())
}

#[test]
fn a_replayed_plan_is_drawn_with_its_checkpoints() -> Result<()> {
    let model = gated(DType::F32, false)?;
    let (steps, rows) = (2000, 5);
    let dots = |plan: &Plan| numbers(&plan.svg(), "circle", "r").len();
    assert_eq!(dots(&model.plan(steps, rows, None)?), 0);
    let plan = model.plan(steps, rows, Some(model.smallest(steps, rows) + 2048))?;
    let replay = plan.summary().replay.unwrap();
    let drawn = dots(&plan);
    assert!(drawn >= replay.slots && drawn < 4000, "{drawn} dots for {replay:?}");
    assert!(labels(&plan.svg()).contains("checkpoint, and for how long it is held"));
    Ok(())
}

#[test]
fn long_runs_are_drawn_with_few_strokes() -> Result<()> {
    let model = gated(DType::F32, false)?;
    let (steps, rows) = (200_000, 1);
    let plan = model.plan(steps, rows, Some(model.smallest(steps, rows) + (64 << 10)))?;
    let svg = plan.svg();
    assert!(plan.summary().replay.unwrap().segments > 1000);
    assert!(svg.len() < 2 << 20, "{} bytes", svg.len());
    labels(&svg);
    Ok(())
}
