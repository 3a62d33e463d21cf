//! What operators see: liveness, readiness, metrics by their exact names and labels, and one log line per request.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;

use testkit::gate::{Gate, field};
use testkit::now;
use testkit::raw_upstream::RawUpstream;
use testkit::settings::Settings;
use testkit::tokens::{Issuer, log_hash};
use testkit::wire::Wire;

/// Every metric, its type and its labels. `true`: there from the first request on.
const METRICS: &[(&str, &str, &[&str], bool)] = &[
    ("portcullis_requests_total", "counter", &["method", "route", "status"], true),
    ("portcullis_decisions_total", "counter", &["decision", "reason", "route"], true),
    ("portcullis_request_duration_seconds", "histogram", &["route"], true),
    ("portcullis_enforce_duration_seconds", "histogram", &["proof"], true),
    ("portcullis_upstream_errors_total", "counter", &["kind", "upstream"], true),
    ("portcullis_client_requests_total", "counter", &["client", "route"], true),
    ("portcullis_connections", "gauge", &["listener"], true),
    ("portcullis_tls_handshakes_total", "counter", &["result"], true),
    ("portcullis_proof_cache_total", "counter", &["result"], true),
    ("portcullis_sessions_tracked", "gauge", &[], false),
    ("portcullis_sessions_evicted_total", "counter", &["cause"], false),
    ("portcullis_events_total", "counter", &["source", "type"], false),
    ("portcullis_revocations", "gauge", &["kind"], false),
    ("portcullis_state_age_seconds", "gauge", &[], false),
    ("portcullis_keys", "gauge", &["issuer"], true),
    ("portcullis_keys_age_seconds", "gauge", &["issuer"], true),
    ("portcullis_keys_refresh_total", "counter", &["issuer", "result"], true),
    ("portcullis_clock_skew_seconds", "histogram", &["issuer"], true),
    ("portcullis_streams_cut_total", "counter", &["reason"], false),
    ("portcullis_certificate_expiry_seconds", "gauge", &["path"], true),
    ("portcullis_config_reloads_total", "counter", &["result"], true),
    ("portcullis_config_last_reload_successful", "gauge", &[], true),
    ("portcullis_token_requests_total", "counter", &["error", "result"], true),
    ("portcullis_build_info", "gauge", &["version"], true),
];

const REASONS: &[&str] = &[
    "missing",
    "malformed",
    "ambiguous",
    "bad_target",
    "no_route",
    "unknown_issuer",
    "wrong_type",
    "bad_algorithm",
    "unknown_key",
    "bad_signature",
    "missing_claim",
    "bad_claim",
    "expired",
    "not_yet_valid",
    "issued_in_future",
    "too_long_lived",
    "wrong_audience",
    "token_revoked",
    "subject_revoked",
    "client_revoked",
    "issuer_revoked",
    "role_changed",
    "idle",
    "insufficient_scope",
    "insufficient_role",
    "keys_unavailable",
    "state_unavailable",
    "certificate_mismatch",
    "before_state",
    "overloaded",
];

fn guarded(settings: Settings) -> (Gate, RawUpstream, Issuer) {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let gate = Gate::start(&settings.guarding(&upstream.url(), &issuer));
    (gate, upstream, issuer)
}

