//! TensorBoard event files: scalars only.
//!
//! An event file is a sequence of TFRecord frames: length as `u64`, masked CRC-32C of the length, payload, masked
//! CRC-32C of the payload, all little-endian. The payload is the protocol buffer `Event` of TensorFlow's
//! `event.proto`; the few fields used here are encoded by hand.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::atomic::folder_of;
use super::error::{Error, Result};

/// Writer of one event file. Each start of a process writes a file of its own; TensorBoard shows those of one
/// folder as one run.
#[derive(Debug)]
pub struct TensorBoard {
    path: PathBuf,
    file: File,
    /// Bytes of whole events.
    len: u64,
}

// Field numbers of `Event`, `Summary`, `Summary.Value` and `SessionLog`, and the wire types they are written in.
const EVENT_WALL_TIME: u32 = 1;
const EVENT_STEP: u32 = 2;
const EVENT_FILE_VERSION: u32 = 3;
const EVENT_SUMMARY: u32 = 5;
const EVENT_SESSION_LOG: u32 = 7;
const SUMMARY_VALUE: u32 = 1;
const VALUE_TAG: u32 = 1;
const VALUE_SIMPLE_VALUE: u32 = 2;
const SESSION_LOG_STATUS: u32 = 1;
const SESSION_LOG_START: u64 = 1;

impl TensorBoard {
    /// Starts an event file in `folder`.
    pub fn create(folder: impl AsRef<Path>) -> Result<TensorBoard> {
        TensorBoard::open(folder.as_ref(), None)
    }

    /// Starts a further event file in `folder`, for a run resumed from `step`: TensorBoard then drops what
    /// earlier files say about later steps.
    pub fn resume(folder: impl AsRef<Path>, step: u64) -> Result<TensorBoard> {
        TensorBoard::open(folder.as_ref(), Some(step))
    }

    fn open(folder: &Path, resumed: Option<u64>) -> Result<TensorBoard> {
        // TensorBoard reads the files of a folder in the order of their names: time first, then a counter.
        let seconds = wall_time() as u64;
        let mut counter = 0;
        let (path, file) = loop {
            let process = std::process::id();
            let name = format!("events.out.tfevents.{seconds:010}.{counter:04}.{process}.retrograd");
            let path = folder.join(name);
            match File::options().append(true).create_new(true).open(&path) {
                Ok(file) => break (path, file),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => counter += 1,
                Err(e) => return Err(Error::io(&path)(e)),
            }
        };
        let mut writer = TensorBoard { path, file, len: 0 };
        let mut version = event(None);
        put_bytes(&mut version, EVENT_FILE_VERSION, b"brain.Event:2");
        writer.write(&version)?;
        if let Some(step) = resumed {
            let mut log = Vec::new();
            put_varint_field(&mut log, SESSION_LOG_STATUS, SESSION_LOG_START);
            let mut start = event(Some(step.saturating_add(1)));
            put_bytes(&mut start, EVENT_SESSION_LOG, &log);
            writer.write(&start)?;
        }
        Ok(writer)
    }

    /// Appends one event with these scalars at `step`. Tags with a common part before `/` are shown together.
    ///
    /// Errors: [`Error::Io`] (disk full), after which the file ends with the last whole event.
    pub fn scalars(&mut self, step: u64, scalars: &[(&str, f64)]) -> Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in scalars {
            let mut entry = Vec::new();
            put_bytes(&mut entry, VALUE_TAG, tag.as_bytes());
            put_f32(&mut entry, VALUE_SIMPLE_VALUE, *value as f32);
            put_bytes(&mut summary, SUMMARY_VALUE, &entry);
        }
        let mut event = event(Some(step));
        put_bytes(&mut event, EVENT_SUMMARY, &summary);
        self.write(&event)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of the file, which TensorBoard is to be pointed at.
    pub fn folder(&self) -> &Path {
        folder_of(&self.path)
    }

    fn write(&mut self, payload: &[u8]) -> Result<()> {
        let length = (payload.len() as u64).to_le_bytes();
        let mut frame = Vec::with_capacity(payload.len() + 16);
        frame.extend(length);
        frame.extend(masked_crc(&length).to_le_bytes());
        frame.extend(payload);
        frame.extend(masked_crc(payload).to_le_bytes());
        if let Err(e) = self.file.write_all(&frame) {
            self.file.set_len(self.len).ok();
            return Err(Error::io(&self.path)(e));
        }
        self.len += frame.len() as u64;
        Ok(())
    }
}

