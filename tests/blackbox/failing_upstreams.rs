//! What the client receives when the upstream fails: 502, 504, or a visibly incomplete response; never a wrong one.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;

use testkit::app::{self, App, Speaks};
use testkit::block_on;
use testkit::gate::Gate;
use testkit::h2_client::{self, H2Client};
use testkit::pki::Authority;
use testkit::raw_upstream::{Next, RawUpstream};
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use testkit::wire::Answer;

fn guarded(upstream: &RawUpstream) -> (Gate, Issuer) {
    let issuer = Issuer::new();
    (Gate::start(&Settings::plaintext().guarding(&upstream.url(), &issuer)), issuer)
}

fn assert_error(answer: &Answer, status: u16, error: &str) {
    assert_eq!(answer.status(), status, "{}", answer.text());
    assert_eq!(answer.json()["error"], error);
    assert_eq!(answer.field("www-authenticate"), None);
    assert_eq!(answer.field("cache-control"), Some("no-store"));
    assert_eq!(answer.json()["request_id"], answer.field("x-request-id").unwrap());
}

/// The counted upstream errors by `kind`.
fn counted(gate: &Gate) -> f64 {
    gate.metrics().sum("portcullis_upstream_errors_total", &[("upstream", "api")])
}

/// Holds docs/operations.md, Failure modes: an upstream breaks off mid-response
#[test]
fn an_answer_that_breaks_off_never_looks_complete() {
    let cases: [(&str, &'static [u8], Next); 6] = [
        ("short of its length", b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\npart", Next::Close),
        (
            "without the last chunk",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n",
            Next::Close,
        ),
        ("within a chunk", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\npart", Next::Close),
        (
            "within a chunk size",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\nf",
            Next::Close,
        ),
        (
            "before the end of trailers",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n0\r\n",
            Next::Close,
        ),
        ("by a reset", b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\npart", Next::Reset),
    ];
    for (name, bytes, end) in cases {
        let upstream = RawUpstream::scripted(move |exchange| {
            if exchange.request.target() == "/fine" {
                return exchange.ok("fine");
            }
            exchange.send(bytes);
            end
        });
        let issuer = Issuer::new();
        let gate = Gate::start(&Settings::tls().guarding(&upstream.url(), &issuer));
        let mut wire = gate.connect();
        wire.send(gate.get("/").token(&issuer.good()).bytes()).unwrap();
        match wire.answer() {
            Ok(answer) => assert_eq!(answer.status(), 502, "{name}: a complete answer {:?}", answer.text()),
            Err(error) => {
                assert!(
                    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset),
                    "{name}: {error}"
                );
            }
        }
        block_on(async {
            let mut client = H2Client::connect(&gate).await;
            let request = h2_client::request("GET", "/", &issuer.good(), app::empty());
            match client.start(request).await {
                Ok(response) if response.status() == 200 => {
                    let error = response.into_body().collect().await.expect_err(name);
                    assert!(!error.is_timeout(), "{name}: {error}");
                }
                Ok(response) => assert_eq!(response.status(), 502, "{name}"),
                Err(error) => assert!(!error.is_canceled(), "{name}: {error}"),
            }
            let request = h2_client::request("GET", "/fine", &issuer.good(), app::empty());
            let next = client.exchange(request).await.expect("only the stream ends, not the connection");
            assert_eq!(next.status(), 200, "{name}");
        });
    }
}

/// Holds docs/operations.md, Failure modes: an upstream breaks off mid-response
#[test]
fn an_answer_over_http_2_that_is_reset_never_looks_complete() {
    for tls in [false, true] {
        let authority = Authority::new();
        let app = if tls {
            App::start(Speaks::H2Tls(authority.server(&["localhost"])))
        } else {
            App::start(Speaks::H2c)
        };
        let issuer = Issuer::new();
        let settings = Settings::plaintext();
        settings.file("upstream-ca.pem", authority.certificate_pem());
        let lines = if tls { "ca = \"upstream-ca.pem\"" } else { "" };
        let settings = settings.upstream("api", &app.url(), lines).issuer(&issuer).route("/{*rest}", "");
        let gate = Gate::start(&settings);
        let mut wire = gate.connect();
        wire.send(gate.get("/events").token(&issuer.good()).bytes()).unwrap();
        assert_eq!(wire.head().unwrap().status, 200);
        app.emit("one");
        assert!(wire.chunk().unwrap().is_some());
        drop(app);
        assert!(wire.chunk().is_err(), "the connection breaks off, without a last chunk");
    }
}

#[test]
fn an_answer_that_is_no_http_is_502() {
    let rows: [(&str, &[u8]); 24] = [
        ("nothing but a close", b""),
        ("garbage", b"garbage\r\n\r\n"),
        ("half a head", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n"),
        ("another protocol", b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        ("version 3", b"HTTP/3.0 200 OK\r\ncontent-length: 0\r\n\r\n"),
        ("no status", b"HTTP/1.1 \r\ncontent-length: 0\r\n\r\n"),
        ("a status of two digits", b"HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n"),
        ("a status of four digits", b"HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n"),
        ("a status below 100", b"HTTP/1.1 099 OK\r\ncontent-length: 0\r\n\r\n"),
        ("a length that is no number", b"HTTP/1.1 200 OK\r\ncontent-length: five\r\n\r\nhello"),
        ("a negative length", b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nhello"),
        ("a signed length", b"HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello"),
        ("two lengths", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!"),
        ("a list of two lengths", b"HTTP/1.1 200 OK\r\ncontent-length: 5, 6\r\n\r\nhello!"),
        ("a length beyond 64 bits", b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\nhello"),
        ("an unknown coding", b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nhello"),
        (
            "chunked twice",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ),
        ("a space in a name", b"HTTP/1.1 200 OK\r\nx y: 1\r\ncontent-length: 0\r\n\r\n"),
        ("a line without a colon", b"HTTP/1.1 200 OK\r\nx\r\ncontent-length: 0\r\n\r\n"),
        ("a null byte in a value", b"HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 0\r\n\r\n"),
        ("a bare CR in a value", b"HTTP/1.1 200 OK\r\nx: a\rb\r\ncontent-length: 0\r\n\r\n"),
        ("an empty name", b"HTTP/1.1 200 OK\r\n: 1\r\ncontent-length: 0\r\n\r\n"),
        (
            "101 that nobody asked for",
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        ),
        ("a head without end", &HUGE_HEAD),
    ];
    let answers: Vec<Vec<u8>> = rows.iter().map(|(_, bytes)| bytes.to_vec()).collect();
    let upstream = RawUpstream::scripted(move |exchange| {
        let row: usize = exchange.request.target()[1..].parse().unwrap();
        exchange.send(&answers[row]);
        Next::Close
    });
    let (gate, issuer) = guarded(&upstream);
    let token = issuer.good();
    for (row, (name, _)) in rows.iter().enumerate() {
        let answer = gate.request("POST", &format!("/{row}")).body("x").token(&token).send();
        assert_eq!(answer.status(), 502, "{name}: {}", answer.text());
        assert_error(&answer, 502, "upstream_unreachable");
        assert_eq!(upstream.count(), row + 1, "{name}: a POST is never sent twice");
        assert!((counted(&gate) - (row + 1) as f64).abs() < 1e-9, "{name}: counted");
    }
}

/// A field line of 2 MiB.
static HUGE_HEAD: [u8; 2 * 1024 * 1024] = {
    let mut bytes = [b'x'; 2 * 1024 * 1024];
    let line = b"HTTP/1.1 200 OK\r\nx: ";
    let mut at = 0;
    while at < line.len() {
        bytes[at] = line[at];
        at += 1;
    }
    bytes
};

#[test]
fn conflicting_framing_of_an_answer_is_resolved_or_refused_but_never_passed_on() {
    let rows: [&[u8]; 3] = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: 1\r\n folded\r\ncontent-length: 5\r\n\r\nhello",
    ];
    for bytes in rows {
        let upstream = RawUpstream::scripted(move |exchange| {
            exchange.send(bytes);
            Next::Close
        });
        let (gate, issuer) = guarded(&upstream);
        let answer = gate.request("POST", "/").body("x").token(&issuer.good()).send();
        let shown = String::from_utf8_lossy(bytes);
        match answer.status() {
            200 => assert_eq!(answer.text(), "hello", "{shown}"),
            status => assert_eq!(status, 502, "{shown}"),
        }
    }
}

#[test]
fn bytes_after_an_answer_never_become_the_next_one() {
    let upstream = RawUpstream::scripted(|exchange| {
        let target = exchange.request.target();
        exchange.read_body().unwrap();
        exchange.send(format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{target}HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison",
            target.len()
        ))
    });
    let (gate, issuer) = guarded(&upstream);
    let token = issuer.good();
    for n in 0..10 {
        let target = format!("/{n}");
        let answer = gate.get(&target).token(&token).send();
        assert!(answer.status() == 502 || answer.text() == target, "{target}: {}", answer.text());
    }
}

/// Holds docs/operations.md, Failure modes: an upstream is down or silent
/// Holds docs/concepts.md, What a request meets: upstream unreachable / no response in time
/// Holds docs/reasons.md, Other answers: 502
#[test]
fn a_refused_connection_is_502() {
    let port = testkit::ports::reserved().port();
    let issuer = Issuer::new();
    let gate = Gate::start(&Settings::plaintext().guarding(&format!("http://127.0.0.1:{port}"), &issuer));
    assert_error(&gate.get("/").token(&issuer.good()).send(), 502, "upstream_unreachable");
    assert!((counted(&gate) - 1.0).abs() < f64::EPSILON);
    assert_eq!(gate.get("/").send().status(), 401, "the decision comes before the upstream");
}

#[test]
fn a_name_that_does_not_resolve_is_502() {
    let issuer = Issuer::new();
    let gate = Gate::start(&Settings::plaintext().guarding("http://upstream.invalid:80", &issuer));
    assert_error(&gate.get("/").token(&issuer.good()).send(), 502, "upstream_unreachable");
}

#[test]
fn a_connection_that_is_not_accepted_is_given_up_after_its_timeout() {
    // A full backlog: the kernel drops further SYNs, and nobody ever accepts.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let _waiting: Vec<_> = (0..8)
        .map_while(|_| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok())
        .collect();
    let issuer = Issuer::new();
    let settings = Settings::plaintext()
        .upstream(
            "api",
            &format!("http://{address}"),
            "connect_timeout = \"300ms\"\nresponse_timeout = \"20s\"",
        )
        .issuer(&issuer)
        .route("/{*rest}", "");
    let gate = Gate::start(&settings);
    let began = Instant::now();
    let answer = gate.get("/").token(&issuer.good()).send();
    assert!(matches!(answer.status(), 502 | 504), "{}", answer.text());
    assert!(began.elapsed() >= Duration::from_millis(300));
}

/// Holds docs/operations.md, Failure modes: an upstream is down or silent
/// Holds docs/concepts.md, What a request meets: upstream unreachable / no response in time
/// Holds docs/configuration.md, Settings: upstreams[].response_timeout
/// Holds docs/reasons.md, Other answers: 504
#[test]
fn a_silent_upstream_is_504_after_its_timeout() {
    let upstream = RawUpstream::scripted(|exchange| exchange.wait_for_close());
    let issuer = Issuer::new();
    let settings = Settings::plaintext()
        .upstream("api", &upstream.url(), "response_timeout = \"300ms\"")
        .issuer(&issuer)
        .route("/{*rest}", "")
        .route("/slow", "response_timeout = \"1500ms\"");
    let gate = Gate::start(&settings);
    for (path, limit) in [("/fast", 300), ("/slow", 1500)] {
        let began = Instant::now();
        assert_error(&gate.get(path).token(&issuer.good()).send(), 504, "upstream_timeout");
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(limit), "{path} after {took:?}");
    }
    assert!(counted(&gate) >= 2.0);
    assert_eq!(upstream.count(), 2, "a time-out is not retried");
}

#[test]
fn a_silent_upstream_over_http_2_is_504_after_its_timeout() {
    let app = App::start(Speaks::H2c);
    let issuer = Issuer::new();
    let settings = Settings::tls()
        .upstream("api", &app.url(), "response_timeout = \"300ms\"")
        .issuer(&issuer)
        .route("/{*rest}", "");
    let gate = Gate::start(&settings);
    assert_error(&gate.get("/silence").token(&issuer.good()).send(), 504, "upstream_timeout");
    block_on(async {
        let request = h2_client::request("GET", "/silence", &issuer.good(), app::empty());
        assert_eq!(H2Client::connect(&gate).await.exchange(request).await.unwrap().status(), 504);
    });
    assert_eq!(
        gate.get("/hello").token(&issuer.good()).send().text(),
        "hello",
        "the connection is still good"
    );
}

#[test]
fn the_body_of_an_answer_may_take_longer_than_the_response_timeout() {
    let app = App::start(Speaks::Http1);
    let issuer = Issuer::new();
    let settings = Settings::plaintext()
        .upstream("api", &app.url(), "response_timeout = \"200ms\"")
        .issuer(&issuer)
        .route("/{*rest}", "");
    let gate = Gate::start(&settings);
    let mut wire = gate.connect();
    wire.send(gate.get("/events").token(&issuer.good()).bytes()).unwrap();
    assert_eq!(wire.head().unwrap().status, 200);
    testkit::let_pass(Duration::from_millis(600)); // far longer than the timeout
    app.emit("late");
    assert_eq!(wire.chunk().unwrap().unwrap(), b"data: late\n\n");
}

/// An upstream that responds to the first request of each connection and closes the connection on the
/// second, without a response.
fn forgetful() -> RawUpstream {
    let answered = std::sync::Arc::new(std::sync::Mutex::new(std::collections::HashSet::new()));
    RawUpstream::scripted(move |exchange| {
        if answered.lock().unwrap().insert(exchange.request.connection) {
            exchange.ok("first")
        } else {
            Next::Close
        }
    })
}

/// Holds docs/operations.md, Failure modes: an upstream is down or silent
#[test]
fn a_request_whose_pooled_connection_died_is_retried_once_when_that_is_safe() {
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
        let upstream = forgetful();
        let (gate, issuer) = guarded(&upstream);
        let token = issuer.good();
        assert_eq!(gate.request(method, "/one").token(&token).send().status(), 200, "{method}");
        assert_eq!(
            gate.request(method, "/two").token(&token).send().status(),
            200,
            "{method} on a dead connection"
        );
        let targets: Vec<String> = upstream.seen().iter().map(|seen| seen.target()).collect();
        assert_eq!(targets, ["/one", "/two", "/two"], "{method} was sent again, once");
        assert_eq!(upstream.connections(), 2);
    }
    for method in ["POST", "PATCH"] {
        let upstream = forgetful();
        let (gate, issuer) = guarded(&upstream);
        let token = issuer.good();
        assert_eq!(gate.request(method, "/one").body("x").token(&token).send().status(), 200);
        assert_error(
            &gate.request(method, "/two").body("x").token(&token).send(),
            502,
            "upstream_unreachable",
        );
        let targets: Vec<String> = upstream.seen().iter().map(|seen| seen.target()).collect();
        assert_eq!(targets, ["/one", "/two"], "{method} is not sent twice");
    }
}

#[test]
fn a_retry_that_fails_as_well_is_502() {
    let requests = AtomicUsize::new(0);
    let upstream = RawUpstream::scripted(move |exchange| {
        if requests.fetch_add(1, Ordering::SeqCst) == 0 { exchange.ok("first") } else { Next::Close }
    });
    let (gate, issuer) = guarded(&upstream);
    let token = issuer.good();
    assert_eq!(gate.get("/one").token(&token).send().status(), 200);
    assert_error(&gate.get("/two").token(&token).send(), 502, "upstream_unreachable");
    assert!(upstream.count() <= 3, "at most one retry: {}", upstream.count());
}

#[test]
fn a_request_is_not_retried_once_an_answer_has_begun() {
    let upstream = RawUpstream::scripted(|exchange| {
        if exchange.request.target() == "/one" {
            return exchange.ok("first");
        }
        exchange.send("HTTP/1.1 2");
        Next::Close
    });
    let (gate, issuer) = guarded(&upstream);
    let token = issuer.good();
    assert_eq!(gate.get("/one").token(&token).send().status(), 200);
    assert_error(&gate.get("/two").token(&token).send(), 502, "upstream_unreachable");
    assert_eq!(upstream.count(), 2);
}

#[test]
fn a_restarted_upstream_is_found_again() {
    let upstream = RawUpstream::start();
    let (gate, issuer) = guarded(&upstream);
    let token = issuer.good();
    for _ in 0..5 {
        assert_eq!(gate.get("/").token(&token).send().status(), 200);
        upstream.hang_up();
    }
}

#[test]
fn a_restarted_upstream_is_found_again_over_http_2_too() {
    let port = testkit::ports::ClaimedPort::new();
    let mut app = App::start_on(port.address, Speaks::H2c);
    let issuer = Issuer::new();
    let gate = Gate::start(&Settings::tls().guarding(&app.url(), &issuer));
    let token = issuer.good();
    for _ in 0..5 {
        assert_eq!(gate.get("/hello").token(&token).send().text(), "hello");
        drop(app);
        app = App::start_on(port.address, Speaks::H2c);
    }
}

#[test]
fn an_upstream_with_a_certificate_of_another_name_or_authority_is_502() {
    let (authority, other) = (Authority::new(), Authority::new());
    for (case, identity, ca) in [
        ("another name", authority.server(&["elsewhere.test"]), &authority),
        ("another authority", authority.server(&["localhost"]), &other),
    ] {
        let upstream = RawUpstream::with_tls(identity.server_config(&["http/1.1"], None), |exchange| {
            exchange.ok("secret")
        });
        let issuer = Issuer::new();
        let settings = Settings::plaintext();
        settings.file("upstream-ca.pem", ca.certificate_pem());
        let settings = settings
            .upstream("api", &upstream.named_url(), "ca = \"upstream-ca.pem\"")
            .issuer(&issuer)
            .route("/{*rest}", "");
        let gate = Gate::start(&settings);
        let answer = gate.get("/").token(&issuer.good()).send();
        assert_error(&answer, 502, "upstream_unreachable");
        assert_eq!(upstream.count(), 0, "{case}: nothing was sent");
    }
}

#[test]
fn an_upstream_may_demand_a_client_certificate() {
    let authority = Authority::new();
    let server = authority.server(&["localhost"]);
    let upstream = RawUpstream::with_tls(server.server_config(&["http/1.1"], Some(&authority)), |exchange| {
        exchange.ok("mutual")
    });
    let client = authority.client("gate");
    let issuer = Issuer::new();
    for (lines, status) in [
        ("ca = \"upstream-ca.pem\"\nclient_certificate = \"gate.pem\"\nclient_key = \"gate.key\"", 200),
        ("ca = \"upstream-ca.pem\"", 502),
    ] {
        let settings = Settings::plaintext();
        settings.file("upstream-ca.pem", authority.certificate_pem());
        settings.file("gate.pem", &client.chain);
        settings.file("gate.key", &client.key);
        let settings =
            settings.upstream("api", &upstream.named_url(), lines).issuer(&issuer).route("/{*rest}", "");
        let gate = Gate::start(&settings);
        assert_eq!(gate.get("/").token(&issuer.good()).send().status(), status, "{lines}");
    }
}

#[test]
fn an_upstreams_own_refusal_passes_unchanged() {
    let upstream = RawUpstream::scripted(|exchange| {
        let fields = "www-authenticate: Basic realm=\"upstream\"\r\nwww-authenticate: Digest realm=\"u\"\r\n";
        exchange.answer("401 Unauthorized", fields, "{\"mine\":true}")
    });
    let (gate, issuer) = guarded(&upstream);
    let answer = gate.get("/").token(&issuer.good()).send();
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.head.all("www-authenticate"), ["Basic realm=\"upstream\"", "Digest realm=\"u\""]);
    assert_eq!(answer.text(), "{\"mine\":true}");
}

#[test]
fn hop_by_hop_fields_of_an_answer_stay_behind() {
    let upstream = RawUpstream::scripted(|exchange| {
        let fields = "connection: close, X-Private\r\nx-private: 1\r\nkeep-alive: timeout=5\r\nproxy-connection: close\r\n\
                      proxy-authenticate: Basic\r\nx-public: 2\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n";
        exchange.answer("200 OK", fields, "ok");
        Next::Close
    });
    let (gate, issuer) = guarded(&upstream);
    let mut wire = gate.connect();
    let answer = wire.exchange(gate.get("/").token(&issuer.good()).bytes()).unwrap();
    for name in ["x-private", "keep-alive", "proxy-connection"] {
        assert!(answer.head.all(name).is_empty(), "{name}: {:?}", answer.head);
    }
    assert_eq!(answer.field("x-public"), Some("2"));
    assert_eq!(answer.head.all("set-cookie"), ["a=1", "b=2"]);
    let again = wire.exchange(gate.get("/").token(&issuer.good()).bytes()).unwrap();
    assert_eq!(again.text(), "ok", "the client's connection outlives the upstream's");
}

/// Forwards each accepted connection to the address it is given.
fn relay() -> (String, std::sync::mpsc::SyncSender<std::net::SocketAddr>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (told, target) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let Ok(target) = target.recv() else { return };
        for from in listener.incoming().map_while(Result::ok) {
            let Ok(to) = std::net::TcpStream::connect(target) else { return };
            let (mut up, mut down) = ((from.try_clone().unwrap(), to.try_clone().unwrap()), (to, from));
            std::thread::spawn(move || drop(std::io::copy(&mut up.0, &mut up.1)));
            std::thread::spawn(move || drop(std::io::copy(&mut down.0, &mut down.1)));
        }
    });
    (url, told)
}

#[test]
fn a_request_that_comes_back_to_the_gate_goes_round_once() {
    let (url, told) = relay();
    let issuer = Issuer::new();
    let gate = Gate::start(&Settings::plaintext().guarding(&url, &issuer));
    told.send(gate.public).unwrap();
    for (method, body) in [("GET", ""), ("POST", "with a body")] {
        let answer = gate.request(method, "/").token(&issuer.good()).body(body).send();
        let told = answer.json();
        assert_eq!((answer.status(), told["error"].as_str()), (502, Some("upstream_unreachable")), "{told}");
        assert!(told["error_description"].as_str().unwrap().contains("looped back"), "{told}");
    }
    let labels = [("upstream", "api"), ("kind", "loop")];
    assert_eq!(gate.metrics().sum("portcullis_upstream_errors_total", &labels), 2.0);
    assert_eq!(
        gate.metrics().sum("portcullis_requests_total", &[("status", "502")]),
        4.0,
        "each went round once"
    );
}

#[test]
fn another_gate_behind_this_one_is_no_loop() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let trusting = Settings::plaintext().server("trusted_proxies = [\"127.0.0.1/32\"]");
    let inner = Gate::start(&trusting.guarding(&upstream.url(), &issuer));
    let outer = Gate::start(&Settings::plaintext().guarding(&format!("http://{}", inner.public), &issuer));
    assert_eq!(outer.get("/").token(&issuer.good()).send().status(), 200);
    let via = upstream.last().field("via").unwrap();
    let (first, second) = via.split_once(", ").unwrap();
    assert!(first != second && via.matches("1.1 portcullis-").count() == 2, "{via}");
}
