//! OpenTelemetry traces as a collector receives them: which requests, what their spans contain, and what
//! happens if the collector is unavailable.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::json;
use testkit::app::{self, App, Speaks};
use testkit::collector::{Collector, Span, Takes};
use testkit::gate::{Gate, field, message};
use testkit::h2_client::{self, H2Client};
use testkit::pki::Authority;
use testkit::raw_upstream::{Next, RawUpstream};
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use testkit::{block_on, documents, eventually};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// The header field of a client whose trace has these flags.
fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{PARENT}-{flags}")
}

/// Traces that go to `collector`.
fn traces(collector: &Collector, ratio: &str) -> String {
    format!("otlp_endpoint = \"{}\"\ntrace_sample_ratio = {ratio}", collector.url())
}

/// A gate that traces every request, in front of an upstream that records what it receives.
fn traced(settings: Settings) -> (Gate, RawUpstream, Issuer, Collector) {
    let (upstream, issuer, collector) = (RawUpstream::start(), Issuer::new(), Collector::start());
    let settings = settings.telemetry(&traces(&collector, "1.0")).guarding(&upstream.url(), &issuer);
    (Gate::start(&settings), upstream, issuer, collector)
}

fn spans(gate: &Gate, result: &str) -> f64 {
    gate.metrics().sum("portcullis_spans_total", &[("result", result)])
}

fn at(path: &'static str) -> impl Fn(&Span) -> bool {
    move |span| span.text("url.path") == path
}

