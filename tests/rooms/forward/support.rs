//! A worker, a permit for any request, and upstreams that do exactly what a test tells them to.

use std::cell::Cell;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, Version};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use portcullis::enforce::bearer::BearerSettings;
use portcullis::enforce::decide::{Asked, Enforcer, InForce, Permit, Request, Verdict};
use portcullis::enforce::policy::{IdentitySettings, RouteSettings};
use portcullis::enforce::target::RequestTarget;
use portcullis::forward::{
    Address, BodyError, ForwardBody, ForwardError, Forwarder, Hop, Interim, Outgoing, RequestBody,
    RequestBodyError, RequestSlot, Scheme, Upstream, UpstreamSettings,
};
use portcullis::metrics::Metrics;
use portcullis::time::Now;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};

/// Runs a test the way a worker runs: on one thread, with local tasks. A test that hangs fails.
pub(crate) fn worker<F: Future>(test: F) -> F::Output {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap();
    runtime.block_on(async { tokio::time::timeout(testkit::PATIENCE, test).await.expect("the test hangs") })
}

pub(crate) const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

pub(crate) fn settings(scheme: Scheme, port: u16) -> UpstreamSettings {
    UpstreamSettings {
        name: "api".to_owned(),
        scheme,
        addresses: vec![Address::Tcp { host: "127.0.0.1".to_owned(), port }],
        host: None,
        sni: None,
        max_requests: None,
        connect_timeout: Duration::from_secs(5),
        response_timeout: Duration::from_secs(10),
        body_timeout: None,
        idle_timeout: Duration::from_secs(60),
        ca: None,
        client_certificate: None,
    }
}

/// One worker's forwarder, and the metrics it counts on.
pub(crate) struct Gate {
    pub(crate) forwarder: Forwarder,
    pub(crate) metrics: Metrics,
}

impl Gate {
    pub(crate) fn new(settings: UpstreamSettings) -> Self {
        Self::with_places(settings, Semaphore::MAX_PERMITS)
    }

    /// A forwarder with a limit on open connections.
    pub(crate) fn with_places(settings: UpstreamSettings, places: usize) -> Self {
        let metrics = Metrics::new().unwrap();
        let upstream = Upstream::load(settings).unwrap();
        let forwarder = Forwarder::new(
            vec![upstream],
            &IdentitySettings::default(),
            &BearerSettings::default(),
            (&metrics, &Arc::new(Semaphore::new(places))),
            None,
        );
        Self { forwarder, metrics }
    }

    pub(crate) fn http(port: u16) -> Self {
        Self::new(settings(Scheme::Http, port))
    }

    pub(crate) async fn send(&self, mut ask: Ask) -> Result<Response<ForwardBody>, ForwardError> {
        let permit = permit(&ask.method, ask.path);
        self.forwarder.forward(&permit, ask.outgoing()).await
    }

    pub(crate) async fn get(&self, path: &'static str) -> Result<Response<ForwardBody>, ForwardError> {
        self.send(Ask::get(path)).await
    }

    pub(crate) fn errors(&self, kind: &str) -> u64 {
        self.metrics.upstream_errors.with_label_values(&["api", kind]).get()
    }
}

/// Queries that a URI cannot contain. The HTTP/2 library represents targets as URIs.
pub(crate) const ODD_QUERIES: [&str; 6] =
    ["/?filter={\"a\":1}", "/?a=<b", "/?a=b>", "/a?\"", "/<a>", "/a?x=`&y=\"<>\""];

/// The permit that `enforce` gives for an anonymous route.
pub(crate) fn permit(method: &Method, path: &str) -> Permit {
    let route = |path: &str, response_timeout| RouteSettings {
        path: Arc::from(path),
        anonymous: true,
        response_timeout,
        request_body_timeout: Some(Duration::from_millis(500)),
        ..RouteSettings::default()
    };
    let routes = vec![route("/{*rest}", None), route("/impatient", Some(Duration::from_millis(100)))];
    let settings = portcullis::enforce::Settings {
        routes,
        identity: IdentitySettings::default(),
        bearer: BearerSettings::default(),
        dpop: Default::default(),
        proofs: 10,
    };
    let enforcer =
        Enforcer::new(settings, Vec::new(), InForce::unlimited(), &Metrics::new().unwrap()).unwrap();
    let (target, headers) =
        (RequestTarget::from_bytes(Bytes::copy_from_slice(path.as_bytes())).unwrap(), HeaderMap::new());
    let request =
        Request { method, target: &target, host: Some("api.example"), headers: &headers, certificate: None };
    match enforcer.decide(&request, Asked::NOTHING, Now::read()).verdict {
        Verdict::Allow(permit) => permit,
        other => panic!("{method} {path}: {other:?}"),
    }
}

/// A client's request.
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) headers: HeaderMap,
    pub(crate) body: RequestBody,
    pub(crate) version: Version,
    pub(crate) can_switch: bool,
    pub(crate) interim: Option<Interim>,
}

impl Ask {
    pub(crate) fn new(method: Method, path: &'static str) -> Self {
        Self {
            method,
            path,
            headers: HeaderMap::new(),
            body: RequestBody::empty(),
            version: Version::HTTP_11,
            can_switch: false,
            interim: None,
        }
    }

