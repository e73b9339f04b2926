//! The kernels of a scan. A block is a tile of rows, or a [team](super::team) of blocks is.

use std::sync::Arc;

use super::code::{Building, Kernel, Op, Type, Value};
use super::emit::{Emit, FIRST_TILE, Share, Span, Stride, Where};
use super::kernel::shared_bytes;
use super::record::Record;
use super::table::{Form, Ref, Word};
use super::team::{Team, loops};
use super::tensor::Products;
use crate::error::{Error, Result};
use crate::plan::ir::{Buf, BufKind, Call, Instr, Operand};
use crate::plan::outer::{Outer, Role, ScanItem};
use crate::plan::step::{External, Stage, StepProgram};
use crate::stash::Stash;

/// A kernel and the words of its table.
pub(super) type Written = (Kernel, Vec<Word>);

/// A scan of the outer program.
pub(super) struct Scan<'a> {
    pub(super) outer: &'a Outer,
    /// Number of its item.
    pub(super) at: usize,
    pub(super) item: &'a ScanItem,
    pub(super) shared_limit: usize,
    /// Of a block.
    pub(super) threads: usize,
    pub(super) products: Products,
    /// How what is recorded is held.
    pub(super) stash: Stash,
    /// Whether values with a time axis hold a part of the steps alone.
    pub(super) by_pieces: bool,
}

/// Offsets of a block's regions, in bytes.
pub(super) struct Regions {
    work: Value,
    pub(super) sums: Value,
    pub(super) pair: Value,
}

/// Where an outer buffer is, in rows of the batch.
pub(super) fn outer_place(buf: &Buf, number: usize) -> Where {
    let step = match (buf.lead.has_t(), buf.lead.has_n()) {
        (false, _) => Stride::None,
        (true, false) => Stride::Fixed(buf.width),
        (true, true) => Stride::Batch(buf.width),
    };
    let row = if buf.lead.has_n() { buf.width } else { 0 };
    Where { what: Ref::Outer(number), beyond: None, col: 0, step, row, origin: Value::Int(0) }
}

