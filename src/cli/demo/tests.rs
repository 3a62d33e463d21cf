//! Tests the demo with a stand-in for the gate.

use std::io::Read as _;
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;

use super::script::TokenSource;
use super::*;
use crate::config;

/// Captures standard output.
#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("the screen").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Screen {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("the screen").clone()).expect("UTF-8")
    }
}

const NO_PROVIDER: ProviderArgs = ProviderArgs { issuer: None, audience: None, ca: None, upstream: None };
const FREE: DemoArgs = DemoArgs { listen: None, admin: None, tour: false, provider: NO_PROVIDER };

#[test]
fn every_play_is_a_good_configuration() {
    let upstream = upstream::start().expect("an upstream");
    let folder = Folder::create().expect("a folder");
    let addresses = addresses(&FREE, upstream.address).expect("addresses");
    let stage = DemoSetup {
        addresses,
        files: DemoFiles::within(folder.path()),
        admin_secret: secret().expect("a secret"),
        password: secret().expect("a secret"),
        provider: None,
    };
    let lifetime = Duration::from_secs(60);
    let provider = DemoProvider {
        issuer: "https://idp.example/\"realm\"".to_owned(),
        audience: "an audience".to_owned(),
        ca: Some(stage.files.authority.clone()),
        upstream: Some("http://127.0.0.1:3000".to_owned()),
    };
    let short = TokenSource::Authority { tenant_field: Some("tenant"), token_lifetime: lifetime };
    let plays = [
        DemoStory::VISIT,
        tour::PLAY,
        DemoStory { tokens: short, ..tour::PLAY },
        DemoStory::with_provider(&provider),
    ];
    for play in plays.into_iter().chain(plays.map(DemoStory::with_requests_logged)) {
        stage.set(folder.path(), play).expect("a stage");
        let settings = config::load(&stage.files.configuration).expect("a good configuration").settings;
        assert_eq!(settings.sessions.idle_timeouts, Some(play.idle_timeout).into());
        let field = settings.authority.and_then(|authority| authority.tenant_parameter);
        match play.tokens {
            TokenSource::Authority { tenant_field, .. } => assert_eq!(field.as_deref(), tenant_field),
            TokenSource::Provider(_) => {
                assert_eq!(settings.issuers.len(), 1);
                assert_eq!(field, None);
            }
        }
    }
    let path = folder.path().to_owned();
    drop(folder);
    assert!(!path.exists());
}

#[test]
fn nothing_is_announced_when_the_gate_does_not_come_up() {
    let screen = Screen::default();
    let code = play(&FREE, |_, _| ExitCode::FAILURE, screen.clone()).expect("a stage");
    assert_eq!((code, screen.text().as_str()), (ExitCode::FAILURE, ""));
}

#[test]
fn addresses_are_those_given_and_must_be_loopback() {
    let upstream: SocketAddr = "127.0.0.1:9".parse().expect("an address");
    let args = DemoArgs {
        listen: Some("127.0.0.1:18443".parse().expect("an address")),
        admin: Some("[::1]:0".parse().expect("an address")),
        ..FREE
    };
    let found = addresses(&args, upstream).expect("addresses");
    assert_eq!(found.gate.to_string(), "127.0.0.1:18443");
    assert!(found.admin.ip().is_loopback() && found.admin.port() != 0);
    let ports = [found.admin.port(), found.telemetry.port()];
    assert!(ports[0] != ports[1] && !ports.contains(&0), "{ports:?}");

    let args = DemoArgs { listen: Some("0.0.0.0:0".parse().expect("an address")), ..FREE };
    let mut started = false;
    let code = run(&args, |_, _| {
        started = true;
        ExitCode::SUCCESS
    });
    assert_eq!((code, started), (ExitCode::from(BAD), false));
}

#[test]
fn the_certificate_is_trusted_for_the_address_and_for_localhost() {
    let address = "127.0.0.1".parse().expect("an address");
    let made = certificate::generate(address, Timestamp::now()).expect("certificates");
    let key = PrivateKeyDer::from_pem_slice(made.key.as_bytes()).expect("a key");
    let chain =
        CertificateDer::pem_slice_iter(made.chain.as_bytes()).collect::<Result<_, _>>().expect("a chain");
    let server =
        rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).expect("a pair");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(made.authority.as_bytes()).expect("a root")).expect("a root");
    let client = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let (server, client) = (Arc::new(server), Arc::new(client));
    for (name, trusted) in [("127.0.0.1", true), ("localhost", true), ("127.0.0.2", false), ("other", false)]
    {
        let name = ServerName::try_from(name).expect("a name");
        let mut client = rustls::ClientConnection::new(Arc::clone(&client), name.clone()).expect("a client");
        let mut server = rustls::ServerConnection::new(Arc::clone(&server)).expect("a server");
        assert_eq!(handshake(&mut client, &mut server).is_ok(), trusted, "{name:?}");
    }
}

/// Performs a TLS handshake in memory.
fn handshake(
    client: &mut rustls::ClientConnection,
    server: &mut rustls::ServerConnection,
) -> Result<(), rustls::Error> {
    while client.is_handshaking() || server.is_handshaking() {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("memory");
        server.read_tls(&mut bytes.as_slice()).expect("memory");
        server.process_new_packets()?;
        bytes.clear();
        server.write_tls(&mut bytes).expect("memory");
        client.read_tls(&mut bytes.as_slice()).expect("memory");
        client.process_new_packets()?;
    }
    Ok(())
}

#[test]
fn the_upstream_tells_what_it_was_sent() {
    let upstream = upstream::start().expect("an upstream");
    let mut stream = std::net::TcpStream::connect(upstream.address).expect("a connection");
    let request = "POST /deals/7?full=1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-auth-subject: ada\r\n\
                   authorization: Bearer secret\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let seen: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(seen["method"], "POST");
    assert_eq!(seen["path"], "/deals/7?full=1");
    assert_eq!(seen["identity"], serde_json::json!({"x-auth-subject": "ada"}));
}
