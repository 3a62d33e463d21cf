//! Validates the lines of a request head, one by one (RFC 9112 §3, §5, §6).

use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Version};
use memchr::memchr;

use super::fields::{FieldPosition, FieldPositions};
use super::head::{HeadLimits, Http1Fault, RequestHead};
use crate::enforce::target::RequestTarget;
use crate::gate::http::Head;

/// Maximum length of a request target. HTTP/2 towards an upstream cannot carry a longer one.
const MAX_TARGET: usize = 65_534;
/// Maximum length of a method. No registered one is half as long.
const MAX_METHOD: usize = 32;

/// How the body of a request is delimited (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyFraming {
    /// This many bytes; 0 for a request without a body.
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
}

/// The facts about a head from the lines received so far.
#[derive(Debug, Default)]
pub(super) struct HeadLines {
    bytes: usize,
    /// Whether an empty line before the request line was ignored (RFC 9112 §2.2).
    blank: bool,
    method: Option<Method>,
    target: Range<usize>,
    /// `None` before the request line.
    version: Option<Version>,
    fields: FieldPositions,
    host: bool,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
    connection: Options,
}

/// The relevant options in `Connection`.
#[derive(Debug, Default, Clone, Copy)]
struct Options {
    upgrade: bool,
    close: bool,
    keep_alive: bool,
}

impl HeadLines {
    /// The method, once the request line was read.
    pub(super) fn method(&self) -> Option<&Method> {
        self.method.as_ref()
    }

    /// Rejects at once what cannot become a request line, such as a TLS handshake.
    pub(super) fn check_first_byte(&self, line: &[u8]) -> Result<(), Http1Fault> {
        match line.first() {
            Some(&byte) if self.version.is_none() && !is_token(byte) && byte != b'\r' => Err(NOT_HTTP),
            _ => Ok(()),
        }
    }

    /// Checks that a line, or the part of it received so far, fits the limits.
    pub(super) fn check_size(&self, line: &[u8], limits: HeadLimits) -> Result<(), Http1Fault> {
        if self.bytes.saturating_add(line.len()) <= limits.bytes {
            return Ok(());
        }
        if self.version.is_some() {
            return Err(HEAD_TOO_LARGE);
        }
        // What stands in place of the version may also be what is too long.
        let version = line.splitn(3, |&byte| byte == b' ').nth(2).unwrap_or_default();
        Err(if version.len() > b"HTTP/1.1\r\n".len() { NOT_HTTP } else { TARGET_TOO_LONG })
    }

    /// Parses the line that begins at `start`; the empty line ends the head and returns the body's framing.
    pub(super) fn line(
        &mut self,
        line: &[u8],
        start: usize,
        limits: HeadLimits,
    ) -> Result<Option<BodyFraming>, Http1Fault> {
        self.bytes += line.len() + 2;
        if self.version.is_none() {
            return self.request_line(line, start).map(|()| None);
        }
        if line.is_empty() {
            return self.end().map(Some);
        }
        if self.fields.len() == limits.fields {
            return Err(TOO_MANY_FIELDS);
        }
        let (name, value) = field(line)?;
        if let (Some(name), Some(value)) = (line.get(name.clone()), line.get(value.clone())) {
            self.framing_field(name, value)?;
        }
        let shift = |range: Range<usize>| start + range.start..start + range.end;
        self.fields.push(FieldPosition { name: shift(name), value: shift(value) });
        Ok(None)
    }

    /// Returns the head that consists of `bytes`, after its last line.
    pub(super) fn take(&mut self, bytes: &Bytes, body: BodyFraming) -> Result<RequestHead, Http1Fault> {
        let version = self.version.unwrap_or_default();
        let request = RequestHead {
            body,
            wants_upgrade: self.upgrade && self.connection.upgrade && version == Version::HTTP_11,
            keep_alive: !self.connection.close && (version == Version::HTTP_11 || self.connection.keep_alive),
            head: Rc::new(self.head(bytes, version)?),
        };
        *self = Self::default();
        Ok(request)
    }

