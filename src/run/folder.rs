//! The folder of a run.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;

use super::atomic::{is_temporary, write_atomic};
use super::error::{Error, Result};
use super::lock::Lock;

/// The exact configuration of the run, JSON.
pub const CONFIG: &str = "config.json";
/// One JSON object per line and record.
pub const METRICS: &str = "metrics.jsonl";
/// The newest checkpoint.
pub const LAST: &str = "last.safetensors";
/// The checkpoint before [`LAST`], should that one be lost.
pub const PREVIOUS: &str = "previous.safetensors";
/// The checkpoint that was best on validation.
pub const BEST: &str = "best.safetensors";
/// Learning curves.
pub const CURVES: &str = "curves.svg";
/// Locked by the process that writes the run.
pub const LOCK: &str = ".lock";

/// A run folder that this process, and no other, writes to as long as this value lives.
///
/// ```
/// use retrograd::run::RunFolder;
/// # let parent = tempfile::tempdir()?;
/// # let parent = parent.path().join("runs");
/// let folder = RunFolder::create_numbered(&parent, "adding", "kru")?;
/// assert!(folder.path().ends_with("adding-kru-1"));
/// folder.write_config(&serde_json::json!({"task": "adding", "lr": 0.001}))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    _lock: Lock,
}

impl RunFolder {
    /// Makes `path` the folder of a new run. It may exist if it is empty; its parent must exist.
    ///
    /// Errors: [`Error::RunFolder`] for a folder with anything in it (nothing of it is touched), something that
    /// is not a folder, or a missing parent; [`Error::Locked`]; [`Error::Io`] where writing is not possible.
    pub fn create(path: impl Into<PathBuf>) -> Result<RunFolder> {
        let path = path.into();
        match fs::create_dir(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::AlreadyExists => refuse_used(&path)?,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(Error::run_folder(&path, "the folder it should be in does not exist"));
            }
            Err(e) => return Err(Error::io(&path)(e)),
        }
        let folder = RunFolder::lock(path)?;
        // Once more: another process may have made and finished a run here before the lock was taken.
        refuse_used(&folder.path)?;
        Ok(folder)
    }

    /// Makes the folder `<parent>/<task>-<cell>-<n>` with the number after the highest one there, `parent` too
    /// if it is missing. Characters of the names that do not belong into file names become `-`.
    pub fn create_numbered(parent: impl AsRef<Path>, task: &str, cell: &str) -> Result<RunFolder> {
        let parent = parent.as_ref();
        fs::create_dir_all(parent).map_err(Error::io(parent))?;
        let stem = format!("{}-{}-", file_name(task), file_name(cell));
        let mut number = 1;
        for entry in fs::read_dir(parent).map_err(Error::io(parent))? {
            let name = entry.map_err(Error::io(parent))?.file_name();
            let taken = name.to_str().and_then(|n| n.strip_prefix(&stem)).and_then(|n| n.parse::<u32>().ok());
            number = number.max(taken.map_or(1, |n| n.saturating_add(1)));
        }
        loop {
            let path = parent.join(format!("{stem}{number}"));
            match fs::create_dir(&path) {
                Ok(()) => return RunFolder::lock(path),
                // Another process was quicker.
                Err(e) if e.kind() == ErrorKind::AlreadyExists && number < u32::MAX => number += 1,
                Err(e) => return Err(Error::io(&path)(e)),
            }
        }
    }

    /// Takes over the folder of a run that ended or was killed, and removes temporary files it left.
    ///
    /// Errors: [`Error::RunFolder`] for a folder that is missing or holds no configuration; [`Error::Locked`]
    /// while the run is still going on; [`Error::Io`] where writing is not possible.
    pub fn resume(path: impl Into<PathBuf>) -> Result<RunFolder> {
        let path = path.into();
        require_run(&path)?;
        let folder = RunFolder::lock(path)?;
        for (name, path) in entries(&folder.path)? {
            if is_temporary(&name) {
                fs::remove_file(&path).map_err(Error::io(&path))?;
            }
        }
        Ok(folder)
    }

    fn lock(path: PathBuf) -> Result<RunFolder> {
        let lock = Lock::take(&path.join(LOCK), &path)?;
        Ok(RunFolder { path, _lock: lock })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Path of the file `name` in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes the configuration, atomically.
    pub fn write_config(&self, config: &Value) -> Result<()> {
        write_atomic(self.file(CONFIG), format!("{config:#}\n").as_bytes())
    }

    /// Reads the configuration; see [`read_config`].
    pub fn config(&self) -> Result<Value> {
        read_config(&self.path)
    }
}

