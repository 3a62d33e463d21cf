//! Which route a request matches, and what the route requires.

use serde_json::json;

use testkit::gate::{Gate, check, field};
use testkit::raw_upstream::RawUpstream;
use testkit::settings::Settings;
use testkit::tokens::{Issuer, Token};

/// An upstream that responds with its name.
fn named(name: &'static str) -> RawUpstream {
    RawUpstream::scripted(move |exchange| exchange.ok(name))
}

/// Holds docs/configuration.md, Settings: routes[].path, .hosts, .methods
#[test]
fn the_most_specific_path_wins_then_host_then_method() {
    let issuer = Issuer::new();
    let names = ["literal", "parameter", "rest", "deep", "host", "method", "both", "root"];
    let upstreams: Vec<(&str, RawUpstream)> = names.iter().map(|name| (*name, named(name))).collect();
    let mut settings = Settings::plaintext().issuer(&issuer);
    for (name, upstream) in &upstreams {
        settings = settings.upstream(name, &upstream.url(), "");
    }
    let route = |settings: Settings, path: &str, name: &str, lines: &str| {
        settings.route(path, &format!("upstream = \"{name}\"\n{lines}"))
    };
    let settings = route(settings, "/", "root", "");
    let settings = route(settings, "/deals/new", "literal", "");
    let settings = route(settings, "/deals/{id}", "parameter", "");
    let settings = route(settings, "/deals/{*rest}", "rest", "");
    let settings = route(settings, "/deals/{id}/lines/{*rest}", "deep", "");
    let settings = route(settings, "/deals/{id}", "host", "hosts = [\"Special.Test\"]");
    let settings = route(settings, "/deals/{id}", "method", "methods = [\"PUT\"]");
    let settings = route(settings, "/deals/{id}", "both", "hosts = [\"special.test\"]\nmethods = [\"PUT\"]");
    let gate = Gate::start(&settings);
    let token = issuer.good();
    let rows = [
        ("GET", "api.test", "/", "root"),
        ("GET", "api.test", "/?q", "root"),
        ("GET", "api.test", "/deals/new", "literal"),
        ("PUT", "api.test", "/deals/new", "literal"),
        ("GET", "special.test", "/deals/new", "literal"),
        ("GET", "api.test", "/deals/7", "parameter"),
        ("GET", "api.test", "/deals/7?x=/new", "parameter"),
        ("GET", "api.test", "/deals/New", "parameter"),
        ("GET", "api.test", "/deals/%6eew", "literal"),
        ("GET", "api.test", "/deals/new/", "rest"),
        ("GET", "api.test", "/deals", "rest"),
        ("GET", "api.test", "/deals/", "rest"),
        ("GET", "api.test", "/deals/7/lines", "deep"),
        ("GET", "api.test", "/deals/7/lines/1/2/3", "deep"),
        ("GET", "api.test", "/deals/7/other", "rest"),
        ("GET", "special.test", "/deals/7", "host"),
        ("GET", "SPECIAL.test", "/deals/7", "host"),
        ("GET", "special.test.", "/deals/7", "host"),
        ("GET", "special.test:8443", "/deals/7", "host"),
        ("GET", "special.test.:8443", "/deals/7", "host"),
        ("PUT", "api.test", "/deals/7", "method"),
        ("PUT", "special.test", "/deals/7", "both"),
    ];
    for (method, host, target, name) in rows {
        let answer = gate.request(method, target).field("Host", host).token(&token).send();
        assert_eq!((answer.status(), answer.text().as_str()), (200, name), "{method} {host} {target}");
        let seen = upstreams.iter().find(|(n, _)| n == &name).unwrap().1.last();
        assert_eq!(
            (seen.target().as_str(), seen.field("host").as_deref()),
            (target, Some(host)),
            "in a form that can be forwarded"
        );
    }
    for (method, host, target) in [
        ("GET", "api.test", "/DEALS/7"),
        ("GET", "api.test", "/dealsx"),
        ("GET", "api.test", "/dea"),
        ("GET", "api.test", "/index.html"),
        ("GET", "api.test", "/%64eals2"),
    ] {
        let answer = gate.request(method, target).field("Host", host).token(&token).send();
        assert_eq!(answer.status(), 403, "{method} {host} {target}: {}", answer.text());
    }
}

