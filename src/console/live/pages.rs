//! Renders the live page and the part of it that is updated.

use std::time::Duration;

use maud::{Markup, html};

use super::super::layout;
use super::super::show::{ago, count, moment, span};
use super::super::visitor::Visitor;
use super::charts::{ChartLine, chart};
use super::history::CountedTraffic;
use super::state::{KeysRow, LiveState};
use crate::time::Timestamp;

pub(super) const HOME: &str = "/console/live";
pub(super) const STREAM: &str = "/console/live/stream";
/// Certificates that expire within this time are highlighted.
const SOON: Duration = Duration::from_secs(14 * 86_400);

pub(super) fn page(visitor: &Visitor, fragment: &Markup) -> Markup {
    layout::page(
        visitor,
        HOME,
        "Live",
        html! {
            p.notice.bad data-live-notice hidden role="alert" {
                "The connection to the gate is lost. The data shown is out of date; the page keeps trying to reconnect."
            }
            div data-live=(STREAM) { (fragment) }
            p { a.button.quiet href=(HOME) { "Reload" } }
        },
    )
}

/// The part of the page that changes.
pub(super) fn fragment(snapshot: &LiveState) -> Markup {
    html! {
        (tiles(snapshot))
        section.card { h2 { "Requests" } (charts(&snapshot.slots)) }
        (decisions(snapshot))
        (readiness(snapshot))
        (keys(snapshot))
        (signals(snapshot))
        (certificates(snapshot))
        p.soft.more { "As of " (moment(snapshot.now, snapshot.now)) ". Portcullis " (env!("CARGO_PKG_VERSION")) "." }
    }
}

fn tile(name: &str, value: &Markup, of: &Markup) -> Markup {
    html! { div.tile { div { (name) } div.value { (value) } div.of { (of) } } }
}

fn tiles(snapshot: &LiveState) -> Markup {
    let lately = snapshot.lately.as_ref();
    let rate = |count: fn(&CountedTraffic) -> u64| {
        lately.map_or_else(unknown, |counted| html! { (rate(counted.rate(count(counted)))) })
    };
    let latency = |share| {
        lately
            .and_then(|counted| counted.quantile(share))
            .map_or_else(unknown, |took| html! { (duration(took)) })
    };
    let minute = html! { "per second, last minute" };
    html! {
        div.tiles {
            (tile("Readiness", &html! { @if snapshot.is_ready { span.state.good { "ready" } } @else { span.state.bad { "not ready" } } }, &reload(snapshot)))
            (tile("Requests", &rate(CountedTraffic::requests), &minute))
            (tile("Rejected", &rate(CountedTraffic::rejected), &minute))
            (tile("Latency, median", &latency(0.5), &html! { "to the response head, last minute" }))
            (tile("Latency, 99 %", &latency(0.99), &html! { "to the response head, last minute" }))
            (tile("Tokens in use", &html! { (snapshot.tokens) }, &html! { "used within idle_timeout" }))
            (tile("Streams", &html! { (snapshot.streams) }, &html! { "open, each judged every check_interval" }))
            (tile("Connections", &html! { (snapshot.connections.first().map_or(0, |(_, open)| *open)) }, &others(snapshot)))
            (tile("Revoked", &html! { (snapshot.revoked.iter().map(|(_, count)| count).sum::<i64>()) }, &revoked(snapshot)))
            (tile("State", &state(snapshot), &html! { "last event: number " (snapshot.state.sequence) }))
        }
    }
}

fn unknown() -> Markup {
    html! { span.none title="nothing counted yet" { "–" } }
}

fn reload(snapshot: &LiveState) -> Markup {
    html! {
        @match snapshot.reload {
            None => "configuration loaded at the start",
            Some((at, true)) => { "reloaded " (ago(at, snapshot.now)) },
            Some((at, false)) => span.state.bad { "reload refused " (ago(at, snapshot.now)) },
        }
    }
}

fn others(snapshot: &LiveState) -> Markup {
    html! { "of clients" @for (listener, open) in snapshot.connections.iter().skip(1) { ", " (open) " " (listener) } }
}

