//! The PROXY protocol: clients have the address that their load balancer names, and nobody else may name one.

use testkit::frames::{self, END_STREAM, End, Frames};
use testkit::gate::Gate;
use testkit::raw_upstream::RawUpstream;
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use testkit::wire::Wire;

const LOOPBACK: &str = "trusted_proxies = [\"127.0.0.0/8\"]";

fn v1(source: &str) -> String {
    format!("PROXY TCP4 {source} 127.0.0.1 5000 443\r\n")
}

fn v2(command: u8, source: [u8; 4]) -> Vec<u8> {
    let addresses = [&source[..], &[127, 0, 0, 1, 19, 136, 1, 187]].concat();
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x20 | command, 0x11, 0, 12], &addresses].concat()
}

/// Sends a header and a request on one connection.
fn ask(gate: &Gate, header: impl AsRef<[u8]>, token: &str) -> std::io::Result<testkit::wire::Answer> {
    let mut wire = Wire::plain(gate.public);
    wire.exchange([header.as_ref(), &gate.get("/").token(token).bytes()].concat())
}

/// Holds docs/configuration.md, Settings: server.proxy_protocol
#[test]
fn the_client_is_who_the_balancer_says() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    for version in ["v1", "v2"] {
        let settings = Settings::plaintext()
            .server(&format!("{LOOPBACK}\nproxy_protocol = \"{version}\""))
            .limits("connections_per_ip = 1")
            .guarding(&upstream.url(), &issuer);
        let gate = Gate::start(&settings);
        let header = |last: u8| match version {
            "v1" => v1(&format!("192.0.2.{last}")).into_bytes(),
            _ => v2(1, [192, 0, 2, last]),
        };
        let own = if version == "v1" { b"PROXY UNKNOWN\r\n".to_vec() } else { v2(0, [0; 4]) };
        // Clients are counted by their own addresses, as long as they are connected.
        let mut kept = Vec::new();
        for last in [7, 8] {
            let mut wire = Wire::plain(gate.public);
            let request = gate.get("/").token(&issuer.good()).bytes();
            let answer = wire.exchange([&header(last)[..], &request].concat()).unwrap();
            assert_eq!(answer.status(), 200, "{version}");
            let client = format!("192.0.2.{last}");
            assert_eq!(upstream.last().field("x-forwarded-for").as_deref(), Some(&*client), "{version}");
            assert_eq!(gate.record_of(answer.field("x-request-id").unwrap())["client_address"], *client);
            // The header is of the connection, not of the request.
            assert_eq!(wire.exchange(&request).unwrap().status(), 200, "{version}");
            assert_eq!(upstream.last().field("x-forwarded-for").as_deref(), Some(&*client), "{version}");
            kept.push(wire);
        }
        assert_eq!(ask(&gate, header(7), &issuer.good()).unwrap().status(), 503, "{version}: one too many");
        // A balancer that speaks for itself.
        assert_eq!(ask(&gate, own, &issuer.good()).unwrap().status(), 200, "{version}");
        assert_eq!(upstream.last().field("x-forwarded-for").as_deref(), Some("127.0.0.1"), "{version}");
    }
}

#[test]
fn tls_and_http_2_come_behind_the_header() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = Settings::tls()
        .server(&format!("{LOOPBACK}\nproxy_protocol = \"v2\""))
        .guarding(&upstream.url(), &issuer);
    let gate = Gate::start(&settings);
    let connect = |header: &[u8], protocol: &str| {
        let config = settings.authority().client_config(&[protocol], None);
        Wire::tls_behind(header, gate.public, "localhost", config)
    };
    let header = v2(1, [192, 0, 2, 9]);
    let mut wire = connect(&header, "http/1.1").unwrap();
    assert_eq!(wire.exchange(gate.get("/").token(&issuer.good()).bytes()).unwrap().status(), 200);
    assert_eq!(upstream.last().field("x-forwarded-for").as_deref(), Some("192.0.2.9"));
    let bearer = format!("Bearer {}", issuer.good());
    let mut client = Frames::over(connect(&header, "h2").unwrap());
    let fields = [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/"),
        (":authority", "api.test"),
        ("authorization", &bearer),
    ];
    client.send(frames::headers(1, END_STREAM, &fields));
    assert_eq!(client.end_of(1), End::Status(200));
    assert_eq!(upstream.last().field("x-forwarded-for").as_deref(), Some("192.0.2.9"));
    assert!(connect(b"", "h2").is_err(), "a client without a balancer");
    assert!(connect(v1("192.0.2.9").as_bytes(), "h2").is_err(), "another version");
}

