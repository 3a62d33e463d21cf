//! Scopes and roles of tokens against what routes require.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::enforce::conditions::table::ConditionTable;
use crate::enforce::conditions::{ClaimCondition, ClaimTest, ClaimValue};
use crate::enforce::decide::Verdict;
use crate::enforce::denial::{Denial, Reason};
use crate::enforce::router::Router;
use crate::enforce::testing::{NOW, TestRequest, enforcer, issuers, payload, route, token};

fn requirement(scopes: &[&str], any_scope: &[&str], roles: &[&str], any_role: &[&str]) -> Requirement {
    let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect();
    Requirement {
        scopes: owned(scopes),
        any_scope: owned(any_scope),
        roles: owned(roles),
        any_role: owned(any_role),
        claims: Vec::new(),
    }
}

#[test]
fn a_token_needs_all_of_these_and_any_of_those() {
    let gate = enforcer(issuers(), vec![route("/{*rest}")]);
    let claims = payload(serde_json::json!({"scope": "a b", "roles": ["x", "y z"]}));
    let token = TestRequest::new(&gate, "/").token(&token(&claims)).decide().token.expect("a token");
    let (scope, role) = (Some(Reason::InsufficientScope), Some(Reason::InsufficientRole));
    let table: &[([&[&str]; 4], Option<Reason>)] = &[
        ([&[], &[], &[], &[]], None),
        ([&["a"], &[], &[], &[]], None),
        ([&["a", "b"], &[], &[], &[]], None),
        ([&["a", "c"], &[], &[], &[]], scope),
        ([&["A"], &[], &[], &[]], scope),
        ([&["a b"], &[], &[], &[]], scope),
        ([&[], &["c", "b"], &[], &[]], None),
        ([&[], &["c", "d"], &[], &[]], scope),
        ([&["a"], &["c"], &[], &[]], scope),
        ([&["c"], &["a"], &[], &[]], scope),
        ([&["a"], &["b"], &["x"], &["x", "q"]], None),
        ([&[], &[], &["x"], &[]], None),
        ([&[], &[], &["y"], &[]], role),
        ([&[], &[], &["y z"], &[]], None),
        ([&[], &[], &["x", "q"], &[]], role),
        ([&[], &[], &[], &["q"]], role),
        ([&["c"], &[], &["q"], &[]], scope),
    ];
    for ([scopes, any_scope, roles, any_role], expected) in table {
        let requirement = requirement(scopes, any_scope, roles, any_role);
        assert_eq!(
            requirement.judge_scopes(&token).and_then(|()| requirement.judge_roles(&token)).err(),
            *expected,
            "{requirement:?}"
        );
        let named = scopes.iter().chain(*any_scope).copied().collect::<Vec<_>>().join(" ");
        let named = (!named.is_empty()).then_some(named);
        let route =
            Route::new(0, RouteSettings { requirement, ..route("/a") }, &mut ConditionTable::default());
        let denial = route.judge_scopes(&token).and_then(|()| route.judge_roles(&token)).err();
        assert_eq!(denial.as_ref().map(|denial| denial.reason), *expected);
        if let Some(denial) = denial {
            assert_eq!(denial.scope.as_deref(), named.as_deref());
        }
    }
}

fn text(claim: &str, value: &str) -> ClaimCondition {
    let tests = vec![ClaimTest::Equals(ClaimValue::Text(value.to_owned()))];
    ClaimCondition { claim: ClaimName::Member(claim.to_owned()), tests }
}

/// Why a route denies a token with these claims.
fn denial(settings: RouteSettings, claims: serde_json::Value) -> Option<Denial> {
    let gate = enforcer(issuers(), vec![settings]);
    let token = token(&payload(claims));
    match TestRequest::new(&gate, "/a").token(&token).decide().verdict {
        Verdict::Allow(_) => None,
        Verdict::Deny(denial) => Some(denial),
        Verdict::Ask(ask) => panic!("asked for {ask:?}"),
    }
}