    /// Method, target and fields, which share the memory of `bytes`.
    fn head(&mut self, bytes: &Bytes, version: Version) -> Result<Head, Http1Fault> {
        let mut headers = HeaderMap::with_capacity(self.fields.len());
        for field in self.fields.iter() {
            let name = bytes.get(field.name.clone()).and_then(|name| HeaderName::from_bytes(name).ok());
            let value = HeaderValue::from_maybe_shared(bytes.slice(field.value.clone()));
            let value = value.map_err(|_invalid| CONTROL)?;
            headers.try_append(name.ok_or(BAD_NAME)?, value).map_err(|_full| TOO_MANY_FIELDS)?;
        }
        let method = self.method.take().unwrap_or_default();
        let target = request_target(&method, bytes.slice(self.target.clone()))?;
        Ok(Head { method, target, version, headers })
    }

    fn request_line(&mut self, line: &[u8], start: usize) -> Result<(), Http1Fault> {
        if line.is_empty() && !self.blank {
            self.blank = true;
            return Ok(());
        }
        let mut parts = line.split(|&byte| byte == b' ');
        let (Some(method), Some(target), version, None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NOT_HTTP);
        };
        if method.is_empty() || !method.iter().copied().all(is_token) {
            return Err(NOT_HTTP);
        }
        if method.len() > MAX_METHOD {
            return Err(METHOD_TOO_LONG);
        }
        self.method = Method::from_bytes(method).ok();
        self.version = Some(minor(version.ok_or(Http1Fault::bad("The request line has no HTTP version"))?)?);
        let target_start = start + method.len() + 1;
        self.target = target_start..target_start + target.len();
        if method == b"CONNECT" {
            return Err(NO_CONNECT);
        }
        if target.len() > MAX_TARGET { Err(TARGET_TOO_LONG) } else { Ok(()) }
    }

    /// Records the fields that frame the message or determine its destination.
    fn framing_field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Http1Fault> {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            4 if is(b"host") => {
                if std::mem::replace(&mut self.host, true) {
                    return Err(TWO_HOSTS);
                }
                return if is_host(value) { Ok(()) } else { Err(BAD_HOST) };
            }
            7 if is(b"upgrade") => self.upgrade = true,
            10 if is(b"connection") => {
                for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                    self.connection.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
                    self.connection.close |= option.eq_ignore_ascii_case(b"close");
                    self.connection.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if is(b"content-length") => self.keep_length(value)?,
            17 if is(b"transfer-encoding") => self.keep_coding(value)?,
            _ => {}
        }
        Ok(())
    }

    /// Records the length. RFC 9112 §6.3 allows identical repetitions; parsers may still disagree on them.
    fn keep_length(&mut self, value: &[u8]) -> Result<(), Http1Fault> {
        match self.length.replace(content_length(value)?) {
            None => Ok(()),
            Some(_) => Err(Http1Fault::bad("The request has more than one Content-Length")),
        }
    }

    fn keep_coding(&mut self, value: &[u8]) -> Result<(), Http1Fault> {
        coding(value)?;
        if std::mem::replace(&mut self.chunked, true) {
            return Err(Http1Fault::bad("The request has more than one Transfer-Encoding"));
        }
        Ok(())
    }

    fn end(&self) -> Result<BodyFraming, Http1Fault> {
        // RFC 9112 §3.2: required even beside an absolute-form target, which overrides it.
        if !self.host && self.version == Some(Version::HTTP_11) {
            return Err(NO_HOST);
        }
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Http1Fault::bad("Content-Length and Transfer-Encoding are both set")),
            (true, None) if self.version == Some(Version::HTTP_10) => {
                Err(Http1Fault::bad("Transfer-Encoding is not allowed in HTTP/1.0"))
            }
            (true, None) => Ok(BodyFraming::Chunked),
            (false, length) => Ok(BodyFraming::Length(length.unwrap_or(0))),
        }
    }
}

