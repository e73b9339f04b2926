//! Products on tensor cores: the factors of a product in single precision, rounded, in one instruction of a warp.
//!
//! A warp forms 16 columns of the result for 8 of its entries (a step, a row, and a part of it). The matrix of weights is
//! the left factor, so that 8 and not 16 entries are enough to fill it: a block of a scan has few rows. Each element of
//! the result has the same terms in the same groups whatever its place, so that plans and budgets change no bit here
//! either.

use super::call::{Term, terms};
use super::code::{Building, Code, Op, Type, Value};
use super::emit::{At, Emit, Share};
use super::slices::{Layout, WORDS};
use super::team::Columns;
use crate::matmul::MatMul;
use crate::plan::ir::Over;

/// How a device forms products with matrices in single precision. It is asked for by name, because it changes results.
///
/// Sums are in single precision either way. Products in double precision, and gradients of matrices, which are sums over
/// steps and rows, are always exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Products {
    /// Terms as the processor has them, in single or double precision, added in an order that their number decides.
    #[default]
    Exact,
    /// On tensor cores, factors rounded to 10 bits of mantissa.
    Tf32,
    /// On tensor cores, factors rounded to 7 bits of mantissa.
    Bf16,
}

impl Products {
    /// All of them.
    pub const ALL: [Products; 3] = [Products::Exact, Products::Tf32, Products::Bf16];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Products::Exact => "exact",
            Products::Tf32 => "tf32",
            Products::Bf16 => "bf16",
        }
    }

    /// The one of this name.
    pub fn by_name(name: &str) -> Option<Products> {
        Products::ALL.into_iter().find(|p| p.name() == name)
    }

    /// Whether factors of this type are rounded.
    pub(super) fn rounds(self, ty: Type) -> bool {
        self != Products::Exact && ty == Type::F32
    }

    /// Terms of a sum that an instruction has.
    pub(super) const fn depth(self) -> usize {
        match self {
            Products::Exact => 1,
            Products::Tf32 => 8,
            Products::Bf16 => 16,
        }
    }
}

impl std::fmt::Display for Products {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Threads of a warp.
pub const WARP: usize = 32;
/// Columns and entries of the result that a warp forms together.
const COLUMNS: usize = 16;
const ENTRIES: usize = 8;

/// A product `a b`, of entries of `k` numbers with a matrix of `m` columns, of which the block forms its own.
struct Shape {
    k: usize,
    m: usize,
    own: Columns,
    /// How the matrix lies in shared memory, with those columns alone and rounded, if it lies there.
    layout: Option<Layout>,
}

/// A thread of a warp: number `4 group + place`.
struct Lane {
    /// Number of its columns of the matrix, and of the entry that it reads.
    group: Value,
    /// Number of the terms that it reads, and of the entries that it writes.
    place: Value,
}

/// Which of the warps that share what is to be done this one is.
struct Warps {
    /// Its number in its block, and how many the block has. Threads that do not fill a warp have a number beyond.
    own: Value,
    in_block: Value,
    /// The first thing that it does, and how far apart they are.
    first: Value,
    apart: Value,
}

impl Emit<'_> {
    /// Writes a product. `parts` are those of an entry.
    pub(super) fn tensor_matmul(
        &mut self,
        over: Over,
        (a, b, y): (&At, &At, &At),
        flags: MatMul,
        (k, m): (usize, usize),
        (parts, layout): (usize, Option<Layout>),
    ) {
        let own = if parts == 1 { self.columns(m) } else { Columns::all(m) };
        let shape = Shape { k, m, own, layout };
        let terms = terms(a, b, flags.conj_a, flags.conj_b, y.complex);
        let (steps, rows) = self.counts(over);
        // Entries of several steps go together, unless each step has a matrix of its own.
        let (outer, inner) = if Emit::moves(b) { (steps, Value::Int(1)) } else { (Value::Int(1), steps) };
        let entries = self.code.mul(inner, rows);
        let all = self.code.mul(entries, parts);
        let groups = self.code.add(all, ENTRIES - 1);
        let groups = self.code.div(groups, ENTRIES);
        let tiles = own.count().div_ceil(COLUMNS);

        let warps = self.warps(own.are_dealt());
        let lane = self.code.rem(self.threads.first, WARP);
        let lane = Lane { group: self.code.div(lane, 4), place: self.code.rem(lane, 4) };
        let count = self.code.mul(outer, groups);
        let count = self.code.mul(count, tiles);
        let whole = self.code.lt(warps.own, warps.in_block);
        self.when(whole, |s| {
            s.each_by(warps.first, count, warps.apart, |s, number| {
                let tile = s.code.rem(number, tiles);
                let rest = s.code.div(number, tiles);
                let (step, group) = (s.code.div(rest, groups), s.code.rem(rest, groups));
                let at = s.code.mul(group, ENTRIES);
                let entry = |s: &mut Self, n: Value| {
                    let (e, part) = (s.code.div(n, parts), s.code.rem(n, parts));
                    let (inner, row) = (s.code.div(e, rows), s.code.rem(e, rows));
                    let step = s.code.add(step, inner);
                    let step = s.code.add(s.span.from, step);
                    ((step, row), part)
                };
                let first = s.code.mul(tile, COLUMNS);
                let sums = s.tensor_sums((a, b), (&terms, &lane), &shape, (at, all, first), &entry);
                for (plane, sums) in sums.iter().enumerate() {
                    for (i, sum) in sums.iter().enumerate() {
                        let n = s.code.mul(lane.place, 2);
                        let n = s.code.add(n, i % 2);
                        let n = s.code.add(at, n);
                        let column = s.code.add(first, lane.group);
                        let column = s.code.add(column, if i < 2 { 0 } else { COLUMNS / 2 });
                        let there = s.code.lt(n, all);
                        let inside = s.code.lt(column, own.count());
                        let (column, sure) = s.column(&own, column);
                        s.where_all([there, inside].into_iter().chain(sure), |s| {
                            let (at, part) = entry(s, n);
                            let start = s.code.mul(part, m);
                            let unit = s.code.add(start, column);
                            let address = s.entry(y, plane, at);
                            s.code.store(address, unit, *sum);
                        });
                    }
                }
            });
        });
    }

