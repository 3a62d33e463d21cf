//! The log line of each request: who asked, how, how many bytes went each way, how long it took, and who ended
//! what did not end by itself.

use std::io;

use serde_json::{Value, json};

use testkit::gate::{Gate, field};
use testkit::raw_upstream::{Exchange, Next, RawUpstream};
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use testkit::wire::Wire;
use testkit::{app, block_on, eventually, h2_client, now};

/// Streams are checked often, so that no test waits long for one to be ended.
const OFTEN: &str = "[streams]\ncheck_interval = \"100ms\"\n";

/// Consumes uploads, streams, switches protocols and breaks off, as the path says.
fn upstream() -> RawUpstream {
    let begun = |exchange: &mut Exchange<'_>| {
        exchange.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbegun\r\n");
    };
    RawUpstream::scripted(move |exchange| match exchange.request.target().as_str() {
        "/stream" => {
            begun(exchange);
            exchange.wait_for_close()
        }
        "/flow" => {
            begun(exchange);
            for _ in 0..6000 {
                testkit::let_pass(std::time::Duration::from_millis(5));
                if exchange.send("4\r\nmore\r\n") != Next::Keep {
                    break;
                }
            }
            Next::Close
        }
        "/broken" => {
            begun(exchange);
            Next::Reset
        }
        "/upload" => exchange.wait_for_close(),
        "/chat" => {
            exchange.send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\nearly",
            );
            loop {
                match exchange.read_some() {
                    Ok(bytes) if bytes == b"end" => return Next::Close,
                    Ok(bytes) if bytes == b"reset" => return Next::Reset,
                    Ok(bytes) if !bytes.is_empty() => drop(exchange.write(bytes.to_ascii_uppercase())),
                    _ => return Next::Close,
                }
            }
        }
        _ => {
            drop(exchange.read_body());
            exchange.ok("twelve bytes")
        }
    })
}

struct Scene {
    gate: Gate,
    issuer: Issuer,
    upstream: RawUpstream,
}

fn scene(settings: Settings) -> Scene {
    let (upstream, issuer) = (upstream(), Issuer::new());
    let gate = Gate::start(&settings.guarding(&upstream.url(), &issuer).admin().toml(OFTEN));
    Scene { gate, issuer, upstream }
}

fn number(record: &Value, name: &str) -> Option<u64> {
    record.get(name).and_then(Value::as_u64)
}

#[test]
fn a_line_says_who_asked_how_and_how_much_went_each_way() {
    for (settings, tls) in [(Settings::plaintext(), None), (Settings::tls(), Some("1.3"))] {
        let Scene { gate, issuer, upstream: _upstream } = scene(settings);
        let ask = |method: &str| {
            gate.request(method, "/x").token(&issuer.good()).field("User-Agent", "robot/7 (x; \"y\")")
        };
        for (request, bytes_in) in [(ask("POST").body("seven b"), Some(7)), (ask("GET"), None)] {
            let record = gate.record_of(request.send().field("x-request-id").unwrap());
            for (name, value) in [
                ("client", Some("app")),
                ("client_address", Some("127.0.0.1")),
                ("host", Some("api.test")),
                ("user_agent", Some("robot/7 (x; \"y\")")),
                ("tls", tls),
                ("protocol", Some("HTTP/1.1")),
                ("upstream", Some("api")),
                ("ended_by", None),
                ("failure", None),
            ] {
                assert_eq!(field(&record, name), value, "{name}: {record}");
            }
            assert_eq!((number(&record, "bytes_in"), number(&record, "bytes_out")), (bytes_in, Some(12)));
            let (waited, all) =
                (number(&record, "upstream_us").unwrap(), number(&record, "total_us").unwrap());
            assert!(waited <= all && number(&record, "duration_us").unwrap() <= all, "{record}");
        }
        let refused = gate.get("/x").field("User-Agent", "robot/7").send();
        let record = gate.record_of(refused.field("x-request-id").unwrap());
        assert_eq!(
            (field(&record, "host"), field(&record, "user_agent")),
            (Some("api.test"), Some("robot/7"))
        );
        assert_eq!(number(&record, "bytes_out"), Some(refused.body.len() as u64), "{record}");
        assert_eq!(record.get("upstream_us"), None, "no upstream was asked: {record}");
        if tls.is_some() {
            let id = block_on(async {
                let mut client = h2_client::H2Client::connect(&gate).await;
                let mut request = h2_client::request("POST", "/x", &issuer.good(), app::full("seven b"));
                request.headers_mut().insert("user-agent", "robot/7".parse().unwrap());
                let answer = client.exchange(request).await.unwrap();
                answer.head.headers["x-request-id"].to_str().unwrap().to_owned()
            });
            let record = gate.record_of(&id);
            for (name, value) in
                [("client", "app"), ("user_agent", "robot/7"), ("tls", "1.3"), ("protocol", "HTTP/2")]
            {
                assert_eq!(field(&record, name), Some(value), "{name}: {record}");
            }
            assert_eq!((number(&record, "bytes_in"), number(&record, "bytes_out")), (Some(7), Some(12)));
        }
    }
}

