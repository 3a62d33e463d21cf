//! Global Token Revocation (draft-parecki-oauth-global-token-revocation; Okta's Universal Logout), by which a
//! provider ends all tokens of a user.
//!
//! Reads the request's body and the provider's token that authorizes it; knows nothing about HTTP. The draft
//! has expired but is in use.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::wildcard_enum_match_arm)]

use std::sync::Arc;

use serde_json::Value;

use super::ssf::KeysAsked;
use super::subject::{Named, Nobody, SubjectIssuer, SubjectReader};
use super::token::{self, CLOCKS, ExpectedToken, SenderToken, TokenFault};
use crate::jose::json;
use crate::keys;
use crate::keys::store::KeyStore;
use crate::state::record::{Event, EventKind, EventOrigin};
use crate::time::Timestamp;

/// The required type of the provider's tokens, so that no other token it signs for this URL is accepted.
const TYPES: [&str; 2] = ["global-token-revocation+jwt", "application/global-token-revocation+jwt"];

/// Used in the origin of events, in place of a security event token's event type.
const KIND: &str = "global-token-revocation";

/// The settings of one provider (`[[global_token_revocation]]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The last segment of the path it posts to.
    pub name: String,
    /// The `iss` of its tokens.
    pub issuer: String,
    /// The `aud` of its tokens: the URL of the endpoint.
    pub url: String,
    /// Where its keys are loaded from.
    pub keys: keys::Settings,
    /// The issuer whose subjects it ends.
    pub subject_issuer: SubjectIssuer,
}

/// One provider with its keys.
#[derive(Debug)]
pub struct RevocationSender {
    settings: Settings,
    keys: Arc<KeyStore>,
}

/// A token that authorizes a revocation.
#[derive(Debug)]
pub struct Authorized(SenderToken);

/// Why an authorized request revokes nothing; contains nothing from the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unrevoked {
    /// The body is not valid.
    Malformed(&'static str),
    /// The provider may not revoke subjects of that issuer.
    Forbidden(&'static str),
    /// The subject has a format that names nobody here.
    Nobody(&'static str),
    /// The subject is not a user.
    Unprocessable(&'static str),
}

impl RevocationSender {
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

    /// Verifies the bearer token of a request.
    ///
    /// # Errors
    /// When it does not authorize a revocation here.
    pub fn authorize(
        &self,
        token: &[u8],
        asked: KeysAsked,
        now: Timestamp,
    ) -> Result<Authorized, TokenFault> {
        let expected = ExpectedToken {
            types: &TYPES,
            issuer: &self.settings.issuer,
            audiences: std::slice::from_ref(&self.settings.url),
            algorithms: &self.settings.keys.algorithms,
            grace: CLOCKS,
        };
        token::read(token, &expected, &self.keys, asked, now).map(Authorized)
    }

    /// Returns the events that the body of an authorized request asks for. The same request always
    /// yields the same events.
    ///
    /// # Errors
    /// When the request cannot be fulfilled.
    pub fn read(
        &self,
        body: &[u8],
        authorized: &Authorized,
        now: Timestamp,
    ) -> Result<Vec<Event>, Unrevoked> {
        let members = json::object(body);
        let mut members = members.map_err(|_error| {
            Unrevoked::Malformed("the body must be a JSON object without repeated members")
        })?;
        // `subject` is the name of the member in earlier drafts, which Auth0 uses.
        let subject = match (members.remove("sub_id"), members.remove("subject")) {
            (Some(subject), None) | (None, Some(subject)) => subject,
            (None, None) => return Err(Unrevoked::Malformed("`sub_id` is missing")),
            (Some(_), Some(_)) => {
                return Err(Unrevoked::Malformed("`sub_id` and `subject` cannot be combined"));
            }
        };
        let named = self.users(&subject)?;
        let (token, issuer) = (&authorized.0, &self.settings.subject_issuer.issuer);
        let origin = EventOrigin::signal(&self.settings.issuer, &token.id, KIND, token.issued_at);
        let at = token.issued_at.min(now);
        let event = |named: &Named| Event {
            origin: Some(origin),
            ..named.event(EventKind::SubjectRevoked, issuer, at, now)
        };
        Ok(named.iter().map(event).collect())
    }

    /// Returns the users that a subject names.
    fn users(&self, subject: &Value) -> Result<Vec<Named>, Unrevoked> {
        let issuer = &self.settings.subject_issuer;
        let reader = SubjectReader { issuer, sender: &self.settings.issuer, critical: &[], tolerant: false };
        let mut named = reader.read(subject).map_err(|nobody| match nobody {
            Nobody::Malformed(why) => Unrevoked::Malformed(why),
            Nobody::OtherIssuer => Unrevoked::Forbidden("the subject belongs to another issuer"),
            Nobody::Unknown | Nobody::CriticalMember => {
                Unrevoked::Nobody("the format of the subject is not supported")
            }
        })?;
        named.retain(|named| matches!(named, Named::Subject(..)));
        if named.is_empty() {
            return Err(Unrevoked::Unprocessable("the subject is a session or a token, not a user"));
        }
        Ok(named)
    }
}

#[cfg(test)]
mod tests;
