//! The routes of the gate, what each requires of a token, and what upstreams learn about tokens.

use http::HeaderName;

mod claim_name;
mod cors;
mod origin;
mod requirement;
mod route;

pub use claim_name::ClaimName;
pub use cors::{Cors, CorsOrigins, CorsSettings};
pub use origin::WebOrigin;
pub use requirement::Requirement;
pub use route::{Authentication, EncodedSlashes, IdleCounts, Mode, Route, RouteSettings};

/// What the upstream learns about the token (`[identity]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentitySettings {
    /// Whether `Authorization` is removed before forwarding.
    pub strip_authorization: bool,
    /// Each header, and where its value comes from.
    pub headers: Vec<(HeaderName, IdentityClaim)>,
    /// Maximum length of one header's value in bytes.
    pub max_value: usize,
    /// What happens if a value is longer.
    pub on_overflow: OnOverflow,
}

impl Default for IdentitySettings {
    /// No headers, and the default limit of the configuration.
    fn default() -> Self {
        let (max_value, on_overflow) = (4 * 1024, OnOverflow::Refuse);
        Self { strip_authorization: false, headers: Vec::new(), max_value, on_overflow }
    }
}

/// What happens to a token with an identity header that would be too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnOverflow {
    /// The token is rejected: an upstream that decides by the header never sees a request without it.
    Refuse,
    /// The header is left out of the request.
    Omit,
}

/// The source of an identity header's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityClaim {
    /// The token's `sub`.
    Subject,
    /// The claim that `issuers.claims.client` names.
    Client,
    /// The claim that `issuers.claims.scope` names.
    Scope,
    /// The claim that `issuers.claims.roles` names.
    Roles,
    /// The claim that `issuers.claims.tenant` names.
    Tenant,
    /// `token.<claim>`: this member or JSON pointer of the payload, for any issuer.
    Token(ClaimName),
}

#[cfg(test)]
mod tests;
