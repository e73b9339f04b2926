//! Sequences that arrive piece by piece and whose length is not known before their end.
//!
//! [`Program::run_stream`] runs a program over a [`Source`]. The forward pass goes from segment to segment as they are
//! read; a bounded number of states is stored by the schedule of [`Online`], which can reverse the sequence wherever it
//! ends; the backward pass asks the source for segments again, in the order of the schedule. Memory does not depend on
//! the length, and the gradients have the bits of a run that has all of the sequence at hand.
//!
//! That is for programs in which nothing but the source has a time axis: one scan forward in time and its adjoint, the
//! losses of the steps summed over time, no stacked outputs. What the number of steps decides (a mean over them) waits for
//! the end of the sequence; the step itself cannot know it.
//!
//! On a device every segment is copied there when it is gone over, and each action of a schedule is a launch when its turn
//! comes.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;

use super::ir::{BufKind, Call, Instr};
use super::memory::{Memory, longest_chunk};
use super::outer::{Item, Outer, Role, ScanItem, liveness, touched};
use super::step::StepProgram;
use super::{Program, Run, Stay, extents, find_bound, stay};
use crate::core_ops::counts_steps;
use crate::device::{self, Device, Resident};
use crate::error::{Error, Result};
use crate::exec::{Arena, Drifts, Frame, Piece, ScanRun, run_piece};
use crate::meter;
use crate::params::Params;
use crate::schedule::{Action, Online, advances};
use crate::storage::Storage;
use crate::tensor::Tensor;

/// A sequence that is read piece by piece.
pub trait Source {
    /// The values with a time axis, by name, for the steps from `from` on: `most` of them, or as many as there are. The
    /// first piece with fewer (or none, `None`) is the end. Asked for are the first step, then all in order, then those of
    /// some segments again; they must be the same then. Tensors that map a file take no memory.
    fn read(&mut self, from: usize, most: usize) -> Result<Option<Params>>;
}

impl<F: FnMut(usize, usize) -> Result<Option<Params>>> Source for F {
    fn read(&mut self, from: usize, most: usize) -> Result<Option<Params>> {
        self(from, most)
    }
}

/// How a sequence of unknown length is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Steps that are read and recorded at a time; rounded up to what the program sums up at once.
    pub segment: usize,
    /// States stored at most, that before the first step included.
    pub checkpoints: usize,
}

/// How a sequence is run whose length is known, though all of it is never in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPlan {
    /// Segments and checkpoints.
    pub stream: Stream,
    /// Bytes of the arena, the outputs and the two pieces of the source that are held at a time.
    pub peak_bytes: usize,
    /// Steps of forward work beyond one pass that records everything.
    pub extra_forward_steps: u64,
}

/// What a run over a [`Source`] returns.
#[derive(Debug)]
pub struct Streamed {
    /// The outputs of the program, in order.
    pub outputs: Vec<Tensor>,
    /// Steps that the source had.
    pub steps: usize,
    /// Steps of a segment.
    pub segment: usize,
    /// Steps of forward work beyond one pass that records everything.
    pub extra_forward_steps: u64,
    /// Bytes of the arena and the outputs; two pieces of the source are the caller's.
    pub peak_bytes: usize,
}

/// A program made ready for a source.
#[derive(Debug)]
pub(super) struct Ready {
    outer: Outer,
    /// With a device.
    kernels: Option<device::Compiled>,
}

