//! Protected resources (`[[resources]]`): what clients learn about a prefix of routes before they have a token (RFC 9728).
//!
//! Everything comes from the configuration, nothing from a request: clients compare the identifier byte for
//! byte.

use serde_json::{Map, Value};

use super::dpop::ALGORITHMS;
use super::target;

/// Prefix of every metadata path (RFC 9728 §3).
pub const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// One protected resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resource {
    /// Its name in the configuration.
    pub name: String,
    /// Prefix of its routes, in canonical form with literal segments only.
    pub path: String,
    /// Its identifier, byte for byte as clients know it.
    pub url: String,
    /// The issuers where clients get tokens for it.
    pub authorization_servers: Vec<String>,
    /// The scopes that its clients may need.
    pub scopes: Vec<String>,
    /// Its display name; may be empty.
    pub title: String,
    /// The URL of its documentation; may be empty.
    pub documentation: String,
    /// Whether its routes accept only tokens with the identifier in `aud`.
    pub require_audience: bool,
    /// Whether it accepts tokens bound to client certificates (RFC 8705).
    pub takes_certificates: bool,
    /// Whether it accepts or requires tokens bound to a key (RFC 9449).
    pub dpop: DpopUse,
}

/// Whether clients may or must bind their tokens to a key (RFC 9449).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DpopUse {
    /// The metadata does not mention it.
    #[default]
    Unannounced,
    /// Clients may.
    Accepted,
    /// Clients must: no issuer's tokens are accepted otherwise.
    Required,
}

impl Resource {
    /// Whether a route with this pattern is at or below the path.
    #[must_use]
    pub fn covers(&self, pattern: &str) -> bool {
        let Some(own) = self.path.strip_prefix('/') else { return false };
        let mut segments = pattern.split('/').skip(1);
        own.is_empty() || own.split('/').all(|own| segments.next().is_some_and(|other| same(own, other)))
    }

    /// The path of its metadata: the well-known path, inserted before the path of the identifier (RFC 9728
    /// §3.1).
    #[must_use]
    pub fn metadata_path(&self) -> String {
        let (_, path) = self.split_url();
        // The slash after the host is dropped.
        let path = if path == "/" { "" } else { path };
        let path = format!("{WELL_KNOWN}{path}");
        canonical_path(&path).unwrap_or(path)
    }

    /// The URL of its metadata, as challenges name it.
    #[must_use]
    pub fn metadata_url(&self) -> String {
        let (origin, path) = self.split_url();
        let path = if path == "/" { "" } else { path };
        format!("{origin}{WELL_KNOWN}{path}")
    }

    /// Whether its metadata is also served for requests at the root of the host, because it covers all paths.
    #[must_use]
    pub fn is_at_root(&self) -> bool {
        self.path == "/"
    }

    /// Its metadata (RFC 9728 §2), without empty members.
    #[must_use]
    pub fn metadata(&self) -> Value {
        let mut members = Map::new();
        members.insert("resource".to_owned(), self.url.as_str().into());
        for (name, list) in
            [("authorization_servers", &self.authorization_servers), ("scopes_supported", &self.scopes)]
        {
            if !list.is_empty() {
                members.insert(name.to_owned(), list.clone().into());
            }
        }
        members.insert("bearer_methods_supported".to_owned(), vec!["header"].into());
        if self.takes_certificates {
            members.insert("tls_client_certificate_bound_access_tokens".to_owned(), true.into());
        }
        if self.dpop != DpopUse::Unannounced {
            members.insert("dpop_signing_alg_values_supported".to_owned(), ALGORITHMS.to_vec().into());
        }
        if self.dpop == DpopUse::Required {
            members.insert("dpop_bound_access_tokens_required".to_owned(), true.into());
        }
        for (name, text) in [("resource_name", &self.title), ("resource_documentation", &self.documentation)]
        {
            if !text.is_empty() {
                members.insert(name.to_owned(), text.as_str().into());
            }
        }
        Value::Object(members)
    }

    /// Splits the identifier into scheme and host, and path.
    fn split_url(&self) -> (&str, &str) {
        let host = self.url.find("://").map_or(0, |at| at + 3);
        let path = self.url.get(host..).and_then(|rest| rest.find('/'));
        self.url.split_at(path.map_or(self.url.len(), |at| host + at))
    }
}

/// A path in the form in which requests are compared; `None` if no valid request has it.
#[must_use]
pub fn canonical_path(path: &str) -> Option<String> {
    let canonical = target::canonical(path.as_bytes()).ok()?;
    Some(canonical.text.unwrap_or_else(|| path.to_owned()))
}

