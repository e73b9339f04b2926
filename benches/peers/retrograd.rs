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
        request.case.condition(&mut network.params)?;
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
