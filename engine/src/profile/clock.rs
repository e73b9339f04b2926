//! Taking the time: a clock for each thread, and the sums of all of them.

use std::cell::Cell;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// What was seen of one site.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) nanos: u64,
    pub(crate) calls: u64,
    /// Entries that an instruction ran over; bytes that the executor moved.
    pub(crate) amount: u64,
}

/// A thread's own clock. It is read once between two pieces of work, so all the time from its start to its last lap
/// belongs to some site.
pub(crate) struct Clock {
    last: Cell<Instant>,
    tallies: Vec<Cell<Tally>>,
}

impl Clock {
    /// With numbers for so many sites, running from now.
    pub(crate) fn new(sites: usize) -> Clock {
        Clock { last: Cell::new(Instant::now()), tallies: vec![Cell::default(); sites] }
    }

    /// What was seen of each site.
    pub(crate) fn into_tallies(self) -> Vec<Tally> {
        self.tallies.into_iter().map(Cell::into_inner).collect()
    }

    /// Gives the time since the last lap to `site`.
    pub(crate) fn lap(&self, site: usize, calls: u64, amount: u64) {
        let now = Instant::now();
        let nanos = now.duration_since(self.last.replace(now)).as_nanos() as u64;
        let tally = &self.tallies[site];
        let t = tally.get();
        tally.set(Tally { nanos: t.nanos + nanos, calls: t.calls + calls, amount: t.amount + amount });
    }
}

/// The sums over all threads of a run.
pub(crate) struct Totals(Mutex<Vec<Tally>>);

impl Totals {
    pub(crate) fn new(sites: usize) -> Totals {
        Totals(Mutex::new(vec![Tally::default(); sites]))
    }

    pub(crate) fn into_tallies(self) -> Vec<Tally> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sites of an item among those of a program.
#[derive(Clone, Copy)]
pub(crate) struct Times<'a> {
    pub(crate) totals: &'a Totals,
    pub(crate) base: usize,
    pub(crate) sites: usize,
}

impl Times<'_> {
    /// A clock that runs from now.
    pub(crate) fn start(&self) -> Clock {
        Clock::new(self.sites)
    }

    /// Adds what a thread has seen. Once for each thread and item: the only time that threads meet.
    pub(crate) fn add(&self, clock: Clock) {
        let mut totals = self.totals.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (sum, tally) in totals[self.base..].iter_mut().zip(&clock.tallies) {
            let t = tally.get();
            sum.nanos += t.nanos;
            sum.calls += t.calls;
            sum.amount += t.amount;
        }
    }
}
