//! Headers that tell the upstream where a request comes from: forwarding headers, `Via`, and trace context.

use std::io::Write as _;
use std::net::IpAddr;
use std::sync::LazyLock;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Version};
use memchr::memchr2;

use super::chain::{self, Element, Family, ForwardedNode, X_FORWARDED_FOR, first_member};
use super::{FieldSink, RequestFields, join};
use crate::hex;
use crate::traces::SentContext;
use crate::traces::context::{TRACEPARENT, TraceParent};

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The field with the request's id, the same in the logs of every hop.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The name of this process in `Via`. It is unique, so that two gates in a row are not taken for a loop.
pub(crate) static PSEUDONYM: LazyLock<String> = LazyLock::new(|| {
    let mut number = [0; 8];
    // Without random bytes, the process id still distinguishes the processes of one machine.
    if aws_lc_rs::rand::fill(&mut number).is_err() {
        number = u64::from(std::process::id()).to_be_bytes();
    }
    format!("portcullis-{:016x}", u64::from_be_bytes(number))
});

/// Whether the request has passed this gate before; forwarding it again would loop indefinitely (RFC 9110
/// §7.6).
pub(crate) fn came_back(headers: &HeaderMap) -> bool {
    let entries =
        headers.get_all(header::VIA).iter().flat_map(|value| value.as_bytes().split(|b| *b == b','));
    let mut words = entries.flat_map(|entry| entry.split(u8::is_ascii_whitespace));
    words.any(|word| word == PSEUDONYM.as_bytes())
}

/// Random numbers for a `traceparent`; used where the client sent none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FreshTrace {
    /// The trace id, if the trace starts here.
    pub(crate) trace_id: u128,
    /// The id of this hop.
    pub(crate) parent_id: u64,
}

/// Writes who asked, for which host and over what: RFC 7239, its predecessors, and `Via` (RFC 9110 §7.6.3).
/// Both families state the same, whichever of the peer's is trusted.
pub(super) fn origin<F: FieldSink>(request: &RequestFields<'_>, out: &mut F) {
    let hop = request.hop;
    let scheme: &[u8] = if hop.tls { b"https" } else { b"http" };
    let own = Own { client: hop.client.to_canonical(), host: &hop.host, scheme };
    match hop.trusted.map(|fields| fields.family(request.headers)) {
        None => own.alone(out),
        Some(Family::XForwarded) => own.after_x_forwarded(request.headers, out),
        Some(Family::Forwarded) => match chain::forwarded(request.headers) {
            Some(elements) => own.after_forwarded(request.headers, &elements, out),
            // Unreadable fields are not forwarded, so that no upstream has to guess at them.
            None => own.alone(out),
        },
    }
    out.compose(&header::VIA, |value| {
        if hop.trusted.is_some() && request.headers.contains_key(header::VIA) {
            join(value, request.headers, &header::VIA, b", ");
            value.extend_from_slice(b", ");
        }
        value.extend_from_slice(received_version(hop.version));
        value.push(b' ');
        value.extend_from_slice(PSEUDONYM.as_bytes());
    });
    out.copy(&X_REQUEST_ID, &hop.request_id);
}

/// What this gate itself knows of the request.
struct Own<'a> {
    client: IpAddr,
    host: &'a HeaderValue,
    scheme: &'a [u8],
}

