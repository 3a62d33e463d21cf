//! Logout tokens (OpenID Connect Back-Channel Logout 1.0): a provider says that somebody logged out.
//!
//! A token with `sid` ends the tokens of that session, one with only `sub` those of the subject, issued until then.
//! [`LogoutSender::read`] is pure: keys and the time are given to it.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::wildcard_enum_match_arm)]

use std::sync::Arc;

use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::ssf::KeysAsked;
use super::subject::{Named, SubjectIssuer};
use super::token::{self, ExpectedToken, TokenFault};
use crate::keys::store::KeyStore;
use crate::state::record::{Event, EventKind, EventOrigin};
use crate::time::Timestamp;

/// The one member that `events` must have (§2.4).
const LOGOUT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// Types of logout tokens (§2.4). Providers from before explicit typing say `JWT`, or nothing.
const TYPES: [&str; 3] = ["logout+jwt", "application/logout+jwt", "JWT"];

/// One provider, as configured (`[[logout]]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The last segment of the path it posts to.
    pub name: String,
    /// Whose sessions and subjects end, and whose keys sign.
    pub issuer: SubjectIssuer,
    /// How its tokens may be signed.
    pub algorithms: Vec<Algorithm>,
    /// One of these must be in `aud`: what the provider calls its clients.
    pub audiences: Vec<String>,
}

/// One provider with its keys.
#[derive(Debug)]
pub struct LogoutSender {
    settings: Settings,
    keys: Arc<KeyStore>,
}

impl LogoutSender {
    /// A provider whose tokens are verified with these keys.
    #[must_use]
    pub const fn new(settings: Settings, keys: Arc<KeyStore>) -> Self {
        Self { settings, keys }
    }

    /// What it was made from.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Its keys.
    #[must_use]
    pub const fn keys(&self) -> &Arc<KeyStore> {
        &self.keys
    }

    /// Judges a logout token (§2.6) and says what it means. The same token again means the same events.
    ///
    /// # Errors
    /// When it is not accepted.
    pub fn read(&self, token: &[u8], asked: KeysAsked, now: Timestamp) -> Result<Vec<Event>, TokenFault> {
        let issuer = &self.settings.issuer;
        let expected = ExpectedToken {
            types: &TYPES,
            issuer: &issuer.issuer.issuer,
            audiences: &self.settings.audiences,
            algorithms: &self.settings.algorithms,
            grace: issuer.issuer.leeway,
        };
        let token = token::read(token, &expected, &self.keys, asked, now)?;
        check_kind(&token.claims)?;
        let named = match (text(&token.claims, "sid")?, text(&token.claims, "sub")?) {
            // A provider that names both means this session and not the others of its subject.
            (Some(session), _) => vec![Named::Session { session, only: None }],
            (None, Some(subject)) => issuer.by_identifier(&subject),
            (None, None) => return Err("both `sid` and `sub` are missing".into()),
        };
        let origin = EventOrigin::signal(&issuer.issuer.issuer, &token.id, LOGOUT, token.issued_at);
        // What has happened happened before it was heard of; a time ahead would end tokens that are yet to be issued.
        let at = token.issued_at.min(now);
        let event = |named: &Named| Event {
            origin: Some(origin),
            ..named.event(EventKind::SubjectRevoked, &issuer.issuer, at, now)
        };
        Ok(named.iter().map(event).collect())
    }
}

/// Whether a token calls itself a logout token, whatever else is wrong with it.
#[must_use]
pub fn is_logout_token(claims: &Map<String, Value>) -> bool {
    claims.get("events").and_then(Value::as_object).is_some_and(|events| events.contains_key(LOGOUT))
}

/// What tells a logout token from an ID token, which has the same parties and the same keys (§2.4).
fn check_kind(claims: &Map<String, Value>) -> Result<(), &'static str> {
    if claims.contains_key("nonce") {
        return Err("`nonce` is not allowed");
    }
    let events = claims.get("events").and_then(Value::as_object);
    let event = events.ok_or("`events` must be an object")?.get(LOGOUT);
    match event {
        Some(Value::Object(_)) => Ok(()),
        Some(_) => Err("the logout event must be an object"),
        None => Err("`events` has no logout event"),
    }
}

/// A claim that names something, if it is there.
fn text(claims: &Map<String, Value>, name: &str) -> Result<Option<String>, &'static str> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text.clone())),
        Some(_) => Err("`sid` and `sub` must be non-empty strings"),
    }
}

#[cfg(test)]
mod tests;
