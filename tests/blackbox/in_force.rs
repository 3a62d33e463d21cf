//! Tokens in force: idle clocks, events, restarts and live streams, in a running gate.

use serde_json::json;
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{accept_async, client_async};

use futures_util::{SinkExt as _, StreamExt as _};

use testkit::app::{App, Speaks};
use testkit::gate::{Gate, path_text, portcullis};
use testkit::settings::Settings;
use testkit::tokens::{Issuer, twin};
use testkit::{block_on, eventually, now};

/// A durable store in the configuration's folder.
const EMBEDDED: &str = "[state]\npath = \"state.db\"\non_empty = \"trust\"\nflush_interval = \"100ms\"\n";

fn scene(lines: &str) -> (App, Issuer, Gate) {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let gate = Gate::start(&Settings::plaintext().guarding(&app.url(), &issuer).admin().toml(lines));
    (app, issuer, gate)
}

#[test]
fn a_token_unused_since_its_issue_for_longer_than_the_timeout_is_refused_for_good() {
    let (app, issuer, gate) = scene("[sessions]\nidle_timeout = \"10m\"\n");
    let aged = |age: i64| issuer.token().claim("iat", now() - age).build();
    let (fresh, idle) = (aged(590), aged(602));
    let answer = gate.get("/anything").token(&idle).send();
    assert_eq!(answer.status(), 401);
    assert!(answer.text().contains("(idle)"), "{}", answer.text());
    assert_eq!(app.arrived().len(), 0, "an idle token reached the upstream");
    for again in [idle.clone(), twin(&idle)] {
        assert_eq!(gate.reason(&again), "idle");
    }
    assert_eq!(gate.get("/anything").token(&fresh).send().status(), 200);
    eventually("the token in use is tracked", || {
        (gate.metrics().sum("portcullis_sessions_tracked", &[]) >= 1.0).then_some(())
    });
}

/// Holds docs/concepts.md, Events: role-changed
/// Holds docs/concepts.md, Events: subject-revoked, client-revoked, issuer-revoked
/// Holds docs/concepts.md, Events: token-revoked
#[test]
fn every_event_ends_its_tokens_from_the_next_request_on_and_no_others() {
    let (_app, issuer, gate) = scene("");
    let token = |subject: &str, client: &str, jti: &str| {
        issuer.token().claim("sub", subject).claim("client_id", client).claim("jti", jti).build()
    };
    let (alice, bob, carol, dave) =
        (token("alice", "a", "1"), token("bob", "b", "2"), token("carol", "c", "3"), token("dave", "d", "4"));
    for good in [&alice, &bob, &carol, &dave] {
        assert_eq!(
            gate.get("/anything").token(good).send().status(),
            200,
            "in force, and its proof is cached"
        );
    }
    for (event, ended, expected, others) in [
        (
            json!({"type": "role-changed", "subject": "alice"}),
            &alice,
            "role_changed",
            vec![&bob, &carol, &dave],
        ),
        (json!({"type": "token-revoked", "jti": "2"}), &bob, "token_revoked", vec![&carol, &dave]),
        (json!({"type": "client-revoked", "client": "c"}), &carol, "client_revoked", vec![&dave]),
        (json!({"type": "subject-revoked", "subject": "dave"}), &dave, "subject_revoked", vec![]),
    ] {
        gate.publish(&event);
        assert_eq!(gate.reason(ended), expected);
        assert_eq!(gate.reason(&twin(ended)), expected, "the twin signature is the same token");
        for other in others {
            assert_eq!(gate.get("/anything").token(other).send().status(), 200, "not meant by {expected}");
        }
    }
    let later = |subject: &str| issuer.token().claim("sub", subject).claim("iat", now() + 2).build();
    assert_eq!(gate.get("/anything").token(&later("alice")).send().status(), 200, "issued after the change");
    gate.publish(&json!({"type": "issuer-revoked", "at": now() + 5}));
    assert_eq!(gate.reason(&later("erin")), "issuer_revoked");
}

/// Holds docs/concepts.md, Events: role-changed
#[test]
fn a_role_version_decides_within_the_second_of_the_change() {
    let (_app, issuer, gate) = scene("");
    let versioned = |version: u64| issuer.token().claim("role_version", version).build();
    let unversioned = issuer.good();
    gate.publish(&json!({"type": "role-changed", "subject": "alice", "role_version": 7}));
    assert_eq!(gate.reason(&versioned(6)), "role_changed");
    assert_eq!(gate.get("/anything").token(&versioned(7)).send().status(), 200);
    assert_eq!(gate.reason(&unversioned), "role_changed", "a token without a version, of the same second");
}

