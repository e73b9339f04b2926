//! Picks the leaf and the number of slots that fit a byte budget.

use super::binomial::{advances, repetitions};

/// What a run of a recurrence costs in bytes and time, as far as the schedule decides it.
///
/// With leaf `c` (steps recorded at a time), `s` slots and `l` steps in the last segment, which is recorded once
/// and never advanced over, the peak is `fixed_bytes + s·state_bytes + max(c, l)·step_bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Steps of the run, `T`.
    pub steps: usize,
    /// Bytes of one stored state.
    pub state_bytes: usize,
    /// Bytes that recording one step keeps for its adjoint.
    pub step_bytes: usize,
    /// Bytes that every choice needs.
    pub fixed_bytes: usize,
    /// The leaf is a multiple of this many steps (0 counts as 1), unless one leaf takes the whole run.
    pub granularity: usize,
    /// Shortest leaf allowed, in steps; rounded up to the granularity.
    pub min_leaf: usize,
    /// Longest leaf allowed, in steps; rounded down to the granularity, but not below the shortest.
    pub max_leaf: usize,
    /// What the choice is by.
    pub costs: Costs,
}

/// Time that depends on the choice, in any unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Costs {
    /// Of advancing over a step without recording it.
    pub advance: u64,
    /// Of writing what a step records and reading it back.
    pub spill: Traffic,
    /// Steps of the longest segment whose record stays in the cache of a thread, which costs nothing.
    pub near: usize,
    /// Of storing a state and restoring it.
    pub mark: Traffic,
    /// Bytes of the cache that threads share.
    pub shared: usize,
}

/// Time of writing bytes and reading them back, by where they are in between; in the unit of [`Costs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// In the cache that threads share.
    pub shared: u64,
    /// In memory.
    pub memory: u64,
}

impl Traffic {
    /// Costs nothing.
    pub const FREE: Traffic = Traffic { shared: 0, memory: 0 };

    /// Time of `times` of these, of which the fraction `far` is in memory.
    fn of(self, times: u64, far: f64) -> u64 {
        let each = self.shared as f64 + (self.memory as f64 - self.shared as f64) * far;
        (each * times as f64) as u64
    }
}

impl Costs {
    /// Steps advanced over, and nothing else.
    pub const WORK: Costs =
        Costs { advance: 1, spill: Traffic::FREE, near: usize::MAX, mark: Traffic::FREE, shared: usize::MAX };

    /// Time of a run in bytes written and read back: `steps` recorded in pieces of `length`, and `marks` states, where
    /// `held` bytes are held at once.
    pub(crate) fn traffic(&self, (steps, length): (usize, usize), marks: usize, held: usize) -> u64 {
        let far = self.far(held);
        let steps = if length > self.near { steps as u64 } else { 0 };
        self.spill.of(steps, far).saturating_add(self.mark.of(marks as u64, far))
    }

    /// The fraction of `held` bytes that is in memory before it is read back. What was written last is read first, so
    /// that the cache gives what it has room for, however much there is besides.
    fn far(&self, held: usize) -> f64 {
        1.0 - (self.shared as f64 / held.max(1) as f64).min(1.0)
    }
}

/// A leaf and a number of slots, with what they cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Steps of every segment but the last.
    pub leaf: usize,
    /// Slots for states, the initial one included; 0 when one segment takes the whole run.
    pub slots: usize,
    /// Segments of the run.
    pub segments: usize,
    /// Steps of the last segment: those that the others leave.
    pub tail: usize,
    /// Peak bytes: `fixed + slots·state + max(leaf, tail)·step`, the tail rounded up to a multiple of the leaf.
    pub bytes: usize,
    /// Steps of forward work beyond a run that keeps everything: `leaf · P(segments, slots)`, exactly, because the
    /// last segment is never advanced over. Saturates at `u64::MAX`.
    pub extra_forward_steps: u64,
    /// By the [`Costs`]; saturates at `u64::MAX`.
    pub cost: u64,
}

/// The one tie-break for all searches: least cost, then fewest bytes, then the shortest leaf.
fn rank(choice: &Choice) -> (u64, u64, usize, usize) {
    (choice.cost, choice.extra_forward_steps, choice.bytes, choice.leaf)
}

/// Up to this many segments every segment count is tried; beyond, counts are tried in steps of this fraction.
const FINE: usize = 512;

/// Choices with a long last segment are tried for up to this many advances over a segment. Where more are needed,
/// bytes are better spent on slots.
const TAILED: usize = 3;

