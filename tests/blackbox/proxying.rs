//! A request and its response pass through unchanged and without delay, in every protocol.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Version};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;

use testkit::app::{self, App, Speaks};
use testkit::gate::Gate;
use testkit::h2_client::{self, H2Client, read_until};
use testkit::pki::Authority;
use testkit::raw_upstream::{Next, RawUpstream};
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use testkit::{block_on, eventually};

/// A gate behind TLS in front of an upstream with one protocol.
struct Scene {
    gate: Gate,
    app: App,
    token: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Out {
    Http1,
    H2c,
    H2Tls,
}

const EVERY_PROTOCOL: [Out; 3] = [Out::Http1, Out::H2c, Out::H2Tls];

fn scene(out: Out) -> Scene {
    let (issuer, settings) = (Issuer::new(), Settings::tls());
    let (app, lines) = match out {
        Out::Http1 => (App::start(Speaks::Http1), ""),
        Out::H2c => (App::start(Speaks::H2c), ""),
        Out::H2Tls => {
            let authority = Authority::new();
            settings.file("upstream-ca.pem", authority.certificate_pem());
            (App::start(Speaks::H2Tls(authority.server(&["localhost"]))), "ca = \"upstream-ca.pem\"")
        }
    };
    let settings = settings.upstream("api", &app.url(), lines).issuer(&issuer).route("/{*rest}", "");
    Scene { gate: Gate::start(&settings), app, token: issuer.good() }
}

impl Scene {
    fn bearer(&self) -> String {
        format!("Authorization: Bearer {}", self.token)
    }
}

/// Holds docs/configuration.md, Settings: upstreams[].url
#[test]
fn body_query_and_trailers_pass_in_every_combination_of_protocols() {
    for out in EVERY_PROTOCOL {
        let scene = scene(out);
        let expected = if out == Out::Http1 { Version::HTTP_11 } else { Version::HTTP_2 };
        let path = "/echo/a%20b;c=d,e/?x=1&y=%2f../&&z";

        let chunk = "z".repeat(1000);
        let chunks = format!("3e8\r\n{chunk}\r\n").repeat(300);
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: api.test\r\n{}\r\nX-Custom: Kept \"as\" it is\r\nTE: trailers\r\n\
             Trailer: x-sent\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\nx-sent: all\r\n\r\n",
            scene.bearer()
        );
        let answer = scene.gate.connect().exchange(request).unwrap();
        assert_eq!((answer.status(), answer.body.len()), (200, 300_000), "h1 to {out:?}");
        let arrived = scene.app.last();
        assert_eq!(
            (arrived.version, arrived.body, arrived.complete),
            (expected, 300_000, true),
            "h1 to {out:?}"
        );
        assert_eq!((arrived.method.as_str(), arrived.uri.path_and_query().unwrap().as_str()), ("POST", path));
        assert_eq!(arrived.field("x-custom"), Some("Kept \"as\" it is"));
        assert_eq!(arrived.trailers.unwrap()["x-sent"], "all", "h1 to {out:?}");
        let trailers: Vec<String> =
            answer.trailers.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert!(trailers.contains(&"x-checksum=300000".to_owned()), "h1 from {out:?}: {trailers:?}");
        assert!(trailers.contains(&"x-sent=all".to_owned()), "h1 from {out:?}: {trailers:?}");

        block_on(async {
            let mut sent: Vec<Frame<Bytes>> =
                (0..300).map(|_| Frame::data(Bytes::from(chunk.clone()))).collect();
            sent.push(Frame::trailers(HeaderMap::from_iter([(
                "x-sent".parse().unwrap(),
                "all".parse().unwrap(),
            )])));
            let mut request = h2_client::request("POST", path, &scene.token, app::frames(sent));
            request.headers_mut().insert("te", "trailers".parse().unwrap());
            let answer = H2Client::connect(&scene.gate).await.exchange(request).await.unwrap();
            assert_eq!((answer.status(), answer.body.len()), (200, 300_000), "h2 to {out:?}");
            assert_eq!(
                (&answer.trailers["x-checksum"], &answer.trailers["x-sent"]),
                (&"300000".parse().unwrap(), &"all".parse().unwrap())
            );
        });
        let arrived = scene.app.last();
        assert_eq!((arrived.version, arrived.body), (expected, 300_000), "h2 to {out:?}");
        assert_eq!(arrived.uri.path_and_query().unwrap(), path);
        assert_eq!(arrived.trailers.unwrap()["x-sent"], "all", "h2 to {out:?}");
        let host =
            arrived.headers.get("host").map_or_else(|| arrived.uri.host().unwrap(), |h| h.to_str().unwrap());
        assert_eq!(host, "api.test", "the host is kept towards {out:?}");
    }
}

