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

/// What the upstream learns of the token (`[identity]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentitySettings {
    /// Whether `Authorization` is removed before forwarding.
    pub strip_authorization: bool,
    /// Header and where its value comes from.
    pub headers: Vec<(HeaderName, IdentityClaim)>,
    /// The longest value of one header, in bytes.
    pub max_value: usize,
    /// What becomes of a longer one.
    pub on_overflow: OnOverflow,
}

impl Default for IdentitySettings {
    /// No headers, and the limit of a configuration that sets none.
    fn default() -> Self {
        let (max_value, on_overflow) = (4 * 1024, OnOverflow::Refuse);
        Self { strip_authorization: false, headers: Vec::new(), max_value, on_overflow }
    }
}

/// What becomes of a token one of whose identity headers would be too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnOverflow {
    /// It is rejected: an upstream that decides by the header never sees a request without it.
    Refuse,
    /// The header is left out of the request.
    Omit,
}

/// Where an identity header's value comes from.
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