/// Holds docs/configuration.md, Settings: telemetry.otlp_endpoint
#[test]
fn a_request_becomes_a_span_of_the_gate_and_one_of_its_call_to_the_upstream() {
    let settings = Settings::plaintext().server("trusted_proxies = [\"127.0.0.1\"]");
    let (gate, upstream, issuer, collector) = traced(settings);
    let answer = gate
        .get("/deals/7?access_key=secret")
        .token(&issuer.good())
        .field("Traceparent", &traceparent("01"))
        .field("Tracestate", "vendor=value")
        .field("User-Agent", "tests/1")
        .send();
    assert_eq!(answer.status(), 200);
    let (server, client) = collector.wait_for_call("both spans", |span| span.trace_id == TRACE);

    assert_eq!((server.name.as_str(), server.parent.as_str()), ("GET /{*rest}", PARENT));
    assert!(!server.is_error && server.start < server.end && server.flags == 0x301);
    for (name, value) in [
        ("http.request.method", "GET"),
        ("http.route", "/{*rest}"),
        ("http.response.status_code", "200"),
        ("url.scheme", "http"),
        ("url.path", ""),
        ("server.address", "api.test"),
        ("server.port", ""),
        ("client.address", "127.0.0.1"),
        ("network.protocol.version", "1.1"),
        ("user_agent.original", "tests/1"),
        ("error.type", ""),
        ("portcullis.decision", "allow"),
        ("portcullis.reason", ""),
        ("portcullis.request_id", answer.field("x-request-id").unwrap()),
    ] {
        assert_eq!(server.text(name), value, "{name} of {server:#?}");
    }
    assert_eq!(server.scope, ("portcullis".to_owned(), env!("CARGO_PKG_VERSION").to_owned()));
    assert_eq!(server.resource["service.name"], "portcullis");
    assert_eq!(server.resource["service.version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(server.resource["service.instance.id"].len(), 36);

    assert_eq!((client.name.as_str(), client.trace_id.as_str(), client.is_error), ("GET", TRACE, false));
    assert!(server.start <= client.start && client.end <= server.end && client.flags == 0x101);
    let port = upstream.address.port().to_string();
    for (name, value) in [
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("server.address", "127.0.0.1"),
        ("server.port", port.as_str()),
        ("url.scheme", "http"),
        ("portcullis.upstream", "api"),
        ("http.request.resend_count", ""),
    ] {
        assert_eq!(client.text(name), value, "{name} of {client:#?}");
    }

    let seen = upstream.last();
    assert_eq!(seen.field("traceparent").unwrap(), format!("00-{TRACE}-{}-01", client.span_id));
    assert_eq!(seen.field("tracestate").as_deref(), Some("vendor=value"));
    let line = gate.record_of(answer.field("x-request-id").unwrap());
    assert_eq!(field(&line, "trace_id"), Some(TRACE));
}

#[test]
fn a_trace_starts_at_the_gate_over_http2_too() {
    let (app, issuer, collector) = (App::start(Speaks::H2c), Issuer::new(), Collector::start());
    let telemetry = format!("{}\nlog_paths = true", traces(&collector, "1"));
    let gate = Gate::start(&Settings::tls().telemetry(&telemetry).guarding(&app.url(), &issuer));
    block_on(async {
        let mut client = H2Client::connect(&gate).await;
        let mut request = h2_client::request("POST", "/echo?secret=1", &issuer.good(), app::full("abc"));
        request.headers_mut().insert("tracestate", "vendor=value".parse().unwrap());
        assert_eq!(client.exchange(request).await.unwrap().status(), 200);
    });
    let (server, client) = collector.wait_for_call("both spans", at("/echo"));
    assert_eq!((server.parent.as_str(), server.trace_id.len(), server.flags), ("", 32, 0x101));
    assert_eq!((server.text("network.protocol.version"), server.text("url.scheme")), ("2", "https"));
    assert_eq!(server.text("server.address"), "api.test");
    let arrived = app.last();
    assert_eq!(
        arrived.field("traceparent").unwrap(),
        format!("00-{}-{}-01", server.trace_id, client.span_id)
    );
    assert_eq!(arrived.field("tracestate"), None, "a state without a trace means nothing");
}

/// Runs docs/tracing.md: trace_sample_ratio = 0.01
#[test]
fn the_settings_of_the_manual_trace_a_share_of_the_requests() {
    let (upstream, issuer, collector) = (RawUpstream::start(), Issuer::new(), Collector::start());
    let block = documents::block("docs/tracing.md", "trace_sample_ratio = 0.01");
    let lines = block.trim().strip_prefix("[telemetry]").unwrap();
    let lines = lines.replace("http://127.0.0.1:4318", &collector.url()).replace("0.01", "0.5");
    let settings = Settings::plaintext().telemetry(&lines).guarding(&upstream.url(), &issuer);
    let mut gate = Gate::start(&settings);
    let (token, mut wire) = (issuer.good(), gate.connect());
    for _ in 0..200 {
        assert_eq!(wire.exchange(gate.get("/").token(&token).bytes()).unwrap().status(), 200);
    }
    gate.signal("TERM");
    gate.wait_for_exit(testkit::PATIENCE);
    // Outside of this once in a thousand million runs.
    let traced = collector.spans().len() / 2;
    assert!((55..145).contains(&traced), "{traced} of 200");
}

/// Holds docs/configuration.md, Settings: telemetry.trace_sample_ratio
#[test]
fn only_a_trusted_proxy_decides_what_is_traced_in_place_of_the_gate() {
    for (trusted, ratio, flags, is_traced) in [
        ("[\"127.0.0.1\"]", "0", "01", true),
        ("[\"127.0.0.1\"]", "1", "00", false),
        ("[]", "0.0", "01", false),
        ("[]", "1.0", "00", true),
    ] {
        let (upstream, issuer, collector) = (RawUpstream::start(), Issuer::new(), Collector::start());
        let settings = Settings::plaintext()
            .server(&format!("trusted_proxies = {trusted}"))
            .guarding(&upstream.url(), &issuer);
        let mut gate = Gate::start(&settings.clone().telemetry(&traces(&collector, ratio)));
        let sent = gate.get("/").token(&issuer.good()).field("Traceparent", &traceparent(flags)).send();
        assert_eq!(sent.status(), 200);
        let passed_on = upstream.last().field("traceparent").unwrap();
        assert!(passed_on.starts_with(&format!("00-{TRACE}-")), "{passed_on}");
        assert!(passed_on.ends_with(if is_traced { "-01" } else { "-00" }), "{passed_on}");
        let line = gate.record_of(sent.field("x-request-id").unwrap());
        assert_eq!(field(&line, "trace_id"), Some(TRACE), "also of a request that is not traced");
        gate.signal("TERM");
        gate.wait_for_exit(testkit::PATIENCE);
        assert_eq!(collector.spans().len(), if is_traced { 2 } else { 0 }, "{trusted} {ratio} {flags}");
    }
}

#[test]
fn denied_requests_have_a_span_with_the_reason_and_no_call() {
    let (gate, _upstream, issuer, collector) = traced(Settings::tls().telemetry("log_paths = true"));
    assert_eq!(gate.get("/without").send().status(), 401);
    let expired = issuer.token().claim("exp", testkit::now() - 100).build();
    assert_eq!(gate.get("/expired").token(&expired).send().status(), 401);
    block_on(async {
        let mut client = H2Client::connect(&gate).await;
        let mut request = h2_client::request("POST", "/test.Echo/Unary", "a b", app::empty());
        request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        // A refusal in gRPC's own form is an answer of 200.
        assert_eq!(client.exchange(request).await.unwrap().status(), 200);
    });
    assert_eq!(gate.request("BREW", "/pot").send().status(), 401);
    for (path, status, reason) in [
        ("/without", "401", "missing"),
        ("/expired", "401", "expired"),
        ("/test.Echo/Unary", "200", "malformed"),
        ("/pot", "401", "missing"),
    ] {
        let span = collector.wait_for(path, at(path));
        assert_eq!(
            (span.text("http.response.status_code"), span.text("portcullis.reason")),
            (status, reason)
        );
        assert_eq!((span.text("portcullis.decision"), span.is_error), ("deny", false), "{path}");
    }
    let brewed = collector.wait_for("the other method", at("/pot"));
    assert_eq!((brewed.name.as_str(), brewed.text("http.request.method")), ("HTTP /{*rest}", "_OTHER"));
    assert!(collector.spans().iter().all(|span| span.kind == 2), "nothing was sent to the upstream");
}

#[test]
fn failures_of_the_upstream_are_errors_of_both_spans() {
    let upstream = RawUpstream::scripted(|exchange| match exchange.request.target().as_str() {
        "/silent" => exchange.wait_for_close(),
        "/broken" => {
            exchange.send("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\npart");
            Next::Close
        }
        "/missing" => exchange.answer("404 Not Found", "", ""),
        "/stale" => Next::Close,
        _ => exchange.answer("500 Internal Server Error", "", ""),
    });
    let (issuer, collector) = (Issuer::new(), Collector::start());
    let port = testkit::ports::reserved().port();
    let settings = Settings::plaintext()
        .telemetry(&format!("{}\nlog_paths = true", traces(&collector, "1")))
        .upstream("api", &upstream.url(), "response_timeout = \"500ms\"")
        .upstream("gone", &format!("http://127.0.0.1:{port}"), "")
        .issuer(&issuer)
        .route("/{*rest}", "")
        .route("/gone", "upstream = \"gone\"");
    let gate = Gate::start(&settings);
    for (path, server, client) in [
        ("/silent", ("504", "timeout"), ("", "timeout")),
        ("/gone", ("502", "connect"), ("", "connect")),
        ("/broken", ("200", "closed"), ("200", "closed")),
        ("/missing", ("404", ""), ("404", "404")),
        ("/failed", ("500", "500"), ("500", "500")),
    ] {
        let mut wire = gate.connect();
        drop(wire.exchange(gate.get(path).token(&issuer.good()).bytes()));
        let spans = collector.wait_for_call(path, |span| span.text("url.path") == path);
        for (span, (status, error)) in [(&spans.0, server), (&spans.1, client)] {
            let seen = (span.text("http.response.status_code"), span.text("error.type"));
            assert_eq!((seen, span.is_error), ((status, error), !error.is_empty()), "{path} {span:#?}");
        }
    }
}

#[test]
fn a_span_ends_with_its_stream() {
    let (app, issuer, collector) = (App::start(Speaks::Http1), Issuer::new(), Collector::start());
    let telemetry = format!("{}\nlog_paths = true", traces(&collector, "1"));
    let gate = Gate::start(&Settings::plaintext().telemetry(&telemetry).guarding(&app.url(), &issuer));
    let mut stream = gate.connect();
    stream.send(gate.get("/events").token(&issuer.good()).bytes()).unwrap();
    assert_eq!(stream.head().unwrap().status, 200);
    assert_eq!(gate.get("/other").token(&issuer.good()).send().status(), 200);
    let other = collector.wait_for("another request", at("/other"));
    assert!(!collector.spans().iter().any(at("/events")), "it is not over");
    app.emit("last");
    assert_eq!(stream.chunk().unwrap().unwrap(), b"data: last\n\n");
    app.end_events();
    assert_eq!(stream.chunk().unwrap(), None);
    let (server, client) = collector.wait_for_call("the stream", at("/events"));
    assert!(server.start < other.start && server.end > other.end);
    assert_eq!(client.end, server.end);
    assert_eq!((server.text("portcullis.ended_by"), server.is_error), ("", false));
}

/// Switches to `chat`, where it answers in upper case, and ends or resets the connection when it is told to.
fn chatting() -> RawUpstream {
    RawUpstream::scripted(|exchange| {
        if exchange.request.field("upgrade").is_none() {
            return exchange.ok("no upgrade");
        }
        exchange.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n");
        loop {
            match exchange.read_some() {
                Ok(bytes) if bytes == b"reset" => return Next::Reset,
                Ok(bytes) if !bytes.is_empty() && bytes != b"end" => {
                    drop(exchange.write(bytes.to_ascii_uppercase()));
                }
                _ => return Next::Close,
            }
        }
    })
}

#[test]
fn the_spans_of_a_tunnel_end_with_it_and_say_who_ended_it() {
    let (upstream, issuer, collector) = (chatting(), Issuer::new(), Collector::start());
    let telemetry = format!("{}\nlog_paths = true", traces(&collector, "1"));
    let settings = Settings::plaintext().telemetry(&telemetry).guarding(&upstream.url(), &issuer).admin();
    let gate = Gate::start(&settings.toml("[streams]\ncheck_interval = \"100ms\"\n"));
    let open = |path: &str| {
        let token = issuer.token().claim("sub", path).build();
        let request = gate.get(path).token(&token).field("Connection", "Upgrade").field("Upgrade", "chat");
        let mut wire = gate.connect();
        wire.send(request.bytes()).unwrap();
        assert_eq!(wire.head().unwrap().status, 101);
        wire.send("hello").unwrap();
        assert_eq!(wire.take(5).unwrap(), b"HELLO");
        wire
    };
    let mut wires = ["/left", "/ended", "/reset", "/cut"].map(|path| (path, open(path)));
    assert_eq!(gate.get("/other").token(&issuer.good()).send().status(), 200);
    let other = collector.wait_for("another request", at("/other"));
    assert_eq!(collector.spans().len(), 2, "no tunnel is over: {:#?}", collector.spans());
    for (path, wire) in &mut wires {
        match *path {
            "/ended" => wire.send("end").unwrap(),
            "/reset" => wire.send("reset").unwrap(),
            "/cut" => drop(gate.publish(&json!({"type": "subject-revoked", "subject": "/cut"}))),
            _ => *wire = gate.connect(),
        }
    }
    for (path, ended_by) in [("/left", ""), ("/ended", ""), ("/reset", "upstream"), ("/cut", "gate")] {
        let (server, client) = collector.wait_for_call(path, at(path));
        assert_eq!((server.name.as_str(), client.name.as_str()), ("GET /{*rest}", "GET"), "{path}");
        assert!(server.start < other.start && server.end > other.end, "{path}: {server:#?}");
        assert!(server.start <= client.start && client.end == server.end, "{path}: {client:#?}");
        for span in [&server, &client] {
            let said = (span.text("http.response.status_code"), span.text("error.type"), span.is_error);
            assert_eq!(said, ("101", "", false), "{path}: {span:#?}");
        }
        let said = (server.text("portcullis.decision"), server.text("portcullis.ended_by"));
        assert_eq!(said, ("allow", ended_by), "{path}");
        let sent = upstream.seen().into_iter().find(|seen| seen.target() == path).unwrap();
        assert_eq!(
            sent.field("traceparent").unwrap(),
            format!("00-{}-{}-01", server.trace_id, client.span_id)
        );
    }
}

/// Holds docs/configuration.md, Settings: telemetry.otlp_headers
/// Holds docs/configuration.md, Settings: telemetry.otlp_ca, .otlp_service_name
#[test]
fn exports_carry_what_the_collector_wants_over_tls() {
    let authority = Authority::new();
    let collector = Collector::with_tls(&authority.server(&["localhost", "127.0.0.1"]));
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let telemetry = format!(
        "{}\notlp_ca = \"collector.pem\"\notlp_service_name = \"gate-of-tests\"\n\
         otlp_headers = {{ api-key = {{ env = \"TEST_OTLP_KEY\" }} }}",
        traces(&collector, "1")
    );
    let settings = Settings::plaintext().telemetry(&telemetry).guarding(&upstream.url(), &issuer);
    settings.file("collector.pem", authority.certificate_pem());
    let gate = Gate::launch_with(&settings, |command| {
        command
            .env("TEST_OTLP_KEY", "key-of-the-collector")
            .env("OTEL_SERVICE_NAME", "of-the-environment")
            .env("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=pod%2C7");
    });
    gate.wait_until_ready();
    gate.get("/").token(&issuer.good()).send();
    let span = collector.wait_for("a span", |_| true);
    assert_eq!(span.resource["service.name"], "gate-of-tests");
    assert_eq!(span.resource["k8s.pod.name"], "pod,7");
    assert_eq!(collector.exports()[0].field("api-key").as_deref(), Some("key-of-the-collector"));
    assert!(!gate.log().text().contains("key-of-the-collector"));
    eventually("both are counted", || (spans(&gate, "exported") >= 2.0).then_some(()));
}

#[test]
fn what_the_collector_does_not_take_is_counted_and_no_request_notices() {
    let (gate, _upstream, issuer, collector) = traced(Settings::plaintext());
    let send = || assert_eq!(gate.get("/").token(&issuer.good()).send().status(), 200);
    let counted = |result: &'static str, count: f64| {
        eventually(result, || (spans(&gate, result) >= count).then_some(()));
    };
    // A status that means never is not tried again.
    collector.set(Takes::Nothing("400 Bad Request"));
    send();
    counted("failed", 2.0);
    assert_eq!(collector.exports().len(), 1);
    collector.set(Takes::AllButOne);
    send();
    counted("exported", 1.0);
    counted("failed", 3.0);
    // Others are.
    collector.set(Takes::Nothing("503 Service Unavailable"));
    send();
    eventually("it was tried", || (collector.exports().len() > 2).then_some(()));
    collector.set(Takes::All);
    counted("exported", 3.0);
    assert!((spans(&gate, "failed") - 3.0).abs() < 1e-9);
    let records = gate.log().records();
    let warnings = records.iter().filter(|record| message(record) == Some("spans cannot be exported"));
    assert_eq!(warnings.count(), 1, "one a minute");
}

#[test]
fn an_overloaded_collector_says_when_it_is_asked_again_and_what_it_never_takes_is_counted_once() {
    let (mut gate, _upstream, issuer, collector) = traced(Settings::plaintext());
    let send = || assert_eq!(gate.get("/").token(&issuer.good()).send().status(), 200);
    let is = |result: &'static str, expected: f64| {
        let counted = || ((spans(&gate, result) - expected).abs() < 1e-9).then_some(());
        eventually(&format!("{expected} spans {result}"), counted);
    };
    for (nth, status) in ["429 Too Many Requests", "503 Service Unavailable"].into_iter().enumerate() {
        let asked = collector.exports().len();
        collector.set(Takes::Later(status, 0));
        send();
        is("failed", 2.0 * (nth + 1) as f64);
        assert_eq!(collector.exports().len() - asked, 5, "{status}");
    }
    collector.set(Takes::All);
    send();
    is("exported", 2.0);
    is("failed", 4.0);
    let asked = collector.exports().len();
    collector.set(Takes::Later("429 Too Many Requests", 30));
    send();
    eventually("it was asked", || (collector.exports().len() > asked).then_some(()));
    collector.set(Takes::All);
    // Without the collector's wish it would be asked again after a second.
    testkit::let_pass(Duration::from_secs(2));
    assert_eq!((collector.exports().len() - asked, collector.spans().len()), (1, 2));
    send();
    gate.signal("TERM");
    assert_eq!(gate.wait_for_exit(testkit::PATIENCE).code(), Some(0));
    assert_eq!(collector.spans().len(), 6, "the end does not wait, and loses nothing");
}

