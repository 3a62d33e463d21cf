//! Browsers, byte by byte: which origins may call a route (`origins`), and what responses allow pages of other
//! origins (`[routes.cors]`). `browsers.rs` tests Chromium.

use http::Request;
use serde_json::json;

use testkit::app::{App, Speaks, empty};
use testkit::block_on;
use testkit::documents::block;
use testkit::gate::{Gate, field, path_text, portcullis};
use testkit::h2_client::H2Client;
use testkit::raw_upstream::RawUpstream;
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use testkit::wire::Answer;

const APP: &str = "https://app.example";
const EVIL: &str = "https://evil.example";

/// All CORS fields, and `Vary`, in one line.
fn cors(answer: &Answer) -> String {
    let mut found: Vec<String> = answer
        .head
        .fields
        .iter()
        .filter(|(name, _)| name.starts_with("access-control-") || name == "vary")
        .map(|(name, value)| format!("{}={value}", name.trim_start_matches("access-control-")))
        .collect();
    found.sort();
    found.join("; ")
}

const EXPOSED: &str = "expose-headers=www-authenticate, x-request-id";

/// What a page of the app may read.
fn readable() -> String {
    format!("allow-origin={APP}; {EXPOSED}; vary=Origin")
}

fn preflight(gate: &Gate, path: &str, origin: &str, method: &str) -> Answer {
    gate.request("OPTIONS", path)
        .field("Origin", origin)
        .field("Access-Control-Request-Method", method)
        .field("Access-Control-Request-Headers", "authorization")
        .send()
}

/// Holds docs/configuration.md, Settings: routes[].origins
/// Holds docs/concepts.md, What a request meets: an origin that the route does not list
#[test]
fn a_request_from_a_page_of_another_origin_is_rejected_before_its_token_is_judged() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let listed = "origins = [\"HTTPS://App.Example:443\", \"http://localhost:3000\", \"null\"]";
    let settings = Settings::plaintext()
        .upstream("api", &upstream.url(), "")
        .issuer(&issuer)
        .route("/listed", listed)
        .route("/open", &format!("anonymous = true\n{listed}"))
        .route("/observed", &format!("mode = \"shadow\"\n{listed}"))
        .route("/any", "");
    let gate = Gate::start(&settings);
    let (good, wrong, none) = (&*issuer.good(), "no.jwt.here", "");
    let rows: &[(&str, &[&str], &str, u16, &str)] = &[
        ("/listed", &[], good, 200, "allow/none"),
        ("/listed", &[APP], good, 200, "allow/none"),
        ("/listed", &["http://localhost:3000"], good, 200, "allow/none"),
        ("/listed", &["null"], good, 200, "allow/none"),
        ("/listed", &[EVIL], good, 403, "deny/bad_origin"),
        ("/listed", &[EVIL], wrong, 403, "deny/bad_origin"),
        ("/listed", &[EVIL], none, 403, "deny/bad_origin"),
        ("/listed", &[APP], wrong, 401, "deny/malformed"),
        ("/listed", &[APP], none, 401, "deny/missing"),
        ("/listed", &[""], good, 403, "deny/bad_origin"),
        ("/listed", &["https://app.example:443"], good, 403, "deny/bad_origin"),
        ("/listed", &["https://APP.example"], good, 403, "deny/bad_origin"),
        ("/listed", &["https://app.example/"], good, 403, "deny/bad_origin"),
        ("/listed", &["http://app.example"], good, 403, "deny/bad_origin"),
        ("/listed", &["http://localhost"], good, 403, "deny/bad_origin"),
        ("/listed", &["https://app.example.evil.example"], good, 403, "deny/bad_origin"),
        ("/listed", &["NULL"], good, 403, "deny/bad_origin"),
        ("/listed", &[APP, APP], good, 403, "deny/bad_origin"),
        ("/listed", &[APP, EVIL], good, 403, "deny/bad_origin"),
        ("/open", &[APP], none, 200, "allow/none"),
        ("/open", &[], none, 200, "allow/none"),
        ("/open", &[EVIL], none, 403, "deny/bad_origin"),
        ("/observed", &[EVIL], good, 200, "shadow_deny/bad_origin"),
        ("/observed", &[APP], good, 200, "allow/none"),
        ("/any", &[EVIL], good, 200, "allow/none"),
        ("/any", &[APP, EVIL], good, 200, "allow/none"),
        ("/nowhere", &[EVIL], good, 403, "deny/no_route"),
    ];
    for (path, origins, token, status, decision) in rows {
        let before = upstream.count();
        let mut request = gate.get(path);
        if !token.is_empty() {
            request = request.token(token);
        }
        for origin in *origins {
            request = request.field("Origin", origin);
        }
        let (answer, decided) = gate.decision(|| request.send());
        let what = format!("{path} {origins:?}: {}", answer.text());
        assert_eq!((answer.status(), decided.as_str()), (*status, *decision), "{what}");
        assert_eq!(upstream.count() - before, usize::from(*status == 200), "{what}");
        assert_eq!(cors(&answer), "", "the route says nothing about CORS: {what}");
        if *decision == "deny/bad_origin" {
            assert_eq!(answer.field("www-authenticate"), None, "{what}");
            let body = answer.json();
            assert_eq!(body["error"], "access_denied");
            assert_eq!(body["error_description"], "Requests from this origin are not allowed");
            let record = gate.record_of(answer.field("x-request-id").unwrap());
            assert_eq!(field(&record, "reason"), Some("bad_origin"), "{record}");
        }
        if *status == 200 {
            assert_eq!(upstream.last().all("origin"), *origins, "what the upstream sees is what came");
        }
    }
}

