//! `[signals]`: where senders of signals reach the gate.

use std::net::SocketAddr;
use std::num::NonZeroU32;

use super::{address, server};
use crate::client::Url;
use crate::config::section::Section;
use crate::signals::intake::Settings;

/// The table, if there is one.
pub(super) fn signals(s: &mut Section<'_>, taken: &mut Vec<SocketAddr>) -> Option<Settings> {
    s.optional_table("signals", |s| table(s, taken))
}

fn table(s: &mut Section<'_>, taken: &mut Vec<SocketAddr>) -> Settings {
    let parse = |text: &str| if text.is_empty() { Ok(None) } else { address(text, taken).map(Some) };
    let listen = s.parsed("listen", "", parse).flatten();
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

/// Segments that are the same in every spelling of a URL (RFC 3986 §2.3).
fn path(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    let segment = |text: &str| !text.is_empty() && text.chars().all(plain) && !text.starts_with('.');
    match text.strip_prefix('/') {
        Some(rest) if rest.split('/').all(segment) => Ok(text.to_owned()),
        _ => Err(format!("{text:?} is not a path of plain segments such as \"/signals\"")),
    }
}

/// A URL that paths are put behind.
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
