//! `[[upstreams]]`.

use super::unique;
use crate::config::material;
use crate::config::section::Section;
use crate::config::units;
use crate::config::url::{Origin, origin};
use crate::config::values::Zero;
use crate::forward::{Scheme, UpstreamSettings};

/// All of them.
pub(super) fn upstreams(s: &mut Section<'_>) -> Vec<UpstreamSettings> {
    let mut names = Vec::new();
    s.tables("upstreams", |s| {
        let upstream = upstream(s);
        unique(s, "name", &upstream.name, &mut names);
        upstream
    })
}

fn upstream(s: &mut Section<'_>) -> UpstreamSettings {
    let name = s.required("name", units::name).unwrap_or_default();
    let url = s.required("url", origin);
    let (ca, certificate, key) = (s.file("ca"), s.file("client_certificate"), s.file("client_key"));
    if url.as_ref().is_some_and(|url| url.scheme != Scheme::Https) {
        for (key, used) in [("ca", &ca), ("client_certificate", &certificate), ("client_key", &key)] {
            if used.is_some() {
                s.problem(key, "has no effect: the upstream's url does not begin with https://");
            }
        }
    }
    match (&certificate, &key) {
        (Some(_), None) => s.problem("client_certificate", "needs client_key as well"),
        (None, Some(_)) => s.problem("client_key", "needs client_certificate as well"),
        _ => {}
    }
    material::roots(s, "ca", ca.as_deref());
    let client_certificate = certificate.zip(key);
    if let Some((certificate, key)) = &client_certificate {
        material::pair(s, ("client_certificate", certificate), ("client_key", key));
    }
    let Origin { scheme, host, port } =
        url.unwrap_or(Origin { scheme: Scheme::Http, host: String::new(), port: 0 });
    UpstreamSettings {
        name,
        scheme,
        host,
        port,
        connect_timeout: s.duration("connect_timeout", "2s", Zero::Refused),
        response_timeout: s.duration("response_timeout", "30s", Zero::Refused),
        idle_timeout: s.duration("idle_timeout", "60s", Zero::Allowed),
        ca,
        client_certificate,
    }
}
