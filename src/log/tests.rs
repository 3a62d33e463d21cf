//! The log as a whole, from the record to the bytes that arrive.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use serde_json::Value;

use super::testing::{Kept, send_to};
use super::*;

const SETTINGS: Settings =
    Settings { format: Format::Json, level: String::new(), access_log: true, log_paths: false };

fn settings(level: &str) -> Settings {
    Settings { level: level.to_owned(), ..SETTINGS }
}

fn record() -> AccessRecord<'static> {
    AccessRecord {
        request_id: "0198-abc",
        trace_id: None,
        method: "GET",
        route: Some("/deals/{*rest}"),
        path: Some("/deals/7"),
        status: 200,
        decision: Decision::Allow,
        reason: None,
        issuer: Some("https://idp.example.com/"),
        kid: Some("k1"),
        token: Some(&[0xab; 32]),
        subject: Some("0123456789ab"),
        client: Some("app"),
        claimed: None,
        claimed_client: None,
        client_address: [127, 0, 0, 1].into(),
        host: None,
        user_agent: None,
        omitted: None,
        tls: None,
        bytes_in: None,
        bytes_out: 7,
        upstream_time: None,
        lasted: Duration::from_micros(2000),
        ended_by: None,
        upstream: Some("api"),
        failure: None,
        cause: None,
        protocol: http::Version::HTTP_2,
        duration: Duration::from_micros(1234),
    }
}

/// Runs `body` with a log at these settings, and returns what was written.
fn logged(settings: &Settings, body: impl FnOnce(&AccessLog, &Guard)) -> Kept {
    let kept = Kept::default();
    let metrics = Metrics::new().expect("the page");
    let (access, guard, events) = open(settings, &metrics, kept.clone()).expect("the log");
    let default = send_to(&events);
    body(&access, &guard);
    drop((default, guard));
    assert_eq!(metrics.log_lines_dropped.get(), 0);
    kept
}

#[test]
fn an_access_line_carries_the_record() {
    let lines = logged(&settings("info"), |access, _| access.write(&record())).lines();
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    let stamp = line["ts"].as_str().expect("a time");
    assert!(stamp.len() == 24 && stamp.ends_with('Z'), "{stamp}");
    for (name, expected) in [
        ("level", Value::from("info")),
        ("target", "portcullis::access".into()),
        ("message", "request".into()),
        ("request_id", "0198-abc".into()),
        ("method", "GET".into()),
        ("route", "/deals/{*rest}".into()),
        ("status", 200.into()),
        ("decision", "allow".into()),
        ("issuer", "https://idp.example.com/".into()),
        ("kid", "k1".into()),
        ("token_hash", "abababababab".into()),
        ("subject_hash", "0123456789ab".into()),
        ("client_address", "127.0.0.1".into()),
        ("upstream", "api".into()),
        ("protocol", "HTTP/2".into()),
        ("duration_us", 1234.into()),
    ] {
        assert_eq!(line[name], expected, "{name}");
    }
    for absent in ["path", "reason", "failure", "cause"] {
        assert!(line.get(absent).is_none(), "{absent}");
    }
}

#[test]
fn hostile_values_stay_inside_their_member() {
    let hostile = "a\"},{\\\n\r\u{1b}[2J\u{7f}\u{85}\u{2028}\u{202e}é𝄞";
    let lines = logged(&settings("info"), |access, _| {
        access.write(&AccessRecord {
            method: hostile,
            kid: Some(hostile),
            reason: Some(hostile),
            request_id: hostile,
            ..record()
        });
        tracing::info!(value = hostile, debug = ?hostile, target = "mine", "{hostile}");
    });
    assert!(!lines.text().chars().any(|c| c.is_control() && c != '\n'));
    let lines = lines.lines();
    assert_eq!(lines.len(), 2);
    for name in ["method", "kid", "reason", "request_id"] {
        assert_eq!(lines[0][name], hostile, "{name}");
    }
    assert_eq!(lines[1]["message"], hostile);
    assert_eq!(lines[1]["value"], hostile);
    assert_eq!(lines[1]["debug"], format!("{hostile:?}"));
    assert_eq!(lines[1]["target_"], "mine");
}

#[test]
fn long_values_are_cut() {
    let long = "é".repeat(5000);
    let lines = logged(&Settings { log_paths: true, ..settings("info") }, |access, _| {
        access.write(&AccessRecord { kid: Some(&long), path: Some(&long), ..record() });
    })
    .lines();
    assert_eq!(lines[0]["kid"].as_str().map(str::len), Some(256));
    assert_eq!(lines[0]["path"].as_str().map(str::len), Some(2048));
}

#[test]
fn levels_and_switches_decide_which_requests_are_written() {
    use Decision::{Allow, Deny, ShadowDeny, Unavailable};
    for (level, access_log, expected) in [
        ("info", true, vec!["allow", "deny", "unavailable", "shadow_deny"]),
        ("info", false, vec!["deny", "unavailable", "shadow_deny"]),
        ("warn", true, vec!["unavailable"]),
        ("error", true, vec![]),
        ("warn,portcullis::access=info", false, vec!["deny", "unavailable", "shadow_deny"]),
        ("off", true, vec![]),
    ] {
        let lines = logged(&Settings { access_log, ..settings(level) }, |access, _| {
            for decision in [Allow, Deny, Unavailable, ShadowDeny] {
                access.write(&AccessRecord { decision, ..record() });
            }
        })
        .lines();
        let found: Vec<_> = lines.iter().filter_map(|line| line["decision"].as_str()).collect();
        assert_eq!(found, expected, "{level}, access_log = {access_log}");
        for line in &lines {
            let expected = if line["decision"] == "unavailable" { "warn" } else { "info" };
            assert_eq!(line["level"], expected);
        }
    }
}

