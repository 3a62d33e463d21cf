//! `portcullis check`: prints every problem of a configuration or, if there are none, its effect.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use super::table::columns;
use super::{BAD, warn};
use crate::authority;
use crate::config::{self, IssuerSettings, Settings};
use crate::enforce::explain::span;
use crate::enforce::mcp::{McpName, McpSettings};
use crate::enforce::policy::{CorsOrigins, CorsSettings, Mode, Requirement, RouteSettings, WebOrigin};
use crate::enforce::resource::Resource;
use crate::forward::{Address, Scheme, UpstreamSettings};
use crate::keys::KeySource;
use crate::time::Timestamp;
use crate::tls;

mod warnings;

/// Prints the effect and returns 0, or prints every problem and returns 2.
pub(super) fn check(path: &Path) -> ExitCode {
    match config::load(path) {
        Ok(loaded) => {
            for (path, expiry) in expired(&loaded.settings) {
                warn(format_args!("{}: the certificate expired on {expiry}", path.display()));
            }
            warnings::warnings(&loaded.settings).iter().for_each(warn);
            let summary = format!("{} is good.\n{}", path.display(), summary(&loaded.settings));
            // A closed standard output is not an error; the exit code still tells the result.
            drop(std::io::stdout().write_all(summary.as_bytes()));
            ExitCode::SUCCESS
        }
        Err(problems) => {
            drop(writeln!(std::io::stderr(), "{problems}"));
            ExitCode::from(BAD)
        }
    }
}

fn summary(settings: &Settings) -> String {
    let authority = settings.authority.as_ref().map(|authority| ("Authority", self::authority(authority)));
    let sections = [
        Some(("Listeners", listeners(settings))),
        Some(("Certificates", certificates(settings))).filter(|(_, rows)| !rows.is_empty()),
        Some(("Issuers", issuers(settings))),
        authority,
        Some(("Upstreams", columns(&settings.upstreams.iter().map(upstream).collect::<Vec<_>>()))),
        Some(("Routes", routes(settings))),
        Some(("Browsers", browsers(settings))).filter(|(_, rows)| !rows.is_empty()),
        Some(("Resources", resources(settings))).filter(|(_, rows)| !rows.is_empty()),
    ];
    let section = |(title, rows): (&str, String)| {
        let rows = if rows.is_empty() { "none: every request is refused\n" } else { &rows };
        format!("\n{title}\n{rows}")
    };
    sections.into_iter().flatten().map(section).collect()
}

fn listeners(settings: &Settings) -> String {
    let gate = &settings.gate;
    let public =
        gate.listen.iter().map(|listen| ["public".to_owned(), listen.to_string(), protection(&gate.tls)]);
    let telemetry = ["telemetry", &settings.telemetry.to_string(), "clear text: /metrics /live /ready"];
    let admin = &settings.admin;
    let admin = ["admin".to_owned(), admin.listen.to_string(), protection(&admin.tls)];
    columns(&public.chain([telemetry.map(str::to_owned), admin]).collect::<Vec<_>>())
}

/// The TLS settings of each listener that has TLS.
fn secure(settings: &Settings) -> impl Iterator<Item = (&'static str, &tls::ServerSettings)> {
    let listeners = [("public", &settings.gate.tls), ("admin", &settings.admin.tls)];
    listeners.into_iter().filter_map(|(name, tls)| Some((name, tls.as_ref()?)))
}

/// The certificates of each listener: their names and when they expire.
fn certificates(settings: &Settings) -> String {
    let row = |listener: &str, names: &str, path: &Path| {
        let until = tls::certificate_expiry(path).map(|expiry| format!("until {expiry}")).unwrap_or_default();
        [listener.to_owned(), names.to_owned(), path.display().to_string(), until]
    };
    let mut rows = Vec::new();
    for (listener, tls) in secure(settings) {
        rows.extend(tls.certificates.iter().map(|it| row(listener, &it.names.join(" "), &it.certificate)));
        let others = if tls.certificates.is_empty() { "every name" } else { "every other name" };
        rows.push(row(listener, others, &tls.certificate));
    }
    columns(&rows)
}