#[test]
fn answers_without_a_body_have_none() {
    for out in EVERY_PROTOCOL {
        let scene = scene(out);
        let mut wire = scene.gate.connect();
        for (method, path, status) in [
            ("HEAD", "/hello", 200),
            ("GET", "/status/204", 204),
            ("GET", "/status/304", 304),
            ("HEAD", "/status/200", 200),
        ] {
            let request = format!("{method} {path} HTTP/1.1\r\nHost: api.test\r\n{}\r\n\r\n", scene.bearer());
            let answer = wire.exchange(request).unwrap();
            assert_eq!((answer.status(), answer.body.len()), (status, 0), "{method} {path} to {out:?}");
        }
        // The connection is still in step: the next answer is read from its first byte.
        let answer = wire.exchange(scene.gate.get("/hello").token(&scene.token).bytes()).unwrap();
        assert_eq!(answer.text(), "hello");
        assert_eq!(
            scene.gate.request("HEAD", "/hello").token(&scene.token).send().field("content-length"),
            Some("5")
        );

        block_on(async {
            let mut client = H2Client::connect(&scene.gate).await;
            for (method, path, status) in
                [("HEAD", "/hello", 200), ("GET", "/status/204", 204), ("GET", "/status/304", 304)]
            {
                let request = h2_client::request(method, path, &scene.token, app::empty());
                let answer = client.exchange(request).await;
                let got = answer.map(|answer| (answer.status(), answer.body.len()));
                assert_eq!(
                    got.map_err(|error| format!("{error:?}")),
                    Ok((status, 0)),
                    "{method} {path} to {out:?}"
                );
            }
        });
    }
}

#[test]
fn both_directions_are_streamed_at_once() {
    for out in EVERY_PROTOCOL {
        let scene = scene(out);
        let mut wire = scene.gate.connect();
        let head = "POST /echo HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n";
        wire.send(format!("{head}{}\r\n\r\n5\r\nfirst\r\n", scene.bearer())).unwrap();
        assert_eq!(wire.head().unwrap().status, 200, "the answer's head comes before the request's end");
        assert_eq!(wire.chunk().unwrap().unwrap(), b"first");
        wire.send("6\r\nsecond\r\n").unwrap();
        assert_eq!(wire.chunk().unwrap().unwrap(), b"second");
        wire.send("0\r\n\r\n").unwrap();
        assert!(wire.chunk().unwrap().is_none());

        block_on(async {
            let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(4);
            let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
                receiver.recv().await.map(|data| (Ok(Frame::data(data)), receiver))
            });
            let request =
                h2_client::request("POST", "/echo", &scene.token, StreamBody::new(stream).boxed_unsync());
            sender.send(Bytes::from("first")).await.unwrap();
            let response = H2Client::connect(&scene.gate).await.start(request).await.unwrap();
            let mut body = response.into_body();
            assert_eq!(read_until(&mut body, "first").await, "first");
            sender.send(Bytes::from("second")).await.unwrap();
            assert_eq!(read_until(&mut body, "second").await, "second");
            drop(sender);
            while let Some(frame) = body.frame().await {
                let frame = frame.unwrap();
                assert!(frame.data_ref().is_none_or(Bytes::is_empty), "only trailers are left: {frame:?}");
            }
        });
    }
}

#[test]
fn events_arrive_one_by_one() {
    for out in EVERY_PROTOCOL {
        let scene = scene(out);
        let mut wire = scene.gate.connect();
        wire.send(scene.gate.get("/events").token(&scene.token).bytes()).unwrap();
        let head = wire.head().unwrap();
        assert_eq!(head.field("content-type"), Some("text/event-stream"));
        for event in ["one", "two", "three"] {
            scene.app.emit(event);
            assert_eq!(
                wire.chunk().unwrap().unwrap(),
                format!("data: {event}\n\n").as_bytes(),
                "from {out:?}"
            );
        }
        scene.app.end_events();
        assert!(wire.chunk().unwrap().is_none(), "the stream ends in order");

        block_on(async {
            let mut client = H2Client::connect(&scene.gate).await;
            let request = h2_client::request("GET", "/events", &scene.token, app::empty());
            let mut body = client.start(request).await.unwrap().into_body();
            for event in ["one", "two", "three"] {
                scene.app.emit(event);
                assert_eq!(
                    read_until(&mut body, event).await.trim(),
                    format!("data: {event}"),
                    "from {out:?}"
                );
            }
        });
    }
}

