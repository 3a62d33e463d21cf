//! Extracts the token of a request (RFC 6750 §2, RFC 9449 §7.1).
//!
//! This module knows how a token is presented, but not what it contains.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};

use super::denial::Reason;

pub mod websocket;

/// How tokens may be presented (`[bearer]`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BearerSettings {
    /// The sub-protocol that marks a token in a WebSocket handshake; `None`: tokens come in `Authorization`
    /// only.
    pub websocket_protocol: Option<HeaderValue>,
}

/// A token in the form of RFC 6750 §2.1; if it comes from [`presented`], its form is not checked yet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BearerToken<'a> {
    text: &'a [u8],
    scheme: TokenScheme,
}

/// How a token is presented.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TokenScheme {
    /// As a bearer token: possession of it is enough.
    #[default]
    Bearer,
    /// With a proof of possession of its key (RFC 9449 §7.1).
    Dpop,
}

/// Maximum length of a token in bytes.
pub const MAX_LENGTH: usize = 16 * 1024;

impl std::fmt::Debug for BearerToken<'_> {
    /// Never prints the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BearerToken(…)")
    }
}

impl<'a> BearerToken<'a> {
    /// Parses a string as a token.
    ///
    /// # Errors
    /// [`Reason::Malformed`] when it is not a `b64token` or is too long.
    pub fn new(token: &'a [u8]) -> Result<Self, Reason> {
        let token = Self { text: token, scheme: TokenScheme::Bearer };
        token.check_form()?;
        Ok(token)
    }

    /// Checks the token's form. Not needed for a token that was verified before.
    ///
    /// # Errors
    /// [`Reason::Malformed`] when it is not a `b64token` or is too long.
    pub fn check_form(self) -> Result<(), Reason> {
        let token = self.text;
        let (body, padding) =
            token.split_at(token.iter().rposition(|&byte| byte != b'=').map_or(0, |last| last + 1));
        // No early exit inside a chunk, so that the compiler can vectorize the loop.
        let is_b64 =
            body.chunks(64).all(|chunk| chunk.iter().fold(true, |all, &byte| all & is_b64token(byte)));
        let whole = !body.is_empty() && body.len() + padding.len() <= MAX_LENGTH;
        if whole && is_b64 { Ok(()) } else { Err(Reason::Malformed) }
    }

    /// The token as received.
    #[must_use]
    pub fn as_bytes(self) -> &'a [u8] {
        self.text
    }

    /// The scheme with which it was presented.
    #[must_use]
    pub fn scheme(self) -> TokenScheme {
        self.scheme
    }
}

/// The token that a request presents; `None` if it presents none, or credentials of another scheme.
///
/// # Errors
/// [`Reason::Ambiguous`] for more than one field, credentials beside a WebSocket's token, or an
/// `access_token` parameter beside the token (RFC 6750 §2); [`Reason::Malformed`] for a token of the wrong
/// form. An `access_token` parameter alone is not a credential.
pub fn extract<'a>(
    headers: &'a HeaderMap,
    query: Option<&[u8]>,
    settings: &'a BearerSettings,
) -> Result<Option<BearerToken<'a>>, Reason> {
    let token = presented(headers, query, settings)?;
    token.map_or(Ok(()), BearerToken::check_form)?;
    Ok(token)
}

/// As [`extract`], but without checking the token's form, which takes a scan of all its bytes and is not
/// needed for a known token.
///
/// # Errors
/// As for [`extract`], apart from the token's characters.
pub fn presented<'a>(
    headers: &'a HeaderMap,
    query: Option<&[u8]>,
    settings: &'a BearerSettings,
) -> Result<Option<BearerToken<'a>>, Reason> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let (field, websocket_token) = (fields.next(), settings.websocket_token(headers)?);
    if fields.next().is_some() || (field.is_some() && websocket_token.is_some()) {
        return Err(Reason::Ambiguous);
    }
    let credentials = field.and_then(|field| credentials(field.as_bytes()));
    let is_presented = credentials.is_some() || websocket_token.is_some();
    if is_presented && query.is_some_and(has_access_token) {
        return Err(Reason::Ambiguous);
    }
    let with_text = |text: &'a [u8], scheme| match text.len() {
        1..=MAX_LENGTH => Ok(Some(BearerToken { text, scheme })),
        _ => Err(Reason::Malformed),
    };
    if let Some(token) = websocket_token {
        return with_text(token, TokenScheme::Bearer);
    }
    let Some((scheme, credentials)) = credentials else { return Ok(None) };
    // credentials = scheme 1*SP b64token
    let token = credentials.iter().position(|&byte| byte != b' ').map(|spaces| credentials.split_at(spaces));
    match token {
        Some((spaces, token)) if !spaces.is_empty() => with_text(token, scheme),
        _ => Err(Reason::Malformed),
    }
}

/// Whether a request presents a token, whatever its form: any `Authorization` field of the scheme Bearer or DPoP, or the
/// sub-protocols of a WebSocket.
#[must_use]
pub fn is_presented(headers: &HeaderMap, settings: &BearerSettings) -> bool {
    headers.get_all(AUTHORIZATION).iter().any(|field| credentials(field.as_bytes()).is_some())
        || settings.is_marked(headers)
}

/// The scheme that a request uses, whatever follows it; if there are several fields, DPoP if one of them uses
/// it.
#[must_use]
pub fn scheme(headers: &HeaderMap) -> TokenScheme {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let is_dpop = |field: &HeaderValue| {
        credentials(field.as_bytes()).is_some_and(|(scheme, _)| scheme == TokenScheme::Dpop)
    };
    if fields.any(is_dpop) { TokenScheme::Dpop } else { TokenScheme::Bearer }
}

/// Splits off the scheme, in any case (RFC 9110 §11.1). White space before the scheme is not allowed, but
/// ignored here, so that an upstream that trims it cannot find a token that was not judged.
fn credentials(field: &[u8]) -> Option<(TokenScheme, &[u8])> {
    let field = field.trim_ascii_start();
    [(TokenScheme::Bearer, "Bearer"), (TokenScheme::Dpop, "DPoP")].into_iter().find_map(|(scheme, name)| {
        let (found, credentials) = field.split_at_checked(name.len())?;
        let ends = credentials.first().is_none_or(|byte| byte.is_ascii_whitespace());
        (ends && found.eq_ignore_ascii_case(name.as_bytes())).then_some((scheme, credentials))
    })
}

const fn is_b64token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/')
}

/// Whether a query has a parameter `access_token`, in any encoding that a form decoder undoes.
fn has_access_token(query: &[u8]) -> bool {
    query.split(|byte| matches!(byte, b'&' | b';')).any(|parameter| {
        let name = parameter.split(|&byte| byte == b'=').next().unwrap_or_default();
        name == b"access_token"
            || (name.contains(&b'%') && percent_encoding::percent_decode(name).eq(*b"access_token"))
    })
}

#[cfg(test)]
mod tests;
