//! Checkpoint schedules: in which order to store, advance, record and go backward, as data.
//!
//! A run of `T` steps is cut into segments of `c` steps (the *leaf*; the last segment may be shorter). Recording a
//! segment keeps what its adjoint reads, so only one segment needs that room at a time; of the other segments only
//! the states before some of them are kept, in *slots*, and what lies between is advanced over again. A
//! [`Schedule`] says which, when. It knows no tensors: [`check`] runs a schedule on positions alone.
//!
//! - [`Schedule::binomial`]: the least number of advances for a given number of slots.
//!   A. Griewank, A. Walther (2000), *Algorithm 799: revolve*, ACM TOMS 26(1); A. Griewank (1992), *Achieving
//!   logarithmic growth of temporal and spatial complexity in reverse automatic differentiation*, Optimization
//!   Methods and Software 1(1).
//! - [`Schedule::sqrt`]: `√n` states, each group of `√n` segments recorded at once, every segment advanced over
//!   at most once. T. Chen, B. Xu, C. Zhang, C. Guestrin (2016), *Training deep nets with sublinear memory cost*.
//! - [`Schedule::keep`]: everything recorded in one go; nothing stored, nothing advanced over.
//! - [`Online`]: for sequences whose length is not known while they are read.
//!   P. Stumm, A. Walther (2010), *New algorithms for optimal online checkpointing*, SIAM J. Sci. Comput. 32(2).
//!
//! # What is counted
//!
//! Letters: `n` segments, `s` slots *including the one of the initial state*, `r` the most often that one segment is
//! advanced over, `C` binomial coefficients.
//!
//! An *advance* is forward work that records nothing, in segments. The first sweep, `n - 1` segments, is counted:
//! it is the run itself. Recording passes are not counted: every segment is recorded exactly once. The binomial
//! schedule reaches
//!
//! - `r(n, s)` = the least `r` with `n <= C(s+r, s)`: [`repetitions`],
//! - `P(n, s) = r·n - C(s+r, r-1)` advances: [`advances`].
//!
//! A run that keeps everything records `n` segments and advances over none, so a schedule costs exactly
//! `advances` segments of forward work more than that. All of them are whole segments: the last one, which may be
//! short, is never advanced over.
//!
//! # Two halves
//!
//! The first sweep is the forward pass proper: [`Schedule::forward_actions`] ends by recording the last segment.
//! [`Schedule::backward_actions`] begins with the backward pass of that segment. One after the other they are
//! [`Schedule::actions`]. All three are iterators whose memory is one number per slot in use, whatever the length.
//!
//! ```
//! use retrograd_engine::schedule::{Action, Schedule, check};
//!
//! let schedule = Schedule::binomial(3, 1)?;
//! let text: Vec<String> = schedule.actions().map(|a| a.to_string()).collect();
//! assert_eq!(text[..4], ["store 0 in slot 0", "advance 0..2", "record 2..3", "backward 2..3"]);
//!
//! let stats = check(schedule.actions(), 3, 1)?;
//! assert_eq!((stats.advances, stats.max_slots_used), (schedule.advances(), 1));
//! # Ok::<(), retrograd_engine::schedule::ScheduleError>(())
//! ```
//!
//! # Differs from the papers
//!
//! - Slots include the initial state's; in revolve's report `snaps` does too, in later texts often not.
//! - The taping pass of a segment is called [`Action::Record`] and is a segment, not a step. Recording starts from
//!   the present state, so the state before the last segment of a stretch is never stored.
//! - A slot is freed before its state's segment is recorded, not after: the caller may move the state out of it.
//! - Chen's recursive scheme is not here: the binomial schedule needs no more advances for the same slots.

mod binomial;
mod check;
mod choose;
mod online;

use std::fmt;

pub use binomial::{advances, reach, repetitions, split};
pub use check::{ScheduleError, Stats, check};
pub use choose::{Choice, Costs, Footprint, Traffic};
pub use online::Online;

