//! `retrograd bench`: seconds, bytes and flops of a network on a random batch.

use std::time::Instant;

use retrograd::run::progress::format_bytes;
use retrograd::{Params, Program, Tensor, grad, optim};
use serde_json::{Value, json};

use super::network::NetworkArgs;
use super::{Output, Report, Result, parse};

const EXAMPLES: &str = "\
Each of three programs is run once to warm up and then --runs times: the loss; the loss and its gradients; these
and an update of the parameters.

Examples:
  retrograd bench --cell kru --hidden 512 --steps 784 --batch 20
  retrograd bench --cell lstm --hidden 128 --input 10 --output 10 --steps 1000 --batch 20 --runs 20 --json
  retrograd bench --cell lstm --operator kron --budget 16MiB --threads 1";

/// Arguments of `retrograd bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    network: NetworkArgs,
    /// Runs of each that are measured
    #[arg(long, default_value = "10", value_parser = parse::positive)]
    runs: usize,
    /// Optimizer of the training step, one of `retrograd list optimizers`
    #[arg(long, default_value = "adam")]
    optimizer: String,
}

/// What was measured of one program.
struct Row {
    name: &'static str,
    /// Of every run, in order.
    seconds: Vec<f64>,
    planned_bytes: usize,
    measured_bytes: usize,
    flops: f64,
}

impl Row {
    fn minimum(&self) -> f64 {
        self.seconds.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn median(&self) -> f64 {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        0.5 * (low + high)
    }

    fn rate(&self) -> f64 {
        self.flops / self.minimum()
    }

    fn json(&self) -> Value {
        json!({
            "median_seconds": self.median(), "minimum_seconds": self.minimum(), "seconds": self.seconds,
            "planned_peak_bytes": self.planned_bytes, "measured_peak_bytes": self.measured_bytes,
            "flops": self.flops, "flops_per_second": self.rate(),
        })
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args, out: &Output) -> Result<Report> {
    let network = &args.network;
    let mut recorded = network.record()?;
    let batch = network.batch()?;
    let wrt = recorded.trainable_vars();
    let names: Vec<String> = recorded.trainable.iter().map(|(name, _)| name.clone()).collect();
    let mut params = std::mem::take(&mut recorded.params);
    let loss = recorded.loss;
    let mut outputs = vec![loss];
    outputs.extend(grad(&mut recorded.tape, loss, &wrt)?);
    let compile = |outputs: &[retrograd::Var]| Program::new(&recorded.tape, outputs, network.options());

    let mut forward = compile(&[loss])?;
    let forward = measure("forward", args, &mut forward, &mut |program| {
        program.run(&[&params, &batch])?;
        Ok(())
    })?;
    let mut backward = compile(&outputs)?;
    let both = measure("forward+backward", args, &mut backward, &mut |program| {
        program.run(&[&params, &batch])?;
        Ok(())
    })?;
    let recipe = optim::Recipe::new(optim::optimizer(&args.optimizer, &optim::Settings::new())?);
    let trained: Params = names.iter().filter_map(|n| Some((n.clone(), params.get(n)?.clone()))).collect();
    let mut state = recipe.optimizer.init(&trained)?;
    let mut clock = optim::Clock::default();
    let mut step = measure("training step", args, &mut backward, &mut |program| {
        let mut out: std::vec::IntoIter<Tensor> = program.run(&[&params, &batch])?.into_iter();
        out.next();
        let mut grads: Params = names.iter().cloned().zip(out).collect();
        recipe.update(&mut grads, &mut state, &optim::LrState::default(), &mut params, clock)?;
        clock.step += 1;
        Ok(())
    })?;
    // The plan knows the program's share; an update is a few operations for each parameter.
    step.flops = both.flops;

    let rows = [forward, both, step];
    let threads =
        network.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    out.line(format!(
        "{}, {} units, {} inputs, {} outputs; T={} steps, N={} rows, {}, {threads} threads, {} runs each",
        network.name()?,
        network.hidden,
        network.input,
        network.output,
        network.steps,
        network.batch,
        network.dtype.dtype(),
        args.runs,
    ));
    out.line("                    median      minimum   planned peak  measured peak    Gflop  Gflop/s");
    for row in &rows {
        out.line(format!(
            "{:<17}{:>10}   {:>10}   {:>12}   {:>12}   {:>6.2}  {:>7.2}",
            row.name,
            milliseconds(row.median()),
            milliseconds(row.minimum()),
            format_bytes(row.planned_bytes),
            format_bytes(row.measured_bytes),
            row.flops / 1e9,
            row.rate() / 1e9,
        ));
    }
    let [forward, both, step] = &rows;
    Ok(Report::new(json!({
        "network": network.json()?,
        "threads": threads,
        "runs": args.runs,
        "optimizer": args.optimizer,
        "forward": forward.json(),
        "forward_backward": both.json(),
        "training_step": step.json(),
    })))
}

fn measure(
    name: &'static str,
    args: &Args,
    program: &mut Program,
    once: &mut dyn FnMut(&mut Program) -> Result<()>,
) -> Result<Row> {
    let plan = program.plan(args.network.steps, args.network.batch)?;
    once(program)?;
    let mut seconds = Vec::with_capacity(args.runs);
    for _ in 0..args.runs {
        let start = Instant::now();
        once(program)?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    let measured_bytes = program.last_peak_bytes();
    Ok(Row { name, seconds, planned_bytes: plan.peak_bytes(), measured_bytes, flops: plan.flops() })
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.3} ms", seconds * 1e3)
}