#[test]
fn metrics_have_exactly_the_promised_names_types_and_labels() {
    let (gate, upstream, issuer) = guarded(Settings::tls());
    let token = issuer.good();
    assert_eq!(gate.get("/a").token(&token).send().status(), 200);
    assert_eq!(gate.get("/a").token(&token).send().status(), 200);
    assert_eq!(gate.get("/a").send().status(), 401);
    assert_eq!(gate.get("/a").token(&Issuer::new().good()).send().status(), 401);
    gate.signal("HUP");
    gate.wait_for_reloads("ok", 1.0);
    let url = upstream.address;
    drop(upstream);
    assert_eq!(gate.request("POST", "/a").body("x").token(&token).send().status(), 502, "{url} is gone");

    let page = gate.metrics();
    let known: BTreeMap<&str, (&str, BTreeSet<&str>)> = METRICS
        .iter()
        .map(|(name, kind, labels, _)| (*name, (*kind, labels.iter().copied().collect())))
        .collect();
    for (name, kind) in page.types.iter().filter(|(name, _)| name.starts_with("portcullis_")) {
        if let Some((expected, _)) = known.get(name.as_str()) {
            assert_eq!(kind, expected, "{name}");
        }
    }
    for (name, labels, _) in &page.samples {
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let promised = known.get(name.as_str()).or_else(|| known.get(family?));
        let labels: BTreeSet<&str> =
            labels.keys().map(String::as_str).filter(|label| *label != "le").collect();
        assert!(promised.is_none_or(|(_, expected)| labels == *expected), "{name} has the labels {labels:?}");
    }
    for (name, kind, ..) in METRICS.iter().filter(|(.., soon)| *soon) {
        let sample = if *kind == "histogram" { format!("{name}_count") } else { (*name).to_owned() };
        assert!(page.family(&sample).next().is_some(), "{name} is missing");
    }

    let is = |name: &str, labels: &[(&str, &str)], expected: f64| {
        let value = page.sum(name, labels);
        assert!((value - expected).abs() < 1e-9, "{name} {labels:?} is {value}");
    };
    is("portcullis_requests_total", &[("route", "/{*rest}"), ("method", "GET"), ("status", "200")], 2.0);
    is("portcullis_requests_total", &[("route", "/{*rest}"), ("method", "GET"), ("status", "401")], 2.0);
    is("portcullis_requests_total", &[("method", "POST"), ("status", "502")], 1.0);
    is("portcullis_decisions_total", &[("decision", "allow")], 3.0);
    is("portcullis_decisions_total", &[("decision", "deny"), ("reason", "missing")], 1.0);
    is("portcullis_decisions_total", &[("decision", "deny"), ("reason", "bad_signature")], 1.0);
    assert!(page.sum("portcullis_proof_cache_total", &[("result", "hit")]) >= 1.0);
    is("portcullis_client_requests_total", &[("client", "app"), ("route", "/{*rest}")], 3.0);
    is("portcullis_upstream_errors_total", &[("upstream", "api")], 1.0);
    is("portcullis_request_duration_seconds_count", &[("route", "/{*rest}")], 5.0);
    is("portcullis_config_reloads_total", &[("result", "ok")], 1.0);
    is("portcullis_tls_handshakes_total", &[("result", "ok")], 5.0);
    for (labels, _) in page.family("portcullis_decisions_total") {
        let reason = labels["reason"].as_str();
        assert!(REASONS.contains(&reason) || labels["decision"] == "allow", "{labels:?}");
        assert!(
            ["allow", "deny", "unavailable", "shadow_deny"].contains(&labels["decision"].as_str()),
            "{labels:?}"
        );
    }
    for (labels, _) in page.family("portcullis_enforce_duration_seconds_count") {
        assert!(["cached", "fresh", "none"].contains(&labels["proof"].as_str()), "{labels:?}");
    }
    let version = page.family("portcullis_build_info").next().unwrap().0["version"].clone();
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
}

#[test]
fn the_telemetry_listener_has_three_pages_and_nothing_else() {
    let (gate, ..) = guarded(Settings::plaintext());
    assert_eq!(gate.telemetry("/live").status(), 200);
    let ready = gate.telemetry("/ready");
    assert_eq!((ready.status(), ready.field("content-type")), (200, Some("application/json")));
    let metrics = gate.telemetry("/metrics");
    assert!(metrics.field("content-type").unwrap().starts_with("text/plain"), "{:?}", metrics.head);
    for path in ["/", "/v1/config", "/v1/reload", "/metrics/x", "/debug", "/ready/", "/METRICS", "/a"] {
        assert_eq!(gate.telemetry(path).status(), 404, "{path}");
    }
    for method in ["POST", "PUT", "DELETE"] {
        let request = format!(
            "{method} /metrics HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let answer = Wire::plain(gate.telemetry).exchange(request).unwrap();
        assert!(matches!(answer.status(), 404 | 405), "{method}: {}", answer.status());
    }
    for path in ["/metrics", "/ready", "/live"] {
        assert_eq!(
            gate.get(path).send().status(),
            401,
            "{path} on the public listener is a path like any other"
        );
    }
}

#[test]
fn connections_that_do_not_read_hold_the_telemetry_listener_for_a_bounded_time_only() {
    let (gate, ..) = guarded(Settings::plaintext());
    let ask = "GET /metrics HTTP/1.1\r\nHost: t\r\n\r\n".repeat(50);
    // As many as there are places; each asks for far more than the kernel keeps for it, and reads nothing.
    let greedy: Vec<std::net::TcpStream> = (0..128)
        .map(|_| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_recv_buffer_size(4096).unwrap();
            socket.connect(&gate.telemetry.into()).unwrap();
            let mut stream = std::net::TcpStream::from(socket);
            stream.write_all(ask.as_bytes()).unwrap();
            stream
        })
        .collect();
    let served = || {
        let mut wire = Wire::try_plain(gate.telemetry).ok()?;
        let answer = wire.exchange("GET /live HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").ok()?;
        (answer.status() == 200).then_some(())
    };
    assert!(served().is_none(), "every place is taken");
    testkit::eventually("the next one is served", served);
    drop(greedy);
}

