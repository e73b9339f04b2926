//! Memory: where every byte of a run lives, for given numbers of steps and rows.
//!
//! Liveness decides: every buffer has an offset in one arena, and nothing is allocated while the program runs.
//! Threads split the rows of a batch into tiles. The tiles depend on the number of rows alone, so sums over rows
//! are formed in the same order whatever the number of threads.

use std::collections::BTreeMap;

use super::ir::{Buf, BufKind};
use super::outer::{Item, Outer, Role, ScanItem};
use super::step::StepProgram;
use crate::device::Sum;
use crate::error::{Error, Result};
use crate::schedule::{Action, Schedule};
use crate::stash::Stash;

/// Bytes every offset is a multiple of.
const ALIGN: usize = 64;

/// No block is so large: then the sums of a few thousand of them can be counted.
const LARGEST: usize = isize::MAX as usize >> 12;

fn checked(what: &str, factors: &[usize]) -> Result<usize> {
    factors
        .iter()
        .try_fold(1usize, |n, &f| n.checked_mul(f))
        .filter(|&n| n < LARGEST)
        .ok_or_else(|| Error::Overflow { what: what.into(), sizes: format!("{factors:?}") })
}

pub(crate) fn aligned(bytes: usize) -> usize {
    bytes.div_ceil(ALIGN) * ALIGN
}

/// Rows from which reading a large matrix once for each tile of 32 of them is hidden behind the arithmetic.
const MANY_ROWS: usize = 64;

/// Bytes of a matrix from which threads that have one row between them meet after every call: reading it takes one of
/// them longer than meeting takes both.
const WORTH_MEETING: usize = 512 << 10;

/// Whether threads share the calls of one tile: the matrix is larger than a thread's cache, and the rows are few; or
/// there is but one.
pub(crate) fn shares_calls(rows: usize, s: &ScanItem) -> bool {
    s.block_rows.is_none() && s.matrix_bytes > CACHE && rows < MANY_ROWS
        || s.block_rows.is_none() && rows == 1 && s.matrix_bytes >= WORTH_MEETING
}

/// Rows of a tile, about; and where a thread's cache does not hold the matrix, which every tile reads at every step.
const ROWS: usize = 32;
const LARGE_ROWS: usize = 64;

/// Most tiles on a device.
pub(crate) const MOST_BLOCKS: usize = 1 << 16;

/// Number of tiles the rows are split into: on a device a fixed number of rows a tile, on the processor at least two tiles
/// for two threads.
pub(crate) fn tiles(rows: usize, s: &ScanItem) -> usize {
    if s.mixes_rows || rows < 2 || shares_calls(rows, s) {
        return 1;
    }
    if let Some(of_block) = s.block_rows {
        return rows.div_ceil(of_block).min(MOST_BLOCKS);
    }
    let of = if s.matrix_bytes > CACHE { LARGE_ROWS } else { ROWS };
    rows.div_ceil(of).next_power_of_two().clamp(2, 64).min(rows)
}

/// First row and number of rows of a tile; sizes differ by at most one.
pub(crate) fn tile_rows(rows: usize, tiles: usize, tile: usize) -> (usize, usize) {
    let start = tile * rows / tiles;
    (start, (tile + 1) * rows / tiles - start)
}

/// Bytes of a chunk's values that should be in the cache together.
const CACHE: usize = 1 << 20;

/// Steps of a chunk: enough rows to keep the products busy, few enough for their values to stay in the cache. A matrix
/// that fills the cache alone wants more rows instead: its gradient is read and written once a chunk. The same for a scan and its adjoint under every plan, because sums over
/// time are formed chunk by chunk.
pub(crate) fn chunk_steps(rows_of_tile: usize, value_bytes: usize, matrix_bytes: usize) -> usize {
    let rows = rows_of_tile.max(1);
    if matrix_bytes > CACHE {
        return (256 / rows).next_power_of_two().clamp(4, 64);
    }
    let few = CACHE / value_bytes.saturating_mul(rows).max(1);
    (192 / rows).next_power_of_two().min((few + 1).next_power_of_two() / 2).clamp(4, 64)
}

