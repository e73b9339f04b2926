//! Frames: where the buffers of a program are while it runs, and slices of them.
//!
//! This is where the plan's promises become memory accesses; all `unsafe` of the executor rests on them:
//!
//! * every operand lies inside the block that [`Memory`](crate::plan::memory) gave its buffer, or inside a bound
//!   tensor of the type and shape that was checked when it was bound;
//! * blocks of buffers that are alive together do not overlap, so what a call writes overlaps nothing it reads;
//! * lanes have workspaces of their own, tiles have regions and rows of their own, and parallel parts of an outer
//!   call write rows or columns of their own.

use crate::cpu::Real;
use crate::plan::ir::Operand;
use crate::plan::memory::Slot;

/// The arena's start, shared by all threads.
#[derive(Clone, Copy)]
pub(crate) struct Arena(pub(crate) *mut u8);

// SAFETY: threads write disjoint parts of the arena, as the module says.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

/// Where a buffer is: first element of plane 0, and distances in elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loc {
    pub(crate) ptr: *mut u8,
    pub(crate) plane: usize,
    pub(crate) step: usize,
    pub(crate) row: usize,
    /// Number of the step in slot 0.
    pub(crate) origin: usize,
}

impl Default for Loc {
    fn default() -> Loc {
        Loc { ptr: std::ptr::null_mut(), plane: 0, step: 0, row: 0, origin: 0 }
    }
}

impl Loc {
    /// The place `slot` describes, from `base` bytes into the arena.
    pub(crate) fn new(arena: Arena, base: usize, slot: &Slot) -> Loc {
        // SAFETY: the plan gave the block of `slot` room inside the arena.
        let ptr = unsafe { arena.0.add(base + slot.offset) };
        Loc { ptr, plane: slot.plane, step: slot.step, row: slot.row, origin: 0 }
    }
}

impl Loc {
    /// The same place for `rows` rows a slot: they follow each other without a gap.
    pub(crate) fn tight(self, rows: usize) -> Loc {
        let gapless = self.row != 0 && self.step != 0;
        Loc { step: if gapless { rows * self.row } else { self.step }, ..self }
    }
}

/// Places of all buffers of a program.
#[derive(Clone, Default)]
pub(crate) struct Frame {
    pub(crate) locs: Vec<Loc>,
    /// Whether kept values are too many for the caches.
    pub(crate) streams: bool,
}

// SAFETY: a frame holds addresses; what may be done through them is the module's matter.
unsafe impl Send for Frame {}
// SAFETY: as above.
unsafe impl Sync for Frame {}

/// A part of an operand: address of its first element and distance between rows.
#[derive(Clone, Copy)]
pub(crate) struct View<R> {
    pub(crate) ptr: *mut R,
    pub(crate) stride: usize,
}

impl Frame {
    pub(crate) fn loc(&self, o: &Operand) -> &Loc {
        &self.locs[o.buf]
    }

    /// Plane `plane` of `o` from row `row` of step `step`, with the distance between rows of one step.
    pub(crate) fn view<R>(&self, o: &Operand, plane: usize, step: usize, row: usize) -> View<R> {
        let loc = self.loc(o);
        let slot = (step + o.shift).wrapping_sub(loc.origin);
        let slot = if loc.step == 0 { 0 } else { slot };
        let at = plane * loc.plane + slot * loc.step + row * loc.row + o.col;
        // SAFETY: in the block of the buffer, as the module says.
        let ptr = unsafe { loc.ptr.cast::<R>().add(at) };
        View { ptr, stride: loc.row }
    }
}

impl<R: Real> View<R> {
    /// The elements of `rows` rows of `width`.
    ///
    /// # Safety
    ///
    /// As the module says; nothing else writes them while the slice lives.
    pub(crate) unsafe fn slice<'a>(self, rows: usize, width: usize) -> &'a [R] {
        if rows == 0 || width == 0 {
            return &[];
        }
        // SAFETY: the caller's word.
        unsafe { std::slice::from_raw_parts(self.ptr, (rows - 1) * self.stride + width) }
    }

    /// The elements of `rows` rows of `width`, mutable.
    ///
    /// # Safety
    ///
    /// As the module says; nothing else touches them while the slice lives.
    pub(crate) unsafe fn slice_mut<'a>(self, rows: usize, width: usize) -> &'a mut [R] {
        if rows == 0 || width == 0 {
            return &mut [];
        }
        // SAFETY: the caller's word.
        unsafe { std::slice::from_raw_parts_mut(self.ptr, (rows - 1) * self.stride + width) }
    }
}
