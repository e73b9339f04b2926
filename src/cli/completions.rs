//! `retrograd completions`: a script that teaches a shell the program's commands and options.

use clap::CommandFactory;
use clap_complete::{Shell, generate};
use serde_json::json;

use super::{Cli, Output, Report, Result};

const EXAMPLES: &str = "\
Examples:
  retrograd completions bash > ~/.local/share/bash-completion/completions/retrograd
  retrograd completions fish > ~/.config/fish/completions/retrograd.fish";

/// Arguments of `retrograd completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Shell to write the script for
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(args: &Args, out: &Output) -> Result<Report> {
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "retrograd", &mut script);
    let script = String::from_utf8_lossy(&script);
    out.line(script.trim_end());
    Ok(Report::new(json!({ "shell": args.shell.to_string(), "script": script })))
}
