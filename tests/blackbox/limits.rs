//! Every limit and timeout for clients, each reached once.

use std::time::{Duration, Instant};

use testkit::app::{self, App, Speaks};
use testkit::frames::{self, END_STREAM, End, Frames};
use testkit::gate::Gate;
use testkit::h2_client::{self, H2Client};
use testkit::raw_upstream::RawUpstream;
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use testkit::wire::Wire;
use testkit::{block_on, eventually};

fn gate_with(limits: &str, upstream: &RawUpstream) -> (Gate, String) {
    let issuer = Issuer::new();
    let settings = Settings::plaintext().limits(limits).guarding(&upstream.url(), &issuer);
    (Gate::start(&settings), issuer.good())
}

/// Holds docs/configuration.md, Settings: server.limits.*
/// Holds docs/reasons.md, Other answers: 413
#[test]
fn a_body_above_the_limit_is_413() {
    for (name, upstream) in [("h1", App::start(Speaks::Http1)), ("h2c", App::start(Speaks::H2c))] {
        let issuer = Issuer::new();
        let settings = Settings::tls().limits("body_bytes = \"1KiB\"").guarding(&upstream.url(), &issuer);
        let gate = Gate::start(&settings);
        let token = issuer.good();

        let within = gate.request("POST", "/echo").token(&token).body([b'x'; 1024]).send();
        assert_eq!((within.status(), within.body.len()), (200, 1024), "{name}: the limit itself is allowed");

        let announced = gate.request("POST", "/hello/announced").token(&token).body([b'x'; 1025]).send();
        assert_eq!(
            (announced.status(), announced.json()["error"].as_str()),
            (413, Some("request_too_large")),
            "{name}"
        );

        let request = format!(
            "POST /hello/chunked HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {token}\r\n\
             Transfer-Encoding: chunked\r\n\r\n400\r\n{}\r\n1\r\nx\r\n0\r\n\r\n",
            "x".repeat(1024)
        );
        let chunked = gate.connect().exchange(request).unwrap();
        assert_eq!(
            (chunked.status(), chunked.json()["error"].as_str()),
            (413, Some("request_too_large")),
            "{name}"
        );

        block_on(async {
            let mut client = H2Client::connect(&gate).await;
            let request = h2_client::request("POST", "/hello/h2", &token, app::full(vec![b'x'; 1025]));
            assert_eq!(client.exchange(request).await.unwrap().status(), 413, "{name}");
            let halves = || hyper::body::Frame::data(bytes::Bytes::from(vec![b'x'; 700]));
            let request =
                h2_client::request("POST", "/hello/h2", &token, app::frames(vec![halves(), halves()]));
            assert_eq!(client.exchange(request).await.unwrap().status(), 413, "{name}");
        });
        for arrived in upstream.arrived() {
            assert!(
                !arrived.complete || arrived.body <= 1024,
                "{name}: a cut body never looks complete: {arrived:?}"
            );
        }
    }
}

/// Holds docs/configuration.md, Settings: server.limits.*
/// Holds docs/reasons.md, Other answers: 431
#[test]
fn a_head_above_the_limit_is_431() {
    let upstream = RawUpstream::start();
    let (gate, token) = gate_with("header_bytes = \"8KiB\"\nheaders = 20", &upstream);
    let request = || gate.get("/").token(&token);
    assert_eq!(request().field("X", &"x".repeat(6000)).send().status(), 200);
    let many = |n: usize| (0..n).fold(request(), |request, n| request.field(&format!("X-{n}"), "1"));
    // Host and Authorization count as well.
    assert_eq!(many(18).send().status(), 200, "the limit itself is allowed");
    let rows = [
        ("a long value", request().field("X", &"x".repeat(9000))),
        ("a long name", request().field(&"x".repeat(9000), "1")),
        (
            "many bytes in all",
            (0..10).fold(request(), |request, n| request.field(&format!("X-{n}"), &"x".repeat(1000))),
        ),
        ("one field too many", many(19)),
        ("far too many fields", many(500)),
    ];
    for (name, request) in rows {
        let answer = request.send();
        assert_eq!(answer.status(), 431, "{name}");
        assert_eq!(answer.json()["error"], "headers_too_large", "{name}");
    }
    assert_eq!(upstream.count(), 2);
}

