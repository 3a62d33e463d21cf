//! The closed set of reasons why a request is rejected, and the response to the client.
//!
//! One word per reason, the same in the log, the metric label, `explain` and the documentation.

use std::sync::Arc;

use http::StatusCode;

use super::dpop::{PossessionDenial, ProofFault};
use crate::jose::jws::JwsError;

mod meaning;

/// Why a request was rejected. The set is closed: users alert on these words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No credentials, or none of the schemes Bearer and DPoP.
    Missing,
    /// The `Authorization` field does not have the form of RFC 6750 §2.1.
    Malformed,
    /// The fields by which the route of an MCP request is chosen are missing, ambiguous, or of a protocol
    /// revision that does not guarantee them. Shares the word of [`Reason::Malformed`], but has its own
    /// response: no token was looked at.
    BadMcp,
    /// The credential has the form of RFC 6750 but is not a JWT. Shares the word of [`Reason::Malformed`],
    /// but has its own response: the request is valid, its token is not (RFC 6750 §3.1).
    NotJwt,
    /// More than one token was presented (RFC 6750 §2).
    Ambiguous,
    /// The request target is ambiguous.
    BadTarget,
    /// No route matches host, method and path.
    NoRoute,
    /// As [`Reason::NoRoute`], for a request without a Bearer token. Shares its word, but has its own
    /// response: a client without a token learns nothing about which paths exist.
    NoRouteNoToken,
    /// `iss` is not a configured issuer.
    UnknownIssuer,
    /// The header's `typ` is not one of the issuer's token types.
    WrongType,
    /// `alg` is not allowed for the issuer, or does not fit the key.
    BadAlgorithm,
    /// No key of the issuer has this `kid`.
    UnknownKey,
    /// The signature does not match.
    BadSignature,
    /// A required claim is absent.
    MissingClaim,
    /// A claim has an unusable type or value, or the token's JSON is ambiguous.
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
    /// The tokens of its login session issued up to then are revoked.
    SessionRevoked,
    /// The subject's tokens issued up to then are revoked.
    SubjectRevoked,
    /// The client's tokens issued up to then are revoked.
    ClientRevoked,
    /// The issuer's tokens issued up to then are revoked.
    IssuerRevoked,
    /// The subject's roles changed since the token was issued.
    RoleChanged,
    /// The token was unused for longer than the idle timeout.
    Idle,
    /// A scope that the route requires is not in the token.
    InsufficientScope,
    /// A role that the route requires is not in the token.
    InsufficientRole,
    /// The request comes from a page whose origin the route does not list.
    BadOrigin,
    /// A claim does not meet a condition of the issuer or the route.
    ClaimCondition,
    /// The subject was not authenticated as the route requires, or too long ago (RFC 9470 §3).
    InsufficientAuthentication,
    /// The issuer's keys were never loaded, or are too old to be trusted.
    KeysUnavailable,
    /// The shared state has not been confirmed for longer than `max_staleness`.
    StateUnavailable,
    /// Nothing was heard for too long from a transmitter whose signals the issuer's tokens require.
    SignalsStale,
    /// The token is bound to another client certificate (RFC 8705 §3), or the listener requires a certificate
    /// and the connection has no valid one.
    CertificateMismatch,
    /// The token is older than the state store, which was empty at startup.
    BeforeState,
    /// The proof of possession is missing or invalid (RFC 9449 §7.1).
    BadProof,
    /// The proof lacks a nonce. Shares the word of [`Reason::BadProof`], but has its own response.
    NonceRequired,
    /// The token is bound to a key and came without a proof, or is not bound and must be. Shares the word of
    /// [`Reason::BadProof`], but has its own response: another proof would not help.
    UnprovenToken,
    /// A limit of this gate was reached.
    Overloaded,
}

/// The response for a denial: the status, the `error` of body and challenge, and the description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DenialWire {
    /// The response status.
    pub status: StatusCode,
    /// The JSON body's `error`.
    pub error: &'static str,
    /// The JSON body's `error_description`; reveals nothing useful to a forger.
    pub description: &'static str,
    /// The `WWW-Authenticate` challenge of the response.
    pub challenge: Challenge,
}

/// The `WWW-Authenticate` challenge of a denial (RFC 6750 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    /// None: authentication would not help.
    None,
    /// `Bearer realm="portcullis"`, without an error code (RFC 6750 §3.1).
    Bare,
    /// With `error` and `error_description`, and with `scope` if the denial names one.
    Error,
}

