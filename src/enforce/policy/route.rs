//! One route: its settings, and its part of a denial.

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

/// Settings of one route (`[[routes]]`).
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
    /// Alternatives: if there are any, the token must also meet one of these completely.
    pub allow: Vec<Requirement>,
    /// Names of the issuers whose tokens are accepted; empty: all.
    pub issuers: Vec<Arc<str>>,
    /// One of these must be in the token's audience; empty: the issuer's own rule suffices.
    pub audiences: Vec<String>,
    /// How, and how recently, the subject must have authenticated.
    pub authentication: Authentication,
    /// Whether no token is needed; one that is sent is still checked.
    pub anonymous: bool,
    /// Whether denials are enforced or only logged.
    pub mode: Mode,
    /// Overrides the upstream's `response_timeout`.
    pub response_timeout: Option<Duration>,
    /// Limit on the time that a client may pause within a request's body.
    pub request_body_timeout: Option<Duration>,
    /// What happens to targets with a `%2f` in the path.
    pub encoded_slashes: EncodedSlashes,
    /// Allowed values of `Origin`, if a request has it; empty: any.
    pub origins: Vec<WebOrigin>,
    /// What pages of other origins may do; `None`: the upstream's CORS fields are kept.
    pub cors: Option<CorsSettings>,
    /// Whether forwarded requests are logged; denied ones always are.
    pub access_log: bool,
    /// The protected resource that it belongs to.
    pub resource: Option<Arc<Resource>>,
    /// What on a stream counts as a use of its token.
    pub idle_counts: IdleCounts,
    /// The MCP requests that it matches.
    pub mcp: McpSettings,
}

impl Default for RouteSettings {
    /// The defaults: any request, to the first upstream; the path is empty.
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

/// How, and how recently, the subject of a token must have authenticated (RFC 9470).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Authentication {
    /// The claim `acr` must be one of these; empty: any.
    pub acr_values: Vec<String>,
    /// Maximum age of the claim `auth_time`, in whole seconds.
    pub max_age: Option<Duration>,
}

/// The effect of a denial on a route.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// The request is denied.
    #[default]
    Enforce,
    /// The denial is logged and counted as `shadow_deny`; the request is forwarded all the same.
    Shadow,
}

/// What happens to targets with an encoded slash in the path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EncodedSlashes {
    /// They are rejected, because an upstream may read another path than the one that was judged.
    #[default]
    Reject,
    /// The slash is part of its segment and is forwarded as received.
    Keep,
}

/// What on a stream counts as a use of its token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IdleCounts {
    /// Bytes in either direction.
    #[default]
    Any,
    /// Bytes from the client.
    Client,
    /// Only the request that opened it.
    Request,
}

/// One route in force.
#[derive(Debug)]
pub struct Route {
    index: usize,
    settings: RouteSettings,
    needed: NeededConditions,
    /// All scopes that it requires, as a challenge names them.
    scope: Option<Arc<str>>,
    /// The URL of its resource's metadata.
    resource_metadata: Option<Arc<str>>,
    cors: Option<Cors>,
}