impl Own<'_> {
    /// Writes only this gate's knowledge, because the peer is not trusted.
    fn alone<F: FieldSink>(&self, out: &mut F) {
        out.compose(&X_FORWARDED_FOR, |value| write_address(value, self.client));
        out.compose(&X_FORWARDED_PROTO, |value| value.extend_from_slice(self.scheme));
        out.copy(&X_FORWARDED_HOST, self.host);
        out.compose(&header::FORWARDED, |value| self.write(value, self.host.as_bytes(), self.scheme));
    }

    /// Appends to the peer's `X-Forwarded-For`. The first proxy saw what the client asked for; later ones saw
    /// only what the proxy before them asked for. So its values for host and scheme are kept, and used in the
    /// first element.
    fn after_x_forwarded<F: FieldSink>(&self, headers: &HeaderMap, out: &mut F) {
        let (proto, host) = (headers.get(&X_FORWARDED_PROTO), headers.get(&X_FORWARDED_HOST));
        out.compose(&X_FORWARDED_FOR, |value| {
            if headers.contains_key(&X_FORWARDED_FOR) {
                join(value, headers, &X_FORWARDED_FOR, b", ");
                value.extend_from_slice(b", ");
            }
            write_address(value, self.client);
        });
        let (proto, host) = (proto.map_or(self.scheme, HeaderValue::as_bytes), host.unwrap_or(self.host));
        out.compose(&X_FORWARDED_PROTO, |value| value.extend_from_slice(proto));
        out.copy(&X_FORWARDED_HOST, host);
        out.compose(&header::FORWARDED, |value| {
            let (proto, host) = (first_member(proto), first_member(host.as_bytes()));
            let mut first = true;
            for node in chain::x_forwarded_for(headers) {
                write_for(value, node);
                if std::mem::take(&mut first) {
                    write_host_and_proto(value, host, proto);
                }
                value.extend_from_slice(b", ");
            }
            let (host, proto) = if first { (host, proto) } else { (self.host.as_bytes(), self.scheme) };
            self.write(value, host, proto);
        });
    }

    /// Appends to the peer's `Forwarded`.
    fn after_forwarded<F: FieldSink>(&self, headers: &HeaderMap, elements: &[Element<'_>], out: &mut F) {
        out.compose(&X_FORWARDED_FOR, |value| {
            for element in elements {
                match element.node {
                    ForwardedNode::Address(address) => write_address(value, address),
                    ForwardedNode::Unknown => value.extend_from_slice(b"unknown"),
                }
                value.extend_from_slice(b", ");
            }
            write_address(value, self.client);
        });
        let first = elements.first();
        let proto = first.and_then(|element| element.proto.as_deref()).unwrap_or(self.scheme);
        let host = first.and_then(|element| element.host.as_deref()).unwrap_or(self.host.as_bytes());
        out.compose(&X_FORWARDED_PROTO, |value| value.extend_from_slice(proto));
        out.compose(&X_FORWARDED_HOST, |value| value.extend_from_slice(host));
        out.compose(&header::FORWARDED, |value| {
            if !elements.is_empty() {
                join(value, headers, &header::FORWARDED, b", ");
                value.extend_from_slice(b", ");
            }
            self.write(value, self.host.as_bytes(), self.scheme);
        });
    }

    /// Writes this gate's own element of `Forwarded`.
    fn write(&self, out: &mut Vec<u8>, host: &[u8], scheme: &[u8]) {
        write_for(out, ForwardedNode::Address(self.client));
        write_host_and_proto(out, host, scheme);
    }
}

/// How often the request may still be forwarded, if a limit is set and applies (RFC 9110 §7.6.2).
pub(crate) fn forwards_left(method: &Method, headers: &HeaderMap) -> Option<u64> {
    if !matches!(*method, Method::OPTIONS | Method::TRACE) {
        return None;
    }
    let number = |value: &HeaderValue| {
        let digits = value.to_str().ok().filter(|text| !text.is_empty())?;
        let number = digits.bytes().all(|byte| byte.is_ascii_digit());
        number.then(|| digits.parse().unwrap_or(u64::MAX))
    };
    headers.get_all(header::MAX_FORWARDS).iter().filter_map(number).min()
}

fn received_version(version: Version) -> &'static [u8] {
    match version {
        Version::HTTP_10 => b"1.0",
        Version::HTTP_2 => b"2",
        _ => b"1.1",
    }
}

fn write_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            for (place, octet) in address.octets().into_iter().enumerate() {
                if place > 0 {
                    out.push(b'.');
                }
                write_octet(out, octet);
            }
        }
        // Writing to a vector cannot fail.
        IpAddr::V6(address) => drop(write!(out, "{address}")),
    }
}

fn write_octet(out: &mut Vec<u8>, octet: u8) {
    if octet >= 100 {
        out.push(b'0' + octet / 100);
    }
    if octet >= 10 {
        out.push(b'0' + octet / 10 % 10);
    }
    out.push(b'0' + octet % 10);
}

fn write_for(out: &mut Vec<u8>, node: ForwardedNode) {
    out.extend_from_slice(b"for=");
    match node {
        ForwardedNode::Unknown => out.extend_from_slice(b"unknown"),
        ForwardedNode::Address(address) if address.is_ipv6() => {
            out.extend_from_slice(b"\"[");
            write_address(out, address);
            out.extend_from_slice(b"]\"");
        }
        ForwardedNode::Address(address) => write_address(out, address),
    }
}

fn write_host_and_proto(out: &mut Vec<u8>, host: &[u8], proto: &[u8]) {
    out.extend_from_slice(b";host=");
    write_quoted(out, host);
    out.extend_from_slice(b";proto=");
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    if proto.iter().all(token) && !proto.is_empty() {
        out.extend_from_slice(proto);
    } else {
        write_quoted(out, proto);
    }
}

