//! `retrograd gradcheck`: recorded gradients against finite differences, for everything that has a name.

use std::collections::HashMap;

use retrograd::cells::init::{Init, rng_for};
use retrograd::cells::{
    CELLS, Input, Loss, Model, ModelSpec, OPERATORS, OperatorEntry, Readout, cell_entry, combinations,
    operator_entry,
};
use retrograd::engine::gradcheck::{self, Options};
use retrograd::engine::{Stash, reference};
use retrograd::ops::{OPS, OpSpec, Sampler};
use retrograd::{DType, Error, Params, Program, RunOptions, Tape, Tensor, Var, grad};
use serde_json::{Value, json};

use super::network::layer;
use super::rounding::Rounding;
use super::{Output, Report, Result, parse};

const EXAMPLES: &str = "\
Operations are checked in every case of their specification, real and complex; cells on operators through a short
scan. In double precision, by five-point differences and by the adjoint identity, on the planned executor and on the
reference evaluator. Exit status 1 if anything is wrong.

With --stash, gradients of cells are compared with themselves instead: those whose backward pass reads values kept in
16 bits with exact ones, in single precision, as norms over all parameters and for the parameter that is furthest off.

Examples:
  retrograd gradcheck
  retrograd gradcheck --op tanh
  retrograd gradcheck --cell lstm
  retrograd gradcheck --cell lstm --operator kron --seed 7
  retrograd gradcheck --stash bf16";

/// Arguments of `retrograd gradcheck`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// One cell, on all operators if none is named
    #[arg(long)]
    cell: Option<String>,
    /// One recurrent operator, in all cells if none is named
    #[arg(long)]
    operator: Option<String>,
    /// One operation
    #[arg(long)]
    op: Option<String>,
    /// Everything; also the default
    #[arg(long, conflicts_with_all = ["cell", "operator", "op"])]
    all: bool,
    /// Largest relative error of a derivative
    #[arg(long, default_value_t = 1e-9)]
    tolerance: f64,
    /// Instead, how far gradients are off where values are kept as bf16 or f16 for the backward pass
    #[arg(long, value_name = "TYPE", value_parser = parse::stash, conflicts_with_all = ["op", "tolerance"])]
    stash: Option<Stash>,
    /// Seed of values and directions
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// The worst of what was found for one item.
#[derive(Default)]
struct Item {
    name: String,
    derivatives: usize,
    error: f64,
    ratio: f64,
    /// What is wrong, if anything.
    failures: Vec<String>,
}

/// What computes.
#[derive(Clone, Copy, PartialEq)]
enum Runner {
    Planned,
    Reference,
}

/// Runs the command.
pub(crate) fn run(args: &Args, out: &Output) -> Result<Report> {
    if !(args.tolerance > 0.0 && args.tolerance.is_finite()) {
        return Err(Error::config("tolerance", format!("{}, expected more than 0", args.tolerance)));
    }
    if let Some(stash) = args.stash {
        return rounded(stash, args, out);
    }
    let cells = args.cell.is_some() || args.operator.is_some();
    let everything = !cells && args.op.is_none();
    let mut items = Vec::new();
    out.line(format!("{:<36}{:>12}{:>13}{:>16}", "", "derivatives", "worst error", "adjoint ratio"));
    if everything || args.op.is_some() {
        let found = match &args.op {
            Some(name) => vec![operation(name)?],
            None => OPS.to_vec(),
        };
        for op in found {
            let item = check_operation(op, args)?;
            show(&item, out);
            items.push(item);
        }
    }
    if everything || cells {
        let on_cells = match &args.cell {
            Some(name) => vec![cell_entry(name)?],
            None => CELLS.to_vec(),
        };
        let on_operators = match &args.operator {
            Some(name) => vec![operator_entry(name)?],
            None => OPERATORS.to_vec(),
        };
        let known = combinations();
        let both = args.cell.is_some() && args.operator.is_some();
        for cell in &on_cells {
            // Asked for by name, a pair that does not fit is an error.
            let fits = |o: &&&OperatorEntry| {
                both || known.iter().any(|k| (k.0.name, k.1.name) == (cell.name, o.name))
            };
            for operator in on_operators.iter().filter(fits) {
                let item = check_cell(cell.name, operator.name, args)?;
                show(&item, out);
                items.push(item);
            }
        }
    }
    let failed: Vec<&Item> = items.iter().filter(|i| !i.failures.is_empty()).collect();
    for item in &failed {
        for failure in &item.failures {
            out.line(format!("\n{}: {failure}", item.name));
        }
    }
    let derivatives: usize = items.iter().map(|i| i.derivatives).sum();
    let verdict = match failed.len() {
        0 => "all are right".to_string(),
        n => format!("{n} are WRONG"),
    };
    out.line(format!(
        "\n{} items, {derivatives} derivatives at {:.0e}: {verdict}",
        items.len(),
        args.tolerance
    ));
    let rows: Vec<Value> = items
        .iter()
        .map(|i| {
            json!({
                "name": i.name, "derivatives": i.derivatives, "worst_error": i.error, "adjoint_ratio": i.ratio,
                "passed": i.failures.is_empty(), "failures": i.failures,
            })
        })
        .collect();
    let report = json!({
        "passed": failed.is_empty(), "tolerance": args.tolerance, "seed": args.seed, "derivatives": derivatives,
        "items": rows,
    });
    Ok(Report::new(report).failed_if(!failed.is_empty()))
}

