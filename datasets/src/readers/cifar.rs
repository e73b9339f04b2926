//! The binary version of CIFAR-10: records of one label byte and 3 × 32 × 32 bytes (red, green, blue planes, each
//! row by row), without a header. Gzip is inflated on the fly.

use std::path::Path;

use crate::error::{Error, Result};

/// Pixels of an image.
pub const PIXELS: usize = 32 * 32;
/// Bytes of an image.
pub const BYTES: usize = 3 * PIXELS;
/// Classes.
pub const CLASSES: u8 = 10;
/// Bytes of a record.
const RECORD: usize = 1 + BYTES;
/// No file has more records.
const MOST: u64 = 100_000;

/// Images and their labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Images {
    /// [`BYTES`] for each image.
    pub pixels: Vec<u8>,
    /// A label below [`CLASSES`] for each.
    pub labels: Vec<u8>,
}

/// Reads a file, plain or gzip. Errors: too large; those of [`parse`].
pub fn read(path: &Path) -> Result<Images> {
    let (mut reader, most) = super::open(path)?;
    let limit = (MOST * RECORD as u64).min(most);
    let mut bytes = Vec::new();
    super::read_up_to(path, &mut reader, limit + 1, &mut bytes)?;
    if bytes.len() as u64 > MOST * RECORD as u64 {
        return Err(Error::data(path, format!("more than {MOST} records of {RECORD} bytes")));
    }
    parse(path, &bytes)
}

/// Reads the content of a file; `path` is for messages. Errors: empty, not a whole number of records, a label of
/// [`CLASSES`] or more.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Images> {
    if bytes.is_empty() || !bytes.len().is_multiple_of(RECORD) {
        return Err(Error::data(path, format!("{} bytes, expected records of {RECORD}", bytes.len())));
    }
    let mut images = Images::default();
    for (i, record) in bytes.chunks_exact(RECORD).enumerate() {
        if record[0] >= CLASSES {
            let reason = format!("label {i} is {}, expected less than {CLASSES}", record[0]);
            return Err(Error::data(path, reason));
        }
        images.labels.push(record[0]);
        images.pixels.extend(&record[1..]);
    }
    Ok(images)
}