impl Outer {
    /// The program with what depends on the number of steps behind the forward scan. Errors: a program that needs more
    /// of the sequence than a segment, by the name of what does.
    fn streamed(&self) -> Result<Outer> {
        let refuse = |what: String| Err(Error::argument("stream", what));
        let scans: Vec<(usize, &ScanItem)> = (self.items.iter().enumerate())
            .filter_map(|(i, item)| if let Item::Scan(s) = item { Some((i, &**s)) } else { None })
            .collect();
        let Some(&(at, forward)) = scans.first() else {
            return refuse("a program without a scan".into());
        };
        if let Some((_, other)) = scans.iter().skip(1).find(|(_, s)| !matches!(s.role, Role::Adjoint(_))) {
            return refuse(format!(
                "`{}` is a second scan beside `{}` and its adjoint",
                other.label, forward.label
            ));
        }
        if self.pairs.iter().any(|p| p.walk.is_some()) {
            return refuse(format!(
                "the states of `{}` are walked back, which begins at its end",
                forward.label
            ));
        }
        if forward.reverse || matches!(forward.role, Role::Adjoint(_)) || scans.len() > 2 {
            return refuse(format!("`{}` walks from the end of the sequence to its start", forward.label));
        }
        for (i, buf) in self.bufs.iter().enumerate() {
            if buf.lead.has_t() && self.lives[i].is_some() && !matches!(buf.kind, BufKind::Bound(_)) {
                return refuse(format!("`{}` has a time axis outside the scan", buf.label));
            }
        }
        // A sum over the steps of a sequence itself would be one over those of its first segment.
        let sequence = |call: &Call| {
            call.instr.reads().into_iter().map(|o| &self.bufs[o.buf]).find(|buf| buf.lead.has_t()).cloned()
        };
        let read = self.items.iter().find_map(|item| match item {
            Item::Call(call) => sequence(call),
            Item::Scan(_) => None,
        });
        if let Some(buf) = read {
            return refuse(format!("`{}` is read outside the scan", buf.label));
        }
        for (_, s) in &scans {
            let forms = [Some(&s.run), s.sweep.as_ref(), s.replay.as_ref().map(|r| &r.record)];
            let counts = |p: &StepProgram| p.stages.iter().flat_map(|stage| stage.calls()).any(counts);
            if !s.outs.is_empty() || forms.into_iter().flatten().any(counts) {
                return refuse(format!(
                    "`{}` has a value for every step, or its step counts all of them",
                    s.label
                ));
            }
        }
        // Calls that wait for the number of steps.
        let mut late = vec![false; self.bufs.len()];
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for item in &self.items[..at] {
            let Item::Call(call) = item else { continue };
            let waits = counts(call) || call.instr.reads().iter().any(|o| late[o.buf]);
            if waits {
                call.instr.writes().iter().for_each(|o| late[o.buf] = true);
            }
            if waits { after.push(item.clone()) } else { before.push(item.clone()) }
        }
        if let Some(o) = touched(&self.items[at]).into_iter().find(|o| late[o.buf]) {
            let label = &self.bufs[o.buf].label;
            return refuse(format!("the step reads `{label}`, which depends on the number of steps"));
        }
        let items: Vec<Item> = before
            .into_iter()
            .chain([self.items[at].clone()])
            .chain(after)
            .chain(self.items[at + 1..].iter().cloned())
            .collect();
        let lives = liveness(&self.bufs, &items, &self.outputs);
        let mut pair_lives = vec![(usize::MAX, 0); self.pairs.len()];
        for (i, item) in items.iter().enumerate() {
            if let Item::Scan(s) = item
                && let Role::Forward(p) | Role::Adjoint(p) = s.role
            {
                pair_lives[p] = (pair_lives[p].0.min(i), pair_lives[p].1.max(i));
            }
        }
        Ok(Outer {
            bufs: self.bufs.clone(),
            items,
            outputs: self.outputs.clone(),
            bound: self.bound.clone(),
            constants: self.constants.clone(),
            pairs: self.pairs.clone(),
            lives,
            pair_lives,
            scratch: self.scratch,
            tables: self.tables.map(|_| 0),
        })
    }
}

fn counts(call: &Call) -> bool {
    matches!(&call.instr, Instr::Structured { op, .. } if counts_steps(op.as_ref()))
}

impl Program {
    /// Errors: a program that needs more of the sequence than a segment; a device's.
    fn ready(&self) -> Result<Arc<Ready>> {
        if let Some(ready) = self.streamed.get() {
            return Ok(ready.clone());
        }
        let mut outer = self.variants[0].1.streamed()?;
        let mut kernels = None;
        if let Some(on) = &self.options.device {
            let compiled = device::compile(&outer, on, self.options.stash, true)?;
            outer.tables = Some(compiled.table_bytes);
            kernels = Some(compiled);
        }
        Ok(self.streamed.get_or_init(|| Arc::new(Ready { outer, kernels })).clone())
    }