/// A buffer's place: offset of its first plane and elements between planes, slots and rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Slot {
    pub(crate) offset: usize,
    pub(crate) plane: usize,
    pub(crate) step: usize,
    pub(crate) row: usize,
}

impl Slot {
    /// `[planes, slots, rows, width]` from `offset`, `element` bytes for an element of all planes; a `slots` or `rows` of `None` is an axis the buffer lacks.
    fn new(
        offset: usize,
        element: usize,
        slots: Option<usize>,
        rows: Option<usize>,
        width: usize,
    ) -> Result<(Slot, usize)> {
        let per_slot = checked("buffer", &[rows.unwrap_or(1), width])?;
        let plane = checked("buffer", &[slots.unwrap_or(1), per_slot])?;
        let bytes = checked("buffer", &[plane, element])?;
        let slot = Slot {
            offset,
            plane,
            step: if slots.is_some() { per_slot } else { 0 },
            row: if rows.is_some() { width } else { 0 },
        };
        Ok((slot, aligned(bytes)))
    }
}

/// Places of a step's own buffers in a lane's workspace, relative to its start.
#[derive(Clone, Debug, Default)]
pub(crate) struct StepSlots {
    /// By buffer; `None` for those that live elsewhere.
    pub(crate) own: Vec<Option<Slot>>,
    pub(crate) bytes: usize,
}

/// Places shared by a pair of scans: one region per tile.
#[derive(Clone, Debug)]
pub(crate) struct PairSlots {
    pub(crate) offset: usize,
    /// Bytes from one tile to the next.
    pub(crate) tile: usize,
    /// Bytes in all.
    pub(crate) bytes: usize,
    /// States of a segment, one more slot than steps.
    pub(crate) states: BTreeMap<usize, Slot>,
    pub(crate) kept: Vec<Slot>,
    /// State `k` of checkpoint slot `s` is `checkpoints[k]` with `s` as its step.
    pub(crate) checkpoints: BTreeMap<usize, Slot>,
    pub(crate) cut: Division,
    pub(crate) schedule: Schedule,
}

impl PairSlots {
    /// Bytes of a tile's record of `steps` steps.
    pub(crate) fn record_bytes(&self, steps: usize) -> usize {
        (self.tile as u128 * steps as u128 / self.cut.longest().max(1) as u128) as usize
    }

    /// What the recorded scan (`forward`) or its adjoint does of the schedule, in order, each with the steps that it goes
    /// over. `reverse`: the one that does it goes from the last step to the first.
    pub(crate) fn actions(
        &self,
        forward: bool,
        reverse: bool,
    ) -> impl Iterator<Item = (Action, (usize, usize))> {
        let actions =
            if forward { self.schedule.forward_actions() } else { self.schedule.backward_actions() };
        actions.map(move |action| {
            let steps = match action {
                Action::Advance { from, to }
                | Action::Record { from, to }
                | Action::Backward { from, to } => {
                    // The recorded scan walks the other way than its adjoint.
                    self.cut.bounds(from, to, reverse == forward)
                }
                _ => (0, 0),
            };
            (action, steps)
        })
    }
}

/// How the steps of a pair are cut into segments, in the order of the recorded scan: all of `leaf` steps but the
/// last, which takes the rest. In time they are cut at multiples of the leaf from step 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Division {
    pub(crate) steps: usize,
    pub(crate) leaf: usize,
    pub(crate) segments: usize,
}

impl Division {
    fn new(steps: usize, segments: Segments) -> Division {
        let leaf = segments.leaf.min(steps).max(1);
        let most = steps.div_ceil(leaf);
        Division { steps, leaf, segments: segments.count.clamp(1, most.max(1)).min(most) }
    }

