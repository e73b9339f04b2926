//! WAV (RIFF): one channel of 16-bit samples, as in Speech Commands.

use std::io::Cursor;
use std::path::Path;

use crate::error::{Error, Result};

/// No recording is larger: twenty minutes at 16 kHz.
const LIMIT: u64 = 1 << 26;

/// A recording of one channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recording {
    /// Samples a second.
    pub rate: u32,
    /// Samples.
    pub samples: Vec<i16>,
}

/// Reads a file. Errors: too large; those of [`parse`].
pub fn read(path: &Path) -> Result<Recording> {
    let (mut reader, _) = super::open(path)?;
    let mut bytes = Vec::new();
    super::read_up_to(path, &mut reader, LIMIT + 1, &mut bytes)?;
    if bytes.len() as u64 > LIMIT {
        return Err(Error::data(path, format!("more than {LIMIT} bytes, which no recording has")));
    }
    parse(path, &bytes)
}

/// Reads the content of a file; `path` is for messages. Errors: not WAV, truncated, another number of channels or
/// another kind of samples.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Recording> {
    let damaged = |e: hound::Error| Error::data(path, format!("not a WAV file that can be read: {e}"));
    let reader = hound::WavReader::new(Cursor::new(bytes)).map_err(damaged)?;
    let spec = reader.spec();
    let kind = (spec.channels, spec.bits_per_sample, spec.sample_format);
    if kind != (1, 16, hound::SampleFormat::Int) || spec.sample_rate == 0 {
        let reason = format!(
            "{} channels of {} bits ({:?}) at {} Hz, expected one of 16-bit integers",
            spec.channels, spec.bits_per_sample, spec.sample_format, spec.sample_rate
        );
        return Err(Error::data(path, reason));
    }
    // The header's length is only a claim: no more is reserved than the file can hold.
    let claimed = reader.len() as usize;
    if claimed > bytes.len() / 2 {
        let reason = format!("truncated: the header claims {claimed} samples in {} bytes", bytes.len());
        return Err(Error::data(path, reason));
    }
    let samples = reader.into_samples::<i16>().collect::<Result<Vec<_>, _>>().map_err(damaged)?;
    Ok(Recording { rate: spec.sample_rate, samples })
}
