//! Entries that are missing from the shared log: a starting gate notices, logs it and starts nevertheless; a
//! gate that has read them republishes them, and without one the result is as after the loss of the store.

use std::collections::BTreeSet;

use crate::scene::{EVENTS, ORIGIN, Scene, created_at, decision, status};
use testkit::documents::unpromised;
use testkit::eventually;
use testkit::gate::Gate;
use testkit::redis_server::RedisServer;
use testkit::relay::Relay;

/// The damage to a log of five entries.
#[derive(Debug, Clone, Copy)]
enum Harm {
    /// The first four are removed.
    Front,
    /// The first four are removed after the server was emptied and received them again.
    FrontAfterFlush,
    /// One in the middle is removed.
    Middle,
    /// Two entries that are not adjacent are removed.
    TwoPlaces,
    /// The last one is removed.
    End,
    /// The whole stream is removed.
    Stream,
}

const HARMS: [Harm; 6] =
    [Harm::Front, Harm::FrontAfterFlush, Harm::Middle, Harm::TwoPlaces, Harm::End, Harm::Stream];

fn strike(server: &RedisServer, gates: &[Gate], harm: Harm) {
    let entries: Vec<(String, redis::Value)> = server.ask(&["XRANGE", EVENTS, "-", "+"]);
    let remove = |places: &[usize]| {
        for place in places {
            assert_eq!(server.ask::<u64>(&["XDEL", EVENTS, &entries[*place].0]), 1);
        }
    };
    match harm {
        Harm::Front => drop(server.ask::<u64>(&["XTRIM", EVENTS, "MAXLEN", "1"])),
        Harm::FrontAfterFlush => {
            let since = created_at(server);
            server.ask::<String>(&["FLUSHALL"]);
            eventually("the events are there again", || {
                (server.ask::<u64>(&["XLEN", EVENTS]) >= 5 && created_at(server) == since).then_some(())
            });
            have_read_all(server, gates);
            server.ask::<u64>(&["XTRIM", EVENTS, "MAXLEN", "1"]);
        }
        Harm::Middle => remove(&[2]),
        Harm::TwoPlaces => remove(&[1, 3]),
        Harm::End => remove(&[4]),
        Harm::Stream => assert_eq!(server.ask::<u64>(&["DEL", EVENTS]), 1),
    }
}

/// Waits until each gate has read the log to its end: it could not republish what it has not read.
fn have_read_all(server: &RedisServer, gates: &[Gate]) {
    let last: u64 = server.ask(&["HGET", ORIGIN, "last"]);
    for gate in gates {
        eventually("each gate has read the log to its end", || {
            (gate.readiness().1["log"]["sequence"].as_u64() == Some(last)).then_some(())
        });
    }
}

/// Two gates, and five tokens that were revoked through the first.
fn harmed(server: &RedisServer) -> (Scene, Vec<String>) {
    let lines = crate::scene::state(&server.url()).replace("on_empty = \"trust\"\n", "");
    let mut scene = Scene::with(2, &lines);
    let tokens = (0..5).map(|i| scene.token(&format!("t{i}"))).collect();
    for i in 0..5 {
        assert_eq!(scene.revoke(0, &format!("t{i}")).status(), 202);
    }
    scene.refused_everywhere(&scene.token("t4"));
    (scene, tokens)
}

fn gaps(gate: &Gate, held: &str) -> f64 {
    gate.metrics().sum("portcullis_state_gaps_total", &[("held", held)])
}

#[test]
fn a_gap_is_noticed_by_a_gate_that_starts_and_filled_by_one_that_runs() {
    for harm in HARMS {
        eprintln!("{harm:?}");
        let server = RedisServer::start();
        let (mut scene, tokens) = harmed(&server);
        let since = created_at(&server);
        strike(&server, &scene.gates, harm);
        scene.replace(1);
        scene.gates[1].log().wait_for_text("events are missing from the shared log");
        assert!(gaps(&scene.gates[1], "false") >= 1.0, "{harm:?}");
        for token in &tokens {
            for gate in &scene.gates {
                eventually("the token is revoked", || {
                    (decision(gate, token) == "deny/token_revoked").then_some(())
                });
            }
        }
        assert!(gaps(&scene.gates[0], "true") >= 1.0, "{harm:?}: nobody else could fill it");
        assert_eq!(unpromised(&scene.gates[0].metrics()), BTreeSet::new());
        // Last: until every gate has the events again, this may not have changed yet.
        eventually("the other gate vouches for all since the beginning", || {
            (created_at(&server) == since).then_some(())
        });
        // What was filled is no gap for a gate that starts later.
        scene.replace(1);
        assert_eq!(gaps(&scene.gates[1], "false"), 0.0, "{harm:?}");
        assert_eq!(created_at(&server), since, "{harm:?}");
        for token in &tokens {
            assert_eq!(decision(&scene.gates[1], token), "deny/token_revoked", "{harm:?}");
        }
    }
}

