//! Shutdown: first not ready, then no new connections, then everything in flight finishes, then exit code 0.

use std::time::{Duration, Instant};

use testkit::app::{App, Speaks};
use testkit::frames::{self, END_STREAM, Frames, kind};
use testkit::gate::Gate;
use testkit::raw_upstream::RawUpstream;
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use testkit::wire::Wire;
use testkit::{eventually, within};

/// An upstream that responds when told to.
fn patient() -> (RawUpstream, std::sync::Arc<std::sync::atomic::AtomicBool>) {
    let go = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let signal = go.clone();
    let upstream = RawUpstream::scripted(move |exchange| {
        within(testkit::PATIENCE, "the test lets the upstream answer", || {
            signal.load(std::sync::atomic::Ordering::SeqCst).then_some(())
        });
        exchange.ok("at last")
    });
    (upstream, go)
}

/// Holds docs/operations.md, Failure modes: SIGTERM, SIGINT
#[test]
fn requests_in_flight_are_finished() {
    for signal in ["TERM", "INT"] {
        let ((upstream, go), issuer) = (patient(), Issuer::new());
        let settings =
            Settings::plaintext().server("drain_timeout = \"15s\"").guarding(&upstream.url(), &issuer);
        let mut gate = Gate::start(&settings);
        let mut wire = gate.connect();
        wire.send(gate.get("/slow").token(&issuer.good()).bytes()).unwrap();
        upstream.wait_for(1);
        gate.signal(signal);
        eventually("no new connections", || std::net::TcpStream::connect(gate.public).err());
        assert!(gate.is_alive(), "{signal}: waits for the request");
        go.store(true, std::sync::atomic::Ordering::SeqCst);
        let answer = wire.answer().unwrap();
        assert_eq!((answer.status(), answer.text().as_str()), (200, "at last"), "{signal}");
        assert_eq!(answer.field("connection"), Some("close"), "{signal}");
        assert!(wire.is_closed(), "{signal}");
        assert_eq!(gate.wait_for_exit(testkit::PATIENCE).code(), Some(0), "{signal}");
    }
}

/// Holds docs/operations.md, Failure modes: SIGTERM, SIGINT
/// Holds docs/configuration.md, Settings: server.shutdown_delay
#[test]
fn readiness_goes_first_and_traffic_is_served_during_the_delay() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    // Longer than the test takes on any machine; a second signal ends it.
    let delayed = |delay: &str| {
        let server = format!("shutdown_delay = \"{delay}\"");
        Settings::plaintext().server(&server).guarding(&upstream.url(), &issuer)
    };
    let mut gate = Gate::start(&delayed("10m"));
    gate.signal("TERM");
    eventually("not ready", || (gate.readiness().0 == 503).then_some(()));
    assert_eq!(gate.readiness().1["ready"], false);
    assert_eq!(gate.telemetry("/live").status(), 200, "alive, though not ready");
    assert_eq!(gate.get("/").token(&issuer.good()).send().status(), 200, "new connections are still served");
    gate.stop();

    let mut gate = Gate::start(&delayed("1s"));
    let began = Instant::now();
    gate.signal("TERM");
    eventually("no new connections", || std::net::TcpStream::connect(gate.public).err());
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    assert_eq!(gate.wait_for_exit(testkit::PATIENCE).code(), Some(0));
}

#[test]
fn idle_connections_do_not_hold_up_the_end() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    // If they held it up, it would be for longer than a test waits.
    let settings = Settings::tls()
        .server("drain_timeout = \"10m\"")
        .limits("handshake_timeout = \"1s\"")
        .guarding(&upstream.url(), &issuer);
    let mut gate = Gate::start(&settings);
    let mut used = gate.connect();
    assert_eq!(used.exchange(gate.get("/").token(&issuer.good()).bytes()).unwrap().status(), 200);
    let unused = gate.connect();
    let h2 = testkit::h2_client::idle(&gate);
    let mut silent = Wire::plain(gate.public);
    gate.signal("TERM");
    assert!(used.is_closed());
    assert_eq!(gate.wait_for_exit(testkit::PATIENCE).code(), Some(0));
    assert!(silent.is_closed());
    h2.join().expect("the HTTP/2 connection was ended in order");
    drop(unused);
}

