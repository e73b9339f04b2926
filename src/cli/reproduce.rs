//! `retrograd reproduce`: comparisons that papers make, in one command.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ValueEnum;
use retrograd::Error;
use retrograd::reproduce::{
    CONTESTANTS, Contestant, MEMORY_TASKS, Outcome, PARAMETERS, Sized, contestant_config, outcome, picture,
    quickest, table, trials,
};
use retrograd::run::progress::Mode;
use retrograd::run::{CONFIG, RunFolder, write_atomic};
use retrograd::train::{RESULT, Session, TrainConfig, Trainer};
use serde_json::{Value, json};

use super::{Output, Report, Result, live, parse, reproduce_kfac};

const EXAMPLES: &str = "\
cells: all cells with as many parameters on copying (T = 200), adding (T = 200) and denoising (T = 100): updates until the
validation loss is a tenth of the baseline. Every network is trained as it was published on the task; one that was not, at
two rates, of which the better counts. A run that is there is gone on with, or read if it is at its end, so the command may
be stopped at any time and given again. Each task leaves TASK.md and TASK.svg.

kfac: K-FAC, as it comes and with each of its three approximations, against tuned SGD with momentum, RMSprop and Adam:
training loss by update and by processor time, updates to Adam's last loss. Runs that are there are read. Each task leaves
TASK.md, TASK-updates.svg and TASK-seconds.svg. Task `cost` times updates of LSTMs with each optimiser.

Examples:
  retrograd reproduce cells
  retrograd reproduce cells --task denoise --only NRU --only GRU --updates 2000 --out runs/cells
  retrograd reproduce cells --task adding --set lr=1e-3 --out runs/slower
  retrograd reproduce cells --read
  retrograd reproduce cells --json
  retrograd reproduce kfac --task rowmnist-rnn
  retrograd reproduce kfac --task ptbchar-lstm --threads 1 --only Adam --only K-FAC-option2 --updates 100
  retrograd reproduce kfac --task cost";

/// What was left where a run cannot go on.
const STOPPED: &str = "stopped.txt";

/// Arguments of `retrograd reproduce`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Comparison
    #[arg(value_enum)]
    what: What,
    /// A task of it; all if left out
    #[arg(long)]
    pub(super) task: Option<String>,
    /// A network (cells) or an optimiser (kfac) of it, as the table names it; may be given several times
    #[arg(long)]
    pub(super) only: Vec<String>,
    /// Parameters of every network (cells)
    #[arg(long, default_value_t = PARAMETERS, value_parser = parse::positive)]
    parameters: usize,
    /// Most updates of a run [default: 20000 for cells, the problem's own for kfac]
    #[arg(long, value_parser = parse::positive)]
    pub(super) updates: Option<usize>,
    /// Trains nothing: tables and pictures of the runs that are there, whatever number of updates they made (cells)
    #[arg(long)]
    read: bool,
    /// Seed of first parameters and of the sequences
    #[arg(long, default_value = "1")]
    pub(super) seed: u64,
    /// Folder of the data files (kfac)
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
    /// A setting other than its default: of every network (cells), of K-FAC (kfac); may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) set: Vec<String>,
    /// Threads; does not change results
    #[arg(long, value_parser = parse::positive)]
    pub(super) threads: Option<usize>,
    /// Folder of the runs, tables and pictures [default: runs/cells, runs/kfac]
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// No progress line
    #[arg(long)]
    pub(super) quiet: bool,
}

/// Updates of a network that never gets there.
const MOST_UPDATES: u64 = 20_000;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// All cells on three memory tasks
    Cells,
    /// K-FAC against first-order optimisers
    Kfac,
}

/// Runs the command.
pub(crate) fn run(args: &Args, out: &Output) -> Result<Report> {
    match args.what {
        What::Cells => cells(args, out),
        What::Kfac => reproduce_kfac::run(args, out),
    }
}

impl Args {
    /// Rows of a table that `--only` names; all of them if it names none. Errors: a name that no row has.
    pub(super) fn only<'a, T>(
        &self,
        table: &'a [T],
        name: impl Fn(&T) -> &'static str,
    ) -> Result<Vec<&'a T>> {
        if let Some(asked) = self.only.iter().find(|o| !table.iter().any(|t| name(t).eq_ignore_ascii_case(o)))
        {
            return Err(unknown("only", asked, table.iter().map(name)));
        }
        let named =
            |t: &&T| self.only.is_empty() || self.only.iter().any(|o| o.eq_ignore_ascii_case(name(t)));
        Ok(table.iter().filter(named).collect())
    }

    /// The row of a table that `--task` names; all of them if it names none. Errors: a name that no row has; `others`
    /// are tasks that stand in no table.
    pub(super) fn of_task<'a, T>(
        &self,
        table: &'a [T],
        name: impl Fn(&T) -> &'static str,
        others: &[&'static str],
    ) -> Result<Vec<&'a T>> {
        let Some(asked) = &self.task else { return Ok(table.iter().collect()) };
        match table.iter().find(|t| name(t) == asked) {
            Some(found) => Ok(vec![found]),
            None => Err(unknown("task", asked, table.iter().map(name).chain(others.iter().copied()))),
        }
    }
}