#[test]
fn a_head_above_the_limit_is_431_over_http_2_too() {
    let upstream = RawUpstream::start();
    let issuer = Issuer::new();
    let settings =
        Settings::tls().limits("header_bytes = \"8KiB\"\nheaders = 20").guarding(&upstream.url(), &issuer);
    let gate = Gate::start(&settings);
    let bearer = format!("Bearer {}", issuer.good());
    let start = [(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "api.test")];
    for (name, extra) in [
        ("a long value", vec![("x".to_owned(), "x".repeat(9000))]),
        ("too many fields", (0..40).map(|n| (format!("x-{n}"), "1".to_owned())).collect()),
    ] {
        let mut fields: Vec<(String, String)> =
            start.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        fields.push(("authorization".to_owned(), bearer.clone()));
        fields.extend(extra);
        let mut connection = Frames::connect(&gate);
        connection.send(frames::headers(1, END_STREAM, &fields));
        // RFC 9113 §10.5.1: 431, or the stream or connection is ended when the peer ignores the announced limit.
        let end = connection.end_of(1);
        assert!(matches!(end, End::Status(431) | End::Reset(_) | End::GoAway(_)), "{name}: {end:?}");
    }
    assert_eq!(upstream.count(), 0);
}

/// Holds docs/configuration.md, Settings: server.limits.*
#[test]
fn a_head_must_be_complete_in_time() {
    let upstream = RawUpstream::start();
    let (gate, token) = gate_with("header_timeout = \"400ms\"", &upstream);
    let whole = gate.get("/").token(&token).bytes();

    let mut slow = gate.connect();
    slow.send(&whole[..20]).unwrap();
    let rest = String::from_utf8_lossy(&slow.rest().unwrap()).into_owned();
    assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 408"), "{rest}");

    // Dripping does not extend it.
    let mut dripping = gate.connect();
    for byte in whole.chunks(1) {
        if dripping.send(byte).is_err() {
            break;
        }
        testkit::let_pass(Duration::from_millis(20));
    }
    let rest = dripping.rest().map(|rest| String::from_utf8_lossy(&rest).into_owned()).unwrap_or_default();
    assert!(!rest.contains(" 200 "), "{rest}");
    assert_eq!(upstream.count(), 0);
}

