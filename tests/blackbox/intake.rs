//! Where identity providers send signals without an admin token: on the public listener, or on one of its own.

use std::net::SocketAddr;

use serde_json::{Value, json};

use testkit::gate::{Gate, field, message};
use testkit::raw_upstream::RawUpstream;
use testkit::settings::Settings;
use testkit::tokens::{Issuer, unique};
use testkit::wire::{Answer, Wire};
use testkit::{eventually, now};

/// Security event tokens arrive for this audience.
const AUDIENCE: &str = "https://gate.example.com";

/// Guards an upstream by the issuer's tokens, with a transmitter `t` that is the same issuer, and further text.
fn settings(upstream: &RawUpstream, issuer: &Issuer, text: &str) -> Settings {
    let settings = Settings::plaintext().guarding(&upstream.url(), issuer).admin();
    let keys = settings.file("transmitter.json", issuer.jwks().to_string());
    settings.toml(&format!(
        "{text}\n[[event_transmitters]]\nname = \"t\"\nissuer = {:?}\naudience = \"{AUDIENCE}\"\njwks_file = {keys:?}\nsubject_issuer = {:?}\n",
        issuer.name, issuer.name,
    ))
}

/// A security event token that ends the sessions of `alice`.
fn security_event(issuer: &Issuer) -> String {
    let kind = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
    let subject = json!({"format": "iss_sub", "iss": issuer.name, "sub": "alice"});
    let token = issuer.token().head("typ", "secevent+jwt").claim("aud", AUDIENCE).claim("sub_id", subject);
    let token =
        ["sub", "exp", "client_id", "scope"].into_iter().fold(token, |token, name| token.without(name));
    token.claim("events", json!({kind: {}})).claim("iat", now()).claim("jti", unique()).build()
}

fn push(to: SocketAddr, path: &str, fields: &str, body: &str) -> Answer {
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: gate\r\nContent-Type: application/secevent+jwt\r\n{fields}");
    Wire::plain(to).exchange(format!("{head}Content-Length: {length}\r\n\r\n{body}")).unwrap()
}

fn events(gate: &Gate) -> Vec<Value> {
    gate.operate("GET", "/v1/events", None).json()["items"].as_array().unwrap().clone()
}

#[test]
fn without_the_table_nothing_is_taken_in_on_the_public_listener() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let gate = Gate::start(&settings(&upstream, &issuer, ""));
    assert_eq!(push(gate.public, "/signals/ssf/t", "", &security_event(&issuer)).status(), 401);
    assert!(events(&gate).is_empty());
}

#[test]
fn a_transmitter_pushes_to_the_public_listener_and_the_next_request_is_denied() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let gate = Gate::start(&settings(&upstream, &issuer, "[signals]\n"));
    let token = issuer.good();
    assert_eq!(gate.get("/").token(&token).send().status(), 200);
    let answer = push(gate.public, "/signals/ssf/t", "", &security_event(&issuer));
    assert_eq!((answer.status(), answer.text().as_str()), (202, ""));
    let denied = gate.get("/").token(&token).send();
    assert_eq!((denied.status(), &denied.json()["error"]), (401, &json!("invalid_token")));
    assert_eq!(events(&gate).len(), 1);
    assert_eq!(upstream.count(), 1, "signals do not reach the upstream");
}

/// Holds README.md, Settings: signals.listen, .path
#[test]
fn the_listener_of_its_own_serves_signals_and_the_public_one_does_not() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let gate =
        Gate::start(&settings(&upstream, &issuer, "[signals]\nlisten = \"127.0.0.1:0\"\npath = \"/in\"\n"));
    let own: SocketAddr = gate.log().wait_for("the address of the listener", |record| {
        message(record) == Some("listening") && field(record, "listener") == Some("signals")
    })["address"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let set = security_event(&issuer);
    assert_eq!(push(gate.public, "/in/ssf/t", "", &set).status(), 401, "that is an API's path");
    for path in [
        "/signals/ssf/t",
        "/in",
        "/in/",
        "/in/ssf",
        "/in/ssf/",
        "/in/ssf/u",
        "/in/ssf/t/",
        "/in/none/t",
        "/int/ssf/t",
    ] {
        assert_eq!(push(own, path, "", &set).status(), 404, "{path}");
    }
    assert!(events(&gate).is_empty());
    assert_eq!(push(own, "/in/ssf/t", "", &set).status(), 202);
    assert_eq!(events(&gate).len(), 1);
}

/// Holds README.md, Settings: signals.requests_per_sender
#[test]
fn a_sender_that_sends_too_many_waits_and_other_requests_do_not() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let gate = Gate::start(&settings(&upstream, &issuer, "[signals]\nrequests_per_sender = 2\n"));
    let slowed = eventually("a sender is slowed", || {
        let answer = push(gate.public, "/signals/ssf/t", "", "garbage");
        assert!([400, 429].contains(&answer.status()), "{}", answer.status());
        (answer.status() == 429).then_some(answer)
    });
    assert_eq!(slowed.field("retry-after"), Some("1"));
    assert_eq!(slowed.json()["err"], "invalid_request");
    assert_eq!(gate.get("/").token(&issuer.good()).send().status(), 200);
    assert!(events(&gate).is_empty());
}
