//! Parses the upstream's HTTP/1.1 responses: takes bytes, and returns a head and then the pieces of the body
//! (RFC 9112).
//!
//! Performs no I/O and has no clock. Ambiguous input is an error.

pub(crate) mod body;

use std::fmt;
use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use crate::forward::headers::hop::{has_token, is_hop_by_hop, strip_answer, tokens};

/// Maximum size of a response head.
const MAX_HEAD: usize = 64 * 1024;
/// Maximum number of fields in a response head, and in its trailers.
const MAX_FIELDS: usize = 256;

/// What is invalid about an upstream's response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadAnswer {
    /// The head violates RFC 9112.
    Head,
    /// The head is larger than 64 KiB or has more than 256 fields.
    TooLarge,
    /// `Content-Length` is not a number, or there are several that differ (RFC 9112 §6.3).
    ContentLength,
    /// `Transfer-Encoding` beside `Content-Length`, in HTTP/1.0, or anything but `chunked` (RFC 9112 §6.1).
    TransferEncoding,
    /// The chunked coding is invalid (RFC 9112 §7.1).
    Chunk,
    /// A 101 that was not requested, or that names a protocol that was not.
    Switch,
    /// Too many interim responses.
    Interim,
    /// HTTP/2 is violated (RFC 9113 §8.1.1).
    Http2,
}

impl fmt::Display for BadAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Head => "malformed response head",
            Self::TooLarge => "response head too large",
            Self::ContentLength => "invalid Content-Length",
            Self::TransferEncoding => "invalid Transfer-Encoding",
            Self::Chunk => "invalid chunked encoding",
            Self::Switch => "unexpected protocol switch",
            Self::Interim => "too many interim responses",
            Self::Http2 => "malformed HTTP/2 response",
        })
    }
}

impl std::error::Error for BadAnswer {}

/// A response head.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ResponseHead {
    pub(crate) status: StatusCode,
    /// Without hop-by-hop fields, except that a 101 keeps `Connection` and `Upgrade`.
    pub(crate) headers: HeaderMap,
    pub(crate) framing: ResponseFraming,
    /// Whether the connection may serve another request afterwards (RFC 9112 §9.3).
    pub(crate) persistent: bool,
}

/// How the end of the body is marked (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResponseFraming {
    /// There is no body.
    Empty,
    /// After this many bytes.
    Length(u64),
    /// With the last chunk and the trailers.
    Chunked,
    /// With the end of the connection.
    Close,
}

/// Finds the end of a head, remembering how far the search has got.
#[derive(Debug, Default)]
pub(crate) struct HeadEnd {
    looked: usize,
}

impl HeadEnd {
    /// The length of the head at the start of `buffer`, including the empty line.
    fn find(&mut self, buffer: &[u8]) -> Option<usize> {
        while let Some(rest) = buffer.get(self.looked..) {
            let line_end = self.looked + memchr::memchr(b'\n', rest)?;
            match buffer.get(line_end + 1..) {
                Some([b'\n', ..]) => return Some(line_end + 2),
                Some([b'\r', b'\n', ..]) => return Some(line_end + 3),
                // Too few bytes after this line end: check it again later.
                None | Some([] | [b'\r']) => {
                    self.looked = line_end;
                    return None;
                }
                Some(_) => self.looked = line_end + 1,
            }
        }
        None
    }
}

/// Takes a head from `buffer`; `None` if more bytes are needed.
pub(crate) fn head(
    buffer: &mut BytesMut,
    end: &mut HeadEnd,
    request: &Method,
) -> Result<Option<ResponseHead>, BadAnswer> {
    let Some(length) = end.find(buffer).filter(|length| *length <= MAX_HEAD) else {
        return if buffer.len() > MAX_HEAD { Err(BadAnswer::TooLarge) } else { Ok(None) };
    };
    *end = HeadEnd::default();
    parse(&buffer.split_to(length).freeze(), request).map(Some)
}

