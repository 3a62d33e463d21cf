//! Edge cases of a proxy: clients that close halfway, metrics that start at 0, names in logs, prefixes of hashes.

use serde_json::{Value, json};

use testkit::eventually;
use testkit::frames::{self, END_STREAM, Frames, kind};
use testkit::gate::{Gate, field, portcullis};
use testkit::raw_upstream::RawUpstream;
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use testkit::wire::Wire;

#[test]
fn a_client_that_has_closed_its_side_gets_a_slow_answer() {
    let upstream = RawUpstream::scripted(|exchange| {
        // Longer than the two seconds after which such a client once counted as gone.
        testkit::let_pass(std::time::Duration::from_millis(2600));
        exchange.ok("late")
    });
    let issuer = Issuer::new();
    let gate = Gate::start(&Settings::plaintext().guarding(&upstream.url(), &issuer));
    let mut wire = gate.connect();
    wire.send(gate.get("/slow").token(&issuer.good()).bytes()).unwrap();
    wire.finish_sending();
    let answer = wire.answer().unwrap();
    assert_eq!((answer.status(), answer.text()), (200, "late".to_owned()));
}

#[test]
fn a_grpc_stream_whose_token_is_revoked_ends_with_unauthenticated() {
    let upstream = RawUpstream::scripted(|exchange| {
        exchange.send(
            "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n\
             5\r\n\0\0\0\0\0\r\n",
        );
        exchange.wait_for_close()
    });
    let issuer = Issuer::new();
    let settings = Settings::tls()
        .guarding(&upstream.url(), &issuer)
        .toml("[streams]\ncheck_interval = \"50ms\"")
        .admin();
    let gate = Gate::start(&settings);
    let mut client = Frames::connect(&gate);
    let bearer = format!("Bearer {}", issuer.good());
    let call = [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "api.test"),
        (":path", "/pkg.Service/Watch"),
        ("authorization", &bearer),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    client.send(frames::headers(1, 0, &call));
    let mut next = |wanted: u8| loop {
        let frame = client.read().unwrap();
        assert!(frame.kind != kind::RST_STREAM, "{frame:?}");
        if frame.kind == wanted {
            break frame;
        }
    };
    next(kind::HEADERS);
    next(kind::DATA);
    gate.publish(&json!({"type": "subject-revoked", "subject": "alice"}));
    let trailers = next(kind::HEADERS);
    assert_ne!(trailers.flags & END_STREAM, 0);
    eventually("the upstream is let go", || (upstream.open() == 0).then_some(()));
    assert_eq!(gate.cuts("subject_revoked"), 1.0);
}

#[test]
fn series_of_closed_sets_begin_at_0_and_gauges_are_true_at_the_scrape() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let gate = Gate::start(&Settings::plaintext().guarding(&upstream.url(), &issuer).admin());
    let page = gate.metrics();
    for (name, label, values) in [
        ("portcullis_config_reloads_total", "result", &["ok", "error"][..]),
        ("portcullis_tls_handshakes_total", "result", &["ok", "error"]),
        ("portcullis_proof_cache_total", "result", &["hit", "miss"]),
        ("portcullis_sessions_evicted_total", "cause", &["expired", "idle", "capacity"]),
        ("portcullis_revocations", "kind", &["subject", "client", "token", "issuer"]),
        ("portcullis_token_requests_total", "error", &["none", "invalid_client", "invalid_scope"]),
        ("portcullis_decisions_total", "reason", &["none", "missing", "expired", "overloaded"]),
        ("portcullis_decisions_total", "route", &["none", "/{*rest}"]),
    ] {
        for value in values {
            let found = page.family(name).find(|(labels, _)| labels.get(label).is_some_and(|is| is == value));
            assert_eq!(found.map(|(_, value)| value), Some(0.0), "{name} {label}={value}");
        }
    }
    for n in 0..20 {
        let token = issuer.token().claim("jti", format!("jti-{n}")).build();
        assert_eq!(gate.get("/").token(&token).send().status(), 200);
    }
    let events: Vec<Value> =
        (0..500).map(|n| json!({"type": "subject-revoked", "subject": format!("s{n}")})).collect();
    gate.publish(&events.into());
    let page = gate.metrics();
    assert_eq!(page.sum("portcullis_sessions_tracked", &[]), 20.0);
    assert_eq!(page.sum("portcullis_revocations", &[("kind", "subject")]), 500.0);
    let allowed = [("decision", "allow"), ("route", "/{*rest}")];
    assert_eq!(page.sum("portcullis_decisions_total", &allowed), 20.0);
    assert!(page.sum("process_cpu_seconds_total", &[]).fract() > 0.0);
    assert_eq!(page.types["process_cpu_seconds_total"], "counter");
}

