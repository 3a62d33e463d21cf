//! What the shared log remembers of entries that were removed because of their age.
//!
//! A gate that starts later never read them. When retentions grow, tokens become valid again that the removed events
//! may have ended, so the log records until when they came, by its own age, which no clock can set back or forward.

use std::time::Duration;

use super::log::Beat;
use super::{SharedStore, lock};
use crate::time::Monotonic;

/// How much further back an entry may lie than its age says: the log counts at most five seconds when a clock steps.
const MARGIN: Duration = Duration::from_secs(60);

/// Entries that were kept for one retention and then removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// They arrived before this moment on the clock of this process.
    pub until: Monotonic,
    /// How long they were kept.
    pub retention: Duration,
}

impl SharedStore {
    /// Returns what is known of removed entries if that has changed. A recreated log has no record of what was
    /// removed from its predecessor; that stays known here.
    pub(super) fn newly_removed(&self, beat: &Beat, asked_at: Monotonic) -> Option<Vec<Removed>> {
        let mut dropped = lock(&self.dropped);
        if beat.dropped.is_empty() || *dropped == beat.dropped {
            return None;
        }
        dropped.clone_from(&beat.dropped);
        Some(parse(&beat.dropped, beat.ticks, asked_at))
    }

    /// The retentions of the removed entries that this gate knows of, for a log that may not know them.
    pub(super) fn retentions(&self) -> String {
        let dropped = lock(&self.dropped);
        dropped.split(',').filter_map(|pair| Some(pair.split_once(':')?.0)).collect::<Vec<_>>().join(",")
    }
}

/// Parses the field of the origin: a retention and an age of the log, for each retention that was ever in
/// force. `ticks` is the log's age at the moment `now`, or a little less.
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
            // The age was read a moment before the entry was counted.
            ("5:500001", vec![of(1_000_000, 5)]),
            ("x:1,5:x,5,:,-5:1", vec![]),
        ] {
            assert_eq!(parse(dropped, 500_000, now), expected, "{dropped}");
        }
    }
}
