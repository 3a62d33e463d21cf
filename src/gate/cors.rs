//! Cross-origin requests of browsers (`[routes.cors]`). Preflights are answered here, without a token; the
//! gate's own responses can be read by allowed pages, so that a page can tell an expired token from a network
//! failure.
//!
//! [`Cors`] defines the fields; requests are judged like all others.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_REQUEST_METHOD, CACHE_CONTROL, CONNECTION, EXPECT, HeaderMap, HeaderValue, ORIGIN,
};
use http::{Method, Response, StatusCode};

use super::accept::ClientConnection;
use super::access::Record;
use super::answer::{AnswerForm, GateRefusal, X_REQUEST_ID};
use super::body::{AnswerBody, ClientBody, Serving, discard};
use super::http::Head;
use super::limits::host;
use super::worker::Generation;
use crate::enforce::decide::Request;
use crate::enforce::policy::{Cors, Route};
use crate::time::Now;

/// A browser's preflight: may a page send this request? (Fetch §4.8)
pub(super) struct Preflight {
    route: Arc<Route>,
    method: Method,
}

impl Preflight {
    /// The preflight in a request, if the request that it announces would match a route with CORS. Every
    /// other `OPTIONS` request is treated as usual.
    pub(super) fn of(
        head: &Head,
        host: &HeaderValue,
        connection: &ClientConnection,
        generation: &Generation,
    ) -> Option<Self> {
        if head.method != Method::OPTIONS || !generation.has_cors || !head.headers.contains_key(ORIGIN) {
            return None;
        }
        let mut fields = head.headers.get_all(ACCESS_CONTROL_REQUEST_METHOD).iter();
        let (Some(asked), None) = (fields.next(), fields.next()) else { return None };
        let method = Method::from_bytes(asked.as_bytes()).ok()?;
        let now = Now::read();
        // Without a valid certificate, the request is rejected like any other.
        let certificate = connection.certificate(&generation.live, now.wall).ok()?;
        let question = Request {
            method: &method,
            target: &head.target,
            host: host.to_str().ok(),
            headers: &head.headers,
            certificate,
        };
        let route = generation.live.enforcer.route(&question, now).filter(|route| route.cors().is_some())?;
        Some(Self { route, method })
    }

    /// Answers the preflight. If the page's origin is not allowed, it is rejected, as the Fetch standard asks
    /// of servers that do not take part in CORS (§3.2.4).
    pub(super) async fn answer(
        self,
        head: &Head,
        body: ClientBody,
        mut record: Box<Record>,
        serving: Option<Serving>,
    ) -> Response<AnswerBody> {
        record.routed(Arc::clone(&self.route));
        let persists = discard(body, head.headers.contains_key(EXPECT)).await;
        let mut answer = match self.route.preflight(&head.headers, &self.method) {
            Ok(fields) => {
                record.answered_preflight();
                allowed(fields, &record.request_id)
            }
            Err(denial) => {
                let refusal = GateRefusal::denied(&denial, Some(&self.route));
                record.denied(&refusal);
                let mut answer = refusal.to_response(AnswerForm::Json, &record.request_id);
                if let Some(cors) = self.route.cors() {
                    cors.add(None, answer.headers_mut());
                }
                answer
            }
        };
        if !persists {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        record.answered(answer.status());
        answer.map(|text| AnswerBody::refusal(text, record, serving))
    }
}

fn allowed(fields: HeaderMap, request_id: &HeaderValue) -> Response<Option<Bytes>> {
    let mut answer = Response::new(None);
    *answer.status_mut() = StatusCode::NO_CONTENT;
    *answer.headers_mut() = fields;
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer.headers_mut().insert(X_REQUEST_ID, request_id.clone());
    answer
}

/// The CORS fields of a response; none unless the route has CORS.
#[derive(Default)]
pub(super) struct CorsAnswer {
    route: Option<Arc<Route>>,
    /// The origin whose pages may read the response.
    origin: Option<HeaderValue>,
}

impl CorsAnswer {
    /// The CORS fields for a request on this route.
    pub(super) fn of(route: &Arc<Route>, request: &HeaderMap) -> Self {
        let Some(cors) = route.cors() else { return Self::default() };
        Self { route: Some(Arc::clone(route)), origin: cors.allowed_origin(request) }
    }

