//! Exact products with matrices.
//!
//! A sum of `k` terms is formed in [classes]: of [`RUN`] terms beside each other, the first run goes to the first
//! class, the next one to the next, and round again. The terms of a class are added in their order, and then the classes in
//! theirs. How many classes there are depends on `k` alone, so who forms an element says nothing about its bits.
//!
//! At one step of a loop a block has few elements for its many threads. There each thread forms one class of a tile of rows
//! and columns ([`Shape`]): a panel of the left factor is copied into shared memory, where a thread reads a run of terms at
//! once, and the sums of the classes meet in shared memory too. Elsewhere there are elements enough, and a thread forms all
//! classes of its own by itself.

mod share;
mod tile;

use share::{Problem, RUN, Shape, WORD, classes};
use tile::{Starts, Tile, sums};

pub(super) use share::reserve;

use super::call::{TILE, Term, parts, terms, zero};
use super::code::{Building, Type, Value};
use super::emit::{At, Emit, type_of};
use super::team::loops;
use crate::matmul::MatMul;
use crate::plan::ir::{Instr, Operand, Over};
use crate::plan::step::StepProgram;

/// Rows of a product that a thread forms together where it forms all classes: the weights are read once for them.
const TOGETHER: usize = 4;
/// Most registers of a left factor that are on their way to the panel at once.
const COPIED: usize = 32;

/// Shared memory for panels and sums of a loop's products: its start and bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Panel {
    start: usize,
    bytes: usize,
}