    /// Leaves of the last segment.
    fn tail(&self) -> usize {
        self.steps.div_ceil(self.leaf).saturating_sub(self.segments.saturating_sub(1))
    }

    /// Steps of the longest segment.
    pub(crate) fn longest(&self) -> usize {
        self.tail().saturating_mul(self.leaf).min(self.steps).max(1)
    }

    /// The step before segment `segment`, for a scan that walks `reverse` or forward.
    pub(crate) fn position(&self, segment: usize, reverse: bool) -> usize {
        let leaves = if segment < self.segments { segment } else { self.steps.div_ceil(self.leaf) };
        let visited = leaves.saturating_mul(self.leaf);
        if reverse {
            let all = self.steps.div_ceil(self.leaf).saturating_mul(self.leaf);
            (all - visited).min(self.steps)
        } else {
            visited.min(self.steps)
        }
    }

    /// First step of segments `from..to` in time, and the step after the last.
    pub(crate) fn bounds(&self, from: usize, to: usize, reverse: bool) -> (usize, usize) {
        let (a, b) = (self.position(from, reverse), self.position(to, reverse));
        (a.min(b), a.max(b))
    }
}

/// Partial sums of a call on a device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Partials {
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
    /// Of each element.
    pub(crate) parts: usize,
}

/// Places of a scan's working memory.
#[derive(Clone, Debug)]
pub(crate) struct ScanSlots {
    pub(crate) tiles: usize,
    pub(crate) chunk: usize,
    pub(crate) lanes: usize,
    /// Threads that share every call of the one tile; 1 if tiles are shared out instead.
    pub(crate) members: usize,
    /// Start of the lanes' workspaces, and bytes from one to the next.
    pub(crate) work: usize,
    pub(crate) lane: usize,
    pub(crate) run: StepSlots,
    pub(crate) sweep: StepSlots,
    pub(crate) advance: StepSlots,
    pub(crate) record: StepSlots,
    /// Current states, relative to a lane's workspace: of this scan, and of the one it replays.
    pub(crate) current: BTreeMap<usize, Slot>,
    pub(crate) replayed: BTreeMap<usize, Slot>,
    /// Where each tile leaves them between the pieces of a sequence that arrives bit by bit, relative to the tile's start.
    pub(crate) left: BTreeMap<usize, Slot>,
    pub(crate) left_replayed: BTreeMap<usize, Slot>,
    /// Scratch memory of the first member, relative to a lane's workspace, and bytes of each member's.
    pub(crate) scratch: usize,
    pub(crate) scratch_bytes: usize,
    /// Sums and stacks of each tile: start, bytes from one tile to the next, places relative to a tile's start.
    pub(crate) tile_base: usize,
    pub(crate) tile: usize,
    pub(crate) sums: Vec<Slot>,
    pub(crate) shared: Vec<Slot>,
    /// On a device, where each tile notes how far off the states are that it walked back to.
    pub(crate) drift: Slot,
}

/// A whole run's memory.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    pub(crate) steps: usize,
    /// Number of the first step that values with a time axis hold: of a sequence that arrives piece by piece, on a device.
    pub(crate) origin: usize,
    pub(crate) rows: usize,
    /// How what is recorded is held.
    pub(crate) stash: Stash,
    pub(crate) bytes: usize,
    /// Bytes of the tensors returned.
    pub(crate) output_bytes: usize,
    /// Bytes of what stays on a device from run to run, beside the arena.
    pub(crate) resident_bytes: usize,
    pub(crate) outer: Vec<Option<Slot>>,
    pub(crate) scans: BTreeMap<usize, ScanSlots>,
    pub(crate) pairs: Vec<PairSlots>,
    pub(crate) scratch: usize,
    /// Of sums outside of scans, by item.
    pub(crate) partials: BTreeMap<usize, Partials>,
    /// Where the tables of a device lie.
    pub(crate) tables: usize,
}

