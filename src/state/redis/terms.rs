//! The idle timeout that all replicas share, and what was idle when it grew: kept by the gate whose timeout it is, told to
//! the others with the heartbeat.

use std::time::Duration;

use super::log::Beat;
use super::{Fleet, PATIENCE, lock};
use crate::state::StoreError;
use crate::state::record::{IdleFloor, IdleTerms};
use crate::time::{Monotonic, Timestamp};

/// What the store keeps: the timeout, and the floor by the server's clock with its own timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeptTerms {
    timeout: Option<Duration>,
    floor: Option<(Timestamp, Duration)>,
}

impl KeptTerms {
    /// As the heartbeat brings them; `None` when there are none yet.
    pub(super) fn parse(kept: &str) -> Option<Self> {
        let mut words = kept.split(' ').map(|word| word.parse::<i64>().ok());
        let millis = |word: i64| u64::try_from(word).ok().map(Duration::from_millis);
        let timeout = millis(words.next()??);
        let (floor, floor_timeout) = (words.next().flatten(), words.next().flatten());
        let floor = floor.map(Timestamp::from_millis).zip(floor_timeout.and_then(millis));
        Some(Self { timeout, floor })
    }

    /// On the clocks of this process, when the server's clock says `clock`.
    fn at(self, clock: Timestamp, now: Monotonic) -> IdleTerms {
        let floor = |(wall, timeout)| IdleFloor { monotonic: now.minus(clock.since(wall)), wall, timeout };
        IdleTerms { timeout: self.timeout, floor: self.floor.map(floor) }
    }
}

impl Fleet {
    /// Keeps the idle timeout in force, for gates that start later and those that run.
    pub(in crate::state) async fn save_idle_terms(&self, terms: IdleTerms) -> Result<(), StoreError> {
        let millis =
            |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX).min(1 << 50);
        let mut call = self.scripts.terms.call(1);
        call.arg(&self.keys.origin).arg(self.position().id).arg(terms.timeout.map_or(-1, millis));
        if let Some(floor) = terms.floor {
            call.arg(floor.wall.as_millis()).arg(millis(floor.timeout));
        }
        let kept: Result<i64, _> = self.log_lane()?.ask(&call, PATIENCE).await;
        kept.inspect_err(|fault| self.noticed(fault))?;
        Ok(())
    }

    /// What is kept, if that is news.
    pub(super) fn new_terms(&self, beat: &Beat) -> Option<IdleTerms> {
        let kept = beat.idle?;
        let before = lock(&self.idle).replace(kept);
        (before != Some(kept)).then(|| kept.at(beat.clock, Monotonic::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_read_as_they_were_kept_and_put_on_the_clocks_of_this_process() {
        let (minute, ms) = (Duration::from_secs(60), Timestamp::from_millis);
        for (kept, expected) in [
            ("", None),
            ("x 900000 30000", None),
            ("-1", Some((None, None))),
            ("60000", Some((Some(minute), None))),
            ("60000 900000 30000", Some((Some(minute), Some((ms(900_000), minute / 2))))),
            ("-1 900000 30000", Some((None, Some((ms(900_000), minute / 2))))),
            ("60000 x 30000", Some((Some(minute), None))),
            ("60000 900000", Some((Some(minute), None))),
        ] {
            let parsed = KeptTerms::parse(kept);
            assert_eq!(parsed.map(|kept| (kept.timeout, kept.floor)), expected, "{kept:?}");
        }
        let kept = KeptTerms { timeout: None, floor: Some((ms(900_000), minute)) };
        for (clock, now, expected) in [(1_000_000, 5_000, -95_000), (900_000, 5_000, 5_000), (1, 7, 7)] {
            let floor = kept.at(ms(clock), Monotonic::from_millis(now)).floor.unwrap();
            assert_eq!((floor.monotonic.as_millis(), floor.wall), (expected, ms(900_000)), "{clock}");
        }
    }
}
