//! The public listener: accepts connections, makes one decision per request, and rejects or forwards it.
//!
//! Knows sockets and HTTP; `enforce` decides what may pass, and `forward` sends it to the upstream.

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

/// Connections that wait to be accepted; the kernel has a limit of its own (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;
/// How a connection is noticed whose other end has vanished without a word.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));

/// The public listener, as configured (`[server]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// Worker threads; at least one.
    pub workers: usize,
    /// How long requests in flight may take to finish after shutdown began.
    pub drain_timeout: Duration,
    /// How much of that streams may last, while connections are still accepted.
    pub stream_drain_timeout: Duration,
    /// Between "not ready" and "stop accepting".
    pub shutdown_delay: Duration,
    /// Peers whose forwarding fields are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Which of their forwarding fields are.
    pub trusted_fields: TrustedFields,
    /// What every connection begins with; it must come from one of them.
    pub proxy_protocol: ProxyProtocol,
    /// TLS, or clear text when `None` (refused by the configuration unless it is asked for).
    pub tls: Option<tls::ServerSettings>,
    /// Limits on connections and requests.
    pub limits: GateLimits,
}

/// Limits on connections and requests (`[server.limits]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateLimits {
    /// Connections in all.
    pub connections: usize,
    /// Connections from one address; `None`: no limit.
    pub connections_per_ip: Option<usize>,
    /// Requests in flight; `None`: no limit.
    pub requests: Option<NonZeroUsize>,
    /// From accept to the end of the TLS handshake.
    pub handshake_timeout: Duration,
    /// From the first byte, or the end of the previous response, to complete headers.
    pub header_timeout: Duration,
    /// Size of a request head; over: 431.
    pub header_bytes: usize,
    /// Number of request header fields; over: 431.
    pub headers: usize,
    /// Size of a request body; over: 413; `None`: no limit.
    pub body_bytes: Option<u64>,
    /// How long a connection may stay open without a request.
    pub idle_connection_timeout: Duration,
    /// Concurrent streams of an HTTP/2 connection.
    pub http2_streams: u32,
}

/// What is in force: replaced as a whole by a reload, and looked at for every request.
#[derive(Debug)]
pub struct Live {
    /// Decides.
    pub enforcer: Arc<Enforcer>,
    /// Where requests go, in the order that routes refer to.
    pub upstreams: Vec<Arc<Upstream>>,
    /// What upstreams learn of tokens.
    pub identity: IdentitySettings,
    /// How streams that last are watched.
    pub streams: StreamSettings,
    /// Answers its own paths, if there is one.
    pub authority: Option<Arc<Authority>>,
    /// What clients learn about routes before they have a token.
    pub resources: Vec<Arc<Resource>>,
    /// Takes signals in on its own paths, if they are not on a listener of their own.
    pub intake: Option<Arc<Intake>>,
    /// Limits and trust. Addresses and workers are those of the start.
    pub settings: Settings,
    /// TLS for new connections, and the rules for client certificates of all; `None`: clear text.
    pub tls: Option<Arc<tls::ServerTls>>,
    /// Decides which requests are traced; `None`: none are, and nothing is done about it.
    pub tracing: Option<Tracing>,
    /// Counts reloads.
    pub generation: u64,
}

/// What all workers share.
#[derive(Debug, Clone)]
pub struct WorkersShared {
    /// What is in force.
    pub live: Arc<ArcSwap<Live>>,
    /// Where requests are counted.
    pub metrics: Metrics,
    /// Where requests are logged.
    pub log: AccessLog,
    /// Where rejected requests are kept for operators.
    pub refusals: Refusals,
    /// How far the shutdown has come.
    pub shutdown: Shutdown,
    /// How many connections there are.
    pub connections: Arc<ConnectionCounts>,
}

/// Binds every address once per worker, so that the kernel spreads connections over them (`SO_REUSEPORT`). Port 0
/// becomes the same free port for all. Returns the listeners of each worker.
///
/// # Errors
/// When an address cannot be bound; the error names it.
pub fn bind(addresses: &[SocketAddr], workers: usize) -> std::io::Result<Vec<Vec<TcpListener>>> {
    let mut all: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::with_capacity(addresses.len())).collect();
    for &address in addresses {
        // `SO_REUSEPORT` would let a second gate share the port without a word. One that drains listens no more.
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

/// Fails when another process listens on the address.
fn is_free(address: SocketAddr) -> std::io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

/// Connections inherit the options of their listener.
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
