//! `retrograd bench`: seconds, bytes and flops of a network on a random batch, and what the time goes to.

use std::path::PathBuf;
use std::time::Instant;

use retrograd::engine::Profile;
use retrograd::engine::cpu::{Denormals, Isa, Pool, product_peak};
use retrograd::engine::plan::RATES_VARIABLE;
use retrograd::run::progress::format_bytes;
use retrograd::run::rates;
use retrograd::{Params, Program, Tape, Tensor, Var, grad, optim};
use serde_json::{Value, json};

use super::lengths::Lengths;
use super::network::NetworkArgs;
use super::profile::Shares;
use super::rounding::Rounding;
use super::tradeoff::Tradeoff;
use super::{Output, Report, Result, parse, profile};

const EXAMPLES: &str = "\
Each of three programs is run once to warm up and then --runs times: the loss; the loss and its gradients; these
and an update of the parameters. Then each runs once more with a clock on every instruction: the shares of all
threads' time in products (dense and structured), pointwise chains, data movement (copies, packing, states stored),
everything else (the update of the parameters too), and idle threads. On a device every launch is timed by the device's
clock, a kernel that runs whole steps counts as what most of its operations are, and idle is what is left of the run. The
seconds of the emulated device are those of interpreting. `of peak` compares all operations with the
speed of a matrix product that stays in the cache, by the same kernel on as many threads, measured just before.

Examples:
  retrograd bench --cell kru --hidden 512 --steps 784 --batch 20
  retrograd bench --cell lstm --hidden 128 --input 10 --output 10 --steps 1000 --batch 20 --runs 20 --json
  retrograd bench --cell lstm --operator kron --budget 16MiB --threads 1
  retrograd bench --cell kru --hidden 512 --profile
  retrograd bench --cell lstm --hidden 512 --device cuda --profile
  retrograd bench --cell gru --steps 1000 --stash bf16
  retrograd bench --cell lstm --hidden 128 --steps 1000 --batch 100 --sweep-budget --svg curve.svg
  retrograd bench --cell gru --hidden 64 --batch 8 --steps 1000000 --budget 64MiB --sweep-length --runs 3";

/// Instructions, or launches of a device, that `--profile` lists.
const TOP: usize = 15;

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
    /// List the instructions of forward+backward that take longest; on a device the launches
    #[arg(long)]
    profile: bool,
    /// Instead, measure the plans of so many budgets from the smallest that works to none, in turn; those expected to take
    /// over three times as long are not run
    #[arg(long, value_name = "POINTS", num_args = 0..=1, default_missing_value = "10", value_parser = parse::positive)]
    sweep_budget: Option<usize>,
    /// Instead, measure sequences of 100 steps, ten times as many, and so on up to --steps, all under --budget
    #[arg(long, conflicts_with = "sweep_budget", requires = "budget")]
    sweep_length: bool,
    /// First measure how fast this machine is, and keep it: plans are chosen by it from then on
    #[arg(long)]
    rates: bool,
    /// Draw what --sweep-budget measured into this file
    #[arg(long, value_name = "FILE", requires = "sweep_budget")]
    svg: Option<PathBuf>,
}

/// What was measured of one program.
struct Row {
    name: &'static str,
    /// Of every run, in order.
    seconds: Vec<f64>,
    planned_bytes: usize,
    measured_bytes: usize,
    flops: f64,
    /// Of a run after those that were timed.
    profile: Option<Profile>,
    /// Seconds of that run outside the program: the update.
    outside: f64,
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

    fn shares(&self) -> Option<Shares> {
        self.profile.as_ref().map(|profile| Shares::new(profile, self.outside))
    }