/// The denial of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The reason.
    pub reason: Reason,
    /// The scopes that the route requires, space-delimited, for the challenge of `insufficient_scope`.
    pub scope: Option<Arc<str>>,
    /// What the response says about proofs of possession.
    pub possession: PossessionDenial,
}

impl serde::Serialize for Reason {
    /// Serializes as the word that users see.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl From<Reason> for Denial {
    fn from(reason: Reason) -> Self {
        Self { reason, scope: None, possession: PossessionDenial::default() }
    }
}

impl From<JwsError> for Reason {
    fn from(error: JwsError) -> Self {
        match error {
            JwsError::NoJws => Self::NotJwt,
            JwsError::Unacceptable => Self::BadClaim,
        }
    }
}

impl Reason {
    /// All reasons. A word that occurs more than once has more than one response.
    pub const ALL: [Self; 41] = [
        Self::Missing,
        Self::Malformed,
        Self::BadMcp,
        Self::NotJwt,
        Self::Ambiguous,
        Self::BadTarget,
        Self::NoRoute,
        Self::NoRouteNoToken,
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
        Self::SessionRevoked,
        Self::SubjectRevoked,
        Self::ClientRevoked,
        Self::IssuerRevoked,
        Self::RoleChanged,
        Self::Idle,
        Self::InsufficientScope,
        Self::InsufficientRole,
        Self::BadOrigin,
        Self::ClaimCondition,
        Self::InsufficientAuthentication,
        Self::KeysUnavailable,
        Self::StateUnavailable,
        Self::SignalsStale,
        Self::CertificateMismatch,
        Self::BeforeState,
        Self::BadProof,
        Self::NonceRequired,
        Self::UnprovenToken,
        Self::Overloaded,
    ];

    /// The word that users see: log field, metric label, `explain`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed | Self::BadMcp | Self::NotJwt => "malformed",
            Self::Ambiguous => "ambiguous",
            Self::BadTarget => "bad_target",
            Self::NoRoute | Self::NoRouteNoToken => "no_route",
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
            Self::SessionRevoked => "session_revoked",
            Self::SubjectRevoked => "subject_revoked",
            Self::ClientRevoked => "client_revoked",
            Self::IssuerRevoked => "issuer_revoked",
            Self::RoleChanged => "role_changed",
            Self::Idle => "idle",
            Self::InsufficientScope => "insufficient_scope",
            Self::InsufficientRole => "insufficient_role",
            Self::BadOrigin => "bad_origin",
            Self::ClaimCondition => "claim_condition",
            Self::InsufficientAuthentication => "insufficient_authentication",
            Self::KeysUnavailable => "keys_unavailable",
            Self::StateUnavailable => "state_unavailable",
            Self::SignalsStale => "signals_stale",
            Self::CertificateMismatch => "certificate_mismatch",
            Self::BeforeState => "before_state",
            Self::BadProof | Self::NonceRequired | Self::UnprovenToken => "bad_proof",
            Self::Overloaded => "overloaded",
        }
    }

    /// The response to the client. `invalid_token` has one description wherever a forger could learn from a
    /// difference; a fault that only the holder of a genuine token can have is named.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "one table, a row for each answer")]
    pub const fn wire(self) -> DenialWire {
        const NOT_VALID: &str = "The access token is not valid";
        match self {
            Self::Missing | Self::NoRouteNoToken => DenialWire::BARE,
            Self::Malformed => DenialWire::bad_request("The Authorization header is malformed"),
            Self::Ambiguous => DenialWire::bad_request("The request carries more than one access token"),
            Self::BadTarget => DenialWire {
                status: StatusCode::BAD_REQUEST,
                error: "invalid_request",
                description: "The request target is ambiguous",
                challenge: Challenge::None,
            },
            Self::BadMcp => DenialWire {
                status: StatusCode::BAD_REQUEST,
                error: "invalid_request",
                description: "MCP requests require one MCP-Protocol-Version of 2026-07-28 or later, one Mcp-Method, and Mcp-Name if the method takes a name",
                challenge: Challenge::None,
            },
            Self::NoRoute => DenialWire::access_denied("No route matches this request"),
            Self::BadOrigin => DenialWire::access_denied("Requests from this origin are not allowed"),
            Self::NotJwt
            | Self::UnknownIssuer
            | Self::WrongType
            | Self::BadAlgorithm
            | Self::UnknownKey
            | Self::BadSignature
            | Self::MissingClaim
            | Self::BadClaim
            | Self::NotYetValid
            | Self::IssuedInFuture
            | Self::TooLongLived
            | Self::WrongAudience
            | Self::CertificateMismatch => DenialWire::invalid_token(NOT_VALID),
            Self::BadProof => DenialWire::bad_proof("invalid_dpop_proof", "The DPoP proof is not valid"),
            Self::NonceRequired => DenialWire::bad_proof("use_dpop_nonce", ProofFault::Nonce.description()),
            Self::UnprovenToken => DenialWire::invalid_token(
                "The access token must be bound to a key and sent with a DPoP proof",
            ),
            Self::Expired => DenialWire::invalid_token("The access token has expired"),
            Self::Idle => DenialWire::invalid_token("The access token has been inactive for too long (idle)"),
            Self::TokenRevoked
            | Self::SessionRevoked
            | Self::SubjectRevoked
            | Self::ClientRevoked
            | Self::IssuerRevoked => DenialWire::invalid_token("The access token has been revoked"),
            Self::BeforeState => DenialWire::invalid_token(
                "The access token is older than the revocation records of this gate; request a new one",
            ),
            Self::RoleChanged => {
                DenialWire::invalid_token("The roles have changed since the access token was issued")
            }
            Self::InsufficientScope => DenialWire::insufficient("The access token lacks a required scope"),
            Self::InsufficientRole => DenialWire::insufficient("The access token lacks a required role"),
            Self::ClaimCondition => DenialWire {
                status: StatusCode::FORBIDDEN,
                error: "access_denied",
                description: "A claim of the access token does not meet a required condition",
                challenge: Challenge::None,
            },
            Self::InsufficientAuthentication => DenialWire {
                status: StatusCode::UNAUTHORIZED,
                error: "insufficient_user_authentication",
                description: "A stronger or more recent user authentication is required",
                challenge: Challenge::Error,
            },
            Self::KeysUnavailable | Self::StateUnavailable | Self::SignalsStale => {
                DenialWire::unavailable("Token verification is temporarily unavailable")
            }
            Self::Overloaded => DenialWire::unavailable("The gate has reached a limit; try again later"),
        }
    }
}

