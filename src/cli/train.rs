//! `retrograd train`: trains a network on a task.

use std::path::{Path, PathBuf};

use retrograd::Error;
use retrograd::cells::network;
use retrograd::engine::Stash;
use retrograd::run::progress::{Mode, format_bytes};
use retrograd::run::{CONFIG, RunFolder, latest_run};
use retrograd::train::{Session, TrainConfig, Trainer, published, stored_config};

use super::{Output, Report, Result, live, parse};

/// Where runs go that are not told where to.
pub(super) const RUNS: &str = "runs";

const EXAMPLES: &str = "\
Settings start from those published for the task and the network; `retrograd list keys` lists what --set takes.

Examples:
  retrograd train adding --cell kru --set T=200
  retrograd train jsb --cell kru-lstm
  retrograd train jsb --cell janet --operator kron
  retrograd train psmnist --cell kru --epochs 10 --budget 64MiB --out runs/mine
  retrograd train copy --cell gru --hidden 80 --set optimizer=adam --set lr=2e-3 --set clip=norm
  retrograd train jsb --cell gru --optimizer kfac --kfac option1
  retrograd train series --cell lstm --set file=signal.npy --budget 64MiB
  retrograd train --resume
  retrograd train --resume --out runs/mine --epochs 20";

/// Arguments of `retrograd train`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Task, one of `retrograd list tasks`
    #[arg(required_unless_present = "resume")]
    task: Option<String>,
    /// Cell or published network, one of `retrograd list cells` and `retrograd list networks` [default: kru]
    #[arg(long)]
    cell: Option<String>,
    /// Recurrent operator, one of `retrograd list operators` [default: the one the cell was published with]
    #[arg(long)]
    operator: Option<String>,
    /// Units of each layer
    #[arg(long, value_parser = parse::positive)]
    hidden: Option<usize>,
    /// Number of layers
    #[arg(long, value_parser = parse::positive)]
    layers: Option<usize>,
    /// Optimizer, one of `retrograd list optimizers`
    #[arg(long)]
    optimizer: Option<String>,
    /// What K-FAC assumes about time: independence, option1 or option2; chooses the optimizer kfac
    #[arg(long, value_name = "APPROXIMATION")]
    kfac: Option<String>,
    /// Any other setting; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Folder of the data files
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Seed of first parameters, shuffling and dropout
    #[arg(long)]
    seed: Option<u64>,
    /// Passes over the training data
    #[arg(long, value_parser = parse::positive, conflicts_with = "steps")]
    epochs: Option<usize>,
    /// Updates, instead of epochs
    #[arg(long, value_parser = parse::positive)]
    steps: Option<usize>,
    /// Most memory of one program, as 64MiB, 1GB or 500k; does not change results
    #[arg(long, value_parser = parse::bytes)]
    budget: Option<usize>,
    /// Threads; does not change results
    #[arg(long, value_parser = parse::positive)]
    threads: Option<usize>,
    /// Keep values for the backward pass in 16 bits, bf16 or f16: half the memory, gradients rounded [default: exact]
    #[arg(long, value_name = "TYPE", value_parser = parse::stash)]
    stash: Option<Stash>,
    /// Keep the state of every so many steps and walk the others back, for cells with an inverse; gradients change by
    /// rounding
    #[arg(long, value_name = "STEPS", value_parser = parse::positive)]
    walk_back: Option<usize>,
    #[command(flatten)]
    place: parse::Place,
    /// Folder of the run [default: a new one in runs/; with --resume the newest there]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with the run in the folder, to the bits it would have ended with; starts it if there is none
    #[arg(long)]
    resume: bool,
    /// No progress line
    #[arg(long)]
    quiet: bool,
}

impl Args {
    /// What the run is to be, from the published settings.
    fn config(&self, task: &str) -> Result<TrainConfig> {
        let cell = self.cell.as_deref().unwrap_or("kru");
        let mut config = TrainConfig::new(task, cell, self.operator.as_deref())?;
        self.apply(&mut config)?;
        self.apply_free(&mut config)?;
        Ok(config)
    }

    /// Sets what was given of all that determines the result.
    fn apply(&self, config: &mut TrainConfig) -> Result<()> {
        let named = self.optimizer.iter().map(|name| format!("optimizer={name}"));
        let kfac = self.kfac.iter().flat_map(|kind| ["optimizer=kfac".into(), format!("kfac={kind}")]);
        config.set_all(named.chain(kfac).chain(self.set.iter().cloned()))?;
        if let Some(hidden) = self.hidden {
            config.hidden = hidden;
        }
        if let Some(layers) = self.layers {
            config.layers = layers;
        }
        if let Some(seed) = self.seed {
            config.seed = seed;
        }
        if let Some(stash) = self.stash {
            config.stash = stash;
        }
        if self.walk_back.is_some() {
            config.walk_back = self.walk_back;
        }
        Ok(())
    }

