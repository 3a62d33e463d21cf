//! How the gate reaches upstreams and communicates with them: addresses, names, sockets, headers, and
//! what it logs about them.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use testkit::app::{self, App, Speaks};
use testkit::block_on;
use testkit::frames::{self, kind};
use testkit::gate::{Gate, field};
use testkit::h2_client::{self, H2Client};
use testkit::pki::Authority;
use testkit::raw_upstream::{Next, RawUpstream};
use testkit::settings::Settings;
use testkit::tokens::Issuer;

/// An address at which nobody listens.
fn refused() -> String {
    format!("http://{}", testkit::ports::reserved())
}

fn upstream(settings: Settings, url: &str, lines: &str, issuer: &Issuer) -> Settings {
    settings.upstream("api", url, lines).issuer(issuer).route("/{*rest}", "")
}

#[test]
fn the_log_tells_in_its_own_words_why_there_is_no_answer() {
    let other = Authority::new();
    let untrusted =
        RawUpstream::with_tls(other.server(&["localhost"]).server_config(&["http/1.1"], None), |exchange| {
            exchange.ok("never")
        });
    let silent = RawUpstream::scripted(|exchange| exchange.wait_for_close());
    let garbage = RawUpstream::scripted(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\ncontent-length: five\r\n\r\n");
        Next::Close
    });
    let closing = RawUpstream::scripted(|_| Next::Close);
    let rows = [
        ("refused", refused(), "connect", "refused"),
        ("an unknown name", "http://upstream.invalid:80".to_owned(), "connect", "lookup"),
        ("an untrusted certificate", untrusted.named_url(), "tls", "certificate"),
        ("silence", silent.url(), "timeout", "no response in time"),
        ("a bad answer", garbage.url(), "bad_answer", "Content-Length"),
        ("an end", closing.url(), "closed", "end of file"),
    ];
    for (name, url, failure, words) in rows {
        let issuer = Issuer::new();
        let gate =
            Gate::start(&upstream(Settings::plaintext(), &url, "response_timeout = \"300ms\"", &issuer));
        let answer = gate.get("/").token(&issuer.good()).send();
        assert!(matches!(answer.status(), 502 | 504), "{name}: {}", answer.status());
        let record = gate.record_of(answer.field("x-request-id").unwrap());
        assert_eq!(field(&record, "failure"), Some(failure), "{name}: {record}");
        assert!(field(&record, "cause").is_some_and(|cause| cause.contains(words)), "{name}: {record}");
    }
}

/// Holds docs/operations.md, Failure modes: an upstream breaks off mid-response
#[test]
fn an_answer_that_breaks_off_is_logged_and_counted_as_that() {
    let upstream_of = |bytes: &'static str, next: fn() -> Next| {
        RawUpstream::scripted(move |exchange| {
            exchange.send(bytes);
            next()
        })
    };
    let short = "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\npart";
    let chunk = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\nzz\r\n";
    let rows = [
        ("short of its length", upstream_of(short, || Next::Close), "closed"),
        ("by a reset", upstream_of(short, || Next::Reset), "closed"),
        ("in broken chunks", upstream_of(chunk, || Next::Close), "bad_answer"),
    ];
    for (name, server, failure) in rows {
        let issuer = Issuer::new();
        let gate = Gate::start(&Settings::tls().guarding(&server.url(), &issuer));
        let mut wire = gate.connect();
        wire.send(gate.get("/").token(&issuer.good()).bytes()).unwrap();
        let head = wire.head().unwrap();
        assert_eq!(head.status, 200, "{name}");
        let record = gate.record_of(head.field("x-request-id").unwrap());
        assert_eq!(field(&record, "failure"), Some(failure), "{name}: {record}");
        assert!(field(&record, "cause").is_some(), "{name}: {record}");
        assert_eq!(record["status"], 200, "{name}: what the client was told");
        gate.wait_for_metric("the failure is counted", |scrape| {
            (scrape.sum("portcullis_upstream_errors_total", &[("kind", failure)]) >= 1.0).then_some(())
        });
        block_on(async {
            let mut client = H2Client::connect(&gate).await;
            let request = h2_client::request("GET", "/", &issuer.good(), app::empty());
            let answer = client.start(request).await.unwrap();
            let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
            drop(http_body_util::BodyExt::collect(answer.into_body()).await.expect_err(name));
            assert_eq!(field(&gate.record_of(&id), "failure"), Some(failure), "{name} over HTTP/2");
        });
    }
}

