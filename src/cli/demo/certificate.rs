//! Generates a certificate authority for one demo, and the gate's certificate.

use std::net::IpAddr;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, Error, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use time::OffsetDateTime;

use crate::time::Timestamp;

/// Tolerance for clocks that differ.
const BEFORE: Duration = Duration::from_secs(3600);
/// Longer than any demo runs.
const AFTER: Duration = Duration::from_secs(30 * 24 * 3600);

/// Certificates and key as PEM.
pub(super) struct Certificates {
    /// The root certificate for clients to trust.
    pub(super) authority: String,
    /// The gate's certificate chain.
    pub(super) chain: String,
    /// Its private key.
    pub(super) key: String,
}

/// Generates all of them, for `localhost` and this address.
pub(super) fn generate(address: IpAddr, now: Timestamp) -> Result<Certificates, Error> {
    let mut root = named("Portcullis demo root", Vec::new(), now)?;
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate()?)?;

    let mut leaf = named("Portcullis demo", vec!["localhost".to_owned(), address.to_string()], now)?;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let chain = leaf.signed_by(&key, &root)?.pem();
    Ok(Certificates { authority: root.pem(), chain, key: key.serialize_pem() })
}

fn named(name: &str, names: Vec<String>, now: Timestamp) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date(now.minus(BEFORE))?;
    params.not_after = date(now.plus(AFTER))?;
    Ok(params)
}

fn date(at: Timestamp) -> Result<OffsetDateTime, Error> {
    OffsetDateTime::from_unix_timestamp(at.as_secs()).map_err(|_out_of_range| Error::Time)
}