fn show(item: &Item, out: &Output) {
    let mark = if item.failures.is_empty() { "" } else { "  WRONG" };
    out.line(format!(
        "{:<36}{:>12}{:>13.1e}{:>16.1e}{mark}",
        item.name, item.derivatives, item.error, item.ratio
    ));
}

fn operation(name: &str) -> Result<&'static OpSpec> {
    OPS.iter().find(|op| op.name == name).copied().ok_or_else(|| {
        let near = OPS.iter().map(|op| (op.name, strsim::jaro_winkler(name, op.name)));
        let near = near.filter(|n| n.1 > 0.7).max_by(|a, b| a.1.total_cmp(&b.1));
        let hint =
            near.map_or("; `retrograd list ops` lists them".into(), |n| format!(", did you mean `{}`?", n.0));
        Error::config("op", format!("unknown operation `{name}`{hint}"))
    })
}

fn check_operation(op: &OpSpec, args: &Args) -> Result<Item> {
    let mut item = Item { name: op.name.into(), ..Item::default() };
    for case in op.cases {
        for complex in case.fields() {
            let what = match complex.contains(&true) {
                true => format!("{}, complex", case.label),
                false => case.label.to_string(),
            };
            for runner in [Runner::Planned, Runner::Reference] {
                let mut recorded = case.record(DType::F64, &complex, &mut Sampler::roomy(args.seed, case))?;
                let tape = &mut recorded.tape;
                let differentiable = |v: &Var| tape.dtype(*v).is_ok_and(DType::is_differentiable);
                let wrt: Vec<Var> = recorded.inputs.iter().copied().filter(differentiable).collect();
                if !wrt.is_empty() && differentiable(&recorded.output) {
                    item.check(&what, tape, &[recorded.output], &wrt, &[&recorded.values], args, runner)?;
                }
            }
        }
    }
    Ok(item)
}

/// Sizes of the short scan: small, with every axis of another size.
const STEPS: usize = 4;
const ROWS: usize = 3;
const HIDDEN: usize = 6;
const INPUTS: usize = 2;
const OUTPUTS: usize = 5;

fn check_cell(cell: &str, operator: &str, args: &Args) -> Result<Item> {
    let mut item = Item { name: format!("{cell} on {operator}"), ..Item::default() };
    // Read at every step, cotangents come from everywhere; read at the end, they pass rows that have ended.
    for (readout, what) in [
        (Readout::EveryStep, "through a scan, read at every step"),
        (Readout::Last, "through a scan, read at its end"),
    ] {
        let layers = vec![layer(cell, Some(operator), &[], HIDDEN)?];
        let mut spec =
            ModelSpec::new(Input::Dense(INPUTS), layers, readout, OUTPUTS, Loss::SoftmaxCrossEntropy);
        (spec.dtype, spec.learn_h0, spec.lengths) = (DType::F64, true, true);
        let model = Model::new(spec)?;
        let inputs = batch(readout, args.seed)?;
        for runner in [Runner::Planned, Runner::Reference] {
            let mut recorded = model.record(args.seed)?;
            let mut wrt = recorded.trainable_vars();
            wrt.extend(recorded.tape.inputs().filter(|(name, _, _)| *name == "x").map(|(_, v, _)| v));
            let params = moved(&recorded.params, args.seed)?;
            item.check(what, &mut recorded.tape, &[recorded.loss], &wrt, &[&inputs, &params], args, runner)?;
        }
    }
    Ok(item)
}

/// Sizes of the networks whose gradients are compared under `--stash`: long enough for errors to meet.
const LONG: (usize, usize) = (200, 8);
const UNITS: usize = 32;