fn write_quoted(out: &mut Vec<u8>, mut text: &[u8]) {
    out.push(b'"');
    while let Some((plain, rest)) = memchr2(b'"', b'\\', text).and_then(|at| text.split_at_checked(at)) {
        out.extend_from_slice(plain);
        out.push(b'\\');
        let (escaped, rest) = rest.split_at(1);
        out.extend_from_slice(escaped);
        text = rest;
    }
    out.extend_from_slice(text);
    out.push(b'"');
}

/// The trace context that the client sent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Incoming<'a> {
    parent: Option<&'a HeaderValue>,
    repeated: bool,
    /// Whether there is a `tracestate`, which is meaningful only with a valid `traceparent`.
    pub(super) has_state: bool,
}

impl<'a> Incoming<'a> {
    /// Records a `traceparent`; two count as none.
    pub(super) fn parent(&mut self, value: &'a HeaderValue) {
        self.repeated |= self.parent.replace(value).is_some();
    }

    fn parse(self) -> Option<TraceParent<'a>> {
        self.parent.filter(|_| !self.repeated).and_then(|value| TraceParent::parse(value.as_bytes()))
    }
}

/// Writes the W3C Trace Context: continues the trace with this gate as the next parent, or starts one here.
pub(super) fn trace<F: FieldSink>(request: &RequestFields<'_>, incoming: Incoming<'_>, out: &mut F) {
    let goes_on = match request.decided {
        Some(decided) => {
            out.compose(&TRACEPARENT, |value| write_decided(value, decided));
            decided.goes_on
        }
        None => {
            let parent = incoming.parse();
            out.compose(&TRACEPARENT, |value| write_fresh(value, parent, request.trace));
            parent.is_some()
        }
    };
    if goes_on && incoming.has_state {
        request.headers.get_all(&TRACESTATE).iter().for_each(|value| out.copy(&TRACESTATE, value));
    }
}

fn write_fresh(out: &mut Vec<u8>, parent: Option<TraceParent<'_>>, fresh: FreshTrace) {
    out.extend_from_slice(b"00-");
    match parent {
        Some(parent) => out.extend_from_slice(parent.trace_id),
        None => write_hex(out, fresh.trace_id.to_be_bytes()),
    }
    out.push(b'-');
    write_hex(out, fresh.parent_id.to_be_bytes());
    out.push(b'-');
    // A trace that starts here is marked as sampled: otherwise it would switch off tracing behind the gate.
    out.extend_from_slice(parent.map_or(b"01", |parent| parent.flags));
}

fn write_decided(out: &mut Vec<u8>, decided: SentContext) {
    out.extend_from_slice(b"00-");
    write_hex(out, decided.trace_id.to_be_bytes());
    out.push(b'-');
    write_hex(out, decided.span_id.to_be_bytes());
    out.push(b'-');
    write_hex(out, [decided.flags]);
}

fn write_hex<const BYTES: usize>(out: &mut Vec<u8>, number: [u8; BYTES]) {
    out.extend_from_slice(number.map(hex::digits).as_flattened());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_octet_is_written_as_the_standard_library_writes_it() {
        for octet in 0..=u8::MAX {
            let address = IpAddr::from([octet, 10, octet, 255]);
            assert_eq!(written(|out| write_address(out, address)), address.to_string());
        }
    }

    #[test]
    fn numbers_are_written_in_all_their_hex_digits() {
        for number in [0, 1, 0xf, 0x10, 0xabc, 0x0123_4567_89ab_cdef, u64::MAX] {
            assert_eq!(written(|out| write_hex(out, number.to_be_bytes())), format!("{number:016x}"));
            let large = u128::from(number) << 64 | u128::from(!number);
            assert_eq!(written(|out| write_hex(out, large.to_be_bytes())), format!("{large:032x}"));
        }
    }

    #[test]
    fn a_protocol_is_quoted_unless_it_is_a_token() {
        for (proto, expected) in [
            ("https", "https"),
            ("h2+c-1.0", "h2+c-1.0"),
            ("", "\"\""),
            ("a b", "\"a b\""),
            ("a\"", "\"a\\\"\""),
        ] {
            let written = written(|out| write_host_and_proto(out, b"h", proto.as_bytes()));
            assert_eq!(written, format!(";host=\"h\";proto={expected}"));
        }
    }

    #[test]
    fn quotes_and_backslashes_are_escaped_wherever_they_are() {
        for text in ["", "a", "\"", "\\", "a\"", "\"a", "a\\b", "\\\"\"", "\"a\\b\"c\\"] {
            let escaped: String = text.chars().fold(String::new(), |mut all, char| {
                if matches!(char, '"' | '\\') {
                    all.push('\\');
                }
                all.push(char);
                all
            });
            assert_eq!(written(|out| write_quoted(out, text.as_bytes())), format!("\"{escaped}\""));
        }
    }
}