    /// `body` with warps instead of threads sharing what is to be done; threads that do not fill a warp do nothing.
    pub(super) fn by_warps(&mut self, body: impl FnOnce(&mut Self)) {
        let warps = self.warps(false);
        let whole = self.code.lt(warps.own, warps.in_block);
        let share = std::mem::replace(&mut self.share, Share { first: warps.first, apart: warps.apart });
        // No warp keeps to columns.
        let team = self.team.take();
        self.when(whole, body);
        (self.team, self.share) = (team, share);
    }

    /// `dealt`: each block of a team has columns of its own.
    fn warps(&mut self, dealt: bool) -> Warps {
        let in_block = self.code.div(self.threads.apart, WARP);
        let own = self.code.div(self.threads.first, WARP);
        // A tile is its block's alone or shared by a team; what is outside of scans is shared by all blocks.
        let blocks = match self.is_tile {
            true if dealt => Share { first: Value::Int(0), apart: Value::Int(1) },
            true => self.whole_things(),
            false => self.blocks,
        };
        let before = self.code.mul(blocks.first, in_block);
        let (first, apart) = (self.code.add(before, own), self.code.mul(blocks.apart, in_block));
        Warps { own, in_block, first, apart }
    }

    /// The four sums of each plane that a lane has: columns `group` and 8 further on, of entries `2 place` and the next.
    fn tensor_sums(
        &mut self,
        (a, b): (&At, &At),
        (terms, lane): (&[Vec<Term>], &Lane),
        shape: &Shape,
        (at, all, first): (Value, Value, Value),
        entry: &impl Fn(&mut Self, Value) -> ((Value, Value), Value),
    ) -> Vec<[Value; 4]> {
        let size = a.ty.bytes();
        // What is beyond the last is read at the last, and not written.
        let n = self.code.add(at, lane.group);
        let last = self.code.sub(all, 1);
        let n = self.code.min(n, last);
        let (own, part) = entry(self, n);
        let entries: Vec<Value> = (0..self.planes(a))
            .map(|plane| {
                let start = self.entry(a, plane, own);
                self.code.offset(start, part, shape.k * size)
            })
            .collect();
        let columns = [0, COLUMNS / 2].map(|skip| {
            let column = self.code.add(first, lane.group);
            let column = self.code.add(column, skip);
            let column = self.code.min(column, shape.own.count().saturating_sub(1));
            if shape.layout.is_some() { column } else { self.column(&shape.own, column).0 }
        });
        let weights: Vec<[Value; 2]> = (0..self.planes(b))
            .map(|plane| {
                let start = self.entry(b, plane, (own.0, Value::Int(0)));
                columns.map(|column| self.code.offset(start, column, size))
            })
            .collect();
        let sums: Vec<[Value; 4]> = terms
            .iter()
            .map(|_| std::array::from_fn(|_| self.code.variable(Code::real(Type::F32, 0.0))))
            .collect();
        let depth = self.products.depth();
        let block = |s: &mut Self, number: Value, left: Option<usize>| {
            let from = s.code.mul(number, depth);
            let (terms_at, what) = ((from, lane.place), (shape, left));
            let word = s.code.mul(number, WORDS);
            let word = s.code.add(word, lane.place);
            let matrix: Vec<[Value; 4]> = (weights.iter())
                .map(|columns| {
                    [0, 1, 2, 3].map(|i| match shape.layout {
                        None => s.factor((columns[i % 2], shape.m, false), i / 2, terms_at, what),
                        Some(layout) => {
                            let row = s.code.add(word, i / 2 * (WORDS / 2));
                            let index = s.code.mul(row, layout.apart);
                            s.code.load(Type::Int, columns[i % 2], index)
                        }
                    })
                })
                .collect();
            let mut factors: Vec<((usize, bool), [Value; 2])> = Vec::new();
            for (sums, terms) in sums.iter().zip(terms) {
                for &(negative, plane, of_matrix) in terms {
                    let known = factors.iter().find(|(which, _)| *which == (plane, negative));
                    let factor = known.map(|(_, factor)| *factor).unwrap_or_else(|| {
                        let row = (entries[plane], 1, negative);
                        let factor = [0, 1].map(|half| s.factor(row, half, terms_at, what));
                        factors.push(((plane, negative), factor));
                        factor
                    });
                    s.code.tensor(s.products, *sums, matrix[of_matrix], factor);
                }
            }
        };
        let (whole, rest) = (shape.k / depth, shape.k % depth);
        self.each(0, whole, |s, number| block(s, number, None));
        if rest > 0 {
            block(self, Value::from(whole), Some(rest));
        }
        sums
    }

