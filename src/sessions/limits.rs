//! The settings in force that idle clocks are judged and kept by, and what remains of earlier ones.

use std::time::Duration;

use crate::state::record::IdleFloor;
use crate::time::Now;

/// How long an entry is kept beyond the moment from which on it is idle: rounding, and clocks that are read twice.
const GRACE: Duration = Duration::from_secs(1);
/// A table is shown what is in use once in this part of the idle timeout…
const FRACTION: u32 = 8;
/// …and at least so often.
const LONGEST_FRACTION: Duration = Duration::from_secs(600);
/// Nothing is kept longer without being used; longer than any token lives.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// What idle clocks are judged and kept by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Unused for longer: refused for good. `None`: never.
    pub(crate) idle: Option<Duration>,
    /// The greatest `leeway` of the issuers: how long after `exp` a token may still be accepted.
    pub(crate) leeway: Duration,
    /// What was idle when the timeout grew stays idle.
    pub(crate) floor: Option<IdleFloor>,
}

impl Limits {
    /// These limits with another timeout. When it grows, what is idle now stays so.
    pub(crate) fn with_idle(self, idle: Option<Duration>, now: Now) -> Self {
        let floor = match self.idle {
            Some(old) if idle.is_none_or(|idle| idle > old) => {
                let new = IdleFloor {
                    monotonic: now.monotonic.minus(old),
                    wall: now.wall.minus(old),
                    timeout: old,
                };
                // One that lies later than this counts on: it says idle of more.
                Some(self.floor.filter(|floor| floor.monotonic > new.monotonic).unwrap_or(new))
            }
            Some(_) | None => self.floor,
        };
        Self { idle, floor, ..self }
    }

    /// How often a table is shown what is in use.
    pub(crate) fn fraction(&self) -> Duration {
        self.idle.map_or(LONGEST_FRACTION, |idle| (idle / FRACTION).min(LONGEST_FRACTION))
    }

    /// How long a table keeps what it was shown in use, by the monotonic clock: until it is idle, or its token dead. The
    /// latter counts from when the token was first seen, `age` ago: whatever the wall clock said then, it had no more
    /// than its `lifetime` and two leeways before it.
    pub(crate) fn keep(&self, lifetime: Duration, age: Duration) -> Duration {
        let dead = lifetime.saturating_add(self.leeway * 2).saturating_add(GRACE).saturating_sub(age);
        let idle = self.idle.unwrap_or(LONGEST).saturating_add(self.fraction()).saturating_add(GRACE);
        dead.min(idle).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn limits(idle: Option<Duration>) -> Limits {
        Limits { idle, leeway: Duration::from_secs(30), floor: None }
    }

    #[test]
    fn a_floor_rises_only_when_the_timeout_grows() {
        let now = Now::at_millis(10_000_000);
        let floor =
            |from: Option<Duration>, to| limits(from).with_idle(to, now).floor.map(|floor| floor.timeout);
        assert_eq!(floor(Some(MINUTE), Some(2 * MINUTE)), Some(MINUTE));
        assert_eq!(floor(Some(MINUTE), None), Some(MINUTE));
        assert_eq!(floor(Some(2 * MINUTE), Some(MINUTE)), None);
        assert_eq!(floor(None, Some(MINUTE)), None);
        assert_eq!(floor(Some(MINUTE), Some(MINUTE)), None);
        let twice = limits(Some(MINUTE))
            .with_idle(Some(30 * MINUTE), now)
            .with_idle(Some(60 * MINUTE), now.plus(MINUTE));
        assert_eq!(twice.floor.map(|floor| floor.timeout), Some(MINUTE), "the stricter one counts on");
    }

    #[test]
    fn what_is_in_use_is_kept_until_it_is_idle_or_dead() {
        let used = limits(Some(8 * MINUTE));
        assert_eq!(used.keep(60 * MINUTE, Duration::ZERO), 9 * MINUTE + GRACE);
        assert_eq!(used.keep(60 * MINUTE, 55 * MINUTE), 6 * MINUTE + GRACE);
        assert_eq!(used.keep(MINUTE, 55 * MINUTE), Duration::ZERO);
        assert_eq!(limits(None).keep(60 * MINUTE, Duration::ZERO), 61 * MINUTE + GRACE);
        assert!(limits(None).keep(Duration::MAX, Duration::ZERO) <= LONGEST);
    }
}