#[test]
fn the_next_head_must_come_in_time_as_well() {
    let upstream = RawUpstream::start();
    let (gate, token) = gate_with("header_timeout = \"400ms\"", &upstream);
    let whole = gate.get("/").token(&token).bytes();
    let mut wire = gate.connect();
    assert_eq!(wire.exchange(&whole).unwrap().status(), 200);
    wire.send(&whole[..20]).unwrap();
    let rest = String::from_utf8_lossy(&wire.rest().unwrap()).into_owned();
    assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 408"), "{rest}");
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_gate_without_descriptors_recovers() {
    let upstream = RawUpstream::start();
    let issuer = Issuer::new();
    let settings = Settings::plaintext().guarding(&upstream.url(), &issuer);
    let mut gate = Gate::launch_under(&["prlimit", "--nofile=64"], &settings);
    gate.wait_until_ready();
    let request = gate.get("/").token(&issuer.good()).bytes();
    let crowd: Vec<Wire> = (0..150).map(|_| gate.connect()).collect();
    drop(crowd);
    eventually("it serves again", || {
        let mut wire = gate.connect();
        wire.set_patience(Duration::from_secs(2));
        wire.exchange(&request).ok().filter(|answer| answer.status() == 200)
    });
    assert!(gate.is_alive());
}

/// Holds docs/configuration.md, Settings: server.limits.*
#[test]
fn an_idle_connection_is_closed() {
    let upstream = RawUpstream::start();
    let (gate, token) = gate_with("idle_connection_timeout = \"400ms\"", &upstream);
    let mut wire = gate.connect();
    assert_eq!(wire.exchange(gate.get("/").token(&token).bytes()).unwrap().status(), 200);
    let began = Instant::now();
    assert!(wire.is_closed());
    assert!(began.elapsed() >= Duration::from_millis(300));
}

#[test]
fn an_idle_http_2_connection_is_closed() {
    let upstream = RawUpstream::start();
    let issuer = Issuer::new();
    let settings =
        Settings::tls().limits("idle_connection_timeout = \"400ms\"").guarding(&upstream.url(), &issuer);
    let gate = Gate::start(&settings);
    let mut connection = Frames::connect(&gate);
    let began = Instant::now();
    // Without a stream there is no answer to wait for: only the end of the connection.
    let end = connection.end_of(1);
    assert!(matches!(end, End::Closed | End::GoAway(_)), "{end:?}");
    assert!(began.elapsed() >= Duration::from_millis(300));
}

/// Holds docs/configuration.md, Settings: server.limits.*
#[test]
fn a_connection_that_never_says_anything_is_closed() {
    let upstream = RawUpstream::start();
    let limits =
        "handshake_timeout = \"400ms\"\nheader_timeout = \"400ms\"\nidle_connection_timeout = \"400ms\"";
    let (gate, _) = gate_with(limits, &upstream);
    assert!(gate.connect().is_closed());

    let issuer = Issuer::new();
    let gate = Gate::start(&Settings::tls().limits(limits).guarding(&upstream.url(), &issuer));
    assert!(Wire::plain(gate.public).is_closed(), "no handshake");
    let mut silent = Frames::silent(&gate);
    assert!(matches!(silent.end_of(1), End::Closed | End::GoAway(_)), "no HTTP/2 preface");
    gate.wait_for_metric("the failed handshake is counted", |scrape| {
        (scrape.sum("portcullis_tls_handshakes_total", &[("result", "error")]) >= 1.0).then_some(())
    });
}

/// Holds docs/operations.md, Failure modes: too many connections
/// Holds docs/configuration.md, Settings: server.limits.*
#[test]
fn connections_above_the_limit_are_not_served() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let limits = ["connections = 3", "connections_per_ip = 3"];
    for (limit, base) in
        limits.into_iter().flat_map(|it| [(it, Settings::plaintext()), (it, Settings::tls())])
    {
        let settings = base.limits(limit).guarding(&upstream.url(), &issuer);
        let gate = Gate::start(&settings);
        let request = gate.get("/").token(&issuer.good()).bytes();
        let mut open: Vec<Wire> = (0..3).map(|_| gate.connect()).collect();
        for wire in &mut open {
            assert_eq!(wire.exchange(&request).unwrap().status(), 200, "{limit}");
        }
        let connect = || match settings.has_tls() {
            true => {
                Wire::tls(gate.public, "localhost", settings.authority().client_config(&["http/1.1"], None))
            }
            false => Wire::try_plain(gate.public),
        };
        if settings.has_tls() {
            assert!(connect().is_err(), "{limit}: closed without an answer");
        } else {
            // Nothing is sent, so that no reset overtakes the answer.
            let mut fourth = connect().unwrap();
            let refused = fourth.answer().unwrap();
            assert_eq!((refused.status(), refused.field("retry-after")), (503, Some("1")), "{limit}");
            assert_eq!(refused.json()["error"], "temporarily_unavailable", "{limit}");
            assert!(fourth.is_closed(), "{limit}");
        }
        gate.wait_for_metric("the refusal is counted", |metrics| {
            (metrics.decisions().get("unavailable/overloaded") == Some(&1.0)).then_some(())
        });
        for wire in &mut open {
            assert_eq!(wire.exchange(&request).unwrap().status(), 200, "{limit}: not disturbed");
        }
        open.pop();
        eventually("there is room again", || {
            let mut wire = connect().ok()?;
            wire.exchange(&request).ok().filter(|answer| answer.status() == 200)
        });
    }
}

