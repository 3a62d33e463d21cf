//! Connections of the two listeners: accepted, bounded in number and time, served by a router.
//!
//! Knows HTTP/1.1 and TLS; knows nothing of what the router answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::Router;
use axum::response::IntoResponse as _;
use http::header::CONNECTION;
use http::{HeaderValue, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus::IntGauge;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::problem::Problem;
use super::prompt::Prompt;
use super::spare::Spares;
use crate::shutdown::{Phase, Shutdown};
use crate::time::Timestamp;
use crate::tls::{ClientCertificate, ServerTls};

/// A connection ends at this age, so that none is held indefinitely by a client that does not read.
const LIFETIME: Duration = Duration::from_secs(600);
/// How long a client may leave a response unread, so that none can hold a place for longer.
const UNREAD: Duration = Duration::from_secs(10);
/// How long a connection that must end may take to finish its request.
const GRACE: Duration = Duration::from_millis(500);
/// How long accepting pauses when the process has run out of descriptors.
const BACK_OFF: Duration = Duration::from_millis(100);
/// The largest request head.
const HEAD_BYTES: usize = 32 * 1024;

/// Limits of a listener for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdminLimits {
    /// Connections at a time; one more is closed at once.
    pub connections: usize,
    /// From the start of the connection, or the end of the previous response, to complete headers; the TLS handshake
    /// has as long again.
    pub header_timeout: Duration,
    /// From the headers to a complete body.
    pub body_timeout: Duration,
    /// The largest request body.
    pub body_bytes: usize,
}

impl Default for AdminLimits {
    fn default() -> Self {
        Self {
            connections: 128,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            body_bytes: 8 << 20,
        }
    }
}

impl AdminLimits {
    /// The limits of the admin listener, where a hundred live pages hold a connection each: they leave as much room as there
    /// is without them.
    #[must_use]
    pub fn with_consoles() -> Self {
        Self { connections: 256, ..Self::default() }
    }
}

/// Where a request came from, among its extensions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// What a listener serves, and how.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) router: Router,
    pub(super) limits: AdminLimits,
    /// In clear text while it is empty.
    pub(super) tls: Arc<ArcSwapOption<ServerTls>>,
    /// Open connections.
    pub(super) open: IntGauge,
}

impl Server {
    /// Accepts and serves until the shutdown's last phase or until another process takes over, so that a draining gate can
    /// still be watched.
    pub(super) async fn serve(self, listener: TcpListener, mut shutdown: Shutdown) {
        let (mut connections, mut spares) = (JoinSet::new(), Spares::new());
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                // At once, before somebody else takes the descriptor.
                Some(_) = connections.join_next() => {
                    spares.refill();
                    continue;
                }
                () = shutdown.reached(Phase::HandedOver) => break,
            };
            match accepted {
                Ok((stream, peer)) if connections.len() < self.limits.connections => {
                    connections.spawn(self.clone().connection(stream, peer, shutdown.clone()));
                }
                // Closed at once: the client learns it now, not after a time-out.
                Ok(_) => {}
                // The next attempt has a descriptor.
                Err(error) if spares.give_up(&error) => continue,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(BACK_OFF).await;
                }
            }
            spares.refill();
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    async fn connection(self, stream: TcpStream, peer: SocketAddr, shutdown: Shutdown) {
        let _open = Open::new(&self.open);
        // A response is one write; there is nothing to gather.
        drop(stream.set_nodelay(true));
        let Some(tls) = self.tls.load_full() else {
            return self.http(stream, peer, None, shutdown).await;
        };
        let acceptor = TlsAcceptor::from(Arc::clone(&tls.config));
        match timeout(self.limits.header_timeout, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => {
                let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
                let certificate = ClientCertificate::new(chain);
                self.http(stream, peer, certificate, shutdown).await;
            }
            Ok(Err(error)) => tracing::debug!(%error, client_address = %peer.ip(), "TLS handshake failed"),
            Err(_) => tracing::debug!(client_address = %peer.ip(), "TLS handshake timed out"),
        }
    }

    async fn http<S>(
        self,
        stream: S,
        peer: SocketAddr,
        certificate: Option<ClientCertificate>,
        mut shutdown: Shutdown,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (service, tls) = (TowerToHyperService::new(self.router), self.tls);
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            // A session that was resumed, or a connection that lasts, may bring a certificate that has expired.
            let judged =
                tls.load().as_ref().map(|tls| tls.judge_client(certificate.as_ref(), Timestamp::now()));
            let answer = match judged {
                Some(Err(problem)) => Err(problem),
                Some(Ok(_)) | None => Ok(service.call(request)),
            };
            async move {
                match answer {
                    Ok(answer) => answer.await,
                    Err(problem) => {
                        let mut refusal =
                            Problem::new(StatusCode::FORBIDDEN, problem.to_string()).into_response();
                        refusal.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                        Ok(refusal)
                    }
                }
            }
        });
        let http = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_timeout)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(Prompt::new(stream, UNREAD)), service);
        let mut http = Box::pin(http);
        tokio::select! {
            // An error is the client's: it left, was too slow or did not speak HTTP.
            _ = http.as_mut() => return,
            () = shutdown.reached(Phase::HandedOver) => {}
            () = sleep(LIFETIME) => {}
        }
        http.as_mut().graceful_shutdown();
        drop(timeout(GRACE, http).await);
    }
}

/// Counts an open connection while it lives.
struct Open(IntGauge);

impl Open {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
