//! A scan: tiles over threads, segments by schedule, chunks of time, stages of a step.

use std::collections::{BTreeMap, BTreeSet};

use super::call::{Context, Span, run_share};
use super::frame::{Arena, Frame, Loc};
use super::team::{Member, Team};
use crate::cpu::{Isa, Pool};
use crate::dtype::DType;
use crate::plan::ir::{Buf, BufKind, Operand};
use crate::plan::memory::{Memory, PairSlots, ScanSlots, Slot, StepSlots, tile_rows};
use crate::plan::outer::{Outer, Role, ScanItem};
use crate::plan::record_bytes;
use crate::plan::step::{External, Stage, StepProgram};
use crate::profile::{Clock, Own, Pass, Times, first_site};
use crate::schedule::Action;

/// Bytes of a tile's kept values from which they are written past the caches: more than a second-level cache holds.
const STREAM_FROM: usize = 4 << 20;

/// Everything a scan needs to run.
pub(crate) struct ScanRun<'a> {
    pub(crate) outer: &'a Outer,
    pub(crate) frame: &'a Frame,
    pub(crate) arena: Arena,
    pub(crate) memory: &'a Memory,
    pub(crate) item: &'a ScanItem,
    pub(crate) slots: &'a ScanSlots,
    pub(crate) isa: Isa,
    /// Where the time is noted, if anybody asked.
    pub(crate) times: Option<Times<'a>>,
}

/// A tile on a lane.
struct Tile<'a, 'b> {
    run: &'b ScanRun<'a>,
    lane: usize,
    member: Member<'b>,
    tile: usize,
    first_row: usize,
    rows: usize,
    /// The clock of the lane's thread, if the run is timed.
    clock: Option<&'b Clock>,
}

/// A step program bound to a tile.
struct Bound<'p> {
    program: &'p StepProgram,
    /// Site of its first call.
    site: usize,
    frame: Frame,
    /// States that lie in the pair's segment; the others lie in the chunk's ring.
    segment: BTreeSet<usize>,
}

/// Runs a scan.
pub(crate) fn run_scan(run: &ScanRun<'_>, pool: &Pool) {
    let s = run.slots;
    let start = || run.times.map(|times| (times, times.start()));
    let tiles = |lane: usize, member: Member<'_>| {
        let clock = start();
        let mut tile = lane;
        while tile < s.tiles {
            let (first_row, rows) = tile_rows(run.memory.rows, s.tiles, tile);
            let clock = clock.as_ref().map(|(_, clock)| clock);
            let tile_run = Tile { run, lane, member, tile, first_row, rows, clock };
            tile_run.clear_sums();
            tile_run.lap(Own::Clear as usize, s.tile as u64);
            tile_run.run();
            tile += s.lanes;
        }
        if let Some((times, clock)) = clock {
            times.add(clock);
        }
    };
    if s.members > 1 {
        let team = Team::new(s.members);
        pool.together(|index| team.run(index, |member| tiles(0, member)));
    } else {
        pool.run(s.lanes, |lane| tiles(lane, Member::ALONE));
    }
    let clock = start();
    collect(run);
    if let Some((times, clock)) = clock {
        clock.lap(Own::Collect as usize, 1, (s.tile * s.tiles) as u64);
        times.add(clock);
    }
}

fn pair_of<'a>(run: &ScanRun<'a>) -> Option<&'a PairSlots> {
    match run.item.role {
        Role::Plain => None,
        Role::Forward(p) | Role::Adjoint(p) => Some(&run.memory.pairs[p]),
    }
}

impl Tile<'_, '_> {
    /// Gives the time since the last lap to `site`, if the run is timed: a branch that is always predicted.
    fn lap(&self, site: usize, amount: u64) {
        if let Some(clock) = self.clock {
            clock.lap(site, 1, amount);
        }
    }

    fn work(&self) -> usize {
        self.run.slots.work + self.lane * self.run.slots.lane
    }

    fn sums_base(&self) -> usize {
        self.run.slots.tile_base + self.tile * self.run.slots.tile
    }

    fn clear_sums(&self) {
        let s = self.run.slots;
        if self.member.leads() {
            // SAFETY: the tile's own block, `slots.tile` bytes long.
            unsafe { std::ptr::write_bytes(self.run.arena.0.add(self.sums_base()), 0, s.tile) };
        }
        self.member.meet();
    }

