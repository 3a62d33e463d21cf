//! Live streams and the token that opened them: what ends them, how the client sees it, and that bytes
//! keep the token in use.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};

use testkit::app::{App, Speaks, empty};
use testkit::gate::Gate;
use testkit::h2_client::{H2Client, read_until, request};
use testkit::raw_upstream::{Next, RawUpstream};
use testkit::settings::Settings;
use testkit::tokens::{Issuer, twin};
use testkit::wire::Wire;
use testkit::{block_on, eventually, now};

/// Checked often, so that no test waits long for a stream to be ended.
const OFTEN: &str = "[streams]\ncheck_interval = \"100ms\"\n";

struct Scene {
    app: App,
    issuer: Issuer,
    gate: Gate,
}

fn scene(lines: &str) -> Scene {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let settings = Settings::plaintext()
        .upstream("api", &app.url(), "")
        .issuer_with(&issuer, "leeway = \"0s\"")
        .route("/{*rest}", "")
        .route("/shadow/{*rest}", "mode = \"shadow\"")
        .route("/anonymous/{*rest}", "anonymous = true")
        .admin();
    Scene { app, issuer, gate: Gate::start(&settings.toml(lines)) }
}

impl Scene {
    /// An open event stream that has delivered one event.
    fn listen(&self, token: &str) -> Wire {
        let mut wire = self.gate.connect();
        wire.send(self.gate.get("/events").token(token).bytes()).unwrap();
        assert_eq!(wire.head().unwrap().status, 200);
        self.tick(&mut wire);
        wire
    }

    /// Sends an event over the stream.
    fn tick(&self, wire: &mut Wire) {
        self.app.emit("tick");
        assert_eq!(wire.chunk().unwrap().unwrap(), b"data: tick\n\n");
    }

    /// Asserts that the stream has ended, visibly incomplete, and was counted once for exactly this reason.
    fn assert_cut(&self, mut wire: Wire, reason: &str) {
        while let Ok(chunk) = wire.chunk() {
            assert!(chunk.is_some(), "ended in order");
        }
        self.assert_counted(reason);
        eventually("the upstream is let go", || (self.app.emit("anybody?") == 0).then_some(()));
    }

    fn assert_counted(&self, reason: &str) {
        self.gate.wait_for_metric("the cut is counted", |metrics| {
            let all = metrics.sum("portcullis_streams_cut_total", &[]);
            assert!(all <= 1.0, "counted twice");
            (metrics.sum("portcullis_streams_cut_total", &[("reason", reason)]) == 1.0).then_some(())
        });
    }

    /// First and last use of the only token in use, as listed.
    fn used(&self) -> (String, String) {
        let listed = self.gate.list("/v1/sessions?subject=alice");
        let text = |name: &str| listed[0][name].as_str().unwrap().to_owned();
        assert_eq!(listed.len(), 1, "{listed:?}");
        (text("first_used_at"), text("last_used_at"))
    }

    fn status(&self, token: &str) -> u16 {
        self.gate.get("/anything").token(token).send().status()
    }
}

#[test]
fn a_stream_ends_when_its_token_expires_and_not_before() {
    let scene = scene(OFTEN);
    let expiry = now() + 5;
    let wire = scene.listen(&scene.issuer.token().claim("exp", expiry).build());
    scene.assert_cut(wire, "expired");
    assert!(now() >= expiry, "cut before its time");
}

#[test]
fn a_stream_on_which_nothing_flows_goes_idle_with_its_token() {
    let scene = scene(&format!("[sessions]\nidle_timeout = \"4s\"\n{OFTEN}"));
    let token = scene.issuer.good();
    let mut wire = scene.listen(&token);
    assert!(wire.chunk().is_err(), "ended in order, or went on");
    scene.assert_counted("idle");
    assert_eq!(scene.gate.reason(&token), "idle");
    assert_eq!(scene.gate.reason(&twin(&token)), "idle");
}

#[test]
fn bytes_that_come_down_keep_the_stream_and_its_token_in_use() {
    let scene = scene(&format!("[sessions]\nidle_timeout = \"3s\"\n{OFTEN}"));
    let token = scene.issuer.good();
    let (mut wire, began) = (scene.listen(&token), Instant::now());
    // Nothing else uses the token, for longer than it may be unused.
    eventually("the token has been in use for long", || {
        scene.tick(&mut wire);
        (began.elapsed() > Duration::from_secs(5)).then_some(())
    });
    assert_eq!(scene.status(&token), 200);
    assert_eq!(scene.gate.metrics().sum("portcullis_streams_cut_total", &[]), 0.0);
}

