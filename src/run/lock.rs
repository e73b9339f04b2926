//! One writer per run folder.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use super::error::{Error, Result};

/// An exclusive lock on a file, which holds the number of the process for people to read.
///
/// The lock is the operating system's: it ends with the process however that ends, so the file of a dead process
/// stops nobody. The file itself stays, empty once the lock is given back; removing it would let two processes
/// lock two different files of one name.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

impl Lock {
    /// Locks `path`, creating it if need be, for the run folder `folder`.
    pub(super) fn take(path: &Path, folder: &Path) -> Result<Lock> {
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(Error::io(path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let read = file.read_to_string(&mut text);
                let holder = match (read, text.trim()) {
                    (Ok(_), pid) if pid.bytes().all(|b| b.is_ascii_digit()) && !pid.is_empty() => {
                        format!("process {pid}")
                    }
                    _ => "another process".into(),
                };
                return Err(Error::Locked { path: folder.to_path_buf(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(Error::io(path)(source)),
        }
        let lock = Lock { file };
        let write = |mut file: &File| -> std::io::Result<()> {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(format!("{}\n", std::process::id()).as_bytes())
        };
        write(&lock.file).map_err(Error::io(path))?;
        Ok(lock)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The lock itself goes when the file is closed; a name left in the file would do no harm either.
        self.file.set_len(0).ok();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn second_writer_is_told_who_holds_it_and_gets_it_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = Lock::take(&path, dir.path()).unwrap();
        let error = Lock::take(&path, dir.path()).unwrap_err();
        let me = format!("process {}", std::process::id());
        assert!(matches!(&error, Error::Locked { holder, .. } if *holder == me), "{error}");
        drop(first);
        Lock::take(&path, dir.path()).unwrap();
    }

    #[test]
    fn what_a_dead_process_left_in_the_file_does_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        for stale in ["4711\n", "", "not a number", "\u{0}\u{0}"] {
            std::fs::write(&path, stale).unwrap();
            let lock = Lock::take(&path, dir.path()).unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(text.trim(), std::process::id().to_string(), "{stale:?}");
            drop(lock);
        }
    }
}
