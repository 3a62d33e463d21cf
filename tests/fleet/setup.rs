//! Servers with an unsuitable setup: refused at startup, or reported with a warning.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::scene::{Scene, state};
use testkit::documents::unpromised;
use testkit::gate::portcullis;
use testkit::redis_server::RedisServer;
use testkit::settings::Settings;

/// The output of a gate that cannot start, and its exit code.
fn refusal(lines: &str) -> (i32, String) {
    let settings = Settings::plaintext().toml(lines);
    let path = settings.write();
    let outcome = portcullis(&["run", "--config", path.to_str().unwrap()]);
    (outcome.code, outcome.err)
}

#[test]
fn wrong_credentials_a_weak_user_and_a_replica_end_the_start() {
    let guarded = RedisServer::with(&["--requirepass", "secret-of-redis"]);
    let primary = RedisServer::start();
    let replica = RedisServer::replica_of(&primary, &[]);
    let weak = "ACL SETUSER weak on >pw ~portcullis:* -@all +@scripting +@connection +info +role";
    primary.ask::<String>(&weak.split_whitespace().collect::<Vec<_>>());
    for (lines, told) in [
        (state(&guarded.url()), "state.password"),
        (state(&guarded.url()) + "password = \"wrong-secret\"\n", "state.password"),
        (state(&replica.url()), "read-only replica"),
        (state(&primary.url()) + "username = \"weak\"\npassword = \"pw\"\n", "lacks a required permission"),
    ] {
        let (code, said) = refusal(&lines);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(told), "{said}");
        assert!(!said.contains("wrong-secret"), "{said}");
    }
    let good = state(&guarded.url()) + "password = \"secret-of-redis\"\n";
    drop(Scene::with(1, &good));
}

/// Holds docs/configuration.md, Settings: state.url, .username, .password, .ca
#[test]
fn a_user_with_the_documented_permissions_suffices() {
    let server = RedisServer::start();
    let rules = "ACL SETUSER gate on >pw resetkeys ~portcullis:* resetchannels -@all +@scripting +@stream +@hash +@string \
                 +@connection +info +role +time +exists +del";
    server.ask::<String>(&rules.split_whitespace().collect::<Vec<_>>());
    let lines = state(&server.url()) + "username = \"gate\"\npassword = \"pw\"\n";
    let mut scene = Scene::with(2, &lines);
    assert_eq!(scene.revoke(0, "t").status(), 202);
    scene.refused_everywhere(&scene.token("t"));
}

#[test]
fn settings_that_endanger_what_is_kept_are_warned_of() {
    let careless = RedisServer::with(&["--appendonly", "no", "--maxmemory-policy", "allkeys-lru"]);
    let careful = RedisServer::start();
    for (server, expected) in [(&careless, 1.0), (&careful, 0.0)] {
        let scene = Scene::on(server, 1);
        for setting in ["maxmemory-policy", "appendonly"] {
            let told =
                scene.gates[0].metrics().sum("portcullis_state_setup_warnings", &[("setting", setting)]);
            assert_eq!(told, expected, "{setting}");
        }
        assert_eq!(unpromised(&scene.gates[0].metrics()), BTreeSet::new());
        let log = scene.gates[0].log().text();
        assert_eq!(log.contains("set maxmemory-policy noeviction"), expected > 0.0, "{log}");
        assert_eq!(log.contains("set appendonly yes"), expected > 0.0, "{log}");
    }
}

#[test]
fn another_version_under_the_prefix_is_refused() {
    let server = RedisServer::start();
    server.ask::<u64>(&[
        "HSET",
        "portcullis:{portcullis.log}:origin",
        "version",
        "2",
        "id",
        "x",
        "created_at",
        "1",
    ]);
    let (code, said) = refusal(&state(&server.url()));
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("version \"2\"") && said.contains("key_prefix"), "{said}");
    let other = state(&server.url()) + "key_prefix = \"another\"\n";
    let scene = Scene::with(1, &other);
    assert!(
        scene.gates[0].metrics().sum("portcullis_state_age_seconds", &[])
            < Duration::from_secs(10).as_secs_f64()
    );
}
