//! Decides whether a token is idle: a pure function of its timestamps, the settings in force and the time.

use crate::state::record::IdleFloor;
use crate::state::redis::SharedUse;
use crate::time::{Monotonic, Now, Timestamp};

use super::limits::SessionLimits;

/// Whether a token is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idleness {
    /// The token is in use and may pass.
    InUse,
    /// The token was unused for too long.
    Idle,
    /// Ask the other replicas: the last use known here is this one.
    Ask(Timestamp),
    /// What the other replicas know is unavailable.
    Unavailable,
}

/// A session's last use on both clocks, and its flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// By the wall clock; in a fleet, the shared store's.
    pub(super) wall: Timestamp,
    /// By the monotonic clock.
    pub(super) monotonic: Monotonic,
    /// The token was found permanently idle.
    pub(super) is_over: bool,
    /// The session is no longer in the table.
    pub(super) is_evicted: bool,
}

/// All inputs of a verdict besides the settings.
#[derive(Debug, Clone, Copy)]
pub(super) struct IdleCase {
    /// The session's stamp; `None` without a session.
    pub(super) tracked: Option<Stamp>,
    /// `iat`, which counts as the last use if none is known.
    pub(super) issued_at: Timestamp,
    /// The answer of the other replicas, if they were asked.
    pub(super) told: Option<SharedUse>,
    /// Whether other replicas use the same clocks.
    pub(super) is_shared: bool,
    /// The time of judgement; in a fleet the wall clock is the shared store's.
    pub(super) now: Now,
}

impl IdleCase {
    /// Judges without side effects. What is idle by the monotonic clock stays idle, because that clock never
    /// steps.
    pub(super) fn judge(&self, limits: &SessionLimits) -> Idleness {
        if self.tracked.is_some_and(|stamp| stamp.is_over) {
            return Idleness::Idle;
        }
        let idle = self.is_idle_for_good(limits) || self.is_idle_by_wall_clock(limits);
        if !idle {
            return Idleness::InUse;
        }
        if !self.is_shared {
            return Idleness::Idle;
        }
        match self.told {
            None => Idleness::Ask(self.last_use()),
            Some(SharedUse::Unknown) => Idleness::Unavailable,
            Some(SharedUse::Over) => Idleness::Idle,
            Some(SharedUse::LastUsed(at)) if self.is_below_floor(at, limits) => Idleness::Idle,
            Some(SharedUse::LastUsed(_)) => Idleness::InUse,
        }
    }

    /// Whether it is idle by the monotonic clock, which is final unless other replicas use the token too.
    pub(super) fn is_idle_for_good(&self, limits: &SessionLimits) -> bool {
        let Some(stamp) = self.tracked else { return false };
        limits.idle.is_some_and(|idle| self.now.monotonic.since(stamp.monotonic) > idle)
            || limits.floor.is_some_and(|floor| stamp.monotonic < floor.monotonic)
    }

    fn is_idle_by_wall_clock(&self, limits: &SessionLimits) -> bool {
        let last = self.last_use();
        // For a session in the table, the monotonic clock has already decided exactly whether it lies below
        // this process's floor.
        let of_process = limits.own_floor.filter(|_| self.tracked.is_none_or(|stamp| stamp.is_evicted));
        limits.idle.is_some_and(|idle| self.now.wall.since(last) > idle)
            || limits.floor.is_some_and(|floor| !self.is_used_since(floor) && self.is_below(last, floor))
            || of_process.is_some_and(|floor| self.is_below_exactly(last, floor))
    }

    /// Whether it was used after the timeout grew, by the monotonic clock.
    fn is_used_since(&self, floor: IdleFloor) -> bool {
        self.tracked
            .is_some_and(|stamp| !stamp.is_evicted && stamp.monotonic >= floor.monotonic.plus(floor.timeout))
    }

    fn is_below_floor(&self, last: Timestamp, limits: &SessionLimits) -> bool {
        limits.floor.is_some_and(|floor| self.is_below(last, floor))
            || limits.own_floor.is_some_and(|floor| self.is_below_exactly(last, floor))
    }