    /// Bytes of a run over a [`Source`] with `rows` rows, whatever its length: the arena and the outputs, without the two
    /// pieces of the source that are held at a time. Errors: as [`Program::run_stream`].
    pub fn stream_bytes(&self, rows: usize, stream: &Stream) -> Result<usize> {
        Ok(self.stream_memory(&self.ready()?.outer, rows, stream)?.1.peak_bytes())
    }

    /// How to run over a [`Source`] of so many steps and rows: within `budget` bytes, those of the pieces included, with as
    /// few steps of forward work as fit (to 2 %), and of those plans the one with fewest bytes; without a budget, with
    /// fewest bytes of those that go over no step more than twice. What [`Program::run_stream`] needs beside may not
    /// exceed the program's own budget.
    ///
    /// Errors: as [`Program::run_stream`]; a budget too small, with the smallest that works.
    pub fn stream_within(&self, steps: usize, rows: usize, budget: Option<usize>) -> Result<StreamPlan> {
        let ready = self.ready()?;
        let outer = &ready.outer;
        let chunk = longest_chunk(outer, rows);
        let of_step: usize = (outer.bound.iter())
            .filter(|(_, ty)| ty.shape.lead.has_t())
            .map(|(_, ty)| ty.entry_bytes().saturating_mul(if ty.shape.lead.has_n() { rows } else { 1 }))
            .sum();
        let planned = |segment: usize, checkpoints: usize| -> Result<StreamPlan> {
            let stream = Stream { segment, checkpoints };
            let (segment, memory) = self.stream_memory(outer, rows, &stream)?;
            let pieces = segment.min(steps).saturating_mul(of_step).saturating_mul(2);
            let segments = steps.div_ceil(segment).max(1);
            Ok(StreamPlan {
                stream: Stream { segment, checkpoints },
                peak_bytes: memory.peak_bytes().saturating_add(pieces),
                extra_forward_steps: if outer.pairs.is_empty() {
                    0
                } else {
                    advances(segments, checkpoints).saturating_mul(segment as u64)
                },
            })
        };
        let least = planned(chunk, 1)?;
        if let Some(budget) = budget.filter(|&b| b < least.peak_bytes) {
            let dominant =
                super::explain::dominant(outer, &self.stream_memory(outer, rows, &least.stream)?.1);
            return Err(Error::Budget { budget, smallest: least.peak_bytes, dominant });
        }
        let rank = |plan: &StreamPlan| {
            let work = plan.extra_forward_steps as u128 * 50 / steps.max(1) as u128;
            (if budget.is_some() { work } else { 0 }, plan.peak_bytes)
        };
        let mut best: Option<StreamPlan> = budget.map(|_| least);
        let mut leaf = chunk;
        loop {
            let most = steps.div_ceil(leaf).saturating_sub(1).max(1);
            let (one, two) = (planned(leaf, 1)?.peak_bytes, planned(leaf, 2)?.peak_bytes);
            let fit = budget.map_or(most, |b| 1 + b.saturating_sub(one) / (two - one).max(1)).min(most);
            let plan = planned(leaf, fit)?;
            let fits = budget.is_none_or(|b| plan.peak_bytes <= b);
            if fits && best.as_ref().is_none_or(|b| rank(&plan) < rank(b)) {
                best = Some(plan);
            }
            if leaf >= steps {
                break;
            }
            leaf = leaf.saturating_mul(2);
        }
        best.ok_or_else(|| Error::argument("stream", "bug: no plan"))
    }