fn unknown(setting: &str, asked: &str, known: impl Iterator<Item = &'static str>) -> Error {
    let known: Vec<&str> = known.collect();
    Error::config(setting, format!("`{asked}`, expected one of {}", known.join(", ")))
}

fn cells(args: &Args, out: &Output) -> Result<Report> {
    let to = args.out.clone().unwrap_or_else(|| "runs/cells".into());
    let updates = args.updates.map_or(MOST_UPDATES, |n| n as u64);
    let tasks = args.of_task(MEMORY_TASKS, |t| t.name, &[])?;
    let contestants = args.only(CONTESTANTS, |c| c.name)?;
    let stop = live::stop_on_interrupt()?;
    let mut results = Vec::new();
    for task in tasks {
        let folder = to.join(task.name);
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let mut outcomes: Vec<Outcome> = Vec::new();
        let mut baseline = None;
        for contestant in &contestants {
            let mut runs = Vec::new();
            let mut seen = Vec::new();
            for trial in trials(contestant, task) {
                let (mut config, sized) = contestant_config(
                    contestant,
                    task,
                    &trial,
                    args.parameters,
                    updates,
                    args.seed,
                    &args.set,
                )?;
                config.threads = args.threads;
                baseline = config.goal.map(|goal| goal * 10.0);
                // A rate that the caller sets is that of every trial.
                if seen.contains(&config) {
                    continue;
                }
                seen.push(config.clone());
                let suffix =
                    if trial.suffix.is_empty() { String::new() } else { format!("-{}", trial.suffix) };
                let run = folder.join(format!("{}{suffix}", contestant.name));
                if args.read && !run.join(CONFIG).exists() {
                    continue;
                }
                if !args.read && !stop.load(Ordering::SeqCst) {
                    go_on(args, &run, contestant, config, sized, &stop, out)?;
                }
                let stopped = std::fs::read_to_string(run.join(STOPPED)).ok();
                runs.push(outcome(&run, contestant, &trial, sized, stopped)?);
            }
            outcomes.extend(quickest(runs));
            // What is there so far is worth looking at before the last run is done.
            write_atomic(to.join(format!("{}.md", task.name)), table(task, &outcomes, baseline).as_bytes())?;
            let drawing = picture(task, &outcomes, baseline);
            write_atomic(to.join(format!("{}.svg", task.name)), drawing.as_bytes())?;
        }
        out.line("");
        out.line(table(task, &outcomes, baseline).trim_end());
        results.push(json!({
            "task": task.name, "steps": task.steps, "baseline": baseline, "reported": task.reported,
            "table": to.join(format!("{}.md", task.name)),
            "picture": to.join(format!("{}.svg", task.name)),
            "networks": outcomes.iter().map(as_json).collect::<Vec<_>>(),
        }));
    }
    let interrupted = stop.load(Ordering::SeqCst);
    if interrupted {
        out.line("interrupted; all of it is saved, the same command goes on");
    }
    Ok(Report::new(json!({ "out": to, "tasks": results })).interrupted_if(interrupted))
}

fn as_json(o: &Outcome) -> Value {
    json!({
        "name": o.name, "hidden": o.sized.hidden, "parameters": o.sized.parameters, "converged": o.converged,
        "updates": o.updates, "best": o.best, "stopped": o.stopped, "training": o.training,
    })
}

/// Trains to the end, from where an earlier call stopped.
fn go_on(
    args: &Args,
    folder: &Path,
    contestant: &Contestant,
    config: TrainConfig,
    sized: Sized,
    stop: &Arc<AtomicBool>,
    out: &Output,
) -> Result<()> {
    let begun = folder.join(CONFIG).exists();
    if begun {
        let stored = retrograd::train::stored_config(folder)?;
        if let [difference, ..] = &*config.differences(&stored.resumed_as(&config))? {
            return Err(Error::run_folder(folder, format!("another configuration: {difference}")));
        }
        // With more updates to make than before, a run that did not get there goes on.
        let at_its_end = folder.join(RESULT).exists() && stored.length == config.length;
        if at_its_end || folder.join(STOPPED).exists() {
            return Ok(());
        }
    }
    let Sized { hidden, parameters } = sized;
    out.line(format!("{} on {}: {hidden} units, {parameters} parameters", contestant.name, config.task.name));
    let trainer = Trainer::new(config)?;
    let session = match begun {
        true => Session::resume(trainer, RunFolder::resume(folder)?)?.0,
        false => Session::start(trainer, RunFolder::create(folder)?)?,
    };
    let mode = if args.quiet { Mode::Quiet } else { Mode::Auto };
    let show = live::Show { mode, milestones: false };
    match live::train_until(session, show, stop.clone()) {
        Ok(_) => Ok(()),
        // A network that blows up is a result; the others go on.
        Err(error @ Error::NonFinite { .. }) => {
            out.line(format!("{}: {error}", contestant.name));
            write_atomic(folder.join(STOPPED), b"numbers that are not finite")
        }
        Err(error) => Err(error),
    }
}
