//! What happened to subjects, clients and tokens: read from JSON, made durable, put in force.
//!
//! Knows the rules of an event and the order of those three steps; where the JSON comes from is the business of the
//! listeners.

use std::sync::Arc;
use std::time::Duration;

use crate::state::record::{Event, EventKind};
use crate::time::Timestamp;

pub mod log;
pub mod parse;

pub use log::EventLog;

/// What the rules of an event need of an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// `iss`.
    pub issuer: Arc<str>,
    /// Allowance for clocks that differ.
    pub leeway: Duration,
    /// The longest life of its tokens.
    pub max_lifetime: Duration,
}

impl Issuer {
    /// When an event of this kind can touch no living token any more.
    ///
    /// A cut-off by time reaches tokens issued until then. A role version and a revoked token reach tokens whenever they
    /// were issued, and of those the ones are meant that were issued before the event was known; `iat` may lie ahead
    /// by the leeway.
    #[must_use]
    pub fn expiry(&self, kind: EventKind, versioned: bool, at: Timestamp, now: Timestamp) -> Timestamp {
        let by_time = !versioned && kind != EventKind::TokenRevoked;
        let last_issue = if by_time { at } else { at.max(now).plus(self.leeway) };
        last_issue.plus(self.max_lifetime).plus(self.leeway)
    }

    /// An event by which one token of this issuer ends, whether or not it has a `jti`.
    #[must_use]
    pub fn token_revoked(&self, token: crate::identity::TokenKey, now: Timestamp) -> Event {
        Event::token_key(&self.issuer, token, now, self.expiry(EventKind::TokenRevoked, false, now, now))
    }
}
