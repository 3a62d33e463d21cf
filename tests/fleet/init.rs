//! `portcullis state init` on a shared server: who creates the store decides how earlier tokens are treated.

use std::collections::BTreeMap;

use crate::scene::{ORIGIN, Scene, decision, state};
use testkit::gate::{Outcome, portcullis};
use testkit::now;
use testkit::redis_server::RedisServer;
use testkit::settings::Settings;

const ACCEPT: &str = "--accept-existing-tokens";

/// `[state]` as in production: a new store rejects earlier tokens.
fn strict(url: &str) -> String {
    state(url).replace("on_empty = \"trust\"\n", "")
}

fn init(lines: &str, options: &[&str]) -> Outcome {
    let settings = Settings::plaintext().toml(lines);
    let path = settings.write();
    portcullis(&[&["state", "init", "--config", path.to_str().unwrap()], options].concat())
}

fn origin(server: &RedisServer) -> BTreeMap<String, String> {
    server.ask(&["HGETALL", ORIGIN])
}

#[test]
fn tokens_from_before_the_store_are_accepted_only_when_it_was_made_so() {
    for (made, expected) in [
        (None, "deny/before_state"),
        (Some(&[][..]), "deny/before_state"),
        (Some(&[ACCEPT][..]), "allow/none"),
    ] {
        let server = RedisServer::start();
        if let Some(options) = made {
            let outcome = init(&strict(&server.url()), options);
            assert_eq!((outcome.code, outcome.err.as_str()), (0, ""), "{}", outcome.out);
            let said = if options.is_empty() { "are refused" } else { "are accepted" };
            assert!(outcome.out.contains(said) && outcome.out.contains("portcullis"), "{}", outcome.out);
        }
        let mut scene = Scene::with(2, &strict(&server.url()));
        let older = |jti: &str| scene.issuer.token().claim("jti", jti).claim("iat", now() - 600).build();
        let (first, second) = (older("first"), older("second"));
        for gate in &scene.gates {
            assert_eq!(decision(gate, &first), expected, "{made:?}");
            assert_eq!(decision(gate, &scene.issuer.good()), "allow/none", "{made:?}");
        }
        // What is revoked is revoked all the same.
        assert_eq!(scene.revoke(0, "second").status(), 202);
        scene.refused_everywhere(&second);
    }
}

#[test]
fn a_store_that_exists_is_left_as_it_is() {
    let server = RedisServer::start();
    let lines = strict(&server.url());
    assert_eq!(init(&lines, &[]).code, 0);
    let made = origin(&server);
    assert!(made.contains_key("id"), "{made:?}");
    let is_refused = |when: &str| {
        for options in [&[][..], &[ACCEPT]] {
            let outcome = init(&lines, options);
            assert_eq!((outcome.code, outcome.out.as_str()), (1, ""), "{when}");
            assert!(outcome.err.contains("already exists"), "{when}: {}", outcome.err);
        }
    };
    is_refused("beside an empty store");
    assert_eq!(origin(&server), made);
    let mut scene = Scene::with(1, &lines);
    assert_eq!(scene.revoke(0, "t").status(), 202);
    is_refused("beside a gate that uses it");
    let kept = origin(&server);
    assert_eq!((&kept["id"], &kept["created_at"]), (&made["id"], &made["created_at"]));
    scene.refused_everywhere(&scene.token("t"));
    // Another prefix is another store.
    let outcome = init(&format!("{lines}key_prefix = \"another\"\n"), &[]);
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    assert!(outcome.out.contains("\"another\""), "{}", outcome.out);
}

#[test]
fn a_server_that_cannot_be_used_is_named() {
    let replica_of = RedisServer::start();
    let replica = RedisServer::replica_of(&replica_of, &[]);
    let guarded = RedisServer::with(&["--requirepass", "secret-of-redis"]);
    for (url, told) in [
        ("redis://127.0.0.1:1".to_owned(), "127.0.0.1:1"),
        (replica.url(), "read-only replica"),
        (guarded.url(), "state.password"),
    ] {
        let outcome = init(&strict(&url), &[ACCEPT]);
        assert_eq!((outcome.code, outcome.out.as_str()), (1, ""), "{url}");
        assert!(outcome.err.contains(told), "{}", outcome.err);
    }
}
