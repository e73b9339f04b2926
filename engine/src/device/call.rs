//! The calls of a plan, written out.

use super::code::{Building, Code, Op, Type, Value};
use super::emit::{At, Emit, type_of};
use super::functions::{play, recorded};
use super::sums::each_entry;
use super::{kernel, without};
use crate::error::Result;
use crate::matmul::{MatMul, RowContract};
use crate::plan::ir::{Call, Instr, Operand, Over, Spread};

/// Elements of each side of a sum of products that a thread has: their values are read once for all their products.
pub(super) const TILE: usize = 4;

/// How many things a call has to do for every step and row, for as many threads; `None`: one block does it all.
pub(super) fn units(call: &Call) -> Option<(Over, usize)> {
    let once = Over { steps: false, rows: false };
    match &call.instr {
        Instr::Pointwise { width, .. } => Some((call.over, *width)),
        Instr::RowContract { l, r, .. } => {
            let of = |o: &Operand| {
                let n = *o.dims.last().unwrap_or(&1);
                n.div_ceil(n.clamp(1, TILE))
            };
            Some((once, of(l) * of(r)))
        }
        Instr::Accumulate { out, .. } => Some((Over { steps: false, ..call.over }, out.width())),
        Instr::Pack { k, m, .. } => Some((call.over, k * m)),
        Instr::Structured { .. } => None,
        Instr::MatMul { out, .. } => Some((call.over, out.width().div_ceil(TILE))),
        Instr::Move { out, .. } | Instr::Fill { out, .. } | Instr::Cast { out, .. } => {
            Some((call.over, out.width()))
        }
    }
}

/// The term of a complex product that a plane adds or takes away: `(subtract, plane of a, plane of b)`.
pub(super) type Term = (bool, usize, usize);

/// Terms of the real and imaginary plane of `a' b'`.
pub(super) fn terms(a: &At, b: &At, conj_a: bool, conj_b: bool, out_complex: bool) -> Vec<Vec<Term>> {
    let (mut re, mut im) = (vec![(false, 0, 0)], Vec::new());
    if b.complex {
        im.push((conj_b, 0, 1));
    }
    if a.complex {
        im.push((conj_a, 1, 0));
    }
    if a.complex && b.complex {
        // −(±ai)(±bi)
        re.push((conj_a == conj_b, 1, 1));
    }
    if out_complex { vec![re, im] } else { vec![re] }
}

/// Parts of an entry that a product of `k` terms and `m` columns has.
pub(super) fn parts(a: &Operand, out: &Operand, k: usize, m: usize) -> usize {
    a.width().checked_div(k).unwrap_or(out.width() / m.max(1))
}

