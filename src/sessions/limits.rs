//! The settings in force that idle clocks are judged and kept by, and what remains of earlier ones.

use std::time::Duration;

use crate::state::record::IdleFloor;
use crate::time::{Monotonic, Now};

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
    /// Whether it grew in this process, whose monotonic clock then says exactly how long ago that was.
    pub(crate) is_floor_exact: bool,
}

impl Limits {
    /// These limits with another timeout. When it grows, what is idle now stays so.
    pub(crate) fn with_idle(self, idle: Option<Duration>, now: Now) -> Self {
        let Some(old) = self.idle.filter(|old| idle.is_none_or(|idle| idle > *old)) else {
            return Self { idle, ..self };
        };
        let new = IdleFloor { monotonic: now.monotonic.minus(old), wall: now.wall.minus(old), timeout: old };
        // One that lies later than this counts on: it says idle of more.
        if self.floor.is_some_and(|floor| floor.monotonic > new.monotonic) {
            return Self { idle, ..self };
        }
        Self { idle, floor: Some(new), is_floor_exact: true, ..self }
    }

    /// These limits with the floor of another replica, if it lies later: that says idle of more.
    pub(super) fn with_floor(self, floor: Option<IdleFloor>) -> Self {
        match floor {
            Some(floor) if self.floor.is_none_or(|own| floor.wall > own.wall) => {
                Self { floor: Some(floor), is_floor_exact: false, ..self }
            }
            Some(_) | None => self,
        }
    }

    /// How often a table is shown what is in use.
    pub(crate) fn fraction(&self) -> Duration {
        self.idle.map_or(LONGEST_FRACTION, |idle| (idle / FRACTION).min(LONGEST_FRACTION))
    }

    /// Whether a session is idle for good or its token dead, by the monotonic clock.
    pub(super) fn is_done(
        &self,
        lifetime: Duration,
        made: Monotonic,
        last_used: Monotonic,
        now: Monotonic,
    ) -> bool {
        now.since(made) > self.dead_after(lifetime)
            || self.idle.is_some_and(|idle| now.since(last_used) > idle.saturating_add(GRACE))
    }

    /// A token is dead so long after it was first seen: whatever the wall clock said then, it had no more than its
    /// `lifetime` and two leeways before it.
    fn dead_after(&self, lifetime: Duration) -> Duration {
        lifetime.saturating_add(self.leeway * 2).saturating_add(GRACE)
    }

    /// How long a table keeps what it was shown in use and was first seen `age` ago, by the monotonic clock: until it is
    /// idle, or its token dead.
    pub(crate) fn keep(&self, lifetime: Duration, age: Duration) -> Duration {
        let dead = self.dead_after(lifetime).saturating_sub(age);
        let idle = self.idle.unwrap_or(LONGEST).saturating_add(self.fraction()).saturating_add(GRACE);
        dead.min(idle).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn limits(idle: Option<Duration>) -> Limits {
        Limits { idle, leeway: Duration::from_secs(30), floor: None, is_floor_exact: false }
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

    #[test]
    fn a_session_is_done_when_it_is_idle_or_dead_and_not_before() {
        let at = |seconds: i64| Monotonic::from_millis(seconds * 1_000);
        // `leeway` is half a minute.
        for (idle, lifetime, last_used, now, expected) in [
            (Some(MINUTE), 60 * MINUTE, 100, 161, false),
            (Some(MINUTE), 60 * MINUTE, 100, 162, true),
            (Some(MINUTE), MINUTE, 120, 121, false),
            (Some(MINUTE), MINUTE, 120, 122, true),
            (None, 60 * MINUTE, 0, 3_661, false),
            (None, 60 * MINUTE, 3_661, 3_662, true),
            (None, Duration::MAX, 0, i64::MAX / 1_000, false),
            (Some(Duration::MAX), Duration::MAX, 0, i64::MAX / 1_000, false),
            (Some(MINUTE), 60 * MINUTE, 100, 50, false),
        ] {
            let done = limits(idle).is_done(lifetime, at(0), at(last_used), at(now));
            assert_eq!(done, expected, "{idle:?} {lifetime:?} {last_used} {now}");
        }
    }
}