#[test]
fn an_event_can_be_taken_back_and_stays_so_when_it_is_delivered_again() {
    let (_app, issuer, gate) = scene("");
    let token = issuer.good();
    let event = json!({"type": "subject-revoked", "subject": "alice", "at": now()});
    let sequence = gate.publish(&event)["sequence"].as_u64().unwrap();
    assert_eq!(gate.reason(&token), "subject_revoked");
    let undone = gate.operate("DELETE", &format!("/v1/revocations/{sequence}"), None);
    assert_eq!(undone.status(), 204);
    assert_eq!(gate.get("/anything").token(&token).send().status(), 200);
    gate.publish(&event);
    assert_eq!(gate.get("/anything").token(&token).send().status(), 200, "an undone event came back");
}

#[test]
fn what_was_acknowledged_and_saved_survives_a_kill() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let settings = Settings::plaintext().guarding(&app.url(), &issuer).admin().toml(EMBEDDED);
    let configuration = settings.write();
    let used = issuer.token().claim("jti", "used").build();
    for round in 0..5 {
        let mut gate = Gate::start(&settings);
        for earlier in 0..round {
            let token = issuer.token().claim("jti", format!("revoked-{earlier}")).build();
            assert_eq!(gate.reason(&token), "token_revoked", "round {round} forgot round {earlier}");
        }
        let listed = gate.operate("GET", "/v1/sessions?subject=alice", None).json();
        assert_eq!(listed["items"].as_array().unwrap().is_empty(), round == 0, "the saved use: {listed}");
        assert_eq!(gate.get("/anything").token(&used).send().status(), 200, "round {round}");
        eventually("the use is saved", || {
            let explained = portcullis(&["explain", "--config", path_text(&configuration), "--json", &used]);
            explained.out.contains("last used").then_some(())
        });
        gate.publish(&json!({"type": "token-revoked", "jti": format!("revoked-{round}")}));
        gate.kill();
    }
}

#[test]
fn a_stream_is_cut_when_its_token_ends() {
    let (app, issuer, gate) = scene("[streams]\ncheck_interval = \"100ms\"\n");
    let mut wire = gate.connect();
    wire.send(gate.get("/events").token(&issuer.good()).bytes()).unwrap();
    assert_eq!(wire.head().unwrap().status, 200);
    app.emit("one");
    assert!(wire.chunk().unwrap().is_some());
    gate.publish(&json!({"type": "subject-revoked", "subject": "alice"}));
    assert!(wire.chunk().is_err(), "the stream ended in order, or went on");
    gate.wait_for_metric("the cut is counted", |metrics| {
        (metrics.sum("portcullis_streams_cut_total", &[("reason", "subject_revoked")]) == 1.0).then_some(())
    });
    eventually("the upstream is let go", || {
        app.emit("anybody?");
        (app.listeners() == 0).then_some(())
    });
}

#[test]
fn a_websocket_is_closed_with_1008_when_its_token_ends() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            let mut socket = accept_async(socket).await.unwrap();
            while let Some(Ok(message)) = socket.next().await {
                if message.is_text() {
                    socket.send(message).await.unwrap();
                }
            }
        });
        let issuer = Issuer::new();
        let settings = Settings::plaintext()
            .guarding(&format!("http://{address}"), &issuer)
            .admin()
            .toml("[streams]\ncheck_interval = \"100ms\"\n");
        let gate = Gate::start(&settings);
        let mut request = "ws://api.test/socket".into_client_request().unwrap();
        request.headers_mut().insert("authorization", format!("Bearer {}", issuer.good()).parse().unwrap());
        let stream = tokio::net::TcpStream::connect(gate.public).await.unwrap();
        let (mut socket, _) = client_async(request, stream).await.unwrap();
        socket.send(Message::text("hello")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
        gate.publish(&json!({"type": "role-changed", "subject": "alice"}));
        match socket.next().await {
            Some(Ok(Message::Close(Some(close)))) => assert_eq!(close.code, CloseCode::Policy),
            other => panic!("expected a close, got {other:?}"),
        }
    });
}

#[test]
fn a_shadow_route_notes_what_it_would_refuse_and_forwards_without_an_identity() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let settings = Settings::plaintext()
        .upstream("api", &app.url(), "")
        .issuer(&issuer)
        .route("/{*rest}", "mode = \"shadow\"\nscopes = [\"admin\"]");
    let gate = Gate::start(&settings);
    assert_eq!(gate.get("/anything").token(&issuer.good()).send().status(), 200);
    assert_eq!(gate.get("/anything").send().status(), 200);
    assert!(app.arrived().iter().all(|request| request.field("x-auth-subject").is_none()));
    let metrics = gate.metrics();
    for reason in ["insufficient_scope", "missing"] {
        let labels = [("decision", "shadow_deny"), ("reason", reason)];
        assert_eq!(metrics.sum("portcullis_decisions_total", &labels), 1.0, "{reason}");
    }
}