#[test]
fn large_bodies_pass_in_constant_memory() {
    const SIZE: usize = 64 * 1024 * 1024;
    const MOST_KIB: u64 = 16 * 1024;
    for out in EVERY_PROTOCOL {
        let scene = scene(out);
        let warm = scene.gate.get("/bytes/1000000").token(&scene.token).send();
        assert_eq!(warm.body.len(), 1_000_000);
        let before = scene.gate.memory("VmHWM");
        let down = format!("/bytes/{SIZE}");
        for protocol in ["--http1.1", "--http2"] {
            let arguments =
                [protocol, "-H", &scene.bearer(), "-o", "/dev/null", "-w", "%{http_code} %{size_download}"];
            assert_eq!(scene.gate.curl(&down, &arguments), format!("200 {SIZE}"), "{protocol} from {out:?}");
        }
        let file = scene.gate.settings.file("upload", vec![0; SIZE / 2]);
        for protocol in ["--http1.1", "--http2"] {
            let upload = file.to_str().unwrap();
            let arguments =
                [protocol, "-H", &scene.bearer(), "-T", upload, "-o", "/dev/null", "-w", "%{http_code}"];
            assert_eq!(scene.gate.curl("/up", &arguments), "200", "{protocol} to {out:?}");
            assert_eq!(scene.app.last().body, SIZE / 2);
        }
        let grown = scene.gate.memory("VmHWM") - before;
        assert!(grown < MOST_KIB, "{grown} KiB more for bodies of {SIZE} bytes towards {out:?}");
    }
}

#[test]
fn a_client_that_does_not_read_stops_the_upstream() {
    const ENOUGH: usize = 64 * 1024 * 1024;
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = sent.clone();
    let upstream = RawUpstream::scripted(move |exchange| {
        exchange.write("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").unwrap();
        let block = vec![0; 64 * 1024];
        while counter.load(Ordering::SeqCst) < ENOUGH && exchange.write(&block).is_ok() {
            counter.fetch_add(block.len(), Ordering::SeqCst);
        }
        Next::Close
    });
    let issuer = Issuer::new();
    let gate = Gate::start(&Settings::plaintext().guarding(&upstream.url(), &issuer));
    let mut wire = gate.connect();
    wire.send(gate.get("/endless").token(&issuer.good()).bytes()).unwrap();
    assert_eq!(wire.head().unwrap().status, 200);
    let mut last = (usize::MAX, std::time::Instant::now());
    let stalled = eventually("the upstream is held back", || {
        let now = sent.load(Ordering::SeqCst);
        if now != last.0 {
            last = (now, std::time::Instant::now());
        }
        (last.1.elapsed() > Duration::from_millis(700)).then_some(now)
    });
    assert!(stalled < ENOUGH, "{stalled} bytes left the upstream although nobody reads");
}

#[test]
fn an_upstream_that_does_not_read_stops_the_client() {
    const ENOUGH: usize = 64 * 1024 * 1024;
    let (done, wait) = std::sync::mpsc::sync_channel::<()>(1);
    let wait = std::sync::Mutex::new(wait);
    let upstream = RawUpstream::scripted(move |_| {
        let _ = wait.lock().unwrap().recv_timeout(testkit::PATIENCE);
        Next::Close
    });
    let issuer = Issuer::new();
    let gate = Gate::start(&Settings::plaintext().guarding(&upstream.url(), &issuer));
    let mut wire = gate.connect();
    wire.set_write_patience(Duration::from_secs(1));
    let head = gate.request("POST", "/upload").field("Content-Length", "1000000000").token(&issuer.good());
    wire.send(head.bytes()).unwrap();
    let (block, mut sent) = (vec![0; 64 * 1024], 0);
    while sent < ENOUGH && wire.send(&block).is_ok() {
        sent += block.len();
    }
    assert!(sent < ENOUGH, "{sent} bytes were taken although nobody reads them");
    let grown = gate.memory("VmHWM");
    assert!(grown < 128 * 1024, "{grown} KiB");
    drop(done);
}

#[test]
fn interim_answers_pass() {
    let upstream = RawUpstream::scripted(|exchange| {
        drop(exchange.write("HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n"));
        exchange.ok("final")
    });
    let issuer = Issuer::new();
    let gate = Gate::start(&Settings::tls().guarding(&upstream.url(), &issuer));
    let answer = gate.get("/").token(&issuer.good()).send();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "final"));
    assert_eq!(answer.interim.len(), 1, "{:?}", answer.interim);
    assert_eq!(answer.interim[0].status, 103);
    assert_eq!(answer.interim[0].field("link"), Some("</style.css>; rel=preload"));

    // Towards HTTP/2 clients the server library has no way to send them: the final answer comes alone, and whole.
    let bearer = format!("Authorization: Bearer {}", issuer.good());
    let printed = gate.curl("/", &["--http2", "-D", "-", "-H", &bearer]);
    assert!(printed.contains("HTTP/2 200") && printed.ends_with("final"), "{printed}");
}

