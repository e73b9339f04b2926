//! Walks the domain in blocks and interprets the steps over each.

use smallvec::SmallVec;

use super::compile::{Op, Place};
use super::ops::{self, Arg, Dst, Size};
use super::{BLOCK, Compiled, In, Out, SPLAT};
use crate::cpu::real::{Kernel, Real};
use crate::cpu::simd::Vector;

/// Arguments of [`Compiled::run`], checked there.
pub struct RunArgs<'a, R> {
    pub(super) program: &'a Compiled,
    pub(super) rows: usize,
    pub(super) width: usize,
    pub(super) ins: &'a [In<R>],
    pub(super) outs: &'a [Out<R>],
    pub(super) scratch: &'a mut [R],
}

/// How an operand is brought to a block.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    /// Read where it lies.
    Direct,
    /// One value for all: spread over a vector once.
    Scalar,
    /// One value a row: spread over a vector a row, for each block.
    PerRow,
    /// Copied to a buffer without gaps between rows, for each block.
    Gather,
    /// The same for all rows: copied once, as often as a block has rows.
    GatherOnce,
}

struct Operand<R> {
    source: In<R>,
    mode: Mode,
    buffer: *mut R,
}

impl<R: Real> Kernel<R> for RunArgs<'_, R> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector<Scalar = R>>(self) {
        // SAFETY: the contract of `Compiled::run`, which checked the length of the scratch.
        unsafe { run::<V>(self) }
    }
}

/// Makes one long row of the domain where every operand and result allows it.
fn flatten<R: Copy>(args: &RunArgs<'_, R>) -> Option<SmallVec<[In<R>; 16]>> {
    let RunArgs { rows, width, .. } = *args;
    if rows == 1 || args.outs.iter().any(|o| o.row_stride != width) {
        return None;
    }
    args.ins
        .iter()
        .map(|i| {
            let contiguous = i.row_stride == width && (i.col_stride == 1 || width == 1);
            let scalar = i.row_stride == 0 && (i.col_stride == 0 || width == 1);
            (contiguous || scalar).then_some(In { col_stride: usize::from(contiguous), ..*i })
        })
        .collect()
}

#[inline(always)]
unsafe fn run<V: Vector>(args: RunArgs<'_, V::Scalar>) {
    let flat = flatten(&args);
    let RunArgs { program, mut rows, mut width, ins, outs, scratch } = args;
    let ins = match &flat {
        Some(flat) => {
            width *= rows;
            rows = 1;
            &flat[..]
        }
        None => ins,
    };
    // Rows too short to fill vectors are packed into blocks without gaps.
    let gather = rows > 1 && width < 4 * V::LANES && width % V::LANES != 0;
    let block_width = width.min(BLOCK);
    let block_rows = rows.min(BLOCK / block_width);

    // Scratch: slots, one buffer an operand, constants; from a cache line on.
    let line = scratch.as_ptr().align_offset(64).min(SPLAT);
    let slots = scratch[line..].as_mut_ptr();
    // SAFETY: `scratch_len` counts all of these.
    let (buffers, constants) = unsafe {
        let buffers = slots.add(program.slots * BLOCK);
        (buffers, buffers.add(program.loads * BLOCK))
    };
    for (i, &value) in program.constants.iter().enumerate() {
        // SAFETY: room for `SPLAT` elements a constant.
        unsafe { fill(constants.add(i * SPLAT), SPLAT, V::Scalar::from_f64(value)) };
    }
    let mut operands: SmallVec<[Operand<V::Scalar>; 16]> = SmallVec::new();
    for (i, &source) in ins.iter().enumerate() {
        let one_row = rows == 1 || source.row_stride == 0;
        let mode = match (one_row, source.col_stride) {
            (true, 0) => Mode::Scalar,
            (true, _) if gather => Mode::GatherOnce,
            (false, 1) if gather && source.row_stride == width => Mode::Direct,
            (false, _) if gather => Mode::Gather,
            (false, 0) => Mode::PerRow,
            _ => Mode::Direct,
        };
        // SAFETY: one buffer of `BLOCK` elements an operand; the first element, or the first row as often as
        // a block has rows, can be read, by the caller's word, and fits.
        unsafe {
            let buffer = buffers.add(i * BLOCK);
            match mode {
                Mode::Scalar => fill(buffer, SPLAT, *source.ptr),
                Mode::GatherOnce => gather_rows(buffer, source, block_rows, width),
                _ => {}
            }
            operands.push(Operand { source, mode, buffer });
        }
    }

    // Which slots are results.
    let mut redirect: SmallVec<[Option<Out<V::Scalar>>; 32]> = SmallVec::from_elem(None, program.slots);
    for d in &program.direct {
        let out = outs[usize::from(d.out)];
        let overwrites = |(i, read): (&In<V::Scalar>, &usize)| i.ptr == out.ptr && *read > d.step;
        let gaps = gather && out.row_stride != width;
        if !gaps && !ins.iter().zip(&program.last_read).any(overwrites) {
            redirect[usize::from(d.slot)] = Some(out);
        }
    }

    let mut row = 0;
    while row < rows {
        let n_rows = block_rows.min(rows - row);
        let mut col = 0;
        while col < width {
            let size = Size { rows: n_rows, width: block_width.min(width - col) };
            // SAFETY: the block lies in the domain; the rest is the caller's word.
            unsafe {
                block::<V>(program, &operands, outs, &redirect, slots, constants, (row, col), size, gather)
            };
            col += block_width;
        }
        row += n_rows;
    }
}

