//! The server is dead, hanging, full or rejecting writes while requests arrive.

use std::time::Duration;

use serde_json::json;

use crate::scene::{Scene, publish, state, status};
use testkit::gate::Gate;
use testkit::redis_server::RedisServer;
use testkit::settings::Settings;
use testkit::{eventually, within};

fn with_staleness(server: &RedisServer, gates: usize, staleness: &str) -> Scene {
    Scene::with(gates, &format!("{}max_staleness = \"{staleness}\"\n", state(&server.url())))
}

/// Requests succeed at first, then get 503; soon after `repair`, without a restart, everything works again.
fn survives(
    mut server: RedisServer,
    harm: impl FnOnce(&mut RedisServer),
    repair: impl FnOnce(&mut RedisServer),
) {
    let mut scene = with_staleness(&server, 2, "3s");
    let token = scene.issuer.good();
    for gate in &scene.gates {
        assert_eq!(status(gate, &token), 200);
    }
    harm(&mut server);
    assert_eq!(status(&scene.gates[0], &token), 200, "known good for as long as max_staleness");
    let refused = scene.revoke(0, "late");
    assert_eq!(refused.status(), 503, "{}", refused.text());
    for gate in &scene.gates {
        eventually("the state is too old", || (status(gate, &token) == 503).then_some(()));
        let answer = gate.get("/anything").token(&token).send();
        assert!(answer.field("retry-after").is_some());
        assert_eq!(answer.json()["error"], "temporarily_unavailable");
        eventually("the gate is not ready", || (gate.readiness().0 == 503).then_some(()));
        assert_ne!(gate.readiness().1["components"]["state"], "ok");
        assert!(gate.metrics().sum("portcullis_state_age_seconds", &[]) > 3.0);
        assert!(gate.metrics().sum("portcullis_decisions_total", &[("reason", "state_unavailable")]) > 0.0);
    }
    repair(&mut server);
    for gate in &scene.gates {
        within(Duration::from_secs(5), "the gate is back", || (status(gate, &token) == 200).then_some(()));
        gate.wait_until_ready();
    }
    assert_eq!(scene.revoke(0, "again").status(), 202);
    scene.refused_everywhere(&scene.token("again"));
}

/// Holds docs/configuration.md, Settings: state.max_staleness
/// Holds docs/concepts.md, What a request meets: keys or shared state unavailable, or a limit reached
/// Holds docs/operations.md, Failure modes: Redis is unreachable, hangs, is read-only or full
#[test]
fn a_hanging_server_is_noticed_and_its_return_too() {
    survives(RedisServer::start(), |server| server.signal("STOP"), |server| server.signal("CONT"));
}

/// Holds docs/operations.md, Failure modes: Redis is unreachable, hangs, is read-only or full
#[test]
fn a_dead_server_is_noticed_and_its_return_too() {
    survives(RedisServer::start(), RedisServer::kill, RedisServer::start_again);
}

/// Holds docs/operations.md, Failure modes: Redis is unreachable, hangs, is read-only or full
#[test]
fn a_server_that_is_made_a_replica_confirms_nothing() {
    survives(
        RedisServer::start(),
        |server| drop(server.ask::<String>(&["REPLICAOF", "127.0.0.1", "1"])),
        |server| drop(server.ask::<String>(&["REPLICAOF", "NO", "ONE"])),
    );
}

#[test]
fn a_server_that_lost_its_replicas_confirms_nothing() {
    survives(
        RedisServer::start(),
        |server| drop(server.ask::<String>(&["CONFIG", "SET", "min-replicas-to-write", "1"])),
        |server| drop(server.ask::<String>(&["CONFIG", "SET", "min-replicas-to-write", "0"])),
    );
}

#[test]
fn a_server_that_cannot_persist_confirms_nothing() {
    let saved = |server: &RedisServer, outcome: &str| {
        server.ask::<String>(&["BGSAVE"]);
        eventually("the snapshot is over", || {
            let info: String = server.ask(&["INFO", "persistence"]);
            info.contains(&format!("rdb_last_bgsave_status:{outcome}")).then_some(())
        });
    };
    let in_the_way = |server: &RedisServer| server.folder().join("dump.rdb");
    survives(
        RedisServer::with(&["--save", "3600 1"]),
        |server| {
            std::fs::create_dir(in_the_way(server)).unwrap();
            saved(server, "err");
        },
        |server| {
            std::fs::remove_dir(in_the_way(server)).unwrap();
            saved(server, "ok");
        },
    );
}

