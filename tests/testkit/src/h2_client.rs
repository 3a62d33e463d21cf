//! An HTTP/2 client over TLS, on the test's own runtime.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::app::Body;
use crate::gate::Gate;

/// A connection to a gate.
#[derive(Clone)]
pub struct H2Client(SendRequest<Body>);

/// A complete response.
#[derive(Debug)]
pub struct H2Answer {
    /// Status and header fields.
    pub head: http::response::Parts,
    /// The body.
    pub body: Bytes,
    /// Its trailer fields.
    pub trailers: HeaderMap,
}

impl H2Answer {
    /// The status code.
    pub fn status(&self) -> u16 {
        self.head.status.as_u16()
    }
}

impl H2Client {
    /// Connects to the gate's public listener.
    pub async fn connect(gate: &Gate) -> Self {
        let stream = tls(gate, "h2").await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(async move { drop(connection.await) });
        Self(sender)
    }

    /// Sends a request; returns once the head of the response has arrived.
    pub async fn start(&mut self, request: Request<Body>) -> Result<Response<Incoming>, hyper::Error> {
        self.0.ready().await?;
        self.0.send_request(request).await
    }

    /// Sends a request and reads the complete response.
    pub async fn exchange(&mut self, request: Request<Body>) -> Result<H2Answer, hyper::Error> {
        collect(self.start(request).await?).await
    }
}

/// Opens an HTTP/2 connection on a thread of its own, without sending requests; the thread ends with the connection.
pub fn idle(gate: &Gate) -> std::thread::JoinHandle<()> {
    let (address, config) = (gate.public, gate.settings.authority().client_config(&["h2"], None));
    let (greeted, wait) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::spawn(move || {
        crate::block_on(async {
            let stream = TokioIo::new(tls_to(address, config).await);
            let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
            let (sender, connection) = builder.handshake::<_, Body>(stream).await.unwrap();
            greeted.send(()).unwrap();
            connection.await.unwrap();
            drop(sender);
        });
    });
    wait.recv().unwrap();
    thread
}

/// Reads a response to its end.
pub async fn collect(response: Response<Incoming>) -> Result<H2Answer, hyper::Error> {
    let (head, body) = response.into_parts();
    let collected = body.collect().await?;
    let trailers = collected.trailers().cloned().unwrap_or_default();
    Ok(H2Answer { head, body: collected.to_bytes(), trailers })
}

/// Opens a TLS connection to the gate's public listener that offers one protocol.
pub async fn tls(gate: &Gate, alpn: &str) -> TlsStream<TcpStream> {
    tls_to(gate.public, gate.settings.authority().client_config(&[alpn], None)).await
}

/// Opens a TLS connection to `localhost` at this address.
pub async fn tls_to(address: SocketAddr, config: rustls::ClientConfig) -> TlsStream<TcpStream> {
    let socket = TcpStream::connect(address).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap()
}

/// A request with a bearer token.
pub fn request(method: &str, path: &str, token: &str, body: Body) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(format!("https://api.test{path}"))
        .header("authorization", format!("Bearer {token}"))
        .body(body)
        .unwrap()
}

/// Reads body data until `wanted` has arrived.
pub async fn read_until(body: &mut Incoming, wanted: &str) -> String {
    let mut text = String::new();
    while !text.contains(wanted) {
        let frame = tokio::time::timeout(crate::PATIENCE, body.frame()).await;
        let frame = frame.expect("data in time").expect("more data").unwrap();
        if let Ok(data) = frame.into_data() {
            text.push_str(&String::from_utf8_lossy(&data));
        }
    }
    text
}
