//! The sample upstream: responds to every request with the request's content, so that a visitor sees what an
//! API behind the gate would see.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use crate::shutdown::{self, Phase, Shutdown, Trigger};

/// A running upstream; it stops when this is dropped.
pub(super) struct DemoUpstream {
    pub(super) address: SocketAddr,
    _trigger: Trigger,
}

/// Starts it on a free loopback port, on a thread of its own.
pub(super) fn start() -> io::Result<DemoUpstream> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let (trigger, shutdown) = shutdown::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new()
        .name("upstream".to_owned())
        .spawn(move || runtime.block_on(serve(listener, shutdown)))?;
    Ok(DemoUpstream { address, _trigger: trigger })
}

async fn serve(listener: std::net::TcpListener, mut shutdown: Shutdown) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted?.0,
            () = shutdown.reached(Phase::Stopped) => return Ok(()),
        };
        let mut http = http1::Builder::new();
        let connection =
            http.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service_fn(echo));
        // The gate handles errors of the connection.
        drop(tokio::spawn(connection));
    }
}

async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let seen = json!({
        "upstream": "sample",
        "method": request.method().as_str(),
        "path": request.uri().path_and_query().map_or("", |target| target.as_str()),
        "identity": identity(request.headers()),
    });
    let mut response = Response::new(Full::from(format!("{seen:#}\n")));
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    Ok(response)
}

/// The header fields that only the gate can have set.
fn identity(headers: &HeaderMap) -> Map<String, Value> {
    let ours = |name: &&HeaderName| name.as_str().starts_with("x-auth-") || *name == "x-request-id";
    let value = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    headers.keys().filter(ours).map(|name| (name.to_string(), value(name).into())).collect()
}
