//! Teams: threads that run one tile together, call by call.
//!
//! Rows of a batch are usually split into tiles, and a thread runs all steps of a tile without asking anybody. Where
//! the matrix of a step is larger than a thread's cache, every tile would read all of it at every step; with few rows
//! that is most of the time, and the threads share each call instead, by columns or by rows, and meet after it. A
//! single row cannot be split, so there it pays from smaller matrices on. What a call writes is the same for any number
//! of members, bit for bit: no sum is split.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Threads that meet.
#[derive(Debug)]
pub(crate) struct Team {
    members: usize,
    arrived: AtomicUsize,
    round: AtomicUsize,
    broken: AtomicBool,
}

/// One thread of a team, or a thread alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member<'t> {
    team: Option<&'t Team>,
    index: usize,
}

/// Looks at the meeting's counter before the processor is given to somebody else: some tens of microseconds.
const PATIENCE: usize = 1000;

impl Team {
    pub(crate) fn new(members: usize) -> Team {
        Team {
            members,
            arrived: AtomicUsize::new(0),
            round: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
        }
    }

    /// Runs `task` as member `index`. A panic lets the others end too, who would wait for ever.
    pub(crate) fn run(&self, index: usize, task: impl FnOnce(Member<'_>)) {
        struct Guard<'t>(&'t Team);
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.broken.store(true, Ordering::Release);
                }
            }
        }
        let _guard = Guard(self);
        task(Member { team: Some(self), index });
    }
}

impl Member<'_> {
    /// A thread that nobody waits for.
    pub(crate) const ALONE: Member<'static> = Member { team: None, index: 0 };

    /// Whether this member does what cannot be shared.
    pub(crate) fn leads(&self) -> bool {
        self.index == 0
    }

    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Number of members.
    pub(crate) fn of(&self) -> usize {
        self.team.map_or(1, |t| t.members)
    }

    /// This member's part of `n` things in whole blocks of `block`: the first, and one past the last.
    pub(crate) fn part(&self, n: usize, block: usize) -> (usize, usize) {
        let blocks = n.div_ceil(block.max(1));
        let at = |k: usize| (blocks * k / self.of() * block).min(n);
        (at(self.index), at(self.index + 1))
    }

    /// Waits for the others. What any member wrote before is seen by all afterwards.
    #[allow(clippy::panic)]
    pub(crate) fn meet(&self) {
        let Some(team) = self.team else { return };
        let round = team.round.load(Ordering::Acquire);
        if team.arrived.fetch_add(1, Ordering::AcqRel) + 1 == team.members {
            team.arrived.store(0, Ordering::Relaxed);
            team.round.store(round.wrapping_add(1), Ordering::Release);
            return;
        }
        let mut looks = 0;
        while team.round.load(Ordering::Acquire) == round {
            assert!(!team.broken.load(Ordering::Acquire), "bug: another thread of the team ended early");
            looks += 1;
            if looks < PATIENCE { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_everything_once() {
        for members in 1..6 {
            let team = Team::new(members);
            for (n, block) in [(0, 1), (1, 64), (64, 64), (65, 64), (500, 64), (7, 2), (100, 1)] {
                let mut next = 0;
                for index in 0..members {
                    let (from, to) = Member { team: Some(&team), index }.part(n, block);
                    assert_eq!(from, next);
                    assert!(to == n || to % block == 0);
                    next = to;
                }
                assert_eq!(next, n);
            }
        }
    }

    #[test]
    fn nobody_goes_on_before_all_have_come() {
        let (members, rounds) = (3, 200);
        let team = Team::new(members);
        let done = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for index in 0..members {
                let (team, done) = (&team, &done);
                scope.spawn(move || {
                    team.run(index, |member| {
                        for round in 1..=rounds {
                            done.fetch_add(1, Ordering::Relaxed);
                            member.meet();
                            assert!(done.load(Ordering::Relaxed) >= round * members);
                            member.meet();
                        }
                    });
                });
            }
        });
        assert_eq!(done.into_inner(), members * rounds);
    }

    #[test]
    fn a_panic_ends_the_others() {
        let team = Team::new(2);
        let ended = std::thread::scope(|scope| {
            let waits = scope.spawn(|| team.run(0, |member| member.meet()));
            let panics = scope.spawn(|| team.run(1, |_| panic!("on purpose")));
            (waits.join().is_err(), panics.join().is_err())
        });
        assert_eq!(ended, (true, true));
    }
}
