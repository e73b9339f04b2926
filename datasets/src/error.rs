//! Errors of the tasks, their options and their files.

use std::path::PathBuf;

/// Result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong. Every variant names the culprit and the values that do not fit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A task name that is not in the table.
    #[error("unknown task `{name}`{}", suggestion(.nearest))]
    UnknownTask {
        /// Name that came.
        name: String,
        /// Known name that looks most like it.
        nearest: Option<&'static str>,
    },
    /// An option key that the task does not have.
    #[error("task {task}: unknown option `{key}`{}, known: {known}", suggestion(.nearest))]
    UnknownOption {
        /// Task.
        task: &'static str,
        /// Key that came.
        key: String,
        /// Known key that looks most like it.
        nearest: Option<&'static str>,
        /// Every known key, separated by commas.
        known: String,
    },
    /// An option value that does not fit.
    #[error("task {task}: option `{key}` is `{value}`, expected {expected}")]
    BadOption {
        /// Task.
        task: &'static str,
        /// Key.
        key: &'static str,
        /// Value that came.
        value: String,
        /// What would fit.
        expected: String,
    },
    /// A batch that does not exist.
    #[error("task {task}: {what}")]
    Request {
        /// Task.
        task: &'static str,
        /// What is wrong, with both values.
        what: String,
    },
    /// A data file that is nowhere.
    #[error("data file `{file}` not found, looked at {}; {advice}", list(.looked))]
    Missing {
        /// Path inside the data folder.
        file: String,
        /// Every place looked at, in order.
        looked: Vec<PathBuf>,
        /// What to do about it.
        advice: String,
    },
    /// A data file whose content is not what its format says.
    #[error("{}: {reason}", .file.display())]
    Data {
        /// File.
        file: PathBuf,
        /// What is wrong, with both values.
        reason: String,
    },
    /// A file that cannot be read or written.
    #[error("{}: cannot {action}: {source}", .file.display())]
    Io {
        /// File.
        file: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A download that failed.
    #[error("{url}: {what}")]
    Fetch {
        /// Address.
        url: String,
        /// What went wrong, with both values.
        what: String,
    },
    /// An error of the engine.
    #[error(transparent)]
    Engine(#[from] retrograd_engine::Error),
}

impl Error {
    /// Shorthand for [`Error::Data`].
    pub fn data(file: impl Into<PathBuf>, reason: impl Into<String>) -> Error {
        Error::Data { file: file.into(), reason: reason.into() }
    }

    /// Shorthand for [`Error::Io`].
    pub fn io(file: impl Into<PathBuf>, action: &'static str, source: std::io::Error) -> Error {
        Error::Io { file: file.into(), action, source }
    }
}

fn suggestion(nearest: &Option<&'static str>) -> String {
    nearest.map_or(String::new(), |name| format!(", did you mean `{name}`?"))
}

fn list(places: &[PathBuf]) -> String {
    places.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// The known name that looks most like `name`, if any looks like it at all.
pub(crate) fn nearest(name: &str, known: impl IntoIterator<Item = &'static str>) -> Option<&'static str> {
    let lower = name.to_lowercase();
    known
        .into_iter()
        .map(|k| (k, strsim::jaro_winkler(&lower, &k.to_lowercase())))
        .filter(|&(_, likeness)| likeness > 0.7)
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(k, _)| k)
}
