//! What verified tokens contain, in the shapes that real issuers send.

#![expect(clippy::too_many_lines, reason = "a table is as long as it has rows")]

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::enforce::decide::TrustedIssuer;
use crate::enforce::testing::{NOW, TestRequest, b64, enforcer, issuers, payload, route, token, without};

fn names(scope: ClaimName, roles: ClaimName) -> ClaimNames {
    let member = |name: &str| ClaimName::Member(name.to_owned());
    ClaimNames {
        scope: vec![scope],
        roles: vec![roles],
        client: member("azp"),
        tenant: member("tid"),
        role_version: ClaimName::Pointer(vec!["ext".to_owned(), "rv".to_owned()]),
        ..ClaimNames::default()
    }
}

fn verified(claims: &Value, change: impl Fn(&mut IssuerRules)) -> Option<Arc<VerifiedToken>> {
    let mut issuers: Vec<TrustedIssuer> = issuers();
    change(&mut issuers[0].rules);
    let gate = enforcer(issuers, vec![route("/{*rest}")]);
    TestRequest::new(&gate, "/x").token(&token(claims)).decide().token
}

#[test]
fn scopes_and_roles_are_found_in_the_shapes_of_real_issuers() {
    let member = |name: &str| ClaimName::Member(name.to_owned());
    let keycloak = ClaimName::Pointer(vec!["realm_access".to_owned(), "roles".to_owned()]);
    let table = [
        (
            "Keycloak",
            member("scope"),
            keycloak.clone(),
            json!({"scope": "openid email", "realm_access": {"roles": ["admin", "user"]}}),
            vec!["openid", "email"],
            vec!["admin", "user"],
        ),
        (
            "Entra",
            member("scp"),
            member("roles"),
            json!({"scp": "Deals.Read Deals.Write", "roles": ["Deal Admin"]}),
            vec!["Deals.Read", "Deals.Write"],
            vec!["Deal Admin"],
        ),
        (
            "Okta",
            member("scp"),
            member("groups"),
            json!({"scp": ["read:deals", "offline_access"], "groups": ["Everyone"]}),
            vec!["read:deals", "offline_access"],
            vec!["Everyone"],
        ),
        (
            "Auth0",
            member("permissions"),
            member("https://example.com/roles"),
            json!({"permissions": ["read:deals"], "https://example.com/roles": ["editor"]}),
            vec!["read:deals"],
            vec!["editor"],
        ),
        (
            "Cognito",
            member("scope"),
            member("cognito:groups"),
            json!({"scope": "api/read api/write", "cognito:groups": ["admins"]}),
            vec!["api/read", "api/write"],
            vec!["admins"],
        ),
        (
            "strings with many spaces",
            member("scope"),
            member("roles"),
            json!({"scope": "  a   b ", "roles": "c d"}),
            vec!["a", "b"],
            vec!["c d"],
        ),
        (
            "ZITADEL",
            member("scope"),
            member("urn:zitadel:iam:org:project:roles"),
            json!({"scope": "openid", "urn:zitadel:iam:org:project:roles": {"reader": {"2846": "a.example"}}}),
            vec!["openid"],
            vec!["reader"],
        ),
        (
            "an index",
            member("scope"),
            ClaimName::Pointer(vec!["orgs".to_owned(), "1".to_owned(), "roles".to_owned()]),
            json!({"scope": [], "orgs": [{"roles": ["x"]}, {"roles": ["y"]}]}),
            vec![],
            vec!["y"],
        ),
        (
            "nothing there",
            member("absent"),
            ClaimName::Pointer(vec!["sub".to_owned(), "x".to_owned()]),
            json!({}),
            vec![],
            vec![],
        ),
    ];
    for (issuer, scope, roles, claims, scopes_held, roles_held) in table {
        let found = verified(&payload(claims), |rules| rules.claims = names(scope.clone(), roles.clone()));
        let found = found.unwrap_or_else(|| panic!("{issuer}: refused"));
        let text = |list: &Words| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            (text(&found.scopes), text(&found.roles)),
            (
                scopes_held.iter().map(ToString::to_string).collect(),
                roles_held.iter().map(ToString::to_string).collect(),
            ),
            "{issuer}"
        );
    }
}

