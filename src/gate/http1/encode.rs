//! Encodes HTTP/1.1 responses: the head, and the framing of the body (RFC 9112 §6).
//!
//! Performs no I/O.

use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TE, TRAILER, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};

use crate::gate::http::Head;

/// The properties of a request that its response depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AnswerTraits {
    is_head: bool,
    version: Version,
    /// Whether the client accepts trailers (RFC 9110 §10.1.4).
    takes_trailers: bool,
}

impl AnswerTraits {
    pub(crate) fn new(head: &Head) -> Self {
        let trailers = |value: &HeaderValue| {
            value
                .as_bytes()
                .split(|&byte| byte == b',')
                .any(|part| part.trim_ascii().eq_ignore_ascii_case(b"trailers"))
        };
        Self {
            is_head: head.method == Method::HEAD,
            version: head.version,
            takes_trailers: head.version == Version::HTTP_11 && head.headers.get_all(TE).iter().any(trailers),
        }
    }
}

/// How the end of a response's body is marked (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerFraming {
    /// No body, whatever the fields say.
    Empty,
    /// This many more bytes.
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
    /// Closing the connection.
    Close,
}

impl AnswerFraming {
    /// The framing for a body of `size`, if that is known.
    pub(crate) fn of(status: StatusCode, asked: AnswerTraits, size: Option<u64>) -> Self {
        let bodiless = asked.is_head
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        match size {
            _ if bodiless => Self::Empty,
            Some(size) => Self::Length(size),
            None if asked.version == Version::HTTP_11 => Self::Chunked,
            None => Self::Close,
        }
    }
}

