//! Events of one replica take effect on all: in force, listed, undone, and never lost while a replica holds them.

use serde_json::json;

use crate::scene::{Scene, admin, created_at, decision, publish, status};
use testkit::eventually;
use testkit::redis_server::RedisServer;

#[test]
fn an_event_on_one_replica_is_in_force_on_all() {
    let server = RedisServer::start();
    let mut scene = Scene::on(&server, 3);
    for (index, jti) in ["a", "b", "c"].into_iter().enumerate() {
        let token = scene.token(jti);
        for gate in &scene.gates {
            assert_eq!(status(gate, &token), 200);
        }
        let answer = scene.revoke(index, jti);
        assert_eq!(answer.status(), 202, "{}", answer.text());
        assert_eq!(decision(&scene.gates[index], &token), "deny/token_revoked", "where it was acknowledged");
        scene.refused_everywhere(&token);
    }
    let listed =
        |scene: &mut Scene, gate: usize| admin(&mut scene.gates[gate], "GET", "/v1/events", None).json();
    let first = listed(&mut scene, 0);
    assert_eq!(first["items"].as_array().unwrap().len(), 3, "{first}");
    assert_eq!(listed(&mut scene, 1), first, "the same ids everywhere");
    assert_eq!(listed(&mut scene, 2), first);
    let told = scene.gates[1].metrics();
    assert_eq!(told.sum("portcullis_events_total", &[("source", "replica"), ("type", "token-revoked")]), 2.0);
}

#[test]
fn an_event_is_taken_back_everywhere_and_stays_so() {
    let server = RedisServer::start();
    let mut scene = Scene::on(&server, 2);
    let token = scene.issuer.good();
    let event = json!({"type": "subject-revoked", "subject": "alice", "at": testkit::now()});
    let sequence = publish(&mut scene.gates[0], &event).json()["sequence"].as_u64().unwrap();
    scene.refused_everywhere(&token);
    let undone = admin(&mut scene.gates[1], "DELETE", &format!("/v1/revocations/{sequence}"), None);
    assert_eq!(undone.status(), 204, "{}", undone.text());
    for gate in &scene.gates {
        eventually("the token is good again", || (status(gate, &token) == 200).then_some(()));
    }
    let again = publish(&mut scene.gates[0], &event);
    assert_eq!((again.status(), again.json()["sequence"].as_u64()), (202, Some(sequence)));
    scene.replace(0);
    for gate in &scene.gates {
        assert_eq!(status(gate, &token), 200, "an undone event came back");
    }
}

#[test]
fn a_replica_that_starts_replays_what_still_matters() {
    let mut server = RedisServer::start();
    let mut scene = Scene::on(&server, 2);
    let tokens: Vec<String> = (0..50).map(|i| scene.token(&format!("t{i}"))).collect();
    for i in 0..50 {
        assert_eq!(scene.revoke(i % 2, &format!("t{i}")).status(), 202);
    }
    scene.replace(0);
    server.kill();
    server.start_again();
    scene.replace(1);
    for token in &tokens {
        assert_eq!(decision(&scene.gates[0], token), "deny/token_revoked");
        assert_eq!(decision(&scene.gates[1], token), "deny/token_revoked");
    }
}

#[test]
fn an_emptied_server_gets_everything_again() {
    let server = RedisServer::start();
    let mut scene = Scene::on(&server, 2);
    let tokens: Vec<String> = (0..20).map(|i| scene.token(&format!("t{i}"))).collect();
    for i in 0..20 {
        assert_eq!(scene.revoke(i % 2, &format!("t{i}")).status(), 202);
    }
    let kept = scene.token("kept");
    assert_eq!(status(&scene.gates[0], &kept), 200);
    for _ in 0..2 {
        server.ask::<String>(&["FLUSHALL"]);
        eventually("the events are there again", || {
            let length: Option<u64> = server.ask(&["XLEN", "portcullis:{portcullis.log}:events"]);
            (length? >= 20).then_some(())
        });
    }
    // Of both gates none is left that held them in memory.
    scene.replace(0);
    scene.replace(1);
    for token in &tokens {
        assert_eq!(decision(&scene.gates[0], token), "deny/token_revoked");
        assert_eq!(decision(&scene.gates[1], token), "deny/token_revoked");
    }
    assert_eq!(status(&scene.gates[1], &kept), 200);
}

#[test]
fn a_flush_does_not_end_older_tokens_once_the_events_are_back() {
    let server = RedisServer::start();
    let lines = crate::scene::state(&server.url()).replace("on_empty = \"trust\"\n", "");
    let mut scene = Scene::with(1, &lines);
    let (before, since) = (testkit::now(), created_at(&server).unwrap());
    let token = eventually("a token issued after the store was created", || {
        let token = scene.issuer.token().claim("iat", testkit::now()).build();
        (testkit::now() > before + 1 && status(&scene.gates[0], &token) == 200).then_some(token)
    });
    assert_eq!(scene.revoke(0, "gone").status(), 202);
    server.ask::<String>(&["FLUSHALL"]);
    eventually("the store is whole again", || (created_at(&server)? == since).then_some(()));
    scene.replace(0);
    assert_eq!(status(&scene.gates[0], &token), 200, "the store's creation moved back to where it was");
    server.ask::<String>(&["FLUSHALL"]);
    scene.gates[0].signal("KILL");
    let older = scene.issuer.token().claim("iat", before - 100).build();
    let settings = scene.gates[0].settings.clone();
    server.ask::<String>(&["FLUSHALL"]);
    scene.gates[0] = testkit::gate::Gate::start(&settings);
    assert_eq!(decision(&scene.gates[0], &older), "deny/before_state", "nobody was left who knew");
}
