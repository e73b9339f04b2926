//! Picks the leaf and the number of slots that fit a byte budget.

use super::binomial::advances;

/// What a run of a recurrence costs in bytes, as far as the schedule decides it.
///
/// With leaf `c` (steps recorded at a time) and `s` slots the peak is
/// `fixed_bytes + s·state_bytes + c·step_bytes`.
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
}

/// A leaf and a number of slots, with what they cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Steps of a segment, recorded at a time. The last segment may be shorter.
    pub leaf: usize,
    /// Slots for states, the initial one included; 0 when one segment takes the whole run.
    pub slots: usize,
    /// Segments of the run: `steps / leaf`, rounded up.
    pub segments: usize,
    /// Peak bytes: `fixed + slots·state + leaf·step`.
    pub bytes: usize,
    /// Steps of forward work beyond a run that keeps everything: `leaf · P(segments, slots)`, exactly, because the
    /// last segment, which may be short, is never advanced over. Saturates at `u64::MAX`.
    pub extra_forward_steps: u64,
}

/// The one tie-break for all searches: least extra work, then fewest bytes, then the shortest leaf.
fn rank(choice: &Choice) -> (u64, usize, usize) {
    (choice.extra_forward_steps, choice.bytes, choice.leaf)
}

/// Up to this many segments every segment count is tried; beyond, counts are tried in steps of this fraction.
const FINE: usize = 512;

impl Footprint {
    /// The leaf and slots with the least extra forward work whose peak is at most `budget` bytes; among those, the
    /// ones with the fewest bytes. `None` if no choice fits: [`Footprint::smallest`] then says what would.
    ///
    /// For a given number of segments the shortest leaf is best in both respects, so one leaf per number of
    /// segments is tried: at most `2·√steps` of them, and thinned to a relative distance of 1/512 for very long
    /// runs. Well below a millisecond.
    pub fn choose(&self, budget: usize) -> Option<Choice> {
        let room = budget.checked_sub(self.fixed_bytes)?;
        self.leaves().filter_map(|leaf| self.best_with(leaf, room)).min_by_key(rank)
    }

    /// The choice with the fewest bytes that any budget allows; among those, the one with the least extra work.
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

    /// Most slots that `room` bytes hold beside this leaf, and what they cost.
    fn best_with(&self, leaf: usize, room: usize) -> Option<Choice> {
        let (leaf, segments) = self.cut(leaf);
        let left = room.checked_sub(leaf.checked_mul(self.step_bytes)?)?;
        let wanted = segments.saturating_sub(1);
        let slots = left.checked_div(self.state_bytes).map_or(wanted, |fit| fit.min(wanted));
        (slots > 0 || wanted == 0).then(|| self.priced(leaf, slots, segments))
    }

    fn priced(&self, leaf: usize, slots: usize, segments: usize) -> Choice {
        let bytes = slots
            .saturating_mul(self.state_bytes)
            .saturating_add(leaf.saturating_mul(self.step_bytes))
            .saturating_add(self.fixed_bytes);
        let extra_forward_steps = advances(segments, slots).saturating_mul(leaf as u64);
        Choice { leaf, slots, segments, bytes, extra_forward_steps }
    }

    /// The leaf that is really used, and how many segments it makes.
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
        whole.into_iter().chain(rest)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{Schedule, check};
    use super::*;
    use proptest::prelude::*;

    fn plain(steps: usize, state_bytes: usize, step_bytes: usize) -> Footprint {
        Footprint {
            steps,
            state_bytes,
            step_bytes,
            fixed_bytes: 0,
            granularity: 1,
            min_leaf: 1,
            max_leaf: steps,
        }
    }

    /// The best of every allowed leaf.
    fn exhaustive(f: &Footprint, budget: usize) -> Option<Choice> {
        let room = budget.checked_sub(f.fixed_bytes)?;
        let (low, high) = f.leaf_bounds();
        (low..=high)
            .step_by(f.grain())
            .chain((f.steps <= f.max_leaf.max(low)).then_some(f.steps))
            .filter_map(|leaf| f.best_with(leaf, room))
            .min_by_key(rank)
    }

    #[test]
    fn everything_is_kept_when_it_fits() {
        let f = plain(1000, 8, 24);
        let want = Choice { leaf: 1000, slots: 0, segments: 1, bytes: 24_000, extra_forward_steps: 0 };
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
        // 96 · 10 extra steps, too, but with more bytes.
        let choice = f.choose(usize::MAX).unwrap();
        assert_eq!((choice.leaf, choice.segments, choice.extra_forward_steps), (48, 21, 960));
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
        fn finds_what_trying_every_leaf_finds(
            steps in 0usize..1500, state in 0usize..40, step in 0usize..40, fixed in 0usize..100,
            granularity in 0usize..9, min_leaf in 0usize..40, max_leaf in 0usize..1600, budget in 0usize..20_000,
        ) {
            let f = Footprint {
                steps, state_bytes: state, step_bytes: step, fixed_bytes: fixed, granularity, min_leaf, max_leaf,
            };
            let got = f.choose(budget);
            prop_assert_eq!(got.map(|c| rank(&c)), exhaustive(&f, budget).map(|c| rank(&c)));
            let least = f.smallest();
            prop_assert_eq!(got.is_some(), budget >= least.bytes);
            if let Some(c) = got {
                prop_assert!(c.bytes <= budget);
                prop_assert_eq!(c.segments, steps.div_ceil(c.leaf));
                prop_assert_eq!(c.bytes, fixed + c.slots * state + c.leaf * step);
                let schedule = Schedule::binomial(c.segments, c.slots).unwrap();
                let stats = check(schedule.actions(), c.segments, c.slots).unwrap();
                prop_assert_eq!(stats.max_slots_used, c.slots);
                prop_assert_eq!(stats.advances * c.leaf as u64, c.extra_forward_steps);
            }
        }
    }
}
