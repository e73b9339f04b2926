//! Time of a step and sample against the length of the sequence, under one budget.

use std::time::Instant;

use retrograd::engine::Plan;
use retrograd::run::progress::format_bytes;
use retrograd::{Error, Params, Program, Result, Tape, Var};
use serde_json::{Value, json};

use super::Output;
use super::network::NetworkArgs;
use super::tradeoff::cut;

/// Steps that are run at least between two looks at the clock.
const AT_ONCE: usize = 20_000;

/// A length of the sequence.
struct Row {
    steps: usize,
    plan: Plan,
    /// Expected seconds under the budget over those without one: what the schedule costs.
    factor: f64,
    measured_bytes: usize,
    /// Of a run, by round.
    seconds: Vec<f64>,
}

/// Lengths from 100 to `most` by factors of ten, and `most`.
pub(crate) fn lengths(most: usize) -> Vec<usize> {
    let tens = std::iter::successors(Some(100usize), |t| t.checked_mul(10)).take_while(|&t| t < most);
    tens.chain([most]).collect()
}

/// What was measured.
pub(crate) struct Lengths {
    rows: Vec<Row>,
    batch: usize,
}

impl Lengths {
    /// Runs the program at every length once, and then in `rounds` rounds, one length after the other. Errors: a budget
    /// too small for the longest; those of the runs.
    pub(crate) fn measure(
        network: &NetworkArgs,
        tape: &Tape,
        outputs: &[Var],
        params: &Params,
        rounds: usize,
    ) -> Result<Lengths> {
        if network.budget.is_none() {
            return Err(Error::config("budget", "missing; lengths are compared under one budget"));
        }
        let mut rows = Vec::new();
        let mut program = Program::new(tape, outputs, network.options()?)?;
        let mut batches = Vec::new();
        for steps in lengths(network.steps) {
            let plan = program.plan(steps, network.batch)?;
            let free = program.plan_within(steps, network.batch, None)?;
            let factor = plan.expected_seconds() / free.expected_seconds().max(f64::MIN_POSITIVE);
            let batch = network.batch_of(steps)?;
            program.run(&[params, &batch])?;
            let measured_bytes = program.last_peak_bytes();
            batches.push(batch);
            rows.push(Row { steps, plan, factor, measured_bytes, seconds: Vec::new() });
        }
        for _ in 0..rounds {
            for (row, batch) in rows.iter_mut().zip(&batches) {
                let times = AT_ONCE.div_ceil(row.steps);
                // The arena changes its size with the length; that is no part of a step.
                program.run(&[params, batch])?;
                let start = Instant::now();
                for _ in 0..times {
                    program.run(&[params, batch])?;
                }
                row.seconds.push(start.elapsed().as_secs_f64() / times as f64);
            }
        }
        Ok(Lengths { rows, batch: network.batch })
    }

    /// Seconds of a step and sample.
    fn rate(&self, row: &Row) -> f64 {
        let least = row.seconds.iter().copied().fold(f64::INFINITY, f64::min);
        least / (row.steps * self.batch) as f64
    }

    /// The time of a step and sample over that of the shortest sequence, and the same with what the schedule was expected
    /// to cost taken out.
    fn beside_first(&self, row: &Row) -> (f64, f64) {
        let first = &self.rows[0];
        let ratio = self.rate(row) / self.rate(first);
        (ratio, ratio * first.factor / row.factor)
    }

    /// The table.
    pub(crate) fn print(&self, out: &Output) {
        out.line(
            "     steps   planned peak  measured peak  segments                 step+sample  of first  schedule  of first without",
        );
        for row in &self.rows {
            let (ratio, without) = self.beside_first(row);
            out.line(format!(
                "{:>10}  {:>13}  {:>13}  {:<23}{:>10.2} ns  {:>7.2}×  {:>7.2}×  {:>15.2}×",
                row.steps,
                format_bytes(row.plan.peak_bytes()),
                format_bytes(row.measured_bytes),
                cut(&row.plan),
                self.rate(row) * 1e9,
                ratio,
                row.factor,
                without,
            ));
        }
        out.line(
            "step+sample: fastest round over steps and rows; schedule: expected time over that without a budget",
        );
    }

    /// The numbers.
    pub(crate) fn json(&self) -> Value {
        let line = |row: &Row| {
            let (ratio, without) = self.beside_first(row);
            json!({
                "steps": row.steps, "planned_peak_bytes": row.plan.peak_bytes(),
                "measured_peak_bytes": row.measured_bytes, "recorded_bytes": row.plan.recorded_bytes(),
                "segments": row.plan.segments().map(|(leaf, slots)| json!({ "steps": leaf, "checkpoints": slots })),
                "extra_forward_steps": row.plan.extra_forward_steps(), "seconds": row.seconds,
                "step_sample_seconds": self.rate(row), "of_first": ratio,
                "expected_factor": row.factor, "of_first_without_schedule": without,
            })
        };
        self.rows.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::lengths;

    #[test]
    fn lengths_grow_by_tens_to_the_most() {
        assert_eq!(lengths(1_000_000), [100, 1_000, 10_000, 100_000, 1_000_000]);
        assert_eq!(lengths(2_500), [100, 1_000, 2_500]);
        assert_eq!(lengths(7), [7]);
    }
}