pub(super) const NOT_HTTP: Http1Fault = Http1Fault::bad("The request is not a valid HTTP/1.1 request");
const METHOD_TOO_LONG: Http1Fault =
    Http1Fault::new(StatusCode::NOT_IMPLEMENTED, "The method is not supported");
const NO_CONNECT: Http1Fault =
    Http1Fault::new(StatusCode::METHOD_NOT_ALLOWED, "The CONNECT method is not supported");
const TARGET_TOO_LONG: Http1Fault =
    Http1Fault::new(StatusCode::URI_TOO_LONG, "The request target is too long");
pub(super) const HEAD_TOO_LARGE: Http1Fault =
    Http1Fault::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "The request head is too large");
const TOO_MANY_FIELDS: Http1Fault =
    Http1Fault::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "The request has too many header fields");
const BAD_TARGET: Http1Fault = Http1Fault::target("The request target is invalid");
const NO_HOST: Http1Fault = Http1Fault::target("The Host header is missing");
const TWO_HOSTS: Http1Fault = Http1Fault::target("The request has more than one Host header");
const BAD_HOST: Http1Fault = Http1Fault::target("The Host header is invalid");
const BAD_NAME: Http1Fault = Http1Fault::bad("A header field has an invalid name");
const CONTROL: Http1Fault = Http1Fault::bad("A header field contains a control character");

fn minor(version: &[u8]) -> Result<Version, Http1Fault> {
    match version {
        b"HTTP/1.1" => Ok(Version::HTTP_11),
        b"HTTP/1.0" => Ok(Version::HTTP_10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Http1Fault::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "The HTTP version is not supported"))
        }
        _ => Err(NOT_HTTP),
    }
}

/// Parses the target (RFC 9112 §3.2): origin-form, absolute-form, or `*` for `OPTIONS`.
fn request_target(method: &Method, target: Bytes) -> Result<RequestTarget, Http1Fault> {
    let target = RequestTarget::from_bytes(target).map_err(|_bad| BAD_TARGET)?;
    let sound = match target.authority() {
        None => !target.is_asterisk() || *method == Method::OPTIONS,
        Some(host) => is_host(host.as_str().as_bytes()),
    };
    if sound { Ok(target) } else { Err(BAD_TARGET) }
}

/// The positions of name and value in a field line, without the white space around the value (RFC 9112 §5).
fn field(line: &[u8]) -> Result<(Range<usize>, Range<usize>), Http1Fault> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Http1Fault::bad("A header field is folded over several lines"));
    }
    let colon = memchr(b':', line).ok_or(Http1Fault::bad("A header line has no colon"))?;
    let (name, value) = line.split_at(colon);
    if name.is_empty() || !name.iter().copied().all(is_token) {
        return Err(BAD_NAME);
    }
    // No early exit, so that the compiler can vectorize the loop.
    if value.iter().fold(false, |found, &byte| found | is_control(byte)) {
        return Err(CONTROL);
    }
    let value = value.get(1..).unwrap_or_default().trim_ascii_start();
    let start = line.len() - value.len();
    Ok((0..colon, start..start + value.trim_ascii_end().len()))
}

/// Parses one trailer line. A field that frames a message if it comes in the head is rejected rather than
/// ignored (RFC 9110 §6.5.1).
pub(super) fn trailer(line: &[u8], trailers: &mut HeaderMap, limits: HeadLimits) -> Result<(), Http1Fault> {
    if trailers.len() == limits.fields {
        return Err(TOO_MANY_FIELDS);
    }
    let (name, value) = field(line)?;
    let (name, value) = (line.get(name).unwrap_or_default(), line.get(value).unwrap_or_default());
    let framing = [&b"content-length"[..], b"transfer-encoding", b"host"];
    if framing.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden)) {
        return Err(Http1Fault::bad("A trailer field must not frame the message"));
    }
    let name = HeaderName::from_bytes(name).map_err(|_invalid| BAD_NAME)?;
    let value = HeaderValue::from_bytes(value).map_err(|_invalid| CONTROL)?;
    trailers.try_append(name, value).map_err(|_full| TOO_MANY_FIELDS)?;
    Ok(())
}

