//! Loads the files that a configuration names in the same way as the rooms will, so that `check` finds a
//! certificate that does not match its key, instead of the first handshake.
//!
//! Discards what it loads. Files that cannot be read have already been reported and are skipped.

use std::path::Path;

use jsonwebtoken::Algorithm;

use super::section::Section;
use crate::keys::jwks;
use crate::tls::{self, ServerSettings, Version};

/// Checks a certificate chain and its private key, each with the configuration key that names it.
pub(super) fn pair(s: &Section<'_>, certificate: (&str, &Path), private_key: (&str, &Path)) {
    if !s.looks() || !s.is_sound(certificate.0) || !s.is_sound(private_key.0) {
        return;
    }
    let settings = ServerSettings {
        certificate: certificate.1.to_path_buf(),
        private_key: private_key.1.to_path_buf(),
        min_version: Version::Tls12,
        client_ca: None,
        require_client_certificate: false,
        session_tickets: true,
        certificates: Vec::new(),
    };
    let key_path = private_key.1;
    if let Err(error) = tls::server_tls(&settings, None) {
        let of_the_key = error.path.as_deref() == Some(key_path);
        s.problem(if of_the_key { private_key.0 } else { certificate.0 }, error.to_string());
    }
}

/// Checks that a certificate is valid for the names it is selected by.
pub(super) fn names(s: &Section<'_>, key: &str, names: &[String], certificate: (&str, &Path)) {
    if !s.is_sound(key) || !s.is_sound(certificate.0) {
        return;
    }
    for (index, name) in names.iter().enumerate() {
        if let Err(error) = tls::check_name(certificate.1, name) {
            s.element_problem(key, index, error.to_string());
        }
    }
}

/// Checks a file with CA certificates.
pub(super) fn roots(s: &Section<'_>, key: &str, path: Option<&Path>) {
    if path.is_some()
        && s.looks()
        && s.is_sound(key)
        && let Err(error) = tls::client_config(path, None, &[])
    {
        s.problem(key, error.to_string());
    }
}

/// Checks that a key set has at least one key that the issuer may use.
pub(super) fn key_set(s: &Section<'_>, key: &str, path: &Path, algorithms: &[Algorithm], for_svids: bool) {
    if s.looks()
        && let Ok(document) = std::fs::read(path)
        && let Err(error) = jwks::parse_for(&document, algorithms, for_svids)
    {
        s.problem(key, format!("{}: {error}", path.display()));
    }
}
