//! The program: one file per command.
//!
//! A command is a file with its `Args` (a [`clap::Args`] whose help ends with examples) and
//! `run(&Args, &Output) -> Result<Report>`, its `mod` line and its line in [`Command`]. It prints for people with
//! [`Output::line`] and returns what `--json` prints. Errors are the library's; the program prints them in one line.

mod bench;
mod completions;
mod data;
#[cfg(feature = "cuda")]
mod device;
mod diagnose;
mod eval;
mod explain;
mod gradcheck;
mod lengths;
mod list;
mod live;
mod network;
mod output;
mod parse;
mod plan;
mod profile;
mod reproduce;
mod reproduce_kfac;
mod rounding;
#[cfg(feature = "cuda")]
mod sequence;
mod tour;
mod tradeoff;
mod train;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub(crate) use output::{Output, Report};

/// Result of a command.
pub(crate) type Result<T, E = retrograd::Error> = std::result::Result<T, E>;

const ABOUT: &str = "Reverse-mode differentiation that walks backwards in time: trains recurrent networks, \
                     plans their memory, checks their gradients.";

const EXAMPLES: &str = "\
Without a command, retrograd trains a Kronecker recurrent unit on the adding problem, in about a minute.

Examples:
  retrograd
  retrograd train jsb --cell kru
  retrograd train jsb --cell lstm --operator kron --budget 64MiB
  retrograd list tasks";

/// The command line.
#[derive(Parser)]
#[command(name = "retrograd", version, about = ABOUT, after_help = EXAMPLES, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Print one JSON object, as the last line of standard output, and nothing else there
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Train a network on a task
    Train(train::Args),
    /// Evaluate a trained network
    Eval(eval::Args),
    /// Look inside a trained network: gradients over time, spectra, equilibria, memories
    Diagnose(diagnose::Args),
    /// List cells, operators, optimizers, schedules, tasks, ... with one line each
    List(list::Args),
    /// Show the plan of a network: phases, buffers, what is kept or rebuilt, where time goes
    Explain(explain::Args),
    /// Check gradients of ops, cells and operators against finite differences
    Gradcheck(gradcheck::Args),
    /// Measure seconds, bytes and flops of a cell, and what the time goes to
    Bench(bench::Args),
    /// Compare as papers do: cells of equal size, K-FAC against other optimisers
    Reproduce(reproduce::Args),
    /// List the data sets, where they are published, and fetch the free ones
    Data(data::Args),
    /// Show the GPU, and time the kernels that run whole sequences on it
    #[cfg(feature = "cuda")]
    Device(device::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
}

/// Reads the command line, runs the command, prints.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return output::usage(&error),
    };
    let out = Output::new(cli.json);
    let result = match &cli.command {
        None => tour::run(&out),
        Some(Command::Train(args)) => train::run(args, &out),
        Some(Command::Eval(args)) => eval::run(args, &out),
        Some(Command::Diagnose(args)) => diagnose::run(args, &out),
        Some(Command::List(args)) => list::run(args, &out),
        Some(Command::Explain(args)) => explain::run(args, &out),
        Some(Command::Gradcheck(args)) => gradcheck::run(args, &out),
        Some(Command::Bench(args)) => bench::run(args, &out),
        Some(Command::Reproduce(args)) => reproduce::run(args, &out),
        Some(Command::Data(args)) => data::run(args, &out),
        #[cfg(feature = "cuda")]
        Some(Command::Device(args)) => device::run(args, &out),
        Some(Command::Completions(args)) => completions::run(args, &out),
    };
    out.finish(result)
}
