//! `retrograd reproduce kfac`: K-FAC against first-order optimisers.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use retrograd::Error;
use retrograd::reproduce::{
    COST_SIZES, ENTRANTS, Entrant, MEASURE, PROBLEMS, Problem, Run, kfac_chart, kfac_table, problem_config,
    tuned, update_cost,
};
use retrograd::run::progress::{Mode, Progress, Status};
use retrograd::run::write_atomic;
use serde_json::{Value, json};

use super::reproduce::Args;
use super::{Output, Report, Result, live};

/// The task that is no problem: what updates cost.
const COST: &str = "cost";
/// Updates that are timed.
const TIMED: u64 = 40;

/// Runs the command.
pub(super) fn run(args: &Args, out: &Output) -> Result<Report> {
    let entrants = args.only(ENTRANTS, |e| e.name)?;
    let to = args.out.clone().unwrap_or_else(|| "runs/kfac".into());
    if args.task.as_deref() == Some(COST) {
        return cost(args, &entrants, &to, out);
    }
    let problems = args.of_task(PROBLEMS, |p| p.name, &[COST])?;
    let stop = live::stop_on_interrupt()?;
    let mut results = Vec::new();
    for problem in problems {
        let updates = args.updates.map_or(problem.updates, |n| n as u64);
        let problem = &Problem { updates, ..*problem };
        let folder = to.join(problem.name);
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let mut runs: Vec<(&Entrant, Run)> = Vec::new();
        let files = |end: &str| to.join(format!("{}{end}", problem.name));
        for &entrant in &entrants {
            let Some(best) = best_run(args, problem, entrant, &folder, &stop, out)? else { break };
            runs.push((entrant, best));
            // What is there so far is worth looking at before the last run is done.
            write_atomic(files(".md"), kfac_table(problem, &runs).as_bytes())?;
            kfac_chart(problem, &runs, false).save(files("-updates.svg"))?;
            kfac_chart(problem, &runs, true).save(files("-seconds.svg"))?;
        }
        out.line("");
        out.line(kfac_table(problem, &runs).trim_end());
        results.push(json!({
            "task": problem.name, "updates": problem.updates, "table": files(".md"),
            "pictures": [files("-updates.svg"), files("-seconds.svg")], "optimizers": as_json(&runs),
        }));
    }
    let interrupted = stop.load(Ordering::SeqCst);
    if interrupted {
        out.line("interrupted; the runs that were done are saved, the same command goes on");
    }
    Ok(Report::new(json!({ "out": to, "tasks": results })).interrupted_if(interrupted))
}

fn as_json(runs: &[(&Entrant, Run)]) -> Vec<Value> {
    let goal = runs.iter().find(|(e, _)| e.name == MEASURE).map(|(_, run)| run.last());
    let row = |(entrant, run): &(&Entrant, Run)| {
        let reached = goal.and_then(|goal| run.reaches(goal));
        json!({
            "name": entrant.name, "lr": run.rate, "loss": run.moments.last().and_then(|m| m.loss),
            "updates_to_goal": reached.map(|r| r.0), "cpu_seconds_to_goal": reached.map(|r| r.1.cpu),
            "milliseconds": run.cost(),
        })
    };
    runs.iter().map(row).collect()
}

/// The best run of an optimiser, from what is there and what is not. `None` if it was told to stop.
fn best_run(
    args: &Args,
    problem: &Problem,
    entrant: &Entrant,
    folder: &Path,
    stop: &AtomicBool,
    out: &Output,
) -> Result<Option<Run>> {
    let at = |lr: Option<&str>| -> Result<Option<Run>> {
        // What is not tuned is what may be set.
        let more: &[String] = if entrant.rate.is_none() { &args.set } else { &[] };
        let parts = std::iter::once(entrant.name).chain(lr).chain(more.iter().map(String::as_str));
        let label = parts.collect::<Vec<_>>().join("-");
        let file = folder.join(format!("{label}.json"));
        if let Some(run) = Run::load(&file, problem.updates) {
            return Ok(Some(run));
        }
        let mut config = problem_config(problem, entrant, lr, more, args.seed)?;
        config.threads = args.threads;
        if let Some(data) = &args.data {
            config.data = Some(std::path::absolute(data).map_err(Error::io(data))?);
        }
        let mode = if args.quiet { Mode::Quiet } else { Mode::Auto };
        let mut progress = Progress::new(mode, 0, problem.updates, false);
        let mut go_on = |step: u64, loss: f64| {
            progress.update(&Status { step, loss, ..Status::default() });
            !stop.load(Ordering::SeqCst)
        };
        let run = Run::train(config, lr.map(str::to_string), problem.updates, &mut go_on)?;
        progress.finish();
        if let Some(run) = &run {
            run.save(&file)?;
            out.line(format!("{} on {}: loss {}", label, problem.name, live::number(run.last())));
        }
        Ok(run)
    };
    match entrant.rate {
        Some(first) => tuned(first, |lr| at(Some(lr))),
        None => at(None),
    }
}

/// Times updates of LSTMs.
fn cost(args: &Args, entrants: &[&Entrant], to: &Path, out: &Output) -> Result<Report> {
    std::fs::create_dir_all(to).map_err(Error::io(to))?;
    let updates = args.updates.map_or(TIMED, |n| n as u64);
    let mut text = String::from(
        "| optimiser | units | ms an update | loss and gradient | statistics, products, losses | rest |\n\
         |---|---|---|---|---|---|\n",
    );
    let mut all = Vec::new();
    for &hidden in COST_SIZES {
        for entrant in entrants {
            let more: &[String] = if entrant.rate.is_none() { &args.set } else { &[] };
            let c = update_cost(entrant, hidden, more, args.threads, updates)?;
            let rest = c.milliseconds - c.first_order - c.curvature;
            text += &format!(
                "| {} | {hidden} | {:.1} | {:.1} | {:.1} | {rest:.1} |\n",
                entrant.name, c.milliseconds, c.first_order, c.curvature
            );
            all.push(c);
            write_atomic(to.join("cost.md"), text.as_bytes())?;
        }
    }
    out.line(text.trim_end());
    Ok(Report::new(json!({ "out": to, "updates": updates, "costs": all })))
}
