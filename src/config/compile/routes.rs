//! `[[routes]]`.

use std::sync::Arc;

use http::Method;

use super::browsers;
use super::conditions::conditions;
use crate::config::section::{Section, not_one_of};
use crate::config::settings::IssuerSettings;
use crate::config::units;
use crate::config::values::Zero;
use crate::enforce::mcp::{McpName, McpSettings};
use crate::enforce::policy::{Authentication, EncodedSlashes, IdleCounts, Mode, Requirement, RouteSettings};
use crate::enforce::router::{PolicyError, Router};
use crate::forward::UpstreamSettings;

/// Compiles all tables.
pub(super) fn routes(
    s: &mut Section<'_>,
    upstreams: &[UpstreamSettings],
    issuers: &[IssuerSettings],
) -> Vec<RouteSettings> {
    let mut sound = Vec::new();
    let has_issuers = !issuers.is_empty() || !s.is_sound("issuers");
    let routes = s.tables("routes", |s| {
        let route = route(s, upstreams, issuers);
        if !route.anonymous && !has_issuers {
            s.own_problem("requires a token, but no [[issuers]] is configured");
        }
        sound.push(s.is_all_sound());
        route
    });
    let is_sound = |index: usize| sound.get(index).is_some_and(|sound| *sound);
    for PolicyError { route, other, key, message } in Router::new(routes.clone()).err().into_iter().flatten()
    {
        // A route with a problem is incomplete, so comparing it with others proves nothing.
        if other.is_none_or(|other| is_sound(route) && is_sound(other)) {
            s.table_problem("routes", route, key, message);
        }
    }
    routes
}

fn route(s: &mut Section<'_>, upstreams: &[UpstreamSettings], issuers: &[IssuerSettings]) -> RouteSettings {
    let methods = s.list("methods", &[], method);
    RouteSettings {
        path: Arc::from(s.required("path", |text| Ok(text.to_owned())).unwrap_or_default()),
        hosts: s.list("hosts", &[], host),
        origins: browsers::origins(s),
        cors: s.optional_table("cors", |s| browsers::cors(s, &methods)),
        methods,
        upstream: upstream(s, upstreams),
        requirement: requirement(s),
        allow: s.tables("allow", |s| {
            let one = requirement(s);
            // If the set has only an unknown key, that problem is enough.
            let is_read = s.written().all(|key| REQUIREMENT.contains(&key));
            if one.is_empty() && is_read && s.is_all_sound() {
                s.own_problem("has no requirements, so every token would be allowed");
            }
            one
        }),
        issuers: s.list("issuers", &[], |text| known_issuer(text, issuers)),
        audiences: s.list("audiences", &[], units::name),
        authentication: authentication(s),
        anonymous: s.flag("anonymous", false),
        mode: s.word("mode", ("enforce", Mode::Enforce), &[("shadow", Mode::Shadow)]),
        response_timeout: s.optional_duration("response_timeout"),
        request_body_timeout: Some(s.duration("request_body_timeout", "60s", Zero::Allowed))
            .filter(|limit| !limit.is_zero()),
        encoded_slashes: s.word(
            "encoded_slashes",
            ("reject", EncodedSlashes::Reject),
            &[("keep", EncodedSlashes::Keep)],
        ),
        access_log: s.flag("access_log", true),
        idle_counts: s.word(
            "idle_counts",
            ("any", IdleCounts::Any),
            &[("client", IdleCounts::Client), ("request", IdleCounts::Request)],
        ),
        mcp: McpSettings {
            methods: s.list("mcp_methods", &[], mcp_method),
            names: s.list("mcp_names", &[], |text| units::name(text).map(|name| McpName::new(&name))),
        },
        // Set once [[resources]] has been read.
        resource: None,
    }
}

/// The keys of a requirement.
const REQUIREMENT: [&str; 5] = ["scopes", "any_scope", "roles", "any_role", "claims"];

