//! Requests to the upstream in HTTP/1.1: the head as bytes, the body framed (RFC 9112).
//!
//! Does no I/O. Bytes wait in the `Outbox`, which is at most one piece of the body long.

use std::io::IoSlice;

use bytes::{Buf as _, Bytes};
use http::header::{HeaderMap, HeaderValue};
use http::{Method, header};

use crate::forward::headers::{self, FieldRules, Http1Fields};

/// How the end of a request's body is told (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestFraming {
    /// There is none.
    Empty,
    /// So many bytes are still to come.
    Length(u64),
    /// Chunked coding.
    Chunked,
}

impl RequestFraming {
    /// For a body of `size`, when that is known.
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

/// Whether the absence of a body is said: where one is usual, and where the client said it (RFC 9110 §8.6).
pub(crate) fn announces_empty(method: &Method, headers: &HeaderMap<HeaderValue>) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
        || headers.contains_key(header::CONTENT_LENGTH)
}

/// What is to be written next: framing, one piece of body, framing.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Heads, chunk sizes and trailers.
    lead: Vec<u8>,
    /// How much of `lead` is written.
    written: usize,
    piece: Bytes,
    tail: &'static [u8],
}

impl Outbox {
    /// Everything is written.
    pub(crate) fn is_empty(&self) -> bool {
        self.lead.is_empty() && self.piece.is_empty() && self.tail.is_empty()
    }

    /// Another piece may be put in.
    pub(crate) fn takes_more(&self) -> bool {
        self.piece.is_empty() && self.tail.is_empty()
    }

    /// Where a head is written to.
    pub(crate) fn lead(&mut self) -> &mut Vec<u8> {
        &mut self.lead
    }

    /// A piece of the body as it is.
    pub(crate) fn put(&mut self, piece: Bytes) {
        self.piece = piece;
    }

    /// A chunk; with `last`, also the end of the body.
    pub(crate) fn put_chunk(&mut self, piece: Bytes, last: bool) {
        let digits = (u64::BITS - (piece.len() as u64).leading_zeros()).div_ceil(4);
        let nibble = |place: u32| (piece.len() >> (place * 4)) & 0xf;
        self.lead.extend(
            (0..digits).rev().map(|place| b"0123456789abcdef".get(nibble(place)).copied().unwrap_or(b'0')),
        );
        self.lead.extend_from_slice(b"\r\n");
        self.piece = piece;
        self.tail = if last { b"\r\n0\r\n\r\n" } else { b"\r\n" };
    }

    /// The end of a chunked body, with the trailers that may be forwarded.
    pub(crate) fn put_end(&mut self, rules: &FieldRules, trailers: &HeaderMap) {
        self.lead.extend_from_slice(b"0\r\n");
        headers::request_trailers(rules, trailers, &mut Http1Fields(&mut self.lead));
        self.lead.extend_from_slice(b"\r\n");
    }

    /// What is to be written, for one `writev`.
    pub(crate) fn slices(&self) -> [IoSlice<'_>; 3] {
        let lead = self.lead.get(self.written..).unwrap_or_default();
        [IoSlice::new(lead), IoSlice::new(&self.piece), IoSlice::new(self.tail)]
    }

    /// `count` bytes were written.
    pub(crate) fn advance(&mut self, count: usize) {
        let lead = count.min(self.lead.len() - self.written);
        self.written += lead;
        if self.written == self.lead.len() {
            self.lead.clear();
            self.written = 0;
        }
        let piece = (count - lead).min(self.piece.len());
        self.piece.advance(piece);
        self.tail = self.tail.get(count - lead - piece..).unwrap_or_default();
    }
}
