//! What calls are written with: operands, entries, and which thread does what.

use std::sync::Arc;

use super::code::{Building, Code, Kernel, Op, Type, Value};
use super::product::Panel;
use super::slices::Slice;
use super::sums::Partial;
use super::table::{Ref, Word};
use super::team::Team;
use super::tensor::Products;
use crate::dtype::DType;
use crate::plan::ir::{Buf, Operand, Over};

/// The register type of a component of an element.
pub(super) fn type_of(dtype: DType) -> Type {
    match dtype.real() {
        DType::F64 => Type::F64,
        DType::I32 => Type::Int,
        _ => Type::F32,
    }
}

/// The distance between steps, in elements.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stride {
    /// The same at every step.
    None,
    /// So many.
    Fixed(usize),
    /// Rows of so many: of the tile, or of the whole batch.
    Rows(usize),
    #[allow(missing_docs)]
    Batch(usize),
}

/// Where a buffer of the program being written is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Where {
    pub(super) what: Ref,
    /// Bytes beyond, of this block; address arithmetic.
    pub(super) beyond: Option<Value>,
    /// Elements beyond.
    pub(super) col: usize,
    pub(super) step: Stride,
    /// Elements from row to row.
    pub(super) row: usize,
    /// Number of the step in slot 0.
    pub(super) origin: Value,
}

/// An operand whose addresses have been read.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    /// First element of each plane.
    planes: [Value; 2],
    pub(super) complex: bool,
    pub(super) ty: Type,
    /// Bytes of a component in memory: of `ty`, unless it is rounded there.
    size: usize,
    step: Stride,
    /// Elements from row to row, and before the first of a row.
    pub(super) row: usize,
    pub(super) col: usize,
    shift: usize,
    origin: Value,
}

/// The entries at hand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    /// First step and number of steps.
    pub(super) from: Value,
    pub(super) count: Value,
    pub(super) rows: Value,
    pub(super) reverse: bool,
}

/// Which things a thread takes: from the first on, so many apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub(super) first: Value,
    pub(super) apart: Value,
}

/// Writes calls.
#[derive(Debug)]
pub(super) struct Emit<'a> {
    pub(super) code: Code,
    pub(super) words: Vec<Word>,
    pub(super) maps: &'a mut Vec<Arc<[i32]>>,
    pub(super) bufs: &'a [Buf],
    /// Of each buffer; `None` where it is not used.
    pub(super) places: Vec<Option<Where>>,
    pub(super) span: Span,
    /// Of all that is to be done.
    pub(super) share: Share,
    /// Of a block's work, and blocks of the launch's.
    pub(super) threads: Share,
    pub(super) blocks: Share,
    /// Whether the block has a tile of its own, or with its team (else the blocks of the launch share a call).
    pub(super) is_tile: bool,
    /// The blocks that share the tile, if it is not the block's alone.
    pub(super) team: Option<Team>,
    /// Matrices of the loops that lie in shared memory.
    pub(super) slices: Vec<Slice>,
    /// Number of the first row in the batch.
    pub(super) first_row: Value,
    /// Rows of the batch and steps in all.
    pub(super) batch: Value,
    pub(super) steps: Value,
    table: Value,
    /// Whether there are many rows, so that a thread of a product has several columns.
    pub(super) many_rows: bool,
    /// How products in single precision are formed.
    pub(super) products: Products,
    /// Rows of a tile, at most, if it is known, and threads of a block.
    pub(super) most_rows: Option<usize>,
    pub(super) most_threads: usize,
    /// Shared memory for the products of the loops.
    pub(super) panel: Panel,
    /// The partial sums of a sum outside of scans.
    pub(super) partial: Option<Partial>,
    /// Bytes of shared memory that a block may have, and has.
    pub(super) shared_limit: usize,
    pub(super) shared_bytes: usize,
}

/// Arguments of every kernel: its table, and two numbers; where tiles have teams, also the first tile of the launch.
const ARGUMENTS: [Type; 4] = [Type::Address, Type::Int, Type::Int, Type::Int];
/// Which of them that is.
pub(super) const FIRST_TILE: u32 = 3;

impl Building for Emit<'_> {
    fn code(&mut self) -> &mut Code {
        &mut self.code
    }
}

