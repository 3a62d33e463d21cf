//! The two listeners for operators: telemetry (metrics, liveness, readiness) and administration.
//!
//! Off the hot path and on the control plane's thread; knows requests only by their metrics.

use std::net::SocketAddr;

use crate::tls;

/// The admin listener, as configured (CONTRACT §2 `[admin]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// TLS; required by the configuration unless the address is loopback.
    pub tls: Option<tls::ServerSettings>,
    /// Who may call, and what.
    pub tokens: Vec<Token>,
}

/// One caller of the admin listener.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The name that log lines carry.
    pub name: String,
    /// The bearer secret.
    pub secret: String,
    /// What it may do.
    pub permissions: Vec<Permission>,
}

impl std::fmt::Debug for Token {
    /// Never prints the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("name", &self.name)
            .field("permissions", &self.permissions)
            .finish_non_exhaustive()
    }
}

/// What an admin token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Events and revocations.
    Events,
    /// Sessions, usage and explanations.
    Sessions,
    /// Users and credentials.
    Authority,
    /// Configuration and reload.
    Config,
}
