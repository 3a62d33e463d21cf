//! Checks the limits of a request, and its required parts, before it is judged.

use http::header::{CONTENT_LENGTH, COOKIE, HOST};
use http::uri::Authority;
use http::{HeaderValue, Method, Version};
use http_body::Body as _;

use super::answer::GateRefusal;
use super::body::ClientBody;
use super::http::Head;
use super::http1::is_host;
use super::worker::Generation;

/// Checks the limits, and what HTTP/2 can carry but the parser of HTTP/1.1 heads rejects. Returns the
/// requested host.
pub(super) fn within_limits(
    head: &Head,
    body: &ClientBody,
    generation: &Generation,
) -> Result<HeaderValue, GateRefusal> {
    let limits = &generation.live.settings.limits;
    if head.method == Method::CONNECT {
        return Err(GateRefusal::NO_CONNECT);
    }
    if field_count(head) > limits.headers {
        return Err(GateRefusal::TOO_MANY_FIELDS);
    }
    check_list(head, limits.header_bytes)?;
    if limits.body_bytes.is_some_and(|most| body.size_hint().lower() > most) {
        return Err(GateRefusal::BODY_TOO_LARGE);
    }
    host(head).ok_or(GateRefusal::BAD_HOST)
}

/// Checks a header list of HTTP/2 for what the parser of HTTP/1.1 heads checks itself.
fn check_list(head: &Head, header_bytes: usize) -> Result<(), GateRefusal> {
    if head.version != Version::HTTP_2 {
        return Ok(());
    }
    if list_size(head) > header_bytes {
        return Err(GateRefusal::LIST_TOO_LARGE);
    }
    if head.headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(GateRefusal::BAD_LENGTH);
    }
    // The one byte that `http` accepts in names but RFC 9110 §5.1 does not.
    if head.headers.keys().any(|name| name.as_str().contains('"')) {
        return Err(GateRefusal::BAD_NAME);
    }
    Ok(())
}

/// The number of fields as in HTTP/1.1, where the pieces of a cookie are one field (RFC 9113 §8.2.3).
fn field_count(head: &Head) -> usize {
    let crumbs = || head.headers.get_all(COOKIE).iter().count().saturating_sub(1);
    head.headers.len() - if head.version == Version::HTTP_2 { crumbs() } else { 0 }
}

/// The size of a header list as RFC 9113 §6.5.2 counts it.
fn list_size(head: &Head) -> usize {
    let field = |name: &str, value: usize| name.len() + value + 32;
    let host = head.target.authority().map_or(0, |host| field(":authority", host.as_str().len()));
    let path = field(":path", head.target.as_bytes().len());
    let fields = head.headers.iter().map(|(name, value)| field(name.as_str(), value.len()));
    fields.sum::<usize>() + host + path + field(":method", head.method.as_str().len()) + field(":scheme", 5)
}

