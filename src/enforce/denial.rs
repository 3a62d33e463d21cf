//! The closed vocabulary of refusal: why a request is not let through, and what the client is told about it.
//!
//! One word per reason, the same in the log, the metric label, `explain` and the documentation.

use std::sync::Arc;

use http::StatusCode;

/// Why a request was not let through. The set is closed: users alert on these words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No credentials, or none of the Bearer scheme.
    Missing,
    /// The `Authorization` field or the token in it does not have the form of RFC 6750 §2.1.
    Malformed,
    /// More than one token was presented (RFC 6750 §2).
    Ambiguous,
    /// The request target could be read in two ways.
    BadTarget,
    /// No route matches host, method and path.
    NoRoute,
    /// `iss` is not a configured issuer.
    UnknownIssuer,
    /// The header's `typ` is not one the issuer's tokens carry.
    WrongType,
    /// `alg` is not allowed for the issuer, or does not fit the key.
    BadAlgorithm,
    /// No key of the issuer's set has this `kid`.
    UnknownKey,
    /// The signature does not match.
    BadSignature,
    /// A required claim is absent.
    MissingClaim,
    /// A claim has a type or value that cannot be used, or the token's JSON is ambiguous.
    BadClaim,
    /// `exp` lies in the past.
    Expired,
    /// `nbf` lies in the future.
    NotYetValid,
    /// `iat` lies in the future.
    IssuedInFuture,
    /// `exp − iat` exceeds the issuer's `max_lifetime`.
    TooLongLived,
    /// `aud` names none of the issuer's configured audiences.
    WrongAudience,
    /// This token was revoked.
    TokenRevoked,
    /// The subject's tokens issued until then were revoked.
    SubjectRevoked,
    /// The client's tokens issued until then were revoked.
    ClientRevoked,
    /// The issuer's tokens issued until then were revoked.
    IssuerRevoked,
    /// The subject's roles changed since the token was issued.
    RoleChanged,
    /// The token was not used for longer than the idle timeout.
    Idle,
    /// A scope that the route requires is not in the token.
    InsufficientScope,
    /// A role that the route requires is not in the token.
    InsufficientRole,
    /// The issuer's keys were never loaded, or are too old to be trusted.
    KeysUnavailable,
    /// The shared state has not been confirmed for longer than `max_staleness`.
    StateUnavailable,
    /// The token is bound to another client certificate (RFC 8705 §3).
    CertificateMismatch,
    /// The token is older than the state store, which was found empty.
    BeforeState,
    /// A limit of this gate was reached.
    Overloaded,
}

/// How a refusal reads on the wire: the status, the `error` of body and challenge, and the description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wire {
    /// The response status.
    pub status: StatusCode,
    /// The JSON body's `error`.
    pub error: &'static str,
    /// The JSON body's `error_description`; says nothing that a forger could learn from.
    pub description: &'static str,
    /// Which `WWW-Authenticate` challenge accompanies it.
    pub challenge: Challenge,
}

/// The `WWW-Authenticate` field of a refusal (RFC 6750 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    /// None: authentication would not help.
    None,
    /// `Bearer realm="portcullis"`, without an error code (RFC 6750 §3.1).
    Bare,
    /// With `error` and `error_description`; with `scope` when the denial names one.
    Error,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Why.
    pub reason: Reason,
    /// The scopes the route requires, space-delimited, for the challenge of `insufficient_scope`.
    pub scope: Option<Arc<str>>,
}

impl From<Reason> for Denial {
    fn from(reason: Reason) -> Self {
        Self { reason, scope: None }
    }
}

impl Reason {
    /// Every reason, in the order a request can meet them.
    pub const ALL: [Self; 30] = [
        Self::Missing,
        Self::Malformed,
        Self::Ambiguous,
        Self::BadTarget,
        Self::NoRoute,
        Self::UnknownIssuer,
        Self::WrongType,
        Self::BadAlgorithm,
        Self::UnknownKey,
        Self::BadSignature,
        Self::MissingClaim,
        Self::BadClaim,
        Self::Expired,
        Self::NotYetValid,
        Self::IssuedInFuture,
        Self::TooLongLived,
        Self::WrongAudience,
        Self::TokenRevoked,
        Self::SubjectRevoked,
        Self::ClientRevoked,
        Self::IssuerRevoked,
        Self::RoleChanged,
        Self::Idle,
        Self::InsufficientScope,
        Self::InsufficientRole,
        Self::KeysUnavailable,
        Self::StateUnavailable,
        Self::CertificateMismatch,
        Self::BeforeState,
        Self::Overloaded,
    ];

    /// The word users see: log field, metric label, `explain`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Ambiguous => "ambiguous",
            Self::BadTarget => "bad_target",
            Self::NoRoute => "no_route",
            Self::UnknownIssuer => "unknown_issuer",
            Self::WrongType => "wrong_type",
            Self::BadAlgorithm => "bad_algorithm",
            Self::UnknownKey => "unknown_key",
            Self::BadSignature => "bad_signature",
            Self::MissingClaim => "missing_claim",
            Self::BadClaim => "bad_claim",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::IssuedInFuture => "issued_in_future",
            Self::TooLongLived => "too_long_lived",
            Self::WrongAudience => "wrong_audience",
            Self::TokenRevoked => "token_revoked",
            Self::SubjectRevoked => "subject_revoked",
            Self::ClientRevoked => "client_revoked",
            Self::IssuerRevoked => "issuer_revoked",
            Self::RoleChanged => "role_changed",
            Self::Idle => "idle",
            Self::InsufficientScope => "insufficient_scope",
            Self::InsufficientRole => "insufficient_role",
            Self::KeysUnavailable => "keys_unavailable",
            Self::StateUnavailable => "state_unavailable",
            Self::CertificateMismatch => "certificate_mismatch",
            Self::BeforeState => "before_state",
            Self::Overloaded => "overloaded",
        }
    }
}