#[test]
fn the_gauge_of_connections_goes_up_and_down() {
    let upstream = RawUpstream::start();
    let (gate, token) = gate_with("", &upstream);
    let open = |count: f64| {
        gate.wait_for_metric(&format!("{count} connections"), |scrape| {
            let now = scrape.sum("portcullis_connections", &[("listener", "public")]);
            ((now - count).abs() < 0.5).then_some(())
        });
    };
    let mut wires: Vec<Wire> = (0..5).map(|_| gate.connect()).collect();
    for wire in &mut wires {
        assert_eq!(wire.exchange(gate.get("/").token(&token).bytes()).unwrap().status(), 200);
    }
    open(5.0);
    drop(wires);
    open(0.0);
}

/// Holds docs/configuration.md, Settings: server.limits.*
#[test]
fn the_number_of_streams_is_announced_and_held() {
    let app = App::start(Speaks::Http1);
    let issuer = Issuer::new();
    let gate = Gate::start(&Settings::tls().limits("http2_streams = 4").guarding(&app.url(), &issuer));
    let bearer = format!("Bearer {}", issuer.good());
    let fields = [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/events"),
        (":authority", "api.test"),
        ("authorization", bearer.as_str()),
    ];
    let mut connection = Frames::connect(&gate);
    let settings = connection.read().unwrap();
    assert_eq!(settings.kind, frames::kind::SETTINGS);
    let announced =
        settings.payload.chunks(6).find(|setting| setting[..2] == [0, 3]).expect("MAX_CONCURRENT_STREAMS");
    assert_eq!(announced[2..], [0, 0, 0, 4]);
    for stream in [1, 3, 5, 7] {
        connection.send(frames::headers(stream, END_STREAM, &fields));
    }
    let mut answered = 0;
    while answered < 4 {
        answered += usize::from(connection.read().unwrap().kind == frames::kind::HEADERS);
    }
    connection.send(frames::headers(9, END_STREAM, &fields));
    assert!(
        matches!(connection.end_of(9), End::Reset(7) | End::Reset(1) | End::GoAway(_)),
        "the fifth is refused"
    );
}

#[test]
fn memory_and_descriptors_return_after_a_crowd() {
    let upstream = RawUpstream::start();
    let (gate, token) = gate_with("", &upstream);
    assert_eq!(gate.get("/").token(&token).send().status(), 200);
    let before = gate.descriptors();
    let request = gate.get("/").token(&token).bytes();
    for _ in 0..5 {
        let mut crowd: Vec<Wire> = (0..100).map(|_| gate.connect()).collect();
        for wire in &mut crowd {
            wire.send(&request).unwrap();
        }
        for wire in &mut crowd {
            assert_eq!(wire.answer().unwrap().status(), 200);
        }
    }
    // Connections to the upstream stay in the pool; those to clients are gone.
    eventually("descriptors are given back", || (gate.descriptors() <= before + 110).then_some(()));
    upstream.hang_up();
    eventually("and those of the upstream", || (gate.descriptors() <= before + 5).then_some(()));
}