impl Footprint {
    /// The leaf, slots and last segment with the least cost whose peak is at most `budget` bytes; among those, the
    /// ones with the fewest bytes. `None` if no choice fits: [`Footprint::smallest`] then says what would.
    ///
    /// Tried are equal segments, for each number of them the shortest leaf (at most `2·√steps` of them, thinned to
    /// a relative distance of 1/512 for very long runs), and for leaves that double, the longest last segments
    /// with which no other segment is advanced over more than once, twice, three times: what is recorded once and
    /// kept is not computed again, and the others may be so short that their record stays in the caches. Well
    /// below a millisecond.
    pub fn choose(&self, budget: usize) -> Option<Choice> {
        let room = budget.checked_sub(self.fixed_bytes)?;
        let equal = self.leaves().filter_map(|leaf| self.best_with(leaf, self.cut(leaf).1, room));
        equal.chain(self.tailed(room)).min_by_key(rank)
    }

    /// The choice with the fewest bytes that any budget allows; among those, the one with the least cost.
    pub fn smallest(&self) -> Choice {
        let (low, high) = self.leaf_bounds();
        let least = |leaf: usize| {
            let (leaf, segments) = self.cut(leaf);
            self.priced(leaf, usize::from(segments > 1), segments)
        };
        // Bytes grow with the leaf as long as there is a slot to pay for, and drop once where there is none. A
        // leaf that costs nothing may as well be long.
        let candidates = [least(low), least(high), least(high.min(self.steps.max(low)))];
        let bytes = candidates.iter().map(|c| c.bytes).min().unwrap_or(0);
        let fallback = candidates.into_iter().min_by_key(|c| (c.bytes, rank(c))).unwrap_or(candidates[0]);
        self.choose(bytes).unwrap_or(fallback)
    }

    /// Most slots that `room` bytes hold beside `segments` segments of this leaf, and what they cost.
    fn best_with(&self, leaf: usize, segments: usize, room: usize) -> Option<Choice> {
        let longest = self.longest(leaf, segments);
        let left = room.checked_sub(longest.checked_mul(self.step_bytes)?)?;
        let wanted = segments.saturating_sub(1);
        let slots = left.checked_div(self.state_bytes).map_or(wanted, |fit| fit.min(wanted));
        let allowed = longest <= self.leaf_bounds().1.max(self.max_leaf);
        (allowed && (slots > 0 || wanted == 0)).then(|| self.priced(leaf, slots, segments))
    }

    /// Choices whose last segment is longer than the others.
    fn tailed(&self, room: usize) -> impl Iterator<Item = Choice> {
        let (low, high) = self.leaf_bounds();
        let near = (self.costs.near / self.grain()).saturating_mul(self.grain());
        let doubled = std::iter::successors(Some(low), |leaf| leaf.checked_mul(2));
        let leaves = doubled.take_while(move |&leaf| leaf <= high.min(self.steps / 2)).chain([near]);
        leaves.filter(move |leaf| (low..=high.min(self.steps)).contains(leaf)).flat_map(move |leaf| {
            let most = self.cut(leaf).1;
            let fewest = (1..=TAILED).filter_map(move |r| {
                let fits =
                    |n: usize| self.best_with(leaf, n, room).is_some_and(|c| repetitions(n, c.slots) <= r);
                first(2, most, fits)
            });
            fewest.chain([most]).filter_map(move |n| self.best_with(leaf, n, room))
        })
    }

    /// Steps of the longest of `segments` segments, room for which is needed.
    fn longest(&self, leaf: usize, segments: usize) -> usize {
        let leaves = self.steps.div_ceil(leaf).saturating_sub(segments.saturating_sub(1));
        leaves.saturating_mul(leaf).min(self.steps).max(usize::from(self.steps > 0))
    }

    fn priced(&self, leaf: usize, slots: usize, segments: usize) -> Choice {
        let bytes = slots
            .saturating_mul(self.state_bytes)
            .saturating_add(self.longest(leaf, segments).saturating_mul(self.step_bytes))
            .saturating_add(self.fixed_bytes);
        let extra_forward_steps = advances(segments, slots).saturating_mul(leaf as u64);
        let others = segments.saturating_sub(1);
        let tail = self.steps - others.saturating_mul(leaf).min(self.steps);
        let held = bytes - self.fixed_bytes;
        let cost = (self.costs.advance.saturating_mul(extra_forward_steps))
            .saturating_add(self.costs.traffic((others.saturating_mul(leaf), leaf), others, held))
            .saturating_add(self.costs.traffic((tail, tail), 0, held));
        Choice { leaf, slots, segments, tail, bytes, extra_forward_steps, cost }
    }

