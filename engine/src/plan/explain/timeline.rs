//! The course of a run: what happens when, and how many bytes are in use meanwhile.
//!
//! Time is counted in operations as predicted, so the picture needs no clock.

use super::ledger;
use super::summary::{MemoryKind, MemoryLine};
use super::work::{self, Cut, Size};
use crate::plan::Plan;
use crate::plan::memory::PairSlots;
use crate::plan::outer::{Item, Role, ScanItem};
use crate::plan::step::StepProgram;
use crate::schedule::Action;

/// What happens in an [`Event`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum What {
    /// A call outside the loops, or the end of the run.
    Outside,
    /// A scan that keeps nothing.
    Plain,
    /// Forward steps that record nothing.
    Advance,
    /// Forward steps that record.
    Record,
    /// Adjoint steps.
    Backward,
    /// A state goes to this slot of a pair.
    Store { pair: usize, slot: usize },
    /// This slot of a pair is free again.
    Free { pair: usize, slot: usize },
}

/// Layers of memory, from the bottom up.
pub(super) const LAYERS: [&str; 5] =
    ["values outside the loops", "workspaces and sums", "checkpoints", "recorded states", "recorded values"];

/// Bytes in use, by layer.
pub(super) type Use = [f64; LAYERS.len()];

/// A stretch of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    pub(super) item: usize,
    pub(super) what: What,
    /// Operations since the start of the run, when it begins and when it ends.
    pub(super) start: f64,
    pub(super) end: f64,
    /// Steps before the present state, when it begins and when it ends.
    pub(super) from: usize,
    pub(super) to: usize,
    /// Bytes in use when it begins and when it ends.
    pub(super) before: Use,
    pub(super) after: Use,
}

/// How full the regions of a pair are.
#[derive(Clone, Copy, Default)]
struct Fill {
    /// Recorded part of a segment.
    recorded: f64,
    slots: usize,
}

struct Walk<'a> {
    plan: &'a Plan,
    lines: Vec<MemoryLine>,
    /// Bytes of each pair for checkpoints, states and values.
    pairs: Vec<[f64; 3]>,
    fills: Vec<Fill>,
    /// Bytes in use outside the pairs during the present item.
    base: Use,
    at: f64,
    emit: &'a mut dyn FnMut(&Event),
}

/// Calls `emit` for everything that happens, in order; returns the operations of the run.
pub(super) fn walk(plan: &Plan, emit: &mut dyn FnMut(&Event)) -> f64 {
    let m = &plan.decision.memory;
    let (lines, _) = ledger::lines(&plan.outer, m, plan.threads);
    let fills = vec![Fill::default(); m.pairs.len()];
    let pairs = m.pairs.iter().map(totals).collect();
    let mut walk = Walk { plan, lines, pairs, fills, base: Use::default(), at: 0.0, emit };
    for (at, item) in plan.outer.items.iter().enumerate() {
        walk.enter(at);
        match item {
            Item::Call(c) => walk.event(at, What::Outside, work::outer_call(c, walk.size()), (0, 0), None),
            Item::Scan(s) => walk.scan(at, s),
        }
    }
    walk.enter(plan.outer.items.len());
    walk.event(plan.outer.items.len(), What::Outside, 0.0, (0, 0), None);
    walk.at
}

fn totals(slots: &PairSlots) -> [f64; 3] {
    let mut sums = [0.0; 3];
    for r in ledger::regions(slots) {
        let k = match r.kind {
            MemoryKind::Checkpoints => 0,
            MemoryKind::KeptStates => 1,
            _ => 2,
        };
        sums[k] += r.bytes as f64;
    }
    sums
}

