//! Details of the policy checks: conditions, alternatives, authentication.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::words;
use crate::enforce::checks::Case;
use crate::enforce::conditions::ClaimCondition;
use crate::enforce::denial::Reason;
use crate::enforce::policy::{Requirement, RouteSettings};
use crate::enforce::token::VerifiedToken;

fn payload<'c>(case: &'c Case<'_>) -> Option<&'c Map<String, Value>> {
    case.jws.as_ref().map(|jws| &jws.payload)
}

fn settings<'c>(case: &'c Case<'_>) -> Option<&'c RouteSettings> {
    case.route.map(|route| route.settings())
}

pub(in crate::enforce) fn issuers(case: &Case<'_>, _failed: Option<Reason>) -> String {
    let (Some(route), Some((_, issuer))) = (settings(case), case.issuer) else { return String::new() };
    match route.issuers.as_slice() {
        [] => "the route accepts every configured issuer".to_owned(),
        named => format!(
            "iss is {}; the route accepts: {}",
            words::list(std::iter::once(&*issuer.rules.issuer)),
            words::list(named.iter().map(AsRef::as_ref))
        ),
    }
}

pub(in crate::enforce) fn audiences(case: &Case<'_>, _failed: Option<Reason>) -> String {
    let (Some(route), Some((_, issuer)), Some(payload)) = (settings(case), case.issuer, payload(case)) else {
        return String::new();
    };
    match route.audiences.as_slice() {
        [] => "the route requires no additional audience".to_owned(),
        named => {
            let claim = &issuer.rules.claims.audience;
            let named = words::list(named.iter().map(String::as_str));
            format!("{claim} is {}; required, one of: {named}", words::value(claim.find(payload)))
        }
    }
}

pub(in crate::enforce) fn of_issuer(case: &Case<'_>, _failed: Option<Reason>) -> String {
    let (Some((_, issuer)), Some(payload)) = (case.issuer, payload(case)) else { return String::new() };
    conditions(&issuer.rules.conditions, payload)
}

pub(in crate::enforce) fn of_route(case: &Case<'_>, _failed: Option<Reason>) -> String {
    let (Some(route), Some(payload)) = (settings(case), payload(case)) else { return String::new() };
    conditions(&route.requirement.claims, payload)
}

pub(in crate::enforce) fn alternatives(case: &Case<'_>, _failed: Option<Reason>) -> String {
    let (Some(route), Some(payload), Some(token)) = (settings(case), payload(case), &case.token) else {
        return String::new();
    };
    if route.allow.is_empty() {
        return "the route has no alternatives".to_owned();
    }
    let sets = route.allow.iter().enumerate().map(|(index, one)| {
        let lacks = lacking(one, token, payload);
        let verdict = if lacks.is_empty() { "met".to_owned() } else { format!("lacks {}", lacks.join(", ")) };
        format!("set {}: {verdict}", index + 1)
    });
    format!("one set must be fully met; {}", sets.collect::<Vec<_>>().join("; "))
}

/// What a token lacks to meet one set.
fn lacking(one: &Requirement, token: &VerifiedToken, payload: &Map<String, Value>) -> Vec<String> {
    let mut lacks = Vec::new();
    if one.judge_scopes(token).is_err() {
        lacks.push(format!("scopes ({})", words::needed(&one.scopes, &one.any_scope, &token.scopes)));
    }
    if one.judge_roles(token).is_err() {
        lacks.push(format!("roles ({})", words::needed(&one.roles, &one.any_role, &token.roles)));
    }
    let unmet = one.claims.iter().filter(|condition| !condition.is_met(payload));
    lacks.extend(unmet.map(|condition| shown(condition, payload)));
    lacks
}

pub(in crate::enforce) fn authentication(case: &Case<'_>, _failed: Option<Reason>) -> String {
    let (Some(route), Some(payload), Some(token)) = (settings(case), payload(case), &case.token) else {
        return String::new();
    };
    let needed = &route.authentication;
    let mut text = String::new();
    if !needed.acr_values.is_empty() {
        let values = words::list(needed.acr_values.iter().map(String::as_str));
        text = format!("acr is {}; required, one of: {values}", words::value(payload.get("acr")));
    }
    if let Some(most) = needed.max_age {
        let age = token.authenticated_at.map_or("unknown: auth_time is absent".to_owned(), |at| {
            format!("{} ago", words::span(case.now.wall.since(at)))
        });
        let and = if text.is_empty() { "" } else { "; " };
        // Writing to a string cannot fail.
        let _written = write!(text, "{and}authenticated {age}; max_age {}", words::span(most));
    }
    if text.is_empty() { "the route has no authentication requirements".to_owned() } else { text }
}

/// Lists each condition with the claim's value and whether it is met.
fn conditions(all: &[ClaimCondition], payload: &Map<String, Value>) -> String {
    match all {
        [] => "no conditions".to_owned(),
        all => all.iter().map(|condition| shown(condition, payload)).collect::<Vec<_>>().join("; "),
    }
}

