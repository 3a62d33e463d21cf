//! Protected resources: the metadata that clients find without a token, the challenges that lead there, and
//! tokens for one resource that are invalid for another. The rows are mistakes of other gates.

use serde_json::{Value, json};

use testkit::app::{App, Speaks};
use testkit::gate::{Gate, check, path_text, portcullis};
use testkit::issuer::{Answer as KeyAnswer, KeyServer, Source};
use testkit::settings::Settings;
use testkit::tokens::Issuer;

const MCP: &str = "https://api.example.com/mcp";
const ADMIN: &str = "https://api.example.com/mcp/admin";
const ROOT: &str = "https://api.example.com/v1/";
const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

const RESOURCES: &str = r#"
[[resources]]
name = "mcp"
path = "/mcp"
url = "https://api.example.com/mcp"
title = "Deal tools"
documentation = "https://docs.example.com/tools#start"

[[resources]]
name = "admin"
path = "/mcp/admin"
url = "https://api.example.com/mcp/admin"
authorization_servers = ["https://login.example.com/tenant/"]
scopes = ["admin"]
require_audience = false

[[resources]]
name = "root"
path = "/"
url = "https://api.example.com/v1/"
"#;

fn settings(app: &App, issuer: &Issuer) -> Settings {
    Settings::plaintext()
        .upstream("api", &app.url(), "")
        .issuer(issuer)
        .route("/mcp", "scopes = [\"tools\"]\nany_scope = [\"read\", \"offline_access\"]")
        .route("/mcp/admin/{*rest}", "scopes = [\"admin\", \"audit\"]")
        .route("/mcp/roles", "roles = [\"editor\"]")
        .route("/free/{*rest}", "")
        .route("/open", "anonymous = true")
        .admin()
}

fn scene() -> (App, Issuer, Gate) {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let gate = Gate::start(&settings(&app, &issuer).toml(RESOURCES));
    (app, issuer, gate)
}

