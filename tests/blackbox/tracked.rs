//! What tokens in use survive: others that are only denied, events, wrong clocks, growing settings, restarts.
//!
//! libfaketime changes only the wall clock: the monotonic clock is read without the C library.

use std::path::Path;

use rusqlite::Connection;
use serde_json::{Value, json};

use testkit::app::{App, Speaks};
use testkit::gate::Gate;
use testkit::settings::Settings;
use testkit::tokens::{Issuer, unique};
use testkit::{eventually, now};

/// Debian's libfaketime, installed by tests/run; the loader finds it on every architecture.
const FAKETIME: &str = "/usr/$LIB/faketime/libfaketime.so.1";
const DAY: i64 = 86_400;

fn settings(app: &App, issuer: &Issuer, state: &Path, sessions: &str) -> Settings {
    Settings::plaintext()
        .upstream("api", &app.url(), "")
        .issuer_with(issuer, "leeway = \"30s\"")
        .route("/{*rest}", "")
        .route("/admin", "scopes = [\"admin\"]")
        .admin()
        .toml(&format!(
            "[sessions]\n{sessions}\n[state]\npath = \"{}\"\non_empty = \"trust\"\nflush_interval = \"100ms\"\n",
            state.display()
        ))
}

fn status(gate: &Gate, path: &str, token: &str) -> u16 {
    gate.get(path).token(token).send().status()
}

/// A token that goes idle a few seconds from now, counted from its `iat`, and the second in which it does.
fn aging(issuer: &Issuer) -> (String, i64) {
    let issued_at = now() - 593;
    (issuer.token().claim("iat", issued_at).claim("sub", unique()).build(), issued_at + 601)
}

#[test]
fn tokens_that_are_only_denied_push_nobody_out() {
    let (app, issuer, folder) = (App::start(Speaks::Http1), Issuer::new(), tempfile::tempdir().unwrap());
    let lines = "idle_timeout = \"10m\"\nmax_tracked = 1000";
    let gate = Gate::start(&settings(&app, &issuer, &folder.path().join("state.db"), lines));
    let active: Vec<(String, i64)> = (0..50).map(|_| aging(&issuer)).collect();
    for (token, _) in &active {
        assert_eq!(status(&gate, "/anything", token), 200);
    }
    for _ in 0..3_000 {
        assert_eq!(status(&gate, "/admin", &issuer.good()), 403);
    }
    let idle_at = active.iter().map(|(_, at)| *at).max().unwrap();
    eventually("their issue is idle", || (now() > idle_at).then_some(()));
    for (token, _) in &active {
        assert_eq!(status(&gate, "/anything", token), 200, "used a moment ago");
    }
    let metrics = gate.metrics();
    assert_eq!(metrics.sum("portcullis_sessions_tracked", &[]), 50.0);
    assert_eq!(metrics.sum("portcullis_sessions_evicted_total", &[("cause", "capacity")]), 0.0);
}

/// Holds docs/operations.md, Failure modes: the session table is full
/// Holds docs/configuration.md, Settings: sessions.max_tracked
#[test]
fn what_is_used_beyond_the_room_there_is_leaves_counted_and_is_judged_by_its_issue() {
    let (app, issuer, folder) = (App::start(Speaks::Http1), Issuer::new(), tempfile::tempdir().unwrap());
    let lines = "idle_timeout = \"10m\"\nmax_tracked = 100";
    let gate = Gate::start(&settings(&app, &issuer, &folder.path().join("state.db"), lines));
    for _ in 0..300 {
        assert_eq!(status(&gate, "/anything", &issuer.good()), 200);
    }
    gate.wait_for_metric("what left is counted", |metrics| {
        let capacity = [("cause", "capacity")];
        let left = metrics.sum("portcullis_sessions_evicted_total", &capacity);
        (left == 200.0 && metrics.sum("portcullis_sessions_tracked", &[]) == 100.0).then_some(())
    });
}

/// Holds docs/operations.md, Failure modes: the session table is full
#[test]
fn the_token_that_was_pushed_out_counts_as_unused_since_its_issue() {
    let (app, issuer, folder) = (App::start(Speaks::Http1), Issuer::new(), tempfile::tempdir().unwrap());
    let lines = "idle_timeout = \"10m\"\nmax_tracked = 100";
    let gate = Gate::start(&settings(&app, &issuer, &folder.path().join("state.db"), lines));
    let aged = || issuer.token().claim("iat", now() - 585).build();
    let (pushed_out, kept) = (aged(), aged());
    assert_eq!(status(&gate, "/anything", &pushed_out), 200);
    for _ in 0..150 {
        assert_eq!(status(&gate, "/anything", &issuer.good()), 200);
        assert_eq!(status(&gate, "/anything", &kept), 200);
    }
    // Both were used a moment ago, long before either could be idle by its use; the gate knows it of one.
    eventually("the other is idle", || {
        assert_eq!(status(&gate, "/anything", &kept), 200);
        (gate.would_say(&pushed_out) == "idle").then_some(())
    });
}

