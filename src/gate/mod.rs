//! The public listener: connections in, one decision per request, refusals out or the request forwarded.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::tls;

/// The public listener, as configured (CONTRACT §2 `[server]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// Worker threads; at least one.
    pub workers: usize,
    /// How long requests in flight may take to finish after shutdown began.
    pub drain_timeout: Duration,
    /// Between "not ready" and "stop accepting".
    pub shutdown_delay: Duration,
    /// Peers whose forwarding fields are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// TLS, or clear text when `None` (refused by the configuration unless it is asked for).
    pub tls: Option<tls::ServerSettings>,
    /// Limits on connections and requests.
    pub limits: Limits,
}

/// Limits on connections and requests (CONTRACT §2 `[server.limits]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections from one address; `None`: no limit.
    pub connections_per_ip: Option<usize>,
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
