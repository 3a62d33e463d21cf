//! The idle timeouts in force, and the floors that earlier, shorter timeouts left behind.

use std::time::Duration;

use crate::state::record::IdleFloor;
use crate::time::Now;

/// How long an entry is kept after it goes idle. Covers rounding, and clocks that are read twice.
const GRACE: Duration = Duration::from_secs(1);
/// A session in use is touched in the table once per this fraction of its idle timeout…
const FRACTION: u32 = 8;
/// …and at least this often.
const LONGEST_FRACTION: Duration = Duration::from_secs(600);
/// Upper bound for keeping an unused entry; longer than any token lives.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// The limits by which idle clocks are judged and kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionLimits {
    /// The idle timeout; a token unused for longer is permanently rejected. `None`: never.
    pub(crate) idle: Option<Duration>,
    /// The greatest `leeway` of the issuers: how long after `exp` a token may still be accepted.
    pub(crate) leeway: Duration,
    /// The floor: what was idle when the timeout grew stays idle.
    pub(crate) floor: Option<IdleFloor>,
    /// The floor set by a growth in this process, whose monotonic clock says exactly how long ago that was.
    pub(crate) own_floor: Option<IdleFloor>,
}

impl SessionLimits {
    /// Returns these limits with another timeout. When the timeout grows, what is idle now stays idle.
    pub(crate) fn with_idle(self, idle: Option<Duration>, now: Now) -> Self {
        let Some(old) = self.idle.filter(|old| idle.is_none_or(|idle| idle > *old)) else {
            return Self { idle, ..self };
        };
        let new = IdleFloor { monotonic: now.monotonic.minus(old), wall: now.wall.minus(old), timeout: old };
        // An existing floor that is later stays: it makes more tokens idle.
        let later = |floor: Option<IdleFloor>| {
            Some(floor.filter(|floor| floor.monotonic > new.monotonic).unwrap_or(new))
        };
        Self { idle, floor: later(self.floor), own_floor: later(self.own_floor), ..self }
    }

    /// Returns these limits with another replica's floor, if that is later: it makes more tokens idle.
    pub(super) fn with_floor(self, floor: Option<IdleFloor>) -> Self {
        match floor {
            Some(floor) if self.floor.is_none_or(|own| floor.wall > own.wall) => {
                Self { floor: Some(floor), ..self }
            }
            Some(_) | None => self,
        }
    }

    /// How often a session in use is touched in the table.
    pub(crate) fn fraction(&self) -> Duration {
        self.idle.map_or(LONGEST_FRACTION, |idle| (idle / FRACTION).min(LONGEST_FRACTION))
    }

    /// Whether a session unused for this long has been idle for some time.
    pub(super) fn is_idle(&self, unused: Duration) -> bool {
        self.idle.is_some_and(|idle| unused > idle.saturating_add(GRACE))
    }

    /// Whether a token with this lifetime, first seen `age` ago by the monotonic clock, can no longer be
    /// accepted.
    pub(super) fn is_dead(&self, lifetime: Duration, age: Duration) -> bool {
        age > self.dead_after(lifetime)
    }

    /// Time from a token's first use to its certain expiry. Whatever the wall clock said at first use, the
    /// token had at most its `lifetime` and two leeways left.
    fn dead_after(&self, lifetime: Duration) -> Duration {
        lifetime.saturating_add(self.leeway * 2).saturating_add(GRACE)
    }

    /// How long a table keeps an entry that was just touched and was first seen `age` ago by the monotonic
    /// clock: until it is idle or its token is dead.
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
        // Both floors lie equally late by running time once nine minutes have passed.
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
        // `leeway` is 30 s.
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
