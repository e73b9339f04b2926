//! NIST SPHERE: the format of the recordings of TIMIT, and the phone labels beside them.
//!
//! A text header: `NIST_1A`, the header's length (`   1024`), then lines `name -type value` up to `end_head`;
//! `-i` is a whole number, `-r` a real one, `-sN` a text of `N` bytes. Then the samples, 16-bit; their byte order
//! is `sample_byte_format`, `01` for little-endian, `10` for big-endian. Only plain samples of one channel are
//! read (`sample_coding` missing or `pcm`).

use std::path::Path;

use super::wav::Recording;
use crate::error::{Error, Result};

/// No recording is larger.
const LIMIT: u64 = 1 << 26;
/// No header is longer.
const LONGEST_HEADER: usize = 1 << 16;

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

/// Reads the content of a file; `path` is for messages. Errors: another magic, a header that does not end or lacks
/// a field, compressed samples, more than one channel, another sample size, fewer or more samples than claimed.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Recording> {
    let fail = |reason: String| Err(Error::data(path, reason));
    if !bytes.starts_with(b"NIST_1A\n") {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(8)]).into_owned();
        return fail(format!("begins with {shown:?}, expected \"NIST_1A\\n\""));
    }
    let length =
        bytes.get(8..16).and_then(|b| std::str::from_utf8(b).ok()).and_then(|t| t.trim().parse().ok());
    let Some(length) = length.filter(|l| (16..=LONGEST_HEADER).contains(l)) else {
        return fail("no length of the header in the second line".into());
    };
    let Some(header) = bytes.get(..length) else {
        return fail(format!("truncated: {} bytes, the header has {length}", bytes.len()));
    };
    // Bytes after `end_head` are padding and may be anything.
    let header = String::from_utf8_lossy(header);
    let Some((header, _)) = header.split_once("end_head") else {
        return fail(format!("no end_head in the {length} bytes of the header"));
    };
    let text = |name: &str| {
        header.lines().skip(2).find_map(|line| {
            let (field, rest) = line.split_once(' ')?;
            (field == name).then(|| rest.split_once(' ').map_or("", |(_, value)| value.trim()))
        })
    };
    let number = |name: &str| match text(name).map(str::parse::<usize>) {
        Some(Ok(n)) => Ok(n),
        Some(Err(_)) => {
            Err(Error::data(path, format!("`{name}` is {:?}, expected a number", text(name).unwrap_or(""))))
        }
        None => Err(Error::data(path, format!("the header has no `{name}`"))),
    };
    for (name, expected) in [("channel_count", 1), ("sample_n_bytes", 2)] {
        let got = number(name)?;
        if got != expected {
            return fail(format!("`{name}` is {got}, expected {expected}"));
        }
    }
    let coding = text("sample_coding").unwrap_or("pcm");
    if coding != "pcm" {
        return fail(format!("`sample_coding` is {coding:?}, expected plain samples (pcm)"));
    }
    let decode = match text("sample_byte_format") {
        Some("01") => i16::from_le_bytes,
        Some("10") => i16::from_be_bytes,
        other => return fail(format!("`sample_byte_format` is {other:?}, expected 01 or 10")),
    };
    let (rate, count) = (number("sample_rate")?, number("sample_count")?);
    let Some(rate) = u32::try_from(rate).ok().filter(|r| *r > 0) else {
        return fail(format!("`sample_rate` is {rate}"));
    };
    let body = &bytes[length..];
    if count.checked_mul(2) != Some(body.len()) {
        return fail(format!("{count} samples of 2 bytes claimed, {} bytes follow the header", body.len()));
    }
    Ok(Recording { rate, samples: body.chunks_exact(2).map(|b| decode([b[0], b[1]])).collect() })
}

/// A stretch of samples `from..to` and the phone spoken in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phone {
    /// First sample.
    pub from: usize,
    /// Sample after the last.
    pub to: usize,
    /// Name.
    pub name: String,
}

/// Reads phone labels: lines `from to name`, ascending. Errors: a line of another form, stretches that are empty,
/// overlap or go back, no line.
pub fn phones(path: &Path) -> Result<Vec<Phone>> {
    parse_phones(path, &super::read_text(path, 1 << 20)?)
}

/// The same of a text; `path` is for messages.
pub fn parse_phones(path: &Path, text: &str) -> Result<Vec<Phone>> {
    let mut phones: Vec<Phone> = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let parts: Vec<&str> = line.split_whitespace().collect();
        let phone = match parts[..] {
            [from, to, name] => match (from.parse(), to.parse()) {
                (Ok(from), Ok(to)) => Some(Phone { from, to, name: name.to_lowercase() }),
                _ => None,
            },
            _ => None,
        };
        let end = phones.last().map_or(0, |p| p.to);
        match phone.filter(|p| p.from >= end && p.to > p.from) {
            Some(phone) => phones.push(phone),
            None => {
                let line: String = line.chars().take(60).collect();
                let reason =
                    format!("line {} is {line:?}, expected `from to phone` from sample {end}", i + 1);
                return Err(Error::data(path, reason));
            }
        }
    }
    if phones.is_empty() {
        return Err(Error::data(path, "no phones"));
    }
    Ok(phones)
}
