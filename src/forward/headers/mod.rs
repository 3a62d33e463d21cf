//! Decides which header fields are forwarded, and which ones the gate sets itself.
//!
//! Pure: fields in, fields out. It passes once over the client's fields and then writes its own, so nothing
//! that a client sends (not even a `Connection` field) can remove or duplicate a field that the gate sets.

mod chain;
mod forwarding;
pub(crate) mod hop;
#[cfg(test)]
mod tests;
mod websocket;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Version};

use self::chain::Family;
pub use self::chain::{TrustedFields, client_address};
use self::forwarding::Incoming;
pub(crate) use self::forwarding::{FreshTrace, X_REQUEST_ID, came_back, forwards_left};
use self::hop::{Listed, has_token, is_hop_by_hop};
use super::Hop;
use crate::enforce::bearer::BearerSettings;
use crate::enforce::policy::IdentitySettings;
use crate::traces::SentContext;

/// What happens to a field that the client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Forwarded unchanged.
    Pass,
    /// Concerns only this hop, or is set by the gate: never forwarded.
    Drop,
    /// Trusted, and then forwarded, only from a trusted proxy that sets `X-Forwarded-*`.
    Trusted,
    /// `Authorization` and what belongs to it: forwarded unless the configuration strips it.
    Authorization,
    /// Forwarded without a token in it.
    SubProtocols,
    /// Joined into one field towards HTTP/1.1 (RFC 9113 §8.2.3).
    Cookie,
    /// `100-continue` is answered by the exchange; any other expectation passes.
    Expect,
    /// Concerns this hop, but `trailers` is requested again (RFC 9110 §10.1.4).
    Te,
    /// Decremented for the methods it applies to (RFC 9110 §7.6.2).
    MaxForwards,
    /// The caller's trace context.
    Traceparent,
    /// Meaningful only with a valid `traceparent`.
    Tracestate,
}

/// Names with a fate of their own. A different spelling that folds to one of them (case, `_` for `-`) is
/// dropped, because many upstreams would take it for the real one.
const KNOWN: &[(&str, Fate)] = &[
    ("connection", Fate::Drop),
    ("keep-alive", Fate::Drop),
    ("proxy-connection", Fate::Drop),
    ("proxy-authenticate", Fate::Drop),
    ("proxy-authorization", Fate::Drop),
    ("transfer-encoding", Fate::Drop),
    ("upgrade", Fate::Drop),
    ("http2-settings", Fate::Drop),
    ("te", Fate::Te),
    ("host", Fate::Drop),
    ("content-length", Fate::Drop),
    ("expect", Fate::Expect),
    ("cookie", Fate::Cookie),
    ("authorization", Fate::Authorization),
    // A proof belongs to its token.
    ("dpop", Fate::Authorization),
    ("max-forwards", Fate::MaxForwards),
    // Routes are chosen by these, so another spelling must not give the upstream a different value.
    ("mcp-method", Fate::Pass),
    ("mcp-name", Fate::Pass),
    ("mcp-protocol-version", Fate::Pass),
    // Routes judge the method and path that are sent, so no sender may override either for the upstream: a
    // proxy that is trusted for addresses forwards other fields from its clients.
    ("x-http-method", Fate::Drop),
    ("x-http-method-override", Fate::Drop),
    ("x-method-override", Fate::Drop),
    ("x-override-method", Fate::Drop),
    ("x-original-method", Fate::Drop),
    ("x-forwarded-method", Fate::Drop),
    ("x-envoy-original-method", Fate::Drop),
    ("x-original-url", Fate::Drop),
    ("x-original-uri", Fate::Drop),
    ("x-original-path", Fate::Drop),
    ("x-rewrite-url", Fate::Drop),
    ("x-rewrite-uri", Fate::Drop),
    ("x-rewrite-path", Fate::Drop),
    ("x-override-url", Fate::Drop),
    ("x-override-uri", Fate::Drop),
    ("x-override-path", Fate::Drop),
    ("x-http-path-override", Fate::Drop),
    ("x-http-destinationurl", Fate::Drop),
    ("x-replaced-path", Fate::Drop),
    ("x-proxy-url", Fate::Drop),
    ("x-request-uri", Fate::Drop),
    ("x-waws-unencoded-url", Fate::Drop),
    ("x-envoy-original-path", Fate::Drop),
    ("x-forwarded-url", Fate::Drop),
    ("x-forwarded-uri", Fate::Drop),
    ("x-forwarded-path", Fate::Drop),
    ("x-forwarded-query", Fate::Drop),
    // The same holds for the host, which routes also judge; these are accepted only from a trusted proxy.
    ("x-host", Fate::Trusted),
    ("x-original-host", Fate::Trusted),
    ("x-http-host-override", Fate::Trusted),
    ("x-real-ip", Fate::Trusted),
    ("x-forwarded-for", Fate::Drop),
    ("x-forwarded-proto", Fate::Drop),
    ("x-forwarded-host", Fate::Drop),
    ("forwarded", Fate::Drop),
    ("via", Fate::Drop),
    ("x-request-id", Fate::Drop),
    ("traceparent", Fate::Traceparent),
    ("tracestate", Fate::Tracestate),
];

