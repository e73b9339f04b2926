//! `retrograd explain`: the plan of a network, and where its time goes, as text and as a picture.

use std::path::PathBuf;

use retrograd::engine::Profile;
use retrograd::run::write_atomic;
use retrograd::{Error, Params, Program, grad};
use serde_json::json;

use super::network::NetworkArgs;
use super::tradeoff::Tradeoff;
use super::{Output, Report, Result, plan as plan_json, profile as profile_json};

const EXAMPLES: &str = "\
Examples:
  retrograd explain --cell kru --hidden 512
  retrograd explain --cell lstm --operator kron --steps 1000 --batch 32 --budget 8MiB
  retrograd explain --cell gru --forward
  retrograd explain --cell kru --svg plan.svg
  retrograd explain --cell gru --steps 1000 --batch 32 --budget 4MiB --tradeoff curve.svg
  retrograd explain --cell kru --hidden 512 --time --svg plan.svg";

/// Arguments of `retrograd explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    network: NetworkArgs,
    /// The loss alone, without its gradients
    #[arg(long)]
    forward: bool,
    /// Run the plan on random inputs too, once to warm up and once with a clock, and show where the time goes
    #[arg(long)]
    time: bool,
    /// Draw the plan into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Draw bytes against expected time into this file: the plans from the smallest budget to none
    #[arg(long, value_name = "FILE")]
    tradeoff: Option<PathBuf>,
}

/// Plans of the trade of bytes for time.
const POINTS: usize = 16;

/// Runs the command.
pub(crate) fn run(args: &Args, out: &Output) -> Result<Report> {
    let network = &args.network;
    let mut recorded = network.record()?;
    let mut outputs = vec![recorded.loss];
    if !args.forward {
        let wrt = recorded.trainable_vars();
        outputs.extend(grad(&mut recorded.tape, recorded.loss, &wrt)?);
    }
    let mut program = Program::new(&recorded.tape, &outputs, network.options()?)?;
    let plan = program.plan(network.steps, network.batch)?;
    let text = plan.explain();
    let what = if args.forward { "loss" } else { "loss and gradients" };
    out.line(format!(
        "{}, {} units, {} trained numbers: {what}",
        network.name()?,
        network.hidden,
        recorded
            .trainable
            .iter()
            .filter_map(|(name, _)| recorded.params.get(name))
            .map(real_count)
            .sum::<usize>()
    ));
    out.line(text.trim_end());
    let curve = if args.tradeoff.is_some() || network.budget.is_some() {
        let curve = Tradeoff::plan(&program, (network.steps, network.batch), POINTS)?;
        out.line("");
        curve.print(out, &plan);
        Some(curve)
    } else {
        None
    };
    if let (Some(file), Some(curve)) = (&args.tradeoff, &curve) {
        curve.draw(file, &network.name()?, &plan)?;
        out.line(format!("drawn in {}", file.display()));
    }
    let profile =
        if args.time { Some(timed(&mut program, &[&recorded.params, &network.batch()?])?) } else { None };
    if let Some(profile) = &profile {
        out.line("");
        out.line(profile.explain().trim_end());
    }
    if let Some(file) = &args.svg {
        let picture = profile.as_ref().map_or_else(|| plan.svg(), |p| plan.svg_with(p));
        write_atomic(file, picture.as_bytes())?;
        out.line(format!("drawn in {}", file.display()));
    }
    Ok(Report::new(json!({
        "network": network.json()?,
        "forward_only": args.forward,
        "peak_bytes": plan.peak_bytes(),
        "flops": plan.flops(),
        "segments": plan.segments().map(|(leaf, slots)| json!({ "steps": leaf, "checkpoints": slots })),
        "extra_forward_steps": plan.extra_forward_steps(),
        "rebuilds_everything": plan.rebuilds_everything(),
        "plan": plan_json::summary(&plan.summary()),
        "time": profile.as_ref().map(profile_json::profile),
        "tradeoff": curve.as_ref().map(Tradeoff::json),
        "text": text,
        "svg": args.svg,
    })))
}

/// The profile of the second of two runs.
fn timed(program: &mut Program, values: &[&Params]) -> Result<Profile> {
    program.run(values)?;
    program.set_profile(true);
    program.run(values)?;
    let profile = program.last_profile().cloned();
    profile.ok_or_else(|| Error::config("time", "bug: a run with a clock left no profile"))
}

fn real_count(tensor: &retrograd::Tensor) -> usize {
    tensor.len() * tensor.dtype().planes()
}
