//! Optimisers side by side on one problem: the training loss by update and by wall-clock, as a table and two pictures.
//!
//! ```text
//! cargo run --release --example optimizers -- adding rnn 400 T=10 hidden=32 batch=128
//! cargo run --release --example optimizers -- rowmnist rnn 500 hidden=128 batch=1000
//! cargo run --release --example optimizers -- jsb kru 500 --only kfac/option1,adam
//! ```
//!
//! Arguments: task, cell, updates, then settings as in `retrograd train --set`. First-order optimisers are tuned: each runs
//! at five learning rates half a decade apart, and the one with the least final loss is shown. K-FAC runs at its defaults
//! with each of the three approximations. Pictures go to `optimizers-updates.svg` and `optimizers-seconds.svg` in the
//! folder `--out`, by default the working directory. Losses are those of the batch before the update, smoothed.

use std::path::PathBuf;
use std::time::Instant;

use retrograd::run::{Chart, Series};
use retrograd::train::{TrainConfig, Trainer};
use retrograd::{Error, Result};

/// What is compared: a name, settings, and learning rates to choose from.
const FIELD: &[(&str, &[&str], &[&str])] = &[
    ("sgd", &["optimizer=sgd", "momentum=0.9"], &["1e-3", "3e-3", "1e-2", "3e-2", "1e-1"]),
    ("rmsprop", &["optimizer=rmsprop"], &["1e-4", "3e-4", "1e-3", "3e-3", "1e-2"]),
    ("adam", &["optimizer=adam"], &["3e-4", "1e-3", "3e-3", "1e-2", "3e-2"]),
    ("kfac/independence", &["optimizer=kfac", "kfac=independence"], &[]),
    ("kfac/option1", &["optimizer=kfac", "kfac=option1"], &[]),
    ("kfac/option2", &["optimizer=kfac", "kfac=option2"], &[]),
];

/// Weight of the newest loss in the smoothed one.
const SMOOTHING: f64 = 0.1;

/// Smoothed losses after each update, and the seconds until then.
struct Curve {
    name: String,
    points: Vec<(f64, f64)>,
}

impl Curve {
    fn last(&self) -> f64 {
        self.points.last().map_or(f64::INFINITY, |p| if p.1.is_nan() { f64::INFINITY } else { p.1 })
    }

    /// Updates and seconds until the loss is at most `goal`.
    fn reaches(&self, goal: f64) -> Option<(usize, f64)> {
        let at = self.points.iter().position(|p| p.1 <= goal)?;
        Some((at + 1, self.points[at].0))
    }
}

fn run(config: TrainConfig, name: String, updates: u64) -> Result<Curve> {
    let mut trainer = Trainer::new(config)?;
    // Compiling is no part of an update.
    trainer.plan()?;
    let (start, mut points, mut smooth) = (Instant::now(), Vec::new(), f64::NAN);
    for _ in 0..updates {
        let step = match trainer.step() {
            Ok(step) => step,
            // A learning rate that is too large: the curve ends.
            Err(Error::NonFinite { .. }) => {
                points.push((start.elapsed().as_secs_f64(), f64::NAN));
                break;
            }
            Err(error) => return Err(error),
        };
        smooth = if smooth.is_nan() { step.loss } else { smooth + SMOOTHING * (step.loss - smooth) };
        points.push((start.elapsed().as_secs_f64(), smooth));
    }
    Ok(Curve { name, points })
}

fn main() -> Result<()> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let mut option = |name: &str| -> Option<String> {
        let at = args.iter().position(|a| a == name)?;
        args.remove(at);
        (at < args.len()).then(|| args.remove(at))
    };
    let (out, only) = (option("--out").map_or_else(PathBuf::new, PathBuf::from), option("--only"));
    let [task, cell, updates, settings @ ..] = &args[..] else {
        return Err(Error::config(
            "arguments",
            "expected TASK CELL UPDATES [KEY=VALUE...] [--out DIR] [--only NAMES]",
        ));
    };
    let updates: u64 =
        updates.parse().map_err(|_| Error::config("updates", format!("`{updates}`, expected a number")))?;
    let base = |more: &[String]| -> Result<TrainConfig> {
        let mut config = TrainConfig::new(task, cell, None)?;
        config.set_all(["clip=none", "schedule=constant"])?;
        config.set_all(settings)?;
        config.set_all(more)?;
        Ok(config)
    };
    let mut curves: Vec<Curve> = Vec::new();
    for (name, part, rates) in FIELD {
        if only.as_ref().is_some_and(|only| !only.split(',').any(|o| o == *name)) {
            continue;
        }
        let part: Vec<String> = part.iter().map(|s| s.to_string()).collect();
        let tries: Vec<(String, Vec<String>)> = match rates.is_empty() {
            true => vec![(name.to_string(), part)],
            false => rates
                .iter()
                .map(|lr| (format!("{name}, lr {lr}"), [&part[..], &[format!("lr={lr}")]].concat()))
                .collect(),
        };
        let mut best: Option<Curve> = None;
        for (label, part) in tries {
            let curve = run(base(&part)?, label, updates)?;
            println!("{:<28} loss {:.5}", curve.name, curve.last());
            if best.as_ref().is_none_or(|b| curve.last() < b.last()) {
                best = Some(curve);
            }
        }
        curves.extend(best);
    }
    let goal = curves.iter().find(|c| c.name.starts_with("adam")).map(Curve::last);
    println!(
        "\n{:<28} {:>10} {:>12}   to Adam's loss {}",
        "optimiser",
        "updates",
        "seconds",
        goal.unwrap_or(f64::NAN)
    );
    for curve in &curves {
        match goal.and_then(|goal| curve.reaches(goal)) {
            Some((updates, seconds)) => println!("{:<28} {updates:>10} {seconds:>12.2}", curve.name),
            None => println!("{:<28} {:>10} {:>12}", curve.name, "-", "-"),
        }
    }
    for (label, by_updates) in [("updates", true), ("seconds", false)] {
        let series = |c: &Curve| Series {
            name: c.name.clone(),
            points: (c.points.iter().enumerate())
                .map(|(i, p)| if by_updates { ((i + 1) as f64, p.1) } else { *p })
                .collect(),
        };
        let chart = Chart {
            title: format!("{task}, {cell}: training loss by {label}"),
            x_label: label.into(),
            y_label: "loss".into(),
            log_x: false,
            log_y: true,
            series: curves.iter().map(series).collect(),
            baseline: None,
        };
        chart.save(out.join(format!("optimizers-{label}.svg")))?;
    }
    Ok(())
}
