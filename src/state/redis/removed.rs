//! What the shared log remembers of entries that were removed because they were old enough.
//!
//! A gate that starts has never read them. When settings grow, tokens live again that they may have ended, so the log says
//! until when they came, by its own age, which no clock sets back or forward.

use std::time::Duration;

use super::log::Beat;
use super::{Fleet, lock};
use crate::time::Monotonic;

/// How much further than its age says an entry may lie back: the log counts up to five seconds for a clock that steps.
const MARGIN: Duration = Duration::from_secs(60);

/// Entries that were kept for one retention, and then removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// They came until then, by the clock of this process.
    pub until: Monotonic,
    /// For how long they were kept.
    pub retention: Duration,
}

impl Fleet {
    /// What is known of removed entries, if that is news. A log that was created again knows nothing of those of the former one,
    /// which stay known here.
    pub(super) fn newly_removed(&self, beat: &Beat, asked_at: Monotonic) -> Option<Vec<Removed>> {
        let mut dropped = lock(&self.dropped);
        if beat.dropped.is_empty() || *dropped == beat.dropped {
            return None;
        }
        dropped.clone_from(&beat.dropped);
        Some(parse(&beat.dropped, beat.ticks, asked_at))
    }

    /// The retentions of removed entries that this gate knows of, for a log that may not.
    pub(super) fn retentions(&self) -> String {
        let dropped = lock(&self.dropped);
        dropped.split(',').filter_map(|pair| Some(pair.split_once(':')?.0)).collect::<Vec<_>>().join(",")
    }
}

/// From the field of the origin: a retention and an age of the log, for each retention that was ever in force. `ticks` is the
/// age of the log at most at `now`.
pub(super) fn parse(dropped: &str, ticks: i64, now: Monotonic) -> Vec<Removed> {
    let number = |text: &str| text.parse::<u64>().ok().map(Duration::from_millis);
    let read = |pair: &str| {
        let (retention, at) = pair.split_once(':')?;
        let at: i64 = at.parse().ok()?;
        let ago = Duration::from_millis(u64::try_from(ticks.saturating_sub(at)).unwrap_or(0));
        Some(Removed { until: now.minus(ago).plus(MARGIN), retention: number(retention)? })
    };
    dropped.split(',').filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_of_the_log_become_moments_of_this_process() {
        let now = Monotonic::from_millis(1_000_000);
        let of = |until: i64, retention| Removed {
            until: Monotonic::from_millis(until + 60_000),
            retention: Duration::from_millis(retention),
        };
        for (dropped, expected) in [
            ("", vec![]),
            ("86400000:400000", vec![of(900_000, 86_400_000)]),
            ("5:0,7:500000", vec![of(500_000, 5), of(1_000_000, 7)]),
            // The age was read a moment before it was counted.
            ("5:500001", vec![of(1_000_000, 5)]),
            ("x:1,5:x,5,:,-5:1", vec![]),
        ] {
            assert_eq!(parse(dropped, 500_000, now), expected, "{dropped}");
        }
    }
}
