//! Which requests the gate knows, and what each demands of a token.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};

/// One route, as configured (CONTRACT §2 `[[routes]]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSettings {
    /// The pattern: literal segments, `{name}`, and a last `{*rest}`.
    pub path: Arc<str>,
    /// Host names in lower case, without port and final dot; empty: any.
    pub hosts: Vec<String>,
    /// Methods; empty: any.
    pub methods: Vec<Method>,
    /// Index into the configured upstreams.
    pub upstream: usize,
    /// What the token must carry.
    pub requirement: Requirement,
    /// No token needed; one that is sent is still checked.
    pub anonymous: bool,
    /// Enforce, or only observe.
    pub mode: Mode,
    /// Overrides the upstream's `response_timeout`.
    pub response_timeout: Option<Duration>,
}

/// Scopes and roles that a route demands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requirement {
    /// All of these scopes.
    pub scopes: Vec<String>,
    /// At least one of these, when there are any.
    pub any_scope: Vec<String>,
    /// All of these roles.
    pub roles: Vec<String>,
    /// At least one of these, when there are any.
    pub any_role: Vec<String>,
}

/// What a denial on a route does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Refuses the request.
    #[default]
    Enforce,
    /// Is logged and counted as `shadow_deny`; the request is forwarded all the same.
    Shadow,
}

/// What the upstream learns of the token (CONTRACT §2 `[identity]`).
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

/// How a claim is found in the payload: a plain member name, or a JSON pointer (RFC 6901) when it starts with `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimName {
    /// A top-level member, compared as it is (so `cognito:groups` and `https://example.com/roles` work).
    Member(String),
    /// The unescaped reference tokens of a JSON pointer.
    Pointer(Vec<String>),
}