    /// Steps of a segment, and the memory.
    fn stream_memory(&self, outer: &Outer, rows: usize, stream: &Stream) -> Result<(usize, Memory)> {
        let chunk = longest_chunk(outer, rows);
        let segment = (stream.segment.max(1).div_ceil(chunk)).saturating_mul(chunk);
        if stream.checkpoints == 0 {
            return Err(Error::argument("stream", "0 checkpoints, expected at least 1"));
        }
        let (threads, stash) = (self.threads(), self.options.stash);
        let memory = Memory::for_stream(outer, segment, rows, threads, stream.checkpoints, stash)?;
        Ok((segment, memory))
    }

    /// Runs the program on a sequence whose length need not be known: values with a time axis come from `source`, the
    /// others from `shared`. The outputs have the bits of [`Program::run`] on the whole sequence.
    ///
    /// ```
    /// use retrograd_engine::{DType, Params, Program, RunOptions, Shape, Stream, Tape, Tensor, Ty, core_ops, grad, scan};
    /// # fn main() -> retrograd_engine::Result<()> {
    /// let mut tape = Tape::new();
    /// let a = tape.param("a", DType::F64, [1])?;
    /// let x = tape.input("x", DType::F64, Shape::sequence([1]))?;
    /// let zero = core_ops::fill(&mut tape, Ty::new(DType::F64, Shape::rows([1])), 0.0)?;
    /// let (h, _) = scan(&mut tape, zero, x, |tape, h, x| {
    ///     let h = core_ops::add(tape, h, x)?;
    ///     Ok((core_ops::add(tape, h, a)?, ()))
    /// })?;
    /// let sum = core_ops::sum_rows(&mut tape, h)?;
    /// let loss = core_ops::sum_dims(&mut tape, sum, &[])?;
    /// let a_bar = grad(&mut tape, loss, &[a])?[0];
    ///
    /// let mut program = Program::new(&tape, &[loss, a_bar], RunOptions::default())?;
    /// let mut shared = Params::new();
    /// shared.insert("a", Tensor::from_slice([1], &[0.5f64])?);
    /// let mut read = |from: usize, most: usize| {
    ///     let steps = 1000usize.saturating_sub(from).min(most); // known to the source alone
    ///     let mut piece = Params::new();
    ///     piece.insert("x", Tensor::full(DType::F64, [steps, 2, 1], 1.0)?);
    ///     Ok((steps > 0).then_some(piece))
    /// };
    /// let run = program.run_stream(&[&shared], &mut read, &Stream { segment: 64, checkpoints: 4 })?;
    /// assert_eq!((run.steps, run.outputs[1].item()?), (1000, 2.0 * 1000.0));
    /// # Ok(()) }
    /// ```
    ///
    /// Errors: those of [`Program::run`] and of the source; a source without a step, or that reads otherwise when it is
    /// asked again; no checkpoints; a budget below [`Program::stream_bytes`]; a program that needs all of the sequence at
    /// once (the [module](self) says which do not).
    pub fn run_stream(
        &mut self,
        shared: &[&Params],
        source: &mut dyn Source,
        stream: &Stream,
    ) -> Result<Streamed> {
        let ready = self.ready()?;
        let outer = &ready.outer;
        // The rows are those of the first step.
        let first = source.read(0, 1)?.ok_or_else(|| Error::argument("stream", "the source has no step"))?;
        let (_, rows) = piece(outer, &first, shared)?;
        drop(first);
        let (segment, memory) = self.stream_memory(outer, rows, stream)?;
        if let Some(budget) = self.options.budget.filter(|&b| b < memory.peak_bytes()) {
            let dominant = super::explain::dominant(outer, &memory);
            return Err(Error::Budget { budget, smallest: memory.peak_bytes(), dominant });
        }
        let peak_bytes = memory.peak_bytes();
        self.arena = None;
        self.device_arena = None;
        self.resident = None;
        self.last_profile = None;
        self.last_drift = None;
        let before = meter::reset_peak();
        let walk = Walk { outer, shared, segment, rows };
        let (ran, there) = match (&self.options.device, &ready.kernels) {
            (Some(on), Some(kernels)) => {
                let before = on.used_bytes();
                let arena = device::Arena::new(on, memory.bytes)?;
                let used = Cell::new(0);
                let ran = walk.all(source, stream.checkpoints, |bound| {
                    let there = There::new((on, kernels), outer, memory, &arena, bound)?;
                    used.set(on.used_bytes().saturating_sub(before));
                    Ok(Box::new(there))
                });
                (ran?, used.get())
            }
            _ => {
                let mut storage = Storage::zeroed("the run's arena", memory.bytes)?;
                let arena = Arena(storage.as_mut_ptr());
                let begin = |bound: &[&Tensor]| Here::new(self, outer, memory, arena, bound);
                let ran = walk.all(source, stream.checkpoints, |bound| Ok(Box::new(begin(bound)?)));
                (ran?, 0)
            }
        };
        let (outputs, steps, extra_forward_steps) = ran;
        self.last_peak = there + meter::peak_bytes().saturating_sub(before);
        Ok(Streamed { outputs, steps, segment, extra_forward_steps, peak_bytes })
    }
}

