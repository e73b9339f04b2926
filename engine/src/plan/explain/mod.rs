//! Explaining a plan: as numbers ([`PlanSummary`]), as text ([`Plan::explain`]), as a picture ([`Plan::svg`]).
//!
//! The numbers are taken from the lowered program and the placed memory themselves, so they cannot disagree with
//! what runs; text and picture are made from the numbers alone.

mod ledger;
pub(crate) mod names;
mod passes;
mod summary;
mod svg;
mod text;
mod time;
mod timeline;
mod units;
pub(crate) mod work;

use std::sync::Arc;

use super::Decision;
use super::ir::BufKind;
use super::keep::Keep;
use super::memory::{Memory, Segments};
use super::outer::Outer;
use crate::cpu::Isa;
use crate::profile::Profile;

pub(crate) use units::{bytes, plural};

pub use summary::{
    CallSummary, MemoryKind, MemoryLine, PassSummary, PhaseSummary, PlanSummary, ReplaySummary, ScanRole,
    ScanSummary, WalkSummary,
};
pub(crate) use summary::{call as call_summary, phase_names};

/// A plan for given numbers of steps and rows: what will be computed when, what is kept, and every byte.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) outer: Arc<Outer>,
    /// The program that keeps values, which runs when there is no budget.
    pub(crate) unbudgeted: Arc<Outer>,
    pub(crate) keep: Keep,
    pub(crate) decision: Decision,
    pub(crate) budget: Option<usize>,
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
        Some((most, what)) => format!("{} of it are {what}", bytes(most)),
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
        let Segments { leaf, count, slots } = self.decision.segments;
        (count > 1).then_some((leaf, slots))
    }

    /// Steps of forward work beyond one pass, from replaying.
    pub fn extra_forward_steps(&self) -> u64 {
        self.decision.extra_forward_steps
    }

    /// Bytes of what is recorded for the adjoints: states and values of a segment, and checkpoints.
    pub fn recorded_bytes(&self) -> usize {
        self.decision.memory.pairs.iter().map(|p| p.bytes).sum()
    }

    /// Bytes that recording would take if it kept every value that an adjoint reads, of every step, as an engine
    /// does that records operations while it runs them.
    pub fn everything_bytes(&self) -> usize {
        let m = &self.decision.memory;
        let entry: usize = self.outer.pairs.iter().map(|p| p.everything).sum();
        entry.saturating_mul(m.rows).saturating_mul(m.steps)
    }

    /// Seconds that the run is expected to take, by the [`Rates`](super::Rates) that it was chosen by.
    pub fn expected_seconds(&self) -> f64 {
        self.decision.seconds
    }

    /// Whether only states are kept and every other value is rebuilt from them.
    pub fn rebuilds_everything(&self) -> bool {
        self.keep == Keep::States
    }

    /// Floating-point operations of a run, replays included.
    pub fn flops(&self) -> f64 {
        let m = &self.decision.memory;
        let size = work::Size { steps: m.steps, rows: m.rows };
        work::of_run(&self.outer, size, self.decision.extra_forward_steps)
    }

    /// The plan in numbers, for programs.
    pub fn summary(&self) -> PlanSummary {
        summary::of(self)
    }

    /// The plan as text: memory, what is kept, rebuilt and replayed, and every kernel call in its phase.
    pub fn explain(&self) -> String {
        text::of(&self.summary())
    }

    /// The plan as a picture in SVG: the phases of a chunk in proportion to their work, and below them memory
    /// and position over the course of the run.
    pub fn svg(&self) -> String {
        svg::of(self, None)
    }

    /// [`svg`](Plan::svg), and where the time of a run of this plan went.
    pub fn svg_with(&self, profile: &Profile) -> String {
        svg::of(self, Some(profile))
    }
}