    fn span(&self, a: usize, b: usize, reverse: bool) -> Span {
        Span {
            steps: (a, b),
            rows: (0, self.rows),
            reverse,
            first_row: self.first_row,
            total_steps: self.run.memory.steps,
            total_rows: self.run.memory.rows,
        }
    }

    /// The place of an operand of the outer program, from this tile's first row.
    fn outer_loc(&self, o: &Operand) -> Loc {
        let loc = self.run.frame.loc(o);
        let dtype = self.run.outer.bufs[o.buf].dtype;
        let skip = self.first_row * loc.row + o.col;
        // SAFETY: the operand has this tile's rows.
        let ptr = unsafe { loc.ptr.add(skip * dtype.real().size()) };
        Loc { ptr, ..*loc }
    }

    fn bind<'p>(
        &self,
        program: &'p StepProgram,
        slots: &StepSlots,
        inputs: &dyn Fn(&External) -> Operand,
        pass: Pass,
        recording: bool,
    ) -> Bound<'p> {
        let run = self.run;
        let pair = pair_of(run);
        let segment: BTreeSet<usize> = match pair {
            Some(pair) if recording => pair.states.keys().copied().collect(),
            _ => BTreeSet::new(),
        };
        let region = pair.map_or(0, |p| p.offset + self.tile * p.tile);
        let pair_loc = |slot: Option<&Slot>| {
            slot.map_or(Loc::default(), |s| Loc::new(run.arena, region, s).tight(self.rows))
        };
        let locs = program
            .bufs
            .iter()
            .enumerate()
            .map(|(i, buf)| match buf.kind {
                BufKind::Temp => match &slots.own[i] {
                    Some(slot) => Loc::new(run.arena, self.work(), slot).tight(self.rows),
                    None => Loc::default(),
                },
                BufKind::State(k) if segment.contains(&k) => pair_loc(pair.and_then(|p| p.states.get(&k))),
                BufKind::State(_) => match &slots.own[i] {
                    Some(slot) => Loc::new(run.arena, self.work(), slot).tight(self.rows),
                    None => Loc::default(),
                },
                BufKind::KeptState(k) => pair_loc(pair.and_then(|p| p.states.get(&k))),
                BufKind::Kept(k) => pair_loc(pair.and_then(|p| p.kept.get(k))),
                BufKind::External(e) => {
                    let o = inputs(&program.externals[e]);
                    self.outer_loc(&o)
                }
                BufKind::Sum(s) => Loc::new(run.arena, self.sums_base(), &run.slots.sums[s]),
                BufKind::SharedStack(s) => Loc::new(run.arena, self.sums_base(), &run.slots.shared[s]),
                BufKind::Bound(_) | BufKind::Constant(_) => Loc::default(),
            })
            .collect();
        let site = first_site(run.item, pass);
        self.lap(Own::Bind as usize, 0);
        let streams = pair.is_some_and(|p| {
            let steps = if pass == Pass::Record { p.cut.leaf } else { p.cut.longest() };
            record_bytes(p, steps) >= STREAM_FROM
        });
        Bound { program, site, frame: Frame { locs, streams }, segment }
    }

    fn own_input(&self, e: &External) -> Operand {
        let item = self.run.item;
        match e {
            External::Input(k) => item.inputs[k].clone(),
            External::Packed { input, transpose, .. } => item.packs[&(*input, *transpose)].clone(),
            External::Out(k) => item.outs[*k].clone(),
        }
    }

    fn replay_input(&self, e: &External) -> Operand {
        let Some(replay) = &self.run.item.replay else { return self.own_input(e) };
        match e {
            External::Input(k) => replay.inputs[k].clone(),
            External::Packed { input, transpose, .. } => replay.packs[&(*input, *transpose)].clone(),
            External::Out(k) => self.run.item.outs[*k].clone(),
        }
    }

    fn run(&self) {
        let run = self.run;
        let (item, slots) = (run.item, run.slots);
        let steps = run.memory.steps;
        let own = |e: &External| self.own_input(e);
        let main = self.bind(&item.run, &slots.run, &own, Pass::Run, matches!(item.role, Role::Forward(_)));

        // The state to start from.
        let mut moved = 0;
        for (&k, slot) in &slots.current {
            let from = self.outer_loc(&item.inputs[&k]);
            let to = Loc::new(run.arena, self.work(), slot);
            let buf = &item.run.bufs[item.run.states[&k]];
            moved += self.copy(&from, 0, &to, 0, buf);
        }
        self.member.meet();
        self.lap(Own::States as usize, moved);
        match (item.role, pair_of(run)) {
            (Role::Forward(_), Some(pair)) => {
                let sweep = item.sweep.as_ref();
                let sweep = sweep.map(|p| self.bind(p, &slots.sweep, &own, Pass::Sweep, false));
                for action in pair.schedule.forward_actions() {
                    match action {
                        Action::Advance { from, to } => {
                            if let Some(sweep) = &sweep {
                                let (a, b) = pair.cut.bounds(from, to, item.reverse);
                                self.advance(sweep, &slots.current, a, b);
                            }
                        }
                        Action::Record { from, to } => {
                            let (a, b) = pair.cut.bounds(from, to, item.reverse);
                            self.advance(&main, &slots.current, a, b);
                        }
                        other => self.mark(pair, &slots.current, &item.run, other),
                    }
                }
            }
            (Role::Adjoint(_), Some(pair)) => {
                let replay = item.replay.as_ref().map(|r| {
                    let inputs = |e: &External| self.replay_input(e);
                    (
                        self.bind(&r.advance, &slots.advance, &inputs, Pass::Advance, false),
                        self.bind(&r.record, &slots.record, &inputs, Pass::Record, true),
                    )
                });
                // The recorded scan walks the other way.
                let forward_reverse = !item.reverse;
                for action in pair.schedule.backward_actions() {
                    let bounds = |from, to| pair.cut.bounds(from, to, forward_reverse);
                    match (action, &replay) {
                        (Action::Backward { from, to }, _) => {
                            let (a, b) = bounds(from, to);
                            self.advance(&main, &slots.current, a, b);
                        }
                        (Action::Advance { from, to }, Some((advance, _))) => {
                            let (a, b) = bounds(from, to);
                            self.advance(advance, &slots.replayed, a, b);
                        }
                        (Action::Record { from, to }, Some((_, record))) => {
                            let (a, b) = bounds(from, to);
                            self.advance(record, &slots.replayed, a, b);
                        }
                        (other, Some((_, record))) => self.mark(pair, &slots.replayed, record.program, other),
                        _ => {}
                    }
                }
            }
            _ => self.advance(&main, &slots.current, 0, steps),
        }
        let mut moved = 0;
        for (k, out) in &item.finals {
            let from = Loc::new(run.arena, self.work(), &slots.current[k]);
            let buf = &item.run.bufs[item.run.states[k]];
            moved += self.copy(&from, 0, &self.outer_loc(out), 0, buf);
        }
        self.member.meet();
        self.lap(Own::States as usize, moved);
    }

    /// Stores or restores the current state.
    fn mark(&self, pair: &PairSlots, current: &BTreeMap<usize, Slot>, program: &StepProgram, action: Action) {
        let region = pair.offset + self.tile * pair.tile;
        let mut moved = 0;
        for (k, slot) in current {
            let Some(mark) = pair.checkpoints.get(k) else { continue };
            let here = Loc::new(self.run.arena, self.work(), slot);
            let there = Loc::new(self.run.arena, region, mark);
            let buf = &program.bufs[program.states[k]];
            match action {
                Action::Store { slot, .. } => moved += self.copy(&here, 0, &there, slot, buf),
                Action::Restore { slot, .. } => moved += self.copy(&there, slot, &here, 0, buf),
                _ => {}
            }
        }
        self.member.meet();
        self.lap(Own::Checkpoints as usize, moved);
    }

    /// Runs steps `a..b` from the current state to a new one. What is recorded, or was, lies in the pair's
    /// segment, which starts at step `a`; other states lie in a ring of the chunk.
    fn advance(&self, bound: &Bound<'_>, current: &BTreeMap<usize, Slot>, a: usize, b: usize) {
        let mut frame = bound.frame.clone();
        let p = bound.program;
        for (i, buf) in p.bufs.iter().enumerate() {
            let in_segment = match buf.kind {
                BufKind::KeptState(_) | BufKind::Kept(_) => true,
                BufKind::State(k) => bound.segment.contains(&k),
                _ => false,
            };
            if in_segment {
                frame.locs[i].origin = a;
            }
        }
        let slots = |from: usize, to: usize| if p.reverse { (to - from, 0) } else { (0, to - from) };
        let (enter, leave) = slots(a, b);
        self.states(bound, &frame, current, enter, true, true);
        let mut left = None;
        self.chunks(a, b, p.reverse, |from, to| {
            for (i, buf) in p.bufs.iter().enumerate() {
                let in_chunk = match buf.kind {
                    BufKind::Temp => true,
                    BufKind::State(k) => !bound.segment.contains(&k),
                    _ => false,
                };
                if in_chunk {
                    frame.locs[i].origin = from;
                }
            }
            let (enter, leave) = slots(from, to);
            match left {
                None => self.states(bound, &frame, current, enter, true, false),
                Some(left) => self.carry_over(bound, &frame, left, enter),
            }
            self.stages(bound, &frame, from, to);
            left = Some(leave);
        });
        if let Some(left) = left {
            self.states(bound, &frame, current, left, false, false);
        }
        self.states(bound, &frame, current, leave, false, true);
    }

    /// Calls `f` with the chunks of `a..b` in the order of time. Chunks begin at multiples of their length.
    fn chunks(&self, a: usize, b: usize, reverse: bool, mut f: impl FnMut(usize, usize)) {
        let q = self.run.slots.chunk;
        if reverse {
            let mut end = b;
            while end > a {
                let start = ((end - 1) / q * q).max(a);
                f(start, end);
                end = start;
            }
        } else {
            let mut start = a;
            while start < b {
                let end = ((start / q + 1) * q).min(b);
                f(start, end);
                start = end;
            }
        }
    }

    /// Copies the current state into slot `at` of the program's states, or back: those in the segment, or the
    /// others.
    fn states(
        &self,
        bound: &Bound<'_>,
        frame: &Frame,
        current: &BTreeMap<usize, Slot>,
        at: usize,
        enter: bool,
        in_segment: bool,
    ) {
        let p = bound.program;
        let mut moved = 0;
        for (k, &b) in p.states.iter().filter(|(k, _)| bound.segment.contains(k) == in_segment) {
            let Some(slot) = current.get(k) else { continue };
            let here = Loc::new(self.run.arena, self.work(), slot);
            let ring = Loc { origin: 0, ..frame.locs[b] };
            let buf = &p.bufs[b];
            moved +=
                if enter { self.copy(&here, 0, &ring, at, buf) } else { self.copy(&ring, at, &here, 0, buf) };
        }
        self.member.meet();
        self.lap(Own::States as usize, moved);
    }

    /// Copies the states in the chunk's ring from the slot in which the last chunk left them.
    fn carry_over(&self, bound: &Bound<'_>, frame: &Frame, left: usize, enter: usize) {
        let p = bound.program;
        let mut moved = 0;
        for (_, &b) in p.states.iter().filter(|(k, _)| !bound.segment.contains(k)) {
            let ring = Loc { origin: 0, ..frame.locs[b] };
            moved += self.copy(&ring, left, &ring, enter, &p.bufs[b]);
        }
        self.member.meet();
        self.lap(Own::States as usize, moved);
    }

    fn stages(&self, bound: &Bound<'_>, frame: &Frame, from: usize, to: usize) {
        let p = bound.program;
        let s = self.run.slots;
        let len = s.scratch_bytes / 8;
        let start = self.work() + s.scratch + self.member.index() * s.scratch_bytes;
        // SAFETY: the member's own part of the end of the lane's workspace.
        let scratch: &mut [u64] =
            unsafe { std::slice::from_raw_parts_mut(self.run.arena.0.add(start).cast(), len) };
        let cx = |a, b| Context { frame, bufs: &p.bufs, isa: self.run.isa, span: self.span(a, b, p.reverse) };
        let mut first = bound.site;
        for stage in &p.stages {
            let mut run = |cx: Context<'_>| {
                for (i, call) in stage.calls().iter().enumerate() {
                    run_share(&cx, call, scratch, self.member);
                    self.member.meet();
                    if let Some(clock) = self.clock {
                        // A shared call counts once, its time on every thread.
                        let (calls, entries) =
                            if self.member.leads() { (1, cx.span.entries(call.over)) } else { (0, 0) };
                        clock.lap(first + i, calls, entries);
                    }
                }
            };
            match stage {
                Stage::Batched(_) => run(cx(from, to)),
                Stage::Loop(_) => {
                    let mut step = |t: usize| run(cx(t, t + 1));
                    if p.reverse {
                        (from..to).rev().for_each(&mut step)
                    } else {
                        (from..to).for_each(&mut step)
                    }
                }
            }
            first += stage.calls().len();
        }
    }

    /// Copies this tile's rows of one slot. Returns the bytes read and written.
    fn copy(&self, from: &Loc, from_slot: usize, to: &Loc, to_slot: usize, buf: &Buf) -> u64 {
        let size = buf.dtype.real().size();
        let (first, last) = self.member.part(self.rows, 1);
        for plane in 0..buf.dtype.planes() {
            for r in first..last {
                let a = plane * from.plane + from_slot * from.step + r * from.row;
                let b = plane * to.plane + to_slot * to.step + r * to.row;
                // SAFETY: rows of blocks that do not overlap.
                unsafe {
                    std::ptr::copy_nonoverlapping(
                        from.ptr.add(a * size),
                        to.ptr.add(b * size),
                        buf.width * size,
                    );
                }
            }
        }
        2 * (buf.dtype.planes() * (last - first) * buf.width * size) as u64
    }
}