impl Scan<'_> {
    pub(super) fn pair(&self) -> Option<usize> {
        match self.item.role {
            Role::Plain => None,
            Role::Forward(p) | Role::Adjoint(p) => Some(p),
        }
    }

    /// What every kernel of a tile begins with.
    pub(super) fn tile(&self, e: &mut Emit<'_>) -> Regions {
        let (block, rank) = match self.item.team {
            1 => (e.blocks.first, None),
            team => {
                let first = e.code.op(Op::Argument(FIRST_TILE), Type::Int, &[]);
                let tile = e.code.div(e.blocks.first, team);
                (e.code.add(first, tile), Some(e.code.rem(e.blocks.first, team)))
            }
        };
        // Tiles times rows do not fit into 32 bits.
        let (tiles, batch) = (e.address(Word::Tiles(self.at)), e.address(Word::Batch));
        let block = e.code.convert(block, Type::Address);
        let start = e.code.mul(block, batch);
        let end = e.code.add(start, batch);
        let [first, end] = [start, end].map(|at| {
            let row = e.code.div(at, tiles);
            e.code.convert(row, Type::Int)
        });
        let rows = e.code.sub(end, first);
        (e.first_row, e.span.rows, e.is_tile) = (first, rows, true);
        let mut region = |word| {
            let bytes = e.address(word);
            e.code.mul(block, bytes)
        };
        let work = region(Word::Lane(self.at));
        let sums = region(Word::SumTile(self.at));
        let pair = self.pair().map_or(Value::Address(0), |p| region(Word::PairTile(p)));
        if let Some(rank) = rank {
            let counter = e.counter(self.at, work);
            e.join(self.item.team, rank, counter);
        }
        Regions { work, sums, pair }
    }

    /// Where an operand of the outer program is, from the tile's first row.
    fn outside(&self, e: &mut Emit<'_>, o: &Operand) -> Where {
        let buf = &self.outer.bufs[o.buf];
        let place = outer_place(buf, o.buf);
        let size = super::emit::type_of(buf.dtype).bytes();
        let row = e.code.convert(e.first_row, Type::Address);
        let beyond = e.code.mul(row, Value::Address((place.row * size) as u64));
        let origin = if self.by_pieces && buf.lead.has_t() { e.number(Word::Origin) } else { Value::Int(0) };
        Where { beyond: Some(beyond), col: o.col, origin, ..place }
    }

    /// A state between pieces.
    pub(super) fn current(&self, regions: &Regions, what: Ref, width: usize) -> Where {
        Where {
            what,
            beyond: Some(regions.work),
            col: 0,
            step: Stride::None,
            row: width,
            origin: Value::Int(0),
        }
    }

    fn current_of(&self, form: Form, k: usize) -> Ref {
        match form {
            Form::Run | Form::Sweep => Ref::Current(self.at, k),
            Form::Advance | Form::Record => Ref::Replayed(self.at, k),
        }
    }

    /// A state in the checkpoints of a pair.
    pub(super) fn kept(regions: &Regions, p: usize, k: usize, width: usize) -> Where {
        Where {
            what: Ref::Mark(p, k),
            beyond: Some(regions.pair),
            col: 0,
            step: Stride::Rows(width),
            row: width,
            origin: Value::Int(0),
        }
    }

    /// Copies the tile's rows of a slot to those of another one.
    pub(super) fn copy(e: &mut Emit<'_>, buf: &Buf, (from, a): (Where, Value), (to, b): (Where, Value)) {
        let zero = Value::Int(0);
        let from = e.open_at(Some(Where { origin: zero, ..from }), buf.dtype, 0, 0);
        let to = e.open_at(Some(Where { origin: zero, ..to }), buf.dtype, 0, 0);
        e.domain((Value::Int(1), e.span.rows), buf.width, |e, (_, row), unit| {
            for plane in 0..buf.dtype.planes() {
                let entry = e.entry(&from, plane, (a, row));
                let value = e.code.load(from.ty, entry, unit);
                let entry = e.entry(&to, plane, (b, row));
                e.code.store(entry, unit, value);
            }
        });
    }

    /// Clears the sums and takes the states to start from.
    pub(super) fn enter(&self, maps: &mut Vec<Arc<[i32]>>) -> Written {
        let (mut e, _) = Emit::new(maps, &[], self.shared_limit);
        let regions = self.tile(&mut e);
        let bytes = e.address(Word::SumTile(self.at));
        let start = e.address(Word::Sums(self.at));
        let start = e.code.add(start, regions.sums);
        let words = e.code.op(Op::Shr, Type::Address, &[bytes, Value::Int(2)]);
        let words = e.code.convert(words, Type::Int);
        let Share { first, apart } = e.share;
        e.each_by(first, words, apart, |e, i| e.code.store(start, i, Value::Int(0)));
        if let Some(counter) = e.team.as_ref().map(Team::counter) {
            let one = e.code.eq(first, 0);
            e.when(one, |e| e.code.store(counter, 0, Value::Int(0)));
        }
        for (&k, &b) in &self.item.run.states {
            let buf = &self.item.run.bufs[b];
            let from = self.outside(&mut e, &self.item.inputs[&k]);
            let to = self.current(&regions, Ref::Current(self.at, k), buf.width);
            Self::copy(&mut e, buf, (from, Value::Int(0)), (to, Value::Int(0)));
        }
        e.finish("scan_enter")
    }

    /// Hands out the last states, if anybody wants them.
    pub(super) fn leave(&self, maps: &mut Vec<Arc<[i32]>>) -> Option<Written> {
        if self.item.finals.is_empty() {
            return None;
        }
        let (mut e, _) = Emit::new(maps, &[], self.shared_limit);
        let regions = self.tile(&mut e);
        for (k, out) in &self.item.finals {
            let buf = &self.item.run.bufs[self.item.run.states[k]];
            let from = self.current(&regions, Ref::Current(self.at, *k), buf.width);
            let to = self.outside(&mut e, out);
            Self::copy(&mut e, buf, (from, Value::Int(0)), (to, Value::Int(0)));
        }
        Some(e.finish("scan_leave"))
    }

    /// Stores the present states of a form in a checkpoint (its first argument), or takes them from there (the second one
    /// is 1).
    pub(super) fn mark(
        &self,
        maps: &mut Vec<Arc<[i32]>>,
        form: Form,
        program: &StepProgram,
    ) -> Option<Written> {
        let p = self.pair()?;
        let (mut e, [slot, restores]) = Emit::new(maps, &[], self.shared_limit);
        let regions = self.tile(&mut e);
        let pair = &self.outer.pairs[p];
        for (&k, &b) in program.states.iter().filter(|(k, _)| pair.states.contains_key(k)) {
            let buf = &program.bufs[b];
            let here = self.current(&regions, self.current_of(form, k), buf.width);
            let there = Self::kept(&regions, p, k, buf.width);
            let restore = e.code.eq(restores, 1);
            let store = e.code.eq(restores, 0);
            e.when(restore, |e| Self::copy(e, buf, (there, slot), (here, Value::Int(0))));
            e.when(store, |e| Self::copy(e, buf, (here, Value::Int(0)), (there, slot)));
        }
        Some(e.finish("scan_mark"))
    }

    /// Puts the tiles' sums and stacks together, in the order of the tiles, if there are any.
    pub(super) fn collect(&self, maps: &mut Vec<Arc<[i32]>>) -> Option<Written> {
        let p = &self.item.run;
        if p.sums.is_empty() && p.shared_stacks.is_empty() {
            return None;
        }
        let (mut e, _) = Emit::new(maps, &[], self.shared_limit);
        e.share_grid();
        e.span.rows = e.batch;
        let tiles = e.number(Word::Tiles(self.at));
        let apart = e.address(Word::SumTile(self.at));
        let one = Value::Int(1);
        for (i, c) in p.sums.iter().enumerate() {
            let buf = &p.bufs[c.buf];
            // Equal sums share a buffer, that of the first.
            let BufKind::Sum(first) = buf.kind else { continue };
            let out = &self.item.sums[i];
            let to = Where { col: out.col, ..outer_place(&self.outer.bufs[out.buf], out.buf) };
            let row = if c.rows { buf.width } else { 0 };
            let from = Where { step: Stride::None, row, ..self.sums_place(Ref::Sum(self.at, first)) };
            let counts = (one, if c.rows { e.batch } else { one });
            self.gather(&mut e, buf, (from, to), counts, (c.rows, c.partial), (tiles, apart));
        }
        for (i, (k, c)) in p.shared_stacks.iter().enumerate() {
            let buf = &p.bufs[c.buf];
            let out = &self.item.outs[*k];
            let to = Where { col: out.col, ..outer_place(&self.outer.bufs[out.buf], out.buf) };
            let step = Stride::Fixed(buf.width);
            let from = Where { step, row: 0, ..self.sums_place(Ref::Shared(self.at, i)) };
            let counts = (e.steps, one);
            self.gather(&mut e, buf, (from, to), counts, (false, c.partial), (tiles, apart));
        }
        Some(e.finish("scan_collect"))
    }

    fn sums_place(&self, what: Ref) -> Where {
        Where { what, beyond: None, col: 0, step: Stride::None, row: 0, origin: Value::Int(0) }
    }

    /// Adds what the tiles have for each entry, or takes it from the one tile that has the row.
    fn gather(
        &self,
        e: &mut Emit<'_>,
        buf: &Buf,
        (from, to): (Where, Where),
        counts: (Value, Value),
        (by_rows, partial): (bool, bool),
        (tiles, apart): (Value, Value),
    ) {
        let from = e.open_at(Some(from), buf.dtype, 0, 0);
        let to = e.open_at(Some(to), buf.dtype, 0, 0);
        e.domain(counts, buf.width, |e, (step, row), unit| {
            for plane in 0..buf.dtype.planes() {
                let of_tile = |e: &mut Emit<'_>, tile: Value, row: Value| {
                    let entry = e.entry(&from, plane, (step, row));
                    let tile = e.code.convert(tile, Type::Address);
                    let skip = e.code.mul(tile, apart);
                    let entry = e.code.add(entry, skip);
                    e.code.load(from.ty, entry, unit)
                };
                let value = if by_rows {
                    // The last tile that begins at or before the row.
                    let [next, tiles, batch] = [e.code.add(row, 1), tiles, e.batch]
                        .map(|number| e.code.convert(number, Type::Address));
                    let most = e.code.mul(next, tiles);
                    let most = e.code.sub(most, Value::Address(1));
                    let tile = e.code.div(most, batch);
                    let start = e.code.mul(tile, batch);
                    let start = e.code.div(start, tiles);
                    let start = e.code.convert(start, Type::Int);
                    let row = e.code.sub(row, start);
                    let tile = e.code.convert(tile, Type::Int);
                    of_tile(e, tile, row)
                } else {
                    let first = of_tile(e, Value::Int(0), Value::Int(0));
                    let sum = e.code.variable(first);
                    if partial {
                        e.each(1, tiles, |e, tile| {
                            let value = of_tile(e, tile, Value::Int(0));
                            e.code.op_into(sum, Op::Add, &[sum, value]);
                        });
                    }
                    sum
                };
                let entry = e.entry(&to, plane, (step, row));
                e.code.store(entry, unit, value);
            }
        });
    }

    fn input(&self, form: Form, external: &External) -> Operand {
        let replay = self.item.replay.as_ref().filter(|_| matches!(form, Form::Advance | Form::Record));
        match (external, replay) {
            (External::Input(k), None) => self.item.inputs[k].clone(),
            (External::Input(k), Some(r)) => r.inputs[k].clone(),
            (External::Packed { input, transpose, .. }, None) => {
                self.item.packs[&(*input, *transpose)].clone()
            }
            (External::Packed { input, transpose, .. }, Some(r)) => r.packs[&(*input, *transpose)].clone(),
            (External::Out(k), _) => self.item.outs[*k].clone(),
        }
    }

    /// Runs steps from the first argument to before the second from the present states to new ones.
    pub(super) fn form(
        &self,
        maps: &mut Vec<Arc<[i32]>>,
        form: Form,
        program: &StepProgram,
        recording: bool,
    ) -> Result<Written> {
        let (mut e, [a, b]) = Emit::new(maps, &program.bufs, self.shared_limit);
        e.products = self.products;
        e.most_rows = self.item.block_rows.filter(|_| !self.item.mixes_rows);
        e.most_threads = self.threads;
        let regions = self.tile(&mut e);
        let pair = self.pair();
        let record = self.record_of(form, recording);
        let in_place = recording && record == Record::InPlace;
        let in_segment =
            |k: usize| in_place && pair.is_some_and(|p| self.outer.pairs[p].recorded().contains_key(&k));
        let chunk_start = e.code.variable(a);
        for i in 0..program.bufs.len() {
            let place = self.place(&mut e, (form, program), i, &regions, (a, chunk_start), &in_segment)?;
            e.places[i] = place;
        }
        self.on_chip(&mut e, program);
        let reverse = program.reverse;
        let ends = |len: Value| if reverse { (len, Value::Int(0)) } else { (Value::Int(0), len) };
        let states: Vec<(&Buf, Where, Where, bool)> = (program.states.iter())
            .filter_map(|(&k, &b)| {
                let buf = &program.bufs[b];
                let current = self.current(&regions, self.current_of(form, k), buf.width);
                Some((buf, current, e.places[b]?, in_segment(k)))
            })
            .collect();
        let all = e.code.sub(b, a);
        let (enter, leave) = ends(all);
        for (buf, current, ring, _) in states.iter().filter(|s| s.3) {
            Self::copy(&mut e, buf, (*current, Value::Int(0)), (*ring, enter));
        }
        // Chunks begin at multiples of their length.
        let chunk = e.number(Word::Chunk(self.at));
        let first = e.code.div(a, chunk);
        let last = e.code.sub(b, 1);
        let last = e.code.div(last, chunk);
        let count = e.code.sub(last, first);
        let count = e.code.add(count, 1);
        let some = e.code.lt(a, b);
        let count = e.code.select(some, count, 0);
        let mut failed = Ok(());
        e.each(0, count, |e, i| {
            let number = if reverse { e.code.sub(last, i) } else { e.code.add(first, i) };
            let start = e.code.mul(number, chunk);
            let end = e.code.add(start, chunk);
            let (start, end) = (e.code.max(start, a), e.code.min(end, b));
            let len = e.code.sub(end, start);
            e.code.set(chunk_start, start);
            let (enter, leave) = ends(len);
            let ring = || states.iter().filter(|s| !s.3);
            for (buf, current, ring, _) in ring() {
                Self::copy(e, buf, (*current, Value::Int(0)), (*ring, enter));
            }
            if record == Record::Widened {
                self.convert(e, (program, record), (start, len), a, &regions);
            }
            e.meet();
            for stage in &program.stages {
                if failed.is_ok() {
                    failed = stage_of(e, stage, program, (start, end, len));
                }
            }
            e.meet_again();
            for (buf, current, ring, _) in ring() {
                Self::copy(e, buf, (*ring, leave), (*current, Value::Int(0)));
            }
            if record == Record::Rounded {
                self.convert(e, (program, record), (start, len), a, &regions);
            }
            e.meet();
        });
        failed?;
        for (buf, current, ring, _) in states.iter().filter(|s| s.3) {
            Self::copy(&mut e, buf, (*ring, leave), (*current, Value::Int(0)));
        }
        Ok(e.finish(match form {
            Form::Run => "scan_run",
            Form::Sweep => "scan_sweep",
            Form::Advance => "scan_advance",
            Form::Record => "scan_record",
        }))
    }

    /// Puts into shared memory what the loops over steps use again and again, as far as it fits: first the values that never
    /// leave their loop, then what all steps read, as matrices, which is copied there once. What operations in phases need
    /// lies before it. A block of a team has its columns of the matrices instead, and no values, since others need them.
    fn on_chip(&self, e: &mut Emit<'_>, program: &StepProgram) {
        let calls = || {
            program.stages.iter().flat_map(|s| match s {
                Stage::Batched(calls) | Stage::Loop(calls) => calls,
            })
        };
        e.deal(program);
        let mut end = calls().map(|call| shared_bytes(&program.bufs, call)).max().unwrap_or(0);
        let take = |e: &mut Emit<'_>, end: &mut usize, buf: &Buf, rows: usize| {
            let (start, plane) = (end.next_multiple_of(16), rows * buf.width);
            let bytes = plane * buf.dtype.size();
            if bytes == 0 || start + bytes > self.shared_limit {
                return None;
            }
            *end = start + bytes;
            e.shared_bytes = e.shared_bytes.max(*end);
            let row = if buf.lead.has_n() { buf.width } else { 0 };
            let (step, origin) = (Stride::None, Value::Int(0));
            Some(Where { what: Ref::OnChip(start, plane), beyond: None, col: 0, step, row, origin })
        };
        // A tile of a scan that mixes rows has all of them.
        for (i, buf) in program.bufs.iter().enumerate() {
            let inside = buf.kind == BufKind::Temp && program.lives[i].is_some() && !buf.lead.has_t();
            if inside && e.team.is_none() && !(self.item.mixes_rows && buf.lead.has_n()) {
                let rows = if buf.lead.has_n() { super::ROWS } else { 1 };
                e.places[i] = take(e, &mut end, buf, rows).or(e.places[i]);
            }
        }
        end = e.take_slices(program, end);
        e.shared_bytes = e.shared_bytes.max(end);
        let mut copied = Vec::new();
        for operand in
            loops(program).flat_map(|call| call.instr.reads().into_iter().cloned().collect::<Vec<_>>())
        {
            let buf = &program.bufs[operand.buf];
            let shared = matches!(buf.kind, BufKind::External(_)) && !buf.lead.has_t() && !buf.lead.has_n();
            if !shared || copied.contains(&operand.buf) || e.is_sliced(operand.buf) {
                continue;
            }
            copied.push(operand.buf);
            let (from, Some(to)) = (e.places[operand.buf], take(e, &mut end, buf, 1)) else { continue };
            e.places[operand.buf] = Some(to);
            let from = e.open_at(from, buf.dtype, 0, 0);
            let to = e.open_at(Some(to), buf.dtype, 0, 0);
            let Share { first, apart } = e.threads;
            e.each_by(first, buf.width, apart, |e, i| {
                let none = (Value::Int(0), Value::Int(0));
                e.copy_element(&from, &to, none, i, i);
            });
        }
        let end = e.take_panel(program, end);
        e.shared_bytes = e.shared_bytes.max(end);
        e.code.barrier();
    }

    /// Where a buffer of a step is.
    fn place(
        &self,
        e: &mut Emit<'_>,
        (form, program): (Form, &StepProgram),
        i: usize,
        regions: &Regions,
        (segment, chunk): (Value, Value),
        in_segment: &dyn Fn(usize) -> bool,
    ) -> Result<Option<Where>> {
        let buf = &program.bufs[i];
        let pair = self.pair().unwrap_or(0);
        let stride = |t: bool, n: bool| match (t, n) {
            (false, _) => Stride::None,
            (true, false) => Stride::Fixed(buf.width),
            (true, true) => Stride::Rows(buf.width),
        };
        let at = |what, beyond, t: bool, n: bool, origin| {
            let row = if n { buf.width } else { 0 };
            Some(Where { what, beyond: Some(beyond), col: 0, step: stride(t, n), row, origin })
        };
        let (t, n) = (buf.lead.has_t(), buf.lead.has_n());
        let zero = Value::Int(0);
        Ok(match buf.kind {
            BufKind::Temp if program.lives[i].is_none() => None,
            BufKind::Temp => at(Ref::Own(self.at, form, i), regions.work, t, n, chunk),
            BufKind::State(k) if in_segment(k) => {
                at(Ref::PairState(pair, k), regions.pair, true, true, segment)
            }
            BufKind::State(_) => at(Ref::Own(self.at, form, i), regions.work, true, true, chunk),
            BufKind::KeptState(_) | BufKind::Kept(_) if self.stash.rounds() => {
                at(Ref::Own(self.at, form, i), regions.work, t, n, chunk)
            }
            BufKind::KeptState(k) => at(Ref::PairState(pair, k), regions.pair, true, true, segment),
            BufKind::Kept(k) => {
                let rows = self.outer.pairs[pair].kept[k].2;
                at(Ref::Kept(pair, k), regions.pair, true, rows, segment)
            }
            BufKind::External(x) => {
                let o = self.input(form, &program.externals[x]);
                Some(self.outside(e, &o))
            }
            BufKind::Sum(s) => at(Ref::Sum(self.at, s), regions.sums, false, n, zero),
            BufKind::SharedStack(s) => at(Ref::Shared(self.at, s), regions.sums, true, false, zero),
            BufKind::Bound(_) | BufKind::Constant(_) => {
                return Err(Error::argument("plan", "bug: a step with a value of the outer program"));
            }
        })
    }
}

