//! Where the bytes of a plan go: lines that add up to its peak.

use super::summary::{MemoryKind, MemoryLine};
use super::{names, units};
use crate::plan::ir::BufKind;
use crate::plan::memory::{Memory, PairSlots, aligned, stays};
use crate::plan::outer::{Item, Outer};
use crate::stash::Stash;

/// The lines, and the item during which most bytes of the arena are in use. `at_peak` of all lines sums to
/// [`Memory::peak_bytes`].
pub(super) fn lines(outer: &Outer, m: &Memory, threads: usize) -> (Vec<MemoryLine>, usize) {
    let mut lines = Vec::new();
    let labels = names::of_outer(outer);
    for p in 0..outer.pairs.len() {
        pair(outer, m, p, &mut lines);
    }
    for (&at, scan) in &m.scans {
        let Some(Item::Scan(item)) = outer.items.get(at) else { continue };
        let mut push = |kind, count: usize, each: usize| {
            let name = format!("{}, {count} × {}", item.label, units::bytes(each));
            let bytes = count * each;
            lines.push(MemoryLine { kind, name, entry_bytes: 0, bytes, at_peak: 0, items: (at, at) });
        };
        push(MemoryKind::Workspaces, scan.lanes, scan.lane);
        push(MemoryKind::Sums, scan.tiles, scan.tile);
    }
    for (&at, sum) in &m.partials {
        let Some(Item::Call(call)) = outer.items.get(at) else { continue };
        let name = format!("{}, in {} parts", call.instr.name(), sum.parts);
        let (kind, bytes) = (MemoryKind::Sums, sum.bytes);
        lines.push(MemoryLine { kind, name, entry_bytes: 0, bytes, at_peak: 0, items: (at, at) });
    }
    let scratch = aligned(outer.scratch * 8) * threads;
    let items = (0, outer.items.len());
    let name = "calls outside the loops".to_string();
    let kind = MemoryKind::Workspaces;
    lines.push(MemoryLine { kind, name, entry_bytes: 0, bytes: scratch, at_peak: 0, items });
    if let Some(bytes) = outer.tables {
        let (name, bytes) = ("tables of the kernels".to_string(), aligned(bytes));
        lines.push(MemoryLine { kind, name, entry_bytes: 0, bytes, at_peak: 0, items });
    }
    for (i, buf) in outer.bufs.iter().enumerate() {
        let (Some(slot), Some(items)) = (&m.outer[i], outer.lives[i]) else { continue };
        let bound = matches!(buf.kind, BufKind::Bound(_) | BufKind::Constant(_));
        let elsewhere = match outer.tables {
            Some(_) => stays(outer, i),
            None => bound && !buf.dtype.is_complex(),
        };
        if elsewhere {
            continue; // read where the caller has it, or what stays on the device
        }
        let entry_bytes = if buf.lead.has_t() && buf.lead.has_n() { buf.dtype.size() * buf.width } else { 0 };
        let label = labels[i].clone();
        let complex = buf.dtype.is_complex();
        let name = if bound && complex { format!("{label}, real and imaginary parts apart") } else { label };
        let bytes = aligned(slot.plane * buf.dtype.size());
        lines.push(MemoryLine { kind: MemoryKind::OuterValues, name, entry_bytes, bytes, at_peak: 0, items });
    }
    lines.retain(|l| l.bytes > 0);

    let live = |at: usize| -> usize {
        lines.iter().filter(|l| (l.items.0..=l.items.1).contains(&at)).map(|l| l.bytes).sum()
    };
    let mut peak = (0, 0);
    for at in 0..=outer.items.len() {
        let bytes = live(at);
        if bytes > peak.1 {
            peak = (at, bytes);
        }
    }
    for l in &mut lines {
        if (l.items.0..=l.items.1).contains(&peak.0) {
            l.at_peak = l.bytes;
        }
    }
    let mut rest = |kind, name: &str, bytes: usize, items| {
        let name = name.to_string();
        lines.push(MemoryLine { kind, name, entry_bytes: 0, bytes, at_peak: bytes, items });
    };
    let end = outer.items.len();
    rest(MemoryKind::Gaps, "between blocks of different lifetimes", aligned(m.bytes) - peak.1, (0, end));
    if m.resident_bytes > 0 {
        let name = "values that stay on the device";
        rest(MemoryKind::OuterValues, name, m.resident_bytes, (0, end));
    }
    let what = if outer.outputs.len() == 1 { "tensor returned" } else { "tensors returned" };
    let name = format!("{} {what}", outer.outputs.len());
    rest(MemoryKind::Outputs, &name, m.output_bytes, (end, end));
    lines.sort_by_key(|l| l.kind);
    (lines, peak.0)
}

/// A region of a pair in all tiles.
pub(super) struct Region {
    pub(super) kind: MemoryKind,
    /// Number of the state or kept value.
    pub(super) number: usize,
    pub(super) bytes: usize,
}

/// The regions of a pair, by their offsets: each ends where the next begins.
pub(super) fn regions(slots: &PairSlots) -> Vec<Region> {
    let states = slots.states.iter().map(|(&k, s)| (s.offset, MemoryKind::KeptStates, k));
    let kept = slots.kept.iter().enumerate().map(|(k, s)| (s.offset, MemoryKind::KeptValues, k));
    let marks = slots.checkpoints.iter().map(|(&k, s)| (s.offset, MemoryKind::Checkpoints, k));
    let mut all: Vec<_> = states.chain(kept).chain(marks).collect();
    all.sort_unstable();
    let tiles = slots.bytes.checked_div(slots.tile).unwrap_or(0);
    let ends: Vec<usize> = all.iter().skip(1).map(|r| r.0).chain([slots.tile]).collect();
    let region = |((start, kind, number), end): ((usize, MemoryKind, usize), usize)| Region {
        kind,
        number,
        bytes: (end - start) * tiles,
    };
    all.into_iter().zip(ends).map(region).collect()
}

fn pair(outer: &Outer, m: &Memory, p: usize, lines: &mut Vec<MemoryLine>) {
    let (pair, slots) = (&outer.pairs[p], &m.pairs[p]);
    let of = if outer.pairs.len() > 1 { format!(" (item {})", outer.pair_lives[p].0) } else { String::new() };
    for Region { kind, number, bytes } in regions(slots) {
        let (name, entry_bytes) = match kind {
            MemoryKind::KeptValues => {
                let (dtype, width, _) = pair.kept[number];
                (names::kept(pair)[number].clone(), m.stash.bytes(dtype) * width)
            }
            _ => {
                let (dtype, width) = pair.states.get(&number).copied().unwrap_or((crate::DType::F32, 0));
                let held = if kind == MemoryKind::Checkpoints { Stash::Exact } else { m.stash };
                (names::state(outer, p, number), held.bytes(dtype) * width)
            }
        };
        let name = match kind {
            MemoryKind::Checkpoints => {
                format!("{name}, {}{of}", units::plural(slots.schedule.slots() as u64, "slot"))
            }
            _ => name + &of,
        };
        let items = outer.pair_lives[p];
        lines.push(MemoryLine { kind, name, entry_bytes, bytes, at_peak: 0, items });
    }
}
