//! A run on a device: the host walks the items of the program and the actions of the schedules and lists what they launch.
//! The list is the same at every run with the same plan and addresses, so it is written once.

use std::sync::{Arc, Weak};

use super::profile::{Host, Own, Site, Timed, What, profile};
use super::program::{Compiled, Grid, Launches, ScanLaunches};
use super::region::Region;
use super::resident::Array;
use super::sums::{ELEMENTS, Sum};
use super::table::resolve;
use super::{Argument, Device, Launch, Sequence};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::Ty;
use crate::plan::ir::{BufKind, Operand, Over, Place};
use crate::plan::memory::{Memory, stays, tile_rows};
use crate::plan::outer::{Item, Outer, Role, ScanItem};
use crate::profile::{Pass, Profile};
use crate::schedule::Action;
use crate::tensor::Tensor;

/// Most blocks of a launch whose blocks share a call.
const MOST_BLOCKS: usize = 4096;
/// No launch has as many things to do: threads count them in 31 bits.
const MOST_THINGS: usize = 1 << 30;

/// The arena of a program, on its device.
#[derive(Debug)]
pub(crate) struct Arena {
    pub(super) region: Region,
    /// The run whose tables it holds.
    written: Option<Written>,
}

/// What the tables and launches of a run depend on, and the launches.
#[derive(Debug)]
struct Written {
    memory: Weak<Memory>,
    fixed: Vec<Option<Array>>,
    sequence: Sequence,
    /// What each of its launches is.
    sites: Vec<Site>,
}

impl Arena {
    /// So many bytes. Errors: the device has not as many.
    pub(crate) fn new(device: &Arc<dyn Device>, bytes: usize) -> Result<Arena> {
        Ok(Arena { region: Region::new(device, bytes)?, written: None })
    }

    pub(crate) fn len(&self) -> usize {
        self.region.len()
    }
}

/// A run.
pub(super) struct Run<'a> {
    pub(super) program: &'a Compiled,
    pub(super) outer: &'a Outer,
    pub(super) memory: &'a Memory,
    pub(super) arena: &'a Region,
    /// Where the values are that stay on the device, by buffer.
    pub(super) fixed: &'a [Option<Array>],
}

/// The launches of a run, as they are listed.
pub(super) struct List<'a> {
    pub(super) program: &'a Compiled,
    pub(super) memory: &'a Memory,
    /// Address of each kernel's table.
    pub(super) tables: &'a [u64],
    pub(super) launches: Vec<Launch>,
    /// What each of them is.
    pub(super) sites: Vec<Site>,
}

/// What a run is given, beside its program.
pub(crate) struct Given<'a> {
    pub(crate) memory: &'a Arc<Memory>,
    /// Bound values by number; `None` for those that stay on the device.
    pub(crate) bound: &'a [Option<&'a Tensor>],
    /// Where these are, by buffer.
    pub(crate) fixed: Vec<Option<Array>>,
    /// Outputs from this one on stay on the device.
    pub(crate) left: usize,
    /// Notes where the time goes, if anybody asked.
    pub(crate) timed: Option<Timed>,
}

/// The buffers whose values stay on a device, and what those are called.
pub(crate) fn staying(outer: &Outer) -> Vec<(usize, String)> {
    let of = |(i, buf): (usize, &crate::plan::ir::Buf)| {
        let name = match buf.kind {
            _ if !stays(outer, i) => return None,
            BufKind::Bound(b) => outer.bound[b].0.clone(),
            // No parameter has an empty name.
            BufKind::Constant(c) => format!("/constant {c}"),
            _ => return None,
        };
        Some((i, name))
    };
    outer.bufs.iter().enumerate().filter_map(of).collect()
}

/// What a run leaves behind.
pub(crate) struct Ran {
    pub(crate) outputs: Vec<Tensor>,
    /// Those that stayed.
    pub(crate) left: Vec<Left>,
    /// How far off the states were that were walked back to: of each pair of scans.
    pub(crate) drifts: Vec<f64>,
    pub(crate) profile: Option<Profile>,
}

