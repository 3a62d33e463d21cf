//! A real gRPC client and server through the gate: unary calls, streams, and rejections in gRPC's own form.

use std::future::Ready;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes};
use futures_util::{Stream, StreamExt as _};
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tonic::client::{Grpc, GrpcService};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataValue;
use tonic::server::{StreamingService, UnaryService};
use tonic::{Code, Request, Response, Status, Streaming};

use testkit::collector::{Collector, Span};
use testkit::frames::{self, END_STREAM, Frames};
use testkit::gate::Gate;
use testkit::h2_client;
use testkit::raw_upstream::RawUpstream;
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use testkit::{block_on, eventually};

/// Messages are raw bytes: no schema is needed to show that they pass.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// Responds with the message, or with the status that the message asks for.
struct Echo;

impl UnaryService<Bytes> for Echo {
    type Response = Bytes;
    type Future = Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        std::future::ready(match request.get_ref().as_ref() {
            b"fail" => Err(Status::with_details(Code::DataLoss, "as asked: 100 %", Bytes::from("details"))),
            _ => {
                let mut response = Response::new(request.get_ref().clone());
                let subject = request.metadata().get("x-auth-subject").cloned();
                response
                    .metadata_mut()
                    .insert("x-subject", subject.unwrap_or(MetadataValue::from_static("nobody")));
                Ok(response)
            }
        })
    }
}

impl StreamingService<Bytes> for Echo {
    type Response = Bytes;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let messages = request.into_inner().map(|message| match message?.as_ref() {
            b"fail" => Err(Status::aborted("in the middle")),
            other => Ok(Bytes::copy_from_slice(other)),
        });
        std::future::ready(Ok(Response::new(Box::pin(messages))))
    }
}

/// Serves `Echo` over h2c; runs on the test's runtime.
async fn serve_echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("h2c://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let service = service_fn(|request: http::Request<Incoming>| async move {
                let mut grpc = tonic::server::Grpc::new(Raw);
                let unary = request.uri().path() == "/test.Echo/Unary";
                let request = request.map(tonic::body::Body::new);
                Ok::<_, std::convert::Infallible>(if unary {
                    grpc.unary(Echo, request).await
                } else {
                    grpc.streaming(Echo, request).await
                })
            });
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(socket), service),
            );
        }
    });
    url
}

/// A gRPC channel to the gate over TLS.
struct Channel(SendRequest<tonic::body::Body>);

impl Channel {
    async fn connect(gate: &Gate) -> Grpc<Self> {
        let stream = h2_client::tls(gate, "h2").await;
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(async move { drop(connection.await) });
        Grpc::with_origin(Self(sender), "https://api.test".parse().unwrap())
    }
}

