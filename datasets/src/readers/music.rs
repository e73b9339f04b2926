//! Piano-rolls: `{"train": [sequence, …], "valid": […], "test": […]}`, a sequence being a list of time steps
//! and a time step the list of the MIDI notes (21 to 108) that sound.

use std::path::Path;

use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::error::{Error, Result};

/// Notes of a piano.
pub const NOTES: usize = 88;
/// MIDI number of the lowest note.
pub const LOWEST: u8 = 21;
/// No file of this kind is larger.
const LIMIT: u64 = 1 << 27;

/// The notes that sound in a time step; bit `i` is note [`LOWEST`]` + i`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Frame(u128);

impl Frame {
    /// Whether note `LOWEST + column` sounds.
    pub fn sounds(self, column: usize) -> bool {
        column < NOTES && self.0 >> column & 1 == 1
    }

    /// The columns of the notes that sound, ascending.
    pub fn columns(self) -> impl Iterator<Item = usize> {
        (0..NOTES).filter(move |&c| self.sounds(c))
    }
}

impl<'de> Deserialize<'de> for Frame {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Frame, D::Error> {
        struct Notes;
        impl<'de> Visitor<'de> for Notes {
            type Value = Frame;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of MIDI notes from 21 to 108")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut notes: A) -> Result<Frame, A::Error> {
                let mut frame = Frame::default();
                while let Some(note) = notes.next_element::<i64>()? {
                    let column = note - i64::from(LOWEST);
                    if !(0..NOTES as i64).contains(&column) {
                        return Err(A::Error::custom(format!("note {note}, expected 21 to 108")));
                    }
                    let bit = 1u128 << column;
                    if frame.0 & bit != 0 {
                        return Err(A::Error::custom(format!("note {note} twice in one step")));
                    }
                    frame.0 |= bit;
                }
                Ok(frame)
            }
        }
        deserializer.deserialize_seq(Notes)
    }
}

impl Serialize for Frame {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.columns().map(|c| c + usize::from(LOWEST)))
    }
}

/// Three splits of sequences of frames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PianoRolls {
    /// Training sequences.
    pub train: Vec<Vec<Frame>>,
    /// Validation sequences.
    pub valid: Vec<Vec<Frame>>,
    /// Test sequences.
    pub test: Vec<Vec<Frame>>,
}

/// Reads a file, plain or gzip. Errors: those of [`parse`], too large.
pub fn read(path: &Path) -> Result<PianoRolls> {
    parse(path, &super::read_text(path, LIMIT)?)
}

/// Reads a text; `path` is for messages. Errors: not JSON of this form, a note outside the piano, a note
/// twice in a step, a split without sequences.
pub fn parse(path: &Path, text: &str) -> Result<PianoRolls> {
    let rolls: PianoRolls = serde_json::from_str(text).map_err(|e| Error::data(path, e.to_string()))?;
    for (name, split) in [("train", &rolls.train), ("valid", &rolls.valid), ("test", &rolls.test)] {
        if split.is_empty() {
            return Err(Error::data(path, format!("no sequences in `{name}`")));
        }
    }
    Ok(rolls)
}

/// The text of piano-rolls in one canonical form: splits in order, notes ascending, no blanks.
pub fn to_text(path: &Path, rolls: &PianoRolls) -> Result<String> {
    serde_json::to_string(rolls).map_err(|e| Error::data(path, e.to_string()))
}
