//! `[[upstreams]]`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use http::HeaderValue;
use http::uri::Authority;
use rustls::pki_types::ServerName;
use serde_json::json;

use super::unique;
use crate::config::material;
use crate::config::section::Section;
use crate::config::units;
use crate::config::url::{UrlOrigin, origin};
use crate::config::values::Zero;
use crate::forward::{Address, Scheme, UpstreamSettings};

/// The most addresses of one upstream.
const MAX_URLS: usize = 64;

/// Compiles all tables.
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
    let (scheme, addresses) = addresses(s);
    let (host, sni) = (s.parsed("host", "", host).flatten(), s.parsed("sni", "", server_name).flatten());
    let (ca, certificate, key) = (s.file("ca"), s.file("client_certificate"), s.file("client_key"));
    if scheme.is_some_and(|scheme| scheme != Scheme::Https) {
        let used = [
            ("ca", ca.is_some()),
            ("client_certificate", certificate.is_some()),
            ("client_key", key.is_some()),
            ("sni", sni.is_some()),
        ];
        for (key, _) in used.into_iter().filter(|(_, used)| *used) {
            s.problem(key, "has no effect: the upstream's url does not begin with https://");
        }
    }
    match (&certificate, &key) {
        (Some(_), None) => s.problem("client_certificate", "requires client_key"),
        (None, Some(_)) => s.problem("client_key", "requires client_certificate"),
        _ => {}
    }
    material::roots(s, "ca", ca.as_deref());
    let client_certificate = certificate.zip(key);
    if let Some((certificate, key)) = &client_certificate {
        material::pair(s, ("client_certificate", certificate), ("client_key", key));
    }
    UpstreamSettings {
        name,
        scheme: scheme.unwrap_or(Scheme::Http),
        addresses,
        host,
        sni,
        max_requests: NonZeroUsize::new(s.count("max_requests", 0, 0..=i64::MAX)),
        connect_timeout: s.duration("connect_timeout", "2s", Zero::Refused),
        response_timeout: s.duration("response_timeout", "30s", Zero::Refused),
        body_timeout: Some(s.duration("body_timeout", "0s", Zero::Allowed)).filter(|limit| !limit.is_zero()),
        idle_timeout: s.duration("idle_timeout", "60s", Zero::Allowed),
        ca,
        client_certificate,
    }
}

/// `url`, or all of `urls`, which must be of one kind.
fn addresses(s: &mut Section<'_>) -> (Option<Scheme>, Vec<Address>) {
    let one = s.parsed("url", "", |text| if text.is_empty() { Ok(None) } else { address(text).map(Some) });
    let several = s.list("urls", &[], address);
    let neither = one == Some(None) && several.is_empty() && s.is_sound("urls");
    s.narrow_table(|| json!({ "anyOf": [{ "required": ["url"] }, { "required": ["urls"] }] }));
    match (s.has("url"), s.has("urls")) {
        (true, true) if one != Some(None) && !several.is_empty() => {
            s.problem("urls", "cannot be combined with url: write all addresses in urls");
        }
        (_, true) if neither => s.problem("urls", "must not be empty unless url is set"),
        (true, false) if neither => s.problem("url", "must not be empty"),
        (false, false) => s.missing("url"),
        _ => {}
    }
    if several.len() > MAX_URLS {
        s.problem("urls", format!("must not have more than {MAX_URLS} elements"));
    }
    let all: Vec<(Scheme, Address)> = one.flatten().into_iter().chain(several).collect();
    let scheme = all.first().map(|(scheme, _)| *scheme);
    if all.iter().any(|(other, _)| Some(*other) != scheme) {
        s.problem("urls", "must all be of one kind: http:// and unix:, or https://, or h2c://");
    }
    (scheme, all.into_iter().map(|(_, address)| address).collect())
}

fn address(text: &str) -> Result<(Scheme, Address), String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return match path {
            path if path.starts_with('/') && !path.contains('\0') => {
                Ok((Scheme::Http, Address::Unix(PathBuf::from(path))))
            }
            _ => Err(format!("{text:?} must have an absolute path, such as \"unix:/run/api.sock\"")),
        };
    }
    origin(text).map(|UrlOrigin { scheme, host, port }| (scheme, Address::Tcp { host, port }))
}

fn host(text: &str) -> Result<Option<HeaderValue>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let authority = text.parse::<Authority>().ok().filter(|_| !text.contains('@'));
    let value = authority.and_then(|_| HeaderValue::from_str(text).ok());
    value.map(Some).ok_or_else(|| format!("{text:?} is not a host, such as \"api.example.com\""))
}

fn server_name(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    match ServerName::try_from(text) {
        Ok(_) => Ok(Some(text.to_owned())),
        Err(_) => Err(format!("{text:?} is neither a DNS name nor an address")),
    }
}