/// Parses a length (RFC 9110 §8.6): digits only, without overflow.
fn content_length(value: &[u8]) -> Result<u64, Http1Fault> {
    const INVALID: Http1Fault = Http1Fault::bad("The Content-Length is invalid");
    if value.is_empty() {
        return Err(INVALID);
    }
    value.iter().try_fold(0, |sum, &byte| digit(sum, byte, 10)).ok_or(INVALID)
}

/// Parses the size before `;` and extensions, which are ignored (RFC 9112 §7.1).
pub(super) fn chunk_size(line: &[u8]) -> Result<u64, Http1Fault> {
    const INVALID: Http1Fault = Http1Fault::bad("The size of a chunk is invalid");
    let digits = memchr(b';', line).and_then(|end| line.get(..end)).unwrap_or(line);
    if digits.is_empty() || line.iter().copied().any(is_control) {
        return Err(INVALID);
    }
    digits.iter().try_fold(0, |sum, &byte| digit(sum, byte, 16)).ok_or(INVALID)
}

fn digit(sum: u64, byte: u8, radix: u32) -> Option<u64> {
    let digit = char::from(byte).to_digit(radix)?;
    sum.checked_mul(radix.into())?.checked_add(digit.into())
}

/// Checks that the coding is `chunked` and nothing else: no other coding is supported (RFC 9112 §6.1), and a
/// list could be read in two ways.
fn coding(value: &[u8]) -> Result<(), Http1Fault> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let chunked = |coding: &[u8]| coding.is_empty() || coding.eq_ignore_ascii_case(b"chunked");
    if value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).all(chunked) {
        return Err(Http1Fault::bad("The Transfer-Encoding is invalid"));
    }
    Err(Http1Fault::new(StatusCode::NOT_IMPLEMENTED, "The transfer coding is not supported"))
}

/// Whether a value is a host (RFC 9110 §7.2) made of characters in real names and addresses, or host and port.
pub(in crate::gate) fn is_host(value: &[u8]) -> bool {
    let (host, port) = match value {
        [b'[', rest @ ..] => match memchr(b']', rest).map(|end| rest.split_at(end)) {
            Some((address, [b']', port @ ..])) => {
                let address = std::str::from_utf8(address)
                    .ok()
                    .and_then(|text| text.parse::<std::net::Ipv6Addr>().ok());
                return address.is_some() && is_port(port);
            }
            _ => return false,
        },
        _ => value.split_at(memchr(b':', value).unwrap_or(value.len())),
    };
    !host.is_empty() && host.iter().copied().all(is_host_byte) && is_port(port)
}

/// Whether the text is empty, or `:` followed by an optional port number (RFC 3986 §3.2.3).
fn is_port(text: &[u8]) -> bool {
    match text {
        [] | [b':'] => true,
        [b':', digits @ ..] => {
            digits.iter().try_fold(0, |sum, &byte| digit(sum, byte, 10)).is_some_and(|port| port <= 65_535)
        }
        _ => false,
    }
}

/// Whether host names and addresses contain this byte; a table, because it is checked for every byte.
const fn is_host_byte(byte: u8) -> bool {
    const HOST: [bool; 256] = alphanumeric_and(b"-._~");
    HOST[byte as usize]
}

/// Whether a byte is a `tchar` (RFC 9110 §5.6.2).
const fn is_token(byte: u8) -> bool {
    const TOKEN: [bool; 256] = alphanumeric_and(b"!#$%&'*+-.^_`|~");
    TOKEN[byte as usize]
}

const fn alphanumeric_and(others: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut place = 0;
    while place < others.len() {
        table[others[place] as usize] = true;
        place += 1;
    }
    table
}

/// Whether no field value may contain this byte (RFC 9110 §5.5).
const fn is_control(byte: u8) -> bool {
    (byte < 0x20 && byte != b'\t') || byte == 0x7f
}
