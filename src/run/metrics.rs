//! The metrics file: one JSON object per line, appended whole.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use super::error::{Error, Result};

/// Writer of a metrics file. Every record starts with its `step`, and steps never decrease.
///
/// To be able to resume to the same file, append all records of a step and call [`Metrics::sync`] before saving
/// the checkpoint of that step. Numbers that are not finite are written as `null`.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    file: File,
    /// Bytes of whole records.
    len: u64,
    last_step: Option<u64>,
}

#[derive(Serialize)]
struct Record {
    step: u64,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

impl Metrics {
    /// Starts a new file. Errors: [`Error::Io`] if it exists or cannot be made.
    pub fn create(path: impl Into<PathBuf>) -> Result<Metrics> {
        let path = path.into();
        let file = File::options().append(true).create_new(true).open(&path).map_err(Error::io(&path))?;
        Ok(Metrics { path, file, len: 0, last_step: None })
    }

    /// Opens the file of a run that is resumed from its checkpoint of `step`: everything after that step is cut
    /// off, and so is a last line that was not written to its end. What follows then makes the file the one that
    /// an uninterrupted run writes. A missing file is started anew.
    ///
    /// Errors: [`Error::Metrics`] naming the line for anything else that is not a record; the file is untouched.
    pub fn resume(path: impl Into<PathBuf>, step: u64) -> Result<Metrics> {
        let path = path.into();
        let mut keep = 0;
        let mut last_step = None;
        let mut whole = true;
        let found = scan(&path, |record, bytes, ended| {
            let at = record.step;
            if at <= step {
                (keep, last_step, whole) = (keep + bytes, Some(at), ended);
            }
            at <= step
        })?;
        if !found {
            return Metrics::create(path);
        }
        let file = File::options().append(true).open(&path).map_err(Error::io(&path))?;
        file.set_len(keep).map_err(Error::io(&path))?;
        let mut metrics = Metrics { path, file, len: keep, last_step };
        if !whole {
            // A whole record whose line end is missing, as some editors leave it.
            metrics.write(b"\n")?;
        }
        Ok(metrics)
    }