/// The single requested host (RFC 9112 §3.2, RFC 9113 §8.3.1). It may be empty in HTTP/1.0.
pub(super) fn host(head: &Head) -> Option<HeaderValue> {
    let mut fields = head.headers.get_all(HOST).iter();
    let (field, more) = (fields.next(), fields.next().is_some());
    let asked = head.target.authority().map(Authority::as_str);
    let host = match (asked, field) {
        (Some(asked), Some(field)) if head.version == Version::HTTP_2 => {
            field.as_bytes().eq_ignore_ascii_case(asked.as_bytes()).then(|| field.clone())
        }
        (Some(asked), _) => HeaderValue::from_str(asked).ok(),
        (None, Some(field)) => Some(field.clone()),
        (None, None) if head.version == Version::HTTP_10 => return Some(HeaderValue::from_static("")),
        (None, None) => None,
    };
    host.filter(|host| !more && is_host(host.as_bytes()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, HeaderName};

    use super::*;
    use crate::enforce::target::RequestTarget;

    fn head(version: Version, target: &'static str, fields: &[(&'static str, &'static str)]) -> Head {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let target = RequestTarget::from_bytes(Bytes::from_static(target.as_bytes())).unwrap();
        Head { method: Method::GET, target, version, headers }
    }

    #[test]
    fn one_host_is_asked_for_and_the_target_counts_more_than_the_field() {
        const V0: Version = Version::HTTP_10;
        const V1: Version = Version::HTTP_11;
        const V2: Version = Version::HTTP_2;
        for (version, target, hosts, expected) in [
            (V1, "/", &[][..], None),
            (V0, "/", &[], Some("")),
            (V2, "/", &[], None),
            (V1, "/", &["a"], Some("a")),
            (V0, "/", &["a"], Some("a")),
            (V1, "/", &["a:8443"], Some("a:8443")),
            (V1, "/", &["a", "a"], None),
            (V0, "/", &["a", "a"], None),
            (V1, "/", &["a b"], None),
            (V1, "/", &[""], None),
            (V1, "http://b/", &["a"], Some("b")),
            (V1, "http://b/", &["a", "b"], None),
            (V1, "http://b/", &["b", "b"], None),
            (V1, "http://b/", &[], Some("b")),
            (V1, "http://u@b/", &["b"], None),
            (V0, "http://b/", &[], Some("b")),
            (V2, "https://b/", &[], Some("b")),
            (V2, "https://b/", &["b"], Some("b")),
            (V2, "https://B/", &["b"], Some("b")),
            (V2, "https://b/", &["a"], None),
            (V2, "https://b/", &["b:443"], None),
            (V2, "https://b/", &["b", "b"], None),
        ] {
            let fields: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            let found = host(&head(version, target, &fields));
            let found = found.as_ref().map(|host| host.to_str().unwrap());
            assert_eq!(found, expected, "{version:?} {target} {hosts:?}");
        }
    }

    #[test]
    fn the_crumbs_of_a_cookie_are_one_field_where_they_may_be_apart() {
        const FIELDS: [(&str, &str); 5] =
            [("cookie", "a=1"), ("x", "1"), ("cookie", "b=2"), ("x", "2"), ("cookie", "c=3")];
        for (fields, in_http1, in_http2) in [
            (&FIELDS[..], 5, 3),
            (&FIELDS[..4], 4, 3),
            (&FIELDS[..2], 2, 2),
            (&FIELDS[1..2], 1, 1),
            (&[], 0, 0),
        ] {
            assert_eq!(field_count(&head(Version::HTTP_11, "/", fields)), in_http1, "{fields:?}");
            assert_eq!(field_count(&head(Version::HTTP_2, "/", fields)), in_http2, "{fields:?}");
        }
    }

    #[test]
    fn a_header_list_is_measured_as_rfc_9113_says() {
        // `:path`, `:method` and `:scheme` are 5 + 32, 7 + 3 + 32, and 7 + 5 + 32; `:authority` is 10 + 32.
        for (target, fields, size) in [
            ("/", &[][..], 124),
            ("/abc?d", &[], 129),
            ("https://host.example/abc?d", &[], 129 + 54),
            ("/", &[("x-a", "bcd")], 124 + 38),
            ("/", &[("x-a", ""), ("x-a", "1"), ("y", "2")], 124 + 35 + 36 + 34),
            ("https://host.example/abc?d", &[("x-a", "bcd")], 129 + 54 + 38),
        ] {
            assert_eq!(list_size(&head(Version::HTTP_2, target, fields)), size, "{target} {fields:?}");
        }
    }

    #[test]
    fn a_header_list_of_http2_has_a_size_one_length_and_names_that_are_tokens() {
        for (fields, bytes, expected) in [
            (&[][..], 124, Ok(())),
            (&[], 123, Err(GateRefusal::LIST_TOO_LARGE)),
            (&[("content-length", "1")], 1000, Ok(())),
            (&[("content-length", "1"), ("content-length", "1")], 1000, Err(GateRefusal::BAD_LENGTH)),
            (&[("x-a", "\"")], 1000, Ok(())),
        ] {
            let checked = check_list(&head(Version::HTTP_2, "/", fields), bytes);
            assert_eq!(checked, expected, "{fields:?} {bytes}");
            assert_eq!(check_list(&head(Version::HTTP_11, "/", fields), bytes), Ok(()), "{fields:?} {bytes}");
        }
        let mut quoted = head(Version::HTTP_2, "/", &[]);
        quoted.headers.append(HeaderName::from_lowercase(b"a\"b").unwrap(), HeaderValue::from_static("1"));
        assert_eq!(check_list(&quoted, 1000), Err(GateRefusal::BAD_NAME));
    }
}