#[test]
fn http_2_connections_are_told_to_go_and_their_streams_are_finished() {
    let ((upstream, go), issuer) = (patient(), Issuer::new());
    let mut gate = Gate::start(&Settings::tls().guarding(&upstream.url(), &issuer));
    let bearer = format!("Bearer {}", issuer.good());
    let fields = [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/slow"),
        (":authority", "api.test"),
        ("authorization", &bearer),
    ];
    let mut connection = Frames::connect(&gate);
    connection.send(frames::headers(1, END_STREAM, &fields));
    upstream.wait_for(1);
    gate.signal("TERM");
    let goodbye = loop {
        let frame = connection.read().unwrap();
        if frame.kind == kind::GOAWAY {
            break frame;
        }
    };
    assert_eq!(goodbye.payload[4..8], [0, 0, 0, 0], "NO_ERROR");
    go.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(connection.end_of(1), frames::End::Status(200));
    assert_eq!(gate.wait_for_exit(testkit::PATIENCE).code(), Some(0));
}

/// Holds docs/configuration.md, Settings: server.drain_timeout
#[test]
fn what_does_not_end_by_itself_is_cut_at_the_limit() {
    let upstream = RawUpstream::scripted(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbegun\r\n");
        exchange.wait_for_close()
    });
    let issuer = Issuer::new();
    let settings = Settings::plaintext().server("drain_timeout = \"1s\"").guarding(&upstream.url(), &issuer);
    let mut gate = Gate::start(&settings);
    let mut wire = gate.connect();
    wire.send(gate.get("/long").token(&issuer.good()).bytes()).unwrap();
    assert_eq!(wire.head().unwrap().status, 200);
    assert_eq!(wire.chunk().unwrap().unwrap(), b"begun");
    let began = Instant::now();
    gate.signal("TERM");
    let status = gate.wait_for_exit(testkit::PATIENCE);
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    assert_eq!(status.code(), Some(0), "it ended as it was told to");
    assert!(wire.chunk().is_err(), "cut, and visibly so");
}

/// Holds docs/operations.md, Failure modes: SIGTERM, SIGINT
/// Holds docs/configuration.md, Settings: server.stream_drain_timeout
#[test]
fn streams_of_events_end_early_and_visibly() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    for stream_drain_timeout in ["0s", "1s", "10m"] {
        let server = format!("drain_timeout = \"10m\"\nstream_drain_timeout = \"{stream_drain_timeout}\"");
        let mut gate = Gate::start(&Settings::plaintext().server(&server).guarding(&app.url(), &issuer));
        let mut wire = gate.connect();
        wire.send(gate.get("/events").token(&issuer.good()).bytes()).unwrap();
        assert_eq!(wire.head().unwrap().status, 200);
        gate.signal("TERM");
        if stream_drain_timeout == "10m" {
            // Until then, connections are accepted, and the stream continues.
            eventually("not ready", || (gate.readiness().0 == 503).then_some(()));
            assert_eq!(gate.get("/hello").token(&issuer.good()).send().status(), 200);
            eventually("the stream is open", || (app.emit("still here") == 1).then_some(()));
            assert!(String::from_utf8_lossy(&wire.chunk().unwrap().unwrap()).contains("still here"));
            app.end_events();
            while wire.chunk().unwrap().is_some() {}
        } else {
            assert!(wire.chunk().is_err(), "cut, and visibly so");
        }
        assert_eq!(gate.wait_for_exit(testkit::PATIENCE).code(), Some(0), "{stream_drain_timeout}");
    }
}

#[test]
fn a_signal_before_the_keys_are_there_ends_the_gate() {
    use testkit::issuer::{Answer, KeyServer, Source};

    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let server = KeyServer::start(issuer.jwks());
    server.set(Answer::Silence);
    let settings = Settings::plaintext()
        .upstream("api", &upstream.url(), "")
        .issuer_from(&issuer, &Source::Url(server.jwks_url()), "")
        .route("/{*rest}", "");
    let mut gate = Gate::launch(&settings);
    gate.signal("TERM");
    assert_eq!(gate.wait_for_exit(testkit::PATIENCE).code(), Some(0));
}
