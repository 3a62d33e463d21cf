//! Accepts connections and prepares them for HTTP/1.1 or HTTP/2: limits, TLS, protocol selection.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::ProtocolVersion;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};

use super::Live;
use super::answer::GateRefusal;
use super::connections::ConnectionPlace;
use super::http1;
use super::http2;
use super::io::ClientStream;
use super::patience::{FAREWELL, FIRST_ACCEPT_PAUSE, LONGEST_ACCEPT_PAUSE};
use super::proxied::{self, ProxyProtocol};
use super::worker::Worker;
use crate::enforce::denial::Reason;
use crate::time::Timestamp;
use crate::tls::{ClientCertificate, ServerStream, ServerTls};

/// What the requests on a client's connection know about it.
pub(super) struct ClientConnection {
    pub(super) worker: Rc<Worker>,
    pub(super) peer: IpAddr,
    pub(super) tls: bool,
    pub(super) tls_version: Option<&'static str>,
    /// The certificate that the client presented; its validity is checked for each request.
    presented: Option<ClientCertificate>,
    /// The number of requests in flight, and the time since when there are none.
    pub(super) requests: Cell<usize>,
    pub(super) idle_since: Cell<Instant>,
    /// HTTP/2 requests that the client cancelled, minus those that it let complete.
    pub(super) resets: Cell<usize>,
}

/// Accepts connections until the worker drains, then takes those that the kernel has already accepted and closes the listener.
pub(super) async fn run(worker: Rc<Worker>, listener: TcpListener) {
    let mut pause = None;
    loop {
        let accepted = tokio::select! {
            biased;
            () = worker.drained() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, peer)) => {
                pause = None;
                admit(&worker, tcp, peer);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if pause.is_none() {
                    tracing::warn!(%error, "cannot accept connections; retrying");
                }
                let now =
                    pause.map_or(FIRST_ACCEPT_PAUSE, |last: Duration| LONGEST_ACCEPT_PAUSE.min(last * 2));
                pause = Some(now);
                sleep(now).await;
            }
        }
    }
    if let Ok(listener) = listener.into_std() {
        while let Ok((tcp, peer)) = listener.accept() {
            let ready = tcp.set_nonblocking(true).and_then(|()| TcpStream::from_std(tcp));
            if let Ok(tcp) = ready {
                admit(&worker, tcp, peer);
            }
        }
    }
}

/// Whether the error concerns one connection only, so that the next can be accepted (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn admit(worker: &Rc<Worker>, tcp: TcpStream, peer: SocketAddr) {
    let generation = worker.generation();
    let settings = &generation.live.settings;
    let Some(open) = worker.open() else { return };
    let proxied = settings.proxy_protocol != ProxyProtocol::Off;
    let trusted = settings.trusted_proxies.iter().any(|network| network.contains(&peer.ip().to_canonical()));
    if proxied && !trusted {
        tracing::debug!(peer = %peer.ip().to_canonical(), "closed: only trusted_proxies may connect with proxy_protocol");
        return;
    }
    let place = worker.shared.connections.admit(&settings.limits, &worker.connections, &open);
    let place = match place {
        // The PROXY header names the client.
        Some(place) if proxied => Some(place),
        Some(place) => place.of(peer.ip(), &settings.limits),
        None => None,
    };
    let Some(place) = place else { return turn_away(worker, &tcp) };
    let worker = Rc::clone(worker);
    drop(spawn_local(async move {
        if proxied {
            Box::pin(connect_proxied(worker, tcp, peer.ip(), place)).await;
        } else {
            connect(worker, tcp, peer.ip(), place).await;
        }
    }));
}

/// Serves a client that a load balancer announces with a PROXY header.
async fn connect_proxied(worker: Rc<Worker>, mut tcp: TcpStream, balancer: IpAddr, place: ConnectionPlace) {
    let generation = worker.generation();
    let settings = generation.live.settings.clone();
    drop(generation);
    let header = proxied::read(&mut tcp, settings.proxy_protocol);
    let read = tokio::select! {
        read = timeout(settings.limits.handshake_timeout, header) => match read {
            Ok(read) => read.map_err(|error| error.to_string()),
            Err(_elapsed) => Err("the PROXY header took longer than handshake_timeout".to_owned()),
        },
        () = drained(&worker) => Err("the gate is shutting down".to_owned()),
    };
    match read {
        Ok(client) => {
            let client = client.unwrap_or(balancer);
            match place.of(client, &settings.limits) {
                Some(place) => connect(worker, tcp, client, place).await,
                None => turn_away(&worker, &tcp),
            }
        }
        Err(reason) => tracing::debug!(peer = %balancer.to_canonical(), reason, "closed"),
    }
}

/// Waits until the drain leaves no more time for connections without a request.
async fn drained(worker: &Worker) {
    worker.drained().await;
    sleep(FAREWELL).await;
}

