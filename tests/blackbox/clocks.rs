//! Events and revocations with wrong clocks, growing settings, repeated signals, and restored files.
//!
//! libfaketime changes only the wall clock: the monotonic clock is read without the C library.

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde_json::{Value, json};

use testkit::app::{App, Speaks};
use testkit::gate::{Gate, path_text, portcullis};
use testkit::settings::Settings;
use testkit::tokens::{Issuer, unique};
use testkit::{eventually, now};

/// Debian's libfaketime, installed by tests/run; the loader finds it on every architecture.
const FAKETIME: &str = "/usr/$LIB/faketime/libfaketime.so.1";
const DAY: i64 = 86_400;
const STATE: &str = "[state]\npath = \"state.db\"\non_empty = \"trust\"\nflush_interval = \"100ms\"\n";

/// A gate whose wall clock is off by this many seconds.
fn launch_off(settings: &Settings, seconds: i64) -> Gate {
    let gate = Gate::launch_with(settings, |command| {
        command
            .env("LD_PRELOAD", FAKETIME)
            .env("FAKETIME", format!("{seconds:+}s"))
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    });
    gate.wait_until_ready();
    gate
}

fn database(settings: &Settings) -> PathBuf {
    settings.folder().join("state.db")
}

/// The running time in the file: it grows with each write, and the first trim writes.
fn uptime(path: &Path) -> i64 {
    let file = Connection::open(path).unwrap();
    file.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
    file.query_row("SELECT uptime FROM origin", [], |row| row.get(0)).unwrap()
}

/// Makes everything in the file older, as if this time had passed on both clocks while the gate was stopped.
fn age(path: &Path, seconds: i64) {
    let file = Connection::open(path).unwrap();
    let older = "UPDATE events SET received_at = received_at - ?1, expires_at = expires_at - ?1,
                 received_uptime = received_uptime - ?1, at = at - ?1";
    assert!(file.execute(older, [seconds * 1000]).unwrap() > 0);
}

fn events(path: &Path) -> i64 {
    Connection::open(path)
        .unwrap()
        .query_row("SELECT count(*) FROM events WHERE kind <> 5", [], |row| row.get(0))
        .unwrap()
}

/// Holds docs/operations.md, Failure modes: the clock is wrong, by minutes or years
#[test]
fn a_start_with_a_wrong_clock_forgets_no_event() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let other = Issuer::named("https://other.example.com/");
    let settings = Settings::plaintext().guarding(&app.url(), &issuer).issuer(&other).admin().toml(STATE);
    let token = |subject: &str, client: &str, jti: &str| {
        issuer.token().claim("sub", subject).claim("client_id", client).claim("jti", jti).build()
    };
    let mut gate = Gate::start(&settings);
    let mut ended = Vec::new();
    for (event, token, reason) in [
        (json!({"type": "role-changed", "subject": "alice"}), token("alice", "a", "1"), "role_changed"),
        (
            json!({"type": "role-changed", "subject": "anna", "role_version": 7}),
            issuer.token().claim("sub", "anna").claim("role_version", 6).build(),
            "role_changed",
        ),
        (json!({"type": "token-revoked", "jti": "2"}), token("bob", "b", "2"), "token_revoked"),
        (json!({"type": "client-revoked", "client": "c"}), token("carol", "c", "3"), "client_revoked"),
        (json!({"type": "subject-revoked", "subject": "dave"}), token("dave", "d", "4"), "subject_revoked"),
        (json!({"type": "issuer-revoked"}), other.good(), "issuer_revoked"),
    ] {
        let mut event = event;
        event["issuer"] = json!(if reason == "issuer_revoked" { &other.name } else { &issuer.name });
        gate.publish(&event);
        ended.push((token, reason));
    }
    for (round, seconds) in [3 * DAY, -3 * DAY, 20 * 365 * DAY, -20 * 365 * DAY].into_iter().enumerate() {
        gate.stop();
        let before = uptime(&database(&settings));
        let mut wrong = launch_off(&settings, seconds);
        if round % 2 == 0 {
            for (token, _) in &ended {
                assert_eq!(wrong.get("/anything").token(token).send().status(), 401, "{seconds}");
            }
            wrong.publish(&json!({"type": "subject-revoked", "issuer": other.name, "subject": unique()}));
        }
        eventually("it looked for what is over", || (uptime(&database(&settings)) > before).then_some(()));
        wrong.stop();
        gate = Gate::start(&settings);
        for (token, reason) in &ended {
            assert_eq!(gate.reason(token), *reason, "after a clock off by {seconds} s");
        }
        assert_eq!(
            gate.get("/anything").token(&issuer.token().claim("sub", "eve").build()).send().status(),
            200
        );
    }
}