impl GrpcService<tonic::body::Body> for Channel {
    type ResponseBody = Incoming;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Incoming>, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    if !token.is_empty() {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    request
}

async fn unary(
    grpc: &mut Grpc<Channel>,
    message: &'static str,
    token: &str,
) -> Result<Response<Bytes>, Status> {
    grpc.ready().await.unwrap();
    let path = PathAndQuery::from_static("/test.Echo/Unary");
    grpc.unary(with_token(Bytes::from(message), token), path, Raw).await
}

fn settings(url: &str, issuer: &Issuer) -> Settings {
    Settings::tls()
        .upstream("api", url, "response_timeout = \"500ms\"")
        .issuer(issuer)
        .route("/test.Echo/{*method}", "methods = [\"POST\"]")
        .route("/test.Scoped/{*method}", "scopes = [\"admin\"]")
}

#[test]
fn unary_calls_pass_with_metadata_status_and_details() {
    block_on(async {
        let issuer = Issuer::new();
        let gate = Gate::start(&settings(&serve_echo().await, &issuer));
        let mut grpc = Channel::connect(&gate).await;
        let answer = unary(&mut grpc, "hello", &issuer.good()).await.unwrap();
        assert_eq!(answer.get_ref(), "hello");
        assert_eq!(answer.metadata().get("x-subject").unwrap(), "alice");
        assert!(answer.metadata().contains_key("x-request-id"));

        let status = unary(&mut grpc, "fail", &issuer.good()).await.unwrap_err();
        assert_eq!(
            (status.code(), status.message(), status.details()),
            (Code::DataLoss, "as asked: 100 %", &b"details"[..])
        );
    });
}

#[test]
fn streams_pass_message_by_message_both_ways() {
    block_on(async {
        let issuer = Issuer::new();
        let gate = Gate::start(&settings(&serve_echo().await, &issuer));
        let mut grpc = Channel::connect(&gate).await;
        let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(4);
        let messages = futures_util::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|message| (message, receiver))
        });
        grpc.ready().await.unwrap();
        let path = PathAndQuery::from_static("/test.Echo/Bidi");
        let request = with_token(Box::pin(messages), &issuer.good());
        let call = grpc.streaming(request, path, Raw);
        sender.send(Bytes::from("0")).await.unwrap();
        let mut answers = call.await.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap().unwrap(), "0");
        for n in 1..100 {
            sender.send(Bytes::from(n.to_string())).await.unwrap();
            assert_eq!(
                answers.message().await.unwrap().unwrap(),
                n.to_string(),
                "each before the next is sent"
            );
        }
        let large = Bytes::from(vec![9; 3 * 1024 * 1024]);
        sender.send(large.clone()).await.unwrap();
        assert_eq!(answers.message().await.unwrap().unwrap(), large);
        sender.send(Bytes::from("fail")).await.unwrap();
        let status = answers.message().await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Aborted, "in the middle"));
    });
}

#[test]
fn a_streaming_call_is_cut_when_its_token_ends() {
    block_on(async {
        let issuer = Issuer::new();
        let settings = settings(&serve_echo().await, &issuer).admin();
        let gate = Gate::start(&settings.toml("[streams]\ncheck_interval = \"100ms\"\n"));
        let mut grpc = Channel::connect(&gate).await;
        let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(4);
        let messages = futures_util::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|message| (message, receiver))
        });
        grpc.ready().await.unwrap();
        let token = issuer.good();
        let request = with_token(Box::pin(messages), &token);
        let call = grpc.streaming(request, PathAndQuery::from_static("/test.Echo/Bidi"), Raw);
        sender.send(Bytes::from("0")).await.unwrap();
        let mut answers = call.await.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap().unwrap(), "0");
        gate.publish(&serde_json::json!({"type": "subject-revoked", "subject": "alice"}));
        let status = answers.message().await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
        assert!(status.message().contains("revoked"), "{status}");
        assert!((gate.cuts("subject_revoked") - 1.0).abs() < 1e-9);
        let again = unary(&mut grpc, "hello", &token).await.unwrap_err();
        assert_eq!(again.code(), Code::Unauthenticated, "the connection lives on: {again}");
    });
}