/// Runs a program from bound values to outputs, of which the last ones may stay.
pub(crate) fn run(program: &Compiled, outer: &Outer, arena: &mut Arena, given: Given<'_>) -> Result<Ran> {
    let Given { memory, bound, fixed, left, timed } = given;
    let lap = |what, bytes| {
        if let Some(timed) = &timed {
            timed.lap(what, 1, bytes);
        }
    };
    let same = |w: &Written| w.fixed == fixed && w.memory.upgrade().is_some_and(|m| Arc::ptr_eq(&m, memory));
    if !arena.written.as_ref().is_some_and(same) {
        arena.written = None;
        let tables = write_tables(program, memory, &arena.region, &fixed)?;
        let (launches, sites) = list(program, outer, memory, &tables)?;
        let sequence = Sequence::new(&program.device, program.handle, launches)?;
        arena.written = Some(Written { memory: Arc::downgrade(memory), fixed, sequence, sites });
        lap(Host::List, program.table_bytes);
    }
    let Some(written) = &arena.written else {
        return Err(Error::argument("device", "bug: a run without tables"));
    };
    let run = Run { program, outer, memory, arena: &arena.region, fixed: &written.fixed };
    let bytes = run.write_values(bound, |_| true)?;
    lap(Host::Values, 2 * bytes);
    let seconds = match &timed {
        Some(_) => written.sequence.time()?,
        None => {
            written.sequence.start()?;
            Vec::new()
        }
    };
    lap(Host::Launches, 0);
    let (read, left) = outer.outputs.split_at(left.min(outer.outputs.len()));
    let outputs = read.iter().map(|(place, ty)| run.output(place, ty)).collect::<Result<Vec<Tensor>>>()?;
    let left = left.iter().map(|(place, ty)| run.left(place, ty)).collect::<Result<_>>()?;
    let drifts = run.drifts()?;
    lap(Host::Outputs, outputs.iter().map(|t| 2 * t.as_bytes().len()).sum());
    let profile = match timed {
        Some(_) if seconds.len() != written.sites.len() => {
            let (got, expected) = (seconds.len(), written.sites.len());
            let what = format!("bug: the times of {got} launches, expected {expected}");
            return Err(Error::Device { device: program.device.name(), what });
        }
        Some(timed) => {
            let launches = written.sites.iter().copied().zip(seconds);
            Some(profile(program.device.name(), (outer, memory), launches, timed))
        }
        None => None,
    };
    Ok(Ran { outputs, left, drifts, profile })
}

/// Lists the launches of a run and what each is. Errors: one of them has more to do than can be counted.
fn list(
    program: &Compiled,
    outer: &Outer,
    memory: &Memory,
    tables: &[u64],
) -> Result<(Vec<Launch>, Vec<Site>)> {
    let mut list = List::new(program, memory, tables);
    for (at, item) in outer.items.iter().enumerate() {
        list.item(at, item)?;
    }
    Ok((list.launches, list.sites))
}

/// Where the drifts lie in the arena, at the end of what its tables have.
fn drifts(program: &Compiled, memory: &Memory) -> usize {
    memory.tables + program.table_bytes - program.drifts.len() * size_of::<f64>()
}

/// Writes what the kernels find their operands by. Returns the address of each one's table.
pub(super) fn write_tables(
    program: &Compiled,
    memory: &Memory,
    arena: &Region,
    fixed: &[Option<Array>],
) -> Result<Vec<u64>> {
    let start = arena.address() + memory.tables as u64;
    let words: usize = program.words.iter().map(Vec::len).sum();
    let mut at = start + 8 * words as u64;
    let mut lists = Vec::new();
    for map in &program.maps {
        lists.push(at);
        at += (map.len() * 4).next_multiple_of(8) as u64;
    }
    let drifts = arena.address() + drifts(program, memory) as u64;
    let mut tables = Vec::new();
    let mut bytes: Vec<u8> = Vec::with_capacity(program.table_bytes);
    for words in &program.words {
        tables.push(start + bytes.len() as u64);
        for &word in words {
            bytes.extend(resolve(word, memory, (arena.address(), fixed), (&lists, drifts)).to_le_bytes());
        }
    }
    for map in &program.maps {
        map.iter().for_each(|i| bytes.extend(i.to_le_bytes()));
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    arena.write(memory.tables, &bytes)?;
    Ok(tables)
}

/// An output that stayed on the device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Left {
    /// There, until the next run of its program.
    At(Array),
    /// Nowhere: every element is this number (real and imaginary part).
    Number(f64, f64),
}

