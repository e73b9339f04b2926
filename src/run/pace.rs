//! How fast a run goes, and how long it will still take.

use std::collections::VecDeque;
use std::time::Duration;

/// Measured pace of a run: steps over all the time that passes, evaluations and saving included, so that what it
/// says about the time left is the time a person will wait.
///
/// The pace is that of the later half of the run so far (at least of [`WINDOW`]): long enough to hold pauses in
/// their proportion, short enough to follow a machine that becomes slower or faster.
#[derive(Debug)]
pub(super) struct Pace {
    /// Time since the start and step, oldest first.
    samples: VecDeque<(Duration, u64)>,
    /// Least time between two samples; doubles when there are too many.
    spacing: Duration,
}

/// Shortest stretch of time over which the pace is measured.
const WINDOW: Duration = Duration::from_secs(20);
/// Before this much time has passed, nothing is said about the time left.
const EVIDENCE: Duration = Duration::from_secs(2);
const MOST_SAMPLES: usize = 512;

impl Pace {
    /// A run that starts now, at `step` (not 0 if it is resumed).
    pub(super) fn new(step: u64) -> Pace {
        Pace { samples: VecDeque::from([(Duration::ZERO, step)]), spacing: Duration::from_millis(100) }
    }

    /// Notes that `step` is done `elapsed` after the start.
    pub(super) fn observe(&mut self, elapsed: Duration, step: u64) {
        // The newest sample is replaced as long as it is close to the one before it.
        let settled = match self.samples.len() {
            0 | 1 => true,
            n => self.samples[n - 1].0.saturating_sub(self.samples[n - 2].0) >= self.spacing,
        };
        if !settled {
            self.samples.pop_back();
        }
        self.samples.push_back((elapsed, step));
        let window = WINDOW.max(elapsed / 2);
        while self.samples.len() > 2 && elapsed.saturating_sub(self.samples[1].0) >= window {
            self.samples.pop_front();
        }
        if self.samples.len() > MOST_SAMPLES {
            let mut odd = false;
            self.samples.retain(|_| {
                odd = !odd;
                odd
            });
            self.spacing *= 2;
        }
    }

    /// Steps per second, once a step is done.
    pub(super) fn steps_per_second(&self) -> Option<f64> {
        let (&(t0, s0), &(t1, s1)) = (self.samples.front()?, self.samples.back()?);
        let seconds = t1.saturating_sub(t0).as_secs_f64();
        (s1 > s0 && seconds > 0.0).then(|| (s1 - s0) as f64 / seconds)
    }

    /// Time until step `total`, as soon as there is enough to go by.
    pub(super) fn left(&self, total: u64) -> Option<Duration> {
        let &(elapsed, step) = self.samples.back()?;
        if elapsed < EVIDENCE {
            return None;
        }
        Duration::try_from_secs_f64(total.saturating_sub(step) as f64 / self.steps_per_second()?).ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn says_nothing_without_evidence() {
        let mut pace = Pace::new(500);
        assert_eq!((pace.steps_per_second(), pace.left(1000)), (None, None));
        pace.observe(ms(1000), 510);
        assert_eq!((pace.steps_per_second(), pace.left(1000)), (Some(10.0), None));
        pace.observe(ms(3000), 510);
        assert_eq!(pace.left(1000).unwrap().as_secs(), 147);
        pace.observe(ms(4000), 1000);
        assert_eq!(pace.left(1000), Some(Duration::ZERO));
        assert_eq!(pace.left(900), Some(Duration::ZERO));
    }

    #[test]
    fn counts_pauses() {
        // 100 steps in 1 s, then 1 s of evaluation, again and again: 50 steps per second.
        let mut pace = Pace::new(0);
        for round in 0..200u64 {
            for step in 1..=100 {
                pace.observe(ms(round * 2000 + step * 10), round * 100 + step);
            }
        }
        let rate = pace.steps_per_second().unwrap();
        assert!((rate - 50.0).abs() < 1.0, "{rate}");
        let left = pace.left(30_000).unwrap().as_secs_f64();
        assert!((left - 200.0).abs() < 4.0, "{left}");
    }

    #[test]
    fn follows_a_change_and_stays_small() {
        let mut pace = Pace::new(0);
        let mut time = 0;
        for step in 1..=200_000u64 {
            time += if step <= 100_000 { 1 } else { 4 };
            pace.observe(ms(time), step);
            assert!(pace.samples.len() <= MOST_SAMPLES);
        }
        let rate = pace.steps_per_second().unwrap();
        assert!((rate - 250.0).abs() < 5.0, "{rate}");
    }
}
