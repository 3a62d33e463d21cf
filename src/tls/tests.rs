//! Handshakes in memory, and files that cannot be used.

use std::fs;
use std::io::{Read, Write};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, HandshakeKind, ServerConnection};
use tempfile::TempDir;

use super::*;

/// A folder with a root, and certificates it signed.
struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { folder, issuer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `NAME.pem` and `NAME.key`, valid until the first of January of `until`.
    fn sign(&self, name: &str, until: i32) -> (PathBuf, PathBuf) {
        self.sign_for(name, &["localhost"], until)
    }

    fn sign_for(&self, name: &str, hosts: &[&str], until: i32) -> (PathBuf, PathBuf) {
        let mut params =
            CertificateParams::new(hosts.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let paths = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
        fs::write(&paths.0, certificate.pem()).unwrap();
        fs::write(&paths.1, key.serialize_pem()).unwrap();
        paths
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    fn server(&self) -> ServerSettings {
        let (certificate, private_key) = self.sign("server", 2100);
        ServerSettings {
            certificate,
            private_key,
            min_version: Version::Tls12,
            client_ca: None,
            require_client_certificate: false,
            session_tickets: true,
            certificates: Vec::new(),
        }
    }

    fn client(&self, identity: Option<&(PathBuf, PathBuf)>, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        client_config(Some(&self.path("ca.pem")), identity, alpn).unwrap()
    }
}

/// Both ends of a handshake, run in memory; the error of the side that failed first.
fn shake(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    shake_with(client, server, "localhost")
}

fn shake_with(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
    name: &str,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(client.clone(), name).unwrap();
    let mut server = ServerConnection::new(server.clone()).unwrap();
    // A byte each way after the handshake carries the tickets of TLS 1.3 along.
    client.writer().write_all(b"c").unwrap();
    server.writer().write_all(b"s").unwrap();
    for _ in 0..6 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut wire = &wire[..];
        while !wire.is_empty() {
            server.read_tls(&mut wire).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut wire = &wire[..];
        while !wire.is_empty() {
            client.read_tls(&mut wire).unwrap();
            client.process_new_packets()?;
        }
    }
    let mut seen = [0; 1];
    client.reader().read_exact(&mut seen).unwrap();
    server.reader().read_exact(&mut seen).unwrap();
    Ok((client, server))
}

#[test]
fn a_client_that_trusts_the_root_gets_tls13_and_the_protocol_it_asked_for() {
    let authority = Authority::new("root");
    let server = server_tls(&authority.server(), None).unwrap().config;
    for (offered, chosen) in [
        (&[b"h2".as_slice(), b"http/1.1"][..], Some(b"h2".as_slice())),
        (&[b"http/1.1".as_slice()], Some(b"http/1.1")),
        (&[], None),
    ] {
        let (client, _) = shake(&authority.client(None, offered), &server).unwrap();
        assert_eq!(client.alpn_protocol(), chosen);
        assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    }
}

#[test]
fn a_client_that_trusts_another_root_or_expects_another_name_gives_up() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let server = server_tls(&ours.server(), None).unwrap().config;
    assert!(shake(&theirs.client(None, &[]), &server).is_err());
    let mut stranger =
        ClientConnection::new(ours.client(None, &[]), ServerName::try_from("other.example").unwrap())
            .unwrap();
    let mut end = ServerConnection::new(server).unwrap();
    let mut wire = Vec::new();
    stranger.write_tls(&mut wire).unwrap();
    end.read_tls(&mut &wire[..]).unwrap();
    end.process_new_packets().unwrap();
    wire.clear();
    while end.wants_write() {
        end.write_tls(&mut wire).unwrap();
    }
    stranger.read_tls(&mut &wire[..]).unwrap();
    let refused = stranger.process_new_packets().unwrap_err();
    assert!(matches!(refused, rustls::Error::InvalidCertificate(_)), "{refused}");
}

#[test]
fn the_lowest_version_is_the_configured_one() {
    let authority = Authority::new("root");
    let mut old = (*authority.client(None, &[])).clone();
    let verifier = WebPkiServerVerifier::builder_with_provider(
        Arc::new(roots(&read(&authority.path("ca.pem")).unwrap(), Path::new("ca.pem")).unwrap()),
        Arc::new(provider::default_provider()),
    )
    .build()
    .unwrap();
    old = ClientConfig::builder_with_provider(old.crypto_provider().clone())
        .with_protocol_versions(&[&version::TLS12])
        .unwrap()
        .with_webpki_verifier(verifier)
        .with_no_client_auth();
    let old = Arc::new(old);
    let mut settings = authority.server();
    let both = server_tls(&settings, None).unwrap().config;
    let (client, _) = shake(&old, &both).unwrap();
    assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
    settings.min_version = Version::Tls13;
    let newer = server_tls(&settings, None).unwrap().config;
    assert!(shake(&old, &newer).is_err());
}

#[test]
fn client_certificates_are_verified_and_can_be_required() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let (good, strange, expired) =
        (ours.sign("good", 2100), theirs.sign("good", 2100), ours.sign("expired", 2002));
    let mut settings = ServerSettings { client_ca: Some(ours.path("ca.pem")), ..ours.server() };
    for (required, without) in [(false, true), (true, false)] {
        settings.require_client_certificate = required;
        let server = server_tls(&settings, None).unwrap().config;
        let (_, end) = shake(&ours.client(Some(&good), &[]), &server).unwrap();
        assert_eq!(end.peer_certificates().map(<[_]>::len), Some(1));
        assert_eq!(shake(&ours.client(None, &[]), &server).is_ok(), without);
        assert!(shake(&ours.client(Some(&strange), &[]), &server).is_err());
        assert!(shake(&ours.client(Some(&expired), &[]), &server).is_err());
    }
}