#[test]
fn the_label_of_a_route_is_its_pattern() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = Settings::plaintext()
        .upstream("api", &upstream.url(), "")
        .issuer(&issuer)
        .route("/deals/{id}/{*rest}", "");
    let gate = Gate::start(&settings);
    let token = issuer.good();
    assert_eq!(gate.get("/deals/secret-deal/x").token(&token).send().status(), 200);
    assert_eq!(gate.get("/nowhere").token(&token).send().status(), 403);
    assert_eq!(gate.request("BREW", "/deals/1/x").token(&token).send().status(), 200);
    let metrics = gate.metrics();
    let count = |route: &str, method: &str, status: &str| {
        metrics.sum("portcullis_requests_total", &[("route", route), ("method", method), ("status", status)])
    };
    assert!((count("/deals/{id}/{*rest}", "GET", "200") - 1.0).abs() < 1e-9, "{metrics:?}");
    assert!((count("/deals/{id}/{*rest}", "other", "200") - 1.0).abs() < 1e-9, "{metrics:?}");
    assert!((count("none", "GET", "403") - 1.0).abs() < 1e-9, "{metrics:?}");
}

/// A token with these claims in addition to the usual ones.
fn holding<'a>(issuer: &'a Issuer, scope: &serde_json::Value, roles: &serde_json::Value) -> Token<'a> {
    issuer.token().claim("scope", scope.clone()).claim("roles", roles.clone())
}

/// Holds docs/configuration.md, Settings: routes[].scopes, .any_scope, .roles, .any_role
#[test]
fn scopes_and_roles_are_demanded_all_or_any() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = Settings::plaintext()
        .upstream("api", &upstream.url(), "")
        .issuer(&issuer)
        .route("/all-scopes", "scopes = [\"a\", \"b\"]")
        .route("/any-scope", "any_scope = [\"a\", \"b\"]")
        .route("/all-roles", "roles = [\"r\", \"s\"]")
        .route("/any-role", "any_role = [\"r\", \"s\"]")
        .route(
            "/mixed",
            "scopes = [\"a\"]\nany_scope = [\"b\", \"c\"]\nroles = [\"r\"]\nany_role = [\"s\", \"t\"]",
        );
    let gate = Gate::start(&settings);
    let rows = [
        ("/all-scopes", json!("a b"), json!([]), 200),
        ("/all-scopes", json!("b x a"), json!([]), 200),
        ("/all-scopes", json!(["a", "b"]), json!([]), 200),
        ("/all-scopes", json!("a"), json!([]), 403),
        ("/all-scopes", json!("ab"), json!([]), 403),
        ("/all-scopes", json!("A B"), json!([]), 403),
        ("/all-scopes", json!(["a b"]), json!([]), 403),
        ("/all-scopes", json!("a,b"), json!([]), 403),
        ("/all-scopes", json!(""), json!(["a", "b"]), 403),
        ("/any-scope", json!("b"), json!([]), 200),
        ("/any-scope", json!("c"), json!([]), 403),
        ("/any-scope", json!(""), json!([]), 403),
        ("/all-roles", json!(""), json!(["s", "r"]), 200),
        ("/all-roles", json!(""), json!("r s"), 403),
        ("/any-role", json!(""), json!("s"), 200),
        ("/any-role", json!(""), json!("s t"), 403),
        ("/any-role", json!(""), json!("t,s"), 403),
        ("/any-role", json!(""), json!({"s": {"2846": "org.example.com"}, "t": {}}), 200),
        ("/any-role", json!(""), json!({"t": {"s": "org.example.com"}}), 403),
        ("/any-role", json!(""), json!({"s": true}), 401),
        ("/all-roles", json!("r s"), json!([]), 403),
        ("/all-roles", json!(""), json!(["r"]), 403),
        ("/any-role", json!(""), json!(["s"]), 200),
        ("/any-role", json!(""), json!(["R"]), 403),
        ("/mixed", json!("a c"), json!(["r", "t"]), 200),
        ("/mixed", json!("a"), json!(["r", "t"]), 403),
        ("/mixed", json!("a c"), json!(["t"]), 403),
        ("/mixed", json!("a c"), json!(["r"]), 403),
    ];
    for (path, scope, roles, status) in rows {
        let answer = gate.get(path).token(&holding(&issuer, &scope, &roles).build()).send();
        assert_eq!(answer.status(), status, "{path} with scope {scope} and roles {roles}: {}", answer.text());
    }
    let bare = issuer.token().without("scope").build();
    assert_eq!(gate.get("/any-scope").token(&bare).send().status(), 403, "no scope claim at all");
}