/// How the recorded values of the run's pairs are held.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Segments {
    /// Steps of every segment but the last, which takes the rest.
    pub(crate) leaf: usize,
    /// Number of segments.
    pub(crate) count: usize,
    /// Slots for checkpoints.
    pub(crate) slots: usize,
}

impl Segments {
    /// The whole sequence is recorded.
    pub(crate) const WHOLE: Segments = Segments { leaf: usize::MAX, count: 1, slots: 0 };
}

/// A block of memory to place: bytes, and the items during which it lives.
struct Block {
    bytes: usize,
    from: usize,
    to: usize,
}

/// First fit by decreasing size: offsets, and the bytes in all.
fn place(blocks: &[Block]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..blocks.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(blocks[i].bytes));
    let mut offsets = vec![0; blocks.len()];
    let mut placed: Vec<usize> = Vec::new();
    let mut total = 0;
    for i in order {
        let b = &blocks[i];
        let mut taken: Vec<(usize, usize)> = placed
            .iter()
            .filter(|&&j| blocks[j].from <= b.to && b.from <= blocks[j].to)
            .map(|&j| (offsets[j], offsets[j] + blocks[j].bytes))
            .collect();
        taken.sort_unstable();
        let mut at = 0;
        for (start, end) in taken {
            if at + b.bytes <= start {
                break;
            }
            at = at.max(end);
        }
        offsets[i] = at;
        total = total.max(at + b.bytes);
        placed.push(i);
    }
    (offsets, total)
}

/// Places the temporary buffers and ring states of a step. `rows` and `chunk` are those of a tile; `recorded`
/// states lie in the pair's segment instead. A record that is rounded is not computed with: a chunk of it has a place
/// of its own here, in full precision.
fn step_slots(
    p: &StepProgram,
    rows: usize,
    chunk: usize,
    recorded: &dyn Fn(usize) -> bool,
    stash: Stash,
) -> Result<StepSlots> {
    let mut own = vec![None; p.bufs.len()];
    let mut blocks = Vec::new();
    let mut which = Vec::new();
    for (i, buf) in p.bufs.iter().enumerate() {
        let (slots, life) = match buf.kind {
            BufKind::Temp => match p.lives[i] {
                Some(life) => (buf.lead.has_t().then_some(chunk), life),
                None => continue,
            },
            BufKind::State(k) if stash.rounds() || !recorded(k) => (Some(chunk + 1), (0, usize::MAX)),
            BufKind::KeptState(_) if stash.rounds() => (Some(chunk + 1), (0, usize::MAX)),
            BufKind::Kept(_) if stash.rounds() => (Some(chunk), (0, usize::MAX)),
            _ => continue,
        };
        let rows = buf.lead.has_n().then_some(rows);
        let (slot, bytes) = Slot::new(0, buf.dtype.size(), slots, rows, buf.width)?;
        blocks.push(Block { bytes, from: life.0, to: life.1 });
        which.push((i, slot));
    }
    let (offsets, bytes) = place(&blocks);
    for ((i, slot), offset) in which.into_iter().zip(offsets) {
        own[i] = Some(Slot { offset, ..slot });
    }
    Ok(StepSlots { own, bytes })
}

/// Places `entries` (key, bytes of an element, slots, rows, width) one behind the other from `at`; returns where they
/// end.
fn line_up<K: Ord>(
    entries: impl Iterator<Item = (K, usize, Option<usize>, Option<usize>, usize)>,
    mut at: usize,
) -> Result<(BTreeMap<K, Slot>, usize)> {
    let mut out = BTreeMap::new();
    for (key, element, slots, rows, width) in entries {
        let (slot, bytes) = Slot::new(at, element, slots, rows, width)?;
        out.insert(key, slot);
        at += bytes;
    }
    Ok((out, at))
}

fn states_of(p: &StepProgram) -> impl Iterator<Item = (usize, &Buf)> {
    p.states.iter().map(|(&k, &b)| (k, &p.bufs[b]))
}

