//! The receiver of OpenID Shared Signals 1.0: turns a security event token into events of this gate.
//!
//! [`Transmitter::receive`] is pure: it takes keys and the time as arguments. Knows nothing about HTTP or
//! the effect of events.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::wildcard_enum_match_arm)]

use std::sync::Arc;

use crate::keys;
use crate::keys::store::{KeyStore, WantedKey};
use crate::signals::Concealed;
use crate::signals::subject::SubjectIssuer;
use crate::state::record::Event;
use crate::time::Timestamp;

mod apple;
mod receiver;
mod set;
mod signal;
pub mod streams;
mod transmission;

use streams::notice::notices;
use streams::{StreamHealth, StreamNotice};

pub use receiver::{Receiver, Undelivered};
pub use transmission::{KeptStream, PollByHand, SignalDelivery, StreamAccess, Transmission};

/// The largest accepted security event token, in bytes; in practice they have one or two thousand.
pub const MAX_BYTES: usize = 64 << 10;

/// The most events in one token.
const MAX_EVENTS: usize = 1000;

/// The settings of one transmitter (`[[event_transmitters]]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The last segment of the path it posts to.
    pub name: String,
    /// Compared exactly with `iss`.
    pub issuer: String,
    /// Must be in `aud`.
    pub audience: String,
    /// Where its keys are loaded from.
    pub keys: keys::Settings,
    /// The issuer whose subjects its events name.
    pub subject_issuer: SubjectIssuer,
    /// The claims that carry roles and scopes in that issuer's tokens.
    pub role_claims: Vec<String>,
    /// The members of complex subjects that the transmitter's metadata lists in `critical_subject_members`.
    pub critical_members: Vec<String>,
    /// Whether to accept what existing transmitters send although the specifications do not allow it: a subject
    /// inside the event, older spellings of its format, times in milliseconds, `exp`, `sub`, no `typ`, Apple's
    /// JSON envelope, and the events of login.gov.
    pub tolerant: bool,
    /// The exact value of the `Authorization` field that a push must carry; `None` if it is not checked.
    pub authorization: Option<Concealed>,
    /// How its signals are delivered.
    pub transmission: Transmission,
}

/// One transmitter with its keys.
#[derive(Debug)]
pub struct Transmitter {
    settings: Settings,
    keys: Arc<KeyStore>,
    /// Records what arrives on the stream that the gate maintains.
    watch: Option<Arc<StreamHealth>>,
}

/// Whether the caller has already asked for newer keys for this token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeysAsked {
    /// Not yet.
    Nothing,
    /// [`KeyStore::ask`] has returned; the answer is final.
    Keys,
}

/// The content of an accepted token.
#[derive(Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its events, to be published before the transmitter gets a response. They are identified by the token's
    /// `jti`, their type and their time: a repeated delivery yields the same events, and the store keeps each once.
    pub events: Vec<Event>,
    /// The parts of it that have no effect here.
    pub passed_over: Vec<PassedOver>,
    /// What it says about the stream that it arrived on.
    pub notices: Vec<StreamNotice>,
    /// The response that the transmitter expects.
    pub answer: Answer,
}

/// How acceptance is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// 202 with an empty body (RFC 8935 §2.2).
    Accepted,
    /// 200: Apple treats anything else as a failure.
    Ok,
}

/// Why a signal changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassedOver {
    /// The transmitter verifies the stream (SSF §8.1.4).
    Verification,
    /// The transmitter reports the status of the stream (SSF §8.1.5).
    StreamUpdated,
    /// An event type without a meaning here.
    UnknownEvent,
    /// An event with a meaning, but in a form that ends no token: a claim that is not a role, or a
    /// credential that was added.
    NoEffect,
    /// A subject of an issuer other than the one that this transmitter reports on.
    OtherIssuer,
    /// A subject in a format that identifies neither a user nor a token.
    UnknownSubject,
    /// A subject narrowed by a critical member that cannot be processed here (SSF §3.6).
    CriticalMember,
}

/// Why a token was not accepted.
#[derive(Debug, PartialEq, Eq)]
pub enum Unaccepted {
    /// It is invalid, and will be however often it is sent.
    Refused(SignalRefusal),
    /// Newer keys may verify it; the caller awaits [`KeyStore::ask`] and tries again with [`KeysAsked::Keys`].
    Ask(WantedKey),
    /// The transmitter's keys were never loaded, or have not been confirmed for too long.
    NoKeys,
}

/// What is wrong with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalRefusal {
    /// The code.
    pub code: Code,
    /// One sentence that contains nothing from the token.
    pub description: &'static str,
}

