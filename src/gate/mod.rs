//! The public listener: accepts connections, makes one decision per request, and rejects or forwards it.
//!
//! This room knows sockets and HTTP; `enforce` decides what may pass, and `forward` sends it to the upstream.

use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::runtime::{Builder, LocalOptions};

use crate::authority::Authority;
use crate::enforce::decide::Enforcer;
use crate::enforce::policy::IdentitySettings;
use crate::enforce::resource::Resource;
use crate::forward::{TrustedFields, Upstream};
use crate::log::{AccessLog, Refusals};
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::signals::intake::Intake;
use crate::tls;
use crate::traces::Tracing;

mod accept;
mod access;
mod answer;
mod authority;
mod body;
mod challenge;
mod connections;
mod cors;
mod cut;
pub(crate) mod http;
pub(crate) mod http1;
mod http2;
mod io;
mod limits;
mod loggable;
mod meters;
mod own;
#[cfg(any(test, feature = "parts"))]
#[path = "../../benches/parts/record.rs"]
pub(crate) mod parts;
mod patience;
mod proxied;
mod resources;
mod serve;
mod signals;
mod streams;
mod worker;

pub use streams::StreamSettings;

pub use connections::ConnectionCounts;
pub use proxied::ProxyProtocol;

/// Length of the accept queue; the kernel has a limit of its own (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;
/// TCP keepalive, by which a connection is detected whose peer has vanished.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));

/// Settings of the public listener (`[server]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// Number of worker threads; at least one.
    pub workers: usize,
    /// How long requests in flight may take to finish after shutdown began.
    pub drain_timeout: Duration,
    /// How much of that time streams may use, while connections are still accepted.
    pub stream_drain_timeout: Duration,
    /// Time between "not ready" and "stop accepting".
    pub shutdown_delay: Duration,
    /// Peers whose forwarding fields are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// Which of their forwarding fields are trusted.
    pub trusted_fields: TrustedFields,
    /// Whether each connection begins with a PROXY header; it must come from a trusted proxy.
    pub proxy_protocol: ProxyProtocol,
    /// TLS; `None`: clear text, which the configuration must request explicitly.
    pub tls: Option<tls::ServerSettings>,
    /// Limits on connections and requests.
    pub limits: GateLimits,
}

/// Limits on connections and requests (`[server.limits]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateLimits {
    /// Total number of connections.
    pub connections: usize,
    /// Connections from one address; `None`: no limit.
    pub connections_per_ip: Option<usize>,
    /// Requests in flight; `None`: no limit.
    pub requests: Option<NonZeroUsize>,
    /// Time from accept to the end of the TLS handshake.
    pub handshake_timeout: Duration,
    /// Time from the first byte, or the end of the previous response, to complete headers.
    pub header_timeout: Duration,
    /// Size of a request head; 431 if it is exceeded.
    pub header_bytes: usize,
    /// Number of request header fields; 431 if it is exceeded.
    pub headers: usize,
    /// Size of a request body; 413 if it is exceeded. `None`: no limit.
    pub body_bytes: Option<u64>,
    /// How long a connection may stay open without a request.
    pub idle_connection_timeout: Duration,
    /// Concurrent streams of an HTTP/2 connection.
    pub http2_streams: u32,
}

/// The configuration in force, replaced as a whole by a reload and read for every request.
#[derive(Debug)]
pub struct Live {
    /// The decision on requests.
    pub enforcer: Arc<Enforcer>,
    /// The upstreams, in the order that routes refer to.
    pub upstreams: Vec<Arc<Upstream>>,
    /// What upstreams learn about tokens.
    pub identity: IdentitySettings,
    /// How lasting streams are watched.
    pub streams: StreamSettings,
    /// The embedded authority for its own paths, if there is one.
    pub authority: Option<Arc<Authority>>,
    /// The protected resources whose metadata is served.
    pub resources: Vec<Arc<Resource>>,
    /// Accepts signals on its own paths, unless they have their own listener.
    pub intake: Option<Arc<Intake>>,
    /// Limits and trust. Addresses and number of workers are fixed at startup.
    pub settings: Settings,
    /// TLS for new connections, and the rules for client certificates of all connections; `None`: clear text.
    pub tls: Option<Arc<tls::ServerTls>>,
    /// Decides which requests are traced; `None`: none are.
    pub tracing: Option<Tracing>,
    /// Counts reloads.
    pub generation: u64,
}

/// What all workers share.
#[derive(Debug, Clone)]
pub struct WorkersShared {
    /// The configuration in force.
    pub live: Arc<ArcSwap<Live>>,
    /// The metrics.
    pub metrics: Metrics,
    /// The access log.
    pub log: AccessLog,
    /// Rejected requests, kept for operators.
    pub refusals: Refusals,
    /// The phase of the shutdown.
    pub shutdown: Shutdown,
    /// The counts of connections.
    pub connections: Arc<ConnectionCounts>,
}

/// Binds every address once per worker, so that the kernel spreads connections over them (`SO_REUSEPORT`).
/// Port 0 becomes the same free port for all workers. Returns the listeners of each worker.
///
/// # Errors
/// When an address cannot be bound, with that address.
pub fn bind(addresses: &[SocketAddr], workers: usize) -> std::io::Result<Vec<Vec<TcpListener>>> {
    let mut all: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::with_capacity(addresses.len())).collect();
    for &address in addresses {
        // `SO_REUSEPORT` would let a second gate share the port silently. A gate that drains no longer
        // listens.
        if address.port() != 0 {
            is_free(address).map_err(|error| {
                std::io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
            })?;
        }
        let mut bound = address;
        for listeners in &mut all {
            let listener = listen(bound).map_err(|error| {
                std::io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
            })?;
            bound = listener.local_addr()?;
            listeners.push(listener);
        }
    }
    Ok(all)
}

/// Fails if another process listens on the address.
fn is_free(address: SocketAddr) -> std::io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

/// Listens on an address; connections inherit the options of their listener.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Serves `listeners` on this thread until everything is drained, or until the time for it is over.
///
/// # Errors
/// When the runtime cannot be set up.
pub fn run_worker(listeners: Vec<TcpListener>, shared: WorkersShared) -> std::io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(worker::run(listeners, shared))
}
