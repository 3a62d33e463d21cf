//! The claims of a token: parsed once, strictly, by the rules of its issuer.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Algorithm;

use super::policy::ClaimName;

/// What an issuer's tokens must look like (CONTRACT §2 `[[issuers]]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerRules {
    /// Compared exactly with `iss`.
    pub issuer: Arc<str>,
    /// One of these must be in `aud`.
    pub audiences: Vec<String>,
    /// The algorithms its tokens may be signed with.
    pub algorithms: Vec<Algorithm>,
    /// Allowance for clocks that differ, on `exp`, `nbf` and `iat`.
    pub leeway: Duration,
    /// `exp − iat` above this is refused.
    pub max_lifetime: Duration,
    /// Values of the header's `typ` that are accepted, compared without case; an absent `typ` counts as `JWT`.
    pub token_types: Vec<String>,
    /// Claims that must be present besides `exp` and `iat`.
    pub required_claims: Vec<String>,
    /// Where the claims are found that have a meaning here.
    pub claims: ClaimNames,
}

/// Where the claims are found that have a meaning here (CONTRACT §2 `[issuers.claims]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimNames {
    /// Scopes: a space-delimited string or an array.
    pub scope: ClaimName,
    /// Roles: an array or a space-delimited string.
    pub roles: ClaimName,
    /// The client.
    pub client: ClaimName,
    /// The tenant.
    pub tenant: ClaimName,
    /// The version of the subject's roles.
    pub role_version: ClaimName,
}
