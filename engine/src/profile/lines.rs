//! From numbered sites to lines with names.

use super::clock::Tally;
use super::sites::{Own, Sites, programs};
use super::{Pass, Profile, ProfileLine, Work};
use crate::plan::explain::{CallSummary, call_summary, names, phase_names};
use crate::plan::ir::{Call, Instr};
use crate::plan::memory::Memory;
use crate::plan::outer::{Item, Outer, ScanItem};
use crate::plan::step::Stage;

/// What kind of work an instruction does.
pub(crate) fn work(instr: &Instr) -> Work {
    match instr {
        Instr::Pointwise { .. } => Work::Pointwise,
        Instr::MatMul { .. } | Instr::RowContract { .. } => Work::Product,
        Instr::Structured { op, .. } => op.work(),
        Instr::Pack { .. } | Instr::Move { .. } | Instr::Fill { .. } | Instr::Cast { .. } => Work::Movement,
        Instr::Accumulate { .. } => Work::Other,
    }
}

/// Where a line is.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) item: usize,
    pub(crate) scan: Option<&'a str>,
    pub(crate) pass: Option<Pass>,
    pub(crate) phase: &'a str,
    pub(crate) step_by_step: bool,
}

impl At<'_> {
    /// Outside the scans.
    pub(crate) fn outside(item: usize) -> Self {
        At { item, scan: None, pass: None, phase: "", step_by_step: false }
    }

    fn line(&self, work: Work, t: Tally) -> ProfileLine {
        ProfileLine {
            item: self.item,
            scan: self.scan.map(str::to_string),
            pass: self.pass,
            phase: self.phase.to_string(),
            step_by_step: self.step_by_step,
            instruction: false,
            operations: Vec::new(),
            reads: Vec::new(),
            writes: Vec::new(),
            work,
            seconds: t.nanos as f64 * 1e-9,
            calls: t.calls,
            flops: 0.0,
            bytes: 0.0,
        }
    }

    /// A call.
    pub(crate) fn instruction(&self, call: &Call, summary: CallSummary, t: Tally) -> ProfileLine {
        let bytes = t.amount as f64 * summary.bytes as f64 + t.calls as f64 * summary.shared_bytes as f64;
        ProfileLine {
            instruction: true,
            operations: summary.operations,
            reads: summary.reads,
            writes: summary.writes,
            flops: t.amount as f64 * summary.flops,
            bytes,
            ..self.line(work(&call.instr), t)
        }
    }

    /// Work of the executor's own.
    pub(crate) fn own(&self, name: &str, work: Work, t: Tally) -> ProfileLine {
        ProfileLine { operations: vec![name.into()], bytes: t.amount as f64, ..self.line(work, t) }
    }
}

fn scan(outer: &Outer, item: usize, s: &ScanItem, tallies: &[Tally], lines: &mut Vec<ProfileLine>) {
    let at = At { scan: Some(&s.label), ..At::outside(item) };
    for (own, &t) in Own::ALL.into_iter().zip(tallies) {
        let (name, work) = match own {
            Own::Bind => ("find buffers", Work::Other),
            Own::States => ("copy states", Work::Movement),
            Own::Checkpoints => ("store and restore states", Work::Movement),
            Own::Stash => ("round and widen kept values", Work::Movement),
            Own::Clear => ("clear sums", Work::Movement),
            Own::Collect => ("add sums of tiles", Work::Other),
        };
        lines.push(at.own(name, work, t));
    }
    let mut rest = tallies[Own::ALL.len()..].iter();
    for (pass, p) in programs(s) {
        let labels = names::of_step(outer, s, p);
        for (phase, stage) in phase_names(&p.stages).iter().zip(&p.stages) {
            let step_by_step = matches!(stage, Stage::Loop(_));
            let at = At { pass: Some(pass), phase, step_by_step, ..at };
            for (call, &t) in stage.calls().iter().zip(&mut rest) {
                let summary = call_summary(item, call, &p.bufs, &labels, 0.0);
                lines.push(at.instruction(call, summary, t));
            }
        }
    }
}

/// The profile of a run from its tallies.
pub(crate) fn profile(
    outer: &Outer,
    memory: &Memory,
    threads: usize,
    wall_seconds: f64,
    sites: &Sites,
    tallies: &[Tally],
) -> Profile {
    let labels = names::of_outer(outer);
    let mut lines = Vec::new();
    let of = |item| {
        let (first, count) = sites.of(item);
        &tallies[first..first + count]
    };
    for (i, item) in outer.items.iter().enumerate() {
        match item {
            Item::Call(call) => {
                let summary = call_summary(i, call, &outer.bufs, &labels, 0.0);
                lines.push(At::outside(i).instruction(call, summary, of(i)[0]));
            }
            Item::Scan(s) => scan(outer, i, s, of(i), &mut lines),
        }
    }
    let end = outer.items.len();
    for (name, &t) in ["bind inputs", "return outputs"].into_iter().zip(of(end)) {
        lines.push(At::outside(end).own(name, Work::Movement, t));
    }
    let (steps, rows) = (memory.steps, memory.rows);
    Profile { steps, rows, threads, device: None, wall_seconds, lines }
}