#[test]
fn what_a_client_claims_above_the_header_is_not_believed() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = Settings::plaintext()
        .server(&format!("{LOOPBACK}\nproxy_protocol = \"v1\""))
        .guarding(&upstream.url(), &issuer);
    let gate = Gate::start(&settings);
    let request = gate.get("/").token(&issuer.good()).field("X-Forwarded-For", "10.9.9.9").bytes();
    let mut wire = Wire::plain(gate.public);
    let answer = wire.exchange([v1("192.0.2.7").as_bytes(), &request].concat()).unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(upstream.last().field("x-forwarded-for").as_deref(), Some("192.0.2.7"));
    // A second header is the beginning of a request, and a bad one.
    let twice = [v1("192.0.2.7"), v1("10.0.0.1")].concat();
    assert_eq!(ask(&gate, twice, &issuer.good()).unwrap().status(), 400);
}

/// Holds docs/configuration.md, Settings: server.proxy_protocol
#[test]
fn every_other_connection_is_closed() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let trusting = |networks: &str, version: &str| {
        Settings::plaintext()
            .server(&format!("trusted_proxies = [{networks}]\nproxy_protocol = \"{version}\""))
            .limits("handshake_timeout = \"300ms\"")
            .guarding(&upstream.url(), &issuer)
    };
    let strangers = Gate::start(&trusting("\"10.0.0.0/8\"", "v1"));
    let (one, two) =
        (Gate::start(&trusting("\"127.0.0.0/8\"", "v1")), Gate::start(&trusting("\"127.0.0.0/8\"", "v2")));
    let good = v1("192.0.2.7");
    let rows: [(&str, &Gate, Vec<u8>); 13] = [
        ("a peer that is not trusted", &strangers, good.clone().into_bytes()),
        ("no header", &one, Vec::new()),
        ("the other version", &one, v2(1, [192, 0, 2, 7])),
        ("a bad address", &one, v1("192.0.2.777").into_bytes()),
        ("no line end", &one, good.trim_end().as_bytes().to_vec()),
        ("a bare LF", &one, good.replace("\r\n", "\n").into_bytes()),
        ("lower case", &one, good.to_lowercase().into_bytes()),
        ("a line without end", &one, b"PROXY UNKNOWN ".iter().copied().chain([b'x'; 1000]).collect()),
        ("no header of version 2", &two, Vec::new()),
        ("the older version", &two, good.clone().into_bytes()),
        ("a version to come", &two, [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x31, 0x11, 0, 0]].concat()),
        ("UDP", &two, {
            let mut header = v2(1, [192, 0, 2, 7]);
            header[13] = 0x12;
            header
        }),
        ("too long", &two, [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x21, 0x11, 0xff, 0xff]].concat()),
    ];
    for (name, gate, header) in rows {
        let mut wire = Wire::plain(gate.public);
        // It may be closed before all was sent.
        drop(wire.send([&header[..], &gate.get("/").token(&issuer.good()).bytes()].concat()));
        assert!(wire.is_closed(), "{name}");
    }
    for (name, gate, start) in [
        ("silent", &one, ""),
        ("slow", &one, "PROXY TCP4 192.0.2.7"),
        ("silent", &two, ""),
        ("slow", &two, "\r\n\r\n\0\r\nQ"),
    ] {
        let mut wire = Wire::plain(gate.public);
        wire.send(start).unwrap();
        assert!(wire.is_closed(), "{name}");
    }
    assert_eq!(upstream.count(), 0);
    assert_eq!(ask(&one, &good, &issuer.good()).unwrap().status(), 200, "the others are served");
}