/// Prefix of `X-Forwarded-Port`, `-Server`, `-Prefix` and all others of the family.
const FORWARDED_FAMILY: &[u8] = b"x-forwarded";

/// The fates of fields, computed once per configuration.
#[derive(Debug)]
pub(crate) struct FieldRules {
    /// Folded names by length: most names of a request need no comparison, or just one.
    by_length: Vec<Vec<(Box<[u8]>, Fate)>>,
    strip_authorization: bool,
    /// The sub-protocol that marks a token.
    websocket_protocol: Option<HeaderValue>,
}

impl FieldRules {
    /// The rules of a configuration: the fixed ones and the identity headers.
    pub(crate) fn new(identity: &IdentitySettings, bearer: &BearerSettings) -> Self {
        let mut rules = Self {
            by_length: Vec::new(),
            strip_authorization: identity.strip_authorization,
            websocket_protocol: bearer.websocket_protocol.clone(),
        };
        // The first entry wins, so an identity header with a known name is still never accepted from the
        // client.
        for (name, _) in &identity.headers {
            rules.insert(name.as_str(), Fate::Drop);
        }
        for (name, fate) in KNOWN {
            rules.insert(name, *fate);
        }
        if rules.websocket_protocol.is_some() {
            rules.insert(header::SEC_WEBSOCKET_PROTOCOL.as_str(), Fate::SubProtocols);
        }
        rules
    }

    fn insert(&mut self, name: &str, fate: Fate) {
        let folded: Box<[u8]> = name.bytes().map(fold).collect();
        if self.by_length.len() <= folded.len() {
            self.by_length.resize_with(folded.len() + 1, Vec::new);
        }
        if let Some(entries) = self.by_length.get_mut(folded.len()) {
            entries.push((folded, fate));
        }
    }

    fn fate(&self, name: &HeaderName) -> Fate {
        let name = name.as_str().as_bytes();
        let known = self.by_length.get(name.len()).and_then(|entries| {
            entries.iter().find(|(known, _)| folds_to(name, known)).map(|(known, fate)| (known, *fate))
        });
        match known {
            Some((exact, fate)) if **exact == *name => fate,
            Some(_) => Fate::Drop,
            None if is_forwarded_family(name) => {
                if name.contains(&b'_') {
                    Fate::Drop
                } else {
                    Fate::Trusted
                }
            }
            None => Fate::Pass,
        }
    }
}

fn fold(byte: u8) -> u8 {
    if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }
}

/// `name` is already in lower case, as every `HeaderName` is.
fn folds_to(name: &[u8], folded: &[u8]) -> bool {
    name.len() == folded.len()
        && name.iter().zip(folded).all(|(have, want)| have == want || (*have == b'_' && *want == b'-'))
}

fn is_forwarded_family(name: &[u8]) -> bool {
    name.first() == Some(&b'x')
        && name.get(..FORWARDED_FAMILY.len()).is_some_and(|start| folds_to(start, FORWARDED_FAMILY))
}

/// Receives the fields of a forwarded request.
pub(crate) trait FieldSink {
    /// The HTTP version that the fields are for.
    const VERSION: Version;
    /// Writes a field unchanged.
    fn copy(&mut self, name: &HeaderName, value: &HeaderValue);
    /// Writes a field whose value `write` composes.
    fn compose(&mut self, name: &HeaderName, write: impl FnOnce(&mut Vec<u8>));
}

/// Formats fields for HTTP/1.1 and appends them to a request head.
pub(crate) struct Http1Fields<'a>(pub(crate) &'a mut Vec<u8>);

impl FieldSink for Http1Fields<'_> {
    const VERSION: Version = Version::HTTP_11;

    fn copy(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.compose(name, |out| out.extend_from_slice(value.as_bytes()));
    }

    fn compose(&mut self, name: &HeaderName, write: impl FnOnce(&mut Vec<u8>)) {
        self.0.extend_from_slice(name.as_str().as_bytes());
        self.0.extend_from_slice(b": ");
        write(self.0);
        self.0.extend_from_slice(b"\r\n");
    }
}

impl FieldSink for HeaderMap {
    const VERSION: Version = Version::HTTP_2;

    fn copy(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.append(name.clone(), value.clone());
    }

    fn compose(&mut self, name: &HeaderName, write: impl FnOnce(&mut Vec<u8>)) {
        let mut value = Vec::with_capacity(64);
        write(&mut value);
        // Composed of parts of valid values, addresses and constants, so it is valid.
        if let Ok(value) = HeaderValue::try_from(value) {
            self.append(name.clone(), value);
        }
    }
}