/// Holds docs/configuration.md, Settings: resources[].name, .path, .url
/// Holds docs/configuration.md, Settings: resources[].authorization_servers, .scopes, .title, .documentation
#[test]
fn the_metadata_of_each_resource_is_served_without_a_token_where_its_url_says() {
    let (app, issuer, gate) = scene();
    let mcp = json!({
        "resource": MCP,
        "authorization_servers": [issuer.name],
        "scopes_supported": ["tools", "read"],
        "bearer_methods_supported": ["header"],
        "resource_name": "Deal tools",
        "resource_documentation": "https://docs.example.com/tools#start",
    });
    let admin = json!({
        "resource": ADMIN,
        "authorization_servers": ["https://login.example.com/tenant/"],
        "scopes_supported": ["admin"],
        "bearer_methods_supported": ["header"],
    });
    let root = json!({
        "resource": ROOT, "authorization_servers": [issuer.name], "bearer_methods_supported": ["header"],
    });
    for (path, document) in [
        ("/mcp", &mcp),
        ("/%6dcp", &mcp),
        ("/mcp?x=1", &mcp),
        ("/mcp/admin", &admin),
        ("/v1/", &root),
        // A resource that has the host for itself is looked for here.
        ("", &root),
    ] {
        let target = format!("{WELL_KNOWN}{path}");
        // What a request says of hosts and schemes changes nothing, nor does what it says of a token.
        for fields in [
            &[][..],
            &[("Host", "evil.test"), ("X-Forwarded-Host", "evil.test"), ("X-Forwarded-Proto", "http")],
            &[("Authorization", "Bearer nonsense")],
        ] {
            let request = |method| {
                fields
                    .iter()
                    .fold(gate.request(method, &target), |request, (name, value)| request.field(name, value))
            };
            let answer = request("GET").send();
            assert_eq!((answer.status(), &answer.json()), (200, document), "{target} {fields:?}");
            assert_eq!(answer.field("content-type"), Some("application/json"));
            assert_eq!(answer.field("access-control-allow-origin"), Some("*"));
            assert_eq!(answer.field("www-authenticate"), None);
            assert!(answer.field("cache-control").unwrap().contains("max-age"));
            let mut wire = gate.connect();
            wire.send(request("HEAD").bytes()).unwrap();
            let head = wire.answer_to(true).unwrap();
            assert_eq!((head.status(), head.body.len()), (200, 0), "{target}");
            assert_eq!(head.field("content-length"), Some(&*answer.body.len().to_string()), "{target}");
        }
    }
    for path in ["/", "/MCP", "/mcp/", "/mcp/other", "/v1", "x", "/admin"] {
        assert_eq!(gate.get(&format!("{WELL_KNOWN}{path}")).send().status(), 401, "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
        let answer = gate.request(method, &format!("{WELL_KNOWN}/mcp")).body("x").send();
        assert_eq!((answer.status(), answer.field("allow")), (405, Some("GET, HEAD")), "{method}");
        assert_eq!(answer.json()["error"], "method_not_allowed", "{method}");
    }
    let preflight = gate
        .request("OPTIONS", &format!("{WELL_KNOWN}/mcp"))
        .field("Origin", "https://inspector.example.com")
        .field("Access-Control-Request-Method", "GET")
        .field("Access-Control-Request-Headers", "mcp-protocol-version")
        .send();
    assert_eq!((preflight.status(), preflight.field("access-control-allow-headers")), (204, Some("*")));
    assert_eq!(preflight.field("access-control-allow-origin"), Some("*"));
    assert!(app.arrived().is_empty(), "no upstream is asked");
    let counted = [("route", WELL_KNOWN), ("method", "GET"), ("status", "200")];
    assert!((gate.metrics().sum("portcullis_requests_total", &counted) - 18.0).abs() < 0.1);
}

#[test]
fn challenges_lead_to_the_metadata_and_name_all_scopes_of_the_route() {
    let (_app, issuer, gate) = scene();
    let metadata = |path: &str| format!(r#"resource_metadata="https://api.example.com{WELL_KNOWN}{path}""#);
    let (mcp, admin) = (metadata("/mcp"), metadata("/mcp/admin"));
    let expired =
        issuer.token().claim("aud", json!([issuer.audience, MCP])).claim("exp", 1_000_000_000).build();
    let bare = issuer.token().claim("aud", json!([issuer.audience, MCP, ROOT])).claim("scope", "").build();
    let realm = r#"Bearer realm="portcullis""#;
    let invalid = |why: &str| format!(r#"{realm}, error="invalid_token", error_description="{why}""#);
    let lacks = |what: &str| {
        format!(
            r#"{realm}, error="insufficient_scope", error_description="The access token lacks a required {what}""#
        )
    };
    for (path, token, status, challenge) in [
        // Nothing presented: no error (RFC 6750 §3.1), and all that is needed at once.
        ("/mcp", None, 401, Some(format!(r#"{realm}, scope="tools read offline_access", {mcp}"#))),
        ("/mcp/admin/x", None, 401, Some(format!(r#"{realm}, scope="admin audit", {admin}"#))),
        ("/mcp/roles", None, 401, Some(format!("{realm}, {mcp}"))),
        ("/free/x", None, 401, Some(format!("{realm}, {}", metadata("/v1/")))),
        (
            "/mcp",
            Some("nonsense"),
            401,
            Some(format!(
                r#"{}, scope="tools read offline_access", {mcp}"#,
                invalid("The access token is not valid")
            )),
        ),
        (
            "/mcp",
            Some(expired.as_str()),
            401,
            Some(format!(
                r#"{}, scope="tools read offline_access", {mcp}"#,
                invalid("The access token has expired")
            )),
        ),
        (
            "/mcp",
            Some(bare.as_str()),
            403,
            Some(format!(r#"{}, scope="tools read offline_access", {mcp}"#, lacks("scope"))),
        ),
        (
            "/mcp/admin/x",
            Some(bare.as_str()),
            403,
            Some(format!(r#"{}, scope="admin audit", {admin}"#, lacks("scope"))),
        ),
        ("/mcp/roles", Some(bare.as_str()), 403, Some(format!("{}, {mcp}", lacks("role")))),
        // A new token would not help, or there is no route whose resource could be named.
        ("/nowhere", Some(bare.as_str()), 403, None),
        ("/nowhere", None, 401, Some(realm.to_owned())),
    ] {
        let request = gate.get(path);
        let answer = token.map_or(request.clone(), |token| request.token(token)).send();
        assert_eq!(answer.status(), status, "{path} {}", answer.text());
        assert_eq!(answer.field("www-authenticate").map(str::to_owned), challenge, "{path}");
    }
    let twice = gate.get("/mcp").token(&bare).token(&bare).send();
    assert_eq!(twice.status(), 400);
    assert!(!twice.field("www-authenticate").unwrap().contains("resource_metadata"));
    let http2 = gate.get("/mcp").field("Host", "evil.test").send();
    assert!(http2.field("www-authenticate").unwrap().contains(&mcp), "never made from Host");
}

#[test]
fn what_no_token_can_mend_has_no_challenge() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let broken = Issuer::named("https://broken.example.com/");
    let keys = KeyServer::start(broken.jwks());
    keys.set(KeyAnswer::HangUp);
    let settings = settings(&app, &issuer).issuer_from(&broken, &Source::Url(keys.jwks_url()), "");
    let gate = Gate::start(&settings.toml(RESOURCES));
    let answer =
        gate.get("/mcp").token(&broken.token().claim("aud", json!([broken.audience, MCP])).build()).send();
    assert_eq!((answer.status(), answer.field("www-authenticate")), (503, None));
    assert!(answer.field("retry-after").is_some());
}

/// Holds docs/configuration.md, Settings: resources[].require_audience
#[test]
fn routes_of_a_resource_accept_only_tokens_with_its_url_in_aud() {
    let (_app, issuer, gate) = scene();
    let all = "tools read admin audit";
    let token =
        |aud: Value| issuer.token().claim("aud", aud).claim("scope", all).claim("roles", ["editor"]).build();
    let own = issuer.audience.as_str();
    for (aud, mcp, admin, free) in [
        (json!([own, MCP]), 200, 200, 401),
        (json!([MCP, own]), 200, 200, 401),
        (json!([own, MCP, ROOT]), 200, 200, 200),
        (json!(own), 401, 200, 401),
        (json!([own, ADMIN]), 401, 200, 401),
        // Compared byte by byte, in addition to the issuer's own rule.
        (json!([own, "https://api.example.com/mcp/"]), 401, 200, 401),
        (json!([own, "https://API.example.com/mcp"]), 401, 200, 401),
        (json!(MCP), 401, 401, 401),
        (json!([own, "https://api.example.com/mcp\0"]), 401, 200, 401),
    ] {
        let token = token(aud.clone());
        for (path, status) in [("/mcp", mcp), ("/mcp/roles", mcp), ("/mcp/admin/x", admin), ("/free/x", free)]
        {
            // The second comes from the cache.
            for _ in 0..2 {
                assert_eq!(gate.get(path).token(&token).send().status(), status, "{path} {aud}");
            }
        }
    }
    let (answer, decision) = gate.decision(|| gate.get("/mcp").token(&token(json!(own))).send());
    assert_eq!(decision, "deny/wrong_audience");
    assert_eq!(answer.json()["error_description"], "The access token is not valid");
    let question = json!({"token": token(json!(own)), "path": "/mcp"});
    let told = gate.operate("POST", "/v1/explain", Some(&question)).json();
    let resource =
        told["checks"].as_array().unwrap().iter().find(|check| check["check"] == "resource").unwrap();
    assert_eq!(resource["ok"], false, "{told}");
    assert!(resource["detail"].as_str().unwrap().contains(MCP), "{resource}");
}

#[test]
fn resources_follow_a_reload() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let before = settings(&app, &issuer);
    let gate = Gate::start(&before);
    let target = format!("{WELL_KNOWN}/mcp");
    assert_eq!(gate.get(&target).send().status(), 401, "there is no resource");
    let token = issuer.token().claim("scope", "tools read").build();
    assert_eq!(gate.get("/mcp").token(&token).send().status(), 200);
    gate.settings.file("portcullis.toml", before.clone().toml(RESOURCES).to_toml());
    assert_eq!(gate.operate("POST", "/v1/reload", None).status(), 200);
    assert_eq!(gate.get(&target).send().json()["resource"], MCP);
    assert_eq!(gate.get("/mcp").token(&token).send().status(), 401, "not issued for the resource");
    gate.settings.file("portcullis.toml", before.to_toml());
    assert_eq!(gate.operate("POST", "/v1/reload", None).status(), 200);
    assert_eq!(gate.get(&target).send().status(), 401);
    assert_eq!(gate.get("/mcp").token(&token).send().status(), 200);
}

#[test]
fn check_lists_resources_and_where_their_metadata_is() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let outcome = check(&settings(&app, &issuer).toml(RESOURCES));
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""), "{outcome:?}");
    let section = outcome.out.split("\nResources\n").nth(1).unwrap_or_else(|| panic!("{}", outcome.out));
    let rows: Vec<Vec<&str>> = section
        .lines()
        .map(|line| line.split("  ").filter(|part| !part.is_empty()).map(str::trim).collect())
        .collect();
    assert_eq!(
        rows,
        [
            ["/mcp", MCP, "aud must hold the URL", "metadata at /.well-known/oauth-protected-resource/mcp"],
            [
                "/mcp/admin",
                ADMIN,
                "any aud of the issuer",
                "metadata at /.well-known/oauth-protected-resource/mcp/admin"
            ],
            [
                "/",
                ROOT,
                "aud must hold the URL",
                "metadata at /.well-known/oauth-protected-resource/v1/ and at its root"
            ],
        ]
    );
    let settings = settings(&app, &issuer).toml(RESOURCES);
    let config = settings.write();
    let token = issuer.good();
    let told = portcullis(&["explain", "--config", path_text(&config), "--path", "/mcp", &token]);
    assert!(told.out.contains("denied: wrong_audience"), "{}", told.out);
}