#[test]
fn an_ended_token_stays_ended_when_its_issuers_settings_grow() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    for (name, small, grown, issued_ago, life) in [
        // While the small setting holds, neither token is accepted: too long-lived, or expired.
        ("max_lifetime", "max_lifetime = \"1h\"", "max_lifetime = \"24h\"", 3 * 3600, 12 * 3600),
        ("max_lifetime of seconds", "max_lifetime = \"5s\"", "max_lifetime = \"24h\"", 3 * 3600, 12 * 3600),
        (
            "leeway",
            "leeway = \"1s\"\nmax_lifetime = \"1h\"",
            "leeway = \"6h\"\nmax_lifetime = \"1h\"",
            3 * 3600,
            3600,
        ),
    ] {
        let base =
            Settings::plaintext().upstream("api", &app.url(), "").route("/{*rest}", "").admin().toml(STATE);
        let (small, grown) =
            (base.clone().issuer_with(&issuer, small), base.clone().issuer_with(&issuer, grown));
        let aged = |subject: &str, ago: i64, life: i64| {
            let token = issuer.token().claim("sub", subject).claim("iat", now() - ago);
            token.claim("exp", now() - ago + life).build()
        };
        let reload = |gate: &Gate| {
            grown.write();
            gate.signal("HUP");
            gate.wait_for_reloads("ok", 1.0);
        };
        let mut gate = Gate::start(&small);
        gate.publish(&json!({"type": "subject-revoked", "subject": "alice"}));
        let before = aged("alice", issued_ago, life);

        // At once, and over a restart: the event is still there.
        reload(&gate);
        assert_eq!(gate.reason(&before), "subject_revoked", "{name}");
        gate.stop();
        let mut gate = Gate::start(&grown);
        assert_eq!(gate.reason(&before), "subject_revoked", "{name}, restarted");
        gate.stop();

        // When its time is over by the small setting, it is deleted. That there was one is remembered.
        age(&database(&small), 2 * 3600);
        let mut gate = Gate::start(&small);
        eventually("the event is deleted", || (events(&database(&small)) == 0).then_some(()));
        reload(&gate);
        let other = aged("bob", 60, 600);
        for restarted in [false, true] {
            if restarted {
                gate.stop();
                gate = Gate::start(&grown);
            }
            assert_eq!(gate.reason(&before), "before_state", "{name}, restarted: {restarted}");
            assert_eq!(gate.get("/anything").token(&other).send().status(), 200, "{name}: issued later");
        }
    }
}

#[test]
fn an_event_is_kept_when_its_settings_grew_after_it_came() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let base =
        Settings::plaintext().upstream("api", &app.url(), "").route("/{*rest}", "").admin().toml(STATE);
    let small = base.clone().issuer_with(&issuer, "max_lifetime = \"5s\"");
    let mut gate = Gate::start(&small);
    gate.publish(&json!({"type": "subject-revoked", "subject": "alice"}));
    gate.stop();
    // A look for what is over with the larger setting in force leaves it.
    let grown = base.issuer_with(&issuer, "max_lifetime = \"24h\"");
    age(&database(&grown), 3600);
    let gate = Gate::start(&grown);
    let token = issuer.token().claim("iat", now() - 2 * 3600).claim("exp", now() + 3600).build();
    assert_eq!(gate.reason(&token), "subject_revoked");
    assert_eq!(events(&database(&grown)), 1);
}

/// A transmitter for the issuer's subjects, with its own keys.
fn transmitter(settings: Settings, keys: &Issuer, issuer: &Issuer, tolerant: bool) -> Settings {
    settings.file("transmitter.json", keys.jwks().to_string());
    settings.toml(&format!(
        "[[event_transmitters]]\nname = \"t\"\nissuer = {:?}\naudience = \"https://gate.example.com\"\n\
         jwks_file = \"transmitter.json\"\nsubject_issuer = {:?}\ntolerant = {tolerant}\n",
        keys.name, issuer.name
    ))
}