#[test]
fn a_grpc_call_and_a_websocket_from_a_page_of_another_origin_are_rejected_in_their_own_form() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = Settings::plaintext()
        .upstream("api", &upstream.url(), "")
        .issuer(&issuer)
        .route("/{*rest}", &format!("origins = [\"{APP}\"]"))
        .toml("[bearer]\nwebsocket_protocol = \"bearer\"\n");
    let gate = Gate::start(&settings);
    let call = |origin: &str| {
        let request = gate.request("POST", "/pkg.Service/Method").token(&issuer.good());
        request.field("Content-Type", "application/grpc").field("Origin", origin).body("").send()
    };
    let rejected = call(EVIL);
    assert_eq!((rejected.status(), rejected.field("grpc-status")), (200, Some("7")), "PERMISSION_DENIED");
    assert_eq!(rejected.field("grpc-message"), Some("Requests from this origin are not allowed"));
    assert_eq!((call(APP).field("grpc-status"), upstream.count()), (None, 1));

    let handshake = |origin: &str| {
        let request = gate.get("/feed").field("Connection", "Upgrade").field("Upgrade", "websocket");
        let request = request.field("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        let request = request.field("Sec-WebSocket-Version", "13").field("Origin", origin);
        request.field("Sec-WebSocket-Protocol", &format!("bearer, {}", issuer.good())).send()
    };
    let (answer, decided) = gate.decision(|| handshake(EVIL));
    assert_eq!((answer.status(), decided.as_str(), upstream.count()), (403, "deny/bad_origin", 1));
    let (answer, decided) = gate.decision(|| handshake(APP));
    assert_eq!((answer.status(), decided.as_str(), upstream.count()), (200, "allow/none", 2));
}

#[test]
fn a_stream_ends_when_a_reload_no_longer_lists_the_origin_of_its_page() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let settings = Settings::plaintext()
        .upstream("api", &app.url(), "")
        .issuer(&issuer)
        .route("/events", &format!("origins = [\"{APP}\", \"{EVIL}\"]"))
        .toml("[streams]\ncheck_interval = \"100ms\"");
    let gate = Gate::start(&settings);
    let open = |origin: &str| {
        let mut wire = gate.connect();
        wire.send(gate.get("/events").token(&issuer.good()).field("Origin", origin).bytes()).unwrap();
        assert_eq!(wire.head().unwrap().status, 200);
        wire
    };
    let (_kept, mut cut) = (open(APP), open(EVIL));
    testkit::eventually("both are open", || (app.listeners() == 2).then_some(()));
    settings.file("portcullis.toml", gate.settings.to_toml().replace(&format!(", \"{EVIL}\""), ""));
    assert!(cut.until(b"0\r\n\r\n").is_err(), "the stream is cut, not ended");
    testkit::eventually("one is left", || (app.listeners() == 1).then_some(()));
    let cut = gate.wait_for_metric("the cut is counted", |scrape| {
        let cut = scrape.sum("portcullis_streams_cut_total", &[("reason", "bad_origin")]);
        (cut > 0.0).then_some(cut)
    });
    assert_eq!(cut, 1.0, "the other one goes on");
}