/// A value of `/proc/PID/limits`.
fn soft_limit(gate: &Gate) -> usize {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", gate.id())).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Holds docs/operations.md, Failure modes: few file descriptors
#[test]
fn a_small_limit_on_open_files_leaves_room_for_requests_and_operators() {
    let upstream = RawUpstream::scripted(|exchange| match exchange.request.target().as_str() {
        "/held" => exchange.wait_for_close(),
        _ => exchange.ok("served"),
    });
    let issuer = Issuer::new();
    let settings = Settings::plaintext().guarding(&upstream.url(), &issuer).admin();
    let gate = Gate::launch_under(&["prlimit", "--nofile=64:300"], &settings);
    gate.wait_until_ready();
    assert_eq!(soft_limit(&gate), 300, "the soft limit is raised to the hard one");
    let warning = gate.log().wait_for("the warning", |record| record["configured"] == 10_000);
    let places = usize::try_from(warning["possible"].as_u64().unwrap()).unwrap();
    assert!((50..150).contains(&places), "{warning}");
    let mut clients: Vec<Wire> = (0..places + 50).map(|_| Wire::plain(gate.public)).collect();
    gate.wait_for_metric("all places are taken", |metrics| {
        let open = metrics.sum("portcullis_connections", &[("listener", "public")]);
        (open == f64::from(u32::try_from(places).unwrap())).then_some(())
    });
    for _ in 0..20 {
        assert_eq!(gate.telemetry("/live").status(), 200);
        assert_eq!(gate.operate("GET", "/v1/config", None).status(), 200);
    }
    // All of those who are in can be served at a time.
    let token = issuer.good();
    for client in clients.iter_mut().take(places) {
        client.send(gate.get("/held").token(&token).bytes()).unwrap();
    }
    upstream.wait_for(places);
    assert_eq!(gate.telemetry("/live").status(), 200);
    drop(clients);
    eventually("new clients are served", || {
        let mut wire = Wire::try_plain(gate.public).ok()?;
        let answer = wire.exchange(gate.get("/").token(&token).bytes()).ok()?;
        (answer.status() == 200).then_some(())
    });
}

/// Holds docs/operations.md, Failure modes: few file descriptors
#[test]
fn operators_are_served_when_upstreams_have_taken_all_the_descriptors_they_may() {
    let upstream = RawUpstream::scripted(|exchange| exchange.wait_for_close());
    let issuer = Issuer::new();
    let settings = Settings::tls()
        .upstream("api", &upstream.url(), "response_timeout = \"10m\"")
        .issuer(&issuer)
        .route("/{*rest}", "")
        .admin();
    let gate = Gate::launch_under(&["prlimit", "--nofile=200:200"], &settings);
    gate.wait_until_ready();
    let bearer = format!("Bearer {}", issuer.good());
    let fields = [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/"),
        (":authority", "api.test"),
        ("authorization", &bearer),
    ];
    // Their requests take what there is; as soon as one fails at once, nothing is left for another.
    let (mut first, mut second) = (Frames::connect(&gate), Frames::connect(&gate));
    for stream in (1..200).step_by(2) {
        first.send(frames::headers(stream, END_STREAM, &fields));
        second.send(frames::headers(stream, END_STREAM, &fields));
    }
    let mut streams = (201..).step_by(2);
    second.set_patience(Duration::from_millis(300));
    let mut exhaust = || {
        eventually("descriptors have run out", || {
            let stream = streams.next().unwrap();
            second.send(frames::headers(stream, END_STREAM, &fields));
            while let Ok(frame) = second.read() {
                if frame.kind == frames::kind::HEADERS && frame.stream == stream {
                    return Some(());
                }
            }
            None
        });
    };
    for _ in 0..10 {
        exhaust();
        assert_eq!(gate.telemetry("/live").status(), 200);
        exhaust();
        assert_eq!(gate.operate("GET", "/v1/config", None).status(), 200);
    }
    // Files can be read and written, too; what is kept for that, no client gets.
    assert_eq!(gate.operate("POST", "/v1/reload", None).status(), 200);
    let open = gate.metrics().sum("process_open_fds", &[]);
    assert!((50.0..120.0).contains(&open), "{open} of 200");
    let failed = gate.metrics().sum("portcullis_upstream_errors_total", &[("kind", "connect")]);
    assert!(failed >= 20.0, "{failed}");
}
