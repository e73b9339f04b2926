//! A plan in numbers.

use super::work::{self, Cut, Size};
use super::{Plan, ledger, names, passes};
use crate::plan::ir::{Call, Instr, Operand};
use crate::plan::outer::{Item, Outer, Role, ScanItem, touched};
use crate::plan::step::Stage;
use crate::profile::Pass;
use crate::stash::Stash;

/// A plan in numbers, as plain data: everything [`Plan::explain`] says.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PlanSummary {
    /// Steps `T`.
    pub steps: usize,
    /// Rows `N`.
    pub rows: usize,
    /// Threads.
    pub threads: usize,
    /// Instruction set of the kernels.
    pub isa: &'static str,
    /// Most bytes allowed.
    pub budget: Option<usize>,
    /// Most bytes allocated at once: `arena_bytes` and `output_bytes`.
    pub peak_bytes: usize,
    /// Bytes of the arena, allocated once for the whole run.
    pub arena_bytes: usize,
    /// Bytes of the tensors returned.
    pub output_bytes: usize,
    /// Where the bytes go, by kind. What is in use at the peak sums to `peak_bytes`.
    pub memory: Vec<MemoryLine>,
    /// The item during which most bytes of the arena are in use.
    pub peak_item: usize,
    /// Items of the program: calls and scans, in the order they run.
    pub items: usize,
    /// How segments are replayed; `None` if whole sequences are recorded.
    pub replay: Option<ReplaySummary>,
    /// States that are walked back to instead of kept.
    pub walks: Vec<WalkSummary>,
    /// Whether only states are kept and every other value is rebuilt from them.
    pub rebuilds_everything: bool,
    /// In which precision values are kept.
    pub stash: Stash,
    /// Floating-point operations of the run, replays included.
    pub flops: f64,
    /// `flops` over those of the plan without a budget.
    pub slowdown: f64,
    /// Loops over time, in the order they run.
    pub scans: Vec<ScanSummary>,
    /// Calls outside the loops that are not in the phase *once* of a scan.
    pub outside: Vec<CallSummary>,
}

/// What bytes are used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemoryKind {
    /// States of a recorded segment.
    KeptStates,
    /// Other values of a recorded segment that the adjoint reads.
    KeptValues,
    /// States from which segments are replayed.
    Checkpoints,
    /// Working memory of the threads: values of a chunk, present states, scratch.
    Workspaces,
    /// Sums over time of each tile: gradients of parameters.
    Sums,
    /// Values outside the loops.
    OuterValues,
    /// Bytes of the arena that nothing uses at the peak.
    Gaps,
    /// Tensors returned.
    Outputs,
}

impl MemoryKind {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            MemoryKind::KeptStates => "kept states",
            MemoryKind::KeptValues => "kept values",
            MemoryKind::Checkpoints => "checkpoints",
            MemoryKind::Workspaces => "workspaces",
            MemoryKind::Sums => "sums of tiles",
            MemoryKind::OuterValues => "values outside",
            MemoryKind::Gaps => "gaps",
            MemoryKind::Outputs => "outputs",
        }
    }
}

/// A block of memory.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct MemoryLine {
    /// What for.
    pub kind: MemoryKind,
    /// Name of the value, or what else it is.
    pub name: String,
    /// Bytes for one step and row; 0 for what does not have both.
    pub entry_bytes: usize,
    /// Bytes.
    pub bytes: usize,
    /// The bytes, if the block is alive at the peak; else 0.
    pub at_peak: usize,
    /// First and last item during which it is alive; the number of items stands for the end of the run.
    pub items: (usize, usize),
}

/// How segments are replayed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReplaySummary {
    /// Segments of the sequence.
    pub segments: usize,
    /// Steps of a segment.
    pub leaf: usize,
    /// Slots for states to start from.
    pub slots: usize,
    /// Most often that one segment is advanced over without recording it.
    pub repetitions: usize,
    /// Steps of forward work beyond one pass.
    pub extra_forward_steps: u64,
}

/// How the states of a scan are walked back to.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct WalkSummary {
    /// Their names.
    pub states: Vec<String>,
    /// Steps between those that are kept.
    pub every: usize,
    /// Most by which a step back enlarges an error of the state.
    pub expansion: f64,
    /// Roundings of a step back.
    pub roundings: f64,
    /// What a state is off at most, relative to the largest entry of the states.
    pub bound: f64,
}

