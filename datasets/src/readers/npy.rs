//! NumPy's `.npy`, versions 1 and 2: arrays of `<f4` or `|u1` in C order. Gzip is inflated on the fly.
//!
//! `93 4e 55 4d 50 59` (`\x93NUMPY`), version, header length (`u16` or `u32`, little-endian), the text of a Python
//! dict with `descr`, `fortran_order` and `shape`, then the elements.

use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};

/// How files begin.
pub(crate) const MAGIC: &[u8] = b"\x93NUMPY";

/// No array of this kind is larger.
const LIMIT: u64 = 1 << 31;
/// No header is longer.
const LONGEST_HEADER: u64 = 1 << 12;

/// An array, rightmost axis fastest.
#[derive(Clone, Debug, PartialEq)]
pub struct Array<E> {
    /// Sizes.
    pub dims: Vec<usize>,
    /// Elements.
    pub data: Vec<E>,
}

/// An element type.
pub trait Element: Sized {
    /// NumPy's name of it.
    const DESCR: &'static str;
    /// Bytes of one.
    const BYTES: usize;
    /// Reads one from its bytes.
    fn decode(bytes: &[u8]) -> Self;
}

impl Element for f32 {
    const DESCR: &'static str = "<f4";
    const BYTES: usize = 4;
    fn decode(b: &[u8]) -> f32 {
        f32::from_le_bytes([b[0], b[1], b[2], b[3]])
    }
}

impl Element for u8 {
    const DESCR: &'static str = "|u1";
    const BYTES: usize = 1;
    fn decode(b: &[u8]) -> u8 {
        b[0]
    }
}

/// Reads a file, plain or gzip. Errors: those of [`parse`].
pub fn read<E: Element>(path: &Path) -> Result<Array<E>> {
    let (reader, most) = super::open(path)?;
    parse(path, reader, most)
}

/// Reads from any source that can give at most `most` bytes; `path` is for messages. Errors: another magic or
/// version, a header that cannot be read, another element type, Fortran order, sizes that the source cannot hold,
/// truncated, too long.
pub fn parse<E: Element>(path: &Path, mut source: impl Read, most: u64) -> Result<Array<E>> {
    let fail = |reason: String| Err(Error::data(path, reason));
    let (Header { descr, fortran, dims }, _) = header(path, &mut source)?;
    if descr != E::DESCR || fortran {
        let order = if fortran { "Fortran" } else { "C" };
        return fail(format!("elements {descr} in {order} order, expected {} in C order", E::DESCR));
    }
    let limit = most.min(LIMIT);
    let bytes =
        dims.iter().try_fold(E::BYTES as u64, |n, &d| n.checked_mul(d as u64)).filter(|&n| n <= limit);
    let Some(bytes) = bytes else {
        return fail(format!("sizes {dims:?} claim more than the {limit} bytes there can be"));
    };
    let data = take(path, &mut source, bytes + 1)?;
    match (data.len() as u64).cmp(&bytes) {
        std::cmp::Ordering::Less => {
            fail(format!("truncated: sizes {dims:?}, {} of {bytes} bytes", data.len()))
        }
        std::cmp::Ordering::Greater => fail(format!("bytes after the elements of {dims:?}")),
        std::cmp::Ordering::Equal => {
            Ok(Array { data: data.chunks_exact(E::BYTES).map(E::decode).collect(), dims })
        }
    }
}

/// What a file says about its elements.
pub(crate) struct Header {
    /// NumPy's name of their type.
    pub(crate) descr: String,
    /// Whether the leftmost axis varies fastest.
    pub(crate) fortran: bool,
    /// Sizes.
    pub(crate) dims: Vec<usize>,
}

/// Reads a header and returns it with its bytes. Errors: another magic or version, a header that is truncated or cannot
/// be read.
pub(crate) fn header(path: &Path, source: &mut impl Read) -> Result<(Header, u64)> {
    let fail = |reason: String| Err(Error::data(path, reason));
    let start = take(path, source, 8)?;
    if start.len() < 8 || !start.starts_with(MAGIC) {
        return fail(format!("begins with {start:02x?}, expected 93 4e 55 4d 50 59 and a version"));
    }
    let sizes = match start[6] {
        1 => take(path, source, 2)?,
        2 => take(path, source, 4)?,
        version => return fail(format!("version {version}, expected 1 or 2")),
    };
    let length = sizes.iter().rev().fold(0u64, |n, &b| n << 8 | u64::from(b));
    if !(1..=LONGEST_HEADER).contains(&length) {
        return fail(format!("a header of {length} bytes, expected 1 to {LONGEST_HEADER}"));
    }
    let text = take(path, source, length)?;
    if text.len() as u64 != length {
        return fail(format!("truncated: {} of {length} bytes of the header", text.len()));
    }
    let text = String::from_utf8_lossy(&text);
    match fields(&text) {
        Some(header) => Ok((header, 8 + sizes.len() as u64 + length)),
        None => fail(format!("header {:?} is not a dict of descr, fortran_order and shape", text.trim_end())),
    }
}

fn take(path: &Path, source: &mut impl Read, n: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    super::read_up_to(path, source, n, &mut bytes)?;
    Ok(bytes)
}

/// The fields of a dict as NumPy writes it.
fn fields(header: &str) -> Option<Header> {
    let after = |key: &str| header.split_once(key).map(|(_, rest)| rest.trim_start());
    let descr = after("'descr':")?.strip_prefix('\'')?.split_once('\'')?.0;
    let order = after("'fortran_order':")?;
    let fortran = match (order.starts_with("True"), order.starts_with("False")) {
        (false, true) => false,
        (true, false) => true,
        _ => return None,
    };
    let shape = after("'shape':")?.strip_prefix('(')?.split_once(')')?.0;
    let sizes = shape.split(',').map(str::trim).filter(|s| !s.is_empty());
    let dims: Vec<usize> = sizes.map(|s| s.parse().ok()).collect::<Option<_>>()?;
    (dims.len() <= 8).then(|| Header { descr: descr.into(), fortran, dims })
}
