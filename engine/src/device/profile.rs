//! Profiles of runs on a device: what each launch is, and the lines of all of them.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::plan::explain::{call_summary, names, plural};
use crate::plan::ir::Over;
use crate::plan::memory::Memory;
use crate::plan::outer::{Item, Outer, Role, ScanItem};
use crate::plan::step::{Stage, StepProgram};
use crate::profile::{At, Clock, Pass, Profile, ProfileLine, Tally, Work, programs, work};

/// The phase of a kernel that runs all stages of a step.
const PHASE: &str = "steps";

/// A launch: what it does, and what it goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Site {
    /// Number of the item that it is part of.
    pub(super) item: usize,
    pub(super) what: What,
    /// Its first step and the one after its last; one step if it has no steps.
    pub(super) steps: (usize, usize),
    pub(super) rows: usize,
    /// 1 outside the scans.
    pub(super) tiles: usize,
}

/// What a launch does. Those of an item are listed in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// A call outside the scans, or some steps of it.
    Call,
    /// The parts of its sum are put together.
    Parts,
    /// What a scan does beside its steps.
    Own(Own),
    /// Steps of a scan in a form.
    Steps(Pass),
}

/// What a scan does beside its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Own {
    /// Sums are cleared, states are those to start from.
    Enter,
    /// States are stored or restored.
    Mark,
    /// States that were walked back to are compared with kept ones.
    TakeUp,
    /// Last states are handed out.
    Leave,
    /// The drifts of the tiles are put together.
    Drift,
    /// The sums of the tiles are put together.
    Collect,
}

/// What the host does of a run. Launches are timed by the device.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Host {
    /// Copies values to the device.
    Values,
    /// Writes tables and lists launches, at the first run with its plan and addresses.
    List,
    /// Starts the launches and waits for them.
    Launches,
    /// Copies outputs from the device.
    Outputs,
}

impl Host {
    const ALL: [Host; 4] = [Host::Values, Host::List, Host::Launches, Host::Outputs];

    /// `None`: what the device says of it counts.
    fn line(self) -> Option<(&'static str, Work)> {
        match self {
            Host::Values => Some(("copy values to the device", Work::Movement)),
            Host::List => Some(("list launches", Work::Other)),
            Host::Launches => None,
            Host::Outputs => Some(("copy outputs from the device", Work::Movement)),
        }
    }
}

/// The host's clock for a run.
pub(crate) struct Timed {
    start: Instant,
    clock: Clock,
}

impl Timed {
    /// Runs from now.
    pub(crate) fn begin() -> Timed {
        Timed { start: Instant::now(), clock: Clock::new(Host::ALL.len()) }
    }

    /// Gives the time since the last lap to `what`, which was done so often and moved so many bytes.
    pub(crate) fn lap(&self, what: Host, calls: u64, bytes: usize) {
        self.clock.lap(what as usize, calls, bytes as u64);
    }
}

/// All launches of a kind.
#[derive(Clone, Copy, Default)]
struct Sum {
    tally: Tally,
    /// Steps times rows, and steps times tiles.
    steps: [u64; 2],
    /// The same with chunks of steps.
    chunks: [u64; 2],
}

impl Sum {
    /// Adds a launch whose scan has chunks of so many steps.
    fn add(&mut self, site: &Site, chunk: usize, seconds: f64) {
        self.tally.nanos += (seconds * 1e9).round() as u64;
        self.tally.calls += 1;
        let (a, b) = site.steps;
        // Chunks begin at multiples of their length.
        let chunks = if a < b { b.div_ceil(chunk) - a / chunk } else { 0 };
        for (i, each) in [site.rows, site.tiles].into_iter().enumerate() {
            self.steps[i] += b.saturating_sub(a) as u64 * each as u64;
            self.chunks[i] += chunks as u64 * each as u64;
        }
    }

    /// Entries that a call ran over, which was carried out for every step or for chunks.
    fn entries(&self, every_step: bool, over: Over) -> u64 {
        let by = if every_step || over.steps { self.steps } else { self.chunks };
        by[usize::from(!over.rows)]
    }

    /// How often the tiles carried it out.
    fn times(&self, every_step: bool) -> u64 {
        if every_step { self.steps[1] } else { self.chunks[1] }
    }

    /// Bytes, of so many for a row and for a tile.
    fn bytes(&self, row: usize, tile: usize) -> u64 {
        self.steps[0] * row as u64 + self.steps[1] * tile as u64
    }

    fn of(self, amount: u64) -> Tally {
        Tally { amount, ..self.tally }
    }
}

