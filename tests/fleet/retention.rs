//! What is kept in the shared store, and for how long: by the age that the gates count, whatever the server's clock says.

use crate::scene::{EVENTS, ORIGIN, Scene, decision, state, status};
use testkit::gate::Gate;
use testkit::redis_server::RedisServer;
use testkit::settings::Settings;
use testkit::{eventually, now};

/// A field of the origin.
fn origin(server: &RedisServer, field: &str) -> String {
    server.ask::<Option<String>>(&["HGET", ORIGIN, field]).unwrap_or_default()
}

/// Waits until the gates have advanced the log's age twice.
fn counted(server: &RedisServer) {
    for _ in 0..2 {
        let before = origin(server, "ticked");
        eventually("the gates count", || (origin(server, "ticked") != before).then_some(()));
    }
}

/// Simulates a step of the server's clock by this many milliseconds: stored times lie that much further back.
fn step(server: &RedisServer, by: i64) {
    server.ask::<i64>(&["HINCRBY", ORIGIN, "ticked", &(-by).to_string()]);
    let stamp = ORIGIN.replace("origin", "stamp");
    server.ask::<i64>(&["INCRBY", &stamp, &(-by).to_string()]);
}

#[test]
fn a_servers_clock_that_steps_forgets_no_event() {
    const DAY: i64 = 86_400_000;
    // Else a few entries are never removed, however old they are.
    let server = RedisServer::with(&["--stream-node-max-entries", "1"]);
    let mut scene = Scene::on(&server, 2);
    let mut revoked = vec!["first".to_owned()];
    assert_eq!(scene.revoke(0, "first").status(), 202);
    counted(&server);
    for by in [3 * DAY, -3 * DAY, 400 * DAY, -397 * DAY, 1_000, -1_000] {
        let before: f64 = origin(&server, "ticks").parse().unwrap();
        for _ in 0..3 {
            step(&server, by);
            counted(&server);
        }
        let jti = format!("after{by}");
        assert_eq!(scene.revoke(0, &jti).status(), 202);
        revoked.push(jti);
        let age = origin(&server, "ticks").parse::<f64>().unwrap() - before;
        assert!((0.0..600_000.0).contains(&age), "{by}: {age} ms for a few heartbeats");
        scene.replace(1);
        for jti in &revoked {
            let token = scene.token(jti);
            for gate in &scene.gates {
                eventually(&format!("{jti} is revoked after {by}"), || {
                    (decision(gate, &token) == "deny/token_revoked").then_some(())
                });
            }
        }
        assert_eq!(scene.gates[1].metrics().sum("portcullis_state_gaps_total", &[]), 0.0, "{by}");
        assert_eq!(
            scene.gates[0].readiness().0,
            200,
            "a stamp from another time is no proof, and is renewed"
        );
    }
}

#[test]
fn what_is_old_enough_leaves_the_log_and_is_no_gap() {
    let server = RedisServer::with(&["--stream-node-max-entries", "1"]);
    let lines = state(&server.url()).replace("on_empty = \"trust\"\n", "");
    let mut scene = Scene::with(2, &lines);
    for i in 0..5 {
        assert_eq!(scene.revoke(0, &format!("t{i}")).status(), 202);
    }
    let created_at = origin(&server, "created_at");
    // The gates keep events for a day and more: ten days go by, a mark is set, and ten more.
    for _ in 0..2 {
        counted(&server);
        let before = origin(&server, "marks");
        server.ask::<i64>(&["HINCRBY", ORIGIN, "ticks", "864000000"]);
        eventually("a mark is set", || (origin(&server, "marks") != before).then_some(()));
    }
    eventually("the events leave", || (server.ask::<u64>(&["XLEN", EVENTS]) == 0).then_some(()));
    scene.replace(1);
    assert_eq!(scene.gates[1].metrics().sum("portcullis_state_gaps_total", &[]), 0.0);
    assert_eq!(origin(&server, "created_at"), created_at);
    assert_eq!(scene.revoke(1, "later").status(), 202);
    scene.refused_everywhere(&scene.token("later"));
    assert!(origin(&server, "marks").split(',').count() < 70, "{}", origin(&server, "marks"));
}

