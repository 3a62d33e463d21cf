//! The stage of the demo, with a stand-in for the gate.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;

use super::*;
use crate::config;

/// Standard output, for a test.
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

const FREE: DemoArgs = DemoArgs { listen: None, admin: None };

/// Answers one readiness probe with this status line. A probe that was kept waiting gives up, and the next one comes.
fn probed(listener: &TcpListener, status: &str) {
    for _ in 0..100 {
        let (mut stream, _) = listener.accept().expect("a probe");
        let mut request = [0; 512];
        if stream.read(&mut request).is_ok_and(|read| read > 0) {
            assert!(request.starts_with(b"GET /ready HTTP/1.1\r\n"));
            // In one piece: the probe hangs up as soon as it has read the status.
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).expect("an answer");
            return;
        }
    }
    panic!("no probe waits for its answer");
}

#[test]
fn the_stage_is_set_announced_and_cleared_away() {
    let screen = Screen::default();
    let mut folder = None;
    let code = play(
        &FREE,
        |path| {
            let settings = config::load(path).expect("a good configuration").settings;
            folder = path.parent().map(Path::to_path_buf);
            let telemetry = TcpListener::bind(settings.telemetry).expect("a free port");
            probed(&telemetry, "503 Service Unavailable");
            assert_eq!(screen.text(), "");
            probed(&telemetry, "200 OK");
            ExitCode::from(7)
        },
        screen.clone(),
    );
    assert_eq!(code.expect("a stage"), ExitCode::from(7));
    let folder = folder.expect("a folder");
    assert!(!folder.exists());

    let text = screen.text();
    let lines: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("curl ")).collect();
    let [allowed, missing, lacking, metrics] = lines.as_slice() else { panic!("{text}") };
    let (ca, token) = (folder.join("ca.pem"), folder.join("token"));
    for line in [allowed, missing, lacking] {
        assert!(line.starts_with(&format!("-i --cacert {} ", ca.display())), "{line}");
        assert!(line.contains(" https://127.0.0.1:"), "{line}");
    }
    for (line, sent) in [(allowed, true), (missing, false), (lacking, true)] {
        assert_eq!(line.contains(&format!("-H @{} ", token.display())), sent, "{line}");
    }
    assert!(metrics.ends_with("/metrics"), "{metrics}");
    assert!(text.lines().all(|line| line.len() <= 160), "{text}");
}

#[test]
fn nothing_is_announced_when_the_gate_does_not_come_up() {
    let screen = Screen::default();
    let code = play(&FREE, |_| ExitCode::FAILURE, screen.clone()).expect("a stage");
    assert_eq!((code, screen.text().as_str()), (ExitCode::FAILURE, ""));
}

#[test]
fn addresses_are_those_given_and_must_be_loopback() {
    let upstream: SocketAddr = "127.0.0.1:9".parse().expect("an address");
    let args = DemoArgs {
        listen: Some("127.0.0.1:18443".parse().expect("an address")),
        admin: Some("[::1]:0".parse().expect("an address")),
    };
    let found = addresses(&args, upstream).expect("addresses");
    assert_eq!(found.gate.to_string(), "127.0.0.1:18443");
    assert!(found.admin.ip().is_loopback() && found.admin.port() != 0);
    let ports = [found.admin.port(), found.telemetry.port()];
    assert!(ports[0] != ports[1] && !ports.contains(&0), "{ports:?}");

    let args = DemoArgs { listen: Some("0.0.0.0:0".parse().expect("an address")), admin: None };
    let mut started = false;
    let code = run(&args, |_| {
        started = true;
        ExitCode::SUCCESS
    });
    assert_eq!((code, started), (ExitCode::from(BAD), false));
}

#[test]
fn the_token_is_signed_by_the_key_in_the_set() {
    let issuer = Issuer::generate().expect("a key");
    let now = Timestamp::now();
    let jwks: JwkSet = serde_json::from_str(&issuer.jwks()).expect("a key set");
    let key = DecodingKey::from_jwk(jwks.find("demo").expect("the key")).expect("a key");
    let mut rules = Validation::new(Algorithm::ES256);
    rules.set_issuer(&[issuer::NAME]);
    rules.set_audience(&[issuer::AUDIENCE]);
    let token = issuer.token(now).expect("a token");
    let claims = jsonwebtoken::decode::<Value>(&token, &key, &rules).expect("a good signature").claims;
    assert_eq!(claims["iat"], now.as_secs());
    assert_eq!(claims["scope"], "read:deals");
    let other = Issuer::generate().expect("a key").token(now).expect("a token");
    jsonwebtoken::decode::<Value>(&other, &key, &rules).expect_err("another key's signature");
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

/// Both sides of a handshake in memory.
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
    let mut stream = TcpStream::connect(upstream.address).expect("a connection");
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