    /// Sets what was given of all that a resumed run may change.
    fn apply_free(&self, config: &mut TrainConfig) -> Result<()> {
        if let Some(epochs) = self.epochs {
            config.set("epochs", epochs)?;
        }
        if let Some(steps) = self.steps {
            config.set("steps", steps)?;
        }
        if let Some(data) = &self.data {
            // A run may be resumed from another working directory.
            config.data = Some(std::path::absolute(data).map_err(Error::io(data))?);
        }
        config.budget = self.budget.or(config.budget);
        config.threads = self.threads.or(config.threads);
        Ok(())
    }

    /// The configuration of the run in `folder`, with what may change. Errors: anything else that was asked for
    /// differs.
    fn resumed(&self, folder: &Path) -> Result<TrainConfig> {
        let stored = stored_config(folder)?;
        let mut asked = stored.clone();
        if let Some(cell) = &self.cell {
            let network = network(cell)?;
            // A cell's own name says nothing of its operator.
            let operator = (network.name == network.cell).then(|| stored.operator.name.clone());
            asked.become_network(&network.on(operator.as_deref())?);
        }
        let names = [(&self.task, &mut asked.task.name), (&self.operator, &mut asked.operator.name)];
        for (given, name) in names {
            if let Some(given) = given {
                name.clone_from(given);
            }
        }
        self.apply(&mut asked)?;
        let kept = stored.resumed_as(&asked);
        if let [difference, ..] = &*asked.differences(&kept)? {
            return Err(Error::run_folder(folder, format!("a resumed run stays what it was: {difference}")));
        }
        self.apply_free(&mut asked)?;
        Ok(asked)
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args, out: &Output) -> Result<Report> {
    let session = match (args.resume, &args.task) {
        (true, task) => {
            let folder = match &args.out {
                Some(folder) => folder.clone(),
                None => latest_run(RUNS)?,
            };
            match task {
                Some(task) if !folder.join(CONFIG).exists() => start(args, task, out)?,
                _ => resume(args, &folder, out)?,
            }
        }
        (false, Some(task)) => start(args, task, out)?,
        (false, None) => return Err(Error::config("TASK", "missing; `retrograd list tasks` lists them")),
    };
    let mode = if args.quiet { Mode::Quiet } else { Mode::Auto };
    let summary = live::train(session, live::Show { mode, milestones: false })?;
    live::describe(&summary, out);
    live::report(&summary)
}

fn start(args: &Args, task: &str, out: &Output) -> Result<Session> {
    let config = args.config(task)?;
    let row = published(&config.task.name, &config.cell.name, &config.operator.name);
    let mut trainer = Trainer::on(config, args.place.engine()?)?;
    // A budget too small is said before a folder is made.
    let planned = trainer.planned_bytes()?;
    let folder = match &args.out {
        Some(path) => RunFolder::create(path)?,
        None => RunFolder::create_numbered(RUNS, task, &trainer.config().network())?,
    };
    announce(&trainer, out);
    out.line(format!(
        "planned peak memory {}; run folder {}",
        format_bytes(planned),
        folder.path().display()
    ));
    if let Some(row) = row {
        out.line(format!("published with {} units: {}", row.hidden, row.reported));
    }
    Session::start(trainer, folder)
}

fn resume(args: &Args, folder: &Path, out: &Output) -> Result<Session> {
    let trainer = Trainer::on(args.resumed(folder)?, args.place.engine()?)?;
    let (session, lost) = Session::resume(trainer, RunFolder::resume(folder)?)?;
    announce(session.trainer(), out);
    let step = session.trainer().position().step;
    out.line(format!("resumed after step {step}; run folder {}", folder.display()));
    if let Some(lost) = lost {
        out.line(format!("the newest checkpoint cannot be read, took the one before: {lost}"));
    }
    Ok(session)
}

/// What is trained, in a line.
pub(super) fn announce(trainer: &Trainer, out: &Output) {
    let c = trainer.config();
    let layers = if c.layers > 1 { format!("{} layers of ", c.layers) } else { String::new() };
    out.line(format!(
        "{}: {layers}{} with {} units, {} parameters; {}, batches of {}, {} steps at most",
        c.task.name,
        c.network(),
        c.hidden,
        trainer.trained_count(),
        c.optimizer.name,
        c.batch,
        trainer.total_steps()
    ));
    if let Some(treatment) = trainer.treatment() {
        out.line(treatment);
    }
}
