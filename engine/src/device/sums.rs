//! Sums over steps and rows outside of scans, shared out: many threads form partial sums, then blocks put those together.
//!
//! A sum over `E` entries is cut into parts by the numbers of the problem alone: part `p` of `P` has the entries `p`,
//! `p + P`, … in their order. The parts of an element are put together by [`LANES`] lanes, lane `l` taking the parts `l`,
//! `l + LANES`, …, and the lanes in their order. So the bits of a sum depend neither on how many threads there are nor on
//! plans, and two runs give the same. Few entries are one part, which is the element's own thread.

use super::code::{Building, Op, Type, Value};
use super::emit::{At, Emit, type_of};
use super::kernel::{Entry, in_phases};
use super::scan::{Written, outer_place};
use super::table::Word;
use crate::op::Class;
use crate::plan::ir::{Call, Instr, Operand};
use crate::plan::outer::Outer;

/// Entries that are worth a part of their own.
const TERMS: usize = 32;
/// Parts of all elements that are enough for every thread of a device.
const THINGS: usize = 1 << 17;
/// Parts of all elements where blocks form them, which have room for as many numbers.
const OF_BLOCKS: usize = 1 << 22;
/// Most parts of an element.
const MOST_PARTS: usize = 1024;
/// Lanes that put the parts of an element together.
pub(super) const LANES: usize = 32;
/// Elements that a block puts together at once.
pub(super) const ELEMENTS: usize = 8;

/// What a sum has an element of its own for, beside those of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Along {
    Nothing,
    Steps,
    Rows,
}

/// A call that sums over steps or rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sum {
    along: Along,
    over_steps: bool,
    over_rows: bool,
    pub(super) width: usize,
    pub(super) planes: usize,
    pub(super) ty: Type,
    /// Whether a block forms a part (else a thread a part of an element).
    pub(super) by_blocks: bool,
}

impl Sum {
    /// What a call of the outer program sums, if it does.
    pub(crate) fn of(outer: &Outer, call: &Call) -> Option<Sum> {
        let lead = |o: &Operand| outer.bufs[o.buf].lead;
        let mut by_blocks = false;
        let (out, along) = match &call.instr {
            Instr::RowContract { out, .. } => (out, lead(out).has_t().then_some(Along::Steps)),
            Instr::Accumulate { out, .. } => (out, lead(out).has_n().then_some(Along::Rows)),
            Instr::Structured { op, ins, out, reduce: true, .. } => {
                let Class::Structured(kernel) = op.class() else { return None };
                let entry = |o: &Operand| Entry { dtype: outer.bufs[o.buf].dtype, dims: o.dims.clone() };
                let inputs: Vec<Entry> = ins.iter().map(entry).collect();
                by_blocks = in_phases(kernel.device()?, &inputs, &entry(out));
                if by_blocks && lead(out).has_t() {
                    return None;
                }
                (out, lead(out).has_t().then_some(Along::Steps))
            }
            _ => return None,
        };
        let along = along.unwrap_or(Along::Nothing);
        let dtype = outer.bufs[out.buf].dtype;
        Some(Sum {
            along,
            over_steps: call.over.steps && along != Along::Steps,
            over_rows: call.over.rows && along != Along::Rows,
            width: out.width(),
            planes: dtype.planes(),
            ty: type_of(dtype),
            by_blocks,
        })
    }

    /// Elements of the sum for so many steps and rows.
    pub(super) fn elements(&self, steps: usize, rows: usize) -> usize {
        let places = match self.along {
            Along::Nothing => 1,
            Along::Steps => steps,
            Along::Rows => rows,
        };
        places.saturating_mul(self.width)
    }

    /// Parts that each of them is formed in.
    pub(crate) fn parts(&self, steps: usize, rows: usize) -> usize {
        let of = |over: bool, n: usize| if over { n } else { 1 };
        let entries = of(self.over_steps, steps).saturating_mul(of(self.over_rows, rows));
        let all = if self.by_blocks { OF_BLOCKS } else { THINGS };
        let room = all / self.elements(steps, rows).max(1);
        (entries / TERMS).min(room).clamp(1, MOST_PARTS)
    }

    /// Bytes of the partial sums; 0 where there is one part.
    pub(crate) fn bytes(&self, steps: usize, rows: usize) -> usize {
        let parts = self.parts(steps, rows);
        if parts == 1 {
            return 0;
        }
        let size = self.ty.bytes() * self.planes;
        self.elements(steps, rows).saturating_mul(parts).saturating_mul(size)
    }
}

