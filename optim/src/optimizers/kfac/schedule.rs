//! When statistics are taken and blocks inverted.

use crate::error::{Error, Result};
use crate::settings::Range;

/// The updates at which K-FAC does more than a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KfacSchedule {
    /// Updates at the start that only gather statistics.
    pub burn_in: u64,
    /// Updates between two statistics, after those at the start.
    pub stats_every: u64,
    /// Updates between two inversions, once `dense` is over.
    pub inverse_every: u64,
    /// Updates, after those that only gather statistics, with four times as many statistics and inversions; then as many
    /// again with twice as many. Rounded down to a multiple of `inverse_every`.
    pub dense: u64,
    /// Updates from the beginning of an inversion to the first that uses it, during which another thread computes it.
    pub inverse_lag: u64,
}

impl Default for KfacSchedule {
    fn default() -> KfacSchedule {
        KfacSchedule { burn_in: 5, stats_every: 4, inverse_every: 20, dense: 100, inverse_lag: 0 }
    }
}

/// What an update does besides its step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// It takes statistics.
    pub(super) gathers: bool,
    /// It begins an inversion.
    pub(super) begins: bool,
    /// It takes over an inversion begun earlier.
    pub(super) takes_over: bool,
    /// It moves the parameters of blocks.
    pub(super) moves: bool,
}

impl KfacSchedule {
    /// Updates between two of what is done `every` so many, `since` updates after the first.
    fn period(&self, every: u64, since: u64) -> u64 {
        let dense = self.dense / self.inverse_every.max(1) * self.inverse_every;
        let oftener = if since < dense {
            4
        } else if since < 2 * dense {
            2
        } else {
            1
        };
        (every / oftener).max(1)
    }

    /// What is due at an update. Statistics are taken at all of the first, and with every inversion.
    pub(super) fn due(&self, step: u64) -> Due {
        let Some(since) = step.checked_sub(self.burn_in) else {
            return Due { gathers: true, begins: false, takes_over: false, moves: false };
        };
        let period = self.period(self.inverse_every, since);
        let phase = since % period;
        let begins = phase == 0;
        Due {
            gathers: begins || since.is_multiple_of(self.period(self.stats_every, since)),
            begins,
            takes_over: self.inverse_lag > 0 && since >= period && phase == self.inverse_lag,
            moves: true,
        }
    }

    /// Whether this is the update of the first inversion, which is over at once.
    pub(super) fn is_first(&self, step: u64) -> bool {
        step == self.burn_in
    }

    /// Updates that moved parameters, this one included.
    pub(super) fn moved(&self, step: u64) -> u64 {
        step - self.burn_in + 1
    }

    /// Errors: a period of 0; a lag that does not end before the next inversion begins.
    pub(super) fn validate(&self, owner: &'static str) -> Result<()> {
        Range::Positive.check(owner, "stats_every", self.stats_every as f64)?;
        Range::Positive.check(owner, "inverse_every", self.inverse_every as f64)?;
        let shortest = self.period(self.inverse_every, 0);
        if self.inverse_lag > 0 && self.inverse_lag >= shortest {
            let (key, expected) =
                ("inverse_lag".into(), format!("below {shortest}, the first period of inversions"));
            return Err(Error::Value { owner, key, expected, got: self.inverse_lag.to_string() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::KfacSchedule;

    #[test]
    fn both_are_oftener_at_the_start() {
        let schedule =
            KfacSchedule { burn_in: 3, stats_every: 4, inverse_every: 8, dense: 17, inverse_lag: 1 };
        let updates = |wanted: fn(super::Due) -> bool| -> Vec<u64> {
            (0..60).filter(|&step| wanted(schedule.due(step))).collect()
        };
        assert_eq!(updates(|due| !due.moves), [0, 1, 2]);
        // 16 updates with a quarter of each period, 16 with half, then whole ones.
        assert_eq!(updates(|due| due.begins), [3, 5, 7, 9, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59]);
        assert_eq!(updates(|due| due.takes_over), [6, 8, 10, 12, 14, 16, 18, 20, 24, 28, 32, 36, 44, 52]);
        let expected: Vec<u64> = (0..19).chain((19..35).step_by(2)).chain((35..60).step_by(4)).collect();
        assert_eq!(updates(|due| due.gathers), expected);
    }
}
