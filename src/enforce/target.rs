//! The request target, parsed once: what is checked is what is sent.
//!
//! Rejects what two parsers could interpret differently. This module knows the form of a path, not which
//! paths exist.

use bytes::Bytes;
use http::Method;

mod request_target;

pub use request_target::RequestTarget;

/// A request target that every parser reads the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The target as received.
    sent: RequestTarget,
    /// The path in canonical form, if it was not received in this form.
    canonical: Option<Box<str>>,
    has_encoded_slash: bool,
}

/// The target is ambiguous or invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadTarget;

/// How often an upstream and the proxies in front of it may decode the path, which must not produce a dot
/// segment.
const DECODINGS: usize = 2;

impl Target {
    /// Parses a target in origin-form, absolute-form or, for `OPTIONS`, `*` (RFC 9112 §3.2).
    ///
    /// The query is not checked: a [`RequestTarget`] contains neither control bytes nor `#`, and the other
    /// bytes of a query do not change how a parser reads the path. A target with an encoded slash is only
    /// valid for a route that keeps them, which the caller must check.
    ///
    /// # Errors
    /// [`BadTarget`] for control bytes, an encoded `\` or NUL, dot segments, empty segments, invalid escapes,
    /// user information, a scheme that is not HTTP, and a target without a path.
    pub fn parse(method: &Method, sent: &RequestTarget) -> Result<Self, BadTarget> {
        // User information before the host is an old trick to display one host and mean another (RFC 9110
        // §4.2.4).
        if !sent.is_http() || sent.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(BadTarget);
        }
        let sent = sent.clone();
        if sent.is_asterisk() && *method == Method::OPTIONS {
            return Ok(Self { sent, canonical: None, has_encoded_slash: false });
        }
        let Canonical { text, has_encoded_slash } = canonical(sent.path_bytes())?;
        Ok(Self { sent, canonical: text.map(String::into_boxed_str), has_encoded_slash })
    }

    /// The path and query to forward, byte for byte as judged, or `*`.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        self.sent.as_bytes()
    }

    /// The query, without `?`.
    #[must_use]
    pub fn query(&self) -> Option<&[u8]> {
        self.sent.query()
    }

    /// The path in canonical form, in which routes are matched: unreserved characters are literal, all other
    /// escapes are in upper case (RFC 3986 §6.2.2).
    #[must_use]
    pub fn path(&self) -> &str {
        self.canonical.as_deref().unwrap_or_else(|| self.sent.path())
    }

    /// The bytes of [`Self::path`].
    pub(super) fn path_bytes(&self) -> &[u8] {
        self.canonical.as_deref().map_or_else(|| self.sent.path_bytes(), str::as_bytes)
    }

    /// Whether the path contains a `%2f`: part of its segment here, but a separator for an upstream that
    /// decodes before it splits.
    #[must_use]
    pub fn has_encoded_slash(&self) -> bool {
        self.has_encoded_slash
    }
}

/// The result of checking a path.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Canonical {
    /// The canonical form; `None` if the path already has it.
    pub(super) text: Option<String>,
    pub(super) has_encoded_slash: bool,
}

/// Checks a path and converts it to canonical form.
///
/// An encoded slash stays encoded. The path that an upstream would see after decoding it is checked as well:
/// neither reading may contain dot segments or empty segments.
pub(super) fn canonical(path: &[u8]) -> Result<Canonical, BadTarget> {
    if is_ordinary(path) {
        return Ok(Canonical::default());
    }
    if !path.starts_with(b"/")
        || path.windows(2).any(|pair| pair == b"//")
        || has_dot_segment(path)
        || has_empty_name(path)
    {
        return Err(BadTarget);
    }
    if path.iter().all(|&byte| is_plain(byte)) {
        return Ok(Canonical::default());
    }
    let canonical = canonical_escapes(path)?;
    let mut decoded = path.to_vec();
    for level in 0..DECODINGS {
        decoded = decode(&decoded);
        if has_dot_segment(&decoded) || (level == 0 && (is_overlong(&decoded) || has_empty_name(&decoded))) {
            return Err(BadTarget);
        }
    }
    Ok(canonical)
}

/// The common case: plain bytes, and no segment with a suspicious start.
fn is_ordinary(path: &[u8]) -> bool {
    let suspicious = |pair: &[u8]| matches!(pair, [b'/', b'/' | b'.' | b';']);
    path.starts_with(b"/") && path.iter().all(|&byte| is_plain(byte)) && !path.windows(2).any(suspicious)
}

/// Bytes that represent themselves in a path: `pchar` without escapes, and `/` (RFC 3986 §3.3).
const fn is_plain(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(byte, b'/' | b':' | b'@')
        || matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=')
}

/// Unreserved characters (RFC 3986 §2.3).
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Whether the path contains a dot segment. A segment's name ends where a parser may cut off parameters,
/// query or fragment; some parsers also separate segments at a backslash.
fn has_dot_segment(path: &[u8]) -> bool {
    path.split(|byte| matches!(byte, b'/' | b'\\')).any(|segment| matches!(name(segment), b"." | b".."))
}

/// Whether a segment is empty once its parameters are cut off, which turns `/;x/admin` into `//admin`. The
/// last segment may be empty, because a path may end with `/`.
fn has_empty_name(path: &[u8]) -> bool {
    let mut segments = path.split(|&byte| byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        if segments.peek().is_some() && name(segment).is_empty() {
            return true;
        }
    }
    false
}

fn name(segment: &[u8]) -> &[u8] {
    segment.split(|byte| matches!(byte, b';' | b'?' | b'#')).next().unwrap_or_default()
}

/// Whether a byte is encoded with more bytes than UTF-8 allows, which lenient decoders read as `/` or `.`
/// (RFC 3629 §10).
fn is_overlong(decoded: &[u8]) -> bool {
    decoded
        .windows(2)
        .any(|pair| matches!(pair, [0xc0 | 0xc1, 0x80..=0xbf] | [0xe0, 0x80..=0x9f] | [0xf0, 0x80..=0x8f]))
}

fn canonical_escapes(path: &[u8]) -> Result<Canonical, BadTarget> {
    let mut canonical = String::with_capacity(path.len());
    let mut has_encoded_slash = false;
    let mut rest = path;
    while let [byte, after @ ..] = rest {
        rest = after;
        let byte = match *byte {
            b'%' => {
                let (decoded, after) = escape(rest).ok_or(BadTarget)?;
                rest = after;
                // A separator or NUL that only some parsers decode.
                if decoded < 0x20 || matches!(decoded, 0x7f | b'\\') {
                    return Err(BadTarget);
                }
                has_encoded_slash |= decoded == b'/';
                (decoded, is_unreserved(decoded))
            }
            0..=0x1f | 0x7f | b'\\' | b'?' | b'#' => return Err(BadTarget),
            byte => (byte, is_plain(byte)),
        };
        match byte {
            (byte, true) => canonical.push(char::from(byte)),
            (byte, false) => canonical.push_str(percent_encoding::percent_encode_byte(byte)),
        }
    }
    Ok(Canonical { text: Some(canonical), has_encoded_slash })
}

/// Parses two hexadecimal digits; returns the byte and the rest.
fn escape(digits: &[u8]) -> Option<(u8, &[u8])> {
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let (&[high, low], rest) = digits.split_first_chunk::<2>()?;
    Some((value(high)? << 4 | value(low)?, rest))
}

/// Decodes every valid escape once and keeps invalid ones.
fn decode(path: &[u8]) -> Vec<u8> {
    percent_encoding::percent_decode(path).collect()
}

#[cfg(test)]
mod tests;