#[test]
fn every_line_of_a_token_that_is_truly_signed_names_its_client() {
    let (upstream, issuer) = (upstream(), Issuer::new());
    let settings = Settings::plaintext()
        .upstream("api", &upstream.url(), "")
        .issuer_with(&issuer, "leeway = \"0s\"")
        .route("/{*rest}", "")
        .route("/scoped", "scopes = [\"admin\"]")
        .route("/shadow", "mode = \"shadow\"\nroles = [\"boss\"]")
        .admin();
    let gate = Gate::start(&settings);
    for event in [
        json!({"type": "subject-revoked", "subject": "gone"}),
        json!({"type": "role-changed", "subject": "moved"}),
        json!({"type": "token-revoked", "jti": "one"}),
    ] {
        gate.publish(&event);
    }
    let of = |subject: &str| issuer.token().claim("sub", subject).claim("iat", now() - 60).build();
    let rows = [
        ("/x", issuer.good(), "allow", None),
        ("/scoped", issuer.good(), "deny", Some("insufficient_scope")),
        ("/shadow", issuer.good(), "shadow_deny", Some("insufficient_role")),
        ("/x", of("gone"), "deny", Some("subject_revoked")),
        ("/x", of("moved"), "deny", Some("role_changed")),
        ("/x", issuer.token().claim("jti", "one").build(), "deny", Some("token_revoked")),
        (
            "/x",
            issuer.token().claim("iat", now() - 7200).claim("exp", now() - 3600).build(),
            "deny",
            Some("expired"),
        ),
        ("/x", issuer.token().claim("nbf", now() + 3600).build(), "deny", Some("not_yet_valid")),
        ("/x", issuer.token().claim("iat", now() - 3600).build(), "deny", Some("idle")),
    ];
    for (path, token, decision, reason) in rows {
        let is_proved = !matches!(reason, Some("expired" | "not_yet_valid"));
        // The first time its signature is verified, the second time its proof is cached.
        for _ in 0..2 {
            let answer = gate.get(path).token(&token).send();
            let record = gate.record_of(answer.field("x-request-id").unwrap());
            assert_eq!((field(&record, "decision"), field(&record, "reason")), (Some(decision), reason));
            // Nobody looks at the signature of a token that is past its time.
            let member = if is_proved { "client" } else { "claimed_client" };
            assert_eq!(field(&record, member), Some("app"), "{record}");
        }
    }
    // What nobody has signed names nobody as its client.
    let answer = gate.get("/x").token(&Issuer::new().good()).send();
    let record = gate.record_of(answer.field("x-request-id").unwrap());
    assert_eq!((field(&record, "reason"), field(&record, "client")), (Some("bad_signature"), None));
    assert_eq!(field(&record, "claimed_client"), Some("app"));
}

/// Opens a stream, and returns it with the id of its request.
fn begin(gate: &Gate, token: &str, path: &str) -> (Wire, String) {
    let mut wire = gate.connect();
    wire.send(gate.get(path).token(token).bytes()).unwrap();
    let head = wire.head().unwrap();
    let id = head.field("x-request-id").unwrap().to_owned();
    assert_eq!(wire.chunk().unwrap().unwrap(), b"begun");
    (wire, id)
}

#[test]
fn the_line_of_a_stream_is_written_at_its_end_and_says_who_ended_it() {
    for settings in [Settings::plaintext(), Settings::tls()] {
        let Scene { mut gate, issuer, upstream } = scene(settings.server("drain_timeout = \"1s\""));
        let of = |subject: &str| issuer.token().claim("sub", subject).build();

        let (wire, left) = begin(&gate, &of("a"), "/flow");
        assert!(!gate.log().text().contains(&left), "it has not ended yet");
        drop(wire);
        let (_wire, broken) = begin(&gate, &of("b"), "/broken");
        let (_cut, cut) = begin(&gate, &of("c"), "/stream");
        let mut upload = gate.connect();
        let head = format!(
            "POST /upload HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nContent-Length: 100\r\n\r\nfive.",
            of("c")
        );
        upload.send(head).unwrap();
        upstream.wait_for(4);
        gate.publish(&json!({"type": "subject-revoked", "subject": "c"}));
        let answer = upload.answer().unwrap();
        assert_eq!(answer.status(), 401);
        let (_drained, drained) = begin(&gate, &of("d"), "/stream");
        // Nothing has come of it when the drain is over.
        let mut pending = gate.connect();
        pending.send(gate.get("/upload").token(&of("e")).bytes()).unwrap();
        upstream.wait_for(6);
        for (id, by) in [(&left, "client"), (&broken, "upstream"), (&cut, "gate")] {
            let record = gate.record_of(id);
            assert_eq!((field(&record, "ended_by"), &record["status"]), (Some(by), &json!(200)), "{record}");
            let bytes = number(&record, "bytes_out").unwrap();
            assert!(bytes == 5 || (by == "client" && bytes > 5), "{record}");
        }
        let record = gate.record_of(answer.field("x-request-id").unwrap());
        assert_eq!((field(&record, "ended_by"), number(&record, "bytes_in")), (Some("gate"), Some(5)));
        gate.signal("TERM");
        let record = gate.record_of(&drained);
        assert_eq!(field(&record, "ended_by"), Some("gate"), "at the end of the drain: {record}");
        gate.wait_for_exit(testkit::PATIENCE);
        gate.log().wait_for_end();
        let records = gate.log().records();
        let record = records.iter().rfind(|record| record["status"] == 499).unwrap();
        assert_eq!(field(record, "ended_by"), Some("gate"), "{record}");
    }
}

