//! Bytes against time: the plans between the smallest budget and none, as expected and as measured.

use std::path::Path;
use std::time::Instant;

use retrograd::engine::Plan;
use retrograd::run::progress::format_bytes;
use retrograd::run::{Chart, Series};
use retrograd::{Params, Program, Result, RunOptions, Tape, Var};
use serde_json::{Value, json};

use super::Output;

/// Plans of a network between the smallest budget and none.
pub(crate) struct Tradeoff {
    plans: Vec<Plan>,
    /// Seconds of each plan that was run, by round; none if nothing was measured.
    rounds: Vec<Vec<Option<f64>>>,
    /// Most bytes allocated at once in a run of each plan that was run.
    peaks: Vec<Option<usize>>,
}

/// Plans expected to take more than so many times as long as the one without a budget are not measured.
const TOO_LONG: f64 = 3.0;

impl Tradeoff {
    /// What is expected.
    pub(crate) fn plan(program: &Program, (steps, rows): (usize, usize), points: usize) -> Result<Tradeoff> {
        Ok(Tradeoff { plans: program.tradeoff(steps, rows, points)?, rounds: Vec::new(), peaks: Vec::new() })
    }

    /// Runs every plan that is not expected to take [`TOO_LONG`], and then in each of `rounds` rounds one after the other,
    /// so that what disturbs the machine disturbs all of them.
    pub(crate) fn measure(
        &mut self,
        tape: &Tape,
        outputs: &[Var],
        options: &RunOptions,
        values: &[&Params],
        rounds: usize,
    ) -> Result<()> {
        let mut programs = Vec::with_capacity(self.plans.len());
        for (k, plan) in self.plans.iter().enumerate() {
            if self.expected(k) > TOO_LONG {
                self.peaks.push(None);
                programs.push(None);
                continue;
            }
            let options = RunOptions { budget: Some(plan.peak_bytes()), ..options.clone() };
            let mut program = Program::new(tape, outputs, options)?;
            program.run(values)?;
            self.peaks.push(Some(program.last_peak_bytes()));
            programs.push(Some(program));
        }
        for _ in 0..rounds {
            let mut seconds = Vec::with_capacity(programs.len());
            for program in &mut programs {
                let Some(program) = program else {
                    seconds.push(None);
                    continue;
                };
                // Once before it counts: the caches are as they are when one program runs again and again.
                program.run(values)?;
                let start = Instant::now();
                program.run(values)?;
                seconds.push(Some(start.elapsed().as_secs_f64()));
            }
            self.rounds.push(seconds);
        }
        Ok(())
    }

    fn minimum(&self, k: usize) -> Option<f64> {
        self.rounds.iter().filter_map(|round| round[k]).reduce(f64::min)
    }

    /// The fastest round of plan `k` over that of the plan without a budget: what else runs on a machine only ever adds.
    fn times_as_long(&self, k: usize) -> Option<f64> {
        Some(self.minimum(k)? / self.minimum(self.plans.len() - 1)?)
    }

    fn expected(&self, k: usize) -> f64 {
        let all = self.plans[self.plans.len() - 1].expected_seconds();
        if all > 0.0 { self.plans[k].expected_seconds() / all } else { 1.0 }
    }

    /// The table; `chosen` is the plan of the present budget.
    pub(crate) fn print(&self, out: &Output, chosen: &Plan) {
        out.line("bytes against time: plans from the smallest budget to none");
        let measured = !self.rounds.is_empty();
        let heading = if measured { "    measured        time  as long" } else { "" };
        out.line(format!(
            "           peak    recorded   saved  segments                     more steps  expected{heading}"
        ));
        for (k, plan) in self.plans.iter().enumerate() {
            let mark = if plan.peak_bytes() == chosen.peak_bytes() { '>' } else { ' ' };
            let peak = self.peaks.get(k).copied().flatten();
            let times = match (peak, self.minimum(k), self.times_as_long(k)) {
                (Some(peak), Some(seconds), Some(ratio)) => {
                    format!("  {:>10}  {:>8.3} ms  {ratio:>6.2}×", format_bytes(peak), seconds * 1e3)
                }
                _ => String::new(),
            };
            let line = format!(
                "{mark} {:>13}  {:>10}  {:>5.1}%  {:<26}{:>12}  {:>7.2}×{times}",
                format_bytes(plan.peak_bytes()),
                format_bytes(plan.recorded_bytes()),
                100.0 * saved(plan),
                cut(plan),
                plan.extra_forward_steps(),
                self.expected(k),
            );
            out.line(line.trim_end());
        }
        let everything = format_bytes(chosen.everything_bytes());
        out.line(format!(
            "saved: of the {everything} that every value which the adjoint reads would take; `r`: only states are kept"
        ));
    }

    /// Draws it.
    pub(crate) fn draw(&self, file: &Path, title: &str, chosen: &Plan) -> Result<()> {
        let megabytes = |plan: &Plan| plan.peak_bytes() as f64 / f64::from(1 << 20);
        let curve = |name: &str, y: &dyn Fn(usize) -> Option<f64>| Series {
            name: name.into(),
            points: (0..self.plans.len()).filter_map(|k| Some((megabytes(&self.plans[k]), y(k)?))).collect(),
        };
        let mut series = vec![curve("expected", &|k| Some(self.expected(k)))];
        if !self.rounds.is_empty() {
            series.push(curve("measured", &|k| self.times_as_long(k)));
        }
        let all = self.plans[self.plans.len() - 1].expected_seconds().max(f64::MIN_POSITIVE);
        let (x, y) = (megabytes(chosen), chosen.expected_seconds() / all);
        // A small cross marks the plan of the present budget.
        series.push(Series {
            name: "this budget".into(),
            points: vec![(x * 0.96, y), (x * 1.04, y), (x, f64::NAN), (x, y - 0.02), (x, y + 0.02)],
        });
        let chart = Chart {
            title: format!("{title}: bytes against time"),
            x_label: "peak, MiB".into(),
            y_label: "time of a run, times that without a budget".into(),
            log_x: true,
            series,
            ..Chart::default()
        };
        chart.save(file)
    }

    /// The numbers.
    pub(crate) fn json(&self) -> Value {
        let line = |k: usize| {
            let plan = &self.plans[k];
            json!({
                "planned_peak_bytes": plan.peak_bytes(), "recorded_bytes": plan.recorded_bytes(), "saved": saved(plan),
                "segments": plan.segments().map(|(leaf, slots)| json!({ "steps": leaf, "checkpoints": slots })),
                "rebuilds_everything": plan.rebuilds_everything(),
                "extra_forward_steps": plan.extra_forward_steps(),
                "expected_seconds": plan.expected_seconds(),
                "measured_peak_bytes": self.peaks.get(k), "minimum_seconds": self.minimum(k),
                "times_as_long": self.times_as_long(k),
                "seconds": self.rounds.iter().map(|round| round[k]).collect::<Vec<_>>(),
            })
        };
        (0..self.plans.len()).map(line).collect()
    }
}

/// Share of the bytes of every value that the adjoint reads.
fn saved(plan: &Plan) -> f64 {
    match plan.everything_bytes() {
        0 => 0.0,
        all => 1.0 - plan.recorded_bytes() as f64 / all as f64,
    }
}

/// How a plan cuts the sequence, in few letters.
pub(crate) fn cut(plan: &Plan) -> String {
    let rebuilds = if plan.rebuilds_everything() { " r" } else { "" };
    match plan.segments() {
        None => format!("whole{rebuilds}"),
        Some((leaf, slots)) => format!("of {leaf}, {slots} checkpoints{rebuilds}"),
    }
}