impl ScanSlots {
    fn new(
        outer: &Outer,
        s: &ScanItem,
        (steps, rows): (usize, usize),
        threads: usize,
        stash: Stash,
        by_pieces: bool,
    ) -> Result<ScanSlots> {
        let tiles = tiles(rows, s);
        let of_tile = rows.div_ceil(tiles);
        let chunk = chunk_steps(of_tile, s.value_bytes, s.matrix_bytes);
        let in_pair = |k: usize| match s.role {
            Role::Forward(p) | Role::Adjoint(p) => {
                outer.pairs[p].walk.is_none() && outer.pairs[p].states.contains_key(&k)
            }
            Role::Plain => false,
        };
        let recording = matches!(s.role, Role::Forward(_));
        let nothing = |_: usize| false;
        let run = step_slots(&s.run, of_tile, chunk, &|k| recording && in_pair(k), stash)?;
        let sweep = s
            .sweep
            .as_ref()
            .map(|p| step_slots(p, of_tile, chunk, &nothing, stash))
            .transpose()?
            .unwrap_or_default();
        let (mut advance, mut record) = (StepSlots::default(), StepSlots::default());
        let mut programs = vec![&s.run];
        programs.extend(&s.sweep);
        if let Some(r) = &s.replay {
            advance = step_slots(&r.advance, of_tile, chunk, &nothing, stash)?;
            record = step_slots(&r.record, of_tile, chunk, &in_pair, stash)?;
            programs.extend([&r.advance, &r.record]);
        }
        // Sweeps and replays take turns with the scan proper, but their states do not overlap.
        let temp = run.bytes.max(sweep.bytes).max(advance.bytes).max(record.bytes);
        let at = temp;
        let (current, at) =
            line_up(states_of(&s.run).map(|(k, b)| (k, b.dtype.size(), None, Some(of_tile), b.width)), at)?;
        let (replayed, at) = match &s.replay {
            Some(r) => {
                let states = states_of(&r.record);
                line_up(states.map(|(k, b)| (k, b.dtype.size(), None, Some(of_tile), b.width)), at)?
            }
            None => (BTreeMap::new(), at),
        };
        let scratch = aligned(at);
        let scratch_bytes = aligned(programs.iter().map(|p| p.scratch).max().unwrap_or(0) * 8);
        let members = if shares_calls(rows, s) { threads } else { 1 };
        let lane = aligned(at) + checked("scratch", &[scratch_bytes, members])?;
        let buf = |b: usize| &s.run.bufs[b];
        let (sums, at) = line_up(
            s.run.sums.iter().enumerate().map(|(i, c)| {
                let b = buf(c.buf);
                (i, b.dtype.size(), None, c.rows.then_some(of_tile), b.width)
            }),
            0,
        )?;
        let (shared, at) = line_up(
            s.run.shared_stacks.iter().enumerate().map(|(i, (_, c))| {
                let b = buf(c.buf);
                (i, b.dtype.size(), Some(steps), None, b.width)
            }),
            at,
        )?;
        let place = |p: &StepProgram, at| {
            // A tile on a device has its own place for them.
            let states = states_of(p).filter(|_| by_pieces && outer.tables.is_none());
            line_up(states.map(|(k, b)| (k, b.dtype.size(), None, Some(of_tile), b.width)), at)
        };
        let (left, at) = place(&s.run, at)?;
        let (left_replayed, at) = match &s.replay {
            Some(r) => place(&r.record, at)?,
            None => (BTreeMap::new(), at),
        };
        let notes = outer.tables.is_some() && s.walked_from.is_some();
        let (drift, bytes) = Slot::new(at, size_of::<f64>(), None, None, usize::from(notes))?;
        let at = at + bytes;
        Ok(ScanSlots {
            tiles,
            chunk,
            lanes: threads.min(tiles),
            members,
            scratch_bytes,
            work: 0,
            lane,
            run,
            sweep,
            advance,
            record,
            current,
            replayed,
            left,
            left_replayed,
            scratch,
            tile_base: 0,
            tile: aligned(at),
            sums: sums.into_values().collect(),
            shared: shared.into_values().collect(),
            drift,
        })
    }
}

