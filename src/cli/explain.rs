//! `retrograd explain`: the plan of a network, as text and as a picture.

use std::path::PathBuf;

use retrograd::run::write_atomic;
use retrograd::{Program, grad};
use serde_json::json;

use super::network::NetworkArgs;
use super::{Output, Report, Result};

const EXAMPLES: &str = "\
Examples:
  retrograd explain --cell kru --hidden 512
  retrograd explain --cell lstm --operator kron --steps 1000 --batch 32 --budget 8MiB
  retrograd explain --cell gru --forward
  retrograd explain --cell kru --svg plan.svg";

/// Arguments of `retrograd explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    network: NetworkArgs,
    /// The loss alone, without its gradients
    #[arg(long)]
    forward: bool,
    /// Draw the plan into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &Args, out: &Output) -> Result<Report> {
    let network = &args.network;
    let mut recorded = network.record()?;
    let mut outputs = vec![recorded.loss];
    if !args.forward {
        let wrt = recorded.trainable_vars();
        outputs.extend(grad(&mut recorded.tape, recorded.loss, &wrt)?);
    }
    let program = Program::new(&recorded.tape, &outputs, network.options())?;
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
    if let Some(file) = &args.svg {
        write_atomic(file, plan.svg().as_bytes())?;
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
        "text": text,
        "svg": args.svg,
    })))
}

fn real_count(tensor: &retrograd::Tensor) -> usize {
    tensor.len() * tensor.dtype().planes()
}
