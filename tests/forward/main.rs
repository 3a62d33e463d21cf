//! Forwarding, against real upstreams on loopback sockets: what reaches them, and what comes back.

mod bodies;
mod http1;
mod http2;
mod pooling;
mod support;
mod tls;
mod tunnel;
