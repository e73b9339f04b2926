//! Structured operations on a device: what one brings, and the loops around it.

use std::sync::Arc;

use super::code::{Building, Code, Type, Value};
use super::emit::{At, Emit, Share, type_of};
use super::functions::{binary, play, unary};
use super::sums::each_entry;
use super::tensor::WARP;
use super::without;
use crate::dtype::DType;
use crate::error::Result;
use crate::expr::{Binary, Unary};
use crate::op::{Class, Op};
use crate::plan::ir::{Buf, Call, Instr, Operand, Over};
use crate::shape::Dims;

/// An input or output of an operation: one entry of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Element type.
    pub dtype: DType,
    /// Ordinary axes.
    pub dims: Dims,
}

impl Entry {
    /// Elements.
    pub fn width(&self) -> usize {
        self.dims.iter().product()
    }

    /// Elements along the last axis, at least 1.
    pub fn line(&self) -> usize {
        self.dims.last().map_or(1, |n| (*n).max(1))
    }

    /// Whether a line is worth a warp.
    pub fn is_long(&self) -> bool {
        self.line() >= WARP
    }

    /// The same where lines are reduced: to `dims`, as broadcasting would stretch them back.
    pub fn is_long_to(&self, dims: &[usize]) -> bool {
        self.is_long() && dims.last().is_none_or(|n| *n != self.line())
    }
}

/// How a structured operation runs on a device: the code of one piece of the work of one row.
///
/// A row's work goes through phases, one after the other; each consists of so many pieces that do not depend on each
/// other, and a thread does one piece. What one phase leaves to a later one lies in shared memory. A reduction
/// ([`RowRule::Reduce`](crate::kernel::RowRule::Reduce)) of one phase that needs no shared memory is different: its pieces
/// are elements of the sum, and each goes over the rows itself, by [`Piece::each_row`], and ends with one
/// [`Piece::add`] for each of its elements.
pub trait DeviceKernel {
    /// Pieces of each phase.
    fn phases(&self, inputs: &[Entry], output: &Entry) -> Vec<usize>;

    /// Real numbers of shared memory that a row needs.
    fn shared(&self, inputs: &[Entry], output: &Entry) -> usize {
        let _ = (inputs, output);
        0
    }

    /// Whether a warp does a piece, not a thread: its lanes take elements in turn ([`Piece::each_of`]), put together what
    /// they have found ([`Piece::join`]), and one of them writes what there is once ([`Piece::once`]). For one phase that
    /// needs no shared memory and is no reduction over rows; of long lines, which a thread would read far from its
    /// neighbours'.
    fn by_warp(&self, inputs: &[Entry], output: &Entry) -> bool {
        let _ = (inputs, output);
        false
    }

    /// Writes the code of a piece.
    fn piece(&self, k: &mut Piece<'_, '_>, phase: usize, piece: Value);
}

/// A piece of a row's work, while its code is written: inputs and output of the row, shared memory, and arithmetic
/// through [`Building::code`].
#[derive(Debug)]
pub struct Piece<'e, 'a> {
    emit: &'e mut Emit<'a>,
    /// Inputs and output, as the operation was recorded.
    pub inputs: &'e [Entry],
    /// See [`Piece::inputs`].
    pub output: &'e Entry,
    ins: &'e [At],
    out: At,
    /// Step and row at hand.
    at: (Value, Value),
    /// Where the output's entry is.
    to: (Value, Value),
    /// What a reduction goes over, and which part of it.
    over: (Value, Value),
    part: Value,
    /// Whether [`Piece::add`] adds to what is there.
    adds: bool,
    /// Whether what is there was cleared by an earlier phase.
    in_phases: bool,
    shared: usize,
    /// Number of this lane, where a warp does the piece.
    lane: Option<Value>,
}

impl Building for Piece<'_, '_> {
    fn code(&mut self) -> &mut Code {
        self.emit.code()
    }
}

impl Piece<'_, '_> {
    /// The register type of real numbers.
    pub fn ty(&self) -> Type {
        self.out.ty
    }

    /// A real number.
    pub fn number(&self, value: f64) -> Value {
        Code::real(self.ty(), value)
    }

    /// A variable with a first value.
    pub fn variable(&mut self, first: Value) -> Value {
        self.emit.code.variable(first)
    }

