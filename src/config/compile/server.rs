//! `[server]`, `[server.tls]`, `[server.limits]` and `[admin.tls]`.

use std::net::{IpAddr, SocketAddr};
use std::num::{NonZero, NonZeroUsize};

use ipnet::IpNet;
use rustls::pki_types::ServerName;
use serde_json::json;

use super::address;
use crate::config::section::Section;
use crate::config::values::Zero;
use crate::config::{describe, material};
use crate::forward::TrustedFields;
use crate::gate::{GateLimits, ProxyProtocol, Settings};
use crate::tls::{NamedCertificate, ServerSettings, Version};

/// `[server]`.
pub(super) fn server(s: &mut Section<'_>, taken: &mut Vec<SocketAddr>) -> Settings {
    let listen = s.filled_list("listen", &["0.0.0.0:8443"], |text| address(text, taken));
    s.narrow("listen", || json!({ "items": describe::address() }));
    s.narrow_table(|| {
        let plaintext = json!({ "properties": { "allow_plaintext": { "const": true } } });
        json!({ "anyOf": [{ "required": ["tls"] }, { "required": ["allow_plaintext"], "allOf": [plaintext] }] })
    });
    let allow_plaintext = s.flag("allow_plaintext", false);
    let tls = s.optional_table("tls", |s| {
        let settings = tls(s);
        let session_tickets = s.flag("session_tickets", true);
        ServerSettings { certificates: certificates(s), session_tickets, ..settings }
    });
    if tls.is_none() && !allow_plaintext {
        s.problem("tls", "is missing: tokens would travel in clear text; add [server.tls], or set allow_plaintext = true under [server]");
    }
    let trusted_proxies = s.list("trusted_proxies", &[], network);
    let proxy_protocol = s.word(
        "proxy_protocol",
        ("off", ProxyProtocol::Off),
        &[("v1", ProxyProtocol::V1), ("v2", ProxyProtocol::V2)],
    );
    if proxy_protocol != ProxyProtocol::Off && trusted_proxies.is_empty() {
        s.problem(
            "proxy_protocol",
            "requires trusted_proxies, the load balancers that send the PROXY header: all other connections are closed",
        );
    }
    Settings {
        listen,
        workers: match s.count("workers", 0, 0..=1024) {
            0 => std::thread::available_parallelism().map_or(1, NonZero::get),
            workers => workers,
        },
        drain_timeout: s.duration("drain_timeout", "30s", Zero::Allowed),
        stream_drain_timeout: s.duration("stream_drain_timeout", "2s", Zero::Allowed),
        shutdown_delay: s.duration("shutdown_delay", "0s", Zero::Allowed),
        trusted_proxies,
        proxy_protocol,
        trusted_fields: s.word(
            "trusted_fields",
            ("either", TrustedFields::Either),
            &[("x-forwarded", TrustedFields::XForwarded), ("forwarded", TrustedFields::Forwarded)],
        ),
        tls,
        limits: s.table("limits", limits),
    }
}

/// `[server.tls]` or `[admin.tls]`.
pub(super) fn tls(s: &mut Section<'_>) -> ServerSettings {
    let settings = ServerSettings {
        certificate: s.required_file("certificate"),
        private_key: s.required_file("private_key"),
        min_version: s.word("min_version", ("1.2", Version::Tls12), &[("1.3", Version::Tls13)]),
        client_ca: s.file("client_ca"),
        require_client_certificate: s.flag("require_client_certificate", false),
        session_tickets: true,
        certificates: Vec::new(),
    };
    if settings.require_client_certificate && settings.client_ca.is_none() {
        s.problem(
            "require_client_certificate",
            "requires client_ca, the roots for verifying client certificates",
        );
    }
    material::pair(s, ("certificate", &settings.certificate), ("private_key", &settings.private_key));
    material::roots(s, "client_ca", settings.client_ca.as_deref());
    settings
}

/// `[[server.tls.certificates]]`.
fn certificates(s: &mut Section<'_>) -> Vec<NamedCertificate> {
    let mut taken: Vec<(String, usize)> = Vec::new();
    s.tables("certificates", |s| {
        let named = NamedCertificate {
            names: s.filled_list("names", &[], server_name),
            certificate: s.required_file("certificate"),
            private_key: s.required_file("private_key"),
        };
        let (certificate, private_key) = (named.certificate.as_path(), named.private_key.as_path());
        material::pair(s, ("certificate", certificate), ("private_key", private_key));
        for (index, name) in named.names.iter().enumerate().filter(|_| s.is_sound("names")) {
            match taken.iter().find(|(other, _)| other == name) {
                Some((_, line)) => {
                    let message =
                        format!("{name:?} is a duplicate; first used by the certificate on line {line}");
                    s.element_problem("names", index, message);
                }
                None => taken.push((name.clone(), s.line())),
            }
        }
        material::names(s, "names", &named.names, ("certificate", certificate));
        named
    })
}

/// A host name as clients send it in the TLS handshake, or a wildcard such as `*.example.com`.
fn server_name(text: &str) -> Result<String, String> {
    let bad = |why: &str| {
        Err(format!("{text:?} {why}; write a host name, such as \"api.example.com\" or \"*.example.com\""))
    };
    let name = text.to_ascii_lowercase();
    let host = name.strip_prefix("*.").unwrap_or(&name);
    if host.contains('*') {
        return bad("has a wildcard that is not the first label");
    }
    match ServerName::try_from(host) {
        Ok(ServerName::DnsName(_)) if !host.ends_with('.') => Ok(name),
        Ok(ServerName::IpAddress(_)) => Err(format!(
            "{text:?} is an IP address, which clients never send as a server name; they get the default certificate"
        )),
        _ => bad("is not a host name"),
    }
}

/// `[server.limits]`. The upper bounds are what the protocol libraries can handle.
fn limits(s: &mut Section<'_>) -> GateLimits {
    GateLimits {
        connections: s.count("connections", 10_000, 1..=i64::MAX),
        connections_per_ip: match s.count("connections_per_ip", 0, 0..=i64::MAX) {
            0 => None,
            connections => Some(connections),
        },
        requests: NonZeroUsize::new(s.count("requests", 0, 0..=i64::MAX)),
        handshake_timeout: s.duration("handshake_timeout", "10s", Zero::Refused),
        header_timeout: s.duration("header_timeout", "10s", Zero::Refused),
        header_bytes: usize::try_from(s.size("header_bytes", "64KiB", 1024..=16 << 20)).unwrap_or_default(),
        headers: s.count("headers", 100, 1..=16_384),
        body_bytes: match s.size("body_bytes", 0, 0..=i64::MAX) {
            0 => None,
            bytes => Some(bytes),
        },
        idle_connection_timeout: s.duration("idle_connection_timeout", "75s", Zero::Refused),
        http2_streams: u32::try_from(s.count("http2_streams", 200, 1..=65_536)).unwrap_or_default(),
    }
}

/// A network such as `10.0.0.0/8`, or one address.
fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    let network = text.parse::<IpNet>().or_else(|_| address()).ok();
    network.map(|network| network.trunc()).ok_or_else(|| {
        format!("{text:?} is not a network; write, for example, \"10.0.0.0/8\" or one address")
    })
}