/// Writes the head of a response. `persistent`: whether another request may follow.
pub(crate) fn head(
    out: &mut Vec<u8>,
    (status, headers): (StatusCode, &HeaderMap),
    asked: AnswerTraits,
    framing: AnswerFraming,
    persistent: bool,
    date: &HeaderValue,
) {
    let switches = status == StatusCode::SWITCHING_PROTOCOLS;
    // A response without a body may still state the length that the body would have (RFC 9110 §8.6).
    let keeps_length = framing == AnswerFraming::Empty && !switches && status != StatusCode::NO_CONTENT;
    out.reserve(512);
    status_line(out, asked.version, status);
    let mut is_dated = false;
    for (name, value) in headers {
        is_dated |= *name == DATE;
        match *name {
            TRANSFER_ENCODING => {}
            CONTENT_LENGTH if !keeps_length => {}
            CONNECTION if !switches => {}
            _ => field(out, name, value.as_bytes()),
        }
    }
    match framing {
        AnswerFraming::Empty | AnswerFraming::Close => {}
        AnswerFraming::Length(length) => {
            field(out, &CONTENT_LENGTH, itoa::Buffer::new().format(length).as_bytes());
        }
        AnswerFraming::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    match asked.version {
        _ if switches => {}
        _ if !persistent => out.extend_from_slice(b"connection: close\r\n"),
        Version::HTTP_10 => out.extend_from_slice(b"connection: keep-alive\r\n"),
        _ => {}
    }
    if !is_dated {
        field(out, &DATE, date.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes a status line; an HTTP/1.0 request is answered in its own version.
pub(super) fn status_line(out: &mut Vec<u8>, version: Version, status: StatusCode) {
    out.extend_from_slice(if version == Version::HTTP_10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes a field line.
pub(super) fn field(out: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The trailers that may be sent: those announced in the head, to a client that accepts trailers.
#[derive(Debug)]
pub(super) struct Announced(Option<HeaderMap>);

impl Announced {
    pub(super) fn new(asked: AnswerTraits, headers: &mut HeaderMap) -> Self {
        if !asked.takes_trailers || !headers.contains_key(TRAILER) {
            return Self(None);
        }
        Self(Some(headers.get_all(TRAILER).iter().map(|names| (TRAILER, names.clone())).collect()))
    }

    /// Writes the announced ones of `trailers`.
    pub(super) fn write(&self, out: &mut Vec<u8>, trailers: &HeaderMap) {
        let Some(announced) = &self.0 else { return };
        let is_announced = |name: &HeaderName| {
            let mut names = announced.values().flat_map(|names| names.as_bytes().split(|&byte| byte == b','));
            names.any(|announced| announced.trim_ascii().eq_ignore_ascii_case(name.as_str().as_bytes()))
        };
        for (name, value) in trailers.iter().filter(|(name, _)| is_announced(name)) {
            field(out, name, value.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::{HeaderMap, HeaderName, HeaderValue};

    use super::*;
    use crate::enforce::target::RequestTarget;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let fields = fields.iter();
        fields.map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    fn asked(method: Method, version: Version, fields: &[(&'static str, &'static str)]) -> AnswerTraits {
        let target = RequestTarget::from_bytes(bytes::Bytes::from_static(b"/")).unwrap();
        AnswerTraits::new(&Head { method, target, version, headers: map(fields) })
    }

    #[test]
    fn the_end_of_a_body_is_told_as_its_status_method_and_version_allow() {
        use AnswerFraming::{Chunked, Close, Empty, Length};
        for (method, version, status, size, framing) in [
            (Method::GET, Version::HTTP_11, 200, Some(5), Length(5)),
            (Method::GET, Version::HTTP_11, 200, Some(0), Length(0)),
            (Method::GET, Version::HTTP_11, 200, None, Chunked),
            (Method::GET, Version::HTTP_10, 200, Some(5), Length(5)),
            (Method::GET, Version::HTTP_10, 200, None, Close),
            (Method::HEAD, Version::HTTP_11, 200, Some(5), Empty),
            (Method::HEAD, Version::HTTP_11, 200, None, Empty),
            (Method::HEAD, Version::HTTP_10, 200, None, Empty),
            (Method::GET, Version::HTTP_11, 101, None, Empty),
            (Method::GET, Version::HTTP_11, 204, Some(5), Empty),
            (Method::GET, Version::HTTP_11, 205, Some(0), Length(0)),
            (Method::GET, Version::HTTP_11, 304, None, Empty),
            (Method::GET, Version::HTTP_11, 404, None, Chunked),
        ] {
            let asked = asked(method.clone(), version, &[]);
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(
                AnswerFraming::of(status, asked, size),
                framing,
                "{method} {version:?} {status} {size:?}"
            );
        }
    }

    const NEW: Version = Version::HTTP_11;
    const OLD: Version = Version::HTTP_10;

    type Fields = &'static [(&'static str, &'static str)];

    /// Fields by which an upstream frames its own connection.
    const FRAMED: Fields =
        &[("content-length", "7"), ("transfer-encoding", "gzip"), ("connection", "x"), ("a", "b")];
    const DATED: Fields = &[("date", "then")];
    const SWITCHING: Fields = &[("connection", "upgrade"), ("upgrade", "test"), ("content-length", "7")];

    /// Version, status, fields, framing, whether another request may follow, and the lines of the head.
    #[rustfmt::skip]
    const HEADS: &[(Version, u16, Fields, AnswerFraming, bool, &str)] = &[
        (NEW, 200, FRAMED, AnswerFraming::Length(5), true, "HTTP/1.1 200 OK|a: b|content-length: 5|date: now||"),
        (NEW, 200, FRAMED, AnswerFraming::Length(0), false, "HTTP/1.1 200 OK|a: b|content-length: 0|connection: close|date: now||"),
        (NEW, 200, FRAMED, AnswerFraming::Chunked, true, "HTTP/1.1 200 OK|a: b|transfer-encoding: chunked|date: now||"),
        (NEW, 200, FRAMED, AnswerFraming::Chunked, false, "HTTP/1.1 200 OK|a: b|transfer-encoding: chunked|connection: close|date: now||"),
        (OLD, 200, FRAMED, AnswerFraming::Length(5), true, "HTTP/1.0 200 OK|a: b|content-length: 5|connection: keep-alive|date: now||"),
        (OLD, 200, FRAMED, AnswerFraming::Length(5), false, "HTTP/1.0 200 OK|a: b|content-length: 5|connection: close|date: now||"),
        (OLD, 200, FRAMED, AnswerFraming::Close, false, "HTTP/1.0 200 OK|a: b|connection: close|date: now||"),
        // The response to HEAD, or a 304: the length that the body would have.
        (NEW, 200, FRAMED, AnswerFraming::Empty, true, "HTTP/1.1 200 OK|content-length: 7|a: b|date: now||"),
        (NEW, 304, FRAMED, AnswerFraming::Empty, true, "HTTP/1.1 304 Not Modified|content-length: 7|a: b|date: now||"),
        // RFC 9110 §8.6: no length in 1xx and 204.
        (NEW, 204, FRAMED, AnswerFraming::Empty, true, "HTTP/1.1 204 No Content|a: b|date: now||"),
        (NEW, 101, SWITCHING, AnswerFraming::Empty, true, "HTTP/1.1 101 Switching Protocols|connection: upgrade|upgrade: test|date: now||"),
        (NEW, 101, SWITCHING, AnswerFraming::Empty, false, "HTTP/1.1 101 Switching Protocols|connection: upgrade|upgrade: test|date: now||"),
        (NEW, 200, DATED, AnswerFraming::Length(0), true, "HTTP/1.1 200 OK|date: then|content-length: 0||"),
    ];

    #[test]
    fn a_head_has_one_framing_its_connection_and_its_date() {
        for &(version, status, fields, framing, persistent, expected) in HEADS {
            let (mut out, date) = (Vec::new(), HeaderValue::from_static("now"));
            let status = StatusCode::from_u16(status).unwrap();
            head(
                &mut out,
                (status, &map(fields)),
                asked(Method::GET, version, &[]),
                framing,
                persistent,
                &date,
            );
            let out = String::from_utf8(out).unwrap();
            assert_eq!(out.replace("\r\n", "|"), expected, "{version:?} {status} {framing:?} {persistent}");
        }
    }

    #[test]
    fn trailers_are_sent_that_were_announced_to_a_client_that_takes_them() {
        let takes = &[("te", "gzip, Trailers")][..];
        for (version, asks, announced, expected) in [
            (Version::HTTP_11, takes, &[("trailer", "B, c"), ("trailer", "d")][..], "b: 2|c: 3|d: 4|"),
            (Version::HTTP_11, takes, &[("trailer", "b")], "b: 2|"),
            (Version::HTTP_11, takes, &[], ""),
            (Version::HTTP_11, &[("te", "gzip")], &[("trailer", "b")], ""),
            (Version::HTTP_11, &[], &[("trailer", "b")], ""),
            (Version::HTTP_10, takes, &[("trailer", "b")], ""),
        ] {
            let mut out = Vec::new();
            let announced = Announced::new(asked(Method::GET, version, asks), &mut map(announced));
            announced.write(&mut out, &map(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]));
            assert_eq!(
                String::from_utf8(out).unwrap().replace("\r\n", "|"),
                expected,
                "{version:?} {asks:?}"
            );
        }
    }
}