/// The certificates that have expired.
fn expired(settings: &Settings) -> Vec<(&Path, Timestamp)> {
    let files = secure(settings).flat_map(|(_, tls)| tls.certificate_files());
    let expiries = files.filter_map(|path| Some((path, tls::certificate_expiry(path).ok()?)));
    expiries.filter(|(_, expiry)| *expiry <= Timestamp::now()).collect()
}

fn protection(tls: &Option<tls::ServerSettings>) -> String {
    let Some(tls) = tls else {
        return "clear text".to_owned();
    };
    let version = match tls.min_version {
        tls::Version::Tls12 => "TLS 1.2 or later",
        tls::Version::Tls13 => "TLS 1.3",
    };
    let clients = match (&tls.client_ca, tls.require_client_certificate) {
        (None, _) => "",
        (Some(_), false) => ", client certificates verified",
        (Some(_), true) => ", client certificates required",
    };
    format!("{version}{clients}")
}

/// Each issuer, its idle timeout if they differ, and the conditions on its claims.
fn issuers(settings: &Settings) -> String {
    let timeouts = &settings.sessions.idle_timeouts;
    let has_own = timeouts.own().next().is_some();
    let idle = |name: &str| match timeouts.of(name) {
        _ if !has_own => String::new(),
        Some(timeout) => format!("idle after {}", span(*timeout)),
        None => "never idle".to_owned(),
    };
    let row = |one: &IssuerSettings| {
        let [name, algorithms, source] = issuer(one);
        let idle = idle(&name);
        let conditions = one.rules.conditions.iter().map(|condition| format!("claim {condition}"));
        let conditions = conditions.collect::<Vec<_>>().join("; ");
        [name, algorithms, source, idle, conditions]
    };
    columns(&settings.issuers.iter().map(row).collect::<Vec<_>>())
}

fn issuer(issuer: &IssuerSettings) -> [String; 3] {
    let source = match &issuer.keys.source {
        KeySource::File(path) => format!("keys in {}", path.display()),
        KeySource::Url(url) => format!("keys from {url}"),
        KeySource::Discovery | KeySource::SignalsMetadata(_) => "keys by discovery".to_owned(),
        KeySource::Secret(_) => "a shared secret".to_owned(),
        KeySource::Authority => "the embedded authority".to_owned(),
    };
    let algorithms: Vec<_> =
        issuer.rules.algorithms.iter().map(|algorithm| format!("{algorithm:?}")).collect();
    [issuer.rules.issuer.to_string(), algorithms.join(" "), source]
}

/// What the authority issues, and the paths that it takes precedence for over routes.
fn authority(authority: &authority::Settings) -> String {
    let authority::Settings { issuer, signing_algorithm, path, .. } = authority;
    let kept = path.display().to_string();
    let issued =
        columns(&[[issuer.to_string(), format!("{signing_algorithm:?}"), format!("kept in {kept}")]]);
    let paths = authority.paths().map(|(_, method, path)| [method.to_owned(), path.to_owned()]);
    issued + &columns(&paths)
}

fn upstream(upstream: &UpstreamSettings) -> [String; 2] {
    let UpstreamSettings { name, scheme, addresses, .. } = upstream;
    let scheme = match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
        Scheme::H2c => "h2c",
    };
    let url = |address: &Address| match address {
        Address::Tcp { .. } => format!("{scheme}://{address}"),
        Address::Unix(_) => address.to_string(),
    };
    [name.clone(), addresses.iter().map(url).collect::<Vec<_>>().join(", ")]
}

