//! Explanations of tokens that are good, wrong in one way, or wrong in every way at once.
//! `testing::Ask::reason` asserts for every token of every test that the reason is the decision's.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::enforce::decide::{Ask, Asked, InForce, Verdict};
use crate::enforce::mcp::{METHOD, McpSettings, VERSION};
use crate::enforce::policy::{EncodedSlashes, Mode, Requirement, RouteSettings, WebOrigin};
use crate::enforce::resource::Resource;
use crate::enforce::testing::{
    ISSUER, NOW, SIGNERS, TestRequest as Asking, b64, enforcer, enforcer_with, header, issuers, payload,
    route, token, token_of, without,
};
use crate::identity::{ClientKey, IssuerKey, SubjectKey, TokenKey};
use crate::revocations::{Ends, Revocations};
use crate::sessions::{self, Sessions};
use crate::state::Store;
use crate::state::redis::SharedUse;
use crate::time::{Now, Timestamp};

const MINUTE: Duration = Duration::from_secs(60);

fn routes() -> Vec<RouteSettings> {
    let needs = |scope: &str, role: &str| Requirement {
        scopes: vec![scope.to_owned()],
        any_role: vec![role.to_owned(), "owner".to_owned()],
        ..Requirement::default()
    };
    vec![
        RouteSettings { requirement: needs("read:deals", "editor"), ..route("/deals") },
        RouteSettings { requirement: needs("write:deals", "admin"), ..route("/admin") },
        RouteSettings { requirement: needs("write:deals", "admin"), mode: Mode::Shadow, ..route("/shadow") },
        RouteSettings { anonymous: true, ..route("/open") },
    ]
}

fn gate() -> Enforcer {
    enforcer(issuers(), routes())
}

fn explained(gate: &Enforcer, path: &str, token: &str) -> Explanation {
    Asking::new(gate, path).token(token).explain().expect("a bearer token")
}

fn failed(explanation: &Explanation) -> Vec<&'static str> {
    let failed = explanation.checks.iter().filter(|made| made.ok == Some(false));
    failed.map(|made| made.check).collect()
}

fn unknown(explanation: &Explanation) -> Vec<&'static str> {
    explanation.checks.iter().filter(|made| made.ok.is_none()).map(|made| made.check).collect()
}

