//! One route: its settings, and its part of a rejection.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};

use super::origin::SentOrigin;
use super::{ClaimName, Cors, CorsSettings, Requirement, WebOrigin};
use crate::enforce::conditions::table::{ConditionSet, ConditionTable, TokenCondition};
use crate::enforce::conditions::{ClaimCondition, ClaimTest, ClaimValue};
use crate::enforce::denial::{Denial, Reason};
use crate::enforce::mcp::McpSettings;
use crate::enforce::resource::Resource;
use crate::enforce::token::VerifiedToken;
use crate::time::Timestamp;

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
    /// When there are any, one of these must be met whole as well.
    pub allow: Vec<Requirement>,
    /// Names of the issuers whose tokens are accepted; empty: all.
    pub issuers: Vec<Arc<str>>,
    /// One of these must be in the token's audience; empty: the issuer's own rule is enough.
    pub audiences: Vec<String>,
    /// How, and how recently, the subject must have been authenticated.
    pub authentication: Authentication,
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
    /// Origins that a request may come from, where it says so; empty: any.
    pub origins: Vec<WebOrigin>,
    /// What pages of other origins may do; `None`: what the upstream says.
    pub cors: Option<CorsSettings>,
    /// Whether requests that it lets through are logged; those that are refused are in any case.
    pub access_log: bool,
    /// The protected resource that it belongs to.
    pub resource: Option<Arc<Resource>>,
    /// What on a stream counts as use of its token.
    pub idle_counts: IdleCounts,
    /// Which MCP requests it is for.
    pub mcp: McpSettings,
}

impl Default for RouteSettings {
    /// Every request of no path, to the first upstream.
    fn default() -> Self {
        Self {
            path: Arc::from(""),
            hosts: Vec::new(),
            methods: Vec::new(),
            upstream: 0,
            requirement: Requirement::default(),
            allow: Vec::new(),
            issuers: Vec::new(),
            audiences: Vec::new(),
            authentication: Authentication::default(),
            anonymous: false,
            mode: Mode::Enforce,
            response_timeout: None,
            request_body_timeout: None,
            encoded_slashes: EncodedSlashes::Reject,
            origins: Vec::new(),
            cors: None,
            access_log: true,
            resource: None,
            idle_counts: IdleCounts::Any,
            mcp: McpSettings::default(),
        }
    }
}

/// How, and how recently, the subject of a token must have been authenticated (RFC 9470).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Authentication {
    /// One of these must be the claim `acr`; empty: any.
    pub acr_values: Vec<String>,
    /// The claim `auth_time` lies no longer ago, in whole seconds.
    pub max_age: Option<Duration>,
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

/// What on a stream counts as use of its token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IdleCounts {
    /// Bytes in either direction.
    #[default]
    Any,
    /// What the client sends.
    Client,
    /// The request that opened it, and nothing after.
    Request,
}

/// One route in force.
#[derive(Debug)]
pub struct Route {
    index: usize,
    settings: RouteSettings,
    needed: NeededConditions,
    /// All scopes that it asks for, as a challenge names them.
    scope: Option<Arc<str>>,
    /// Where the metadata of its resource is.
    resource_metadata: Option<Arc<str>>,
    cors: Option<Cors>,
}

/// What is needed of what tokens meet.
#[derive(Debug)]
struct NeededConditions {
    issuer: ConditionSet,
    audience: ConditionSet,
    claims: ConditionSet,
    acr: ConditionSet,
    /// In the order of `allow`.
    allow: Vec<ConditionSet>,
}

impl RouteSettings {
    /// Whether a token must be more than in force.
    pub(in crate::enforce) fn asks_for_anything(&self) -> bool {
        let Self { requirement, allow, issuers, audiences, authentication, .. } = self;
        !(requirement.is_empty() && allow.is_empty() && issuers.is_empty() && audiences.is_empty())
            || *authentication != Authentication::default()
    }

    fn needed(&self, table: &mut ConditionTable) -> NeededConditions {
        let mut of = |list_is_empty: bool, condition: TokenCondition| {
            table.set(Some(condition).filter(|_| !list_is_empty))
        };
        let acr = self.authentication.acr_values.iter().cloned().map(ClaimValue::Text).collect();
        let acr =
            ClaimCondition { claim: ClaimName::Member("acr".to_owned()), tests: vec![ClaimTest::In(acr)] };
        NeededConditions {
            issuer: of(self.issuers.is_empty(), TokenCondition::Issuer(self.issuers.clone())),
            audience: of(self.audiences.is_empty(), TokenCondition::Audience(self.audiences.clone())),
            acr: of(self.authentication.acr_values.is_empty(), TokenCondition::Claim(acr)),
            claims: table.set(self.requirement.conditions()),
            allow: self.allow.iter().map(|one| table.set(one.conditions())).collect(),
        }
    }
}