/// Bytes that the record of all pairs takes, over all tiles.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PairBytes {
    /// Of a checkpoint.
    pub(crate) mark: usize,
    /// Of the states of one more step than there are.
    pub(crate) state: usize,
    /// Of a recorded step.
    pub(crate) step: usize,
    /// Real numbers of a recorded step that are rounded.
    pub(crate) rounded: usize,
}

fn is_bound(buf: &Buf) -> bool {
    matches!(buf.kind, BufKind::Bound(_) | BufKind::Constant(_))
}

/// Whether a buffer of a device's program holds a value that stays there from run to run: bound or constant, and without
/// an entry for every step or row.
pub(crate) fn stays(outer: &Outer, buf: usize) -> bool {
    let b = &outer.bufs[buf];
    outer.lives[buf].is_some() && is_bound(b) && !b.lead.has_t() && !b.lead.has_n()
}

/// What the record of `rows` rows takes.
pub(crate) fn pair_bytes(outer: &Outer, rows: usize, stash: Stash) -> Result<PairBytes> {
    let mut all = PairBytes::default();
    for (p, pair) in outer.pairs.iter().enumerate().filter(|(_, pair)| pair.walk.is_none()) {
        let tiles = pair_tiles(outer, p, rows);
        let padded = checked("rows", &[tiles, rows.div_ceil(tiles)])?;
        let exact: usize = pair.states.values().map(|(d, w)| d.size() * w).sum();
        let states: usize = pair.states.values().map(|(d, w)| stash.bytes(*d) * w).sum();
        let of = |rows: bool| -> usize {
            pair.kept.iter().filter(|k| k.2 == rows).map(|(d, w, _)| stash.bytes(*d) * w).sum()
        };
        let (kept, shared) = (of(true), of(false));
        all.mark = checked("states", &[exact, padded])?.saturating_add(all.mark);
        all.state = checked("states", &[states, padded])?.saturating_add(all.state);
        all.step += checked("recorded steps", &[states + kept, padded])? + shared * tiles;
    }
    if stash.rounds() {
        all.rounded = all.step / 2;
    }
    Ok(all)
}

/// The recorded scan of pair `p`.
fn recorded(outer: &Outer, p: usize) -> Option<&ScanItem> {
    outer.items.iter().find_map(|item| match item {
        Item::Scan(s) if s.role == Role::Forward(p) => Some(&**s),
        _ => None,
    })
}

fn pair_tiles(outer: &Outer, p: usize, rows: usize) -> usize {
    recorded(outer, p).map_or(1, |s| tiles(rows, s))
}

/// Largest chunk of the pairs: segments are a multiple of it.
pub(crate) fn pair_chunk(outer: &Outer, rows: usize) -> usize {
    (0..outer.pairs.len())
        .filter_map(|p| recorded(outer, p))
        .map(|s| chunk_steps(rows.div_ceil(tiles(rows, s)), s.value_bytes, s.matrix_bytes))
        .max()
        .unwrap_or(1)
}

/// How a pair's steps are cut, and the slots for checkpoints.
fn scheduled(steps: usize, segments: Segments) -> Result<(Division, Schedule, usize)> {
    let cut = Division::new(steps, segments);
    let n = cut.segments;
    if n <= 1 {
        return Ok((cut, Schedule::keep(n), 0));
    }
    let schedule = Schedule::binomial(n, segments.slots)
        .map_err(|e| Error::argument("plan", format!("bug: schedule of {n} segments: {e}")))?;
    Ok((cut, schedule, segments.slots))
}