#[test]
fn every_claim_finds_its_place() {
    let claims = payload(json!({
        "azp": "app-7", "tid": {"id": 7}, "ext": {"rv": 12}, "nbf": NOW - 1, "iat": NOW as f64 - 10.75,
        "cnf": {"x5t#S256": b64(&[7; 32]), "jkt": b64(&[8; 32])},
    }));
    let member = |name: &str| ClaimName::Member(name.to_owned());
    let found =
        verified(&claims, |rules| rules.claims = names(member("scope"), member("roles"))).expect("a token");
    assert_eq!(found.subject.as_deref(), Some("alice"));
    assert_eq!(found.jti.as_deref(), Some("token-1"));
    assert_eq!(found.client.as_deref(), Some("app-7"));
    assert_eq!(found.tenant.as_deref(), Some("{\"id\":7}"));
    assert_eq!(found.role_version, Some(12));
    assert_eq!(found.issued_at, Timestamp::from_millis(NOW * 1000 - 10_750));
    assert_eq!(found.expires_at, Timestamp::from_secs(NOW + 600));
    assert_eq!(found.not_before, Some(Timestamp::from_secs(NOW - 1)));
    assert_eq!(found.bound_to, Confirmation { certificate: Some([7; 32]), key: Some([8; 32]) });
    // printf 'https://idp.example/\nalice' | sha256sum
    assert_eq!(found.subject_hash.as_deref(), Some("62cbd6c7a380"));
}

#[test]
fn required_claims_are_those_of_the_issuer() {
    let requires = |claims: &Value, required: &[&str]| {
        verified(claims, |rules| rules.required_claims = required.iter().map(ToString::to_string).collect())
            .is_some()
    };
    let nobody = without(payload(json!({})), "sub");
    assert!(requires(&nobody, &[]));
    assert!(!requires(&nobody, &["sub"]));
    assert!(requires(&payload(json!({"acr": "1"})), &["sub", "acr"]));
    assert!(!requires(&payload(json!({"acr": null})), &["acr"]));
}

#[test]
fn words_stay_apart() {
    for words in [&[][..], &[""], &["a"], &["a", ""], &["", "a"], &["a", "b c", "é"]] {
        let joined = Words::new(words).expect("no NUL");
        assert_eq!(joined.iter().collect::<Vec<_>>(), words);
        assert!(words.iter().all(|word| joined.contains(word)));
        assert!(!joined.contains("b") && !joined.contains("c") && !joined.contains("x"));
        assert_eq!(format!("{joined:?}"), format!("{words:?}"));
    }
    for words in [&["a\0b"][..], &["\0"], &["a", "b\0"], &["\0\0", ""]] {
        assert!(Words::new(words).is_none(), "{words:?}");
    }
}

#[test]
fn a_date_is_a_number_of_seconds_within_the_years_of_four_digits() {
    let last = 253_402_300_799_i64;
    let table = [
        (json!(null), Ok(None)),
        (json!(0), Ok(Some(0))),
        (json!(1), Ok(Some(1_000))),
        (json!(-1), Ok(Some(-1_000))),
        (json!(1.5), Ok(Some(1_500))),
        (json!(-1.5), Ok(Some(-1_500))),
        (json!(last), Ok(Some(last * 1_000))),
        (json!(-last), Ok(Some(-last * 1_000))),
        (json!(last + 1), Err(Reason::BadClaim)),
        (json!(-last - 1), Err(Reason::BadClaim)),
        (json!(u64::MAX), Err(Reason::BadClaim)),
        (json!("1"), Err(Reason::BadClaim)),
        (json!(true), Err(Reason::BadClaim)),
        (json!([1]), Err(Reason::BadClaim)),
    ];
    for (value, expected) in table {
        let claims = payload(json!({ "nbf": value }));
        let found = date(claims.as_object().expect("an object"), "nbf");
        assert_eq!(found.map(|date| date.map(Timestamp::as_millis)), expected, "{value}");
    }
    let claims = payload(json!({}));
    assert_eq!(date(claims.as_object().expect("an object"), "nbf"), Ok(None), "absent");
}
