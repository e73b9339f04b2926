//! Teams: blocks that share a tile, because the matrices of its loop do not fit into the shared memory of one.
//!
//! Each block of a team has some of the columns of every matrix in its own shared memory, from the first step to the last,
//! and forms those columns of the products for all rows of the tile. What one block writes and another one reads goes
//! through the device's memory, and they [meet](Statement::Meet) in between; where every block reads what it has written
//! itself, as the gates of a cell mostly do, it goes on alone. A step of an LSTM is one meeting, one of a GRU two.
//!
//! Blocks that wait for each other have to run at once. So a launch takes as many tiles as fit on the device together, and
//! the others follow. Tiles have more rows here, as many as their team has blocks: a batch that fills a device with
//! blocks of a tile each fills it with teams too.
//!
//! Who forms an element says nothing about how. But tiles have other rows than those of one block, and sums over rows are
//! formed tile by tile: their bits are those of a device's teams.
//!
//! [`Statement::Meet`]: super::Statement::Meet

use super::call::parts;
use super::code::{Building, Op, Type, Value};
use super::emit::{Emit, Share, Stride, type_of};
use super::slices::Layout;
use super::table::{Ref, Word};
use super::tensor::Products;
use super::{Device, ROWS};
use crate::plan::ir::{Buf, BufKind, Call, Instr, Operand, Over, Spread};
use crate::plan::outer::{Item, Outer, Role, ScanItem};
use crate::plan::step::{Stage, StepProgram};

/// Most blocks of a team.
const MOST: usize = 128;

/// A tile's team, while its kernel is written.
#[derive(Debug)]
pub(super) struct Team {
    /// Blocks, a power of two.
    size: usize,
    /// Number of this block in it.
    rank: Value,
    /// Where they count themselves in.
    counter: Value,
    /// How columns are dealt out; `None`: nothing has columns that a block keeps.
    deal: Option<Deal>,
    /// What was used since the blocks last met.
    uses: Vec<Use>,
}

impl Team {
    /// Where the blocks count themselves in.
    pub(super) fn counter(&self) -> Value {
        self.counter
    }
}

/// How columns are dealt out: so many beside each other to each block, from every period of them.
#[derive(Clone, Copy, Debug)]
struct Deal {
    period: usize,
    each: usize,
    /// The first that is this block's.
    first: Value,
    /// Whether all blocks have as many.
    even: bool,
}

/// The columns of a matrix that a block has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Columns {
    all: usize,
    deal: Option<Deal>,
}

impl Columns {
    /// All of so many.
    pub(super) fn all(all: usize) -> Columns {
        Columns { all, deal: None }
    }

    /// How many.
    pub(super) fn count(&self) -> usize {
        self.deal.map_or(self.all, |d| self.all / d.period * d.each)
    }

    /// Whether other blocks have others.
    pub(super) fn are_dealt(&self) -> bool {
        self.deal.is_some()
    }
}

/// A use of a buffer by a call.
#[derive(Clone, Copy, Debug)]
struct Use {
    buf: usize,
    what: Ref,
    /// Which of the entries of its steps, if it has one for each.
    shift: Option<usize>,
    writes: bool,
    /// Whether a block uses those elements alone whose columns are its own.
    own: bool,
}

/// The matrices that the loops of a step multiply by, which are the same at every step and for every row: rows, columns,
/// and the buffer, each once.
pub(super) fn matrices(program: &StepProgram) -> Vec<(usize, usize, usize)> {
    let mut found: Vec<(usize, usize, usize)> = Vec::new();
    for call in loops(program) {
        let Instr::MatMul { a, packed, k, m, .. } = &call.instr else { continue };
        let buf = &program.bufs[packed.buf];
        let fixed = matches!(buf.kind, BufKind::External(_)) && !buf.lead.has_t() && !buf.lead.has_n();
        if fixed && a.width() == *k && *m > 0 && found.iter().all(|f| f.2 != packed.buf) {
            found.push((*k, *m, packed.buf));
        }
    }
    found
}

