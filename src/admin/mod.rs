//! The two listeners for operators: telemetry (metrics, liveness, readiness) and administration.
//!
//! Off the hot path and on the control plane's thread; knows requests only by their metrics.

use std::net::SocketAddr;

use crate::tls;

mod api;
mod auth;
mod body;
mod health;
mod problem;
mod prompt;
mod server;
mod signals;
mod spare;
mod telemetry;

pub use api::{Api, Control, ControlCommand, Ledger, serve_admin};
pub(crate) use api::{EventSearch, Presented, SessionFilter, SessionSearch, WhomFilter};
pub use auth::Access;
pub(crate) use auth::Caller;
pub(crate) use body::read as read_body;
pub use health::{Health, HeardTransmitter, ReadyWhen};
pub(crate) use problem::{Problem, is_bad};
pub use server::AdminLimits;
pub(crate) use server::Peer;
pub use signals::serve_signals;
pub use telemetry::serve_telemetry;

/// The admin listener, as configured (`[admin]`).
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
    /// Security event tokens, pushed to `/v1/ssf/{name}`, and nothing else.
    Signals,
    /// Sessions, usage and explanations.
    Sessions,
    /// Users and credentials.
    Authority,
    /// Configuration and reload.
    Config,
}

impl Permission {
    /// The word in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Signals => "signals",
            Self::Sessions => "sessions",
            Self::Authority => "authority",
            Self::Config => "config",
        }
    }
}
