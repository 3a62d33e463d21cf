//! HTTP/2 as real clients and real attackers use it: early responses, GOAWAY, resets, clients that do not read.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use testkit::app;
use testkit::frames::{self, END_HEADERS, END_STREAM, End, Frames, kind};
use testkit::gate::Gate;
use testkit::h2_client::{self, H2Client};
use testkit::raw_upstream::{Next, RawUpstream};
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use testkit::{block_on, eventually};

type Fields = Vec<(String, String)>;

fn fields(method: &str, path: &str, token: &str) -> Fields {
    [
        (":method", method),
        (":scheme", "https"),
        (":authority", "api.test"),
        (":path", path),
        ("authorization", &format!("Bearer {token}")),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().unwrap())
}

/// The code of the GOAWAY that ends the connection, once it has arrived.
fn goaway(client: &mut Frames) -> Option<u32> {
    while let Ok(frame) = client.read() {
        if frame.kind == kind::GOAWAY {
            return Some(number(&frame.payload[4..]));
        }
    }
    None
}

#[test]
fn curl_gets_its_answer_though_nobody_wants_its_body() {
    let upstream = RawUpstream::scripted(|exchange| {
        // Before the body was read, as a limit of the upstream's own would have it.
        exchange.send("HTTP/1.1 413 Payload Too Large\r\nconnection: close\r\ncontent-length: 3\r\n\r\nbig");
        exchange.wait_for_close()
    });
    let issuer = Issuer::new();
    let nobody = testkit::ports::reserved();
    let settings = Settings::tls()
        .limits("body_bytes = \"12MiB\"")
        .guarding(&upstream.url(), &issuer)
        .upstream("gone", &format!("http://{nobody}"), "")
        .route("/gone", "upstream = \"gone\"");
    let gate = Gate::start(&settings);
    settings.file("small", "hello");
    settings.file("large", vec![b'x'; 1024 * 1024]);
    settings.file("larger", vec![b'x'; 8 * 1024 * 1024]);
    settings.file("too-large", vec![b'x'; 13 * 1024 * 1024]);
    let bearer = format!("Authorization: Bearer {}", issuer.good());
    let mut wrong = String::new();
    for (path, field, file, status) in [
        ("/refused", "X: y", "small", "401"),
        ("/refused", "X: y", "large", "401"),
        ("/refused", "X: y", "larger", "401"),
        ("/gone", &*bearer, "small", "502"),
        ("/gone", &*bearer, "larger", "502"),
        ("/early", &*bearer, "small", "413"),
        ("/early", &*bearer, "large", "413"),
        ("/limit", &*bearer, "too-large", "413"),
        ("/a//b", &*bearer, "small", "400"),
    ] {
        let data = format!("@{}", settings.folder().join(file).display());
        for way in [&["--data-binary", &data][..], &["-H", "Expect:", "-T", &data[1..]]] {
            for _ in 0..4 {
                let options =
                    ["--http2", "-H", field, "-o", "/dev/null", "-w", "%{http_code} %{http_version}"];
                let said = catch_unwind(AssertUnwindSafe(|| gate.curl(path, &[&options, way].concat())));
                match said {
                    Ok(said) if said == format!("{status} 2") => {}
                    other => wrong += &format!("{path} {file} {way:?}: {other:?}\n"),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_request_that_crosses_the_farewell_of_an_idle_connection_is_served() {
    let upstream = RawUpstream::scripted(|exchange| {
        // Longer than the farewell of a connection that nobody uses.
        testkit::let_pass(Duration::from_millis(1500));
        exchange.ok("late")
    });
    let issuer = Issuer::new();
    let settings =
        Settings::tls().limits("idle_connection_timeout = \"200ms\"").guarding(&upstream.url(), &issuer);
    let gate = Gate::start(&settings);
    let mut client = Frames::connect(&gate);
    let until = |client: &mut Frames, wanted: u8| loop {
        let frame = client.read().unwrap();
        if frame.kind == wanted {
            break frame;
        }
    };
    let first = until(&mut client, kind::GOAWAY);
    assert_eq!(number(&first.payload), 0x7fff_ffff, "the first says only that the end is near");
    client.send(frames::headers(1, 0, &fields("POST", "/late", &issuer.good())));
    let second = until(&mut client, kind::GOAWAY);
    assert_eq!(number(&second.payload), 1, "the second names the last stream that is served");
    client.send(frames::frame(kind::DATA, END_STREAM, 1, b"body"));
    assert_eq!(client.end_of(1), End::Status(200));
    let data = until(&mut client, kind::DATA);
    assert_eq!(data.payload, b"late");
    assert_eq!(upstream.last().body, b"body");
    // And then it ends.
    assert!((0..10).any(|_| client.read().is_err()));
}

#[test]
fn a_client_that_resets_what_it_asked_for_is_told_to_calm_down() {
    let upstream = RawUpstream::scripted(|exchange| exchange.wait_for_close());
    let issuer = Issuer::new();
    let gate = Gate::start(&Settings::tls().guarding(&upstream.url(), &issuer));
    let token = issuer.good();
    let mut client = Frames::connect(&gate);
    let mut end = None;
    for stream in (1..8600).step_by(2) {
        client.send(frames::headers(stream, END_STREAM, &fields("GET", "/", &token)));
        if stream % 8 == 1 {
            // Lets the gate start some requests before they are reset; and reads what arrives, as real clients do.
            client.set_patience(Duration::from_millis(1));
            end = goaway(&mut client);
        }
        if end.is_some() {
            break;
        }
        client.send(frames::frame(kind::RST_STREAM, 0, stream, &[0, 0, 0, 8]));
    }
    client.set_patience(testkit::PATIENCE);
    assert_eq!(end.or_else(|| goaway(&mut client)), Some(11), "ENHANCE_YOUR_CALM");
    // The client may continue to write for a while: resetting the connection at once could discard the GOAWAY.
    for _ in 0..16 {
        client.try_send(frames::frame(kind::PING, 0, 0, &[0; 8]).repeat(1000)).unwrap();
        testkit::let_pass(Duration::from_millis(5));
    }
    assert_eq!(client.read().unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof, "closed in order");
    let connections = upstream.connections();
    assert!(connections <= 250, "{connections} connections to the upstream");
    eventually("the upstream is left alone", || (upstream.open() == 0).then_some(()));
    // A browser that leaves a page resets what it has not got yet.
    let mut client = Frames::connect(&gate);
    for stream in (1..160).step_by(2) {
        client.send(frames::headers(stream, END_STREAM, &fields("GET", "/", &token)));
    }
    for stream in (1..160).step_by(2) {
        client.send(frames::frame(kind::RST_STREAM, 0, stream, &[0, 0, 0, 8]));
    }
    client.send(frames::headers(161, END_STREAM, &fields("GET", "/a//b", &token)));
    assert_eq!(client.end_of(161), End::Status(400));
}

#[test]
fn streams_of_a_client_that_does_not_read_are_dropped() {
    let upstream = RawUpstream::scripted(|exchange| {
        let mut next = exchange.send("HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n");
        for _ in 0..6000 {
            if next == Next::Keep {
                next = exchange.send([b'x'; 16 * 1024]);
            }
        }
        next
    });
    let issuer = Issuer::new();
    let settings =
        Settings::tls().limits("idle_connection_timeout = \"500ms\"").guarding(&upstream.url(), &issuer);
    let gate = Gate::start(&settings);
    let token = issuer.good();
    for window in [0_u32, 65_535] {
        let mut clients: Vec<Frames> = (0..3).map(|_| Frames::connect(&gate)).collect();
        let before = upstream.connections();
        for client in &mut clients {
            let window = [&[0, 4][..], &window.to_be_bytes()].concat();
            client.send(frames::frame(kind::SETTINGS, 0, 0, &window));
            for stream in (1..60).step_by(2) {
                client.send(frames::headers(stream, END_STREAM, &fields("GET", "/", &token)));
            }
        }
        eventually("all have reached the upstream", || (upstream.connections() == before + 90).then_some(()));
        eventually("the upstream is let go", || (upstream.open() == 0).then_some(()));
        for client in &mut clients {
            client.set_patience(testkit::PATIENCE);
            let mut resets = 0;
            while let Ok(frame) = client.read() {
                resets += usize::from(frame.kind == kind::RST_STREAM);
                if resets == 30 {
                    break;
                }
            }
            assert_eq!(resets, 30, "with a window of {window}");
        }
    }
}

#[test]
fn a_header_list_above_the_limit_is_refused_as_over_http_1_1() {
    let upstream = RawUpstream::start();
    let issuer = Issuer::new();
    let settings = Settings::tls().limits("header_bytes = \"8KiB\"").guarding(&upstream.url(), &issuer);
    let gate = Gate::start(&settings);
    let token = issuer.good();
    for size in [8 * 1024, 16 * 1024, 30 * 1024] {
        let (answer, decision) = gate.decision(|| {
            block_on(async {
                let mut client = H2Client::connect(&gate).await;
                let mut request = h2_client::request("GET", "/", &token, app::empty());
                request.headers_mut().insert("x-long", "x".repeat(size).parse().unwrap());
                client.exchange(request).await.unwrap()
            })
        });
        assert_eq!((answer.status(), &*decision), (431, "deny/overloaded"), "{size}");
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["error"], "headers_too_large");
        let id = answer.head.headers["x-request-id"].to_str().unwrap();
        assert_eq!(body["request_id"], id);
        assert_eq!(gate.record_of(id)["status"], 431);
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn the_crumbs_of_a_cookie_are_one_field() {
    let upstream = RawUpstream::start();
    let issuer = Issuer::new();
    let settings = Settings::tls().limits("headers = 20").guarding(&upstream.url(), &issuer);
    let gate = Gate::start(&settings);
    let mut crumbs = fields("GET", "/", &issuer.good());
    crumbs.extend((0..130).map(|n| ("cookie".to_owned(), format!("c{n}=v{n}"))));
    let mut client = Frames::connect(&gate);
    client.send(frames::headers(1, END_STREAM, &crumbs));
    assert_eq!(client.end_of(1), End::Status(200));
    let whole: Vec<String> = (0..130).map(|n| format!("c{n}=v{n}")).collect();
    assert_eq!(upstream.last().all("cookie"), [whole.join("; ")]);
    crumbs.extend((0..18).map(|n| (format!("x-{n}"), "1".to_owned())));
    let mut client = Frames::connect(&gate);
    client.send(frames::headers(1, END_STREAM, &crumbs));
    assert_eq!(client.end_of(1), End::Status(200), "19 fields and one cookie");
    crumbs.push(("x-last".to_owned(), "1".to_owned()));
    let mut client = Frames::connect(&gate);
    client.send(frames::headers(1, END_STREAM, &crumbs));
    assert_eq!(client.end_of(1), End::Status(431));
}

#[test]
fn a_pseudo_header_in_trailers_is_a_stream_error() {
    let upstream = RawUpstream::start();
    let issuer = Issuer::new();
    let gate = Gate::start(&Settings::tls().guarding(&upstream.url(), &issuer));
    let head = fields("POST", "/", &issuer.good());
    for (name, value) in
        [(":path", "/x"), (":method", "GET"), (":authority", "x"), (":scheme", "http"), (":status", "200")]
    {
        for at_once in [true, false] {
            let mut client = Frames::connect(&gate);
            let before = upstream.count();
            client.send(frames::headers(1, 0, &head));
            client.send(frames::frame(kind::DATA, 0, 1, b"body"));
            if !at_once {
                upstream.wait_for(before + 1);
            }
            client.send(frames::headers(1, END_STREAM, &[(name, value), ("x-checksum", "1")]));
            assert_eq!(client.end_of(1), End::Reset(1), "{name}: PROTOCOL_ERROR");
            assert!(upstream.seen()[before..].iter().all(|seen| seen.body.is_empty()), "{name}");
            // The connection continues.
            client.send(frames::frame(kind::HEADERS, END_STREAM | END_HEADERS, 3, &frames::block(&head)));
            assert_eq!(client.end_of(3), End::Status(200));
        }
    }
    let mut client = Frames::connect(&gate);
    client.send(frames::headers(1, 0, &head));
    client.send(frames::frame(kind::DATA, 0, 1, b"body"));
    client.send(frames::headers(1, END_STREAM, &[("x-checksum", "1")]));
    assert_eq!(client.end_of(1), End::Status(200));
    assert_eq!(upstream.last().trailers, "x-checksum: 1\r\n");
}

#[test]
fn a_field_that_every_answer_has_is_sent_once_whatever_the_request_ids_are() {
    let constant = "constant-".repeat(12);
    let head = format!(
        "HTTP/1.1 200 OK\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\nx-constant: {constant}\r\ncontent-length: 0\r\n\r\n"
    );
    let upstream = RawUpstream::scripted(move |exchange| exchange.send(&*head));
    let issuer = Issuer::new();
    let gate = Gate::start(&Settings::tls().guarding(&upstream.url(), &issuer));
    let request = fields("GET", "/", &issuer.good());
    let mut client = Frames::connect(&gate);
    let mut blocks = (0..200).map(|n| {
        let stream = 2 * n + 1;
        client.send(frames::headers(stream, END_STREAM, &request));
        loop {
            let frame = client.read().unwrap();
            if (frame.kind, frame.stream) == (kind::HEADERS, stream) {
                return frame.payload.len();
            }
        }
    });
    // The client's HPACK table has room for some fifty request ids. None of them is put into it.
    let first = blocks.next().unwrap();
    assert!(first > constant.len() / 2, "{first} bytes with the field");
    let most = blocks.max().unwrap();
    assert!(most < constant.len() / 2, "{most} bytes without it");
}
