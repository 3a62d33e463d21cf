//! What operators see: liveness, readiness, metrics with their exact names and labels, and one log line per request.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};

use serde_json::json;

use testkit::app::{App, Speaks};
use testkit::documents::{absent, document, quoted, table, unpromised};
use testkit::gate::{Gate, field};
use testkit::metrics::Scrape;
use testkit::monitoring::WATCHED;
use testkit::now;
use testkit::raw_upstream::RawUpstream;
use testkit::settings::Settings;
use testkit::tokens::{Issuer, log_hash};
use testkit::wire::Wire;

/// The metrics that are neither counters, whose names end with `_total`, nor gauges.
const HISTOGRAMS: [&str; 3] = [
    "portcullis_clock_skew_seconds",
    "portcullis_enforce_duration_seconds",
    "portcullis_request_duration_seconds",
];

/// The metrics of gates that share a store, which tests/fleet checks, and of gates that receive signals.
const OF_OTHERS: [&str; 2] = ["portcullis_signals_age_seconds", "portcullis_state_setup_warnings"];

fn guarded(settings: Settings) -> (Gate, RawUpstream, Issuer) {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let gate = Gate::start(&settings.guarding(&upstream.url(), &issuer));
    (gate, upstream, issuer)
}

/// Lets the authority issue one token.
fn issue_token(gate: &Gate) {
    let user = json!({"id": "alice", "name": "alice", "roles": ["reader"]});
    assert_eq!(gate.operate("POST", "/v1/users", Some(&user)).status(), 201);
    let credential = json!({"name": "robot", "owner": "alice", "roles": ["reader"]});
    let made = gate.operate("POST", "/v1/credentials", Some(&credential)).json();
    let (id, secret) = (made["client_id"].as_str().unwrap(), made["client_secret"].as_str().unwrap());
    let form = format!("grant_type=client_credentials&client_id={id}&client_secret={secret}");
    let request =
        gate.request("POST", "/oauth/token").field("Content-Type", "application/x-www-form-urlencoded");
    assert_eq!(request.body(form).send().status(), 200);
}

/// A gate that does a bit of everything: tokens of two issuers, rejections, a failure, an event, a stream that is ended.
#[test]
fn metrics_have_exactly_the_promised_names_types_and_labels() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let settings = Settings::tls().guarding(&app.url(), &issuer).toml(WATCHED).admin();
    let logout = format!(
        "[signals]\n[[logout]]\nname = \"op\"\nissuer = \"{}\"\naudiences = [\"app\"]\n",
        issuer.name
    );
    let gate = Gate::start(&settings.route("/gone", "upstream = \"gone\"").toml(&logout));
    let token = issuer.good();
    assert_eq!(gate.request("POST", "/signals/logout/op").body("no signal").send().status(), 400);
    assert_eq!(gate.get("/a").token(&token).send().status(), 200);
    assert_eq!(gate.get("/a").token(&token).send().status(), 200);
    assert_eq!(gate.get("/a").send().status(), 401);
    assert_eq!(gate.get("/a").token(&Issuer::new().good()).send().status(), 401);
    gate.signal("HUP");
    gate.wait_for_reloads("ok", 1.0);
    assert_eq!(gate.request("POST", "/gone").body("x").token(&token).send().status(), 502);
    let mut stream = gate.connect();
    let ended = issuer.token().claim("sub", "bob").build();
    stream.send(gate.get("/events").token(&ended).bytes()).unwrap();
    assert_eq!(stream.head().unwrap().status, 200);
    gate.publish(&json!({"type": "subject-revoked", "issuer": issuer.name, "subject": "bob"}));
    assert!(stream.chunk().is_err(), "cut");
    issue_token(&gate);

    let page = gate.wait_for_metric("the cut is counted", |page| {
        (page.sum("portcullis_streams_cut_total", &[]) >= 1.0).then(|| page.clone())
    });
    assert_eq!(unpromised(&page), BTreeSet::new());
    assert_eq!(absent(&page), OF_OTHERS.map(str::to_owned).into());
    for (name, kind) in page.types.iter().filter(|(name, _)| name.starts_with("portcullis_")) {
        let expected = match name.as_str() {
            name if HISTOGRAMS.contains(&name) => "histogram",
            name if name.ends_with("_total") => "counter",
            _ => "gauge",
        };
        assert_eq!(kind, expected, "{name}");
    }

    let is = |name: &str, labels: &[(&str, &str)], expected: f64| {
        let value = page.sum(name, labels);
        assert!((value - expected).abs() < 1e-9, "{name} {labels:?} is {value}");
    };
    is("portcullis_ready", &[], 1.0);
    is("portcullis_requests_total", &[("route", "/{*rest}"), ("method", "GET"), ("status", "200")], 3.0);
    is("portcullis_requests_total", &[("route", "/{*rest}"), ("method", "GET"), ("status", "401")], 2.0);
    is("portcullis_requests_total", &[("route", "/gone"), ("method", "POST"), ("status", "502")], 1.0);
    is("portcullis_decisions_total", &[("decision", "allow"), ("route", "/{*rest}")], 3.0);
    is("portcullis_decisions_total", &[("decision", "allow"), ("route", "/gone")], 1.0);
    is("portcullis_decisions_total", &[("decision", "deny"), ("reason", "missing")], 1.0);
    is("portcullis_decisions_total", &[("decision", "deny"), ("reason", "bad_signature")], 1.0);
    assert!(page.sum("portcullis_proof_cache_total", &[("result", "hit")]) >= 1.0);
    is("portcullis_client_requests_total", &[("client", "app"), ("route", "/{*rest}")], 3.0);
    is("portcullis_upstream_errors_total", &[("upstream", "gone"), ("kind", "connect")], 1.0);
    is("portcullis_streams_cut_total", &[("reason", "subject_revoked")], 1.0);
    is("portcullis_events_total", &[("type", "subject-revoked"), ("source", "admin")], 1.0);
    is("portcullis_revocations", &[("kind", "subject")], 1.0);
    is("portcullis_tokens_issued_total", &[], 1.0);
    is("portcullis_token_requests_total", &[("result", "ok"), ("error", "none")], 1.0);
    is("portcullis_request_duration_seconds_count", &[("route", "/{*rest}")], 5.0);
    is("portcullis_config_reloads_total", &[("result", "ok")], 1.0);
    is("portcullis_tls_handshakes_total", &[("result", "ok")], 8.0);
    is("portcullis_signals_total", &[("source", "logout"), ("type", "none"), ("matched", "no")], 1.0);
    is("portcullis_requests_total", &[("route", "/signals/logout/{name}"), ("status", "400")], 1.0);
    let reasons: BTreeSet<String> =
        table(&document("docs/reasons.md"), "Reasons").iter().map(|row| quoted(&row[0]).concat()).collect();
    for (labels, _) in page.family("portcullis_decisions_total") {
        assert!(reasons.contains(&labels["reason"]) || labels["decision"] == "allow", "{labels:?}");
        assert!(
            ["allow", "deny", "unavailable", "shadow_deny"].contains(&labels["decision"].as_str()),
            "{labels:?}"
        );
    }
    let mut errors: BTreeSet<String> =
        table(&document("docs/authority.md"), "Errors").iter().map(|row| quoted(&row[1]).concat()).collect();
    // Only revocation answers with it.
    errors.remove("invalid_grant");
    errors.insert("none".to_owned());
    let counted = page.family("portcullis_token_requests_total").map(|(labels, _)| labels["error"].clone());
    assert_eq!(counted.collect::<BTreeSet<String>>(), errors);
    for (labels, _) in page.family("portcullis_enforce_duration_seconds_count") {
        assert!(["cached", "fresh", "none"].contains(&labels["proof"].as_str()), "{labels:?}");
    }
    let version = page.family("portcullis_build_info").next().unwrap().0["version"].clone();
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
}