#[test]
fn calls_have_spans_that_end_with_their_trailers() {
    block_on(async {
        let (issuer, collector) = (Issuer::new(), Collector::start());
        let traced = |url: &str| {
            let telemetry = format!("otlp_endpoint = \"{}\"\ntrace_sample_ratio = 1", collector.url());
            let settings = settings(url, &issuer).telemetry(&telemetry).telemetry("log_paths = true").admin();
            Gate::start(&settings.toml("[streams]\ncheck_interval = \"100ms\"\n"))
        };
        let gate = traced(&serve_echo().await);
        let mut grpc = Channel::connect(&gate).await;
        let bidi = PathAndQuery::from_static("/test.Echo/Bidi");
        let token = issuer.token().claim("sub", "bob").build();
        grpc.ready().await.unwrap();
        let first = futures_util::stream::iter([Bytes::from("0")]).chain(futures_util::stream::pending());
        let call = grpc.streaming(with_token(Box::pin(first), &token), bidi, Raw);
        let mut answers = call.await.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap().unwrap(), "0");
        assert_eq!(unary(&mut grpc, "hello", &issuer.good()).await.unwrap().get_ref(), "hello");
        // A status of the application's own is no failure of HTTP.
        assert_eq!(unary(&mut grpc, "fail", &issuer.good()).await.unwrap_err().code(), Code::DataLoss);
        let calls = || -> Vec<Span> {
            let spans = collector.spans().into_iter();
            spans.filter(|span| span.text("url.path") == "/test.Echo/Unary").collect()
        };
        let unaries = eventually("both calls", || Some(calls()).filter(|calls| calls.len() == 2));
        assert!(!collector.spans().iter().any(|span| span.text("url.path") == "/test.Echo/Bidi"), "not over");
        gate.publish(&serde_json::json!({"type": "subject-revoked", "subject": "bob"}));
        assert_eq!(answers.message().await.unwrap_err().code(), Code::Unauthenticated);
        let streamed = collector.wait_for("the stream", |span| span.text("url.path") == "/test.Echo/Bidi");
        assert!(unaries.iter().all(|span| streamed.start < span.start && streamed.end > span.end));
        for (server, ended_by) in [(&unaries[0], ""), (&unaries[1], ""), (&streamed, "gate")] {
            let (server, client) = collector.wait_for_call("both", |span| span.span_id == server.span_id);
            assert_eq!((server.name.as_str(), client.name.as_str()), ("POST /test.Echo/{*method}", "POST"));
            for (name, value) in [
                ("http.route", "/test.Echo/{*method}"),
                ("network.protocol.version", "2"),
                ("url.scheme", "https"),
                ("portcullis.decision", "allow"),
                ("portcullis.ended_by", ended_by),
            ] {
                assert_eq!(server.text(name), value, "{name} of {server:#?}");
            }
            assert_eq!((client.text("url.scheme"), client.text("portcullis.upstream")), ("http", "api"));
            for span in [&server, &client] {
                let said = (span.text("http.response.status_code"), span.text("error.type"), span.is_error);
                assert_eq!(said, ("200", "", false), "{span:#?}");
            }
            assert!(server.start <= client.start && client.end <= server.end);
        }

        let gone = traced(&format!("h2c://127.0.0.1:{}", testkit::ports::reserved().port()));
        let mut grpc = Channel::connect(&gone).await;
        assert_eq!(unary(&mut grpc, "hello", &issuer.good()).await.unwrap_err().code(), Code::Unavailable);
        let is_failed = |span: &Span| span.text("error.type") == "connect";
        let (server, client) = collector.wait_for_call("the call that failed", is_failed);
        assert!(server.is_error && client.is_error, "{server:#?} {client:#?}");
        // The gate answers in gRPC's own form, whose status is that of trailers.
        let status = |span: &Span| span.text("http.response.status_code").to_owned();
        assert_eq!((status(&server), status(&client)), ("200".to_owned(), String::new()));
    });
}

#[test]
fn a_streaming_call_is_told_that_the_gate_goes_down() {
    block_on(async {
        let issuer = Issuer::new();
        let settings = settings(&serve_echo().await, &issuer).server("drain_timeout = \"10m\"");
        let mut gate = Gate::start(&settings);
        let mut grpc = Channel::connect(&gate).await;
        let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(4);
        let messages = futures_util::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|message| (message, receiver))
        });
        grpc.ready().await.unwrap();
        let request = with_token(Box::pin(messages), &issuer.good());
        let call = grpc.streaming(request, PathAndQuery::from_static("/test.Echo/Bidi"), Raw);
        sender.send(Bytes::from("0")).await.unwrap();
        let mut answers = call.await.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap().unwrap(), "0");
        gate.signal("TERM");
        let status = answers.message().await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Unavailable, "The gate is shutting down"));
        drop((grpc, sender, answers));
        assert_eq!(gate.wait_for_exit(testkit::PATIENCE).code(), Some(0));
    });
}

