//! The lines of a request's head, judged one by one (RFC 9112 §3, §5, §6).

use http::uri::{Authority, Scheme, Uri};
use http::{Method, StatusCode};
use memchr::memchr;

use super::{Fault, Limits};
use crate::enforce::target;

/// Longest request-target that the parsers behind can hold.
const MAX_TARGET: usize = 65_534;
/// Longest method. There is no registered one of half that length.
const MAX_METHOD: usize = 32;

/// How the body of a request is delimited (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// This many bytes; none for a request without a body.
    Length(u64),
    /// In chunks.
    Chunked,
}

/// What is known of a head.
#[derive(Debug, Default)]
pub(super) struct Head {
    bytes: usize,
    fields: usize,
    /// One empty line before the request line was ignored (RFC 9112 §2.2).
    blank: bool,
    method: MethodText,
    /// `None` before the request line.
    version: Option<Minor>,
    host: bool,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
    connection_upgrade: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Minor {
    Http10,
    Http11,
}

#[derive(Debug, Default)]
struct MethodText {
    length: usize,
    bytes: [u8; MAX_METHOD],
}

impl Head {
    pub(super) fn has_begun(&self) -> bool {
        self.bytes > 0
    }

    pub(super) fn method(&self) -> &str {
        let bytes = self.method.bytes.get(..self.method.length).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// Whether the client asked for another protocol in a way that can be granted (RFC 9110 §7.8).
    pub(super) fn asks_for_upgrade(&self) -> bool {
        self.upgrade && self.connection_upgrade && self.version == Some(Minor::Http11)
    }

    /// Refuses what cannot become a request line before its end has come, such as a TLS handshake.
    pub(super) fn check_first_byte(&self, line: &[u8]) -> Result<(), Fault> {
        match line.first() {
            Some(&byte) if self.version.is_none() && !is_token(byte) && byte != b'\r' => Err(NOT_HTTP),
            _ => Ok(()),
        }
    }

    /// Whether a line of this length, line end included, still fits.
    pub(super) fn check_size(&self, line: usize, limits: Limits) -> Result<(), Fault> {
        if self.bytes.saturating_add(line) <= limits.bytes {
            Ok(())
        } else if self.version.is_none() {
            Err(TARGET_TOO_LONG)
        } else {
            Err(HEAD_TOO_LARGE)
        }
    }

    /// Judges one line; the empty one ends the head and tells how the body is delimited.
    pub(super) fn line(&mut self, line: &[u8], limits: Limits) -> Result<Option<Body>, Fault> {
        self.bytes += line.len() + 2;
        if self.version.is_none() {
            return self.request_line(line).map(|()| None);
        }
        if line.is_empty() {
            return self.end().map(Some);
        }
        self.fields += 1;
        if self.fields > limits.fields {
            return Err(TOO_MANY_FIELDS);
        }
        let (name, value) = field(line)?;
        self.framing_field(name, value).map(|()| None)
    }

    /// The limits hold for trailers anew.
    pub(super) fn begin_trailers(&mut self) {
        (self.bytes, self.fields) = (0, 0);
    }

    /// Judges one trailer line. One that would have framed the message, had it come in the head, is refused rather than
    /// ignored (RFC 9110 §6.5.1).
    pub(super) fn trailer(&mut self, line: &[u8], limits: Limits) -> Result<(), Fault> {
        self.bytes += line.len() + 2;
        self.fields += 1;
        if self.fields > limits.fields {
            return Err(TOO_MANY_FIELDS);
        }
        let (name, _) = field(line)?;
        let framing = [&b"content-length"[..], b"transfer-encoding", b"host"];
        if framing.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden)) {
            return Err(Fault::bad("A trailer field that frames the message"));
        }
        Ok(())
    }

    fn request_line(&mut self, line: &[u8]) -> Result<(), Fault> {
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
        self.keep_method(method)?;
        self.version = Some(minor(version.ok_or(Fault::bad("The request line names no version"))?)?);
        if method == b"CONNECT" {
            return Err(NO_CONNECT);
        }
        request_target(method, target)
    }

    fn keep_method(&mut self, method: &[u8]) -> Result<(), Fault> {
        let kept = self.method.bytes.get_mut(..method.len()).ok_or(METHOD_TOO_LONG)?;
        kept.copy_from_slice(method);
        self.method.length = method.len();
        Ok(())
    }

    /// Takes note of the fields that frame the message, or say where it goes.
    fn framing_field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Fault> {
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
                let mut options = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
                self.connection_upgrade |= options.any(|option| option.eq_ignore_ascii_case(b"upgrade"));
            }
            14 if is(b"content-length") => self.keep_length(value)?,
            17 if is(b"transfer-encoding") => self.keep_coding(value)?,
            _ => {}
        }
        Ok(())
    }

    /// RFC 9112 §6.3 lets identical repetitions pass; two parsers may still differ on them.
    fn keep_length(&mut self, value: &[u8]) -> Result<(), Fault> {
        match self.length.replace(content_length(value)?) {
            None => Ok(()),
            Some(_) => Err(Fault::bad("More than one Content-Length")),
        }
    }

    fn keep_coding(&mut self, value: &[u8]) -> Result<(), Fault> {
        coding(value)?;
        if std::mem::replace(&mut self.chunked, true) {
            return Err(Fault::bad("More than one Transfer-Encoding"));
        }
        Ok(())
    }

    fn end(&self) -> Result<Body, Fault> {
        // RFC 9112 §3.2: also beside an absolute-form target, which overrides it.
        if !self.host && self.version == Some(Minor::Http11) {
            return Err(NO_HOST);
        }
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Fault::bad("Content-Length beside Transfer-Encoding")),
            (true, None) if self.version == Some(Minor::Http10) => {
                Err(Fault::bad("Transfer-Encoding in HTTP/1.0"))
            }
            (true, None) => Ok(Body::Chunked),
            (false, length) => Ok(Body::Length(length.unwrap_or(0))),
        }
    }
}

