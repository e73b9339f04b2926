//! IDX: arrays of bytes with big-endian sizes in front, the format of MNIST. Gzip is inflated on the fly.
//!
//! `00 00 08 d` (element type byte, number of axes `d`), `d` sizes as `u32` big-endian, then the elements.

use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};

/// An array of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idx {
    /// Sizes, rightmost axis fastest.
    pub dims: Vec<usize>,
    /// Elements.
    pub data: Vec<u8>,
}

/// No array of this kind is larger.
const LIMIT: u64 = 1 << 31;

/// Reads a file, plain or gzip. Errors: not IDX of bytes, sizes the file cannot hold, truncated, too long.
pub fn read(path: &Path) -> Result<Idx> {
    let (reader, most) = super::open(path)?;
    parse(path, reader, most)
}

/// Reads `count` images of one size and as many labels. Errors: those of [`read`], other numbers of axes,
/// counts that differ, a label of `classes` or more.
pub fn read_labelled(images: &Path, labels: &Path, classes: u8) -> Result<(Idx, Idx)> {
    let (x, y) = (read(images)?, read(labels)?);
    for (path, idx, axes) in [(images, &x, 3), (labels, &y, 1)] {
        if idx.dims.len() != axes {
            return Err(Error::data(path, format!("{} axes, expected {axes}", idx.dims.len())));
        }
    }
    if x.dims[0] != y.dims[0] {
        return Err(Error::data(labels, format!("{} labels for {} images", y.dims[0], x.dims[0])));
    }
    if let Some(i) = y.data.iter().position(|&label| label >= classes) {
        let reason = format!("label {i} is {}, expected less than {classes}", y.data[i]);
        return Err(Error::data(labels, reason));
    }
    Ok((x, y))
}

/// Reads from any source that can give at most `most` bytes; `path` is for messages.
pub fn parse(path: &Path, mut source: impl Read, most: u64) -> Result<Idx> {
    let fail = |reason: String| Err(Error::data(path, reason));
    let mut header = Vec::new();
    super::read_up_to(path, &mut source, 4, &mut header)?;
    let [zero, one, kind, axes] = header[..] else {
        return fail(format!("truncated: {} bytes, a header has 4 and sizes", header.len()));
    };
    if (zero, one, kind) != (0, 0, 8) || !(1..=4).contains(&axes) {
        return fail(format!("magic {header:02x?}, expected 00 00 08 and 1 to 4 axes"));
    }
    let mut sizes = Vec::new();
    super::read_up_to(path, &mut source, 4 * u64::from(axes), &mut sizes)?;
    if sizes.len() != 4 * usize::from(axes) {
        return fail(format!("truncated: {} bytes of sizes for {axes} axes", sizes.len()));
    }
    let dims: Vec<u32> =
        sizes.chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]])).collect();
    let limit = most.min(LIMIT);
    let count = dims.iter().try_fold(1u64, |n, &d| n.checked_mul(u64::from(d))).filter(|&n| n <= limit);
    let Some(count) = count else {
        return fail(format!("sizes {dims:?} claim more than the {limit} bytes there can be"));
    };
    let mut data = Vec::new();
    super::read_up_to(path, &mut source, count + 1, &mut data)?;
    match (data.len() as u64).cmp(&count) {
        std::cmp::Ordering::Less => fail(format!("truncated: sizes {dims:?}, {} elements", data.len())),
        std::cmp::Ordering::Greater => fail(format!("bytes after the {count} elements of {dims:?}")),
        std::cmp::Ordering::Equal => Ok(Idx { dims: dims.iter().map(|&d| d as usize).collect(), data }),
    }
}
