//! Parses the heads of HTTP/1.1 requests and decides whether they are acceptable (RFC 9112).
//!
//! Performs no I/O: it takes a complete head from the bytes received, and stops at the first byte that two
//! parsers could interpret differently. This module knows framing, not what a request asks for.

use std::fmt;
use std::rc::Rc;

use ::http::{Method, StatusCode};
use bytes::BytesMut;
use memchr::memchr;

use super::lines::{BodyFraming, HeadLines};
use crate::gate::http;

/// Limits on a request's head and trailers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadLimits {
    /// Maximum size from the request line to the empty line, inclusive.
    pub(crate) bytes: usize,
    /// Maximum number of field lines.
    pub(crate) fields: usize,
}

/// Why reading of a request stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Http1Fault {
    /// The response status, if a response can still be sent.
    pub(crate) status: StatusCode,
    /// The description for the client.
    pub(crate) problem: &'static str,
    /// Whether the fault is in the target or host rather than in the framing.
    pub(crate) of_target: bool,
}

impl Http1Fault {
    pub(super) const fn new(status: StatusCode, problem: &'static str) -> Self {
        Self { status, problem, of_target: false }
    }

    pub(super) const fn bad(problem: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, problem)
    }

    pub(super) const fn target(problem: &'static str) -> Self {
        Self { of_target: true, ..Self::bad(problem) }
    }
}

impl fmt::Display for Http1Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.problem)
    }
}

impl std::error::Error for Http1Fault {}

/// A request's head.
#[derive(Debug)]
pub(crate) struct RequestHead {
    /// Method, target and fields.
    pub(crate) head: Rc<http::Head>,
    /// How its body is delimited.
    pub(crate) body: BodyFraming,
    /// Whether the client asks for another protocol in a form that can be granted (RFC 9110 §7.8).
    pub(crate) wants_upgrade: bool,
    /// Whether the client wants to send another request afterwards (RFC 9112 §9.3).
    pub(crate) keep_alive: bool,
}

/// Reads heads from a connection's bytes.
#[derive(Debug)]
pub(crate) struct HeadReader {
    limits: HeadLimits,
    lines: HeadLines,
    /// Where the current line begins.
    line: usize,
    /// How far the search for the line end has got.
    looked: usize,
}

impl HeadReader {
    pub(crate) fn new(limits: HeadLimits) -> Self {
        Self { limits, lines: HeadLines::default(), line: 0, looked: 0 }
    }

    /// The method of the current head, if it has been received.
    pub(super) fn method(&self) -> Option<&Method> {
        self.lines.method()
    }

    /// Takes a head from `inbox`; `None` if more bytes are needed. Reads each byte once, however they arrive.
    ///
    /// # Errors
    /// At the first byte that makes the head unacceptable. Nothing may be read after it.
    pub(crate) fn read(&mut self, inbox: &mut BytesMut) -> Result<Option<RequestHead>, Http1Fault> {
        while let Some(end) = inbox.get(self.looked..).and_then(|rest| memchr(b'\n', rest)) {
            let end = self.looked + end;
            let line = inbox.get(self.line..=end).unwrap_or_default();
            // Checked in the same order however the line arrived, so that the fault is the same.
            self.lines.check_first_byte(line)?;
            self.lines.check_size(line, self.limits)?;
            // RFC 9112 §2.2 allows a lone LF as a line end, which is how two parsers come to disagree.
            let line = line.strip_suffix(b"\r\n").ok_or(Http1Fault::bad("A line does not end with CRLF"))?;
            let body = self.lines.line(line, self.line, self.limits)?;
            (self.line, self.looked) = (end + 1, end + 1);
            if let Some(body) = body {
                (self.line, self.looked) = (0, 0);
                return self.lines.take(&inbox.split_to(end + 1).freeze(), body).map(Some);
            }
        }
        let rest = inbox.get(self.line..).unwrap_or_default();
        self.lines.check_first_byte(rest)?;
        self.lines.check_size(rest, self.limits)?;
        self.looked = inbox.len();
        Ok(None)
    }
}