pub(super) const NOT_HTTP: Fault = Fault::bad("This is no HTTP/1.1 request");
const METHOD_TOO_LONG: Fault = Fault::new(StatusCode::NOT_IMPLEMENTED, "The method is not known");
const NO_CONNECT: Fault = Fault::new(StatusCode::METHOD_NOT_ALLOWED, "CONNECT is not served here");
const TARGET_TOO_LONG: Fault = Fault::new(StatusCode::URI_TOO_LONG, "The request target is too long");
const HEAD_TOO_LARGE: Fault =
    Fault::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "The request head is too large");
const TOO_MANY_FIELDS: Fault =
    Fault::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "The request has too many header fields");
const BAD_TARGET: Fault = Fault::target("The request target is not valid");
const NO_HOST: Fault = Fault::target("The request names no Host");
const TWO_HOSTS: Fault = Fault::target("The request has more than one Host");
const BAD_HOST: Fault = Fault::target("The Host is not valid");

fn minor(version: &[u8]) -> Result<Minor, Fault> {
    match version {
        b"HTTP/1.1" => Ok(Minor::Http11),
        b"HTTP/1.0" => Ok(Minor::Http10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Fault::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "This HTTP version is not spoken here"))
        }
        _ => Err(NOT_HTTP),
    }
}

/// RFC 9112 §3.2: origin-form, absolute-form, or `*` for `OPTIONS`.
fn request_target(method: &[u8], target: &[u8]) -> Result<(), Fault> {
    if target.len() > MAX_TARGET {
        return Err(TARGET_TOO_LONG);
    }
    target::check_raw(target).map_err(|target::BadTarget| BAD_TARGET)?;
    match target {
        [b'/', ..] => Ok(()),
        b"*" if method == Method::OPTIONS.as_str().as_bytes() => Ok(()),
        _ => {
            let http = |uri: &Uri| uri.scheme().is_some_and(|s| *s == Scheme::HTTP || *s == Scheme::HTTPS);
            let absolute = Uri::try_from(target).ok().filter(http);
            let host = absolute.as_ref().and_then(Uri::authority).map(Authority::as_str);
            if host.is_some_and(|host| is_host(host.as_bytes())) { Ok(()) } else { Err(BAD_TARGET) }
        }
    }
}

/// Splits a field line into name and value without the blanks around it (RFC 9112 §5).
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Fault::bad("A folded header field"));
    }
    let colon = memchr(b':', line).ok_or(Fault::bad("A header line without a colon"))?;
    let (name, value) = line.split_at(colon);
    if name.is_empty() || !name.iter().copied().all(is_token) {
        return Err(Fault::bad("The name of a header field is not valid"));
    }
    // Without an early end, so that the compiler can look at many bytes at once.
    if value.iter().fold(false, |found, &byte| found | is_control(byte)) {
        return Err(Fault::bad("A control character in a header field"));
    }
    Ok((name, value.get(1..).unwrap_or_default().trim_ascii()))
}

/// RFC 9110 §8.6: digits only, and no more than fit.
fn content_length(value: &[u8]) -> Result<u64, Fault> {
    const INVALID: Fault = Fault::bad("The Content-Length is not valid");
    if value.is_empty() {
        return Err(INVALID);
    }
    // The two highest values mean something else to hyper.
    value
        .iter()
        .try_fold(0, |sum, &byte| digit(sum, byte, 10))
        .filter(|&length| length < u64::MAX - 1)
        .ok_or(INVALID)
}

/// The size before `;` and extensions, which mean nothing here (RFC 9112 §7.1).
pub(super) fn chunk_size(line: &[u8]) -> Result<u64, Fault> {
    const INVALID: Fault = Fault::bad("The size of a chunk is not valid");
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

/// `chunked` and nothing else: no other coding is known here (RFC 9112 §6.1), and a list could be read in two ways.
fn coding(value: &[u8]) -> Result<(), Fault> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let chunked = |coding: &[u8]| coding.is_empty() || coding.eq_ignore_ascii_case(b"chunked");
    if value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).all(chunked) {
        return Err(Fault::bad("The Transfer-Encoding is not valid"));
    }
    Err(Fault::new(StatusCode::NOT_IMPLEMENTED, "The transfer coding is not known"))
}

/// A host and maybe a port (RFC 9110 §7.2), of the characters that real names and addresses consist of.
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
    let name = |&byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    !host.is_empty() && host.iter().all(name) && is_port(port)
}

/// Nothing, or `:` and a number that may be left out (RFC 3986 §3.2.3).
fn is_port(text: &[u8]) -> bool {
    match text {
        [] | [b':'] => true,
        [b':', digits @ ..] => {
            digits.iter().try_fold(0, |sum, &byte| digit(sum, byte, 10)).is_some_and(|port| port <= 65_535)
        }
        _ => false,
    }
}

/// `tchar` (RFC 9110 §5.6.2).
const fn is_token(byte: u8) -> bool {
    const TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 256 {
            let it = byte as u8;
            table[byte] = it.is_ascii_alphanumeric()
                || matches!(it, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~');
            byte += 1;
        }
        table
    };
    TOKEN[byte as usize]
}

/// A byte that no field value may hold (RFC 9110 §5.5).
const fn is_control(byte: u8) -> bool {
    (byte < 0x20 && byte != b'\t') || byte == 0x7f
}
