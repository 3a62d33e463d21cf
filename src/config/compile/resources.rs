//! Compiles `[[resources]]` and assigns routes to them.

use std::sync::Arc;

use super::unique;
use crate::client::{Url, UrlError};
use crate::config::section::Section;
use crate::config::settings::IssuerSettings;
use crate::config::units;
use crate::enforce::dpop::SenderConstraint;
use crate::enforce::policy::{Requirement, RouteSettings};
use crate::enforce::resource::{DpopUse, Resource, canonical_path};
use crate::gate;
use crate::keys::KeySource;

/// A scope that asks for a refresh token and never belongs to a resource.
const OFFLINE_ACCESS: &str = "offline_access";

/// Compiles all tables. `gate` is the listener that their clients connect to. Assigns each of `routes` its
/// resource, and the embedded authority among `issuers` the resources that it issues tokens for.
pub(super) fn resources(
    s: &mut Section<'_>,
    gate: &gate::Settings,
    issuers: &mut [IssuerSettings],
    routes: &mut [RouteSettings],
) -> Vec<Arc<Resource>> {
    let (mut names, mut paths, mut places) = (Vec::new(), Vec::new(), Vec::new());
    let mut sound = Vec::new();
    let mut resources = s.tables("resources", |s| {
        let resource = resource(s);
        unique(s, "name", &resource.name, &mut names);
        unique(s, "path", &resource.path, &mut paths);
        if s.is_sound("url") {
            served_at(s, &resource, &mut places);
        }
        sound.push(s.is_sound("path"));
        resource
    });
    for resource in resources.iter_mut().filter(|resource| resource.authorization_servers.is_empty()) {
        resource.authorization_servers = servers(issuers);
    }
    let owners: Vec<_> = routes.iter().map(|route| owner(&resources, route)).collect();
    let takes_certificates = gate.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    let dpop = dpop(issuers, s.has("dpop"));
    for (place, resource) in resources.iter_mut().enumerate() {
        resource.takes_certificates = takes_certificates;
        resource.dpop = dpop;
        let own = routes.iter().zip(&owners).filter(|(_, owner)| **owner == Some(place));
        let own: Vec<&RouteSettings> = own.map(|(route, _)| route).collect();
        // Routes of a nested resource also show that the path is not a mistake.
        let has_routes = routes.iter().any(|route| resource.covers(&route.path));
        if !has_routes && s.is_sound("routes") && sound.get(place) == Some(&true) {
            s.table_problem("resources", place, "path", "no route is at or below this path");
        }
        if resource.scopes.is_empty() {
            resource.scopes = scopes(&own);
        }
    }
    for issuer in issuers.iter_mut().filter(|issuer| issuer.keys.source == KeySource::Authority) {
        let is_server = |resource: &&Resource| {
            resource.authorization_servers.iter().any(|server| **server == *issuer.rules.issuer)
        };
        let own = resources.iter().filter(is_server);
        issuer.rules.resources = own.map(|resource| resource.url.clone()).collect();
    }
    let resources: Vec<Arc<Resource>> = resources.into_iter().map(Arc::new).collect();
    for (route, owner) in routes.iter_mut().zip(owners) {
        route.resource = owner.and_then(|place| resources.get(place)).map(Arc::clone);
    }
    resources
}

/// The issuers that clients can ask for a token: those whose names are URLs. One issuer may have several tables.
fn servers(issuers: &[IssuerSettings]) -> Vec<String> {
    let mut servers: Vec<String> = Vec::new();
    for name in issuers.iter().map(|issuer| &*issuer.rules.issuer) {
        if Url::parse(name, false).is_ok() && !servers.iter().any(|other| other == name) {
            servers.push(name.to_owned());
        }
    }
    servers
}

/// The resource of a route: the one with the longest path that the route is at or below.
fn owner(resources: &[Resource], route: &RouteSettings) -> Option<usize> {
    let covering = resources.iter().enumerate().filter(|(_, resource)| resource.covers(&route.path));
    covering.max_by_key(|(_, resource)| resource.path.trim_end_matches('/').len()).map(|(place, _)| place)
}

/// The scopes that the routes require, without duplicates.
fn scopes(routes: &[&RouteSettings]) -> Vec<String> {
    let mut scopes = Vec::new();
    let requirements = routes.iter().flat_map(|route| [&route.requirement].into_iter().chain(&route.allow));
    for Requirement { scopes: all, any_scope, .. } in requirements {
        for scope in all.iter().chain(any_scope) {
            if scope != OFFLINE_ACCESS && !scopes.contains(scope) {
                scopes.push(scope.clone());
            }
        }
    }
    scopes
}

