//! Checkpoints of a run whose length is not known: the sequence is still being read.

use super::binomial::advances;
use super::{Action, Actions, Half, Schedule, ScheduleError};

/// Places checkpoints while segments arrive, so that the run can be reversed wherever it ends.
///
/// Before every segment the caller says whether another one follows it ([`Online::another`]) or not
/// ([`Online::last`]); it must look one segment ahead. There is one rule: the present state is stored, and if there is
/// no slot left, the checkpoint is given up (it may be the new one, never the initial state) without which the run, if
/// the next segment were the last, could be reversed with fewest advances. The first of several.
///
/// Once the end is known the stretches between the checkpoints are reversed from the last to the first, each by the
/// binomial schedule with the slots that are free by then.
///
/// # How good it is
///
/// As long as no segment must be advanced over more than twice, up to `C(s+2, 2)` segments with `s` slots, it needs
/// exactly [`advances`](super::advances)`(n, s)`, as few as the schedule that knows the length, for every `n` on the way:
/// what P. Stumm and A. Walther (2010), *New algorithms for optimal online checkpointing*, SIAM J. Sci. Comput. 32(2),
/// show to be possible. Beyond, where placing checkpoints without knowing the end must cost something, the tests find it
/// within 7 % of that for `s >= 3` and within 14 % for two slots.
///
/// Differs from the paper, which gives places for ranges of lengths one after the other: there is one rule for any
/// length, at the price of a look at all slots for every segment.
///
/// ```
/// use retrograd_engine::schedule::{Online, check};
///
/// let mut online = Online::new(2)?;
/// let mut actions = Vec::new();
/// for _ in 0..5 {
///     actions.extend(online.another());
/// }
/// actions.extend(online.last());
/// let stats = check(actions, 6, 2)?;
/// assert_eq!((stats.advances, stats.max_slots_used), (retrograd_engine::schedule::advances(6, 2), 2));
/// # Ok::<(), retrograd_engine::schedule::ScheduleError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Online {
    slots: usize,
    /// Segments whose first states are stored, ascending.
    held: Vec<usize>,
    /// The slot of each of them, and behind those the slots that are free.
    order: Vec<usize>,
    /// The present segment.
    at: usize,
}

impl Online {
    /// With so many slots, that of the initial state included. Errors: [`ScheduleError::NoSlotOnline`] for none.
    pub fn new(slots: usize) -> Result<Online, ScheduleError> {
        if slots == 0 {
            return Err(ScheduleError::NoSlotOnline);
        }
        Ok(Online { slots, held: Vec::new(), order: Vec::new(), at: 0 })
    }

    /// The present segment: the number of calls of [`Online::another`] so far.
    pub fn segment(&self) -> usize {
        self.at
    }

    /// Slots that hold a state now.
    pub fn slots_used(&self) -> usize {
        self.held.len()
    }

    /// What to do about the present segment if another one follows it: perhaps free a slot, perhaps store the state,
    /// then advance.
    pub fn another(&mut self) -> impl Iterator<Item = Action> + use<> {
        let mut free = None;
        if self.held.len() == self.slots {
            let drop = self.least_missed();
            if drop < self.held.len() {
                self.held.remove(drop);
                let slot = self.order.remove(drop);
                self.order.insert(self.held.len(), slot);
                free = Some(Action::Free { slot });
            }
        }
        let mut store = None;
        if self.held.len() < self.slots {
            let used = self.held.len();
            if self.order.len() == used {
                self.order.push(used);
            }
            store = Some(Action::Store { slot: self.order[used], step: self.at });
            self.held.push(self.at);
        }
        let advance = Action::Advance { from: self.at, to: self.at + 1 };
        self.at += 1;
        [free, store, Some(advance)].into_iter().flatten()
    }

