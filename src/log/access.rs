//! The access log: one line per request with the decision, its reason and its duration, without the caller's
//! name.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Version;
use tracing::Level;

use super::Format;
use super::line::Line;
use super::switches::{SwitchPosition, Switches};
use super::writer::LogQueue;
use crate::hex;
use crate::time::Timestamp;

/// The log target of these lines, for `log_level`.
pub(super) const TARGET: &str = "portcullis::access";

/// Maximum length of a value that comes from the request.
const MAX_VALUE: usize = 256;
/// Maximum length of a path.
const MAX_PATH: usize = 2048;

/// The outcome of a request, as in `portcullis_decisions_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decision {
    /// Let through.
    Allow,
    /// Denied.
    Deny,
    /// Denied because keys or state were not usable.
    Unavailable,
    /// Would have been denied if the route were not in shadow mode.
    ShadowDeny,
}

impl Decision {
    /// The word that users see: log member and metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Unavailable => "unavailable",
            Self::ShadowDeny => "shadow_deny",
        }
    }

    const fn level(self) -> Level {
        match self {
            Self::Unavailable => Level::WARN,
            Self::Allow | Self::Deny | Self::ShadowDeny => Level::INFO,
        }
    }
}

/// The contents of a request's line. Members that are `None` are omitted.
#[derive(Debug, Clone, Copy)]
pub struct AccessRecord<'a> {
    /// As in `X-Request-Id`.
    pub request_id: &'a str,
    /// The trace of the request, if the gate traces.
    pub trace_id: Option<u128>,
    /// The method as received.
    pub method: &'a str,
    /// The route's pattern; `None` is written as `none`.
    pub route: Option<&'a str>,
    /// The request's path. Written only with `log_paths`, and without a query.
    pub path: Option<&'a str>,
    /// The response status.
    pub status: u16,
    /// The decision.
    pub decision: Decision,
    /// Why it was denied.
    pub reason: Option<&'static str>,
    /// The issuer that the token names, if it is a configured one.
    pub issuer: Option<&'a str>,
    /// The key id that the token names.
    pub kid: Option<&'a str>,
    /// The token's identity; its first 12 hexadecimal digits are written.
    pub token: Option<&'a [u8; 32]>,
    /// The first 12 hexadecimal digits of SHA-256 of `iss`, newline, `sub`.
    pub subject: Option<&'a str>,
    /// The client to which the token was issued, or that called the token endpoint.
    pub client: Option<&'a str>,
    /// What a token that was rejected for its issuer or audience names instead.
    pub claimed: Option<(&'static str, &'a str)>,
    /// The client that an unverified token names.
    pub claimed_client: Option<&'a str>,
    /// The client's address.
    pub client_address: IpAddr,
    /// The requested host.
    pub host: Option<&'a str>,
    /// The identity headers that were omitted from the request, joined with commas.
    pub omitted: Option<&'a str>,
    /// The `User-Agent` of the request.
    pub user_agent: Option<&'a str>,
    /// The version of TLS with the client.
    pub tls: Option<&'static str>,
    /// Bytes of the request body that were read; `None` without a body.
    pub bytes_in: Option<u64>,
    /// Bytes of the response body that were sent.
    pub bytes_out: u64,
    /// Time until the upstream's response head.
    pub upstream_time: Option<Duration>,
    /// Time from the request's head to the end of its response.
    pub lasted: Duration,
    /// Who ended the response early: `client`, `upstream`, or `gate` if the token was no longer in force.
    pub ended_by: Option<&'static str>,
    /// The upstream it went to.
    pub upstream: Option<&'a str>,
    /// The failure there, as in `portcullis_upstream_errors_total`.
    pub failure: Option<&'a str>,
    /// The cause of that, as an error text.
    pub cause: Option<&'a str>,
    /// The protocol of the client.
    pub protocol: Version,
    /// Time from request head to response head.
    pub duration: Duration,
}

/// Writes the access log; cheap to clone, shared by the workers.
#[derive(Clone)]
pub struct AccessLog {
    lines: LogQueue,
    switches: Arc<Switches>,
}

impl AccessLog {
    pub(super) const fn new(lines: LogQueue, switches: Arc<Switches>) -> Self {
        Self { lines, switches }
    }

    /// Whether a request with this decision gets a line at all.
    #[must_use]
    pub fn wants(&self, decision: Decision) -> bool {
        self.switches.get().wants(decision)
    }

