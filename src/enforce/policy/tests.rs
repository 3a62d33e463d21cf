//! Scopes and roles against what routes demand.

use super::*;
use crate::enforce::denial::Reason;
use crate::enforce::testing::{TestRequest, enforcer, issuers, payload, route, token};

fn requirement(scopes: &[&str], any_scope: &[&str], roles: &[&str], any_role: &[&str]) -> Requirement {
    let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect();
    Requirement {
        scopes: owned(scopes),
        any_scope: owned(any_scope),
        roles: owned(roles),
        any_role: owned(any_role),
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
        let route = Route::new(0, RouteSettings { requirement, ..route("/a") });
        let denial = route.judge_scopes(&token).and_then(|()| route.judge_roles(&token)).err();
        assert_eq!(denial.as_ref().map(|denial| denial.reason), *expected);
        if let Some(denial) = denial {
            assert_eq!(denial.scope.as_deref(), named.as_deref());
        }
    }
}