impl Run<'_> {
    /// Bound values with an entry for every step or row, of these buffers. Returns their bytes.
    pub(super) fn write_values(
        &self,
        bound: &[Option<&Tensor>],
        which: impl Fn(usize) -> bool,
    ) -> Result<usize> {
        let mut bytes = 0;
        for (i, buf) in self.outer.bufs.iter().enumerate().filter(|(i, _)| which(*i)) {
            let (BufKind::Bound(b), Some(slot), None) = (&buf.kind, &self.memory.outer[i], self.fixed[i])
            else {
                continue;
            };
            let missing = || Error::argument("device", "bug: a value that is nowhere");
            let tensor = bound[*b].ok_or_else(missing)?;
            self.arena.write_tensor(slot.offset, slot.plane, tensor)?;
            bytes += tensor.as_bytes().len();
        }
        Ok(bytes)
    }

    /// The largest drift of each pair.
    fn drifts(&self) -> Result<Vec<f64>> {
        let (mut largest, of) = (vec![0.0f64; self.outer.pairs.len()], &self.program.drifts);
        let mut found = vec![0.0f64; of.len()];
        let start = drifts(self.program, self.memory);
        self.arena.read(start, bytemuck::cast_slice_mut(&mut found))?;
        for (pair, found) in of.iter().zip(found) {
            largest[*pair] = largest[*pair].max(found);
        }
        Ok(largest)
    }

    /// Where an output is that stays.
    fn left(&self, place: &Place, ty: &Ty) -> Result<Left> {
        let o = match place {
            Place::At(o) => o,
            Place::Scalar { re, im } => return Ok(Left::Number(*re, *im)),
        };
        let lead = ty.shape.lead;
        if lead.has_t() || lead.has_n() {
            let what = "an output with an entry for every step or row does not stay on the device";
            return Err(Error::argument("run", what));
        }
        let [first, second] = [0, 1].map(|plane| self.plane_of(o, plane, ty.dtype));
        let second = if ty.dtype.is_complex() { second? } else { 0 };
        Ok(Left::At(Array { dtype: ty.dtype, len: o.width(), planes: [first?, second] }))
    }

    /// Address of an operand's first element in a plane.
    fn plane_of(&self, o: &Operand, plane: usize, dtype: DType) -> Result<u64> {
        let size = dtype.size() / dtype.planes();
        let base = match (self.fixed[o.buf], &self.memory.outer[o.buf]) {
            (Some(array), _) => array.planes[plane],
            (None, Some(slot)) => self.arena.address() + (slot.offset + plane * slot.plane * size) as u64,
            (None, None) => return Err(Error::argument("device", "bug: an output without a place")),
        };
        Ok(base + (o.col * size) as u64)
    }
}

