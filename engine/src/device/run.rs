//! A run on a device: the host walks the items of the program and the actions of the schedules.

use std::sync::Arc;

use super::program::{Compiled, Grid, Launches, ScanLaunches};
use super::table::resolve;
use super::{Argument, Device};
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::op::Ty;
use crate::plan::ir::{BufKind, Operand, Over, Place};
use crate::plan::memory::{Memory, Slot};
use crate::plan::outer::{Item, Outer, Role, ScanItem};
use crate::schedule::Action;
use crate::tensor::Tensor;

/// Most blocks of a launch whose blocks share a call.
const MOST_BLOCKS: usize = 4096;
/// No launch has as many things to do: threads count them in 31 bits.
const MOST_THINGS: usize = 1 << 30;

/// The arena of a program, on its device.
#[derive(Debug)]
pub(crate) struct Arena {
    device: Arc<dyn Device>,
    address: u64,
    bytes: usize,
}

impl Arena {
    /// So many bytes. Errors: the device has not as many.
    pub(crate) fn new(device: &Arc<dyn Device>, bytes: usize) -> Result<Arena> {
        let address = if bytes == 0 { 0 } else { device.allocate(bytes)? };
        Ok(Arena { device: device.clone(), address, bytes })
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.device.release(self.address);
        }
    }
}

/// A run.
struct Run<'a> {
    program: &'a Compiled,
    outer: &'a Outer,
    memory: &'a Memory,
    arena: &'a Arena,
    /// Address of each kernel's table.
    tables: Vec<u64>,
}

/// Runs a program from bound values to outputs.
pub(crate) fn run(
    program: &Compiled,
    outer: &Outer,
    memory: &Memory,
    arena: &Arena,
    bound: &[&Tensor],
) -> Result<Vec<Tensor>> {
    let mut run = Run { program, outer, memory, arena, tables: Vec::new() };
    run.write_tables()?;
    run.write_values(bound)?;
    for (at, item) in outer.items.iter().enumerate() {
        match (item, &program.items[at]) {
            (Item::Call(call), Launches::Call { kernel, grid, by_steps }) => {
                run.call(*kernel, *grid, if call.over.steps { *by_steps } else { false })?;
            }
            (Item::Scan(item), Launches::Scan(launches)) => run.scan(at, item, launches)?,
            _ => return Err(Error::argument("device", "bug: the kernels of another program")),
        }
    }
    outer.outputs.iter().map(|(place, ty)| run.output(place, ty)).collect()
}