/// How a scan takes part in keeping and replaying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanRole {
    /// Keeps nothing for an adjoint.
    Plain,
    /// Records for its adjoint.
    Forward,
    /// Walks back over what a forward scan recorded.
    Adjoint,
}

/// A loop over time.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ScanSummary {
    /// Number of the item.
    pub item: usize,
    /// What it is called.
    pub label: String,
    /// Its part in keeping and replaying.
    pub role: ScanRole,
    /// Whether it walks from the last step to the first.
    pub reverse: bool,
    /// Tiles that the rows are split into.
    pub tiles: usize,
    /// Rows of the largest tile.
    pub tile_rows: usize,
    /// Steps of a chunk.
    pub chunk: usize,
    /// Threads that share every call; 1 where each takes tiles of its own.
    pub members: usize,
    /// Blocks of a device that share a tile; 1 where each has tiles of its own, and on the processor.
    pub team: usize,
    /// Values kept for the adjoint, by a forward scan: states, then others.
    pub kept: Vec<String>,
    /// Values of the forward step that an adjoint computes again.
    pub rebuilt: Vec<String>,
    /// How often each form of the step runs, for every tile.
    pub passes: Vec<PassSummary>,
    /// Phases in order; the phase *once* first, if there is any.
    pub phases: Vec<PhaseSummary>,
    /// Operations of a step for all rows, without the phase *once*.
    pub step_flops: f64,
    /// Operations of the forward steps that it replays, in the whole run.
    pub replay_flops: f64,
}

/// How often a form of a scan's step runs, for every tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PassSummary {
    /// The form.
    pub pass: Pass,
    /// Steps, counted as often as they run: calls of what runs step by step.
    pub steps: u64,
    /// Chunks: calls of what runs for a chunk at once.
    pub chunks: u64,
}

/// A phase of a scan.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PhaseSummary {
    /// `once`, `ahead`, `carry`, `after`; with several loops `loop 1`, `between 1 and 2`, `loop 2`, ...; without
    /// any, `all at once`.
    pub name: String,
    /// Whether it runs step by step; else a chunk of steps (or, for `once`, everything) at once.
    pub step_by_step: bool,
    /// Operations for all rows: of a step, or of the run for `once`.
    pub flops: f64,
    /// Share of the operations of a step; 0 for `once`.
    pub share: f64,
    /// Kernel calls.
    pub calls: Vec<CallSummary>,
}

/// A kernel call.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CallSummary {
    /// Number of the item of the program it is, or is part of.
    pub item: usize,
    /// Operations, in order; several if they are fused.
    pub operations: Vec<String>,
    /// Values read.
    pub reads: Vec<String>,
    /// Values written, as `name[width]`.
    pub writes: Vec<String>,
    /// Whether it runs for every step.
    pub every_step: bool,
    /// Whether it runs for every row.
    pub every_row: bool,
    /// Operations of one entry: of a step and row, as far as it runs for each.
    pub flops: f64,
    /// Bytes of one entry read and written.
    pub bytes: usize,
    /// Bytes beside it that all rows share: weights, sums.
    pub shared_bytes: usize,
    /// Operations in the whole run, or in one pass over all steps.
    pub total_flops: f64,
}

/// Bytes of one entry: its own, and those that the rows share.
fn bytes(
    call: &Call,
    dtype: &dyn Fn(&Operand) -> crate::DType,
    rows: &dyn Fn(&Operand) -> bool,
) -> (usize, usize) {
    let (mut own, mut shared) = (0, 0);
    let mut add = |o: &Operand, size: usize| {
        let to = if call.over.rows && !rows(o) { &mut shared } else { &mut own };
        *to += o.width() * size;
    };
    match &call.instr {
        // Planes of a complex value are operands of their own.
        Instr::Pointwise { ins, outs, .. } => {
            ins.iter()
                .map(|(o, ..)| o)
                .chain(outs.iter().map(|(o, _)| o))
                .for_each(|o| add(o, dtype(o).real().size()));
        }
        instr => instr.reads().into_iter().chain(instr.writes()).for_each(|o| add(o, dtype(o).size())),
    }
    (own, shared)
}