/// The inputs that determine the fields of a forwarded request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestFields<'a> {
    /// Its method.
    pub(crate) method: &'a Method,
    /// The fields that the client sent.
    pub(crate) headers: &'a HeaderMap,
    /// The fields that its `Connection` lists.
    pub(crate) listed: &'a Listed,
    /// How the request was received.
    pub(crate) hop: &'a Hop,
    /// The `Host` to send.
    pub(crate) host: &'a HeaderValue,
    /// What the upstream learns about the token.
    pub(crate) identity: &'a [(HeaderName, HeaderValue)],
    /// The protocols that the client asks to switch to, if it may.
    pub(crate) upgrade: Option<&'a HeaderValue>,
    /// Whether the body waits for the upstream's `100 Continue`.
    pub(crate) expect: bool,
    /// Random numbers for the trace context.
    pub(crate) trace: FreshTrace,
    /// The trace context to send instead, if the gate traces.
    pub(crate) decided: Option<SentContext>,
}

/// Writes the fields of a forwarded request, except `Host` and the framing of the body.
pub(crate) fn request<F: FieldSink>(rules: &FieldRules, request: &RequestFields<'_>, out: &mut F) {
    let kept = pass_through(rules, request, out);
    cookies(request.headers, kept.cookies, out);
    if kept.sub_protocols {
        websocket::without_token(rules, request.headers, out);
    }
    if let Some(left) = forwards_left(request.method, request.headers) {
        let left = itoa::Buffer::new().format(left.saturating_sub(1)).to_owned();
        out.compose(&header::MAX_FORWARDS, |value| value.extend_from_slice(left.as_bytes()));
    }
    forwarding::origin(request, out);
    forwarding::trace(request, kept.trace, out);
    for (name, value) in request.identity {
        out.copy(name, value);
    }
    if request.expect {
        out.compose(&header::EXPECT, |value| value.extend_from_slice(b"100-continue"));
    }
    hop::options(request.upgrade, kept.trailers_wanted, out);
}

/// What remains to be written after the pass over the client's fields.
#[derive(Default)]
struct KeptFields<'a> {
    cookies: usize,
    sub_protocols: bool,
    trailers_wanted: bool,
    trace: Incoming<'a>,
}

fn pass_through<'a, F: FieldSink>(
    rules: &FieldRules,
    request: &RequestFields<'a>,
    out: &mut F,
) -> KeptFields<'a> {
    let family = request.hop.trusted.map(|fields| fields.family(request.headers));
    let mut kept = KeptFields::default();
    for (name, value) in request.headers {
        let fate = rules.fate(name);
        match fate {
            Fate::Drop => {}
            Fate::Te => kept.trailers_wanted |= has_token(value.as_bytes(), b"trailers"),
            Fate::Cookie => kept.cookies += 1,
            Fate::SubProtocols => kept.sub_protocols = true,
            Fate::Traceparent => kept.trace.parent(value),
            Fate::Tracestate => kept.trace.has_state = true,
            Fate::Authorization if rules.strip_authorization => {}
            Fate::Authorization => out.copy(name, value),
            Fate::Trusted if family == Some(Family::XForwarded) => out.copy(name, value),
            Fate::Trusted => {}
            Fate::MaxForwards if matches!(*request.method, Method::OPTIONS | Method::TRACE) => {}
            Fate::MaxForwards => out.copy(name, value),
            Fate::Expect if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => {}
            Fate::Pass | Fate::Expect if request.listed.contains(name) => {}
            Fate::Pass | Fate::Expect => out.copy(name, value),
        }
    }
    kept
}

fn cookies<F: FieldSink>(headers: &HeaderMap, count: usize, out: &mut F) {
    if count == 0 {
        return;
    }
    if F::VERSION == Version::HTTP_2 || count == 1 {
        return headers.get_all(header::COOKIE).iter().for_each(|value| out.copy(&header::COOKIE, value));
    }
    out.compose(&header::COOKIE, |joined| join(joined, headers, &header::COOKIE, b"; "));
}

/// Writes the trailers of a request. A field that could not be a header is dropped, so that it cannot become
/// one in an upstream that merges trailers (RFC 9110 §6.5.1).
pub(crate) fn request_trailers<F: FieldSink>(rules: &FieldRules, trailers: &HeaderMap, out: &mut F) {
    for (name, value) in trailers {
        if rules.fate(name) == Fate::Pass && !is_hop_by_hop(name) {
            out.copy(name, value);
        }
    }
}

fn join(out: &mut Vec<u8>, headers: &HeaderMap, name: &HeaderName, separator: &[u8]) {
    for (place, value) in headers.get_all(name).iter().enumerate() {
        if place > 0 {
            out.extend_from_slice(separator);
        }
        out.extend_from_slice(value.as_bytes());
    }
}