#[test]
fn readiness_names_its_components() {
    let (gate, _upstream, issuer) = guarded(Settings::plaintext());
    let (status, body) = gate.readiness();
    assert_eq!((status, body["ready"].as_bool()), (200, Some(true)), "{body}");
    let components = body["components"].as_object().unwrap();
    assert!(components.contains_key(&format!("keys:{}", issuer.name)), "{body}");
}

#[test]
fn clients_above_a_thousand_are_counted_together() {
    let (gate, _upstream, issuer) = guarded(Settings::plaintext());
    let mut wire = gate.connect();
    for n in 0..1010 {
        let token = issuer.token().claim("client_id", format!("client-{n}")).build();
        assert_eq!(wire.exchange(gate.get("/").token(&token).bytes()).unwrap().status(), 200);
    }
    let page = gate.metrics();
    let clients: BTreeSet<String> =
        page.family("portcullis_client_requests_total").map(|(labels, _)| labels["client"].clone()).collect();
    assert!(clients.contains("client-0") && clients.contains("other"), "{}", clients.len());
    assert!(clients.len() <= 1001, "{} clients", clients.len());
    let total = page.sum("portcullis_client_requests_total", &[]);
    assert!((total - 1010.0).abs() < 1e-9, "{total}");
}

#[test]
fn every_request_has_one_record_that_says_who_and_why_without_naming_anyone() {
    let (gate, _upstream, issuer) = guarded(Settings::plaintext());
    let token = issuer.token().claim("sub", "carol").claim("jti", "token-1").build();
    let allowed = gate.get("/path").token(&token).send();
    let id = allowed.field("x-request-id").unwrap();
    let record = gate.record_of(id);
    let text = record.to_string();
    for hash in [log_hash(&issuer.name, "carol"), log_hash(&issuer.name, "token-1")] {
        assert!(text.contains(&hash), "{hash} in {text}");
    }
    assert!(text.contains(&issuer.name) && text.contains("/{*rest}") && text.contains("GET"), "{text}");
    assert!(!text.contains("carol") && !text.contains("token-1"), "{text}");
    let count = gate.log().records().iter().filter(|record| field(record, "request_id") == Some(id)).count();
    assert_eq!(count, 1);

    let expired = issuer.token().claim("iat", now() - 7200).claim("exp", now() - 3600).build();
    let refused = gate.get("/path").token(&expired).send();
    let record = gate.record_of(refused.field("x-request-id").unwrap());
    assert_eq!(field(&record, "reason"), Some("expired"), "{record}");
    assert!(record.to_string().contains("key-1"), "the kid is logged: {record}");
}

#[test]
fn the_access_log_can_be_turned_off_but_not_that_of_refusals() {
    let (gate, _upstream, issuer) = guarded(Settings::plaintext().telemetry("access_log = false"));
    let allowed = gate.get("/").token(&issuer.good()).send();
    let refused = gate.get("/").send();
    gate.record_of(refused.field("x-request-id").unwrap());
    assert!(!gate.log().text().contains(allowed.field("x-request-id").unwrap()), "{}", gate.log().text());
}

#[test]
fn a_blocked_log_does_not_block_requests() {
    use std::process::Stdio;

    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = Settings::plaintext().guarding(&upstream.url(), &issuer);
    // The addresses are learned from a first run; then a pipe that nobody empties becomes the log of a second gate.
    let gate = Gate::start(&settings);
    let (public, telemetry) = (gate.public, gate.telemetry);
    drop(gate);
    let settings =
        settings.server(&format!("listen = [\"{public}\"]")).telemetry(&format!("listen = \"{telemetry}\""));
    let mut child = std::process::Command::new(testkit::gate::binary())
        .arg("run")
        .arg("--config")
        .arg(settings.write())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pipes = (child.stdout.take(), child.stderr.take());
    let _running = testkit::tools::Running(child);
    testkit::eventually("the gate listens again", || std::net::TcpStream::connect(telemetry).ok());
    testkit::eventually("the gate is ready again", || {
        let mut wire = Wire::plain(telemetry);
        let answer = wire.exchange("GET /ready HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").ok()?;
        (answer.status() == 200).then_some(())
    });
    // A pipe holds 64 KiB; refusals of some hundred bytes each fill it many times over.
    let mut wire = Wire::plain(public);
    for _ in 0..3000 {
        let answer = wire.exchange("GET /x HTTP/1.1\r\nHost: api.test\r\n\r\n").unwrap();
        assert_eq!(answer.status(), 401);
    }
    drop(pipes);
}