#[test]
fn paths_are_written_only_on_request_and_never_with_their_query() {
    for (log_paths, expected) in [(false, Value::Null), (true, "/deals/7".into())] {
        let kept = logged(&Settings { log_paths, ..settings("info") }, |access, _| {
            access.write(&AccessRecord { path: Some("/deals/7?access_token=secret"), ..record() });
        });
        assert_eq!(kept.lines()[0]["path"], expected);
        assert!(!kept.text().contains("secret"));
    }
}

#[test]
fn events_are_flattened_and_typed() {
    let lines = logged(&settings("debug"), |_, _| {
        let error = io::Error::other("broken");
        tracing::warn!(
            target: "portcullis::keys", keys = 3_u64, less = -1_i64, ratio = 0.5, none = f64::NAN, fine = true,
            error = &error as &(dyn std::error::Error + 'static), level = "mine", "fetch {}", "failed"
        );
        tracing::trace!(target: "portcullis::keys", "not at this level");
    })
    .lines();
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    for (name, expected) in [
        ("level", Value::from("warn")),
        ("target", "portcullis::keys".into()),
        ("message", "fetch failed".into()),
        ("keys", 3.into()),
        ("less", (-1).into()),
        ("ratio", 0.5.into()),
        ("none", Value::Null),
        ("fine", true.into()),
        ("error", "broken".into()),
        ("level_", "mine".into()),
    ] {
        assert_eq!(line[name], expected, "{name}");
    }
}

#[test]
fn libraries_cannot_print_header_values_even_at_trace() {
    let kept = logged(&settings("trace"), |_, _| {
        tracing::trace!(target: "portcullis::keys", "ours");
        for target in ["h2::codec::framed_read", "h2::hpack::decoder", "hyper::proto::h1::io", "rustls::conn"]
        {
            tracing::trace!(target: "h2::codec::framed_read", target_of = target, "authorization: Bearer secret");
            tracing::debug!(target: "hyper::proto::h1::io", target_of = target, "authorization: Bearer secret");
            tracing::info!(target: "tower", target_of = target, "authorization: Bearer secret");
        }
        tracing::warn!(target: "h2::proto", "a warning");
    });
    assert!(!kept.text().contains("secret"));
    let messages: Vec<_> = kept.lines().iter().map(|line| line["message"].clone()).collect();
    assert_eq!(messages, ["ours", "a warning"]);
}

#[test]
fn a_reload_changes_the_lines_that_follow() {
    let kept = logged(&settings("info"), |access, guard| {
        tracing::debug!(target: "portcullis::app", "before");
        Change::new(&settings("loud")).expect_err("not a log level");
        access.write(&record());
        guard.reconfigure(
            Change::new(&Settings { access_log: false, ..settings("debug") }).expect("the settings"),
        );
        access.write(&record());
        tracing::debug!(target: "portcullis::app", "after");
        guard.reconfigure(
            Change::new(&Settings { format: Format::Pretty, ..settings("info") }).expect("the settings"),
        );
        access.write(&AccessRecord { reason: Some("expired"), ..record() });
        tracing::info!(target: "portcullis::app", path = "/a b", "loaded");
    });
    let text = kept.text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(lines[0].contains("\"decision\":\"allow\""));
    assert!(lines[1].contains("\"message\":\"after\""));
    let pretty =
        " INFO  portcullis::access: 200 allow GET /deals/{*rest} 1234µs from 127.0.0.1 reason=expired ";
    assert!(lines[2].contains(pretty), "{}", lines[2]);
    assert!(lines[3].ends_with(" INFO  portcullis::app: loaded path=\"/a b\""), "{}", lines[3]);
}

/// A destination whose writes return only when the test lets them.
struct Stuck {
    entered: SyncSender<()>,
    release: Receiver<()>,
}

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.entered.try_send(());
        // An error means that the test is over.
        let _ = self.release.recv();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_blocked_destination_blocks_nobody_and_lines_are_counted() {
    const LINES: u64 = 50_000;
    let (entered, stuck) = sync_channel(1);
    let (release, released): (SyncSender<()>, _) = sync_channel(0);
    let metrics = Metrics::new().expect("the page");
    let out = Stuck { entered, release: released };
    let (access, guard, _events) = open(&settings("info"), &metrics, out).expect("the log");
    access.write(&record());
    stuck.recv().expect("the writer is stuck");
    // With the writer stuck, a write that waited for it would never end.
    for _ in 0..LINES {
        access.write(&record());
    }
    assert_eq!(metrics.log_lines_dropped.get(), LINES - writer::CAPACITY as u64);
    // The end of the process does not wait indefinitely either.
    drop(guard);
    drop(release);
}
