//! Errors of the library as a whole.

use std::path::{Path, PathBuf};

/// Result of the library's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong while training, or reading and writing a run.
///
/// Every message is one line that names the culprit and the reason, the system's reason included, so a program
/// need print nothing but the error itself. `source` leads to the cause for code that wants to look at it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file or folder: missing, not permitted, disk full.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A checkpoint that is truncated, malformed, or lacks what was asked for.
    #[error("checkpoint {}: {reason}", file.display())]
    Checkpoint {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A value of the configuration that is unknown or out of range.
    #[error("configuration `{key}`: {reason}")]
    Config {
        /// Key of the value.
        key: String,
        /// What is wrong, with both values.
        reason: String,
    },
    /// A folder that cannot be used for the run as asked.
    #[error("run folder {}: {reason}", path.display())]
    RunFolder {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A run folder that another living process is writing.
    #[error("run folder {}: in use by {holder}", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// Who holds it, in words (`process 4711`).
        holder: String,
    },
    /// A metrics file, or a record for one, that is not as it should be.
    #[error("metrics {}: {reason}", file.display())]
    Metrics {
        /// The file.
        file: PathBuf,
        /// What is wrong, with the line.
        reason: String,
    },
    /// Numbers that are not finite, where the policy is to stop or did not help.
    #[error("step {step}: {what}; {kept}")]
    NonFinite {
        /// Update at which training stopped, counted from 1; it was not made.
        step: u64,
        /// What is not finite, with the policy.
        what: String,
        /// What is left of the run, and what to change.
        kept: String,
    },
    /// An error of the engine.
    #[error(transparent)]
    Engine(#[from] retrograd_engine::Error),
    /// An error of a model's description.
    #[error(transparent)]
    Cells(#[from] retrograd_cells::Error),
    /// An error of an optimiser or of what surrounds it.
    #[error(transparent)]
    Optim(#[from] retrograd_optim::Error),
    /// An error of a task, its options or its data.
    #[error(transparent)]
    Datasets(#[from] retrograd_datasets::Error),
    /// An error of a GPU, or that there is none.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Cuda(#[from] retrograd_cuda::Error),
}

impl Error {
    /// Shorthand for [`Error::Io`], to be given to `map_err`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Io { path: path.as_ref().to_path_buf(), source }
    }

    /// Shorthand for [`Error::Checkpoint`].
    pub fn checkpoint(file: impl AsRef<Path>, reason: impl ToString) -> Error {
        Error::Checkpoint { file: file.as_ref().to_path_buf(), reason: reason.to_string() }
    }

    /// Shorthand for [`Error::Config`].
    pub fn config(key: impl Into<String>, reason: impl ToString) -> Error {
        Error::Config { key: key.into(), reason: reason.to_string() }
    }

    /// Shorthand for [`Error::RunFolder`].
    pub fn run_folder(path: impl AsRef<Path>, reason: impl ToString) -> Error {
        Error::RunFolder { path: path.as_ref().to_path_buf(), reason: reason.to_string() }
    }

    /// Shorthand for [`Error::Metrics`].
    pub fn metrics(file: impl AsRef<Path>, reason: impl ToString) -> Error {
        Error::Metrics { file: file.as_ref().to_path_buf(), reason: reason.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn messages_are_one_line_and_name_culprit_and_reason() {
        let full = std::io::Error::new(std::io::ErrorKind::StorageFull, "no space left on device");
        let engine = retrograd_engine::Error::argument("scan", "0 steps");
        let cases = [
            (Error::io("a/b.json")(full), "a/b.json: no space left on device"),
            (
                Error::checkpoint("c.safetensors", "header too large"),
                "checkpoint c.safetensors: header too large",
            ),
            (Error::config("lr", "-1 is not positive"), "configuration `lr`: -1 is not positive"),
            (Error::run_folder("runs/x", "not empty"), "run folder runs/x: not empty"),
            (Error::metrics("m.jsonl", "line 3: no step"), "metrics m.jsonl: line 3: no step"),
            (Error::from(engine), "scan: 0 steps"),
        ];
        for (error, message) in cases {
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn the_system_error_is_the_source() {
        let error = Error::io("x")(std::io::ErrorKind::PermissionDenied.into());
        assert!(error.source().is_some_and(|s| s.is::<std::io::Error>()));
    }
}
