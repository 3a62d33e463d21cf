//! MCP requests by their header fields alone: which route they match, which are rejected, and what keeps the
//! token of a stream in use. Real clients are tested in `mcp_clients`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use testkit::app::{App, Speaks};
use testkit::eventually;
use testkit::gate::{Gate, path_text, portcullis};
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use testkit::wire::Wire;

/// A route of `/mcp` for these methods and names.
fn tools(settings: Settings, methods: &str, names: &str, lines: &str) -> Settings {
    let names = if names.is_empty() { String::new() } else { format!("mcp_names = [{names}]\n") };
    settings.route("/mcp", &format!("methods = [\"POST\"]\nmcp_methods = [{methods}]\n{names}{lines}"))
}

fn settings(app: &App, issuer: &Issuer) -> Settings {
    let settings = Settings::plaintext().upstream("api", &app.url(), "").issuer(issuer).admin();
    let settings = tools(settings, "\"tools/list\", \"server/discover\"", "", "");
    let settings = tools(settings, "\"tools/call\"", "\"read_*\"", "scopes = [\"read\"]");
    let settings = tools(
        settings,
        "\"tools/call\"",
        "\"read_secrets\", \"close_deal\"",
        "scopes = [\"read\", \"admin\"]",
    );
    // A path that no tool has, and everything else.
    settings.route("/mcp", "methods = [\"GET\"]\nanonymous = true").route("/{*rest}", "")
}

fn scene() -> (App, Issuer, Gate) {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let gate = Gate::start(&settings(&app, &issuer));
    (app, issuer, gate)
}

