//! Runs a [`ScalarProgram`] over a domain of rows × columns.
//!
//! The program is compiled once: constants are collected, dead instructions dropped, registers renamed to few
//! slots. Running interprets it over blocks of [`BLOCK`] elements that stay in the L1 cache: one dispatch and one
//! vector loop per instruction and block; programs that run for long become machine code of their own (`jit`).
//! Operands are read where they lie; a result is written after the last
//! instruction of a block that reads the operand it overwrites, so a result may be an operand.

mod block;
mod compile;
#[cfg(target_arch = "x86_64")]
pub(in crate::cpu) mod jit;
mod ops;
pub(crate) mod record;
#[cfg(test)]
mod tests;

use super::isa::Isa;
use super::real::Real;
use crate::expr::ScalarProgram;
use compile::{Direct, Step};

pub use block::RunArgs;

/// Elements of a block, and of a register slot.
pub const BLOCK: usize = 512;

/// Room for one splat: lanes of the widest vector.
const SPLAT: usize = 16;

/// An operand: element `(r, c)` is at `ptr + r * row_stride + c * col_stride`.
#[derive(Clone, Copy, Debug)]
pub struct In<R> {
    /// First element.
    pub ptr: *const R,
    /// Elements from one row to the next; 0 is the same for all rows.
    pub row_stride: usize,
    /// 1, or 0 for one value a row.
    pub col_stride: usize,
}

/// A result: element `(r, c)` is at `ptr + r * row_stride + c`.
#[derive(Clone, Copy, Debug)]
pub struct Out<R> {
    /// First element.
    pub ptr: *mut R,
    /// Elements from one row to the next.
    pub row_stride: usize,
    /// Nobody reads it soon: it may go past the caches. It is then neither an operand nor seen by another thread before
    /// that one has been told.
    pub stream: bool,
}

/// A [`ScalarProgram`] made ready to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Compiled {
    steps: Vec<Step>,
    direct: Vec<Direct>,
    /// By operand: the last step that reads it.
    last_read: Vec<usize>,
    constants: Vec<f64>,
    slots: usize,
    loads: usize,
    stores: usize,
    #[cfg(target_arch = "x86_64")]
    jit: jit::Cache,
}

impl Compiled {
    /// Compiles a program.
    ///
    /// Panics (`bug:`) on a program that reads a register before it is written or names a slot beyond `loads`
    /// or `stores`.
    pub fn new(program: &ScalarProgram) -> Compiled {
        compile::compile(program)
    }

    /// Number of operands.
    pub fn loads(&self) -> usize {
        self.loads
    }

    /// Number of results.
    pub fn stores(&self) -> usize {
        self.stores
    }

    /// Elements of scratch memory that [`Compiled::run`] needs.
    pub fn scratch_len(&self) -> usize {
        // The last term lets the first slot start at a cache line.
        (self.slots + self.loads) * BLOCK + self.constants.len() * SPLAT + SPLAT
    }

    /// Runs the program at every element of a domain of `rows` × `width`.
    ///
    /// Panics (`bug:`) if there are not as many operands and results as the program has, if `col_stride` is
    /// neither 0 nor 1, or if the scratch is shorter than [`Compiled::scratch_len`].
    ///
    /// # Safety
    ///
    /// Every element of every operand can be read and of every result written, for the whole call, and no
    /// other thread writes the ones or touches the others. Results do not overlap each other. A result either
    /// overlaps no operand, or is an operand: same pointer, same row stride, `col_stride` 1. The scratch
    /// overlaps nothing.
    pub unsafe fn run<R: Real>(
        &self,
        isa: Isa,
        rows: usize,
        width: usize,
        ins: &[In<R>],
        outs: &[Out<R>],
        scratch: &mut [R],
    ) {
        assert_eq!(ins.len(), self.loads, "bug: pointwise operands");
        assert_eq!(outs.len(), self.stores, "bug: pointwise results");
        assert!(ins.iter().all(|i| i.col_stride <= 1), "bug: pointwise column stride must be 0 or 1");
        assert!(
            scratch.len() >= self.scratch_len(),
            "bug: pointwise scratch of {}, needs {}",
            scratch.len(),
            self.scratch_len()
        );
        if rows == 0 || width == 0 {
            return;
        }
        #[allow(unused_mut)]
        let mut args = RunArgs { program: self, rows, width, ins, outs, scratch };
        // SAFETY: the caller's promise about operands and results; the scratch is long enough.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            if jit::run(isa, &mut args) {
                return;
            }
            R::pointwise(isa, args)
        }
    }

    /// Runs the program over slices: operands as long as the results, or of length 1.
    ///
    /// Panics (`bug:`) if lengths or counts do not fit.
    pub fn run_slices<R: Real>(&self, isa: Isa, ins: &[&[R]], outs: &mut [&mut [R]]) {
        let width = outs.first().map_or(0, |o| o.len());
        for i in ins {
            assert!(i.len() == width || i.len() == 1, "bug: operand of {} over {width} elements", i.len());
        }
        assert!(outs.iter().all(|o| o.len() == width), "bug: results differ in length");
        let ins: Vec<_> = ins
            .iter()
            .map(|i| In { ptr: i.as_ptr(), row_stride: 0, col_stride: usize::from(i.len() == width) })
            .collect();
        let outs: Vec<_> =
            outs.iter_mut().map(|o| Out { ptr: o.as_mut_ptr(), row_stride: width, stream: false }).collect();
        let mut scratch = vec![R::ZERO; self.scratch_len()];
        // SAFETY: the slices are as long as the one row, and borrowed for the call; mutable ones do not overlap.
        unsafe { self.run(isa, 1, width, &ins, &outs, &mut scratch) }
    }
}