/// The partial sums of the call being written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Partial {
    pub(super) sum: Sum,
    /// How many there are of each element.
    pub(super) parts: Value,
    /// Whether there is more than one.
    pub(super) split: Value,
    base: Value,
    /// Bytes from plane to plane.
    plane: Value,
}

impl Partial {
    /// Reads where those of item `at` are.
    pub(super) fn new(e: &mut Emit<'_>, sum: Sum, at: usize) -> Partial {
        let parts = e.number(Word::Parts(at));
        let base = e.address(Word::Partial(at));
        let split = e.code.lt(1, parts);
        let places = match sum.along {
            Along::Nothing => Value::Int(1),
            Along::Steps => e.steps,
            Along::Rows => e.batch,
        };
        let places = e.code.convert(places, Type::Address);
        let plane = e.code.mul(places, Value::Address((sum.width * sum.ty.bytes()) as u64));
        Partial { sum, parts, split, base, plane }
    }

    /// The address of partial sum `part` of the entry of place `place`.
    fn entry(&self, e: &mut Emit<'_>, plane: usize, part: Value, place: Value) -> Value {
        let part = e.code.convert(part, Type::Address);
        let number = e.code.mul(part, Value::Address(self.sum.planes as u64));
        let number = e.code.add(number, Value::Address(plane as u64));
        let skip = e.code.mul(number, self.plane);
        let start = e.code.add(self.base, skip);
        e.code.offset(start, place, self.sum.width * self.sum.ty.bytes())
    }
}

impl Emit<'_> {
    /// Parts of the sum being written: 1 in a scan.
    pub(super) fn parts(&self) -> Value {
        self.partial.map_or(Value::Int(1), |p| p.parts)
    }

    /// The address of the entry that part `part` of a sum goes to: in the output, or among the partial sums.
    pub(super) fn sum_entry(
        &mut self,
        out: &At,
        plane: usize,
        (step, row): (Value, Value),
        part: Value,
    ) -> Value {
        let there = self.entry(out, plane, (step, row));
        let Some(partial) = self.partial else { return there };
        let place = match partial.sum.along {
            Along::Nothing => Value::Int(0),
            Along::Steps => step,
            Along::Rows => row,
        };
        let apart = partial.entry(self, plane, part, place);
        self.code.select(partial.split, apart, there)
    }

    /// What a part of a sum starts from: 0, or what is there where it goes on from that.
    pub(super) fn sum_start(&mut self, to: Value, ty: Type, index: Value, accumulate: bool) -> Value {
        let zero = super::call::zero(ty);
        if !accumulate {
            return self.code.variable(zero);
        }
        let Some(partial) = self.partial else {
            let there = self.code.load(ty, to, index);
            return self.code.variable(there);
        };
        // Parts start from 0; who puts them together adds what is there.
        let sum = self.code.variable(zero);
        let whole = self.code.le(partial.parts, 1);
        self.when(whole, |e| {
            let there = e.code.load(ty, to, index);
            e.code.set(sum, there);
        });
        sum
    }
}

/// `body` for the steps and rows of a part, in their order; counted from 0.
pub(super) fn each_entry<B: Building>(
    b: &mut B,
    (steps, rows): (Value, Value),
    (part, parts): (Value, Value),
    body: impl FnOnce(&mut B, Value, Value),
) {
    if parts == Value::Int(1) {
        b.each(0, steps, |b, t| b.each(0, rows, |b, row| body(b, t, row)));
        return;
    }
    let all = b.code().mul(steps, rows);
    let (step, row) = (b.code().div(part, rows), b.code().rem(part, rows));
    let (by_steps, by_rows) = (b.code().div(parts, rows), b.code().rem(parts, rows));
    let (step, row) = (b.code().variable(step), b.code().variable(row));
    b.each_by(part, all, parts, |b, _| {
        body(b, step, row);
        let next = b.code().add(row, by_rows);
        let over = b.code().le(rows, next);
        let less = b.code().sub(next, rows);
        let next = b.code().select(over, less, next);
        b.code().set(row, next);
        let on = b.code().select(over, 1, 0);
        let on = b.code().add(on, by_steps);
        b.code().op_into(step, Op::Add, &[step, on]);
    });
}