/// One thing to do. `from`, `to` and `step` count segments: `step` is the state before segment `step`, and
/// `from..to` the segments in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Run forward from the present state, keeping nothing but the new present state.
    Advance {
        /// First segment.
        from: usize,
        /// One past the last segment.
        to: usize,
    },
    /// Copy the present state to a free slot.
    Store {
        /// Slot, counted from 0.
        slot: usize,
        /// Which state.
        step: usize,
    },
    /// Make the state of a slot the present one; the slot keeps it.
    Restore {
        /// Slot, counted from 0.
        slot: usize,
        /// Which state.
        step: usize,
    },
    /// Run forward from the present state, keeping what the adjoint reads.
    Record {
        /// First segment.
        from: usize,
        /// One past the last segment.
        to: usize,
    },
    /// Run the adjoint over the recorded segments, last to first; the record is then no longer needed.
    Backward {
        /// First segment.
        from: usize,
        /// One past the last segment.
        to: usize,
    },
    /// The state of a slot is no longer needed there.
    Free {
        /// Slot, counted from 0.
        slot: usize,
    },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Advance { from, to } => write!(f, "advance {from}..{to}"),
            Action::Store { slot, step } => write!(f, "store {step} in slot {slot}"),
            Action::Restore { slot, step } => write!(f, "restore {step} from slot {slot}"),
            Action::Record { from, to } => write!(f, "record {from}..{to}"),
            Action::Backward { from, to } => write!(f, "backward {from}..{to}"),
            Action::Free { slot } => write!(f, "free slot {slot}"),
        }
    }
}

/// A way to reverse `segments` segments; small and `Copy`, whatever their number.
///
/// Inside it reverses *units* of `stride` segments, which are recorded at once; only the last unit may be shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    segments: usize,
    stride: usize,
    slots: usize,
    /// Nothing is recorded: the adjoint finds the states of a segment by walking back from its end.
    walks_back: bool,
}

impl Schedule {
    /// Fewest advances with at most `slots` stored states, the initial one included. One segment is recorded at a
    /// time. Slots beyond `segments - 1` are not used.
    ///
    /// Errors: [`ScheduleError::NoSlot`] for no slot and more than one segment.
    pub fn binomial(segments: usize, slots: usize) -> Result<Schedule, ScheduleError> {
        if segments > 1 && slots == 0 {
            return Err(ScheduleError::NoSlot { segments });
        }
        Ok(Schedule { segments, stride: 1, slots, walks_back: false })
    }

    /// Groups of `⌈√segments⌉` segments; the state before each but the last is stored in the first sweep, and each
    /// group is recorded at once: the leaf must hold [`Schedule::longest_record`] segments.
    pub fn sqrt(segments: usize) -> Schedule {
        let root = segments.isqrt();
        let stride = (root + usize::from(root * root < segments)).max(1);
        let slots = segments.div_ceil(stride).saturating_sub(1);
        Schedule { segments, stride, slots, walks_back: false }
    }

    /// All segments recorded at once; no slots, no advances.
    pub fn keep(segments: usize) -> Schedule {
        Schedule { segments, stride: segments.max(1), slots: 0, walks_back: false }
    }

    /// Nothing recorded: the first sweep stores the state before and after every segment, and the adjoint of a segment
    /// begins with the state after it, from which its states are walked back to. The state before the first segment is
    /// restored too, so that every walk ends where it can be compared with what it should have found.
    pub fn walk_back(segments: usize) -> Schedule {
        Schedule { segments, stride: 1, slots: segments.saturating_add(1), walks_back: true }
    }

    /// Whether it is one of [`Schedule::walk_back`].
    pub fn walks_back(&self) -> bool {
        self.walks_back
    }

    /// Segments reversed.
    pub fn segments(&self) -> usize {
        self.segments
    }

    /// Slots that may be used.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Most slots in use at once: all of them, or one for each unit but the last.
    pub fn max_slots_used(&self) -> usize {
        if self.walks_back {
            return self.slots;
        }
        self.slots.min(self.units().saturating_sub(1))
    }

    /// Most segments recorded at a time.
    pub fn longest_record(&self) -> usize {
        if self.walks_back {
            return 0;
        }
        self.stride.min(self.segments)
    }

