//! URLs of upstreams: accepts only the form that is used exactly as written.
//!
//! Parts that would be ignored (a path, a password) are errors.

use http::Uri;

use crate::forward::Scheme;

/// The origin of an upstream.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UrlOrigin {
    /// The protocol.
    pub(super) scheme: Scheme,
    /// Host name or address literal, without brackets, in lower case.
    pub(super) host: String,
    /// Explicit, or the scheme's default.
    pub(super) port: u16,
}

/// Parses `http://127.0.0.1:3000`: scheme, host and port of an upstream, nothing else.
pub(super) fn origin(text: &str) -> Result<UrlOrigin, String> {
    let uri = parse(text)?;
    let (scheme, default_port) = match uri.scheme_str() {
        Some("http") => (Scheme::Http, 80),
        Some("https") => (Scheme::Https, 443),
        Some("h2c") => (Scheme::H2c, 80),
        _ => return Err(format!("{text:?} must begin with http://, https:// or h2c://")),
    };
    let has_path = uri.path_and_query().is_some_and(|rest| rest.as_str() != "/");
    if has_path || text.ends_with('/') {
        return Err(format!(
            "{text:?} must end after the host and port: requests keep their own path and query"
        ));
    }
    let (host, port) = host_and_port(&uri, text)?;
    Ok(UrlOrigin { scheme, host, port: port.unwrap_or(default_port) })
}

fn parse(text: &str) -> Result<Uri, String> {
    if text.contains('#') {
        return Err(format!("{text:?} must not have a fragment (`#`)"));
    }
    let uri: Uri = text.parse().map_err(|error| format!("{text:?} is not a URL: {error}"))?;
    match uri.authority() {
        Some(authority) if authority.as_str().contains('@') => {
            // The text is not repeated: it may contain a password.
            Err("must not contain a user or password".to_owned())
        }
        Some(_) if uri.scheme().is_some() => Ok(uri),
        _ => Err(format!("{text:?} is not a URL; write scheme and host, such as \"https://host:8443\"")),
    }
}

fn host_and_port(uri: &Uri, text: &str) -> Result<(String, Option<u16>), String> {
    let (host, authority) =
        (uri.host().unwrap_or(""), uri.authority().map_or("", |authority| authority.as_str()));
    let port = match authority.strip_prefix(host).unwrap_or("") {
        "" => None,
        rest => match rest.strip_prefix(':').and_then(|port| port.parse().ok()).filter(|port| *port > 0) {
            Some(port) => Some(port),
            None => return Err(format!("{text:?} has no valid port (1 to 65535)")),
        },
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if bare.is_empty() {
        return Err(format!("{text:?} has no host"));
    }
    Ok((bare.to_ascii_lowercase(), port))
}

/// Returns a URL with its user and password replaced.
pub(super) fn without_password(text: &str) -> String {
    let start = text.find("://").map_or(0, |at| at + 3);
    let end = text[start..].find('/').map_or(text.len(), |at| start + at);
    match text[start..end].rfind('@') {
        Some(at) => format!("{}[redacted]{}", &text[..start], &text[start + at..]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        for (text, scheme, host, port) in [
            ("http://127.0.0.1:3000", Scheme::Http, "127.0.0.1", 3000),
            ("https://API.example.com", Scheme::Https, "api.example.com", 443),
            ("h2c://grpc:50051", Scheme::H2c, "grpc", 50051),
            ("http://[::1]:8080", Scheme::Http, "::1", 8080),
            ("http://[::1]", Scheme::Http, "::1", 80),
        ] {
            assert_eq!(origin(text), Ok(UrlOrigin { scheme, host: host.to_owned(), port }), "{text}");
        }
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        for text in [
            "",
            "api:3000",
            "/path",
            "127.0.0.1:3000",
            "ftp://api",
            "ws://api",
            "http://",
            "http://:3000",
            "http://api:",
            "http://api:0",
            "http://api:65536",
            "http://api/",
            "http://api/v1",
            "http://api?x=1",
            "http://api#x",
            "http://u@api",
            "http://u:p@api",
            "http://a b",
            "http://é",
            "http://[::1",
            "http://api:80a",
        ] {
            assert!(origin(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_password_is_not_repeated() {
        assert!(!origin("http://u:hunter2@api").unwrap_err().contains("hunter2"));
    }

    #[test]
    fn passwords_are_cut_out_of_urls() {
        for (text, shown) in [
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("redis://:hunter2@host:1/0", "redis://[redacted]@host:1/0"),
            ("redis-cluster://u:p@ss@a:1,b:2", "redis-cluster://[redacted]@a:1,b:2"),
        ] {
            assert_eq!(without_password(text), shown);
        }
    }
}