/// The configuration of the run in `folder`, whether or not it is still going on. Numbers come back to the same
/// bits. Errors: [`Error::RunFolder`] for a folder that is not one of a run, and for a file that is not JSON.
pub fn read_config(folder: impl AsRef<Path>) -> Result<Value> {
    let folder = folder.as_ref();
    require_run(folder)?;
    let path = folder.join(CONFIG);
    let text = fs::read(&path).map_err(Error::io(&path))?;
    serde_json::from_slice(&text).map_err(|e| Error::run_folder(folder, format!("{CONFIG} is not JSON: {e}")))
}

/// The run in `parent` that was started last. Errors: [`Error::RunFolder`] if there is none.
pub fn latest_run(parent: impl AsRef<Path>) -> Result<PathBuf> {
    let parent = parent.as_ref();
    let mut latest: Option<(SystemTime, PathBuf)> = None;
    for (_, path) in entries(parent)? {
        let Ok(started) = fs::metadata(path.join(CONFIG)).and_then(|m| m.modified()) else { continue };
        // Equal times happen on coarse clocks: then the later name, with numbers compared as numbers.
        let newer =
            latest.as_ref().is_none_or(|(time, other)| (started, numbered(&path)) > (*time, numbered(other)));
        if newer {
            latest = Some((started, path));
        }
    }
    latest.map(|(_, path)| path).ok_or_else(|| Error::run_folder(parent, "no run in it"))
}

/// Name without its trailing number, and the number.
fn numbered(path: &Path) -> (String, u32) {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match name.rsplit_once('-').and_then(|(stem, n)| Some((stem.to_owned(), n.parse().ok()?))) {
        Some(parts) => parts,
        None => (name, 0),
    }
}

fn file_name(text: &str) -> String {
    let keep = |c: char| c.is_ascii_alphanumeric() || "_-.+".contains(c);
    let name: String = text.chars().map(|c| if keep(c) { c } else { '-' }).collect();
    // A leading dot would hide the folder, or leave the parent.
    name.trim_start_matches('.').to_owned()
}

fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut all = Vec::new();
    let list = fs::read_dir(folder).map_err(|e| match e.kind() {
        ErrorKind::NotFound => Error::run_folder(folder, "does not exist"),
        ErrorKind::NotADirectory => Error::run_folder(folder, "not a folder"),
        _ => Error::io(folder)(e),
    })?;
    for entry in list {
        let entry = entry.map_err(Error::io(folder))?;
        all.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    all.sort();
    Ok(all)
}

/// Errors if anything but a lock and leftovers of a start that never got to its configuration is in the folder.
fn refuse_used(path: &Path) -> Result<()> {
    match entries(path)?.iter().find(|(name, _)| name != LOCK && !is_temporary(name)) {
        None => Ok(()),
        Some((name, _)) if path.join(CONFIG).exists() && name != CONFIG => refuse(path, CONFIG),
        Some((name, _)) => refuse(path, name),
    }
}

fn refuse(path: &Path, name: &str) -> Result<()> {
    let what = if name == CONFIG { "there is a run in it already" } else { "not empty" };
    Err(Error::run_folder(path, format!("{what} (found {name}); resume it or name another folder")))
}

