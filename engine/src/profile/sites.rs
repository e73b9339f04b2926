//! Numbers for everything that is timed.

use super::Pass;
use crate::plan::outer::{Item, Outer, ScanItem};
use crate::plan::step::StepProgram;

/// What the executor does of its own in a scan; the first sites of the scan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Own {
    /// Finding the places of all buffers for a tile.
    Bind,
    /// Present states copied in and out of chunks and segments.
    States,
    /// States stored and restored.
    Checkpoints,
    /// Kept values rounded and widened.
    Stash,
    /// Sums set to zero before a tile.
    Clear,
    /// Sums of the tiles put together.
    Collect,
}

impl Own {
    pub(crate) const ALL: [Own; 6] =
        [Own::Bind, Own::States, Own::Checkpoints, Own::Stash, Own::Clear, Own::Collect];
}

fn calls(p: &StepProgram) -> usize {
    p.stages.iter().map(|s| s.calls().len()).sum()
}

/// The forms of a scan's step, in the order of their sites.
pub(crate) fn programs(s: &ScanItem) -> impl Iterator<Item = (Pass, &StepProgram)> {
    let replay = s.replay.as_ref();
    [
        Some((Pass::Run, &s.run)),
        s.sweep.as_ref().map(|p| (Pass::Sweep, p)),
        replay.map(|r| (Pass::Advance, &r.advance)),
        replay.map(|r| (Pass::Record, &r.record)),
    ]
    .into_iter()
    .flatten()
}

/// Site of the first call of a form of a scan's step, among those of the scan.
pub(crate) fn first_site(s: &ScanItem, pass: Pass) -> usize {
    let before: usize = programs(s).take_while(|(p, _)| *p != pass).map(|(_, p)| calls(p)).sum();
    Own::ALL.len() + before
}

/// The sites of a program: those of its items in order, then binding inputs and returning outputs.
pub(crate) struct Sites {
    /// First site of each item, and the one after the last item's.
    first: Vec<usize>,
}

impl Sites {
    pub(crate) fn new(outer: &Outer) -> Sites {
        let mut first = vec![0];
        for item in &outer.items {
            let count = match item {
                Item::Call(_) => 1,
                Item::Scan(s) => Own::ALL.len() + programs(s).map(|(_, p)| calls(p)).sum::<usize>(),
            };
            first.push(first[first.len() - 1] + count);
        }
        Sites { first }
    }

    /// First site of an item and how many it has; for the number of items, the sites of the program itself: inputs,
    /// outputs.
    pub(crate) fn of(&self, item: usize) -> (usize, usize) {
        let first = self.first[item];
        (first, self.first.get(item + 1).map_or(2, |next| next - first))
    }

    pub(crate) fn count(&self) -> usize {
        self.first[self.first.len() - 1] + 2
    }
}
