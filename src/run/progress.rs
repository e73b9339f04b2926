//! The live progress line of the program.
//!
//! On a terminal one line is redrawn in place; elsewhere (a file, a pipe) a plain line is written now and then.
//! Everything goes to standard error, so that standard output holds results only.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::pace::Pace;

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// [`Mode::Live`] if standard error is a terminal, else [`Mode::Plain`].
    #[default]
    Auto,
    /// One line, redrawn.
    Live,
    /// A line every ten seconds and one at the end.
    Plain,
    /// Nothing at all.
    Quiet,
}

/// What there is to report after a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Status<'a> {
    /// Steps done, counted from the start of the run (not of the process).
    pub step: u64,
    /// Epochs done, for tasks that have epochs.
    pub epoch: Option<u64>,
    /// Training loss.
    pub loss: f64,
    /// Newest validation metric and its name.
    pub metric: Option<(&'a str, f64)>,
    /// Peak of the memory meter, bytes.
    pub peak_bytes: usize,
    /// Cost of an update of a second-order optimiser: milliseconds in all, and those of loss and gradient alone.
    pub cost: Option<(f64, f64)>,
}

/// A progress line for one run.
pub struct Progress {
    pace: Pace,
    start: Instant,
    total: u64,
    at_most: bool,
    sink: Sink,
}

enum Sink {
    Live(ProgressBar),
    Plain { out: Box<dyn Write + Send>, next: Duration, last: Option<String> },
    Quiet,
}

/// Time between two plain lines.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

impl Progress {
    /// Progress of a run from `start_step` (not 0 if it is resumed) to `total_steps`. `at_most` says that it may
    /// end earlier (early stopping); the time left is then shown as an upper bound.
    pub fn new(mode: Mode, start_step: u64, total_steps: u64, at_most: bool) -> Progress {
        let live = match mode {
            Mode::Auto => io::stderr().is_terminal(),
            Mode::Live => true,
            Mode::Plain | Mode::Quiet => false,
        };
        let sink = if live {
            // Redrawing more often than the eye follows would only cost time.
            let target = ProgressDrawTarget::stderr_with_hz(10);
            let bar = ProgressBar::with_draw_target(Some(total_steps), target);
            bar.set_position(start_step);
            // The bar is the first to go where there is little room, then the end of the text.
            let wide = Term::stderr().size_checked().is_some_and(|(_, columns)| columns >= 110);
            let template = if wide { "{bar:16.cyan/dim} {wide_msg}" } else { "{wide_msg}" };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("━╸─"));
            }
            Sink::Live(bar)
        } else if mode == Mode::Quiet {
            Sink::Quiet
        } else {
            plain(Box::new(io::stderr()))
        };
        Progress { pace: Pace::new(start_step), start: Instant::now(), total: total_steps, at_most, sink }
    }

    /// Like [`Mode::Plain`], to any writer.
    pub fn to_writer(
        out: Box<dyn Write + Send>,
        start_step: u64,
        total_steps: u64,
        at_most: bool,
    ) -> Progress {
        let mut progress = Progress::new(Mode::Quiet, start_step, total_steps, at_most);
        progress.sink = plain(out);
        progress
    }

    /// Reports a step. Cheap enough to be called after every one.
    pub fn update(&mut self, status: &Status) {
        self.update_at(self.start.elapsed(), status);
    }

    fn update_at(&mut self, elapsed: Duration, status: &Status) {
        self.pace.observe(elapsed, status.step);
        let (total, at_most) = (self.total, self.at_most);
        match &mut self.sink {
            Sink::Quiet => {}
            Sink::Live(bar) => {
                bar.set_position(status.step);
                bar.set_message(line(status, total, &self.pace, at_most));
            }
            Sink::Plain { out, next, last } => {
                let text = line(status, total, &self.pace, at_most);
                if elapsed >= *next {
                    // Nobody may be reading any more; that is no reason to stop training.
                    writeln!(out, "{text}").ok();
                    *next = elapsed + PLAIN_INTERVAL;
                    *last = None;
                } else {
                    *last = Some(text);
                }
            }
        }
    }

    /// Writes a line of text that stays, above the live one.
    pub fn note(&mut self, text: &str) {
        match &mut self.sink {
            Sink::Quiet => {}
            Sink::Live(bar) => bar.suspend(|| eprintln!("{text}")),
            Sink::Plain { out, .. } => {
                writeln!(out, "{text}").ok();
            }
        }
    }

    /// Ends: the live line is removed, the newest plain one is written if it was not yet.
    pub fn finish(mut self) {
        match &mut self.sink {
            Sink::Quiet => {}
            Sink::Live(bar) => bar.finish_and_clear(),
            Sink::Plain { out, last, .. } => {
                if let Some(text) = last.take() {
                    writeln!(out, "{text}").ok();
                }
                out.flush().ok();
            }
        }
    }
}

fn plain(out: Box<dyn Write + Send>) -> Sink {
    Sink::Plain { out, next: Duration::ZERO, last: None }
}