#[test]
fn a_good_token_passes_every_check() {
    let gate = gate();
    let told = explained(&gate, "/deals", &token(&payload(json!({}))));
    assert!(told.allowed, "{told:?}");
    assert_eq!(told.reason, None);
    assert_eq!(told.checks.iter().map(|made| made.check).collect::<Vec<_>>(), CHECKS);
    assert!(told.checks.iter().all(|made| made.ok == Some(true)), "{told:?}");
    for (check, detail) in [
        ("target", r#"GET "/deals""#),
        ("route", r#""/deals", number 1 of the configuration"#),
        ("token", "a signed JWT"),
        ("issuer", r#"iss is "https://idp.example/""#),
        ("type", r#"typ is "at+jwt"; accepted: "at+jwt", "application/at+jwt", "JWT", without events"#),
        ("algorithm", r#"alg is "ES256"; accepted: "ES256", "ES384", "EdDSA", "RS256", "PS256""#),
        ("dates", "iat is 1799999990, exp is 1800000600, nbf is absent"),
        ("expiry", "expires in 10m, at 2027-01-15T08:10:00.000Z; leeway 30s"),
        ("not_before", "nbf is absent"),
        ("issued_at", "issued 10s ago, at 2027-01-15T07:59:50.000Z; leeway 30s"),
        ("lifetime", "exp − iat is 10m10s; max_lifetime 1d"),
        ("audience", r#"aud is "https://api.example"; required, one of: "https://api.example", "api""#),
        ("required_claims", r#"present: "sub""#),
        ("key", r#"kid is "es", a key for ES256"#),
        ("signature", "matches"),
        ("claims", r#"subject "alice", client "app", jti "token-1""#),
        ("certificate", "the token is not bound to a client certificate"),
        ("proof", "the token is not bound to a key"),
        ("revocation", "no event ended it"),
        ("idle", "idle_timeout is off"),
        ("scopes", r#"required: all of "read:deals"; the token has: "read:deals", "read:users""#),
        ("roles", r#"required: one of "editor", "owner"; the token has: "editor""#),
    ] {
        assert_eq!(told.detail(check), detail);
    }
}

#[test]
fn the_origin_of_a_page_is_told_with_those_that_are_listed() {
    let listed = ["https://app.example", "null"].map(|text| WebOrigin::parse(text).expect("an origin"));
    let listed = RouteSettings { origins: listed.to_vec(), ..route("/listed") };
    let gate = enforcer(issuers(), vec![listed, route("/any")]);
    let token = token(&payload(json!({})));
    let origins = r#"listed: "https://app.example", "null""#;
    for (path, origin, ok, detail) in [
        ("/listed", None, true, format!("Origin is absent; {origins}")),
        ("/listed", Some("null"), true, format!("Origin is \"null\"; {origins}")),
        (
            "/listed",
            Some("https://evil.example"),
            false,
            format!("Origin is \"https://evil.example\"; {origins}"),
        ),
        (
            "/any",
            Some("https://evil.example"),
            true,
            "Origin is \"https://evil.example\"; the route accepts every origin".to_owned(),
        ),
    ] {
        let asking = Asking { origin, ..Asking::new(&gate, path).token(&token) };
        assert_eq!(asking.reason(), (!ok).then_some(Reason::BadOrigin));
        let told = asking.explain().expect("a bearer token");
        assert_eq!((told.ok("origin"), told.detail("origin")), (Some(ok), &*detail), "{path} {origin:?}");
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let gate = gate();
    let claims = payload(json!({
        "aud": "x", "sub": null, "exp": NOW - 192, "iat": NOW - 100, "nbf": NOW + 100, "scope": "", "roles": "guest",
        "client_id": 7,
    }));
    let head = header(json!({"typ": "x"})).to_string();
    let told = explained(&gate, "/admin", &token_of(&SIGNERS.stranger, &head, &claims.to_string()));
    assert_eq!(told.reason, Some(Reason::WrongType));
    let expected =
        ["type", "expiry", "not_before", "lifetime", "audience", "required_claims", "signature", "claims"];
    assert_eq!(failed(&told), expected);
    assert_eq!(unknown(&told), from("certificate"));
    for (check, detail) in [
        ("expiry", "expired 3m12s ago, at 2027-01-15T07:56:48.000Z; leeway 30s"),
        ("not_before", "valid in 1m40s, at 2027-01-15T08:01:40.000Z; leeway 30s"),
        ("lifetime", "exp is not after iat"),
        ("required_claims", r#"missing: "sub""#),
        ("claims", "client_id is not a string"),
        ("idle", "not checked: the claims are invalid"),
    ] {
        assert_eq!(told.detail(check), detail);
    }
}

#[test]
fn what_carries_events_is_told_to_be_no_access_token() {
    let gate = gate();
    let told = explained(&gate, "/deals", &token(&payload(json!({"events": {}}))));
    assert_eq!((told.reason, failed(&told)), (Some(Reason::WrongType), vec!["type"]));
    assert!(told.detail("type").ends_with("it has the claim events"), "{told:?}");
}

#[test]
fn what_a_forged_token_says_is_still_compared_with_the_route() {
    let gate = gate();
    let forged = token_of(&SIGNERS.stranger, &header(json!({})).to_string(), &payload(json!({})).to_string());
    let told = explained(&gate, "/admin", &forged);
    assert_eq!(told.reason, Some(Reason::BadSignature));
    assert_eq!(failed(&told), ["signature", "scopes", "roles"]);
    assert!(told.detail("signature").contains("unverified claims of the token"));
}

/// This check and all later ones.
fn from(check: &str) -> Vec<&'static str> {
    CHECKS.into_iter().skip_while(|name| *name != check).collect()
}

/// The checks of what a route requires of a token.
fn of_route() -> Vec<&'static str> {
    let policy = from("scopes");
    ["origin", "mcp", "resource", "route_issuers", "route_audiences"].into_iter().chain(policy).collect()
}

/// The checks that cannot run for a token without dates.
fn undated_leaves() -> Vec<&'static str> {
    let dates = ["expiry", "not_before", "issued_at", "lifetime"];
    dates.into_iter().chain(from("claims")).collect()
}

#[test]
fn what_cannot_be_known_is_said_to_be_so() {
    let gate = gate();
    let good = token(&payload(json!({})));
    let claims = |changes: Value| token(&payload(changes));
    let bound = claims(json!({"cnf": {"x5t#S256": b64(&[7; 32])}}));
    let none = token_of(
        &SIGNERS.es256,
        &header(json!({"alg": "none"})).to_string(),
        &payload(json!({})).to_string(),
    );
    let undated = token(&without(payload(json!({})), "exp"));
    let of_route = of_route();
    let (no_target, undated_leaves) = ([&["route"], &of_route[..]].concat(), undated_leaves());
    let keyed = claims(json!({"cnf": {"jkt": b64(&[7; 32])}}));
    let rows: [(&str, &str, Option<Reason>, &[&str]); 8] = [
        ("/deals", "opaque", Some(Reason::NotJwt), &CHECKS[5..]),
        ("/deals", &claims(json!({"iss": "https://x/"})), Some(Reason::UnknownIssuer), &CHECKS[6..]),
        ("/nowhere", &good, Some(Reason::NoRoute), &of_route),
        ("//deals", &good, Some(Reason::BadTarget), &no_target),
        ("/deals", &none, Some(Reason::BadAlgorithm), &["key", "signature"]),
        ("/deals", &bound, None, &["certificate"]),
        ("/deals", &keyed, None, &["proof"]),
        ("/deals", &undated, Some(Reason::MissingClaim), &undated_leaves),
    ];
    for (path, token, reason, expected) in rows {
        let told = explained(&gate, path, token);
        assert_eq!((told.reason, told.allowed), (reason, reason.is_none()), "{told:?}");
        assert_eq!(unknown(&told), expected, "{path} {told:?}");
    }
    let told = gate.explain(&Question {
        token: &good,
        method: &Method::GET,
        path: "/deals",
        host: None,
        headers: &HeaderMap::new(),
        now: Now::at_millis(NOW * 1_000),
        stateless: Some("does not exist yet"),
        asked: Asked::NOTHING,
    });
    assert!(told.allowed);
    assert_eq!(unknown(&told), ["revocation", "idle"]);
    assert_eq!(told.detail("idle"), "not checked: does not exist yet");
}

#[test]
fn tokens_that_no_request_could_carry_are_malformed() {
    let gate = gate();
    for token in ["", "a b", "a\nb", "\u{1b}[31m", "é", "Bearer x.y.z"] {
        let told = explained(&gate, "/deals", token);
        assert_eq!((told.reason, failed(&told)), (Some(Reason::Malformed), vec!["token"]), "{token:?}");
        assert!(gate.named_issuer(token).is_none());
    }
    let named = gate.named_issuer(&token(&payload(json!({})))).map(|issuer| issuer.rules.issuer.to_string());
    assert_eq!(named.as_deref(), Some(ISSUER));
}

#[test]
fn an_encoded_slash_is_told_what_it_needs_and_where_it_is_kept() {
    let keeping = RouteSettings { encoded_slashes: EncodedSlashes::Keep, ..route("/kept/{name}") };
    let gate = enforcer(issuers(), vec![keeping, route("/{*rest}")]);
    let token = token(&payload(json!({})));
    for (path, is_good, is_named) in [
        ("/kept/a%2Fb?x=%2f", true, false),
        ("/kept/a%2f..%2fb", false, true),
        ("/other/a%2fb", false, true),
        ("/kept/a%5cb?%2f", false, false),
        ("/kept/{\"a\"}?filter={\"a\":<1>}", true, false),
    ] {
        let told = explained(&gate, path, &token);
        assert_eq!(told.ok("target"), Some(is_good), "{told:?}");
        assert_eq!(told.detail("target").contains("encoded_slashes = \"keep\""), is_named, "{told:?}");
        assert_eq!(told.reason, (!is_good).then_some(Reason::BadTarget), "{told:?}");
    }
}

#[test]
fn a_route_that_is_only_observed_is_said_to_be() {
    let gate = gate();
    let good = token(&payload(json!({})));
    let told = explained(&gate, "/shadow", &good);
    assert_eq!((told.allowed, told.reason), (false, Some(Reason::InsufficientScope)));
    assert!(told.detail("route").contains("in shadow mode"), "{told:?}");
    assert!(explained(&gate, "/open", &good).detail("route").contains("requires no token"));
}

#[test]
fn nothing_reaches_a_terminal_as_it_came() {
    let gate = gate();
    let nasty = "\u{1b}]0;x\u{7}\u{9b}31m\u{202e}\n";
    let claims = payload(json!({"sub": nasty, "aud": [nasty], "jti": "x".repeat(5000), "scope": [nasty]}));
    let head = header(json!({"kid": nasty, "typ": nasty, "alg": nasty})).to_string();
    for path in ["/deals", "/deals?\u{202e}"] {
        let told = explained(&gate, path, &token_of(&SIGNERS.es256, &head, &claims.to_string()));
        for made in &told.checks {
            let harmless = |c: char| !c.is_control() && c != '\u{202e}';
            assert!(made.detail.chars().all(harmless), "{}: {:?}", made.check, made.detail);
            assert!(made.detail.len() < 2_000, "{}: {}", made.check, made.detail.len());
        }
    }
}

#[test]
fn the_signature_and_the_token_are_never_shown() {
    let gate = gate();
    let good = token(&payload(json!({})));
    let (input, signature) = good.rsplit_once('.').expect("a signature");
    for token in
        [good.as_str(), signature, &format!("{input}.{signature}.x"), &format!("{input}.{signature}=")]
    {
        let told = explained(&gate, "/deals", token);
        let shown = format!("{told:?}{}", serde_json::to_string(&told).expect("JSON"));
        assert!(!shown.contains(signature) && !shown.contains(input), "{shown}");
    }
    let question = Question {
        token: &good,
        method: &Method::GET,
        path: "/",
        host: None,
        headers: &HeaderMap::new(),
        now: Now::at_millis(0),
        stateless: None,
        asked: Asked::NOTHING,
    };
    assert!(!format!("{question:?}").contains(signature));
}

fn in_force(not_before: Option<Timestamp>, ends: &[Ends], idle_timeout: Option<Duration>) -> InForce {
    let revocations = Revocations::new(not_before);
    revocations.apply(ends.iter().copied());
    let idle_timeouts = idle_timeout.into();
    let settings =
        sessions::Settings { idle_timeouts, max_tracked: 10, leeway: Duration::ZERO, saved: false };
    let sessions = Arc::new(Sessions::new(settings));
    InForce { revocations: Arc::new(revocations), sessions, ..InForce::unlimited() }
}

#[test]
fn what_ended_a_token_is_told_with_its_time() {
    let at = Timestamp::from_secs(NOW - 5);
    let subject = SubjectKey::new(ISSUER, "alice");
    let issued = "it was issued at 2027-01-15T07:59:50.000Z";
    let rows = [
        (
            vec![Ends::Token(TokenKey::new(ISSUER, "token-1"))],
            Reason::TokenRevoked,
            "the token has been revoked".to_owned(),
        ),
        (
            vec![Ends::Subject(subject, at)],
            Reason::SubjectRevoked,
            format!(
                "2027-01-15T07:59:55.000Z: tokens of its subject issued up to then are revoked; {issued}"
            ),
        ),
        (
            vec![Ends::Client(ClientKey::new(ISSUER, "app"), at)],
            Reason::ClientRevoked,
            format!("2027-01-15T07:59:55.000Z: tokens of its client issued up to then are revoked; {issued}"),
        ),
        (
            vec![Ends::Issuer(IssuerKey::new(ISSUER), at)],
            Reason::IssuerRevoked,
            format!("2027-01-15T07:59:55.000Z: tokens of its issuer issued up to then are revoked; {issued}"),
        ),
        (
            vec![Ends::Roles { subject, at, version: None }],
            Reason::RoleChanged,
            format!("2027-01-15T07:59:55.000Z: the roles of its subject changed then; {issued}"),
        ),
        (
            vec![
                Ends::Roles { subject, at: at.minus(MINUTE), version: Some(3) },
                Ends::Roles { subject, at, version: None },
            ],
            Reason::RoleChanged,
            format!("2027-01-15T07:59:55.000Z: the roles of its subject changed then; {issued}"),
        ),
        (
            vec![Ends::Roles { subject, at, version: Some(4) }],
            Reason::RoleChanged,
            format!("the roles of its subject have version 4; the token has version 3; {issued}"),
        ),
    ];
    let good = token(&payload(json!({"role_version": 3})));
    for (ends, reason, detail) in rows {
        let gate = enforcer_with(issuers(), routes(), in_force(None, &ends, None));
        assert_eq!(Asking::new(&gate, "/deals").token(&good).reason(), Some(reason));
        let told = explained(&gate, "/deals", &good);
        assert_eq!((told.reason, told.detail("revocation")), (Some(reason), detail.as_str()));
    }
    let gate = enforcer_with(issuers(), routes(), in_force(Some(at), &[], None));
    assert_eq!(Asking::new(&gate, "/deals").token(&good).reason(), Some(Reason::BeforeState));
    assert!(
        explained(&gate, "/deals", &good)
            .detail("revocation")
            .starts_with("2027-01-15T07:59:55.000Z: earlier revocations")
    );
}

#[test]
fn an_idle_clock_is_looked_at_and_not_touched() {
    let gate = enforcer_with(issuers(), routes(), in_force(None, &[], Some(MINUTE)));
    let good = token(&payload(json!({})));
    let at = |offset: i64| Asking {
        at: Timestamp::from_secs(NOW + offset),
        ..Asking::new(&gate, "/deals").token(&good)
    };
    let told = |offset| at(offset).explain().expect("a bearer token");
    // Issued 10 s before.
    assert_eq!(told(50).ok("idle"), Some(true));
    assert_eq!(told(51).reason, Some(Reason::Idle));
    assert_eq!(
        told(51).detail("idle"),
        "not used since it was issued, 1m1s ago, at 2027-01-15T07:59:50.000Z; idle_timeout 1m"
    );
    assert_eq!(gate.in_force.sessions.tracked(), 0, "an explanation starts no session");

    let Verdict::Allow(permit) = at(40).decide().verdict else { panic!("not allowed") };
    gate.begin(&permit, at(40).now()).expect("still in force");
    assert_eq!(told(101).reason, Some(Reason::Idle));
    assert_eq!(told(100).detail("idle"), "last used 1m ago, at 2027-01-15T08:00:40.000Z; idle_timeout 1m");
    assert_eq!(at(100).reason(), None, "that it seemed idle to somebody who asked ends no token");
    assert_eq!(at(101).reason(), Some(Reason::Idle));
    assert_eq!(told(100).reason, Some(Reason::Idle), "once found idle by the gate, idle for good");
}

#[test]
fn what_other_gates_know_of_an_idle_token_is_asked_and_then_told() {
    let settings = sessions::Settings {
        idle_timeouts: Some(MINUTE).into(),
        max_tracked: 10,
        leeway: Duration::ZERO,
        saved: true,
    };
    let store = Store::in_memory(Now::at_millis(0)).expect("a store");
    let sessions = Arc::new(Sessions::sharing(settings, store, Duration::from_secs(1)));
    let gate = enforcer_with(issuers(), routes(), InForce { sessions, ..InForce::unlimited() });
    let good = token(&payload(json!({})));
    let told = |offset: i64, asked: Asked| {
        let at = Timestamp::from_secs(NOW + offset);
        let asking = Asking { at, asked, ..Asking::new(&gate, "/deals").token(&good) };
        asking.explain().expect("a bearer token")
    };
    let in_use = told(50, Asked::NOTHING);
    assert_eq!((in_use.ok("idle"), in_use.ask), (Some(true), None));
    let idle = told(51, Asked::NOTHING);
    let Some(ask @ Ask::Session { last_used_at, .. }) = idle.ask else { panic!("{idle:?}") };
    assert_eq!(last_used_at, Timestamp::from_secs(NOW - 10));
    let elsewhere = Timestamp::from_secs(NOW + 20);
    for (answer, ok, detail) in [
        (
            SharedUse::LastUsed(elsewhere),
            Some(true),
            "last used 31s ago, at 2027-01-15T08:00:20.000Z; idle_timeout 1m",
        ),
        (SharedUse::Unknown, None, "not checked: the shared store does not respond"),
        (
            SharedUse::Over,
            Some(false),
            "not used since it was issued, 1m1s ago, at 2027-01-15T07:59:50.000Z; idle_timeout 1m",
        ),
    ] {
        let explanation = told(51, Asked::NOTHING.and(&ask).told(answer));
        assert_eq!((explanation.ok("idle"), explanation.detail("idle")), (ok, detail), "{answer:?}");
        assert_eq!(explanation.ask, None, "{answer:?}");
    }
}

#[test]
fn the_audience_of_a_token_is_compared_with_the_resource_of_the_route() {
    let resource = |path: &str, require_audience| RouteSettings {
        resource: Some(Arc::new(Resource {
            url: format!("https://api.example{path}"),
            require_audience,
            ..Resource::default()
        })),
        ..route(path)
    };
    let routes = vec![resource("/strict", true), resource("/loose", false), route("/plain")];
    let gate = enforcer(issuers(), routes);
    let (own, strict, loose) = (
        json!("https://api.example"),
        json!("https://api.example/strict"),
        json!("https://api.example/loose"),
    );
    let (strict_is_required, only) = (
        "; required: \"https://api.example/strict\"",
        ", so the token is only for these resources; the route belongs to ",
    );
    let free = "the route does not require a resource URL in aud";
    for (path, audience, ok, detail) in [
        ("/strict", json!([strict, own]), true, format!("aud is {strict}, {own}{strict_is_required}")),
        ("/strict", strict.clone(), true, format!("aud is {strict}{strict_is_required}")),
        ("/strict", own.clone(), false, format!("aud is {own}{strict_is_required}")),
        ("/strict", loose.clone(), false, format!("aud is {loose}{strict_is_required}")),
        ("/loose", own.clone(), true, free.to_owned()),
        ("/loose", loose.clone(), true, format!("aud is {loose}{only}{loose}")),
        ("/loose", strict.clone(), false, format!("aud is {strict}{only}{loose}")),
        ("/plain", own.clone(), true, free.to_owned()),
        ("/plain", loose.clone(), false, format!("aud is {loose}{only}none")),
    ] {
        let told = explained(&gate, path, &token(&payload(json!({ "aud": audience }))));
        assert_eq!((told.ok("resource"), told.detail("resource")), (Some(ok), &*detail), "{path} {audience}");
    }
}

#[test]
fn the_fields_of_mcp_are_told_on_routes_that_list_methods() {
    let mcp = McpSettings { methods: vec!["tools/list".to_owned()], names: Vec::new() };
    let gate = enforcer(issuers(), vec![RouteSettings { mcp, ..route("/mcp") }, route("/plain")]);
    let headers: HeaderMap = [(METHOD, "tools/list"), (VERSION, "2026-07-28")]
        .map(|(name, value)| (name, HeaderValue::from_static(value)))
        .into_iter()
        .collect();
    for (path, detail) in
        [("/mcp", "Mcp-Method \"tools/list\""), ("/plain", "the route does not depend on MCP headers")]
    {
        let told = gate.explain(&Question {
            token: &token(&payload(json!({}))),
            method: &Method::POST,
            path,
            host: None,
            headers: &headers,
            now: Now::at_millis(NOW * 1_000),
            stateless: None,
            asked: Asked::NOTHING,
        });
        assert_eq!((told.ok("mcp"), told.detail("mcp")), (Some(true), detail), "{path}");
    }
}

#[test]
fn spans_have_two_units() {
    for (millis, text) in [
        (0, "0s"),
        (250, "250ms"),
        (1_000, "1s"),
        (192_500, "3m12s"),
        (1_800_000, "30m"),
        (3_660_000, "1h1m"),
        (3_605_000, "1h"),
        (86_400_000, "1d"),
        (200_000_000, "2d7h"),
    ] {
        assert_eq!(words::span(Duration::from_millis(millis)), text);
    }
}