/// A gate whose routes send CORS headers, in front of an upstream that sends them, too.
fn guarded(more: impl FnOnce(Settings) -> Settings) -> (Gate, RawUpstream, Issuer) {
    let upstream = RawUpstream::scripted(|exchange| {
        let fields = "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\n\
                      Access-Control-Expose-Headers: x-secret\r\nAccess-Control-Allow-Methods: DELETE\r\n\
                      X-Total: 7\r\nVary: Accept\r\n";
        exchange.answer("200 OK", fields, "ok")
    });
    let issuer = Issuer::new();
    let settings = Settings::plaintext().upstream("api", &upstream.url(), "").issuer(&issuer);
    (Gate::start(&more(settings)), upstream, issuer)
}

/// Holds docs/configuration.md, Settings: routes[].cors
#[test]
fn a_preflight_is_answered_without_a_token_for_the_route_that_the_request_would_meet() {
    let listed = format!("origins = [\"{APP}\", \"null\"]");
    let (gate, upstream, _issuer) = guarded(|settings| {
        settings
            .route("/deals/{*rest}", &format!("methods = [\"GET\", \"POST\"]\ncors = {{ {listed} }}"))
            .route("/deals/{*rest}", "methods = [\"DELETE\"]")
            .route("/any", &format!("cors = {{ {listed}, headers = [], max_age = \"0s\" }}"))
            .route("/some", &format!("cors = {{ {listed}, methods = [\"PUT\", \"PATCH\"] }}"))
            .route("/public", "cors = { origins = [\"*\"], headers = [\"X-One\"] }")
            .route("/cookies", "cors = { origins = [\"https://app.example\"], credentials = true }")
            .route("/nobody", "cors = { origins = [] }")
            .route("/both", &format!("origins = [\"{APP}\"]\ncors = {{ origins = [\"*\"] }}"))
            .route("/options", "methods = [\"OPTIONS\"]\nanonymous = true")
            .route("/options", &format!("methods = [\"GET\"]\ncors = {{ {listed} }}"))
            .route("/named", "hosts = [\"other.test\"]\ncors = { origins = [\"*\"] }")
            .route("/named", "")
    });
    let allowed = |origin: &str, methods: &str, headers: &str, age: u32| {
        let headers = if headers.is_empty() { String::new() } else { format!("allow-headers={headers}; ") };
        let vary = "vary=Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
        format!("{headers}allow-methods={methods}; allow-origin={origin}; max-age={age}; {vary}")
    };
    let usual = "authorization, content-type";
    let refused = || Err("bad_origin");
    let rows: &[(&str, &str, &str, Result<String, &str>)] = &[
        ("/deals/7", APP, "GET", Ok(allowed(APP, "GET, POST", usual, 600))),
        ("/deals", APP, "POST", Ok(allowed(APP, "GET, POST", usual, 600))),
        ("/%64eals/7?q=1", "null", "POST", Ok(allowed("null", "GET, POST", usual, 600))),
        ("/deals/7", EVIL, "GET", refused()),
        ("/any", APP, "REPORT", Ok(allowed(APP, "REPORT", "", 0))),
        ("/some", APP, "GET", Ok(allowed(APP, "PUT, PATCH", usual, 600))),
        ("/some", APP, "PUT", Ok(allowed(APP, "PUT, PATCH", usual, 600))),
        ("/public", EVIL, "GET", Ok(allowed("*", "GET", "x-one", 600))),
        ("/nobody", APP, "GET", refused()),
        ("/both", APP, "GET", Ok(allowed("*", "GET", usual, 600))),
        ("/both", EVIL, "GET", refused()),
        ("/options", APP, "GET", Ok(allowed(APP, "GET", usual, 600))),
        // A preflight that matches no route with CORS is handled like any request.
        ("/deals/7", APP, "DELETE", Err("401")),
        ("/deals/7", APP, "PUT", Err("401")),
        ("/nowhere", APP, "GET", Err("401")),
        ("/named", APP, "GET", Err("401")),
        ("/options", APP, "POST", Err("forwarded")),
        ("/deals/..", APP, "GET", Err("400")),
        ("/deals/7", APP, "GE T", Err("401")),
        ("/deals/7", APP, "", Err("401")),
    ];
    for (path, origin, method, expected) in rows {
        let before = upstream.count();
        let (answer, decided) = gate.decision(|| preflight(&gate, path, origin, method));
        let what = format!("{path} {origin} {method}: {} {}", answer.status(), answer.text());
        match expected {
            Ok(fields) => {
                assert_eq!((answer.status(), decided.as_str()), (204, "allow/none"), "{what}");
                assert_eq!(&cors(&answer), fields, "{what}");
                assert_eq!((answer.body.len(), answer.field("content-length")), (0, None), "{what}");
                let record = gate.record_of(answer.field("x-request-id").unwrap());
                assert_eq!(field(&record, "method"), Some("OPTIONS"), "{record}");
                assert_eq!(record["status"], 204, "{record}");
                assert_eq!(field(&record, "decision"), Some("allow"), "{record}");
                assert_eq!(field(&record, "upstream"), None, "{record}");
                assert_ne!(field(&record, "route"), Some("none"), "{record}");
            }
            Err("bad_origin") => {
                assert_eq!((answer.status(), decided.as_str()), (403, "deny/bad_origin"), "{what}");
                let vary = if *path == "/both" { "" } else { "vary=Origin" };
                assert_eq!(cors(&answer), vary, "{what}");
                assert_eq!(answer.json()["error"], "access_denied", "{what}");
            }
            Err("forwarded") => assert_eq!((answer.status(), upstream.count()), (200, before + 1), "{what}"),
            Err(status) => assert_eq!(answer.status().to_string(), *status, "{what}"),
        }
        assert_eq!(upstream.count() - before, usize::from(*expected == Err("forwarded")), "{what}");
    }
    let credentials = preflight(&gate, "/cookies", APP, "GET");
    assert_eq!(
        cors(&credentials),
        format!("allow-credentials=true; {}", allowed(APP, "GET", usual, 600)),
        "only where they are allowed"
    );
    let other_host = gate.request("OPTIONS", "/named").field("Host", "OTHER.test:8443");
    let other_host = other_host.field("Origin", EVIL).field("Access-Control-Request-Method", "GET").send();
    assert_eq!(other_host.status(), 204);
}