/// Steps and rows of a piece; checks every type and shape.
fn piece(outer: &Outer, values: &Params, shared: &[&Params]) -> Result<(usize, usize)> {
    let bindings: Vec<&Params> = [values].into_iter().chain(shared.iter().copied()).collect();
    let bound = find_bound(outer, &bindings)?;
    let (steps, rows) = extents(outer.bound.iter().zip(bound))?;
    let Some(steps) = steps else {
        return Err(Error::argument("program", "no bound input has a time axis, which a scan needs"));
    };
    Ok((steps, rows.unwrap_or(1)))
}

/// A segment of the sequence that has been read.
struct Segment {
    number: usize,
    steps: usize,
    values: Params,
}

/// What carries out the parts of a run.
trait Parts {
    /// Runs items of the program.
    fn items(&mut self, range: Range<usize>) -> Result<()>;

    /// Runs a part of a scan.
    fn piece(&mut self, at: usize, piece: Piece) -> Result<()>;

    /// Lets the values with a time axis that item `at` may read be those of a segment, from step `origin` on.
    fn place(&mut self, bound: &[&Tensor], origin: usize, at: usize) -> Result<()>;

    /// The sequence has so many steps.
    fn end_at(&mut self, steps: usize) -> Result<()>;

    fn outputs(&self) -> Result<Vec<Tensor>>;
}

/// Whether a buffer holds bound values with a time axis that item `at` may read.
fn reads(outer: &Outer, buf: usize, at: usize) -> bool {
    let alive = outer.lives[buf].is_some_and(|(from, to)| (from..=to).contains(&at));
    let b = &outer.bufs[buf];
    matches!(b.kind, BufKind::Bound(_)) && b.lead.has_t() && alive
}

/// On the processor.
struct Here<'a> {
    program: &'a Program,
    outer: &'a Outer,
    memory: Memory,
    arena: Arena,
    drifts: Drifts,
    frame: Frame,
}

impl<'a> Here<'a> {
    fn new(
        program: &'a Program,
        outer: &'a Outer,
        memory: Memory,
        arena: Arena,
        bound: &[&Tensor],
    ) -> Result<Here<'a>> {
        let drifts = Drifts::new(outer.pairs.len());
        let mut here = Here { program, outer, memory, arena, drifts, frame: Frame::default() };
        here.frame = here.run().frame(bound)?;
        Ok(here)
    }

    fn run(&self) -> Run<'_> {
        let (pool, isa) = (&self.program.pool, self.program.isa);
        let Here { outer, memory, arena, drifts, .. } = self;
        Run { outer, memory, arena: *arena, pool, isa, times: None, drifts }
    }
}

