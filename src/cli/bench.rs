//! `retrograd bench`.

use retrograd::Error;

use super::{Output, Report, Result};

/// Arguments of `retrograd bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Runs the command.
pub(crate) fn run(_: &Args, _: &Output) -> Result<Report> {
    Err(Error::config("bench", "this build lacks the command"))
}