#[test]
fn sessions_are_resumed_across_reloads_until_the_rules_for_client_certificates_change() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let identity = ours.sign("client", 2100);
    let client = ours.client(Some(&identity), &[]);
    let running = std::cell::RefCell::new(None);
    let mut settings = ServerSettings { client_ca: Some(ours.path("ca.pem")), ..ours.server() };
    let kind = |settings: &ServerSettings| {
        let server = server_tls(settings, running.borrow().as_ref()).unwrap();
        let kind = shake(&client, &server.config).map(|(_, end)| end.handshake_kind().unwrap());
        running.replace(Some(server));
        kind
    };
    assert_eq!(kind(&settings), Ok(HandshakeKind::Full));
    assert_eq!(kind(&settings), Ok(HandshakeKind::Resumed));
    settings.require_client_certificate = true;
    assert_eq!(kind(&settings), Ok(HandshakeKind::Full));
    assert_eq!(kind(&settings), Ok(HandshakeKind::Resumed));
    // The same file with other roots: the certificate of the earlier session would not pass any more.
    fs::copy(theirs.path("ca.pem"), ours.path("other.pem")).unwrap();
    settings.client_ca = Some(ours.path("other.pem"));
    assert!(kind(&settings).is_err());
}

#[test]
fn tickets_can_be_left_out_and_then_nothing_is_resumed() {
    let authority = Authority::new("root");
    let client = authority.client(None, &[]);
    let running = std::cell::RefCell::new(None);
    let shaken = |session_tickets| {
        let settings = ServerSettings { session_tickets, ..authority.server() };
        let server = server_tls(&settings, running.borrow().as_ref()).unwrap();
        let (client, end) = shake(&client, &server.config).unwrap();
        running.replace(Some(server));
        (end.handshake_kind().unwrap(), client.tls13_tickets_received())
    };
    assert_eq!(shaken(true), (HandshakeKind::Full, 1), "one ticket for each connection");
    assert_eq!(shaken(true), (HandshakeKind::Resumed, 1));
    assert_eq!(shaken(false), (HandshakeKind::Full, 0));
    assert_eq!(shaken(false), (HandshakeKind::Full, 0));
    assert_eq!(shaken(true), (HandshakeKind::Full, 1), "a ticket from before the reload is rejected");
    assert_eq!(shaken(true), (HandshakeKind::Resumed, 1));
}