#[test]
fn one_alternative_must_be_met_whole_beside_the_plain_keys() {
    let settings = RouteSettings {
        requirement: requirement(&["base"], &[], &[], &[]),
        allow: vec![
            requirement(&["read", "base"], &["x", "y"], &[], &[]),
            Requirement { claims: vec![text("unit", "sales")], ..requirement(&[], &[], &["editor"], &[]) },
        ],
        ..route("/a")
    };
    let (scope, role) = (Some(Reason::InsufficientScope), Some(Reason::InsufficientRole));
    for (scopes, roles, unit, expected, named) in [
        ("base read x", &[][..], "", None, None),
        ("base read y", &[], "", None, None),
        ("base", &["editor"], "sales", None, None),
        ("read x", &["editor"], "sales", scope, Some("base read x y")),
        ("base read", &[], "", scope, Some("base read x y")),
        ("base x", &["editor"], "", scope, Some("base read x y")),
        // The first set lacks only scopes, which a client can ask for, so it is the nearest.
        ("base", &[], "sales", scope, Some("base read x y")),
        ("base", &[], "", scope, Some("base read x y")),
    ] {
        let claims = serde_json::json!({"scope": scopes, "roles": roles, "unit": unit});
        let denial = denial(settings.clone(), claims);
        assert_eq!(denial.as_ref().map(|denial| denial.reason), expected, "{scopes:?} {roles:?} {unit:?}");
        assert_eq!(denial.and_then(|denial| denial.scope).as_deref(), named, "{scopes:?} {roles:?} {unit:?}");
    }
    let claims =
        |roles: &[&str], unit: &str| serde_json::json!({"scope": "base", "roles": roles, "unit": unit});
    let second = RouteSettings { allow: settings.allow[1..].to_vec(), ..settings.clone() };
    for (roles, unit, expected) in [
        (&["editor"][..], "sales", None),
        (&[], "sales", role),
        (&["editor"], "other", Some(Reason::ClaimCondition)),
        (&[], "other", Some(Reason::ClaimCondition)),
    ] {
        let denial = denial(second.clone(), claims(roles, unit));
        assert_eq!(denial.map(|denial| denial.reason), expected, "{roles:?} {unit:?}");
    }
}

#[test]
fn a_challenge_names_each_scope_once_and_the_first_alternative() {
    let table = &mut ConditionTable::default();
    for (allow, named) in [
        (vec![], "a b"),
        (vec![requirement(&[], &[], &["r"], &[]), requirement(&["b", "c"], &["d"], &[], &[])], "a b c d"),
        (vec![requirement(&["c"], &[], &[], &[]), requirement(&["d"], &[], &[], &[])], "a b c"),
    ] {
        let settings =
            RouteSettings { requirement: requirement(&["a"], &["b"], &[], &[]), allow, ..route("/a") };
        assert_eq!(Route::new(0, settings, table).scope().map(AsRef::as_ref), Some(named));
    }
    assert_eq!(Route::new(0, route("/a"), table).scope(), None);
}

#[test]
fn a_route_may_accept_some_issuers_and_audiences_only() {
    use crate::enforce::testing::{AUDIENCE, ISSUER, OTHER};
    for (accepted, audiences, aud, expected) in [
        (&[][..], &[][..], serde_json::json!(AUDIENCE), None),
        (&[ISSUER], &[], serde_json::json!(AUDIENCE), None),
        (&[OTHER, ISSUER], &[AUDIENCE], serde_json::json!(AUDIENCE), None),
        (&[OTHER], &[], serde_json::json!(AUDIENCE), Some(Reason::UnknownIssuer)),
        (&[OTHER], &["x"], serde_json::json!(AUDIENCE), Some(Reason::UnknownIssuer)),
        (&[], &["x"], serde_json::json!(AUDIENCE), Some(Reason::WrongAudience)),
        (&[], &["x", "y"], serde_json::json!([AUDIENCE, "y"]), None),
        // The issuer's own rule applies besides the route's.
        (&[], &["x"], serde_json::json!("x"), Some(Reason::WrongAudience)),
    ] {
        let settings = RouteSettings {
            issuers: accepted.iter().map(|name| Arc::from(*name)).collect(),
            audiences: audiences.iter().map(ToString::to_string).collect(),
            ..route("/a")
        };
        let denial = denial(settings, serde_json::json!({"aud": aud}));
        assert_eq!(denial.map(|denial| denial.reason), expected, "{accepted:?} {audiences:?} {aud}");
    }
}

