//! Where states that were walked back to end at kept ones: how far off they are.
//!
//! A tile notes the largest difference of all its walks, and after the last of them a block forms the largest of the tiles'.
//! Nothing of it depends on which thread compares what.

use std::sync::Arc;

use super::code::{Building, Code, Type, Value};
use super::emit::{Emit, Share, Where};
use super::scan::{Scan, Written};
use super::table::{Ref, Word};
use crate::dtype::DType;
use crate::plan::ir::Buf;

/// Most lanes that compare; they leave what they find in shared memory.
const LANES: usize = 256;
/// What a lane leaves there: the largest entry and the largest difference.
const LANE_BYTES: usize = 16;

/// A state that is walked back to: where it is, and where it is kept.
struct Walked<'a> {
    buf: &'a Buf,
    here: Where,
    kept: Where,
}

/// Makes `most` the larger one; a NaN leaves it.
fn at_least(e: &mut Emit<'_>, most: Value, value: Value) {
    let larger = e.code.lt(most, value);
    let larger = e.code.select(larger, value, most);
    e.code.set(most, larger);
}

fn zero() -> Value {
    Code::real(Type::F64, 0.0)
}

impl Scan<'_> {
    fn lanes(&self, e: &mut Emit<'_>) -> usize {
        let lanes = (self.shared_limit / LANE_BYTES).clamp(1, LANES);
        e.shared_bytes = e.shared_bytes.max(lanes * LANE_BYTES);
        lanes
    }

    /// Takes up the states of a pair that are kept in a slot (the first argument) where those that were walked back to end,
    /// and notes how far off these are: relative to the largest entry of that slot and of a later one (the second
    /// argument), since a sequence may begin with zeros. `first` is the number of the first of them among the states.
    pub(super) fn take_up(&self, maps: &mut Vec<Arc<[i32]>>, pair: usize, first: usize) -> Written {
        let (mut e, slots) = Emit::new(maps, &[], self.shared_limit);
        let regions = self.tile(&mut e);
        let program = &self.item.run;
        let states = self.outer.pairs[pair].states.keys().filter_map(|&k| {
            let buf = &program.bufs[*program.states.get(&(first + k))?];
            let here = self.current(&regions, Ref::Current(self.at, first + k), buf.width);
            Some(Walked { buf, here, kept: Self::kept(&regions, pair, k, buf.width) })
        });
        let states: Vec<Walked<'_>> = states.collect();
        let lanes = self.lanes(&mut e);
        e.by_one(|e| {
            let Share { first: thread, apart } = e.threads;
            e.each_by(thread, lanes, apart, |e, lane| compare(e, &states, slots, (lane, lanes)));
            e.code.barrier();
            let one = e.code.eq(thread, 0);
            e.when(one, |e| {
                let (largest, difference) = (e.code.variable(zero()), e.code.variable(zero()));
                e.each(0, lanes, |e, lane| {
                    let at = e.code.mul(lane, 2);
                    for (i, most) in [largest, difference].into_iter().enumerate() {
                        let value = e.code.load_shared(Type::F64, i * Type::F64.bytes(), at);
                        at_least(e, most, value);
                    }
                });
                at_least(e, largest, Code::real(Type::F64, f64::MIN_POSITIVE));
                let relative = e.code.div(difference, largest);
                let start = e.address(Word::Base(Ref::Drift(self.at)));
                let start = e.code.add(start, regions.sums);
                let before = e.code.load(Type::F64, start, 0);
                let most = e.code.variable(before);
                at_least(e, most, relative);
                e.code.store(start, 0, most);
            });
        });
        e.meet();
        for Walked { buf, here, kept } in states {
            Self::copy(&mut e, buf, (kept, slots[0]), (here, Value::Int(0)));
        }
        e.finish("scan_take_up")
    }

    /// Puts together what the tiles noted, as drift number `number` of the program.
    pub(super) fn drift(&self, maps: &mut Vec<Arc<[i32]>>, number: usize) -> Written {
        let (mut e, _) = Emit::new(maps, &[], self.shared_limit);
        let lanes = self.lanes(&mut e);
        let tiles = e.number(Word::Tiles(self.at));
        let apart = e.address(Word::SumTile(self.at));
        let start = e.address(Word::Base(Ref::Drift(self.at)));
        let to = e.address(Word::Drift(number));
        let Share { first: thread, apart: threads } = e.threads;
        e.each_by(thread, lanes, threads, |e, lane| {
            let most = e.code.variable(zero());
            e.each_by(lane, tiles, lanes, |e, tile| {
                let tile = e.code.convert(tile, Type::Address);
                let skip = e.code.mul(tile, apart);
                let at = e.code.add(start, skip);
                let value = e.code.load(Type::F64, at, 0);
                at_least(e, most, value);
            });
            e.code.store_shared(0, lane, most);
        });
        e.code.barrier();
        let one = e.code.eq(thread, 0);
        e.when(one, |e| {
            let most = e.code.variable(zero());
            e.each(0, lanes, |e, lane| {
                let value = e.code.load_shared(Type::F64, 0, lane);
                at_least(e, most, value);
            });
            e.code.store(to, 0, most);
        });
        e.finish("scan_drift")
    }
}

/// The largest entry and the largest difference that a lane finds. States that are not finite say nothing; a walked one
/// that is no number is as far off as can be.
fn compare(e: &mut Emit<'_>, states: &[Walked<'_>], slots: [Value; 2], (lane, lanes): (Value, usize)) {
    let infinite = Code::real(Type::F64, f64::INFINITY);
    let (largest, difference) = (e.code.variable(zero()), e.code.variable(zero()));
    // Counters are exact.
    let real = |s: &&Walked<'_>| s.buf.dtype.real() != DType::I32 && s.buf.width > 0;
    for Walked { buf, here, kept } in states.iter().filter(real) {
        let here = e.open_at(Some(*here), buf.dtype, 0, 0);
        let kept = e.open_at(Some(*kept), buf.dtype, 0, 0);
        let all = e.code.mul(e.span.rows, buf.width);
        e.each_by(lane, all, lanes, |e, i| {
            let (row, unit) = (e.code.div(i, buf.width), e.code.rem(i, buf.width));
            for plane in 0..buf.dtype.planes() {
                let [kept, later] = slots.map(|slot| {
                    let entry = e.entry(&kept, plane, (slot, row));
                    let value = e.code.load(kept.ty, entry, unit);
                    e.code.convert(value, Type::F64)
                });
                let finite = [kept, later].map(|value| {
                    let size = e.code.abs(value);
                    let finite = e.code.lt(size, infinite);
                    let size = e.code.select(finite, size, zero());
                    at_least(e, largest, size);
                    finite
                });
                let entry = e.entry(&here, plane, (Value::Int(0), row));
                let walked = e.code.load(here.ty, entry, unit);
                let walked = e.code.convert(walked, Type::F64);
                let off = e.code.sub(kept, walked);
                let off = e.code.abs(off);
                let number = e.code.eq(off, off);
                let off = e.code.select(number, off, infinite);
                let off = e.code.select(finite[0], off, zero());
                at_least(e, difference, off);
            }
        });
    }
    let at = e.code.mul(lane, 2);
    for (i, most) in [largest, difference].into_iter().enumerate() {
        e.code.store_shared(i * Type::F64.bytes(), at, most);
    }
}
