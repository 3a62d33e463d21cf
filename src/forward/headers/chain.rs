//! The hops of a request before this gate, as reported by proxies: `X-Forwarded-*` or `Forwarded` (RFC 7239).
//!
//! Pure. A proxy sets the fields of one family and passes on the other as its client sent it, so only one
//! family is trusted, selected by a setting.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

use http::header::{self, HeaderMap, HeaderName};

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The forwarding fields that trusted proxies set (`trusted_fields`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TrustedFields {
    /// `X-Forwarded-*` if there is an `X-Forwarded-For`, otherwise `Forwarded`.
    #[default]
    Either,
    /// `X-Forwarded-*`; `Forwarded` comes from the client.
    XForwarded,
    /// `Forwarded`; `X-Forwarded-*` come from the client.
    Forwarded,
}

/// A family of forwarding fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    XForwarded,
    Forwarded,
}

impl TrustedFields {
    /// The family to trust in a request with these fields.
    pub(super) fn family(self, headers: &HeaderMap) -> Family {
        match self {
            Self::XForwarded => Family::XForwarded,
            Self::Forwarded => Family::Forwarded,
            Self::Either if headers.contains_key(X_FORWARDED_FOR) => Family::XForwarded,
            Self::Either if headers.contains_key(header::FORWARDED) => Family::Forwarded,
            Self::Either => Family::XForwarded,
        }
    }
}

/// The sender of the request at one hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ForwardedNode {
    /// This address.
    Address(IpAddr),
    /// Absent, or not an address.
    Unknown,
}

impl ForwardedNode {
    /// Parses `203.0.113.9`, `203.0.113.9:4711`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:4711`, with
    /// or without quotes.
    pub(super) fn parse(text: &[u8]) -> Self {
        let text = text.trim_ascii();
        let text = text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(text);
        address(text).map_or(Self::Unknown, |address| Self::Address(address.to_canonical()))
    }
}

fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Some(bracketed) = text.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']')?;
        let address = address.parse::<Ipv6Addr>().ok()?;
        return (port.is_empty() || is_port(port.strip_prefix(':')?)).then_some(address.into());
    }
    match text.split_once(':') {
        Some((address, port)) if !port.contains(':') => {
            address.parse().ok().filter(|_| is_port(port)).map(IpAddr::V4)
        }
        _ => text.parse().ok(),
    }
}

/// Whether a text is a port number or an obfuscated port (RFC 7239 §6.2).
fn is_port(port: &str) -> bool {
    let digits = || port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    !port.is_empty() && (port.starts_with('_') || digits())
}

/// One element of `Forwarded`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Element<'a> {
    pub(super) node: ForwardedNode,
    pub(super) host: Option<Cow<'a, [u8]>>,
    pub(super) proto: Option<Cow<'a, [u8]>>,
}

/// The elements of all `Forwarded` fields in order; `None` if they violate RFC 7239 §4.
pub(super) fn forwarded(headers: &HeaderMap) -> Option<Vec<Element<'_>>> {
    let mut elements = Vec::new();
    for value in headers.get_all(header::FORWARDED) {
        for element in split(value.as_bytes(), b',')? {
            if !element.is_empty() {
                elements.push(self::element(element)?);
            }
        }
    }
    Some(elements)
}

fn element(text: &[u8]) -> Option<Element<'_>> {
    let mut element = Element { node: ForwardedNode::Unknown, host: None, proto: None };
    for pair in split(text, b';')? {
        if pair.is_empty() {
            continue;
        }
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = pair.split_at_checked(equals)?;
        let value = unquoted(value.get(1..)?)?;
        if name.eq_ignore_ascii_case(b"for") {
            element.node = ForwardedNode::parse(&value);
        } else if name.eq_ignore_ascii_case(b"host") {
            element.host = Some(value);
        } else if name.eq_ignore_ascii_case(b"proto") {
            element.proto = Some(value);
        }
    }
    Some(element)
}

/// Splits at separators outside quotes; `None` if a quote is not closed.
fn split(text: &[u8], separator: u8) -> Option<Vec<&[u8]>> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if *byte == separator && !quoted => {
                parts.push(text.get(start..at)?.trim_ascii());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text.get(start..)?.trim_ascii());
    (!quoted).then_some(parts)
}

/// The value of a token or of a quoted string (RFC 9110 §5.6.4).
fn unquoted(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    let Some(inner) = value.strip_prefix(b"\"") else {
        return (!value.contains(&b'"')).then_some(Cow::Borrowed(value));
    };
    let inner = inner.strip_suffix(b"\"")?;
    if !inner.contains(&b'\\') {
        return (!inner.contains(&b'"')).then_some(Cow::Borrowed(inner));
    }
    let (mut plain, mut bytes) = (Vec::with_capacity(inner.len()), inner.iter());
    while let Some(byte) = bytes.next() {
        plain.push(if *byte == b'\\' { *bytes.next()? } else { *byte });
    }
    Some(Cow::Owned(plain))
}

/// The hops in `X-Forwarded-For`, in order.
pub(super) fn x_forwarded_for(headers: &HeaderMap) -> impl Iterator<Item = ForwardedNode> {
    let lines = headers.get_all(X_FORWARDED_FOR).iter();
    let entries = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    entries.map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty()).map(ForwardedNode::parse)
}

/// The first member of a list that proxies append to.
pub(super) fn first_member(value: &[u8]) -> &[u8] {
    value.split(|byte| *byte == b',').next().unwrap_or_default().trim_ascii()
}