/// The kernel that puts the parts of a sum together; blocks take elements.
pub(super) fn put_together(
    outer: &Outer,
    call: &Call,
    sum: Sum,
    at: usize,
    (maps, shared_limit): (&mut Vec<std::sync::Arc<[i32]>>, usize),
) -> Written {
    let (mut e, _) = Emit::new(maps, &outer.bufs, shared_limit);
    let partial = Partial::new(&mut e, sum, at);
    let out = match call.instr.writes().first() {
        Some(o) => (*o).clone(),
        None => return e.finish("sum"),
    };
    e.places[out.buf] = Some(outer_place(&outer.bufs[out.buf], out.buf));
    let adds = match &call.instr {
        Instr::RowContract { accumulate, .. } | Instr::Structured { accumulate, .. } => *accumulate,
        _ => true,
    };
    let out = e.open(&out);
    let size = sum.ty.bytes();
    e.shared_bytes = LANES * ELEMENTS * sum.planes * size;
    let places = match sum.along {
        Along::Nothing => Value::Int(1),
        Along::Steps => e.steps,
        Along::Rows => e.batch,
    };
    let elements = e.code.mul(places, sum.width);
    let (blocks, threads) = (e.blocks, e.threads);
    let groups = e.code.add(elements, ELEMENTS - 1);
    let groups = e.code.div(groups, ELEMENTS);
    e.each_by(blocks.first, groups, blocks.apart, |e, group| {
        let first = e.code.mul(group, ELEMENTS);
        e.each_by(threads.first, LANES * ELEMENTS, threads.apart, |e, slot| {
            let (lane, k) = (e.code.div(slot, ELEMENTS), e.code.rem(slot, ELEMENTS));
            let element = e.code.add(first, k);
            let last = e.code.sub(elements, 1);
            let element = e.code.min(element, last);
            for plane in 0..sum.planes {
                let total = e.code.variable(super::call::zero(sum.ty));
                e.each_by(lane, partial.parts, LANES, |e, part| {
                    let start = partial.entry(e, plane, part, Value::Int(0));
                    let value = e.code.load(sum.ty, start, element);
                    e.code.op_into(total, Op::Add, &[total, value]);
                });
                e.code.store_shared(plane * LANES * ELEMENTS * size, slot, total);
            }
        });
        e.code.barrier();
        e.each_by(threads.first, ELEMENTS, threads.apart, |e, k| {
            let element = e.code.add(first, k);
            let there = e.code.lt(element, elements);
            e.when(there, |e| {
                let (place, unit) = (e.code.div(element, sum.width), e.code.rem(element, sum.width));
                let at = match sum.along {
                    Along::Nothing => (Value::Int(0), Value::Int(0)),
                    Along::Steps => (place, Value::Int(0)),
                    Along::Rows => (Value::Int(0), place),
                };
                for plane in 0..sum.planes {
                    let to = e.entry(&out, plane, at);
                    let first = if adds { e.code.load(sum.ty, to, unit) } else { super::call::zero(sum.ty) };
                    let total = e.code.variable(first);
                    e.each(0, LANES, |e, lane| {
                        let slot = e.code.mul(lane, ELEMENTS);
                        let slot = e.code.add(slot, k);
                        let value = e.code.load_shared(sum.ty, plane * LANES * ELEMENTS * size, slot);
                        e.code.op_into(total, Op::Add, &[total, value]);
                    });
                    e.code.store(to, unit, total);
                }
            });
        });
        e.code.barrier();
    });
    e.finish("sum")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_by_the_numbers_of_the_problem() {
        let sum = |width, by_blocks| Sum {
            along: Along::Nothing,
            over_steps: true,
            over_rows: true,
            width,
            planes: 2,
            ty: Type::F32,
            by_blocks,
        };
        // Few entries are one part without memory of its own; many are as many as fill a device, and no more.
        for (width, by_blocks, steps, rows, parts) in [
            (1, false, 9, 7, 1),
            (1, false, 8, 8, 2),
            (1, false, 784, 128, 1024),
            (512, false, 784, 128, 256),
            (1 << 20, false, 784, 128, 1),
            (1 << 20, true, 784, 128, 4),
        ] {
            let sum = sum(width, by_blocks);
            assert_eq!(sum.parts(steps, rows), parts, "{width} {by_blocks} {steps} {rows}");
            let bytes = if parts == 1 { 0 } else { parts * width * 8 };
            assert_eq!(sum.bytes(steps, rows), bytes);
        }
    }
}