impl Parts for Here<'_> {
    fn items(&mut self, range: Range<usize>) -> Result<()> {
        self.run().items(&self.frame, range);
        Ok(())
    }

    fn piece(&mut self, at: usize, piece: Piece) -> Result<()> {
        let Item::Scan(item) = &self.outer.items[at] else { return Ok(()) };
        let scan = ScanRun {
            outer: self.outer,
            frame: &self.frame,
            arena: self.arena,
            memory: &self.memory,
            item,
            slots: &self.memory.scans[&at],
            isa: self.program.isa,
            times: None,
            drifts: &self.drifts,
        };
        run_piece(&scan, &self.program.pool, piece);
        Ok(())
    }

    fn place(&mut self, bound: &[&Tensor], origin: usize, at: usize) -> Result<()> {
        let mut frame = std::mem::take(&mut self.frame);
        for (i, buf) in self.outer.bufs.iter().enumerate().filter(|(i, _)| reads(self.outer, *i, at)) {
            if let BufKind::Bound(b) = buf.kind {
                self.run().place(&mut frame.locs[i], buf.dtype, bound[b])?;
                frame.locs[i].origin = origin;
            }
        }
        self.frame = frame;
        Ok(())
    }

    fn end_at(&mut self, steps: usize) -> Result<()> {
        self.memory.steps = steps;
        Ok(())
    }

    fn outputs(&self) -> Result<Vec<Tensor>> {
        self.run().outputs(&self.frame)
    }
}

/// On a device.
struct There<'a> {
    outer: &'a Outer,
    pieces: device::Pieces<'a>,
    /// What stays there, which the pieces read.
    _own: Resident,
}

impl<'a> There<'a> {
    fn new(
        (on, kernels): (&Arc<dyn Device>, &'a device::Compiled),
        outer: &'a Outer,
        memory: Memory,
        arena: &'a device::Arena,
        bound: &[&Tensor],
    ) -> Result<There<'a>> {
        let bound: Vec<Option<&Tensor>> = bound.iter().map(|t| Some(*t)).collect();
        let Stay { own, fixed, .. } = stay(on, outer, None, (None, &bound))?;
        let pieces = device::Pieces::new(kernels, outer, memory, arena, fixed)?;
        pieces.write(&bound, |i| !outer.bufs[i].lead.has_t())?;
        Ok(There { outer, pieces, _own: own })
    }
}

impl Parts for There<'_> {
    fn items(&mut self, range: Range<usize>) -> Result<()> {
        self.pieces.items(range)
    }

    fn piece(&mut self, at: usize, piece: Piece) -> Result<()> {
        self.pieces.piece(at, piece)
    }

    fn place(&mut self, bound: &[&Tensor], origin: usize, at: usize) -> Result<()> {
        let bound: Vec<Option<&Tensor>> = bound.iter().map(|t| Some(*t)).collect();
        self.pieces.write(&bound, |i| reads(self.outer, i, at))?;
        self.pieces.begin_at(origin)
    }

    fn end_at(&mut self, steps: usize) -> Result<()> {
        self.pieces.end_at(steps)
    }

    fn outputs(&self) -> Result<Vec<Tensor>> {
        self.pieces.outputs()
    }
}

struct Walk<'a> {
    outer: &'a Outer,
    shared: &'a [&'a Params],
    segment: usize,
    rows: usize,
}

