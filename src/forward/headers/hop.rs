//! Fields that concern one connection only (RFC 9110 §7.6.1), and the switch of protocol among them (§7.8).

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Version};

use super::Fields;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// The fields of the next hop (RFC 9110 §7.6.1).
pub(super) fn options<F: Fields>(upgrade: Option<&HeaderValue>, trailers: bool, out: &mut F) {
    let http1 = F::VERSION == Version::HTTP_11;
    if trailers {
        out.compose(&header::TE, |value| value.extend_from_slice(b"trailers"));
    }
    if !http1 {
        return;
    }
    if let Some(protocols) = upgrade {
        out.copy(&header::UPGRADE, protocols);
    }
    let options: &[u8] = match (upgrade.is_some(), trailers) {
        (true, true) => b"upgrade, te",
        (true, false) => b"upgrade",
        (false, true) => b"te",
        (false, false) => return,
    };
    out.compose(&header::CONNECTION, |value| value.extend_from_slice(options));
}

/// Removes what belongs to the upstream's hop from its answer. `listed` is its `Connection` field, if there was one.
pub(crate) fn strip_answer(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = {
        let listed = Listed::in_connection(headers);
        headers.keys().filter(|name| is_hop_by_hop(name) || listed.contains(name)).cloned().collect()
    };
    for name in listed {
        headers.remove(name);
    }
}

/// Fields of one hop in an answer (RFC 9110 §7.6.1). `Proxy-Authenticate` among them: a gateway is no proxy to its
/// clients (RFC 9110 §11.7.1).
pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    *name == header::CONNECTION
        || *name == header::TRANSFER_ENCODING
        || *name == header::UPGRADE
        || *name == header::TE
        || *name == header::PROXY_AUTHENTICATE
        || *name == KEEP_ALIVE
        || *name == PROXY_CONNECTION
}

/// Whether `headers` ask, on HTTP/1.1, for a switch of protocol that may be granted, and to what.
///
/// A switch to another HTTP is refused: its requests would pass unseen inside the tunnel.
pub(crate) fn wanted_upgrade<'a>(
    method: &Method,
    version: Version,
    headers: &'a HeaderMap,
) -> Option<&'a HeaderValue> {
    let mut protocols = headers.get_all(header::UPGRADE).iter();
    let wanted = protocols.next()?;
    let asked =
        headers.get_all(header::CONNECTION).iter().any(|value| has_token(value.as_bytes(), b"upgrade"));
    let http_or_tls = |token: &[u8]| {
        let name = token.split(|b| *b == b'/').next().unwrap_or(token);
        [&b"h2c"[..], b"h2", b"http", b"tls"].iter().any(|other| name.eq_ignore_ascii_case(other))
    };
    let granted = version == Version::HTTP_11
        && *method != Method::CONNECT
        && asked
        && protocols.next().is_none()
        && !tokens(wanted.as_bytes()).any(http_or_tls);
    granted.then_some(wanted)
}

/// Whether `answer`, the `Upgrade` of a 101, names only protocols of `wanted` (RFC 9110 §7.8).
pub(crate) fn grants_upgrade(answer: &HeaderMap, wanted: &HeaderValue) -> bool {
    let mut granted =
        answer.get_all(header::UPGRADE).iter().flat_map(|value| tokens(value.as_bytes())).peekable();
    granted.peek().is_some() && granted.all(|token| has_token(wanted.as_bytes(), token))
}

/// The names that a `Connection` field lists beside the usual options. Only fields without a fate of their own can be
/// removed so: a client must not be able to hide `Authorization`, `Cookie` or what a trusted proxy said.
pub(crate) struct Listed<'a>(Option<&'a HeaderMap>);

impl<'a> Listed<'a> {
    pub(crate) fn in_connection(headers: &'a HeaderMap) -> Self {
        let unusual = |value: &HeaderValue| {
            tokens(value.as_bytes()).any(|token| {
                ![&b"keep-alive"[..], b"close", b"upgrade", b"te"]
                    .iter()
                    .any(|usual| token.eq_ignore_ascii_case(usual))
            })
        };
        Self(headers.get_all(header::CONNECTION).iter().any(unusual).then_some(headers))
    }

    /// As bytes: a value with one byte outside ASCII must not hide its other members.
    pub(crate) fn contains(&self, name: &HeaderName) -> bool {
        self.0.is_some_and(|headers| {
            let listed = |value: &HeaderValue| has_token(value.as_bytes(), name.as_str().as_bytes());
            headers.get_all(header::CONNECTION).iter().any(listed)
        })
    }
}

/// The members of a comma-separated list, without the white space around them; empty ones are skipped.
pub(crate) fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// Whether `token` is a member of the list, in any case.
pub(crate) fn has_token(value: &[u8], token: &[u8]) -> bool {
    tokens(value).any(|member| member.eq_ignore_ascii_case(token))
}
