//! Web origins (RFC 6454, HTML §7.1.1): whose pages may call a route.
//!
//! Browsers set the `Origin` field, pages cannot; other clients can set any value. So the rule protects only
//! users whose browser is driven by another site's page.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use http::header::ORIGIN;
use http::{HeaderMap, HeaderValue};

/// An origin as browsers serialize it: `https://app.example.com`, or `null` for pages without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebOrigin(HeaderValue);

impl WebOrigin {
    /// Parses a configured origin. Converts scheme and host to lower case and omits a default port, as
    /// browsers do.
    ///
    /// # Errors
    /// Why it is not an origin, in plain words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let normal = match text {
            "null" => "null".to_owned(),
            _ => normal(text).map_err(|why| {
                format!(
                    "{text:?} {why}; write scheme and host, such as \"https://app.example.com\", or \"null\""
                )
            })?,
        };
        HeaderValue::try_from(normal).map(Self).map_err(|_invalid| format!("{text:?} is not an origin"))
    }

    /// The value that browsers send, and that a response allows.
    #[must_use]
    pub fn value(&self) -> &HeaderValue {
        &self.0
    }

    /// Whether it is `null`, an origin that any page can get by using a sandboxed frame.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.0 == "null"
    }
}

impl fmt::Display for WebOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_str().unwrap_or_default())
    }
}

/// The `Origin` of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::enforce) enum SentOrigin<'r> {
    /// The field is absent: the client is not a browser, or the page has the same origin and the method is
    /// safe.
    Absent,
    /// One field.
    One(&'r HeaderValue),
    /// Several fields; the upstream might read another one than the gate.
    Several,
}

impl<'r> SentOrigin<'r> {
    pub(in crate::enforce) fn of(headers: &'r HeaderMap) -> Self {
        let mut fields = headers.get_all(ORIGIN).iter();
        match (fields.next(), fields.next()) {
            (None, _) => Self::Absent,
            (Some(one), None) => Self::One(one),
            (Some(_), Some(_)) => Self::Several,
        }
    }

    /// The listed origin that equals it byte for byte.
    pub(in crate::enforce) fn find(self, listed: &[WebOrigin]) -> Option<&WebOrigin> {
        match self {
            Self::One(sent) => listed.iter().find(|origin| origin.0 == *sent),
            Self::Absent | Self::Several => None,
        }
    }
}

/// The serialization that browsers send, or why the text is not an origin.
fn normal(text: &str) -> Result<String, &'static str> {
    let (scheme, rest) = text.split_once("://").ok_or("is not an origin")?;
    let scheme = scheme.to_ascii_lowercase();
    let of_scheme = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    if !scheme.starts_with(|first: char| first.is_ascii_alphabetic()) || !scheme.bytes().all(of_scheme) {
        return Err("is not an origin");
    }
    match scheme.as_str() {
        "file" | "data" | "blob" | "about" => return Err("is sent as \"null\""),
        "ws" | "wss" => {
            return Err("is not an origin: a WebSocket handshake has the origin of its page");
        }
        _ if rest.contains('*') => return Err("contains a wildcard, which is not supported"),
        _ if rest.contains('@') => return Err("contains a user, which is not part of an origin"),
        _ if rest.contains(['/', '?', '#']) => {
            return Err("has a path or query, which is not part of an origin");
        }
        _ if !rest.is_ascii() => return Err("has a host that browsers send in a different form (xn--…)"),
        _ => {}
    }
    let (host, port) = match rest.rfind(']').map_or_else(|| rest.rfind(':'), |end| Some(end + 1)) {
        Some(end) => rest.split_at_checked(end).ok_or("is not an origin")?,
        None => (rest, ""),
    };
    let (host, port) = (self::host(host)?, self::port(port)?);
    let is_default = matches!((scheme.as_str(), port), ("http", Some(80)) | ("https", Some(443)));
    Ok(match port.filter(|_| !is_default) {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    })
}

/// A host name in lower case, or an address as browsers serialize it (URL §3.5).
fn host(host: &str) -> Result<String, &'static str> {
    if let Some(literal) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let address: Ipv6Addr = literal.parse().map_err(|_invalid| "has no valid IPv6 address")?;
        let segments = address.segments();
        return Ok(match (address.to_ipv4_mapped(), segments) {
            (Some(_), [.., high, low]) => format!("[::ffff:{high:x}:{low:x}]"),
            (None, _) => format!("[{address}]"),
        });
    }
    let host = host.to_ascii_lowercase();
    let of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let mut labels = host.strip_suffix('.').unwrap_or(&host).split('.');
    if !labels.clone().all(|label| !label.is_empty() && label.bytes().all(of_name)) {
        return Err("has no valid host");
    }
    // A host that ends in a number is an IPv4 address, which browsers serialize in one form (URL §3.5).
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    match labels.next_back().is_some_and(is_number) {
        true if host.parse::<Ipv4Addr>().is_err() => Err("has no valid IPv4 address"),
        true | false => Ok(host),
    }
}