#[test]
fn refusals_come_as_grpc_statuses() {
    block_on(async {
        let issuer = Issuer::new();
        let gate = Gate::start(&settings(&serve_echo().await, &issuer));
        let mut grpc = Channel::connect(&gate).await;
        let expired = issuer.token().claim("exp", testkit::now() - 100).build();
        for (token, code) in [
            ("", Code::Unauthenticated),
            (expired.as_str(), Code::Unauthenticated),
            ("§ malformed", Code::InvalidArgument),
        ] {
            let token = if token.starts_with('§') { "a b" } else { token };
            let status = unary(&mut grpc, "hello", token).await.unwrap_err();
            assert_eq!(status.code(), code, "{token}: {status}");
            assert!(!status.message().is_empty());
        }
        grpc.ready().await.unwrap();
        let path = PathAndQuery::from_static("/test.Scoped/Unary");
        let denied = grpc.unary(with_token(Bytes::new(), &issuer.good()), path, Raw).await.map(drop);
        assert_eq!(denied.unwrap_err().code(), Code::PermissionDenied);
        grpc.ready().await.unwrap();
        let path = PathAndQuery::from_static("/test.Unknown/Unary");
        let denied = grpc.unary(with_token(Bytes::new(), &issuer.good()), path, Raw).await.map(drop);
        assert_eq!(denied.unwrap_err().code(), Code::PermissionDenied);
    });
}

#[test]
fn a_dead_or_silent_upstream_comes_as_a_grpc_status() {
    block_on(async {
        let issuer = Issuer::new();
        let port = testkit::ports::reserved().port();
        let gate = Gate::start(&settings(&format!("h2c://127.0.0.1:{port}"), &issuer));
        let mut grpc = Channel::connect(&gate).await;
        assert_eq!(unary(&mut grpc, "hello", &issuer.good()).await.unwrap_err().code(), Code::Unavailable);

        let silent = RawUpstream::scripted(|exchange| exchange.wait_for_close());
        let gate = Gate::start(&settings(&silent.url(), &issuer));
        let mut grpc = Channel::connect(&gate).await;
        assert_eq!(
            unary(&mut grpc, "hello", &issuer.good()).await.unwrap_err().code(),
            Code::DeadlineExceeded
        );
    });
}

#[test]
fn a_refusal_is_one_frame_without_a_body() {
    let (issuer, upstream) = (Issuer::new(), RawUpstream::start());
    let gate = Gate::start(&settings(&upstream.url(), &issuer));
    for content_type in ["application/grpc", "application/grpc+proto", "application/grpc-web+proto"] {
        let mut connection = Frames::connect(&gate);
        let fields = [
            (":method", "POST"),
            (":scheme", "https"),
            (":path", "/test.Echo/Unary"),
            (":authority", "api.test"),
            ("content-type", content_type),
            ("te", "trailers"),
        ];
        connection.send(frames::headers(1, END_STREAM, &fields));
        let head = loop {
            let frame = connection.read().unwrap();
            if frame.stream == 1 {
                break frame;
            }
        };
        assert_eq!(
            (head.kind, head.flags & END_STREAM),
            (frames::kind::HEADERS, END_STREAM),
            "{content_type}"
        );
        assert_eq!(head.payload.iter().find(|byte| **byte & 0xe0 != 0x20), Some(&0x88), ":status 200");
    }
    let answer = gate
        .curl("/test.Echo/Unary", &["--http2", "-i", "-X", "POST", "-H", "content-type: application/grpc"]);
    assert!(
        answer.contains("grpc-status: 16") && answer.contains("content-type: application/grpc"),
        "{answer}"
    );
    assert!(answer.ends_with("\r\n\r\n"), "no body: {answer}");
    assert_eq!(upstream.count(), 0);
}
