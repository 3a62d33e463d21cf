//! Several certificates on one listener, selected by the name that a client sends (SNI, RFC 6066 §3).

use std::collections::HashMap;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use super::{ServerSettings, TlsError, identity};

/// The certificates of a listener.
#[derive(Debug)]
pub(super) struct ByName {
    /// For clients that name nothing, an address, or something unknown.
    default: Arc<CertifiedKey>,
    exact: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, Arc<CertifiedKey>>,
}

impl ByName {
    pub(super) fn load(settings: &ServerSettings, provider: &CryptoProvider) -> Result<Self, TlsError> {
        let load = |certificate, key| identity(certificate, key, provider).map(Arc::new);
        let default = load(&settings.certificate, &settings.private_key)?;
        let mut found = Self { default, exact: HashMap::new(), wildcard: HashMap::new() };
        for named in &settings.certificates {
            let certified = load(&named.certificate, &named.private_key)?;
            for name in &named.names {
                let (names, name) = match name.strip_prefix("*.") {
                    Some(rest) => (&mut found.wildcard, rest),
                    None => (&mut found.exact, name.as_str()),
                };
                names.insert(name.into(), Arc::clone(&certified));
            }
        }
        Ok(found)
    }

    /// The certificate for a name in lower case: the exact one, else that of a wildcard, which stands for one label.
    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let of_wildcard = || self.wildcard.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(of_wildcard)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let found = name.and_then(|name| self.find(&name)).unwrap_or(&self.default);
        Some(Arc::clone(found))
    }
}

/// Whether clients that ask for `name` accept the certificate (RFC 9525 §6.3): its common name does not count.
///
/// # Errors
/// The names that it is for.
pub(super) fn check_name(certificate: &X509Certificate<'_>, name: &str) -> Result<(), String> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let names: Vec<&str> = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(*name),
            _ => None,
        })
        .collect();
    let covers = |pattern: &&&str| match (pattern.strip_prefix("*."), name.split_once('.')) {
        (Some(rest), Some((_, name))) => rest.eq_ignore_ascii_case(name),
        _ => pattern.eq_ignore_ascii_case(name),
    };
    match names.iter().find(covers) {
        Some(_) => Ok(()),
        None if names.is_empty() => Err("nothing (it has no DNS name in subjectAltName)".to_owned()),
        None => Err(names.join(", ")),
    }
}