#[test]
fn a_token_used_before_an_event_ends_with_it_though_its_issuer_is_ahead() {
    let (app, issuer, folder) = (App::start(Speaks::Http1), Issuer::new(), tempfile::tempdir().unwrap());
    for restarts in [false, true] {
        let settings = settings(&app, &issuer, &folder.path().join(format!("{restarts}.db")), "");
        let mut gate = Gate::start(&settings);
        let event = |kind: &str, name: &str, whose: &str| json!({"type": kind, name: whose});
        let ahead = |whose: &str| {
            let token = issuer.token().claim("iat", now() + 20).claim("exp", now() + 3600);
            token.claim("sub", format!("s{whose}")).claim("client_id", format!("c{whose}")).build()
        };
        let cases: Vec<(String, Value, &str)> = vec![
            (ahead("1"), event("role-changed", "subject", "s1"), "role_changed"),
            (ahead("2"), event("subject-revoked", "subject", "s2"), "subject_revoked"),
            (ahead("3"), event("client-revoked", "client", "c3"), "client_revoked"),
            (ahead("4"), json!({"type": "issuer-revoked"}), "issuer_revoked"),
        ];
        let stays = ahead("5");
        for (token, _, _) in &cases {
            assert_eq!(status(&gate, "/anything", token), 200);
        }
        assert_eq!(status(&gate, "/anything", &stays), 200);
        if restarts {
            gate.stop();
            gate = Gate::start(&settings);
        }
        for (token, event, reason) in &cases {
            if *reason == "issuer_revoked" {
                assert_eq!(status(&gate, "/anything", &stays), 200, "no event has named it yet");
            }
            gate.publish(event);
            assert_eq!(gate.reason(token), *reason, "restarts: {restarts}");
        }
        assert_eq!(gate.reason(&stays), "issuer_revoked");
    }
}

/// Holds docs/operations.md, Failure modes: the clock is wrong, by minutes or years
#[test]
fn a_start_with_a_wrong_clock_loses_no_token_in_use() {
    let (app, issuer, folder) = (App::start(Speaks::Http1), Issuer::new(), tempfile::tempdir().unwrap());
    let settings = settings(&app, &issuer, &folder.path().join("state.db"), "idle_timeout = \"10m\"");
    let mut gate = Gate::start(&settings);
    let (token, idle_at) = aging(&issuer);
    assert_eq!(status(&gate, "/anything", &token), 200);
    gate.stop();
    for seconds in [3 * DAY, -3 * DAY, 20 * 365 * DAY, -20 * 365 * DAY] {
        let mut wrong = Gate::launch_with(&settings, |command| {
            command
                .env("LD_PRELOAD", FAKETIME)
                .env("FAKETIME", format!("{seconds:+}s"))
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        });
        wrong.wait_until_ready();
        assert_eq!(status(&wrong, "/anything", &token), 401, "by that clock it is of another time");
        wrong.stop();
    }
    eventually("its issue is idle", || (now() > idle_at).then_some(()));
    let gate = Gate::start(&settings);
    assert_eq!(status(&gate, "/anything", &token), 200);
}

#[test]
fn a_longer_timeout_by_a_reload_counts_after_a_restart_as_well() {
    const HOUR: i64 = 3_600_000;
    let (app, issuer, folder) = (App::start(Speaks::Http1), Issuer::new(), tempfile::tempdir().unwrap());
    let path = folder.path().join("state.db");
    let with = |timeout: &str| settings(&app, &issuer, &path, &format!("idle_timeout = \"{timeout}\""));
    let short = with("30m");
    let mut gate = Gate::start(&short);
    let token = issuer.token().claim("iat", now() - 60).build();
    assert_eq!(status(&gate, "/anything", &token), 200);
    std::fs::write(short.write(), short.to_toml().replace("\"30m\"", "\"6h\"")).unwrap();
    assert_eq!(gate.operate("POST", "/v1/reload", None).status(), 200);
    let read = |what: &str| -> Option<i64> {
        let file = Connection::open(&path).unwrap();
        file.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
        file.query_row(what, [], |row| row.get(0)).ok()
    };
    eventually("the timeout is kept", || {
        (read("SELECT idle_timeout FROM origin") == Some(6 * HOUR)).then_some(())
    });
    gate.stop();
    // As if all that had been an hour ago.
    let file = Connection::open(&path).unwrap();
    for older in [
        "UPDATE sessions SET last_used_at = last_used_at - ?1, last_used_uptime = last_used_uptime - ?1",
        "UPDATE origin SET idle_floor = idle_floor - ?1, idle_floor_uptime = idle_floor_uptime - ?1",
    ] {
        assert_eq!(file.execute(older, [HOUR]).unwrap(), 1);
    }
    drop(file);
    let gate = Gate::start(&with("6h"));
    assert_eq!(status(&gate, "/anything", &token), 200);
}
