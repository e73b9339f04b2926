//! Runs a list of actions on positions instead of tensors, and refuses the first one that cannot be carried out.

use super::Action;

/// What a valid list of actions did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Segments advanced over without recording, first sweep included: what `P(n, s)` counts.
    pub advances: u64,
    /// Segments recorded; a schedule that wastes nothing records each once.
    pub recorded: u64,
    /// Most segments recorded at a time: the leaf must have room for that many.
    pub longest_record: usize,
    /// States written to slots.
    pub stores: u64,
    /// States read back from slots.
    pub restores: u64,
    /// Most slots that held a state at once.
    pub max_slots_used: usize,
    /// Most times that one segment was advanced over: what `r(n, s)` bounds.
    pub repetitions: usize,
}

/// Why a list of actions is no schedule; `at` counts actions from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// More than one segment and not even a slot for the initial state.
    #[error("binomial schedule: {segments} segments need at least 1 slot, got 0")]
    NoSlot {
        /// Segments to reverse.
        segments: usize,
    },
    /// A schedule for a sequence of unknown length without a slot for the initial state.
    #[error("online schedule: needs at least 1 slot, got 0")]
    NoSlotOnline,
    /// An action over no segments, backwards, or past the end.
    #[error("action {at}, {action}: not a range of the {segments} segments")]
    Range {
        /// Which action.
        at: usize,
        /// The action.
        action: Action,
        /// Segments there are.
        segments: usize,
    },
    /// An action that starts from a state other than the present one.
    #[error("action {at}, {action}: needs the state before segment {expected}, the present one is {got:?}")]
    State {
        /// Which action.
        at: usize,
        /// The action.
        action: Action,
        /// Segment before which the state must stand.
        expected: usize,
        /// Segment before which it stands, if there is a state.
        got: Option<usize>,
    },
    /// A slot number that is not there.
    #[error("action {at}, {action}: there are only {slots} slots")]
    NoSuchSlot {
        /// Which action.
        at: usize,
        /// The action.
        action: Action,
        /// Slots there are.
        slots: usize,
    },
    /// A slot that holds something else than the action says (`None`: nothing).
    #[error("action {at}, {action}: the slot must hold {expected:?}, it holds {got:?}")]
    Slot {
        /// Which action.
        at: usize,
        /// The action.
        action: Action,
        /// What the slot must hold.
        expected: Option<usize>,
        /// What it holds.
        got: Option<usize>,
    },
    /// Segments recorded while others are still waiting for their backward pass.
    #[error("action {at}, {action}: segments {from}..{to} are recorded and wait for their backward pass")]
    Busy {
        /// Which action.
        at: usize,
        /// The action.
        action: Action,
        /// First segment of the record that waits.
        from: usize,
        /// One past its last segment.
        to: usize,
    },
    /// A backward pass over segments that are not the recorded ones.
    #[error("action {at}, {action}: recorded is {recorded:?}")]
    NotRecorded {
        /// Which action.
        at: usize,
        /// The action.
        action: Action,
        /// First and one past last segment recorded.
        recorded: Option<(usize, usize)>,
    },
    /// A backward pass out of order.
    #[error("action {at}, {action}: the backward pass stands at segment {end}")]
    Order {
        /// Which action.
        at: usize,
        /// The action.
        action: Action,
        /// One past the segment whose turn it is.
        end: usize,
    },
    /// The list ended too early.
    #[error("the actions end with {remaining} segments still to reverse")]
    Unfinished {
        /// Segments whose backward pass is missing.
        remaining: usize,
    },
    /// The list ended with a slot that was never freed.
    #[error("the actions end with slot {slot} still holding the state before segment {step}")]
    SlotLeft {
        /// The slot.
        slot: usize,
        /// What it holds.
        step: usize,
    },
}

