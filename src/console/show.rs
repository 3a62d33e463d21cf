//! Formats times, durations and counts for people.

use std::time::Duration;

use maud::{Markup, html};

use crate::time::Timestamp;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Describes how far a moment is from now.
fn distance(at: Timestamp, now: Timestamp) -> String {
    match (at.since(now), now.since(at)) {
        (Duration::ZERO, past) if past < Duration::from_secs(1) => "just now".to_owned(),
        (Duration::ZERO, past) => format!("{} ago", span(past)),
        (future, _) => format!("in {}", span(future)),
    }
}

/// A moment, and how far it is from now.
pub(super) fn moment(at: Timestamp, now: Timestamp) -> Markup {
    let exact = at.to_string();
    let relative = distance(at, now);
    html! { time datetime=(exact) title=(exact) { (date(&exact)) " " span.relative { "(" (relative) ")" } } }
}

/// Only how far a moment is from now.
pub(super) fn ago(at: Timestamp, now: Timestamp) -> Markup {
    let exact = at.to_string();
    let text = distance(at, now);
    html! { time datetime=(exact) title=(exact) { (text) } }
}

/// A time span in its largest suitable unit.
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let (count, unit) = match seconds {
        0..MINUTE => (seconds, "second"),
        MINUTE..HOUR => (seconds / MINUTE, "minute"),
        HOUR..172_800 => (seconds / HOUR, "hour"),
        _ => (seconds / DAY, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// Day and minute of an RFC 3339 time.
fn date(exact: &str) -> String {
    match (exact.get(..10), exact.get(11..16)) {
        (Some(day), Some(minute)) => format!("{day} {minute} UTC"),
        _ => exact.to_owned(),
    }
}

/// The day of a moment, in the format of a date field.
pub(super) fn day(at: Timestamp) -> String {
    at.to_string().get(..10).unwrap_or_default().to_owned()
}

/// A number with its noun.
pub(super) fn count(number: usize, one: &str, many: &str) -> String {
    match number {
        0 => format!("no {many}"),
        1 => format!("1 {one}"),
        number => format!("{number} {many}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_in_the_unit_that_says_enough() {
        for (seconds, expected) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "1 minute"),
            (3_599, "59 minutes"),
            (3_600, "1 hour"),
            (172_799, "47 hours"),
            (172_800, "2 days"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn moments_say_how_far_away_they_are() {
        let now = Timestamp::from_secs(1_800_000_000);
        let shown = moment(now.plus(Duration::from_secs(86_400 * 3)), now).into_string();
        assert!(shown.contains("2027-01-18 08:00 UTC") && shown.contains("(in 3 days)"), "{shown}");
        assert!(ago(now.minus(Duration::from_secs(61)), now).into_string().contains(">1 minute ago<"));
        assert!(ago(now, now).into_string().contains(">just now<"));
        assert_eq!(day(now), "2027-01-15");
        assert_eq!([count(0, "token", "tokens"), count(1, "token", "tokens")], ["no tokens", "1 token"]);
    }
}