/// A former primary that a failover left behind still answers queries as if nothing had happened.
#[test]
fn a_primary_that_was_replaced_ends_service_instead_of_hiding_revocations() {
    let old = RedisServer::with(&["--min-replicas-to-write", "1"]);
    let new = RedisServer::replica_of(&old, &[]);
    let scene = with_staleness(&old, 1, "2s");
    let (token, other) = (scene.issuer.good(), scene.token("other"));
    assert_eq!(status(&scene.gates[0], &token), 200);
    new.ask::<String>(&["REPLICAOF", "NO", "ONE"]);
    let beyond = Settings::plaintext().guarding(&scene.app.url(), &scene.issuer).admin();
    let mut beyond = Gate::start(&beyond.toml(&state(&new.url())));
    let event = json!({"type": "subject-revoked", "subject": "alice"});
    assert_eq!(publish(&mut beyond, &event).status(), 202);
    eventually("the token ends there", || (status(&beyond, &token) == 401).then_some(()));
    eventually("the old primary takes no writes", || {
        old.try_ask::<String>(&["SET", "x", "y"])
            .is_err_and(|error| error.code() == Some("NOREPLICAS"))
            .then_some(())
    });
    eventually("its gate is stale", || (status(&scene.gates[0], &token) == 503).then_some(()));
    eventually("its gate is not ready", || (scene.gates[0].readiness().0 == 503).then_some(()));
    let why = scene.gates[0].readiness().1["components"]["state"].to_string();
    assert!(why.contains("NOREPLICAS"), "{why}");
    scene.gates[0].log().wait_for_text("rejects writes");
    // It stays so for as long as the server does, and ends when the server takes writes again.
    for _ in 0..20 {
        assert_eq!(status(&scene.gates[0], &other), 503);
    }
    old.ask::<String>(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    eventually("its gate is back", || (status(&scene.gates[0], &other) == 200).then_some(()));
}

#[test]
fn a_full_server_takes_no_events_and_requests_go_on() {
    let server = RedisServer::start();
    let mut scene = with_staleness(&server, 1, "1s");
    let token = scene.issuer.good();
    assert_eq!(status(&scene.gates[0], &token), 200);
    server.ask::<String>(&["CONFIG", "SET", "maxmemory", "1mb"]);
    let refused = publish(&mut scene.gates[0], &json!({"type": "token-revoked", "jti": "late"}));
    assert_eq!(refused.status(), 503);
    assert!(refused.text().contains("maxmemory"), "{}", refused.text());
    // It is in charge: it still takes writes that need no memory. So nothing is missed.
    let failures = || scene.gates[0].metrics().sum("portcullis_state_errors_total", &[("kind", "full")]);
    let before = failures();
    eventually("time enough for the state to be too old", || {
        assert_eq!(status(&scene.gates[0], &token), 200);
        (failures() > before + 10.0).then_some(())
    });
    server.ask::<String>(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(scene.revoke(0, "again").status(), 202);
}

#[test]
fn without_a_server_at_the_start_the_gate_waits_for_it() {
    let mut server = RedisServer::start();
    server.kill();
    let (app, issuer) =
        (testkit::app::App::start(testkit::app::Speaks::Http1), testkit::tokens::Issuer::new());
    let settings = testkit::settings::Settings::plaintext()
        .upstream("api", &app.url(), "")
        .issuer(&issuer)
        .route("/open", "anonymous = true")
        .route("/{*rest}", "")
        .admin()
        .toml(&state(&server.url()));
    let gate = testkit::gate::Gate::launch(&settings);
    assert_eq!(gate.readiness().0, 503);
    assert_eq!(status(&gate, &issuer.good()), 503);
    assert_eq!(gate.get("/open").send().status(), 200);
    server.start_again();
    gate.wait_until_ready();
    assert_eq!(status(&gate, &issuer.good()), 200);
}

#[test]
fn a_stream_is_cut_when_the_state_is_too_old_and_not_before() {
    let (server, staleness) = (RedisServer::start(), 2);
    let lines = format!("{}max_staleness = \"{staleness}s\"\n", state(&server.url()));
    let scene = Scene::with(1, &format!("{lines}[streams]\ncheck_interval = \"100ms\"\n"));
    let (gate, token) = (&scene.gates[0], scene.issuer.good());
    let mut wire = gate.connect();
    wire.send(gate.get("/events").token(&token).bytes()).unwrap();
    assert_eq!(wire.head().unwrap().status, 200);
    scene.app.emit("tick");
    assert!(wire.chunk().unwrap().is_some());
    let since = std::time::Instant::now();
    server.signal("STOP");
    assert!(wire.chunk().is_err(), "the stream ended in order, or went on");
    assert!(since.elapsed() >= Duration::from_secs(staleness - 1), "cut before its time");
    gate.wait_for_metric("the cut is counted", |metrics| {
        (metrics.sum("portcullis_streams_cut_total", &[("reason", "state_unavailable")]) == 1.0).then_some(())
    });
    server.signal("CONT");
    eventually("the gate is back", || (status(gate, &token) == 200).then_some(()));
}
