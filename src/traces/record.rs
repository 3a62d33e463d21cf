//! A finished traced request, and its spans according to the semantic conventions of OpenTelemetry for HTTP.
//!
//! Contains no token, secret, subject or query, and nothing that the client sent except what the log line also shows.

use std::net::IpAddr;
use std::time::Duration;

use http::Version;
use http::uri::Authority;

use super::context::RequestTrace;
use super::otlp::{self, OtlpAttribute, OtlpKind, OtlpSpan, OtlpStatus, OtlpStatusCode};
use crate::log::{AccessRecord, Decision};
use crate::time;

/// The longest string in a span, in bytes.
const MAX_TEXT: usize = 256;
/// The longest path, in bytes.
const MAX_PATH: usize = 2048;
/// The methods in the conventions.
const METHODS: [&str; 10] =
    ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "QUERY", "TRACE", "CONNECT"];
/// The method in the span of a request with any other one.
const OTHER_METHOD: &str = "_OTHER";
/// Span flags: the parent is known to be in another process.
const REMOTE_PARENT: u32 = 0x300;
/// Span flags: the parent is known to be in this process, or the span has no parent.
const LOCAL_PARENT: u32 = 0x100;
/// The flag of a recorded span.
const SAMPLED: u32 = 1;

/// A finished traced request.
#[derive(Debug)]
pub struct FinishedRequest {
    trace: RequestTrace,
    /// In nanoseconds since the epoch.
    ended_at: u64,
    lasted: Duration,
    method: Box<str>,
    route: Option<Box<str>>,
    path: Option<Box<str>>,
    /// The response status; `None` if there was no response.
    status: Option<u16>,
    decision: Decision,
    reason: Option<&'static str>,
    request_id: Box<str>,
    client_address: IpAddr,
    host: Option<Box<str>>,
    user_agent: Option<Box<str>>,
    is_tls: bool,
    protocol: Version,
    failure: Option<Box<str>>,
    ended_by: Option<&'static str>,
    call: Option<FinishedCall>,
}

/// The call to the upstream.
#[derive(Debug)]
pub struct FinishedCall {
    /// The name of the upstream.
    pub upstream: Box<str>,
    /// The host, or the path of the socket.
    pub address: Box<str>,
    /// The TCP port.
    pub port: Option<u16>,
    /// Whether it uses TLS.
    pub is_tls: bool,
    /// The status of the upstream's response.
    pub status: Option<u16>,
    /// How often it was retried.
    pub resends: u32,
    /// How long before the end of the request it began.
    pub began: Duration,
    /// How long it lasted.
    pub lasted: Duration,
}

impl FinishedRequest {
    /// Creates a record of a request that ends now. `status` is that of the response, if there was one.
    #[must_use]
    pub fn new(
        (trace, with_path): (RequestTrace, bool),
        record: &AccessRecord<'_>,
        status: Option<u16>,
        call: Option<FinishedCall>,
    ) -> Self {
        let text = |text: &str| Box::from(clip(text, MAX_TEXT));
        let path = record.path.filter(|_| with_path).and_then(|path| path.split(['?', '#']).next());
        Self {
            trace,
            ended_at: time::unix_nanos(),
            lasted: record.lasted,
            method: METHODS.into_iter().find(|known| *known == record.method).unwrap_or(OTHER_METHOD).into(),
            route: record.route.map(text),
            path: path.map(|path| clip(path, MAX_PATH).into()),
            status,
            decision: record.decision,
            reason: record.reason,
            request_id: text(record.request_id),
            client_address: record.client_address,
            host: record.host.map(text),
            user_agent: record.user_agent.map(text),
            is_tls: record.tls.is_some(),
            protocol: record.protocol,
            failure: record.failure.map(text),
            ended_by: record.ended_by,
            call,
        }
    }

    /// The number of its spans.
    pub(super) fn spans_count(&self) -> u64 {
        1 + u64::from(self.call.is_some())
    }

    /// The span of the request, and that of the call to the upstream.
    pub(super) fn spans(&self) -> impl Iterator<Item = OtlpSpan> {
        [Some(self.server()), self.call.as_ref().map(|call| self.client(call))].into_iter().flatten()
    }

