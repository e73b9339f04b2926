//! What happened before what.
//!
//! Within a block barriers order accesses, and nothing else does. Between blocks it is what a thread publishes with an
//! atomic and another takes up from the word: a vector clock says what of each block is known. Time in a block is its
//! stamp, which grows with every barrier and with every fence, so that what a thread does after it has published is
//! not taken for published.

use std::collections::HashMap;

/// Stands for several threads, or several blocks.
pub(super) const MANY: u32 = u32::MAX - 1;

/// Who accesses: a thread by its number in the grid, and the time of its block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who {
    pub(super) thread: u32,
    pub(super) block: u32,
    /// The first thread of the block.
    pub(super) first: u32,
    pub(super) threads_of_block: u32,
    /// Now.
    pub(super) stamp: u32,
    /// When the block passed its last barrier.
    pub(super) since: u32,
}

impl Who {
    /// The access as it is remembered.
    pub(super) fn user(&self) -> User {
        User { thread: self.thread, block: self.block, stamp: self.stamp }
    }

    /// What another user is called.
    pub(super) fn name(&self, user: User) -> String {
        match user {
            User { thread: MANY, block, .. } if block == self.block => "other threads".into(),
            User { thread: MANY, block, .. } => format!("threads of block {block}"),
            User { thread, block, .. } => {
                let thread = thread % self.threads_of_block;
                if block == self.block {
                    format!("thread {thread}")
                } else {
                    format!("thread {thread} of block {block}")
                }
            }
        }
    }
}

/// An access that is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct User {
    /// The thread, or [`MANY`] of the block since the same barrier.
    pub(super) thread: u32,
    pub(super) block: u32,
    pub(super) stamp: u32,
}

/// What is known of other blocks: everything up to a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Clock {
    /// Of each block what all of its threads did before this stamp. Blocks that are not there are at 0.
    blocks: Vec<u32>,
    /// What single threads did beyond that, before this stamp.
    threads: HashMap<u32, u32>,
}

impl Clock {
    fn knows(&self, user: User) -> bool {
        self.blocks.get(user.block as usize).is_some_and(|until| *until > user.stamp)
            || self.threads.get(&user.thread).is_some_and(|until| *until > user.stamp)
    }

    /// Learns what another one knows.
    pub(super) fn join(&mut self, other: &Clock) {
        if self.blocks.len() < other.blocks.len() {
            self.blocks.resize(other.blocks.len(), 0);
        }
        for (mine, until) in self.blocks.iter_mut().zip(&other.blocks) {
            *mine = (*mine).max(*until);
        }
        for (thread, until) in &other.threads {
            let mine = self.threads.entry(*thread).or_default();
            *mine = (*mine).max(*until);
        }
    }
}

/// What ties a thread that uses atomics to other blocks.
#[derive(Clone, Debug, Default)]
pub(super) struct Ties {
    /// Taken up and ordered by a fence; the block has it from its next barrier on.
    pub(super) acquired: Clock,
    /// Seen in words, with no fence yet behind it.
    seen: Clock,
    /// What a relaxed atomic publishes: what was known at the last fence.
    pub(super) published: Clock,
}

impl Ties {
    /// What the thread knows and has done itself, with what its block did up to its last barrier. Time goes on after it.
    pub(super) fn everything(&self, known: &Clock, who: &Who) -> Clock {
        let mut all = known.clone();
        all.join(&self.acquired);
        if all.blocks.len() <= who.block as usize {
            all.blocks.resize(who.block as usize + 1, 0);
        }
        all.blocks[who.block as usize] = who.since;
        all.threads.insert(who.thread, who.stamp + 1);
        all
    }

    /// A fence. Time goes on after it.
    pub(super) fn fence(&mut self, known: &Clock, who: &Who) {
        self.acquired.join(&std::mem::take(&mut self.seen));
        self.published = self.everything(known, who);
    }

    /// A word gave this, to an instruction that acquires itself or to one that does not.
    pub(super) fn saw(&mut self, clock: &Clock, acquires: bool) {
        if acquires { self.acquired.join(clock) } else { self.seen.join(clock) }
    }
}

/// What is ordered before an access of a thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order<'a> {
    /// What the block knew at its last barrier.
    pub(super) known: &'a Clock,
    pub(super) ties: Option<&'a Ties>,
    /// Whether blocks run side by side. Else who reads what many blocks read is not remembered.
    pub(super) cooperative: bool,
}

impl Order<'_> {
    /// Whether an access happened before the one of `who`.
    pub(super) fn before(&self, user: User, who: &Who) -> bool {
        if user.block == who.block {
            user.thread == who.thread || user.stamp < who.since
        } else {
            self.known.knows(user) || self.ties.is_some_and(|ties| ties.acquired.knows(user))
        }
    }
}

/// Accesses by several blocks: of each block the ones since the last barrier before which it had one.
#[derive(Clone, Debug, Default)]
pub(super) struct Crowd(Vec<User>);

impl Crowd {
    /// Notes an access; those that are ordered before it are covered by it.
    pub(super) fn note(&mut self, who: &Who, order: &Order<'_>) {
        match self.0.iter_mut().find(|user| user.block == who.block) {
            Some(user) if order.before(*user, who) => *user = who.user(),
            Some(user) => *user = User { thread: MANY, ..who.user() },
            None => {
                self.0.retain(|user| !order.before(*user, who));
                self.0.push(who.user());
            }
        }
    }

    /// Somebody whose access is not ordered before the one of `who`.
    pub(super) fn against(&self, who: &Who, order: &Order<'_>) -> Option<User> {
        self.0.iter().find(|user| !order.before(**user, who)).copied()
    }
}

impl From<User> for Crowd {
    fn from(user: User) -> Crowd {
        Crowd(vec![user])
    }
}