    /// Segments advanced over, first sweep included: `P(n, s)` of the [module](self) documentation. Saturates at
    /// `u64::MAX`.
    pub fn advances(&self) -> u64 {
        if self.walks_back {
            return self.segments as u64;
        }
        advances(self.units(), self.slots).saturating_mul(self.stride as u64)
    }

    /// Most times that one segment is advanced over, first sweep included.
    pub fn repetitions(&self) -> usize {
        if self.walks_back {
            return usize::from(self.segments > 0);
        }
        repetitions(self.units(), self.slots)
    }

    /// The first sweep: stores on the way, ends with the last segments recorded. Empty without segments.
    pub fn forward_actions(&self) -> Actions {
        Actions { half: Half::Forward, ..self.actions() }
    }

    /// Everything after the first sweep, from the backward pass of the last segments on.
    pub fn backward_actions(&self) -> Actions {
        let mut actions = self.forward_actions();
        actions.by_ref().for_each(drop);
        Actions { half: Half::Both, ..actions }
    }

    /// Both halves.
    pub fn actions(&self) -> Actions {
        Actions {
            schedule: *self,
            half: Half::Both,
            held: Vec::new(),
            order: Vec::new(),
            end: self.units(),
            state: Some(0),
            recorded: false,
            walked: self.walks_back.then_some(0),
        }
    }

    /// Action number `at` of a schedule that walks back: a store before every segment and after the last, then for each
    /// segment a restore of the state after it.
    fn walked(&self, at: usize) -> Option<Action> {
        let n = self.segments;
        let (half, whole) = (at / 2, 2 * n + 1);
        if at < whole {
            let store = Action::Store { slot: half, step: half };
            return Some(if at.is_multiple_of(2) {
                store
            } else {
                Action::Advance { from: half, to: half + 1 }
            });
        }
        let (done, kind) = ((at - whole) / 3, (at - whole) % 3);
        let slot = n.checked_sub(done)?;
        match kind {
            0 => Some(Action::Restore { slot, step: slot }),
            1 => Some(Action::Free { slot }),
            _ => Some(Action::Backward { from: slot.checked_sub(1)?, to: slot }),
        }
    }

    fn units(&self) -> usize {
        self.segments.div_ceil(self.stride)
    }

    /// First segment of a unit; the end of the run for the unit past the last.
    fn at(&self, unit: usize) -> usize {
        unit.saturating_mul(self.stride).min(self.segments)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    Forward,
    Both,
}

/// The actions of a [`Schedule`], computed as they are asked for.
///
/// Holds the units whose states are stored, one number per slot in use, and nothing else that grows.
#[derive(Debug, Clone)]
pub struct Actions {
    schedule: Schedule,
    half: Half,
    /// Units whose states are stored, ascending.
    held: Vec<usize>,
    /// The slot of each of them, and of those to come; none beyond its end is another than its place.
    order: Vec<usize>,
    /// Units still to reverse.
    end: usize,
    /// Unit before which the present state stands; `None` when it stands nowhere useful.
    state: Option<usize>,
    /// Whether unit `end - 1` is recorded.
    recorded: bool,
    /// Actions done of a schedule that walks back.
    walked: Option<usize>,
}

impl Actions {
    fn slot(&self, place: usize) -> usize {
        self.order.get(place).copied().unwrap_or(place)
    }
}

impl Iterator for Actions {
    type Item = Action;