/// Scopes, roles and claims, all of which are required.
fn requirement(s: &mut Section<'_>) -> Requirement {
    Requirement {
        scopes: s.list("scopes", &[], units::scope),
        any_scope: s.list("any_scope", &[], units::scope),
        roles: s.list("roles", &[], units::name),
        any_role: s.list("any_role", &[], units::name),
        claims: conditions(s, "claims"),
    }
}

fn authentication(s: &mut Section<'_>) -> Authentication {
    // Like scopes, they are words that a challenge lists.
    let acr = |text: &str| units::scope(text).map_err(|message| message.replace("scope", "value of acr"));
    let acr_values = s.list("acr_values", &[], acr);
    let max_age = s.optional_duration("max_age");
    if max_age.is_some_and(|age| age.subsec_nanos() > 0) {
        s.problem("max_age", "must be whole seconds, as in a challenge (RFC 9470 §3)");
    }
    Authentication { acr_values, max_age }
}

fn known_issuer(text: &str, issuers: &[IssuerSettings]) -> Result<Arc<str>, String> {
    let mut names = issuers.iter().map(|issuer| &issuer.rules.issuer);
    if let Some(known) = names.clone().find(|name| ***name == *text) {
        return Ok(Arc::clone(known));
    }
    // It may be an issuer whose name is wrong or missing, which has been reported.
    if names.any(|name| name.is_empty()) {
        return Ok(Arc::from(text));
    }
    let known: Vec<&str> = issuers.iter().map(|issuer| &*issuer.rules.issuer).collect();
    Err(not_one_of(text, &known))
}

fn upstream(s: &mut Section<'_>, upstreams: &[UpstreamSettings]) -> usize {
    let find = |text: &str| match upstreams.iter().position(|upstream| upstream.name == text) {
        Some(index) => Ok(index),
        // It may be an upstream whose name is wrong or missing, which has been reported.
        None if upstreams.iter().any(|upstream| upstream.name.is_empty()) => Ok(0),
        None if upstreams.is_empty() => Err("no [[upstreams]] is configured".to_owned()),
        None => {
            let known: Vec<_> = upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
            Err(format!("upstream {text:?} does not exist (known: {})", known.join(", ")))
        }
    };
    s.required("upstream", find).unwrap_or_default()
}

/// Parses a method, which is case-sensitive (RFC 9110 §9.1): `get` would never match.
pub(super) fn method(text: &str) -> Result<Method, String> {
    let upper = text.to_ascii_uppercase();
    let standard = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "CONNECT"];
    match Method::from_bytes(text.as_bytes()) {
        Ok(Method::CONNECT) => Err("CONNECT is never forwarded".to_owned()),
        Ok(_) if text != upper && standard.contains(&upper.as_str()) => {
            Err(format!("{text:?} would never match: methods are case-sensitive; did you mean {upper:?}?"))
        }
        Ok(method) => Ok(method),
        Err(_) => Err(format!("{text:?} is not a valid method")),
    }
}

/// The name of a Model Context Protocol method.
fn mcp_method(text: &str) -> Result<String, String> {
    match text {
        _ if text.contains('*') => {
            Err(format!("{text:?} is not a wildcard here; list the methods one by one"))
        }
        _ => units::name(text),
    }
}

/// A host name in the form that requests are compared in: lower case, without port and trailing dot.
fn host(text: &str) -> Result<String, String> {
    let bad = |why: &str| Err(format!("{text:?} {why}; write a host name, such as \"api.example.com\""));
    let host = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match literal {
        Some(literal) if literal.parse::<std::net::Ipv6Addr>().is_ok() => return Ok(host),
        Some(_) => return bad("is not an IPv6 address"),
        None => {}
    }
    let byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    match host {
        _ if host.contains('*') => bad("contains a wildcard, which is not supported"),
        _ if host.contains(':') => bad("contains a port or a scheme"),
        _ if host.is_empty() || !host.bytes().all(byte) => bad("is not a host name"),
        host => Ok(host),
    }
}
