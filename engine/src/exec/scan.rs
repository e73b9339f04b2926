//! A scan: tiles over threads, segments by schedule, chunks of time, stages of a step.

use std::collections::{BTreeMap, BTreeSet};

use super::call::{Context, Span, run_share};
use super::drift::{Compared, Drifts};
use super::frame::{Arena, Frame, Loc};
use super::team::{Member, Team};
use crate::cpu::{Isa, Pool, Real};
use crate::dtype::DType;
use crate::plan::ir::{Buf, BufKind, Operand};
use crate::plan::memory::{Memory, PairSlots, ScanSlots, Slot, StepSlots, tile_rows};
use crate::plan::outer::{Outer, Role, ScanItem};
use crate::plan::step::{External, Stage, StepProgram};
use crate::profile::{Clock, Own, Pass, Times, first_site};
use crate::schedule::Action;
use crate::stash::{Narrow, Stash};

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
    /// Where it is noted how far states that are walked back to are off.
    pub(crate) drifts: &'a Drifts,
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
    record: Record,
}

/// All forms of a step, bound to a tile.
struct Forms<'p> {
    main: Bound<'p>,
    sweep: Option<Bound<'p>>,
    /// Advancing and recording.
    replay: Option<(Bound<'p>, Bound<'p>)>,
}

/// What a step program has to do with the pair's record.
#[derive(Clone, Copy, PartialEq)]
enum Record {
    /// Nothing, or it writes and reads it in place.
    InPlace,
    /// What it computes of a chunk is rounded into the record.
    Rounded,
    /// What it reads of the record is widened for a chunk.
    Widened,
}

/// A part of a pair's record and where a program has it in full precision.
struct Held {
    wide: Loc,
    narrow: Loc,
    /// Slots beyond one for each step.
    more: usize,
}

/// Runs a scan.
pub(crate) fn run_scan(run: &ScanRun<'_>, pool: &Pool) {
    each_tile(run, pool, &|tile| {
        tile.clear_sums();
        tile.run();
    });
    collected(run);
}

/// A part of the run of a scan over a sequence that arrives piece by piece.
#[derive(Clone, Copy)]
pub(crate) enum Piece {
    /// Sums are cleared, and states are those to start from.
    Enter,
    /// An action of a schedule, over steps from the first to before the second, whose inputs are at hand.
    Act(Action, (usize, usize)),
    /// Last states and sums are handed out.
    Leave,
}

/// Runs a part of a scan. Between the parts every tile leaves its states with its sums.
pub(crate) fn run_piece(run: &ScanRun<'_>, pool: &Pool, piece: Piece) {
    let s = run.slots;
    // An adjoint has states of its own, and those of the scan that it replays.
    let replays = matches!(run.item.role, Role::Adjoint(_))
        && matches!(piece, Piece::Act(action, _) if !matches!(action, Action::Backward { .. }));
    let program = run.item.replay.as_ref().filter(|_| replays).map_or(&run.item.run, |r| &r.record);
    let (states, left) = if replays { (&s.replayed, &s.left_replayed) } else { (&s.current, &s.left) };
    each_tile(run, pool, &|tile| match piece {
        Piece::Enter => {
            tile.clear_sums();
            tile.enter();
            tile.leave_behind(program, states, left, true);
        }
        Piece::Act(action, steps) => {
            tile.leave_behind(program, states, left, false);
            tile.act(&tile.forms(), action, steps);
            tile.leave_behind(program, states, left, true);
        }
        Piece::Leave => {
            tile.leave_behind(program, states, left, false);
            tile.hand_out();
        }
    });
    if let Piece::Leave = piece {
        collected(run);
    }
}

/// Runs every tile, on the lane whose turn it is.
fn each_tile(run: &ScanRun<'_>, pool: &Pool, each: &(dyn Fn(&Tile<'_, '_>) + Sync)) {
    let s = run.slots;
    let tiles = |lane: usize, member: Member<'_>| {
        let clock = run.times.map(|times| (times, times.start()));
        let mut tile = lane;
        while tile < s.tiles {
            let (first_row, rows) = tile_rows(run.memory.rows, s.tiles, tile);
            let clock = clock.as_ref().map(|(_, clock)| clock);
            each(&Tile { run, lane, member, tile, first_row, rows, clock });
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
}

/// [`collect`], timed.
fn collected(run: &ScanRun<'_>) {
    let clock = run.times.map(|times| (times, times.start()));
    collect(run);
    if let Some((times, clock)) = clock {
        clock.lap(Own::Collect as usize, 1, (run.slots.tile * run.slots.tiles) as u64);
        times.add(clock);
    }
}

fn pair_of<'a>(run: &ScanRun<'a>) -> Option<&'a PairSlots> {
    match run.item.role {
        Role::Plain => None,
        Role::Forward(p) | Role::Adjoint(p) => Some(&run.memory.pairs[p]),
    }
}

