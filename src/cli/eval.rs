//! `retrograd eval`: judges a trained network.

use std::path::PathBuf;

use clap::ValueEnum;
use retrograd::Error;
use retrograd::datasets::Split;
use retrograd::run::{BEST, LAST};
use retrograd::train::{Trainer, load_model, stored_config};
use serde_json::json;

use super::{Output, Report, Result, live, parse};

const EXAMPLES: &str = "\
Examples:
  retrograd eval runs/jsb-kru-1
  retrograd eval runs/jsb-kru-1 --split valid --checkpoint last --json";

/// Arguments of `retrograd eval`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Folder of the run
    run: PathBuf,
    /// Part of the data
    #[arg(long, value_enum, default_value = "test")]
    split: Part,
    /// Best on validation, or newest
    #[arg(long, value_enum, default_value = "best")]
    checkpoint: Which,
    /// Folder of the data files
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Most memory of one program, as 64MiB, 1GB or 500k; does not change results
    #[arg(long, value_parser = parse::bytes)]
    budget: Option<usize>,
    /// Threads; does not change results
    #[arg(long, value_parser = parse::positive)]
    threads: Option<usize>,
    #[command(flatten)]
    place: parse::Place,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Part {
    Train,
    Valid,
    Test,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Which {
    Best,
    Last,
}

/// Runs the command.
pub(crate) fn run(args: &Args, out: &Output) -> Result<Report> {
    let mut config = stored_config(&args.run)?;
    config.data = args.data.clone().or(config.data);
    config.budget = args.budget.or(config.budget);
    config.threads = args.threads.or(config.threads);
    let split = match args.split {
        Part::Train => Split::Train,
        Part::Valid => Split::Valid,
        Part::Test => Split::Test,
    };
    let file = args.run.join(match args.checkpoint {
        Which::Best => BEST,
        Which::Last => LAST,
    });
    if !file.exists() {
        let other = match args.checkpoint {
            Which::Best => "; no evaluation yet? --checkpoint last takes the newest",
            Which::Last => "",
        };
        return Err(Error::run_folder(&args.run, format!("no {}{other}", file.display())));
    }
    let mut trainer = Trainer::on(config, args.place.engine()?)?;
    load_model(&mut trainer, &file)?;
    let evaluation = trainer.evaluate(split, None)?;
    let task = trainer.task();
    let metric = task.metric.name();
    let baseline = task.baseline.and_then(|loss| task.metric.from_mean_loss(loss));
    let beside = baseline.map_or(String::new(), |b| format!("   baseline {}", live::number(b)));
    out.line(format!("{split} {metric} {}{beside}", live::number(evaluation.metric)));
    out.line(format!("mean loss {} over {} positions", live::number(evaluation.loss), evaluation.count));
    Ok(Report::new(json!({
        "run": args.run, "checkpoint": file, "split": split.name(), "metric": metric,
        "value": evaluation.metric, "loss": evaluation.loss, "count": evaluation.count, "baseline": baseline,
    })))
}
