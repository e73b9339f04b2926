//! Explaining a plan.

use std::fmt::Write as _;
use std::sync::Arc;

use super::Decision;
use super::ir::{BufKind, Call};
use super::keep::Keep;
use super::memory::Memory;
use super::outer::{Item, Outer, Role};
use super::step::{Stage, StepProgram};
use crate::cpu::Isa;

/// A plan for given numbers of steps and rows: what will be computed when, what is kept, and every byte.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) outer: Arc<Outer>,
    pub(crate) keep: Keep,
    pub(crate) decision: Decision,
    pub(crate) threads: usize,
    pub(crate) isa: Isa,
}

/// What takes most of a plan's memory, in words.
pub(crate) fn dominant(outer: &Outer, memory: &Memory) -> String {
    let mut parts: Vec<(usize, String)> = Vec::new();
    for pair in &memory.pairs {
        parts.push((pair.bytes, "recorded states and values".into()));
    }
    for (i, slot) in memory.outer.iter().enumerate() {
        if let Some(slot) = slot {
            let buf = &outer.bufs[i];
            let borrowed =
                matches!(buf.kind, BufKind::Bound(_) | BufKind::Constant(_)) && !buf.dtype.is_complex();
            if !borrowed {
                parts.push((slot.plane * buf.dtype.size(), format!("`{}`", buf.label)));
            }
        }
    }
    for scan in memory.scans.values() {
        parts.push((scan.lane * scan.lanes, "workspaces of the threads".into()));
        parts.push((scan.tile * scan.tiles, "gradient sums of the tiles".into()));
    }
    parts.push((memory.output_bytes, "the tensors returned".into()));
    match parts.into_iter().max_by_key(|p| p.0) {
        Some((bytes, what)) => format!("{bytes} bytes of it are {what}"),
        None => String::new(),
    }
}

impl Plan {
    /// Most bytes the engine will have allocated at once: the arena and the tensors returned.
    pub fn peak_bytes(&self) -> usize {
        self.decision.memory.peak_bytes()
    }

    /// Steps of a recorded segment, and slots for checkpoints; `None` if whole sequences are recorded.
    pub fn segments(&self) -> Option<(usize, usize)> {
        self.decision.segments.leaf.map(|leaf| (leaf, self.decision.segments.slots))
    }

    /// Steps of forward work beyond one pass, from replaying.
    pub fn extra_forward_steps(&self) -> u64 {
        self.decision.extra_forward_steps
    }

    /// Whether only states are kept and every other value is rebuilt from them.
    pub fn rebuilds_everything(&self) -> bool {
        self.keep == Keep::States
    }

    /// Floating-point operations of a run, replays included.
    pub fn flops(&self) -> f64 {
        let m = &self.decision.memory;
        let (t, n) = (m.steps as f64, m.rows as f64);
        let of = |call: &Call| {
            let steps = if call.over.steps { t } else { 1.0 };
            call.flops * steps * if call.over.rows { n } else { 1.0 }
        };
        let program = |p: &StepProgram| p.stages.iter().flat_map(|s| s.calls()).map(of).sum::<f64>();
        let mut sum = 0.0;
        for item in &self.outer.items {
            sum += match item {
                Item::Call(call) => of(call),
                Item::Scan(s) => {
                    let replays = match (&s.replay, m.steps) {
                        (Some(r), steps) if steps > 0 => {
                            program(&r.advance) * self.decision.extra_forward_steps as f64 / steps as f64
                        }
                        _ => 0.0,
                    };
                    program(&s.run) + replays
                }
            };
        }
        sum
    }

    /// The plan as text.
    pub fn explain(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, f: &mut String) -> std::fmt::Result {
        let m = &self.decision.memory;
        writeln!(
            f,
            "plan for T={} steps, N={} rows, {} threads, {:?}",
            m.steps, m.rows, self.threads, self.isa
        )?;
        writeln!(f, "peak {} bytes: arena {}, outputs {}", self.peak_bytes(), m.bytes, m.output_bytes)?;
        match self.segments() {
            None => writeln!(f, "whole sequences are recorded; nothing is replayed")?,
            Some((leaf, slots)) => writeln!(
                f,
                "segments of {leaf} steps are recorded, {slots} checkpoints; {} steps are run again",
                self.extra_forward_steps()
            )?,
        }
        for (at, item) in self.outer.items.iter().enumerate() {
            match item {
                Item::Call(call) => writeln!(f, "{at:4}  {}  [{}]", call.instr.name(), over(call))?,
                Item::Scan(s) => {
                    writeln!(f, "{at:4}  {}{}", s.label, if s.reverse { ", backwards in time" } else { "" })?;
                    if let Role::Forward(p) = s.role {
                        let pair = &self.outer.pairs[p];
                        let names = pair.keep_names.join(", ");
                        writeln!(
                            f,
                            "      kept for the adjoint: states{}{names}",
                            if names.is_empty() { "" } else { ", " }
                        )?;
                    }
                    let scan = &m.scans[&at];
                    writeln!(
                        f,
                        "      {} tiles, chunks of {} steps, {} bytes of workspace a thread",
                        scan.tiles, scan.chunk, scan.lane
                    )?;
                    for stage in &s.run.stages {
                        let kind = match stage {
                            Stage::Batched(_) => "chunk at once",
                            Stage::Loop(_) => "step by step",
                        };
                        writeln!(f, "      {kind}:")?;
                        for call in stage.calls() {
                            let writes: Vec<String> = call
                                .instr
                                .writes()
                                .iter()
                                .map(|o| format!("{}[{}]", s.run.bufs[o.buf].label, o.width()))
                                .collect();
                            writeln!(
                                f,
                                "        {} -> {}  ({} flop a row)",
                                call.instr.name(),
                                writes.join(", "),
                                call.flops
                            )?;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

fn over(call: &Call) -> &'static str {
    match (call.over.steps, call.over.rows) {
        (true, true) => "every step and row",
        (true, false) => "every step",
        (false, true) => "every row",
        (false, false) => "once",
    }
}