#[test]
fn an_options_request_that_is_no_preflight_is_judged_as_any_other() {
    let (gate, upstream, issuer) =
        guarded(|settings| settings.route("/{*rest}", &format!("cors = {{ origins = [\"{APP}\"] }}")));
    let ask = |fields: &[(&str, &str)]| {
        let request = gate.request("OPTIONS", "/x");
        fields.iter().fold(request, |request, (name, value)| request.field(name, value)).send()
    };
    let method = ("Access-Control-Request-Method", "GET");
    for fields in [
        &[("Origin", APP)][..],
        &[method],
        &[],
        &[("Origin", APP), method, ("Access-Control-Request-Method", "PUT")],
        &[("Origin", APP), ("Access-Control-Request-Headers", "authorization")],
    ] {
        let answer = ask(fields);
        assert_eq!((answer.status(), upstream.count()), (401, 0), "{fields:?}");
    }
    let with_token = gate.request("OPTIONS", "/x").token(&issuer.good()).field("Origin", APP).send();
    assert_eq!((with_token.status(), upstream.count()), (200, 1));
    // The method of a preflight is OPTIONS, whatever it asks about.
    let get = gate.get("/x").field("Origin", APP).field(method.0, method.1).send();
    assert_eq!((get.status(), upstream.count()), (401, 1));
}

#[test]
fn a_preflight_with_a_body_leaves_the_connection_in_order() {
    let (gate, _upstream, _issuer) =
        guarded(|settings| settings.route("/{*rest}", &format!("cors = {{ origins = [\"{APP}\"] }}")));
    let request = |length: usize| {
        let request = gate.request("OPTIONS", "/x").field("Origin", APP);
        request.field("Access-Control-Request-Method", "GET").body(vec![b'x'; length])
    };
    let mut wire = gate.connect();
    for _ in 0..3 {
        let answer = wire.exchange(request(1000).bytes()).unwrap();
        assert_eq!((answer.status(), answer.field("connection")), (204, None));
    }
    let expecting = request(1000).field("Expect", "100-continue").bytes();
    let answer = gate.connect().exchange(expecting).unwrap();
    assert_eq!((answer.status(), answer.field("connection")), (204, Some("close")));
}