fn routes(settings: &Settings) -> String {
    if settings.enforce.routes.is_empty() {
        return String::new();
    }
    let head = ["METHOD", "HOST", "PATH", "UPSTREAM", "REQUIRES", "MODE"].map(str::to_owned);
    let rows = settings.enforce.routes.iter().map(|route| self::route(route, &settings.upstreams));
    columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

/// The MCP methods and names to which a route is limited.
fn mcp(McpSettings { methods, names }: &McpSettings) -> String {
    let names: Vec<&str> = names.iter().map(McpName::as_str).collect();
    let parts = [methods.join(","), names.join(",")];
    parts.iter().filter(|part| !part.is_empty()).map(|part| format!(" {part}")).collect()
}

/// The origins that may call routes, and those that may read the responses.
fn browsers(settings: &Settings) -> String {
    let named = |origins: &[WebOrigin]| origins.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let row = |route: &RouteSettings| {
        let cors = match &route.cors {
            None => "CORS is the upstream's".to_owned(),
            Some(CorsSettings { origins, credentials, .. }) => {
                let whose = match origins {
                    CorsOrigins::Any => "every origin".to_owned(),
                    CorsOrigins::Listed(listed) if listed.is_empty() => "no origin".to_owned(),
                    CorsOrigins::Listed(listed) => named(listed),
                };
                format!("CORS for {whose}{}", if *credentials { ", with credentials" } else { "" })
            }
        };
        let from = match route.origins.as_slice() {
            [] => "from any origin".to_owned(),
            listed => format!("only from {}", named(listed)),
        };
        [
            any(&route.methods, http::Method::as_str),
            any(&route.hosts, String::as_str),
            route.path.to_string(),
            from,
            cors,
        ]
    };
    let rules =
        settings.enforce.routes.iter().filter(|route| !route.origins.is_empty() || route.cors.is_some());
    columns(&rules.map(row).collect::<Vec<_>>())
}

/// Words in one column; `any` if there are none.
fn any<T>(words: &[T], shown: fn(&T) -> &str) -> String {
    if words.is_empty() { "any".to_owned() } else { words.iter().map(shown).collect::<Vec<_>>().join(",") }
}

/// The metadata that clients can read without a token, and its URLs.
fn resources(settings: &Settings) -> String {
    let row = |resource: &Arc<Resource>| {
        let audience =
            if resource.require_audience { "aud must hold the URL" } else { "any aud of the issuer" };
        let root = if resource.is_at_root() { " and at its root" } else { "" };
        let metadata = format!("metadata at {}{root}", resource.metadata_path());
        [&resource.path, &resource.url, audience, &metadata].map(str::to_owned)
    };
    columns(&settings.resources.iter().map(row).collect::<Vec<_>>())
}

fn route(route: &RouteSettings, upstreams: &[UpstreamSettings]) -> [String; 6] {
    let mode = match route.mode {
        Mode::Enforce => "enforce",
        Mode::Shadow => "shadow",
    };
    [
        any(&route.methods, http::Method::as_str),
        any(&route.hosts, String::as_str),
        format!("{}{}", route.path, mcp(&route.mcp)),
        upstreams.get(route.upstream).map(|upstream| upstream.name.clone()).unwrap_or_default(),
        if route.anonymous { "nothing (anonymous)".to_owned() } else { demands(route) },
        mode.to_owned(),
    ]
}

/// What a route requires of a token.
fn demands(route: &RouteSettings) -> String {
    let RouteSettings { requirement, allow, issuers, audiences, authentication, .. } = route;
    let mut parts = self::requirement(requirement);
    if !allow.is_empty() {
        let sets: Vec<_> =
            allow.iter().map(|one| format!("({})", self::requirement(one).join("; "))).collect();
        parts.push(format!("one of {}", sets.join(" or ")));
    }
    if !issuers.is_empty() {
        parts.push(format!("issuer {}", issuers.join("|")));
    }
    if !audiences.is_empty() {
        parts.push(format!("audience {}", audiences.join("|")));
    }
    if !authentication.acr_values.is_empty() {
        parts.push(format!("acr {}", authentication.acr_values.join("|")));
    }
    if let Some(most) = authentication.max_age {
        parts.push(format!("authenticated at most {} ago", seconds(most)));
    }
    if parts.is_empty() { "a valid token".to_owned() } else { parts.join("; ") }
}

/// A duration in whole seconds, as in challenges.
fn seconds(duration: std::time::Duration) -> String {
    format!("{}s", duration.as_secs())
}

fn requirement(requirement: &Requirement) -> Vec<String> {
    let Requirement { scopes, any_scope, roles, any_role, claims } = requirement;
    let parts = [
        ("scopes", scopes, " "),
        ("any scope of", any_scope, "|"),
        ("roles", roles, " "),
        ("any role of", any_role, "|"),
    ];
    let parts = parts.into_iter().filter(|(_, words, _)| !words.is_empty());
    let parts = parts.map(|(what, words, separator)| format!("{what} {}", words.join(separator)));
    parts.chain(claims.iter().map(|condition| format!("claim {condition}"))).collect()
}