impl Run<'_> {
    fn write_tables(&mut self) -> Result<()> {
        let start = self.arena.address + self.memory.tables as u64;
        let words: usize = self.program.words.iter().map(Vec::len).sum();
        let mut at = start + 8 * words as u64;
        let mut lists = Vec::new();
        for map in &self.program.maps {
            lists.push(at);
            at += (map.len() * 4).next_multiple_of(8) as u64;
        }
        let mut bytes: Vec<u8> = Vec::with_capacity(self.program.table_bytes);
        for words in &self.program.words {
            self.tables.push(start + bytes.len() as u64);
            for &word in words {
                let value = resolve(word, self.memory, self.arena.address, &lists);
                bytes.extend(value.to_le_bytes());
            }
        }
        for map in &self.program.maps {
            map.iter().for_each(|i| bytes.extend(i.to_le_bytes()));
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        self.write(self.memory.tables, &bytes)
    }

    /// Copies to the arena.
    fn write(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.program.device.write(self.arena.address + offset as u64, bytes)
    }

    /// Bound values and constants; complex ones are taken apart into planes.
    fn write_values(&self, bound: &[&Tensor]) -> Result<()> {
        for (i, buf) in self.outer.bufs.iter().enumerate() {
            let tensor = match buf.kind {
                BufKind::Bound(b) => bound[b],
                BufKind::Constant(c) => &self.outer.constants[c],
                _ => continue,
            };
            let Some(slot) = &self.memory.outer[i] else { continue };
            match buf.dtype {
                DType::C32 => self.write_planes::<f32>(slot, tensor)?,
                DType::C64 => self.write_planes::<f64>(slot, tensor)?,
                _ => self.write(slot.offset, tensor.as_bytes())?,
            }
        }
        Ok(())
    }

    fn write_planes<R: Element + bytemuck::Pod>(&self, slot: &Slot, tensor: &Tensor) -> Result<()> {
        let pairs: &[R] = tensor.components()?;
        for plane in 0..2 {
            let part: Vec<R> = pairs.iter().skip(plane).step_by(2).copied().collect();
            let offset = slot.offset + plane * slot.plane * size_of::<R>();
            self.write(offset, bytemuck::cast_slice(&part))?;
        }
        Ok(())
    }

    fn launch(&self, kernel: usize, blocks: usize, a: usize, b: usize) -> Result<()> {
        let args = [Argument::Address(self.tables[kernel]), Argument::Int(a as i32), Argument::Int(b as i32)];
        self.program.device.launch(self.program.handle, kernel, blocks as u32, &args)
    }

    /// A call outside a step.
    fn call(&self, kernel: usize, grid: Grid, by_steps: bool) -> Result<()> {
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
                let all = things(over, each)?;
                (all, all.div_ceil(threads))
            }
            Grid::Entries(over) => (things(over, 1)?, things(over, 1)?),
            Grid::One => (1, 1),
        };
        if all == 0 {
            return Ok(());
        }
        let parts = all.div_ceil(MOST_THINGS);
        if parts > 1 && (!by_steps || parts > steps) {
            let sizes = format!("{all}, more than {MOST_THINGS} for one launch");
            return Err(Error::Overflow { what: "a call on a device".into(), sizes });
        }
        let blocks = blocks.div_ceil(parts).clamp(1, MOST_BLOCKS);
        for part in 0..parts {
            self.launch(kernel, blocks, part * steps / parts, (part + 1) * steps / parts)?;
        }
        Ok(())
    }

    /// A scan: each action of its schedule is a launch.
    fn scan(&self, at: usize, item: &ScanItem, launches: &ScanLaunches) -> Result<()> {
        let tiles = self.memory.scans[&at].tiles;
        let launch = |kernel: Option<usize>, a: usize, b: usize| match kernel {
            Some(kernel) => self.launch(kernel, tiles, a, b),
            None => Ok(()),
        };
        launch(Some(launches.enter), 0, 0)?;
        let pair = match item.role {
            Role::Plain => None,
            Role::Forward(p) | Role::Adjoint(p) => Some(&self.memory.pairs[p]),
        };
        match pair {
            None => launch(Some(launches.run), 0, self.memory.steps)?,
            Some(pair) => {
                let forward = !matches!(item.role, Role::Adjoint(_));
                let actions =
                    if forward { pair.schedule.forward_actions() } else { pair.schedule.backward_actions() };
                for action in actions {
                    let bounds = |from, to| pair.cut.bounds(from, to, item.reverse == forward);
                    let (kernel, (a, b)) = match action {
                        Action::Advance { from, to } if forward => (launches.sweep, bounds(from, to)),
                        Action::Record { from, to } if forward => (Some(launches.run), bounds(from, to)),
                        Action::Advance { from, to } => (launches.advance, bounds(from, to)),
                        Action::Record { from, to } => (launches.record, bounds(from, to)),
                        Action::Backward { from, to } if !forward => (Some(launches.run), bounds(from, to)),
                        Action::Store { slot, .. } => (launches.mark, (slot, 0)),
                        Action::Restore { slot, .. } => (launches.mark, (slot, 1)),
                        _ => (None, (0, 0)),
                    };
                    launch(kernel, a, b)?;
                }
            }
        }
        launch(launches.leave, 0, 0)?;
        let Some(collect) = launches.collect else { return Ok(()) };
        let widths = item.run.sums.iter().chain(item.run.shared_stacks.iter().map(|s| &s.1));
        let most = widths.map(|c| item.run.bufs[c.buf].width).max().unwrap_or(1);
        let rows = self.memory.rows.max(self.memory.steps);
        let blocks = (most * rows).div_ceil(self.program.device.threads() as usize);
        self.launch(collect, blocks.clamp(1, MOST_BLOCKS), 0, 0)
    }

    fn output(&self, place: &Place, ty: &Ty) -> Result<Tensor> {
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
            let address = self.arena.address + (slot.offset + plane * slot.plane * size_of::<R>()) as u64;
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
