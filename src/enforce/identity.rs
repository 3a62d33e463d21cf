//! What the upstream learns about a token: header values made from claims, once, when the token is verified.
//!
//! A string is sent as it is, the members of an array are joined with commas (scopes with spaces), other JSON
//! is compact. These are percent-encoded: bytes outside visible ASCII; `%` itself; a space that begins or
//! ends a string or member, which parsers trim; and the separator inside a member. So splitting at the
//! separator, then percent-decoding, gives back exactly what the issuer wrote, and no claim can pass as
//! another.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::claims::{ClaimNames, UnusableToken, lists};
use super::policy::{IdentityClaim, IdentitySettings, OnOverflow};

/// The identity headers of one token.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct IdentityHeaders {
    /// The headers, ready to send.
    pub sent: Vec<(HeaderName, HeaderValue)>,
    /// The names of headers too long to be sent, joined with commas.
    pub omitted: Option<Box<str>>,
}

/// A header that would be longer than `max_value`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong {
    /// Its name.
    pub(super) header: HeaderName,
    /// The length it would have.
    pub(super) length: usize,
}

/// Renders the configured headers; an absent claim means an absent header.
///
/// # Errors
/// [`TooLong`] for a value above `max_value`, unless such headers are omitted.
pub(super) fn render(
    settings: &IdentitySettings,
    names: &ClaimNames,
    payload: &Map<String, Value>,
) -> Result<IdentityHeaders, TooLong> {
    let (mut sent, mut omitted) = (Vec::with_capacity(settings.headers.len()), Vec::new());
    for (name, claim) in &settings.headers {
        let separator = if *claim == IdentityClaim::Scope { b' ' } else { b',' };
        let claim = match claim {
            IdentityClaim::Scope => match names.scope.as_slice() {
                [one] => one.find(payload).map(Cow::Borrowed),
                several => array(lists::scopes(several, payload)),
            },
            // Always as a list: a string is one role, and one with a comma must not be read as two.
            IdentityClaim::Roles => array(lists::roles(&names.roles, payload)),
            IdentityClaim::Subject => names.subject.find(payload).map(Cow::Borrowed),
            IdentityClaim::Client => names.client.find(payload).map(Cow::Borrowed),
            IdentityClaim::Tenant => names.tenant.find(payload).map(Cow::Borrowed),
            IdentityClaim::Token(claim) => claim.find(payload).map(Cow::Borrowed),
        };
        let Some(value) = claim.map(|claim| value(&claim, separator)) else { continue };
        match HeaderValue::from_bytes(&value) {
            Ok(value) if value.len() <= settings.max_value => sent.push((name.clone(), value)),
            Ok(_) | Err(_) if settings.on_overflow == OnOverflow::Omit => omitted.push(name.as_str()),
            Ok(_) | Err(_) => return Err(TooLong { header: name.clone(), length: value.len() }),
        }
    }
    let omitted = (!omitted.is_empty()).then(|| omitted.join(",").into());
    Ok(IdentityHeaders { sent, omitted })
}

/// A list as a claim value. A token with an unreadable list was already rejected.
fn array<'p>(list: Result<Option<Vec<&str>>, UnusableToken>) -> Option<Cow<'p, Value>> {
    list.ok().flatten().map(|members| Cow::Owned(members.into()))
}

/// A claim as text: a string as it is, other JSON in compact form.
pub(super) fn plain(claim: &Value) -> Box<str> {
    text(claim).into()
}

fn text(claim: &Value) -> Cow<'_, str> {
    claim.as_str().map_or_else(|| Cow::Owned(claim.to_string()), Cow::Borrowed)
}

fn value(claim: &Value, separator: u8) -> Vec<u8> {
    let mut value = Vec::new();
    match claim.as_array() {
        None => encode(&text(claim), None, &mut value),
        Some(members) => {
            for (index, member) in members.iter().enumerate() {
                if index > 0 {
                    value.push(separator);
                }
                encode(&text(member), Some(separator), &mut value);
            }
        }
    }
    value
}

fn encode(text: &str, separator: Option<u8>, value: &mut Vec<u8>) {
    let last = text.len().saturating_sub(1);
    for (index, byte) in text.bytes().enumerate() {
        let stays = match byte {
            b'%' => false,
            b' ' => index > 0 && index < last,
            byte => byte.is_ascii_graphic(),
        };
        if stays && separator != Some(byte) {
            value.push(byte);
        } else {
            value.extend_from_slice(percent_encoding::percent_encode_byte(byte).as_bytes());
        }
    }
}

#[cfg(test)]
mod tests;