impl Route {
    pub(in crate::enforce) fn new(index: usize, settings: RouteSettings, table: &mut ConditionTable) -> Self {
        // Of alternatives a challenge can ask for one; the first that needs scopes is as good as any.
        let alternative = settings.allow.iter().find(|one| one.scopes().next().is_some());
        let scope = joined(
            settings.requirement.scopes().chain(alternative.into_iter().flat_map(Requirement::scopes)),
        );
        let resource_metadata = settings.resource.as_ref().map(|resource| resource.metadata_url().into());
        let cors = settings.cors.as_ref().map(|cors| Cors::new(cors, &settings.methods));
        Self { index, needed: settings.needed(table), settings, scope, resource_metadata, cors }
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

    /// All scopes that it asks for, space-delimited; `None` when it asks for none.
    #[must_use]
    pub fn scope(&self) -> Option<&Arc<str>> {
        self.scope.as_ref()
    }

    /// The URL of its resource's metadata (RFC 9728 §5.1).
    #[must_use]
    pub fn resource_metadata(&self) -> Option<&Arc<str>> {
        self.resource_metadata.as_ref()
    }

    /// Whether a token was issued for this route: where the route's resource asks for that, its URL is in `aud`; and one
    /// that was issued for resources only has that of this one.
    ///
    /// # Errors
    /// [`Reason::WrongAudience`].
    pub fn judge_resource(&self, token: &VerifiedToken) -> Result<(), Reason> {
        let resource = self.settings.resource.as_ref();
        let is_required =
            token.is_for_resources || resource.is_some_and(|resource| resource.require_audience);
        let is_named = || resource.is_some_and(|resource| token.audiences.contains(&resource.url));
        if !is_required || is_named() { Ok(()) } else { Err(Reason::WrongAudience) }
    }

    /// What pages of other origins may do.
    #[must_use]
    pub fn cors(&self) -> Option<&Cors> {
        self.cors.as_ref()
    }

    /// Whether a request may come from where it says it does. One without `Origin` may.
    ///
    /// # Errors
    /// [`Reason::BadOrigin`].
    pub fn judge_origin(&self, request: &HeaderMap) -> Result<(), Denial> {
        let listed = &self.settings.origins;
        let may = || match SentOrigin::of(request) {
            SentOrigin::Absent => true,
            sent @ (SentOrigin::One(_) | SentOrigin::Several) => sent.find(listed).is_some(),
        };
        if listed.is_empty() || may() { Ok(()) } else { Err(self.denial(Reason::BadOrigin)) }
    }

    /// The fields of the answer to a preflight that asks for `method`.
    ///
    /// # Errors
    /// [`Reason::BadOrigin`] when the request that it asks about would be rejected for its origin, or could not be read.
    pub fn preflight(&self, request: &HeaderMap, method: &Method) -> Result<HeaderMap, Denial> {
        if self.settings.mode == Mode::Enforce {
            self.judge_origin(request)?;
        }
        let answer = self.cors.as_ref().and_then(|cors| cors.preflight(request, method));
        answer.ok_or_else(|| self.denial(Reason::BadOrigin))
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

    /// Whether tokens of this issuer are accepted.
    ///
    /// # Errors
    /// [`Reason::UnknownIssuer`].
    pub fn judge_issuer(&self, token: &VerifiedToken) -> Result<(), Reason> {
        if token.met.holds(&self.needed.issuer) { Ok(()) } else { Err(Reason::UnknownIssuer) }
    }

    /// Whether the token is for one of the route's audiences.
    ///
    /// # Errors
    /// [`Reason::WrongAudience`].
    pub fn judge_audience(&self, token: &VerifiedToken) -> Result<(), Reason> {
        if token.met.holds(&self.needed.audience) { Ok(()) } else { Err(Reason::WrongAudience) }
    }

    /// Whether the token's claims are as this route demands.
    ///
    /// # Errors
    /// [`Reason::ClaimCondition`].
    pub fn judge_claims(&self, token: &VerifiedToken) -> Result<(), Reason> {
        if token.met.holds(&self.needed.claims) { Ok(()) } else { Err(Reason::ClaimCondition) }
    }

    /// Whether the token meets one of the alternatives whole, where there are any.
    ///
    /// # Errors
    /// What the alternative lacks that comes nearest: one that lacks scopes only, because they can be asked for; else one
    /// that lacks a role; else [`Reason::ClaimCondition`].
    pub fn judge_alternatives(&self, token: &VerifiedToken) -> Result<(), Denial> {
        if self.settings.allow.is_empty() {
            return Ok(());
        }
        let mut nearest = Denial::from(Reason::ClaimCondition);
        for (one, needed) in self.settings.allow.iter().zip(&self.needed.allow) {
            let lacks_claims = !token.met.holds(needed);
            match (lacks_claims, one.judge_roles(token), one.judge_scopes(token)) {
                (false, Ok(()), Ok(())) => return Ok(()),
                (false, Ok(()), Err(reason)) if nearest.reason != Reason::InsufficientScope => {
                    let scope = joined(self.settings.requirement.scopes().chain(one.scopes()));
                    nearest = Denial { scope, ..reason.into() };
                }
                (false, Err(reason), _) if nearest.reason == Reason::ClaimCondition => {
                    nearest = self.denial(reason);
                }
                _ => {}
            }
        }
        Err(nearest)
    }

    /// Whether the token's subject was authenticated as this route demands (RFC 9470 §4).
    ///
    /// # Errors
    /// [`Reason::InsufficientAuthentication`].
    pub fn judge_authentication(&self, token: &VerifiedToken, now: Timestamp) -> Result<(), Reason> {
        let is_recent = |most: Duration| token.authenticated_at.is_some_and(|at| now.since(at) <= most);
        let is_met =
            token.met.holds(&self.needed.acr) && self.settings.authentication.max_age.is_none_or(is_recent);
        if is_met { Ok(()) } else { Err(Reason::InsufficientAuthentication) }
    }

    fn denial(&self, reason: Reason) -> Denial {
        Denial { scope: self.scope.clone(), ..Denial::from(reason) }
    }
}

/// Scopes as a challenge names them.
fn joined<'s>(scopes: impl Iterator<Item = &'s String>) -> Option<Arc<str>> {
    let mut named: Vec<&str> = Vec::new();
    for scope in scopes {
        if !named.contains(&scope.as_str()) {
            named.push(scope);
        }
    }
    (!named.is_empty()).then(|| named.join(" ").into())
}