/// The calls of a step's loops.
pub(super) fn loops(program: &StepProgram) -> impl Iterator<Item = &Call> {
    program.stages.iter().flat_map(|s| match s {
        Stage::Batched(_) => &[][..],
        Stage::Loop(calls) => calls,
    })
}

/// Gates of a cell, at most: the columns of its matrix are as many times those of its states.
const GATES: usize = 8;

/// The number of columns that all these matrices have a multiple of, and what is done with the products element by
/// element, so that each block reads its own.
fn period(program: &StepProgram) -> Option<usize> {
    fn gcd(a: usize, b: usize) -> usize {
        if b == 0 { a } else { gcd(b, a % b) }
    }
    let columns = matrices(program).iter().map(|f| f.1).reduce(gcd)?;
    let narrower = loops(program).fold(columns, |period, call| match &call.instr {
        Instr::Pointwise { width, .. } if gcd(period, *width) * GATES >= columns => gcd(period, *width),
        _ => period,
    });
    Some(narrower)
}

/// Blocks that a step needs for its matrices, at most so many: as few as hold them, in a power of two.
fn needed(program: &StepProgram, products: Products, shared_bytes: usize, most: usize) -> usize {
    let Some(period) = period(program) else { return 1 };
    let bytes = |size: usize| -> usize {
        let of = |&(k, m, buf): &(usize, usize, usize)| {
            let dtype = program.bufs[buf].dtype;
            let columns = m / period * period.div_ceil(size);
            Layout::new(k, columns, dtype, products).bytes(dtype).next_multiple_of(16)
        };
        matrices(program).iter().map(of).sum()
    };
    // A block by itself also has the values that never leave the loop.
    let values = |size: usize| -> usize {
        let inside = |(i, buf): (usize, &Buf)| {
            let there =
                size == 1 && buf.kind == BufKind::Temp && program.lives[i].is_some() && !buf.lead.has_t();
            if there { (ROWS * buf.width * buf.dtype.size()).next_multiple_of(16) } else { 0 }
        };
        program.bufs.iter().enumerate().map(inside).sum()
    };
    // Factors that are not rounded are read from there too, and their products' sums lie there.
    let exact = matrices(program).iter().any(|m| !products.rounds(type_of(program.bufs[m.2].dtype)));
    let room = shared_bytes - if exact { super::product::reserve(shared_bytes) } else { 0 };
    let mut size = 1;
    while bytes(size) + values(size) > room && 2 * size <= most.min(period) {
        size *= 2;
    }
    size
}

/// The number of blocks of the teams of each scan, in the order of the scans, of all forms of a program. A scan has the same
/// tiles in all of them, or their sums would have other bits.
pub(crate) fn teams<'a>(forms: impl IntoIterator<Item = &'a Outer>, device: &dyn Device) -> Vec<usize> {
    let mut all: Vec<Vec<usize>> = forms.into_iter().map(|outer| of_form(outer, device)).collect();
    let mut largest = all.pop().unwrap_or_default();
    for sizes in all {
        debug_assert_eq!(sizes.len(), largest.len(), "bug: forms of a program with other scans");
        largest.iter_mut().zip(sizes).for_each(|(a, b)| *a = b.max(*a));
    }
    largest
}

/// Of one form. A scan and its adjoint have the same tiles, so they have the same teams.
fn of_form(outer: &Outer, device: &dyn Device) -> Vec<usize> {
    let most = device.together().min(MOST);
    let forms = |s: &ScanItem| -> usize {
        let replay = s.replay.iter().flat_map(|r| [&r.advance, &r.record]);
        let all = std::iter::once(&s.run).chain(&s.sweep).chain(replay);
        let of = |program| needed(program, device.products(), device.shared_bytes(), most);
        all.map(of).max().unwrap_or(1)
    };
    let scans: Vec<&ScanItem> = (outer.items.iter())
        .filter_map(|item| match item {
            Item::Scan(s) => Some(s.as_ref()),
            Item::Call(_) => None,
        })
        .collect();
    let mut sizes: Vec<usize> = scans.iter().map(|s| forms(s)).collect();
    for p in 0..outer.pairs.len() {
        let of_pair = |i: &usize| matches!(scans[*i].role, Role::Forward(q) | Role::Adjoint(q) if q == p);
        let of_pair: Vec<usize> = (0..sizes.len()).filter(of_pair).collect();
        let largest = of_pair.iter().map(|i| sizes[*i]).max().unwrap_or(1);
        of_pair.into_iter().for_each(|i| sizes[i] = largest);
    }
    sizes
}