    /// The leaf that is really used, and how many equal segments it makes.
    fn cut(&self, leaf: usize) -> (usize, usize) {
        let leaf = leaf.min(self.steps).max(1);
        (leaf, self.steps.div_ceil(leaf))
    }

    fn grain(&self) -> usize {
        self.granularity.max(1)
    }

    /// Shortest and longest leaf, multiples of the granularity.
    fn leaf_bounds(&self) -> (usize, usize) {
        let g = self.grain();
        let low = self.min_leaf.max(1).div_ceil(g).saturating_mul(g);
        let high = (self.max_leaf / g).saturating_mul(g).max(low);
        (low, high)
    }

    /// Leaves worth trying, longest first: for each number of segments the shortest leaf that makes it.
    fn leaves(&self) -> impl Iterator<Item = usize> {
        let (steps, g) = (self.steps.max(1), self.grain());
        let (low, high) = self.leaf_bounds();
        // A leaf of the whole run may break the granularity, not the longest leaf.
        let whole = (steps <= self.max_leaf.max(low)).then_some(steps);
        let shortest = move |segments: usize| steps.div_ceil(segments).div_ceil(g).saturating_mul(g).max(low);
        let first = shortest(steps.div_ceil(high));
        let rest = std::iter::successors(Some(first), move |&leaf| {
            let shorter = leaf.checked_sub(g).filter(|&l| l >= low)?;
            let segments = steps.div_ceil(leaf);
            // At least one more segment, and a bit more where segments are many.
            Some(shortest(steps.div_ceil(shorter).max(segments + segments / FINE)))
        });
        whole.into_iter().chain(rest).map(move |leaf| leaf.min(steps))
    }
}