fn resource(s: &mut Section<'_>) -> Resource {
    Resource {
        name: s.required("name", units::name).unwrap_or_default(),
        path: s.required("path", path).unwrap_or_default(),
        url: s.required("url", identifier).unwrap_or_default(),
        authorization_servers: s.list("authorization_servers", &[], |text| {
            Url::parse(text, false).map(|_| text.to_owned()).map_err(|error| error.to_string())
        }),
        scopes: s.list("scopes", &[], |text| match text {
            OFFLINE_ACCESS => Err("concerns refresh tokens and is not a scope of a resource".to_owned()),
            _ => units::scope(text),
        }),
        title: s.text("title", ""),
        documentation: s.parsed("documentation", "", documentation).unwrap_or_default(),
        require_audience: s.flag("require_audience", true),
        takes_certificates: false,
        dpop: DpopUse::default(),
    }
}

/// What the metadata says about DPoP-bound tokens. `announced`: the file has `[dpop]`.
fn dpop(issuers: &[IssuerSettings], announced: bool) -> DpopUse {
    let mut constraints = issuers.iter().map(|issuer| issuer.rules.sender_constraint);
    if !constraints.clone().any(|constraint| constraint.takes_dpop(announced)) {
        return DpopUse::Unannounced;
    }
    let is_required = constraints.all(|constraint| constraint == SenderConstraint::Dpop);
    if is_required { DpopUse::Required } else { DpopUse::Accepted }
}

/// Records where the metadata is served, or reports which resource already uses that path.
fn served_at(s: &Section<'_>, resource: &Resource, places: &mut Vec<(String, usize)>) {
    let place = resource.metadata_path();
    match places.iter().find(|(other, _)| *other == place) {
        Some((_, line)) => {
            s.problem(
                "url",
                format!("its metadata URL {place} is already used by the resource on line {line}"),
            );
        }
        None if resource.url.is_empty() => {}
        None => places.push((place, s.line())),
    }
}

/// A path of literal segments, in the form that requests are compared in.
fn path(text: &str) -> Result<String, String> {
    if text.contains(['{', '}', '*', '?']) {
        return Err(format!("{text:?} is not a path of literal segments such as \"/mcp\""));
    }
    if !text.starts_with('/') || (text.ends_with('/') && text != "/") {
        return Err(format!("{text:?} must start with \"/\" and not end with one, as in \"/mcp\""));
    }
    canonical_path(text).ok_or_else(|| format!("{text:?} can never match: such request targets are rejected"))
}

/// RFC 9728 §1.2: an https URL without a fragment; `http` is allowed on loopback, for trials.
fn identifier(text: &str) -> Result<String, String> {
    Url::parse(text, false).map_err(|error| match error {
        UrlError::Insecure | UrlError::Scheme => {
            "must begin with https:// (http:// is allowed for loopback only)".to_owned()
        }
        error => error.to_string(),
    })?;
    let after_scheme = text.split_once("://").map_or(text, |(_, rest)| rest);
    let path = after_scheme.find('/').and_then(|at| after_scheme.get(at..)).unwrap_or("/");
    // They must be escaped in a URI (RFC 3986 §2), and a challenge could not quote the metadata URL.
    let unsafe_characters = ['"', '\\', '<', '>', '^', '`', '{', '|', '}'];
    match text {
        _ if text.contains('?') => Err("must not have a query".to_owned()),
        _ if text.contains(unsafe_characters) => {
            Err("has a character that must be percent-encoded".to_owned())
        }
        _ if canonical_path(path).is_none() => Err("has a path that no request can match".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

/// The URL of a documentation page.
fn documentation(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Ok(String::new());
    }
    Url::parse(text, true).map(|_| text.to_owned()).or_else(|error| match error {
        // Browsers support fragments.
        UrlError::Fragment => Ok(text.to_owned()),
        error => Err(error.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_urls_that_clients_can_compare() {
        for good in [
            "https://api.example.com",
            "https://api.example.com/",
            "https://API.example.com:8443/Mcp/",
            "https://api.example.com/%6dcp",
            "http://127.0.0.1:8443/mcp",
            "http://[::1]:8443/mcp",
            "http://localhost/mcp",
        ] {
            assert_eq!(identifier(good), Ok(good.to_owned()), "as it was written");
        }
        for bad in [
            "",
            "/mcp",
            "api.example.com/mcp",
            "http://api.example.com/mcp",
            "http://192.0.2.1/mcp",
            "urn:example:mcp",
            "https://api.example.com/mcp#x",
            "https://api.example.com/mcp?x",
            "https://user@api.example.com/mcp",
            "https://api.example.com//mcp",
            "https://api.example.com/a/../mcp",
            "https://api.example.com/m\"cp",
            "https://api.example.com/m cp",
            "https:///mcp",
        ] {
            assert!(identifier(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_are_literal_and_take_the_form_that_requests_are_compared_in() {
        for (text, read) in
            [("/", "/"), ("/mcp", "/mcp"), ("/%6dcp/a", "/mcp/a"), ("/caf%c3%a9", "/caf%C3%A9")]
        {
            assert_eq!(path(text), Ok(read.to_owned()));
        }
        for bad in ["", "mcp", "/mcp/", "/{id}", "/{*rest}", "/a*", "/a//b", "/a/..", "/a?b", "/%zz"] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }
}