/// Holds docs/configuration.md, Settings: issuers[].claims.scope, .roles, …
#[test]
fn the_claims_of_well_known_providers_are_read_where_they_are() {
    let upstream = RawUpstream::start();
    let rows = [
        (
            "keycloak",
            "roles = \"/realm_access/roles\"",
            json!({"realm_access": {"roles": ["manager"]}}),
            json!({"realm_access": {"roles": ["x"]}}),
        ),
        (
            "entra",
            "scope = \"scp\"\nroles = \"roles\"",
            json!({"scp": "read:deals other", "roles": ["manager"]}),
            json!({"roles": ["manager"]}),
        ),
        (
            "okta",
            "scope = \"scp\"\nroles = \"groups\"",
            json!({"scp": ["read:deals"], "groups": ["manager"]}),
            json!({"scp": ["x"], "groups": ["manager"]}),
        ),
        (
            "auth0",
            "scope = \"permissions\"\nroles = \"https://example.com/roles\"",
            json!({"permissions": ["read:deals"], "https://example.com/roles": ["manager"]}),
            json!({"permissions": []}),
        ),
        (
            "cognito",
            "roles = \"cognito:groups\"",
            json!({"cognito:groups": ["manager"]}),
            json!({"cognito:groups": ["x"]}),
        ),
        (
            "keycloak-clients",
            "roles = [\"/realm_access/roles\", \"/resource_access/api/roles\"]\nscope = [\"scope\", \"permissions\"]",
            json!({
                "scope": "other", "permissions": ["read:deals"],
                "realm_access": {"roles": ["x"]}, "resource_access": {"api": {"roles": ["manager"]}},
            }),
            json!({
                "scope": "other", "permissions": ["x"],
                "realm_access": {"roles": ["manager"]}, "resource_access": {"api": {"roles": ["manager"]}},
            }),
        ),
        (
            "zitadel",
            "roles = \"urn:zitadel:iam:org:project:roles\"",
            json!({"urn:zitadel:iam:org:project:roles": {"manager": {"2846": "org.example.com"}}}),
            json!({"urn:zitadel:iam:org:project:roles": {"x": {"2846": "manager"}}}),
        ),
        ("github", "roles = \"workflow\"", json!({"workflow": "manager"}), json!({"workflow": "CI manager"})),
        (
            "nested",
            "roles = \"/a~1b/c~0d/0\"",
            json!({"a/b": {"c~d": [["manager"]]}}),
            json!({"a": {"b": {"c~d": [["manager"]]}}}),
        ),
    ];
    for (name, claims, enough, too_little) in rows {
        let issuer = Issuer::named(&format!("https://{name}.example.com/"));
        let settings = Settings::plaintext()
            .upstream("api", &upstream.url(), "")
            .issuer_with(&issuer, &format!("[issuers.claims]\n{claims}"))
            .route("/{*rest}", "scopes = [\"read:deals\"]\nroles = [\"manager\"]");
        let gate = Gate::start(&settings);
        for (claims, status) in [(enough, 200), (too_little, 403)] {
            let token = claims
                .as_object()
                .unwrap()
                .iter()
                .fold(issuer.token(), |token, (claim, value)| token.claim(claim, value.clone()));
            let answer = gate.get("/").token(&token.build()).send();
            assert_eq!(answer.status(), status, "{name} with {claims}: {}", answer.text());
            if status == 200 && name == "keycloak-clients" {
                let seen = upstream.last();
                let seen = ["x-auth-scope", "x-auth-roles"].map(|header| seen.field(header));
                assert_eq!(seen, [Some("other read:deals".to_owned()), Some("x,manager".to_owned())]);
            }
        }
    }
}

/// Holds docs/configuration.md, Settings: routes[].anonymous
#[test]
fn an_anonymous_route_needs_no_token_but_checks_one_that_is_sent() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = Settings::plaintext()
        .upstream("api", &upstream.url(), "")
        .issuer(&issuer)
        .route("/open/{*rest}", "anonymous = true");
    let gate = Gate::start(&settings);
    assert_eq!(gate.get("/open/1").send().status(), 200);
    assert_eq!(upstream.last().field("x-auth-subject"), None);
    assert_eq!(gate.get("/open/2").field("X-Auth-Subject", "root").send().status(), 200);
    assert_eq!(upstream.last().field("x-auth-subject"), None, "stripped here as well");
    assert_eq!(gate.get("/open/3").token(&issuer.good()).send().status(), 200);
    assert_eq!(upstream.last().field("x-auth-subject").as_deref(), Some("alice"));
    assert_eq!(gate.get("/open/4").field("Authorization", "Basic YTpi").send().status(), 200);
    assert_eq!(
        upstream.last().field("authorization").as_deref(),
        Some("Basic YTpi"),
        "other schemes pass through"
    );
    assert_eq!(gate.get("/open/5").token(&Issuer::new().good()).send().status(), 401);
    assert_eq!(gate.get("/open/6").token("a b").send().status(), 400);
    assert_eq!(gate.get("/open/7").token(&issuer.good()).token(&issuer.good()).send().status(), 400);
    assert_eq!(upstream.count(), 4);
}

