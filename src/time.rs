//! The two clocks, the only place that reads them, and durations in human-readable form.
//!
//! The wall clock gives the times of the outside world: claims, events, responses. It may be wrong by years
//! and may step at any moment. The monotonic clock measures durations: timeouts, throttles, freshness,
//! retention. It never steps, and only it decides what is permanently deleted. Every judgement takes its
//! `now` as an argument, so that a test is a table of values.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::time::OffsetDateTime;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Long enough for any purpose, and short enough to be added to an instant.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

const DURATION_HINT: &str = "write a whole number and a unit, such as \"30s\" (units: ms, s, m, h, d)";

/// A point in time: milliseconds since the Unix epoch, UTC.
///
/// A JWT's `NumericDate` (RFC 7519 §2) may have a fraction; milliseconds are precise enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);

    /// Reads the wall clock.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
    pub fn now() -> Self {
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
    }

    /// Reads the wall clock as of the kernel's last tick, some milliseconds ago; sufficient for times in
    /// seconds. Costs a fraction of [`Timestamp::now`].
    #[must_use]
    pub fn coarse() -> Self {
        let read = clock_gettime(ClockId::RealtimeCoarse);
        Self(read.tv_sec.saturating_mul(1000).saturating_add(read.tv_nsec / 1_000_000))
    }

    /// Creates a timestamp from milliseconds since the epoch.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Creates a timestamp from whole seconds since the epoch; saturates.
    #[must_use]
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded towards the past.
    #[must_use]
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// The timestamp `duration` later; saturates.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The timestamp `duration` earlier; saturates.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The time since `earlier`; zero if that is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// Reads the wall clock in nanoseconds since the Unix epoch, for trace spans, which may be shorter than a
/// millisecond.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
pub fn unix_nanos() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}

/// A moment on the monotonic clock: milliseconds since this process first read it. Negative before that, as
/// known by a store that counts its running time.
///
/// Includes time in which the machine was suspended, so that what was fresh before is not taken for fresh
/// afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Monotonic(i64);

/// The boot clock when this process first read it, in milliseconds.
static STARTED: OnceLock<i64> = OnceLock::new();

impl Monotonic {
    /// Reads the monotonic clock.
    #[must_use]
    pub fn now() -> Self {
        let read = clock_gettime(ClockId::Boottime);
        let millis = read.tv_sec.saturating_mul(1000).saturating_add(read.tv_nsec / 1_000_000);
        Self(millis - *STARTED.get_or_init(|| millis))
    }

    /// Creates a moment from milliseconds since the process first read the clock.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the process first read the clock.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The moment `duration` later; saturates.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The moment `duration` earlier; saturates.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The time since `earlier`; zero if that is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// A tick of the kernel, some milliseconds long, for things that only need to be done occasionally. Costs a
/// fraction of [`Monotonic::now`]. Does not count suspension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(i64);

impl Tick {
    /// Reads the last tick.
    #[must_use]
    pub fn read() -> Self {
        let read = clock_gettime(ClockId::MonotonicCoarse);
        Self(read.tv_sec.saturating_mul(1000).saturating_add(read.tv_nsec / 1_000_000))
    }

    /// The time since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// The source of a store's monotonic clock.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The machine's clock.
    #[default]
    Machine,
    /// A simulated clock, in milliseconds.
    Simulated(Arc<AtomicI64>),
}

impl Clock {
    /// Reads the clock.
    #[must_use]
    pub fn monotonic(&self) -> Monotonic {
        match self {
            Self::Machine => Monotonic::now(),
            Self::Simulated(millis) => Monotonic(millis.load(Ordering::SeqCst)),
        }
    }
}

/// One moment, read from both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The wall clock; compare it with times from outside.
    pub wall: Timestamp,
    /// The monotonic clock; measure durations with it.
    pub monotonic: Monotonic,
}

impl Now {
    /// Reads both clocks.
    #[must_use]
    pub fn read() -> Self {
        Self { wall: Timestamp::now(), monotonic: Monotonic::now() }
    }

    /// A moment at which both clocks read `millis`, for tests.
    #[must_use]
    pub const fn at_millis(millis: i64) -> Self {
        Self { wall: Timestamp(millis), monotonic: Monotonic(millis) }
    }

    /// The moment `duration` later on both clocks; saturates.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self { wall: self.wall.plus(duration), monotonic: self.monotonic.plus(duration) }
    }
}

impl fmt::Display for Timestamp {
    /// Writes RFC 3339 in UTC with milliseconds: `2026-01-31T23:59:59.000Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = i128::from(self.0) * 1_000_000;
        let Ok(t) = OffsetDateTime::from_unix_timestamp_nanos(nanos) else {
            return write!(f, "{}ms", self.0);
        };
        let (date, (hour, minute, second, milli)) = (t.date(), t.time().as_hms_milli());
        let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
    }
}

/// Parses a duration such as `"500ms"`, `"30s"`, `"15m"`, `"24h"` or `"30d"`.
///
/// # Errors
/// When it is not a duration, with a phrase to follow its name.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" if !number.is_empty() => return Err(format!("{text:?} has no unit; {DURATION_HINT}")),
        _ => return Err(format!("{text:?} is not a duration; {DURATION_HINT}")),
    };
    let number: u64 = match number.parse() {
        Ok(number) => number,
        Err(_) if number.is_empty() => return Err(format!("{text:?} is not a duration; {DURATION_HINT}")),
        Err(_) => return Err(format!("{text:?} is too long")),
    };
    let duration = number.checked_mul(millis).map(Duration::from_millis);
    duration
        .filter(|duration| *duration <= LONGEST)
        .ok_or_else(|| format!("{text:?} is longer than 100 years"))
}

/// The error message for a duration without a unit.
#[must_use]
pub fn duration_without_unit(number: i64) -> String {
    format!("{number} has no unit; {DURATION_HINT}")
}

/// Splits a text into its leading digits and the rest: a number and its unit.
pub(crate) fn split_unit(text: &str) -> (&str, &str) {
    let end = text.bytes().take_while(u8::is_ascii_digit).count();
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_rfc3339() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_767_225_599_999, "2025-12-31T23:59:59.999Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Timestamp::from_millis(millis).to_string(), text);
        }
    }

    #[test]
    fn arithmetic_saturates() {
        let end = Timestamp::from_millis(i64::MAX);
        assert_eq!(end.plus(Duration::MAX), end);
        assert_eq!(Timestamp::EPOCH.since(end), Duration::ZERO);
        assert_eq!(Timestamp::from_millis(-1500).as_secs(), -2);
    }

    #[test]
    fn durations_are_a_number_and_a_unit() {
        for (text, millis) in [
            ("0s", 0),
            ("500ms", 500),
            ("30s", 30_000),
            ("15m", 900_000),
            ("24h", 86_400_000),
            ("30d", 2_592_000_000),
            ("007s", 7000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            "s",
            "30",
            "30 s",
            " 30s",
            "30S",
            "-1s",
            "+1s",
            "1.5s",
            "1h30m",
            "1w",
            "30sec",
            "∞s",
            "36501d",
            "18446744073709551616ms",
            "18446744073709551615d",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