#[test]
fn a_client_that_expects_100_gets_it_before_it_sends() {
    let (issuer, upstream) = (
        Issuer::new(),
        RawUpstream::scripted(|exchange| {
            drop(exchange.write("HTTP/1.1 100 Continue\r\n\r\n"));
            let body = String::from_utf8(exchange.read_body().unwrap_or_default()).unwrap();
            exchange.ok(&body)
        }),
    );
    let gate = Gate::start(&Settings::plaintext().guarding(&upstream.url(), &issuer));
    let mut wire = gate.connect();
    let request = gate.request("PUT", "/file").field("Content-Length", "5").field("Expect", "100-continue");
    wire.send(request.clone().token(&issuer.good()).bytes()).unwrap();
    assert_eq!(wire.head().unwrap().status, 100);
    let answer = wire.exchange("12345").unwrap();
    assert_eq!((answer.status(), upstream.last().body.as_slice()), (200, &b"12345"[..]));

    // Without a token nobody asks for the body, and nothing reaches the upstream.
    let answer = request.send();
    assert_eq!((answer.status(), answer.interim.len()), (401, 0));
    assert_eq!(upstream.count(), 1);
}

#[test]
fn an_upstream_may_answer_before_it_asked_for_the_body() {
    let upstream = RawUpstream::scripted(|exchange| {
        drop(
            exchange.write("HTTP/1.1 409 Conflict\r\ncontent-length: 7\r\nconnection: close\r\n\r\nnot now"),
        );
        Next::Close
    });
    let issuer = Issuer::new();
    let gate = Gate::start(&Settings::plaintext().guarding(&upstream.url(), &issuer));
    let request = gate.request("PUT", "/file").field("Content-Length", "5").field("Expect", "100-continue");
    let mut wire = gate.connect();
    wire.send(request.token(&issuer.good()).bytes()).unwrap();
    let answer = wire.answer().unwrap();
    assert_eq!((answer.status(), answer.text().as_str()), (409, "not now"));
    assert!(answer.interim.is_empty() || answer.interim[0].status == 100, "{:?}", answer.interim);
}

#[test]
fn an_answer_that_ends_with_its_connection_is_framed_for_the_client() {
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        let upstream = RawUpstream::scripted(move |exchange| {
            drop(
                exchange.write(format!("{version} 200 OK\r\ncontent-type: text/plain\r\n\r\nuntil the end")),
            );
            Next::Close
        });
        let issuer = Issuer::new();
        let gate = Gate::start(&Settings::tls().guarding(&upstream.url(), &issuer));
        let mut wire = gate.connect();
        let answer = wire.exchange(gate.get("/").token(&issuer.good()).bytes()).unwrap();
        assert_eq!(answer.text(), "until the end");
        assert_eq!(answer.field("transfer-encoding"), Some("chunked"));
        let again = wire.exchange(gate.get("/").token(&issuer.good()).bytes()).unwrap();
        assert_eq!(again.text(), "until the end", "the client's connection is kept");
        let bearer = format!("Authorization: Bearer {}", issuer.good());
        assert_eq!(gate.curl("/", &["--http2", "-H", &bearer]), "until the end");
    }
}

#[test]
fn an_http_1_0_client_gets_an_answer_it_can_read() {
    let app = App::start(Speaks::Http1);
    let issuer = Issuer::new();
    let gate = Gate::start(&Settings::plaintext().guarding(&app.url(), &issuer));
    let mut wire = gate.connect();
    let token = issuer.good();
    wire.send(format!("GET /bytes/5 HTTP/1.0\r\nHost: api.test\r\nAuthorization: Bearer {token}\r\n\r\n"))
        .unwrap();
    let text = String::from_utf8_lossy(&wire.rest().unwrap()).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.") && head.contains(" 200 "), "{head}");
    assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "{head}");
    assert_eq!(body, "\0\0\0\0\0");
}

