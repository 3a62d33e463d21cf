//! WebSocket and other upgrades: a tunnel only after the upstream's 101, and nothing smuggled through a rejected one.

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::{accept_async, client_async};

use testkit::gate::Gate;
use testkit::raw_upstream::{Next, RawUpstream};
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use testkit::{block_on, eventually, h2_client};

/// An upstream that upgrades to `chat` and then sends everything back in upper case.
fn chatting() -> RawUpstream {
    RawUpstream::scripted(|exchange| {
        if exchange.request.field("upgrade").as_deref() != Some("chat") {
            return exchange.ok("no upgrade asked for");
        }
        exchange.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n");
        loop {
            match exchange.read_some() {
                Ok(bytes) if !bytes.is_empty() => drop(exchange.write(bytes.to_ascii_uppercase())),
                _ => return Next::Close,
            }
        }
    })
}

fn upgrade(token: &str, extra: &str) -> String {
    format!(
        "GET /chat HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {token}\r\nConnection: Upgrade\r\n\
         Upgrade: chat\r\n{extra}\r\n"
    )
}

/// A WebSocket server that echoes every message.
async fn echo(socket: TcpStream) {
    let mut socket = accept_async(socket).await.unwrap();
    while let Some(Ok(message)) = socket.next().await {
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            return;
        }
    }
}

#[test]
fn a_websocket_carries_messages_both_ways() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(echo(socket));
            }
        });
        let issuer = Issuer::new();
        let request = |token: Option<&str>| -> Request {
            let mut request = "ws://api.test/socket?room=1".into_client_request().unwrap();
            if let Some(token) = token {
                request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
            }
            request
        };
        for settings in [Settings::plaintext(), Settings::tls()] {
            let gate = Gate::start(&settings.guarding(&format!("http://{address}"), &issuer));
            let token = issuer.good();
            if gate.settings.has_tls() {
                let stream = h2_client::tls(&gate, "http/1.1").await;
                let (mut socket, answer) = client_async(request(Some(&token)), stream).await.unwrap();
                assert_eq!(answer.status(), 101);
                socket.send(Message::text("over TLS")).await.unwrap();
                assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("over TLS"));
                socket.close(None).await.unwrap();
                while let Some(Ok(_)) = socket.next().await {}
                continue;
            }
            let stream = TcpStream::connect(gate.public).await.unwrap();
            let (mut socket, _) = client_async(request(Some(&token)), stream).await.unwrap();
            let large = vec![7; 1024 * 1024];
            for message in [Message::text("hello"), Message::binary(large), Message::text("")] {
                socket.send(message.clone()).await.unwrap();
                assert_eq!(socket.next().await.unwrap().unwrap(), message);
            }
            // An idle tunnel is no idle connection, and a pong shows that frames of control pass as well.
            socket.send(Message::Ping("ping".into())).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong("ping".into()));
            socket.close(None).await.unwrap();
            let goodbye = socket.next().await.unwrap().unwrap();
            assert!(goodbye.is_close(), "{goodbye:?}");

            let stream = TcpStream::connect(gate.public).await.unwrap();
            let refused = client_async(request(None), stream).await.unwrap_err();
            assert!(refused.to_string().contains("401"), "{refused}");
        }
    });
}

#[test]
fn any_protocol_can_be_upgraded_to() {
    let (upstream, issuer) = (chatting(), Issuer::new());
    let gate = Gate::start(&Settings::plaintext().guarding(&upstream.url(), &issuer));
    let mut wire = gate.connect();
    // Bytes that follow the head at once belong to the tunnel.
    wire.send(upgrade(&issuer.good(), "") + "early").unwrap();
    let head = wire.head().unwrap();
    assert_eq!((head.status, head.field("upgrade")), (101, Some("chat")));
    assert_eq!(wire.take(5).unwrap(), b"EARLY");
    wire.send("later").unwrap();
    assert_eq!(wire.take(5).unwrap(), b"LATER");
    let seen = upstream.last();
    assert_eq!(seen.field("upgrade").as_deref(), Some("chat"));
    assert!(seen.field("connection").unwrap().eq_ignore_ascii_case("upgrade"), "{}", seen.text());
}

#[test]
fn the_end_of_one_side_ends_the_other() {
    let (upstream, issuer) = (chatting(), Issuer::new());
    let gate = Gate::start(&Settings::plaintext().guarding(&upstream.url(), &issuer));
    let open = || {
        let mut wire = gate.connect();
        wire.send(upgrade(&issuer.good(), "")).unwrap();
        assert_eq!(wire.head().unwrap().status, 101);
        wire
    };
    let mut wire = open();
    upstream.hang_up();
    assert!(wire.is_closed(), "the upstream's end reaches the client");
    let before = gate.descriptors();
    drop(open());
    eventually("the tunnel is gone", || (gate.descriptors() <= before).then_some(()));
}

#[test]
fn a_tunnel_that_only_the_upstream_keeps_open_ends_in_a_bounded_time() {
    // Says nothing, and ignores the end of the client's side.
    let upstream = RawUpstream::scripted(|exchange| {
        exchange
            .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        while exchange.read_some().is_ok_and(|bytes| !bytes.is_empty()) {}
        exchange.wait_for_close()
    });
    let issuer = Issuer::new();
    let gate = Gate::start(&Settings::plaintext().guarding(&upstream.url(), &issuer));
    let ask = upgrade(&issuer.good(), "").replace("Upgrade: chat", "Upgrade: websocket");
    let clients: Vec<_> = (0..5)
        .map(|_| {
            let mut wire = gate.connect();
            wire.send(&ask).unwrap();
            assert_eq!(wire.head().unwrap().status, 101);
            wire
        })
        .collect();
    assert_eq!(upstream.open(), 5);
    drop(clients);
    eventually("all tunnels have ended", || (upstream.open() == 0).then_some(()));
}