/// How the steps are cut of a pair whose states are walked back.
fn walked(steps: usize, every: usize) -> (Division, Schedule, usize) {
    let leaf = every.min(steps).max(1);
    let cut = Division { steps, leaf, segments: steps.div_ceil(leaf) };
    let schedule = Schedule::walk_back(cut.segments);
    (cut, schedule, schedule.slots())
}

/// Largest chunk of the scans.
pub(crate) fn longest_chunk(outer: &Outer, rows: usize) -> usize {
    let of = |item: &Item| match item {
        Item::Scan(s) => chunk_steps(rows.div_ceil(tiles(rows, s)), s.value_bytes, s.matrix_bytes),
        Item::Call(_) => 1,
    };
    outer.items.iter().map(of).max().unwrap_or(1)
}

fn pair_slots(
    outer: &Outer,
    p: usize,
    rows: usize,
    (cut, schedule, slots): (Division, Schedule, usize),
    stash: Stash,
) -> Result<(PairSlots, usize)> {
    let pair = &outer.pairs[p];
    let tiles = pair_tiles(outer, p, rows);
    let of_tile = rows.div_ceil(tiles);
    let longest = cut.longest();
    let recorded = pair.recorded();
    let states = recorded.iter().map(|(&k, &(d, w))| {
        let slots = longest.saturating_add(1);
        (k, stash.bytes(d), Some(slots), Some(of_tile), w)
    });
    let (states, at) = line_up(states, 0)?;
    let kept = pair.kept.iter().enumerate();
    let kept = kept.map(|(k, &(d, w, r))| (k, stash.bytes(d), Some(longest), r.then_some(of_tile), w));
    let (kept, at) = line_up(kept, at)?;
    let marks = pair.states.iter().filter(|_| slots > 0);
    let (checkpoints, at) =
        line_up(marks.map(|(&k, &(d, w))| (k, d.size(), Some(slots), Some(of_tile), w)), at)?;
    let kept = kept.into_values().collect();
    let bytes = checked("recorded values", &[at, tiles])?;
    Ok((PairSlots { offset: 0, tile: at, bytes, states, kept, checkpoints, cut, schedule }, bytes))
}

impl Memory {
    /// Places everything.
    pub(crate) fn new(
        outer: &Outer,
        steps: usize,
        rows: usize,
        threads: usize,
        segments: Segments,
        stash: Stash,
    ) -> Result<Memory> {
        Memory::place(outer, (steps, rows), threads, stash, scheduled(steps, segments)?, false)
    }

    /// Places everything for a sequence that arrives in segments of so many steps, with slots for checkpoints. Who runs it
    /// has the schedule.
    pub(crate) fn for_stream(
        outer: &Outer,
        segment: usize,
        rows: usize,
        threads: usize,
        slots: usize,
        stash: Stash,
    ) -> Result<Memory> {
        let cut = Division { steps: segment, leaf: segment, segments: 1 };
        Memory::place(outer, (segment, rows), threads, stash, (cut, Schedule::keep(1), slots), true)
    }