    /// What to do from the present segment on if it is the last: record it, go backward over it, and reverse the others.
    pub fn last(self) -> Actions {
        let segments = self.at + 1;
        Actions {
            schedule: Schedule { segments, stride: 1, slots: self.slots, walks_back: false },
            half: Half::Both,
            held: self.held,
            order: self.order,
            end: segments,
            state: Some(self.at),
            recorded: false,
            walked: None,
        }
    }

    /// Which of the checkpoints, the present state behind them, costs least to give up.
    fn least_missed(&self) -> usize {
        let s = self.slots;
        let start =
            |i: usize| self.held.get(i).copied().unwrap_or(if i == s { self.at } else { self.at + 1 });
        let length = |i: usize| start(i + 1) - start(i);
        // Stretch `i` is reversed when those behind it are done: with its own slot and theirs.
        let mut behind: u64 = (1..=s).fold(0, |sum, i| sum.saturating_add(advances(length(i), s - i + 1)));
        let mut before: u64 = 0;
        let (mut best, mut least) = (s, u64::MAX);
        for i in 1..=s {
            // Without checkpoint `i`, those behind it have a slot more.
            behind = behind.saturating_sub(advances(length(i), s - i + 1));
            let joined = advances(length(i - 1) + length(i), s - i + 1);
            let cost = before.saturating_add(joined).saturating_add(behind);
            if cost < least {
                (best, least) = (i, cost);
            }
            before = before.saturating_add(advances(length(i - 1), s - i + 1));
        }
        best
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{Stats, check, reach};
    use super::*;
    use proptest::prelude::*;

    /// Reverses `n` segments that arrive one by one.
    fn reversed(n: usize, s: usize) -> Stats {
        let mut online = Online::new(s).unwrap();
        let mut actions = Vec::new();
        for _ in 1..n {
            actions.extend(online.another());
        }
        actions.extend(online.last());
        let stats = check(actions, n, s).unwrap();
        assert_eq!((stats.recorded, stats.longest_record), (n as u64, 1));
        stats
    }

    /// For every length up to `C(s+2, 2)` as few advances as if the length had been known.
    #[test]
    fn optimal_as_long_as_nothing_is_advanced_over_more_than_twice() {
        for s in 1..=12 {
            for n in 1..=reach(s, 2) as usize {
                let stats = reversed(n, s);
                assert_eq!(stats.advances, advances(n, s), "n={n} s={s}");
                assert!(stats.max_slots_used <= s && stats.repetitions <= 2);
            }
        }
        for (n, s) in [(1_000, 43), (5_000, 99)] {
            assert_eq!(reversed(n, s).advances, advances(n, s));
        }
    }

    /// With one slot there is nothing to decide.
    #[test]
    fn one_slot_is_the_quadratic_schedule() {
        for n in 1..60 {
            assert_eq!(reversed(n, 1).advances, (n * (n - 1) / 2) as u64);
        }
    }

    #[test]
    fn near_the_optimum_at_any_length() {
        for s in 2..=8 {
            let within = if s == 2 { 1.14 } else { 1.07 };
            for n in 1..=(reach(s, 4) as usize).min(400) {
                let ratio = reversed(n, s).advances as f64 / advances(n, s).max(1) as f64;
                assert!(ratio <= within, "n={n} s={s}: {ratio}");
            }
        }
        for (n, s) in [(3_000, 3), (20_000, 8), (20_000, 16), (20_000, 64)] {
            let ratio = reversed(n, s).advances as f64 / advances(n, s) as f64;
            assert!(ratio <= 1.07, "n={n} s={s}: {ratio}");
        }
    }

    #[test]
    fn no_slot_is_refused() {
        assert_eq!(Online::new(0).err(), Some(ScheduleError::NoSlotOnline));
    }

    proptest! {
        /// Wherever a sequence ends, what was stored on the way reverses it.
        #[test]
        fn any_end_can_be_reversed(s in 1usize..30, n in 1usize..600) {
            let stats = reversed(n, s);
            prop_assert!(stats.max_slots_used <= s);
            prop_assert!(stats.advances >= advances(n, s));
        }
    }
}
