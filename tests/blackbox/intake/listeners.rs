//! The listener and the path at which signals are accepted.

use std::net::SocketAddr;

use testkit::gate::{Gate, field, message};
use testkit::raw_upstream::RawUpstream;
use testkit::settings::{ADMIN_TOKEN, Settings};
use testkit::tokens::Issuer;
use testkit::wire::Wire;

use super::{SET, Scene, events, post, security_event, senders};

/// The address of the listener for signals.
fn own_listener(gate: &Gate) -> SocketAddr {
    let told = gate.log().wait_for("the address of the listener", |record| {
        message(record) == Some("listening") && field(record, "listener") == Some("signals")
    });
    field(&told, "address").unwrap().parse().unwrap()
}

#[test]
fn without_the_table_nothing_is_taken_in_on_the_public_listener() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let gate = Gate::start(&Settings::plaintext().guarding(&upstream.url(), &issuer).admin());
    let answer = post(gate.public, "/signals/ssf/t", SET, security_event(&issuer).build().as_bytes());
    assert_eq!(answer.status(), 401, "that is an API's path");
    assert!(events(&gate).is_empty());
}

#[test]
fn a_transmitter_pushes_to_the_public_listener_and_the_next_request_is_denied() {
    let scene = Scene::start();
    let token = scene.issuer.good();
    assert!(scene.passes(&token));
    let answer = scene.post("/signals/ssf/t", SET, scene.security_event().build());
    assert_eq!((answer.status(), answer.text().as_str()), (202, ""));
    assert!(!scene.passes(&token));
    assert_eq!(scene.events().len(), 1);
    assert_eq!(scene.upstream.count(), 1, "signals do not reach the upstream");
}

/// Holds docs/configuration.md, Settings: signals.listen, .path
#[test]
fn the_listener_of_its_own_serves_signals_and_the_public_one_does_not() {
    let scene = Scene::with("listen = \"127.0.0.1:0\"\npath = \"/in\"");
    let own = own_listener(&scene.gate);
    let set = scene.security_event().build();
    assert_eq!(scene.post("/in/ssf/t", SET, &set).status(), 401, "that is an API's path");
    let paths = [
        "/signals/ssf/t",
        "/in",
        "/in/",
        "/in/ssf",
        "/in/ssf/",
        "/in/ssf/u",
        "/in/ssf/t/",
        "/in/ssf//t",
        "/in/none/t",
        "/int/ssf/t",
        "/IN/ssf/t",
        "/in/SSF/t",
        "/in/ssf/T",
        "/",
        "/in/logout/t",
        "/in/global-token-revocation/op",
    ];
    for path in paths {
        assert_eq!(post(own, path, SET, set.as_bytes()).status(), 404, "{path}");
    }
    assert!(scene.events().is_empty());
    assert_eq!(post(own, "/in/ssf/t", SET, set.as_bytes()).status(), 202);
    assert_eq!(scene.events().len(), 1);
    let connections =
        |scrape: &testkit::metrics::Scrape| scrape.sum("portcullis_connections", &[("listener", "signals")]);
    scene
        .gate
        .wait_for_metric("connections are counted", |scrape| (connections(scrape) == 0.0).then_some(()));
}