impl Walk<'_> {
    fn size(&self) -> Size {
        let m = &self.plan.decision.memory;
        Size { steps: m.steps, rows: m.rows }
    }

    /// Begins an item.
    fn enter(&mut self, item: usize) {
        self.base = Use::default();
        for l in self.lines.iter().filter(|l| (l.items.0..=l.items.1).contains(&item)) {
            match l.kind {
                MemoryKind::OuterValues | MemoryKind::Outputs => self.base[0] += l.bytes as f64,
                MemoryKind::Workspaces | MemoryKind::Sums => self.base[1] += l.bytes as f64,
                // Those of the pairs count by how full they are.
                MemoryKind::KeptStates | MemoryKind::KeptValues | MemoryKind::Checkpoints => {}
                MemoryKind::Gaps => {}
            }
        }
    }

    fn in_use(&self) -> Use {
        let mut bytes = self.base;
        let pairs = &self.plan.decision.memory.pairs;
        for ((slots, fill), [marks, states, values]) in pairs.iter().zip(&self.fills).zip(&self.pairs) {
            bytes[2] += marks * fill.slots as f64 / slots.schedule.slots().max(1) as f64;
            bytes[3] += states * fill.recorded;
            bytes[4] += values * fill.recorded;
        }
        bytes
    }

    /// Something that takes `flops` operations and leaves the pair's regions as full as `fill` says.
    fn event(
        &mut self,
        item: usize,
        what: What,
        flops: f64,
        (from, to): (usize, usize),
        fill: Option<(usize, Fill)>,
    ) {
        let before = self.in_use();
        if let Some((pair, fill)) = fill {
            self.fills[pair] = fill;
        }
        let after = self.in_use();
        let start = self.at;
        self.at += flops;
        (self.emit)(&Event { item, what, start, end: self.at, from, to, before, after });
    }

    fn scan(&mut self, at: usize, s: &ScanItem) {
        let (plan, size) = (self.plan, self.size());
        let cut = Cut::new(s, size.rows);
        let rate = |p: Option<&StepProgram>| p.map_or(0.0, |p| work::per_step(p, size, cut));
        let own = rate(Some(&s.run));
        match s.role {
            Role::Plain => {
                let ends = if s.reverse { (size.steps, 0) } else { (0, size.steps) };
                self.event(at, What::Plain, own * size.steps as f64, ends, None);
            }
            Role::Forward(p) => {
                let slots = &plan.decision.memory.pairs[p];
                let advance = s.sweep.as_ref().map_or(own, |p| rate(Some(p)));
                let rates = Rates { advance, record: own, backward: 0.0 };
                for action in slots.schedule.forward_actions() {
                    self.action(at, p, slots, action, &rates, s.reverse);
                }
            }
            Role::Adjoint(p) => {
                let slots = &plan.decision.memory.pairs[p];
                let replay = s.replay.as_ref();
                let rates = Rates {
                    advance: rate(replay.map(|r| &r.advance)),
                    record: rate(replay.map(|r| &r.record)),
                    backward: own,
                };
                for action in slots.schedule.backward_actions() {
                    self.action(at, p, slots, action, &rates, !s.reverse);
                }
            }
        }
    }

    fn action(
        &mut self,
        at: usize,
        p: usize,
        slots: &PairSlots,
        action: Action,
        rates: &Rates,
        reverse: bool,
    ) {
        let position = |segment: usize| slots.cut.position(segment, reverse);
        let mut fill = self.fills[p];
        let (what, rate, from, to) = match action {
            Action::Advance { from, to } => (What::Advance, rates.advance, from, to),
            Action::Record { from, to } => {
                fill.recorded = position(from).abs_diff(position(to)) as f64 / slots.cut.longest() as f64;
                (What::Record, rates.record, from, to)
            }
            Action::Backward { from, to } => {
                fill.recorded = 0.0;
                (What::Backward, rates.backward, to, from)
            }
            Action::Store { slot, step } => {
                fill.slots += 1;
                (What::Store { pair: p, slot }, 0.0, step, step)
            }
            Action::Free { slot } => {
                fill.slots = fill.slots.saturating_sub(1);
                (What::Free { pair: p, slot }, 0.0, 0, 0)
            }
            Action::Restore { .. } => return,
        };
        let (from, to) = (position(from), position(to));
        self.event(at, what, rate * from.abs_diff(to) as f64, (from, to), Some((p, fill)));
    }
}

/// Operations of a step.
struct Rates {
    advance: f64,
    record: f64,
    backward: f64,
}
