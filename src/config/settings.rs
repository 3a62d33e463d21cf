//! The settings of every room, as values that cannot be wrong.
//!
//! Settings that no single room owns are defined here.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::enforce::claims::IssuerRules;
use crate::enforce::resource::Resource;
use crate::forward::UpstreamSettings;
use crate::sessions::{IdleTimeouts, longest_timeout};
use crate::signals::{intake, logout, revocation, scim, ssf};
use crate::state::redis;
use crate::time::Timestamp;
use crate::{admin, authority, enforce, events, gate, keys, log, traces};

/// The content of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `[server]`: the public listener.
    pub gate: gate::Settings,
    /// `[[upstreams]]`, in the order of the routes' indexes.
    pub upstreams: Vec<UpstreamSettings>,
    /// `[[issuers]]`.
    pub issuers: Vec<IssuerSettings>,
    /// `[[resources]]`: what clients learn about routes before they have a token.
    pub resources: Vec<Arc<Resource>>,
    /// `[authority]`, if this gate issues tokens itself.
    pub authority: Option<authority::Settings>,
    /// `[[event_transmitters]]`.
    pub transmitters: Vec<ssf::Settings>,
    /// `[signals]`: the endpoints at which senders of signals reach the gate without an admin token.
    pub signals: Option<intake::Settings>,
    /// `[[logout]]`.
    pub logout: Vec<logout::Settings>,
    /// `[[global_token_revocation]]`.
    pub revocation: Vec<revocation::Settings>,
    /// `[[scim]]`.
    pub scim: Vec<scim::Settings>,
    /// `[[routes]]` and `[identity]`.
    pub enforce: enforce::Settings,
    /// `[sessions]`.
    pub sessions: SessionSettings,
    /// `[streams]`.
    pub streams: gate::StreamSettings,
    /// `[state]`.
    pub state: StateSettings,
    /// `[telemetry]`: the log.
    pub log: log::Settings,
    /// `[telemetry]`: the trace collector, if any.
    pub traces: Option<traces::Settings>,
    /// `[telemetry]`: the address that serves metrics and probes.
    pub telemetry: SocketAddr,
    /// `[telemetry]`: the conditions for readiness.
    pub ready_when: admin::ReadyWhen,
    /// `[admin]`: the admin listener.
    pub admin: admin::Settings,
    /// `[console]`: whether the admin listener serves its pages.
    pub console: bool,
}

/// One issuer: the rules for its tokens, and the source of its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerSettings {
    /// The rules for its tokens.
    pub rules: IssuerRules,
    /// The source of its keys.
    pub keys: keys::Settings,
    /// The idle timeout of its tokens, zero for none; `None` for the common one.
    pub idle_timeout: Option<Duration>,
}

/// Idle clocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSettings {
    /// A token unused for longer is permanently rejected.
    pub idle_timeouts: IdleTimeouts,
    /// How many tokens are tracked at a time.
    pub max_tracked: usize,
}

/// The store and its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateSettings {
    /// The kind of store.
    pub store: StoreSettings,
    /// If the state has not been confirmed as fresh for this time, protected routes respond with 503.
    pub max_staleness: Duration,
    /// The interval at which last uses are written.
    pub flush_interval: Duration,
    /// The effect of an empty store.
    pub on_empty: OnEmpty,
}

/// The store to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreSettings {
    /// In one durable file.
    Embedded(PathBuf),
    /// In memory: nothing survives a restart.
    Memory,
    /// In Redis, shared by replicas.
    Redis(Box<redis::Settings>),
}

/// How an empty store treats tokens that were issued before it was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnEmpty {
    /// They are rejected, because their revocation may have been lost.
    Refuse,
    /// They are accepted.
    Trust,
}

impl OnEmpty {
    /// Returns the second before which tokens are rejected, for a store created at that time.
    #[must_use]
    pub fn not_before(self, created_at: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Refuse => Some(created_at),
            Self::Trust => None,
        }
    }
}

/// Returns what events need to know of an issuer. Of several tables the longest times count, because an event
/// affects the tokens of all.
pub(super) fn event_issuer(issuers: &[IssuerSettings], name: &str) -> Option<events::EventIssuer> {
    let tables = || issuers.iter().map(|issuer| &issuer.rules).filter(|rules| *rules.issuer == *name);
    let issuer = Arc::clone(&tables().next()?.issuer);
    let longest = |time: fn(&IssuerRules) -> Duration| tables().map(time).max().unwrap_or_default();
    Some(events::EventIssuer {
        issuer,
        leeway: longest(|rules| rules.leeway),
        max_lifetime: longest(|rules| rules.max_lifetime),
    })
}

impl Settings {
    /// The largest leeway of all issuers.
    #[must_use]
    pub fn leeway(&self) -> Duration {
        self.issuers.iter().map(|issuer| issuer.rules.leeway).max().unwrap_or_default()
    }

    /// Returns what events need to know of the issuers, each once.
    #[must_use]
    pub fn event_issuers(&self) -> Vec<events::EventIssuer> {
        let tables = self.issuers.iter().map(|issuer| &issuer.rules);
        let mut issuers: Vec<events::EventIssuer> = Vec::new();
        for rules in tables {
            if !issuers.iter().any(|known| known.issuer == rules.issuer) {
                issuers.extend(event_issuer(&self.issuers, &rules.issuer));
            }
        }
        issuers
    }

    /// Returns what a shared store needs to know of the rest of the configuration.
    #[must_use]
    pub fn terms(&self) -> redis::RedisTerms {
        let kept = self.event_issuers().iter().map(events::EventIssuer::retention).max().unwrap_or_default();
        redis::RedisTerms {
            max_staleness: self.state.max_staleness,
            flush_interval: self.state.flush_interval,
            longest_idle: longest_timeout(&self.sessions.idle_timeouts),
            kept,
        }
    }
}