#[test]
fn bytes_that_go_up_keep_the_token_in_use_before_there_is_an_answer() {
    let scene = scene(&format!("[sessions]\nidle_timeout = \"3s\"\n{OFTEN}"));
    let token = scene.issuer.good();
    let mut wire = upload(&scene, &token, "/anything");
    let began = Instant::now();
    eventually("the upload has lasted long", || {
        wire.send("4\r\nmore\r\n").unwrap();
        (began.elapsed() > Duration::from_secs(5)).then_some(())
    });
    assert_eq!(scene.status(&token), 200);
    wire.send("0\r\n\r\n").unwrap();
    assert_eq!(wire.answer().unwrap().status(), 200);
    assert_eq!(scene.gate.metrics().sum("portcullis_streams_cut_total", &[]), 0.0);
}

#[test]
fn bytes_count_when_they_flow_and_not_when_the_stream_is_next_looked_at() {
    let scene = scene("[streams]\ncheck_interval = \"1h\"\n[sessions]\nidle_timeout = \"4s\"\n");
    let token = scene.issuer.good();
    let mut wire = scene.listen(&token);
    let (first, _) = scene.used();
    eventually("the last use moves on", || {
        scene.tick(&mut wire);
        (scene.used().1 != first).then_some(())
    });
    eventually("the token is idle", || (scene.gate.would_say(&token) == "idle").then_some(()));
    // The stream is still there, because nobody looks, but what flows now comes too late.
    scene.tick(&mut wire);
    assert_eq!(scene.gate.reason(&token), "idle", "revived");
}

#[test]
fn a_token_that_an_anonymous_route_was_given_is_not_kept_in_use_by_its_bytes() {
    let scene = scene(&format!("[sessions]\nidle_timeout = \"4s\"\n{OFTEN}"));
    let token = scene.issuer.good();
    let mut wire = scene.gate.connect();
    wire.send(
        scene
            .gate
            .request("POST", "/anonymous/upload")
            .token(&token)
            .field("Transfer-Encoding", "chunked")
            .bytes(),
    )
    .unwrap();
    eventually("the token goes idle all the same", || {
        drop(wire.send("4\r\nmore\r\n"));
        (scene.gate.would_say(&token) == "idle").then_some(())
    });
}

#[test]
fn over_http2_the_stream_is_reset_and_the_others_of_the_connection_live_on() {
    block_on(async {
        let (app, issuer) = (App::start(Speaks::H2c), Issuer::new());
        let gate = Gate::start(&Settings::tls().guarding(&app.url(), &issuer).admin().toml(OFTEN));
        let mut client = H2Client::connect(&gate).await;
        let mut open = async |subject: &str, jti: &str| {
            let token = issuer.token().claim("sub", subject).claim("jti", jti).build();
            let answer = client.start(request("GET", "/events", &token, empty())).await.unwrap();
            assert_eq!(answer.status(), 200);
            answer.into_body()
        };
        let (mut ended, mut other) = (open("alice", "one").await, open("alice", "two").await);
        app.emit("both");
        read_until(&mut ended, "both").await;
        read_until(&mut other, "both").await;
        gate.publish(&json!({"type": "token-revoked", "jti": "one"}));
        let error = ended.frame().await.expect("ended in order").unwrap_err();
        let reset = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>()).unwrap();
        assert!(reset.is_reset() && reset.is_remote(), "{reset}");
        app.emit("one");
        read_until(&mut other, "one").await;
        let next = client.exchange(request("GET", "/anything", &issuer.good(), empty())).await.unwrap();
        assert_eq!(next.status(), 200, "the connection serves on");
        assert_eq!(gate.cuts("token_revoked"), 1.0);
    });
}

/// A chunked upload whose first part has reached the upstream.
fn upload(scene: &Scene, token: &str, path: &str) -> Wire {
    let mut wire = scene.gate.connect();
    let head = scene.gate.request("POST", path).token(token).field("Transfer-Encoding", "chunked");
    wire.send(head.bytes()).unwrap();
    wire.send("4\r\npart\r\n").unwrap();
    eventually("the upload has begun", || scene.app.arrived().last().filter(|it| it.body == 4).map(drop));
    wire
}

