//! Streams of every kind, and everything that ends the permission for one: a stream is decided like its
//! next request would be.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

use testkit::app::{App, Speaks, empty};
use testkit::gate::Gate;
use testkit::h2_client::{self, H2Client, read_until};
use testkit::issuer::{Answer, KeyServer, Source};
use testkit::settings::Settings;
use testkit::tokens::{Issuer, Signer};
use testkit::wire::Wire;
use testkit::{PATIENCE, block_on, eventually};

const NAME: &str = "https://idp.example.com/";

struct Scene {
    app: App,
    _calls: App,
    keys: KeyServer,
    issuer: Issuer,
    gate: Gate,
}

/// One stream of each kind, all with the same token.
struct Streams {
    events: Wire,
    upload: Wire,
    events_h2: Incoming,
    call: Incoming,
    calling: mpsc::Sender<Bytes>,
    socket: WebSocketStream<TlsStream<TcpStream>>,
    _client: H2Client,
}

/// How many of them there are.
const KINDS: f64 = 5.0;

/// A WebSocket server, on a thread of its own, that echoes every text.
fn sockets() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(echo(socket));
            }
        });
    });
    address
}

async fn echo(socket: TcpStream) {
    let mut socket = accept_async(socket).await.unwrap();
    while let Some(Ok(message)) = socket.next().await {
        if message.is_text() && socket.send(message).await.is_err() {
            return;
        }
    }
}

impl Scene {
    fn start() -> Self {
        let (app, calls) = (App::start(Speaks::Http1), App::start(Speaks::H2c));
        let issuer = Issuer::with(NAME, vec![Signer::new("ES256", "one"), Signer::new("EdDSA", "two")]);
        let keys = KeyServer::start(issuer.jwks());
        let often = "refresh_interval = \"200ms\"\nrefresh_cooldown = \"100ms\"\n#ISSUER\n";
        let settings = Settings::tls()
            .upstream("api", &app.url(), "")
            .upstream("calls", &calls.url(), "")
            .upstream("sockets", &format!("http://{}", sockets()), "")
            .issuer_from(&issuer, &Source::Url(keys.jwks_url()), often)
            .route("/{*rest}", "#ROUTE\n")
            .route("/echo/{*rest}", "upstream = \"calls\"\n#ROUTE\n")
            .route("/socket/{*rest}", "upstream = \"sockets\"\n#ROUTE\n")
            .admin()
            .toml("[streams]\ncheck_interval = \"100ms\"\n");
        let gate = Gate::start(&settings);
        Self { app, _calls: calls, keys, issuer, gate }
    }

    /// Puts a changed configuration in force.
    fn reload(&self, changes: &[(&str, &str)]) {
        let text = self.gate.settings.to_toml();
        let text = changes.iter().fold(text, |text, (from, to)| {
            assert!(text.contains(from), "{from} is not in the configuration");
            text.replace(from, to)
        });
        self.gate.settings.file("portcullis.toml", text);
        let answer = self.gate.operate("POST", "/v1/reload", None);
        assert_eq!(answer.status(), 200, "{changes:?}: {}", answer.text());
    }

    fn status(&self, token: &str) -> u16 {
        self.gate.get("/anything").token(token).send().status()
    }

    fn all_cuts(&self) -> f64 {
        self.gate.metrics().sum("portcullis_streams_cut_total", &[])
    }

    async fn open(&self, token: &str) -> Streams {
        let mut events = self.gate.connect();
        events.send(self.gate.get("/events").token(token).bytes()).unwrap();
        assert_eq!(events.head().unwrap().status, 200);

        let (arrived, mut upload) = (self.app.arrived().len(), self.gate.connect());
        let head = self.gate.request("POST", "/upload").token(token).field("Transfer-Encoding", "chunked");
        upload.send(head.bytes()).unwrap();
        upload.send("4\r\npart\r\n").unwrap();
        eventually("the upload has begun", || {
            self.app.arrived().get(arrived..)?.iter().find(|it| it.body == 4).map(drop)
        });

        let mut client = H2Client::connect(&self.gate).await;
        let listening = h2_client::request("GET", "/events", token, empty());
        let events_h2 = client.start(listening).await.unwrap();
        assert_eq!(events_h2.status(), 200);

        let (calling, messages) = mpsc::channel::<Bytes>(4);
        let messages = futures_util::stream::unfold(messages, |mut messages| async move {
            messages.recv().await.map(|message| (Ok(Frame::data(message)), messages))
        });
        let messages = BodyExt::boxed_unsync(StreamBody::new(Box::pin(messages)));
        let mut call = h2_client::request("POST", "/echo/call", token, messages);
        call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        call.headers_mut().insert("te", "trailers".parse().unwrap());
        let call = client.start(call).await.unwrap();
        assert_eq!(call.status(), 200);

        let mut request = "ws://api.test/socket/room".into_client_request().unwrap();
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        let stream = h2_client::tls(&self.gate, "http/1.1").await;
        let (socket, answer) = client_async(request, stream).await.unwrap();
        assert_eq!(answer.status(), 101);
        let (events_h2, call) = (events_h2.into_body(), call.into_body());
        let mut streams = Streams { events, upload, events_h2, call, calling, socket, _client: client };
        self.assert_flows(&mut streams).await;
        streams
    }