    /// The CORS fields for a rejected request, whose route may not have been looked up.
    pub(super) fn of_rejected(head: &Head, record: &Record) -> Self {
        let generation = &record.generation;
        if !generation.has_cors {
            return Self::default();
        }
        if let Some(route) = record.route() {
            return Self::of(route, &head.headers);
        }
        let host = record.host.clone().or_else(|| host(head));
        let question = Request {
            method: &head.method,
            target: &head.target,
            host: host.as_ref().and_then(|host| host.to_str().ok()),
            headers: &head.headers,
            certificate: None,
        };
        let route = generation.live.enforcer.route(&question, Now::read());
        route.map(|route| Self::of(&route, &head.headers)).unwrap_or_default()
    }

    /// Adds the fields to a response of the gate itself.
    pub(super) fn add(&self, answer: &mut HeaderMap) {
        if let Some(cors) = self.cors() {
            cors.add(self.origin.as_ref(), answer);
        }
    }

    /// Replaces the upstream's CORS fields.
    pub(super) fn replace(&self, answer: &mut HeaderMap) {
        if let Some(cors) = self.cors() {
            cors.replace(self.origin.as_ref(), answer);
        }
    }

    fn cors(&self) -> Option<&Cors> {
        self.route.as_ref()?.cors()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderName;

    use super::*;
    use crate::enforce::policy::{CorsOrigins, CorsSettings, RouteSettings, WebOrigin};
    use crate::enforce::router::Router;

    const APP: &str = "https://app.example";

    fn route(has_cors: bool) -> Arc<Route> {
        let cors = has_cors.then(|| CorsSettings {
            origins: CorsOrigins::Listed(vec![WebOrigin::parse(APP).unwrap()]),
            methods: Vec::new(),
            headers: Vec::new(),
            expose: Vec::new(),
            credentials: false,
            max_age: Duration::ZERO,
        });
        let settings = RouteSettings { path: "/a".into(), cors, ..RouteSettings::default() };
        Arc::clone(Router::new(vec![settings]).unwrap().routes().first().unwrap())
    }

    fn fields(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(field).collect()
    }

    #[test]
    fn only_the_answers_of_a_route_with_cors_speak_to_browsers_and_only_to_those_that_it_lists() {
        const ALLOWED: (&str, &str) = ("access-control-allow-origin", APP);
        const EXPOSED: (&str, &str) = ("access-control-expose-headers", "www-authenticate");
        const THEIRS: (&str, &str) = ("access-control-allow-origin", "*");
        const VARY: (&str, &str) = ("vary", "Origin");
        let evil = "https://evil.example";
        // What the gate adds to its own responses, and how it changes an upstream's.
        for (has_cors, origin, own, of_upstream) in [
            (false, APP, &[][..], &[THEIRS][..]),
            (true, APP, &[ALLOWED, EXPOSED, VARY], &[ALLOWED, VARY]),
            (true, evil, &[VARY], &[VARY]),
        ] {
            let cors = CorsAnswer::of(&route(has_cors), &fields(&[("origin", origin)]));
            let (mut ours, mut theirs) = (HeaderMap::new(), fields(&[THEIRS]));
            cors.add(&mut ours);
            cors.replace(&mut theirs);
            assert_eq!((ours, theirs), (fields(own), fields(of_upstream)), "{has_cors} {origin}");
        }
    }

    #[test]
    fn an_allowed_preflight_is_answered_without_a_body_and_never_stored() {
        let answer = allowed(fields(&[("vary", "Origin")]), &HeaderValue::from_static("id"));
        assert_eq!((answer.status(), answer.body()), (StatusCode::NO_CONTENT, &None));
        let expected = fields(&[("vary", "Origin"), ("cache-control", "no-store"), ("x-request-id", "id")]);
        assert_eq!(answer.headers(), &expected);
    }
}