/// A security event token.
fn set(keys: &Issuer, id: &str, r#type: &str, at: i64, members: Value) -> String {
    let mut event = members;
    event["event_timestamp"] = json!(at);
    let issuer = "https://issuer.example.com/";
    keys.token()
        .head("typ", "secevent+jwt")
        .without("exp")
        .without("sub")
        .without("client_id")
        .without("scope")
        .claim("aud", "https://gate.example.com")
        .claim("iat", at)
        .claim("jti", id)
        .claim("sub_id", json!({"format": "iss_sub", "iss": issuer, "sub": "alice"}))
        .claim("events", json!({ format!("https://schemas.openid.net/secevent/{}", r#type): event }))
        .build()
}

fn push(gate: &Gate, set: &str) -> u16 {
    // Until the transmitter's keys are loaded, the response is 503; the gate's readiness does not wait for them.
    eventually("the signal is answered", || Some(push_once(gate, set)).filter(|status| *status != 503))
}

fn push_once(gate: &Gate, set: &str) -> u16 {
    let mut wire = testkit::wire::Wire::plain(gate.admin);
    let head = format!(
        "POST /v1/ssf/t HTTP/1.1\r\nHost: admin\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/secevent+jwt\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{set}",
        testkit::settings::ADMIN_TOKEN,
        set.len()
    );
    wire.exchange(head).unwrap().status()
}

const SESSION_REVOKED: &str = "caep/event-type/session-revoked";
const ACCOUNT_DISABLED: &str = "risc/event-type/account-disabled";
const CLAIMS_CHANGE: &str = "caep/event-type/token-claims-change";

/// Holds docs/configuration.md, Settings: event_transmitters[]
#[test]
fn each_signal_counts_by_itself_and_one_that_was_undone_stays_so_when_it_comes_again() {
    let app = App::start(Speaks::Http1);
    let (issuer, keys) =
        (Issuer::named("https://issuer.example.com/"), Issuer::named("https://signals.example.com/"));
    let settings = Settings::plaintext().guarding(&app.url(), &issuer).admin().toml(STATE);
    let settings = transmitter(settings, &keys, &issuer, false);
    let mut gate = Gate::start(&settings);
    let at = now() - 5;
    let token = issuer.token().claim("iat", at - 60).build();
    let latest = |gate: &Gate| {
        let listed = gate.operate("GET", "/v1/revocations?subject=alice", None).json();
        let items = listed["items"].as_array().unwrap().clone();
        items.last().map_or(Value::Null, |item| item["id"].clone())
    };
    let undo = |gate: &Gate| {
        let undone = gate.operate("DELETE", &format!("/v1/revocations/{}", latest(gate)), None);
        assert_eq!(undone.status(), 204);
        assert_eq!(gate.get("/anything").token(&token).send().status(), 200, "taken back");
    };
    let roles = json!({"claims": {"roles": ["user"]}});
    let first = set(&keys, "1", SESSION_REVOKED, at, json!({}));
    for (set, reason) in [
        (first.clone(), "subject_revoked"),
        (set(&keys, "2", SESSION_REVOKED, at, json!({})), "subject_revoked"),
        (set(&keys, "2", ACCOUNT_DISABLED, at, json!({})), "subject_revoked"),
        (set(&keys, "3", CLAIMS_CHANGE, at, roles.clone()), "role_changed"),
        (set(&keys, "4", CLAIMS_CHANGE, at, roles), "role_changed"),
        // A transmitter that gives one id to everything still says when.
        (set(&keys, "4", SESSION_REVOKED, at + 1, json!({})), "subject_revoked"),
    ] {
        assert_eq!(push(&gate, &set), 202);
        assert_eq!(gate.reason(&token), reason, "a signal of its own counts");
        undo(&gate);
        for _ in 0..2 {
            assert_eq!(push(&gate, &set), 202, "delivered again");
            assert_eq!(gate.get("/anything").token(&token).send().status(), 200, "it stays undone");
        }
    }
    gate.stop();
    let gate = Gate::start(&settings);
    assert_eq!(push(&gate, &first), 202);
    assert_eq!(gate.get("/anything").token(&token).send().status(), 200, "over a restart, too");
    // What an operator says of that very moment is no signal, and counts.
    gate.publish(&json!({"type": "subject-revoked", "subject": "alice", "at": at}));
    assert_eq!(gate.reason(&token), "subject_revoked");
    undo(&gate);
    gate.publish(&json!({"type": "subject-revoked", "subject": "alice", "at": at}));
    assert_eq!(gate.get("/anything").token(&token).send().status(), 200, "the same again stays undone");
    gate.publish(&json!({"type": "subject-revoked", "subject": "alice", "at": at + 1}));
    assert_eq!(gate.reason(&token), "subject_revoked", "another moment is another event");
}

#[test]
fn a_signal_from_a_clock_that_is_ahead_counts_as_of_now() {
    let app = App::start(Speaks::Http1);
    let (issuer, keys) =
        (Issuer::named("https://issuer.example.com/"), Issuer::named("https://signals.example.com/"));
    for tolerant in [false, true] {
        let settings = Settings::plaintext().guarding(&app.url(), &issuer).admin().toml(STATE);
        let gate = Gate::start(&transmitter(settings, &keys, &issuer, tolerant));
        for (id, ahead) in [("a", 45), ("b", 3600), ("c", 20 * 365 * DAY)] {
            let sent = now();
            let set = set(&keys, id, SESSION_REVOKED, sent + ahead, json!({}));
            assert_eq!(push(&gate, &set), 202, "{ahead} s ahead");
            assert_eq!(gate.reason(&issuer.token().claim("iat", sent - 1).build()), "subject_revoked");
            eventually("the second is over", || (now() > sent + 1).then_some(()));
            let fresh = issuer.token().claim("iat", now() + 1).build();
            assert_eq!(
                gate.get("/anything").token(&fresh).send().status(),
                200,
                "issued after it: {ahead} s ahead"
            );
        }
    }
}

/// Holds docs/operations.md, Failure modes: the clock was ahead when the store was created
#[test]
fn a_store_made_while_the_clock_was_ahead_refuses_no_fresh_token() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    for seconds in [3600, 20 * 365 * DAY] {
        let settings = Settings::plaintext()
            .guarding(&app.url(), &issuer)
            .admin()
            .toml("[state]\npath = \"state.db\"\n");
        let mut wrong = launch_off(&settings, seconds);
        wrong.stop();
        let started = now();
        let mut gate = Gate::start(&settings);
        let older = issuer.token().claim("iat", started - 60).build();
        for _ in 0..2 {
            assert_eq!(gate.reason(&older), "before_state", "issued before the store was known to be there");
            eventually("the second is over", || (now() > started).then_some(()));
            assert_eq!(gate.get("/anything").token(&issuer.good()).send().status(), 200, "{seconds}");
            gate.stop();
            gate = Gate::start(&settings);
        }
    }
}

/// Holds docs/operations.md, Failure modes: the clock was ahead when the store was created
#[test]
fn a_start_with_a_clock_that_is_behind_accepts_tokens_issued_since_then() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let settings = Settings::plaintext()
        .guarding(&app.url(), &issuer)
        .admin()
        .toml("[sessions]\nidle_timeout = \"0s\"\n[state]\npath = \"state.db\"\n");
    let mut gate = Gate::start(&settings);
    let since = |minutes: i64| issuer.token().claim("iat", now() - 60 * minutes).build();
    let (before, after) = (since(90), since(30));
    for token in [&before, &after] {
        assert_eq!(gate.reason(token), "before_state", "the clock was right");
    }
    gate.stop();
    let mut behind = launch_off(&settings, -3600);
    behind.stop();
    let gate = Gate::start(&settings);
    assert_eq!(gate.reason(&before), "before_state");
    assert_eq!(gate.get("/anything").token(&after).send().status(), 200, "issued after the wrong time");
}

#[test]
fn a_clock_that_is_set_right_while_the_gate_runs_ends_no_fresh_token() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let settings =
        Settings::plaintext().guarding(&app.url(), &issuer).admin().toml("[state]\npath = \"state.db\"\n");
    let offset = settings.file("offset", "+3600s");
    let gate = Gate::launch_with(&settings, |command| {
        command
            .env("LD_PRELOAD", FAKETIME)
            .env("FAKETIME_TIMESTAMP_FILE", &offset)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    });
    gate.wait_until_ready();
    settings.file("offset", "+0s");
    gate.log().wait_for_text("is in the future");
    let corrected = now();
    eventually("the second is over", || (now() > corrected + 1).then_some(()));
    assert_eq!(gate.get("/anything").token(&issuer.good()).send().status(), 200);
    assert_eq!(gate.reason(&issuer.token().claim("iat", corrected - 60).build()), "before_state");
}

/// Holds docs/operations.md, Failure modes: an older copy of the state file is put back
#[test]
fn an_older_state_file_is_noticed_and_reported() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let settings = Settings::plaintext().guarding(&app.url(), &issuer).admin().toml(STATE);
    let revoke = |gate: &Gate| gate.publish(&json!({"type": "subject-revoked", "subject": unique()}));
    let log = |gate: &Gate| gate.readiness().1["log"].clone();
    let rolled_back = |gate: &Gate| gate.metrics().sum("portcullis_state_rolled_back", &[]);
    let path = database(&settings);

    let mut gate = Gate::start(&settings);
    revoke(&gate);
    let first = log(&gate);
    assert_eq!((first["sequence"].as_u64(), rolled_back(&gate)), (Some(1), 0.0), "{first}");
    assert_eq!(first["identity"].as_str().map(str::len), Some(32), "{first}");
    gate.stop();
    let copy = std::fs::read(&path).unwrap();
    let mut gate = Gate::start(&settings);
    assert_eq!((log(&gate), rolled_back(&gate)), (first.clone(), 0.0), "a restart is no loss");
    revoke(&gate);
    revoke(&gate);
    gate.stop();

    // The copy is put back.
    std::fs::write(&path, &copy).unwrap();
    let mut gate = Gate::start(&settings);
    gate.log().wait_for_text("older than when it was last used");
    assert_eq!(rolled_back(&gate), 1.0);
    assert_eq!(
        log(&gate),
        json!({"identity": first["identity"], "sequence": 3}),
        "no sequence is given twice"
    );
    assert_eq!(revoke(&gate)["sequence"], 4);
    gate.kill();

    // The file alone, without its log: what the gate that was killed wrote last is not in it.
    for name in ["state.db-wal", "state.db-shm"] {
        std::fs::remove_file(settings.folder().join(name)).unwrap();
    }
    let mut gate = Gate::start(&settings);
    gate.log().wait_for_text("older than when it was last used");
    assert_eq!(revoke(&gate)["sequence"], 5);
    gate.stop();

    // Deleted.
    std::fs::remove_file(&path).unwrap();
    let mut gate = Gate::start(&settings);
    gate.log().wait_for_text("a different state store was used here before");
    assert_eq!(rolled_back(&gate), 1.0);
    assert_ne!(log(&gate)["identity"], first["identity"]);
    gate.stop();
    let gate = Gate::start(&settings);
    assert_eq!(rolled_back(&gate), 0.0, "said once");
}