    /// Element `index` of a plane (0 real, 1 imaginary) of an input; an integer where it holds indices, 0 where a real
    /// input has no such plane.
    pub fn input(&mut self, input: usize, plane: usize, index: impl Into<Value>) -> Value {
        let at = self.ins[input];
        if plane > 0 && !at.complex {
            return Code::real(at.ty, 0.0);
        }
        let entry = self.emit.entry(&at, plane, self.at);
        self.emit.code.load(at.ty, entry, index)
    }

    /// Whether an input is complex.
    pub fn is_complex(&self, input: usize) -> bool {
        self.inputs[input].dtype.is_complex()
    }

    /// Planes of the output.
    pub fn planes(&self) -> usize {
        self.output.dtype.planes()
    }

    /// Writes an element of the output.
    pub fn store(&mut self, plane: usize, index: impl Into<Value>, value: Value) {
        let out = self.out;
        let entry = self.emit.sum_entry(&out, plane, self.to, self.part);
        self.emit.code.store(entry, index, value);
    }

    /// An element of the output that an earlier phase, or this piece, has written.
    pub fn written(&mut self, plane: usize, index: impl Into<Value>) -> Value {
        let out = self.out;
        let entry = self.emit.sum_entry(&out, plane, self.to, self.part);
        self.emit.code.load(out.ty, entry, index)
    }

    /// Adds to an element of a sum.
    pub fn add(&mut self, plane: usize, index: impl Into<Value>, value: Value) {
        let index = index.into();
        let value = match (self.adds, self.emit.partial) {
            (false, _) => value,
            (true, None) => {
                let there = self.written(plane, index);
                self.emit.code.add(there, value)
            }
            (true, Some(_)) => {
                let out = self.out;
                let entry = self.emit.sum_entry(&out, plane, self.to, self.part);
                let there = if self.in_phases {
                    self.emit.code.load(out.ty, entry, index)
                } else {
                    self.emit.sum_start(entry, out.ty, index, true)
                };
                self.emit.code.add(there, value)
            }
        };
        self.store(plane, index, value);
    }

    /// Element `index` of the row's shared memory.
    pub fn shared(&mut self, index: impl Into<Value>) -> Value {
        let (ty, base) = (self.ty(), self.shared);
        self.emit.code.load_shared(ty, base, index)
    }

    /// Writes an element of the row's shared memory.
    pub fn store_shared(&mut self, index: impl Into<Value>, value: Value) {
        let base = self.shared;
        self.emit.code.store_shared(base, index, value);
    }

    /// A function.
    pub fn unary(&mut self, op: Unary, x: Value) -> Value {
        let ty = x.ty();
        let recording = unary(op, real(ty));
        let results = recording.map(|r| play(&mut self.emit.code, &r, ty, |_, _| x));
        results.and_then(|r| r.first().map(|r| r.1)).unwrap_or(x)
    }

    /// A function of two arguments; not a power.
    pub fn binary(&mut self, op: Binary, x: Value, y: Value) -> Value {
        let ty = x.ty();
        let recording = binary(op, real(ty));
        let results =
            recording.map(|r| play(&mut self.emit.code, &r, ty, |_, slot| if slot == 0 { x } else { y }));
        results.and_then(|r| r.first().map(|r| r.1)).unwrap_or(x)
    }

    /// Number of the step, and of the row in the batch.
    pub fn step(&mut self) -> Value {
        self.at.0
    }

    /// See [`Piece::step`].
    pub fn row(&mut self) -> Value {
        let (first, row) = (self.emit.first_row, self.at.1);
        self.emit.code.add(first, row)
    }

    /// Steps and rows in all.
    pub fn extent(&self) -> (Value, Value) {
        (self.emit.steps, self.emit.batch)
    }

    /// `body` for every number below `count`; where a warp does the piece, for those that are this lane's.
    pub fn each_of(&mut self, count: usize, body: impl FnOnce(&mut Self, Value)) {
        match self.lane {
            None => self.each(0, count, body),
            Some(lane) => self.each_by(lane, count, WARP, body),
        }
    }