/// Holds docs/configuration.md, Settings: telemetry.listen
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
fn a_connection_that_does_not_read_holds_its_place_for_a_bounded_time_only() {
    let (gate, ..) = guarded(Settings::plaintext());
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&gate.telemetry.into()).unwrap();
    let mut greedy = std::net::TcpStream::from(socket);
    // Far more than the kernel keeps for it, and it reads nothing.
    let asked = 400;
    greedy.write_all("GET /metrics HTTP/1.1\r\nHost: t\r\n\r\n".repeat(asked).as_bytes()).unwrap();
    let ask = |wire: &mut Wire| {
        let answer = wire.exchange("GET /live HTTP/1.1\r\nHost: t\r\n\r\n").ok()?;
        (answer.status() == 200).then_some(())
    };
    let served = || {
        let mut wire = Wire::try_plain(gate.telemetry).ok()?;
        ask(&mut wire).map(|()| wire)
    };
    // The other places are taken by clients that ask again and again. Those of the start may not be free at once.
    let mut others: Vec<Wire> = (1..128).map(|_| testkit::eventually("a place is free", served)).collect();
    let mut others_are_served = || assert!(others.iter_mut().all(|wire| ask(wire).is_some()));
    others_are_served();
    assert!(served().is_none(), "every place is taken");
    let next = testkit::eventually("the next one is served", || {
        others_are_served();
        served()
    });
    others_are_served();
    drop(next);
    let mut read = Vec::new();
    // The gate closes it with requests unread, which is an error here.
    greedy.read_to_end(&mut read).ok();
    let answered = String::from_utf8_lossy(&read).matches("HTTP/1.1 200").count();
    assert!(answered < asked, "it was served to its end");
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
    for (member, name) in [("subject_hash", "carol"), ("token_hash", "token-1")] {
        assert_eq!(field(&record, member), Some(log_hash(&issuer.name, name).as_str()), "{text}");
    }
    assert!(field(&record, "ts").is_some_and(|time| time.ends_with('Z')), "{text}");
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

/// Holds docs/operations.md, Failure modes: the log's reader stalls
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
    let dropped = || {
        let request = "GET /metrics HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
        let page = Wire::plain(telemetry).exchange(request).unwrap();
        Scrape::parse(&page.text()).sum("portcullis_log_lines_dropped_total", &[])
    };
    assert_eq!(dropped(), 0.0);
    // A pipe holds 64 KiB; refusals of some hundred bytes each fill it and what the gate keeps of them many times over.
    let mut wire = Wire::plain(public);
    for batch in 0..100 {
        for _ in 0..1000 {
            let answer = wire.exchange("GET /x HTTP/1.1\r\nHost: api.test\r\n\r\n").unwrap();
            assert_eq!(answer.status(), 401);
        }
        if dropped() > 0.0 {
            break;
        }
        assert!(batch < 99, "lines that nobody reads are dropped and counted");
    }
    drop(pipes);
}