#[test]
fn a_first_roll_out_logs_nobody_out() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    for (option, accepted) in [(Some("--accept-existing-tokens"), true), (None, false)] {
        let settings = Settings::plaintext()
            .guarding(&app.url(), &issuer)
            .admin()
            .toml("[state]\npath = \"state.db\"\n");
        let older = issuer.token().claim("iat", now() - 60).build();
        let config = settings.write();
        let arguments: Vec<&str> =
            ["state", "init", "--config", path_text(&config)].into_iter().chain(option).collect();
        let made = portcullis(&arguments);
        assert_eq!((made.code, made.err.as_str()), (0, ""), "{made:?}");
        let word = if accepted { "are accepted" } else { "are refused" };
        assert!(made.out.contains("state.db") && made.out.contains(word), "{made:?}");

        // Neither a second time, nor while a gate runs.
        let again = portcullis(&arguments);
        assert_eq!(again.code, 1, "{again:?}");
        assert!(again.err.contains("already exists"), "{again:?}");
        let mut gate = Gate::start(&settings);
        assert_eq!(portcullis(&arguments).code, 1);
        for _ in 0..2 {
            let status = gate.get("/anything").token(&older).send().status();
            assert_eq!(status == 200, accepted, "{option:?}: {status}");
            if !accepted {
                assert_eq!(gate.reason(&older), "before_state");
            }
            gate.stop();
            gate = Gate::start(&settings);
        }
        gate.publish(&json!({"type": "subject-revoked", "subject": "alice"}));
        assert_eq!(gate.get("/anything").token(&older).send().status(), 401, "what is revoked is refused");
    }
}