impl<'a> Emit<'a> {
    /// Nothing but what every kernel begins with; the span is empty.
    pub(super) fn new(
        maps: &'a mut Vec<Arc<[i32]>>,
        bufs: &'a [Buf],
        shared_limit: usize,
    ) -> (Emit<'a>, [Value; 2]) {
        let mut code = Code::new();
        let table = code.op(Op::Argument(0), Type::Address, &[]);
        let args = [1, 2].map(|i| code.op(Op::Argument(i), Type::Int, &[]));
        let [thread, threads, block, blocks] =
            [Op::Thread, Op::Threads, Op::Block, Op::Blocks].map(|op| code.op(op, Type::Int, &[]));
        let threads = Share { first: thread, apart: threads };
        let zero = Value::Int(0);
        let mut emit = Emit {
            code,
            words: Vec::new(),
            maps,
            bufs,
            places: vec![None; bufs.len()],
            span: Span { from: zero, count: zero, rows: zero, reverse: false },
            share: threads,
            threads,
            blocks: Share { first: block, apart: blocks },
            is_tile: false,
            team: None,
            slices: Vec::new(),
            first_row: zero,
            batch: zero,
            steps: zero,
            table,
            many_rows: false,
            products: Products::Exact,
            most_rows: None,
            most_threads: 0,
            panel: Panel::default(),
            partial: None,
            shared_limit,
            shared_bytes: 0,
        };
        emit.batch = emit.number(Word::Batch);
        emit.steps = emit.number(Word::Steps);
        (emit, args)
    }

    /// The threads of all blocks share what is to be done.
    pub(super) fn share_grid(&mut self) {
        let (t, b) = (self.threads, self.blocks);
        let before = self.code.mul(b.first, t.apart);
        let first = self.code.add(before, t.first);
        let apart = self.code.mul(b.apart, t.apart);
        self.share = Share { first, apart };
    }

    pub(super) fn finish(self, name: &'static str) -> (Kernel, Vec<Word>) {
        let arguments = if self.team.is_some() { &ARGUMENTS[..] } else { &ARGUMENTS[..FIRST_TILE as usize] };
        let kernel = self.code.finish(name, arguments.to_vec(), self.shared_bytes);
        // There are few tiles, and their kernels hold much from step to step.
        (Kernel { beside: if self.is_tile { 1 } else { kernel.beside }, ..kernel }, self.words)
    }

    fn word(&mut self, word: Word) -> usize {
        self.words.iter().position(|w| *w == word).unwrap_or_else(|| {
            self.words.push(word);
            self.words.len() - 1
        })
    }

    /// A word as an integer.
    pub(super) fn number(&mut self, word: Word) -> Value {
        let at = self.word(word);
        // The low half of the word.
        self.code.load(Type::Int, self.table, 2 * at)
    }

    /// A word as an address.
    pub(super) fn address(&mut self, word: Word) -> Value {
        let at = self.word(word);
        self.code.load(Type::Address, self.table, at)
    }

    /// The list of indices of a rearrangement.
    pub(super) fn map(&mut self, map: &Arc<[i32]>) -> Value {
        let at = self.maps.iter().position(|m| m == map).unwrap_or_else(|| {
            self.maps.push(map.clone());
            self.maps.len() - 1
        });
        self.address(Word::Map(at))
    }

    /// Reads where an operand is.
    pub(super) fn open(&mut self, o: &Operand) -> At {
        let place = self.places[o.buf];
        self.open_at(place, self.bufs[o.buf].dtype, o.col, o.shift)
    }

    /// The same of a place.
    pub(super) fn open_at(&mut self, place: Option<Where>, dtype: DType, col: usize, shift: usize) -> At {
        self.open_as(place, (dtype, type_of(dtype).bytes()), col, shift)
    }

    /// The same of a place that has real numbers rounded to 16 bits.
    pub(super) fn open_rounded(&mut self, place: Where, dtype: DType) -> At {
        self.open_as(Some(place), (dtype, Type::Half.bytes()), 0, 0)
    }