/// Carries out `actions` over `segments` segments with `slots` slots, on positions alone.
///
/// Holds them to this: each starts from the state that is there; slots hold what a restore claims, are not
/// overwritten, are never more than `slots`, and are all free at the end; one record at a time; every segment goes
/// backward exactly once, from the last to the first, and only while it is recorded.
///
/// Memory is proportional to `segments + slots used`; time to that and the number of actions.
pub fn check(
    actions: impl IntoIterator<Item = Action>,
    segments: usize,
    slots: usize,
) -> Result<Stats, ScheduleError> {
    let mut run = Run {
        segments,
        slots,
        state: Some(0),
        held: Vec::new(),
        in_use: 0,
        recorded: None,
        end: segments,
        stats: Stats::default(),
        // How many more advances begin than end at a boundary; the running sum counts those over a segment.
        edges: vec![0; segments + 1],
    };
    for (at, action) in actions.into_iter().enumerate() {
        run.apply(at, action)?;
    }
    run.finish()
}

struct Run {
    segments: usize,
    slots: usize,
    state: Option<usize>,
    held: Vec<Option<usize>>,
    in_use: usize,
    recorded: Option<(usize, usize)>,
    end: usize,
    stats: Stats,
    edges: Vec<i64>,
}

impl Run {
    fn apply(&mut self, at: usize, action: Action) -> Result<(), ScheduleError> {
        match action {
            Action::Advance { from, to } => {
                self.range(at, action, from, to)?;
                self.stands(at, action, from)?;
                self.state = Some(to);
                self.stats.advances += (to - from) as u64;
                self.edges[from] += 1;
                self.edges[to] -= 1;
            }
            Action::Store { slot, step } => {
                self.stands(at, action, step)?;
                self.slot(at, action, slot, None)?;
                self.held[slot] = Some(step);
                self.in_use += 1;
                self.stats.stores += 1;
                self.stats.max_slots_used = self.stats.max_slots_used.max(self.in_use);
            }
            Action::Restore { slot, step } => {
                self.slot(at, action, slot, Some(step))?;
                self.state = Some(step);
                self.stats.restores += 1;
            }
            Action::Record { from, to } => {
                self.range(at, action, from, to)?;
                self.stands(at, action, from)?;
                if let Some((from, to)) = self.recorded {
                    return Err(ScheduleError::Busy { at, action, from, to });
                }
                self.state = Some(to);
                self.recorded = Some((from, to));
                self.stats.recorded += (to - from) as u64;
                self.stats.longest_record = self.stats.longest_record.max(to - from);
            }
            Action::Backward { from, to } => {
                self.range(at, action, from, to)?;
                if to != self.end {
                    return Err(ScheduleError::Order { at, action, end: self.end });
                }
                if self.recorded != Some((from, to)) {
                    return Err(ScheduleError::NotRecorded { at, action, recorded: self.recorded });
                }
                self.recorded = None;
                self.end = from;
            }
            Action::Free { slot } => {
                if self.held.get(slot).copied().flatten().is_none() {
                    let got = None;
                    return Err(ScheduleError::Slot { at, action, expected: Some(self.end), got });
                }
                self.held[slot] = None;
                self.in_use -= 1;
            }
        }
        Ok(())
    }

    fn range(&self, at: usize, action: Action, from: usize, to: usize) -> Result<(), ScheduleError> {
        if from < to && to <= self.segments {
            return Ok(());
        }
        Err(ScheduleError::Range { at, action, segments: self.segments })
    }

    fn stands(&self, at: usize, action: Action, expected: usize) -> Result<(), ScheduleError> {
        if self.state == Some(expected) {
            return Ok(());
        }
        Err(ScheduleError::State { at, action, expected, got: self.state })
    }

    /// The slot exists and holds exactly `expected`.
    fn slot(
        &mut self,
        at: usize,
        action: Action,
        slot: usize,
        expected: Option<usize>,
    ) -> Result<(), ScheduleError> {
        if slot >= self.slots {
            return Err(ScheduleError::NoSuchSlot { at, action, slots: self.slots });
        }
        if slot >= self.held.len() {
            self.held.resize(slot + 1, None);
        }
        let got = self.held[slot];
        if got == expected {
            return Ok(());
        }
        Err(ScheduleError::Slot { at, action, expected, got })
    }