/// Holds docs/configuration.md, Settings: routes[].mode
#[test]
fn a_shadow_route_forwards_what_it_would_refuse_and_says_so() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = Settings::plaintext()
        .upstream("api", &upstream.url(), "")
        .issuer(&issuer)
        .route("/shadow/{*rest}", "mode = \"shadow\"\nscopes = [\"admin\"]");
    let gate = Gate::start(&settings);
    let expired =
        issuer.token().claim("iat", testkit::now() - 7200).claim("exp", testkit::now() - 3600).build();
    for (name, request, reason) in [
        ("no token", gate.get("/shadow/1"), "missing"),
        ("expired", gate.get("/shadow/2").token(&expired), "expired"),
        ("forged", gate.get("/shadow/3").token(&Issuer::new().good()), "bad_signature"),
        ("no scope", gate.get("/shadow/4").token(&issuer.good()), "insufficient_scope"),
    ] {
        let (answer, decision) = gate.decision(|| request.send());
        assert_eq!(answer.status(), 200, "{name}");
        assert_eq!(decision, format!("shadow_deny/{reason}"), "{name}");
        let record = gate.record_of(answer.field("x-request-id").unwrap());
        assert_eq!(field(&record, "reason"), Some(reason), "{name}: {record}");
        if reason != "insufficient_scope" {
            assert_eq!(
                upstream.last().field("x-auth-subject"),
                None,
                "{name}: an unproven identity is not passed on"
            );
        }
    }
    let (_, decision) =
        gate.decision(|| gate.get("/shadow/5").token(&issuer.token().claim("scope", "admin").build()).send());
    assert!(decision.starts_with("allow/"), "{decision}");
    assert_eq!(gate.get("/shadow/%2e%2e/admin").send().status(), 400, "a bad target is refused in any mode");
    assert_eq!(upstream.count(), 5);
}

#[test]
fn routes_that_could_tie_or_contradict_themselves_are_configuration_errors() {
    let issuer = Issuer::new();
    let base = || Settings::plaintext().upstream("api", "http://127.0.0.1:1", "").issuer(&issuer);
    let rows = [
        ("twice the same", base().route("/a", "").route("/a", "")),
        ("parameters by other names", base().route("/a/{x}", "").route("/a/{y}", "")),
        ("rest by other names", base().route("/a/{*x}", "").route("/a/{*y}", "")),
        (
            "methods that overlap",
            base().route("/a", "methods = [\"GET\", \"PUT\"]").route("/a", "methods = [\"PUT\"]"),
        ),
        (
            "hosts that overlap",
            base().route("/a", "hosts = [\"x.test\"]").route("/a", "hosts = [\"X.test.\"]"),
        ),
        ("scopes on an anonymous route", base().route("/a", "anonymous = true\nscopes = [\"x\"]")),
        ("roles on an anonymous route", base().route("/a", "anonymous = true\nany_role = [\"x\"]")),
        ("an unknown upstream", base().route("/a", "upstream = \"other\"")),
        ("no leading slash", base().route("a", "")),
        ("rest in the middle", base().route("/{*rest}/a", "")),
        ("an unclosed parameter", base().route("/{a", "")),
        ("text beside a parameter", base().route("/x{a}", "")),
        ("a dot segment", base().route("/a/../b", "")),
        ("an empty segment", base().route("/a//b", "")),
        ("a query", base().route("/a?b", "")),
        ("an unknown mode", base().route("/a", "mode = \"observe\"")),
        ("no method", base().route("/a", "methods = [\"\"]")),
    ];
    for (name, settings) in rows {
        let outcome = check(&settings);
        assert_eq!(outcome.code, 2, "{name}: {outcome:?}");
        assert!(outcome.err.contains("portcullis.toml"), "{name}: {outcome:?}");
    }
    let fine = base()
        .route("/a", "methods = [\"GET\"]")
        .route("/a", "methods = [\"PUT\"]")
        .route("/a", "")
        .route("/a", "hosts = [\"x.test\"]")
        .route("/a", "hosts = [\"y.test\"]")
        .route("/a/{x}", "")
        .route("/a/{*rest}", "");
    let outcome = check(&fine);
    assert_eq!(outcome.code, 0, "{outcome:?}");
}
