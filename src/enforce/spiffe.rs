//! Names of workloads in a SPIFFE trust domain (SPIFFE-ID §2), as in `sub` of a JWT-SVID.

use serde_json::{Map, Value};

/// Prefix of every SPIFFE ID.
pub const SCHEME: &str = "spiffe://";
/// Maximum length of a SPIFFE ID in bytes (SPIFFE-ID §2.3).
const LONGEST: usize = 2048;

/// The trust domain in the subject of a token, to be compared byte for byte with a configured one: upper
/// case, a port or a user name make it a different one.
#[must_use]
pub fn trust_domain(payload: &Map<String, Value>) -> Option<&str> {
    let rest = payload.get("sub")?.as_str()?.strip_prefix(SCHEME)?;
    rest.split(['/', '?', '#']).next()
}

/// Checks that the subject is the SPIFFE ID of a workload.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check_workload(payload: &Map<String, Value>) -> Result<(), &'static str> {
    let id = payload.get("sub").and_then(Value::as_str).unwrap_or_default();
    let path = id.strip_prefix(SCHEME).and_then(|rest| rest.split_once('/')).map(|(_domain, path)| path);
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let is_segment = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(fits);
    match path {
        _ if id.len() > LONGEST => Err("sub is longer than 2048 bytes, the maximum length of a SPIFFE ID"),
        None => Err("sub names a trust domain but no workload"),
        Some(path) if path.split('/').all(is_segment) => Ok(()),
        Some(_) => Err("sub is not a SPIFFE ID: its path has an invalid segment"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn subject(sub: &Value) -> Map<String, Value> {
        Map::from_iter([("sub".to_owned(), sub.clone())])
    }

    #[test]
    fn the_trust_domain_is_all_between_scheme_and_path() {
        for (sub, domain) in [
            (json!("spiffe://example.org/ns/prod/sa/api"), Some("example.org")),
            (json!("spiffe://example.org"), Some("example.org")),
            (json!("spiffe://example.org?x"), Some("example.org")),
            (json!("spiffe://example.org#x"), Some("example.org")),
            (json!("spiffe://example.org.evil.example/ns"), Some("example.org.evil.example")),
            (json!("spiffe://Example.org/ns"), Some("Example.org")),
            (json!("spiffe://example.org:8443/ns"), Some("example.org:8443")),
            (json!("spiffe://u@example.org/ns"), Some("u@example.org")),
            (json!("spiffe:///ns"), Some("")),
            (json!("SPIFFE://example.org/ns"), None),
            (json!("https://example.org/ns"), None),
            (json!("example.org"), None),
            (json!(["spiffe://example.org/ns"]), None),
            (json!(null), None),
        ] {
            assert_eq!(trust_domain(&subject(&sub)), domain, "{sub}");
        }
        assert_eq!(trust_domain(&Map::new()), None);
    }

    #[test]
    fn a_workload_has_a_path_of_plain_segments() {
        let longest = format!("spiffe://example.org/{}", "a".repeat(LONGEST - 21));
        let too_long = format!("{longest}a");
        for (sub, good) in [
            ("spiffe://example.org/ns/prod/sa/api", true),
            ("spiffe://example.org/A-b_c.9", true),
            ("spiffe://example.org/...", true),
            (&*longest, true),
            (&*too_long, false),
            ("spiffe://example.org", false),
            ("spiffe://example.org/", false),
            ("spiffe://example.org/ns/", false),
            ("spiffe://example.org//ns", false),
            ("spiffe://example.org/./ns", false),
            ("spiffe://example.org/ns/..", false),
            ("spiffe://example.org/ns%2f", false),
            ("spiffe://example.org/ns?x", false),
            ("spiffe://example.org/ns#x", false),
            ("spiffe://example.org/é", false),
        ] {
            assert_eq!(check_workload(&subject(&json!(sub))).is_ok(), good, "{sub}");
        }
        assert!(check_workload(&Map::new()).is_err());
    }
}