    pub(crate) fn get(path: &'static str) -> Self {
        Self::new(Method::GET, path)
    }

    pub(crate) fn post(path: &'static str, body: RequestBody) -> Self {
        Self { body, ..Self::new(Method::POST, path) }
    }

    pub(crate) fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        self
    }

    fn outgoing(&mut self) -> Outgoing<'_> {
        let hop = Hop {
            client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
            tls: true,
            trusted: None,
            host: HeaderValue::from_static("api.example"),
            version: self.version,
            request_id: HeaderValue::from_static("request-1"),
        };
        Outgoing {
            method: &self.method,
            headers: &self.headers,
            body: std::mem::replace(&mut self.body, RequestBody::empty()),
            hop,
            can_switch: self.can_switch,
            interim: self.interim.take(),
            slot: RequestSlot::default(),
            trace: None,
        }
    }
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> RequestBody {
    RequestBody::new(http_body_util::Full::new(bytes.into()).map_err(|never| match never {}))
}

type Piece = Result<Frame<Bytes>, RequestBodyError>;

/// A body of unknown length, sent piece by piece; it ends when the sender is dropped.
pub(crate) fn pieces() -> (Pieces, RequestBody) {
    let (sender, receiver) = mpsc::channel(1);
    let asked = Rc::new(Cell::new(false));
    (Pieces { sender, asked: Rc::clone(&asked) }, RequestBody::new(PieceBody { receiver, asked }))
}

pub(crate) struct Pieces {
    sender: mpsc::Sender<Piece>,
    asked: Rc<Cell<bool>>,
}

impl Pieces {
    pub(crate) async fn send(&self, bytes: impl Into<Bytes>) {
        self.sender.send(Ok(Frame::data(bytes.into()))).await.expect("nobody wants the body any more");
    }

    pub(crate) async fn trailers(&self, name: &'static str, value: &'static str) {
        let mut trailers = HeaderMap::new();
        trailers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        self.sender.send(Ok(Frame::trailers(trailers))).await.unwrap();
    }

    pub(crate) async fn fail(&self, error: RequestBodyError) {
        self.sender.send(Err(error)).await.unwrap();
    }

    /// Whether a piece was ever requested.
    pub(crate) fn was_asked(&self) -> bool {
        self.asked.get()
    }

    /// Waits until no more pieces can be requested.
    pub(crate) async fn unwanted(&self) {
        self.sender.closed().await;
    }
}

struct PieceBody {
    receiver: mpsc::Receiver<Piece>,
    asked: Rc<Cell<bool>>,
}

impl Body for PieceBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Piece>> {
        self.asked.set(true);
        self.receiver.poll_recv(cx)
    }
}

/// Reads the whole body of a response, and its trailers.
pub(crate) async fn read(response: Response<ForwardBody>) -> Result<(String, HeaderMap), BodyError> {
    let collected = response.into_body().collect().await?;
    let trailers = collected.trailers().cloned().unwrap_or_default();
    Ok((String::from_utf8(collected.to_bytes().to_vec()).unwrap(), trailers))
}

pub(crate) async fn next(body: &mut ForwardBody) -> String {
    let frame = body.frame().await.expect("the body goes on").unwrap();
    String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
}

/// A listener, and its port.
pub(crate) async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// The upstream's end of one connection.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

impl Peer {
    pub(crate) async fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().await.unwrap();
        Self::over(stream)
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    /// Reads the next request head, including its empty line.
    pub(crate) async fn head(&mut self) -> String {
        self.until(b"\r\n\r\n").await
    }

    /// Reads up to and including `end`.
    pub(crate) async fn until(&mut self, end: &[u8]) -> String {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                let taken = self.buffer.drain(..at + end.len()).collect();
                return String::from_utf8(taken).unwrap();
            }
            let read = self.stream.read_buf(&mut self.buffer).await.unwrap();
            assert_ne!(read, 0, "closed after {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }

    pub(crate) async fn take(&mut self, count: usize) -> String {
        String::from_utf8(self.take_bytes(count).await).unwrap()
    }

    pub(crate) async fn take_bytes(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert_ne!(self.stream.read_buf(&mut self.buffer).await.unwrap(), 0, "closed too early");
        }
        self.buffer.drain(..count).collect()
    }

    /// Like `take`, but discards the bytes.
    pub(crate) async fn skip(&mut self, mut count: usize) {
        while count > 0 {
            if self.buffer.is_empty() {
                assert_ne!(self.stream.read_buf(&mut self.buffer).await.unwrap(), 0, "closed too early");
            }
            let skipped = count.min(self.buffer.len());
            drop(self.buffer.drain(..skipped));
            count -= skipped;
        }
    }

    pub(crate) async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Waits until the gate closes its end; returns how many bytes it sent before.
    pub(crate) async fn closed(&mut self) -> usize {
        let mut rest = Vec::new();
        // A reset is an end too.
        drop(self.stream.read_to_end(&mut rest).await);
        self.buffer.len() + rest.len()
    }

    /// Responds to one request with a short body.
    pub(crate) async fn serve(&mut self, body: &str) -> String {
        let head = self.head().await;
        self.say(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
        head
    }
}
