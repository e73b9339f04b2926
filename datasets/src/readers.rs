//! Readers of data files. None trusts its input: a damaged, truncated or hostile file is a typed error, and
//! no reader reserves more memory than the bytes that are there warrant.

pub mod cifar;
pub mod idx;
pub mod music;
pub mod npy;
pub mod reviews;
pub mod sphere;
pub mod steps;
pub mod table;
pub mod text;
pub mod wav;

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use flate2::read::GzDecoder;

use crate::error::{Error, Result};

/// Deflate never inflates by more than this factor.
const INFLATION: u64 = 1032;

/// A file, inflated if it is gzip, and the most bytes it can give.
pub(crate) fn open(path: &Path) -> Result<(Box<dyn Read>, u64)> {
    let file = File::open(path).map_err(|e| Error::io(path, "open", e))?;
    let bytes = file.metadata().map_err(|e| Error::io(path, "read", e))?.len();
    let mut reader = BufReader::new(file);
    let magic = std::io::BufRead::fill_buf(&mut reader).map_err(|e| Error::io(path, "read", e))?;
    Ok(if magic.starts_with(&[0x1f, 0x8b]) {
        (Box::new(GzDecoder::new(reader)), bytes.saturating_mul(INFLATION))
    } else {
        (Box::new(reader), bytes)
    })
}

/// The whole content of a text file, inflated if it is gzip. Errors: more than `limit` bytes, not UTF-8.
pub(crate) fn read_text(path: &Path, limit: u64) -> Result<String> {
    let (reader, _) = open(path)?;
    let mut text = String::new();
    match reader.take(limit + 1).read_to_string(&mut text) {
        Ok(n) if n as u64 <= limit => Ok(text),
        Ok(_) => Err(Error::data(path, format!("more than {limit} bytes, which no file of this kind has"))),
        Err(e) if damaged(&e) => Err(Error::data(path, format!("damaged or not text: {e}"))),
        Err(e) => Err(Error::io(path, "read", e)),
    }
}

/// Reads up to `n` bytes; grows with what comes.
pub(crate) fn read_up_to(path: &Path, source: &mut impl Read, n: u64, into: &mut Vec<u8>) -> Result<()> {
    match source.take(n).read_to_end(into) {
        Ok(_) => Ok(()),
        Err(e) if damaged(&e) => Err(Error::data(path, format!("damaged after {} bytes: {e}", into.len()))),
        Err(e) => Err(Error::io(path, "read", e)),
    }
}

/// Whether reading failed for what the file holds, not for how it is stored.
fn damaged(e: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    matches!(e.kind(), InvalidData | InvalidInput | UnexpectedEof)
}