/// A stage over the steps of a chunk.
fn stage_of(
    e: &mut Emit<'_>,
    stage: &Stage,
    program: &StepProgram,
    (start, end, len): (Value, Value, Value),
) -> Result<()> {
    let (rows, reverse) = (e.span.rows, program.reverse);
    let last_of = |e: &mut Emit<'_>| if reverse { start } else { e.code.sub(end, 1) };
    match stage {
        Stage::Batched(calls) => {
            e.many_rows = true;
            for call in calls {
                e.span = if overwrites(call, e.bufs) {
                    let from = last_of(e);
                    Span { from, count: Value::Int(1), rows, reverse }
                } else {
                    Span { from: start, count: len, rows, reverse }
                };
                e.call_in_order(call, program)?;
            }
        }
        Stage::Loop(calls) => {
            e.many_rows = false;
            e.meet_again();
            let mut failed = Ok(());
            e.each(0, len, |e, i| {
                let from = if reverse {
                    let last = e.code.sub(end, 1);
                    e.code.sub(last, i)
                } else {
                    e.code.add(start, i)
                };
                e.span = Span { from, count: Value::Int(1), rows, reverse };
                for call in calls {
                    if failed.is_ok() {
                        failed = e.call_in_order(call, program);
                    }
                }
                e.meet_again();
            });
            failed?;
        }
    }
    Ok(())
}

/// Whether what a call writes at one step is overwritten at the next: only the last one counts.
fn overwrites(call: &Call, bufs: &[Buf]) -> bool {
    let sums = match &call.instr {
        Instr::RowContract { .. } | Instr::Accumulate { .. } => true,
        Instr::Structured { reduce, .. } => *reduce,
        _ => false,
    };
    call.over.steps && !sums && call.instr.writes().iter().all(|o| !bufs[o.buf].lead.has_t())
}
