//! TLS at the listener: certificates for tests, and what a handshake decides.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use aws_lc_rs::digest;
use portcullis::gate::Settings;
use portcullis::shutdown::Phase;
use portcullis::tls::{self, ServerSettings, Version};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use tempfile::TempDir;

use crate::gate::bed::{Bed, PATIENCE, bound_token};
use crate::gate::limits::SHORT;

/// A root, and a folder with the gate's certificate and one for a client.
pub(crate) struct Certificates {
    folder: TempDir,
    pub(crate) client_thumbprint: Vec<u8>,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(folder.path().join("ca.pem"), root.pem()).unwrap();
        let sign = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            let certificate = params.signed_by(&key, &root).unwrap();
            fs::write(folder.path().join(format!("{name}.pem")), certificate.pem()).unwrap();
            fs::write(folder.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
            digest::digest(&digest::SHA256, certificate.der()).as_ref().to_vec()
        };
        sign("gate");
        let client_thumbprint = sign("client");
        Self { folder, client_thumbprint }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Configures TLS on the gate, with client certificates.
    pub(crate) fn serve(&self, settings: &mut Settings) {
        settings.tls = Some(ServerSettings {
            certificate: self.path("gate.pem"),
            private_key: self.path("gate.key"),
            min_version: Version::Tls12,
            client_ca: Some(self.path("ca.pem")),
            require_client_certificate: false,
            session_tickets: true,
            certificates: Vec::new(),
        });
    }

    pub(crate) fn client(&self, alpn: &[&[u8]], certificate: bool) -> Arc<ClientConfig> {
        let identity = (self.path("client.pem"), self.path("client.key"));
        tls::client_config(Some(&self.path("ca.pem")), certificate.then_some(&identity), alpn).unwrap()
    }
}

/// Sends one request over TLS; returns the status line.
fn ask(bed: &Bed, config: Arc<ClientConfig>, token: &str) -> String {
    use std::io::{BufRead as _, BufReader, Write as _};
    let tcp = TcpStream::connect(bed.address).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    let connection = ClientConnection::new(config, ServerName::try_from("localhost").unwrap()).unwrap();
    let mut stream = StreamOwned::new(connection, tcp);
    write!(stream, "GET /deals HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer {token}\r\n\r\n").unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

#[test]
fn a_token_bound_to_a_certificate_needs_that_certificate() {
    let certificates = Certificates::new();
    let bed = Bed::start(|settings| certificates.serve(settings));
    let bound = bound_token("app", "read", Some(&certificates.client_thumbprint));
    let free = bound_token("app", "read", None);
    for (with_certificate, token, status) in
        [(true, &bound, 200), (false, &bound, 401), (true, &free, 200), (false, &free, 200)]
    {
        for alpn in [&[][..], &[b"http/1.1".as_slice()]] {
            let line = ask(&bed, certificates.client(alpn, with_certificate), token);
            assert!(line.starts_with(&format!("HTTP/1.1 {status} ")), "{line}");
        }
    }
    let mismatch = r#"portcullis_decisions_total{decision="deny",reason="certificate_mismatch"}"#;
    assert_eq!(bed.metric(mismatch), 2);
    assert_eq!(bed.metric(r#"portcullis_tls_handshakes_total{result="ok"}"#), 8);
}

#[test]
fn a_handshake_has_to_end_in_time() {
    let certificates = Certificates::new();
    let bed = Bed::start(|settings| {
        certificates.serve(settings);
        settings.limits.handshake_timeout = SHORT;
    });
    let since = Instant::now();
    let mut silent = bed.connect();
    assert!(silent.is_closed());
    assert!(since.elapsed() >= SHORT);
    bed.until(r#"portcullis_tls_handshakes_total{result="error"}"#, 1);
    // What is no handshake is not waited for.
    let mut plain = bed.connect();
    plain.send("GET / HTTP/1.1\r\nHost: gate\r\n\r\n").unwrap();
    bed.until(r#"portcullis_tls_handshakes_total{result="error"}"#, 2);
    bed.until_open(0);
}

#[test]
fn a_handshake_that_goes_nowhere_does_not_hold_up_the_end() {
    let certificates = Certificates::new();
    let mut bed = Bed::start(|settings| certificates.serve(settings));
    let mut silent = bed.connect();
    bed.until_open(1);
    bed.advance(Phase::Draining);
    bed.ended();
    assert!(silent.is_closed());
}