impl DenialWire {
    /// No token was presented: no error code in the challenge (RFC 6750 §3.1).
    const BARE: Self = Self {
        status: StatusCode::UNAUTHORIZED,
        error: "missing_token",
        description: "An access token is required",
        challenge: Challenge::Bare,
    };

    const fn bad_request(description: &'static str) -> Self {
        let (status, error) = (StatusCode::BAD_REQUEST, "invalid_request");
        Self { status, error, description, challenge: Challenge::Error }
    }

    const fn invalid_token(description: &'static str) -> Self {
        let (status, error) = (StatusCode::UNAUTHORIZED, "invalid_token");
        Self { status, error, description, challenge: Challenge::Error }
    }

    const fn bad_proof(error: &'static str, description: &'static str) -> Self {
        Self { status: StatusCode::UNAUTHORIZED, error, description, challenge: Challenge::Error }
    }

    const fn insufficient(description: &'static str) -> Self {
        let (status, error) = (StatusCode::FORBIDDEN, "insufficient_scope");
        Self { status, error, description, challenge: Challenge::Error }
    }

    /// A denial that does not concern the token, so without a challenge.
    const fn access_denied(description: &'static str) -> Self {
        let (status, error) = (StatusCode::FORBIDDEN, "access_denied");
        Self { status, error, description, challenge: Challenge::None }
    }

    const fn unavailable(description: &'static str) -> Self {
        let (status, error) = (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable");
        Self { status, error, description, challenge: Challenge::None }
    }
}

/// The `grpc-status` for a denied gRPC request, instead of `status`; `UNKNOWN` if gRPC has no matching code.
#[must_use]
pub fn grpc_status(status: StatusCode) -> u8 {
    match status.as_u16() {
        400 => 3,        // INVALID_ARGUMENT
        401 => 16,       // UNAUTHENTICATED
        403 => 7,        // PERMISSION_DENIED
        405 => 12,       // UNIMPLEMENTED
        413 | 431 => 8,  // RESOURCE_EXHAUSTED
        502 | 503 => 14, // UNAVAILABLE
        504 => 4,        // DEADLINE_EXCEEDED
        _ => 2,          // UNKNOWN
    }
}

#[cfg(test)]
mod tests;