    fn json(&self, peak: f64) -> Value {
        json!({
            "share_of_peak": self.rate() / peak, "time_shares": self.shares().as_ref().map(Shares::json),
            "median_seconds": self.median(), "minimum_seconds": self.minimum(), "seconds": self.seconds,
            "planned_peak_bytes": self.planned_bytes, "measured_peak_bytes": self.measured_bytes,
            "flops": self.flops, "flops_per_second": self.rate(),
        })
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args, out: &Output) -> Result<Report> {
    let network = &args.network;
    let measured = args.rates.then(|| rates::measure(network.dtype.dtype(), network.threads)).transpose()?;
    if let Some((rates, file)) = &measured {
        let place = file.as_ref().map_or_else(String::new, |file| format!("   kept in {}", file.display()));
        out.line(format!("{RATES_VARIABLE}={rates}{place}"));
    }
    let rates = measured.map(|(rates, _)| rates.to_string());
    let mut recorded = network.record()?;
    let batch = network.batch()?;
    let wrt = recorded.trainable_vars();
    let names: Vec<String> = recorded.trainable.iter().map(|(name, _)| name.clone()).collect();
    let mut params = std::mem::take(&mut recorded.params);
    let loss = recorded.loss;
    let pool = Pool::new(network.threads, Denormals::default())?;
    let isa = Isa::select()?;
    let peak = product_peak(isa, network.dtype.dtype(), &pool);
    let mut outputs = vec![loss];
    outputs.extend(grad(&mut recorded.tape, loss, &wrt)?);
    if let Some(points) = args.sweep_budget {
        return sweep(args, out, &recorded.tape, &outputs, &[&params, &batch], points);
    }
    if args.sweep_length {
        return by_length(args, out, &recorded.tape, &outputs, &params);
    }
    let options = network.options()?;
    let compile = |outputs: &[retrograd::Var]| Program::new(&recorded.tape, outputs, options.clone());

    let mut forward = compile(&[loss])?;
    let forward = measure("forward", args, &mut forward, &mut |program| {
        program.run(&[&params, &batch])?;
        Ok(0.0)
    })?;
    let mut backward = compile(&outputs)?;
    let both = measure("forward+backward", args, &mut backward, &mut |program| {
        program.run(&[&params, &batch])?;
        Ok(0.0)
    })?;
    let recipe = optim::Recipe::new(optim::optimizer(&args.optimizer, &optim::Settings::new())?);
    let trained: Params = names.iter().filter_map(|n| Some((n.clone(), params.get(n)?.clone()))).collect();
    let mut state = recipe.optimizer.init(&trained)?;
    let mut clock = optim::Clock::default();
    let mut step = measure("training step", args, &mut backward, &mut |program| {
        let mut out: std::vec::IntoIter<Tensor> = program.run(&[&params, &batch])?.into_iter();
        let start = Instant::now();
        out.next();
        let mut grads: Params = names.iter().cloned().zip(out).collect();
        recipe.update(&mut grads, &mut state, &optim::LrState::default(), &mut params, clock)?;
        clock.step += 1;
        Ok(start.elapsed().as_secs_f64())
    })?;
    // The plan knows the program's share; an update is a few operations for each parameter.
    step.flops = both.flops;

    let rows = [forward, both, step];
    let threads = pool.threads();
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
    out.line(
        "                    median      minimum   planned peak  measured peak    Gflop  Gflop/s  of peak",
    );
    for row in &rows {
        out.line(format!(
            "{:<17}{:>10}   {:>10}   {:>12}   {:>12}   {:>6.2}  {:>7.2}  {:>7}",
            row.name,
            milliseconds(row.median()),
            milliseconds(row.minimum()),
            format_bytes(row.planned_bytes),
            format_bytes(row.measured_bytes),
            row.flops / 1e9,
            row.rate() / 1e9,
            format!("{:.1} %", 100.0 * row.rate() / peak),
        ));
    }
    out.line(format!("a product in the cache, {threads} threads: {:.2} Gflop/s", peak / 1e9));
    if rows.iter().any(|row| row.profile.is_some()) {
        let whose = match network.place.device {
            parse::Device::Cpu => format!("time of {threads} threads"),
            device => format!("time on {device}"),
        };
        out.line(format!("{whose:<17}{}", Shares::titles()));
    }
    for row in &rows {
        if let Some(shares) = row.shares() {
            out.line(format!("{:<17}{}", row.name, shares.columns()));
        }
    }
    let rounding = if network.stash.rounds() {
        let gradients: Vec<(String, Var)> = names.iter().cloned().zip(outputs[1..].iter().copied()).collect();
        let size = (network.steps, network.batch);
        let values = [&params, &batch];
        let rounding = Rounding::measure(&recorded.tape, loss, &gradients, &values, size, &options)?;
        out.line(rounding.text());
        Some(rounding)
    } else {
        None
    };
    if let Some(profile) = rows[1].profile.as_ref().filter(|_| args.profile) {
        out.line(profile.explain_top(TOP).trim_end());
    }
    let [forward, both, step] = &rows;
    Ok(Report::new(json!({
        "network": network.json()?,
        "threads": threads,
        "runs": args.runs,
        "optimizer": args.optimizer,
        "product_peak_flops_per_second": peak,
        "rates": rates,
        "forward": forward.json(peak),
        "forward_backward": both.json(peak),
        "training_step": step.json(peak),
        "rounding": rounding.as_ref().map(Rounding::json),
        "profile": both.profile.as_ref().filter(|_| args.profile).map(|found| {
            found.top(TOP).into_iter().map(|l| profile::line(found, l)).collect::<Vec<_>>()
        }),
    })))
}

/// Measures plans of several budgets.
fn sweep(
    args: &Args,
    out: &Output,
    tape: &Tape,
    outputs: &[Var],
    values: &[&Params],
    points: usize,
) -> Result<Report> {
    let network = &args.network;
    let size = (network.steps, network.batch);
    let options = network.options()?;
    let program = Program::new(tape, outputs, options.clone())?;
    let chosen = program.plan(size.0, size.1)?;
    let mut curve = Tradeoff::plan(&program, size, points)?;
    drop(program);
    curve.measure(tape, outputs, &options, values, args.runs)?;
    out.line(format!(
        "{}, {} units, {} inputs, {} outputs; T={} steps, N={} rows, {}, {} rounds",
        network.name()?,
        network.hidden,
        network.input,
        network.output,
        size.0,
        size.1,
        network.dtype.dtype(),
        args.runs,
    ));
    curve.print(out, &chosen);
    if let Some(file) = &args.svg {
        curve.draw(file, &network.name()?, &chosen)?;
        out.line(format!("drawn in {}", file.display()));
    }
    Ok(Report::new(json!({ "network": network.json()?, "rounds": args.runs, "tradeoff": curve.json() })))
}

/// Measures sequences of several lengths under one budget.
fn by_length(args: &Args, out: &Output, tape: &Tape, outputs: &[Var], params: &Params) -> Result<Report> {
    let network = &args.network;
    let lengths = Lengths::measure(network, tape, outputs, params, args.runs)?;
    out.line(format!(
        "{}, {} units, {} inputs, {} outputs; N={} rows, {}, {} rounds; budget {}",
        network.name()?,
        network.hidden,
        network.input,
        network.output,
        network.batch,
        network.dtype.dtype(),
        args.runs,
        network.budget.map_or_else(String::new, format_bytes),
    ));
    lengths.print(out);
    Ok(Report::new(json!({ "network": network.json()?, "rounds": args.runs, "lengths": lengths.json() })))
}

fn measure(
    name: &'static str,
    args: &Args,
    program: &mut Program,
    // Returns the seconds it took beside the program.
    once: &mut dyn FnMut(&mut Program) -> Result<f64>,
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
    program.set_profile(true);
    let outside = once(program)?;
    program.set_profile(false);
    let profile = program.last_profile().cloned();
    let (planned_bytes, flops) = (plan.peak_bytes(), plan.flops());
    Ok(Row { name, seconds, planned_bytes, measured_bytes, flops, profile, outside })
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.3} ms", seconds * 1e3)
}
