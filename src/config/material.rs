//! The files that a configuration names, loaded as the rooms will load them: a certificate that does not fit its key is
//! found by `check`, and not by the first handshake.
//!
//! Nothing that is loaded here is kept.

use std::path::{Path, PathBuf};

use jsonwebtoken::Algorithm;

use super::section::Section;
use crate::keys::jwks;
use crate::tls::{self, ServerSettings, Tickets, TlsError};

/// Certificate, key and roots of a listener.
pub(super) fn listener(s: &Section<'_>, settings: &ServerSettings) {
    let files = [
        ("certificate", Some(&settings.certificate)),
        ("private_key", Some(&settings.private_key)),
        ("client_ca", settings.client_ca.as_ref()),
    ];
    if let Err(error) = tls::server_config(settings, &Tickets::default()) {
        report(s, &files, &error);
    }
}

/// Roots, certificate and key towards a server.
pub(super) fn client(s: &Section<'_>, ca: Option<&PathBuf>, certificate: Option<&(PathBuf, PathBuf)>) {
    if ca.is_none() && certificate.is_none() {
        return;
    }
    let files = [
        ("ca", ca),
        ("client_certificate", certificate.map(|(certificate, _)| certificate)),
        ("client_key", certificate.map(|(_, key)| key)),
    ];
    if let Err(error) = tls::client_config(ca.map(PathBuf::as_path), certificate, &[]) {
        report(s, &files, &error);
    }
}

/// A key set.
pub(super) fn key_set(s: &Section<'_>, path: &Path, algorithms: &[Algorithm]) {
    let parsed = match std::fs::read(path) {
        Ok(document) => jwks::parse(&document, algorithms).map(drop).map_err(|error| error.to_string()),
        Err(error) => Err(format!("cannot be read: {error}")),
    };
    if let Err(message) = parsed {
        s.problem("jwks_file", format!("{}: {message}", path.display()));
    }
}

/// At the key whose file the error speaks of.
fn report(s: &Section<'_>, files: &[(&str, Option<&PathBuf>)], error: &TlsError) {
    let at_fault = |(_, path): &&(&str, Option<&PathBuf>)| path.is_some() && *path == error.path.as_ref();
    match files.iter().find(at_fault) {
        Some((key, _)) => s.problem(key, error.to_string()),
        None => s.own_problem(error.to_string()),
    }
}