#[test]
fn aes_128_is_chosen_whatever_order_a_client_lists_its_cipher_suites_in() {
    let authority = Authority::new("root");
    let server = server_tls(&authority.server(), None).unwrap().config;
    let (aes_128, aes_256, chacha) = (
        [suite::TLS13_AES_128_GCM_SHA256, suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256],
        [suite::TLS13_AES_256_GCM_SHA384, suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384],
        [suite::TLS13_CHACHA20_POLY1305_SHA256, suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256],
    );
    for (index, version) in [&version::TLS13, &version::TLS12].into_iter().enumerate() {
        let suites = |listed: &[[SupportedCipherSuite; 2]]| listed.iter().map(|pair| pair[index]).collect();
        for (listed, chosen) in [
            (&[aes_256, chacha, aes_128][..], aes_128),
            (&[chacha, aes_128], aes_128),
            (&[aes_128, aes_256], aes_128),
            (&[chacha, aes_256], aes_256),
            (&[chacha], chacha),
        ] {
            let provider = CryptoProvider { cipher_suites: suites(listed), ..provider::default_provider() };
            let client = ClientConfig::builder_with_provider(Arc::new(provider))
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(
                    roots(&read(&authority.path("ca.pem")).unwrap(), Path::new("ca.pem")).unwrap(),
                )
                .with_no_client_auth();
            let (client, _) = shake(&Arc::new(client), &server).unwrap();
            assert_eq!(client.negotiated_cipher_suite(), Some(chosen[index]), "{listed:?}");
        }
    }
}

#[test]
fn a_certificate_is_judged_by_the_roots_in_force_and_the_time_of_the_request() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let (leaf, _) = ours.sign("client", 2100);
    let chain = certificates(&read(&leaf).unwrap(), &leaf).unwrap();
    let certificate = ClientCertificate::new(&chain).unwrap();
    let with = |ca: Option<&Authority>, required| {
        let settings = ServerSettings {
            client_ca: ca.map(|authority| authority.path("ca.pem")),
            require_client_certificate: required,
            ..ours.server()
        };
        server_tls(&settings, None).unwrap()
    };
    let (day, begins, ends) = (86_400, 978_307_200, 4_102_444_800);
    for required in [false, true] {
        let (trusting, strange, none) =
            (with(Some(&ours), required), with(Some(&theirs), required), with(None, false));
        // In an order in which each verdict could be mistaken for the one before.
        for (name, tls, at, valid) in [
            ("in time", &trusting, begins + day, true),
            ("expired", &trusting, ends + day, false),
            ("the clock is right again", &trusting, begins + day, true),
            ("not yet valid", &trusting, begins - day, false),
            ("the first second", &trusting, begins, true),
            ("the last second", &trusting, ends, true),
            ("the second after", &trusting, ends + 1, false),
            ("other roots", &strange, begins + day, false),
            ("our roots again", &trusting, begins + day, true),
        ] {
            let judged = tls.judge_client(Some(&certificate), Timestamp::from_secs(at));
            let expected = match (valid, required) {
                (true, _) => Ok(Some(certificate.thumbprint())),
                (false, false) => Ok(None),
                (false, true) => Err(NoClientCertificate),
            };
            assert_eq!(judged, expected, "{name}, required: {required}");
        }
        let now = Timestamp::from_secs(begins + day);
        assert_eq!(none.judge_client(Some(&certificate), now), Ok(None), "nobody verifies it");
        assert_eq!(trusting.judge_client(None, now).is_err(), required);
    }
}