#[test]
fn a_gap_that_nobody_can_fill_is_a_loss_and_the_gate_starts() {
    for harm in HARMS {
        eprintln!("{harm:?}");
        let server = RedisServer::start();
        let (mut scene, tokens) = harmed(&server);
        if matches!(harm, Harm::FrontAfterFlush) {
            // Somebody has to be there to fill the server.
            strike(&server, &scene.gates, harm);
        }
        for gate in &mut scene.gates {
            gate.signal("KILL");
            gate.wait_for_exit(testkit::PATIENCE);
        }
        if !matches!(harm, Harm::FrontAfterFlush) {
            strike(&server, &[], harm);
        }
        let settings = scene.gates[1].settings.clone();
        scene.gates[1] = Gate::start(&settings);
        scene.gates[1].log().wait_for_text("events are missing from the shared log");
        for token in &tokens {
            let refused = decision(&scene.gates[1], token);
            assert!(
                ["deny/token_revoked", "deny/before_state"].contains(&refused.as_str()),
                "{harm:?}: {refused}"
            );
        }
        assert!(gaps(&scene.gates[1], "false") >= 1.0, "{harm:?}");
        eventually("a token that is issued now is accepted", || {
            (status(&scene.gates[1], &scene.issuer.good()) == 200).then_some(())
        });
        assert_eq!(scene.revoke(1, "later").status(), 202, "{harm:?}");
    }
}

#[test]
fn a_gate_that_was_away_does_not_vouch_for_what_it_missed() {
    let server = RedisServer::start();
    let (mut scene, _tokens) = harmed(&server);
    let since = created_at(&server);
    // The second gate hangs, with nobody at the other end of its connections, while an event comes, is lost, and its only
    // witness ends.
    scene.gates[1].signal("STOP");
    server.ask::<u64>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    let missed = scene.token("missed");
    eventually("the first gate is back", || (scene.revoke(0, "missed").status() == 202).then_some(()));
    scene.gates[0].signal("KILL");
    scene.gates[0].wait_for_exit(testkit::PATIENCE);
    let last: Vec<(String, redis::Value)> = server.ask(&["XREVRANGE", EVENTS, "+", "-", "COUNT", "1"]);
    server.ask::<u64>(&["XDEL", EVENTS, &last[0].0]);
    scene.gates[1].signal("CONT");
    eventually("the gate says that something is missing", || {
        (decision(&scene.gates[1], &missed) == "deny/before_state").then_some(())
    });
    assert_ne!(created_at(&server), since);
}

/// A gate that has republished what an emptied server lost declares the gaps filled with its last command. If
/// another gate finds a gap just before that command arrives, that gap must be filled first.
#[test]
fn a_gap_that_another_gate_found_meanwhile_is_not_declared_filled() {
    let server = RedisServer::start();
    let relay = Relay::start(server.port, is_lowering);
    let lines = crate::scene::state(&relay.url()).replace("on_empty = \"trust\"\n", "");
    let mut scene = Scene::with(1, &lines);
    let tokens: Vec<String> = (0..5).map(|i| scene.token(&format!("t{i}"))).collect();
    for i in 0..5 {
        assert_eq!(scene.revoke(0, &format!("t{i}")).status(), 202);
    }
    let since = created_at(&server);
    server.ask::<String>(&["FLUSHALL"]);
    relay.wait_until_held();
    assert_ne!(created_at(&server), since, "the command has not arrived");
    have_read_all(&server, &scene.gates);
    server.ask::<u64>(&["XTRIM", EVENTS, "MAXLEN", "1"]);
    // As a gate does that starts now and finds the front missing.
    let now: (i64, i64) = server.ask(&["TIME"]);
    server.ask::<u64>(&["HSET", ORIGIN, "created_at", &((now.0 + 1) * 1_000).to_string()]);
    relay.release();
    eventually("the gate has seen the gap and filled it", || {
        (gaps(&scene.gates[0], "true") >= 1.0 && created_at(&server) == since).then_some(())
    });
    let settings = scene.gates[0].settings.clone();
    scene.gates.push(Gate::start(&settings));
    for token in &tokens {
        for gate in &scene.gates {
            assert_eq!(decision(gate, token), "deny/token_revoked");
        }
    }
    assert_eq!(gaps(&scene.gates[1], "false"), 0.0);
}

/// Whether this is a call of a script on only the log's origin with four arguments: identity, creation, the
/// creation that was read, no retentions; and no gaps.
fn is_lowering(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let on_the_origin = format!("\r\n$1\r\n1\r\n${}\r\n{ORIGIN}\r\n", ORIGIN.len());
    text.split("*8\r\n$7\r\nEVALSHA\r\n").skip(1).any(|call| {
        let sha = "$40\r\n".len() + 40;
        call.get(sha..).is_some_and(|rest| rest.starts_with(&on_the_origin))
    })
}