/// The least of `low..=high` for which `holds`, given that it holds for all above; `None` if it does not for `high`.
fn first(mut low: usize, mut high: usize, holds: impl Fn(usize) -> bool) -> Option<usize> {
    if low > high || !holds(high) {
        return None;
    }
    while low < high {
        let mid = low + (high - low) / 2;
        if holds(mid) { high = mid } else { low = mid + 1 }
    }
    Some(high)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{Schedule, check};
    use super::*;
    use proptest::prelude::*;

    const MEMORY: Traffic = Traffic { shared: 0, memory: 1 };

    fn plain(steps: usize, state_bytes: usize, step_bytes: usize) -> Footprint {
        Footprint {
            steps,
            state_bytes,
            step_bytes,
            fixed_bytes: 0,
            granularity: 1,
            min_leaf: 1,
            max_leaf: steps,
            costs: Costs::WORK,
        }
    }

    /// The best of every allowed leaf.
    fn exhaustive(f: &Footprint, budget: usize) -> Option<Choice> {
        let room = budget.checked_sub(f.fixed_bytes)?;
        let (low, high) = f.leaf_bounds();
        (low..=high)
            .step_by(f.grain())
            .chain((f.steps <= f.max_leaf.max(low)).then_some(f.steps))
            .map(|leaf| f.cut(leaf))
            .flat_map(|(leaf, most)| (1..=most.max(1)).map(move |n| (leaf, n)))
            .filter(|&(leaf, n)| n > 1 || f.cut(leaf).1 <= 1)
            .filter_map(|(leaf, n)| f.best_with(leaf, n, room))
            .min_by_key(rank)
    }

    #[test]
    fn everything_is_kept_when_it_fits() {
        let f = plain(1000, 8, 24);
        let want = Choice {
            leaf: 1000,
            slots: 0,
            segments: 1,
            tail: 1000,
            bytes: 24_000,
            extra_forward_steps: 0,
            cost: 0,
        };
        assert_eq!(f.choose(24_000), Some(want));
        assert_eq!(f.choose(usize::MAX), Some(want));
        assert!(f.choose(23_999).unwrap().extra_forward_steps > 0);
    }

    /// Time over a run that keeps everything, when a backward step costs two forward steps, as computed for the
    /// published trade-off: `saved` per cent of the recorded bytes saved, at recorded-to-state ratio `alpha`.
    #[test]
    fn overheads_of_the_published_trade_off() {
        let rows = [
            (1000, 1, [(90, 31), (95, 44), (97, 58), (98, 72), (99, 118)]),
            (1000, 2, [(90, 30), (95, 32), (97, 51), (98, 59), (99, 86)]),
            (1000, 5, [(90, 30), (95, 32), (97, 33), (98, 49), (99, 62)]),
            (10_000, 1, [(90, 30), (95, 32), (97, 32), (98, 33), (99, 58)]),
            (10_000, 5, [(90, 30), (95, 32), (97, 32), (98, 33), (99, 33)]),
        ];
        for (steps, alpha, row) in rows {
            for (saved, percent) in row {
                let f = plain(steps, 1000, 1000 * alpha);
                let budget = steps * 1000 * alpha * (100 - saved) / 100;
                let choice = f.choose(budget).unwrap();
                let overhead = 100.0 * choice.extra_forward_steps as f64 / (3 * steps) as f64;
                assert!(
                    overhead <= f64::from(percent) + 0.5 && choice.bytes <= budget,
                    "T={steps} alpha={alpha} saved={saved}: {overhead:.2} % > {percent} %, {choice:?}"
                );
            }
        }
    }

    #[test]
    fn smallest_is_a_state_and_a_shortest_leaf() {
        let f =
            Footprint { granularity: 4, min_leaf: 6, max_leaf: 64, fixed_bytes: 100, ..plain(1000, 10, 7) };
        let least = f.smallest();
        assert_eq!((least.leaf, least.slots, least.segments), (8, 1, 125));
        assert_eq!(least.bytes, 100 + 10 + 8 * 7);
        assert_eq!(f.choose(least.bytes), Some(least));
        assert_eq!(f.choose(least.bytes - 1), None);
        // A state that costs more than recording everything is not worth a slot.
        let f = plain(10, 1_000_000, 1);
        assert_eq!(f.smallest(), f.choose(10).unwrap());
        assert_eq!(f.choose(9), None);
    }

    #[test]
    fn limits_of_the_leaf_are_respected() {
        let f = Footprint { granularity: 16, min_leaf: 1, max_leaf: 100, ..plain(1000, 1, 1) };
        // 57 short segments, and the rest in a last one of 88 steps.
        let choice = f.choose(usize::MAX).unwrap();
        assert_eq!((choice.leaf, choice.segments, choice.extra_forward_steps), (16, 58, 912));
        let f = Footprint { granularity: 16, min_leaf: 1, max_leaf: 100, ..plain(90, 1, 1) };
        assert_eq!(f.choose(usize::MAX).unwrap().leaf, 90);
        let f = Footprint { granularity: 0, min_leaf: 0, max_leaf: 0, ..plain(5, 1, 1) };
        assert_eq!(f.choose(usize::MAX).unwrap().leaf, 1);
    }

    #[test]
    fn degenerate_sizes() {
        let f = plain(0, 8, 8);
        assert_eq!(f.choose(8).unwrap().segments, 0);
        let f = plain(1, 8, 8);
        assert_eq!(f.choose(8).unwrap().segments, 1);
        let f = plain(100, 0, 8); // states cost nothing
        assert_eq!(f.choose(8).unwrap().leaf, 1);
        assert_eq!(f.choose(8).unwrap().slots, 99);
        let f = plain(100, 8, 0); // recording costs nothing
        assert_eq!(f.smallest().leaf, 100);
        let f = plain(usize::MAX, usize::MAX, usize::MAX);
        assert_eq!(f.choose(usize::MAX - 1), None);
    }

    #[test]
    fn search_is_short_even_for_very_long_runs() {
        for (steps, most) in [(1_000, 70), (100_000, 700), (1_000_000, 2_100), (1_000_000_000, 9_000)] {
            let tried = plain(steps, 1, 1).leaves().count();
            assert!(tried <= most, "T={steps}: {tried} leaves");
        }
    }

    #[test]
    fn a_long_run_fits_a_small_budget() {
        // 100,000 steps, a state of 512 complex numbers for 4 rows, recorded three times over: 256 MiB.
        let state = 512 * 4 * 8;
        let f = plain(100_000, state, 3 * state);
        let choice = f.choose(256 << 20).unwrap();
        assert!(choice.bytes <= 256 << 20);
        assert!(choice.extra_forward_steps < 100_000, "{choice:?}");
    }

    proptest! {
        #[test]
        fn finds_nearly_what_trying_everything_finds(
            steps in 0usize..600, state in 0usize..40, step in 0usize..40, fixed in 0usize..100,
            granularity in 0usize..9, min_leaf in 0usize..40, max_leaf in 0usize..700, budget in 0usize..10_000,
            spill in 0u64..3, near in 0usize..100, mark in 0u64..3, shared in 0usize..20_000,
        ) {
            let to = |memory| Traffic { shared: memory / 2, memory };
            let costs = Costs { advance: 2, spill: to(spill), near, mark: to(mark), shared };
            let f = Footprint {
                steps, state_bytes: state, step_bytes: step, fixed_bytes: fixed, granularity, min_leaf, max_leaf,
                costs,
            };
            let got = f.choose(budget);
            if let (Some(got), Some(best)) = (got, exhaustive(&f, budget)) {
                let run = 6 * steps as u64;
                prop_assert!(run + got.cost <= (run + best.cost) * 5 / 4, "{got:?}, and there is {best:?}");
            }
            let least = f.smallest();
            prop_assert_eq!(got.is_some(), budget >= least.bytes);
            if let Some(c) = got {
                prop_assert!(c.bytes <= budget);
                prop_assert_eq!(c.segments.saturating_sub(1) * c.leaf + c.tail, steps);
                prop_assert_eq!(c.bytes, fixed + c.slots * state + f.longest(c.leaf, c.segments) * step);
                let schedule = Schedule::binomial(c.segments, c.slots).unwrap();
                let stats = check(schedule.actions(), c.segments, c.slots).unwrap();
                prop_assert_eq!(stats.max_slots_used, c.slots);
                prop_assert_eq!(stats.advances * c.leaf as u64, c.extra_forward_steps);
            }
        }
    }

    #[test]
    fn the_last_segment_takes_what_is_left_of_the_budget() {
        // Half of the record fits: half of the steps are recorded once, and the others advanced over once.
        let f = Footprint {
            granularity: 8,
            min_leaf: 8,
            costs: Costs { advance: 4, spill: MEMORY, near: 16, mark: MEMORY, shared: 0 },
            ..plain(1000, 1, 10)
        };
        let choice = f.choose(5000).unwrap();
        assert_eq!((choice.leaf, choice.segments - 1), (16, choice.slots));
        assert!((480..=500).contains(&choice.tail), "{choice:?}");
        assert_eq!(choice.extra_forward_steps as usize, 1000 - choice.tail);
    }

    #[test]
    fn steps_that_cost_less_than_their_record_are_advanced_over() {
        let f = Footprint {
            granularity: 8,
            min_leaf: 8,
            costs: Costs {
                advance: 4,
                spill: Traffic { shared: 1, memory: 5 },
                near: 16,
                mark: MEMORY,
                shared: 0,
            },
            ..plain(1000, 1, 10)
        };
        let choice = f.choose(usize::MAX).unwrap();
        assert_eq!((choice.leaf, choice.slots), (16, choice.segments - 1));
        assert!(choice.tail <= 16, "{choice:?}");
    }

    #[test]
    fn a_record_that_the_shared_cache_holds_is_worth_a_second_pass() {
        // A whole record of 10,000 bytes: 50 a step where it is in memory, which is more than a step costs.
        let costs = Costs {
            advance: 30,
            spill: Traffic { shared: 5, memory: 50 },
            near: 16,
            mark: Traffic { shared: 1, memory: 10 },
            shared: 1000,
        };
        let f = Footprint { granularity: 8, min_leaf: 8, costs, ..plain(1000, 1, 10) };
        let choice = f.choose(usize::MAX).unwrap();
        assert!(choice.segments > 1 && choice.bytes <= 1000, "{choice:?}");
        // Where the cache holds all of it nothing is computed twice, and where it holds nothing, either.
        for (shared, memory, near) in [(10_000, 50, 16), (0, 29, 0)] {
            let spill = Traffic { shared: 5, memory };
            let f = Footprint { costs: Costs { shared, spill, near, ..costs }, ..f };
            let choice = f.choose(usize::MAX).unwrap();
            assert_eq!((choice.segments, choice.extra_forward_steps), (1, 0), "{choice:?}");
        }
    }

    #[test]
    fn what_was_written_last_is_read_from_the_cache() {
        let costs = Costs { spill: Traffic { shared: 10, memory: 110 }, near: 0, shared: 250, ..Costs::WORK };
        // A quarter of 1000 bytes is in the cache.
        assert_eq!(costs.traffic((100, 100), 0, 1000), 100 * 10 + 75 * 100);
        assert_eq!(costs.traffic((100, 100), 0, 250), 100 * 10);
        assert_eq!(costs.traffic((100, 100), 0, 0), 100 * 10);
    }
}