#[test]
fn an_upload_that_is_still_going_on_is_answered_with_401_and_never_completed() {
    let scene = scene(OFTEN);
    let mut wire = upload(&scene, &scene.issuer.good(), "/anything");
    scene.gate.publish(&json!({"type": "role-changed", "subject": "alice"}));
    let answer = wire.answer().unwrap();
    assert_eq!((answer.status(), answer.field("connection")), (401, Some("close")), "{}", answer.text());
    assert_eq!(answer.json()["error"], "invalid_token");
    assert!(answer.field("www-authenticate").unwrap().contains("error=\"invalid_token\""));
    scene.assert_counted("role_changed");
    drop(wire.send("0\r\n\r\n"));
    assert!(wire.is_closed());
    let arrived = scene.app.arrived();
    assert_eq!((arrived.len(), arrived[0].complete), (1, false), "the upstream took it for complete");
}

#[test]
fn an_upload_over_http2_is_answered_with_401_too() {
    block_on(async {
        let (app, issuer) = (App::start(Speaks::H2c), Issuer::new());
        let gate = Gate::start(&Settings::tls().guarding(&app.url(), &issuer).admin().toml(OFTEN));
        let mut client = H2Client::connect(&gate).await;
        let (parts, body) = tokio::sync::mpsc::channel::<Bytes>(4);
        let body = futures_util::stream::unfold(body, |mut body| async move {
            body.recv().await.map(|part| (Ok(Frame::data(part)), body))
        });
        let body = BodyExt::boxed_unsync(StreamBody::new(Box::pin(body)));
        parts.send(Bytes::from("part")).await.unwrap();
        let uploading = client.exchange(request("POST", "/anything", &issuer.good(), body));
        let revoked = async {
            testkit::eventually_async("the upload has begun", || {
                app.arrived().last().filter(|arrived| arrived.body == 4).map(drop)
            })
            .await;
            gate.publish(&json!({"type": "subject-revoked", "subject": "alice"}));
        };
        let (answer, ()) = tokio::join!(uploading, revoked);
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 401);
        assert_eq!(serde_json::from_slice::<Value>(&answer.body).unwrap()["error"], "invalid_token");
        assert!(!app.arrived()[0].complete);
        assert_eq!(gate.cuts("subject_revoked"), 1.0);
    });
}

#[test]
fn an_echo_is_cut_although_both_directions_flow() {
    let scene = scene(OFTEN);
    let mut wire = upload(&scene, &scene.issuer.good(), "/echo");
    assert_eq!(wire.head().unwrap().status, 200);
    assert_eq!(wire.chunk().unwrap().unwrap(), b"part");
    scene.gate.publish(&json!({"type": "issuer-revoked"}));
    eventually("the echo ends", || {
        if wire.send("4\r\nmore\r\n").is_err() {
            return Some(());
        }
        match wire.chunk() {
            Ok(Some(chunk)) => assert_eq!(chunk, b"more"),
            Ok(None) => panic!("ended in order"),
            Err(_cut) => return Some(()),
        }
        None
    });
    scene.assert_counted("issuer_revoked");
    assert!(!scene.app.arrived()[0].complete, "the upstream took it for complete");
}

#[test]
fn a_long_download_breaks_off_without_a_clean_end() {
    const LENGTH: usize = 1 << 32;
    let scene = scene(OFTEN);
    let mut wire = scene.gate.connect();
    wire.send(scene.gate.get(&format!("/bytes/{LENGTH}")).token(&scene.issuer.good()).bytes()).unwrap();
    assert_eq!(wire.head().unwrap().status, 200);
    let mut got = wire.chunk().unwrap().unwrap().len();
    scene.gate.publish(&json!({"type": "client-revoked", "client": "app"}));
    while let Ok(chunk) = wire.chunk() {
        got += chunk.expect("a clean end").len();
    }
    assert!(got < LENGTH, "it was complete");
    scene.assert_counted("client_revoked");
}

