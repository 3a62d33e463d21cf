//! What the upstream is told of where a request comes from: forwarding fields, `Via`, trace context.

use std::io::Write as _;
use std::net::IpAddr;
use std::sync::LazyLock;

use http::Version;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::{Fields, Request, join};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// Names one request in the logs of everyone who saw it.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// How this process calls itself in `Via`. No other is called so: two gates one behind the other are no loop.
pub(super) static PSEUDONYM: LazyLock<String> = LazyLock::new(|| {
    let mut number = [0; 8];
    // Without random bytes there is still what tells the processes of one machine apart.
    if aws_lc_rs::rand::fill(&mut number).is_err() {
        number = u64::from(std::process::id()).to_be_bytes();
    }
    format!("portcullis-{:016x}", u64::from_be_bytes(number))
});

/// Whether the request has passed this gate before: forwarded once more, it would go round for ever (RFC 9110 §7.6).
pub(crate) fn came_back(headers: &HeaderMap) -> bool {
    let entries =
        headers.get_all(header::VIA).iter().flat_map(|value| value.as_bytes().split(|b| *b == b','));
    let mut words = entries.flat_map(|entry| entry.split(u8::is_ascii_whitespace));
    words.any(|word| word == PSEUDONYM.as_bytes())
}

/// Random numbers for a `traceparent`; used as far as the client sent none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FreshTrace {
    /// The trace, when it starts here.
    pub(crate) trace_id: u128,
    /// This hop of the trace.
    pub(crate) parent_id: u64,
}

/// Who asked, for what host, over what: RFC 7239, its predecessors, and `Via` (RFC 9110 §7.6.3).
pub(super) fn origin<F: Fields>(request: &Request<'_>, out: &mut F) {
    let (hop, headers) = (request.hop, request.headers);
    let before = |name: &HeaderName| hop.trusted && headers.contains_key(name);
    let append = |value: &mut Vec<u8>, name: &HeaderName| {
        if before(name) {
            join(value, headers, name, b", ");
            value.extend_from_slice(b", ");
        }
    };
    let scheme: &[u8] = if hop.tls { b"https" } else { b"http" };
    let client = hop.client.to_canonical();
    out.compose(&X_FORWARDED_FOR, |value| {
        append(value, &X_FORWARDED_FOR);
        write_address(value, client);
    });
    // The first proxy saw what the client asked for; later ones only what the proxy before them asked for.
    match headers.get(&X_FORWARDED_PROTO).filter(|_| hop.trusted) {
        Some(first) => out.copy(&X_FORWARDED_PROTO, first),
        None => out.compose(&X_FORWARDED_PROTO, |value| value.extend_from_slice(scheme)),
    }
    let host = headers.get(&X_FORWARDED_HOST).filter(|_| hop.trusted).unwrap_or(&hop.host);
    out.copy(&X_FORWARDED_HOST, host);
    out.compose(&header::FORWARDED, |value| {
        append(value, &header::FORWARDED);
        write_forwarded(value, client, hop.host.as_bytes(), scheme);
    });
    out.compose(&header::VIA, |value| {
        append(value, &header::VIA);
        value.extend_from_slice(received_version(hop.version));
        value.push(b' ');
        value.extend_from_slice(PSEUDONYM.as_bytes());
    });
    out.copy(&X_REQUEST_ID, &hop.request_id);
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
            let mut number = itoa::Buffer::new();
            for (place, octet) in address.octets().into_iter().enumerate() {
                if place > 0 {
                    out.push(b'.');
                }
                out.extend_from_slice(number.format(octet).as_bytes());
            }
        }
        // Writing to a vector cannot fail.
        IpAddr::V6(address) => drop(write!(out, "{address}")),
    }
}

fn write_forwarded(out: &mut Vec<u8>, client: IpAddr, host: &[u8], scheme: &[u8]) {
    out.extend_from_slice(b"for=");
    if client.is_ipv6() {
        out.extend_from_slice(b"\"[");
        write_address(out, client);
        out.extend_from_slice(b"]\"");
    } else {
        write_address(out, client);
    }
    out.extend_from_slice(b";host=\"");
    for byte in host {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.extend_from_slice(b"\";proto=");
    out.extend_from_slice(scheme);
}

/// What the client says of the trace.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Incoming<'a> {
    parent: Option<&'a HeaderValue>,
    repeated: bool,
    /// There is a `tracestate`, which means something only beside a valid `traceparent`.
    pub(super) has_state: bool,
}

impl<'a> Incoming<'a> {
    /// Takes in a `traceparent`; two are none.
    pub(super) fn parent(&mut self, value: &'a HeaderValue) {
        self.repeated |= self.parent.replace(value).is_some();
    }

    fn parse(self) -> Option<(&'a [u8], &'a [u8])> {
        self.parent.filter(|_| !self.repeated).and_then(|value| parse_trace(value.as_bytes()))
    }
}

/// W3C Trace Context: the trace goes on, with this gate as the next parent; or starts here.
pub(super) fn trace<F: Fields>(headers: &HeaderMap, incoming: Incoming<'_>, fresh: FreshTrace, out: &mut F) {
    let parent = incoming.parse();
    out.compose(&TRACEPARENT, |value| {
        value.extend_from_slice(b"00-");
        match parent {
            Some((trace_id, _)) => value.extend_from_slice(trace_id),
            None => write_hex(value, fresh.trace_id, 32),
        }
        value.push(b'-');
        write_hex(value, u128::from(fresh.parent_id), 16);
        value.push(b'-');
        // A trace that starts here is marked as sampled: unmarked, it would switch off tracing behind the gate.
        value.extend_from_slice(parent.map_or(b"01", |(_, flags)| flags));
    });
    if parent.is_some() && incoming.has_state {
        headers.get_all(&TRACESTATE).iter().for_each(|value| out.copy(&TRACESTATE, value));
    }
}

/// Trace id and flags of a valid `traceparent`: version, 32 and 16 lower-case hex digits that are not all zero, flags.
fn parse_trace(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let hex = |from: usize, to: usize| {
        value
            .get(from..to)
            .filter(|part| part.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b)))
    };
    let dash = |at: usize| value.get(at) == Some(&b'-');
    let (version, trace, parent, flags) = (hex(0, 2)?, hex(3, 35)?, hex(36, 52)?, hex(53, 55)?);
    let ends_well = value.len() == 55 || (version != b"00" && dash(55));
    let zero = |part: &[u8]| part.iter().all(|b| *b == b'0');
    let valid =
        dash(2) && dash(35) && dash(52) && ends_well && version != b"ff" && !zero(trace) && !zero(parent);
    valid.then_some((trace, flags))
}

fn write_hex(out: &mut Vec<u8>, number: u128, digits: u32) {
    out.extend((0..digits).rev().map(|place| {
        let nibble = (number >> (place * 4)) & 0xf;
        b"0123456789abcdef".get(usize::try_from(nibble).unwrap_or(0)).copied().unwrap_or(b'0')
    }));
}
