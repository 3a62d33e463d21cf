//! Which requests the gate knows, and what each demands of a token.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};
use serde_json::{Map, Value};

use super::denial::{Denial, Reason};
use super::token::{VerifiedToken, Words};

/// One route, as configured (`[[routes]]`).
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
    /// Limit on the client's silence inside a request's body.
    pub request_body_timeout: Option<Duration>,
    /// What becomes of targets with a `%2f` in the path.
    pub encoded_slashes: EncodedSlashes,
    /// Whether requests that it lets through are logged; those that are refused are in any case.
    pub access_log: bool,
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

/// What becomes of targets with an encoded slash in the path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EncodedSlashes {
    /// They are rejected: an upstream may read another path than was judged.
    #[default]
    Reject,
    /// The slash is a part of its segment, and goes upstream as it came.
    Keep,
}

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

/// How a claim is found in the payload: a plain member name, or a JSON pointer (RFC 6901) when it starts with `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimName {
    /// A top-level member, compared as it is (so `cognito:groups` and `https://example.com/roles` work).
    Member(String),
    /// The unescaped reference tokens of a JSON pointer.
    Pointer(Vec<String>),
}

/// One route in force.
#[derive(Debug)]
pub struct Route {
    index: usize,
    settings: RouteSettings,
    /// The scopes the challenge of a denial names.
    scope: Option<Arc<str>>,
}

impl Route {
    pub(super) fn new(index: usize, settings: RouteSettings) -> Self {
        let Requirement { scopes, any_scope, .. } = &settings.requirement;
        let named: Vec<&str> = scopes.iter().chain(any_scope).map(String::as_str).collect();
        let scope = (!named.is_empty()).then(|| named.join(" ").into());
        Self { index, settings, scope }
    }

    /// Its place in the configuration, counted from 0 without gaps.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its pattern, which is also the metric label.
    #[must_use]
    pub fn pattern(&self) -> &Arc<str> {
        &self.settings.path
    }

    /// Index into the configured upstreams.
    #[must_use]
    pub fn upstream(&self) -> usize {
        self.settings.upstream
    }

    /// What was configured.
    #[must_use]
    pub fn settings(&self) -> &RouteSettings {
        &self.settings
    }

    /// Whether a token carries the scopes that this route requires.
    ///
    /// # Errors
    /// [`Reason::InsufficientScope`], with the scopes the route requires.
    pub fn judge_scopes(&self, token: &VerifiedToken) -> Result<(), Denial> {
        self.settings.requirement.judge_scopes(token).map_err(|reason| self.denial(reason))
    }

    /// Whether a token carries the roles that this route requires.
    ///
    /// # Errors
    /// [`Reason::InsufficientRole`], with the scopes the route requires.
    pub fn judge_roles(&self, token: &VerifiedToken) -> Result<(), Denial> {
        self.settings.requirement.judge_roles(token).map_err(|reason| self.denial(reason))
    }

    fn denial(&self, reason: Reason) -> Denial {
        Denial { reason, scope: self.scope.clone() }
    }
}

impl Requirement {
    /// Whether nothing is demanded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { scopes, any_scope, roles, any_role } = self;
        scopes.is_empty() && any_scope.is_empty() && roles.is_empty() && any_role.is_empty()
    }

    pub(super) fn judge_scopes(&self, token: &VerifiedToken) -> Result<(), Reason> {
        let enough = suffices(&token.scopes, &self.scopes, &self.any_scope);
        if enough { Ok(()) } else { Err(Reason::InsufficientScope) }
    }

    pub(super) fn judge_roles(&self, token: &VerifiedToken) -> Result<(), Reason> {
        let enough = suffices(&token.roles, &self.roles, &self.any_role);
        if enough { Ok(()) } else { Err(Reason::InsufficientRole) }
    }
}

fn suffices(held: &Words, all: &[String], any: &[String]) -> bool {
    let holds = |wanted: &String| held.contains(wanted);
    all.iter().all(holds) && (any.is_empty() || any.iter().any(holds))
}

impl std::fmt::Display for ClaimName {
    /// As it is configured.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Member(name) => f.write_str(name),
            Self::Pointer(tokens) => tokens
                .iter()
                .try_for_each(|token| write!(f, "/{}", token.replace('~', "~0").replace('/', "~1"))),
        }
    }
}

impl ClaimName {
    /// The claim's value in a payload; `null` counts as absent.
    pub(super) fn find<'p>(&self, payload: &'p Map<String, Value>) -> Option<&'p Value> {
        let found = match self {
            Self::Member(name) => payload.get(name),
            Self::Pointer(tokens) => {
                let (first, rest) = tokens.split_first()?;
                rest.iter().try_fold(payload.get(first)?, |value, token| match value {
                    Value::Object(members) => members.get(token),
                    Value::Array(members) => members.get(token.parse::<usize>().ok()?),
                    Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
                })
            }
        };
        found.filter(|value| !value.is_null())
    }
}

#[cfg(test)]
mod tests;