    fn server(&self) -> OtlpSpan {
        let error = match (&self.failure, self.status) {
            (Some(failure), _) => Some(failure.to_string()),
            (None, Some(status)) if status >= 500 => {
                Some(self.reason.map_or_else(|| status.to_string(), str::to_owned))
            }
            (None, _) => None,
        };
        let server = self.host.as_ref().and_then(|host| host.parse::<Authority>().ok());
        let mut attributes = vec![
            otlp::text("http.request.method", &*self.method),
            otlp::text("url.scheme", scheme(self.is_tls)),
            otlp::text("network.protocol.version", protocol_version(self.protocol)),
            otlp::text("client.address", self.client_address.to_string()),
            otlp::text("portcullis.decision", self.decision.as_str()),
            otlp::text("portcullis.request_id", &*self.request_id),
        ];
        attributes.extend(server.as_ref().map(|server| otlp::text("server.address", bare(server.host()))));
        let port = server.as_ref().and_then(Authority::port_u16);
        attributes.extend(port.map(|port| otlp::integer("server.port", port)));
        attributes.extend(self.status.map(|status| otlp::integer("http.response.status_code", status)));
        for (key, value) in [
            ("http.route", self.route.as_deref()),
            ("url.path", self.path.as_deref()),
            ("user_agent.original", self.user_agent.as_deref()),
            ("portcullis.reason", self.reason),
            ("portcullis.ended_by", self.ended_by),
            ("error.type", error.as_deref()),
        ] {
            attributes.extend(value.map(|value| otlp::text(key, value)));
        }
        let name = match (&*self.method, &self.route) {
            (OTHER_METHOD, None) => "HTTP".to_owned(),
            (OTHER_METHOD, Some(route)) => format!("HTTP {route}"),
            (method, None) => method.to_owned(),
            (method, Some(route)) => format!("{method} {route}"),
        };
        let (span, parent) = (self.trace.server, self.trace.parent);
        let flags = if parent.is_some() { REMOTE_PARENT } else { LOCAL_PARENT };
        let times = (self.lasted, self.lasted);
        OtlpSpan {
            name,
            flags: flags | SAMPLED,
            ..self.span((span, parent), OtlpKind::Server, times, (attributes, error.is_some()))
        }
    }

    fn client(&self, call: &FinishedCall) -> OtlpSpan {
        let error = match (&self.failure, call.status) {
            (Some(failure), _) => Some(failure.to_string()),
            (None, Some(status)) if status >= 400 => Some(status.to_string()),
            (None, _) => None,
        };
        let mut attributes = vec![
            otlp::text("http.request.method", &*self.method),
            otlp::text("url.scheme", scheme(call.is_tls)),
            otlp::text("server.address", &*call.address),
            otlp::text("portcullis.upstream", &*call.upstream),
        ];
        attributes.extend(call.port.map(|port| otlp::integer("server.port", port)));
        attributes.extend(call.status.map(|status| otlp::integer("http.response.status_code", status)));
        if call.resends > 0 {
            attributes.push(otlp::integer("http.request.resend_count", call.resends));
        }
        attributes.extend(error.as_deref().map(|error| otlp::text("error.type", error)));
        let name = if *self.method == *OTHER_METHOD { "HTTP" } else { &self.method };
        let ids = (self.trace.client, Some(self.trace.server));
        let span = self.span(ids, OtlpKind::Client, (call.began, call.lasted), (attributes, error.is_some()));
        OtlpSpan { name: name.to_owned(), flags: LOCAL_PARENT | SAMPLED, ..span }
    }

    /// A span, from its start before the end of the request and its duration.
    fn span(
        &self,
        (span, parent): (u64, Option<u64>),
        kind: OtlpKind,
        (began, lasted): (Duration, Duration),
        (attributes, is_error): (Vec<OtlpAttribute>, bool),
    ) -> OtlpSpan {
        let start = self.ended_at.saturating_sub(nanos(began));
        let status = OtlpStatus { code: OtlpStatusCode::Error.into() };
        OtlpSpan {
            trace_id: self.trace.trace_id.to_be_bytes().to_vec(),
            span_id: span.to_be_bytes().to_vec(),
            parent_span_id: parent.map(|parent| parent.to_be_bytes().to_vec()).unwrap_or_default(),
            name: String::new(),
            kind: kind.into(),
            start_time_unix_nano: start,
            end_time_unix_nano: start.saturating_add(nanos(lasted)),
            attributes,
            status: is_error.then_some(status),
            flags: 0,
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The start of `text`, cut at a character boundary.
fn clip(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or(text)
}

/// A host without the brackets of IPv6.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

const fn scheme(is_tls: bool) -> &'static str {
    if is_tls { "https" } else { "http" }
}

const fn protocol_version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}