#[test]
fn every_answer_of_the_gate_on_such_a_route_can_be_read_by_the_page() {
    let closed = testkit::ports::reserved();
    let (gate, upstream, issuer) = guarded(|settings| {
        let cors = format!("cors = {{ origins = [\"{APP}\"] }}");
        settings
            .limits("body_bytes = 100")
            .upstream("dead", &format!("http://{closed}"), "")
            .route("/deals", &cors)
            .route("/admin", &format!("scopes = [\"admin\"]\n{cors}"))
            .route("/listed", &format!("origins = [\"https://other.example\"]\n{cors}"))
            .route("/dead", &format!("upstream = \"dead\"\n{cors}"))
            .route("/plain", "")
            .route("/quiet", "cors = { origins = [\"https://app.example\"], expose = [] }")
    });
    let (good, old) =
        (issuer.good(), issuer.token().claim("exp", 1_000_000_000).claim("iat", 999_999_000).build());
    let from = |method: &str, path: &str, token: &str| {
        let request = gate.request(method, path).field("Origin", APP);
        if token.is_empty() { request } else { request.token(token) }
    };
    let long = "x".repeat(101);
    let rows = [
        (from("GET", "/deals", ""), 401, readable()),
        (from("GET", "/deals", &old), 401, readable()),
        (from("HEAD", "/deals", &old), 401, readable()),
        (from("GET", "/deals", "a b"), 400, readable()),
        (from("GET", "/deals?access_token=x", &good), 400, readable()),
        (from("GET", "/admin", &good), 403, readable()),
        (from("GET", "/listed", &good), 403, readable()),
        (from("GET", "/dead", &good), 502, readable()),
        (from("POST", "/deals", &good).body(&long), 413, readable()),
        (from("POST", "/deals", "").body(&long), 413, readable()),
        // A head that cannot be read has no route.
        (from("GET", "/deals", &good).field("Bad Name", "1"), 400, String::new()),
        (
            from("GET", "/quiet", ""),
            401,
            format!("allow-origin={APP}; expose-headers=www-authenticate; vary=Origin"),
        ),
        (from("GET", "/plain", ""), 401, String::new()),
        (from("GET", "/nowhere", ""), 401, String::new()),
        (from("GET", "/nowhere", &good), 403, String::new()),
        (gate.get("/deals").field("Origin", EVIL), 401, "vary=Origin".to_owned()),
        (gate.get("/deals"), 401, "vary=Origin".to_owned()),
    ];
    for (request, status, expected) in rows {
        let answer = request.send();
        let what = format!("{}: {}", String::from_utf8_lossy(&request.bytes()), answer.text());
        assert_eq!((answer.status(), cors(&answer)), (status, expected), "{what}");
    }
    assert_eq!(upstream.count(), 0);
    let expired = from("GET", "/deals", &old).send();
    assert!(expired.field("www-authenticate").unwrap().contains("expired"), "{:?}", expired.head);
    let grpc = from("POST", "/deals", "").field("Content-Type", "application/grpc-web").body("").send();
    assert_eq!(
        (grpc.field("grpc-status"), cors(&grpc)),
        (Some("16"), format!("allow-origin={APP}; {EXPOSED}, grpc-status, grpc-message; vary=Origin"))
    );
}

#[test]
fn an_answer_of_a_gate_at_its_limit_or_without_state_can_be_read_by_the_page() {
    let issuer = Issuer::new();
    let upstream = RawUpstream::scripted(|exchange| exchange.wait_for_close());
    let settings = Settings::plaintext()
        .limits("requests = 1")
        .upstream("api", &upstream.url(), "")
        .issuer(&issuer)
        .route("/deals", &format!("cors = {{ origins = [\"{APP}\"] }}"));
    let gate = Gate::start(&settings);
    let mut first = gate.connect();
    first.send(gate.get("/deals").token(&issuer.good()).bytes()).unwrap();
    upstream.wait_for(1);
    let answer = gate.get("/deals").field("Origin", APP).token(&issuer.good()).send();
    let expected = format!("allow-origin={APP}; {EXPOSED}, retry-after; vary=Origin");
    assert_eq!((answer.status(), cors(&answer)), (503, expected));
}

