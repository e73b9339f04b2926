//! The choice of a plan: what is kept and how the time axis is cut, so that the run is expected to take least time
//! within its budget.

use std::sync::Arc;

use super::cost::{self, Expected, Rates, TICK};
use super::explain::work::Size;
use super::keep::Keep;
use super::memory::{self, Memory, PairBytes, Segments};
use super::outer::Outer;
use super::{Decision, explain};
use crate::error::{Error, Result};
use crate::schedule::{Choice, Footprint};
use crate::stash::Stash;

/// All that a choice depends on but the budget.
pub(crate) struct Chooser<'a> {
    pub(crate) variants: &'a [(Keep, Arc<Outer>)],
    pub(crate) steps: usize,
    pub(crate) rows: usize,
    pub(crate) threads: usize,
    /// Threads, or blocks of a device, that work at once.
    pub(crate) at_once: usize,
    pub(crate) rates: Rates,
    /// Whether the rates are good enough to give up a record that there is room for: those of a device are not measured.
    pub(crate) rated: bool,
    pub(crate) stash: Stash,
}

/// Times that placement may waste some of the budget, after which what it wastes is taken off.
const TRIES: usize = 8;

impl Chooser<'_> {
    /// The plan within `budget` bytes that is expected to take least time; of those that are expected to take no longer
    /// than one that records everything, where there is room for that, one with few bytes. Errors: none fits, sizes
    /// that overflow.
    pub(crate) fn choose(&self, budget: Option<usize>) -> Result<Decision> {
        let whole = self.whole(0);
        let fits = |whole: &Decision| budget.is_none_or(|budget| whole.memory.peak_bytes() <= budget);
        if let Ok(whole) = &whole
            && fits(whole)
        {
            return Ok(self.as_fast(whole)?.unwrap_or_else(|| whole.clone()));
        }
        let Some(budget) = budget else { return whole };
        let footprints = self.footprints();
        let least = self.least(whole, &footprints)?;
        if least.memory.peak_bytes() > budget {
            return Err(Error::Budget {
                budget,
                smallest: least.memory.peak_bytes(),
                dominant: explain::dominant(&self.variants[least.variant].1, &least.memory),
            });
        }
        let mut best = least;
        for (variant, footprint, run) in &footprints {
            // What overflows does not fit; the least does.
            if let Ok(Some(d)) = self.within(*variant, footprint, *run, budget)
                && d.seconds < best.seconds
            {
                best = d;
            }
        }
        Ok(best)
    }

    /// A plan of at most half the bytes, or a quarter, and so on, that is expected to take no longer than `whole`: the
    /// last of them. What it computes again costs no more than a record that no cache holds. `None` if there is none.
    fn as_fast(&self, whole: &Decision) -> Result<Option<Decision>> {
        if !self.rated || !self.variants[0].1.chooses() {
            return Ok(None);
        }
        let (_, expected) = self.expected(0)?;
        // Half the bytes are not had without going over many of the steps again, a quarter at the very least.
        let again = expected.segments.advance as f64 * TICK * self.steps as f64 / 4.0;
        if expected.run + again > whole.seconds {
            return Ok(None);
        }
        let Some((footprint, run)) = self.footprint(0)? else { return Ok(None) };
        let mut found = None;
        for halvings in 1..usize::BITS {
            match self.within(0, &footprint, run, whole.memory.peak_bytes() >> halvings)? {
                Some(d) if d.seconds <= whole.seconds => found = Some(d),
                Some(_) => {}
                None => break,
            }
        }
        Ok(found)
    }

    /// The plan with the fewest bytes. Errors: the sizes of all of them overflow.
    pub(crate) fn smallest(&self) -> Result<Decision> {
        self.least(self.whole(0), &self.footprints())
    }

    /// The same of the plan that records everything and those of the forms that choose: where the record is a small part,
    /// short segments can lie less well than one.
    fn least(&self, whole: Result<Decision>, footprints: &[(usize, Footprint, f64)]) -> Result<Decision> {
        let segmented =
            footprints.iter().flat_map(|(variant, f, run)| self.priced(*variant, &f.smallest(), *run));
        let bytes = |d: &Decision| d.memory.peak_bytes();
        segmented.fold(
            whole,
            |least, d| if least.as_ref().is_ok_and(|l| bytes(l) <= bytes(&d)) { least } else { Ok(d) },
        )
    }

    /// What memory and time cost in the forms that choose, as [`footprint`](Chooser::footprint), with their numbers; but for
    /// those whose sizes overflow, which fit nowhere.
    fn footprints(&self) -> Vec<(usize, Footprint, f64)> {
        let of = |variant| Some((variant, self.footprint(variant).ok()??));
        (0..self.variants.len()).filter_map(of).map(|(variant, (f, run))| (variant, f, run)).collect()
    }

    /// The best plan of a variant within `budget` bytes, by what its memory and time cost.
    fn within(
        &self,
        variant: usize,
        footprint: &Footprint,
        run: f64,
        budget: usize,
    ) -> Result<Option<Decision>> {
        let fits = |d: &Decision| d.memory.peak_bytes() <= budget;
        let mut room = budget;
        for _ in 0..TRIES {
            let Some(choice) = footprint.choose(room) else { break };
            let d = self.priced(variant, &choice, run)?;
            if fits(&d) {
                return Ok(Some(d));
            }
            room = room.saturating_sub(d.memory.peak_bytes() - budget);
        }
        Ok(Some(self.priced(variant, &footprint.smallest(), run)?).filter(fits))
    }

    /// What a variant's memory and time cost beside the choice of segments, and the seconds of its run; `None` if
    /// nothing is recorded.
    fn footprint(&self, variant: usize) -> Result<Option<(Footprint, f64)>> {
        let (steps, rows) = (self.steps, self.rows);
        let outer = &self.variants[variant].1;
        if !outer.chooses() {
            return Ok(None);
        }
        let chunk = memory::pair_chunk(outer, rows);
        let (pairs, expected) = self.expected(variant)?;
        let least = Segments { leaf: chunk, count: steps.div_ceil(chunk), slots: 1 };
        let slots = usize::from(least.count > 1);
        let base = self.memory(variant, least)?;
        let marks = slots.saturating_mul(pairs.mark);
        let own = (marks + pairs.state).saturating_add(chunk.min(steps).saturating_mul(pairs.step));
        let fixed = base.peak_bytes().saturating_sub(own);
        let footprint = Footprint {
            steps,
            state_bytes: pairs.mark,
            step_bytes: pairs.step,
            // The states of a segment have one slot more than steps.
            fixed_bytes: fixed + pairs.state,
            granularity: chunk,
            min_leaf: chunk,
            max_leaf: steps,
            costs: expected.segments,
        };
        Ok(Some((footprint, expected.run)))
    }

    /// Bytes of a variant's record, and how long its parts are expected to take.
    fn expected(&self, variant: usize) -> Result<(PairBytes, Expected)> {
        let outer = &self.variants[variant].1;
        let pairs = memory::pair_bytes(outer, self.rows, self.stash)?;
        let size = Size { steps: self.steps, rows: self.rows };
        Ok((pairs, cost::expected(outer, size, self.at_once, &self.rates, pairs)))
    }

    fn memory(&self, variant: usize, segments: Segments) -> Result<Memory> {
        Memory::new(&self.variants[variant].1, self.steps, self.rows, self.threads, segments, self.stash)
    }

    fn priced(&self, variant: usize, choice: &Choice, run: f64) -> Result<Decision> {
        let segments = Segments { leaf: choice.leaf, count: choice.segments, slots: choice.slots };
        Ok(Decision {
            variant,
            segments,
            extra_forward_steps: choice.extra_forward_steps,
            seconds: run + choice.cost as f64 * TICK,
            memory: Arc::new(self.memory(variant, segments)?),
        })
    }

    fn whole(&self, variant: usize) -> Result<Decision> {
        let (pairs, expected) = self.expected(variant)?;
        let held = self.steps.saturating_mul(pairs.step);
        let traffic = expected.segments.traffic((self.steps, self.steps), 0, held);
        Ok(Decision {
            variant,
            segments: Segments::WHOLE,
            extra_forward_steps: 0,
            seconds: expected.run + traffic as f64 * TICK,
            memory: Arc::new(self.memory(variant, Segments::WHOLE)?),
        })
    }
}