/// Holds docs/operations.md, Failure modes: SIGTERM, SIGINT
#[test]
fn a_websocket_is_told_that_the_gate_goes_down() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(echo(socket));
            }
        });
        let issuer = Issuer::new();
        let settings = Settings::plaintext().server("drain_timeout = \"60s\"");
        let mut gate = Gate::start(&settings.guarding(&format!("http://{address}"), &issuer));
        let mut request = "ws://api.test/socket".into_client_request().unwrap();
        let bearer = format!("Bearer {}", issuer.good());
        request.headers_mut().insert("authorization", bearer.parse().unwrap());
        let stream = TcpStream::connect(gate.public).await.unwrap();
        let (mut socket, _) = client_async(request, stream).await.unwrap();
        socket.send(Message::text("hello")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
        gate.signal("TERM");
        match socket.next().await.unwrap().unwrap() {
            Message::Close(Some(close)) => assert_eq!(u16::from(close.code), 1001),
            other => panic!("{other:?}"),
        }
        drop(socket);
        // Long before the time for requests in flight is over.
        assert_eq!(gate.wait_for_exit(testkit::PATIENCE).code(), Some(0));
    });
}

#[test]
fn a_tunnel_of_any_protocol_ends_when_the_gate_goes_down() {
    let (upstream, issuer) = (chatting(), Issuer::new());
    let settings = Settings::plaintext().server("drain_timeout = \"10m\"").guarding(&upstream.url(), &issuer);
    let mut gate = Gate::start(&settings);
    let mut wire = gate.connect();
    wire.send(upgrade(&issuer.good(), "") + "hello").unwrap();
    assert_eq!(wire.head().unwrap().status, 101);
    assert_eq!(wire.take(5).unwrap(), b"HELLO");
    gate.signal("TERM");
    assert!(wire.is_closed());
    // Long before the time for requests in flight is over.
    assert_eq!(gate.wait_for_exit(testkit::PATIENCE).code(), Some(0));
    assert_eq!(upstream.open(), 0);
}

#[test]
fn a_refused_upgrade_opens_no_tunnel() {
    // The smuggling of h2c and WebSocket upgrades: a proxy that tunnels without a 101 lets anything through behind it.
    let upstream = RawUpstream::scripted(|exchange| exchange.answer("426 Upgrade Required", "", "no"));
    let issuer = Issuer::new();
    let gate = Gate::start(&Settings::plaintext().guarding(&upstream.url(), &issuer));
    let mut wire = gate.connect();
    let second = "GET /admin HTTP/1.1\r\nHost: api.test\r\n\r\n";
    wire.send(upgrade(&issuer.good(), "") + second).unwrap();
    assert_eq!(wire.answer().unwrap().status(), 426);
    if let Ok(answer) = wire.answer() {
        assert_eq!(answer.status(), 401, "what follows is judged as a request of its own");
    }
    assert_eq!(upstream.count(), 1);
    assert!(upstream.stray().is_empty());
}

#[test]
fn h2c_cannot_be_smuggled_in_by_upgrade() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let gate = Gate::start(&Settings::plaintext().guarding(&upstream.url(), &issuer));
    let request = gate
        .get("/")
        .token(&issuer.good())
        .field("Connection", "Upgrade, HTTP2-Settings")
        .field("Upgrade", "h2c")
        .field("HTTP2-Settings", "AAMAAABkAAQCAAAAAAIAAAAA");
    let answer = request.send();
    assert_ne!(answer.status(), 101);
    for seen in upstream.seen() {
        assert_eq!(seen.field("http2-settings"), None, "{}", seen.text());
    }
}

#[test]
fn an_upgrade_is_judged_like_any_request() {
    let (upstream, issuer) = (chatting(), Issuer::new());
    let settings = Settings::plaintext()
        .upstream("api", &upstream.url(), "")
        .issuer(&issuer)
        .route("/chat", "scopes = [\"chat\"]");
    let gate = Gate::start(&settings);
    let mut wire = gate.connect();
    wire.send(upgrade(&issuer.good(), "")).unwrap();
    assert_eq!(wire.answer().unwrap().status(), 403);
    assert_eq!(upstream.count(), 0);
    let mut wire = gate.connect();
    wire.send(upgrade(&issuer.token().claim("scope", "chat").build(), "")).unwrap();
    assert_eq!(wire.head().unwrap().status, 101);
}

#[test]
fn upgrade_of_http_1_0_is_ignored() {
    let (upstream, issuer) = (chatting(), Issuer::new());
    let gate = Gate::start(&Settings::plaintext().guarding(&upstream.url(), &issuer));
    let mut wire = gate.connect();
    wire.send(upgrade(&issuer.good(), "").replacen("HTTP/1.1", "HTTP/1.0", 1)).unwrap();
    let answer = String::from_utf8_lossy(&wire.rest().unwrap()).into_owned();
    assert!(!answer.contains(" 101 "), "{answer}");
    assert!(upstream.seen().iter().all(|seen| seen.field("upgrade").is_none()));
}