    /// What all lanes have, put together by twos; where a thread does the piece, its own. In which order does not matter to
    /// `both`.
    pub fn join(&mut self, value: Value, mut both: impl FnMut(&mut Self, Value, Value) -> Value) -> Value {
        let apart: &[u32] = if self.lane.is_some() { &[16, 8, 4, 2, 1] } else { &[] };
        let mut all = value;
        for &by in apart {
            let other = self.code().across(all, by);
            all = both(self, all, other);
        }
        all
    }

    /// `body` by one of the lanes.
    pub fn once(&mut self, body: impl FnOnce(&mut Self)) {
        match self.lane {
            None => body(self),
            Some(lane) => {
                let first = self.code().eq(lane, 0);
                self.when(first, body);
            }
        }
    }

    /// In a reduction: `body` for every step and row of the call, or those of its part, in their order.
    pub fn each_row(&mut self, body: impl FnOnce(&mut Self)) {
        let (start, to, parts) = (self.at, self.to, self.emit.parts());
        each_entry(self, self.over, (self.part, parts), |k, t, row| {
            let step = k.emit.code.add(start.0, t);
            k.at = (step, row);
            body(k);
        });
        (self.at, self.to) = (start, to);
    }

    /// `body` at every index that the axes (size and distance, the last one varying slowest) lead to from `base`; where a
    /// warp does the piece, at those of the first axis that are this lane's.
    pub fn each_along(
        &mut self,
        axes: &[(usize, usize)],
        base: Value,
        body: &mut dyn FnMut(&mut Self, Value),
    ) {
        let Some((&(size, apart), rest)) = axes.split_last() else { return body(self, base) };
        let along = |k: &mut Self, i: Value| {
            let skip = k.code().mul(i, apart);
            let at = k.code().add(base, skip);
            k.each_along(rest, at, body);
        };
        if rest.is_empty() { self.each_of(size, along) } else { self.each(0, size, along) }
    }
}

fn real(ty: Type) -> DType {
    if ty == Type::F64 { DType::F64 } else { DType::F32 }
}