fn shown(condition: &ClaimCondition, payload: &Map<String, Value>) -> String {
    let verdict = if condition.is_met(payload) { "met" } else { "not met" };
    format!("{condition}: {verdict}; the claim is {}", words::value(condition.claim.find(payload)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use crate::enforce::conditions::{ClaimCondition, ClaimTest, ClaimValue};
    use crate::enforce::denial::Reason;
    use crate::enforce::policy::{Authentication, ClaimName, Requirement, RouteSettings};
    use crate::enforce::testing::{
        AUDIENCE, ISSUER, NOW, TestRequest, enforcer, issuers, payload, route, token,
    };

    fn equals(claim: &str, value: &str) -> ClaimCondition {
        let tests = vec![ClaimTest::Equals(ClaimValue::Text(value.to_owned()))];
        ClaimCondition { claim: ClaimName::Member(claim.to_owned()), tests }
    }

    fn demanding() -> RouteSettings {
        RouteSettings {
            requirement: Requirement {
                claims: vec![equals("repository_id", "123")],
                ..Requirement::default()
            },
            allow: vec![
                Requirement { scopes: vec!["deploy".to_owned()], ..Requirement::default() },
                Requirement {
                    roles: vec!["admin".to_owned()],
                    claims: vec![equals("unit", "ops")],
                    ..Requirement::default()
                },
            ],
            issuers: vec![ISSUER.into()],
            audiences: vec!["https://deploy.example".to_owned()],
            authentication: Authentication {
                acr_values: vec!["gold".to_owned()],
                max_age: Some(Duration::from_secs(60)),
            },
            ..route("/demanding")
        }
    }

    #[test]
    fn each_condition_is_told_with_the_value_of_its_claim() {
        let mut issuers = issuers();
        issuers[0].rules.conditions = vec![equals("staff", "yes")];
        let gate = enforcer(issuers, vec![demanding(), route("/plain")]);
        let claims =
            json!({"repository_id": "124", "staff": "no\u{1b}", "acr": "silver", "auth_time": NOW - 90});
        let refused = TestRequest::new(&gate, "/demanding").token(&token(&payload(claims)));
        let told = refused.explain().expect("a bearer token");
        assert_eq!(told.reason, Some(Reason::WrongAudience));
        for (check, ok, detail) in [
            ("route_issuers", true, format!("iss is {ISSUER:?}; the route accepts: {ISSUER:?}")),
            (
                "route_audiences",
                false,
                format!("aud is {AUDIENCE:?}; required, one of: \"https://deploy.example\""),
            ),
            ("issuer_conditions", false, r#"staff = "yes": not met; the claim is "no\u{1b}""#.to_owned()),
            ("claim_conditions", false, r#"repository_id = "123": not met; the claim is "124""#.to_owned()),
            (
                "allow",
                false,
                concat!(
                    r#"one set must be fully met; "#,
                    r#"set 1: lacks scopes (required: all of "deploy"; the token has: "read:deals", "read:users"); "#,
                    r#"set 2: lacks roles (required: all of "admin"; the token has: "editor"), "#,
                    r#"unit = "ops": not met; the claim is absent"#
                )
                .to_owned(),
            ),
            (
                "authentication",
                false,
                r#"acr is "silver"; required, one of: "gold"; authenticated 1m30s ago; max_age 1m"#.to_owned(),
            ),
        ] {
            assert_eq!((told.ok(check), told.detail(check)), (Some(ok), detail.as_str()), "{check}");
        }
    }

    #[test]
    fn a_token_that_meets_everything_is_told_so() {
        let mut issuers = issuers();
        issuers[0].rules.conditions = vec![equals("staff", "yes")];
        let gate = enforcer(issuers, vec![demanding(), route("/plain")]);
        let good = json!({
            "aud": [AUDIENCE, "https://deploy.example"], "repository_id": "123", "staff": "yes", "acr": "gold",
            "scope": "deploy", "auth_time": NOW,
        });
        let token = token(&payload(good));
        let told = TestRequest::new(&gate, "/demanding").token(&token).explain().expect("a bearer token");
        assert!(told.allowed, "{told:?}");
        assert_eq!(told.detail("issuer_conditions"), r#"staff = "yes": met; the claim is "yes""#);
        assert!(
            told.detail("allow").starts_with("one set must be fully met; set 1: met; set 2: lacks roles")
        );
        assert_eq!(
            told.detail("authentication"),
            r#"acr is "gold"; required, one of: "gold"; authenticated 0s ago; max_age 1m"#
        );
        let plain = TestRequest::new(&gate, "/plain").token(&token).explain().expect("a bearer token");
        for (check, detail) in [
            ("route_issuers", "the route accepts every configured issuer"),
            ("route_audiences", "the route requires no additional audience"),
            ("claim_conditions", "no conditions"),
            ("allow", "the route has no alternatives"),
            ("authentication", "the route has no authentication requirements"),
        ] {
            assert_eq!(plain.detail(check), detail);
        }
    }
}