/// Holds docs/configuration.md, Settings: upstreams[].body_timeout
#[test]
fn an_upstream_that_stops_in_mid_answer_is_given_up_after_body_timeout() {
    let server = RawUpstream::scripted(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\npart");
        exchange.wait_for_close()
    });
    let issuer = Issuer::new();
    let gate =
        Gate::start(&upstream(Settings::plaintext(), &server.url(), "body_timeout = \"200ms\"", &issuer));
    let mut wire = gate.connect();
    wire.send(gate.get("/").token(&issuer.good()).bytes()).unwrap();
    let head = wire.head().unwrap();
    assert_eq!(wire.take(4).unwrap(), b"part");
    assert!(wire.is_closed());
    let record = gate.record_of(head.field("x-request-id").unwrap());
    assert_eq!(field(&record, "failure"), Some("timeout"), "{record}");
}

/// Holds docs/operations.md, Failure modes: one address of an upstream is dead
/// Holds docs/configuration.md, Settings: upstreams[].urls
#[test]
fn requests_go_to_the_addresses_that_can_be_reached() {
    let (one, two, issuer) = (RawUpstream::start(), RawUpstream::start(), Issuer::new());
    let urls = format!("urls = [\"{}\", \"{}\", \"{}\"]", refused(), one.url(), two.url());
    let table = format!("[[upstreams]]\nname = \"api\"\n{urls}\n");
    let gate = Gate::start(&Settings::plaintext().toml(&table).issuer(&issuer).route("/{*rest}", ""));
    let token = issuer.good();
    for n in 0..20 {
        let method = if n % 2 == 0 { "GET" } else { "POST" };
        assert_eq!(gate.request(method, "/").body("x").token(&token).send().status(), 200, "{method} {n}");
    }
    assert!(one.count() > 0 && two.count() > 0, "{} and {}", one.count(), two.count());
    assert_eq!(one.count() + two.count(), 20);
    // When one of them ends, the others continue.
    let rest = two.count();
    drop(one);
    for n in 0..6 {
        assert_eq!(gate.get("/").token(&token).send().status(), 200, "request {n} after the end of one");
    }
    assert_eq!(two.count(), rest + 6);
}

#[test]
fn an_address_that_is_busy_gets_no_more_than_its_share() {
    let (issuer, fast) = (Issuer::new(), RawUpstream::start());
    let slow = RawUpstream::scripted(|exchange| exchange.wait_for_close());
    let urls = format!("urls = [\"{}\", \"{}\"]", slow.url(), fast.url());
    let table = format!("[[upstreams]]\nname = \"api\"\n{urls}\n");
    let gate = Gate::start(&Settings::plaintext().toml(&table).issuer(&issuer).route("/{*rest}", ""));
    let token = issuer.good();
    // One request hangs at the slow one, whichever worker has it.
    let mut hanging = Vec::new();
    while slow.count() == 0 {
        let mut wire = gate.connect();
        wire.send(gate.get("/").token(&token).bytes()).unwrap();
        wire.set_patience(Duration::from_millis(300));
        if wire.answer().is_err() {
            hanging.push(wire);
        }
    }
    for _ in 0..10 {
        assert_eq!(gate.get("/").token(&token).send().status(), 200);
    }
    assert_eq!(slow.count(), hanging.len());
}

/// Holds docs/configuration.md, Settings: upstreams[].host, .sni
#[test]
fn host_and_server_name_towards_the_upstream_can_be_set() {
    let (authority, issuer) = (Authority::new(), Issuer::new());
    let tls = authority.server(&["api.internal"]).server_config(&["http/1.1"], None);
    let server = RawUpstream::with_tls(tls, |exchange| exchange.ok("ok"));
    let settings = Settings::plaintext();
    settings.file("upstream-ca.pem", authority.certificate_pem());
    let lines = "ca = \"upstream-ca.pem\"\nsni = \"api.internal\"\nhost = \"api.internal:8443\"";
    let gate = Gate::start(&upstream(settings, &server.url(), lines, &issuer));
    assert_eq!(gate.get("/").token(&issuer.good()).send().text(), "ok");
    let seen = server.last();
    assert_eq!(seen.field("host").as_deref(), Some("api.internal:8443"));
    assert_eq!(seen.field("x-forwarded-host").as_deref(), Some("api.test"));
}