    /// Register `half` of a factor, the first or the second half of an instruction's terms: from one row of the factor,
    /// whose terms are `apart` elements from each other.
    fn factor(
        &mut self,
        (address, apart, negative): (Value, usize, bool),
        half: usize,
        (from, place): (Value, Value),
        what: (&Shape, Option<usize>),
    ) -> Value {
        let read = |s: &mut Self, term: Value| {
            let value = s.element(address, (from, term), apart, what);
            if negative { s.code.neg(value) } else { value }
        };
        match self.products {
            Products::Bf16 => {
                let first = self.code.mul(place, 2);
                let first = self.code.add(first, 8 * half);
                let second = self.code.add(first, 1);
                let (low, high) = (read(self, first), read(self, second));
                self.code.op(Op::PackBf16, Type::Int, &[low, high])
            }
            _ => {
                let term = self.code.add(place, 4 * half);
                let value = read(self, term);
                self.code.op(Op::Tf32, Type::Int, &[value])
            }
        }
    }

    /// Term `from + term` of a row of a factor; 0 beyond the last, of which there are `left`, if that is said.
    fn element(
        &mut self,
        address: Value,
        (from, term): (Value, Value),
        apart: usize,
        (shape, left): (&Shape, Option<usize>),
    ) -> Value {
        let index = self.code.add(from, term);
        let Some(left) = left else {
            let index = self.code.mul(index, apart);
            return self.code.load(Type::F32, address, index);
        };
        let there = self.code.lt(term, left);
        let index = self.code.min(index, shape.k - 1);
        let index = self.code.mul(index, apart);
        let value = self.code.load(Type::F32, address, index);
        self.code.select(there, value, Code::real(Type::F32, 0.0))
    }
}
