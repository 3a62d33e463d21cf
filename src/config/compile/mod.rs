//! Compiles the file's tables into the settings of each room: one file per group of tables.
//!
//! Each function reads every key of its table in one expression, so that a setting without a key does not
//! compile, and a key without a setting is reported as unknown.

use std::net::SocketAddr;

use super::section::Section;
use super::settings::Settings;
use crate::enforce;
use crate::keys::KeySource;
use crate::signals::intake::EndpointKind;

mod authority;
mod browsers;
mod conditions;
mod dpop;
mod identity;
mod issuers;
mod operators;
mod resources;
mod routes;
mod scim;
mod server;
mod shared;
mod signals;
mod state;
mod streams;
mod telemetry;
mod transmitters;
mod upstreams;
mod workloads;

use signals::SignalSettings;

/// Compiles the whole file.
pub(super) fn settings(s: &mut Section<'_>) -> Settings {
    let mut taken = Vec::new();
    let gate = s.aside(|s| s.table("server", |s| server::server(s, &mut taken)));
    let upstreams = s.aside(upstreams::upstreams);
    let mut issuers = issuers::issuers(s);
    let mut routes = routes::routes(s, &upstreams, &issuers);
    let resources = resources::resources(s, &gate, &mut issuers, &mut routes);
    let telemetry = s.aside(|s| s.table("telemetry", |s| telemetry::telemetry(s, &mut taken)));
    let SignalSettings { intake, logout, revocation } =
        s.aside(|s| signals::signals(s, &issuers, &mut taken));
    let endpoint = |name: &str| intake.as_ref().and_then(|intake| intake.url(EndpointKind::Ssf, name));
    let transmitters = s.aside(|s| transmitters::transmitters(s, &issuers, endpoint));
    let mut authority = authority::authority(s, &issuers);
    if let Some(authority) = &mut authority {
        authority.binds_certificates = gate.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        let mut ours =
            revocation.iter().filter(|sender| sender.subject_issuer.issuer.issuer == authority.issuer);
        let own = issuers.iter().find(|issuer| issuer.keys.source == KeySource::Authority);
        authority.resources = own.map(|issuer| issuer.rules.resources.clone()).unwrap_or_default();
        authority.global_token_revocation = ours.next().map(|sender| sender.url.clone());
    }
    let scim = s.aside(|s| {
        scim::providers(s, &issuers, authority.as_ref(), intake.is_some() || !s.is_sound("signals"))
    });
    let sessions = s.table("sessions", |s| state::sessions(s, &issuers));
    Settings {
        gate,
        upstreams,
        issuers,
        resources,
        authority,
        transmitters,
        signals: intake,
        logout,
        revocation,
        scim,
        enforce: enforce::Settings {
            routes,
            identity: s.table("identity", identity::identity),
            bearer: s.table("bearer", identity::bearer),
            dpop: dpop::dpop(s),
            // One proof for each token in use, so that each is verified only once.
            proofs: sessions.max_tracked,
        },
        sessions,
        streams: s.table("streams", state::streams),
        // A shared store is not consulted for a decision about a token.
        state: s.aside(|s| s.table("state", state::state)),
        log: telemetry.log,
        traces: telemetry.traces,
        telemetry: telemetry.listen,
        ready_when: telemetry.ready_when,
        admin: s.aside(|s| s.table("admin", |s| operators::admin(s, &mut taken))),
        console: s.table("console", |s| s.flag("enabled", true)),
    }
}

/// Parses an address that no other listener of the file uses: the second one would fail to start, or take
/// connections from the first.
fn address(text: &str, taken: &mut Vec<SocketAddr>) -> Result<SocketAddr, String> {
    let address = text.parse().ok();
    let address: SocketAddr = address.ok_or_else(|| {
        format!("{text:?} is not an address; write an IP address and port, such as \"0.0.0.0:8443\"")
    })?;
    if let Some(other) = taken.iter().find(|other| overlap(**other, address)) {
        return Err(format!("{address} is already used by another listener, {other}"));
    }
    taken.push(address);
    Ok(address)
}

/// Whether two listeners cannot have these addresses at the same time. Port 0 is a new free port each time.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip(), other.ip());
    let same_ip = a == b || (a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified()));
    one.port() == other.port() && one.port() != 0 && same_ip
}

/// Records a name, or reports where it was first used.
fn unique(s: &Section<'_>, key: &str, name: &str, taken: &mut Vec<(String, usize)>) {
    match taken.iter().find(|(other, _)| other == name) {
        Some((_, line)) => s.problem(key, format!("{name:?} is a duplicate; first used on line {line}")),
        None if name.is_empty() => {}
        None => taken.push((name.to_owned(), s.line())),
    }
}
