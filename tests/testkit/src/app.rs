//! A hyper server as upstream: HTTP/1.1, h2c, or HTTP/2 over TLS. It gives one response per path and records requests.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio_rustls::TlsAcceptor;

use crate::eventually;
use crate::pki::Identity;

/// The body type of the test clients and servers.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A body with these bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// An empty body.
pub fn empty() -> Body {
    Empty::new().boxed_unsync()
}

/// A body with these frames.
pub fn frames(frames: Vec<Frame<Bytes>>) -> Body {
    BodyExt::boxed_unsync(StreamBody::new(futures_util::stream::iter(frames.into_iter().map(Ok))))
}

/// The protocol of the upstream.
pub enum Speaks {
    /// HTTP/1.1 in clear text.
    Http1,
    /// HTTP/2 in clear text with prior knowledge.
    H2c,
    /// HTTP/2 over TLS.
    H2Tls(Identity),
}

/// A request as it arrived at the upstream.
#[derive(Debug, Clone)]
pub struct Arrived {
    /// Its method.
    pub method: Method,
    /// Its target.
    pub uri: Uri,
    /// Its version.
    pub version: Version,
    /// Its header fields.
    pub headers: HeaderMap,
    /// How many bytes of body arrived.
    pub body: usize,
    /// Its trailer fields, once the body has ended.
    pub trailers: Option<HeaderMap>,
    /// Whether the body ended properly.
    pub complete: bool,
}

impl Arrived {
    /// The value of a header field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// The upstream. It stops when dropped.
pub struct App {
    /// The address it listens on.
    pub address: SocketAddr,
    scheme: &'static str,
    state: Arc<State>,
    _stop: watch::Sender<()>,
}

struct State {
    arrived: Mutex<Vec<Arrived>>,
    events: broadcast::Sender<Option<String>>,
}

impl App {
    /// Starts it on a free port.
    pub fn start(speaks: Speaks) -> Self {
        Self::start_on(([127, 0, 0, 1], 0).into(), speaks)
    }

    /// Starts it at this address, on a thread of its own.
    pub fn start_on(address: SocketAddr, speaks: Speaks) -> Self {
        let (stop, stopped) = watch::channel(());
        let state = Arc::new(State { arrived: Mutex::default(), events: broadcast::channel(64).0 });
        let listener = eventually("the address is free", || std::net::TcpListener::bind(address).ok());
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let scheme = match speaks {
            Speaks::Http1 => "http",
            Speaks::H2c => "h2c",
            Speaks::H2Tls(_) => "https",
        };
        let shared = state.clone();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(accept(listener, speaks, shared, stopped));
        });
        Self { address, scheme, state, _stop: stop }
    }

    /// The URL for the configuration; uses `localhost`, because a certificate may name it.
    pub fn url(&self) -> String {
        format!("{}://localhost:{}", self.scheme, self.address.port())
    }

    /// All requests so far.
    pub fn arrived(&self) -> Vec<Arrived> {
        self.state.arrived.lock().unwrap().clone()
    }

    /// The last request, once its body has ended.
    pub fn last(&self) -> Arrived {
        eventually("a complete request at the upstream", || {
            self.arrived().last().filter(|arrived| arrived.complete).cloned()
        })
    }

    /// Sends an event on every open `/events` stream; returns how many there were.
    pub fn emit(&self, event: &str) -> usize {
        self.state.events.send(Some(event.to_owned())).unwrap_or_default()
    }

    /// Ends every open `/events` stream.
    pub fn end_events(&self) {
        drop(self.state.events.send(None));
    }

    /// How many `/events` streams are open.
    pub fn listeners(&self) -> usize {
        self.state.events.receiver_count()
    }
}

async fn accept(
    listener: std::net::TcpListener,
    speaks: Speaks,
    state: Arc<State>,
    mut stopped: watch::Receiver<()>,
) {
    let listener = TcpListener::from_std(listener).unwrap();
    let tls = match &speaks {
        Speaks::H2Tls(identity) => Some(TlsAcceptor::from(Arc::new(identity.server_config(&["h2"], None)))),
        Speaks::Http1 | Speaks::H2c => None,
    };
    let http2 = !matches!(speaks, Speaks::Http1);
    loop {
        let socket = tokio::select! {
            accepted = listener.accept() => accepted.unwrap().0,
            _ = stopped.changed() => return,
        };
        let (state, tls) = (state.clone(), tls.clone());
        tokio::spawn(async move {
            match tls {
                Some(tls) => {
                    if let Ok(stream) = tls.accept(socket).await {
                        serve(TokioIo::new(stream), http2, state).await;
                    }
                }
                None => serve(TokioIo::<TcpStream>::new(socket), http2, state).await,
            }
        });
    }
}

