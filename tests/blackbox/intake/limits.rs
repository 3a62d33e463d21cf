//! Limits that apply before any signature is verified: how often a sender may send, how much, and how slowly.

use testkit::eventually;
use testkit::gate::Gate;
use testkit::issuer::{KeyServer, Source};
use testkit::raw_upstream::RawUpstream;
use testkit::settings::Settings;
use testkit::tokens::{Issuer, Signer, unique};
use testkit::wire::Wire;

use super::{CLIENT, FORM, JSON, SET, Scene, post};

/// Holds docs/configuration.md, Settings: signals.requests_per_sender
#[test]
fn a_sender_that_sends_too_many_waits_and_other_requests_do_not() {
    for (path, body) in [
        (
            "/signals/ssf/t",
            r#"{"description":"too many requests from this address; try again later","err":"invalid_request"}"#,
        ),
        ("/signals/logout/op", r#"{"error":"invalid_request"}"#),
        (
            "/signals/global-token-revocation/okta",
            r#"{"error":"invalid_request","error_description":"too many requests from this address; try again later"}"#,
        ),
        // Looking for endpoints is slowed as well.
        ("/signals/none/t", r#"{"error":"not_found"}"#),
    ] {
        let scene = Scene::with("requests_per_sender = 2");
        let mut answered = 0;
        let slowed = eventually("a sender is slowed", || {
            let answer = scene.post(path, SET, "garbage");
            assert!([400, 401, 404, 429].contains(&answer.status()), "{path} {}", answer.status());
            answered += u32::from(answer.status() != 429);
            (answer.status() == 429).then_some(answer)
        });
        assert!(answered >= 2, "{path}: {answered}");
        assert_eq!(slowed.field("retry-after"), Some("1"), "{path}");
        assert_eq!(slowed.text(), body, "{path}");
        assert!(scene.passes(&scene.issuer.good()));
        assert!(scene.events().is_empty());
    }
}

#[test]
fn a_flood_of_unsigned_garbage_costs_no_signature_work() {
    let issuer = Issuer::new();
    let keys = KeyServer::start(issuer.jwks());
    let upstream = RawUpstream::start();
    let source = Source::Url(keys.jwks_url());
    let settings = Settings::plaintext()
        .upstream("api", &upstream.url(), "")
        .issuer_from(&issuer, &source, "refresh_cooldown = \"1ms\"")
        .route("/{*rest}", "")
        .admin();
    let gate = Gate::start(&settings.toml(&format!(
        "[signals]\nrequests_per_sender = 3\n[[logout]]\nname = \"op\"\nissuer = {:?}\naudiences = [\"{CLIENT}\"]\n",
        issuer.name
    )));
    let stranger = Issuer::with(&issuer.name, vec![Signer::new("ES256", "stranger")]);
    let fetched = keys.fetches();
    let (mut bad, mut slowed) = (0, 0);
    for _ in 0..200 {
        // Right in everything but the signature, with a key that would have to be fetched.
        let token =
            super::bare(&stranger).head("typ", "logout+jwt").head("kid", unique()).claim("aud", CLIENT);
        let token = token.claim("exp", testkit::now() + 60).claim("sid", "s1");
        let token = token.claim("events", serde_json::json!({super::LOGOUT: {}})).build();
        match post(gate.public, "/signals/logout/op", FORM, format!("logout_token={token}").as_bytes())
            .status()
        {
            400 => bad += 1,
            429 => slowed += 1,
            other => panic!("{other}"),
        }
    }
    assert!(slowed > bad && bad >= 3, "{bad} were looked at, {slowed} were not");
    assert!(keys.fetches() - fetched <= bad, "keys are fetched only for what is looked at");
    assert!(super::events(&gate).is_empty());
    assert_eq!(gate.get("/").token(&issuer.good()).send().status(), 200);
}

#[test]
fn senders_are_told_apart_by_the_address_that_the_load_balancer_names() {
    let proxied =
        Settings::plaintext().server("trusted_proxies = [\"127.0.0.0/8\"]\nproxy_protocol = \"v1\"");
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = proxied.guarding(&upstream.url(), &issuer);
    let settings = super::senders(
        settings,
        &issuer,
        &issuer,
        &Issuer::named(super::ORGANISATION),
        "requests_per_sender = 1",
    );
    let gate = Gate::start(&settings);
    let push = |family: &str, client: &str| {
        let to = if family == "TCP4" { "192.0.2.9" } else { "2001:db8::9" };
        let request = format!(
            "PROXY {family} {client} {to} 1000 443\r\nPOST /signals/ssf/t HTTP/1.1\r\nHost: a\r\n{SET}Content-Length: 1\r\n\r\n-"
        );
        Wire::plain(gate.public).exchange(request).unwrap().status()
    };
    let is_slowed = |family: &str, client: &str| (push(family, client) == 429).then_some(());
    eventually("one is slowed", || is_slowed("TCP4", "192.0.2.1"));
    assert_eq!(push("TCP4", "192.0.2.2"), 400);
    eventually("a network is slowed", || {
        push("TCP6", "2001:db8:1:2::1");
        is_slowed("TCP6", "2001:db8:1:2:ffff::3")
    });
    assert_eq!(push("TCP6", "2001:db8:1:3::1"), 400);
}

#[test]
fn a_body_that_is_too_long_is_refused_whole() {
    const MOST: usize = 64 << 10;
    let scene = Scene::start();
    let authorized = || format!("{JSON}Authorization: Bearer {}\r\n", scene.authorization().build());
    for (path, fields, body) in [
        (
            "/signals/ssf/t",
            SET.to_owned(),
            r#"{"description":"the body is too large","err":"invalid_request"}"#,
        ),
        ("/signals/logout/op", FORM.to_owned(), r#"{"error":"invalid_request"}"#),
        (
            "/signals/global-token-revocation/okta",
            authorized(),
            r#"{"error":"invalid_request","error_description":"the body is too large"}"#,
        ),
    ] {
        assert_eq!(scene.post(path, &fields, "x".repeat(MOST)).status(), 400, "{path}");
        let answer = scene.post(path, &fields, "x".repeat(MOST + 1));
        assert_eq!((answer.status(), answer.text().as_str()), (413, body), "{path}");
        assert_eq!(answer.field("connection"), Some("close"), "{path}");
        let chunked = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\n{fields}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{}\r\n0\r\n\r\n",
            MOST + 1,
            "x".repeat(MOST + 1)
        );
        assert_eq!(Wire::plain(scene.gate.public).exchange(chunked).unwrap().status(), 413, "{path}");
    }
    assert!(scene.events().is_empty());
}

#[test]
fn a_body_that_does_not_come_is_given_up() {
    let scene = Scene::start();
    let mut waiting = Vec::new();
    for (path, fields) in [("/signals/ssf/t", SET), ("/signals/logout/op", FORM)] {
        let mut wire = Wire::plain(scene.gate.public);
        wire.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: 100\r\n\r\nx"))
            .unwrap();
        waiting.push((path, wire));
    }
    for (path, mut wire) in waiting {
        let answer = wire.answer().unwrap();
        assert_eq!((answer.status(), answer.field("connection")), (408, Some("close")), "{path}");
    }
    assert!(scene.events().is_empty());
    for source in ["ssf", "logout"] {
        let labels = [("source", source), ("type", "none"), ("matched", "no")];
        let counted = scene.gate.metrics().sum("portcullis_signals_total", &labels);
        assert!((counted - 1.0).abs() < 0.5, "{source}: {counted}");
    }
}
