//! The table of a kernel: what depends on the numbers of steps and rows and on where the plan put things.
//!
//! The code of a kernel depends on the program alone. Addresses, distances and sizes are words of a table in the arena,
//! which is written before a run.

use super::resident::Array;
use crate::plan::memory::{Memory, Slot};

/// A form of a scan's step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Run,
    Sweep,
    Advance,
    Record,
}

/// Something that has a place. Scans by their item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ref {
    Outer(usize),
    Own(usize, Form, usize),
    PairState(usize, usize),
    Kept(usize, usize),
    Mark(usize, usize),
    Current(usize, usize),
    Replayed(usize, usize),
    Sum(usize, usize),
    Shared(usize, usize),
    /// How far off the states are that a tile walked back to.
    Drift(usize),
    /// Not in the arena but in the shared memory of a block, so many bytes from its start; elements from plane to plane.
    OnChip(usize, usize),
}

/// A word of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Steps,
    Batch,
    /// Number of the first step that values with a time axis hold.
    Origin,
    /// Tiles and steps of a chunk of a scan.
    Tiles(usize),
    Chunk(usize),
    /// Bytes from tile to tile: workspaces, sums, the record of a pair.
    Lane(usize),
    SumTile(usize),
    PairTile(usize),
    /// Address of the first plane, and elements to the next.
    Base(Ref),
    Plane(Ref),
    /// Address of the sums of a scan's first tile.
    Sums(usize),
    /// Address of the first tile's counter of a scan whose tiles have teams.
    Meeting(usize),
    /// Address of a list of indices.
    Map(usize),
    /// Parts that the sum of an item is formed in, and the address of the partial sums.
    Parts(usize),
    Partial(usize),
    /// Address of what a run reads of it: the largest drift of an adjoint that walks back, by number.
    Drift(usize),
}

/// The value of a word. `fixed`: what stays on the device, by outer buffer; `maps`, `drifts`: where the lists and the
/// drifts lie.
pub(super) fn resolve(
    word: Word,
    memory: &Memory,
    (arena, fixed): (u64, &[Option<Array>]),
    (maps, drifts): (&[u64], u64),
) -> u64 {
    let stays = |what: Ref| match what {
        Ref::Outer(buf) => fixed[buf],
        _ => None,
    };
    let scan = |item: usize| memory.scans.get(&item);
    let number = match word {
        Word::Steps => memory.steps,
        Word::Batch => memory.rows,
        Word::Origin => memory.origin,
        Word::Tiles(item) => scan(item).map_or(0, |s| s.tiles),
        Word::Chunk(item) => scan(item).map_or(1, |s| s.chunk),
        Word::Lane(item) => scan(item).map_or(0, |s| s.lane),
        Word::SumTile(item) => scan(item).map_or(0, |s| s.tile),
        Word::PairTile(pair) => memory.pairs[pair].tile,
        Word::Base(what) => {
            if let Some(array) = stays(what) {
                return array.planes[0];
            }
            return slot(what, memory).map_or(0, |(base, s)| arena + (base + s.offset) as u64);
        }
        // The planes of what stays follow each other.
        Word::Plane(what) => {
            stays(what).map_or_else(|| slot(what, memory).map_or(0, |(_, s)| s.plane), |array| array.len)
        }
        Word::Sums(item) => return arena + scan(item).map_or(0, |s| s.tile_base) as u64,
        Word::Meeting(item) => return arena + scan(item).map_or(0, |s| s.work + s.scratch) as u64,
        Word::Map(map) => return maps[map],
        Word::Parts(item) => memory.partials.get(&item).map_or(1, |p| p.parts),
        Word::Partial(item) => return arena + memory.partials.get(&item).map_or(0, |p| p.offset) as u64,
        Word::Drift(number) => return drifts + (number * size_of::<f64>()) as u64,
    };
    number as u64
}

/// Where something is: the start of its block, and its place there.
pub(super) fn slot(what: Ref, memory: &Memory) -> Option<(usize, Slot)> {
    let scan = |item: usize| memory.scans.get(&item);
    match what {
        Ref::Outer(buf) => Some((0, memory.outer[buf]?)),
        Ref::Own(item, form, buf) => {
            let s = scan(item)?;
            let slots = match form {
                Form::Run => &s.run,
                Form::Sweep => &s.sweep,
                Form::Advance => &s.advance,
                Form::Record => &s.record,
            };
            Some((s.work, slots.own[buf]?))
        }
        Ref::PairState(pair, k) => Some((memory.pairs[pair].offset, *memory.pairs[pair].states.get(&k)?)),
        Ref::Kept(pair, k) => Some((memory.pairs[pair].offset, *memory.pairs[pair].kept.get(k)?)),
        Ref::Mark(pair, k) => Some((memory.pairs[pair].offset, *memory.pairs[pair].checkpoints.get(&k)?)),
        Ref::Current(item, k) => Some((scan(item)?.work, *scan(item)?.current.get(&k)?)),
        Ref::Replayed(item, k) => Some((scan(item)?.work, *scan(item)?.replayed.get(&k)?)),
        Ref::Sum(item, i) => Some((scan(item)?.tile_base, *scan(item)?.sums.get(i)?)),
        Ref::Shared(item, i) => Some((scan(item)?.tile_base, *scan(item)?.shared.get(i)?)),
        Ref::Drift(item) => Some((scan(item)?.tile_base, scan(item)?.drift)),
        Ref::OnChip(..) => None,
    }
}