    /// Whether a last use lies below the floor. If the clock was ahead when the timeout grew, tokens issued
    /// since must not be held to the old timeout; so the floor is placed on the current wall clock by running
    /// time. Running time does not count downtime and may place it too late, so the wall clock of that time
    /// must agree.
    fn is_below(&self, last: Timestamp, floor: IdleFloor) -> bool {
        last < floor.wall && self.is_below_exactly(last, floor)
    }

    /// As [`Self::is_below`], for a floor of this process: only running time counts, whatever the wall clock
    /// said when the timeout grew.
    fn is_below_exactly(&self, last: Timestamp, floor: IdleFloor) -> bool {
        let since = self.now.wall.minus(self.now.monotonic.since(floor.monotonic));
        last < since && self.now.wall.since(last) > floor.timeout
    }

    /// The last use that counts, by the wall clock. A session evicted for space is judged as if it had never
    /// been there, as on a gate that does not hold it. In a fleet the shared store still knows its use.
    fn last_use(&self) -> Timestamp {
        match self.tracked {
            Some(stamp) if self.is_shared || !stamp.is_evicted => stamp.wall.max(self.issued_at),
            Some(_) | None => self.issued_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use Idleness::{Ask, Idle, InUse, Unavailable};

    const IDLE: i64 = 60_000;
    const SIXTY: Duration = Duration::from_secs(60);
    /// A wall clock that is years from zero.
    const WALL: i64 = 1_800_000_000_000;

    const fn wall(millis: i64) -> Timestamp {
        Timestamp::from_millis(WALL + millis)
    }

    const fn at(wall_millis: i64, monotonic: i64) -> Now {
        Now { wall: wall(wall_millis), monotonic: Monotonic::from_millis(monotonic) }
    }

    fn limits() -> SessionLimits {
        let idle = Some(SIXTY);
        SessionLimits { idle, leeway: Duration::ZERO, floor: None, own_floor: None }
    }

    fn used(wall_millis: i64, monotonic: i64) -> Option<Stamp> {
        let Now { wall, monotonic } = at(wall_millis, monotonic);
        Some(Stamp { wall, monotonic, is_over: false, is_evicted: false })
    }

    fn case(tracked: Option<Stamp>, now: Now) -> IdleCase {
        IdleCase { tracked, issued_at: wall(0), told: None, is_shared: false, now }
    }

    #[test]
    fn either_clock_ends_a_token_exactly_after_its_timeout() {
        for (what, tracked, now, expected) in [
            ("new, at the limit", None, at(IDLE, 0), InUse),
            ("new, past it", None, at(IDLE + 1, 0), Idle),
            ("new, issued ahead of us", None, at(-30_000, 0), InUse),
            ("used, both at the limit", used(5_000, 5), at(5_000 + IDLE, 5 + IDLE), InUse),
            ("wall clock past it", used(5_000, 5), at(5_001 + IDLE, 5), Idle),
            ("monotonic clock past it", used(5_000, 5), at(5_000, 6 + IDLE), Idle),
            ("wall clock stepped back by years", used(5_000, 5), at(-WALL / 2, 5 + IDLE), InUse),
            ("the same, unused for too long", used(5_000, 5), at(-WALL / 2, 6 + IDLE), Idle),
            ("used while the wall clock was years ahead", used(WALL / 2, 5), at(6_000, 5 + IDLE), InUse),
            ("the same, unused for too long", used(WALL / 2, 5), at(6_000, 6 + IDLE), Idle),
            ("wall clock stepped on by years", used(5_000, 5), at(WALL / 2, 6), Idle),
            ("and back again", used(5_000, 5), at(5_100, 100), InUse),
            ("used before this process", used(5_000, -50_000), at(6_000, 10_000), InUse),
            ("the same, unused for too long", used(5_000, -50_000), at(6_000, 10_001), Idle),
        ] {
            assert_eq!(case(tracked, now).judge(&limits()), expected, "{what}");
        }
    }

    #[test]
    fn what_is_over_or_left_the_table_does_not_count_as_used() {
        let stamp = used(50_000, 50_000).unwrap();
        let over = Some(Stamp { is_over: true, ..stamp });
        assert_eq!(case(over, at(50_000, 50_000)).judge(&limits()), Idle);
        let evicted = Some(Stamp { is_evicted: true, ..stamp });
        assert_eq!(case(evicted, at(60_000, 60_000)).judge(&limits()), InUse, "by its issue");
        assert_eq!(case(evicted, at(60_001, 60_001)).judge(&limits()), Idle, "by its issue");
        let behind = at(0, 50_001 + IDLE);
        assert_eq!(case(evicted, behind).judge(&limits()), Idle, "the monotonic clock still counts");
        let in_a_fleet = IdleCase { is_shared: true, ..case(evicted, at(60_001, 60_001)) };
        assert_eq!(in_a_fleet.judge(&limits()), InUse, "the shared store knows the use, too");
    }

    #[test]
    fn nothing_is_idle_without_a_timeout_but_what_was_before() {
        let never = SessionLimits { idle: None, ..limits() };
        assert_eq!(case(None, at(WALL / 2, 0)).judge(&never), InUse);
        assert_eq!(case(used(1, 1), at(WALL / 2, WALL / 2)).judge(&never), InUse);
        let grown = limits().with_idle(None, at(100_000, 100_000));
        for (tracked, expected) in [
            (None, Idle),
            (used(39_999, 39_999), Idle),
            (used(40_000, 40_000), InUse),
            (used(WALL / 2, 39_999), Idle),
            (used(39_999, 40_000), Idle),
        ] {
            assert_eq!(case(tracked, at(200_000, 200_000)).judge(&grown), expected, "{tracked:?}");
        }
    }

    #[test]
    fn a_floor_of_a_wrong_clock_says_idle_of_nothing_that_was_not() {
        let floor = IdleFloor {
            monotonic: Monotonic::from_millis(0),
            wall: wall(WALL / 2),
            timeout: Duration::from_secs(30),
        };
        for own_floor in [None, Some(floor)] {
            says_idle_of_nothing_that_was_not(SessionLimits { floor: Some(floor), own_floor, ..limits() });
        }
    }

    fn says_idle_of_nothing_that_was_not(limits: SessionLimits) {
        assert_eq!(case(used(5_000, 5_000), at(35_000, 35_000)).judge(&limits), InUse);
        for (tracked, now, expected, what) in [
            (
                used(5_000, 5_000),
                at(35_001, 35_001),
                InUse,
                "issued and used since by the clock as it is now",
            ),
            (used(5_000, 5_000), at(65_001, 65_001), Idle, "by the new timeout"),
            (None, at(35_001, 35_001), InUse, "never used, and issued since"),
            (used(-1, -1), at(30_000, 30_000), Idle, "idle when the timeout grew"),
        ] {
            assert_eq!(case(tracked, now).judge(&limits), expected, "{what}");
        }
        let never = SessionLimits { idle: None, ..limits };
        let hours = 3_600_000;
        assert_eq!(
            case(used(30_000, 30_000), at(9 * hours, 30_001)).judge(&never),
            InUse,
            "used after it grew"
        );
        assert_eq!(
            case(used(29_999, 29_999), at(9 * hours, 30_001)).judge(&never),
            Idle,
            "not used after it grew"
        );
    }

    #[test]
    fn a_floor_of_this_process_ends_what_was_idle_though_the_clock_was_behind_then() {
        let years = WALL / 2;
        let grown = limits().with_idle(None, at(-years, 100_000));
        // Issued 40 s or more before the timeout grew; the clock is right again.
        for (tracked, issued, expected) in
            [(None, 39_999, Idle), (None, 40_000, InUse), (used(39_999, 39_999), 0, Idle)]
        {
            let case = IdleCase { issued_at: wall(issued), ..case(tracked, at(200_000, 200_000)) };
            assert_eq!(case.judge(&grown), expected, "{tracked:?} {issued}");
        }
        // After a restart, nothing tells whether the clock was right at that time.
        // A clock that is ahead now has no effect on a session used since.
        let ahead = at(200_000 + years, 100_001);
        assert_eq!(case(used(99_000, 99_000), ahead).judge(&grown), InUse);
        let restarted = SessionLimits { own_floor: None, ..grown };
        assert_eq!(case(None, at(200_000, 200_000)).judge(&restarted), InUse);
        // Nor does such an earlier floor replace one of this process.
        let floor = IdleFloor {
            monotonic: Monotonic::from_millis(50_000),
            wall: wall(-years),
            timeout: Duration::from_secs(10),
        };
        let again = SessionLimits { floor: Some(floor), ..limits() }.with_idle(None, at(100_000, 100_000));
        assert_eq!(again.floor, Some(floor), "the later one");
        assert_eq!(case(None, at(200_000, 200_000)).judge(&again), Idle);
    }

    #[test]
    fn others_are_asked_only_when_this_replica_finds_a_token_idle() {
        let shared = |tracked, told, now| IdleCase { is_shared: true, told, ..case(tracked, now) };
        let (fresh, late) = (at(30_000, 30_000), at(70_001, 70_001));
        for told in
            [None, Some(SharedUse::Unknown), Some(SharedUse::Over), Some(SharedUse::LastUsed(wall(0)))]
        {
            assert_eq!(shared(None, told, fresh).judge(&limits()), InUse, "{told:?}");
            assert_eq!(shared(used(20_000, 20_000), told, late).judge(&limits()), InUse, "{told:?}");
        }
        for (told, expected) in [
            (None, Ask(wall(10_000))),
            (Some(SharedUse::Unknown), Unavailable),
            (Some(SharedUse::Over), Idle),
            (Some(SharedUse::LastUsed(wall(60_000))), InUse),
        ] {
            assert_eq!(shared(used(10_000, 10_000), told, late).judge(&limits()), expected, "{told:?}");
        }
        assert_eq!(shared(None, None, late).judge(&limits()), Ask(wall(0)));
        let grown = limits().with_idle(None, at(100_000, 100_000));
        let later = at(200_000, 200_000);
        let told = |at| Some(SharedUse::LastUsed(wall(at)));
        assert_eq!(shared(None, told(39_999), later).judge(&grown), Idle, "idle before the timeout grew");
        assert_eq!(shared(None, told(40_000), later).judge(&grown), InUse);
    }

    #[test]
    fn either_floor_ends_a_token_that_others_used_before_it() {
        let floor =
            IdleFloor { monotonic: Monotonic::from_millis(40_000), wall: wall(40_000), timeout: SIXTY };
        for (floor, own_floor) in [(Some(floor), None), (None, Some(floor)), (Some(floor), Some(floor))] {
            let limits = SessionLimits { floor, own_floor, ..limits() };
            for (used_at, expected) in [(39_999, Idle), (40_000, InUse), (199_000, InUse)] {
                let told = Some(SharedUse::LastUsed(wall(used_at)));
                let case = IdleCase { is_shared: true, told, ..case(None, at(200_000, 200_000)) };
                assert_eq!(case.judge(&limits), expected, "{used_at} {limits:?}");
            }
        }
    }

    #[test]
    fn a_floor_ends_what_both_clocks_put_before_it_and_was_unused_for_the_timeout_of_then() {
        let floor = |wall_millis, monotonic| IdleFloor {
            wall: wall(wall_millis),
            monotonic: Monotonic::from_millis(monotonic),
            timeout: SIXTY,
        };
        let now = at(200_000, 200_000);
        for (floor, issued, expected) in [
            // The wall clock of that time puts the floor earlier than running time does,
            (floor(30_000, 40_000), 29_999, Idle),
            (floor(30_000, 40_000), 30_000, InUse),
            // later,
            (floor(50_000, 40_000), 39_999, Idle),
            (floor(50_000, 40_000), 40_000, InUse),
            // and so late that an older token may have been used within the timeout.
            (floor(190_000, 190_000), 139_999, Idle),
            (floor(190_000, 190_000), 140_000, InUse),
        ] {
            let never = SessionLimits { idle: None, floor: Some(floor), ..limits() };
            let case = IdleCase { issued_at: wall(issued), ..case(None, now) };
            assert_eq!(case.judge(&never), expected, "{issued} {floor:?}");
        }
    }
}