    /// Asserts that data passes on every stream.
    async fn assert_flows(&self, streams: &mut Streams) {
        self.app.emit("tick");
        assert_eq!(streams.events.chunk().unwrap().unwrap(), b"data: tick\n\n");
        read_until(&mut streams.events_h2, "tick").await;
        streams.calling.send(Bytes::from("message")).await.unwrap();
        read_until(&mut streams.call, "message").await;
        streams.upload.send("4\r\nmore\r\n").unwrap();
        streams.socket.send(Message::text("hello")).await.unwrap();
        assert_eq!(streams.socket.next().await.unwrap().unwrap(), Message::text("hello"));
    }
}

impl Streams {
    /// Asserts that every stream has ended, visibly incomplete, and that the upload got this status.
    async fn assert_cut(self, name: &str, status: u16) {
        let Self { mut events, mut upload, mut events_h2, mut call, calling: _kept, mut socket, _client } =
            self;
        let events = thread::spawn(move || while events.chunk().is_ok_and(|chunk| chunk.is_some()) {});
        let upload = thread::spawn(move || upload.answer().map(|answer| answer.status()).unwrap_or_default());
        for body in [&mut events_h2, &mut call] {
            loop {
                let frame = tokio::time::timeout(PATIENCE, body.frame()).await;
                match frame.unwrap_or_else(|_| panic!("{name}: goes on")) {
                    // A gRPC call gets its status in trailers.
                    Some(Ok(frame)) if frame.is_trailers() => {
                        let status = frame.trailers_ref().unwrap()["grpc-status"].to_str().unwrap();
                        assert!(["16", "7", "14"].contains(&status), "{name}: {status}");
                        break;
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_reset)) => break,
                    None => panic!("{name}: ended in order"),
                }
            }
        }
        match tokio::time::timeout(PATIENCE, socket.next()).await {
            Ok(Some(Ok(Message::Close(Some(close))))) => assert_eq!(close.code, CloseCode::Policy, "{name}"),
            other => panic!("{name}: expected a close, got {other:?}"),
        }
        events.join().unwrap();
        assert_eq!(upload.join().unwrap(), status, "{name}");
    }
}

/// Changes something in a scene.
type Act = fn(&Scene);

type Row = (&'static str, &'static str, Act);

/// What ends the permission of a request that was allowed, and the reason.
const ENDS: &[Row] = &[
    ("the key is withdrawn", "unknown_key", |scene| {
        scene.keys.set_keys(Issuer::with(NAME, vec![Signer::new("ES256", "three")]).jwks());
    }),
    ("another key has its kid", "bad_signature", |scene| {
        scene.keys.set_keys(Issuer::with(NAME, vec![Signer::new("ES256", "one")]).jwks());
    }),
    ("the keys are too old", "keys_unavailable", |scene| {
        scene.reload(&[("#ISSUER", "max_stale = \"1s\"")]);
        scene.keys.set(Answer::HangUp);
    }),
    ("the issuer is removed", "unknown_issuer", |scene| {
        scene.reload(&[(NAME, "https://other.example.com/")]);
    }),
    ("the audience", "wrong_audience", |scene| scene.reload(&[(&scene.issuer.audience, "another")])),
    ("the algorithm", "bad_algorithm", |scene| scene.reload(&[("#ISSUER", "algorithms = [\"EdDSA\"]")])),
    ("the type", "wrong_type", |scene| scene.reload(&[("#ISSUER", "token_types = [\"other\"]")])),
    ("a required claim", "missing_claim", |scene| scene.reload(&[("#ISSUER", "required_claims = [\"no\"]")])),
    ("the lifetime", "too_long_lived", |scene| scene.reload(&[("#ISSUER", "max_lifetime = \"1s\"")])),
    ("a scope", "insufficient_scope", |scene| scene.reload(&[("#ROUTE", "scopes = [\"other\"]")])),
    ("a role", "insufficient_role", |scene| scene.reload(&[("#ROUTE", "roles = [\"other\"]")])),
    ("where scopes are", "insufficient_scope", |scene| {
        scene.reload(&[
            ("#ROUTE", "any_scope = [\"read:deals\"]"),
            ("#ISSUER", "[issuers.claims]\nscope = \"elsewhere\""),
        ]);
    }),
    ("the host", "no_route", |scene| scene.reload(&[("#ROUTE", "hosts = [\"other.test\"]")])),
    ("the method", "no_route", |scene| scene.reload(&[("#ROUTE", "methods = [\"PUT\"]")])),
    ("the path", "no_route", |scene| scene.reload(&[("path = \"/", "path = \"/other/")])),
];

