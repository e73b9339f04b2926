//! `retrograd` alone: learns to add, in about a minute, with no data and no options.

use retrograd::run::RunFolder;
use retrograd::run::progress::{Mode, format_bytes};
use retrograd::train::{Session, TrainConfig, Trainer};

use super::{Output, Report, Result, live, train};

/// Settings that solve the task from any of the seeds tried, in less than a minute of one core: RMSprop as published,
/// with momentum and a falling rate, which the paper does not need as it has 512 units and more time.
const SETTINGS: &[&str] = &[
    "T=50",
    "hidden=128",
    "batch=32",
    "lr=1e-3",
    "momentum=0.7",
    "schedule=cosine",
    "schedule.over=12000",
    "schedule.unit=step",
    "clip=norm",
    "penalty=soft-unitary",
    "lambda=1e-4",
    "steps=12000",
    "eval_every=1000",
    "goal=1e-3",
];

/// Runs the main job.
pub(crate) fn run(out: &Output) -> Result<Report> {
    let mut config = TrainConfig::new("adding", "kru", None)?;
    config.set_all(SETTINGS)?;
    let mut trainer = Trainer::new(config)?;
    let planned = trainer.plan()?.peak_bytes();
    let folder = RunFolder::create_numbered(train::RUNS, "adding", "kru")?;

    out.line("The adding problem: read 50 pairs of a number and a mark, then say the sum of the two marked numbers.");
    out.line("Whoever remembers nothing says 1 and has a mean squared error of 1/6 = 0.16667.");
    train::announce(&trainer, out);
    out.line(format!("planned peak memory {}; Ctrl-C saves and stops", format_bytes(planned)));
    out.line("");
    let session = Session::start(trainer, folder)?;
    let summary = live::train(session, live::Show { mode: Mode::Auto, milestones: true })?;
    out.line("");
    let Some(test) = summary.test.filter(|_| summary.ended.is_some()) else {
        live::describe(&summary, out);
        return live::report(&summary);
    };
    let baseline = summary.baseline.unwrap_or(f64::NAN);
    let typical = test.metric.sqrt();
    let verdict =
        if test.metric < baseline / 10.0 { "It learned to add" } else { "It has not learned to add" };
    out.line(format!(
        "{verdict}: mean squared error {} on {} new sequences, baseline {} ({:.0} times as much).",
        live::number(test.metric),
        test.count,
        live::number(baseline),
        baseline / test.metric
    ));
    out.line(format!(
        "A sum is off by about {}, over 50 steps, with {} parameters: 7 of them 2x2 matrices whose Kronecker product is \
         the 128x128 recurrent one.",
        format_args!("{typical:.3}"),
        summary.parameters
    ));
    out.line(live::speed(&summary));
    out.line(format!("run folder {}   picture {}", summary.folder.display(), live::picture(&summary.folder)));
    out.line("");
    out.line("Next: retrograd list; retrograd explain --cell kru; retrograd train adding --cell lstm; retrograd data");
    live::report(&summary)
}
