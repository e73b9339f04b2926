//! NumPy's `.npy`, versions 1 and 2: arrays of `<f4` or `|u1` in C order. Gzip is inflated on the fly.
//!
//! `93 4e 55 4d 50 59` (`\x93NUMPY`), version, header length (`u16` or `u32`, little-endian), the text of a Python
//! dict with `descr`, `fortran_order` and `shape`, then the elements.

use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};

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
    let mut take = |n: u64| {
        let mut bytes = Vec::new();
        super::read_up_to(path, &mut source, n, &mut bytes)?;
        Ok::<_, Error>(bytes)
    };
    let start = take(8)?;
    if start.len() < 8 || !start.starts_with(b"\x93NUMPY") {
        return fail(format!("begins with {start:02x?}, expected 93 4e 55 4d 50 59 and a version"));
    }
    let length = match start[6] {
        1 => take(2)?,
        2 => take(4)?,
        version => return fail(format!("version {version}, expected 1 or 2")),
    };
    let length = length.iter().rev().fold(0u64, |n, &b| n << 8 | u64::from(b));
    if !(1..=LONGEST_HEADER).contains(&length) {
        return fail(format!("a header of {length} bytes, expected 1 to {LONGEST_HEADER}"));
    }
    let header = take(length)?;
    if header.len() as u64 != length {
        return fail(format!("truncated: {} of {length} bytes of the header", header.len()));
    }
    let header = String::from_utf8_lossy(&header).into_owned();
    let Some(Header { descr, fortran, dims }) = fields(&header) else {
        return fail(format!(
            "header {:?} is not a dict of descr, fortran_order and shape",
            header.trim_end()
        ));
    };
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
    let data = take(bytes + 1)?;
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

struct Header {
    descr: String,
    fortran: bool,
    dims: Vec<usize>,
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
