//! Protocol upgrades: a client behind hyper's server, the gate in between, and an upstream that upgrades or does not.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::rc::Rc;

use http::{Request, Response, Version};
use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use portcullis::forward::{ErrorKind, Flow, ForwardBody, ForwardError, TunnelEnd};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use crate::forward::support::{Ask, Gate, LOCALHOST, Peer, listen, worker};

const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: echo\r\nx-up: 1\r\n\r\n";

type Outcome = Rc<RefCell<Option<(TunnelEnd, u64, u64)>>>;

/// Serves one client with a gate, as the gate's listener does.
async fn front(gate: Rc<Gate>, outcome: Outcome) -> u16 {
    let (listener, port) = listen().await;
    drop(tokio::task::spawn_local(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(move |request| forward(Rc::clone(&gate), Rc::clone(&outcome), request));
        let server =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        drop(server.with_upgrades().await);
    }));
    port
}

/// Forwards a request, responds, and runs the tunnel, if there is one, in the background.
async fn forward(
    gate: Rc<Gate>,
    outcome: Outcome,
    mut request: Request<Incoming>,
) -> Result<Response<ForwardBody>, Infallible> {
    let client = hyper::upgrade::on(&mut request);
    let (headers, version) = (request.headers().clone(), request.version());
    let answer = gate.send(Ask { headers, version, can_switch: true, ..Ask::get("/chat") }).await;
    let mut answer = answer.unwrap_or_else(|error| panic!("{error}"));
    if let Some(tunnel) = answer.body_mut().take_tunnel() {
        drop(tokio::task::spawn_local(async move {
            let client = TokioIo::new(client.await.unwrap());
            let never = std::future::pending;
            let (up, down) = (Cell::new(0), Cell::new(0));
            let moved = |flow, bytes| {
                let count = if flow == Flow::Up { &up } else { &down };
                count.set(count.get() + bytes);
            };
            let ended = tunnel.run(client, Bytes::new(), moved, never(), never()).await;
            *outcome.borrow_mut() = Some((ended, up.get(), down.get()));
        }));
    }
    Ok(answer)
}

async fn client(port: u16) -> Peer {
    Peer::over(TcpStream::connect((LOCALHOST, port)).await.unwrap())
}

async fn start() -> (TcpListener, Outcome, Peer) {
    let (listener, port) = listen().await;
    let outcome = Outcome::default();
    let front = front(Rc::new(Gate::http(port)), Rc::clone(&outcome)).await;
    (listener, outcome, client(front).await)
}

const ASK: &str = "GET /chat HTTP/1.1\r\nhost: x\r\nconnection: keep-alive, Upgrade\r\nupgrade: echo\r\n\r\n";

#[test]
fn bytes_flow_both_ways_after_the_upstream_has_switched() {
    worker(async {
        let (listener, outcome, mut client) = start().await;
        client.say(ASK).await;
        let mut upstream = Peer::accept(&listener).await;
        let head = upstream.head().await;
        assert!(head.contains("\r\nupgrade: echo\r\nconnection: upgrade\r\n"), "{head}");
        upstream.say(format!("{SWITCHED}early")).await;
        let answer = client.head().await;
        assert!(
            answer.starts_with("HTTP/1.1 101 ")
                && answer.contains("upgrade: echo")
                && answer.contains("x-up: 1"),
            "{answer}"
        );
        assert!(answer.contains("x-request-id: request-1"), "{answer}");
        assert_eq!(client.take(5).await, "early");
        client.say("ping").await;
        assert_eq!(upstream.take(4).await, "ping");
        upstream.say("pong").await;
        assert_eq!(client.take(4).await, "pong");
        // One direction ends, the other continues.
        client.stream.shutdown().await.unwrap();
        assert_eq!(upstream.closed().await, 0);
        upstream.say("last words").await;
        assert_eq!(client.take(10).await, "last words");
        drop(upstream);
        assert_eq!(client.closed().await, 0);
        while outcome.borrow().is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(outcome.take(), Some((TunnelEnd::Closed, 4, 19)));
    });
}

#[test]
fn the_upstream_may_end_its_direction_first() {
    worker(async {
        let (listener, _outcome, mut client) = start().await;
        client.say(ASK).await;
        let mut upstream = Peer::accept(&listener).await;
        upstream.head().await;
        upstream.say(SWITCHED).await;
        client.head().await;
        upstream.stream.shutdown().await.unwrap();
        assert_eq!(client.closed().await, 0);
        client.say("still here").await;
        assert_eq!(upstream.take(10).await, "still here");
    });
}

#[test]
fn an_upstream_may_decline() {
    worker(async {
        let (listener, outcome, mut client) = start().await;
        client.say(ASK).await;
        let mut upstream = Peer::accept(&listener).await;
        upstream.serve("no").await;
        assert!(client.head().await.starts_with("HTTP/1.1 200 "));
        assert_eq!(client.take(2).await, "no");
        assert!(outcome.borrow().is_none());
        // An ordinary exchange, so both connections stay open.
        client.say("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let head = upstream.serve("ok").await;
        assert!(!head.contains("upgrade"), "{head}");
        client.head().await;
    });
}

#[test]
fn a_tunnel_of_http_is_never_asked_for() {
    worker(async {
        for ask in [
            "GET /chat HTTP/1.1\r\nhost: x\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n",
            "GET /chat HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: TLS/1.3, echo\r\n\r\n",
            "GET /chat HTTP/1.1\r\nhost: x\r\nupgrade: echo\r\n\r\n",
        ] {
            let (listener, _outcome, mut client) = start().await;
            client.say(ask).await;
            let head = Peer::accept(&listener).await.serve("plain").await;
            assert!(!head.contains("upgrade") && !head.contains("http2-settings"), "{head}");
            assert!(client.head().await.starts_with("HTTP/1.1 200 "));
        }
    });
}

#[test]
fn a_switch_to_something_else_is_refused() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        // Without a wish of the client, on HTTP/1.0, and to a protocol it did not name.
        let wish = |version| Ask {
            version,
            ..Ask::get("/").header("connection", "upgrade").header("upgrade", "echo")
        };
        for ask in [Ask::get("/"), wish(Version::HTTP_10), wish(Version::HTTP_2)] {
            let (answer, ()) = tokio::join!(gate.send(ask), async {
                let mut upstream = Peer::accept(&listener).await;
                assert!(!upstream.head().await.contains("upgrade"));
                upstream.say(SWITCHED).await;
                upstream.closed().await;
            });
            let error = answer.expect_err("nobody asked");
            assert!(
                matches!(error, ForwardError::BadAnswer(_)) && error.kind() == Some(ErrorKind::BadAnswer)
            );
        }
    });
}

#[test]
fn a_tunnel_that_is_not_run_is_closed() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        let ask = Ask {
            can_switch: true,
            ..Ask::get("/").header("connection", "upgrade").header("upgrade", "echo")
        };
        let (answer, mut upstream) = tokio::join!(gate.send(ask), async {
            let mut upstream = Peer::accept(&listener).await;
            upstream.head().await;
            upstream.say(SWITCHED).await;
            upstream
        });
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 101);
        assert!(answer.into_body().collect().await.unwrap().to_bytes().is_empty());
        assert_eq!(upstream.closed().await, 0);
    });
}