#[test]
fn a_collector_that_is_slow_or_closes_in_the_middle_costs_no_span_and_no_request_waits() {
    let (gate, _upstream, issuer, collector) = traced(Settings::plaintext());
    let send = || assert_eq!(gate.get("/").token(&issuer.good()).send().status(), 200);
    let mut sent = 0.0;
    for takes in [Takes::HangsUpWhileReading, Takes::HangsUpWhileAnswering, Takes::AllButHesitates] {
        let asked = collector.exports().len();
        collector.set(takes);
        send();
        eventually("it was asked", || (collector.exports().len() > asked).then_some(()));
        send();
        assert!((spans(&gate, "exported") - sent).abs() < 1e-9, "it has not said that it took them");
        collector.set(Takes::All);
        sent += 4.0;
        eventually("all are exported", || (spans(&gate, "exported") >= sent).then_some(()));
        assert!((spans(&gate, "exported") - sent).abs() < 1e-9, "each is counted once");
    }
    assert!(spans(&gate, "failed") + spans(&gate, "dropped") < 1e-9);
    assert_eq!(collector.spans().len(), 12, "and each arrived once");
}

#[test]
fn a_queue_without_room_drops_spans_and_recovers_with_the_collector() {
    let (gate, _upstream, issuer, collector) = traced(Settings::plaintext().telemetry("access_log = false"));
    collector.set(Takes::HangsUp);
    let (token, mut wire) = (issuer.good(), gate.connect());
    let request = gate.get("/").token(&token).bytes();
    let mut dropped = 0.0;
    for _ in 0..100 {
        for _ in 0..100 {
            assert_eq!(wire.exchange(&request).unwrap().status(), 200);
        }
        dropped = spans(&gate, "dropped");
        if dropped > 0.0 {
            break;
        }
    }
    assert!(dropped > 0.0, "there is no end to the queue");
    collector.set(Takes::All);
    eventually("the others are exported", || (spans(&gate, "exported") >= 1024.0).then_some(()));
}

