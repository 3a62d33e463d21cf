//! Proofs of possession across several replicas: used at one, rejected at all.

use serde_json::json;

use crate::scene::{Scene, state};
use testkit::gate::Gate;
use testkit::redis_server::RedisServer;
use testkit::tokens::{Issuer, Signer};
use testkit::wire::Answer;
use testkit::{eventually, now};

const URL: &str = "https://api.test/anything";

/// A client with a key, and a token that is bound to it.
struct Client {
    key: Signer,
    token: String,
}

impl Client {
    fn of(issuer: &Issuer) -> Self {
        let key = Signer::new("ES256", "client");
        let token = issuer.token().claim("cnf", json!({ "jkt": key.thumbprint() })).build();
        Self { key, token }
    }

    fn proof(&self) -> String {
        self.key.proof("GET", URL, Some(&self.token)).build()
    }

    fn send(&self, gate: &Gate, proof: &str) -> Answer {
        let request = gate.get("/anything").field("Authorization", &format!("DPoP {}", self.token));
        request.field("DPoP", proof).send()
    }
}

#[test]
fn a_proof_that_one_replica_took_is_refused_by_all() {
    let server = RedisServer::start();
    let scene = Scene::on(&server, 3);
    let client = Client::of(&scene.issuer);
    for first in 0..3 {
        let proof = client.proof();
        assert_eq!(client.send(&scene.gates[first], &proof).status(), 200);
        for gate in &scene.gates {
            let (answer, decision) = gate.decision(|| client.send(gate, &proof));
            assert_eq!((answer.status(), decision.as_str()), (401, "deny/bad_proof"));
            assert_eq!(answer.json()["error"], "invalid_dpop_proof");
        }
    }
    // It is kept for as long as any replica could accept it, and not for ever.
    let keys: Vec<Vec<u8>> = server.ask(&["KEYS", "portcullis:proof:*"]);
    assert_eq!(keys.len(), 3);
    let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    for key in keys {
        let left: i64 = redis::cmd("PTTL").arg(&key).query(&mut connection).unwrap();
        assert!((90_000..=152_000).contains(&left), "{left}");
    }
}

#[test]
fn of_one_proof_sent_to_all_replicas_at_once_one_passes() {
    let server = RedisServer::start();
    let scene = Scene::on(&server, 3);
    let client = Client::of(&scene.issuer);
    for _ in 0..10 {
        let proof = client.proof();
        let passed = std::thread::scope(|scope| {
            let (client, proof) = (&client, &proof);
            let sent = |gate| scope.spawn(move || client.send(gate, proof).status());
            let sent: Vec<_> = scene.gates.iter().chain(&scene.gates).map(sent).collect();
            sent.into_iter().map(|one| one.join().unwrap()).filter(|status| *status == 200).count()
        });
        assert_eq!(passed, 1);
    }
}

#[test]
fn a_store_that_does_not_answer_lets_no_proof_pass() {
    let mut server = RedisServer::start();
    // Fresh for long, so that proofs alone depend on the server.
    let lines = format!("{}max_staleness = \"10m\"\n", state(&server.url()));
    let scene = Scene::with(2, &lines);
    let client = Client::of(&scene.issuer);
    let used = client.proof();
    assert_eq!(client.send(&scene.gates[0], &used).status(), 200);
    server.kill();
    let proof = client.proof();
    for gate in &scene.gates {
        let (answer, decision) = gate.decision(|| client.send(gate, &proof));
        assert_eq!((answer.status(), decision.as_str()), (503, "unavailable/state_unavailable"));
        assert_eq!(answer.field("retry-after"), Some("1"));
        assert_eq!(answer.json()["error"], "temporarily_unavailable");
        assert!(answer.field("www-authenticate").is_none());
        assert_eq!(
            gate.get("/anything").token(&scene.issuer.good()).send().status(),
            200,
            "bearer tokens pass"
        );
    }
    assert_eq!(client.send(&scene.gates[0], &used).status(), 401, "it is known here that it was used");
    server.start_again();
    for gate in &scene.gates {
        eventually("proofs pass again", || {
            (client.send(gate, &client.proof()).status() == 200).then_some(())
        });
    }
    assert_eq!(client.send(&scene.gates[1], &used).status(), 401, "the server kept what was used");
}

#[test]
fn a_nonce_of_one_replica_is_good_at_the_others() {
    let server = RedisServer::start();
    let lines = format!("{}[dpop]\nnonce = \"required\"\n", state(&server.url()));
    let scene = Scene::with(3, &lines);
    let client = Client::of(&scene.issuer);
    let nonces = scene.gates.iter().map(|gate| {
        let answer = client.send(gate, &client.proof());
        assert_eq!((answer.status(), answer.json()["error"].as_str()), (401, Some("use_dpop_nonce")));
        answer.field("dpop-nonce").unwrap().to_owned()
    });
    for nonce in nonces.collect::<Vec<_>>() {
        for gate in &scene.gates {
            let proof = client.key.proof("GET", URL, Some(&client.token)).claim("nonce", nonce.as_str());
            let answer = client.send(gate, &proof.build());
            assert_eq!(answer.status(), 200, "{}", answer.text());
        }
    }
    let period = now().div_euclid(86_400);
    let kept: Option<Vec<u8>> = server.ask(&["GET", &format!("portcullis:nonces:{period}")]);
    let before: Option<Vec<u8>> = server.ask(&["GET", &format!("portcullis:nonces:{}", period - 1)]);
    assert_eq!(kept.or(before).map(|key| key.len()), Some(32), "one key for all");
}