/// Holds docs/configuration.md, Settings: routes[].mcp_methods, .mcp_names
#[test]
fn each_tool_has_its_scopes_and_what_is_not_listed_is_denied() {
    let (app, issuer, gate) = scene();
    let token = issuer.token().claim("scope", "read").build();
    let admin = issuer.token().claim("scope", "read admin").build();
    for (token, method, name, status, reason) in [
        (&token, "tools/list", None, 200, "allow/none"),
        (&token, "server/discover", None, 200, "allow/none"),
        (&token, "tools/call", Some("read_deals"), 200, "allow/none"),
        (&token, "tools/call", Some("=?base64?cmVhZF9kZWFscw==?="), 200, "allow/none"),
        (&token, "tools/call", Some("read_secrets"), 403, "deny/insufficient_scope"),
        (&token, "tools/call", Some("=?base64?cmVhZF9zZWNyZXRz?="), 403, "deny/insufficient_scope"),
        (&token, "tools/call", Some("close_deal"), 403, "deny/insufficient_scope"),
        (&admin, "tools/call", Some("close_deal"), 200, "allow/none"),
        (&admin, "tools/call", Some("read_secrets"), 200, "allow/none"),
        // Compared with case, and never on another route: not on that of the path for any request, nor on that of all.
        (&admin, "tools/call", Some("Close_deal"), 403, "deny/no_route"),
        (&admin, "tools/call", Some("delete_deal"), 403, "deny/no_route"),
        (&admin, "tools/call", Some(""), 403, "deny/no_route"),
        (&admin, "Tools/Call", Some("close_deal"), 403, "deny/no_route"),
        (&admin, "prompts/get", Some("read_deals"), 403, "deny/no_route"),
        (&admin, "initialize", None, 403, "deny/no_route"),
    ] {
        let request = gate.request("POST", "/mcp").token(token).field("MCP-Protocol-Version", "2026-07-28");
        let request = request.field("Mcp-Method", method);
        let request = name.map_or(request.clone(), |name| request.field("Mcp-Name", name));
        let (answer, decision) = gate.decision(|| request.body("{}").send());
        assert_eq!((answer.status(), decision.as_str()), (status, reason), "{method} {name:?}");
        if reason == "deny/insufficient_scope" {
            let challenge = answer.field("www-authenticate").unwrap();
            assert!(challenge.contains(r#"scope="read admin""#), "all at once: {challenge}");
        }
    }
    // The fields reach the server, which compares them with the body.
    let last = app.last();
    assert_eq!(
        (last.field("mcp-method"), last.field("mcp-name")),
        (Some("tools/call"), Some("read_secrets"))
    );
    let respelled = gate.request("POST", "/mcp").token(&token).field("MCP-Protocol-Version", "2026-07-28");
    let respelled = respelled.field("Mcp-Method", "tools/list").field("Mcp_Method", "tools/call");
    assert_eq!(respelled.field("mcp_name", "close_deal").body("{}").send().status(), 200);
    let last = app.last();
    assert_eq!((last.field("mcp-method"), last.field("mcp_method")), (Some("tools/list"), None));
    assert_eq!(last.field("mcp_name"), None, "an upstream could take it for the real one");
    assert_eq!(gate.get("/mcp").send().status(), 200, "no MCP request, by its method");
    assert_eq!(gate.request("POST", "/mcp/x").token(&token).send().status(), 200, "another path");
}

/// Holds docs/concepts.md, What a request meets: an MCP request that does not name its method, or of a protocol revision before 2026-07-28
#[test]
fn mcp_requests_that_cannot_be_decided_by_their_fields_are_rejected_before_a_token_is_looked_at() {
    let (app, issuer, gate) = scene();
    let admin = issuer.token().claim("scope", "read admin").build();
    let (version, method) = (("MCP-Protocol-Version", "2026-07-28"), ("Mcp-Method", "tools/call"));
    let name = ("Mcp-Name", "read_deals");
    for fields in [
        &[][..],
        &[version],
        &[version, name],
        &[method, name],
        &[version, method],
        &[version, ("Mcp-Method", ""), name],
        &[("MCP-Protocol-Version", "2025-11-25"), method, name],
        &[("MCP-Protocol-Version", "2026-07-27"), method, name],
        &[("MCP-Protocol-Version", "next"), method, name],
        &[("MCP-Protocol-Version", ""), method, name],
        &[("MCP-Protocol-Version", "2026-02-40"), method, name],
        &[version, version, method, name],
        &[version, method, method, name],
        &[version, method, name, name],
        &[version, method, name, ("Mcp-Name", "close_deal")],
        &[version, method, ("Mcp-Name", "=?base64?cmVhZF9kZWFscw=?=")],
        &[version, method, ("Mcp-Name", "=?base64?cmVhZF9kZWFscw==")],
        &[version, method, ("Mcp-Name", "=?base64?/w==?=")],
        &[version, method, ("Mcp-Name", "=?base64?cmVhZAo=?=")],
        &[version, method, ("Mcp-Name", "=?Base64?cmVhZA==?=")],
        &[version, method, ("Mcp-Name", "read_dé")],
    ] {
        for token in [Some(&admin), None] {
            let request = gate.request("POST", "/mcp");
            let request = token.map_or(request.clone(), |token| request.token(token));
            let request = fields.iter().fold(request, |request, (name, value)| request.field(name, value));
            let (answer, decision) = gate.decision(|| request.body("{}").send());
            assert_eq!((answer.status(), decision.as_str()), (400, "deny/malformed"), "{fields:?}");
            assert_eq!(answer.json()["error"], "invalid_request", "{fields:?}");
            assert_eq!(answer.field("www-authenticate"), None, "{fields:?}");
        }
    }
    assert!(app.arrived().is_empty(), "{:?}", app.arrived());
    let good = [("MCP-Protocol-Version", "2027-01-15"), method, name];
    let request = good.iter().fold(gate.request("POST", "/mcp").token(&admin), |request, (name, value)| {
        request.field(name, value)
    });
    assert_eq!(request.body("{}").send().status(), 200, "a later revision");
}

#[test]
fn explain_tells_what_a_request_with_header_fields_meets() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let settings = settings(&app, &issuer);
    let config = settings.write();
    let token = issuer.token().claim("scope", "read").build();
    let explain = |fields: &[&str]| {
        let mut arguments =
            vec!["explain", "--config", path_text(&config), "--method", "POST", "--path", "/mcp"];
        fields.iter().for_each(|field| arguments.extend(["--header", field]));
        arguments.push(&token);
        portcullis(&arguments)
    };
    let version = "MCP-Protocol-Version: 2026-07-28";
    for (fields, code, said) in [
        (
            &[version, "Mcp-Method: tools/call", "Mcp-Name: read_deals"][..],
            0,
            "Mcp-Method \"tools/call\", Mcp-Name \"read_deals\"",
        ),
        (&[version, "Mcp-Method: tools/call", "mcp-name:close_deal"], 1, "denied: insufficient_scope"),
        (&[version, "Mcp-Method: tools/call", "Mcp-Name: other"], 1, "denied: no_route"),
        (&[version, "Mcp-Method: tools/call"], 1, "the header Mcp-Name is missing"),
        (&["Mcp-Method: tools/list"], 1, "the header MCP-Protocol-Version is missing"),
        (
            &[version, "Mcp-Method: tools/list", "Mcp-Method: tools/list"],
            1,
            "the header Mcp-Method is repeated",
        ),
        (&["MCP-Protocol-Version: 2025-11-25", "Mcp-Method: tools/list"], 1, "is earlier than 2026-07-28"),
        (&[], 1, "denied: malformed"),
    ] {
        let told = explain(fields);
        assert_eq!(told.code, code, "{fields:?} {told:?}");
        assert!(told.out.contains(said), "{fields:?} {}", told.out);
    }
    for field in ["no colon", "b ad: x", "Authorization: Bearer x", "x: a\nb"] {
        assert_eq!(explain(&[field]).code, 2, "{field}");
    }
    let gate = Gate::start(&settings);
    for (headers, reason) in [
        (
            json!({"Mcp-Method": "tools/call", "Mcp-Name": "read_deals", "MCP-Protocol-Version": "2026-07-28"}),
            json!(null),
        ),
        (
            json!({"Mcp-Method": ["tools/call"], "Mcp-Name": "close_deal", "MCP-Protocol-Version": "2026-07-28"}),
            json!("insufficient_scope"),
        ),
        (
            json!({"Mcp-Method": ["tools/call", "tools/list"], "MCP-Protocol-Version": "2026-07-28"}),
            json!("malformed"),
        ),
        (json!({}), json!("malformed")),
    ] {
        let question = json!({"token": token, "method": "POST", "path": "/mcp", "headers": headers});
        let told = gate.operate("POST", "/v1/explain", Some(&question));
        assert_eq!((told.status(), &told.json()["reason"]), (200, &reason), "{headers}");
    }
    for headers in [json!({"a b": "x"}), json!({"x": "a\nb"}), json!({"x": 1}), json!([])] {
        let question = json!({"token": token, "path": "/mcp", "headers": headers});
        assert_eq!(gate.operate("POST", "/v1/explain", Some(&question)).status(), 400, "{headers}");
    }
}

#[test]
fn a_stream_of_an_mcp_request_is_judged_again_by_its_fields() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let base = Settings::plaintext()
        .upstream("api", &app.url(), "")
        .issuer(&issuer)
        .admin()
        .toml("[streams]\ncheck_interval = \"100ms\"\n");
    let route = |names: &str| {
        base.clone().route("/events", &format!("mcp_methods = [\"tools/call\"]\nmcp_names = [{names}]"))
    };
    let gate = Gate::start(&route("\"watch\", \"other\""));
    let token = issuer.good();
    let listen = || {
        let mut wire = gate.connect();
        let request = gate.get("/events").token(&token).field("MCP-Protocol-Version", "2026-07-28");
        wire.send(request.field("Mcp-Method", "tools/call").field("Mcp-Name", "watch").bytes()).unwrap();
        assert_eq!(wire.head().unwrap().status, 200);
        wire
    };
    let mut wire = listen();
    let reload = |settings: Settings| {
        gate.settings.file("portcullis.toml", settings.to_toml());
        assert_eq!(gate.operate("POST", "/v1/reload", None).status(), 200);
    };
    reload(route("\"watch\""));
    let began = Instant::now();
    eventually("it goes on under another configuration that allows it", || {
        app.emit("tick");
        assert_eq!(wire.chunk().unwrap().unwrap(), b"data: tick\n\n");
        (began.elapsed() > Duration::from_secs(1)).then_some(())
    });
    reload(route("\"other\""));
    while let Ok(chunk) = wire.chunk() {
        assert!(chunk.is_some(), "ended in order");
    }
    gate.wait_for_metric("the cut is counted", |_| (gate.cuts("no_route") > 0.5).then_some(()));
}

