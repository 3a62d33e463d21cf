//! A transmitter's stream in a fleet: one gate maintains it and polls, all receive its heartbeat, and another takes over.

use serde_json::json;

use crate::scene::{Scene, state, status};
use testkit::app::{App, Speaks};
use testkit::eventually;
use testkit::gate::Gate;
use testkit::redis_server::RedisServer;
use testkit::tokens::Issuer;
use testkit::transmitter::SignalTransmitter;

const OWNER: &str = "portcullis:{portcullis.signals.t}:owner";

/// Starts gates on one server that share a transmitter, with these lines in its two tables.
fn fleet(server: &RedisServer, gates: usize, lines: &str, stream: &str) -> (SignalTransmitter, Scene) {
    let transmitter = SignalTransmitter::start();
    let issuer = Issuer::new();
    let table = transmitter.toml(&issuer.name, lines, stream);
    // What docs/scale.md lets the user of a gate do.
    let rules = "ACL SETUSER gate on >pw resetkeys ~portcullis:* resetchannels -@all +@scripting +@stream +@hash +@string \
                 +@connection +info +role +time +exists +del";
    server.ask::<String>(&rules.split_whitespace().collect::<Vec<_>>());
    let lines = state(&server.url()) + "username = \"gate\"\npassword = \"pw\"\n" + &table;
    let scene = Scene::of(issuer, App::start(Speaks::Http1), gates, &lines);
    (transmitter, scene)
}

/// The gate that maintains the stream.
fn owner(gates: &[Gate]) -> usize {
    eventually("a gate keeps the stream", || {
        gates.iter().position(|gate| gate.log().text().contains("this gate maintains the stream"))
    })
}

fn condition(gate: &Gate) -> String {
    gate.readiness().1["components"]["signals:t"].as_str().unwrap_or_default().to_owned()
}

/// Holds docs/operations.md, Failure modes: the gate that maintains a transmitter's stream dies
#[test]
fn one_gate_keeps_the_stream_and_another_takes_over_without_losing_a_signal() {
    let server = RedisServer::start();
    let (transmitter, mut scene) = fleet(&server, 2, "delivery = \"poll\"\nheartbeat = \"1s\"", "");
    let first = owner(&scene.gates);
    let id = transmitter.stream();
    let tokens: Vec<String> = (0..60)
        .map(|number| scene.issuer.token().claim("sub", format!("subject-{number}")).build())
        .collect();
    let mut offered = Vec::new();
    let mut offer = |range: std::ops::Range<usize>| {
        for number in range {
            let signal = transmitter.session_revoked(&scene.issuer.name, &format!("subject-{number}"));
            offered.push(signal.0.clone());
            transmitter.offer(signal);
        }
    };
    offer(0..20);
    eventually("some are acknowledged", || (!transmitter.state().acknowledged.is_empty()).then_some(()));
    offer(20..40);
    scene.gates[first].kill();
    offer(40..60);
    let survivor = &scene.gates[1 - first];
    eventually("every signal is acknowledged", || {
        let acknowledged = transmitter.state().acknowledged.clone();
        offered.iter().all(|jti| acknowledged.contains(jti)).then_some(())
    });
    for token in &tokens {
        assert_eq!(status(survivor, token), 401);
    }
    assert_eq!(owner(&scene.gates[1 - first..][..1]), 0, "the other one keeps it now");
    assert_eq!(transmitter.state().streams.keys().collect::<Vec<_>>(), [&id], "the same stream");
    assert_eq!(transmitter.calls("POST", "/streams").len(), 1);
    assert!(!survivor.log().text().contains("signals_gap"));
    let settings = scene.gates[first].settings.clone();
    scene.gates[first] = Gate::start(&settings);
    let polls = transmitter.calls("POST", "/poll").len();
    transmitter.wait_for("POST", "/poll", polls + 3);
    assert!(!scene.gates[first].log().text().contains("this gate maintains the stream"), "one at a time");
}

#[test]
fn a_gate_that_ends_gives_the_stream_up() {
    let server = RedisServer::start();
    let (transmitter, mut scene) = fleet(&server, 2, "heartbeat = \"1h\"", "");
    let first = owner(&scene.gates);
    transmitter.stream();
    let holder: String = server.ask(&["GET", OWNER]);
    scene.gates[first].stop();
    let next: Option<String> = server.ask(&["GET", OWNER]);
    assert_ne!(next, Some(holder), "nobody waits for the end of the lease");
    owner(&scene.gates[1 - first..][..1]);
}

#[test]
fn a_heartbeat_that_arrives_at_one_gate_counts_at_all() {
    let server = RedisServer::start();
    let lines = "heartbeat = \"2s\"\nwhen_stale = \"refuse\"";
    let (transmitter, scene) = fleet(&server, 2, lines, "");
    let first = owner(&scene.gates);
    let token = scene.issuer.good();
    // The load balancer happens to choose the gate that does not keep the stream.
    transmitter.state().push_to = Some(scene.gates[1 - first].public);
    eventually("verifications are accepted", || {
        (transmitter.state().pushed.iter().filter(|status| **status == 202).count() >= 4).then_some(())
    });
    for gate in &scene.gates {
        assert_eq!((condition(gate).as_str(), status(gate, &token)), ("ok", 200));
        let age = gate.metrics().sum("portcullis_signals_age_seconds", &[("transmitter", "t")]);
        assert!(age < 4.0, "{age}: nothing was confirmed since the start");
    }
    assert!(!transmitter.state().pushed.contains(&400), "the state is known to both");
    transmitter.state().verifies = false;
    for gate in &scene.gates {
        eventually("the gate refuses", || (status(gate, &token) == 503).then_some(()));
        assert!(condition(gate).starts_with("stale: no heartbeat"), "{}", condition(gate));
    }
    transmitter.state().verifies = true;
    for gate in &scene.gates {
        eventually("the gate accepts again", || (status(gate, &token) == 200).then_some(()));
    }
    assert_eq!(transmitter.push(&transmitter.stream_updated("paused")).status(), 202);
    transmitter.state().status = "paused";
    for gate in &scene.gates {
        eventually("the gate refuses", || (status(gate, &token) == 503).then_some(()));
        eventually("it says why", || {
            (condition(gate) == "stale: the transmitter has stopped sending signals").then_some(())
        });
    }
    transmitter.state().status = "enabled";
    assert_eq!(transmitter.push(&transmitter.stream_updated("enabled")).status(), 202);
    for gate in &scene.gates {
        eventually("the gate accepts again", || (status(gate, &token) == 200).then_some(()));
    }
}

#[test]
fn a_subject_that_another_gate_sees_is_added_by_the_one_that_keeps_the_stream() {
    let server = RedisServer::start();
    let (transmitter, scene) = fleet(&server, 2, "heartbeat = \"0s\"", "add_subjects = true");
    let first = owner(&scene.gates);
    transmitter.stream();
    let named = |subject: &str| json!({"format": "iss_sub", "iss": scene.issuer.name, "sub": subject});
    for (gate, subject, count) in [(1 - first, "alice", 1), (first, "bob", 2), (first, "alice", 2)] {
        let token = scene.issuer.token().claim("sub", subject).build();
        assert_eq!(status(&scene.gates[gate], &token), 200);
        let added = transmitter.wait_for("POST", "/subjects", count);
        assert!(added.iter().any(|call| call.body["subject"] == named(subject)), "{added:?}");
        assert_eq!(added.len(), count);
    }
}
