//! Global Token Revocation (draft-parecki-oauth-global-token-revocation; Okta's Universal Logout): a provider says that all
//! tokens of a user end.
//!
//! Knows the request's body and the token of the provider that authorizes it, not HTTP. The draft has expired and is in use.

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

/// The type of the provider's tokens. Nothing else that the provider signs for this URL is one.
const TYPES: [&str; 2] = ["global-token-revocation+jwt", "application/global-token-revocation+jwt"];

/// Stands in the origin of events for the type that security event tokens have.
const KIND: &str = "global-token-revocation";

/// One provider, as configured (`[[global_token_revocation]]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The last segment of the path it posts to.
    pub name: String,
    /// `iss` of its tokens.
    pub issuer: String,
    /// `aud` of its tokens: the URL of the endpoint.
    pub url: String,
    /// Where its keys come from.
    pub keys: keys::Settings,
    /// Whose subjects end.
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

/// Why an authorized request revokes nothing; in words that repeat nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unrevoked {
    /// The body is not what it must be.
    Malformed(&'static str),
    /// The provider may not speak of that issuer's subjects.
    Forbidden(&'static str),
    /// The subject is of a form that names nobody here.
    Nobody(&'static str),
    /// What is named is not a user.
    Unprocessable(&'static str),
}

impl RevocationSender {
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

    /// Judges the bearer token of a request.
    ///
    /// # Errors
    /// When it authorizes nothing here.
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

    /// What the body of an authorized request asks for. The same request again means the same events.
    ///
    /// # Errors
    /// When it asks for nothing that can be done.
    pub fn read(
        &self,
        body: &[u8],
        authorized: &Authorized,
        now: Timestamp,
    ) -> Result<Vec<Event>, Unrevoked> {
        let members = json::object(body);
        let mut members =
            members.map_err(|_error| Unrevoked::Malformed("the body is not an unambiguous JSON object"))?;
        // The name that the member had in earlier drafts; Auth0 sends it.
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

    /// The users that a subject names.
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