/// Holds docs/operations.md, Failure modes: one address of an upstream is dead
#[test]
fn a_name_whose_first_address_is_dead_is_reached_at_the_next() {
    // A full queue: the kernel answers no further SYN.
    let dead = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let server = RawUpstream::start();
    let port = server.address.port();
    dead.bind(&std::net::SocketAddr::from(([127, 0, 0, 9], port)).into()).unwrap();
    dead.listen(0).unwrap();
    let address = std::net::SocketAddr::from(([127, 0, 0, 9], port));
    let _waiting: Vec<_> = (0..8)
        .map_while(|_| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok())
        .collect();
    let (settings, issuer) = (Settings::plaintext(), Issuer::new());
    let mut hosts = tempfile::NamedTempFile::new().unwrap();
    hosts.write_all(b"127.0.0.1 localhost\n127.0.0.9 api.dead.test\n127.0.0.1 api.dead.test\n").unwrap();
    let url = format!("http://api.dead.test:{port}");
    let settings = upstream(settings, &url, "connect_timeout = \"2s\"", &issuer);
    let script = format!("mount --bind {} /etc/hosts && exec \"$@\"", hosts.path().display());
    let gate = Gate::launch_under(&["unshare", "-r", "-m", "sh", "-c", &script, "sh"], &settings);
    gate.wait_until_ready();
    for n in 0..5 {
        assert_eq!(gate.get("/").token(&issuer.good()).send().status(), 200, "request {n}");
    }
}

/// Holds docs/configuration.md, Settings: upstreams[].url
#[test]
fn an_upstream_is_reached_by_its_socket() {
    use std::io::Read as _;
    let (settings, issuer) = (Settings::plaintext(), Issuer::new());
    let path = settings.folder().join("api.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut head) = (stream.unwrap(), Vec::new());
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
                head.push(byte[0]);
            }
            drop(
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nsocket"),
            );
        }
    });
    let gate = Gate::start(&settings.guarding(&format!("unix:{}", path.display()), &issuer));
    for _ in 0..2 {
        let answer = gate.get("/").token(&issuer.good()).send();
        assert_eq!((answer.status(), answer.text().as_ref()), (200, "socket"));
    }
}

#[test]
fn a_quiet_stream_over_http_2_is_left_alone() {
    let (app, issuer) = (App::start(Speaks::H2c), Issuer::new());
    // The time in the pool says nothing about streams.
    let gate = Gate::start(&upstream(Settings::tls(), &app.url(), "idle_timeout = \"20ms\"", &issuer));
    let mut wire = gate.connect();
    wire.send(gate.get("/events").token(&issuer.good()).bytes()).unwrap();
    assert_eq!(wire.head().unwrap().status, 200);
    for event in ["one", "two"] {
        testkit::let_pass(Duration::from_millis(200));
        app.emit(event);
        assert_eq!(wire.chunk().unwrap().unwrap(), format!("data: {event}\n\n").as_bytes());
    }
    for _ in 0..3 {
        assert_eq!(gate.get("/hello").token(&issuer.good()).send().text(), "hello");
    }
}

#[test]
fn max_forwards_and_trace_end_at_the_gate() {
    let (server, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = Settings::plaintext().guarding(&server.url(), &issuer).route("/open", "anonymous = true");
    let gate = Gate::start(&settings);
    let token = issuer.good();
    let answer = gate.request("OPTIONS", "/x").field("Max-Forwards", "0").token(&token).send();
    assert_eq!((answer.status(), server.count()), (200, 0));
    let answer = gate.request("OPTIONS", "/x").field("Max-Forwards", "5").token(&token).send();
    assert_eq!((answer.status(), server.last().field("max-forwards").as_deref()), (200, Some("4")));
    for (path, name, value) in [
        ("/x", "Authorization", format!("Bearer {token}")),
        ("/open", "Cookie", "session=1".to_owned()),
        ("/open", "Authorization", "Basic eA==".to_owned()),
        ("/open", "Max-Forwards", "0".to_owned()),
    ] {
        let answer = gate.request("TRACE", path).field(name, &value).send();
        assert_eq!(answer.status(), 405, "{path} {name}");
        assert_eq!(answer.json()["error"], "method_not_allowed");
    }
    assert_eq!(server.count(), 1);
    assert_eq!(gate.request("TRACE", "/open").send().status(), 200);
}

#[test]
fn connection_with_more_members_than_a_message_has_fields_is_refused() {
    let (server, issuer) = (RawUpstream::start(), Issuer::new());
    let gate = Gate::start(&Settings::plaintext().guarding(&server.url(), &issuer));
    let token = issuer.good();
    let with = |members: usize| {
        let list = vec!["a"; members].join(",");
        gate.get("/").field("Connection", &list).field("a", "1").token(&token).send().status()
    };
    assert_eq!((with(200), server.last().field("a")), (200, None));
    assert_eq!((with(20_000), server.count()), (400, 1));
}

#[test]
fn a_space_before_the_colon_of_an_answers_field_is_removed() {
    let server = RawUpstream::scripted(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nX-Odd : yes\r\nX-Tab\t:  no \r\nContent-Length : 2\r\n\r\nok")
    });
    let issuer = Issuer::new();
    let gate = Gate::start(&Settings::plaintext().guarding(&server.url(), &issuer));
    let answer = gate.get("/").token(&issuer.good()).send();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"));
    assert_eq!((answer.field("x-odd"), answer.field("x-tab")), (Some("yes"), Some("no")));
}

