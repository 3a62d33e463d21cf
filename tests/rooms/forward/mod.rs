//! Forwarding, against real upstreams on loopback sockets: what reaches them, and what comes back.
#![allow(clippy::panic, clippy::unwrap_used, reason = "what is not as it should be fails the test")]

mod bodies;
mod ends_here;
mod http1;
mod http2;
mod pooling;
mod reaching;
mod support;
mod tls;
mod tunnel;