/// TFRecord stores checksums rotated and offset, as the checksum of data that holds checksums is a weak one.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Seconds since 1970.
fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// An `Event` of now, at this step.
fn event(step: Option<u64>) -> Vec<u8> {
    let mut out = Vec::new();
    put_key(&mut out, EVENT_WALL_TIME, 1);
    out.extend(wall_time().to_le_bytes());
    if let Some(step) = step {
        // The field is signed.
        put_varint_field(&mut out, EVENT_STEP, step.min(i64::MAX as u64));
    }
    out
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_key(out: &mut Vec<u8>, field: u32, wire_type: u32) {
    put_varint(out, u64::from(field << 3 | wire_type));
}

fn put_varint_field(out: &mut Vec<u8>, field: u32, value: u64) {
    put_key(out, field, 0);
    put_varint(out, value);
}

fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_key(out, field, 2);
    put_varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn put_f32(out: &mut Vec<u8>, field: u32, value: f32) {
    put_key(out, field, 5);
    out.extend(value.to_le_bytes());
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    /// CRC-32C bit by bit from its polynomial (RFC 3720, reflected 0x82f63b78), then TFRecord's mask.
    fn slow_masked_crc(bytes: &[u8]) -> u32 {
        let mut crc = !0u32;
        for &byte in bytes {
            crc ^= u32::from(byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            }
        }
        let crc = !crc;
        // As TensorFlow writes it, to check the rotation above.
        #[allow(clippy::manual_rotate)]
        ((crc >> 15) | (crc << 17)).wrapping_add(0xa282_ead8)
    }

    /// Payloads of the frames, checksums checked.
    fn frames(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        while !bytes.is_empty() {
            let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let crc = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            assert_eq!(crc(8), slow_masked_crc(&bytes[..8]));
            let payload = &bytes[12..12 + length];
            assert_eq!(crc(12 + length), slow_masked_crc(payload));
            out.push(payload.to_vec());
            bytes = &bytes[16 + length..];
        }
        out
    }

    #[derive(Debug, PartialEq)]
    enum Field {
        Int(u64),
        Fixed64(u64),
        Fixed32(u32),
        Bytes(Vec<u8>),
    }

    /// Fields of a protocol buffer, after its encoding's specification.
    fn fields(bytes: &[u8]) -> Vec<(u64, Field)> {
        let mut at = 0;
        let mut out = Vec::new();
        let varint = |at: &mut usize| {
            let mut value = 0u64;
            for shift in (0..).step_by(7) {
                let byte = bytes[*at];
                *at += 1;
                value |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
            }
            value
        };
        while at < bytes.len() {
            let key = varint(&mut at);
            let field = match key & 7 {
                0 => Field::Int(varint(&mut at)),
                1 => {
                    at += 8;
                    Field::Fixed64(u64::from_le_bytes(bytes[at - 8..at].try_into().unwrap()))
                }
                2 => {
                    let length = varint(&mut at) as usize;
                    at += length;
                    Field::Bytes(bytes[at - length..at].to_vec())
                }
                5 => {
                    at += 4;
                    Field::Fixed32(u32::from_le_bytes(bytes[at - 4..at].try_into().unwrap()))
                }
                other => panic!("wire type {other}"),
            };
            out.push((key >> 3, field));
        }
        out
    }

    fn now_is(field: &(u64, Field)) {
        let (1, Field::Fixed64(bits)) = field else { panic!("no wall time: {field:?}") };
        assert!((f64::from_bits(*bits) - wall_time()).abs() < 60.0);
    }

    #[test]
    fn checksums_are_crc_32c() {
        // RFC 3720, B.4: 32 bytes of zeros, of ones.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c::crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(masked_crc(b"retrograd"), slow_masked_crc(b"retrograd"));
    }

    #[test]
    fn reads_back_with_another_parser() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = TensorBoard::create(dir.path()).unwrap();
        writer.scalars(0, &[("loss/train", 0.25)]).unwrap();
        writer.scalars(300, &[("loss/train", f64::NAN), ("ä", 1e300)]).unwrap();
        writer.scalars(u64::MAX, &[]).unwrap();
        let bytes = std::fs::read(writer.path()).unwrap();
        let events: Vec<_> = frames(&bytes).iter().map(|f| fields(f)).collect();
        events.iter().for_each(|e| now_is(&e[0]));
        assert_eq!(events[0][1..], [(3, Field::Bytes(b"brain.Event:2".to_vec()))]);

        let scalars = |event: &[(u64, Field)]| -> Vec<(String, f32)> {
            let (5, Field::Bytes(summary)) = &event[2] else { panic!("no summary: {event:?}") };
            let value = |(number, field): &(u64, Field)| {
                let (1, Field::Bytes(value)) = (number, field) else { panic!("no value: {field:?}") };
                match &fields(value)[..] {
                    [(1, Field::Bytes(tag)), (2, Field::Fixed32(bits))] => {
                        (String::from_utf8(tag.clone()).unwrap(), f32::from_bits(*bits))
                    }
                    other => panic!("not a scalar: {other:?}"),
                }
            };
            fields(summary).iter().map(value).collect()
        };
        assert_eq!(events[1][1], (2, Field::Int(0)));
        assert_eq!(scalars(&events[1]), [("loss/train".to_owned(), 0.25)]);
        assert_eq!(events[2][1], (2, Field::Int(300)));
        let second = scalars(&events[2]);
        assert!(second[0].1.is_nan());
        assert_eq!(second[1], ("ä".to_owned(), f32::INFINITY));
        assert_eq!(events[3][1], (2, Field::Int(i64::MAX as u64)));
    }

    #[test]
    fn a_resumed_run_adds_a_file_that_sorts_later_and_restarts_after_its_step() {
        let dir = tempfile::tempdir().unwrap();
        let first = TensorBoard::create(dir.path()).unwrap();
        let second = TensorBoard::resume(dir.path(), 41).unwrap();
        assert!(first.path() < second.path(), "{:?} {:?}", first.path(), second.path());
        assert_eq!(second.folder(), dir.path());
        let events: Vec<_> =
            frames(&std::fs::read(second.path()).unwrap()).iter().map(|f| fields(f)).collect();
        assert_eq!(events[1][1..], [(2, Field::Int(42)), (7, Field::Bytes(vec![8, 1]))]);
        assert_eq!(events.len(), 2);
        assert!(matches!(TensorBoard::create(dir.path().join("no")), Err(Error::Io { .. })));
    }
}
