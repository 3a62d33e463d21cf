//! Tokens of browsers' WebSockets: sent as a subprotocol in the handshake, checked like any token, and not
//! visible behind the gate.

use std::sync::{Arc, Mutex};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message, error};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async, client_async};

use testkit::block_on;
use testkit::gate::{Gate, field};
use testkit::raw_upstream::{Next, RawUpstream};
use testkit::settings::Settings;
use testkit::tokens::{Issuer, log_hash};

const BEARER: &str = "[bearer]\nwebsocket_protocol = \"bearer\"\n";

/// A WebSocket server that selects `chat` if offered, and reports what it received.
struct Server {
    url: String,
    handshakes: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let handshakes: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&handshakes);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, Arc::clone(&seen)));
            }
        });
        Self { url, handshakes }
    }

    fn last(&self) -> String {
        self.handshakes.lock().unwrap().last().unwrap().clone()
    }
}

#[expect(clippy::result_large_err, reason = "the library's own type")]
async fn serve(socket: TcpStream, seen: Arc<Mutex<Vec<String>>>) {
    let select = |request: &Request, mut response: Response| {
        seen.lock().unwrap().push(format!("{:?} {:?}", request.uri(), request.headers()));
        let offered = request.headers().get("sec-websocket-protocol").and_then(|value| value.to_str().ok());
        if offered.is_some_and(|offered| offered.split(", ").any(|name| name == "chat")) {
            response.headers_mut().insert("sec-websocket-protocol", "chat".parse().unwrap());
        }
        Ok(response)
    };
    let mut socket = accept_hdr_async(socket, select).await.unwrap();
    while let Some(Ok(message)) = socket.next().await {
        if message.is_text() && socket.send(message).await.is_err() {
            return;
        }
    }
}

/// Opens a WebSocket like a browser, which fails the connection if all its subprotocols are declined.
async fn open(
    gate: &Gate,
    path: &str,
    protocols: &str,
) -> Result<(WebSocketStream<TcpStream>, Option<String>), Error> {
    let mut request = format!("ws://api.test{path}").into_client_request()?;
    request.headers_mut().insert("sec-websocket-protocol", protocols.parse().unwrap());
    let (socket, answer) = client_async(request, TcpStream::connect(gate.public).await.unwrap()).await?;
    let selected = answer.headers().get("sec-websocket-protocol");
    let selected = selected.map(|value| value.to_str().unwrap().to_owned());
    Ok((socket, selected))
}

fn settings(server: &Server, issuer: &Issuer) -> Settings {
    Settings::plaintext()
        .upstream("api", &server.url, "")
        .issuer(issuer)
        .route("/feed", "")
        .route("/open", "anonymous = true")
        .route("/admin", "scopes = [\"admin\"]")
        .toml("[streams]\ncheck_interval = \"100ms\"")
        .toml(BEARER)
}

/// Holds docs/configuration.md, Settings: bearer.websocket_protocol
#[test]
fn a_browser_opens_a_websocket_with_its_token_as_a_sub_protocol_and_the_upstream_never_sees_it() {
    block_on(async {
        let (server, issuer) = (Server::start().await, Issuer::new());
        let gate =
            Gate::start(&settings(&server, &issuer).telemetry("log_level = \"trace\"\nlog_paths = true"));
        let token = issuer.token().claim("jti", "socket-1").build();
        let secret = token.rsplit('.').next().unwrap();
        let rows = [
            (format!("bearer, {token}"), "bearer", None),
            (format!("bearer,{token},chat"), "chat", Some("chat")),
            (format!("chat, bearer, {token}"), "chat", Some("chat")),
            (format!("other, bearer, {token}"), "bearer", Some("other")),
            (format!("other, bearer, {token}, chat"), "chat", Some("other, chat")),
        ];
        for path in ["/feed", "/open"] {
            for (offered, selected, seen) in &rows {
                let (mut socket, answer) = open(&gate, path, offered).await.unwrap();
                assert_eq!(answer.as_deref(), Some(*selected), "{path}");
                socket.send(Message::text("hello")).await.unwrap();
                assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
                socket.close(None).await.unwrap();
                while let Some(Ok(_)) = socket.next().await {}
                let handshake = server.last();
                for hidden in [secret, "bearer", "authorization"] {
                    assert!(!handshake.contains(hidden), "{hidden} in {handshake}");
                }
                assert_eq!(handshake.contains("sec-websocket-protocol"), seen.is_some(), "{handshake}");
                if let Some(seen) = seen {
                    assert!(
                        handshake.contains(&format!("\"sec-websocket-protocol\": {seen:?}")),
                        "{handshake}"
                    );
                }
                assert!(handshake.contains("\"x-auth-subject\": \"alice\""), "{handshake}");
            }
        }
        // Other WebSockets are not touched.
        let (_, answer) = open(&gate, "/open", "chat,other").await.unwrap();
        assert_eq!(answer.as_deref(), Some("chat"));
        let declined = open(&gate, "/open", "other").await.unwrap_err();
        let expected =
            error::ProtocolError::SecWebSocketSubProtocolError(error::SubProtocolError::NoSubProtocol);
        assert_eq!(declined.to_string(), Error::Protocol(expected).to_string());

        let hash = log_hash(&issuer.name, "socket-1");
        gate.log().wait_for("its line", |record| field(record, "token_hash") == Some(&hash));
        let (log, metrics) = (gate.log().text(), gate.telemetry("/metrics").text());
        assert!(!log.contains(secret) && !metrics.contains(secret), "{log}");
    });
}