/// Holds docs/operations.md, Failure modes: the collector of traces is away, slow or refuses
#[test]
fn collectors_that_cannot_be_reached_or_stay_silent_hold_up_neither_requests_nor_the_end() {
    let stranger = Collector::with_tls(&Authority::new().server(&["127.0.0.1"]));
    let silent = Collector::start();
    silent.set(Takes::Silence);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let full = format!("http://{}", listener.local_addr().unwrap());
    let closed = format!("http://127.0.0.1:{}", testkit::ports::reserved().port());
    for (url, is_told) in [(stranger.url(), true), (silent.url(), false), (full, false), (closed, true)] {
        let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
        let settings = Settings::plaintext()
            .telemetry(&format!("otlp_endpoint = \"{url}\"\ntrace_sample_ratio = 1"))
            .guarding(&upstream.url(), &issuer);
        settings.file("ca.pem", Authority::new().certificate_pem());
        let settings = settings.telemetry("otlp_ca = \"ca.pem\"");
        let mut gate = Gate::start(&settings);
        assert_eq!(gate.get("/").token(&issuer.good()).send().status(), 200);
        if is_told {
            gate.log().wait_for("the warning", |record| message(record) == Some("spans cannot be exported"));
        }
        assert_eq!(gate.get("/").token(&issuer.good()).send().status(), 200);
        gate.signal("TERM");
        assert_eq!(gate.wait_for_exit(testkit::PATIENCE).code(), Some(0), "{url}");
    }
}

