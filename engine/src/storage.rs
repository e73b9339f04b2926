//! Storage: bytes aligned to a cache line, counted by the memory meter.

use crate::meter;

/// One cache line; the unit of allocation, so that every buffer starts at one.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Owned, zero-initialised bytes aligned to 64. Its size is reported to [`meter`] while it lives.
#[derive(Debug)]
pub struct Storage {
    lines: Vec<Line>,
    len: usize,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Line")
    }
}

impl Storage {
    /// `len` zero bytes.
    pub fn zeroed(len: usize) -> Storage {
        let lines = vec![Line([0; 64]); len.div_ceil(64)];
        meter::allocated(lines.len() * 64);
        Storage { lines, len }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements, for a plain type whose size divides the length.
    pub fn as_slice<E: bytemuck::Pod>(&self) -> &[E] {
        bytemuck::cast_slice(&bytemuck::cast_slice::<Line, u8>(&self.lines)[..self.len])
    }

    /// The elements, mutable.
    pub fn as_mut_slice<E: bytemuck::Pod>(&mut self) -> &mut [E] {
        let len = self.len;
        bytemuck::cast_slice_mut(&mut bytemuck::cast_slice_mut::<Line, u8>(&mut self.lines)[..len])
    }

    /// Start of the bytes, for code that hands out disjoint parts of them.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.lines.as_mut_ptr().cast()
    }
}

impl Clone for Storage {
    fn clone(&self) -> Storage {
        meter::allocated(self.lines.len() * 64);
        Storage { lines: self.lines.clone(), len: self.len }
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        meter::freed(self.lines.len() * 64);
    }
}