impl<'a> Tile<'a, '_> {
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
        self.lap(Own::Clear as usize, s.tile as u64);
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
        let rounds = run.memory.stash.rounds();
        let record = match run.item.role {
            _ if !rounds => Record::InPlace,
            _ if recording => Record::Rounded,
            Role::Adjoint(_) if pass == Pass::Run => Record::Widened,
            _ => Record::InPlace,
        };
        let segment: BTreeSet<usize> = match pair {
            Some(pair) if recording && !rounds => pair.states.keys().copied().collect(),
            _ => BTreeSet::new(),
        };
        let region = pair.map_or(0, |p| p.offset + self.tile * p.tile);
        let pair_loc = |slot: Option<&Slot>| {
            slot.map_or(Loc::default(), |s| Loc::new(run.arena, region, s).tight(self.rows))
        };
        let own = |i: usize| match &slots.own[i] {
            Some(slot) => Loc::new(run.arena, self.work(), slot).tight(self.rows),
            None => Loc::default(),
        };
        let locs = program
            .bufs
            .iter()
            .enumerate()
            .map(|(i, buf)| match buf.kind {
                BufKind::State(k) if segment.contains(&k) => pair_loc(pair.and_then(|p| p.states.get(&k))),
                BufKind::Temp | BufKind::State(_) => own(i),
                BufKind::KeptState(_) | BufKind::Kept(_) if rounds => own(i),
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
        let streams = pair.filter(|p| !p.schedule.walks_back()).is_some_and(|p| {
            let steps = if pass == Pass::Record { p.cut.leaf } else { p.cut.longest() };
            !rounds && p.record_bytes(steps) >= STREAM_FROM
        });
        Bound { program, site, frame: Frame { locs, streams }, segment, record }
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

    /// All forms of the step, bound to this tile.
    fn forms(&self) -> Forms<'a> {
        let (item, slots) = (self.run.item, self.run.slots);
        let own = |e: &External| self.own_input(e);
        let inputs = |e: &External| self.replay_input(e);
        let recording = matches!(item.role, Role::Forward(_));
        Forms {
            main: self.bind(&item.run, &slots.run, &own, Pass::Run, recording),
            sweep: item.sweep.as_ref().map(|p| self.bind(p, &slots.sweep, &own, Pass::Sweep, false)),
            replay: item.replay.as_ref().map(|r| {
                (
                    self.bind(&r.advance, &slots.advance, &inputs, Pass::Advance, false),
                    self.bind(&r.record, &slots.record, &inputs, Pass::Record, true),
                )
            }),
        }
    }

    fn run(&self) {
        let item = self.run.item;
        let forms = self.forms();
        self.enter();
        let Some(pair) = pair_of(self.run) else {
            self.advance(&forms.main, &self.run.slots.current, 0, self.run.memory.steps);
            return self.hand_out();
        };
        let forward = !matches!(item.role, Role::Adjoint(_));
        for (action, steps) in pair.actions(forward, item.reverse) {
            self.act(&forms, action, steps);
        }
        self.hand_out();
    }

    /// Takes the state to start from.
    fn enter(&self) {
        let (run, item) = (self.run, self.run.item);
        let mut moved = 0;
        for (&k, slot) in &run.slots.current {
            let from = self.outer_loc(&item.inputs[&k]);
            let to = Loc::new(run.arena, self.work(), slot);
            let buf = &item.run.bufs[item.run.states[&k]];
            moved += self.copy(&from, 0, &to, 0, buf);
        }
        self.member.meet();
        self.lap(Own::States as usize, moved);
    }

    /// Carries out an action of a schedule over steps `a..b`.
    fn act(&self, forms: &Forms<'_>, action: Action, (a, b): (usize, usize)) {
        let (item, slots) = (self.run.item, self.run.slots);
        match (item.role, action, &forms.replay) {
            (Role::Forward(_), Action::Advance { .. }, _) => {
                // States that are walked back to need no other form.
                self.advance(forms.sweep.as_ref().unwrap_or(&forms.main), &slots.current, a, b);
            }
            (Role::Forward(_), Action::Record { .. }, _)
            | (Role::Adjoint(_), Action::Backward { .. }, _)
            | (Role::Plain, Action::Advance { .. } | Action::Record { .. }, _) => {
                self.advance(&forms.main, &slots.current, a, b);
            }
            (Role::Forward(_), other, _) => self.mark(&slots.current, &item.run, other),
            (Role::Adjoint(_), Action::Advance { .. }, Some((advance, _))) => {
                self.advance(advance, &slots.replayed, a, b);
            }
            (Role::Adjoint(_), Action::Record { .. }, Some((_, record))) => {
                self.advance(record, &slots.replayed, a, b);
            }
            (Role::Adjoint(_), other, Some((_, record))) => self.mark(&slots.replayed, record.program, other),
            (Role::Adjoint(p), Action::Restore { slot, .. }, None) => self.take_up(p, slot),
            (Role::Adjoint(_) | Role::Plain, ..) => {}
        }
    }

    /// Takes up the states kept in a slot where those that were walked back to end, and notes how far these are off.
    fn take_up(&self, p: usize, slot: usize) {
        let (run, item) = (self.run, self.run.item);
        let Some(first) = item.walked_from else { return };
        let pair = &run.memory.pairs[p];
        let region = pair.offset + self.tile * pair.tile;
        let mut compared = Compared::default();
        let mut moved = 0;
        for (k, mark) in &pair.checkpoints {
            let Some(current) = run.slots.current.get(&(first + k)) else { continue };
            let here = Loc::new(run.arena, self.work(), current);
            let kept = Loc::new(run.arena, region, mark);
            let buf = &item.run.bufs[item.run.states[&(first + k)]];
            if self.member.leads() {
                compared.slot(&kept, slot, Some(&here), self.rows, buf);
                // Where a sequence begins with zeros, what is large is its later states.
                if slot + 1 < pair.schedule.slots() {
                    compared.slot(&kept, slot + 1, None, self.rows, buf);
                }
            }
            self.member.meet();
            moved += self.copy(&kept, slot, &here, 0, buf);
        }
        if self.member.leads() {
            run.drifts.note(p, compared.drift());
        }
        self.member.meet();
        self.lap(Own::Checkpoints as usize, moved);
    }

    /// Hands out the last states.
    fn hand_out(&self) {
        let (run, item) = (self.run, self.run.item);
        let mut moved = 0;
        for (k, out) in &item.finals {
            let from = Loc::new(run.arena, self.work(), &run.slots.current[k]);
            let buf = &item.run.bufs[item.run.states[k]];
            moved += self.copy(&from, 0, &self.outer_loc(out), 0, buf);
        }
        self.member.meet();
        self.lap(Own::States as usize, moved);
    }

    /// Copies the states of a lane to where the tile leaves them, or takes them up again.
    fn leave_behind(
        &self,
        program: &StepProgram,
        states: &BTreeMap<usize, Slot>,
        left: &BTreeMap<usize, Slot>,
        leave: bool,
    ) {
        for (k, slot) in states {
            let Some(behind) = left.get(k) else { continue };
            let here = Loc::new(self.run.arena, self.work(), slot);
            let there = Loc::new(self.run.arena, self.sums_base(), behind);
            let (from, to) = if leave { (&here, &there) } else { (&there, &here) };
            self.copy(from, 0, to, 0, &program.bufs[program.states[k]]);
        }
        self.member.meet();
    }

    /// Stores or restores the current state.
    fn mark(&self, current: &BTreeMap<usize, Slot>, program: &StepProgram, action: Action) {
        let Some(pair) = pair_of(self.run) else { return };
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
    /// segment, which starts at step `a`; other states lie in a ring of the chunk, and so does what is recorded as long
    /// as it is not rounded.
    fn advance(&self, bound: &Bound<'_>, current: &BTreeMap<usize, Slot>, a: usize, b: usize) {
        let mut frame = bound.frame.clone();
        let p = bound.program;
        for (i, buf) in p.bufs.iter().enumerate() {
            let in_segment = match buf.kind {
                BufKind::KeptState(_) | BufKind::Kept(_) => bound.record == Record::InPlace,
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
                    BufKind::KeptState(_) | BufKind::Kept(_) => bound.record != Record::InPlace,
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
            if bound.record == Record::Widened {
                self.convert(bound, &frame, (from, to), a);
            }
            self.stages(bound, &frame, from, to);
            if bound.record == Record::Rounded {
                self.convert(bound, &frame, (from, to), a);
            }
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

    /// Rounds what was recorded of steps `from..to` into the pair's segment, which starts at step `start`, or widens it
    /// again.
    fn convert(&self, bound: &Bound<'_>, frame: &Frame, (from, to): (usize, usize), start: usize) {
        let Some(pair) = pair_of(self.run) else { return };
        let stash = self.run.memory.stash;
        let region = pair.offset + self.tile * pair.tile;
        let narrow = |slot: &Slot| Loc::new(self.run.arena, region, slot).tight(self.rows);
        let mut moved = 0;
        for (i, buf) in bound.program.bufs.iter().enumerate() {
            let (slot, more) = match (&buf.kind, bound.record) {
                (BufKind::Kept(k), _) => (pair.kept.get(*k), 0),
                (BufKind::KeptState(k), Record::Widened) => (pair.states.get(k), 1),
                (BufKind::State(k), Record::Rounded) => (pair.states.get(k), 1),
                _ => continue,
            };
            let Some(slot) = slot else { continue };
            let held = Held { wide: frame.locs[i], narrow: narrow(slot), more };
            let slots = (to - from, from - start);
            moved += match buf.dtype.real() {
                DType::F32 => self.convert_slots::<f32>(&held, slots, buf, stash, bound.record),
                DType::F64 => self.convert_slots::<f64>(&held, slots, buf, stash, bound.record),
                _ => {
                    let one = |s: usize| match bound.record {
                        Record::Rounded => self.copy(&held.wide, s, &held.narrow, slots.1 + s, buf),
                        _ => self.copy(&held.narrow, slots.1 + s, &held.wide, s, buf),
                    };
                    (0..slots.0 + more).map(one).sum()
                }
            };
        }
        self.member.meet();
        self.lap(Own::Stash as usize, moved);
    }

    /// Rounds or widens this member's rows of `steps` steps of a part of the record, of which the first is in slot
    /// `first` of the segment. Returns the bytes read and written.
    fn convert_slots<R: Real + Narrow>(
        &self,
        held: &Held,
        (steps, first): (usize, usize),
        buf: &Buf,
        stash: Stash,
        record: Record,
    ) -> u64 {
        let (wide, narrow) = (&held.wide, &held.narrow);
        let rows = if wide.row == 0 { usize::from(self.member.leads()) } else { self.rows };
        let (from, to) = if wide.row == 0 { (0, rows) } else { self.member.part(rows, 1) };
        // All slots at once where one member has all rows.
        let whole = self.member.of() == 1 && wide.step == narrow.step && wide.step == rows * buf.width;
        let (runs, length) = match (steps + held.more, (to - from) * buf.width) {
            (slots, length) if whole => (1, slots * length),
            runs => runs,
        };
        let mut count = 0;
        for plane in 0..buf.dtype.planes() {
            for s in 0..runs {
                let a = plane * wide.plane + s * wide.step + from * wide.row;
                let b = plane * narrow.plane + (first + s) * narrow.step + from * narrow.row;
                // SAFETY: rows of a chunk's buffer and of the pair's segment, which do not overlap and which no other
                // member touches before they meet.
                unsafe {
                    let (wide, narrow) = (wide.ptr.cast::<R>().add(a), narrow.ptr.cast::<u16>().add(b));
                    if record == Record::Rounded {
                        let wide = std::slice::from_raw_parts(wide, length);
                        R::narrow(self.run.isa, stash, wide, std::slice::from_raw_parts_mut(narrow, length));
                    } else {
                        let narrow = std::slice::from_raw_parts(narrow, length);
                        R::widen(self.run.isa, stash, narrow, std::slice::from_raw_parts_mut(wide, length));
                    }
                }
                count += length;
            }
        }
        (count * (size_of::<R>() + 2)) as u64
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
