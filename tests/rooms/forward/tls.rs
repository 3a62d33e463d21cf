//! Upstreams over TLS: what is verified, what is presented, and which protocol is used.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use portcullis::forward::{Address, ErrorKind, LoadError, Scheme, Upstream, UpstreamSettings};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::forward::support::{Ask, Gate, listen, read, settings, worker};

/// A certificate authority, with the files that an operator would have.
struct Authority {
    folder: TempDir,
    signer: testkit::pki::Authority,
}

impl Authority {
    fn new() -> Self {
        let (folder, signer) = (TempDir::new().unwrap(), testkit::pki::Authority::new());
        std::fs::write(folder.path().join("ca.pem"), signer.certificate_pem()).unwrap();
        Self { folder, signer }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn acceptor(&self, name: &str, alpn: &[&str], client_certificate: bool) -> TlsAcceptor {
        let client_ca = client_certificate.then_some(&self.signer);
        Arc::new(self.signer.server(&[name]).server_config(alpn, client_ca)).into()
    }

    fn settings(&self, port: u16) -> UpstreamSettings {
        UpstreamSettings { ca: Some(self.file("ca.pem")), ..settings(Scheme::Https, port) }
    }
}

async fn accept(listener: &TcpListener, acceptor: &TlsAcceptor) -> std::io::Result<TlsStream<TcpStream>> {
    acceptor.accept(listener.accept().await?.0).await
}

async fn http1_answer(stream: &mut TlsStream<TcpStream>, body: &str) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(answer.as_bytes()).await.unwrap();
    String::from_utf8(head).unwrap()
}

#[test]
fn http_1_1_is_spoken_when_the_upstream_chooses_it() {
    worker(async {
        let authority = Authority::new();
        for alpn in [&["http/1.1"][..], &[]] {
            let (listener, port) = listen().await;
            let acceptor = authority.acceptor("127.0.0.1", alpn, false);
            let gate = Gate::new(authority.settings(port));
            let client = async {
                for _ in 0..3 {
                    assert_eq!(read(gate.get("/").await.unwrap()).await.unwrap().0, "secret");
                }
            };
            let server = async {
                let mut stream = accept(&listener, &acceptor).await.unwrap();
                for _ in 0..3 {
                    assert!(
                        http1_answer(&mut stream, "secret")
                            .await
                            .starts_with("GET / HTTP/1.1\r\nhost: api.example\r\n")
                    );
                }
            };
            tokio::join!(client, server);
        }
    });
}

#[test]
fn http_2_is_spoken_when_the_upstream_chooses_it_except_for_an_upgrade() {
    worker(async {
        let authority = Authority::new();
        let (listener, port) = listen().await;
        let acceptor = authority.acceptor("127.0.0.1", &["h2", "http/1.1"], false);
        let gate = Gate::new(authority.settings(port));
        let (answer, ()) =
            tokio::join!(async { read(gate.get("/").await.unwrap()).await.unwrap().0 }, async {
                let stream = accept(&listener, &acceptor).await.unwrap();
                assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
                let mut server = h2::server::handshake(stream).await.unwrap();
                let (request, mut respond) = server.accept().await.unwrap().unwrap();
                assert_eq!(request.uri(), "https://api.example/");
                let mut stream = respond.send_response(Response::new(()), false).unwrap();
                stream.send_data(Bytes::from_static(b"two"), true).unwrap();
                drop(tokio::task::spawn_local(async move { while server.accept().await.is_some() {} }));
            });
        assert_eq!(answer, "two");

        let ask = Ask {
            can_switch: true,
            ..Ask::get("/").header("connection", "upgrade").header("upgrade", "echo")
        };
        let (answer, head) = tokio::join!(gate.send(ask), async {
            let mut stream = accept(&listener, &acceptor).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
            http1_answer(&mut stream, "declined").await
        });
        assert!(head.contains("upgrade: echo"), "{head}");
        assert_eq!(read(answer.unwrap()).await.unwrap().0, "declined");
    });
}

#[test]
fn certificates_that_are_not_accepted() {
    worker(async {
        let (trusted, other) = (Authority::new(), Authority::new());
        for (issuer, name) in [(&other, "127.0.0.1"), (&trusted, "127.0.0.2"), (&trusted, "localhost")] {
            let (listener, port) = listen().await;
            let acceptor = issuer.acceptor(name, &["h2", "http/1.1"], false);
            let gate = Gate::new(trusted.settings(port));
            let (answer, accepted) = tokio::join!(gate.get("/"), accept(&listener, &acceptor));
            let error = answer.expect_err("not trusted");
            assert_eq!(
                (error.kind(), error.status()),
                (Some(ErrorKind::Tls), StatusCode::BAD_GATEWAY),
                "{name}: {error}"
            );
            drop(accepted);
            assert_eq!(gate.errors("tls"), 1);
        }
    });
}