#[test]
fn a_store_that_cannot_be_made_is_said_so() {
    let issuer = Issuer::new();
    let base = || Settings::plaintext().guarding("http://127.0.0.1:1", &issuer);
    let init = |settings: &Settings| {
        portcullis(&["state", "init", "--config", path_text(&settings.write()), "--accept-existing-tokens"])
    };
    for (settings, code, text) in [
        (base().toml("[state]\nstore = \"memory\"\n"), 1, "nothing to create"),
        (base().toml("[state]\npath = \"no/such/folder/state.db\"\n"), 1, "cannot be used"),
        (base().toml("[state]\nstore = \"redis\"\nurl = \"redis://127.0.0.1:1\"\n"), 1, "cannot be used"),
        (base().toml("[state]\npaht = \"state.db\"\n"), 2, "paht"),
    ] {
        let outcome = init(&settings);
        assert_eq!(outcome.code, code, "{outcome:?}");
        assert!(outcome.err.contains(text) && outcome.out.is_empty(), "{text}: {outcome:?}");
    }
    let settings = base().toml("[state]\npath = \"notes.txt\"\n");
    let notes =
        settings.file("notes.txt", "somebody's notes, which are no database of anybody's ".repeat(40));
    let outcome = init(&settings);
    assert!(outcome.code == 1 && outcome.err.contains("not a Portcullis database"), "{outcome:?}");
    assert!(std::fs::read_to_string(notes).unwrap().starts_with("somebody's notes"));
}