    /// The same, with so many bytes for a component.
    fn open_as(
        &mut self,
        place: Option<Where>,
        (dtype, size): (DType, usize),
        col: usize,
        shift: usize,
    ) -> At {
        let ty = type_of(dtype);
        let nowhere = Where {
            what: Ref::Outer(0),
            beyond: None,
            col: 0,
            step: Stride::None,
            row: 0,
            origin: Value::Int(0),
        };
        debug_assert!(place.is_some(), "bug: an operand without a place");
        let place = place.unwrap_or(nowhere);
        let complex = dtype.is_complex();
        let Where { step, row, origin, .. } = place;
        let col = place.col + col;
        if let Ref::OnChip(offset, plane) = place.what {
            let base = offset + col * size;
            let planes = [base, base + if complex { plane * size } else { 0 }].map(Value::from);
            return At { planes, complex, ty, size, step, row, col, shift, origin };
        }
        let mut base = self.address(Word::Base(place.what));
        if let Some(beyond) = place.beyond {
            base = self.code.add(base, beyond);
        }
        let base = self.code.offset(base, col, size);
        let second = if complex {
            let plane = self.address(Word::Plane(place.what));
            let bytes = self.code.mul(plane, Value::Address(size as u64));
            self.code.add(base, bytes)
        } else {
            base
        };
        At { planes: [base, second], complex, ty, size, step, row, col, shift, origin }
    }

    /// The address of row 0 of an operand at a step.
    pub(super) fn at_step(&mut self, at: &At, plane: usize, step: Value) -> Value {
        let size = at.size;
        let base = at.planes[plane];
        if matches!(at.step, Stride::None) {
            return base;
        }
        let slot = self.code.add(step, at.shift);
        let slot = self.code.sub(slot, at.origin);
        let (rows, width) = match at.step {
            Stride::Rows(width) => (self.span.rows, width),
            Stride::Batch(width) => (self.batch, width),
            Stride::Fixed(width) => return self.code.offset(base, slot, width * size),
            Stride::None => return base,
        };
        let rows = self.code.convert(rows, Type::Address);
        let bytes = self.code.mul(rows, Value::Address((width * size) as u64));
        let slot = self.code.convert(slot, Type::Address);
        let skip = self.code.mul(slot, bytes);
        self.code.add(base, skip)
    }

    /// The address of an entry of an operand.
    pub(super) fn entry(&mut self, at: &At, plane: usize, (step, row): (Value, Value)) -> Value {
        let start = self.at_step(at, plane, step);
        self.code.offset(start, row, at.row * at.size)
    }

    /// Whether the operand has an entry for every step.
    pub(super) fn moves(at: &At) -> bool {
        !matches!(at.step, Stride::None)
    }

    /// Whether the operand has an entry for every row.
    pub(super) fn has_rows(at: &At) -> bool {
        at.row != 0
    }

    /// Numbers of steps and rows that a call runs over.
    pub(super) fn counts(&self, over: Over) -> (Value, Value) {
        let one = Value::Int(1);
        let steps = if over.steps { self.span.count } else { one };
        (steps, if over.rows { self.span.rows } else { one })
    }

    /// `body` for every step, row and one of `units` things that this thread is to do.
    pub(super) fn domain(
        &mut self,
        (steps, rows): (Value, Value),
        units: usize,
        body: impl FnOnce(&mut Self, (Value, Value), Value),
    ) {
        if units == 0 {
            return;
        }
        // A block of a team keeps to its columns.
        let columns = self.columns(units);
        let (count, dealt) = (columns.count(), columns.are_dealt());
        let all = self.code.mul(rows, count);
        let all = self.code.mul(all, steps);
        let Share { first, apart } = if dealt { self.threads } else { self.share };
        self.each_by(first, all, apart, |s, e| {
            let unit = s.code.rem(e, count);
            let entry = s.code.div(e, count);
            let (row, step) = match steps {
                Value::Int(1) => (entry, Value::Int(0)),
                _ => (s.code.rem(entry, rows), s.code.div(entry, rows)),
            };
            let row = if rows == Value::Int(1) { Value::Int(0) } else { row };
            let step = s.code.add(s.span.from, step);
            let (unit, there) = s.column(&columns, unit);
            s.where_all(there, |s| body(s, (step, row), unit));
        });
    }
}