#[test]
fn a_reload_that_is_refused_says_so_in_a_list_and_a_gauge() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = Settings::plaintext().guarding(&upstream.url(), &issuer).admin();
    let gate = Gate::start(&settings);
    assert_eq!(gate.metrics().sum("portcullis_config_last_reload_successful", &[]), 1.0);
    settings.clone().route("/odd/*", "methods = [\"get\"]").write();
    let answer = gate.operate("POST", "/v1/reload", None);
    assert_eq!(answer.status(), 422);
    assert!(answer.json()["problems"].as_array().unwrap().len() >= 2, "{}", answer.text());
    assert_eq!(gate.metrics().sum("portcullis_config_last_reload_successful", &[]), 0.0);
    let line = gate.log().wait_for("the refusal", |record| record["problems"].is_array());
    let problems = line["problems"].as_array().unwrap();
    assert!(problems.iter().any(|problem| problem.as_str().unwrap().contains("did you mean \"GET\"")));
    settings.write();
    assert_eq!(gate.operate("POST", "/v1/reload", None).status(), 200);
    assert_eq!(gate.metrics().sum("portcullis_config_last_reload_successful", &[]), 1.0);
}

#[test]
fn lists_without_an_issuer_cover_all_and_name_tokens_by_their_hash() {
    let (upstream, one) = (RawUpstream::start(), Issuer::new());
    let two = Issuer::named("https://second.example.com/");
    let settings = Settings::plaintext().guarding(&upstream.url(), &one).issuer(&two).admin();
    let gate = Gate::start(&settings);
    for issuer in [&one, &two] {
        assert_eq!(gate.get("/").token(&issuer.good()).send().status(), 200);
    }
    let hers = gate.list("/v1/sessions?subject=alice");
    assert_eq!(hers.len(), 2, "{hers:?}");
    for issuer in [&one, &two] {
        gate.publish(&json!({"type": "role-changed", "subject": "bob", "issuer": issuer.name}));
    }
    assert_eq!(gate.list("/v1/revocations?subject=bob").len(), 2);
    assert_eq!(gate.list(&format!("/v1/revocations?subject=bob&issuer={}", one.name)).len(), 1);
    assert_eq!(
        gate.operate("DELETE", "/v1/sessions?subject=alice", None).status(),
        400,
        "a change says whose"
    );

    let token = hers[0]["token"].as_str().unwrap();
    for (name, status) in
        [(&token[..11], 404), ("ffffffffffffff", 404), (&token[..12], 204), (&token[..12], 404)]
    {
        assert_eq!(gate.operate("DELETE", &format!("/v1/sessions/{name}"), None).status(), status, "{name}");
    }
    for list in ["/v1/revocations", "/v1/events"] {
        let items = gate.list(list);
        let ended = items.iter().find(|item| item["type"] == "token-revoked").unwrap();
        assert_eq!((&ended["token"], &ended["jti"]), (&json!(token), &Value::Null), "{list}");
        assert!(
            items.iter().filter(|item| item["type"] == "role-changed").all(|item| item["token"].is_null())
        );
    }
}

#[test]
fn the_log_tells_which_issuer_audience_and_client_were_meant() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let gate = Gate::start(&Settings::plaintext().guarding(&upstream.url(), &issuer));
    let line_of = |token: &str| {
        let answer = gate.get("/").token(token).send();
        gate.record_of(answer.field("x-request-id").unwrap())
    };
    let stranger = format!("https://stranger.example/{}\u{e9}\"\n", "x".repeat(300));
    let line = line_of(&issuer.token().claim("iss", stranger).build());
    assert_eq!(field(&line, "reason"), Some("unknown_issuer"));
    assert_eq!(field(&line, "claimed_client"), Some("app"));
    let named = field(&line, "claimed_issuer").unwrap();
    assert!(named.starts_with("https://stranger.example/xxx") && named.len() <= 128, "{named}");
    assert!(named.bytes().all(|byte| byte.is_ascii_graphic()), "{named}");
    let line = line_of(&issuer.token().claim("aud", json!(["other-api", "third"])).build());
    assert_eq!(field(&line, "reason"), Some("wrong_audience"));
    assert_eq!(field(&line, "claimed_audience"), Some("other-api,third"));
    assert_eq!((field(&line, "claimed_client"), field(&line, "client")), (Some("app"), None));
    let odd = format!("{}\u{e9}\"\n", "y".repeat(300));
    let line = line_of(&issuer.token().claim("client_id", odd).claim("aud", "other").build());
    let named = field(&line, "claimed_client").unwrap();
    assert!(named.len() <= 128 && named.bytes().all(|byte| byte.is_ascii_graphic()), "{named}");
    assert_eq!(field(&line_of(&issuer.good()), "client"), Some("app"));
}