/// Gradients of cells with a stash that rounds against exact ones: of every cell on its own operator, or of those named.
fn rounded(stash: Stash, args: &Args, out: &Output) -> Result<Report> {
    let mut pairs = combinations();
    if let Some(cell) = &args.cell {
        let entry = cell_entry(cell)?;
        pairs.retain(|(c, _)| c.name == entry.name);
    }
    match &args.operator {
        Some(operator) => {
            let entry = operator_entry(operator)?;
            pairs.retain(|(_, o)| o.name == entry.name);
        }
        None if args.cell.is_none() => pairs.retain(|(c, o)| c.operator == o.name),
        None => {}
    }
    let ((steps, rows), options) = (LONG, RunOptions { stash, threads: Some(1), ..RunOptions::default() });
    out.line(format!("{stash} stash; T={steps} steps, N={rows} rows, {UNITS} units, single precision"));
    out.line(format!(
        "{:<28}{:>14}   {:<28}{:>10}{:>20}",
        "", "gradient error", "worst parameter", "", "recorded"
    ));
    let mut lines = Vec::new();
    for (cell, operator) in pairs {
        let layers = vec![layer(cell.name, Some(operator.name), &[], UNITS)?];
        let spec = ModelSpec::new(
            Input::Dense(INPUTS),
            layers,
            Readout::EveryStep,
            OUTPUTS,
            Loss::SoftmaxCrossEntropy,
        );
        let mut recorded = Model::new(spec)?.record(args.seed)?;
        let wrt = recorded.trainable_vars();
        let bars = grad(&mut recorded.tape, recorded.loss, &wrt)?;
        let names = recorded.trainable.iter().map(|(name, _)| name.clone());
        let gradients: Vec<(String, Var)> = names.zip(bars).collect();
        let mut inputs = Params::new();
        let mut rng = rng_for(args.seed, "stash");
        inputs.insert("x", Init::Normal(1.0).tensor(&[steps, rows, INPUTS], DType::F32, &mut rng)?);
        let targets: Vec<i32> = (0..steps * rows).map(|i| (i * 3 % OUTPUTS) as i32).collect();
        inputs.insert("target", Tensor::from_slice([steps, rows], &targets)?);
        let values = [&inputs, &recorded.params];
        let found = Rounding::measure(&recorded.tape, recorded.loss, &gradients, &values, LONG, &options)?;
        let name = format!("{} on {}", cell.name, operator.name);
        let share = 100.0 * found.bytes.1 as f64 / found.bytes.0.max(1) as f64;
        out.line(format!(
            "{name:<28}{:>14.1e}   {:<28}{:>10.1e}{share:>18.1} %",
            found.error, found.worst.0, found.worst.1
        ));
        let mut line = found.json();
        line["name"] = json!(name);
        lines.push(line);
    }
    if lines.is_empty() {
        return Err(Error::config("operator", "the cell does not run on it"));
    }
    Ok(Report::new(
        json!({ "stash": stash.name(), "steps": steps, "rows": rows, "units": UNITS, "items": lines }),
    ))
}

/// A batch in which every row ends at another step.
fn batch(readout: Readout, seed: u64) -> Result<Params> {
    let mut inputs = Params::new();
    let mut rng = rng_for(seed, "gradcheck");
    inputs.insert("x", Init::Normal(1.0).tensor(&[STEPS, ROWS, INPUTS], DType::F64, &mut rng)?);
    let dims: &[usize] = match readout {
        Readout::EveryStep => &[STEPS, ROWS],
        Readout::Last => &[ROWS],
    };
    let targets: Vec<i32> = (0..dims.iter().product()).map(|i: usize| (i * 3 % OUTPUTS) as i32).collect();
    inputs.insert("target", Tensor::from_slice(dims, &targets)?);
    let lengths: Vec<i32> = (0..ROWS).map(|row| (STEPS - row) as i32).collect();
    inputs.insert("lengths", Tensor::from_slice([ROWS], &lengths)?);
    Ok(inputs)
}

/// Parameters with a little noise: first values are often 0 or equal, where mistakes hide.
fn moved(params: &Params, seed: u64) -> Result<Params> {
    let one = |(name, value): (&str, &Tensor)| {
        let noise = Init::Normal(0.2).tensor(value.dims(), value.dtype(), &mut rng_for(seed, name))?;
        let mut moved = value.clone();
        moved.fill_with(|i| value.get(i) + noise.get(i));
        Ok((name.to_string(), moved))
    };
    params.iter().map(one).collect()
}

impl Item {
    /// Checks derivatives of `outputs` and adds what was found.
    fn check(
        &mut self,
        what: &str,
        tape: &mut Tape,
        outputs: &[Var],
        wrt: &[Var],
        bindings: &[&Params],
        args: &Args,
        runner: Runner,
    ) -> Result<()> {
        let options = Options {
            tolerance: args.tolerance,
            max_components: 24,
            directions: 2,
            seed: args.seed,
            ..Options::default()
        };
        // The same outputs are run many times: one program for each.
        let mut programs: HashMap<Vec<Var>, Program> = HashMap::new();
        let mut planned = |tape: &Tape, outputs: &[Var], bindings: &[&Params]| {
            if let Some(program) = programs.get_mut(outputs) {
                return program.run(bindings);
            }
            let options = RunOptions { threads: Some(1), ..RunOptions::default() };
            let mut program = Program::new(tape, outputs, options)?;
            let values = program.run(bindings);
            programs.insert(outputs.to_vec(), program);
            values
        };
        let (by, report) = match runner {
            Runner::Planned => {
                ("planned", gradcheck::check(tape, outputs, wrt, bindings, &options, &mut planned)?)
            }
            Runner::Reference => (
                "reference",
                gradcheck::check(tape, outputs, wrt, bindings, &options, &mut reference::evaluate)?,
            ),
        };
        self.derivatives += report.checked();
        self.error = self.error.max(report.worst().map_or(0.0, |w| w.error));
        self.ratio = self.ratio.max(report.adjoint_ratio());
        if !report.passed() {
            self.failures.push(format!("{what} ({by}): {report}"));
        }
        Ok(())
    }
}