pub(crate) fn call(
    item: usize,
    call: &Call,
    bufs: &[crate::plan::ir::Buf],
    labels: &[String],
    total: f64,
) -> CallSummary {
    let operations = match &call.instr {
        Instr::Pointwise { names, .. } => names.iter().map(|n| n.to_string()).collect(),
        instr => vec![instr.name()],
    };
    let (bytes, shared_bytes) = bytes(call, &|o| bufs[o.buf].dtype, &|o| bufs[o.buf].lead.has_n());
    CallSummary {
        item,
        operations,
        reads: names::plain(&call.instr.reads(), labels),
        writes: names::operands(&call.instr.writes(), labels, &|b| bufs[b].width),
        every_step: call.over.steps,
        every_row: call.over.rows,
        flops: call.flops,
        bytes,
        shared_bytes,
        total_flops: total,
    }
}

/// For each call of the outer program that belongs to the phase *once* of a scan, that scan's item: calls that
/// depend on no scan, do not run over time, and feed scans only.
fn once(outer: &Outer) -> Vec<Option<usize>> {
    let n = outer.items.len();
    let reads = |item: &Item| -> Vec<usize> {
        match item {
            Item::Call(c) => c.instr.reads().iter().map(|o| o.buf).collect(),
            Item::Scan(s) => {
                let replayed = s.replay.iter().flat_map(|r| r.inputs.values().chain(r.packs.values()));
                s.inputs.values().chain(s.packs.values()).chain(replayed).map(|o| o.buf).collect()
            }
        }
    };
    let mut from_scan = vec![false; outer.bufs.len()];
    let mut depends = vec![false; n];
    for (i, item) in outer.items.iter().enumerate() {
        depends[i] = matches!(item, Item::Scan(_)) || reads(item).iter().any(|&b| from_scan[b]);
        if depends[i] {
            let scan_inputs = reads(item);
            for o in touched(item) {
                from_scan[o.buf] |= matches!(item, Item::Call(_)) || !scan_inputs.contains(&o.buf);
            }
        }
    }
    // The first scan that reads a buffer, through calls of the same kind; the number of items if anything else does.
    let mut to: Vec<Option<usize>> = vec![None; outer.bufs.len()];
    let join = |a: Option<usize>, b: usize| match a {
        Some(a) if a == n || b == n => Some(n),
        Some(a) => Some(a.min(b)),
        None => Some(b),
    };
    for (place, _) in &outer.outputs {
        if let crate::plan::ir::Place::At(o) = place {
            to[o.buf] = Some(n);
        }
    }
    let mut phase = vec![None; n];
    for (i, item) in outer.items.iter().enumerate().rev() {
        let target = match item {
            Item::Scan(_) => i,
            Item::Call(c) => {
                let written = c.instr.writes().iter().filter_map(|o| to[o.buf]).fold(None, join);
                let own = !depends[i] && !c.over.steps;
                phase[i] = written.filter(|&t| own && t < n);
                phase[i].unwrap_or(n)
            }
        };
        for b in reads(item) {
            to[b] = join(to[b], target);
        }
    }
    phase
}

/// Names of the stages of a step.
pub(crate) fn phase_names(stages: &[Stage]) -> Vec<String> {
    let is_loop = |s: &Stage| matches!(s, Stage::Loop(_));
    let loops = stages.iter().filter(|s| is_loop(s)).count();
    let mut before = 0;
    stages
        .iter()
        .map(|stage| {
            if is_loop(stage) {
                before += 1;
            }
            match (is_loop(stage), before) {
                (true, _) if loops == 1 => "carry".into(),
                (true, k) => format!("loop {k}"),
                (false, _) if loops == 0 => "all at once".into(),
                (false, 0) => "ahead".into(),
                (false, k) if k == loops => "after".into(),
                (false, k) => format!("between {k} and {}", k + 1),
            }
        })
        .collect()
}