#[test]
fn the_listener_of_its_own_refuses_as_the_public_one_does() {
    const MOST: usize = 64 << 10;
    let scene = Scene::with("listen = \"127.0.0.1:0\"\nrequests_per_sender = 20");
    let own = own_listener(&scene.gate);
    let mut slow = Wire::plain(own);
    slow.send(format!("POST /signals/ssf/t HTTP/1.1\r\nHost: a\r\n{SET}Content-Length: 9\r\n\r\n-")).unwrap();
    for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
        let request = format!("{method} /signals/logout/op HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        let answer = Wire::plain(own).exchange(request).unwrap();
        assert_eq!((answer.status(), answer.field("allow")), (405, Some("POST")), "{method}");
        assert_eq!(answer.text(), r#"{"error":"invalid_request"}"#, "{method}");
    }
    let mut wire = Wire::plain(own);
    wire.send("HEAD /signals/ssf/t HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(wire.answer_to(true).unwrap().status(), 405);
    for (length, status) in [(MOST, 400), (MOST + 1, 413)] {
        let answer = post(own, "/signals/ssf/t", SET, "x".repeat(length).as_bytes());
        assert_eq!((answer.status(), &answer.json()["err"]), (status, &serde_json::json!("invalid_request")));
        assert_eq!(answer.field("cache-control"), Some("no-store"), "{length}");
    }
    let garbage = || post(own, "/signals/logout/op", SET, b"garbage");
    let slowed = (0..1_000).map(|_| garbage()).find(|answer| answer.status() != 400).unwrap();
    assert_eq!((slowed.status(), slowed.text().as_str()), (429, r#"{"error":"invalid_request"}"#));
    assert_eq!(slowed.field("retry-after"), Some("1"));
    assert_eq!(slow.answer().unwrap().status(), 408, "a body that does not come");
    assert!(scene.events().is_empty());
}

#[test]
fn the_listener_of_its_own_speaks_tls_and_keeps_its_address_over_reloads() {
    let files =
        "listen = \"127.0.0.1:0\"\n[signals.tls]\ncertificate = \"server.pem\"\nprivate_key = \"server.key\"";
    let scene = Scene::within(Settings::tls(), files);
    let own = own_listener(&scene.gate);
    let push = |path: &str| {
        let config = scene.gate.settings.authority().client_config(&["http/1.1"], None);
        let set = scene.security_event().build();
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{SET}Content-Length: {}\r\n\r\n", set.len());
        Wire::tls(own, "localhost", config).unwrap().exchange(head + &set).unwrap().status()
    };
    assert_eq!(push("/signals/ssf/t"), 202);
    let text = scene.gate.settings.to_toml();
    for (from, to, old, new) in [
        ("[signals]\n", "[signals]\npath = \"/moved\"\n", 404, 202),
        ("listen = \"127.0.0.1:0\"\n[signals.tls]", "listen = \"127.0.0.1:1\"\n[signals.tls]", 202, 404),
    ] {
        assert!(text.contains(from), "{text}");
        scene.gate.settings.file("portcullis.toml", text.replace(from, to));
        assert_eq!(scene.gate.operate("POST", "/v1/reload", None).status(), 200);
        assert_eq!((push("/signals/ssf/t"), push("/moved/ssf/t")), (old, new), "{to}");
    }
    scene.gate.log().wait_for_text("signals.listen");
}

/// Holds docs/configuration.md, Settings: signals.public_url
#[test]
fn senders_come_and_go_with_a_reload() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let (transmitter, organisation) = (Issuer::new(), Issuer::named(super::ORGANISATION));
    let before = Settings::plaintext().guarding(&upstream.url(), &issuer).admin();
    let after = senders(before.clone(), &issuer, &transmitter, &organisation, "");
    let moved = after.to_toml().replace(super::PUBLIC_URL, "https://other.example.com");
    let gate = Gate::start(&before);
    let scene = Scene { upstream, issuer, transmitter, organisation, gate };
    let reload = |text: String| {
        scene.gate.settings.file("portcullis.toml", text);
        assert_eq!(scene.gate.operate("POST", "/v1/reload", None).status(), 200);
    };
    let subject = serde_json::json!({"sub_id": {"format": "opaque", "id": "nobody"}});
    let asked = || {
        let logout = scene.log_out(&scene.logout_token().build()).status();
        (logout, scene.revoke(&scene.authorization().build(), &subject).status())
    };
    assert_eq!(asked(), (401, 401), "an API's paths");
    reload(after.to_toml());
    assert_eq!(asked(), (200, 204));
    reload(moved);
    assert_eq!(asked(), (200, 401), "the audience is made from public_url");
    reload(after.to_toml().replace("name = \"op\"", "name = \"new\""));
    assert_eq!(asked(), (404, 204));
    reload(after.to_toml().replace("[signals]\n", "[signals]\nrequests_per_sender = 1\n"));
    assert_eq!(asked(), (200, 429));
    reload(before.to_toml());
    assert_eq!(asked(), (401, 401));
}

#[test]
fn the_permission_for_signals_lets_its_token_push_and_do_nothing_else() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = Settings::plaintext().guarding(&upstream.url(), &issuer).admin();
    let settings = senders(settings, &issuer, &issuer, &Issuer::named(super::ORGANISATION), "");
    let pusher = "a-secret-that-may-only-push-signals";
    let gate = Gate::start(&settings.toml(&format!(
        "[[admin.tokens]]\nname = \"pusher\"\nsecret = \"{pusher}\"\npermissions = [\"signals\"]\n"
    )));
    let call = |secret: &str, method: &str, path: &str, body: &str| {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {secret}\r\n{SET}Content-Length: {length}\r\n\r\n{body}"
        );
        Wire::plain(gate.admin).exchange(request).unwrap()
    };
    let set = || security_event(&issuer).build();
    assert_eq!(call(pusher, "POST", "/v1/ssf/t", &set()).status(), 202);
    assert_eq!(call(ADMIN_TOKEN, "POST", "/v1/ssf/t", &set()).status(), 202, "`events` may push as well");
    for (method, path) in [
        ("GET", "/v1/events"),
        ("POST", "/v1/events"),
        ("GET", "/v1/revocations"),
        ("DELETE", "/v1/revocations/1"),
        ("GET", "/v1/sessions"),
        ("DELETE", "/v1/sessions?subject=alice"),
        ("POST", "/v1/explain"),
        ("GET", "/v1/usage"),
        ("GET", "/v1/users"),
        ("GET", "/v1/credentials"),
        ("GET", "/v1/config"),
        ("POST", "/v1/reload"),
    ] {
        let answer = call(pusher, method, path, "");
        assert_eq!(answer.status(), 403, "{method} {path}");
        assert!(answer.field("www-authenticate").unwrap().contains("insufficient_scope"));
    }
    assert_eq!(events(&gate).len(), 2);
    // The stream's own secret is only for its own endpoint: the admin listener requires an admin token.
    assert_eq!(call(pusher, "POST", "/v1/ssf/secret", &set()).status(), 202);
}
