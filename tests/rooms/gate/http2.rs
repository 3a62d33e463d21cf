//! HTTP/2 over TLS.

use std::future::Future;
use std::time::Instant;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request, Response};
use portcullis::shutdown::Phase;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::gate::bed::{Bed, PATIENCE, token};
use crate::gate::limits::SHORT;
use crate::gate::secure::Certificates;

/// A gate with TLS, and a connection to it.
struct Client {
    send: SendRequest<Bytes>,
    ended: JoinHandle<Result<(), h2::Error>>,
}

fn start(change: impl FnOnce(&mut portcullis::gate::Settings)) -> (Certificates, Bed) {
    let certificates = Certificates::new();
    let bed = Bed::start(|settings| {
        certificates.serve(settings);
        change(settings);
    });
    (certificates, bed)
}

async fn dial(certificates: &Certificates, bed: &Bed) -> TlsStream<TcpStream> {
    let tcp = TcpStream::connect(bed.address).await.unwrap();
    let connector = TlsConnector::from(certificates.client(&[b"h2"], false));
    connector.connect(ServerName::try_from("localhost").unwrap(), tcp).await.unwrap()
}

impl Client {
    async fn connect(certificates: &Certificates, bed: &Bed) -> Self {
        let (send, connection) = h2::client::handshake(dial(certificates, bed).await).await.unwrap();
        let ended = tokio::spawn(connection);
        Self { send: send.ready().await.unwrap(), ended }
    }

    /// Sends a request with a body; returns the whole response, and whether it ended with its head.
    async fn ask(&mut self, request: Request<()>, body: &'static [u8]) -> (Response<Vec<u8>>, bool) {
        let (answer, mut stream) = self.send.send_request(request, body.is_empty()).unwrap();
        if !body.is_empty() {
            // An error means that the gate has answered already.
            let _answered = stream.send_data(Bytes::from_static(body), true);
        }
        let (head, mut source) = answer.await.unwrap().into_parts();
        let ended_with_head = source.is_end_stream();
        let mut bytes = Vec::new();
        while let Some(Ok(data)) = source.data().await {
            source.flow_control().release_capacity(data.len()).unwrap();
            bytes.extend_from_slice(&data);
        }
        (Response::from_parts(head, bytes), ended_with_head)
    }
}

