//! Compiles `[signals]`, `[[logout]]` and `[[global_token_revocation]]`: where signals arrive, and who sends them.

use std::net::SocketAddr;
use std::num::NonZeroU32;

use super::{address, server, transmitters, unique};
use crate::client::Url;
use crate::config::section::Section;
use crate::config::settings::IssuerSettings;
use crate::config::{describe, units};
use crate::signals::intake::{EndpointKind, Settings};
use crate::signals::{logout, revocation};

/// The endpoints for signals, and their senders.
pub(super) struct SignalSettings {
    pub(super) intake: Option<Settings>,
    pub(super) logout: Vec<logout::Settings>,
    pub(super) revocation: Vec<revocation::Settings>,
}

/// Compiles all tables.
pub(super) fn signals(
    s: &mut Section<'_>,
    issuers: &[IssuerSettings],
    taken: &mut Vec<SocketAddr>,
) -> SignalSettings {
    let intake = s.optional_table("signals", |s| table(s, taken));
    let issuers = s.is_sound("issuers").then_some(issuers);
    let (mut logouts, mut revocations) = (Vec::new(), Vec::new());
    let logout = s.tables("logout", |s| logout(s, issuers, &mut logouts));
    let url = |name: &str| {
        let intake = intake.as_ref();
        intake.and_then(|intake| intake.url(EndpointKind::GlobalTokenRevocation, name)).unwrap_or_default()
    };
    let revocation = s.tables("global_token_revocation", |s| revocation(s, issuers, &url, &mut revocations));
    for (key, is_empty) in [("logout", logout.is_empty()), ("global_token_revocation", revocation.is_empty())]
    {
        if !is_empty && intake.is_none() {
            s.problem(key, "requires a [signals] table, which sets where its signals arrive");
        }
    }
    if !revocation.is_empty() && intake.as_ref().is_some_and(|intake| intake.public_url.is_none()) {
        let message = "requires signals.public_url: the audience of its tokens is the URL of the endpoint";
        s.problem("global_token_revocation", message);
    }
    SignalSettings { intake, logout, revocation }
}

/// `[[logout]]`.
fn logout(
    s: &mut Section<'_>,
    issuers: Option<&[IssuerSettings]>,
    names: &mut Vec<(String, usize)>,
) -> logout::Settings {
    let name = s.required("name", transmitters::segment).unwrap_or_default();
    unique(s, "name", &name, names);
    let (issuer, _) = transmitters::subject_issuer(s, "issuer", issuers);
    let known = issuers.into_iter().flatten().find(|known| known.rules.issuer == issuer.issuer.issuer);
    logout::Settings {
        name,
        algorithms: known.map(|known| known.keys.algorithms.clone()).unwrap_or_default(),
        issuer,
        audiences: s.filled_list("audiences", &[], units::name),
    }
}

/// `[[global_token_revocation]]`.
fn revocation(
    s: &mut Section<'_>,
    issuers: Option<&[IssuerSettings]>,
    url: &impl Fn(&str) -> String,
    names: &mut Vec<(String, usize)>,
) -> revocation::Settings {
    let name = s.required("name", transmitters::segment).unwrap_or_default();
    unique(s, "name", &name, names);
    revocation::Settings {
        url: url(&name),
        issuer: s.required("issuer", units::name).unwrap_or_default(),
        keys: transmitters::keys(s, "global_token_revocation", &name),
        subject_issuer: transmitters::subject_issuer(s, "subject_issuer", issuers).0,
        name,
    }
}

fn table(s: &mut Section<'_>, taken: &mut Vec<SocketAddr>) -> Settings {
    let parse = |text: &str| if text.is_empty() { Ok(None) } else { address(text, taken).map(Some) };
    let listen = s.parsed("listen", "", parse).flatten();
    s.narrow("listen", describe::optional_address);
    let tls = s.optional_table("tls", server::tls);
    match listen {
        Some(listen) if tls.is_none() && !listen.ip().is_loopback() => s.problem(
            "listen",
            format!("{listen} is not a loopback address: add [signals.tls], or listen on 127.0.0.1"),
        ),
        None if tls.is_some() && s.is_sound("listen") => {
            s.problem("tls", "has no effect without listen: the public listener has [server.tls]");
        }
        _ => {}
    }
    let requests = s.count("requests_per_sender", 50, 1..=1_000_000);
    Settings {
        listen,
        tls,
        path: s.parsed("path", "/signals", path).unwrap_or_default(),
        public_url: s.parsed("public_url", "", public_url).flatten(),
        requests_per_sender: u32::try_from(requests)
            .ok()
            .and_then(NonZeroU32::new)
            .unwrap_or(NonZeroU32::MIN),
    }
}

/// A path whose segments have only one spelling in a URL (RFC 3986 §2.3).
fn path(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    let segment = |text: &str| !text.is_empty() && text.chars().all(plain) && !text.starts_with('.');
    match text.strip_prefix('/') {
        Some(rest) if rest.split('/').all(segment) => Ok(text.to_owned()),
        _ => Err(format!("{text:?} is not a path of plain segments such as \"/signals\"")),
    }
}

/// A base URL, to which paths are appended.
fn public_url(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    Url::parse(text, false).map_err(|error| error.to_string())?;
    if text.contains('?') {
        Err("must not have a query".to_owned())
    } else {
        Ok(Some(text.trim_end_matches('/').to_owned()))
    }
}
