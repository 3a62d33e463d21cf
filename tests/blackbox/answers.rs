//! The exact form of every rejection: status, challenge, JSON, reason.

use std::collections::BTreeSet;

use testkit::gate::{Gate, field};
use testkit::issuer::{Answer as Keys, KeyServer, Source};
use testkit::now;
use testkit::raw_upstream::RawUpstream;
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use testkit::wire::Answer;

/// Asserts what all rejections have in common and returns the description.
fn assert_refusal(name: &str, answer: &Answer, status: u16, error: &str, challenge: Option<&str>) -> String {
    assert_eq!(answer.status(), status, "{name}: {}", answer.text());
    assert_eq!(answer.field("content-type"), Some("application/json"), "{name}");
    assert_eq!(answer.field("cache-control"), Some("no-store"), "{name}");
    let body = answer.json();
    let members: BTreeSet<&str> = body.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, BTreeSet::from(["error", "error_description", "request_id"]), "{name}");
    assert_eq!(body["error"], error, "{name}");
    assert_eq!(body["request_id"], answer.field("x-request-id").unwrap(), "{name}");
    let description = body["error_description"].as_str().unwrap().to_owned();
    assert!(!description.is_empty(), "{name}");
    // RFC 6750 §3: no quotes, backslashes or bytes outside ASCII.
    assert!(
        description.bytes().all(|b| matches!(b, 0x20 | 0x21 | 0x23..=0x5b | 0x5d..=0x7e)),
        "{name}: {description}"
    );
    let expected = challenge.map(|start| match start {
        "bare" => "Bearer realm=\"portcullis\"".to_owned(),
        scope if scope.starts_with("scope=") => format!(
            "Bearer realm=\"portcullis\", error=\"{error}\", error_description=\"{description}\", {scope}"
        ),
        _ => format!("Bearer realm=\"portcullis\", error=\"{error}\", error_description=\"{description}\""),
    });
    assert_eq!(answer.field("www-authenticate"), expected.as_deref(), "{name}");
    description
}

struct Scene {
    upstream: RawUpstream,
    issuer: Issuer,
    gate: Gate,
}

fn scene() -> Scene {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = Settings::plaintext()
        .limits("body_bytes = \"1KiB\"")
        .upstream("api", &upstream.url(), "")
        .issuer(&issuer)
        .route("/deals/{*rest}", "scopes = [\"read:deals\", \"list:deals\"]")
        .route("/any", "any_scope = [\"a\", \"b\"]")
        .route("/roles", "roles = [\"manager\"]")
        .route("/open", "")
        .route("/known", "methods = [\"GET\"]");
    let gate = Gate::start(&settings);
    Scene { upstream, issuer, gate }
}

/// Holds docs/concepts.md, What a request meets: no credentials
/// Holds docs/concepts.md, What a request meets: a token that is not in force, for any reason
/// Holds docs/concepts.md, What a request meets: a malformed token, or two tokens
/// Holds docs/concepts.md, What a request meets: scope or role missing
/// Holds docs/concepts.md, What a request meets: no route, with a token
#[test]
fn every_refusal_has_its_status_challenge_body_and_reason() {
    let Scene { upstream, issuer, gate } = scene();
    let good = issuer.good();
    let expired = issuer.token().claim("iat", now() - 7200).claim("exp", now() - 3600).build();
    let forged = Issuer::new().good();
    let open = || gate.get("/open");
    let rows = [
        ("nothing presented", open().send(), 401, "missing_token", Some("bare"), "missing"),
        (
            "another scheme",
            open().field("Authorization", "Basic YTpi").send(),
            401,
            "missing_token",
            Some("bare"),
            "missing",
        ),
        (
            "in the query only",
            gate.get(&format!("/open?access_token={good}")).send(),
            401,
            "missing_token",
            Some("bare"),
            "missing",
        ),
        ("expired", open().token(&expired).send(), 401, "invalid_token", Some("error"), "expired"),
        ("forged", open().token(&forged).send(), 401, "invalid_token", Some("error"), "bad_signature"),
        ("malformed", open().token("a b").send(), 400, "invalid_request", Some("error"), "malformed"),
        (
            "two fields",
            open().token(&good).token(&good).send(),
            400,
            "invalid_request",
            Some("error"),
            "ambiguous",
        ),
        (
            "field and query",
            gate.get(&format!("/open?access_token={good}")).token(&good).send(),
            400,
            "invalid_request",
            Some("error"),
            "ambiguous",
        ),
        (
            "no scope",
            gate.get("/deals/7").token(&good).send(),
            403,
            "insufficient_scope",
            Some("scope=\"read:deals list:deals\""),
            "insufficient_scope",
        ),
        (
            "none of the scopes",
            gate.get("/any").token(&good).send(),
            403,
            "insufficient_scope",
            Some("scope=\"a b\""),
            "insufficient_scope",
        ),
        (
            "no role",
            gate.get("/roles").token(&good).send(),
            403,
            "insufficient_scope",
            Some("error"),
            "insufficient_role",
        ),
        ("no route, no token", gate.get("/nowhere").send(), 401, "missing_token", Some("bare"), "no_route"),
        ("no route", gate.get("/nowhere").token(&good).send(), 403, "access_denied", None, "no_route"),
        (
            "no route, bad token",
            gate.get("/nowhere").token(&forged).send(),
            403,
            "access_denied",
            None,
            "no_route",
        ),
        (
            "no route for the method",
            gate.request("POST", "/known").token(&good).send(),
            403,
            "access_denied",
            None,
            "no_route",
        ),
        (
            "a target to be read twice",
            gate.get("/a/../open").token(&good).send(),
            400,
            "invalid_request",
            None,
            "bad_target",
        ),
    ];
    for (name, answer, status, error, challenge, reason) in rows {
        assert_refusal(name, &answer, status, error, challenge);
        let record = gate.record_of(answer.field("x-request-id").unwrap());
        assert_eq!(field(&record, "reason"), Some(reason), "{name}: {record}");
    }
    assert_eq!(upstream.count(), 0, "nothing reached the upstream");
}

