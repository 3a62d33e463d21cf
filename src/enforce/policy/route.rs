//! One route: what was configured, and what its refusals say.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};

use super::origin::SentOrigin;
use super::{Cors, CorsSettings, Requirement, WebOrigin};
use crate::enforce::denial::{Denial, Reason};
use crate::enforce::mcp::McpSettings;
use crate::enforce::resource::Resource;
use crate::enforce::token::VerifiedToken;

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
    /// All scopes that it asks for, as a challenge names them.
    scope: Option<Arc<str>>,
    /// Where the metadata of its resource is.
    resource_metadata: Option<Arc<str>>,
    cors: Option<Cors>,
}

impl Route {
    pub(in crate::enforce) fn new(index: usize, settings: RouteSettings) -> Self {
        let Requirement { scopes, any_scope, .. } = &settings.requirement;
        let named: Vec<&str> = scopes.iter().chain(any_scope).map(String::as_str).collect();
        let scope = (!named.is_empty()).then(|| named.join(" ").into());
        let resource_metadata = settings.resource.as_ref().map(|resource| resource.metadata_url().into());
        let cors = settings.cors.as_ref().map(|cors| Cors::new(cors, &settings.methods));
        Self { index, settings, scope, resource_metadata, cors }
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
        let (listed, sent) = (&self.settings.origins, SentOrigin::of(request));
        let may = listed.is_empty() || sent == SentOrigin::Absent || sent.find(listed).is_some();
        if may { Ok(()) } else { Err(self.denial(Reason::BadOrigin)) }
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

    fn denial(&self, reason: Reason) -> Denial {
        Denial { reason, scope: self.scope.clone() }
    }
}
