//! Walks the domain in blocks and interprets the steps over each.
//!
//! Where a step reads and writes is found once a call; a block only adds its row and column.

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
pub(super) fn flatten<R: Copy>(args: &RunArgs<'_, R>) -> Option<SmallVec<[In<R>; 16]>> {
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

    // Where every step reads and writes, block by block.
    let spot = |place: Place| {
        let inside =
            |base: *mut V::Scalar, pitch: usize, step: usize| Spot { base, row: 0, col: 0, pitch, step };
        let result = |out: Out<V::Scalar>| Spot {
            base: out.ptr,
            row: out.row_stride,
            col: 1,
            pitch: out.row_stride,
            step: 1,
        };
        match place {
            Place::Slot(i) => match redirect[usize::from(i)] {
                Some(out) => result(out),
                // SAFETY: slots are as many as the scratch has room for.
                None => inside(unsafe { slots.add(usize::from(i) * BLOCK) }, GAPLESS, 1),
            },
            // SAFETY: constants are as many as the scratch has room for.
            Place::Constant(i) => inside(unsafe { constants.add(usize::from(i) * SPLAT) }, 0, 0),
            Place::Out(i) => result(outs[usize::from(i)]),
            Place::In(i) => {
                let o = &operands[usize::from(i)];
                match o.mode {
                    Mode::Direct => {
                        let In { ptr, row_stride, col_stride } = o.source;
                        let base = ptr.cast_mut();
                        Spot { base, row: row_stride, col: col_stride, pitch: row_stride, step: 1 }
                    }
                    Mode::Scalar => inside(o.buffer, 0, 0),
                    Mode::PerRow => inside(o.buffer, V::LANES, 0),
                    Mode::Gather | Mode::GatherOnce => inside(o.buffer, GAPLESS, 1),
                }
            }
        }
    };
    // Room for long chains, so that a loop over steps does not allocate.
    let mut lines: SmallVec<[Line<V::Scalar>; 64]> = SmallVec::new();
    for step in &program.steps {
        let [a, b, c] = step.args;
        let (dst, args) = (spot(step.dst), [spot(a), spot(b), spot(c)]);
        let (copy, gaps) = match step.dst {
            // Computed there already.
            Place::Out(_) if dst.base == args[0].base => continue,
            Place::Out(i) => (true, gather && outs[usize::from(i)].row_stride != width),
            Place::Slot(_) => (false, false),
            Place::In(_) | Place::Constant(_) => continue,
        };
        lines.push(Line { op: if copy { Op::Copy } else { step.op }, dst, args, gaps });
    }

    let mut row = 0;
    while row < rows {
        let n_rows = block_rows.min(rows - row);
        let mut col = 0;
        while col < width {
            let size = Size { rows: n_rows, width: block_width.min(width - col) };
            // SAFETY: the block lies in the domain; the rest is the caller's word.
            unsafe { block::<V>(&operands, &lines, (row, col), size) };
            col += block_width;
        }
        row += n_rows;
    }
}

/// Rows follow each other without gaps.
const GAPLESS: usize = usize::MAX;

/// Where a step reads or writes: element `(r, c)` of the block at `(row, col)` is at
/// `base + row * self.row + col * self.col + r * pitch + c * step`.
#[derive(Clone, Copy)]
struct Spot<R> {
    base: *mut R,
    row: usize,
    col: usize,
    /// Or [`GAPLESS`].
    pitch: usize,
    step: usize,
}

/// A step with its places.
#[derive(Clone, Copy)]
struct Line<R> {
    op: Op,
    dst: Spot<R>,
    args: [Spot<R>; 3],
    /// The result lies in rows with gaps, the argument in rows without.
    gaps: bool,
}

impl<R> Spot<R> {
    /// The place in a block.
    ///
    /// # Safety
    ///
    /// The block lies in the domain.
    #[inline(always)]
    unsafe fn at(&self, (row, col): (usize, usize), size: Size) -> (*mut R, usize) {
        let pitch = if self.pitch == GAPLESS { size.width } else { self.pitch };
        // SAFETY: by the caller's word the block lies in the operand, the result, or their buffer.
        (unsafe { self.base.add(row * self.row + col * self.col) }, pitch)
    }

    /// As an argument.
    ///
    /// # Safety
    ///
    /// As for [`Spot::at`].
    #[inline(always)]
    unsafe fn arg(&self, at: (usize, usize), size: Size) -> Arg<R> {
        // SAFETY: the caller's word is the same.
        let (ptr, pitch) = unsafe { self.at(at, size) };
        Arg { ptr: ptr.cast_const(), pitch, step: self.step }
    }
}

/// Interprets all steps over the block that starts at row and column `at`.
#[inline(always)]
unsafe fn block<V: Vector>(
    operands: &[Operand<V::Scalar>],
    lines: &[Line<V::Scalar>],
    at: (usize, usize),
    size: Size,
) {
    let (row, col) = at;
    for o in operands {
        let s = o.source;
        // SAFETY: the block lies in the domain, where the caller vouches for the operands; a buffer holds
        // `BLOCK` elements, at least the block's, and with `PerRow` blocks are at least a vector wide.
        unsafe {
            match o.mode {
                Mode::PerRow => {
                    let start = s.ptr.add(row * s.row_stride);
                    for r in 0..size.rows {
                        V::splat(*start.add(r * s.row_stride)).store(o.buffer.add(r * V::LANES));
                    }
                }
                Mode::Gather => {
                    let start = s.ptr.add(row * s.row_stride + col * s.col_stride);
                    gather_rows(o.buffer, In { ptr: start, ..s }, size.rows, size.width);
                }
                Mode::Direct | Mode::Scalar | Mode::GatherOnce => {}
            }
        }
    }
    for line in lines {
        // SAFETY: slots hold `BLOCK` elements and are in the scratch, results are the caller's to write at the
        // block, which lies in the domain; arguments are readable as above.
        unsafe {
            let [a, b, c] = &line.args;
            let from = [a.arg(at, size), b.arg(at, size), c.arg(at, size)];
            let (ptr, pitch) = line.dst.at(at, size);
            if line.gaps {
                scatter_rows(ptr, pitch, from[0], size);
                continue;
            }
            let dst = Dst { ptr, pitch };
            match line.op {
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
