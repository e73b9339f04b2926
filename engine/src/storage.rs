//! Storage: bytes aligned to a cache line, counted by the memory meter; or those of a file.

use std::sync::Arc;

use memmap2::Mmap;

use crate::error::{Error, Result};
use crate::meter;

/// One cache line; the unit of allocation, so that every buffer starts at one.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Bytes aligned to 64, owned or of a mapped file. The size of owned ones is reported to [`meter`] while they live;
/// those of a file are the system's, which reads and forgets them as it likes.
#[derive(Debug)]
pub struct Storage {
    bytes: Bytes,
    len: usize,
}

#[derive(Debug)]
enum Bytes {
    Owned(Vec<Line>),
    Mapped { map: Arc<Mmap>, from: usize },
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Line")
    }
}

impl Storage {
    fn owned(lines: Vec<Line>, len: usize) -> Storage {
        meter::allocated(lines.len() * 64);
        Storage { bytes: Bytes::Owned(lines), len }
    }

    /// `len` zero bytes for `what`. Errors: the memory is not there.
    pub fn zeroed(what: &str, len: usize) -> Result<Storage> {
        let lines = bytemuck::allocation::try_zeroed_vec::<Line>(len.div_ceil(64))
            .map_err(|()| Error::OutOfMemory { what: what.into(), bytes: len })?;
        Ok(Storage::owned(lines, len))
    }

    /// `len` bytes of a mapped file from byte `from`, which the map has.
    pub(crate) fn mapped(map: Mmap, from: usize, len: usize) -> Storage {
        debug_assert!(from + len <= map.len());
        Storage { bytes: Bytes::Mapped { map: Arc::new(map), from }, len }
    }

    /// Up to 64 zero bytes.
    pub(crate) fn line(len: usize) -> Storage {
        Storage::owned(vec![Line([0; 64])], len.min(64))
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Owned(lines) => &bytemuck::cast_slice(lines)[..self.len],
            Bytes::Mapped { map, from } => &map[*from..*from + self.len],
        }
    }

    /// Those of a file become owned.
    fn lines(&mut self) -> &mut Vec<Line> {
        if let Bytes::Mapped { .. } = self.bytes {
            let mut lines = vec![Line([0; 64]); self.len.div_ceil(64)];
            bytemuck::cast_slice_mut(&mut lines)[..self.len].copy_from_slice(self.bytes());
            *self = Storage::owned(lines, self.len);
        }
        match &mut self.bytes {
            Bytes::Owned(lines) => lines,
            Bytes::Mapped { .. } => unreachable!("bug: just made owned"),
        }
    }

    /// The elements, for a plain type whose size divides the length.
    pub fn as_slice<E: bytemuck::Pod>(&self) -> &[E] {
        bytemuck::cast_slice(self.bytes())
    }

    /// The elements, mutable.
    pub fn as_mut_slice<E: bytemuck::Pod>(&mut self) -> &mut [E] {
        let len = self.len;
        bytemuck::cast_slice_mut(&mut bytemuck::cast_slice_mut::<Line, u8>(self.lines())[..len])
    }

    /// Start of the bytes, for code that hands out disjoint parts of them.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.lines().as_mut_ptr().cast()
    }
}

impl Clone for Storage {
    fn clone(&self) -> Storage {
        match &self.bytes {
            Bytes::Owned(lines) => Storage::owned(lines.clone(), self.len),
            Bytes::Mapped { map, from } => {
                Storage { bytes: Bytes::Mapped { map: map.clone(), from: *from }, len: self.len }
            }
        }
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        if let Bytes::Owned(lines) = &self.bytes {
            meter::freed(lines.len() * 64);
        }
    }
}