/// The profile of a run, which ends now, from what its launches took.
pub(super) fn profile(
    device: String,
    (outer, memory): (&Outer, &Memory),
    launches: impl Iterator<Item = (Site, f64)>,
    timed: Timed,
) -> Profile {
    let wall_seconds = timed.start.elapsed().as_secs_f64();
    let mut sums: BTreeMap<(usize, What), Sum> = BTreeMap::new();
    for (site, seconds) in launches {
        let chunk = memory.scans.get(&site.item).map_or(usize::MAX, |s| s.chunk);
        sums.entry((site.item, site.what)).or_default().add(&site, chunk, seconds);
    }
    let labels = names::of_outer(outer);
    let mut lines = Vec::new();
    for ((item, what), sum) in sums {
        match &outer.items[item] {
            Item::Call(call) => {
                let summary = call_summary(item, call, &outer.bufs, &labels, 0.0);
                let at = At::outside(item);
                lines.push(if what == What::Parts {
                    let bytes = memory.partials.get(&item).map_or(0, |p| p.bytes);
                    let name = format!("add parts of {}", summary.writes.join(", "));
                    at.own(&name, Work::Other, sum.of(bytes as u64))
                } else {
                    at.instruction(call, summary, sum.of(sum.entries(false, call.over)))
                });
            }
            Item::Scan(s) => {
                let at = At { scan: Some(&s.label), ..At::outside(item) };
                let form = |pass| programs(s).find(|(p, _)| *p == pass);
                match what {
                    What::Own(own) => {
                        let (name, work, row, tile) = beside(outer, memory, (item, s), own);
                        lines.push(at.own(name, work, sum.of(sum.bytes(row, tile))));
                    }
                    What::Steps(pass) => lines.extend(form(pass).map(|form| steps(outer, s, form, at, sum))),
                    // Of calls.
                    What::Call | What::Parts => {}
                }
            }
        }
    }
    let tallies = timed.clock.into_tallies();
    for (host, tally) in Host::ALL.into_iter().zip(tallies) {
        if let Some((name, work)) = host.line().filter(|_| tally.calls > 0) {
            lines.push(At::outside(outer.items.len()).own(name, work, tally));
        }
    }
    let (steps, rows) = (memory.steps, memory.rows);
    Profile { steps, rows, threads: 1, device: Some(device), wall_seconds, lines }
}

/// What a scan does beside its steps: its name, its kind, and the bytes it moves for a row and for a tile.
fn beside(
    outer: &Outer,
    memory: &Memory,
    (item, s): (usize, &ScanItem),
    own: Own,
) -> (&'static str, Work, usize, usize) {
    let state = |b: usize| 2 * s.run.bufs[b].width * s.run.bufs[b].dtype.size();
    let tile = memory.scans.get(&item).map_or(0, |slots| slots.tile);
    let kept = || -> usize {
        match s.role {
            Role::Plain => 0,
            Role::Forward(p) | Role::Adjoint(p) => {
                outer.pairs[p].states.values().map(|(dtype, width)| 2 * dtype.size() * width).sum()
            }
        }
    };
    match own {
        Own::Enter => {
            let first = s.run.states.values().map(|&b| state(b)).sum();
            ("clear sums, copy first states", Work::Movement, first, tile)
        }
        Own::Mark => ("store and restore states", Work::Movement, kept(), 0),
        Own::TakeUp => ("compare and take up kept states", Work::Movement, kept(), 0),
        Own::Leave => {
            let last = s.finals.iter().filter_map(|(k, _)| s.run.states.get(k));
            ("copy last states", Work::Movement, last.map(|&b| state(b)).sum(), 0)
        }
        Own::Drift => ("put drifts of tiles together", Work::Other, 0, size_of::<f64>()),
        Own::Collect => ("add sums of tiles", Work::Other, 0, tile),
    }
}

/// The line of a form of a step: what its calls have together.
fn steps(
    outer: &Outer,
    s: &ScanItem,
    (pass, program): (Pass, &StepProgram),
    at: At<'_>,
    sum: Sum,
) -> ProfileLine {
    let labels = names::of_step(outer, s, program);
    let (mut calls, mut bytes, mut of_works) = (0, 0.0, [0.0; Work::ALL.len()]);
    for stage in &program.stages {
        let every_step = matches!(stage, Stage::Loop(_));
        for call in stage.calls() {
            let summary = call_summary(at.item, call, &program.bufs, &labels, 0.0);
            let entries = sum.entries(every_step, call.over) as f64;
            of_works[work(&call.instr) as usize] += entries * summary.flops;
            bytes += entries * summary.bytes as f64;
            bytes += sum.times(every_step) as f64 * summary.shared_bytes as f64;
            calls += 1;
        }
    }
    // The last of equal ones: where there are no operations, everything else.
    let most = Work::ALL.into_iter().max_by(|a, b| of_works[*a as usize].total_cmp(&of_works[*b as usize]));
    let step_by_step = program.stages.iter().any(|stage| matches!(stage, Stage::Loop(_)));
    let at = At { pass: Some(pass), phase: PHASE, step_by_step, ..at };
    let name = format!("kernel of {}", plural(calls, "call"));
    let line = at.own(&name, most.unwrap_or(Work::Other), sum.tally);
    ProfileLine { flops: of_works.iter().sum(), bytes, ..line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launches_go_over_steps_chunks_rows_and_tiles() {
        let site = |steps, rows, tiles| Site { item: 0, what: What::Call, steps, rows, tiles };
        let mut sum = Sum::default();
        // Two launches of teams over steps 5..17 in chunks of 8, then one step of all tiles.
        for (site, seconds) in
            [(site((5, 17), 8, 2), 1e-6), (site((5, 17), 3, 1), 2e-6), (site((16, 17), 11, 3), 0.0)]
        {
            sum.add(&site, 8, seconds);
        }
        assert_eq!((sum.tally.nanos, sum.tally.calls), (3000, 3));
        let over = |steps, rows| Over { steps, rows };
        for (every_step, over, entries) in [
            (true, over(true, true), 13 * 11),
            (true, over(false, true), 13 * 11),
            (true, over(true, false), 13 * 3),
            (false, over(true, true), 13 * 11),
            (false, over(false, true), 4 * 11),
            (false, over(false, false), 4 * 3),
        ] {
            assert_eq!(sum.entries(every_step, over), entries, "{every_step} {over:?}");
        }
        assert_eq!((sum.times(true), sum.times(false)), (13 * 3, 4 * 3));
        assert_eq!(sum.bytes(10, 100), 13 * 11 * 10 + 13 * 3 * 100);
    }
}