    fn finish(mut self) -> Result<Stats, ScheduleError> {
        if self.end > 0 {
            return Err(ScheduleError::Unfinished { remaining: self.end });
        }
        if let Some((slot, step)) = self.held.iter().enumerate().find_map(|(i, s)| s.map(|s| (i, s))) {
            return Err(ScheduleError::SlotLeft { slot, step });
        }
        let mut over = 0;
        for edge in &self.edges {
            over += edge;
            self.stats.repetitions = self.stats.repetitions.max(over as usize);
        }
        Ok(self.stats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Action::*;

    #[test]
    fn accepts_a_schedule_written_by_hand() {
        // Three segments, one slot: r = 2, P = 3.
        let actions = [
            Store { slot: 0, step: 0 },
            Advance { from: 0, to: 2 },
            Record { from: 2, to: 3 },
            Backward { from: 2, to: 3 },
            Restore { slot: 0, step: 0 },
            Advance { from: 0, to: 1 },
            Record { from: 1, to: 2 },
            Backward { from: 1, to: 2 },
            Restore { slot: 0, step: 0 },
            Free { slot: 0 },
            Record { from: 0, to: 1 },
            Backward { from: 0, to: 1 },
        ];
        let want = Stats {
            advances: 3,
            recorded: 3,
            longest_record: 1,
            stores: 1,
            restores: 2,
            max_slots_used: 1,
            repetitions: 2,
        };
        assert_eq!(check(actions, 3, 1), Ok(want));
    }

    #[test]
    fn names_the_first_action_that_cannot_be_carried_out() {
        use ScheduleError as E;
        let adv = Advance { from: 1, to: 2 };
        let cases: Vec<(Vec<Action>, E)> = vec![
            (vec![adv], E::State { at: 0, action: adv, expected: 1, got: Some(0) }),
            (
                vec![Advance { from: 0, to: 3 }],
                E::Range { at: 0, action: Advance { from: 0, to: 3 }, segments: 2 },
            ),
            (
                vec![Advance { from: 0, to: 0 }],
                E::Range { at: 0, action: Advance { from: 0, to: 0 }, segments: 2 },
            ),
            (
                vec![Store { slot: 1, step: 0 }],
                E::NoSuchSlot { at: 0, action: Store { slot: 1, step: 0 }, slots: 1 },
            ),
            (
                vec![Store { slot: 0, step: 0 }, Store { slot: 0, step: 0 }],
                E::Slot { at: 1, action: Store { slot: 0, step: 0 }, expected: None, got: Some(0) },
            ),
            (
                vec![Store { slot: 0, step: 0 }, Restore { slot: 0, step: 1 }],
                E::Slot { at: 1, action: Restore { slot: 0, step: 1 }, expected: Some(1), got: Some(0) },
            ),
            (
                vec![Free { slot: 0 }],
                E::Slot { at: 0, action: Free { slot: 0 }, expected: Some(2), got: None },
            ),
            (
                vec![Record { from: 0, to: 1 }, Record { from: 1, to: 2 }],
                E::Busy { at: 1, action: Record { from: 1, to: 2 }, from: 0, to: 1 },
            ),
            (
                vec![Record { from: 0, to: 1 }, Backward { from: 0, to: 1 }],
                E::Order { at: 1, action: Backward { from: 0, to: 1 }, end: 2 },
            ),
            (
                vec![Backward { from: 1, to: 2 }],
                E::NotRecorded { at: 0, action: Backward { from: 1, to: 2 }, recorded: None },
            ),
            (
                vec![Advance { from: 0, to: 1 }, Record { from: 1, to: 2 }, Backward { from: 1, to: 2 }],
                E::Unfinished { remaining: 1 },
            ),
            (
                vec![Store { slot: 0, step: 0 }, Record { from: 0, to: 2 }, Backward { from: 0, to: 2 }],
                E::SlotLeft { slot: 0, step: 0 },
            ),
        ];
        for (actions, want) in cases {
            assert_eq!(check(actions.clone(), 2, 1), Err(want.clone()), "{actions:?}");
            assert!(!want.to_string().is_empty());
        }
    }

    #[test]
    fn message_names_action_and_both_values() {
        let wrong = check([Advance { from: 1, to: 2 }], 2, 1).err().map(|e| e.to_string());
        let want = "action 0, advance 1..2: needs the state before segment 1, the present one is Some(0)";
        assert_eq!(wrong.as_deref(), Some(want));
    }
}
