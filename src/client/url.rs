//! The URLs that the client may fetch: which schemes and hosts, and what is derived from one. Sends nothing.

use std::fmt;
use std::net::IpAddr;

use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};

/// A URL that may be fetched: `https`, or `http` to a loopback host or if explicitly allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) authority: Authority,
    pub(super) target: PathAndQuery,
    pub(super) transport: Transport,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Tls,
    /// Clear text, and only to loopback addresses.
    PlainLoopback,
    Plain,
}

/// Why a text is not a valid [`Url`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlError {
    /// Not an absolute URL of visible ASCII characters with a host.
    Malformed,
    /// The scheme is neither `https` nor `http`.
    Scheme,
    /// `http` to a host that is not loopback.
    Insecure,
    /// A user name or password in the URL.
    UserInfo,
    /// A fragment, which is never sent to a server.
    Fragment,
}

impl Url {
    /// Parses `text`; `insecure_http` allows plain `http` to any host.
    ///
    /// # Errors
    /// When it is not a URL that may be fetched.
    pub fn parse(text: &str, insecure_http: bool) -> Result<Self, UrlError> {
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(UrlError::Malformed);
        }
        if text.contains('#') {
            return Err(UrlError::Fragment);
        }
        let parts = text.parse::<Uri>().map_err(|_parse| UrlError::Malformed)?.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(UrlError::Malformed);
        };
        if authority.as_str().contains('@') {
            return Err(UrlError::UserInfo);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let transport = match scheme {
            s if s == Scheme::HTTPS => Transport::Tls,
            s if s != Scheme::HTTP => return Err(UrlError::Scheme),
            _ if insecure_http => Transport::Plain,
            _ if is_loopback(&host) => Transport::PlainLoopback,
            _ => return Err(UrlError::Insecure),
        };
        let default_port = if transport == Transport::Tls { 443 } else { 80 };
        let port = match authority.as_str().rsplit_once(':') {
            Some((_, digits)) if !digits.ends_with(']') => {
                digits.parse().map_err(|_parse| UrlError::Malformed)?
            }
            _ => default_port,
        };
        if host.is_empty() || port == 0 {
            return Err(UrlError::Malformed);
        }
        let target = parts.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
        Ok(Self { host, port, authority, target, transport })
    }

    /// Whether both have the same scheme, host and port.
    #[must_use]
    pub fn is_same_origin(&self, other: &Self) -> bool {
        let is_tls = |url: &Self| url.transport == Transport::Tls;
        (&self.host, self.port, is_tls(self)) == (&other.host, other.port, is_tls(other))
    }

    /// Whether it uses TLS.
    #[must_use]
    pub fn uses_tls(&self) -> bool {
        self.transport == Transport::Tls
    }

    /// Whether others can read what is sent there: plain `http` to another host.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        self.transport == Transport::Plain && !is_loopback(&self.host)
    }

    /// The URL of an endpoint below this one, whose path and query begin with `/`; `None` if this one has a
    /// query.
    #[must_use]
    pub fn at(&self, endpoint: &str) -> Option<Self> {
        let base = self.target.as_str().trim_end_matches('/');
        let target = format!("{base}{endpoint}").parse().ok().filter(|_| self.target.query().is_none())?;
        Some(Self { target, ..self.clone() })
    }

    /// This URL with another query parameter.
    #[must_use]
    pub fn with_parameter(&self, name: &str, value: &str) -> Self {
        let pair = form_urlencoded::Serializer::new(String::new()).append_pair(name, value).finish();
        let sign = if self.target.query().is_some() { '&' } else { '?' };
        // Percent-encoded, so that it parses.
        let target = format!("{}{sign}{pair}", self.target).parse();
        Self { target: target.unwrap_or_else(|_| self.target.clone()), ..self.clone() }
    }
}

/// Whether a host is `localhost` or a loopback address. The addresses of a name are checked again when
/// connecting.
fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "is not an absolute URL",
            Self::Scheme => "must be an https URL",
            Self::Insecure => {
                "must be an https URL: plain http is allowed only to loopback hosts, or with insecure_http"
            }
            Self::UserInfo => "must not contain a user name or password",
            Self::Fragment => "must not contain a fragment",
        })
    }
}

