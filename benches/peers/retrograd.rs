//! This engine as a worker of `benches/peers/run`: one case in one process. `case.rs` says what it reads and prints.
//!
//! With `--init` it writes the data file instead: first weights, inputs and targets. The formulation `sixteenth` is
//! the same program in a sixteenth of the memory it would take; `saved95`, `saved97` and `saved99` record only 5, 3 or
//! 1 per cent of the bytes of all values that the adjoint reads.

mod case;
mod mgu;

use case::{Fallible, Report, Request};
use retrograd::run::checkpoint;
use retrograd::{Params, Program, RunOptions, grad};

fn main() -> Fallible<()> {
    let Some(request) = Request::from_args()? else {
        println!("started by benches/peers/run, with --request FILE");
        return Ok(());
    };
    let version = format!("retrograd {}", env!("CARGO_PKG_VERSION"));
    let mut network = match request.case.network(1) {
        Ok(network) => network,
        Err(reason) => return Report { version, skipped: Some(reason?), ..Report::default() }.print(),
    };
    if std::env::args().any(|arg| arg == "--init") {
        condition(&request.case.cell, &mut network.params)?;
        let groups = [("model", &network.params), ("batch", &request.case.batch()?)];
        checkpoint::save(&request.data, &groups, &Default::default())?;
        return Report { version, ..Report::default() }.print();
    }

    let (weights, batch) = request.read_data()?;
    let wrt = network.trainable_vars();
    let mut outputs = vec![network.loss];
    outputs.extend(grad(&mut network.tape, network.loss, &wrt)?);
    let options = RunOptions { threads: Some(request.threads), ..RunOptions::default() };
    let mut program = Program::new(&network.tape, &outputs, options)?;
    let planned = |program: &Program| program.plan(request.case.steps, request.case.rows);
    if request.variant == "sixteenth" {
        program.set_budget(Some(planned(&program)?.peak_bytes() / 16));
    }
    if let Some(percent) = request.variant.strip_prefix("saved") {
        let plan = planned(&program)?;
        let share = 1.0 - percent.parse::<f64>()? / 100.0;
        let fixed = plan.peak_bytes() - plan.recorded_bytes();
        let least = program.smallest_plan(request.case.steps, request.case.rows)?.peak_bytes();
        let budget = fixed + (plan.everything_bytes() as f64 * share) as usize;
        program.set_budget(Some(budget.max(least)));
    }
    let planned = planned(&program)?.peak_bytes();

    let (first, seconds, resident_bytes) = request.measure(|| Ok(program.run(&[&weights, &batch])?))?;
    let names = network.trainable.iter().map(|(name, _)| name.clone());
    let mut first = first.into_iter();
    let loss = first.next().ok_or("no loss")?.item()?;
    request.write_grads(&names.zip(first).collect::<Params>())?;
    Report {
        version,
        skipped: None,
        loss,
        seconds,
        resident_bytes,
        planned_peak_bytes: Some(planned),
        measured_peak_bytes: Some(program.last_peak_bytes()),
        denormals_flushed: true,
    }
    .print()
}

/// Changes first values with which the last bit of a number would decide about its gradient, so that gradients can be
/// compared; the arithmetic stays the same.
///
/// KRU: with a positive bias modReLU jumps at 0; biases become negative. NRU: nothing in it saturates, and over
/// hundreds of steps its memory grows until the loss is without bound; its heads become a tenth. Rounding picks the
/// side of those of its rectified sums that are near 0 (of 15.7 million, 131 are within 1e-6 of what was added, and
/// three are on another side in f32 than in f64); biases become -1 and 1 in turn and recurrent matrices small, so that
/// half of the units are off and half are on, and none is nearer 0 than half of what was added.
fn condition(cell: &str, weights: &mut Params) -> Fallible<()> {
    type Change = fn(usize, f32) -> f32;
    let (tenth, hundredth): (Change, Change) = (|_, w| 0.1 * w, |_, w| 0.01 * w);
    let in_turn: Change = |unit, _| if unit % 2 == 0 { -1.0 } else { 1.0 };
    let changes: &[(&str, Change)] = match cell {
        "kru" => &[("layer0.b", |_, b| -b.abs())],
        "nru" => &[
            ("layer0.A", tenth),
            ("layer0.a", tenth),
            ("layer0.W", tenth),
            ("layer0.W_m", hundredth),
            ("layer0.b", in_turn),
        ],
        _ => &[],
    };
    for (name, change) in changes {
        let weight = weights.get_mut(name).ok_or_else(|| format!("no parameter `{name}`"))?;
        weight.as_mut_slice::<f32>()?.iter_mut().enumerate().for_each(|(k, w)| *w = change(k, *w));
    }
    Ok(())
}
