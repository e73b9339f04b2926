//! Matrices that a loop multiplies by, in the shared memory of a block: the columns that it forms, as its products take them.
//!
//! For exact products these are the elements as they are. For tensor cores they are rounded once, here, and not at every
//! step: a register of a factor is one word, a pair of terms for [`Products::Bf16`], which takes half the room.

use super::code::{Building, Code, Op, Type, Value};
use super::emit::{Emit, Share, Stride, Where, type_of};
use super::table::Ref;
use super::team::matrices;
use super::tensor::Products;
use crate::dtype::DType;
use crate::plan::ir::Operand;
use crate::plan::step::StepProgram;

/// Rows of words that an instruction of tensor cores reads.
pub(super) const WORDS: usize = 8;

/// How the columns of a matrix lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    rows: usize,
    columns: usize,
    /// Elements or words from a row to the next.
    pub(super) apart: usize,
    /// What elements are rounded for; `Exact`: they are not.
    rounded: Products,
}

impl Layout {
    /// Of `columns` columns of a matrix of `k` rows.
    pub(super) fn new(k: usize, columns: usize, dtype: DType, products: Products) -> Layout {
        if !products.rounds(type_of(dtype)) {
            return Layout { rows: k, columns, apart: columns, rounded: Products::Exact };
        }
        // The lanes of a warp read four rows of eight columns: from different banks where rows begin 8 or 24 banks apart.
        let apart = columns + (WORDS + 2 * WORDS - columns % (2 * WORDS)) % (2 * WORDS);
        Layout { rows: k.div_ceil(products.depth()) * WORDS, columns, apart, rounded: products }
    }

    /// Bytes of one with elements of such a type.
    pub(super) fn bytes(&self, dtype: DType) -> usize {
        self.rows * self.apart * dtype.size()
    }

    /// Whether elements are rounded.
    pub(super) fn is_rounded(&self) -> bool {
        self.rounded != Products::Exact
    }
}

/// A matrix in shared memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slice {
    buf: usize,
    pub(super) place: Where,
    pub(super) layout: Layout,
}

impl Emit<'_> {
    /// Where a matrix lies in shared memory, for products at one step.
    pub(super) fn slice(&self, packed: &Operand) -> Option<Slice> {
        let one_step = self.span.count == Value::Int(1) && packed.col == 0;
        self.slices.iter().find(|s| one_step && s.buf == packed.buf).copied()
    }

    /// Whether a matrix lies there.
    pub(super) fn is_sliced(&self, buf: usize) -> bool {
        self.slices.iter().any(|s| s.buf == buf)
    }

    /// Puts matrices of the loops there, as far as they fit, from `end` on: the columns of a block of a team, and what is
    /// rounded. Returns the end of what is taken.
    pub(super) fn take_slices(&mut self, program: &StepProgram, end: usize) -> usize {
        let mut end = end;
        for (k, m, number) in matrices(program) {
            let (columns, dtype) = (self.columns(m), program.bufs[number].dtype);
            let layout = Layout::new(k, columns.count(), dtype, self.products);
            if !columns.are_dealt() && (self.team.is_some() || !layout.is_rounded()) {
                continue;
            }
            let start = end.next_multiple_of(16);
            if start + layout.bytes(dtype) > self.shared_limit {
                continue;
            }
            end = start + layout.bytes(dtype);
            let what = Ref::OnChip(start, layout.rows * layout.apart);
            let (step, origin) = (Stride::None, Value::Int(0));
            let place = Where { what, beyond: None, col: 0, step, row: 0, origin };
            let from = self.open_at(self.places[number], dtype, 0, 0);
            let to = self.open_at(Some(place), dtype, 0, 0);
            let Share { first, apart } = self.threads;
            let none = (Value::Int(0), Value::Int(0));
            self.each_by(first, layout.rows * layout.columns, apart, |e, i| {
                let (row, own) = (e.code.div(i, layout.columns), e.code.rem(i, layout.columns));
                let (column, _) = e.column(&columns, own);
                let word = e.code.mul(row, layout.apart);
                let word = e.code.add(word, own);
                for plane in 0..e.planes(&to) {
                    let (from_start, to_start) = (e.entry(&from, plane, none), e.entry(&to, plane, none));
                    let term = |e: &mut Self, row: Value| {
                        let near = e.code.min(row, k.saturating_sub(1));
                        let index = e.code.mul(near, m);
                        let index = e.code.add(index, column);
                        let value = e.code.load(from.ty, from_start, index);
                        if !layout.is_rounded() {
                            return value;
                        }
                        let there = e.code.lt(row, k);
                        e.code.select(there, value, Code::real(from.ty, 0.0))
                    };
                    let value = match layout.rounded {
                        Products::Exact => term(e, row),
                        Products::Tf32 => {
                            let value = term(e, row);
                            e.code.op(Op::Tf32, Type::Int, &[value])
                        }
                        Products::Bf16 => {
                            let low = e.code.mul(row, 2);
                            let high = e.code.add(low, 1);
                            let (low, high) = (term(e, low), term(e, high));
                            e.code.op(Op::PackBf16, Type::Int, &[low, high])
                        }
                    };
                    e.code.store(to_start, word, value);
                }
            });
            self.slices.push(Slice { buf: number, place, layout });
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounded_rows_are_whole_instructions_in_banks_of_their_own() {
        let exact = Layout::new(50, 24, DType::F32, Products::Exact);
        assert_eq!((exact.rows, exact.apart, exact.bytes(DType::F32)), (50, 24, 4800));
        // Double precision stays as it is.
        assert_eq!(Layout::new(50, 24, DType::F64, Products::Bf16).bytes(DType::F64), 9600);
        for (products, columns, rows, apart) in
            [(Products::Tf32, 17, 56, 24), (Products::Bf16, 64, 32, 72), (Products::Bf16, 8, 32, 8)]
        {
            const BANKS: usize = 32;
            let layout = Layout::new(50, columns, DType::C32, products);
            assert_eq!((layout.rows, layout.apart), (rows, apart), "{products} {columns}");
            assert_eq!(layout.bytes(DType::C32), 8 * rows * apart);
            let banks = (0..32).map(|lane| (lane % 4 * apart + lane / 4) % BANKS);
            assert_eq!(banks.collect::<std::collections::BTreeSet<_>>().len(), BANKS);
        }
    }
}