    fn next(&mut self) -> Option<Action> {
        let schedule = self.schedule;
        if self.end == 0 {
            return None;
        }
        if let Some(done) = &mut self.walked {
            let swept = *done > 2 * schedule.segments;
            if swept && self.half == Half::Forward {
                return None;
            }
            *done += 1;
            return schedule.walked(*done - 1);
        }
        let last = self.end - 1;
        if self.recorded {
            if self.half == Half::Forward {
                return None;
            }
            self.recorded = false;
            let (from, to) = (schedule.at(last), schedule.at(self.end));
            self.end = last;
            return Some(Action::Backward { from, to });
        }
        let top = self.held.last().copied();
        let Some(unit) = self.state else {
            let slot = self.slot(self.held.len().checked_sub(1)?);
            self.state = top;
            return Some(Action::Restore { slot, step: schedule.at(top?) });
        };
        if unit == last {
            if top == Some(unit) {
                self.held.pop();
                return Some(Action::Free { slot: self.slot(self.held.len()) });
            }
            self.state = None;
            self.recorded = true;
            return Some(Action::Record { from: schedule.at(last), to: schedule.at(self.end) });
        }
        let free = schedule.slots.saturating_sub(self.held.len());
        if free > 0 && top != Some(unit) {
            self.held.push(unit);
            return Some(Action::Store { slot: self.slot(self.held.len() - 1), step: schedule.at(unit) });
        }
        // The present state is stored; with no slot left, straight to the unit to record.
        let left = self.end - unit;
        let to = if free == 0 { last } else { unit + split(left, free.saturating_add(1)) };
        self.state = Some(to);
        Some(Action::Advance { from: schedule.at(unit), to: schedule.at(to) })
    }
}

impl std::iter::FusedIterator for Actions {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A schedule that [`check`] accepts and whose numbers are the ones it announced.
    fn accepted(schedule: Schedule) -> Stats {
        let stats = check(schedule.actions(), schedule.segments(), schedule.slots()).unwrap();
        assert_eq!(stats.advances, schedule.advances(), "{schedule:?}");
        assert_eq!(stats.max_slots_used, schedule.max_slots_used(), "{schedule:?}");
        assert_eq!(stats.repetitions, schedule.repetitions(), "{schedule:?}");
        assert_eq!(stats.longest_record, schedule.longest_record(), "{schedule:?}");
        assert_eq!(stats.recorded, schedule.segments() as u64, "{schedule:?}");
        stats
    }

    fn texts(actions: Actions) -> Vec<String> {
        actions.map(|a| a.to_string()).collect()
    }

    #[test]
    fn binomial_reaches_the_formula_for_all_short_chains() {
        for n in 0..=120 {
            for s in 1..=12 {
                accepted(Schedule::binomial(n, s).unwrap());
            }
        }
    }

    #[test]
    fn binomial_reaches_the_formula_for_long_chains() {
        for (n, s) in
            [(1_000, 1), (4_096, 5), (10_000, 100), (100_000, 32), (1_000_000, 300), (1_000_000, 2_000)]
        {
            accepted(Schedule::binomial(n, s).unwrap());
        }
    }

    #[test]
    fn edge_cases() {
        let case = |n, s| texts(Schedule::binomial(n, s).unwrap().actions());
        assert!(case(0, 0).is_empty() && case(0, 3).is_empty());
        assert_eq!(case(1, 0), ["record 0..1", "backward 0..1"]);
        assert_eq!(case(1, 9), ["record 0..1", "backward 0..1"]);
        assert_eq!(Schedule::binomial(2, 0), Err(ScheduleError::NoSlot { segments: 2 }));
        let two = [
            "store 0 in slot 0",
            "advance 0..1",
            "record 1..2",
            "backward 1..2",
            "restore 0 from slot 0",
            "free slot 0",
            "record 0..1",
            "backward 0..1",
        ];
        assert_eq!(case(2, 1), two);
        assert_eq!(case(2, usize::MAX), two);
    }

    #[test]
    fn enough_slots_store_every_state_once() {
        for s in [49, 50, 1000] {
            let stats = accepted(Schedule::binomial(50, s).unwrap());
            assert_eq!((stats.advances, stats.stores, stats.restores, stats.repetitions), (49, 49, 49, 1));
        }
    }