#[test]
fn whatever_ends_the_right_of_a_request_cuts_its_streams_in_every_protocol() {
    let scene = Scene::start();
    for (name, reason, act) in ENDS {
        scene.keys.set_keys(scene.issuer.jwks());
        scene.reload(&[]);
        let token = scene.issuer.good();
        eventually(&format!("before {name}, all is well"), || (scene.status(&token) == 200).then_some(()));
        block_on(async {
            let (streams, before) = (scene.open(&token).await, scene.gate.cuts(reason));
            let all = scene.all_cuts();
            act(&scene);
            // No request is in flight meanwhile: it would be cut as well, and counted.
            scene.gate.wait_for_metric(&format!("{name}: the cuts are counted"), |metrics| {
                let cuts = metrics.sum("portcullis_streams_cut_total", &[("reason", reason)]) - before;
                assert!(
                    metrics.sum("portcullis_streams_cut_total", &[]) - all <= KINDS,
                    "{name}: counted twice"
                );
                (cuts == KINDS).then_some(())
            });
            let status = scene.status(&token);
            assert_ne!(status, 200, "{name}: the next request is rejected");
            streams.assert_cut(name, status).await;
        });
    }
}

#[test]
fn what_leaves_the_right_of_a_request_alone_leaves_its_streams_alone() {
    let scene = Scene::start();
    let token = scene.issuer.good();
    let rows: &[(&str, Act)] = &[
        ("a key is added", |scene| {
            let mut jwks = scene.issuer.jwks();
            jwks["keys"].as_array_mut().unwrap().push(Signer::new("ES256", "three").jwk());
            scene.keys.set_keys(jwks);
        }),
        ("the issuer is away for a moment", |scene| scene.keys.set(Answer::HangUp)),
        ("nothing", |scene| scene.reload(&[])),
        ("another leeway", |scene| scene.reload(&[("#ISSUER", "leeway = \"40s\"")])),
        ("another requirement that is met", |scene| {
            scene.reload(&[("#ROUTE", "any_scope = [\"read:deals\"]")])
        }),
        ("the routes are only observed", |scene| {
            scene.reload(&[("#ROUTE", "mode = \"shadow\"\nscopes = [\"other\"]")]);
        }),
    ];
    block_on(async {
        let mut streams = scene.open(&token).await;
        for (name, act) in rows {
            scene.keys.set_keys(scene.issuer.jwks());
            act(&scene);
            // Nothing tells of a look that changes nothing: as long as several take.
            testkit::let_pass(Duration::from_millis(800));
            scene.assert_flows(&mut streams).await;
            assert_eq!(scene.all_cuts(), 0.0, "{name}");
        }
        let note = scene.gate.log().wait_for_text("a stream would have been ended");
        assert!(note.contains("insufficient_scope"), "{note}");
        // And enforced again, with what it lacks.
        scene.reload(&[("#ROUTE", "scopes = [\"other\"]")]);
        streams.assert_cut("enforced", 403).await;
    });
}

/// Holds docs/configuration.md, Settings: streams.cut_on_revocation, .check_interval
#[test]
fn a_shorter_interval_takes_effect_at_once() {
    let scene = Scene::start();
    scene.reload(&[("check_interval = \"100ms\"", "check_interval = \"1h\"")]);
    let token = scene.issuer.good();
    block_on(async {
        let streams = scene.open(&token).await;
        scene.gate.publish(&serde_json::json!({"type": "subject-revoked", "subject": "alice"}));
        assert_eq!(scene.status(&token), 401);
        scene.reload(&[]);
        streams.assert_cut("revoked", 401).await;
    });
}

#[test]
fn a_stream_without_a_token_ends_when_its_route_asks_for_one() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let settings = Settings::plaintext()
        .upstream("api", &app.url(), "")
        .issuer(&issuer)
        .route("/{*rest}", "anonymous = true")
        .toml("[streams]\ncheck_interval = \"100ms\"\n");
    let gate = Gate::start(&settings);
    let mut wire = gate.connect();
    wire.send(gate.get("/events").bytes()).unwrap();
    assert_eq!(wire.head().unwrap().status, 200);
    app.emit("tick");
    assert!(wire.chunk().unwrap().is_some());
    settings.file("portcullis.toml", settings.to_toml().replace("anonymous = true", "anonymous = false"));
    gate.signal("HUP");
    assert!(wire.chunk().is_err(), "it ended in order, or went on");
    assert_eq!(gate.cuts("missing"), 1.0);
}