#[test]
fn a_token_among_the_sub_protocols_is_judged_as_any_other() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = Settings::plaintext()
        .upstream("api", &upstream.url(), "")
        .issuer(&issuer)
        .route("/feed", "")
        .route("/open", "anonymous = true")
        .route("/shadow", "mode = \"shadow\"")
        .route("/admin", "scopes = [\"admin\"]")
        .toml(BEARER);
    let gate = Gate::start(&settings);
    let (good, expired) = (issuer.good(), issuer.token().claim("exp", 1).claim("iat", 0).build());
    let stranger = Issuer::named("https://stranger.example/").good();
    let bearer = format!("Authorization: Bearer {good}\r\n");
    let rows: &[(&str, &str, String, &str, u16, &str)] = &[
        ("/feed", "websocket", format!("bearer, {good}"), "", 200, "allow/none"),
        ("/open", "websocket", format!("bearer, {good}"), "", 200, "allow/none"),
        ("/open", "websocket", "chat".to_owned(), "", 200, "allow/none"),
        ("/feed", "websocket", "chat".to_owned(), "", 401, "deny/missing"),
        ("/feed", "websocket", good.clone(), "", 401, "deny/missing"),
        ("/feed", "websocket", format!("Bearer, {good}"), "", 401, "deny/missing"),
        ("/feed", "chat", format!("bearer, {good}"), "", 401, "deny/missing"),
        ("/feed", "websocket", "bearer".to_owned(), "", 400, "deny/malformed"),
        ("/open", "websocket", "bearer".to_owned(), "", 400, "deny/malformed"),
        ("/feed", "websocket", "bearer, x y".to_owned(), "", 400, "deny/malformed"),
        ("/feed", "websocket", "bearer, x".to_owned(), "", 401, "deny/malformed"),
        ("/feed", "websocket", format!("bearer, {expired}"), "", 401, "deny/expired"),
        ("/open", "websocket", format!("bearer, {expired}"), "", 401, "deny/expired"),
        ("/feed", "websocket", format!("bearer, {stranger}"), "", 401, "deny/unknown_issuer"),
        ("/admin", "websocket", format!("bearer, {good}"), "", 403, "deny/insufficient_scope"),
        ("/nowhere", "websocket", format!("bearer, {good}"), "", 403, "deny/no_route"),
        ("/nowhere", "websocket", "chat".to_owned(), "", 401, "deny/no_route"),
        ("/feed", "websocket", format!("bearer, {good}"), &bearer, 400, "deny/ambiguous"),
        ("/open", "websocket", format!("bearer, {good}"), &bearer, 400, "deny/ambiguous"),
        (
            "/feed",
            "websocket",
            format!("bearer, {good}"),
            "Authorization: Basic YTpi\r\n",
            400,
            "deny/ambiguous",
        ),
        ("/feed?access_token=x", "websocket", format!("bearer, {good}"), "", 400, "deny/ambiguous"),
        ("/feed", "websocket", format!("bearer, {good}, {good}"), "", 400, "deny/ambiguous"),
        ("/feed", "websocket", format!("bearer, {good}, bearer, {good}"), "", 400, "deny/ambiguous"),
        (
            "/feed",
            "websocket",
            format!("bearer, {good}\r\nSec-WebSocket-Protocol: bearer, x"),
            "",
            400,
            "deny/ambiguous",
        ),
    ];
    let secrets = [&good, &expired, &stranger].map(|token| token.rsplit('.').next().unwrap().to_owned());
    let handshake = |path: &str, upgrade: &str, protocols: &str, more: &str| {
        let fields = format!("Host: api.test\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n{more}");
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
        let protocols = format!("Sec-WebSocket-Protocol: {protocols}\r\n\r\n");
        let request = format!("GET {path} HTTP/1.1\r\n{fields}{key}{protocols}");
        gate.connect().exchange(request).unwrap()
    };
    for (path, upgrade, protocols, more, status, decision) in rows {
        let before = upstream.count();
        let (answer, decided) = gate.decision(|| handshake(path, upgrade, protocols, more));
        assert_eq!(
            (answer.status(), decided.as_str()),
            (*status, *decision),
            "{path} {upgrade} {protocols:.20}"
        );
        assert_eq!(upstream.count() - before, usize::from(*status == 200));
        // No part of a token is in what the gate says either.
        let said = format!("{:?}{}", answer.head.fields, answer.text());
        assert!(!secrets.iter().any(|secret| said.contains(secret)), "{said}");
    }
    // What is only observed is forwarded, without whatever may be a token.
    for protocols in [
        format!("bearer, {expired}, chat"),
        format!("bearer, {good}, bearer, {expired}, chat"),
        format!("bearer, bearer, {good}, chat"),
        format!("bearer, {good}, {good}, chat"),
    ] {
        assert_eq!(handshake("/shadow", "websocket", &protocols, "").status(), 200);
        let seen = upstream.last();
        assert_eq!(seen.all("sec-websocket-protocol"), ["chat"], "{}", seen.text());
        assert!(!secrets.iter().any(|secret| seen.text().contains(secret)), "{}", seen.text());
    }
    // Not a handshake: no credential, and still nothing for the upstream to see.
    let answer = gate.get("/open").field("Sec-WebSocket-Protocol", &format!("bearer, {good}")).send();
    assert_eq!((answer.status(), upstream.last().field("sec-websocket-protocol")), (200, None));
}