#[test]
fn connections_to_the_upstream_are_kept_and_used_again() {
    let upstream = RawUpstream::start();
    let issuer = Issuer::new();
    let gate = Gate::start(&Settings::plaintext().guarding(&upstream.url(), &issuer));
    let token = issuer.good();
    for _ in 0..10 {
        assert_eq!(gate.get("/").token(&token).send().status(), 200);
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn an_unused_connection_to_the_upstream_is_closed_after_its_idle_timeout() {
    let upstream = RawUpstream::start();
    let issuer = Issuer::new();
    let settings = Settings::plaintext()
        .upstream("api", &upstream.url(), "idle_timeout = \"300ms\"")
        .issuer(&issuer)
        .route("/{*rest}", "");
    let gate = Gate::start(&settings);
    let token = issuer.good();
    let mut used = 0;
    eventually("a second connection", || {
        assert_eq!(gate.get("/").token(&token).send().status(), 200);
        used += 1;
        testkit::let_pass(Duration::from_millis(400));
        (upstream.connections() > 1).then_some(())
    });
    assert!(used <= 3, "{used} requests before the first connection was given up");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let upstream = RawUpstream::scripted(|exchange| {
        let target = exchange.request.target();
        exchange.ok(&target)
    });
    let issuer = Issuer::new();
    let gate = Gate::start(&Settings::plaintext().guarding(&upstream.url(), &issuer));
    let token = issuer.good();
    let mut wire = gate.connect();
    let requests: Vec<u8> = (0..20).flat_map(|n| gate.get(&format!("/{n}")).token(&token).bytes()).collect();
    wire.send(requests).unwrap();
    for n in 0..20 {
        assert_eq!(wire.answer().unwrap().text(), format!("/{n}"));
    }
}

#[test]
fn many_streams_of_one_connection_do_not_wait_for_each_other() {
    for out in EVERY_PROTOCOL {
        let scene = scene(out);
        block_on(async {
            let mut client = H2Client::connect(&scene.gate).await;
            let waiting = h2_client::request("GET", "/events", &scene.token, app::empty());
            let mut events = client.start(waiting).await.unwrap().into_body();
            let requests = (0..50).map(|n| {
                let mut client = client.clone();
                let request = h2_client::request("POST", "/echo", &scene.token, app::full(format!("{n:05}")));
                async move { client.exchange(request).await.unwrap().body }
            });
            let bodies = futures_util::future::join_all(requests).await;
            assert!(bodies.iter().enumerate().all(|(n, body)| body == &format!("{n:05}")), "{bodies:?}");
            scene.app.emit("still there");
            assert_eq!(read_until(&mut events, "there").await.trim(), "data: still there");
        });
    }
}

#[test]
fn a_client_that_goes_away_ends_its_request_at_the_upstream() {
    for out in EVERY_PROTOCOL {
        let scene = scene(out);
        let mut wire = scene.gate.connect();
        wire.send(scene.gate.get("/events").token(&scene.token).bytes()).unwrap();
        assert_eq!(wire.head().unwrap().status, 200);
        assert_eq!(scene.app.listeners(), 1);
        drop(wire);
        eventually(&format!("the stream ends at {out:?}"), || {
            scene.app.emit("anybody?");
            (scene.app.listeners() == 0).then_some(())
        });
    }
}

#[test]
fn nghttpd_is_a_fine_upstream() {
    use std::process::Command;

    use testkit::tools::{Running, run};

    let authority = Authority::new();
    let server = authority.server(&["localhost"]);
    let settings = Settings::tls();
    settings.file("upstream-ca.pem", authority.certificate_pem());
    let chain = settings.file("nghttpd.pem", &server.chain);
    let key = settings.file("nghttpd.key", &server.key);
    let document = settings.file("document.txt", "from nghttpd");
    let folder = document.parent().unwrap().to_str().unwrap().to_owned();
    // It cannot tell a port it was given by the system.
    let claimed = testkit::ports::ClaimedPort::new();
    let port = claimed.number();
    let _nghttpd = Running::start(
        Command::new("nghttpd")
            .args(["-a", "127.0.0.1", "-d", &folder, &port.to_string()])
            .args([key, chain]),
    );
    eventually("nghttpd listens", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    let issuer = Issuer::new();
    let settings = settings
        .upstream("api", &format!("https://localhost:{port}"), "ca = \"upstream-ca.pem\"")
        .issuer(&issuer)
        .route("/{*rest}", "");
    let gate = Gate::start(&settings);
    let answer = gate.get("/document.txt").token(&issuer.good()).send();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "from nghttpd"));
    assert!(run("nghttpd", &["--version"]).contains("nghttp2"));
    let bearer = format!("Authorization: Bearer {}", issuer.good());
    assert_eq!(gate.curl("/document.txt", &["--http2", "-H", &bearer]), "from nghttpd");
}