impl Emit<'_> {
    /// Takes what is left of the shared memory, from `end` on, for the products of the loops. Returns the end of what is
    /// taken.
    pub(super) fn take_panel(&mut self, program: &StepProgram, end: usize) -> usize {
        let start = end.next_multiple_of(WORD);
        let bytes = self.shared_limit.saturating_sub(start);
        let wanted = loops(program).filter_map(|call| {
            let Instr::MatMul { a, packed, out, k, m, .. } = &call.instr else { return None };
            let dtype = |o: &Operand| self.bufs[o.buf].dtype;
            let ty = type_of(dtype(a));
            if parts(a, out, *k, *m) != 1 || self.products.rounds(ty) {
                return None;
            }
            let planes = [dtype(a), dtype(packed), dtype(out)].map(|d| d.planes());
            let problem = self.problem(*k, *m, planes, ty, bytes)?;
            let shape = Shape::of(&problem)?;
            Some(shape.panel_bytes(&problem).max(shape.sum_bytes(&problem)))
        });
        let bytes = wanted.max().unwrap_or(0);
        self.panel = Panel { start, bytes };
        if bytes > 0 { start + bytes } else { end }
    }

    /// A product with `m` columns at one step, with so much shared memory.
    fn problem(&self, k: usize, m: usize, planes: [usize; 3], ty: Type, bytes: usize) -> Option<Problem> {
        let (rows, threads) = (self.most_rows?, self.most_threads);
        let columns = self.columns(m).count();
        Some(Problem { rows, columns, k, planes, size: ty.bytes(), threads, bytes })
    }

    /// `y = a b`: of each block of a team its own columns where that is said, which lie in shared memory where `b` is sliced.
    pub(super) fn exact_matmul(
        &mut self,
        over: Over,
        (a, b, y): (&At, &At, &At),
        (by_columns, sliced): (bool, bool),
        flags: MatMul,
        (k, m, sub): (usize, usize, usize),
    ) {
        let planes = [a, b, y].map(|at| self.planes(at));
        let at_one_step = self.span.count == Value::Int(1) && over.rows && sub == 1;
        let problem = self.problem(k, m, planes, a.ty, self.panel.bytes).filter(|_| at_one_step);
        let terms = terms(a, b, flags.conj_a, flags.conj_b, y.complex);
        match problem.and_then(|p| Some((p, Shape::of(&p)?))) {
            Some((problem, shape)) => self.shared_matmul((a, b, y), sliced, &terms, m, (&problem, &shape)),
            None => self.own_matmul(over, (a, b, y), (by_columns, sliced), &terms, (k, m, sub)),
        }
    }

    /// A product of which each thread forms elements with all their classes.
    fn own_matmul(
        &mut self,
        over: Over,
        (a, b, y): (&At, &At, &At),
        (by_columns, sliced): (bool, bool),
        terms: &[Vec<Term>],
        (k, m, sub): (usize, usize, usize),
    ) {
        let (steps, rows) = self.counts(over);
        let together = if over.rows && sub == 1 { TOGETHER } else { 1 };
        let groups = self.code.add(rows, together - 1);
        let groups = self.code.div(groups, together);
        let size = a.ty.bytes();
        // Several columns read the same rows; so far apart that threads beside each other have columns beside each other.
        let words = if classes(k) > 1 { terms.len() * size / 4 } else { 1 };
        let several = self.many_rows && !by_columns;
        let each = if several { m.clamp(1, (TILE / words).max(1)) } else { 1 };
        let apart = m.div_ceil(each);
        let dealt = self.columns(m);
        self.domain((steps, groups), sub * apart, |s, (step, group), unit| {
            let (part, first_column) = (s.code.div(unit, apart), s.code.rem(unit, apart));
            let columns = s.side(first_column, apart, each, m);
            let first = s.code.mul(group, together);
            let rows_of: Vec<Value> = (0..together).map(|i| s.code.add(first, i)).collect();
            let last = s.code.sub(rows, 1);
            let mut starts = Vec::new();
            for (i, row) in rows_of.iter().enumerate() {
                let row = if i == 0 { *row } else { s.code.min(*row, last) };
                for plane in 0..s.planes(a) {
                    let entry = s.entry(a, plane, (step, row));
                    starts.push(s.code.offset(entry, part, k * size));
                }
            }
            let mut weights = Vec::new();
            for (column, _) in &columns {
                let column = if sliced { s.own(&dealt, *column) } else { *column };
                for plane in 0..s.planes(b) {
                    let entry = s.entry(b, plane, (step, Value::Int(0)));
                    weights.push(s.code.offset(entry, column, size));
                }
            }
            let tile = Tile {
                ty: a.ty,
                terms,
                planes: [s.planes(a), s.planes(b)],
                columns: each,
                classes: classes(k),
                matrix: if sliced { dealt.count() } else { m },
                starts: Starts::Rows(starts.iter().map(|at| s.code.variable(*at)).collect()),
                weights: weights.iter().map(|at| s.code.variable(*at)).collect(),
                sums: sums(s, a.ty, rows_of.len() * each * terms.len()),
            };
            let totals = tile.all_classes(s, k, &starts, &weights);
            let of_element = terms.len();
            for (i, (row, totals)) in rows_of.iter().zip(totals.chunks(each * of_element)).enumerate() {
                for ((column, sure), totals) in columns.iter().zip(totals.chunks(of_element)) {
                    let store = |s: &mut Self| {
                        let start = s.code.mul(part, m);
                        let unit = s.code.add(start, *column);
                        for (plane, total) in totals.iter().enumerate() {
                            let entry = s.entry(y, plane, (step, *row));
                            s.code.store(entry, unit, *total);
                        }
                    };
                    let there = (i > 0).then(|| s.code.lt(*row, rows));
                    s.where_all(there.into_iter().chain(*sure), store);
                }
            }
        });
    }

    /// A product at one step, whose classes the threads of the block share.
    fn shared_matmul(
        &mut self,
        (a, b, y): (&At, &At, &At),
        sliced: bool,
        terms: &[Vec<Term>],
        m: usize,
        (problem, shape): (&Problem, &Shape),
    ) {
        let Problem { columns: own, k, size, .. } = *problem;
        let (classes, of_element) = (classes(k), terms.len());
        let columns = self.columns(m);
        let thread = self.threads;
        let units = shape.row_groups * shape.column_groups;
        let apart = own.div_ceil(shape.columns);
        let matrix = if sliced { own } else { m };
        let (step, rows) = (self.span.from, self.span.rows);
        let class = if classes == 1 { Value::Int(0) } else { self.code.div(thread.first, units) };
        let unit = if classes == 1 { thread.first } else { self.code.rem(thread.first, units) };
        // Of the classes that there are; the other threads help to copy and to add.
        let busy = self.code.lt(thread.first, classes * units);
        let [class, unit] = [(class, classes), (unit, units)].map(|(n, all)| self.code.min(n, all - 1));
        let at_once = shape.row_groups * shape.rows;
        let at_once_all =
            problem.rows <= at_once && apart <= shape.column_groups && k.div_ceil(shape.width) == 1;
        let turns = self.code.add(rows, at_once - 1);
        let turns = self.code.div(turns, at_once);
        self.each(0, turns, |s, turn| {
            let first_row = s.code.mul(turn, at_once);
            for first_column in (0..apart).step_by(shape.column_groups) {
                // Who has a place in the panel and the sums of a turn: row group and group of columns of each unit.
                let place = |s: &mut Self, unit: Value| {
                    let (row, column) =
                        (s.code.div(unit, shape.column_groups), s.code.rem(unit, shape.column_groups));
                    (row, s.code.add(column, first_column))
                };
                let (group, column) = place(s, unit);
                let column = s.code.min(column, apart - 1);
                let mut weights = Vec::new();
                for (column, _) in s.side(column, apart, shape.columns, own) {
                    let column = if sliced { column } else { s.column(&columns, column).0 };
                    for plane in 0..s.planes(b) {
                        let entry = s.entry(b, plane, (step, Value::Int(0)));
                        let start = s.code.offset(entry, column, size);
                        let row = s.code.mul(class, RUN * matrix);
                        let start = s.code.offset(start, row, size);
                        weights.push(s.code.variable(start));
                    }
                }
                let stride = shape.width + shape.gap(size);
                let tile = Tile {
                    ty: a.ty,
                    terms,
                    planes: [s.planes(a), s.planes(b)],
                    columns: shape.columns,
                    classes,
                    matrix,
                    starts: Starts::Panel {
                        start: s.code.register(Type::Int),
                        rows: shape.rows,
                        row: shape.row_groups * stride * size,
                        plane: at_once * stride * size,
                    },
                    weights,
                    sums: sums(s, a.ty, shape.rows * shape.columns * of_element),
                };
                let through = |s: &mut Self, from: Value, width: usize| {
                    // All have read what lay there before; what is outside of the product is behind a barrier.
                    if !at_once_all {
                        s.code.barrier();
                    }
                    s.copy_panel(a, (first_row, from), (at_once, width, stride));
                    let Starts::Panel { start, .. } = tile.starts else { return };
                    let row = s.code.mul(group, stride * size);
                    let run = s.code.mul(class, RUN * size);
                    let skip = s.code.add(row, run);
                    let skip = s.code.add(skip, s.panel.start);
                    s.code.set(start, skip);
                    tile.class(s, class, width);
                };
                let (whole, rest) = (k / shape.width, k % shape.width);
                s.each(0, whole, |s, i| {
                    let from = s.code.mul(i, shape.width);
                    through(s, from, shape.width);
                });
                if rest > 0 {
                    through(s, Value::from(whole * shape.width), rest);
                }
                let store = |s: &mut Self, unit: Value, element: Value, totals: &[Value]| {
                    let (group, column) = place(s, unit);
                    let (i, j) = (s.code.div(element, shape.columns), s.code.rem(element, shape.columns));
                    let down = s.code.mul(i, shape.row_groups);
                    let row = s.code.add(group, down);
                    let row = s.code.add(row, first_row);
                    let mut there = vec![s.code.lt(row, rows)];
                    let across = s.code.mul(j, apart);
                    if apart % shape.column_groups > 0 {
                        there.push(s.code.lt(column, apart));
                    }
                    let column = s.code.add(column, across);
                    if shape.columns * apart > own {
                        there.push(s.code.lt(column, own));
                    }
                    let (column, sure) = s.column(&columns, column);
                    there.extend(sure);
                    s.where_all(there, |s| {
                        for (plane, total) in totals.iter().enumerate() {
                            let entry = s.entry(y, plane, (step, row));
                            s.code.store(entry, column, *total);
                        }
                    });
                };
                let elements = shape.rows * shape.columns;
                if classes == 1 {
                    s.when(busy, |s| {
                        for (element, sums) in tile.sums.chunks(of_element).enumerate() {
                            store(s, unit, Value::from(element), sums);
                        }
                    });
                    continue;
                }
                // The sums take the place of the panel, when all have read it.
                s.code.barrier();
                s.when(busy, |s| {
                    let first = s.code.mul(class, elements * of_element * units);
                    let first = s.code.add(first, unit);
                    for (i, sum) in tile.sums.iter().enumerate() {
                        let slot = s.code.add(first, i * units);
                        s.code.store_shared(s.panel.start, slot, *sum);
                    }
                });
                s.code.barrier();
                s.each_by(thread.first, elements * units, thread.apart, |s, e| {
                    let (element, unit) = (s.code.div(e, units), s.code.rem(e, units));
                    let first = s.code.mul(element, of_element * units);
                    let first = s.code.add(first, unit);
                    let totals: Vec<Value> = (0..of_element)
                        .map(|plane| {
                            let mut total = zero(a.ty);
                            for class in 0..classes {
                                let skip = (class * elements * of_element + plane) * units * size;
                                let sum = s.code.load_shared(a.ty, s.panel.start + skip, first);
                                total = s.code.add(total, sum);
                            }
                            total
                        })
                        .collect();
                    store(s, unit, element, &totals);
                });
            }
        });
    }

    /// Copies so many rows and terms of a left factor, from these on, into the panel.
    fn copy_panel(
        &mut self,
        a: &At,
        (first_row, from): (Value, Value),
        (count, width, stride): (usize, usize, usize),
    ) {
        let (step, size, start) = (self.span.from, a.ty.bytes(), self.panel.start);
        let last = self.code.sub(self.span.rows, 1);
        let (thread, planes) = (self.threads, self.planes(a));
        let word = WORD / size;
        // Rows begin at multiples of a word.
        let word = if a.row > 0 && [a.row, a.col, width].iter().all(|n| n % word == 0) { word } else { 1 };
        let (all, of_row) = (count * width / word, width / word);
        // Several are on their way at once.
        let most = (COPIED / (word * planes * size / 4)).max(1);
        let each = all.div_ceil(self.most_threads).clamp(1, most);
        let apart = self.code.mul(thread.apart, each);
        self.each_by(thread.first, all, apart, |s, first| {
            let mut found = Vec::new();
            for u in 0..each {
                let skip = s.code.mul(thread.apart, u);
                let i = s.code.add(first, skip);
                let there = (u > 0).then(|| s.code.lt(i, all));
                let i = if u > 0 { s.code.min(i, all - 1) } else { i };
                let (row, term) = (s.code.div(i, of_row), s.code.rem(i, of_row));
                let term = s.code.mul(term, word);
                let to = s.code.mul(row, stride);
                let to = s.code.add(to, term);
                let row = s.code.add(first_row, row);
                let row = s.code.min(row, last);
                let index = s.code.add(from, term);
                for plane in 0..planes {
                    let entry = s.entry(a, plane, (step, row));
                    let from = s.code.offset(entry, index, size);
                    let values = match word {
                        1 => vec![s.code.load(a.ty, from, 0)],
                        _ => s.code.load_run(a.ty, from, 0, word),
                    };
                    found.push((plane, to, there, values));
                }
            }
            for (plane, to, there, values) in found {
                s.where_all(there, |s| {
                    let base = start + plane * count * stride * size;
                    match &values[..] {
                        [value] => s.code.store_shared(base, to, *value),
                        values => s.code.store_shared_run(base, to, values),
                    }
                });
            }
        });
        self.code.barrier();
    }
}
