//! The request target as received, byte for byte, before it is checked (RFC 9112 §3.2).
//!
//! This module knows its forms and parts. A target is created from an HTTP/1.1 request line, or from a URI
//! parsed by HTTP/2.

use bytes::Bytes;
use http::Uri;
use http::uri::{Authority, Scheme};

use super::BadTarget;

/// A request target as the client sent it.
///
/// The path is UTF-8; the query may contain any bytes but control bytes, spaces and `#`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestTarget {
    /// Path and query, or `*`; empty in authority-form.
    text: Bytes,
    /// The length of the path.
    path: usize,
    /// The host of an absolute-form target, or `:authority`.
    authority: Option<Authority>,
    /// Whether the scheme, if any, is HTTP or HTTPS.
    is_http: bool,
}

impl RequestTarget {
    /// Parses the target of an HTTP/1.1 request line in origin-form or absolute-form, or `*`. Keeps the bytes
    /// without copying.
    ///
    /// # Errors
    /// [`BadTarget`] for control bytes, spaces, `#`, a path that is not UTF-8, and any other form.
    pub fn from_bytes(target: Bytes) -> Result<Self, BadTarget> {
        if target.first() == Some(&b'/') {
            return Self::new(target, None);
        }
        if &*target == b"*" {
            return Ok(Self { text: target, path: 1, authority: None, is_http: true });
        }
        let scheme = [&b"http://"[..], b"https://"].into_iter().find(|scheme| {
            target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        });
        let rest = target.slice(scheme.ok_or(BadTarget)?.len()..);
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
        let authority = Authority::from_maybe_shared(rest.slice(..end)).map_err(|_invalid| BadTarget)?;
        let text = if end == rest.len() { Bytes::from_static(b"/") } else { rest.slice(end..) };
        // `http://host?x` has no path and would be sent as `?x`.
        if text.first() == Some(&b'/') { Self::new(text, Some(authority)) } else { Err(BadTarget) }
    }

    fn new(text: Bytes, authority: Option<Authority>) -> Result<Self, BadTarget> {
        // No early exit, so that the compiler can vectorize the loop.
        let refused = |found, &byte: &u8| found | (byte <= 0x20) | (byte == 0x7f) | (byte == b'#');
        let path = text.iter().position(|&byte| byte == b'?').unwrap_or(text.len());
        let is_text = text.get(..path).is_some_and(|path| std::str::from_utf8(path).is_ok());
        if text.iter().fold(false, refused) || !is_text {
            return Err(BadTarget);
        }
        Ok(Self { text, path, authority, is_http: true })
    }

    /// Path and query, or `*`; empty in authority-form.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.text
    }

    /// The path as received.
    #[must_use]
    pub fn path(&self) -> &str {
        // Every constructor ensures that this is UTF-8.
        std::str::from_utf8(self.path_bytes()).unwrap_or_default()
    }

    /// The bytes of the path.
    pub(super) fn path_bytes(&self) -> &[u8] {
        self.text.get(..self.path).unwrap_or_default()
    }

    /// Whether it is `*`, which has no path.
    #[must_use]
    pub fn is_asterisk(&self) -> bool {
        &*self.text == b"*"
    }

    /// The query as received, without `?`.
    #[must_use]
    pub fn query(&self) -> Option<&[u8]> {
        self.text.get(self.path + 1..)
    }

    /// The host in the target itself: in absolute-form, and over HTTP/2.
    #[must_use]
    pub fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }

    /// Whether the scheme, if any, is HTTP or HTTPS.
    pub(super) fn is_http(&self) -> bool {
        self.is_http
    }

    /// Copies the bytes out of the buffer of the whole head, and drops the authority, to save memory.
    pub fn compact(&mut self) {
        self.text = Bytes::copy_from_slice(&self.text);
        self.authority = None;
    }
}

impl From<&Uri> for RequestTarget {
    /// Converts a target parsed by HTTP/2, which has already removed a fragment.
    fn from(uri: &Uri) -> Self {
        let sent = uri.path_and_query().map(|sent| sent.as_str().as_bytes()).unwrap_or_default();
        let path = sent.iter().position(|&byte| byte == b'?').unwrap_or(sent.len());
        let is_http = uri.scheme().is_none_or(|scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS);
        Self { text: Bytes::copy_from_slice(sent), path, authority: uri.authority().cloned(), is_http }
    }
}