/// The client's address as reported by trusted proxies: the last address that is not a trusted proxy's, or
/// the farthest one if all are trusted. `None` if nothing readable was reported.
pub fn client_address(
    headers: &HeaderMap,
    fields: TrustedFields,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let nodes: Vec<ForwardedNode> = match fields.family(headers) {
        Family::XForwarded => x_forwarded_for(headers).collect(),
        Family::Forwarded => forwarded(headers)?.into_iter().map(|element| element.node).collect(),
    };
    let mut farthest = None;
    for node in nodes.into_iter().rev() {
        let ForwardedNode::Address(address) = node else { break };
        farthest = Some(address);
        if !is_trusted(address) {
            break;
        }
    }
    farthest
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let fields = fields.iter();
        fields.map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn an_address_is_read_with_port_brackets_and_quotes() {
        for (text, address) in [
            ("203.0.113.9", Some("203.0.113.9")),
            (" 203.0.113.9:4711 ", Some("203.0.113.9")),
            ("\"203.0.113.9:4711\"", Some("203.0.113.9")),
            ("203.0.113.9:_hidden", Some("203.0.113.9")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("[2001:db8::1]:4711", Some("2001:db8::1")),
            ("\"[2001:db8::1]:4711\"", Some("2001:db8::1")),
            ("::ffff:203.0.113.9", Some("203.0.113.9")),
            ("unknown", None),
            ("_hidden", None),
            ("", None),
            ("203.0.113.9:", None),
            ("203.0.113.9:http", None),
            ("203.0.113.9:123456", None),
            ("203.0.113", None),
            ("[203.0.113.9]", None),
            ("[2001:db8::1", None),
            ("[2001:db8::1]4711", None),
            ("203.0.113.9 x", None),
        ] {
            let node = address
                .map_or(ForwardedNode::Unknown, |address| ForwardedNode::Address(address.parse().unwrap()));
            assert_eq!(ForwardedNode::parse(text.as_bytes()), node, "{text}");
        }
    }

    #[test]
    fn forwarded_is_taken_apart_as_the_rfc_says() {
        let parsed = |text: &'static str| {
            let headers = headers(&[("forwarded", text)]);
            let elements = forwarded(&headers)?;
            let text = |part: &Option<Cow<'_, [u8]>>| {
                part.as_ref().map(|part| String::from_utf8_lossy(part).into_owned()).unwrap_or_default()
            };
            let nodes = elements.iter().map(|element| match element.node {
                ForwardedNode::Address(address) => {
                    format!("{address} {} {}", text(&element.host), text(&element.proto))
                }
                ForwardedNode::Unknown => format!("? {} {}", text(&element.host), text(&element.proto)),
            });
            Some(nodes.map(|node| node.trim_end().to_owned()).collect::<Vec<_>>())
        };
        for (text, elements) in [
            ("for=192.0.2.60", vec!["192.0.2.60"]),
            ("For=\"[2001:db8:cafe::17]:4711\"", vec!["2001:db8:cafe::17"]),
            ("for=192.0.2.60;proto=http;by=203.0.113.43", vec!["192.0.2.60  http"]),
            ("for=192.0.2.43, for=198.51.100.17", vec!["192.0.2.43", "198.51.100.17"]),
            ("for=_secret;host=\"a,b;c\\\"d\";PROTO=https , for=unknown", vec!["? a,b;c\"d https", "?"]),
            ("proto=https;for=192.0.2.1;;", vec!["192.0.2.1  https"]),
            ("host=a, ,for=192.0.2.1", vec!["? a", "192.0.2.1"]),
            // A backslash escapes only within quotes.
            ("host=a\\,for=192.0.2.1", vec!["? a\\", "192.0.2.1"]),
            ("", vec![]),
        ] {
            let elements: Vec<_> = elements.into_iter().map(str::to_owned).collect();
            assert_eq!(parsed(text), Some(elements), "{text}");
        }
        for text in ["for", "for=\"192.0.2.1", "for=192.0.2.1, x", "for=a\"b\"", "for=\"a\"b", "for=\"a\\\""]
        {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    #[test]
    fn the_client_is_the_last_address_that_no_trusted_proxy_has() {
        use TrustedFields::{Either, Forwarded, XForwarded};
        let trusted = |address: IpAddr| address.to_string().starts_with("10.");
        let xff = ("x-forwarded-for", "6.6.6.6, 203.0.113.9:80, 10.0.0.1");
        let forwarded = ("forwarded", "for=7.7.7.7, for=\"[2001:db8::1]:9\", for=10.0.0.2");
        for (fields, sent, client) in [
            (Either, vec![xff], Some("203.0.113.9")),
            (Either, vec![forwarded], Some("2001:db8::1")),
            // The client's own `Forwarded` beside its proxy's fields, and the reverse.
            (Either, vec![xff, ("forwarded", "for=6.6.6.6")], Some("203.0.113.9")),
            (XForwarded, vec![xff, forwarded], Some("203.0.113.9")),
            (XForwarded, vec![forwarded], None),
            (Forwarded, vec![xff, forwarded], Some("2001:db8::1")),
            (Forwarded, vec![xff], None),
            (Either, vec![("x-forwarded-for", "10.0.0.3, 10.0.0.1")], Some("10.0.0.3")),
            (Either, vec![("x-forwarded-for", "6.6.6.6, nonsense, 10.0.0.1")], Some("10.0.0.1")),
            (Either, vec![("x-forwarded-for", "nonsense")], None),
            (
                Either,
                vec![("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "203.0.113.7")],
                Some("203.0.113.7"),
            ),
            (Either, vec![("forwarded", "for=\"broken")], None),
            (Either, vec![], None),
        ] {
            let found = client_address(&headers(&sent), fields, trusted);
            assert_eq!(found.map(|address| address.to_string()).as_deref(), client, "{fields:?} {sent:?}");
        }
    }
}
