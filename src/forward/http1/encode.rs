//! Encodes requests to the upstream in HTTP/1.1: the head, and the framing of the body (RFC 9112).
//!
//! Performs no I/O.

use http::header::{HeaderMap, HeaderValue};
use http::{Method, header};

use crate::forward::headers::{self, FieldRules, Http1Fields};

/// Initial capacity for a head of usual size, to avoid reallocation.
const USUAL_HEAD: usize = 1024;

/// How the end of a request's body is marked (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestFraming {
    /// There is no body.
    Empty,
    /// This many more bytes.
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
}

impl RequestFraming {
    /// The framing for a body of `size`, if that is known.
    pub(crate) fn of(is_empty: bool, size: Option<u64>) -> Self {
        match size {
            _ if is_empty => Self::Empty,
            Some(size) => Self::Length(size),
            None => Self::Chunked,
        }
    }
}

/// Writes a request head into `out`.
pub(crate) fn head(
    out: &mut Vec<u8>,
    method: &Method,
    target: &[u8],
    rules: &FieldRules,
    fields: &headers::RequestFields<'_>,
    framing: RequestFraming,
) {
    out.reserve(USUAL_HEAD);
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target);
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    out.extend_from_slice(fields.host.as_bytes());
    out.extend_from_slice(b"\r\n");
    headers::request(rules, fields, &mut Http1Fields(out));
    match framing {
        RequestFraming::Empty if !announces_empty(method, fields.headers) => {}
        RequestFraming::Empty => out.extend_from_slice(b"content-length: 0\r\n"),
        RequestFraming::Length(length) => {
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        RequestFraming::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether to announce an empty body: for methods that usually have one, and if the client announced it (RFC
/// 9110 §8.6).
pub(crate) fn announces_empty(method: &Method, headers: &HeaderMap<HeaderValue>) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
        || headers.contains_key(header::CONTENT_LENGTH)
}