fn revoked(snapshot: &LiveState) -> Markup {
    let some: Vec<String> = snapshot
        .revoked
        .iter()
        .filter(|(_, number)| *number > 0)
        .map(|(kind, number)| {
            count(usize::try_from(*number).unwrap_or(usize::MAX), kind, &format!("{kind}s"))
        })
        .collect();
    html! { @if some.is_empty() { "nothing at the moment" } @else { (some.join(", ")) } }
}

fn state(snapshot: &LiveState) -> Markup {
    html! {
        @if snapshot.state.is_shared { (duration(snapshot.state.age)) " old" } @else { "local" }
    }
}

fn charts(slots: &[Option<CountedTraffic>]) -> Markup {
    let line = |name, class, value: &dyn Fn(&CountedTraffic) -> Option<f64>| ChartLine {
        name,
        class,
        values: slots.iter().map(|slot| slot.as_ref().and_then(value)).collect(),
    };
    let rates = [
        line("all", "all", &|slot| Some(slot.rate(slot.requests()))),
        line("rejected", "bad", &|slot| Some(slot.rate(slot.rejected()))),
    ];
    let latencies =
        [line("median", "all", &|slot| slot.quantile(0.5)), line("99 %", "bad", &|slot| slot.quantile(0.99))];
    html! {
        (chart("Requests per second", &rates, rate))
        (chart("Latency", &latencies, duration))
    }
}

fn decisions(snapshot: &LiveState) -> Markup {
    let mut rows: Vec<_> = snapshot.window.iter().flat_map(|counted| &counted.decisions).collect();
    rows.sort_by_key(|(decision, reason, count)| (std::cmp::Reverse(*count), decision, reason));
    let lately = |decision: &str, reason: &str| {
        let counted = snapshot.lately.as_ref()?;
        let same = counted.decisions.iter().find(|(one, why, _)| **one == *decision && **why == *reason);
        Some(counted.rate(same.map_or(0, |(_, _, count)| *count)))
    };
    html! {
        h2 { "Decisions of the last ten minutes" }
        @if rows.is_empty() {
            div.card.empty { p { strong { "No decisions yet." } } p { "They appear with the first request." } }
        } @else {
            table {
                thead { tr { th scope="col" { "Decision" } th scope="col" { "Reason" } th.number scope="col" { "Count" } th.number scope="col" { "Per second, last minute" } } }
                tbody { @for (decision, reason, count) in rows { tr {
                    th scope="row" { (decision) }
                    td data-name="Reason" { @if **reason == *"none" { span.none { "–" } } @else { code { (reason) } } }
                    td.number data-name="Count" { (count) }
                    td.number data-name="Per second, last minute" { @match lately(decision, reason) { Some(now) => (rate(now)), None => "–" } }
                } } }
            }
        }
    }
}

fn readiness(snapshot: &LiveState) -> Markup {
    html! {
        h2 { "Readiness" }
        table {
            thead { tr { th scope="col" { "Component" } th scope="col" { "Condition" } } }
            tbody { @for (name, condition) in &snapshot.components { tr {
                th scope="row" { (name) }
                td data-name="Condition" { @if condition == "ok" { span.state.good { "ok" } } @else { span.state.bad { (condition) } } }
            } } }
        }
    }
}

fn keys(snapshot: &LiveState) -> Markup {
    html! {
        h2 { "Key sets" }
        table {
            thead { tr { th scope="col" { "Issuer" } th.number scope="col" { "Keys" } th scope="col" { "Confirmed" } th scope="col" { "Last fetch" } } }
            tbody { @for row in &snapshot.keys { tr {
                th scope="row" { (row.issuer) }
                td.number data-name="Keys" { (row.keys) }
                td data-name="Confirmed" { (confirmed(row)) }
                td data-name="Last fetch" { (fetch(row)) }
            } } }
        }
    }
}

fn confirmed(row: &KeysRow) -> Markup {
    html! {
        @match row.age {
            Some(age) if row.is_usable => { (span(age)) " ago" },
            Some(age) => span.state.bad { (span(age)) " ago, too old to be used" },
            None if row.ages => span.state.bad { "never" },
            None => span.soft { "part of this gate" },
        }
    }
}