/// An upstream that sends endlessly, over HTTP or after a `101`, and counts closed connections.
fn endless() -> (RawUpstream, Arc<AtomicUsize>) {
    let let_go = Arc::new(AtomicUsize::new(0));
    let counted = let_go.clone();
    let upstream = RawUpstream::scripted(move |exchange| {
        let switches = exchange.request.field("upgrade").is_some();
        drop(exchange.write(match switches {
            true => "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n",
            false => "HTTP/1.1 200 OK\r\n\r\n",
        }));
        while exchange.write([b'x'; 64 * 1024]).is_ok() {}
        counted.fetch_add(1, Ordering::SeqCst);
        Next::Close
    });
    (upstream, let_go)
}

#[test]
fn a_client_that_does_not_read_is_cut_all_the_same() {
    let ((upstream, let_go), issuer) = (endless(), Issuer::new());
    for (settings, fields) in [
        (Settings::plaintext(), ""),
        (Settings::tls(), ""),
        (Settings::plaintext(), "Connection: Upgrade\r\nUpgrade: chat\r\n"),
        (Settings::tls(), "Connection: Upgrade\r\nUpgrade: chat\r\n"),
    ] {
        let before = let_go.load(Ordering::SeqCst);
        let gate = Gate::start(&settings.guarding(&upstream.url(), &issuer).admin().toml(OFTEN));
        let mut wire = gate.connect();
        let token = issuer.good();
        let head =
            format!("GET /x HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {token}\r\n{fields}\r\n");
        wire.send(head).unwrap();
        assert!(matches!(wire.head().unwrap().status, 200 | 101));
        gate.publish(&json!({"type": "subject-revoked", "subject": "alice"}));
        eventually("the upstream is let go", || (let_go.load(Ordering::SeqCst) > before).then_some(()));
        assert_eq!(gate.cuts("subject_revoked"), 1.0);
        eventually("the connection is closed", || {
            let open = gate.metrics().sum("portcullis_connections", &[("listener", "public")]);
            (open == 0.0).then_some(())
        });
    }
}

#[test]
fn a_shadow_route_notes_that_a_stream_would_be_cut_and_lets_it_go_on() {
    let scene = scene(OFTEN);
    let token = scene.issuer.good();
    let mut wire = scene.gate.connect();
    wire.send(
        scene
            .gate
            .request("POST", "/shadow/upload")
            .token(&token)
            .field("Transfer-Encoding", "chunked")
            .bytes(),
    )
    .unwrap();
    wire.send("4\r\npart\r\n").unwrap();
    eventually("the upload has begun", || scene.app.arrived().last().filter(|it| it.body == 4).map(drop));
    scene.gate.publish(&json!({"type": "subject-revoked", "subject": "alice"}));
    assert_eq!(scene.gate.reason(&token), "subject_revoked", "where routes are enforced");
    let note = scene.gate.log().wait_for_text("a stream would have been ended");
    assert!(note.contains("subject_revoked"), "{note}");
    wire.send("4\r\nmore\r\n0\r\n\r\n").unwrap();
    assert_eq!(wire.answer().unwrap().status(), 200);
    assert_eq!(scene.app.last().body, 8, "all of it went through");
    assert_eq!(scene.gate.metrics().sum("portcullis_streams_cut_total", &[]), 0.0);
}

/// Holds docs/configuration.md, Settings: streams.cut_on_revocation, .check_interval
#[test]
fn streams_are_left_alone_where_the_configuration_says_so_until_it_says_otherwise() {
    let text = |cut: bool| format!("[streams]\ncheck_interval = \"100ms\"\ncut_on_revocation = {cut}\n");
    let scene = scene(&text(false));
    let token = scene.issuer.good();
    let mut wire = scene.listen(&token);
    scene.gate.publish(&json!({"type": "subject-revoked", "subject": "alice"}));
    assert_eq!(scene.gate.reason(&token), "subject_revoked");
    // Nothing tells of a look that changes nothing: as long as several take.
    testkit::let_pass(Duration::from_millis(500));
    scene.tick(&mut wire);
    let configuration = scene.gate.settings.to_toml().replace(&text(false), &text(true));
    scene.gate.settings.file("portcullis.toml", configuration);
    scene.gate.signal("HUP");
    scene.gate.wait_for_reloads("ok", 1.0);
    scene.assert_cut(wire, "subject_revoked");
}