/// Sends the refusal if that takes no waiting. Reading first keeps a reset from destroying the response.
fn turn_away(worker: &Worker, tcp: &TcpStream) {
    let generation = worker.generation();
    generation.meters.turned_away();
    if generation.live.tls.is_some() {
        return;
    }
    let answer = GateRefusal::OVERLOADED.to_bytes(&worker.request_ids.next(), false);
    // An error means that the client is gone or has sent nothing yet.
    drop(tcp.try_read(&mut [0; 4096]));
    drop(tcp.try_write(&answer));
}

async fn connect(worker: Rc<Worker>, tcp: TcpStream, peer: IpAddr, place: ConnectionPlace) {
    let Some(tls) = worker.generation().live.tls.clone() else {
        let connection = ClientConnection::new(worker, peer, None, None);
        return Box::pin(http1::serve(connection, ClientStream::Plain(tcp), place)).await;
    };
    // Boxed, so that neither the handshake nor the stream itself has a place in the task of the connection.
    let Some(stream) = Box::pin(shake_hands(&worker, tcp, peer, &tls)).await else { return };
    let session = stream.state();
    let presented = session.peer_certificates().and_then(ClientCertificate::new);
    let http2 = session.alpn_protocol() == Some(b"h2");
    let version = session.protocol_version().map_or("other", version_word);
    let connection = ClientConnection::new(worker, peer, presented, Some(version));
    let stream = ClientStream::Tls(stream);
    if http2 {
        Box::pin(http2::serve(connection, stream, place)).await;
    } else {
        Box::pin(http1::serve(connection, stream, place)).await;
    }
}

async fn shake_hands(
    worker: &Worker,
    tcp: TcpStream,
    peer: IpAddr,
    tls: &ServerTls,
) -> Option<Box<ServerStream<TcpStream>>> {
    let limit = worker.generation().live.settings.limits.handshake_timeout;
    let shaking = timeout(limit, ServerStream::accept(Arc::clone(&tls.config), tcp));
    let stream = tokio::select! {
        outcome = shaking => match outcome {
            Ok(shaken) => shaken.map(Box::new).map_err(|error| error.to_string()),
            Err(_elapsed) => Err("timed out after handshake_timeout".to_owned()),
        },
        // A stalled handshake must not delay the shutdown.
        () = drained(worker) => Err("the gate is shutting down".to_owned()),
    };
    let counter = if stream.is_ok() { &worker.handshakes.ok } else { &worker.handshakes.error };
    counter.inc();
    let failed =
        |reason| tracing::debug!(client_address = %peer.to_canonical(), reason, "TLS handshake failed");
    stream.map_err(failed).ok()
}

/// The version as log lines show it.
const fn version_word(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_3 => "1.3",
        ProtocolVersion::TLSv1_2 => "1.2",
        _ => "other",
    }
}

impl ClientConnection {
    fn new(
        worker: Rc<Worker>,
        peer: IpAddr,
        presented: Option<ClientCertificate>,
        tls_version: Option<&'static str>,
    ) -> Rc<Self> {
        let (requests, idle_since) = (Cell::new(0), Cell::new(Instant::now()));
        let (peer, resets) = (peer.to_canonical(), Cell::new(0));
        let tls = tls_version.is_some();
        Rc::new(Self { worker, peer, tls, tls_version, presented, requests, idle_since, resets })
    }

    /// Returns the thumbprint of the client certificate that a request on this connection may use now.
    ///
    /// # Errors
    /// [`Reason::CertificateMismatch`] when the listener requires a certificate, and this one is not (or no longer) valid.
    pub(super) fn certificate(&self, live: &Live, now: Timestamp) -> Result<Option<&[u8; 32]>, Reason> {
        let Some(tls) = &live.tls else { return Ok(None) };
        tls.judge_client(self.presented.as_ref(), now).map_err(|_none| Reason::CertificateMismatch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task<F: Future>(_: fn(Rc<Worker>, TcpStream, IpAddr, ConnectionPlace) -> F) -> usize {
        size_of::<F>()
    }

    fn protocol<F: Future>(_: fn(Rc<ClientConnection>, ClientStream, ConnectionPlace) -> F) -> usize {
        size_of::<F>()
    }

    /// Most connections are idle. What a future borrows and then moves keeps its place for as long as the future
    /// lasts: the stream in TLS alone would add 1.2 KiB to each, HTTP/2 another 3 KiB.
    #[test]
    fn what_lasts_as_long_as_a_connection_is_small() {
        let sizes = [task(connect), protocol(http1::serve), protocol(http2::serve)];
        assert!(sizes[0] <= 256 && sizes[1] <= 512 && sizes[2] <= 640, "{sizes:?}");
    }
}