/// Puts the tiles' sums and stacks together, in the order of the tiles.
fn collect(run: &ScanRun<'_>) {
    let s = run.slots;
    let p = &run.item.run;
    let tiles = |partial: bool| if partial { s.tiles } else { s.tiles.min(1) };
    for (i, c) in p.sums.iter().enumerate() {
        let buf = &p.bufs[c.buf];
        // Equal sums share a buffer, that of the first.
        let BufKind::Sum(first) = buf.kind else { continue };
        let slot = &s.sums[first];
        let out = &run.item.sums[i];
        for plane in 0..buf.dtype.planes() {
            if c.rows {
                for tile in 0..s.tiles {
                    let (first, rows) = tile_rows(run.memory.rows, s.tiles, tile);
                    for r in 0..rows {
                        add(run, out, plane, (0, first + r), (tile, slot), (0, r), buf, true);
                    }
                }
            } else {
                for tile in 0..tiles(c.partial) {
                    add(run, out, plane, (0, 0), (tile, slot), (0, 0), buf, tile == 0);
                }
            }
        }
    }
    for (i, (k, c)) in p.shared_stacks.iter().enumerate() {
        let buf = &p.bufs[c.buf];
        let out = &run.item.outs[*k];
        for plane in 0..buf.dtype.planes() {
            for t in 0..run.memory.steps {
                for tile in 0..tiles(c.partial) {
                    add(run, out, plane, (t, 0), (tile, &s.shared[i]), (t, 0), buf, tile == 0);
                }
            }
        }
    }
}