    /// Writes one line, unless the settings omit such lines. Never waits.
    pub fn write(&self, record: &AccessRecord<'_>) {
        let position = self.switches.get();
        if !position.wants(record.decision) {
            return;
        }
        // An error means that this thread is ending and its buffer no longer exists.
        let _ = SCRATCH.try_with(|scratch| {
            let Scratch { line, clock } = &mut *scratch.borrow_mut();
            line.clear();
            format(line, clock.stamp(Timestamp::now()), position, record);
            self.lines.push(line);
        });
    }
}

impl std::fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessLog").finish_non_exhaustive()
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Buffers that a thread reuses between lines.
#[derive(Default)]
struct Scratch {
    line: Vec<u8>,
    clock: TimeText,
}

/// The formatted time, of which usually only the milliseconds change.
#[derive(Default)]
struct TimeText {
    second: Option<i64>,
    text: String,
}

impl TimeText {
    fn stamp(&mut self, now: Timestamp) -> &str {
        // `2026-01-31T23:59:59.` can be reused for a second; years beyond four digits are always formatted
        // again.
        if self.second == Some(now.as_secs()) && self.text.len() == 24 {
            let millis = 1000 + now.as_millis().rem_euclid(1000);
            self.text.truncate(20);
            self.text.push_str(itoa::Buffer::new().format(millis).get(1..).unwrap_or_default());
            self.text.push('Z');
        } else {
            self.second = Some(now.as_secs());
            self.text = now.to_string();
        }
        &self.text
    }
}

fn format(out: &mut Vec<u8>, stamp: &str, position: SwitchPosition, record: &AccessRecord<'_>) {
    let format = position.format();
    let mut line = Line::begin(out, format, stamp, record.decision.level(), TARGET);
    match format {
        Format::Json => members(&mut line, record),
        Format::Pretty => sentence(&mut line, record),
    }
    let path = record.path.filter(|_| position.paths());
    if let Some(path) = path.and_then(|path| path.split(['?', '#']).next()) {
        line.text("path", clip(path, MAX_PATH));
    }
    for (name, value) in [
        ("reason", record.reason),
        ("issuer", record.issuer),
        ("kid", record.kid),
        ("subject_hash", record.subject),
        ("upstream", record.upstream),
        ("failure", record.failure),
        ("cause", record.cause),
        ("ended_by", record.ended_by),
        ("client", record.client),
        ("claimed_client", record.claimed_client),
        ("host", record.host),
        ("user_agent", record.user_agent),
        ("tls", record.tls),
        ("omitted_headers", record.omitted),
        record.claimed.map_or(("claimed", None), |(name, value)| (name, Some(value))),
    ] {
        if let Some(value) = value {
            line.text(name, clip(value, MAX_VALUE));
        }
    }
    for (name, number) in [
        ("bytes_in", record.bytes_in),
        ("bytes_out", Some(record.bytes_out)),
        ("upstream_us", record.upstream_time.map(micros)),
        ("total_us", Some(micros(record.lasted))),
    ] {
        if let Some(number) = number {
            line.integer(name, number);
        }
    }
    if let Some(token) = record.token {
        line.text("token_hash", std::str::from_utf8(&short_hex(token)).unwrap_or_default());
    }
    if let Some(trace_id) = record.trace_id {
        let digits = trace_id.to_be_bytes().map(hex::digits);
        line.text("trace_id", std::str::from_utf8(digits.as_flattened()).unwrap_or_default());
    }
    line.text("request_id", clip(record.request_id, MAX_VALUE));
    line.end();
}

/// Writes the members that every JSON line has.
fn members(line: &mut Line<'_>, record: &AccessRecord<'_>) {
    line.text("message", "request");
    line.text("method", clip(record.method, MAX_VALUE));
    line.text("route", record.route.unwrap_or("none"));
    line.integer("status", record.status);
    line.text("decision", record.decision.as_str());
    line.display("client_address", record.client_address);
    line.text("protocol", protocol(record.protocol));
    line.integer("duration_us", micros(record.duration));
}

/// Writes the same as a sentence for a person.
fn sentence(line: &mut Line<'_>, record: &AccessRecord<'_>) {
    let AccessRecord { status, decision, client_address, .. } = record;
    let (method, route) = (clip(record.method, MAX_VALUE), record.route.unwrap_or("none"));
    let (decision, micros) = (decision.as_str(), micros(record.duration));
    line.message(format_args!("{status} {decision} {method} {route} {micros}µs from {client_address}"));
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

const fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2",
        _ => "other",
    }
}

/// The beginning of `text`, cut between characters.
pub(super) fn clip(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or(text)
}

/// The first 12 hexadecimal digits.
pub(super) fn short_hex(hash: &[u8; 32]) -> [u8; 12] {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    let mut text = [0; 12];
    for (pair, byte) in text.chunks_exact_mut(2).zip(hash) {
        pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 0xf)]);
    }
    text
}