#[test]
fn what_an_upstream_says_about_cors_is_replaced_and_only_there() {
    let (gate, _upstream, issuer) = guarded(|settings| {
        settings
            .route("/deals", &format!("cors = {{ origins = [\"{APP}\"], expose = [\"X-Total\"] }}"))
            .route("/cookies", &format!("cors = {{ origins = [\"{APP}\"], credentials = true }}"))
            .route("/public", "anonymous = true\ncors = { origins = [\"*\"], expose = [] }")
            .route(
                "/observed",
                &format!("mode = \"shadow\"\nscopes = [\"x\"]\ncors = {{ origins = [\"{APP}\"] }}"),
            )
            .route("/plain", "")
    });
    let theirs =
        "allow-credentials=true; allow-methods=DELETE; allow-origin=*; expose-headers=x-secret; vary=Accept";
    let unreadable = "vary=Accept; vary=Origin".to_owned();
    let rows = [
        ("/deals", Some(APP), format!("allow-origin={APP}; expose-headers=x-total; {unreadable}")),
        ("/deals", Some(EVIL), unreadable.clone()),
        ("/deals", None, unreadable.clone()),
        (
            "/cookies",
            Some(APP),
            format!("allow-credentials=true; allow-origin={APP}; {EXPOSED}; {unreadable}"),
        ),
        ("/cookies", Some(EVIL), unreadable.clone()),
        ("/public", Some(EVIL), "allow-origin=*; vary=Accept".to_owned()),
        ("/public", None, "allow-origin=*; vary=Accept".to_owned()),
        ("/observed", Some(APP), format!("allow-origin={APP}; {EXPOSED}; {unreadable}")),
        ("/plain", Some(APP), theirs.to_owned()),
    ];
    for (path, origin, expected) in rows {
        let request = gate.get(path).token(&issuer.good());
        let request = origin.iter().fold(request, |request, origin| request.field("Origin", origin));
        let answer = request.send();
        assert_eq!((answer.status(), cors(&answer)), (200, expected), "{path} {origin:?}");
        assert_eq!(answer.field("x-total"), Some("7"));
    }
}

#[test]
fn browsers_are_answered_in_the_same_way_over_http_2() {
    block_on(async {
        let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
        let settings = Settings::tls()
            .limits("headers = 10")
            .upstream("api", &app.url(), "")
            .issuer(&issuer)
            .route("/listed", &format!("origins = [\"{APP}\"]"))
            .route("/deals", &format!("methods = [\"GET\"]\ncors = {{ origins = [\"{APP}\"] }}"));
        let gate = Gate::start(&settings);
        let mut client = H2Client::connect(&gate).await;
        let request = |method: &str, path: &str, fields: &[(&str, &str)]| {
            let request = Request::builder().method(method).uri(format!("https://api.test{path}"));
            let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
            request.body(empty()).unwrap()
        };
        let bearer = format!("Bearer {}", issuer.good());
        let token = ("authorization", bearer.as_str());
        let asked = ("access-control-request-method", "GET");
        let many: Vec<_> = (0..10).map(|_| ("x-many", "1")).chain([("origin", APP)]).collect();
        for (request, status, allowed) in [
            (request("GET", "/listed", &[token, ("origin", APP)]), 200, None),
            (request("GET", "/listed", &[token, ("origin", EVIL)]), 403, None),
            (request("GET", "/listed", &[token, ("origin", APP), ("origin", EVIL)]), 403, None),
            (request("OPTIONS", "/deals", &[asked, ("origin", APP)]), 204, Some(APP)),
            (request("OPTIONS", "/deals", &[asked, ("origin", EVIL)]), 403, None),
            (request("GET", "/deals", &[("origin", APP)]), 401, Some(APP)),
            (request("GET", "/deals", &[("origin", APP), token]), 200, Some(APP)),
            (request("GET", "/deals", &many), 431, Some(APP)),
        ] {
            let what = format!("{request:?}");
            let answer = client.exchange(request).await.unwrap();
            let found = answer.head.headers.get("access-control-allow-origin");
            let found = found.map(|value| value.to_str().unwrap());
            assert_eq!((answer.status(), found), (status, allowed), "{what}");
        }
    });
}