/// Interprets all steps over the block that starts at row and column `at`.
#[inline(always)]
unsafe fn block<V: Vector>(
    program: &Compiled,
    operands: &[Operand<V::Scalar>],
    outs: &[Out<V::Scalar>],
    redirect: &[Option<Out<V::Scalar>>],
    slots: *mut V::Scalar,
    constants: *const V::Scalar,
    at: (usize, usize),
    size: Size,
    gather: bool,
) {
    let (row, col) = at;
    let mut args: SmallVec<[Arg<V::Scalar>; 16]> = SmallVec::new();
    for o in operands {
        let s = o.source;
        // SAFETY: the block lies in the domain, where the caller vouches for the operands; a buffer holds
        // `BLOCK` elements, at least the block's, and with `PerRow` blocks are at least a vector wide.
        let arg = unsafe {
            let start = s.ptr.add(row * s.row_stride + col * s.col_stride);
            match o.mode {
                Mode::Direct => Arg { ptr: start, pitch: s.row_stride, step: 1 },
                Mode::Scalar => Arg { ptr: o.buffer, pitch: 0, step: 0 },
                Mode::PerRow => {
                    for r in 0..size.rows {
                        V::splat(*start.add(r * s.row_stride)).store(o.buffer.add(r * V::LANES));
                    }
                    Arg { ptr: o.buffer, pitch: V::LANES, step: 0 }
                }
                Mode::Gather => {
                    gather_rows(o.buffer, In { ptr: start, ..s }, size.rows, size.width);
                    Arg { ptr: o.buffer, pitch: size.width, step: 1 }
                }
                Mode::GatherOnce => Arg { ptr: o.buffer, pitch: size.width, step: 1 },
            }
        };
        args.push(arg);
    }
    for step in &program.steps {
        let slot = |i: u16| {
            // SAFETY: slots are as many as the scratch has room for; results cover the domain.
            unsafe {
                match redirect[usize::from(i)] {
                    Some(out) => Dst { ptr: out.ptr.add(row * out.row_stride + col), pitch: out.row_stride },
                    None => Dst { ptr: slots.add(usize::from(i) * BLOCK), pitch: size.width },
                }
            }
        };
        let arg = |place: Place| match place {
            Place::Slot(i) => {
                let Dst { ptr, pitch } = slot(i);
                Arg { ptr: ptr.cast_const(), pitch, step: 1 }
            }
            // SAFETY: constants are as many as the scratch has room for.
            Place::Constant(i) => unsafe {
                Arg { ptr: constants.add(usize::from(i) * SPLAT), pitch: 0, step: 0 }
            },
            Place::In(i) | Place::Out(i) => args[usize::from(i)],
        };
        let from = [arg(step.args[0]), arg(step.args[1]), arg(step.args[2])];
        // SAFETY: slots hold `BLOCK` elements and are in the scratch, results are the caller's to write at the
        // block, which lies in the domain; arguments are readable as above.
        unsafe {
            let dst = match step.dst {
                Place::Out(i) => {
                    let out = outs[usize::from(i)];
                    let start = out.ptr.add(row * out.row_stride + col);
                    if start.cast_const() == from[0].ptr {
                        continue; // computed there
                    }
                    if gather && out.row_stride != size.width {
                        scatter_rows(start, out.row_stride, from[0], size);
                        continue;
                    }
                    Dst { ptr: start, pitch: out.row_stride }
                }
                Place::Slot(i) => slot(i),
                Place::In(_) | Place::Constant(_) => continue,
            };
            match step.op {
                Op::Copy => ops::copy::<V>(dst, from, size),
                Op::Unary(op) => ops::unary::<V>(op, dst, from, size),
                Op::Binary(op) => ops::binary::<V>(op, dst, from, size),
                Op::Ternary(op) => ops::ternary::<V>(op, dst, from, size),
            }
        }
    }
}

#[inline(always)]
unsafe fn fill<R: Copy>(p: *mut R, n: usize, value: R) {
    for i in 0..n {
        // SAFETY: the caller vouches for `n` elements.
        unsafe { p.add(i).write(value) };
    }
}

/// Copies `rows` rows of an operand one after the other.
#[inline(always)]
unsafe fn gather_rows<R: Copy>(to: *mut R, from: In<R>, rows: usize, width: usize) {
    for r in 0..rows {
        for c in 0..width {
            // SAFETY: the caller vouches for the rows and for the room.
            unsafe { to.add(r * width + c).write(*from.ptr.add(r * from.row_stride + c * from.col_stride)) };
        }
    }
}

/// Copies rows without gaps to a result with gaps.
#[inline(always)]
unsafe fn scatter_rows<R: Copy>(to: *mut R, row_stride: usize, from: Arg<R>, size: Size) {
    for r in 0..size.rows {
        for c in 0..size.width {
            // SAFETY: the caller vouches for the result and for the argument over the block.
            unsafe { to.add(r * row_stride + c).write(*from.ptr.add(r * from.pitch + c * from.step)) };
        }
    }
}
