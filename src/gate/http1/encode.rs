//! Answers in HTTP/1.1: the head as bytes, and how the body is framed (RFC 9112 §6).
//!
//! Does no I/O.

use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TE, TRAILER, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};

use crate::gate::http::Head;

/// What an answer depends on of its request.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnswerTraits {
    is_head: bool,
    version: Version,
    /// The client takes trailers (RFC 9110 §10.1.4).
    takes_trailers: bool,
}

impl AnswerTraits {
    pub(super) fn new(head: &Head) -> Self {
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

/// How the end of an answer's body is told (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnswerFraming {
    /// No body, whatever the fields say of one.
    Empty,
    /// So many bytes are still to come.
    Length(u64),
    /// In chunks.
    Chunked,
    /// By the end of the connection.
    Close,
}

impl AnswerFraming {
    /// For a body of `size`, when that is known.
    pub(super) fn of(status: StatusCode, asked: AnswerTraits, size: Option<u64>) -> Self {
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

/// Writes the head of an answer. `persistent`: another request may follow.
pub(super) fn head(
    out: &mut Vec<u8>,
    (status, headers): (StatusCode, &HeaderMap),
    asked: AnswerTraits,
    framing: AnswerFraming,
    persistent: bool,
    date: &HeaderValue,
) {
    let switches = status == StatusCode::SWITCHING_PROTOCOLS;
    // An answer without a body may still tell the length that the body would have (RFC 9110 §8.6).
    let keeps_length = framing == AnswerFraming::Empty && !switches && status != StatusCode::NO_CONTENT;
    out.reserve(512);
    status_line(out, asked.version, status);
    for (name, value) in headers {
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
    if !headers.contains_key(DATE) {
        field(out, &DATE, date.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes a status line; HTTP/1.0 is answered in its own version.
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

/// The trailers that may be sent: those that the head has announced, to a client that takes them.
#[derive(Debug)]
pub(super) struct Announced(Option<HeaderMap>);

impl Announced {
    pub(super) fn new(asked: AnswerTraits, headers: &mut HeaderMap) -> Self {
        if !asked.takes_trailers || !headers.contains_key(TRAILER) {
            return Self(None);
        }
        Self(Some(headers.get_all(TRAILER).iter().map(|names| (TRAILER, names.clone())).collect()))
    }

    /// Writes those of `trailers`.
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