/// Opens a tunnel, waits for its first bytes, and returns it with the id of its request.
fn tunnel(gate: &Gate, token: &str) -> io::Result<(Wire, String)> {
    let mut wire = gate.connect();
    let fields = gate.get("/chat").token(token).field("Connection", "Upgrade").field("Upgrade", "chat");
    wire.send(fields.bytes())?;
    let head = wire.head()?;
    assert_eq!(head.status, 101);
    assert_eq!(wire.take(5)?, b"early");
    wire.send("1234567")?;
    wire.take(7)?;
    Ok((wire, head.field("x-request-id").unwrap().to_owned()))
}

#[test]
fn the_line_of_a_tunnel_counts_its_bytes_and_says_who_ended_it() {
    let Scene { mut gate, issuer, upstream: _upstream } = scene(Settings::plaintext());
    let of = |subject: &str| issuer.token().claim("sub", subject).build();
    let (wire, left) = tunnel(&gate, &of("a")).unwrap();
    drop(wire);
    let (mut ended_wire, ended) = tunnel(&gate, &of("b")).unwrap();
    ended_wire.send("end").unwrap();
    let (mut reset_wire, reset) = tunnel(&gate, &of("c")).unwrap();
    reset_wire.send("reset").unwrap();
    let (_cut_wire, cut) = tunnel(&gate, &of("d")).unwrap();
    gate.publish(&json!({"type": "subject-revoked", "subject": "d"}));
    eventually("it is cut", || (gate.cuts("subject_revoked") == 1.0).then_some(()));
    let (_drained_wire, drained) = tunnel(&gate, &of("e")).unwrap();
    for (id, by, up) in
        [(left, None, 7), (ended, None, 10), (reset, Some("upstream"), 12), (cut, Some("gate"), 7)]
    {
        let record = gate.record_of(&id);
        assert_eq!((field(&record, "ended_by"), &record["status"]), (by, &json!(101)), "{record}");
        let bytes = (number(&record, "bytes_in"), number(&record, "bytes_out"));
        assert_eq!(bytes, (Some(up), Some(12)), "{record}");
    }
    gate.signal("TERM");
    let record = gate.record_of(&drained);
    assert_eq!((field(&record, "ended_by"), number(&record, "bytes_out")), (Some("gate"), Some(12)));
    gate.wait_for_exit(testkit::PATIENCE);
}

/// An embedded authority.
const AUTHORITY: &str = "[[issuers]]\nissuer = \"https://gate.test\"\naudiences = [\"https://api.test\"]\nauthority = true\n\
     [authority]\nissuer = \"https://gate.test\"\naudience = \"https://api.test\"\nscopes = [\"read:deals\"]\n\
     path = \"authority.db\"\n";

#[test]
fn lines_of_the_token_endpoint_name_the_client_that_asked() {
    let gate = Gate::start(&Settings::plaintext().toml(AUTHORITY).admin());
    gate.operate("POST", "/v1/users", Some(&json!({"id": "owner", "name": "Owner", "roles": []})));
    let made = json!({"name": "Robot", "owner": "owner", "roles": [], "scopes": ["read:deals"]});
    let made = gate.operate("POST", "/v1/credentials", Some(&made)).json();
    let (id, secret) = (made["client_id"].as_str().unwrap(), made["client_secret"].as_str().unwrap());
    for (client, secret, status, shown) in [
        (id, secret, 200, id),
        (id, "wrong-secret-of-this-test", 401, id),
        ("no%20such%0Aclient", "wrong-secret-of-this-test", 401, "no?such?client"),
    ] {
        let form = format!("grant_type=client_credentials&client_id={client}&client_secret={secret}");
        let ask =
            gate.request("POST", "/oauth/token").field("Content-Type", "application/x-www-form-urlencoded");
        let answer = ask.body(&form).send();
        assert_eq!(answer.status(), status, "{}", answer.text());
        let record = gate.record_of(answer.field("x-request-id").unwrap());
        assert_eq!(field(&record, "client"), Some(shown), "{record}");
        assert!(!record.to_string().contains(secret), "{record}");
    }
    let count = |result: &str, error: &str| {
        gate.metrics().sum("portcullis_token_requests_total", &[("result", result), ("error", error)])
    };
    assert_eq!((count("ok", "none"), count("error", "invalid_client")), (1.0, 2.0));
}