/// Adds (or copies) one entry of a tile's sum to an entry of the outer program's operand.
fn add(
    run: &ScanRun<'_>,
    out: &Operand,
    plane: usize,
    (t, row): (usize, usize),
    (tile, slot): (usize, &Slot),
    (from_t, from_row): (usize, usize),
    buf: &Buf,
    set: bool,
) {
    let from = Loc::new(run.arena, run.slots.tile_base + tile * run.slots.tile, slot);
    let to = run.frame.loc(out);
    let a = plane * from.plane + from_t * from.step + from_row * from.row;
    let b = plane * to.plane + t * to.step + row * to.row + out.col;
    macro_rules! typed {
        ($r:ty) => {
            // SAFETY: entries of blocks that do not overlap; the tiles have ended.
            unsafe {
                let x = std::slice::from_raw_parts(from.ptr.cast::<$r>().add(a), buf.width);
                let y = std::slice::from_raw_parts_mut(to.ptr.cast::<$r>().add(b), buf.width);
                if set { y.copy_from_slice(x) } else { y.iter_mut().zip(x).for_each(|(y, x)| *y += *x) }
            }
        };
    }
    match buf.dtype.real() {
        DType::F64 => typed!(f64),
        DType::I32 => typed!(i32),
        _ => typed!(f32),
    }
}
