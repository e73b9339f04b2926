//! How often the forms of a scan's step run: the schedule, counted.

use super::summary::PassSummary;
use crate::plan::memory::Memory;
use crate::plan::outer::{Role, ScanItem};
use crate::profile::Pass;
use crate::schedule::Action;

/// The passes of a scan that run at all, for every tile.
pub(super) fn of(s: &ScanItem, m: &Memory, chunk: usize) -> Vec<PassSummary> {
    let mut passes: Vec<PassSummary> = Vec::new();
    let mut add = |pass, (a, b): (usize, usize)| {
        // Chunks begin at multiples of their length.
        let chunks = if a < b { b.div_ceil(chunk) - a / chunk } else { 0 };
        let (steps, chunks) = (b.saturating_sub(a) as u64, chunks as u64);
        match passes.iter_mut().find(|p| p.pass == pass) {
            Some(p) => {
                p.steps += steps;
                p.chunks += chunks;
            }
            None => passes.push(PassSummary { pass, steps, chunks }),
        }
    };
    match s.role {
        Role::Plain => add(Pass::Run, (0, m.steps)),
        Role::Forward(p) => {
            let pair = &m.pairs[p];
            let bounds = |from, to| pair.cut.bounds(from, to, s.reverse);
            for action in pair.schedule.forward_actions() {
                match action {
                    Action::Advance { from, to } if s.sweep.is_some() => add(Pass::Sweep, bounds(from, to)),
                    Action::Advance { from, to } | Action::Record { from, to } => {
                        add(Pass::Run, bounds(from, to));
                    }
                    _ => {}
                }
            }
        }
        Role::Adjoint(p) => {
            let pair = &m.pairs[p];
            // The recorded scan walks the other way.
            let bounds = |from, to| pair.cut.bounds(from, to, !s.reverse);
            for action in pair.schedule.backward_actions() {
                match action {
                    Action::Backward { from, to } => add(Pass::Run, bounds(from, to)),
                    Action::Advance { from, to } if s.replay.is_some() => {
                        add(Pass::Advance, bounds(from, to))
                    }
                    Action::Record { from, to } if s.replay.is_some() => add(Pass::Record, bounds(from, to)),
                    _ => {}
                }
            }
        }
    }
    passes.sort_by_key(|p| p.pass);
    passes
}