#[test]
fn a_handshake_that_fails_leaves_a_line_at_debug() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = Settings::tls()
        .telemetry("log_level = \"info,portcullis::gate=debug\"")
        .guarding(&upstream.url(), &issuer);
    let gate = Gate::start(&settings);
    let mut wire = Wire::plain(gate.public);
    wire.send("GET / HTTP/1.1\r\n\r\n").unwrap();
    let line = gate.log().wait_for("the handshake", |record| record["message"] == "TLS handshake failed");
    assert_eq!(field(&line, "client_address"), Some("127.0.0.1"));
    assert!(!field(&line, "reason").unwrap().is_empty());
}

#[test]
fn one_broken_issuer_does_not_take_the_gate_out_of_service() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let broken = Issuer::named("https://broken.example/");
    let nobody = testkit::ports::reserved();
    let settings = |when: &str| {
        Settings::plaintext().telemetry(when).guarding(&upstream.url(), &issuer).toml(&format!(
            "[[issuers]]\nissuer = {:?}\naudiences = [\"a\"]\njwks_url = \"http://{nobody}/jwks\"\n",
            broken.name
        ))
    };
    let gate = Gate::start(&settings(""));
    let (_, body) = gate.readiness();
    let name = format!("keys:{}", broken.name);
    let is_told = |body: &Value| {
        let said = body["components"][&name].as_str().unwrap();
        // With the words of the cause.
        assert!(said.starts_with("never loaded: ") && said.contains("refused"), "{said}");
    };
    assert_eq!(body["ready"], true);
    is_told(&body);
    let all = Gate::launch(&settings("ready_when = \"all\""));
    all.wait_for_metric("the issuer was tried", |page| {
        (page.sum("portcullis_keys_refresh_total", &[("result", "error")]) > 0.0).then_some(())
    });
    let (status, body) = all.readiness();
    assert_eq!(status, 503);
    is_told(&body);
}

#[test]
fn a_list_command_survives_an_answer_that_is_no_list() {
    for body in ["[]", "7", "null", "\"x\"", "{}", "{\"items\":{}}", "{\"items\":null}", "[{\"items\":[]}]"] {
        let upstream = RawUpstream::scripted(move |exchange| {
            exchange.answer("200 OK", "content-type: application/json\r\n", body)
        });
        for command in [&["user", "list"][..], &["credential", "list"]] {
            let folder = Settings::plaintext();
            let token = folder.file("token", "0123456789abcdef0123456789abcdef");
            let outcome = portcullis(
                &[command, &["--admin", &upstream.url(), "--token-file", token.to_str().unwrap()]].concat(),
            );
            assert_eq!(outcome.code, 1, "{command:?} {body}: {}", outcome.err);
            assert!(
                outcome.err.contains("the response is not a list"),
                "{command:?} {body}: {}",
                outcome.err
            );
        }
    }
}

#[test]
fn a_second_gate_on_the_same_address_does_not_start() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let guarded = || Settings::plaintext().guarding(&upstream.url(), &issuer);
    let first = Gate::start(&guarded());
    let taken = guarded().server(&format!("listen = [\"{}\"]", first.public));
    let (said, code) = Gate::attempt(&taken).err().expect("it does not start");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&first.public.to_string()), "{said}");
    assert_eq!(first.get("/").token(&issuer.good()).send().status(), 200);
}

#[test]
fn a_reload_asked_for_during_the_drain_is_answered() {
    let upstream = RawUpstream::scripted(|exchange| exchange.wait_for_close());
    let issuer = Issuer::new();
    let gate = Gate::start(&Settings::plaintext().guarding(&upstream.url(), &issuer).admin());
    let mut held = gate.connect();
    held.send(gate.get("/held").token(&issuer.good()).bytes()).unwrap();
    upstream.wait_for(1);
    gate.signal("TERM");
    gate.log()
        .wait_for("the drain", |record| record["message"] == "draining: no longer accepting connections");
    assert_eq!(gate.operate("POST", "/v1/reload", None).status(), 503);
}
