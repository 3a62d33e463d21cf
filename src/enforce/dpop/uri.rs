//! The URI of a proof, compared as RFC 9449 §4.3 requires: without query and fragment, in the canonical form
//! of RFC 3986 §6.2.2 and §6.2.3.

use std::borrow::Cow;

use crate::enforce::target;

/// Scheme, host and port of a URI in canonical form, such as `https://api.example.com`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UriOrigin(Box<str>);

impl UriOrigin {
    /// Parses a URI with nothing after host and port; `None` if there is more, or the scheme is not HTTP.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = split_scheme(text)?;
        Self::new(scheme, rest)
    }

    /// The origin by which a request reached a gate that terminates TLS: the host that it names.
    #[must_use]
    pub fn https(host: &str) -> Option<Self> {
        Self::new("https", host)
    }

    fn new(scheme: &str, authority: &str) -> Option<Self> {
        let is_authority = |byte: u8| byte.is_ascii_graphic() && !b"/?#@\\\"<>^`{|}".contains(&byte);
        if authority.is_empty() || !authority.bytes().all(is_authority) {
            return None;
        }
        let authority = authority.to_ascii_lowercase();
        let default = if scheme == "http" { "80" } else { "443" };
        let host = match authority.rsplit_once(':') {
            // The colons of an IPv6 address are inside brackets.
            Some((host, port)) if port.is_empty() || port == default => host,
            _ => &authority,
        };
        (!host.is_empty()).then(|| Self(format!("{scheme}://{host}").into()))
    }

    /// The canonical form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether `uri` is this path at this origin. The path is in canonical form.
pub(super) fn is_at(uri: &str, origin: &UriOrigin, path: &str) -> bool {
    let Some((scheme, rest)) = split_scheme(uri) else { return false };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, named) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let named = if named.is_empty() { "/" } else { named };
    UriOrigin::new(scheme, authority).is_some_and(|named| named == *origin)
        && canonical(named).is_some_and(|named| named == path)
}

pub(super) fn canonical(path: &str) -> Option<Cow<'_, str>> {
    let found = target::canonical(path.as_bytes()).ok()?;
    Some(found.text.map_or(Cow::Borrowed(path), Cow::Owned))
}

/// Splits off the scheme, in lower case, from what follows `://`.
fn split_scheme(uri: &str) -> Option<(&'static str, &str)> {
    let (scheme, rest) = uri.split_once("://")?;
    let known = ["https", "http"].into_iter().find(|known| known.eq_ignore_ascii_case(scheme))?;
    Some((known, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_one_form() {
        for (text, expected) in [
            ("https://api.example.com", Some("https://api.example.com")),
            ("HTTPS://API.Example.com:443", Some("https://api.example.com")),
            ("https://api.example.com:", Some("https://api.example.com")),
            ("https://api.example.com:8443", Some("https://api.example.com:8443")),
            ("https://api.example.com:80", Some("https://api.example.com:80")),
            ("http://api.example.com:80", Some("http://api.example.com")),
            ("http://api.example.com:443", Some("http://api.example.com:443")),
            ("https://[::1]", Some("https://[::1]")),
            ("https://[::1]:443", Some("https://[::1]")),
            ("https://[::1]:8443", Some("https://[::1]:8443")),
            ("https://", None),
            ("https://:443", None),
            ("https://a/", None),
            ("https://a?x", None),
            ("https://a#x", None),
            ("https://u@a", None),
            ("https://a b", None),
            ("ftp://a", None),
            ("wss://a", None),
            ("api.example.com", None),
            ("", None),
        ] {
            assert_eq!(UriOrigin::parse(text).as_ref().map(UriOrigin::as_str), expected, "{text}");
        }
        assert_eq!(UriOrigin::https("API:443"), UriOrigin::parse("https://api"));
        assert_eq!(UriOrigin::https(""), None);
        assert_eq!(UriOrigin::https("u@a"), None);
    }

    #[test]
    fn a_uri_is_compared_without_query_and_fragment_in_canonical_form() {
        let origin = UriOrigin::parse("https://api.example.com").unwrap();
        for (uri, path, same) in [
            ("https://api.example.com/deals/7", "/deals/7", true),
            ("https://api.example.com/deals/7?x=1", "/deals/7", true),
            ("https://api.example.com/deals/7#x", "/deals/7", true),
            ("https://api.example.com/deals/7#x?y", "/deals/7", true),
            ("HTTPS://API.example.com:443/deals/7", "/deals/7", true),
            ("https://api.example.com/%64eals/7", "/deals/7", true),
            ("https://api.example.com/a%c3%a4", "/a%C3%A4", true),
            ("https://api.example.com", "/", true),
            ("https://api.example.com/", "/", true),
            ("https://api.example.com?x", "/", true),
            ("https://api.example.com/deals/7/", "/deals/7", false),
            ("https://api.example.com/Deals/7", "/deals/7", false),
            ("https://api.example.com/deals%2F7", "/deals/7", false),
            ("https://api.example.com/x/../deals/7", "/deals/7", false),
            ("https://api.example.com//deals/7", "/deals/7", false),
            ("https://api.example.com/deals/7/lines", "/deals/7", false),
            ("https://api.example.com/", "/deals/7", false),
            ("https://api.example.com:8443/deals/7", "/deals/7", false),
            ("https://api.example.com.evil/deals/7", "/deals/7", false),
            ("https://evil.example/deals/7", "/deals/7", false),
            ("https://u@api.example.com/deals/7", "/deals/7", false),
            ("https://api.example.com\\@evil/deals/7", "/deals/7", false),
            ("http://api.example.com/deals/7", "/deals/7", false),
            ("//api.example.com/deals/7", "/deals/7", false),
            ("/deals/7", "/deals/7", false),
            ("", "/", false),
            ("https://api.example.com*", "*", false),
        ] {
            assert_eq!(is_at(uri, &origin, path), same, "{uri}");
        }
    }
}
