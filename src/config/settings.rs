//! The settings of every room, as values that cannot be wrong.
//!
//! Rooms that come later have their settings here until they own them.

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

/// What a configuration file comes down to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `[server]`: the public listener.
    pub gate: gate::Settings,
    /// `[[upstreams]]`, in the order that routes index them by.
    pub upstreams: Vec<UpstreamSettings>,
    /// `[[issuers]]`.
    pub issuers: Vec<IssuerSettings>,
    /// `[[resources]]`: what clients learn about routes before they have a token.
    pub resources: Vec<Arc<Resource>>,
    /// `[authority]`, when this gate issues tokens itself.
    pub authority: Option<authority::Settings>,
    /// `[[event_transmitters]]`.
    pub transmitters: Vec<ssf::Settings>,
    /// `[signals]`: where senders of signals reach the gate, when they do without an admin token.
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
    /// `[telemetry]`: how to log.
    pub log: log::Settings,
    /// `[telemetry]`: where traces go, if anywhere.
    pub traces: Option<traces::Settings>,
    /// `[telemetry]`: where metrics and probes are served.
    pub telemetry: SocketAddr,
    /// `[telemetry]`: when the gate is ready.
    pub ready_when: admin::ReadyWhen,
    /// `[admin]`: the admin listener.
    pub admin: admin::Settings,
    /// `[console]`: whether the admin listener serves its pages.
    pub console: bool,
}

/// One issuer: what its tokens must look like, and where its keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerSettings {
    /// What its tokens must look like.
    pub rules: IssuerRules,
    /// Where its keys come from.
    pub keys: keys::Settings,
    /// How long its tokens may be unused, zero: indefinitely; `None`: as those of all.
    pub idle_timeout: Option<Duration>,
}

/// Idle clocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSettings {
    /// A token unused for longer is permanently rejected.
    pub idle_timeouts: IdleTimeouts,
    /// Tokens tracked at a time.
    pub max_tracked: usize,
}

/// What is kept, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateSettings {
    /// Where it is kept.
    pub store: StoreSettings,
    /// Not confirmed fresh for longer: protected routes answer 503.
    pub max_staleness: Duration,
    /// How often last uses are written behind.
    pub flush_interval: Duration,
    /// What an empty store means.
    pub on_empty: OnEmpty,
}

/// Where state is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreSettings {
    /// In one durable file.
    Embedded(PathBuf),
    /// In memory: nothing survives a restart.
    Memory,
    /// In Redis, shared by replicas.
    Redis(Box<redis::Settings>),
}

/// What a store found empty means for tokens that were issued before it was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnEmpty {
    /// They are refused, because what revoked them may have been lost.
    Refuse,
    /// They are accepted.
    Trust,
}

impl OnEmpty {
    /// Before which second tokens are refused, when the store was created then.
    #[must_use]
    pub fn not_before(self, created_at: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Refuse => Some(created_at),
            Self::Trust => None,
        }
    }
}

/// What events need to know of an issuer: of several tables the longest times, because an event is about the tokens of all.
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
    /// The greatest allowance for clocks among the issuers.
    #[must_use]
    pub fn leeway(&self) -> Duration {
        self.issuers.iter().map(|issuer| issuer.rules.leeway).max().unwrap_or_default()
    }

    /// What events need to know of the issuers, each once.
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

    /// What a shared store needs to know of the rest.
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
