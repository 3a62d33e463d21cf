//! The phases of a gate's connection to the shared store. One task owns the phase; [`RedisPhase::after`] is
//! the whole state machine.

/// A phase of the connection to the shared store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum RedisPhase {
    /// Looks for the primary and opens a connection.
    Connecting,
    /// Reads the log to its end, and finds out what the log and this gate lack.
    CatchingUp,
    /// Follows the log, and republishes what only this gate holds.
    Mending,
    /// Follows the log.
    Following,
    /// Waits before it connects again.
    Pausing,
}

/// How a phase ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Outcome {
    /// The server can be used.
    Connected,
    /// The log was read, and has everything that this gate has.
    CaughtUp,
    /// The log was read, and lacks entries that this gate holds.
    FoundLoss,
    /// The lost entries are in the log again.
    Mended,
    /// The log has been replaced, or lost entries.
    Broken,
    /// The server or the connection failed.
    Failed,
    /// The pause is over.
    Rested,
}

impl RedisPhase {
    /// Returns the next phase.
    pub(super) const fn after(self, outcome: Outcome) -> Self {
        match (self, outcome) {
            (Self::Connecting, Outcome::Connected) | (Self::Mending | Self::Following, Outcome::Broken) => {
                Self::CatchingUp
            }
            (Self::CatchingUp, Outcome::FoundLoss) => Self::Mending,
            (Self::CatchingUp, Outcome::CaughtUp) | (Self::Mending, Outcome::Mended) => Self::Following,
            (Self::Pausing, Outcome::Rested) => Self::Connecting,
            // After a failure, and for combinations that cannot occur, starting again is always correct.
            _ => Self::Pausing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Outcome::{Broken, CaughtUp, Connected, Failed, FoundLoss, Mended, Rested};
    use super::RedisPhase::{CatchingUp, Connecting, Following, Mending, Pausing};
    use super::*;

    const PHASES: [RedisPhase; 5] = [Connecting, CatchingUp, Mending, Following, Pausing];
    const OUTCOMES: [Outcome; 7] = [Connected, CaughtUp, FoundLoss, Mended, Broken, Failed, Rested];

    #[test]
    fn each_outcome_leads_on_or_begins_again() {
        let leads = [
            (Connecting, Connected, CatchingUp),
            (CatchingUp, CaughtUp, Following),
            (CatchingUp, FoundLoss, Mending),
            (Mending, Mended, Following),
            (Mending, Broken, CatchingUp),
            (Following, Broken, CatchingUp),
            (Pausing, Rested, Connecting),
        ];
        for phase in PHASES {
            for outcome in OUTCOMES {
                let next = leads.iter().find(|(from, by, _)| (*from, *by) == (phase, outcome));
                let expected = next.map_or(Pausing, |(.., to)| *to);
                assert_eq!(phase.after(outcome), expected, "{phase:?} {outcome:?}");
            }
        }
    }

    #[test]
    fn the_log_is_followed_only_after_it_was_read() {
        // Only catching up, and mending after it, lead to following.
        for phase in PHASES {
            for outcome in OUTCOMES {
                if phase.after(outcome) == Following {
                    assert!(matches!(phase, CatchingUp | Mending), "{phase:?} {outcome:?}");
                }
                if phase.after(outcome) == Mending {
                    assert_eq!(phase, CatchingUp, "{outcome:?}");
                }
            }
        }
    }
}