/// Holds docs/configuration.md, Settings: routes[].idle_counts
#[test]
fn what_counts_as_use_of_a_stream_is_the_routes_to_say() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let mut settings = Settings::plaintext().upstream("api", &app.url(), "").issuer(&issuer).admin();
    for counts in ["any", "client", "request"] {
        let lines = format!("hosts = [\"{counts}.test\"]\nidle_counts = \"{counts}\"");
        settings = settings.route("/{*rest}", &lines);
    }
    let gate = Gate::start(
        &settings.toml("[sessions]\nidle_timeout = \"3s\"\n[streams]\ncheck_interval = \"100ms\"\n"),
    );
    let open = |counts: &str, method: &str, path: &str| {
        let token = issuer.good();
        let request = gate.request(method, path).field("Host", &format!("{counts}.test")).token(&token);
        let request = if method == "POST" { request.field("Transfer-Encoding", "chunked") } else { request };
        let mut wire = gate.connect();
        wire.send(request.bytes()).unwrap();
        (counts.to_owned(), token, wire)
    };
    // Keep-alives from the server, on all three; and from the client, on all three.
    let down = ["any", "client", "request"].map(|counts| open(counts, "GET", "/events"));
    let mut up = ["any", "client", "request"].map(|counts| open(counts, "POST", "/anything"));
    let mut heads: Vec<_> = down
        .into_iter()
        .map(|(counts, token, mut wire)| {
            assert_eq!(wire.head().unwrap().status, 200);
            (counts, token, wire)
        })
        .collect();
    let began = Instant::now();
    eventually("the tokens have been in use for long", || {
        app.emit("ping");
        up.iter_mut().for_each(|(.., wire)| drop(wire.send("4\r\nmore\r\n")));
        (began.elapsed() > Duration::from_secs(6)).then_some(())
    });
    let verdicts = |streams: &[(String, String, Wire)]| -> Vec<Value> {
        let question = |counts: &str, token: &str| {
            let question = json!({"token": token, "path": "/anything", "host": format!("{counts}.test")});
            gate.operate("POST", "/v1/explain", Some(&question)).json()["reason"].clone()
        };
        streams.iter().map(|(counts, token, _)| question(counts, token)).collect()
    };
    assert_eq!(verdicts(&heads), [json!(null), json!("idle"), json!("idle")]);
    assert_eq!(verdicts(&up), [json!(null), json!(null), json!("idle")]);
    // Idle streams are ended, the others continue.
    gate.wait_for_metric("three are cut", |_| (gate.cuts("idle") > 2.5).then_some(()));
    assert!(gate.cuts("idle") < 3.5);
    let (.., last) = &mut heads[0];
    app.emit("still");
    last.until(b"still").unwrap();
}