#[test]
fn authentication_must_be_of_a_kind_and_recent() {
    let minute = Some(Duration::from_secs(60));
    for (acr_values, max_age, claims, good) in [
        (&["gold"][..], None, serde_json::json!({"acr": "gold"}), true),
        (&["silver", "gold"], None, serde_json::json!({"acr": "gold"}), true),
        (&["gold"], None, serde_json::json!({"acr": "Gold"}), false),
        (&["gold"], None, serde_json::json!({"acr": 1}), false),
        (&["gold"], None, serde_json::json!({}), false),
        (&[], minute, serde_json::json!({"auth_time": NOW - 60}), true),
        (&[], minute, serde_json::json!({"auth_time": NOW - 61}), false),
        (&[], minute, serde_json::json!({"auth_time": NOW + 5}), true),
        (&[], minute, serde_json::json!({"auth_time": (NOW - 5).to_string()}), false),
        (&[], minute, serde_json::json!({}), false),
        (&["gold"], minute, serde_json::json!({"acr": "gold", "auth_time": NOW}), true),
        (&["gold"], minute, serde_json::json!({"acr": "gold", "auth_time": NOW - 99}), false),
        (&["gold"], minute, serde_json::json!({"acr": "lead", "auth_time": NOW}), false),
        (&[], None, serde_json::json!({"auth_time": "never"}), true),
    ] {
        let acr_values = acr_values.iter().map(ToString::to_string).collect();
        let settings =
            RouteSettings { authentication: Authentication { acr_values, max_age }, ..route("/a") };
        let denial = denial(settings, claims.clone());
        let expected = (!good).then_some(Reason::InsufficientAuthentication);
        assert_eq!(denial.map(|denial| denial.reason), expected, "{claims}");
    }
}

#[test]
fn a_route_asks_for_nothing_only_when_every_key_is_empty() {
    assert!(!route("/a").asks_for_anything());
    let claims = vec![text("a", "b")];
    let with_requirement = |requirement| RouteSettings { requirement, ..route("/a") };
    let authentication = |authentication| RouteSettings { authentication, ..route("/a") };
    for settings in [
        with_requirement(requirement(&["a"], &[], &[], &[])),
        with_requirement(requirement(&[], &["a"], &[], &[])),
        with_requirement(requirement(&[], &[], &["a"], &[])),
        with_requirement(requirement(&[], &[], &[], &["a"])),
        with_requirement(Requirement { claims, ..Requirement::default() }),
        RouteSettings { allow: vec![Requirement::default()], ..route("/a") },
        RouteSettings { issuers: vec!["a".into()], ..route("/a") },
        RouteSettings { audiences: vec!["a".to_owned()], ..route("/a") },
        authentication(Authentication { acr_values: vec!["a".to_owned()], max_age: None }),
        authentication(Authentication { acr_values: vec![], max_age: Some(Duration::from_secs(1)) }),
    ] {
        assert!(settings.asks_for_anything(), "{settings:?}");
        let anonymous = RouteSettings { anonymous: true, ..settings };
        let errors = Router::new(vec![anonymous]).expect_err("a mistake");
        assert_eq!(errors.iter().map(|error| error.key).collect::<Vec<_>>(), ["anonymous"]);
    }
}

#[test]
fn of_several_alternatives_that_lack_scopes_the_first_is_named() {
    for (allow, named) in [
        (&["read", "write"][..], Some("base read")),
        (&["write", "read"], Some("base write")),
        (&["base", "read"], None),
        (&["read", "base"], None),
    ] {
        let settings = RouteSettings {
            requirement: requirement(&["base"], &[], &[], &[]),
            allow: allow.iter().map(|scope| requirement(&[scope], &[], &[], &[])).collect(),
            ..route("/a")
        };
        let denial = denial(settings, serde_json::json!({"scope": "base"}));
        assert_eq!(denial.and_then(|denial| denial.scope).as_deref(), named, "{allow:?}");
    }
}
