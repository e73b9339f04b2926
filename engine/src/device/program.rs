//! A program's kernels: one for every call of the outer program, a few for every scan.

use std::sync::Arc;

use super::Device;
use super::call::units;
use super::code::{Kernel, Op};
use super::emit::{Emit, Span};
use super::kernel::{Entry, outside};
use super::scan::{Scan, Written, outer_place};
use super::sums::{Partial, Sum, put_together};
use super::table::{Form, Word};
use super::tensor::Products;
use crate::error::Result;
use crate::plan::ir::{Call, Instr, Over};
use crate::plan::outer::{Item, Outer, Role};
use crate::stash::Stash;

/// Blocks that share a call outside a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Grid {
    /// Threads for so many things an entry.
    Things(Over, usize),
    /// Blocks for the entries.
    Entries(Over),
    /// One block.
    One,
}

/// The kernels of an item, by number.
#[derive(Clone, Debug)]
pub(super) enum Launches {
    Call { kernel: usize, grid: Grid, by_steps: bool, sum: Option<(Sum, usize)> },
    Scan(Box<ScanLaunches>),
}

/// The kernels of a scan.
#[derive(Clone, Debug, Default)]
pub(super) struct ScanLaunches {
    pub(super) enter: usize,
    pub(super) run: usize,
    pub(super) sweep: Option<usize>,
    pub(super) advance: Option<usize>,
    pub(super) record: Option<usize>,
    /// Checkpoints of the scan's own states, or of those it replays.
    pub(super) mark: Option<usize>,
    /// Takes up the states kept in a checkpoint where those that were walked back to end, and notes how far off these are.
    pub(super) take_up: Option<usize>,
    pub(super) leave: Option<usize>,
    pub(super) collect: Option<usize>,
    /// Puts together what the tiles noted.
    pub(super) drift: Option<usize>,
}

/// A program made ready for a device.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(super) device: Arc<dyn Device>,
    pub(super) handle: u64,
    pub(super) items: Vec<Launches>,
    /// Words of each kernel's table.
    pub(super) words: Vec<Vec<Word>>,
    /// Whether blocks of each kernel wait for each other.
    pub(super) waits: Vec<bool>,
    pub(super) maps: Vec<Arc<[i32]>>,
    /// The pair of each adjoint that walks back, in the order of their [drifts](Word::Drift).
    pub(super) drifts: Vec<usize>,
    /// Bytes of all tables and lists, and of the drifts behind them.
    pub(crate) table_bytes: usize,
}

impl Drop for Compiled {
    fn drop(&mut self) {
        self.device.unload(self.handle);
    }
}

#[derive(Default)]
struct Kernels {
    kernels: Vec<Kernel>,
    words: Vec<Vec<Word>>,
}

impl Kernels {
    fn push(&mut self, (kernel, words): Written) -> usize {
        self.kernels.push(kernel);
        self.words.push(words);
        self.kernels.len() - 1
    }
}