/// Writes a structured operation.
pub(super) fn structured(
    s: &mut Emit<'_>,
    over: Over,
    op: &Arc<dyn Op>,
    ins: &[Operand],
    out: &Operand,
    (reduce, accumulate): (bool, bool),
) -> Result<()> {
    let missing = || without(op.name(), "it has no kernel for devices yet");
    let Class::Structured(kernel) = op.class() else { return Err(missing()) };
    let device = kernel.device().ok_or_else(missing)?;
    let entry = |s: &Emit<'_>, o: &Operand| Entry { dtype: s.bufs[o.buf].dtype, dims: o.dims.clone() };
    let inputs: Vec<Entry> = ins.iter().map(|o| entry(s, o)).collect();
    let output = entry(s, out);
    let phases = device.phases(&inputs, &output);
    let ats: Vec<At> = ins.iter().map(|o| s.open(o)).collect();
    let to = s.open(out);
    let bytes = device.shared(&inputs, &output) * to.ty.bytes();
    if bytes > s.shared_limit {
        let what =
            format!("a row of it needs {bytes} bytes of shared memory, a block has {}", s.shared_limit);
        return Err(without(op.name(), what));
    }
    s.shared_bytes = s.shared_bytes.max(bytes);
    let (steps, rows) = s.counts(over);
    let per_step = Emit::moves(&to);
    let none = Value::Int(0);
    let in_phases = in_phases(device, &inputs, &output);
    let by_warp = !reduce && !in_phases && device.by_warp(&inputs, &output);
    let lane = by_warp.then(|| s.code.rem(s.threads.first, WARP));
    let piece = |s: &mut Emit<'_>, at, to_at, (over, part), adds, phase: usize, unit: Value| {
        let mut k = Piece {
            emit: s,
            inputs: &inputs,
            output: &output,
            ins: &ats,
            out: to,
            at,
            to: to_at,
            over,
            part,
            adds,
            in_phases,
            shared: 0,
            lane,
        };
        device.piece(&mut k, phase, unit);
    };
    if !in_phases {
        if reduce {
            let (outer, inner) = if per_step { (steps, Value::Int(1)) } else { (Value::Int(1), steps) };
            let adds = accumulate && !per_step;
            let parts = s.parts();
            s.domain((outer, parts), phases[0], |s, (step, part), unit| {
                piece(s, (step, none), (step, none), ((inner, rows), part), adds, 0, unit);
            });
        } else {
            let all = |s: &mut Emit<'_>| {
                s.domain((steps, rows), phases[0], |s, at, unit| {
                    piece(s, at, at, ((Value::Int(1), Value::Int(1)), none), false, 0, unit);
                });
            };
            if by_warp { s.by_warps(all) } else { all(s) }
        }
        return Ok(());
    }
    // A block goes through the phases of row after row. Of a sum it has a part of its own, or all of it.
    let one = Share { first: none, apart: Value::Int(1) };
    let (threads, blocks) = (s.threads, if s.is_tile { s.whole_things() } else { s.blocks });
    let entries = s.code.mul(steps, rows);
    let walk = |s: &mut Emit<'_>, (first, apart): (Value, Value), part: Value| {
        s.each_by(first, entries, apart, |s, e| {
            let (step, row) = match (rows, steps) {
                (Value::Int(1), _) => (e, none),
                (_, Value::Int(1)) => (none, e),
                _ => (s.code.div(e, rows), s.code.rem(e, rows)),
            };
            let step = s.code.add(s.span.from, step);
            let to_at = if reduce { (step, none) } else { (step, row) };
            for (phase, pieces) in phases.iter().enumerate() {
                s.each_by(threads.first, *pieces, threads.apart, |s, unit| {
                    piece(s, (step, row), to_at, ((none, none), part), true, phase, unit);
                });
                s.code.barrier();
            }
        });
    };
    if !reduce {
        walk(s, (blocks.first, blocks.apart), none);
        return Ok(());
    }
    let (parts, of_sum) = (s.parts(), if s.partial.is_some() { blocks } else { one });
    s.by_one(|s| {
        s.each_by(of_sum.first, parts, of_sum.apart, |s, part| {
            let clear = |s: &mut Emit<'_>| {
                let places = if per_step { steps } else { Value::Int(1) };
                let (all, width) = (s.share, output.width());
                s.share = threads;
                s.domain((places, Value::Int(1)), width, |s, (step, _), unit| {
                    for plane in 0..output.dtype.planes() {
                        let entry = s.sum_entry(&to, plane, (step, none), part);
                        s.code.store(entry, unit, super::call::zero(to.ty));
                    }
                });
                s.share = all;
            };
            match s.partial {
                _ if per_step || !accumulate => clear(s),
                // Parts start from 0; who puts them together adds what is there.
                Some(partial) => s.when(partial.split, clear),
                None => {}
            }
            s.code.barrier();
            walk(s, (part, parts), part);
        })
    });
    Ok(())
}

/// Bytes of shared memory that a call needs for a row.
pub(super) fn shared_bytes(bufs: &[Buf], call: &Call) -> usize {
    let Instr::Structured { op, ins, out, .. } = &call.instr else { return 0 };
    let Class::Structured(kernel) = op.class() else { return 0 };
    let entry = |o: &Operand| Entry { dtype: bufs[o.buf].dtype, dims: o.dims.clone() };
    let inputs: Vec<Entry> = ins.iter().map(entry).collect();
    let numbers = kernel.device().map_or(0, |device| device.shared(&inputs, &entry(out)));
    numbers * type_of(bufs[out.buf].dtype).bytes()
}

/// Whether an operation goes through phases or shared memory, block by block.
pub(super) fn in_phases(device: &dyn DeviceKernel, inputs: &[Entry], output: &Entry) -> bool {
    device.phases(inputs, output).len() != 1 || device.shared(inputs, output) > 0
}

/// How many pieces a structured operation outside a step has for every entry, for as many threads; `None`: blocks take
/// entries; the second: it is one block's.
pub(super) fn outside(
    op: &Arc<dyn Op>,
    inputs: &[Entry],
    output: &Entry,
    reduce: bool,
) -> (Option<usize>, bool) {
    let Class::Structured(kernel) = op.class() else { return (None, true) };
    let Some(device) = kernel.device() else { return (None, true) };
    match in_phases(device, inputs, output) {
        false => {
            let threads = if !reduce && device.by_warp(inputs, output) { WARP } else { 1 };
            (device.phases(inputs, output).first().map(|pieces| pieces * threads), false)
        }
        true => (None, reduce),
    }
}
