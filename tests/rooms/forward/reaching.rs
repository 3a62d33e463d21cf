//! The address that a request is sent to, and what happens if it cannot be reached.

use std::time::Duration;

use http::{HeaderValue, Method};
use portcullis::forward::{Address, ErrorKind, Scheme, UpstreamSettings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

use crate::forward::support::{Ask, Gate, Peer, full, listen, next, read, settings, worker};

fn tcp(port: u16) -> Address {
    Address::Tcp { host: "127.0.0.1".to_owned(), port }
}

/// A port on which nobody listens.
async fn refused() -> Address {
    tcp(listen().await.1)
}

fn at(addresses: Vec<Address>) -> UpstreamSettings {
    UpstreamSettings { addresses, ..settings(Scheme::Http, 0) }
}

#[test]
fn requests_go_to_the_address_with_the_fewest_in_flight() {
    worker(async {
        let ((one, one_port), (two, two_port)) = (listen().await, listen().await);
        let gate = Gate::new(at(vec![tcp(one_port), tcp(two_port)]));
        // One of the two is slow.
        let (slow, (mut busy, other)) = tokio::join!(gate.get("/slow"), async {
            let (mut peer, other) = tokio::select! {
                peer = Peer::accept(&one) => (peer, &two),
                peer = Peer::accept(&two) => (peer, &one),
            };
            peer.head().await;
            peer.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\na").await;
            (peer, other)
        });
        let mut slow = slow.unwrap().into_body();
        assert_eq!(next(&mut slow).await, "a");
        let mut idle = None;
        for _ in 0..5 {
            let (answer, peer) = tokio::join!(gate.get("/fast"), async {
                let mut peer = match idle.take() {
                    Some(peer) => peer,
                    None => Peer::accept(other).await,
                };
                peer.serve("fast").await;
                peer
            });
            assert_eq!(read(answer.unwrap()).await.unwrap().0, "fast");
            idle = Some(peer);
        }
        // A response that has ended is no longer in flight.
        busy.say("b").await;
        assert_eq!(next(&mut slow).await, "b");
    });
}

#[test]
fn addresses_with_equally_many_in_flight_are_asked_in_turn() {
    worker(async {
        let (one, two, three) = (listen().await, listen().await, listen().await);
        let gate = Gate::new(at([&one, &two, &three].map(|(_, port)| tcp(*port)).into()));
        let mut asked = Vec::new();
        for _ in 0..7 {
            let (answer, place) = tokio::join!(gate.get("/"), async {
                let (mut peer, place) = tokio::select! {
                    peer = Peer::accept(&one.0) => (peer, 0),
                    peer = Peer::accept(&two.0) => (peer, 1),
                    peer = Peer::accept(&three.0) => (peer, 2),
                };
                peer.head().await;
                peer.say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
                place
            });
            assert_eq!(read(answer.unwrap()).await.unwrap().0, "");
            asked.push(place);
        }
        assert_eq!(asked, [0, 1, 2, 0, 1, 2, 0]);
    });
}

#[test]
fn an_address_that_cannot_be_reached_is_left_out() {
    worker(async {
        for method in [Method::GET, Method::POST] {
            let (listener, port) = listen().await;
            let gate = Gate::new(at(vec![refused().await, tcp(port), refused().await]));
            for _ in 0..6 {
                let ask = Ask { body: full("x"), ..Ask::new(method.clone(), "/") };
                let (answer, ()) = tokio::join!(gate.send(ask), async {
                    let mut peer = Peer::accept(&listener).await;
                    peer.head().await;
                    peer.take(1).await;
                    peer.say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
                });
                assert_eq!(answer.unwrap().status(), 200, "{method}");
            }
            // Each of the two was tried once.
            assert_eq!(gate.errors("connect"), 2, "{method}");
        }
    });
}

#[test]
fn an_address_that_comes_back_is_used_again() {
    worker(async {
        let (spare, port) = listen().await;
        drop(spare);
        let gate = Gate::new(at(vec![tcp(port), refused().await]));
        let error = gate.get("/").await.expect_err("nobody listens");
        assert_eq!(error.kind(), Some(ErrorKind::Connect));
        assert!(error.to_string().contains("refused"), "the cause's own words: {error}");
        // Where all are left out they are tried all the same.
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let (answer, _) =
            tokio::join!(gate.get("/"), async { Peer::accept(&listener).await.serve("back").await });
        assert_eq!(read(answer.unwrap()).await.unwrap().0, "back");
    });
}

#[test]
fn an_upstream_may_listen_on_a_unix_socket() {
    worker(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        let gate = Gate::new(at(vec![Address::Unix(path.clone())]));
        let error = gate.get("/").await.expect_err("no socket yet");
        assert_eq!(error.kind(), Some(ErrorKind::Connect));
        let listener = UnixListener::bind(&path).unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            for _ in 0..2 {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                assert!(String::from_utf8(head).unwrap().contains("\r\nhost: api.example\r\n"));
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            }
        };
        let ask = async {
            for _ in 0..2 {
                assert_eq!(read(gate.get("/").await.unwrap()).await.unwrap().0, "ok");
            }
        };
        tokio::join!(serve, ask);
    });
}

#[test]
fn the_host_can_be_another_than_the_client_asked_for() {
    worker(async {
        let (listener, port) = listen().await;
        let host = Some(HeaderValue::from_static("internal.example:81"));
        let gate = Gate::new(UpstreamSettings { host, ..settings(Scheme::Http, port) });
        let (answer, head) =
            tokio::join!(gate.get("/"), async { Peer::accept(&listener).await.serve("ok").await });
        assert_eq!(answer.unwrap().status(), 200);
        assert!(head.contains("\r\nhost: internal.example:81\r\n"), "{head}");
        assert!(head.contains("\r\nx-forwarded-host: api.example\r\n"), "{head}");
    });
}

#[test]
fn an_upstream_that_stops_in_mid_body_is_given_up() {
    worker(async {
        let (listener, port) = listen().await;
        let body_timeout = Some(Duration::from_millis(200));
        let gate = Gate::new(UpstreamSettings { body_timeout, ..settings(Scheme::Http, port) });
        for framing in ["content-length: 100", "transfer-encoding: chunked", "connection: close"] {
            let (answer, mut peer) = tokio::join!(gate.get("/"), async {
                let mut peer = Peer::accept(&listener).await;
                peer.head().await;
                peer.say(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n5\r\nhello")).await;
                peer
            });
            // The client takes its time, which is no silence of the upstream.
            testkit::let_pass_async(Duration::from_millis(300)).await;
            let mut body = answer.unwrap().into_body();
            next(&mut body).await;
            let error =
                http_body_util::BodyExt::frame(&mut body).await.expect("no clean end").expect_err(framing);
            assert_eq!(error.kind(), Some(ErrorKind::Timeout), "{framing}: {error}");
            drop(body);
            assert_eq!(peer.closed().await, 0);
        }
        assert_eq!(gate.errors("timeout"), 3);
    });
}