/// Rows of a tile that has such a team.
pub(crate) fn rows_of(team: usize) -> usize {
    team.max(ROWS)
}

impl Emit<'_> {
    /// The tile is shared by a team of so many blocks, of which this one is number `rank`.
    pub(super) fn join(&mut self, size: usize, rank: Value, counter: Value) {
        let before = self.code.mul(rank, self.threads.apart);
        let first = self.code.add(before, self.threads.first);
        let apart = self.code.mul(self.threads.apart, size);
        self.share = Share { first, apart };
        let (deal, uses) = (None, Vec::new());
        self.team = Some(Team { size, rank, counter, deal, uses });
    }

    /// Deals out the columns of a step's matrices.
    pub(super) fn deal(&mut self, program: &StepProgram) {
        let (Some(team), Some(period)) = (&mut self.team, period(program)) else { return };
        let each = period.div_ceil(team.size);
        let first = self.code.mul(team.rank, each);
        team.deal = Some(Deal { period, each, first, even: period % team.size == 0 });
    }

    /// The columns of `all` that this block has: all of them, where they are not dealt out.
    pub(super) fn columns(&self, all: usize) -> Columns {
        let deal =
            self.team.as_ref().and_then(|t| t.deal).filter(|d| all > 0 && all.is_multiple_of(d.period));
        Columns { all, deal }
    }

    /// The number of column `i` of those that this block has, and whether it is there where the last may not be; then the
    /// number is that of another one.
    pub(super) fn column(&mut self, of: &Columns, i: Value) -> (Value, Option<Value>) {
        let Some(Deal { period, each, first, even }) = of.deal else { return (i, None) };
        let (part, column) = (self.code.div(i, each), self.code.rem(i, each));
        let column = self.code.add(first, column);
        let (column, there) = if even {
            (column, None)
        } else {
            let there = self.code.lt(column, period);
            (self.code.min(column, period - 1), Some(there))
        };
        let start = self.code.mul(part, period);
        (self.code.add(start, column), there)
    }

    /// Which of the columns that this block has a column is, which is one of them.
    pub(super) fn own(&mut self, of: &Columns, column: Value) -> Value {
        let Some(Deal { period, each, first, .. }) = of.deal else { return column };
        let (part, within) = (self.code.div(column, period), self.code.rem(column, period));
        let before = self.code.mul(part, each);
        let within = self.code.sub(within, first);
        self.code.add(before, within)
    }

    /// `body` by one block of the team, as if it were alone.
    pub(super) fn by_one(&mut self, body: impl FnOnce(&mut Self)) {
        let Some(team) = self.team.take() else { return body(self) };
        let share = std::mem::replace(&mut self.share, self.threads);
        let own = self.code.eq(team.rank, 0);
        self.when(own, body);
        (self.team, self.share) = (Some(team), share);
    }

    /// Which things a block of the tile takes, where a block does each by itself.
    pub(super) fn whole_things(&self) -> Share {
        match &self.team {
            Some(team) => Share { first: team.rank, apart: Value::from(team.size) },
            None => Share { first: Value::Int(0), apart: Value::Int(1) },
        }
    }

    /// Everybody who shares the tile has done what is before.
    pub(super) fn meet(&mut self) {
        match &mut self.team {
            Some(team) => {
                team.uses.clear();
                self.code.meet(team.counter, team.size as u32);
            }
            None => self.code.barrier(),
        }
    }

    /// The same for a team, where its blocks have done anything since the last time; a block by itself meets after every
    /// call.
    pub(super) fn meet_again(&mut self) {
        if self.team.as_ref().is_some_and(|team| !team.uses.is_empty()) {
            self.meet();
        }
    }

    /// Writes a call of a step, after what it needs of the ones before.
    pub(super) fn call_in_order(&mut self, call: &Call, program: &StepProgram) -> crate::error::Result<()> {
        if self.team.is_none() {
            self.call(call)?;
            self.code.barrier();
            return Ok(());
        }
        let uses = self.uses(call);
        let one_step = self.span.count == Value::Int(1);
        let earlier = self.team.iter().flat_map(|t| &t.uses);
        let clash = earlier.into_iter().any(|a| uses.iter().any(|b| clash(a, b, program, one_step)));
        if clash {
            self.meet()
        } else {
            self.code.barrier()
        }
        if let Some(team) = &mut self.team {
            team.uses.extend(uses);
        }
        self.call(call)
    }

    fn uses(&self, call: &Call) -> Vec<Use> {
        let dealt = |width: usize| self.columns(width).deal.is_some();
        let period = self.team.as_ref().and_then(|t| t.deal).map_or(1, |d| d.period);
        let used = |o: &Operand, writes: bool, own: bool| {
            let place = self.places[o.buf];
            let what = place.map_or(Ref::Outer(usize::MAX), |place| place.what);
            let shift = place.filter(|place| !matches!(place.step, Stride::None)).map(|_| o.shift);
            Use { buf: o.buf, what, shift, writes, own: own && o.col.is_multiple_of(period) }
        };
        let mut uses = Vec::new();
        let by_columns = match &call.instr {
            Instr::Pointwise { ins, outs, width, .. } => {
                let own = dealt(*width);
                uses.extend(ins.iter().map(|(o, _, s)| used(o, false, own && matches!(s, Spread::Own))));
                uses.extend(outs.iter().map(|(o, _)| used(o, true, own)));
                return uses;
            }
            Instr::MatMul { a, packed, out, k, m, .. } => {
                let own = self.by_columns(call.over, a, parts(a, out, *k, *m), *m);
                uses.extend([used(a, false, false), used(packed, false, false), used(out, true, own)]);
                return uses;
            }
            Instr::Move { out, map: None, .. } => dealt(out.width()),
            Instr::Move { out, .. } | Instr::Fill { out, .. } => {
                let own = dealt(out.width());
                uses.extend(call.instr.reads().into_iter().map(|o| used(o, false, false)));
                uses.push(used(out, true, own));
                return uses;
            }
            Instr::Cast { out, .. } | Instr::Accumulate { out, .. } => dealt(out.width()),
            Instr::Pack { .. } | Instr::RowContract { .. } | Instr::Structured { .. } => false,
        };
        uses.extend(call.instr.reads().into_iter().map(|o| used(o, false, by_columns)));
        uses.extend(call.instr.writes().into_iter().map(|o| used(o, true, by_columns)));
        uses
    }

    /// Whether every block of the team forms its own columns of a product, of so many parts of an entry.
    pub(super) fn by_columns(&self, over: Over, a: &Operand, parts: usize, m: usize) -> bool {
        let on_tensor_cores = self.products.rounds(type_of(self.bufs[a.buf].dtype));
        let at_one_step = self.span.count == Value::Int(1) && over.rows;
        parts == 1 && self.columns(m).deal.is_some() && (on_tensor_cores || at_one_step)
    }

    /// The address of the counter of a tile's team, whose number is that of its tile.
    pub(super) fn counter(&mut self, scan: usize, work: Value) -> Value {
        let start = self.address(Word::Meeting(scan));
        self.code.op(Op::Add, Type::Address, &[start, work])
    }
}

/// Whether blocks have to meet between two uses.
fn clash(a: &Use, b: &Use, program: &StepProgram, one_step: bool) -> bool {
    if !a.writes && !b.writes {
        return false;
    }
    if a.what == b.what {
        let apart = one_step && a.buf == b.buf && a.shift != b.shift;
        return !(apart || a.own && b.own);
    }
    // What does not live at the same time may have the same place.
    let life = |u: &Use| program.lives[u.buf].filter(|_| program.bufs[u.buf].kind == BufKind::Temp);
    match (life(a), life(b)) {
        (Some(a), Some(b)) => a.1 < b.0 || b.1 < a.0,
        _ => false,
    }
}