impl<'a> List<'a> {
    pub(super) fn new(program: &'a Compiled, memory: &'a Memory, tables: &'a [u64]) -> List<'a> {
        List { program, memory, tables, launches: Vec::new(), sites: Vec::new() }
    }

    fn launch(&mut self, site: Site, kernel: usize, blocks: usize, a: usize, b: usize) {
        self.launch_with(site, kernel, blocks, &[a, b]);
    }

    /// A kernel with its table and these numbers, unless it has no blocks.
    fn launch_with(&mut self, site: Site, kernel: usize, blocks: usize, numbers: &[usize]) {
        if blocks == 0 {
            return;
        }
        self.sites.push(site);
        let numbers = numbers.iter().map(|n| Argument::Int(*n as i32));
        let args = std::iter::once(Argument::Address(self.tables[kernel])).chain(numbers).collect();
        self.launches.push(Launch { index: kernel, blocks: blocks as u32, args });
    }

    /// A kernel for tiles that have teams: if those wait for each other, it takes as many tiles at once as fit on the device.
    fn launch_teams(
        &mut self,
        site: Site,
        kernel: usize,
        team: usize,
        tiles: usize,
        (a, b): (usize, usize),
    ) -> Result<()> {
        let device = &self.program.device;
        let at_once = match self.program.waits[kernel] {
            true => device.resident(self.program.handle, kernel)?,
            false => tiles.max(1) * team,
        };
        if at_once < team {
            let what =
                format!("a tile needs {team} blocks at once, {at_once} of its kernel fit on the device");
            return Err(Error::Device { device: device.name(), what });
        }
        let at_once = at_once / team;
        let rows_before = |tile: usize| tile_rows(site.rows, tiles, tile).0;
        for first in (0..tiles).step_by(at_once) {
            let count = at_once.min(tiles - first);
            let rows = rows_before(first + count) - rows_before(first);
            let site = Site { rows, tiles: count, ..site };
            self.launch_with(site, kernel, count * team, &[a, b, first]);
        }
        Ok(())
    }

    /// An item of the program.
    pub(super) fn item(&mut self, at: usize, item: &Item) -> Result<()> {
        match (item, &self.program.items[at]) {
            (Item::Call(call), Launches::Call { kernel, grid, by_steps, sum }) => {
                let parts = self.memory.partials.get(&at).map_or(1, |p| p.parts);
                self.call((at, call.over), *kernel, (*grid, parts), call.over.steps && *by_steps)?;
                if let Some((sum, kernel)) = sum.filter(|_| parts > 1) {
                    self.put_together(at, sum, kernel);
                }
                Ok(())
            }
            (Item::Scan(item), Launches::Scan(launches)) => self.scan(at, item, launches),
            _ => Err(Error::argument("device", "bug: the kernels of another program")),
        }
    }

    /// A call outside a step.
    fn call(
        &mut self,
        (at, over): (usize, Over),
        kernel: usize,
        (grid, parts): (Grid, usize),
        by_steps: bool,
    ) -> Result<()> {
        let (steps, rows) = (self.memory.steps, self.memory.rows);
        let threads = self.program.device.threads() as usize;
        let of = |over: bool, n: usize| if over { n } else { 1 };
        let things = |over: Over, each: usize| {
            let all = of(over.steps, steps).checked_mul(of(over.rows, rows));
            all.and_then(|n| n.checked_mul(each)).ok_or_else(|| Error::Overflow {
                what: "a call on a device".into(),
                sizes: format!("{steps}×{rows}×{each}"),
            })
        };
        let (all, blocks) = match grid {
            Grid::Things(over, each) => {
                let all = things(over, each)?.saturating_mul(parts);
                (all, all.div_ceil(threads))
            }
            Grid::Entries(over) => (things(over, 1)?, things(over, 1)?),
            Grid::One => (1, parts),
        };
        if all == 0 {
            return Ok(());
        }
        let turns = all.div_ceil(MOST_THINGS);
        if turns > 1 && (!by_steps || turns > steps) {
            let sizes = format!("{all}, more than {MOST_THINGS} for one launch");
            return Err(Error::Overflow { what: "a call on a device".into(), sizes });
        }
        let blocks = blocks.div_ceil(turns).clamp(1, MOST_BLOCKS);
        for turn in 0..turns {
            let (a, b) = (turn * steps / turns, (turn + 1) * steps / turns);
            let site = Site { steps: if over.steps { (a, b) } else { (0, 1) }, ..self.site(at, What::Call) };
            self.launch(site, kernel, blocks, a, b);
        }
        Ok(())
    }

    /// A launch over all rows.
    fn site(&self, item: usize, what: What) -> Site {
        let tiles = self.memory.scans.get(&item).map_or(1, |slots| slots.tiles);
        Site { item, what, steps: (0, 1), rows: self.memory.rows, tiles }
    }

    /// Puts the parts of a sum together.
    fn put_together(&mut self, at: usize, sum: Sum, kernel: usize) {
        let elements = sum.elements(self.memory.steps, self.memory.rows);
        let site = self.site(at, What::Parts);
        self.launch(site, kernel, elements.div_ceil(ELEMENTS).clamp(1, MOST_BLOCKS), 0, 0);
    }

    /// A scan: each action of its schedule is a launch.
    fn scan(&mut self, at: usize, item: &ScanItem, launches: &ScanLaunches) -> Result<()> {
        self.enter(at, item, launches)?;
        let memory = self.memory;
        match item.role {
            Role::Plain => {
                let (from, to) = (0, 1);
                self.act(at, (item, launches), Action::Record { from, to }, (0, memory.steps))?;
            }
            Role::Forward(p) | Role::Adjoint(p) => {
                let pair = &memory.pairs[p];
                let forward = !matches!(item.role, Role::Adjoint(_));
                for (action, steps) in pair.actions(forward, item.reverse) {
                    self.act(at, (item, launches), action, steps)?;
                }
            }
        }
        self.leave(at, item, launches)
    }

    /// A kernel for every tile of a scan, if there is one.
    fn tiles(
        &mut self,
        (at, item): (usize, &ScanItem),
        (what, kernel): (What, Option<usize>),
        (a, b): (usize, usize),
    ) -> Result<()> {
        let Some(kernel) = kernel else { return Ok(()) };
        let steps = if matches!(what, What::Steps(_)) { (a, b) } else { (0, 1) };
        let site = Site { steps, ..self.site(at, what) };
        match (item.team, site.tiles) {
            (1, tiles) => {
                self.launch(site, kernel, tiles, a, b);
                Ok(())
            }
            (team, tiles) => self.launch_teams(site, kernel, team, tiles, (a, b)),
        }
    }

    /// Sums are cleared, and states are those to start from. Errors: too many rows.
    pub(super) fn enter(&mut self, at: usize, item: &ScanItem, launches: &ScanLaunches) -> Result<()> {
        let (rows, tiles) = (self.memory.rows, self.memory.scans[&at].tiles);
        let of_tile = item.block_rows.unwrap_or(super::ROWS);
        if !item.mixes_rows && rows.div_ceil(tiles) > of_tile {
            let sizes = format!("{rows} rows, {tiles} tiles of {of_tile} at most");
            return Err(Error::Overflow { what: "the rows of a scan on a device".into(), sizes });
        }
        self.tiles((at, item), (What::Own(Own::Enter), Some(launches.enter)), (0, 0))
    }

    /// An action of a schedule, over steps from the first to before the second.
    pub(super) fn act(
        &mut self,
        at: usize,
        (item, launches): (&ScanItem, &ScanLaunches),
        action: Action,
        steps: (usize, usize),
    ) -> Result<()> {
        let (run, mark) =
            ((What::Steps(Pass::Run), Some(launches.run)), (What::Own(Own::Mark), launches.mark));
        let (kernel, arguments) = match (item.role, action) {
            (Role::Forward(_), Action::Advance { .. }) if launches.sweep.is_some() => {
                ((What::Steps(Pass::Sweep), launches.sweep), steps)
            }
            // States that are walked back to need no other form.
            (Role::Forward(_) | Role::Plain, Action::Advance { .. } | Action::Record { .. })
            | (Role::Adjoint(_), Action::Backward { .. }) => (run, steps),
            (Role::Adjoint(_), Action::Advance { .. }) => {
                ((What::Steps(Pass::Advance), launches.advance), steps)
            }
            (Role::Adjoint(_), Action::Record { .. }) => {
                ((What::Steps(Pass::Record), launches.record), steps)
            }
            (Role::Adjoint(p), Action::Restore { slot, .. }) if launches.take_up.is_some() => {
                let last = self.memory.pairs[p].schedule.slots() - 1;
                ((What::Own(Own::TakeUp), launches.take_up), (slot, (slot + 1).min(last)))
            }
            (Role::Forward(_) | Role::Adjoint(_), Action::Store { slot, .. }) => (mark, (slot, 0)),
            (Role::Forward(_) | Role::Adjoint(_), Action::Restore { slot, .. }) => (mark, (slot, 1)),
            _ => return Ok(()),
        };
        self.tiles((at, item), kernel, arguments)
    }

    /// Last states and sums are handed out.
    pub(super) fn leave(&mut self, at: usize, item: &ScanItem, launches: &ScanLaunches) -> Result<()> {
        self.tiles((at, item), (What::Own(Own::Leave), launches.leave), (0, 0))?;
        if let Some(drift) = launches.drift {
            self.launch(self.site(at, What::Own(Own::Drift)), drift, 1, 0, 0);
        }
        let Some(collect) = launches.collect else { return Ok(()) };
        let widths = item.run.sums.iter().chain(item.run.shared_stacks.iter().map(|s| &s.1));
        let most = widths.map(|c| item.run.bufs[c.buf].width).max().unwrap_or(1);
        let rows = self.memory.rows.max(self.memory.steps);
        let things = most.checked_mul(rows).filter(|n| *n <= MOST_THINGS).ok_or_else(|| Error::Overflow {
            what: "the sums of a scan on a device".into(),
            sizes: format!("{rows}×{most}, more than {MOST_THINGS}"),
        })?;
        let blocks = things.div_ceil(self.program.device.threads() as usize);
        let site = self.site(at, What::Own(Own::Collect));
        self.launch(site, collect, blocks.clamp(1, MOST_BLOCKS), 0, 0);
        Ok(())
    }
}

impl Run<'_> {
    pub(super) fn output(&self, place: &Place, ty: &Ty) -> Result<Tensor> {
        let mut out = Tensor::zeros(ty.dtype, ty.shape.concrete(self.memory.steps, self.memory.rows))?;
        match place {
            Place::Scalar { re, im } => out.fill_with(|_| num_complex::Complex64::new(*re, *im)),
            Place::At(o) => match ty.dtype.real() {
                DType::F32 => self.read(o, ty, out.components_mut::<f32>()?)?,
                DType::F64 => self.read(o, ty, out.components_mut::<f64>()?)?,
                _ => self.read(o, ty, out.components_mut::<i32>()?)?,
            },
        }
        Ok(out)
    }