/// Whether a segment of a pattern matches only this literal.
fn same(own: &str, segment: &str) -> bool {
    own == segment || canonical_path(&format!("/{segment}")).is_some_and(|it| it.get(1..) == Some(own))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resource(path: &str, url: &str) -> Resource {
        Resource { path: path.to_owned(), url: url.to_owned(), ..Resource::default() }
    }

    #[test]
    fn the_metadata_is_where_rfc_9728_says() {
        for (url, at) in [
            ("https://api.example.com", ""),
            ("https://api.example.com/", ""),
            ("https://api.example.com:8443", ""),
            ("https://api.example.com/mcp", "/mcp"),
            ("https://api.example.com/mcp/", "/mcp/"),
            ("https://api.example.com/a/b", "/a/b"),
            ("https://a/b", "/b"),
            ("https://a", ""),
            ("http://a/b/c", "/b/c"),
            ("http://[::1]:8080/mcp", "/mcp"),
        ] {
            let resource = resource("/mcp", url);
            let origin = url.split('/').take(3).collect::<Vec<_>>().join("/");
            assert_eq!(resource.metadata_path(), format!("{WELL_KNOWN}{at}"), "{url}");
            assert_eq!(resource.metadata_url(), format!("{origin}{WELL_KNOWN}{at}"), "{url}");
            assert_eq!(resource.metadata()["resource"], url, "byte for byte");
        }
        let encoded = resource("/", "https://api.example.com/%6dcp/%c3%a9");
        assert_eq!(encoded.metadata_path(), format!("{WELL_KNOWN}/mcp/%C3%A9"), "as requests are compared");
        assert!(encoded.metadata_url().ends_with("/%6dcp/%c3%a9"), "as it was written");
    }

    #[test]
    fn only_a_resource_of_the_whole_host_is_at_its_root() {
        for (path, is_at_root) in [("/", true), ("/mcp", false), ("/mcp/", false), ("", false)] {
            assert_eq!(resource(path, "").is_at_root(), is_at_root, "{path}");
        }
    }

    #[test]
    fn routes_at_and_below_the_path_are_covered() {
        for (path, pattern, covered) in [
            ("/mcp", "/mcp", true),
            ("/mcp", "/mcp/", true),
            ("/mcp", "/mcp/{*rest}", true),
            ("/mcp", "/mcp/{name}/x", true),
            ("/mcp", "/%6dcp/x", true),
            ("/mcp", "/mcp2", false),
            ("/mcp", "/mc", false),
            ("/mcp", "/MCP", false),
            ("/mcp", "/{*rest}", false),
            ("/mcp", "/{name}", false),
            ("/mcp", "/", false),
            ("/a/b", "/a", false),
            ("/a/b", "/a/b/c", true),
            ("/a/b", "/a/bc", false),
            ("/", "/", true),
            ("/", "/{*rest}", true),
            ("/", "/mcp", true),
        ] {
            assert_eq!(resource(path, "").covers(pattern), covered, "{path} {pattern}");
        }
    }

    #[test]
    fn members_that_say_nothing_are_left_out() {
        let bare = resource("/mcp", "https://api.example.com/mcp");
        assert_eq!(
            bare.metadata(),
            json!({"resource": "https://api.example.com/mcp", "bearer_methods_supported": ["header"]})
        );
        let full = Resource {
            authorization_servers: vec!["https://idp.example.com/".to_owned()],
            scopes: vec!["a".to_owned(), "b".to_owned()],
            title: "Deals".to_owned(),
            documentation: "https://docs.example.com/".to_owned(),
            takes_certificates: true,
            dpop: DpopUse::Required,
            ..bare
        };
        assert_eq!(
            full.metadata(),
            json!({
                "resource": "https://api.example.com/mcp",
                "authorization_servers": ["https://idp.example.com/"],
                "scopes_supported": ["a", "b"],
                "bearer_methods_supported": ["header"],
                "tls_client_certificate_bound_access_tokens": true,
                "dpop_signing_alg_values_supported": ALGORITHMS,
                "dpop_bound_access_tokens_required": true,
                "resource_name": "Deals",
                "resource_documentation": "https://docs.example.com/",
            })
        );
        let accepted = Resource { dpop: DpopUse::Accepted, ..full }.metadata();
        assert_eq!(accepted["dpop_signing_alg_values_supported"], json!(ALGORITHMS));
        assert_eq!(accepted.get("dpop_bound_access_tokens_required"), None);
    }
}