/// The conditions that a token must meet.
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
    /// Whether a token needs more than to be in force.
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
        // A challenge can ask for only one alternative; the first that needs scopes is as good as any.
        let alternative = settings.allow.iter().find(|one| one.scopes().next().is_some());
        let scope = joined(
            settings.requirement.scopes().chain(alternative.into_iter().flat_map(Requirement::scopes)),
        );
        let resource_metadata = settings.resource.as_ref().map(|resource| resource.metadata_url().into());
        let cors = settings.cors.as_ref().map(|cors| Cors::new(cors, &settings.methods));
        Self { index, needed: settings.needed(table), settings, scope, resource_metadata, cors }
    }

    /// Its index in the configuration, from 0 without gaps.
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

    /// Its settings.
    #[must_use]
    pub fn settings(&self) -> &RouteSettings {
        &self.settings
    }

    /// All scopes that it requires, space-delimited; `None` if it requires none.
    #[must_use]
    pub fn scope(&self) -> Option<&Arc<str>> {
        self.scope.as_ref()
    }

    /// The URL of its resource's metadata (RFC 9728 §5.1).
    #[must_use]
    pub fn resource_metadata(&self) -> Option<&Arc<str>> {
        self.resource_metadata.as_ref()
    }

    /// Checks that a token was issued for this route: if the route's resource requires an audience, or the
    /// token was issued for resources only, the resource's URL must be in `aud`.
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

    /// The CORS rules for pages of other origins.
    #[must_use]
    pub fn cors(&self) -> Option<&Cors> {
        self.cors.as_ref()
    }

    /// Checks the origin of a request. A request without `Origin` passes.
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

    /// The fields of the response to a preflight for `method`.
    ///
    /// # Errors
    /// [`Reason::BadOrigin`] when the request that it announces would be rejected for its origin, or its page
    /// could not read the response.
    pub fn preflight(&self, request: &HeaderMap, method: &Method) -> Result<HeaderMap, Denial> {
        if self.settings.mode == Mode::Enforce {
            self.judge_origin(request)?;
        }
        let answer = self.cors.as_ref().and_then(|cors| cors.preflight(request, method));
        answer.ok_or_else(|| self.denial(Reason::BadOrigin))
    }

    /// Checks that a token has the scopes that this route requires.
    ///
    /// # Errors
    /// [`Reason::InsufficientScope`], with the scopes the route requires.
    pub fn judge_scopes(&self, token: &VerifiedToken) -> Result<(), Denial> {
        self.settings.requirement.judge_scopes(token).map_err(|reason| self.denial(reason))
    }

    /// Checks that a token has the roles that this route requires.
    ///
    /// # Errors
    /// [`Reason::InsufficientRole`], with the scopes the route requires.
    pub fn judge_roles(&self, token: &VerifiedToken) -> Result<(), Denial> {
        self.settings.requirement.judge_roles(token).map_err(|reason| self.denial(reason))
    }

    /// Checks that tokens of this issuer are accepted.
    ///
    /// # Errors
    /// [`Reason::UnknownIssuer`].
    pub fn judge_issuer(&self, token: &VerifiedToken) -> Result<(), Reason> {
        if token.met.holds(&self.needed.issuer) { Ok(()) } else { Err(Reason::UnknownIssuer) }
    }

    /// Checks that the token is for one of the route's audiences.
    ///
    /// # Errors
    /// [`Reason::WrongAudience`].
    pub fn judge_audience(&self, token: &VerifiedToken) -> Result<(), Reason> {
        if token.met.holds(&self.needed.audience) { Ok(()) } else { Err(Reason::WrongAudience) }
    }

    /// Checks that the token's claims meet this route's conditions.
    ///
    /// # Errors
    /// [`Reason::ClaimCondition`].
    pub fn judge_claims(&self, token: &VerifiedToken) -> Result<(), Reason> {
        if token.met.holds(&self.needed.claims) { Ok(()) } else { Err(Reason::ClaimCondition) }
    }

    /// Checks that the token meets one of the alternatives completely, if there are any.
    ///
    /// # Errors
    /// The reason of the nearest alternative: one that lacks only scopes, because a client can ask for those;
    /// else one that lacks a role; else [`Reason::ClaimCondition`].
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

    /// Checks that the token's subject was authenticated as this route requires (RFC 9470 §4).
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

/// Joins scopes, without duplicates, as a challenge names them.
fn joined<'s>(scopes: impl Iterator<Item = &'s String>) -> Option<Arc<str>> {
    let mut named: Vec<&str> = Vec::new();
    for scope in scopes {
        if !named.contains(&scope.as_str()) {
            named.push(scope);
        }
    }
    (!named.is_empty()).then(|| named.join(" ").into())
}