/// A starting gate has never seen the events that were trimmed because of their age.
#[test]
fn a_lifetime_that_grows_revives_no_token_from_before_an_event_that_left() {
    const DAY: i64 = 86_400;
    let server = RedisServer::with(&["--stream-node-max-entries", "1"]);
    let lines = format!("{}[sessions]\nidle_timeout = \"0s\"\n", state(&server.url()));
    let mut scene = Scene::with(1, &lines);
    assert_eq!(scene.revoke(0, "ended").status(), 202);
    for _ in 0..2 {
        counted(&server);
        let before = origin(&server, "marks");
        server.ask::<i64>(&["HINCRBY", ORIGIN, "ticks", &(10 * DAY * 1_000).to_string()]);
        eventually("a mark is set", || (origin(&server, "marks") != before).then_some(()));
    }
    eventually("the event leaves", || (server.ask::<u64>(&["XLEN", EVENTS]) == 0).then_some(()));
    let longer = || {
        let settings = Settings::plaintext().upstream("api", &scene.app.url(), "");
        let settings = settings.issuer_with(&scene.issuer, "max_lifetime = \"40d\"").route("/{*rest}", "");
        settings.admin().toml(&lines)
    };
    // One that sees the log for the first time, and one that has followed it all along.
    let new = Gate::start(&longer());
    let running = &scene.gates[0];
    std::fs::write(running.settings.write(), longer().to_toml()).unwrap();
    running.settings.file(&format!("jwks-{}.json", scene.issuer.slug()), scene.issuer.jwks().to_string());
    running.signal("HUP");
    running.wait_for_reloads("ok", 1.0);
    for (days, expected) in
        [(12, "deny/before_state"), (11, "deny/before_state"), (9, "allow/none"), (0, "allow/none")]
    {
        let issued_at = now() - days * DAY;
        let token = scene.issuer.token().claim("jti", "ended").claim("iat", issued_at);
        let token = token.claim("exp", issued_at + 30 * DAY).build();
        assert_eq!(decision(&new, &token), expected, "{days} days old");
        if days > 10 {
            // It still holds the event itself.
            assert_eq!(decision(running, &token), "deny/token_revoked", "{days} days old");
        }
    }
    // The new gate has never seen the event, and passes what it knows to a recreated log.
    let settings = longer();
    scene.gates[0].signal("KILL");
    scene.gates[0].wait_for_exit(testkit::PATIENCE);
    let dropped = origin(&server, "dropped");
    let (retention, _) = dropped.split_once(':').unwrap();
    server.ask::<String>(&["FLUSHALL"]);
    eventually("the log is there again", || {
        (origin(&server, "dropped") == format!("{retention}:0")).then_some(())
    });
    let newer = Gate::start(&settings);
    for gate in [&new, &newer] {
        let issued_at = now() - 12 * DAY;
        let token = scene.issuer.token().claim("jti", "ended").claim("iat", issued_at);
        let token = token.claim("exp", issued_at + 30 * DAY).build();
        assert_eq!(decision(gate, &token), "deny/before_state");
        assert_eq!(decision(gate, &scene.issuer.good()), "allow/none");
    }
}

#[test]
fn a_log_that_was_created_by_a_clock_that_was_ahead_is_from_now() {
    let server = RedisServer::start();
    let lines = state(&server.url()).replace("on_empty = \"trust\"\n", "");
    let mut scene = Scene::with(1, &lines);
    scene.gates[0].signal("KILL");
    scene.gates[0].wait_for_exit(testkit::PATIENCE);
    let ahead = (now() + 3_600) * 1000;
    server.ask::<u64>(&["HSET", ORIGIN, "created_at", &ahead.to_string()]);
    let settings = scene.gates[0].settings.clone();
    scene.gates[0] = Gate::start(&settings);
    eventually("a token that is issued now is accepted", || {
        (status(&scene.gates[0], &scene.issuer.good()) == 200).then_some(())
    });
    eventually("the log says so, too", || {
        (origin(&server, "created_at").parse::<i64>().unwrap() <= now() * 1000 + 1_000).then_some(())
    });
}

#[test]
fn the_retention_that_any_gate_asked_for_stands() {
    let server = RedisServer::start();
    let scene = Scene::on(&server, 1);
    counted(&server);
    let kept: u64 = origin(&server, "kept").parse().unwrap();
    let longer = Settings::plaintext().upstream("api", &scene.app.url(), "");
    let longer = longer.issuer_with(&scene.issuer, "max_lifetime = \"72h\"").route("/{*rest}", "").admin();
    let longer = Gate::start(&longer.toml(&state(&server.url())));
    eventually("the longer one counts without an event", || {
        (origin(&server, "kept").parse::<u64>().unwrap() >= kept + 48 * 3_600_000).then_some(())
    });
    drop(longer);
    counted(&server);
    assert!(origin(&server, "kept").parse::<u64>().unwrap() > kept);
}

#[test]
fn the_mark_of_an_idle_token_lives_as_long_as_any_token() {
    let server = RedisServer::start();
    let scene = Scene::with(1, &format!("{}[sessions]\nidle_timeout = \"1s\"\n", state(&server.url())));
    let token = scene.issuer.token().claim("iat", now() - 10).build();
    assert_eq!(decision(&scene.gates[0], &token), "deny/idle");
    let keys: Vec<Vec<u8>> = server.ask(&["KEYS", "portcullis:{??}:*"]);
    let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let mark: i64 = redis::cmd("GET").arg(&keys[0]).query(&mut connection).unwrap();
    let left: i64 = redis::cmd("PTTL").arg(&keys[0]).query(&mut connection).unwrap();
    assert_eq!(mark, -1);
    assert!(left > 24 * 3_600_000 - 60_000, "{left}");
}

#[test]
fn last_uses_are_kept_for_as_long_as_the_settings_in_force_ask() {
    let server = RedisServer::start();
    let scene = Scene::with(1, &format!("{}[sessions]\nidle_timeout = \"10m\"\n", state(&server.url())));
    let token = scene.issuer.good();
    assert_eq!(status(&scene.gates[0], &token), 200);
    let key: Vec<u8> = eventually("the use is written", || {
        server.ask::<Vec<Vec<u8>>>(&["KEYS", "portcullis:{??}:*"]).into_iter().next()
    });
    let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let mut left = move || redis::cmd("PTTL").arg(&key).query::<i64>(&mut connection).unwrap();
    assert!(left() <= 11 * 60_000);
    let settings = scene.gates[0].settings.clone();
    let path = settings.write();
    let text =
        std::fs::read_to_string(&path).unwrap().replace("idle_timeout = \"10m\"", "idle_timeout = \"6h\"");
    std::fs::write(&path, text).unwrap();
    scene.gates[0].signal("HUP");
    scene.gates[0].wait_for_reloads("ok", 1.0);
    eventually("the last use is kept for longer, without another", || (left() > 5 * 3_600_000).then_some(()));
}