#[test]
fn a_preflight_of_an_mcp_page_needs_no_fields_of_mcp() {
    let (gate, upstream, issuer) = guarded(|settings| {
        let cors =
            format!("cors = {{ origins = [\"{APP}\"], headers = [\"authorization\", \"mcp-method\"] }}");
        settings
            .route("/mcp", &format!("mcp_methods = [\"tools/list\"]\n{cors}"))
            .route("/mcp", &format!("mcp_methods = [\"tools/call\"]\nscopes = [\"call\"]\n{cors}"))
    });
    let answer = preflight(&gate, "/mcp", APP, "POST");
    assert_eq!(
        (answer.status(), answer.field("access-control-allow-headers")),
        (204, Some("authorization, mcp-method"))
    );
    let call =
        |origin: &str| gate.request("POST", "/mcp").token(&issuer.good()).field("Origin", origin).body("");
    let bad = call(APP).send();
    assert_eq!((bad.status(), cors(&bad)), (400, readable()), "no fields of MCP: {}", bad.text());
    let call =
        |method: &str| call(APP).field("MCP-Protocol-Version", "2026-07-28").field("Mcp-Method", method);
    assert_eq!(call("tools/list").send().status(), 200);
    let denied = call("tools/call").field("Mcp-Name", "x").send();
    assert_eq!((denied.status(), cors(&denied), upstream.count()), (403, readable(), 1));
}

#[test]
fn a_reload_changes_whose_pages_may_read() {
    let (gate, _upstream, _issuer) =
        guarded(|settings| settings.route("/deals", &format!("cors = {{ origins = [\"{APP}\"] }}")));
    assert_eq!(preflight(&gate, "/deals", EVIL, "GET").status(), 403);
    gate.settings.file("portcullis.toml", gate.settings.to_toml().replace(APP, EVIL));
    gate.wait_for_reloads("ok", 1.0);
    testkit::eventually("the worker has seen the new configuration", || {
        (preflight(&gate, "/deals", EVIL, "GET").status() == 204).then_some(())
    });
    assert_eq!(preflight(&gate, "/deals", APP, "GET").status(), 403);
    gate.settings.file("portcullis.toml", gate.settings.to_toml().replace("cors = ", "#"));
    gate.wait_for_reloads("ok", 2.0);
    testkit::eventually("the worker has seen the newest configuration", || {
        (preflight(&gate, "/deals", EVIL, "GET").status() == 401).then_some(())
    });
}

/// Runs docs/policy.md: path = "/transfers"
/// Runs docs/policy.md: path = "/orders/{*rest}"
#[test]
fn the_blocks_for_browsers_do_what_the_page_says() {
    let blocks =
        ["path = \"/transfers\"", "path = \"/orders/{*rest}\""].map(|named| block("docs/policy.md", named));
    let (gate, upstream, issuer) = guarded(|settings| settings.toml(&blocks.concat()));
    let app = "https://app.example.com";
    let from =
        |origin: &str| gate.get("/transfers").token(&issuer.good()).field("Origin", origin).send().status();
    assert_eq!((from(app), from(EVIL), upstream.count()), (200, 403, 1));
    assert_eq!(preflight(&gate, "/orders/7", "http://localhost:5173", "POST").status(), 204);
    assert_eq!(preflight(&gate, "/orders/7", EVIL, "POST").status(), 403);
    let rejected = gate.get("/orders/7").token(&issuer.good()).field("Origin", app).send();
    assert_eq!(
        (rejected.status(), rejected.field("access-control-allow-origin")),
        (403, Some(app)),
        "a scope is missing"
    );
    let exposed = rejected.field("access-control-expose-headers");
    assert_eq!(exposed, Some("www-authenticate, x-request-id, x-total-count"));
}

#[test]
fn explain_names_the_origins_that_a_route_lists() {
    let (gate, _upstream, issuer) = guarded(|settings| {
        settings.admin().route("/listed", &format!("origins = [\"{APP}\", \"null\"]")).route("/any", "")
    });
    for (path, expected) in [
        ("/listed", r#"Origin is absent; listed: "https://app.example", "null""#),
        ("/any", "Origin is absent; the route accepts every origin"),
    ] {
        let asked = json!({"token": issuer.good(), "method": "GET", "path": path});
        let explained = gate.operate("POST", "/v1/explain", Some(&asked)).json();
        let checks = explained["checks"].as_array().unwrap();
        let origin = checks.iter().find(|made| made["check"] == "origin").unwrap();
        assert_eq!((&origin["ok"], &origin["detail"]), (&json!(true), &json!(expected)));
        let configuration = gate.settings.folder().join("portcullis.toml");
        let header = format!("Origin: {EVIL}");
        let told = portcullis(&[
            "explain",
            "--config",
            path_text(&configuration),
            "--path",
            path,
            "--header",
            &header,
            &issuer.good(),
        ]);
        assert_eq!(told.out.contains("denied: bad_origin"), path == "/listed", "{}", told.out);
        assert!(told.out.contains(&format!("Origin is \"{EVIL}\"")), "{}", told.out);
    }
}
