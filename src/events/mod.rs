//! Events about subjects, clients and tokens: parsed from JSON, made durable, put in force.
//!
//! Knows the rules of an event and the order of those three steps; the listeners provide the JSON.

use std::sync::Arc;
use std::time::Duration;

use crate::state::record::{Event, Kept};
use crate::time::Timestamp;

pub mod log;
pub mod parse;

pub use log::EventLog;

/// What the rules of an event need of an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventIssuer {
    /// `iss`.
    pub issuer: Arc<str>,
    /// Allowance for clocks that differ.
    pub leeway: Duration,
    /// The longest life of its tokens.
    pub max_lifetime: Duration,
}

/// What clocks and settings of replicas may differ by without an event being forgotten too early.
const MARGIN: Duration = Duration::from_secs(60);

impl EventIssuer {
    /// How long an event must be kept after its arrival.
    ///
    /// Of the tokens it may end, the last one is issued, by its own claims, up to the leeway after the arrival; it lives
    /// for `max_lifetime`, and is accepted for the leeway more.
    #[must_use]
    pub fn retention(&self) -> Duration {
        self.max_lifetime.saturating_add(self.leeway * 2).saturating_add(MARGIN)
    }

    /// When an event that arrives `now` can no longer affect a live token.
    #[must_use]
    pub fn expiry(&self, now: Timestamp) -> Timestamp {
        now.plus(self.retention())
    }

    /// An event by which one token of this issuer ends, whether or not it has a `jti`.
    #[must_use]
    pub fn token_revoked(&self, token: crate::identity::TokenKey, now: Timestamp) -> Event {
        Event::token_key(&self.issuer, token, now, self.expiry(now))
    }
}

impl From<&EventIssuer> for Kept {
    fn from(issuer: &EventIssuer) -> Self {
        Self { issuer: Arc::clone(&issuer.issuer), retention: issuer.retention(), leeway: issuer.leeway }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_kept_while_a_token_that_it_may_end_can_be_accepted() {
        let secs = Duration::from_secs;
        for (leeway, max_lifetime, expected) in [
            (secs(0), secs(0), secs(60)),
            (secs(0), secs(3_600), secs(3_660)),
            (secs(30), secs(3_600), secs(3_720)),
            (secs(30), Duration::MAX, Duration::MAX),
        ] {
            let issuer = EventIssuer { issuer: "https://a/".into(), leeway, max_lifetime };
            assert_eq!(issuer.retention(), expected, "{leeway:?} {max_lifetime:?}");
            let now = Timestamp::from_secs(1_000);
            assert_eq!(issuer.expiry(now), now.plus(expected));
            let token = crate::identity::TokenKey::new("https://a/", "t");
            let event = issuer.token_revoked(token, now);
            assert_eq!((event.key, event.at, event.expires_at), (token.0, now, now.plus(expected)));
            let kept = Kept::from(&issuer);
            assert_eq!((kept.retention, kept.leeway), (expected, leeway));
        }
    }
}
