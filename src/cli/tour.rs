//! `retrograd` alone.

use retrograd::Error;

use super::{Output, Report, Result};

/// Runs the main job.
pub(crate) fn run(_: &Output) -> Result<Report> {
    Err(Error::config("retrograd", "this build lacks the command"))
}