fn scan(plan: &Plan, item: usize, s: &ScanItem, once: Vec<CallSummary>) -> ScanSummary {
    let (outer, m) = (&plan.outer, &plan.decision.memory);
    let size = Size { steps: m.steps, rows: m.rows };
    let cut = Cut::new(s, m.rows);
    let labels = names::of_step(outer, s, &s.run);
    let step_flops = work::per_step(&s.run, size, cut);
    let mut phases = Vec::new();
    if !once.is_empty() {
        let flops = once.iter().map(|c| c.total_flops).sum();
        phases.push(PhaseSummary {
            name: "once".into(),
            step_by_step: false,
            flops,
            share: 0.0,
            calls: once,
        });
    }
    for (name, stage) in phase_names(&s.run.stages).into_iter().zip(&s.run.stages) {
        let of = |c: &Call| call(item, c, &s.run.bufs, &labels, work::step_call(c, size, cut));
        let calls: Vec<CallSummary> = stage.calls().iter().map(of).collect();
        let flops = calls.iter().map(|c| c.total_flops).sum::<f64>() / m.steps.max(1) as f64;
        let share = if step_flops > 0.0 { flops / step_flops } else { 0.0 };
        phases.push(PhaseSummary {
            name,
            step_by_step: matches!(stage, Stage::Loop(_)),
            flops,
            share,
            calls,
        });
    }
    let (role, kept) = match s.role {
        Role::Plain => (ScanRole::Plain, Vec::new()),
        Role::Adjoint(_) => (ScanRole::Adjoint, Vec::new()),
        Role::Forward(p) => {
            let pair = &outer.pairs[p];
            let recorded = pair.recorded();
            let states = recorded.keys().map(|&k| names::state(outer, p, k));
            (ScanRole::Forward, states.chain(names::kept(pair)).collect())
        }
    };
    ScanSummary {
        item,
        label: s.label.clone(),
        role,
        reverse: s.reverse,
        tiles: cut.tiles,
        tile_rows: cut.tile_rows,
        chunk: cut.chunk,
        members: m.scans[&item].members,
        team: s.team,
        kept,
        rebuilt: s.rebuilt.clone(),
        passes: passes::of(s, m, cut.chunk),
        phases,
        step_flops,
        replay_flops: work::replay(s, size, plan.decision.extra_forward_steps),
    }
}

/// The summary of a plan.
pub(super) fn of(plan: &Plan) -> PlanSummary {
    let (outer, m) = (&plan.outer, &plan.decision.memory);
    let (memory, peak_item) = ledger::lines(outer, m, plan.threads);
    let size = Size { steps: m.steps, rows: m.rows };
    let labels = names::of_outer(outer);
    let phase = once(outer);
    let mut before: Vec<Vec<CallSummary>> = vec![Vec::new(); outer.items.len()];
    let mut outside = Vec::new();
    for (i, item) in outer.items.iter().enumerate() {
        let Item::Call(c) = item else { continue };
        let line = call(i, c, &outer.bufs, &labels, work::outer_call(c, size));
        match phase[i] {
            Some(scan) => before[scan].push(line),
            None => outside.push(line),
        }
    }
    let mut scans = Vec::new();
    for (i, item) in outer.items.iter().enumerate() {
        if let Item::Scan(s) = item {
            scans.push(scan(plan, i, s, std::mem::take(&mut before[i])));
        }
    }
    let replay = m.pairs.iter().map(|p| p.schedule).find(|s| s.segments() > 1 && !s.walks_back());
    let replay = match (replay, plan.segments()) {
        (Some(schedule), Some((leaf, slots))) => Some(ReplaySummary {
            segments: schedule.segments(),
            leaf,
            slots,
            repetitions: schedule.repetitions(),
            extra_forward_steps: plan.extra_forward_steps(),
        }),
        _ => None,
    };
    let walks = (outer.pairs.iter().enumerate()).filter_map(|(p, pair)| {
        let walk = pair.walk?;
        Some(WalkSummary {
            states: pair.states.keys().map(|&k| names::state(outer, p, k)).collect(),
            every: walk.every,
            expansion: walk.expansion,
            roundings: walk.roundings,
            bound: walk.bound(walk.every.min(m.steps)),
        })
    });
    let flops = plan.flops();
    let least = work::of_run(&plan.unbudgeted, size, 0);
    PlanSummary {
        steps: m.steps,
        rows: m.rows,
        threads: plan.threads,
        isa: if plan.outer.tables.is_some() { "device" } else { plan.isa.name() },
        budget: plan.budget,
        peak_bytes: plan.peak_bytes(),
        arena_bytes: plan.peak_bytes() - m.output_bytes,
        output_bytes: m.output_bytes,
        memory,
        peak_item,
        items: outer.items.len(),
        replay,
        walks: walks.collect(),
        rebuilds_everything: plan.rebuilds_everything(),
        stash: m.stash,
        flops,
        slowdown: if least > 0.0 { flops / least } else { 1.0 },
        scans,
        outside,
    }
}