fn require_run(path: &Path) -> Result<()> {
    match fs::metadata(path) {
        Ok(m) if !m.is_dir() => Err(Error::run_folder(path, "not a folder")),
        Ok(_) if !path.join(CONFIG).is_file() => {
            Err(Error::run_folder(path, format!("no run in it (no {CONFIG})")))
        }
        Ok(_) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => Err(Error::run_folder(path, "does not exist")),
        Err(e) => Err(Error::io(path)(e)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reason<T: std::fmt::Debug>(result: Result<T>) -> String {
        match result.unwrap_err() {
            Error::RunFolder { reason, .. } => reason,
            other => format!("another error: {other:?}"),
        }
    }

    #[test]
    fn refuses_what_is_not_an_empty_folder() {
        let dir = tempfile::tempdir().unwrap();
        let used = dir.path().join("used");
        fs::create_dir(&used).unwrap();
        fs::write(used.join("thesis.tex"), "precious").unwrap();
        assert!(reason(RunFolder::create(&used)).contains("not empty (found thesis.tex)"));
        assert_eq!(entries(&used).unwrap().len(), 1, "nothing may be added to somebody's folder");

        assert!(reason(RunFolder::create(used.join("thesis.tex"))).contains("not a folder"));
        assert!(reason(RunFolder::create(dir.path().join("no/where"))).contains("does not exist"));
        assert!(matches!(RunFolder::create(used.join("thesis.tex/x")), Err(Error::Io { .. })));

        let empty = dir.path().join("empty");
        fs::create_dir(&empty).unwrap();
        let folder = RunFolder::create(&empty).unwrap();
        folder.write_config(&json!({})).unwrap();
        drop(folder);
        assert!(reason(RunFolder::create(&empty)).contains("a run in it already"));
    }

    #[test]
    fn a_start_that_died_before_its_configuration_is_no_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        drop(RunFolder::create(&path).unwrap());
        fs::write(path.join(".config.json.x1y2.tmp"), "{").unwrap();
        assert!(reason(RunFolder::resume(&path)).contains("no config.json"));
        RunFolder::create(&path).unwrap();
    }

    #[test]
    fn resume_takes_over_and_tidies() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let config = json!({"lr": 0.1f64 + 0.2, "seed": u64::MAX, "tiny": 5e-324});
        let folder = RunFolder::create(&path).unwrap();
        folder.write_config(&config).unwrap();
        assert!(matches!(RunFolder::resume(&path), Err(Error::Locked { .. })));
        drop(folder);
        fs::write(path.join(".last.safetensors.q.tmp"), "half").unwrap();
        let folder = RunFolder::resume(&path).unwrap();
        assert_eq!(folder.config().unwrap(), config);
        assert!(!path.join(".last.safetensors.q.tmp").exists());

        assert!(reason(RunFolder::resume(dir.path().join("none"))).contains("does not exist"));
        assert!(reason(RunFolder::resume(path.join(CONFIG))).contains("not a folder"));
        fs::write(path.join(CONFIG), "{\"lr\": ").unwrap();
        assert!(reason(read_config(&path)).contains("config.json is not JSON"));
    }

    #[test]
    fn numbers_count_on_from_the_highest() {
        let dir = tempfile::tempdir().unwrap();
        let runs = dir.path().join("runs");
        assert!(reason(latest_run(&runs)).contains("does not exist"));
        let name = |f: &RunFolder| f.path().file_name().unwrap().to_str().unwrap().to_owned();
        let first = RunFolder::create_numbered(&runs, "copy", "kru").unwrap();
        assert_eq!(name(&first), "copy-kru-1");
        assert!(reason(latest_run(&runs)).contains("no run"));
        fs::create_dir(runs.join("copy-kru-9")).unwrap();
        fs::create_dir(runs.join("copy-kru-x")).unwrap();
        let next = RunFolder::create_numbered(&runs, "copy", "kru").unwrap();
        assert_eq!(name(&next), "copy-kru-10");
        let other = RunFolder::create_numbered(&runs, "../a b", "c/d").unwrap();
        assert_eq!(name(&other), "-a-b-c-d-1");
        assert_eq!(other.path().parent().unwrap(), runs);

        next.write_config(&json!({})).unwrap();
        assert_eq!(latest_run(&runs).unwrap(), next.path());
        other.write_config(&json!({})).unwrap();
        let late = SystemTime::now() + std::time::Duration::from_secs(60);
        fs::File::options().write(true).open(other.file(CONFIG)).unwrap().set_modified(late).unwrap();
        assert_eq!(latest_run(&runs).unwrap(), other.path());
    }

    #[test]
    fn equal_times_are_decided_by_number() {
        assert!(numbered(Path::new("runs/copy-kru-10")) > numbered(Path::new("runs/copy-kru-9")));
        assert_eq!(numbered(Path::new("mine")), ("mine".into(), 0));
    }
}