fn request(method: Method, path: &str, fields: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(format!("https://gate{path}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("an end in time") });
}

fn error(answer: &Response<Vec<u8>>) -> String {
    let json: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
    json["error"].as_str().unwrap().to_owned()
}

#[test]
fn requests_are_forwarded_or_refused() {
    run(async {
        let (certificates, bed) = start(|_| {});
        let mut client = Client::connect(&certificates, &bed).await;
        let bearer = format!("Bearer {}", token("app", "read"));
        let (answer, _) =
            client.ask(request(Method::POST, "/deals?a=b", &[("authorization", &bearer)]), b"hello").await;
        assert_eq!((answer.status().as_u16(), answer.body().as_slice()), (200, &b"hello"[..]));
        let seen = bed.upstream.seen_meanwhile().await;
        assert_eq!(seen.line, "POST /deals?a=b HTTP/1.1");
        assert!(seen.fields.contains(&("host".into(), "gate".into())), "{:?}", seen.fields);
        let (answer, _) = client.ask(request(Method::POST, "/deals", &[]), b"unwanted").await;
        assert_eq!((answer.status().as_u16(), error(&answer)), (401, "missing_token".into()));
        let (answer, ended) = client.ask(request(Method::HEAD, "/deals", &[]), b"").await;
        assert_eq!((answer.status().as_u16(), ended), (401, true));
        let (answer, _) = client.ask(request(Method::GET, "/a//b", &[]), b"").await;
        assert_eq!((answer.status().as_u16(), error(&answer)), (400, "invalid_request".into()));
        let host = request(Method::GET, "/deals", &[("host", "other")]);
        let (answer, _) = client.ask(host, b"").await;
        assert_eq!((answer.status().as_u16(), error(&answer)), (400, "invalid_request".into()));
        let connect = Request::builder().method(Method::CONNECT).uri("gate:443").body(()).unwrap();
        let (answer, _) = client.ask(connect, b"").await;
        assert_eq!((answer.status().as_u16(), error(&answer)), (405, "method_not_allowed".into()));
        assert!(bed.upstream.is_untouched());
    });
}

#[test]
fn an_answer_that_is_cut_short_is_reset() {
    run(async {
        let (certificates, bed) = start(|_| {});
        let mut client = Client::connect(&certificates, &bed).await;
        let (answer, _) = client.send.send_request(request(Method::GET, "/open/cut", &[]), true).unwrap();
        let reset = match answer.await {
            // The reset came before anybody looked at the head.
            Err(reset) => reset,
            Ok(answer) => {
                let mut body = answer.into_body();
                loop {
                    if let Err(reset) = body.data().await.expect("no end before the reset") {
                        break reset;
                    }
                }
            }
        };
        assert!(reset.is_reset(), "{reset}");
    });
}

#[test]
fn grpc_is_refused_with_trailers_only() {
    run(async {
        let (certificates, bed) = start(|_| {});
        let mut client = Client::connect(&certificates, &bed).await;
        let call = request(Method::POST, "/deals", &[("content-type", "application/grpc+proto")]);
        let (answer, ended_with_head) = client.ask(call, b"\0\0\0\0\0").await;
        let field = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap());
        assert_eq!(
            (answer.status().as_u16(), field("grpc-status"), ended_with_head),
            (200, Some("16"), true)
        );
        assert_eq!(field("content-type"), Some("application/grpc"));
        assert_eq!(field("grpc-message"), Some("An access token is required"));
    });
}

#[test]
fn limits_hold() {
    run(async {
        let (certificates, bed) = start(|settings| {
            settings.limits.header_bytes = 4000;
            settings.limits.headers = 10;
            settings.limits.body_bytes = Some(10);
            settings.limits.http2_streams = 7;
        });
        let mut client = Client::connect(&certificates, &bed).await;
        let many: HeaderMap = (0..11)
            .map(|n| {
                (format!("a{n}").parse::<http::HeaderName>().unwrap(), http::HeaderValue::from_static("b"))
            })
            .collect();
        let mut crowded = request(Method::GET, "/open/ok", &[]);
        *crowded.headers_mut() = many;
        let (answer, _) = client.ask(crowded, b"").await;
        assert_eq!((answer.status().as_u16(), error(&answer)), (431, "headers_too_large".into()));
        let long = "x".repeat(4000);
        let (answer, _) = client.ask(request(Method::GET, "/open/ok", &[("a", &long)]), b"").await;
        assert_eq!(answer.status().as_u16(), 431);
        let announced = request(Method::POST, "/open/echo", &[("content-length", "11")]);
        let (answer, _) = client.ask(announced, b"0123456789a").await;
        assert_eq!((answer.status().as_u16(), error(&answer)), (413, "request_too_large".into()));
        assert!(bed.upstream.is_untouched());
        let (answer, _) = client.ask(request(Method::POST, "/open/echo", &[]), b"0123456789a").await;
        assert_eq!((answer.status().as_u16(), error(&answer)), (413, "request_too_large".into()));
        assert_eq!(client.send.current_max_send_streams(), 7);
        let (answer, _) = client.ask(request(Method::POST, "/open/echo", &[]), b"0123456789").await;
        assert_eq!(answer.body(), b"0123456789");
        // Of the one that was too large, nothing or a part has reached the upstream, but never all.
        let whole = loop {
            if let Some(body) = bed.upstream.seen_meanwhile().await.body {
                break body;
            }
        };
        assert_eq!(whole, b"0123456789");
    });
}

#[test]
fn a_request_names_its_host() {
    run(async {
        let (certificates, bed) = start(|_| {});
        let mut raw = dial(&certificates, &bed).await;
        raw.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        // GET, https and / of the static table; END_STREAM and END_HEADERS on stream 1.
        raw.write_all(b"\0\0\x03\x01\x05\0\0\0\x01\x82\x87\x84").await.unwrap();
        let status = loop {
            let mut head = [0; 9];
            raw.read_exact(&mut head).await.unwrap();
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            raw.read_exact(&mut payload).await.unwrap();
            if head[3] == 1 {
                break payload[0];
            }
        };
        assert_eq!(status, 0x8c, "400 of the static table");
    });
}

#[test]
fn a_connection_without_streams_is_ended_and_one_with_streams_is_not() {
    run(async {
        let (certificates, bed) = start(|settings| settings.limits.idle_connection_timeout = SHORT);
        let mut busy = Client::connect(&certificates, &bed).await;
        let (answer, _) = busy.send.send_request(request(Method::GET, "/open/hold", &[]), true).unwrap();
        bed.upstream.seen_meanwhile().await;
        let since = Instant::now();
        let idle = Client::connect(&certificates, &bed).await;
        idle.ended.await.unwrap().unwrap();
        assert!(since.elapsed() >= SHORT);
        bed.upstream.go();
        assert_eq!(answer.await.unwrap().status().as_u16(), 200);
        busy.ended.await.unwrap().unwrap();
    });
}

#[test]
fn a_drain_lets_streams_finish_and_takes_no_new_ones() {
    run(async {
        let (certificates, mut bed) = start(|_| {});
        let mut client = Client::connect(&certificates, &bed).await;
        let (answer, _) = client.send.send_request(request(Method::GET, "/open/hold", &[]), true).unwrap();
        bed.upstream.seen_meanwhile().await;
        bed.advance(Phase::Draining);
        bed.until_closed();
        bed.upstream.go();
        let mut body = answer.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "held");
        client.ended.await.unwrap().unwrap();
        assert!(client.send.ready().await.is_err());
        bed.ended();
    });
}