    fn place(
        outer: &Outer,
        (steps, rows): (usize, usize),
        threads: usize,
        stash: Stash,
        schedule: (Division, Schedule, usize),
        by_pieces: bool,
    ) -> Result<Memory> {
        let mut blocks = Vec::new();
        let mut slots = vec![None; outer.bufs.len()];
        let (mut which, mut resident) = (Vec::new(), 0);
        for (i, buf) in outer.bufs.iter().enumerate() {
            let Some((from, to)) = outer.lives[i] else { continue };
            let borrowed = match outer.tables {
                Some(_) => stays(outer, i),
                None => is_bound(buf) && !buf.dtype.is_complex(),
            };
            if borrowed && outer.tables.is_some() {
                resident += aligned(checked("buffer", &[buf.width, buf.dtype.size()])?);
            }
            let t = buf.lead.has_t().then_some(steps);
            let n = buf.lead.has_n().then_some(rows);
            let (slot, bytes) = Slot::new(0, buf.dtype.size(), t, n, buf.width)?;
            slots[i] = Some(slot);
            if !borrowed {
                which.push(i);
                blocks.push(Block { bytes, from, to });
            }
        }
        let mut scans = BTreeMap::new();
        let mut scan_blocks = Vec::new();
        let (mut partials, mut partial_blocks) = (BTreeMap::new(), Vec::new());
        for (at, item) in outer.items.iter().enumerate() {
            let s = match item {
                Item::Scan(s) => s,
                Item::Call(call) => {
                    let sum = outer.tables.and_then(|_| Sum::of(outer, call));
                    if let Some(sum) = sum.filter(|s| s.bytes(steps, rows) > 0) {
                        let bytes = aligned(checked("partial sums", &[sum.bytes(steps, rows)])?);
                        partials.insert(at, Partials { offset: 0, bytes, parts: sum.parts(steps, rows) });
                        partial_blocks.push((at, blocks.len()));
                        blocks.push(Block { bytes, from: at, to: at });
                    }
                    continue;
                }
            };
            let scan = ScanSlots::new(outer, s, (steps, rows), threads, stash, by_pieces)?;
            let work = checked("workspace", &[scan.lane, scan.lanes])?;
            let tile = checked("sums", &[scan.tile, scan.tiles])?;
            scan_blocks.push((at, blocks.len()));
            blocks.push(Block { bytes: work, from: at, to: at });
            blocks.push(Block { bytes: tile, from: at, to: at });
            scans.insert(at, scan);
        }
        let mut pairs = Vec::new();
        let mut pair_blocks = Vec::new();
        for p in 0..outer.pairs.len() {
            let schedule = outer.pairs[p].walk.map_or(schedule, |walk| walked(steps, walk.every));
            let (slots, bytes) = pair_slots(outer, p, rows, schedule, stash)?;
            let (from, to) = outer.pair_lives[p];
            pair_blocks.push(blocks.len());
            blocks.push(Block { bytes, from, to });
            pairs.push(slots);
        }
        let scratch_block = blocks.len();
        let scratch_bytes = aligned(outer.scratch * 8);
        blocks.push(Block {
            bytes: checked("scratch", &[scratch_bytes, threads])?,
            from: 0,
            to: outer.items.len(),
        });

        let tables_block = blocks.len();
        if let Some(bytes) = outer.tables {
            blocks.push(Block { bytes: aligned(bytes), from: 0, to: outer.items.len() });
        }

        let (offsets, bytes) = place(&blocks);
        for (k, i) in which.into_iter().enumerate() {
            if let Some(slot) = &mut slots[i] {
                slot.offset = offsets[k];
            }
        }
        for (at, block) in partial_blocks {
            if let Some(partials) = partials.get_mut(&at) {
                partials.offset = offsets[block];
            }
        }
        for (at, block) in scan_blocks {
            if let Some(scan) = scans.get_mut(&at) {
                scan.work = offsets[block];
                scan.tile_base = offsets[block + 1];
            }
        }
        for (pair, block) in pairs.iter_mut().zip(pair_blocks) {
            pair.offset = offsets[block];
        }
        let mut output_bytes = 0;
        for (_, ty) in &outer.outputs {
            let count = ty.shape.lead.count(steps, rows).unwrap_or(usize::MAX);
            output_bytes += aligned(checked("output", &[count, ty.entry_bytes()])?);
        }
        Ok(Memory {
            steps,
            origin: 0,
            rows,
            stash,
            bytes,
            output_bytes,
            resident_bytes: resident,
            outer: slots,
            scans,
            pairs,
            scratch: offsets[scratch_block],
            partials,
            tables: outer.tables.map_or(0, |_| offsets[tables_block]),
        })
    }

    /// Most bytes alive at once: the arena, what stays on a device, and the tensors returned.
    pub(crate) fn peak_bytes(&self) -> usize {
        aligned(self.bytes) + self.resident_bytes + self.output_bytes
    }
}