#[test]
fn a_switch_of_protocol_over_http_2_is_502() {
    // A server by hand: it answers the first stream with `:status: 101`.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut socket, _)) = listener.accept() {
            let mut bytes = frames::frame(kind::SETTINGS, 0, 0, &[]);
            bytes.extend(frames::frame(kind::HEADERS, 4, 1, b"\x08\x03101"));
            socket.read_exact(&mut [0; 24]).unwrap();
            loop {
                let mut head = [0; 9];
                socket.read_exact(&mut head).unwrap();
                socket.read_exact(&mut vec![0; usize::from(head[1]) << 8 | usize::from(head[2])]).unwrap();
                if head[3] == kind::HEADERS {
                    break;
                }
            }
            socket.write_all(&bytes).unwrap();
            std::thread::spawn(move || drop(std::io::copy(&mut socket, &mut std::io::sink())));
        }
    });
    let issuer = Issuer::new();
    let gate = Gate::start(&Settings::plaintext().guarding(&format!("h2c://{address}"), &issuer));
    let ask = gate.get("/").field("Connection", "upgrade").field("Upgrade", "echo").token(&issuer.good());
    assert_eq!(ask.send().status(), 502);
}

/// Holds docs/configuration.md, Settings: routes[].request_body_timeout
/// Holds docs/reasons.md, Other answers: 408
#[test]
fn a_grpc_call_may_be_quiet_for_as_long_as_it_likes_before_its_end() {
    let (app, issuer) = (App::start(Speaks::H2c), Issuer::new());
    let lines = "response_timeout = \"300ms\"";
    let settings = Settings::tls().upstream("api", &app.url(), lines).issuer(&issuer);
    let gate = Gate::start(&settings.route("/{*rest}", "request_body_timeout = \"300ms\""));
    for (content_type, quiet) in [("application/grpc", true), ("text/plain", false)] {
        block_on(async {
            let (sender, receiver) = tokio::sync::mpsc::channel::<hyper::body::Frame<bytes::Bytes>>(1);
            let pieces = futures_util::stream::unfold(receiver, |mut receiver| async move {
                receiver.recv().await.map(|frame| (Ok(frame), receiver))
            });
            let body =
                http_body_util::BodyExt::boxed_unsync(http_body_util::StreamBody::new(Box::pin(pieces)));
            let mut request = h2_client::request("POST", "/silence", &issuer.good(), body);
            request.headers_mut().insert("content-type", content_type.parse().unwrap());
            let mut client = H2Client::connect(&gate).await;
            let mut call = Box::pin(client.start(request));
            let early = tokio::time::timeout(Duration::from_millis(1200), &mut call).await;
            assert_eq!(early.is_err(), quiet, "{content_type}: {early:?}");
            if quiet {
                // The time for the answer begins now.
                drop(sender);
                let answer = call.await.unwrap();
                assert_eq!(answer.headers()["grpc-status"], "4");
            } else {
                assert_eq!(early.unwrap().unwrap().status(), 408);
            }
        });
    }
}

#[test]
fn an_early_refusal_of_a_large_upload_reaches_the_client() {
    // After the head, the upstream responds and closes the connection while the client still sends.
    let server = RawUpstream::scripted(|exchange| {
        exchange.answer("413 Content Too Large", "connection: close\r\n", "too large");
        Next::Close
    });
    let issuer = Issuer::new();
    for settings in [Settings::plaintext(), Settings::tls()] {
        let gate = Gate::start(&settings.guarding(&server.url(), &issuer));
        let token = issuer.good();
        for _ in 0..4 {
            let mut wire = gate.connect();
            let head = format!(
                "POST / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nContent-Length: 8388608\r\n\r\n"
            );
            wire.send(head).unwrap();
            for _ in 0..128 {
                if wire.send(vec![0; 64 * 1024]).is_err() {
                    break;
                }
            }
            let answer = wire.answer().unwrap();
            assert_eq!((answer.status(), answer.text().as_str()), (413, "too large"));
            let record = gate.record_of(answer.field("x-request-id").unwrap());
            assert_eq!(field(&record, "failure"), None, "a refusal is no failure: {record}");
        }
    }
}
