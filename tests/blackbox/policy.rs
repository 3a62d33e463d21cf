//! What routes and issuers require of a token besides scopes and roles, over real sockets.

use serde_json::{Value, json};

use testkit::gate::{Gate, check, field};
use testkit::now;
use testkit::raw_upstream::RawUpstream;
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use testkit::wire::Answer;

/// A token with these claims besides the usual ones.
fn token(issuer: &Issuer, claims: &Value) -> String {
    let mut token = issuer.token();
    for (name, value) in claims.as_object().unwrap() {
        token = token.claim(name, value.clone());
    }
    token.build()
}

/// Status, reason in the log line, and challenge.
fn outcome(gate: &Gate, path: &str, token: &str) -> (u16, Option<String>, Option<String>) {
    let answer: Answer = gate.get(path).token(token).send();
    let record = gate.record_of(answer.field("x-request-id").unwrap());
    let reason = field(&record, "reason").map(str::to_owned);
    (answer.status(), reason, answer.field("www-authenticate").map(str::to_owned))
}

/// Holds docs/configuration.md, Settings: routes[].claims, issuers[].conditions
/// Holds docs/concepts.md, What a request meets: a claim that does not meet a condition
#[test]
fn claims_must_be_as_the_issuer_and_the_route_demand() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = Settings::plaintext()
        .upstream("api", &upstream.url(), "")
        .issuer_with(&issuer, "conditions = { blocked = { exists = false } }")
        .route("/any", "")
        .route("/open", "anonymous = true")
        .route("/shadow", "mode = \"shadow\"\nclaims = { repository_id = \"123\" }")
        .route(
            "/deploy",
            r#"claims = { repository_id = "123", ref = { glob = "refs/tags/v*" }, "/k8s/ns" = { in = ["prod", "stage"] }, level = { at_least = 3 } }"#,
        );
    let gate = Gate::start(&settings);
    let good = json!({"repository_id": "123", "ref": "refs/tags/v1", "k8s": {"ns": "prod"}, "level": 3});
    let denied = || (403, Some("claim_condition".to_owned()), None);
    let changed = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    let passed = (200, None, None);
    for (path, claims, expected) in [
        ("/deploy", good.clone(), passed.clone()),
        ("/deploy", changed("k8s", json!({"ns": ["dev", "stage"]})), passed.clone()),
        ("/deploy", changed("repository_id", json!(123)), denied()),
        ("/deploy", changed("repository_id", json!("1234")), denied()),
        ("/deploy", changed("ref", json!("refs/tags/v1/x")), denied()),
        ("/deploy", changed("ref", json!("refs/heads/v1")), denied()),
        ("/deploy", changed("k8s", json!({"ns": "dev"})), denied()),
        ("/deploy", changed("k8s", Value::Null), denied()),
        ("/deploy", changed("level", json!(2)), denied()),
        ("/any", json!({}), passed.clone()),
        ("/any", changed("blocked", json!(false)), denied()),
        ("/open", changed("blocked", json!(true)), denied()),
        ("/deploy", changed("blocked", json!("no")), denied()),
        ("/shadow", json!({}), (200, Some("claim_condition".to_owned()), None)),
    ] {
        // Once when it is verified, and once from memory.
        let token = token(&issuer, &claims);
        for _ in 0..2 {
            assert_eq!(outcome(&gate, path, &token), expected, "{path} {claims}");
        }
    }
    let answer = gate.get("/deploy").token(&token(&issuer, &json!({}))).send();
    assert_eq!(answer.json()["error"], "access_denied");
}

/// Holds docs/configuration.md, Settings: routes[].allow
#[test]
fn one_of_several_sets_must_be_met_whole() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let allow = r#"allow = [{ scopes = ["deploy"] }, { roles = ["admin"], claims = { unit = "ops" } }]"#;
    let settings =
        Settings::plaintext().upstream("api", &upstream.url(), "").issuer(&issuer).route("/deploy", allow);
    let gate = Gate::start(&settings);
    for (claims, status, reason) in [
        (json!({"scope": "deploy"}), 200, None),
        (json!({"scope": "", "roles": ["admin"], "unit": "ops"}), 200, None),
        (json!({"scope": "", "roles": ["admin"], "unit": "sales"}), 403, Some("insufficient_scope")),
        (json!({"scope": "", "roles": [], "unit": "ops"}), 403, Some("insufficient_scope")),
    ] {
        let (answered, told, challenge) = outcome(&gate, "/deploy", &token(&issuer, &claims));
        assert_eq!((answered, told.as_deref()), (status, reason), "{claims}");
        let asks = challenge.is_some_and(|challenge| challenge.ends_with(", scope=\"deploy\""));
        assert_eq!(asks, status == 403, "{claims}");
    }
}