impl Emit<'_> {
    /// Writes a call. Threads have to meet after it.
    pub(super) fn call(&mut self, call: &Call) -> Result<()> {
        let over = call.over;
        match &call.instr {
            Instr::Pointwise { program, ins, outs, segments, width, real, names, .. } => {
                let recording = recorded(program, *real).ok_or_else(|| {
                    without(names.join("+"), "one of its functions is scalar code of the processor")
                })?;
                let ty = type_of(*real);
                let length = width / segments;
                let ins: Vec<(At, usize, &Spread)> =
                    ins.iter().map(|(o, plane, spread)| (self.open(o), *plane, spread)).collect();
                let outs: Vec<(At, usize)> = outs.iter().map(|(o, plane)| (self.open(o), *plane)).collect();
                let counts = self.counts(over);
                self.domain(counts, *width, |s, at, unit| {
                    let (segment, element) = match segments {
                        1 => (Value::Int(0), unit),
                        _ => (s.code.div(unit, length), s.code.rem(unit, length)),
                    };
                    let mut operands = Vec::with_capacity(ins.len());
                    for (operand, plane, spread) in &ins {
                        let index = match spread {
                            Spread::Own => unit,
                            Spread::One => Value::Int(0),
                            Spread::Part { elements, axes } => {
                                let mut index = if *elements { element } else { Value::Int(0) };
                                for axis in axes {
                                    let along = s.code.div(segment, axis.every);
                                    let along = s.code.rem(along, axis.count);
                                    let skip = s.code.mul(along, axis.step);
                                    index = s.code.add(index, skip);
                                }
                                index
                            }
                        };
                        let entry = s.entry(operand, *plane, at);
                        operands.push(s.code.load(ty, entry, index));
                    }
                    let results = play(&mut s.code, &recording, ty, |_, slot| operands[usize::from(slot)]);
                    for (slot, value) in results {
                        let (out, plane) = &outs[usize::from(slot)];
                        let entry = s.entry(out, *plane, at);
                        s.code.store(entry, unit, value);
                    }
                });
            }
            Instr::MatMul { a, packed, out, flags, k, m } => {
                self.matmul(over, a, packed, out, *flags, *k, *m)
            }
            Instr::Pack { b, out, transpose, k, m } => {
                let (from, to) = (self.open(b), self.open(out));
                let counts = self.counts(over);
                self.domain(counts, k * m, |s, at, unit| {
                    let (row, column) = (s.code.div(unit, *m), s.code.rem(unit, *m));
                    let index = if *transpose {
                        let start = s.code.mul(column, *k);
                        s.code.add(start, row)
                    } else {
                        unit
                    };
                    s.copy_element(&from, &to, at, index, unit);
                });
            }
            Instr::RowContract { l, r, out, flags, accumulate } => {
                self.row_contract(over, l, r, out, *flags, *accumulate);
            }
            Instr::Structured { op, ins, out, reduce, accumulate, .. } => {
                kernel::structured(self, over, op, ins, out, (*reduce, *accumulate))?;
            }
            Instr::Move { input, out, map } => {
                let (from, to) = (self.open(input), self.open(out));
                let map = map.as_ref().map(|map| self.map(map));
                let counts = self.counts(over);
                self.domain(counts, out.width(), |s, at, unit| match map {
                    None => s.copy_element(&from, &to, at, unit, unit),
                    Some(map) => {
                        let index = s.code.load(Type::Int, map, unit);
                        let inside = s.code.le(0, index);
                        let index = s.code.max(index, 0);
                        for plane in 0..s.planes(&to) {
                            let entry = s.entry(&from, plane, at);
                            let value = s.code.load(from.ty, entry, index);
                            let zero = zero(from.ty);
                            let value = s.code.select(inside, value, zero);
                            let entry = s.entry(&to, plane, at);
                            s.code.store(entry, unit, value);
                        }
                    }
                });
            }
            Instr::Fill { out, re, im } => {
                let to = self.open(out);
                let counts = self.counts(over);
                self.domain(counts, out.width(), |s, at, unit| {
                    for (plane, value) in [*re, *im].into_iter().enumerate().take(s.planes(&to)) {
                        let entry = s.entry(&to, plane, at);
                        let value = match to.ty {
                            Type::Int => Value::Int(value as i32),
                            ty => Code::real(ty, value),
                        };
                        s.code.store(entry, unit, value);
                    }
                });
            }
            Instr::Cast { input, out } => {
                let (from, to) = (self.open(input), self.open(out));
                let counts = self.counts(over);
                self.domain(counts, out.width(), |s, at, unit| {
                    for plane in 0..s.planes(&to) {
                        let entry = s.entry(&from, plane, at);
                        let value = s.code.load(from.ty, entry, unit);
                        let value = s.code.convert(value, to.ty);
                        let entry = s.entry(&to, plane, at);
                        s.code.store(entry, unit, value);
                    }
                });
            }
            Instr::Accumulate { input, out } => {
                let (from, to) = (self.open(input), self.open(out));
                let (steps, rows) = self.counts(over);
                let own = Emit::has_rows(&to);
                let (outer, inner) = if own { (rows, Value::Int(1)) } else { (Value::Int(1), rows) };
                let parts = self.parts();
                let all = self.code.mul(outer, parts);
                self.domain((Value::Int(1), all), out.width(), |s, (_, e), unit| {
                    let (row, part) = (s.code.div(e, parts), s.code.rem(e, parts));
                    for plane in 0..s.planes(&to) {
                        let entry = s.sum_entry(&to, plane, (s.span.from, row), part);
                        let sum = s.sum_start(entry, to.ty, unit, true);
                        each_entry(s, (steps, inner), (part, parts), |s, i, r| {
                            let step = s.walked(i, steps);
                            let row = if own { row } else { r };
                            let entry = s.entry(&from, plane, (step, row));
                            let value = s.code.load(from.ty, entry, unit);
                            s.code.op_into(sum, Op::Add, &[sum, value]);
                        });
                        s.code.store(entry, unit, sum);
                    }
                });
            }
        }
        Ok(())
    }

    /// Step number `i` of the walk over the steps at hand.
    fn walked(&mut self, i: Value, steps: Value) -> Value {
        let i = if self.span.reverse {
            let last = self.code.sub(steps, 1);
            self.code.sub(last, i)
        } else {
            i
        };
        self.code.add(self.span.from, i)
    }

    pub(super) fn planes(&self, at: &At) -> usize {
        if at.complex { 2 } else { 1 }
    }

    /// Copies element `from` of an entry to element `to` of another one.
    pub(super) fn copy_element(&mut self, a: &At, b: &At, at: (Value, Value), from: Value, to: Value) {
        for plane in 0..self.planes(b) {
            let entry = self.entry(a, plane, at);
            let value = self.code.load(a.ty, entry, from);
            let entry = self.entry(b, plane, at);
            self.code.store(entry, to, value);
        }
    }

    /// `acc ± a b`.
    pub(super) fn term(&mut self, acc: Value, subtract: bool, a: Value, b: Value) {
        let a = if subtract { self.code.neg(a) } else { a };
        self.code.op_into(acc, Op::Fma, &[a, b, acc]);
    }

    fn matmul(
        &mut self,
        over: Over,
        a: &Operand,
        packed: &Operand,
        out: &Operand,
        flags: MatMul,
        k: usize,
        m: usize,
    ) {
        let sub = parts(a, out, k, m);
        let by_columns = self.by_columns(over, a, sub, m);
        let slice = self.slice(packed).filter(|s| by_columns || s.layout.is_rounded() && sub == 1);
        let (a, b, y) = (self.open(a), self.open(packed), self.open(out));
        let b = match slice {
            Some(slice) => self.open_at(Some(slice.place), self.bufs[packed.buf].dtype, 0, 0),
            None => b,
        };
        if self.products.rounds(a.ty) {
            let layout = slice.map(|s| s.layout);
            return self.tensor_matmul(over, (&a, &b, &y), flags, (k, m), (sub, layout));
        }
        let sliced = slice.is_some();
        self.exact_matmul(over, (&a, &b, &y), (by_columns, sliced), flags, (k, m, sub));
    }

    /// `count` of `all` indices, so far apart: each, and whether it is there where the last may not be.
    pub(super) fn side(
        &mut self,
        first: Value,
        apart: usize,
        count: usize,
        all: usize,
    ) -> Vec<(Value, Option<Value>)> {
        let mut side = Vec::new();
        for k in 0..count {
            let index = self.code.add(first, k * apart);
            side.push(if (k + 1) * apart <= all {
                (index, None)
            } else {
                (self.code.min(index, all - 1), Some(self.code.lt(index, all)))
            });
        }
        side
    }

    /// `body` where all of these hold.
    pub(super) fn where_all(
        &mut self,
        truths: impl IntoIterator<Item = Value>,
        body: impl FnOnce(&mut Self),
    ) {
        let both = truths.into_iter().reduce(|a, b| self.code.op(Op::And, Type::Truth, &[a, b]));
        match both {
            None => body(self),
            Some(all) => self.when(all, body),
        }
    }

    fn row_contract(
        &mut self,
        over: Over,
        l: &Operand,
        r: &Operand,
        out: &Operand,
        flags: RowContract,
        accumulate: bool,
    ) {
        let (i, j) = (*l.dims.last().unwrap_or(&1), *r.dims.last().unwrap_or(&1));
        let sub = l.width() / i.max(1);
        let (a, b, y) = (self.open(l), self.open(r), self.open(out));
        let terms = terms(&a, &b, flags.conj_left, flags.conj_right, y.complex);
        let per_step = Emit::moves(&y);
        let (steps, rows) = self.counts(over);
        let (outer, inner) = if per_step { (steps, Value::Int(1)) } else { (Value::Int(1), steps) };
        let size = a.ty.bytes();
        let parts = self.parts();
        // A thread has a few elements of the left and of the right side, and all their products. They lie so far apart
        // that threads beside each other read what lies beside each other.
        let (of_left, of_right) = (i.clamp(1, TILE), j.clamp(1, TILE));
        let (lefts, rights) = (i.div_ceil(of_left), j.div_ceil(of_right));
        self.domain((outer, parts), lefts * rights, |s, (own, part), unit| {
            let to: Vec<Value> =
                (0..terms.len()).map(|plane| s.sum_entry(&y, plane, (own, Value::Int(0)), part)).collect();
            let (left, right) = (s.code.div(unit, rights), s.code.rem(unit, rights));
            let left = s.side(left, lefts, of_left, i);
            let right = s.side(right, rights, of_right, j);
            let (mut indices, mut sums) = (Vec::new(), Vec::new());
            for l in &left {
                for r in &right {
                    let row = s.code.mul(l.0, j);
                    let index = s.code.add(row, r.0);
                    let goes_on = accumulate && !per_step;
                    let of_planes: Vec<Value> = (to.iter())
                        .map(|to| match [l.1, r.1] {
                            // What is not there is another thread's.
                            there @ ([Some(_), _] | [_, Some(_)]) if goes_on => {
                                let sum = s.code.variable(zero(y.ty));
                                s.where_all(there.into_iter().flatten(), |s| {
                                    let first = s.sum_start(*to, y.ty, index, true);
                                    s.code.set(sum, first);
                                });
                                sum
                            }
                            _ => s.sum_start(*to, y.ty, index, goes_on),
                        })
                        .collect();
                    indices.push((index, [l.1, r.1]));
                    sums.push(of_planes);
                }
            }
            each_entry(s, (inner, rows), (part, parts), |s, t, row| {
                let step = s.code.add(own, t);
                let start = |s: &mut Self, at: &At| -> Vec<Value> {
                    (0..s.planes(at)).map(|plane| s.entry(at, plane, (step, row))).collect()
                };
                let (x, z) = (start(s, &a), start(s, &b));
                s.each(0, sub, |s, piece| {
                    let read =
                        |s: &mut Self, from: &[Value], width: usize, side: &[(Value, Option<Value>)]| {
                            let starts: Vec<Value> =
                                from.iter().map(|start| s.code.offset(*start, piece, width * size)).collect();
                            let of = |s: &mut Self, index: Value| -> Vec<Value> {
                                starts.iter().map(|start| s.code.load(a.ty, *start, index)).collect()
                            };
                            side.iter().map(|(index, _)| of(s, *index)).collect::<Vec<_>>()
                        };
                    let (x, z) = (read(s, &x, i, &left), read(s, &z, j, &right));
                    for (n, sums) in sums.iter().enumerate() {
                        let (x, z) = (&x[n / of_right], &z[n % of_right]);
                        for (sum, terms) in sums.iter().zip(&terms) {
                            for &(subtract, pa, pb) in terms {
                                s.term(*sum, subtract, x[pa], z[pb]);
                            }
                        }
                    }
                });
            });
            for ((index, there), sums) in indices.into_iter().zip(&sums) {
                let store = |s: &mut Self| {
                    for (to, sum) in to.iter().zip(sums) {
                        s.code.store(*to, index, *sum);
                    }
                };
                s.where_all(there.into_iter().flatten(), store);
            }
        });
    }
}

/// 0 of a type.
pub(super) fn zero(ty: Type) -> Value {
    match ty {
        Type::Int | Type::Truth | Type::Half => Value::Int(0),
        Type::Address => Value::Address(0),
        Type::F32 | Type::F64 => Code::real(ty, 0.0),
    }
}