/// Parses what follows a host: nothing, or a colon and a port.
fn port(text: &str) -> Result<Option<u16>, &'static str> {
    match text.strip_prefix(':') {
        None if text.is_empty() => Ok(None),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().ok().filter(|port| *port != 0).map(Some).ok_or("has no valid port")
        }
        None | Some(_) => Err("has no valid port"),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn parsed(text: &str) -> Result<String, String> {
        WebOrigin::parse(text).map(|origin| origin.to_string())
    }

    #[test]
    fn an_origin_is_kept_as_browsers_send_it() {
        for (written, sent) in [
            ("null", "null"),
            ("https://app.example.com", "https://app.example.com"),
            ("HTTPS://App.Example.COM", "https://app.example.com"),
            ("https://app.example.com:443", "https://app.example.com"),
            ("https://app.example.com:80", "https://app.example.com:80"),
            ("http://app.example.com:80", "http://app.example.com"),
            ("http://app.example.com:443", "http://app.example.com:443"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://localhost:03000", "http://localhost:3000"),
            ("http://localhost:65535", "http://localhost:65535"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("https://[2001:DB8:0:0:0:0:0:1]", "https://[2001:db8::1]"),
            ("https://[::FFFF:192.0.2.1]:443", "https://[::ffff:c000:201]"),
            ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
            ("https://my_host.example", "https://my_host.example"),
            ("https://example.com.", "https://example.com."),
            ("https://1.example", "https://1.example"),
            (
                "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
                "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
            ),
            ("capacitor://localhost", "capacitor://localhost"),
            ("capacitor://localhost:80", "capacitor://localhost:80"),
        ] {
            assert_eq!(parsed(written).as_deref(), Ok(sent), "{written}");
        }
    }

    #[test]
    fn what_no_browser_sends_is_no_origin() {
        for (written, why) in [
            ("", "is not an origin"),
            ("*", "is not an origin"),
            ("NULL", "is not an origin"),
            ("null ", "is not an origin"),
            ("app.example.com", "is not an origin"),
            ("https:app.example.com", "is not an origin"),
            ("https:/app.example.com", "is not an origin"),
            ("//app.example.com", "is not an origin"),
            ("://app.example.com", "is not an origin"),
            ("1https://app.example.com", "is not an origin"),
            ("ht tps://app.example.com", "is not an origin"),
            ("https://app.example.com/", "has a path"),
            ("https://app.example.com/app", "has a path"),
            ("https://app.example.com?a=b", "has a path or query"),
            ("https://app.example.com#top", "has a path or query"),
            ("https://user@app.example.com", "contains a user"),
            ("https://*.example.com", "contains a wildcard"),
            ("https://app.example.com:*", "contains a wildcard"),
            ("https://", "has no valid host"),
            ("https://.", "has no valid host"),
            ("https://a..b", "has no valid host"),
            ("https://.example.com", "has no valid host"),
            ("https://app example.com", "has no valid host"),
            ("https://a.example,https://b.example", "has a path"),
            ("https://a.example https:", "has no valid host"),
            ("https://a.example\r\nx: y", "has no valid host"),
            ("https://bücher.example", "a different form"),
            ("https://app.example.com:", "has no valid port"),
            ("https://app.example.com:0", "has no valid port"),
            ("https://app.example.com:65536", "has no valid port"),
            ("https://app.example.com:+1", "has no valid port"),
            ("https://app.example.com:80:80", "has no valid host"),
            ("https://[::1", "has no valid host"),
            ("https://[::g]", "IPv6"),
            ("https://[::1]x", "has no valid port"),
            ("https://[::1]]", "IPv6"),
            ("https://127.0.0.256", "IPv4"),
            ("https://127.1", "IPv4"),
            ("https://1", "IPv4"),
            ("file:///home", "is sent as \"null\""),
            ("file://", "is sent as \"null\""),
            ("blob:https://a.example", "is not an origin"),
            ("wss://app.example.com", "WebSocket"),
            ("ws://app.example.com", "WebSocket"),
        ] {
            let found = parsed(written).expect_err(written);
            assert!(found.contains(why) && found.contains(&format!("{written:?}")), "{written}: {found}");
        }
    }

    #[test]
    fn a_sent_origin_is_compared_byte_for_byte_and_only_when_it_is_one() {
        let listed = ["https://app.example.com", "http://localhost:3000", "null"];
        let listed = listed.map(|text| WebOrigin::parse(text).expect("an origin"));
        for (sent, expected) in [
            (&["https://app.example.com"][..], Some(0)),
            (&["http://localhost:3000"], Some(1)),
            (&["null"], Some(2)),
            (&[], None),
            (&[""], None),
            (&["Null"], None),
            (&["https://app.example.com:443"], None),
            (&["https://app.example.com/"], None),
            (&["HTTPS://app.example.com"], None),
            (&["https://App.example.com"], None),
            (&["http://app.example.com"], None),
            (&["https://app.example.com.evil.example"], None),
            (&["https://evil.example/https://app.example.com"], None),
            (&["https://app.example.co"], None),
            (&["https://app.example.com https://app.example.com"], None),
            (&["https://app.example.com", "https://app.example.com"], None),
            (&["https://app.example.com", "https://evil.example"], None),
        ] {
            let headers: HeaderMap = sent
                .iter()
                .map(|value| (HeaderName::from_static("origin"), HeaderValue::from_static(value)))
                .collect();
            let found = SentOrigin::of(&headers).find(&listed);
            assert_eq!(found, expected.map(|at: usize| &listed[at]), "{sent:?}");
            assert_eq!(found.is_some_and(WebOrigin::is_null), expected == Some(2), "{sent:?}");
        }
        assert_eq!(SentOrigin::of(&HeaderMap::new()), SentOrigin::Absent);
    }

    proptest::proptest! {
        /// A parsed origin is a fixed point: browsers and the configuration agree on it.
        #[test]
        fn reading_is_stable(text in "[a-zA-Z+.-]{0,6}:?/{0,3}[-a-zA-Z0-9._:\\[\\]@/?#*%é ]{0,24}") {
            if let Ok(origin) = WebOrigin::parse(&text) {
                let kept = origin.to_string();
                proptest::prop_assert_eq!(WebOrigin::parse(&kept), Ok(origin));
                proptest::prop_assert_eq!(kept.to_ascii_lowercase(), kept);
            }
        }
    }
}