#[test]
fn descriptions_tell_a_holder_what_to_do_and_a_forger_nothing() {
    let Scene { issuer, gate, .. } = scene();
    let say = |token: &str| {
        gate.get("/open").token(token).send().json()["error_description"].as_str().unwrap().to_owned()
    };
    let expired = say(&issuer.token().claim("iat", now() - 7200).claim("exp", now() - 3600).build());
    assert!(expired.contains("expired"), "{expired}");
    let stranger = Issuer::named("https://stranger.example.com/");
    let silent: BTreeSet<String> = [
        say(&Issuer::new().good()),
        say(&stranger.good()),
        say(&issuer.token().head("kid", "other").build()),
        say(&issuer.token().head("alg", "none").build()),
        say(&issuer.token().head("typ", "other+jwt").build()),
        say(&issuer.token().claim("aud", "other").build()),
        say(&issuer.token().without("sub").build()),
        say(&issuer.token().claim("sub", 7).build()),
        say("abc"),
    ]
    .into();
    assert_eq!(silent.len(), 1, "one description for all of them: {silent:?}");
    assert!(!silent.contains(&expired));
}

#[test]
fn a_refused_request_leaves_the_connection_usable() {
    let Scene { upstream, issuer, gate } = scene();
    let mut wire = gate.connect();
    for _ in 0..3 {
        assert_eq!(wire.exchange(gate.get("/open").bytes()).unwrap().status(), 401);
        assert_eq!(wire.exchange(gate.get("/deals/1").token(&issuer.good()).bytes()).unwrap().status(), 403);
        assert_eq!(wire.exchange(gate.get("/open").token(&issuer.good()).bytes()).unwrap().status(), 200);
    }
    // The body of a refused request is read or the connection is closed; it never becomes the next request.
    let smuggled = gate.get("/smuggled").bytes();
    wire.send(gate.request("POST", "/open").body(&smuggled).bytes()).unwrap();
    assert_eq!(wire.answer().unwrap().status(), 401);
    wire.set_patience(std::time::Duration::from_millis(300));
    if let Ok(extra) = wire.answer() {
        panic!("an answer to the body: {extra:?}");
    }
    assert_eq!(upstream.count(), 3);
}

#[test]
fn head_is_refused_without_a_body() {
    let Scene { gate, .. } = scene();
    let answer = gate.request("HEAD", "/open").send();
    assert_eq!(
        (answer.status(), answer.field("www-authenticate")),
        (401, Some("Bearer realm=\"portcullis\""))
    );
}

/// Holds docs/reasons.md, Other answers: 405
#[test]
fn connect_is_405() {
    let Scene { upstream, issuer, gate } = scene();
    for target in ["api.test:443", "/open"] {
        let answer = gate.request("CONNECT", target).token(&issuer.good()).send();
        assert_eq!(answer.status(), 405, "{target}");
        assert_eq!(answer.json()["error"], "method_not_allowed");
    }
    assert_eq!(upstream.count(), 0);
}

/// Holds docs/concepts.md, What a request meets: keys or shared state unavailable, or a limit reached
#[test]
fn without_keys_the_answer_is_503_with_a_time_to_come_back() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let server = KeyServer::start(issuer.jwks());
    server.set(Keys::HangUp);
    let settings = Settings::plaintext()
        .upstream("api", &upstream.url(), "")
        .issuer_from(&issuer, &Source::Url(server.jwks_url()), "")
        .route("/{*rest}", "")
        .route("/anonymous", "anonymous = true");
    let gate = Gate::launch(&settings);
    let (answer, decision) = gate.decision(|| gate.get("/").token(&issuer.good()).send());
    assert_refusal("no keys", &answer, 503, "temporarily_unavailable", None);
    assert!(answer.field("retry-after").unwrap().parse::<u32>().unwrap() > 0);
    assert_eq!(decision, "unavailable/keys_unavailable");
    assert_eq!(gate.get("/").send().status(), 401, "without a token keys do not matter");
    assert_eq!(gate.get("/anonymous").send().status(), 200);
    assert_eq!(gate.get("/anonymous").token(&issuer.good()).send().status(), 503);
    assert_eq!(upstream.count(), 1);
}

#[test]
fn refusals_over_http_2_say_the_same() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let gate = Gate::start(&Settings::tls().guarding(&upstream.url(), &issuer));
    let printed = gate.curl("/", &["--http2", "-i"]);
    let (head, body) = printed.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/2 401"), "{head}");
    assert!(head.contains("www-authenticate: Bearer realm=\"portcullis\""), "{head}");
    assert!(head.contains("cache-control: no-store"), "{head}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["error"], "missing_token");
}

#[test]
fn an_old_client_that_presents_nothing_over_curl_sees_json() {
    let Scene { gate, .. } = scene();
    let printed = gate.curl("/open", &["--http1.0", "-w", "\n%{http_code}"]);
    let (body, code) = printed.rsplit_once('\n').unwrap();
    assert_eq!(code, "401");
    assert!(serde_json::from_str::<serde_json::Value>(body).unwrap()["error_description"].is_string());
}