#[test]
fn nothing_is_accepted_as_early_data() {
    let authority = Authority::new("root");
    assert_eq!(server_tls(&authority.server(), None).unwrap().config.max_early_data_size, 0);
}

#[test]
fn what_cannot_be_served_names_the_file_and_the_reason() {
    let authority = Authority::new("root");
    let good = authority.server();
    let (other_certificate, other_key) = authority.sign("other", 2100);
    let missing = authority.path("missing.pem");
    let empty = authority.write("empty.pem", "");
    let broken =
        authority.write("broken.pem", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n");
    let cut = authority.write("cut.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n");
    let nonsense =
        authority.write("nonsense.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let not_a_key =
        authority.write("bad.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    let sealed = authority.write(
        "sealed.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let with = |certificate: &Path, private_key: &Path, client_ca: Option<&Path>| ServerSettings {
        certificate: certificate.to_owned(),
        private_key: private_key.to_owned(),
        client_ca: client_ca.map(Path::to_owned),
        ..good.clone()
    };
    let (chain, key) = (&good.certificate, &good.private_key);
    for (settings, file, words) in [
        (with(&missing, key, None), &missing, "cannot be read"),
        (with(&empty, key, None), &empty, "contains no certificate"),
        (with(key, key, None), key, "contains no certificate"),
        (with(&broken, key, None), &broken, "not valid PEM"),
        (with(&cut, key, None), &cut, "not valid PEM"),
        (with(&nonsense, key, None), &nonsense, "the first certificate is not usable"),
        (with(chain, &missing, None), &missing, "cannot be read"),
        (with(chain, chain, None), chain, "contains no private key"),
        (with(chain, &sealed, None), &sealed, "unencrypted"),
        (with(chain, &not_a_key, None), &not_a_key, "the private key is not usable"),
        (with(chain, &other_key, None), chain, "other.key"),
        (with(&other_certificate, key, None), &other_certificate, "does not match the private key"),
        (with(chain, key, Some(&missing)), &missing, "cannot be read"),
        (with(chain, key, Some(&empty)), &empty, "contains no certificate"),
        (with(chain, key, Some(&nonsense)), &nonsense, "cannot be a root"),
    ] {
        let error = server_tls(&settings, None).unwrap_err();
        assert_eq!(error.path.as_ref(), Some(file), "{error}");
        assert!(error.problem.contains(words), "{error}");
        assert!(error.to_string().starts_with(&file.display().to_string()), "{error}");
    }
}

#[test]
fn what_cannot_be_presented_or_trusted_names_the_file_and_the_reason() {
    let authority = Authority::new("root");
    let (chain, key) = authority.sign("client", 2100);
    let (_, other_key) = authority.sign("other", 2100);
    let missing = authority.path("missing.pem");
    let ca = authority.path("ca.pem");
    for (ca, identity, file, words) in [
        (&missing, None, &missing, "cannot be read"),
        (&key, None, &key, "contains no certificate"),
        (&ca, Some((chain.clone(), other_key.clone())), &chain, "does not match the private key"),
        (&ca, Some((missing.clone(), key.clone())), &missing, "cannot be read"),
    ] {
        let error = client_config(Some(ca), identity.as_ref(), &[]).unwrap_err();
        assert_eq!(error.path.as_ref(), Some(file), "{error}");
        assert!(error.problem.contains(words), "{error}");
    }
}

#[test]
fn expiry_is_that_of_the_first_certificate_to_expire() {
    let authority = Authority::new("root");
    let (long, _) = authority.sign("long", 2100);
    let (past, _) = authority.sign("past", 2002);
    let chain = authority
        .write("chain.pem", &(fs::read_to_string(&long).unwrap() + &fs::read_to_string(&past).unwrap()));
    let year_2002 = Timestamp::from_secs(1_009_843_200);
    assert_eq!(certificate_expiry(&long).unwrap(), Timestamp::from_secs(4_102_444_800));
    assert_eq!(certificate_expiry(&past).unwrap(), year_2002);
    assert_eq!(certificate_expiry(&chain).unwrap(), year_2002);
    let nonsense =
        authority.write("nonsense.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    assert!(certificate_expiry(&nonsense).unwrap_err().problem.contains("cannot be parsed"));
    assert!(certificate_expiry(&authority.path("missing")).is_err());
}

#[test]
fn the_name_that_a_client_asks_for_chooses_the_certificate() {
    let authority = Authority::new("root");
    let all = ["localhost", "*.shop.test", "*.a.shop.test", "other.example", "shop.test", "127.0.0.1"];
    let sign = |name: &str| authority.sign_for(name, &all, 2100);
    let named = |name: &str, names: &[&str]| {
        let (certificate, private_key) = sign(name);
        let names = names.iter().map(ToString::to_string).collect();
        NamedCertificate { names, certificate, private_key }
    };
    let (certificate, private_key) = sign("default");
    let settings = ServerSettings {
        certificate,
        private_key,
        certificates: vec![
            named("wide", &["*.shop.test"]),
            named("exact", &["a.shop.test", "localhost"]),
            named("deep", &["*.a.shop.test"]),
        ],
        ..authority.server()
    };
    let leaf = |name: &str| {
        certificates(&fs::read(authority.path(&format!("{name}.pem"))).unwrap(), Path::new("")).unwrap()
    };
    let server = server_tls(&settings, None).unwrap();
    let table = [
        ("a.shop.test", "exact"),
        ("A.SHOP.TEST", "exact"),
        ("localhost", "exact"),
        ("b.shop.test", "wide"),
        ("B.Shop.Test", "wide"),
        ("x.a.shop.test", "deep"),
        // A wildcard stands for one label, and not for none.
        ("shop.test", "default"),
        ("other.example", "default"),
        // An address is not asked for by name.
        ("127.0.0.1", "default"),
    ];
    for minimum in [Version::Tls12, Version::Tls13] {
        let settings = ServerSettings { min_version: minimum, ..settings.clone() };
        let again = server_tls(&settings, Some(&server)).unwrap();
        for (name, expected) in table {
            let client = authority.client(None, &[b"h2"]);
            let (first, _) = shake_with(&client, &again.config, name).unwrap();
            assert_eq!(first.peer_certificates(), Some(&leaf(expected)[..]), "{name}");
            let (second, _) = shake_with(&client, &again.config, name).unwrap();
            assert_eq!(second.handshake_kind(), Some(HandshakeKind::Resumed), "{name}");
        }
    }
    let mut broken = settings.clone();
    broken.certificates[1].private_key = authority.path("wide.key");
    let error = server_tls(&broken, None).unwrap_err();
    assert_eq!(error.path, Some(authority.path("exact.pem")));
    let files: Vec<&Path> = settings.files().collect();
    assert_eq!(files.len(), 8, "{files:?}");
}

#[test]
fn a_certificate_is_for_the_names_in_it_and_for_one_label_under_a_wildcard() {
    let authority = Authority::new("root");
    let (many, _) = authority.sign_for("many", &["a.test", "*.b.test", "127.0.0.1"], 2100);
    for name in ["a.test", "x.b.test", "X.B.test", "*.b.test"] {
        assert_eq!(check_name(&many, name), Ok(()), "{name}");
    }
    for name in ["b.test", "x.y.b.test", "*.a.test", "*.test", "aa.test", "test", "127.0.0.1", "many", ""] {
        let error = check_name(&many, name).unwrap_err();
        assert_eq!(error.path.as_deref(), Some(&*many), "{name}");
        assert!(error.problem.ends_with("only for: a.test, *.b.test"), "{error}");
    }
    let (none, _) = authority.sign_for("none", &[], 2100);
    assert!(check_name(&none, "a.test").unwrap_err().problem.contains("no DNS name"));
    let nonsense = authority.write("nonsense.pem", "nothing");
    assert!(check_name(&nonsense, "a.test").is_err());
}
