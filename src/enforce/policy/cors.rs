//! What pages of other origins may do with a route, and what its responses say about that (CORS, Fetch §3.2).
//!
//! Maps header fields to header fields. It does not decide whether a request is let through: browsers enforce
//! CORS, and other clients may ignore it.

use std::time::Duration;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, HeaderName,
    RETRY_AFTER, VARY, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Method};

use super::origin::{SentOrigin, WebOrigin};

/// Prefix of all CORS fields.
const FAMILY: &str = "access-control-";
/// What the response to a preflight depends on.
const VARY_PREFLIGHT: HeaderValue =
    HeaderValue::from_static("Origin, Access-Control-Request-Method, Access-Control-Request-Headers");
/// Fields of the gate's own responses that a page should be able to read if present.
const OWN_FIELDS: [HeaderName; 5] = [
    WWW_AUTHENTICATE,
    RETRY_AFTER,
    HeaderName::from_static("dpop-nonce"),
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-message"),
];

/// CORS settings of a route (`[routes.cors]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorsSettings {
    /// The origins whose pages may read responses.
    pub origins: CorsOrigins,
    /// The methods that they may use; empty: those of the route.
    pub methods: Vec<Method>,
    /// The request header fields that they may send.
    pub headers: Vec<HeaderName>,
    /// The response header fields that they may read.
    pub expose: Vec<HeaderName>,
    /// Whether the browser may send cookies and client certificates.
    pub credentials: bool,
    /// How long a browser may cache the response to a preflight, in whole seconds.
    pub max_age: Duration,
}

/// Origins that CORS allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CorsOrigins {
    /// Every origin, without credentials.
    Any,
    /// These origins.
    Listed(Vec<WebOrigin>),
}

/// The CORS rules of one route, with the values of its response fields.
#[derive(Debug)]
pub struct Cors {
    origins: CorsOrigins,
    credentials: bool,
    /// `None` if the route accepts every method: a preflight response then allows the requested one.
    methods: Option<HeaderValue>,
    headers: Option<HeaderValue>,
    expose: Vec<HeaderName>,
    /// `expose` as one field value.
    exposed: Option<HeaderValue>,
    max_age: HeaderValue,
}

impl Cors {
    pub(super) fn new(settings: &CorsSettings, of_route: &[Method]) -> Self {
        let methods = if settings.methods.is_empty() { of_route } else { &settings.methods };
        Self {
            origins: settings.origins.clone(),
            credentials: settings.credentials,
            methods: joined(methods.iter().map(Method::as_str)),
            headers: joined(settings.headers.iter().map(HeaderName::as_str)),
            expose: settings.expose.clone(),
            exposed: joined(settings.expose.iter().map(HeaderName::as_str)),
            max_age: settings.max_age.as_secs().into(),
        }
    }

    /// The value of `Access-Control-Allow-Origin` for a request; `None` if its page may not read the
    /// response.
    #[must_use]
    pub fn allowed_origin(&self, request: &HeaderMap) -> Option<HeaderValue> {
        match &self.origins {
            CorsOrigins::Any => Some(HeaderValue::from_static("*")),
            CorsOrigins::Listed(listed) => {
                SentOrigin::of(request).find(listed).map(|origin| origin.value().clone())
            }
        }
    }

    /// The fields of the response to a preflight for `method`; `None` if its origin is not allowed.
    #[must_use]
    pub fn preflight(&self, request: &HeaderMap, method: &Method) -> Option<HeaderMap> {
        let mut answer = HeaderMap::with_capacity(8);
        self.allow(Some(&self.allowed_origin(request)?), &mut answer);
        let asked = || HeaderValue::from_str(method.as_str()).ok();
        if let Some(methods) = self.methods.clone().or_else(asked) {
            answer.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        }
        if let Some(headers) = self.headers.clone() {
            answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, headers);
        }
        answer.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        answer.insert(VARY, VARY_PREFLIGHT);
        Some(answer)
    }

    /// Replaces the CORS fields of an upstream's response. `origin` is the allowed one.
    pub fn replace(&self, origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
        let is_of_cors = |name: &&HeaderName| name.as_str().starts_with(FAMILY);
        let theirs: Vec<HeaderName> = answer.keys().filter(is_of_cors).cloned().collect();
        for name in theirs {
            answer.remove(name);
        }
        self.complete(origin, self.exposed.as_ref(), answer);
    }

    /// Adds CORS fields to one of the gate's own responses; a page can always read its challenge.
    pub fn add(&self, origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
        let is_own = |name: &&HeaderName| *name == WWW_AUTHENTICATE || answer.contains_key(*name);
        let fields = OWN_FIELDS;
        let own = fields.iter().filter(is_own).filter(|name| !self.expose.contains(name));
        let exposed = joined(self.expose.iter().chain(own).map(HeaderName::as_str));
        self.complete(origin, exposed.as_ref(), answer);
    }

    fn complete(&self, origin: Option<&HeaderValue>, exposed: Option<&HeaderValue>, answer: &mut HeaderMap) {
        self.allow(origin, answer);
        if let (Some(_), Some(exposed)) = (origin, exposed) {
            answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
        }
        if matches!(self.origins, CorsOrigins::Listed(_)) {
            vary_by_origin(answer);
        }
    }

    fn allow(&self, origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
        let Some(origin) = origin else { return };
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.credentials {
            answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }
}

/// Tells caches that the response depends on the origin (Fetch §3.2.5), unless it already says so.
fn vary_by_origin(answer: &mut HeaderMap) {
    let says_so = |value: &HeaderValue| {
        let names = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        names.into_iter().any(|name| name == b"*" || name.eq_ignore_ascii_case(b"origin"))
    };
    if !answer.get_all(VARY).iter().any(says_so) {
        answer.append(VARY, HeaderValue::from_static("Origin"));
    }
}

/// Joins names to one field value; `None` if there are none.
fn joined<'n>(names: impl Iterator<Item = &'n str>) -> Option<HeaderValue> {
    let text = names.collect::<Vec<_>>().join(", ");
    HeaderValue::try_from(text).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests;
