//! `retrograd device`: the GPU, and how long its kernels take for whole sequences.

use std::time::Instant;

use clap::ValueEnum;
use retrograd::cuda::{Error, Gpu};
use retrograd::run::progress::format_bytes;
use serde_json::{Value, json};

use super::parse::Device;
use super::sequence::{self, Sequence};
use super::{Output, Report, Result, parse};

const EXAMPLES: &str = "\
With --cell, the kernels of that cell are run once to warm up and then --runs times, on random numbers, forward and
backward, each time for the whole sequence; the input side is given, as one product gives it. The emulated device
interprets the kernels on the processor; of it the instructions are what matters, not the time.

Examples:
  retrograd device
  retrograd device --cell kru --hidden 512 --steps 784 --batch 128
  retrograd device --cell lstm --hidden 64 --runs 50 --json
  retrograd device --device emulated --cell kru --hidden 128 --steps 3 --batch 1";

/// Arguments of `retrograd device`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// cuda, cuda:N or emulated [default: the first GPU, if there is one]
    #[arg(long, value_parser = parse::device)]
    device: Option<Device>,
    /// Cell whose kernels are timed
    #[arg(long, value_enum)]
    cell: Option<Sequence>,
    /// Units; of a KRU a power of two
    #[arg(long, default_value = "128", value_parser = parse::positive)]
    hidden: usize,
    /// Steps of a sequence
    #[arg(long, default_value = "784", value_parser = parse::positive)]
    steps: usize,
    /// Rows of a batch
    #[arg(long, default_value = "128", value_parser = parse::positive)]
    batch: usize,
    /// Runs that are measured
    #[arg(long, default_value = "10", value_parser = parse::positive)]
    runs: usize,
}

/// Runs the command.
pub(crate) fn run(args: &Args, out: &Output) -> Result<Report> {
    let gpu = match args.device.unwrap_or(Device::Cuda(0)).gpu() {
        Ok(gpu) => gpu,
        // Asked for nothing in particular: then it is no error that there is none.
        Err(error) if args.device.is_none() && args.cell.is_none() => {
            out.line(format!("{error}; everything runs on the CPU"));
            return Ok(Report::new(json!({ "device": null, "reason": error.to_string() })));
        }
        Err(error) => return Err(error),
    };
    let what = gpu.describe();
    let memory = format_bytes(usize::try_from(what.memory_bytes).unwrap_or(usize::MAX));
    let (major, minor) = what.compute;
    let (processors, driver) = (what.multiprocessors, what.driver);
    out.line(match what.emulated {
        true => format!("{}, {memory}, interpreting PTX on the CPU", what.name),
        false => format!(
            "{}, compute capability {major}.{minor}, {memory}, {processors} multiprocessors, driver for CUDA {}.{}",
            what.name,
            driver / 1000,
            driver % 1000 / 10,
        ),
    });
    let mut report = json!({
        "device": what.name, "compute": format!("{major}.{minor}"), "memory_bytes": what.memory_bytes,
        "multiprocessors": what.multiprocessors, "shared_bytes": what.shared_bytes, "driver": what.driver,
        "emulated": what.emulated,
    });
    if let Some(cell) = args.cell {
        report["kernels"] = time(&gpu, cell, args, out)?;
    }
    Ok(Report::new(report))
}

fn time(gpu: &Gpu, cell: Sequence, args: &Args, out: &Output) -> Result<Value> {
    let (steps, rows, runs) = (args.steps, args.batch, args.runs);
    let name = cell.to_possible_value().map_or(String::new(), |v| v.get_name().to_owned());
    out.line(format!("{name}, H={}, T={steps} steps, N={rows} rows, {runs} runs each", args.hidden));
    let mut passes = sequence::passes(gpu, cell, args.hidden, steps, rows)?;
    let forward = measure(gpu, runs, &mut || passes.forward())?;
    let backward = measure(gpu, runs, &mut || passes.backward())?;
    let mut report =
        json!({ "cell": name, "hidden": args.hidden, "steps": steps, "batch": rows, "runs": runs });
    for (direction, measured) in [("forward", forward), ("backward", backward)] {
        let (median, minimum) = (measured.median(), measured.seconds[0]);
        let mut line = format!(
            "{direction:<9} median {:9.3} ms, {:8.3} us a step",
            median * 1e3,
            median * 1e6 / steps as f64
        );
        if let Some(instructions) = measured.instructions {
            let each = instructions as f64 / (steps * rows) as f64;
            line += &format!(", {each:.0} PTX instructions a step and row");
        }
        out.line(line);
        report[direction] = json!({
            "median_seconds": median, "minimum_seconds": minimum, "seconds": measured.seconds,
            "seconds_a_step": median / steps as f64, "instructions": measured.instructions,
        });
    }
    Ok(report)
}

/// Seconds of every run in ascending order, and instructions of one.
struct Measured {
    seconds: Vec<f64>,
    instructions: Option<u64>,
}

impl Measured {
    fn median(&self) -> f64 {
        let s = &self.seconds;
        0.5 * (s[(s.len() - 1) / 2] + s[s.len() / 2])
    }
}

fn measure(gpu: &Gpu, runs: usize, once: &mut dyn FnMut() -> Result<(), Error>) -> Result<Measured> {
    let before = gpu.instructions();
    once()?;
    gpu.synchronize()?;
    let instructions = gpu.instructions().zip(before).map(|(after, before)| after - before);
    let mut seconds = Vec::with_capacity(runs);
    for _ in 0..runs {
        let start = Instant::now();
        once()?;
        gpu.synchronize()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(Measured { seconds, instructions })
}