impl Walk<'_> {
    /// Reads a segment. `steps`: as many as it must have, if it was read before.
    fn read(&self, source: &mut dyn Source, number: usize, steps: Option<usize>) -> Result<Option<Segment>> {
        let from = number.saturating_mul(self.segment);
        let most = steps.unwrap_or(self.segment);
        let Some(values) = source.read(from, most)? else { return Ok(None) };
        let (got, rows) = piece(self.outer, &values, self.shared)?;
        if rows != self.rows || got > most || steps.is_some_and(|s| s != got) {
            let expected = if steps.is_some() { format!("{most} again") } else { format!("at most {most}") };
            let (rows_here, n) = (rows, self.rows);
            let what =
                format!("from step {from}: expected {expected} of {n} rows, got {got} of {rows_here} rows");
            return Err(Error::argument("stream", what));
        }
        Ok((got > 0).then_some(Segment { number, steps: got, values }))
    }

    /// The segment again, if it is not the one at hand.
    fn again(&self, source: &mut dyn Source, held: Segment, number: usize) -> Result<Segment> {
        if held.number == number {
            return Ok(held);
        }
        // Only the last segment may be short, and it is the first to be gone over.
        drop(held);
        self.read(source, number, Some(self.segment))?.ok_or_else(|| {
            let from = number * self.segment;
            Error::argument("stream", format!("the steps from {from} on were there and cannot be read again"))
        })
    }

    /// Outputs, steps, and steps advanced over. `begin` makes ready what carries it out, with the values of the first
    /// segment.
    fn all<'p>(
        &self,
        source: &mut dyn Source,
        checkpoints: usize,
        begin: impl FnOnce(&[&Tensor]) -> Result<Box<dyn Parts + 'p>>,
    ) -> Result<(Vec<Tensor>, usize, u64)> {
        let mut online =
            Online::new(checkpoints).map_err(|e| Error::argument("stream", format!("bug: schedule: {e}")))?;
        let missing = || Error::argument("stream", "the source has no step");
        let mut held = self.read(source, 0, None)?.ok_or_else(missing)?;
        let scans: Vec<usize> = (self.outer.items.iter().enumerate())
            .filter(|(_, item)| matches!(item, Item::Scan(_)))
            .map(|(i, _)| i)
            .collect();
        let (forward, adjoint) = (scans[0], scans.get(1).copied());
        let mut advanced = 0;

        // The forward pass, while segments arrive.
        let mut parts = begin(&self.bind(&held)?)?;
        parts.items(0..forward)?;
        parts.piece(forward, Piece::Enter)?;
        loop {
            let following = match held.steps == self.segment {
                true => self.read(source, held.number + 1, None)?,
                false => None,
            };
            self.place(&mut *parts, &held, forward)?;
            let span = self.span(&held);
            let Some(following) = following else {
                let n = held.number;
                parts.piece(forward, Piece::Act(Action::Record { from: n, to: n + 1 }, span))?;
                break;
            };
            for action in online.another() {
                parts.piece(forward, Piece::Act(action, span))?;
            }
            advanced += held.steps as u64;
            held = following;
        }
        parts.piece(forward, Piece::Leave)?;

        // What waited for the number of steps, and the backward pass.
        let steps = held.number * self.segment + held.steps;
        parts.end_at(steps)?;
        let end = self.outer.items.len();
        parts.items(forward + 1..adjoint.unwrap_or(end))?;
        if let Some(adjoint) = adjoint {
            parts.piece(adjoint, Piece::Enter)?;
            // The last segment has been recorded.
            for action in online.last().skip(1) {
                let (from, to) = match action {
                    Action::Advance { from, to }
                    | Action::Record { from, to }
                    | Action::Backward { from, to } => (from, to),
                    other => {
                        parts.piece(adjoint, Piece::Act(other, (0, 0)))?;
                        continue;
                    }
                };
                for number in from..to {
                    held = self.again(source, held, number)?;
                    self.place(&mut *parts, &held, adjoint)?;
                    let span = self.span(&held);
                    let action = match action {
                        Action::Advance { .. } => {
                            advanced += held.steps as u64;
                            Action::Advance { from: number, to: number + 1 }
                        }
                        other => other,
                    };
                    parts.piece(adjoint, Piece::Act(action, span))?;
                }
            }
            parts.piece(adjoint, Piece::Leave)?;
            parts.items(adjoint + 1..end)?;
        }
        Ok((parts.outputs()?, steps, advanced))
    }

    fn bind<'s>(&'s self, held: &'s Segment) -> Result<Vec<&'s Tensor>> {
        let bindings: Vec<&Params> = [&held.values].into_iter().chain(self.shared.iter().copied()).collect();
        find_bound(self.outer, &bindings)
    }

    /// First step of a segment, and the step after its last.
    fn span(&self, held: &Segment) -> (usize, usize) {
        let from = held.number * self.segment;
        (from, from + held.steps)
    }

    /// Lets the values with a time axis that item `at` may read be those of a segment.
    fn place(&self, parts: &mut dyn Parts, held: &Segment, at: usize) -> Result<()> {
        parts.place(&self.bind(held)?, held.number * self.segment, at)
    }
}