#[test]
fn a_reload_turns_tracing_on_and_off_and_changes_the_collector() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let (first, second) = (Collector::start(), Collector::start());
    let settings = Settings::plaintext().guarding(&upstream.url(), &issuer);
    let gate = Gate::start(&settings);
    let send = |flags: &str| {
        let sent = gate.get("/").token(&issuer.good()).field("Traceparent", &traceparent(flags)).send();
        assert_eq!(sent.status(), 200);
        (upstream.last().field("traceparent").unwrap(), sent.field("x-request-id").unwrap().to_owned())
    };
    let (passed_on, id) = send("01");
    assert!(passed_on.ends_with("-01"), "without tracing the client's flags are passed on: {passed_on}");
    assert_eq!(field(&gate.record_of(&id), "trace_id"), None);
    for (reloads, collector) in [(1.0, &first), (2.0, &second)] {
        settings.clone().telemetry(&traces(collector, "1")).write();
        gate.signal("HUP");
        gate.wait_for_reloads("ok", reloads);
        send("00");
        collector.wait_for_call("spans", |span| span.trace_id == TRACE);
    }
    settings.write();
    gate.signal("HUP");
    gate.wait_for_reloads("ok", 3.0);
    let (passed_on, _) = send("00");
    assert!(passed_on.ends_with("-00"), "{passed_on}");
    assert_eq!((first.spans().len(), second.spans().len()), (2, 2));
    assert!((spans(&gate, "exported") - 4.0).abs() < 1e-9);
}

#[test]
fn the_last_spans_are_exported_before_the_process_ends() {
    let (mut gate, _upstream, issuer, collector) = traced(Settings::plaintext());
    for _ in 0..3 {
        assert_eq!(gate.get("/").token(&issuer.good()).send().status(), 200);
    }
    gate.signal("TERM");
    assert_eq!(gate.wait_for_exit(testkit::PATIENCE).code(), Some(0));
    assert_eq!(collector.spans().len(), 6);
}