/// Holds docs/configuration.md, Settings: routes[].issuers, .audiences
#[test]
fn a_route_may_take_tokens_of_some_issuers_and_for_some_audiences() {
    let upstream = RawUpstream::start();
    let (one, two) = (Issuer::named("https://one.example/"), Issuer::named("https://two.example/"));
    let settings = Settings::plaintext()
        .upstream("api", &upstream.url(), "")
        .issuer(&one)
        .issuer(&two)
        .route("/both", "")
        .route("/one", "issuers = [\"https://one.example/\"]")
        .route("/billing", "audiences = [\"https://billing.example\"]");
    let gate = Gate::start(&settings);
    let billing = |issuer: &Issuer| json!({"aud": [issuer.audience.clone(), "https://billing.example"]});
    for (path, token, status, reason) in [
        ("/both", one.good(), 200, None),
        ("/both", two.good(), 200, None),
        ("/one", one.good(), 200, None),
        ("/one", two.good(), 401, Some("unknown_issuer")),
        ("/billing", one.good(), 401, Some("wrong_audience")),
        ("/billing", token(&one, &billing(&one)), 200, None),
        ("/billing", token(&one, &json!({"aud": "https://billing.example"})), 401, Some("wrong_audience")),
    ] {
        let (answered, told, _) = outcome(&gate, path, &token);
        assert_eq!((answered, told.as_deref()), (status, reason), "{path}");
    }
}

/// Holds docs/configuration.md, Settings: routes[].acr_values, .max_age
/// Holds docs/concepts.md, What a request meets: authentication too weak or too long ago
#[test]
fn a_stronger_or_fresher_log_in_is_asked_for_by_name() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = Settings::plaintext()
        .upstream("api", &upstream.url(), "")
        .issuer(&issuer)
        .route("/pay", "acr_values = [\"gold\", \"platinum\"]\nmax_age = \"10m\"")
        .route("/fresh", "max_age = \"1h\"");
    let gate = Gate::start(&settings);
    let start = "Bearer realm=\"portcullis\", error=\"insufficient_user_authentication\", error_description=\"A stronger or more recent user authentication is required\"";
    let pay = format!("{start}, acr_values=\"gold platinum\", max_age=\"600\"");
    let fresh = format!("{start}, max_age=\"3600\"");
    for (path, claims, challenge) in [
        ("/pay", json!({"acr": "gold", "auth_time": now() - 5}), None),
        ("/pay", json!({"acr": "platinum", "auth_time": now() - 590}), None),
        ("/pay", json!({"acr": "silver", "auth_time": now() - 5}), Some(&pay)),
        ("/pay", json!({"acr": "gold", "auth_time": now() - 700}), Some(&pay)),
        ("/pay", json!({"acr": "gold"}), Some(&pay)),
        ("/fresh", json!({"auth_time": now() - 3_000}), None),
        ("/fresh", json!({"auth_time": now() - 4_000}), Some(&fresh)),
    ] {
        let token = token(&issuer, &claims);
        let (status, reason, told) = outcome(&gate, path, &token);
        let denied = challenge.is_some();
        assert_eq!(status, if denied { 401 } else { 200 }, "{path} {claims}");
        assert_eq!(reason.as_deref(), denied.then_some("insufficient_authentication"), "{path} {claims}");
        assert_eq!(told.as_ref(), challenge, "{path} {claims}");
    }
}

/// Runs docs/policy.md: repository_id
/// Runs docs/policy.md: [[routes.allow]]
/// Runs docs/policy.md: acr_values
#[test]
fn the_examples_of_the_documentation_are_taken_and_shown() {
    for (named, shown) in [
        ("repository_id", "claim repository_id = \"123456\""),
        ("[[routes.allow]]", "one of (scopes deploy) or (roles admin; claim unit in [\"ops\", \"sre\"])"),
        ("acr_values", "acr urn:example:mfa; authenticated at most 600s ago"),
    ] {
        let block = testkit::documents::block("docs/policy.md", named);
        let settings = Settings::plaintext()
            .upstream("api", "http://127.0.0.1:3000", "")
            .issuer(&Issuer::named("https://idp.example.com/"))
            .toml(&block);
        let output = check(&settings);
        assert_eq!(output.code, 0, "{named}: {}", output.err);
        assert!(output.out.contains(shown), "{shown} in {}", output.out);
    }
}
