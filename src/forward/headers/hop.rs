//! Fields that concern one connection only (RFC 9110 §7.6.1), including protocol upgrades (§7.8).

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Version};

use super::FieldSink;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Writes the fields of the next hop (RFC 9110 §7.6.1).
pub(super) fn options<F: FieldSink>(upgrade: Option<&HeaderValue>, trailers: bool, out: &mut F) {
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

/// Removes the fields of the upstream's hop from its response, including those that its `Connection` field
/// lists.
pub(crate) fn strip_answer(headers: &mut HeaderMap) -> Result<(), TooMany> {
    let listed = Listed::in_connection(headers)?;
    let stripped = headers.keys().filter(|name| is_hop_by_hop(name) || listed.contains(name));
    for name in stripped.cloned().collect::<Vec<HeaderName>>() {
        headers.remove(name);
    }
    Ok(())
}

/// Whether a response field concerns one hop only (RFC 9110 §7.6.1). `Proxy-Authenticate` is among them,
/// because a gateway is not a proxy to its clients (RFC 9110 §11.7.1).
pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    *name == header::CONNECTION
        || *name == header::TRANSFER_ENCODING
        || *name == header::UPGRADE
        || *name == header::TE
        || *name == header::PROXY_AUTHENTICATE
        || *name == KEEP_ALIVE
        || *name == PROXY_CONNECTION
}

/// The protocol that an HTTP/1.1 request asks to switch to, if the switch may be granted.
///
/// A switch to another version of HTTP is refused: its requests would pass unseen inside the tunnel.
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

/// Whether `answer`, the `Upgrade` of a 101, names only protocols in `wanted` (RFC 9110 §7.8).
pub(crate) fn grants_upgrade(answer: &HeaderMap, wanted: &HeaderValue) -> bool {
    let mut granted =
        answer.get_all(header::UPGRADE).iter().flat_map(|value| tokens(value.as_bytes())).peekable();
    granted.peek().is_some() && granted.all(|token| has_token(wanted.as_bytes(), token))
}

/// Maximum number of members of all `Connection` fields. Each can only name a field of the same message, of
/// which there are fewer; a longer list costs its sender little and every reader much.
const MAX_LISTED: usize = 256;

/// `Connection` has too many members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany;

/// The fields of a message that its `Connection` lists, besides the usual options. Only fields without a rule
/// of their own can be removed this way: a client must not be able to hide `Authorization`, `Cookie` or the
/// fields of a trusted proxy.
#[derive(Debug, Default)]
pub(crate) struct Listed(Option<HeaderMap<()>>);

impl Listed {
    /// Reads each member once, as bytes, so that a non-ASCII byte cannot hide the others. Keeps only names of
    /// fields that are present.
    pub(crate) fn in_connection(headers: &HeaderMap) -> Result<Self, TooMany> {
        let mut listed = Self::default();
        let values = headers.get_all(header::CONNECTION).iter();
        for (count, token) in values.flat_map(|value| tokens(value.as_bytes())).enumerate() {
            if count >= MAX_LISTED {
                return Err(TooMany);
            }
            if !is_usual(token) {
                listed.add(token, headers);
            }
        }
        Ok(listed)
    }

    fn add(&mut self, token: &[u8], headers: &HeaderMap) {
        if let Ok(name) = HeaderName::from_bytes(token)
            && headers.contains_key(&name)
        {
            self.0.get_or_insert_default().insert(name, ());
        }
    }

    pub(crate) fn contains(&self, name: &HeaderName) -> bool {
        self.0.as_ref().is_some_and(|listed| listed.contains_key(name))
    }
}

/// Options whose fields are removed in any case, so that they need not be looked for.
fn is_usual(option: &[u8]) -> bool {
    [&b"keep-alive"[..], b"upgrade", b"te"].iter().any(|usual| option.eq_ignore_ascii_case(usual))
}

/// The members of a comma-separated list, without surrounding white space; skips empty ones.
pub(crate) fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// Whether `token` is a member of the list, ignoring case.
pub(crate) fn has_token(value: &[u8], token: &[u8]) -> bool {
    tokens(value).any(|member| member.eq_ignore_ascii_case(token))
}
