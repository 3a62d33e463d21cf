//! Logout tokens (OpenID Connect Back-Channel Logout 1.0), by which a provider says that somebody has logged out.
//!
//! A token with `sid` ends the tokens of that session, one with only `sub` those of the subject, if issued
//! until then. [`LogoutSender::read`] is pure: keys and the time are arguments.

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

/// The member that `events` must have (§2.4).
const LOGOUT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// The accepted types of logout tokens (§2.4). Providers that predate explicit typing use `JWT`, or none.
const TYPES: [&str; 3] = ["logout+jwt", "application/logout+jwt", "JWT"];

/// The settings of one provider (`[[logout]]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The last segment of the path it posts to.
    pub name: String,
    /// The issuer whose sessions and subjects it ends, and whose keys sign its tokens.
    pub issuer: SubjectIssuer,
    /// The accepted signature algorithms.
    pub algorithms: Vec<Algorithm>,
    /// The client ids at the provider; `aud` must contain one of them.
    pub audiences: Vec<String>,
}

/// One provider with its keys.
#[derive(Debug)]
pub struct LogoutSender {
    settings: Settings,
    keys: Arc<KeyStore>,
}

impl LogoutSender {
    /// Creates a provider whose tokens are verified with these keys.
    #[must_use]
    pub const fn new(settings: Settings, keys: Arc<KeyStore>) -> Self {
        Self { settings, keys }
    }

    /// The settings that it was created from.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Its keys.
    #[must_use]
    pub const fn keys(&self) -> &Arc<KeyStore> {
        &self.keys
    }

    /// Verifies a logout token (§2.6) and returns its events. The same token always yields the same events.
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
            // If both are present, the provider means only this session, not the subject's others.
            (Some(session), _) => vec![Named::Session { session, only: None }],
            (None, Some(subject)) => issuer.by_identifier(&subject),
            (None, None) => return Err("both `sid` and `sub` are missing".into()),
        };
        let origin = EventOrigin::signal(&issuer.issuer.issuer, &token.id, LOGOUT, token.issued_at);
        // The logout happened before it was reported; a time in the future would end tokens that are yet to be issued.
        let at = token.issued_at.min(now);
        let event = |named: &Named| Event {
            origin: Some(origin),
            ..named.event(EventKind::SubjectRevoked, &issuer.issuer, at, now)
        };
        Ok(named.iter().map(event).collect())
    }
}

/// Whether a token claims to be a logout token, even if it is invalid.
#[must_use]
pub fn is_logout_token(claims: &Map<String, Value>) -> bool {
    claims.get("events").and_then(Value::as_object).is_some_and(|events| events.contains_key(LOGOUT))
}

/// Checks what distinguishes a logout token from an ID token, which has the same parties and keys (§2.4).
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

/// Returns a string claim that is optional but must not be empty.
fn text(claims: &Map<String, Value>, name: &str) -> Result<Option<String>, &'static str> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text.clone())),
        Some(_) => Err("`sid` and `sub` must be non-empty strings"),
    }
}

#[cfg(test)]
mod tests;
