//! Claims that hold a list: the scopes and the roles of a token, in the shapes that issuers give them.
//!
//! An issuer may spread a list over several claims; the union counts. Only scope strings are split: a role's
//! name may contain a space, and a user who may choose a role's name must not get two roles from one name.

use serde_json::{Map, Value};

use super::UnusableToken;
use crate::enforce::policy::ClaimName;

/// The scopes. Each claim is a space-delimited string (RFC 8693 §4.2) or an array of strings. Members of an
/// array stay whole, so one that contains a space grants neither of two scopes. `None` if all claims are
/// absent.
pub(in crate::enforce) fn scopes<'p>(
    names: &[ClaimName],
    payload: &'p Map<String, Value>,
) -> Result<Option<Vec<&'p str>>, UnusableToken> {
    union(names, payload, |claim| {
        let split = |text: &'p str| text.split(' ').filter(|scope| !scope.is_empty()).collect();
        let held = claim.as_str().map(split).or_else(|| strings(claim));
        held.ok_or("is neither a string nor an array of strings")
    })
}

/// The roles. Each claim is a string that is one role, an array of strings, or an object of objects whose
/// member names are the roles (ZITADEL). `None` if all claims are absent.
pub(in crate::enforce) fn roles<'p>(
    names: &[ClaimName],
    payload: &'p Map<String, Value>,
) -> Result<Option<Vec<&'p str>>, UnusableToken> {
    union(names, payload, |claim| {
        // No route can require a role with an empty name.
        let one = |role: &'p str| Some(role).filter(|role| !role.is_empty()).into_iter().collect();
        let held = claim.as_str().map(one).or_else(|| strings(claim)).or_else(|| members(claim));
        held.ok_or("is neither a string, an array of strings nor an object of objects")
    })
}

/// The union of several claims, each value once, in the order of the claims.
fn union<'p>(
    names: &[ClaimName],
    payload: &'p Map<String, Value>,
    read: impl Fn(&'p Value) -> Result<Vec<&'p str>, &'static str>,
) -> Result<Option<Vec<&'p str>>, UnusableToken> {
    let mut found: Option<Vec<&str>> = None;
    for name in names {
        let Some(claim) = name.find(payload) else { continue };
        let held = read(claim).map_err(|wrong| UnusableToken(format!("{name} {wrong}")))?;
        match &mut found {
            // A single claim stays as it is: an array may be long, and its order is the issuer's.
            None => found = Some(held),
            Some(before) => {
                for value in held {
                    if !before.contains(&value) {
                        before.push(value);
                    }
                }
            }
        }
    }
    Ok(found)
}

/// The members of an array of strings.
pub(super) fn strings(value: &Value) -> Option<Vec<&str>> {
    value.as_array()?.iter().map(Value::as_str).collect()
}

/// The member names of an object of objects.
fn members(value: &Value) -> Option<Vec<&str>> {
    let members = value.as_object()?;
    members.values().all(Value::is_object).then(|| members.keys().map(String::as_str).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn named(names: &[&str]) -> Vec<ClaimName> {
        names.iter().map(|name| ClaimName::Member((*name).to_owned())).collect()
    }

    #[test]
    fn only_scope_strings_are_split() {
        let table = [
            (json!("a b"), Some(vec!["a", "b"]), Some(vec!["a b"])),
            (json!("  a   b "), Some(vec!["a", "b"]), Some(vec!["  a   b "])),
            (json!("a"), Some(vec!["a"]), Some(vec!["a"])),
            (json!("a,b"), Some(vec!["a,b"]), Some(vec!["a,b"])),
            (json!(""), Some(vec![]), Some(vec![])),
            (json!(" "), Some(vec![]), Some(vec![" "])),
            (json!(["a b", "c"]), Some(vec!["a b", "c"]), Some(vec!["a b", "c"])),
            (json!(["a", "a"]), Some(vec!["a", "a"]), Some(vec!["a", "a"])),
            (json!([]), Some(vec![]), Some(vec![])),
            (json!(null), None, None),
        ];
        for (claim, in_scope, in_roles) in table {
            let payload = json!({"c": claim});
            let (names, payload) = (named(&["c"]), payload.as_object().unwrap());
            assert_eq!(scopes(&names, payload), Ok(in_scope), "scope {claim}");
            assert_eq!(roles(&names, payload), Ok(in_roles), "roles {claim}");
        }
    }

    #[test]
    fn the_members_of_an_object_of_objects_are_roles_and_no_scopes() {
        let payload = json!({
            "zitadel": {"reader": {"2846": "a.example"}, "case writer": {}},
            "empty": {}, "keycloak": {"roles": ["admin"]}, "flags": {"admin": true}, "half": {"a": {}, "b": null},
        });
        let payload = payload.as_object().unwrap();
        let mut found = roles(&named(&["zitadel"]), payload).unwrap().unwrap();
        found.sort_unstable();
        assert_eq!(found, ["case writer", "reader"]);
        assert_eq!(roles(&named(&["empty"]), payload), Ok(Some(vec![])));
        for name in ["keycloak", "flags", "half"] {
            let wrong = format!("{name} is neither a string, an array of strings nor an object of objects");
            assert_eq!(roles(&named(&[name]), payload), Err(UnusableToken(wrong)));
        }
        for name in ["zitadel", "empty"] {
            let wrong = format!("{name} is neither a string nor an array of strings");
            assert_eq!(scopes(&named(&[name]), payload), Err(UnusableToken(wrong)));
        }
    }

    #[test]
    fn several_claims_are_one_list_without_repetitions() {
        let payload = json!({
            "scope": "read write", "permissions": ["write", "admin all"], "null": null, "one": "read write",
            "number": 7, "mixed": ["a", 1],
        });
        let payload = payload.as_object().unwrap();
        let all = named(&["absent", "scope", "null", "permissions"]);
        assert_eq!(scopes(&all, payload), Ok(Some(vec!["read", "write", "admin all"])));
        assert_eq!(roles(&named(&["permissions", "one"]), payload), {
            Ok(Some(vec!["write", "admin all", "read write"]))
        });
        assert_eq!(scopes(&named(&["absent", "null"]), payload), Ok(None));
        assert_eq!(scopes(&[], payload), Ok(None));
        for wrong in ["number", "mixed"] {
            for names in [[wrong, "scope"], ["scope", wrong]] {
                let names = named(&names);
                let fault = scopes(&names, payload).unwrap_err();
                assert!(fault.0.starts_with(wrong), "{fault:?}");
                assert!(roles(&names, payload).is_err());
            }
        }
    }
}
