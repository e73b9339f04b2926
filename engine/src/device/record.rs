//! A record that is rounded: what is recorded of a chunk is rounded at its end, what is read of the record is widened before.
//!
//! As on the processor a step computes with what it always does, in full precision and at a chunk's own place, and the
//! record is a copy of that. It has the processor's bits, but for numbers that are none.

use super::code::{Code, Op, Type, Value};
use super::emit::{Emit, Span, Stride, Where};
use super::scan::{Regions, Scan};
use super::table::{Form, Ref};
use crate::plan::ir::BufKind;
use crate::plan::outer::Role;
use crate::plan::step::StepProgram;
use crate::stash::Stash;

/// What a form of a step has to do with the record of its pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Record {
    /// Nothing, or it writes and reads it in place.
    InPlace,
    /// What it computes of a chunk is rounded into the record.
    Rounded,
    /// What it reads of the record is widened for a chunk.
    Widened,
}

impl Scan<'_> {
    pub(super) fn record_of(&self, form: Form, recording: bool) -> Record {
        match self.item.role {
            _ if !self.stash.rounds() => Record::InPlace,
            _ if recording => Record::Rounded,
            Role::Adjoint(_) if form == Form::Run => Record::Widened,
            _ => Record::InPlace,
        }
    }

    /// Rounds what was recorded of the steps of a chunk (its first step and their number) into the segment of the pair,
    /// which begins at a step of its own, or widens it again.
    pub(super) fn convert(
        &self,
        e: &mut Emit<'_>,
        (program, record): (&StepProgram, Record),
        (start, len): (Value, Value),
        segment: Value,
        regions: &Regions,
    ) {
        let Some(p) = self.pair() else { return };
        let (pair, span) = (&self.outer.pairs[p], e.span);
        for (i, buf) in program.bufs.iter().enumerate() {
            // There is one state more than steps.
            let (what, more) = match (&buf.kind, record) {
                (BufKind::Kept(k), _) => (Ref::Kept(p, *k), 0),
                (BufKind::KeptState(k), Record::Widened) => (Ref::PairState(p, *k), 1),
                (BufKind::State(k), Record::Rounded) if pair.recorded().contains_key(k) => {
                    (Ref::PairState(p, *k), 1)
                }
                _ => continue,
            };
            let (step, row, rows) = match buf.lead.has_n() {
                true => (Stride::Rows(buf.width), buf.width, span.rows),
                false => (Stride::Fixed(buf.width), 0, Value::Int(1)),
            };
            let there = Where { what, beyond: Some(regions.pair), col: 0, step, row, origin: segment };
            let count = e.code.add(len, more);
            e.span = Span { from: start, count, rows: span.rows, reverse: false };
            let here = e.open_at(e.places[i], buf.dtype, 0, 0);
            let rounds = buf.dtype.is_differentiable();
            let there = match rounds {
                true => e.open_rounded(there, buf.dtype),
                false => e.open_at(Some(there), buf.dtype, 0, 0),
            };
            let (from, to) = if record == Record::Rounded { (here, there) } else { (there, here) };
            e.domain((count, rows), buf.width, |e, at, unit| {
                for plane in 0..buf.dtype.planes() {
                    let entry = e.entry(&from, plane, at);
                    let value = match (rounds, record) {
                        (true, Record::Rounded) => {
                            let value = e.code.load(here.ty, entry, unit);
                            round(&mut e.code, self.stash, value)
                        }
                        (true, _) => {
                            let value = e.code.load(Type::Half, entry, unit);
                            widen(&mut e.code, self.stash, value, here.ty)
                        }
                        (false, _) => e.code.load(here.ty, entry, unit),
                    };
                    let entry = e.entry(&to, plane, at);
                    e.code.store(entry, unit, value);
                }
            });
        }
        e.span = span;
    }
}

/// A real number rounded to 16 bits, to nearest, ties to even.
fn round(code: &mut Code, stash: Stash, value: Value) -> Value {
    let single = if value.ty() == Type::F64 { odd(code, value) } else { value };
    let op = if stash == Stash::F16 { Op::ToF16 } else { Op::ToBf16 };
    code.op(op, Type::Half, &[single])
}

/// The number that was rounded.
fn widen(code: &mut Code, stash: Stash, value: Value, ty: Type) -> Value {
    let op = if stash == Stash::F16 { Op::FromF16 } else { Op::FromBf16 };
    let single = code.op(op, Type::F32, &[value]);
    code.convert(single, ty)
}

/// The nearest single on the side of 0, its last bit 1 if it is not exact ("round to odd"): rounded to 16 bits after
/// that, a double is rounded as if at once.
fn odd(code: &mut Code, x: Value) -> Value {
    let y = code.convert(x, Type::F32);
    let back = code.convert(y, Type::F64);
    let exact = code.eq(back, x);
    let (far, near) = (code.abs(back), code.abs(x));
    let beyond = code.lt(near, far);
    let bits = code.op(Op::Bits, Type::Int, &[y]);
    let less = code.sub(bits, 1);
    let bits = code.select(beyond, less, bits);
    let bits = code.op(Op::Or, Type::Int, &[bits, Value::Int(1)]);
    let odd = code.op(Op::Bits, Type::F32, &[bits]);
    code.select(exact, y, odd)
}