fn parse(bytes: &Bytes, request: &Method) -> Result<ResponseHead, BadAnswer> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default()
        // Removed, as required of a proxy (RFC 9112 §5.1): `httparse` ends the name before them.
        .allow_spaces_after_header_name_in_responses(true)
        .parse_response_with_uninit_headers(&mut response, bytes, &mut fields)
        .map_err(|error| match error {
            httparse::Error::TooManyHeaders => BadAnswer::TooLarge,
            _ => BadAnswer::Head,
        })?;
    if parsed != httparse::Status::Complete(bytes.len()) {
        return Err(BadAnswer::Head);
    }
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(BadAnswer::Head)?;
    let mut read = HeadFields::default();
    let mut headers = HeaderMap::with_capacity(response.headers.len() + 1);
    for field in response.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).or(Err(BadAnswer::Head))?;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value)).or(Err(BadAnswer::Head))?;
        if read.keep(&name, &value)? {
            headers.append(name, value);
        }
    }
    let http10 = response.version == Some(0);
    let framing = read.framing(status, http10, request)?;
    if status == StatusCode::NO_CONTENT {
        headers.remove(header::CONTENT_LENGTH);
    }
    if read.to_strip && status != StatusCode::SWITCHING_PROTOCOLS {
        strip_answer(&mut headers).or(Err(BadAnswer::Head))?;
    }
    let persistent = if http10 { read.keep_alive && !read.close } else { !read.close };
    Ok(ResponseHead { status, headers, framing, persistent: persistent && framing != ResponseFraming::Close })
}

/// What the fields of a head say about the message and its hop.
#[derive(Default)]
struct HeadFields {
    length: Option<u64>,
    chunked: bool,
    /// Whether `Connection` lists other fields, or there is an `Upgrade`.
    to_strip: bool,
    close: bool,
    keep_alive: bool,
}

impl HeadFields {
    /// Processes one field; returns whether to keep it. An `Upgrade` and its `Connection` are kept at first,
    /// because a 101 needs them.
    fn keep(&mut self, name: &HeaderName, value: &HeaderValue) -> Result<bool, BadAnswer> {
        if *name == header::CONTENT_LENGTH {
            let length = content_length(value.as_bytes())?;
            return match self.length.replace(length) {
                Some(other) if other != length => Err(BadAnswer::ContentLength),
                other => Ok(other.is_none()),
            };
        }
        if *name == header::TRANSFER_ENCODING {
            if self.chunked || !value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") {
                return Err(BadAnswer::TransferEncoding);
            }
            self.chunked = true;
            return Ok(false);
        }
        if *name == header::CONNECTION {
            self.close |= has_token(value.as_bytes(), b"close");
            self.keep_alive |= has_token(value.as_bytes(), b"keep-alive");
            let plain = tokens(value.as_bytes()).all(is_plain_option);
            self.to_strip |= !plain;
            return Ok(!plain);
        }
        if *name == header::UPGRADE {
            self.to_strip = true;
            return Ok(true);
        }
        Ok(!is_hop_by_hop(name))
    }

    fn framing(
        &self,
        status: StatusCode,
        http10: bool,
        request: &Method,
    ) -> Result<ResponseFraming, BadAnswer> {
        if self.chunked && (http10 || self.length.is_some()) {
            return Err(BadAnswer::TransferEncoding);
        }
        let bodiless = *request == Method::HEAD
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        Ok(match self.length {
            _ if bodiless => ResponseFraming::Empty,
            _ if self.chunked => ResponseFraming::Chunked,
            Some(0) => ResponseFraming::Empty,
            Some(length) => ResponseFraming::Length(length),
            None => ResponseFraming::Close,
        })
    }
}

fn is_plain_option(token: &[u8]) -> bool {
    token.eq_ignore_ascii_case(b"close") || token.eq_ignore_ascii_case(b"keep-alive")
}

fn content_length(value: &[u8]) -> Result<u64, BadAnswer> {
    if value.is_empty() {
        return Err(BadAnswer::ContentLength);
    }
    value.iter().try_fold(0u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0')).ok_or(BadAnswer::ContentLength)?;
        sum.checked_mul(10).and_then(|sum| sum.checked_add(digit)).ok_or(BadAnswer::ContentLength)
    })
}

#[cfg(test)]
mod tests;
