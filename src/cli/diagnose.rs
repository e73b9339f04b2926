//! `retrograd diagnose`: looks inside a trained network.

use std::path::PathBuf;

use retrograd::diagnose::{FOLDER, Options, diagnose};
use retrograd::run::{BEST, LAST};
use retrograd::train::SNAPSHOTS;
use serde_json::{Map, Value, json};

use super::{Output, Report, Result, parse};

const EXAMPLES: &str = "\
Numbers (JSON, CSV) and pictures (SVG) go to the folder `diagnose` of the run: gradients and Jacobians over time, spectra
of recurrent matrices over checkpoints, the equilibrium of iRNN, memories over time, Lyapunov exponents. Set
snapshots=N when training to keep a checkpoint every N updates.

Examples:
  retrograd diagnose runs/copy-nru-1
  retrograd diagnose runs/mnist-irnn-1 --rows 2 --steps 200
  retrograd diagnose runs/copy-kru-1 --last --json
  retrograd diagnose runs/adding-irnn-1 --at 100";

/// Arguments of `retrograd diagnose`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Folder of the run
    run: PathBuf,
    /// The newest checkpoint instead of the best on validation
    #[arg(long)]
    last: bool,
    /// The checkpoint that was kept after so many updates (of a run with snapshots=N)
    #[arg(long, value_name = "UPDATES", conflicts_with = "last")]
    at: Option<u64>,
    /// Rows of the batch of test data
    #[arg(long, default_value = "8", value_parser = parse::positive)]
    rows: usize,
    /// Most steps of it
    #[arg(long, default_value = "1000", value_parser = parse::positive)]
    steps: usize,
    /// Random directions that norms of Jacobians are estimated by
    #[arg(long, default_value = "64", value_parser = parse::positive)]
    samples: usize,
    /// Number of Lyapunov exponents
    #[arg(long, default_value = "6", value_parser = parse::positive)]
    exponents: usize,
    /// Folder of the data files
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &Args, out: &Output) -> Result<Report> {
    let options = Options {
        checkpoint: match args.at {
            Some(updates) => format!("{SNAPSHOTS}/{updates}.safetensors"),
            None => if args.last { LAST } else { BEST }.to_string(),
        },
        data: args.data.clone(),
        rows: args.rows,
        steps: args.steps,
        samples: args.samples,
        exponents: args.exponents,
    };
    let findings = diagnose(&args.run, &options)?;
    let mut measures = Map::new();
    for (name, found) in &findings.measures {
        let value = match &found.left_out {
            Some(why) => {
                out.line(format!("{name:<12} left out: {why}"));
                json!({ "left_out": why })
            }
            None => {
                for (i, line) in found.lines.iter().enumerate() {
                    out.line(format!("{:<12} {line}", if i == 0 { name } else { "" }));
                }
                Value::Object(found.numbers.clone())
            }
        };
        measures.insert((*name).into(), value);
    }
    out.line(format!("{} files in {}", findings.files.len(), args.run.join(FOLDER).display()));
    Ok(Report::new(json!({
        "run": args.run, "checkpoint": options.checkpoint, "measures": measures, "files": findings.files,
    })))
}
