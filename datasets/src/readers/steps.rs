//! Recordings: numbers of many steps that stay in their file and are read where they are asked for. NumPy's `.npy` of
//! `<f4`, `<f8`, `<i2` or `|u1` in C order, sizes `[T]` or `[T,C]`; or bare numbers, `<f4` without a header.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::npy;
use crate::error::{Error, Result};

/// Bytes read at a time.
const AT_ONCE: usize = 1 << 16;

/// An element type of a file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    F4,
    F8,
    I2,
    U1,
}

impl Kind {
    const ALL: [(&'static str, Kind); 4] =
        [("<f4", Kind::F4), ("<f8", Kind::F8), ("<i2", Kind::I2), ("|u1", Kind::U1)];

    const fn bytes(self) -> usize {
        match self {
            Kind::F4 => 4,
            Kind::F8 => 8,
            Kind::I2 => 2,
            Kind::U1 => 1,
        }
    }

    fn decode(self, b: &[u8]) -> f32 {
        match self {
            Kind::F4 => f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            Kind::F8 => f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32,
            Kind::I2 => f32::from(i16::from_le_bytes([b[0], b[1]])),
            Kind::U1 => f32::from(b[0]),
        }
    }
}

/// A file of steps of `C` numbers each. It takes no memory but a buffer while it is read.
#[derive(Debug)]
pub struct Recording {
    path: PathBuf,
    file: Mutex<File>,
    /// First byte of the first step.
    start: u64,
    kind: Kind,
    steps: usize,
    channels: usize,
}

impl Recording {
    /// Opens a file. `channels`: numbers a step of a file without a header; one with a header says it itself.
    ///
    /// Errors: a file that cannot be read; another element type, order or number of axes; sizes that are not those of
    /// the file.
    pub fn open(path: &Path, channels: usize) -> Result<Recording> {
        let fail = |reason: String| Err(Error::data(path, reason));
        let io = |action| move |e| Error::io(path, action, e);
        let mut file = File::open(path).map_err(io("open"))?;
        let bytes = file.metadata().map_err(io("read"))?.len();
        let mut first = Vec::new();
        super::read_up_to(path, &mut file, npy::MAGIC.len() as u64, &mut first)?;
        file.rewind().map_err(io("read"))?;
        let (start, kind, steps, channels) = match first == npy::MAGIC {
            false => (0, Kind::F4, None, channels),
            true => {
                let (header, start) = npy::header(path, &mut file)?;
                let Some(&(_, kind)) = Kind::ALL.iter().find(|(d, _)| *d == header.descr) else {
                    let known = Kind::ALL.map(|(d, _)| d).join(", ");
                    return fail(format!("elements {}, expected one of {known}", header.descr));
                };
                let (steps, channels) = match header.dims[..] {
                    _ if header.fortran => return fail("Fortran order, expected C order".into()),
                    [steps] => (steps, 1),
                    [steps, channels] => (steps, channels),
                    _ => return fail(format!("sizes {:?}, expected [T] or [T,C]", header.dims)),
                };
                (start, kind, Some(steps), channels)
            }
        };
        let (there, step) = (bytes - start.min(bytes), (channels as u64).saturating_mul(kind.bytes() as u64));
        if step == 0 {
            return fail("steps of 0 numbers".into());
        }
        let claimed = steps.map(|steps| (steps as u64).saturating_mul(step));
        if claimed.is_some_and(|claimed| claimed != there) || there % step != 0 {
            let expected = claimed.map_or(format!("a multiple of {step}"), |claimed| claimed.to_string());
            return fail(format!(
                "{there} bytes of numbers, expected {expected} for steps of {channels} numbers"
            ));
        }
        let steps = (there / step) as usize;
        Ok(Recording { path: path.into(), file: Mutex::new(file), start, kind, steps, channels })
    }

    /// Number of steps.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Numbers a step.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Reads the steps from `from` on, as many as `to` has room for. Errors: steps past the end; a file that cannot be
    /// read any more.
    pub fn read(&self, from: usize, to: &mut [f32]) -> Result<()> {
        let steps = to.len().div_ceil(self.channels);
        if from.checked_add(steps).is_none_or(|end| end > self.steps) {
            let reason = format!("steps from {from} on, {steps} of them, and there are {}", self.steps);
            return Err(Error::data(&self.path, reason));
        }
        let size = self.kind.bytes();
        let at = self.start + from as u64 * (self.channels * size) as u64;
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let io = |e| Error::io(&self.path, "read", e);
        file.seek(SeekFrom::Start(at)).map_err(io)?;
        let mut buffer = vec![0u8; AT_ONCE.min(to.len() * size)];
        for part in to.chunks_mut(AT_ONCE / size) {
            let bytes = &mut buffer[..part.len() * size];
            file.read_exact(bytes).map_err(io)?;
            for (x, b) in part.iter_mut().zip(bytes.chunks_exact(size)) {
                *x = self.kind.decode(b);
            }
        }
        Ok(())
    }
}