impl std::error::Error for UrlError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_added_behind_those_that_are_there() {
        for (url, value, target) in [
            ("https://idp.example.com", "s1", "/?stream_id=s1"),
            ("https://idp.example.com/status", "a b&c=/é", "/status?stream_id=a+b%26c%3D%2F%C3%A9"),
            ("https://idp.example.com/status?x=1", "", "/status?x=1&stream_id="),
        ] {
            let url = Url::parse(url, false).unwrap().with_parameter("stream_id", value);
            assert_eq!(url.target.as_str(), target);
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port_and_nothing_else() {
        let url = |text: &str| Url::parse(text, true).unwrap();
        let one = url("https://idp.example.com/a");
        for (other, same) in [
            ("https://idp.example.com/b?c=d", true),
            ("https://IDP.example.com:443", true),
            ("https://idp.example.com:8443/a", false),
            ("http://idp.example.com:443/a", false),
            ("https://evil.example.com/a", false),
            ("https://idp.example.com.evil.example.com/a", false),
        ] {
            assert_eq!(one.is_same_origin(&url(other)), same, "{other}");
        }
        for (text, exposed) in [
            ("http://idp.example.com/", true),
            ("http://127.0.0.1/", false),
            ("http://localhost/", false),
            ("https://idp.example.com/", false),
        ] {
            assert_eq!(url(text).is_exposed(), exposed, "{text}");
        }
    }

    #[test]
    fn only_secure_urls_may_be_fetched() {
        for (text, insecure, expected) in [
            ("https://idp.example.com/jwks", false, Ok(443)),
            ("HTTPS://IDP.example.com:8443", false, Ok(8443)),
            ("https://[2001:db8::1]/x", false, Ok(443)),
            ("https://[::1]:9/x?y=1", false, Ok(9)),
            ("http://127.0.0.1:8080/jwks", false, Ok(8080)),
            ("http://127.9.9.9/jwks", false, Ok(80)),
            ("http://[::1]/jwks", false, Ok(80)),
            ("http://LOCALHOST/jwks", false, Ok(80)),
            ("http://idp.example.com/jwks", true, Ok(80)),
            ("http://idp.example.com/jwks", false, Err(UrlError::Insecure)),
            ("http://127.0.0.1.example.com/", false, Err(UrlError::Insecure)),
            ("http://localhost.example.com/", false, Err(UrlError::Insecure)),
            ("http://0.0.0.0/", false, Err(UrlError::Insecure)),
            ("http://10.0.0.1/", false, Err(UrlError::Insecure)),
            ("ftp://idp.example.com/", true, Err(UrlError::Scheme)),
            ("file:///etc/passwd", true, Err(UrlError::Malformed)),
            ("https://u:p@idp.example.com/", false, Err(UrlError::UserInfo)),
            ("http://localhost@idp.example.com/", false, Err(UrlError::UserInfo)),
            ("https://idp.example.com/#x", false, Err(UrlError::Fragment)),
            ("https://idp.example.com:0/", false, Err(UrlError::Malformed)),
            ("https://idp.example.com:99999/", false, Err(UrlError::Malformed)),
            ("https://:443/", false, Err(UrlError::Malformed)),
            ("https://idp.example.com/a b", false, Err(UrlError::Malformed)),
            ("https://idp.example.com/\r\nx: y", false, Err(UrlError::Malformed)),
            ("https://idp.exämple.com/", false, Err(UrlError::Malformed)),
            ("//idp.example.com/", false, Err(UrlError::Malformed)),
            ("/jwks", false, Err(UrlError::Malformed)),
            ("idp.example.com", false, Err(UrlError::Malformed)),
            ("", false, Err(UrlError::Malformed)),
        ] {
            assert_eq!(Url::parse(text, insecure).map(|url| url.port), expected, "{text}");
        }
    }
}