/// Writes the kernels of a program and loads them. Errors: an operation without a kernel for devices; the device's.
/// With `by_pieces` the values with a time axis are a part of them.
pub(crate) fn compile(
    outer: &Outer,
    device: &Arc<dyn Device>,
    stash: Stash,
    by_pieces: bool,
) -> Result<Compiled> {
    let (mut all, mut maps, mut items) = (Kernels::default(), Vec::new(), Vec::new());
    let mut drifts = Vec::new();
    let (shared_limit, products) = (device.shared_bytes(), device.products());
    let threads = device.threads() as usize;
    for (at, item) in outer.items.iter().enumerate() {
        items.push(match item {
            Item::Call(call) => {
                let kernel = all.push(alone(outer, (call, at), &mut maps, (shared_limit, products))?);
                let (grid, by_steps) = grid_of(outer, call);
                let sum = Sum::of(outer, call).map(|sum| {
                    let written = put_together(outer, call, sum, at, (&mut maps, shared_limit));
                    (sum, all.push(written))
                });
                Launches::Call { kernel, grid, by_steps, sum }
            }
            Item::Scan(item) => {
                let scan = Scan { outer, at, item, shared_limit, threads, products, stash, by_pieces };
                let recording = matches!(item.role, Role::Forward(_));
                let mut launches =
                    ScanLaunches { enter: all.push(scan.enter(&mut maps)), ..Default::default() };
                launches.run = all.push(scan.form(&mut maps, Form::Run, &item.run, recording)?);
                if let Some(sweep) = &item.sweep {
                    launches.sweep = Some(all.push(scan.form(&mut maps, Form::Sweep, sweep, false)?));
                }
                if let (Role::Adjoint(pair), Some(first)) = (item.role, item.walked_from) {
                    launches.take_up = Some(all.push(scan.take_up(&mut maps, pair, first)));
                    launches.drift = Some(all.push(scan.drift(&mut maps, drifts.len())));
                    drifts.push(pair);
                }
                launches.mark = match &item.replay {
                    _ if launches.take_up.is_some() => None,
                    Some(r) => {
                        let advance = scan.form(&mut maps, Form::Advance, &r.advance, false)?;
                        launches.advance = Some(all.push(advance));
                        let record = scan.form(&mut maps, Form::Record, &r.record, true)?;
                        launches.record = Some(all.push(record));
                        scan.mark(&mut maps, Form::Record, &r.record)
                    }
                    None => scan.mark(&mut maps, Form::Run, &item.run),
                }
                .map(|written| all.push(written));
                launches.leave = scan.leave(&mut maps).map(|written| all.push(written));
                launches.collect = scan.collect(&mut maps).map(|written| all.push(written));
                Launches::Scan(Box::new(launches))
            }
        });
    }
    let words: usize = all.words.iter().map(Vec::len).sum();
    let lists: usize = maps.iter().map(|m| (m.len() * 4).next_multiple_of(8)).sum();
    let handle = device.load(&all.kernels)?;
    let waits = all.kernels.iter().map(|k| k.team > 1).collect();
    let table_bytes = words * 8 + lists + drifts.len() * size_of::<f64>();
    let (device, words) = (device.clone(), all.words);
    Ok(Compiled { device, handle, items, words, waits, maps, drifts, table_bytes })
}

/// A call outside a step, over the steps from the first argument to before the second. Of a sum over many entries it
/// forms the parts.
fn alone(
    outer: &Outer,
    (call, at): (&Call, usize),
    maps: &mut Vec<Arc<[i32]>>,
    (shared_limit, products): (usize, Products),
) -> Result<Written> {
    let (mut e, [from, to]) = Emit::new(maps, &outer.bufs, shared_limit);
    e.products = products;
    for (i, buf) in outer.bufs.iter().enumerate() {
        e.places[i] = Some(outer_place(buf, i));
    }
    let count = e.code.op(Op::Sub, super::Type::Int, &[to, from]);
    e.span = Span { from, count, rows: e.batch, reverse: false };
    e.share_grid();
    e.many_rows = true;
    e.partial = Sum::of(outer, call).map(|sum| Partial::new(&mut e, sum, at));
    e.call(call)?;
    Ok(e.finish("call"))
}

/// How a call is shared, and whether its steps may be launched a few at a time.
fn grid_of(outer: &Outer, call: &Call) -> (Grid, bool) {
    let sums = match &call.instr {
        Instr::RowContract { .. } | Instr::Accumulate { .. } => true,
        Instr::Structured { reduce, .. } => *reduce,
        _ => false,
    };
    let grid = match (&call.instr, units(call)) {
        (_, Some((over, things))) => Grid::Things(over, things),
        (Instr::Structured { op, ins, out, reduce, .. }, None) => {
            let entry =
                |o: &crate::plan::ir::Operand| Entry { dtype: outer.bufs[o.buf].dtype, dims: o.dims.clone() };
            let inputs: Vec<Entry> = ins.iter().map(entry).collect();
            match outside(op, &inputs, &entry(out), *reduce) {
                (Some(pieces), _) if *reduce => {
                    let steps = outer.bufs[out.buf].lead.has_t();
                    Grid::Things(Over { steps, rows: false }, pieces)
                }
                (Some(pieces), _) => Grid::Things(call.over, pieces),
                (None, true) => Grid::One,
                (None, false) => Grid::Entries(call.over),
            }
        }
        (_, None) => Grid::One,
    };
    (grid, call.over.steps && !sums)
}