    #[test]
    fn halves_join_at_the_last_record() {
        for schedule in [
            Schedule::binomial(37, 4).unwrap(),
            Schedule::binomial(1, 1).unwrap(),
            Schedule::sqrt(37),
            Schedule::keep(37),
        ] {
            let forward: Vec<_> = schedule.forward_actions().collect();
            let backward: Vec<_> = schedule.backward_actions().collect();
            let n = schedule.segments();
            assert!(matches!(forward.last(), Some(Action::Record { to, .. }) if *to == n));
            assert!(matches!(backward.first(), Some(Action::Backward { to, .. }) if *to == n));
            let joined: Vec<_> = forward.iter().chain(&backward).copied().collect();
            assert_eq!(joined, schedule.actions().collect::<Vec<_>>());
            // The first sweep passes every segment once.
            let swept: usize = forward
                .iter()
                .map(|a| match a {
                    Action::Advance { from, to } | Action::Record { from, to } => to - from,
                    _ => 0,
                })
                .sum();
            assert_eq!(swept, n);
        }
        let empty = Schedule::keep(0);
        assert_eq!(empty.forward_actions().chain(empty.backward_actions()).count(), 0);
    }

    #[test]
    fn sqrt_records_each_group_at_once() {
        for n in 0..200 {
            let schedule = Schedule::sqrt(n);
            let stats = accepted(schedule);
            assert!(stats.repetitions <= 1);
            assert!(stats.longest_record * stats.longest_record <= n + 2 * n.isqrt() + 1);
            assert!(stats.max_slots_used <= n.isqrt());
        }
        let want = [
            "store 0 in slot 0",
            "advance 0..3",
            "store 3 in slot 1",
            "advance 3..6",
            "record 6..7",
            "backward 6..7",
            "restore 3 from slot 1",
            "free slot 1",
            "record 3..6",
            "backward 3..6",
            "restore 0 from slot 0",
            "free slot 0",
            "record 0..3",
            "backward 0..3",
        ];
        assert_eq!(texts(Schedule::sqrt(7).actions()), want);
    }

    #[test]
    fn keep_records_everything_at_once() {
        assert_eq!(texts(Schedule::keep(7).actions()), ["record 0..7", "backward 0..7"]);
        assert_eq!(accepted(Schedule::keep(7)).advances, 0);
        accepted(Schedule::keep(0));
    }

    #[test]
    fn walks_begin_and_end_at_stored_states() {
        let schedule = Schedule::walk_back(2);
        let forward =
            ["store 0 in slot 0", "advance 0..1", "store 1 in slot 1", "advance 1..2", "store 2 in slot 2"];
        let backward = [
            "restore 2 from slot 2",
            "free slot 2",
            "backward 1..2",
            "restore 1 from slot 1",
            "free slot 1",
            "backward 0..1",
            "restore 0 from slot 0",
            "free slot 0",
        ];
        assert_eq!(texts(schedule.forward_actions()), forward);
        assert_eq!(texts(schedule.backward_actions()), backward);
        assert_eq!(texts(schedule.actions()), [&forward[..], &backward].concat());
        assert_eq!((schedule.advances(), schedule.max_slots_used(), schedule.longest_record()), (2, 3, 0));
        assert_eq!(Schedule::walk_back(0).actions().count(), 0);
    }

    #[test]
    fn the_list_is_lazy() {
        // No chain this long could be listed; its first sweep can.
        let schedule = Schedule::binomial(usize::MAX, 40).unwrap();
        let sweep: Vec<_> = schedule.forward_actions().collect();
        assert_eq!(sweep.len(), 81); // 40 stores, an advance after each, one record
        assert!(matches!(sweep[80], Action::Record { to: usize::MAX, .. }), "{:?}", sweep[80]);
        assert!(matches!(schedule.backward_actions().next(), Some(Action::Backward { to: usize::MAX, .. })));
    }

    proptest! {
        #[test]
        fn any_binomial_schedule_is_accepted(n in 0usize..3000, s in 1usize..80) {
            accepted(Schedule::binomial(n, s).unwrap());
        }

        #[test]
        fn a_damaged_schedule_is_refused(n in 2usize..60, s in 1usize..8, pick in any::<prop::sample::Index>()) {
            // Leaving any action out breaks it: none is idle.
            let schedule = Schedule::binomial(n, s).unwrap();
            let mut actions: Vec<_> = schedule.actions().collect();
            let gone = actions.remove(pick.index(actions.len()));
            prop_assert!(check(actions, n, s).is_err(), "idle: {gone}");
        }
    }
}