#[test]
fn a_client_certificate_is_presented() {
    worker(async {
        let authority = Authority::new();
        let identity = authority.signer.client("gate.example");
        std::fs::write(authority.file("gate.pem"), identity.chain).unwrap();
        std::fs::write(authority.file("gate.key"), identity.key).unwrap();
        let (listener, port) = listen().await;
        let acceptor = authority.acceptor("127.0.0.1", &["http/1.1"], true);
        let with = UpstreamSettings {
            client_certificate: Some((authority.file("gate.pem"), authority.file("gate.key"))),
            ..authority.settings(port)
        };
        let gate = Gate::new(with);
        let (answer, ()) = tokio::join!(gate.get("/"), async {
            let mut stream = accept(&listener, &acceptor).await.unwrap();
            assert_eq!(stream.get_ref().1.peer_certificates().unwrap().len(), 1);
            http1_answer(&mut stream, "welcome").await;
        });
        assert_eq!(read(answer.unwrap()).await.unwrap().0, "welcome");

        let gate = Gate::new(authority.settings(port));
        let (answer, accepted) = tokio::join!(gate.get("/"), accept(&listener, &acceptor));
        assert!(accepted.is_err());
        assert_eq!(answer.expect_err("no certificate").status(), StatusCode::BAD_GATEWAY);
    });
}

#[test]
fn a_handshake_that_never_ends_is_an_upstream_that_cannot_be_reached() {
    worker(async {
        let authority = Authority::new();
        let (listener, port) = listen().await;
        let mut settings = authority.settings(port);
        settings.connect_timeout = std::time::Duration::from_millis(150);
        let gate = Gate::new(settings);
        // Several at once: those who wait for the first one's connection wait no longer than the limit either.
        let asks = futures_util::future::join_all((0..5).map(|_| gate.get("/")));
        let (answers, _silent) = tokio::join!(asks, listener.accept());
        for answer in answers {
            assert_eq!(answer.expect_err("no handshake").kind(), Some(ErrorKind::Connect));
        }
    });
}

#[test]
fn a_connection_cut_off_without_a_close_notify_is_no_end() {
    worker(async {
        let authority = Authority::new();
        let (listener, port) = listen().await;
        let acceptor = authority.acceptor("127.0.0.1", &["http/1.1"], false);
        let gate = Gate::new(authority.settings(port));
        for polite in [true, false] {
            let (answer, ()) = tokio::join!(async { read(gate.get("/").await.unwrap()).await }, async {
                let mut stream = accept(&listener, &acceptor).await.unwrap();
                while stream.read_u8().await.unwrap() != b'\n' {}
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhello").await.unwrap();
                stream.flush().await.unwrap();
                if polite {
                    stream.shutdown().await.unwrap();
                }
                // Whatever else the client sent is read, so that the end is no reset.
                let (mut tcp, _) = stream.into_inner();
                tcp.shutdown().await.unwrap();
                drop(tcp.read_to_end(&mut Vec::new()).await);
            });
            assert_eq!(answer.is_ok(), polite, "{answer:?}");
        }
    });
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let authority = Authority::new();
    let missing = UpstreamSettings { ca: Some(authority.file("missing.pem")), ..authority.settings(1) };
    let error = Upstream::load(missing).expect_err("no such file");
    assert!(error.to_string().contains("missing.pem"), "{error}");
    let address = Address::Tcp { host: "not a name".to_owned(), port: 1 };
    let nameless = UpstreamSettings { addresses: vec![address], ..authority.settings(1) };
    assert!(matches!(Upstream::load(nameless), Err(LoadError::Host(_))));
}

#[test]
fn many_requests_at_once_open_their_http_1_1_connections_at_once() {
    const REQUESTS: usize = 60;
    worker(async {
        let authority = Authority::new();
        let (listener, port) = listen().await;
        let acceptor = authority.acceptor("127.0.0.1", &["http/1.1"], false);
        let mut settings = authority.settings(port);
        settings.connect_timeout = Duration::from_secs(5);
        let gate = Gate::new(settings);
        // The first connection tells which protocol is spoken; the others get their handshake once there are many of them.
        let open = Rc::new(Cell::new(0));
        drop(tokio::task::spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, open) = (acceptor.clone(), Rc::clone(&open));
                drop(tokio::task::spawn_local(async move {
                    open.set(open.get() + 1);
                    let is_first = open.get() == 1;
                    let many = || (is_first || open.get() >= REQUESTS / 2).then_some(());
                    testkit::eventually_async("half of the connections are opened at a time", many).await;
                    let mut stream = acceptor.accept(stream).await.unwrap();
                    http1_answer(&mut stream, "x").await;
                }));
            }
        }));
        let all = (0..REQUESTS).map(|_| async { read(gate.get("/").await.unwrap()).await.unwrap().0 });
        let bodies = futures_util::future::join_all(all).await;
        assert!(bodies.iter().all(|body| body == "x"));
    });
}

#[test]
fn the_server_name_can_be_another_than_the_address() {
    worker(async {
        let authority = Authority::new();
        for (sni, trusted) in [(Some("api.internal"), true), (None, false), (Some("other.internal"), false)] {
            let (listener, port) = listen().await;
            let acceptor = authority.acceptor("api.internal", &["http/1.1"], false);
            let mut settings = authority.settings(port);
            settings.sni = sni.map(str::to_owned);
            let gate = Gate::new(settings);
            let (answer, seen) = tokio::join!(gate.get("/"), async {
                let mut stream = accept(&listener, &acceptor).await.ok()?;
                let name = stream.get_ref().1.server_name().map(str::to_owned);
                http1_answer(&mut stream, "ok").await;
                name
            });
            match answer {
                Ok(answer) => assert_eq!((read(answer).await.unwrap().0.as_str(), trusted), ("ok", true)),
                Err(error) => {
                    assert_eq!((error.kind(), trusted), (Some(ErrorKind::Tls), false), "{error}");
                    assert!(error.to_string().contains("certificate"), "the cause's own words: {error}");
                }
            }
            assert_eq!(seen.as_deref(), sni.filter(|_| trusted));
        }
    });
}