fn fetch(row: &KeysRow) -> Markup {
    html! {
        @match &row.failure {
            Some(why) => span.state.warn { "failed: " (why) },
            None => span.soft { "no failure" },
        }
    }
}

fn signals(snapshot: &LiveState) -> Markup {
    let counted: Vec<String> =
        snapshot.signalled.iter().map(|(kind, number)| format!("{number} × {kind}")).collect();
    html! {
        h2 { "Signals" }
        @if snapshot.signals.is_empty() {
            div.card.empty { p { strong { "No transmitters." } } p { "Identity providers that are listed under [[event_transmitters]] send signals about revoked sessions to this gate." } }
        } @else {
            table {
                thead { tr { th scope="col" { "Transmitter" } th scope="col" { "Issuer" } th scope="col" { "Last signal" } th.number scope="col" { "Keys" } th scope="col" { "Confirmed" } } }
                tbody { @for row in &snapshot.signals { tr {
                    th scope="row" { (row.name) }
                    td data-name="Issuer" { (row.issuer) }
                    td data-name="Last signal" { @match row.last { Some(at) => (ago(at, snapshot.now)), None => span.none { "none since the start" } } }
                    td.number data-name="Keys" { (row.keys.keys) }
                    td data-name="Confirmed" { (confirmed(&row.keys)) }
                } } }
            }
            @if !counted.is_empty() { p.hint { "Since the start: " (counted.join(", ")) } }
        }
    }
}

fn certificates(snapshot: &LiveState) -> Markup {
    html! {
        @if !snapshot.certificates.is_empty() {
            h2 { "Certificates" }
            table {
                thead { tr { th scope="col" { "File" } th scope="col" { "Expires" } } }
                tbody { @for (path, expiry) in &snapshot.certificates { tr {
                    th scope="row" { code { (path) } }
                    td data-name="Expires" { span.(expiry_class(*expiry, snapshot.now)) { (moment(*expiry, snapshot.now)) } }
                } } }
            }
        }
    }
}

fn expiry_class(expiry: Timestamp, now: Timestamp) -> &'static str {
    match expiry.since(now) {
        Duration::ZERO => "state bad",
        left if left < SOON => "state warn",
        _ => "soon-enough",
    }
}

/// Formats a rate with a useful number of digits.
fn rate(per_second: f64) -> String {
    match per_second {
        0.0 => "0".to_owned(),
        some if some < 0.01 => "< 0.01".to_owned(),
        some if some < 1.0 => format!("{some:.2}"),
        some if some < 100.0 => format!("{some:.1}"),
        many => format!("{many:.0}"),
    }
}

/// Formats seconds in a suitable unit.
fn duration(seconds: f64) -> String {
    match seconds {
        0.0 => "0 s".to_owned(),
        short if short < 0.001 => format!("{:.0} µs", short * 1e6),
        short if short < 0.1 => format!("{:.1} ms", short * 1e3),
        short if short < 1.0 => format!("{:.0} ms", short * 1e3),
        long => format!("{long:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_with_the_digits_that_matter() {
        for (per_second, expected) in
            [(0.0, "0"), (0.004, "< 0.01"), (0.05, "0.05"), (2.345, "2.3"), (99.0, "99.0"), (1234.5, "1234")]
        {
            assert_eq!(rate(per_second), expected);
        }
        for (seconds, expected) in [
            (0.0, "0 s"),
            (0.000_25, "250 µs"),
            (0.003_21, "3.2 ms"),
            (0.25, "250 ms"),
            (1.0, "1.0 s"),
            (30.0, "30.0 s"),
        ] {
            assert_eq!(duration(seconds), expected);
        }
    }

    #[test]
    fn a_certificate_that_expires_soon_or_has_is_pointed_out() {
        let now = Timestamp::from_secs(1_800_000_000);
        let class = |days: u64| expiry_class(now.plus(Duration::from_secs(days * 86_400)), now);
        assert_eq!(
            [class(0), class(1), class(13), class(14)],
            ["state bad", "state warn", "state warn", "soon-enough"]
        );
        assert_eq!(expiry_class(now.minus(SOON), now), "state bad");
    }
}
