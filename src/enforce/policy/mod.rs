//! Which requests the gate knows, what each demands of a token, and what upstreams learn of tokens.

use http::HeaderName;

mod claim_name;
mod requirement;
mod route;

pub use claim_name::ClaimName;
pub use requirement::Requirement;
pub use route::{EncodedSlashes, Mode, Route, RouteSettings};

/// What the upstream learns of the token (`[identity]`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdentitySettings {
    /// Whether `Authorization` is removed before forwarding.
    pub strip_authorization: bool,
    /// Header and where its value comes from.
    pub headers: Vec<(HeaderName, IdentityClaim)>,
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
