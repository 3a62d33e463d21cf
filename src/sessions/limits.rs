//! The idle timeouts in force, and what remains of earlier ones.

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
pub(crate) struct SessionLimits {
    /// Unused for longer: permanently rejected. `None`: never.
    pub(crate) idle: Option<Duration>,
    /// The greatest `leeway` of the issuers: how long after `exp` a token may still be accepted.
    pub(crate) leeway: Duration,
    /// What was idle when the timeout grew stays idle.
    pub(crate) floor: Option<IdleFloor>,
    /// The floor of a growth in this process, whose monotonic clock says exactly how long ago that was.
    pub(crate) own_floor: Option<IdleFloor>,
}

impl SessionLimits {
    /// These limits with another timeout. When it grows, what is idle now stays so.
    pub(crate) fn with_idle(self, idle: Option<Duration>, now: Now) -> Self {
        let Some(old) = self.idle.filter(|old| idle.is_none_or(|idle| idle > *old)) else {
            return Self { idle, ..self };
        };
        let new = IdleFloor { monotonic: now.monotonic.minus(old), wall: now.wall.minus(old), timeout: old };
        // One that lies later than this counts on: it says idle of more.
        let later = |floor: Option<IdleFloor>| {
            Some(floor.filter(|floor| floor.monotonic > new.monotonic).unwrap_or(new))
        };
        Self { idle, floor: later(self.floor), own_floor: later(self.own_floor), ..self }
    }

    /// These limits with the floor of another replica, if it lies later: that says idle of more.
    pub(super) fn with_floor(self, floor: Option<IdleFloor>) -> Self {
        match floor {
            Some(floor) if self.floor.is_none_or(|own| floor.wall > own.wall) => {
                Self { floor: Some(floor), ..self }
            }
            Some(_) | None => self,
        }
    }

    /// How often a table is shown what is in use.
    pub(crate) fn fraction(&self) -> Duration {
        self.idle.map_or(LONGEST_FRACTION, |idle| (idle / FRACTION).min(LONGEST_FRACTION))
    }

    /// Whether what was not used for so long has been idle for a while.
    pub(super) fn is_idle(&self, unused: Duration) -> bool {
        self.idle.is_some_and(|idle| unused > idle.saturating_add(GRACE))
    }

    /// Whether a token with this lifetime that was first seen `age` ago by the monotonic clock is dead.
    pub(super) fn is_dead(&self, lifetime: Duration, age: Duration) -> bool {
        age > self.dead_after(lifetime)
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

    fn limits(idle: Option<Duration>) -> SessionLimits {
        SessionLimits { idle, leeway: Duration::from_secs(30), floor: None, own_floor: None }
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
    fn of_two_floors_the_later_one_counts_and_of_equal_ones_the_new_one() {
        let grown = limits(Some(MINUTE)).with_idle(Some(10 * MINUTE), Now::at_millis(10_000_000));
        let (first, millisecond) = (grown.floor.unwrap(), Duration::from_millis(1));
        // Both lie equally late by running time when nine minutes went by.
        for (passed, timeout) in [
            (9 * MINUTE - millisecond, MINUTE),
            (9 * MINUTE, 10 * MINUTE),
            (9 * MINUTE + millisecond, 10 * MINUTE),
        ] {
            let again = grown.with_idle(None, Now::at_millis(10_000_000).plus(passed));
            let timeouts = [again.floor, again.own_floor].map(|floor| floor.unwrap().timeout);
            assert_eq!(timeouts, [timeout; 2], "{passed:?} after {first:?}");
        }
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
    fn a_token_is_idle_or_dead_after_its_time_and_not_before() {
        let millisecond = Duration::from_millis(1);
        for (idle, unused, expected) in [
            (Some(MINUTE), MINUTE + GRACE, false),
            (Some(MINUTE), MINUTE + GRACE + millisecond, true),
            (Some(Duration::MAX), Duration::MAX, false),
            (None, Duration::MAX, false),
        ] {
            assert_eq!(limits(idle).is_idle(unused), expected, "{idle:?} {unused:?}");
        }
        // `leeway` is half a minute.
        for (lifetime, age, expected) in [
            (60 * MINUTE, 61 * MINUTE + GRACE, false),
            (60 * MINUTE, 61 * MINUTE + GRACE + millisecond, true),
            (Duration::MAX, Duration::MAX, false),
        ] {
            assert_eq!(limits(None).is_dead(lifetime, age), expected, "{lifetime:?} {age:?}");
        }
    }

    #[test]
    fn only_a_later_floor_of_another_replica_counts() {
        let now = Now::at_millis(10_000_000);
        let own = limits(Some(MINUTE)).with_idle(Some(30 * MINUTE), now);
        let floor = own.floor.unwrap();
        let later = IdleFloor { wall: floor.wall.plus(GRACE), monotonic: floor.monotonic, ..floor };
        for (limits, other, expected) in [
            (limits(None), None, None),
            (limits(None), Some(floor), Some(floor)),
            (own, None, Some(floor)),
            (own, Some(floor), Some(floor)),
            // Equally late: this process knows its own running time best.
            (own, Some(IdleFloor { timeout: 2 * MINUTE, ..floor }), Some(floor)),
            (own, Some(IdleFloor { wall: floor.wall.minus(GRACE), ..floor }), Some(floor)),
            (own, Some(later), Some(later)),
        ] {
            let adopted = limits.with_floor(other);
            assert_eq!((adopted.floor, adopted.own_floor), (expected, limits.own_floor), "{other:?}");
        }
    }
}