#[test]
fn an_open_websocket_ends_with_the_token_of_its_handshake() {
    block_on(async {
        let (server, issuer) = (Server::start().await, Issuer::new());
        let gate = Gate::start(&settings(&server, &issuer).admin());
        let token = issuer.token().claim("jti", "socket-1").build();
        let (mut kept, _) = open(&gate, "/feed", &format!("bearer, {}", issuer.good())).await.unwrap();
        let (mut cut, _) = open(&gate, "/feed", &format!("bearer, {token}")).await.unwrap();
        for socket in [&mut kept, &mut cut] {
            socket.send(Message::text("hello")).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
        }
        // Judged again under another configuration, with the same token.
        gate.signal("HUP");
        gate.wait_for_reloads("ok", 1.0);
        gate.publish(&serde_json::json!({"type": "token-revoked", "jti": "socket-1"}));
        let Some(Ok(Message::Close(Some(frame)))) = cut.next().await else { panic!("no Close frame") };
        assert_eq!(frame.code, CloseCode::Policy);
        kept.send(Message::text("still")).await.unwrap();
        assert_eq!(kept.next().await.unwrap().unwrap(), Message::text("still"));
        // Tokens are no longer looked for there: the next request would be rejected.
        let without =
            gate.settings.to_toml().replace("websocket_protocol = \"bearer\"", "websocket_protocol = \"\"");
        gate.settings.file("portcullis.toml", without);
        let Some(Ok(Message::Close(Some(frame)))) = kept.next().await else { panic!("no Close frame") };
        assert_eq!(frame.code, CloseCode::Policy);
    });
}

#[test]
fn an_upstream_that_declines_a_websocket_answers_for_itself() {
    let upstream = RawUpstream::scripted(|exchange| match exchange.request.target().as_str() {
        "/refused" => exchange.answer("426 Upgrade Required", "Sec-WebSocket-Version: 13\r\n", "no"),
        _ => {
            exchange.send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            );
            Next::Close
        }
    });
    let issuer = Issuer::new();
    let gate = Gate::start(&Settings::plaintext().guarding(&upstream.url(), &issuer).toml(BEARER));
    for (path, status, selected) in [("/refused", 426, None), ("/taken", 101, Some("bearer"))] {
        let mut wire = gate.connect();
        wire.send(format!(
            "GET {path} HTTP/1.1\r\nHost: api.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Protocol: bearer, {}\r\n\r\n",
            issuer.good()
        ))
        .unwrap();
        let head = wire.head().unwrap();
        assert_eq!((head.status, head.field("sec-websocket-protocol")), (status, selected), "{path}");
    }
}