fn line(status: &Status, total: u64, pace: &Pace, at_most: bool) -> String {
    // In the order of what is missed most when the end does not fit; all but the epoch fits into 80 columns.
    let mut text = format!("step {}/{total}", status.step);
    // Writing to a string cannot fail.
    if let Some(left) = pace.left(total).filter(|_| status.step < total) {
        let bound = if at_most { "≤" } else { "" };
        write!(text, "  {bound}{} left", format_duration(left)).ok();
    }
    write!(text, "  loss {}", number(status.loss)).ok();
    if let Some((name, value)) = status.metric {
        write!(text, "  {name} {}", number(value)).ok();
    }
    if let Some(rate) = pace.steps_per_second() {
        write!(text, "  {} steps/s", rate_text(rate)).ok();
    }
    if let Some((all, first_order)) = status.cost {
        write!(text, "  {} ms an update, {} of it first order", number(all), number(first_order)).ok();
    }
    write!(text, "  peak {}", format_bytes(status.peak_bytes)).ok();
    if let Some(epoch) = status.epoch {
        write!(text, "  epoch {epoch}").ok();
    }
    text
}

/// Three significant digits: a rate is not steadier than that.
fn rate_text(rate: f64) -> String {
    match rate {
        r if r >= 99.95 => format!("{r:.0}"),
        r if r >= 9.995 => format!("{r:.1}"),
        r if r >= 0.1 => format!("{r:.2}"),
        r => format!("{r:.4}"),
    }
}

/// Four significant digits.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        a if (0.001..10_000.0).contains(&a) => {
            let digits = (3 - a.log10().floor() as i32).clamp(0, 6) as usize;
            format!("{value:.digits$}")
        }
        a if (10_000.0..1e7).contains(&a) => format!("{value:.0}"),
        a if a.is_finite() => format!("{value:.3e}"),
        _ => value.to_string(),
    }
}

/// Bytes in binary units, three digits: `1.50 MiB`.
pub fn format_bytes(bytes: usize) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].into_iter().peekable();
    // The next unit also where rounding would show 1024 of this one.
    while value >= 1023.5 && units.len() > 1 {
        value /= 1024.0;
        units.next();
    }
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$} {}", units.next().unwrap_or_default())
}

/// A time in its two largest units, rounded up to whole seconds: `42s`, `3m07s`, `2h05m`, `4d06h`.
pub fn format_duration(time: Duration) -> String {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, m) => format!("{m}m{:02}s", seconds % 60),
        (0, h, m) => format!("{h}h{:02}m", m % 60),
        (d, h, _) => format!("{d}d{:02}h", h % 24),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Shared {
        fn lines(&self) -> Vec<String> {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap().lines().map(str::to_owned).collect()
        }
    }

    #[test]
    fn plain_lines_come_now_and_then_and_the_last_one_always() {
        let out = Shared::default();
        let mut progress = Progress::to_writer(Box::new(out.clone()), 100, 400, true);
        for second in 1..=25u64 {
            let status = Status {
                step: 100 + second * 10,
                epoch: Some(2),
                loss: 0.123456,
                metric: Some(("nll", 8.5)),
                peak_bytes: 3 << 20,
                cost: None,
            };
            progress.update_at(Duration::from_secs(second), &status);
        }
        progress.note("checkpoint saved");
        progress.finish();
        assert_eq!(
            out.lines(),
            [
                "step 110/400  loss 0.1235  nll 8.500  10.0 steps/s  peak 3.00 MiB  epoch 2",
                "step 210/400  ≤19s left  loss 0.1235  nll 8.500  10.0 steps/s  peak 3.00 MiB  epoch 2",
                "step 310/400  ≤9s left  loss 0.1235  nll 8.500  10.0 steps/s  peak 3.00 MiB  epoch 2",
                "checkpoint saved",
                "step 350/400  ≤5s left  loss 0.1235  nll 8.500  10.0 steps/s  peak 3.00 MiB  epoch 2",
            ]
        );
    }

    #[test]
    fn the_cost_of_an_update_is_shown_beside_that_of_the_first_order() {
        let out = Shared::default();
        let mut progress = Progress::to_writer(Box::new(out.clone()), 0, 9, false);
        let status = Status { step: 1, loss: 1.0, cost: Some((12.345, 4.0)), ..Status::default() };
        progress.update_at(Duration::from_secs(1), &status);
        let line = &out.lines()[0];
        assert!(line.contains("12.35 ms an update, 4.000 of it first order  peak"), "{line}");
    }

    #[test]
    fn a_writer_that_fails_and_a_quiet_one_do_no_harm() {
        struct Broken;
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let quiet = Progress::new(Mode::Quiet, 0, 10, false);
        assert!(matches!(quiet.sink, Sink::Quiet));
        for mut progress in [quiet, Progress::to_writer(Box::new(Broken), 0, 10, false)] {
            progress.update(&Status { step: 1, loss: f64::NAN, ..Status::default() });
            progress.note("text");
            progress.finish();
        }
    }

    #[test]
    fn numbers_bytes_and_times_are_short() {
        let numbers = [
            (0.0, "0"),
            (0.16666, "0.1667"),
            (-8.5912, "-8.591"),
            (1234.56, "1235"),
            (45678.9, "45679"),
            (1.5e-5, "1.500e-5"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "inf"),
        ];
        for (value, text) in numbers {
            assert_eq!(number(value), text);
        }
        let bytes = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.50 KiB"),
            (1 << 20, "1.00 MiB"),
            ((1 << 20) - 1, "1.00 MiB"),
            (256 << 20, "256 MiB"),
            (usize::MAX, "16.0 EiB"),
        ];
        for (value, text) in bytes {
            assert_eq!(format_bytes(value), text);
        }
        let times = [(0.0, "0s"), (0.2, "1s"), (59.0, "59s"), (60.0, "1m00s"), (187.0, "3m07s")];
        for (value, text) in times.into_iter().chain([(7500.0, "2h05m"), (367_200.0, "4d06h")]) {
            assert_eq!(format_duration(Duration::from_secs_f64(value)), text);
        }
    }
}