async fn serve<I>(io: I, http2: bool, state: Arc<State>)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let state = state.clone();
        async move { Ok::<_, Infallible>(answer(request, state).await) }
    });
    if http2 {
        drop(
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(io, service)
                .await,
        );
    } else {
        drop(hyper::server::conn::http1::Builder::new().serve_connection(io, service).with_upgrades().await);
    }
}

/// Produces the response that the first path segment selects.
async fn answer(request: Request<Incoming>, state: Arc<State>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let index = {
        let mut arrived = state.arrived.lock().unwrap();
        arrived.push(Arrived {
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            version: parts.version,
            headers: parts.headers.clone(),
            body: 0,
            trailers: None,
            complete: false,
        });
        arrived.len() - 1
    };
    if parts.method == Method::HEAD {
        // With HTTP/2, hyper would send the body.
        note_end(body, index, &state).await;
        return Response::builder().header("content-length", "5").body(empty()).unwrap();
    }
    let path = parts.uri.path().to_owned();
    let mut segments = path.trim_start_matches('/').split('/');
    let (kind, argument) = (segments.next().unwrap_or_default(), segments.next().unwrap_or_default());
    match kind {
        "echo" => Response::builder()
            .header("trailer", "x-checksum, x-sent")
            .body(echo(body, index, state))
            .unwrap(),
        "events" => {
            note_end(body, index, &state).await;
            Response::builder().header("content-type", "text/event-stream").body(events(&state)).unwrap()
        }
        "bytes" => {
            note_end(body, index, &state).await;
            Response::new(zeros(argument.parse().unwrap()))
        }
        "status" => {
            note_end(body, index, &state).await;
            let status: StatusCode = argument.parse().unwrap();
            let mut response = Response::builder().status(status).header("etag", "\"v1\"");
            if status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED {
                response = response.header("x-body", "yes");
                return response.body(full(format!("status {argument}"))).unwrap();
            }
            response.body(empty()).unwrap()
        }
        "silence" => std::future::pending().await,
        _ => {
            note_end(body, index, &state).await;
            Response::builder().header("content-type", "text/plain").body(full("hello")).unwrap()
        }
    }
}

/// Reads the body to its end and records how it ended.
async fn note_end(mut body: Incoming, index: usize, state: &State) {
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return };
        note(&frame, index, state);
    }
    state.arrived.lock().unwrap()[index].complete = true;
}

fn note(frame: &Frame<Bytes>, index: usize, state: &State) {
    let arrived = &mut state.arrived.lock().unwrap()[index];
    if let Some(data) = frame.data_ref() {
        arrived.body += data.len();
    }
    if let Some(trailers) = frame.trailers_ref() {
        arrived.trailers = Some(trailers.clone());
    }
}

/// Sends the body back as it arrives, then trailers: `x-checksum` with its length, and the request's `x-sent`.
fn echo(body: Incoming, index: usize, state: Arc<State>) -> Body {
    let start = (body, 0usize, HeaderMap::new(), false);
    let stream = futures_util::stream::unfold(start, move |(mut body, length, mut trailers, done)| {
        let state = state.clone();
        async move {
            if done {
                return None;
            }
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { return None };
                note(&frame, index, &state);
                match frame.into_data() {
                    Ok(data) => {
                        let length = length + data.len();
                        return Some((Ok(Frame::data(data)), (body, length, trailers, false)));
                    }
                    Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
                }
            }
            state.arrived.lock().unwrap()[index].complete = true;
            trailers.insert("x-checksum", length.to_string().parse().unwrap());
            Some((Ok(Frame::trailers(trailers)), (body, length, HeaderMap::new(), true)))
        }
    });
    BodyExt::boxed_unsync(StreamBody::new(Box::pin(stream)))
}

/// Streams the events that the test emits.
fn events(state: &State) -> Body {
    let stream = futures_util::stream::unfold(state.events.subscribe(), |mut events| async move {
        let event = events.recv().await.ok().flatten()?;
        Some((Ok(Frame::data(Bytes::from(format!("data: {event}\n\n")))), events))
    });
    BodyExt::boxed_unsync(StreamBody::new(Box::pin(stream)))
}

/// A body of zero bytes in chunks of 64 KiB.
fn zeros(length: usize) -> Body {
    const CHUNK: &[u8] = &[0; 64 * 1024];
    let stream = futures_util::stream::unfold(length, |left| async move {
        let n = left.min(CHUNK.len());
        (n > 0).then(|| (Ok(Frame::data(Bytes::from_static(&CHUNK[..n]))), left - n))
    });
    BodyExt::boxed_unsync(StreamBody::new(Box::pin(stream)))
}
