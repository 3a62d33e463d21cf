//! The request target, parsed once: what is judged is what is sent.
//!
//! Refuses what two parsers could read differently. Knows the path's form, not which paths exist.

use http::uri::{PathAndQuery, Scheme};
use http::{Method, Uri};

/// A request target that reads the same to every parser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// As it came.
    forwarded: PathAndQuery,
    /// The path in canonical form, when that is not how it came.
    canonical: Option<Box<str>>,
}

/// The target could be read in two ways, or is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadTarget;

/// How often an upstream and what stands before it may decode the path before a dot segment appears.
const DECODINGS: usize = 2;

impl Target {
    /// Reads a target in origin-form, absolute-form or, for `OPTIONS`, `*` (RFC 9112 §3.2).
    ///
    /// The path is judged here. The query needs no judgement: a [`Uri`] holds no control byte in it, and it has
    /// dropped a fragment, so nothing behind `#` is sent either. That HTTP/1.1 clients are told so is the business of
    /// [`check_raw`]; over HTTP/2 a fragment is gone before anyone can see it.
    ///
    /// # Errors
    /// [`BadTarget`] for control bytes, `\`, `/` or NUL behind an escape, dot segments, empty segments, invalid escapes,
    /// user information, a scheme that is not HTTP, and an absolute-form whose path is empty before a query.
    pub fn parse(method: &Method, uri: &Uri) -> Result<Self, BadTarget> {
        let http = |scheme: &Scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS;
        // User information before the host is an old way to show one host and mean another (RFC 9110 §4.2.4).
        if !uri.scheme().is_none_or(http) || uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err(BadTarget);
        }
        let forwarded = uri.path_and_query().ok_or(BadTarget)?.clone();
        if forwarded.as_str() == "*" && method == Method::OPTIONS {
            return Ok(Self { forwarded, canonical: None });
        }
        // `http://host?x` has the path `/` here and would be sent as `?x`.
        if !forwarded.as_str().starts_with('/') {
            return Err(BadTarget);
        }
        let canonical = canonical(forwarded.path())?.map(String::into_boxed_str);
        Ok(Self { forwarded, canonical })
    }

    /// What goes upstream, byte for byte what was judged.
    #[must_use]
    pub fn path_and_query(&self) -> &PathAndQuery {
        &self.forwarded
    }

    /// The query, without `?`.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.forwarded.query()
    }

    /// The path in canonical form, which routes are matched against: unreserved characters are literal, every other
    /// escape is in upper case (RFC 3986 §6.2.2).
    #[must_use]
    pub fn path(&self) -> &str {
        self.canonical.as_deref().unwrap_or_else(|| self.forwarded.path())
    }
}

/// Judges the bytes of an HTTP/1.1 request-target before they become a [`Uri`], which drops a fragment without a word
/// and refuses some bytes with an error that is not ours to shape.
///
/// # Errors
/// [`BadTarget`] for `#`, spaces and control bytes, invalid UTF-8, and the few bytes a [`Uri`] cannot hold.
pub fn check_raw(target: &[u8]) -> Result<(), BadTarget> {
    let mut in_query = false;
    for &byte in target {
        let refused = match byte {
            0..=0x20 | 0x7f | b'#' | b'<' | b'>' => true,
            b'\\' | b'`' => !in_query,
            b'"' => in_query,
            _ => false,
        };
        if refused {
            return Err(BadTarget);
        }
        in_query |= byte == b'?';
    }
    if target.is_empty() || std::str::from_utf8(target).is_err() { Err(BadTarget) } else { Ok(()) }
}

/// Judges a path and brings it into canonical form; `None` when it has that form already.
pub(super) fn canonical(path: &str) -> Result<Option<String>, BadTarget> {
    let path = path.as_bytes();
    if is_ordinary(path) {
        return Ok(None);
    }
    if !path.starts_with(b"/")
        || path.windows(2).any(|pair| pair == b"//")
        || climbs(path)
        || hides_empty(path)
    {
        return Err(BadTarget);
    }
    if path.iter().all(|&byte| is_plain(byte)) {
        return Ok(None);
    }
    let canonical = canonical_escapes(path)?;
    let mut decoded = path.to_vec();
    for level in 0..DECODINGS {
        decoded = decode(&decoded);
        if climbs(&decoded) || (level == 0 && (is_overlong(&decoded) || hides_empty(&decoded))) {
            return Err(BadTarget);
        }
    }
    Ok(Some(canonical))
}

/// Nearly every path: plain bytes, and no segment that begins as a suspicious one would.
fn is_ordinary(path: &[u8]) -> bool {
    let suspicious = |pair: &[u8]| matches!(pair, [b'/', b'/' | b'.' | b';']);
    path.starts_with(b"/") && path.iter().all(|&byte| is_plain(byte)) && !path.windows(2).any(suspicious)
}

/// Bytes that stand for themselves in a path: `pchar` without escapes, and `/` (RFC 3986 §3.3).
const fn is_plain(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(byte, b'/' | b':' | b'@')
        || matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=')
}

/// RFC 3986 §2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Whether a segment leads upwards or nowhere. Its name ends where a parser may cut parameters, query or fragment off;
/// a backslash separates segments for some.
fn climbs(path: &[u8]) -> bool {
    path.split(|byte| matches!(byte, b'/' | b'\\')).any(|segment| matches!(name(segment), b"." | b".."))
}

/// Whether a segment is empty once its parameters are cut off, which makes `/;x/admin` into `//admin`. The last may be,
/// as `/` may be the last byte.
fn hides_empty(path: &[u8]) -> bool {
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

/// Whether a byte was encoded with more bytes than UTF-8 allows, which lenient decoders read as `/` or `.` (RFC 3629 §10).
fn is_overlong(decoded: &[u8]) -> bool {
    decoded
        .windows(2)
        .any(|pair| matches!(pair, [0xc0 | 0xc1, 0x80..=0xbf] | [0xe0, 0x80..=0x9f] | [0xf0, 0x80..=0x8f]))
}

fn canonical_escapes(path: &[u8]) -> Result<String, BadTarget> {
    let mut canonical = String::with_capacity(path.len());
    let mut rest = path;
    while let [byte, after @ ..] = rest {
        rest = after;
        let byte = match *byte {
            b'%' => {
                let (decoded, after) = escape(rest).ok_or(BadTarget)?;
                rest = after;
                // A separator or NUL that only some decode.
                if decoded < 0x20 || matches!(decoded, 0x7f | b'/' | b'\\') {
                    return Err(BadTarget);
                }
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
    Ok(canonical)
}

/// The byte of two hexadecimal digits, and what follows them.
fn escape(digits: &[u8]) -> Option<(u8, &[u8])> {
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let (&[high, low], rest) = digits.split_first_chunk::<2>()?;
    Some((value(high)? << 4 | value(low)?, rest))
}

/// Decodes every valid escape once and leaves the others.
fn decode(path: &[u8]) -> Vec<u8> {
    percent_encoding::percent_decode(path).collect()
}

#[cfg(test)]
mod tests;