/// The error codes of RFC 8935 §2.4 and SSF 1.0 that this receiver uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Not a SET, or one that does not conform to the definition of its events.
    InvalidRequest,
    /// Signed with a key that is not the transmitter's, or with an algorithm that none of its keys is for.
    InvalidKey,
    /// `iss` is not the transmitter's issuer.
    InvalidIssuer,
    /// `aud` is not the configured audience.
    InvalidAudience,
    /// The signature is not the transmitter's.
    AuthenticationFailed,
    /// The state of a verification event was not requested (SSF 1.0 §8.1.4).
    InvalidState,
}

impl Transmitter {
    /// Creates a transmitter whose tokens are verified with these keys.
    #[must_use]
    pub fn new(settings: Settings, keys: Arc<KeyStore>) -> Self {
        Self { settings, keys, watch: None }
    }

    /// Sets what records the heartbeat and status of its stream.
    #[must_use]
    pub fn watched_by(mut self, watch: Option<Arc<StreamHealth>>) -> Self {
        self.watch = watch;
        self
    }

    /// Returns what records the heartbeat and status of its stream.
    pub(in crate::signals) fn watch(&self) -> Option<&StreamHealth> {
        self.watch.as_deref()
    }

    /// The settings that it was created from.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Its keys.
    #[must_use]
    pub fn keys(&self) -> &Arc<KeyStore> {
        &self.keys
    }

    /// Verifies a request's body and returns its content. `content_type` is that field, if there is exactly one.
    ///
    /// # Errors
    /// When the token is rejected, checked in the order form, type, algorithm, issuer, audience, signature,
    /// claims, events. A token with one invalid event is rejected as a whole.
    pub fn receive(
        &self,
        body: &[u8],
        content_type: Option<&str>,
        asked: KeysAsked,
        now: Timestamp,
    ) -> Result<Accepted, Unaccepted> {
        let settings = &self.settings;
        let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        let envelope;
        let (token, answer) = if essence.eq_ignore_ascii_case("application/secevent+jwt") {
            (body, Answer::Accepted)
        } else if settings.tolerant && essence.eq_ignore_ascii_case("application/json") {
            envelope = apple::payload(body)?;
            (envelope.as_bytes(), Answer::Ok)
        } else {
            return Err(malformed("the body must be application/secevent+jwt").into());
        };
        let set = set::read(token, settings, &self.keys, asked, now)?;
        let (events, passed_over) = signal::translate(&set, settings, now)?;
        let notices = notices(set.subject.as_ref(), &set.events);
        Ok(Accepted { events, passed_over, notices, answer })
    }
}

impl PassedOver {
    /// The word in the metric.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verification => "verification",
            Self::StreamUpdated => "stream-updated",
            Self::UnknownEvent => "unknown-event",
            Self::NoEffect => "no-effect",
            Self::OtherIssuer => "other-issuer",
            Self::UnknownSubject => "unknown-subject",
            Self::CriticalMember => "critical-member",
        }
    }
}

impl Code {
    /// The word in the response.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidKey => "invalid_key",
            Self::InvalidIssuer => "invalid_issuer",
            Self::InvalidAudience => "invalid_audience",
            Self::AuthenticationFailed => "authentication_failed",
            Self::InvalidState => "invalid_state",
        }
    }
}

impl From<SignalRefusal> for Unaccepted {
    fn from(refusal: SignalRefusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The rejection of a token that does not conform.
const fn malformed(description: &'static str) -> SignalRefusal {
    SignalRefusal { code: Code::InvalidRequest, description }
}

#[cfg(test)]
pub(in crate::signals) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::events;

    /// Settings of a transmitter whose keys are never fetched.
    pub(in crate::signals) fn settings() -> Settings {
        let issuer = "https://idp.example.com/";
        Settings {
            name: "t".to_owned(),
            issuer: issuer.to_owned(),
            audience: "https://gate.example.com".to_owned(),
            keys: keys::Settings {
                issuer: issuer.to_owned(),
                algorithms: vec![jsonwebtoken::Algorithm::ES256],
                ..keys::Settings::default()
            },
            subject_issuer: SubjectIssuer {
                issuer: events::EventIssuer {
                    issuer: issuer.into(),
                    leeway: Duration::from_secs(30),
                    max_lifetime: Duration::from_secs(86_400),
                },
                has_email: false,
                has_aliases: false,
            },
            role_claims: Vec::new(),
            critical_members: Vec::new(),
            tolerant: false,
            authorization: None,
            transmission: Transmission::default(),
        }
    }
}
