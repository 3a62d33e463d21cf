//! A token whose signature and claims were found good: parsed once, judged on every request.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use crate::time::Timestamp;

/// Names an issuer by its place in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IssuerIndex(pub u16);

/// What a token is, whatever string it arrived in: SHA-256 of `iss`, a newline and `jti`; without `jti`, of its signing
/// input (CONTRACT §3: never the raw string, because one signed message has many).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId(pub [u8; 32]);

/// A token whose signature is true under one key set and whose claims have the right form.
///
/// Says nothing of whether it is in force: expiry, revocation, idleness and policy are judged on every request.
#[derive(Debug)]
pub struct VerifiedToken {
    /// Whose token it is.
    pub issuer: IssuerIndex,
    /// Its identity.
    pub id: TokenId,
    /// The first 12 hex digits of SHA-256 of `iss`, newline, `sub`; what logs carry.
    pub subject_hash: Option<Box<str>>,
    /// `sub`.
    pub subject: Option<Box<str>>,
    /// `jti`.
    pub jti: Option<Box<str>>,
    /// The client claim.
    pub client: Option<Arc<str>>,
    /// The tenant claim.
    pub tenant: Option<Box<str>>,
    /// The role version claim.
    pub role_version: Option<u64>,
    /// `iat`.
    pub issued_at: Timestamp,
    /// `exp`.
    pub expires_at: Timestamp,
    /// `nbf`.
    pub not_before: Option<Timestamp>,
    /// Scopes, in the token's order.
    pub scopes: Vec<Box<str>>,
    /// Roles, in the token's order.
    pub roles: Vec<Box<str>>,
    /// `cnf.x5t#S256`, decoded (RFC 8705 §3.1).
    pub certificate: Option<[u8; 32]>,
    /// The identity headers, ready to send.
    pub identity: Vec<(HeaderName, HeaderValue)>,
}