    /// Copies an operand into a tensor, complex numbers interleaved.
    fn read<R: bytemuck::Pod>(&self, o: &Operand, ty: &Ty, out: &mut [R]) -> Result<()> {
        let (width, planes) = (o.width(), ty.dtype.planes());
        if out.is_empty() || width == 0 {
            return Ok(());
        }
        let Some(slot) = &self.memory.outer[o.buf] else {
            return Err(Error::argument("device", "bug: an output without a place"));
        };
        let lead = ty.shape.lead;
        let steps = if lead.has_t() { self.memory.steps } else { 1 };
        let rows = if lead.has_n() { self.memory.rows } else { 1 };
        for plane in 0..planes {
            let mut values = vec![R::zeroed(); slot.plane];
            let mut start = o.clone();
            start.col = 0;
            let address = self.plane_of(&start, plane, ty.dtype)?;
            self.program.device.read(address, bytemuck::cast_slice_mut(&mut values))?;
            for t in 0..steps {
                for r in 0..rows {
                    let from = t * slot.step + r * slot.row + o.col;
                    let to = &mut out[(t * rows + r) * width * planes..][..width * planes];
                    let to = to.iter_mut().skip(plane).step_by(planes);
                    to.zip(&values[from..from + width]).for_each(|(to, from)| *to = *from);
                }
            }
        }
        Ok(())
    }
}
