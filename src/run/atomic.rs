//! Replacing a file so that a reader, and a power cut, see either the old one or the new one.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::error::{Error, Result};

/// Ending of temporary files; they start with a dot and the name of the file they are to become.
const TEMPORARY: &str = ".tmp";

/// Replaces (or creates) the file `path` with `bytes`: writes a temporary file beside it, flushes it to the
/// disk, and renames it.
///
/// Whatever goes wrong before the rename, the old file is as it was and the temporary one is removed.
/// Errors: [`Error::Io`] with `path`, for a missing or unwritable folder and a full disk alike.
pub fn write_atomic(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    Staged::write(path.as_ref(), bytes)?.commit()
}

/// A complete new version of a file, on disk under a temporary name.
pub(super) struct Staged {
    path: PathBuf,
    temporary: NamedTempFile,
}

impl Staged {
    /// Writes and flushes `bytes` beside `path`.
    pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<Staged> {
        let temporary = stage(path, bytes).map_err(Error::io(path))?;
        Ok(Staged { path: path.to_path_buf(), temporary })
    }

    /// Gives the new version its name.
    pub(super) fn commit(self) -> Result<()> {
        let Staged { path, temporary } = self;
        temporary.persist(&path).map_err(|e| Error::io(&path)(e.error))?;
        sync_folder(folder_of(&path)).map_err(Error::io(&path))
    }
}

fn stage(path: &Path, bytes: &[u8]) -> io::Result<NamedTempFile> {
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the name of a file"));
    };
    let prefix = format!(".{}.", name.to_string_lossy());
    // Opened here, not by `tempfile`, so that the file is as readable as any other new one (less the umask) and an
    // error is the system's alone, without the name of the temporary file.
    let mut temporary = tempfile::Builder::new()
        .prefix(&prefix)
        .suffix(TEMPORARY)
        .make_in(folder_of(path), |path| File::options().write(true).create_new(true).open(path))?;
    temporary.as_file_mut().write_all(bytes)?;
    temporary.as_file().sync_all()?;
    Ok(temporary)
}

/// The folder a file is in, `.` for a bare name.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes renames in `folder` last through a power cut, where the system has a way to ask for that.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Whether this is the name of a temporary file of [`write_atomic`], left behind by a killed process.
pub(super) fn is_temporary(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(TEMPORARY)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn replaces_and_leaves_nothing_else() -> Result<()> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        write_atomic(&path, b"one")?;
        write_atomic(&path, b"second")?;
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(names(dir.path()), ["config.json"]);
        Ok(())
    }

    #[test]
    fn a_version_that_is_never_committed_changes_nothing() -> Result<()> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write_atomic(&path, b"good")?;
        let staged = Staged::write(&path, b"half")?;
        assert!(names(dir.path()).iter().any(|n| is_temporary(n)));
        drop(staged);
        assert_eq!(fs::read(&path).unwrap(), b"good");
        assert_eq!(names(dir.path()), ["a"]);
        Ok(())
    }

    #[test]
    fn errors_carry_the_path_and_the_reason_of_the_system() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("no").join("a");
        let error = write_atomic(&missing, b"").unwrap_err();
        assert!(
            matches!(&error, Error::Io { path, source } if *path == missing && source.kind() == io::ErrorKind::NotFound),
            "{error:?}"
        );
        let plain = File::open(&missing).unwrap_err().to_string();
        assert_eq!(error.to_string(), format!("{}: {plain}", missing.display()));

        fs::write(dir.path().join("file"), b"").unwrap();
        let under_file = dir.path().join("file").join("a");
        let error = write_atomic(&under_file, b"").unwrap_err();
        assert!(matches!(&error, Error::Io { path, .. } if *path == under_file), "{error:?}");

        let error = write_atomic(dir.path(), b"over a folder").unwrap_err();
        assert!(matches!(&error, Error::Io { path, .. } if path == dir.path()), "{error:?}");
        assert!(matches!(write_atomic("..", b""), Err(Error::Io { .. })));
    }
}
