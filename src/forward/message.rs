//! A request ready to be sent, without its body, for either protocol.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme as UriScheme};
use http::{Method, Request, Uri, Version};

use super::body::RequestBody;
use super::call::UpstreamCall;
use super::headers::hop::Listed;
use super::headers::{self, FreshTrace};
use super::http1::encode;
use super::pool::EndpointPool;
use super::upstream::{Scheme, UpstreamSettings};
use super::{ForwardError, Hop, Interim, Outgoing, OutgoingTrace};

/// What a permit tells about how to forward.
pub(crate) struct ForwardOrder<'a> {
    /// The index of the upstream.
    pub(crate) upstream: usize,
    /// The route's own limit, if it has one.
    pub(crate) response_timeout: Option<Duration>,
    /// The route's limit on the client's silence inside the body.
    pub(crate) request_body_timeout: Option<Duration>,
    /// The methods of the route; empty: any.
    pub(crate) methods: &'a [Method],
    /// Path and query, byte for byte as judged.
    pub(crate) target: &'a Bytes,
    /// Whether a token was presented and found in force.
    pub(crate) has_token: bool,
    /// What the upstream learns about the token.
    pub(crate) identity: &'a [(HeaderName, HeaderValue)],
}

/// A request ready to be sent, without its body.
pub(crate) struct PreparedRequest<'a> {
    pub(crate) order: &'a ForwardOrder<'a>,
    settings: &'a UpstreamSettings,
    /// The time limit for the upstream's response.
    pub(crate) limit: Duration,
    pub(crate) method: &'a Method,
    pub(crate) headers: &'a HeaderMap,
    listed: Listed,
    pub(crate) hop: Hop,
    pub(crate) interim: Option<Interim>,
    /// Whether the client asks for a switch of protocol that may be granted.
    pub(crate) may_switch: bool,
    /// Whether the body waits for `100 Continue`.
    pub(crate) expect: bool,
    trace: Option<OutgoingTrace>,
}

impl<'a> PreparedRequest<'a> {
    pub(crate) fn new(
        order: &'a ForwardOrder<'a>,
        settings: &'a UpstreamSettings,
        outgoing: Outgoing<'a>,
    ) -> Result<(Self, RequestBody), ForwardError> {
        let Outgoing { method, headers, mut body, hop, can_switch, interim, slot: _, trace } = outgoing;
        // HTTP/2 has no upgrade: the request is forwarded without asking for one.
        let possible = can_switch && settings.scheme != Scheme::H2c;
        let may_switch = possible && headers::hop::wanted_upgrade(method, hop.version, headers).is_some();
        let expect = hop.version > Version::HTTP_10
            && !body.is_empty()
            && headers
                .get(header::EXPECT)
                .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let listed = Listed::in_connection(headers).map_err(|_too_many| ForwardError::Connection)?;
        // A gRPC stream may be silent for any length of time.
        if !body.is_empty() && !is_grpc(headers) {
            body.limit_silence(order.request_body_timeout);
        }
        let limit = order.response_timeout.unwrap_or(settings.response_timeout);
        let prepared =
            Self { order, settings, limit, method, headers, listed, hop, interim, may_switch, expect, trace };
        Ok((prepared, body))
    }

    /// The call data for the trace, if the request is recorded.
    pub(crate) fn call(&self) -> Option<&UpstreamCall> {
        self.trace.as_ref().and_then(|trace| trace.call.as_deref())
    }

    /// Records where the request goes.
    pub(crate) fn goes_to(&self, pool: &EndpointPool) {
        if let (Some(call), Some(endpoint)) = (self.call(), pool.endpoint()) {
            call.goes_to(endpoint.address(), self.settings.scheme);
        }
    }

    /// The protocols that the client asks to switch to, if it may.
    pub(crate) fn wanted_upgrade(&self) -> Option<&HeaderValue> {
        self.headers.get(header::UPGRADE).filter(|_| self.may_switch)
    }

    /// The `Host` for the upstream.
    pub(crate) fn host(&self) -> &HeaderValue {
        self.settings.host.as_ref().unwrap_or(&self.hop.host)
    }

    /// The inputs that determine the fields to send.
    pub(crate) fn fields<'m>(
        &'m self,
        trace: FreshTrace,
        upgrade: Option<&'m HeaderValue>,
    ) -> headers::RequestFields<'m> {
        headers::RequestFields {
            method: self.method,
            headers: self.headers,
            listed: &self.listed,
            hop: &self.hop,
            host: self.host(),
            identity: self.order.identity,
            upgrade,
            expect: self.expect,
            trace,
            decided: self.trace.as_ref().map(|trace| trace.context),
        }
    }

    /// The request in the form of HTTP/2.
    pub(crate) fn http2_request(
        &self,
        rules: &headers::FieldRules,
        trace: FreshTrace,
        body: &RequestBody,
    ) -> Result<Request<()>, ForwardError> {
        let mut fields = HeaderMap::with_capacity(self.headers.len() + 16);
        headers::request(rules, &self.fields(trace, None), &mut fields);
        let announced = !body.is_empty() || encode::announces_empty(self.method, self.headers);
        if let Some(length) = body.size().filter(|_| announced) {
            fields.insert(header::CONTENT_LENGTH, length.into());
        }
        let mut uri = http::uri::Parts::default();
        let tls = self.settings.scheme == Scheme::Https;
        uri.scheme = Some(if tls { UriScheme::HTTPS } else { UriScheme::HTTP });
        uri.authority =
            Some(Authority::try_from(self.host().as_bytes()).map_err(|_invalid| ForwardError::Host)?);
        uri.path_and_query = Some(
            PathAndQuery::from_maybe_shared(self.order.target.clone())
                .map_err(|_invalid| ForwardError::Target)?,
        );
        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from_parts(uri).map_err(|_invalid| ForwardError::Host)?;
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = fields;
        Ok(request)
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let grpc = |value: &HeaderValue| {
        value.as_bytes().get(..16).is_some_and(|start| start.eq_ignore_ascii_case(b"application/grpc"))
    };
    headers.get(header::CONTENT_TYPE).is_some_and(grpc)
}