    /// Appends the record `{"step": step, ..fields}`; `fields` is anything that serialises as an object.
    ///
    /// Errors: [`Error::Metrics`] for fields that are not an object or have a `step` of their own, and for a step
    /// before the last one; [`Error::Io`] (disk full), after which the file ends with the last whole record.
    pub fn append(&mut self, step: u64, fields: &impl Serialize) -> Result<()> {
        let fields = match serde_json::to_value(fields) {
            Ok(Value::Object(fields)) if !fields.contains_key("step") => fields,
            Ok(Value::Object(_)) => return Err(Error::metrics(&self.path, "record has a `step` of its own")),
            Ok(other) => return Err(Error::metrics(&self.path, format!("record is not an object: {other}"))),
            Err(e) => return Err(Error::metrics(&self.path, format!("record: {e}"))),
        };
        if let Some(last) = self.last_step.filter(|&last| step < last) {
            return Err(Error::metrics(
                &self.path,
                format!("record of step {step} after one of step {last}"),
            ));
        }
        let record = Record { step, fields };
        let mut line = serde_json::to_vec(&record).map_err(|e| Error::metrics(&self.path, e))?;
        line.push(b'\n');
        self.write(&line)?;
        self.last_step = Some(step);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if let Err(e) = self.file.write_all(bytes) {
            self.file.set_len(self.len).ok();
            return Err(Error::io(&self.path)(e));
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Flushes to the disk, so that a checkpoint saved next is never ahead of the file.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(Error::io(&self.path))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// All records of a metrics file in order, without a half-written last line. Works while the run goes on.
///
/// Errors: [`Error::Io`], or [`Error::Metrics`] naming the line.
pub fn read_metrics(path: impl AsRef<Path>) -> Result<Vec<Map<String, Value>>> {
    let path = path.as_ref();
    let mut records = Vec::new();
    let found = scan(path, |record, _, _| {
        let mut all = record.fields;
        all.insert("step".into(), record.step.into());
        records.push(all);
        true
    })?;
    if found { Ok(records) } else { Err(Error::io(path)(ErrorKind::NotFound.into())) }
}

/// Calls `take(record, bytes of its line, line has an end)` until it returns false; `false` if there is no file.
fn scan(path: &Path, mut take: impl FnMut(Record, u64, bool) -> bool) -> Result<bool> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(Error::io(path)(e)),
    };
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let bytes = reader.read_until(b'\n', &mut line).map_err(Error::io(path))?;
        let ended = line.last() == Some(&b'\n');
        if bytes == 0 {
            break;
        }
        let record = match parse(&line) {
            Ok(record) => record,
            // Killed while it was written.
            Err(_) if !ended => break,
            Err(reason) => return Err(Error::metrics(path, format!("line {number}: {reason}"))),
        };
        if !take(record, bytes as u64, ended) {
            break;
        }
    }
    Ok(true)
}

fn parse(line: &[u8]) -> Result<Record, String> {
    let mut fields: Map<String, Value> = serde_json::from_slice(line).map_err(|e| e.to_string())?;
    match fields.remove("step") {
        Some(step) => {
            let step = step.as_u64().ok_or_else(|| format!("step is {step}, not a whole number"))?;
            Ok(Record { step, fields })
        }
        None => Err("no step".into()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn write_run(metrics: &mut Metrics, steps: std::ops::Range<u64>) {
        for step in steps {
            metrics.append(step, &json!({"kind": "train", "loss": 1.0 / (step as f64 + 0.3)})).unwrap();
            if step % 3 == 0 {
                metrics.append(step, &json!({"kind": "valid", "nll": step})).unwrap();
            }
        }
        metrics.sync().unwrap();
    }

    proptest! {
        #[test]
        fn killed_at_any_byte_and_resumed_is_the_same_file(cut in 0usize..900, resumed in 0u64..12) {
            let dir = tempfile::tempdir().unwrap();
            let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
            write_run(&mut Metrics::create(&whole).unwrap(), 0..20);
            let bytes = fs::read(&whole).unwrap();
            // The checkpoint of `resumed` was saved after that step's records: the file is at least that long.
            let text = std::str::from_utf8(&bytes).unwrap();
            let held = text
                .split_inclusive('\n')
                .take_while(|l| parse(l.as_bytes()).unwrap().step <= resumed)
                .map(str::len)
                .sum::<usize>();
            fs::write(&killed, &bytes[..cut.clamp(held, bytes.len())]).unwrap();
            write_run(&mut Metrics::resume(&killed, resumed).unwrap(), resumed + 1..20);
            prop_assert_eq!(fs::read(&killed).unwrap(), bytes);
        }
    }

    #[test]
    fn records_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.jsonl");
        let mut metrics = Metrics::create(&path).unwrap();
        metrics.append(7, &json!({"loss": f64::NAN, "x": 0.1f64 + 0.2, "a": "\n"})).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"step\":7,\"a\":\"\\n\",\"loss\":null,\"x\":0.30000000000000004}\n");
        fs::write(&path, text + "{\"step\":8,\"lo").unwrap();
        let read = read_metrics(&path).unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!(read[0]["x"].as_f64(), Some(0.1 + 0.2));
        assert!(matches!(read_metrics(dir.path().join("none")), Err(Error::Io { .. })));
        assert!(matches!(Metrics::create(&path), Err(Error::Io { .. })));
    }

    #[test]
    fn bad_records_and_files_are_named_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.jsonl");
        let mut metrics = Metrics::create(&path).unwrap();
        metrics.append(4, &json!({})).unwrap();
        for (step, fields, part) in [
            (5, json!(3), "not an object: 3"),
            (5, json!({"step": 1}), "a `step` of its own"),
            (3, json!({}), "step 3 after one of step 4"),
        ] {
            let error = metrics.append(step, &fields).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"step\":4}\n");

        for (text, part) in [
            ("{\"step\":1}\nhello\n{\"step\":2}\n", "line 2: "),
            ("{\"loss\":1}\n", "line 1: no step"),
            ("{\"step\":-1}\n", "step is -1"),
            ("[1]\n", "line 1: "),
            ("\u{fffd}\u{0}\n", "line 1: "),
        ] {
            fs::write(&path, text).unwrap();
            let error = Metrics::resume(&path, 9).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn a_missing_line_end_is_mended_and_a_missing_file_started() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.jsonl");
        fs::write(&path, "{\"step\":1}\n{\"step\":2}").unwrap();
        Metrics::resume(&path, 2).unwrap().append(3, &json!({})).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n");
        fs::remove_file(&path).unwrap();
        Metrics::resume(&path, 2).unwrap();
        assert!(read_metrics(&path).unwrap().is_empty());
    }
}
