//! Header values, and that they can be decoded again.

use serde_json::json;

use super::*;
use crate::enforce::policy::ClaimName;
use crate::enforce::testing::{identity, rules};

fn rendered(payload: &Value, claim: IdentityClaim) -> Option<Result<String, TooLong>> {
    let settings = IdentitySettings {
        headers: vec![(HeaderName::from_static("x-claim"), claim)],
        ..IdentitySettings::default()
    };
    let names = rules("https://idp.example/", &[]).claims;
    match render(&settings, &names, payload.as_object().expect("an object")) {
        Ok(headers) => headers.sent.first().map(|(_, value)| Ok(value.to_str().expect("ASCII").to_owned())),
        Err(too_long) => Some(Err(too_long)),
    }
}

#[test]
fn strings_arrays_and_other_json_become_header_values() {
    let table = [
        (json!("alice"), "alice"),
        (json!("auth0|507f1f77"), "auth0|507f1f77"),
        (json!("Jane Doe"), "Jane Doe"),
        (json!(" admin"), "%20admin"),
        (json!("admin "), "admin%20"),
        (json!(" "), "%20"),
        (json!("a,b"), "a,b"),
        (json!("Zoë"), "Zo%C3%AB"),
        (json!("100%"), "100%25"),
        (json!("%61dmin"), "%2561dmin"),
        (json!("a\r\nx-auth-roles: admin"), "a%0D%0Ax-auth-roles: admin"),
        (json!("a\0\t\u{7f}"), "a%00%09%7F"),
        (json!("\u{1f355}"), "%F0%9F%8D%95"),
        (json!(""), ""),
        (json!(["a", "b"]), "a,b"),
        (json!(["a"]), "a"),
        (json!([]), ""),
        (json!(["a,b", "c"]), "a%2Cb,c"),
        (json!(["Deal Admin", " x ", "é%"]), "Deal Admin,%20x%20,%C3%A9%25"),
        (json!([1, true, null, {"a": [1, 2]}]), "1,true,null,{\"a\":[1%2C2]}"),
        (json!(7), "7"),
        (json!(1.5), "1.5"),
        (json!(true), "true"),
        (json!({"id": 7, "name": "é, %"}), "{\"id\":7,\"name\":\"%C3%A9, %25\"}"),
    ];
    for (claim, expected) in table {
        let found = rendered(&json!({"c": claim}), IdentityClaim::Token(ClaimName::Member("c".to_owned())));
        assert_eq!(found, Some(Ok(expected.to_owned())), "{claim}");
    }
    let null = rendered(&json!({"c": null}), IdentityClaim::Token(ClaimName::Member("c".to_owned())));
    assert_eq!(null, None, "like an absent claim");
}

#[test]
fn scopes_are_parted_by_spaces_and_roles_by_commas() {
    let table = [
        (json!({"scope": "read write"}), IdentityClaim::Scope, "read write"),
        (json!({"scope": ["read", "write"]}), IdentityClaim::Scope, "read write"),
        (json!({"scope": ["a b", "c,d"]}), IdentityClaim::Scope, "a%20b c,d"),
        (json!({"roles": ["admin", "editor"]}), IdentityClaim::Roles, "admin,editor"),
        (json!({"roles": ["a b", "c,d"]}), IdentityClaim::Roles, "a b,c%2Cd"),
        (json!({"roles": "admin editor"}), IdentityClaim::Roles, "admin editor"),
        (json!({"roles": "admin,editor"}), IdentityClaim::Roles, "admin%2Ceditor"),
        (json!({"roles": ""}), IdentityClaim::Roles, ""),
        (json!({"roles": {"admin": {"7": "a.example"}}}), IdentityClaim::Roles, "admin"),
        (json!({"scope": " read  write"}), IdentityClaim::Scope, "%20read  write"),
        (json!({"tenant": 7}), IdentityClaim::Tenant, "7"),
        (json!({"client_id": "app"}), IdentityClaim::Client, "app"),
        (json!({"sub": "alice"}), IdentityClaim::Subject, "alice"),
    ];
    for (payload, claim, expected) in table {
        assert_eq!(rendered(&payload, claim), Some(Ok(expected.to_owned())), "{payload}");
    }
}

#[test]
fn a_list_in_several_claims_is_one_header() {
    let member = |name: &str| ClaimName::Member(name.to_owned());
    let names = ClaimNames {
        scope: vec![member("scope"), member("permissions")],
        roles: vec![member("realm"), member("api")],
        ..ClaimNames::default()
    };
    let table = [
        (json!({"scope": "a b", "permissions": ["b", "c d"]}), [Some("a b c%20d"), None]),
        (json!({"permissions": ["b"], "api": "x,y", "realm": ["z"]}), [Some("b"), Some("z,x%2Cy")]),
        (json!({"realm": ["z"]}), [None, Some("z")]),
        (json!({}), [None, None]),
    ];
    let settings = IdentitySettings {
        headers: vec![
            (HeaderName::from_static("x-scope"), IdentityClaim::Scope),
            (HeaderName::from_static("x-roles"), IdentityClaim::Roles),
        ],
        ..IdentitySettings::default()
    };
    for (payload, expected) in table {
        let headers = render(&settings, &names, payload.as_object().expect("an object"));
        let headers = headers.expect("headers").sent;
        let found = ["x-scope", "x-roles"].map(|wanted| {
            headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.to_str().expect("ASCII"))
        });
        assert_eq!(found, expected, "{payload}");
    }
}

#[test]
fn an_absent_claim_is_an_absent_header() {
    for claim in [
        IdentityClaim::Subject,
        IdentityClaim::Tenant,
        IdentityClaim::Token(ClaimName::Pointer(vec!["a".to_owned(), "b".to_owned()])),
    ] {
        assert_eq!(rendered(&json!({"a": {"c": 1}}), claim), None);
    }
    let names = rules("https://idp.example/", &[]).claims;
    let payload = json!({"sub": "alice", "roles": ["editor"]});
    let headers = render(&identity(), &names, payload.as_object().expect("an object")).expect("headers");
    let names: Vec<_> = headers.sent.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["x-auth-subject", "x-auth-roles"]);
}

#[test]
fn more_than_four_kibibytes_are_refused() {
    let of = |length: usize| rendered(&json!({"sub": "é".repeat(length)}), IdentityClaim::Subject);
    let too_long = |length| Some(Err(TooLong { header: HeaderName::from_static("x-claim"), length }));
    assert!(matches!(of(682), Some(Ok(value)) if value.len() == 4092));
    assert_eq!(of(683), too_long(4098));
    let exactly = rendered(&json!({"sub": "x".repeat(4096)}), IdentityClaim::Subject);
    assert!(matches!(exactly, Some(Ok(value)) if value.len() == 4096));
    assert_eq!(rendered(&json!({"sub": "x".repeat(4097)}), IdentityClaim::Subject), too_long(4097));
}

/// Renders a payload with a limit: names and lengths of the headers sent, and the names of those omitted.
fn limited(payload: &Value, max_value: usize, on_overflow: OnOverflow) -> Result<String, TooLong> {
    let settings = IdentitySettings { max_value, on_overflow, ..identity() };
    let names = rules("https://idp.example/", &[]).claims;
    let headers = render(&settings, &names, payload.as_object().expect("an object"))?;
    let sent: Vec<_> = headers.sent.iter().map(|(name, value)| format!("{name}={}", value.len())).collect();
    Ok(format!("{} | {}", sent.join(" "), headers.omitted.as_deref().unwrap_or("nothing")))
}

#[test]
fn a_header_is_sent_whole_or_left_out_or_ends_the_token_by_its_rendered_length() {
    use OnOverflow::{Omit, Refuse};
    let refused = |header, length| Err(TooLong { header: HeaderName::from_static(header), length });
    let sent = |text: &str| Ok(text.to_owned());
    let groups: Vec<String> =
        (0..100).map(|number| format!("{number:08}-0000-4000-8000-{number:012}")).collect();
    let table = [
        // The length is that of the value sent: separators and percent-encoded bytes count.
        (json!({"sub": "abcde"}), 5, Refuse, sent("x-auth-subject=5 | nothing")),
        (json!({"sub": "abcde"}), 4, Refuse, refused("x-auth-subject", 5)),
        (json!({"sub": "abcde"}), 5, Omit, sent("x-auth-subject=5 | nothing")),
        (json!({"sub": "abcde"}), 4, Omit, sent(" | x-auth-subject")),
        (json!({"sub": "é"}), 6, Refuse, sent("x-auth-subject=6 | nothing")),
        (json!({"sub": "é"}), 5, Refuse, refused("x-auth-subject", 6)),
        (json!({"roles": ["a", "b"]}), 3, Omit, sent("x-auth-roles=3 | nothing")),
        (json!({"roles": ["a", "b"]}), 2, Omit, sent(" | x-auth-roles")),
        (json!({"roles": ["a,"]}), 3, Refuse, refused("x-auth-roles", 4)),
        // Each header by itself; every header that is too long is omitted.
        (json!({"sub": "ab", "roles": ["a", "b"]}), 2, Omit, sent("x-auth-subject=2 | x-auth-roles")),
        (json!({"sub": "abc", "client_id": "abc"}), 2, Omit, sent(" | x-auth-subject,x-auth-client")),
        (json!({"sub": "abc", "client_id": "abcd"}), 2, Refuse, refused("x-auth-subject", 3)),
        // An absent claim and an empty one never exceed the limit.
        (json!({"sub": ""}), 1, Refuse, sent("x-auth-subject=0 | nothing")),
        (json!({}), 1, Omit, sent(" | nothing")),
        // 100 groups of a directory that names them with 36 characters: 3 699 bytes with their commas.
        (json!({"roles": groups}), 4096, Refuse, sent("x-auth-roles=3699 | nothing")),
        (json!({"roles": groups}), 3699, Refuse, sent("x-auth-roles=3699 | nothing")),
        (json!({"roles": groups}), 3698, Refuse, refused("x-auth-roles", 3699)),
        (json!({"roles": groups}), 3698, Omit, sent(" | x-auth-roles")),
    ];
    for (payload, max_value, on_overflow, expected) in table {
        assert_eq!(limited(&payload, max_value, on_overflow), expected, "{payload} {max_value}");
    }
}

proptest::proptest! {
    #[test]
    fn what_was_rendered_can_be_read_back(members in proptest::collection::vec(".{1,20}", 1..6)) {
        for (claim, separator, name) in [(IdentityClaim::Scope, ' ', "scope"), (IdentityClaim::Roles, ',', "roles")] {
            let value = rendered(&json!({ name: members.clone() }), claim).expect("a header").expect("a short one");
            let read = |part: &str| percent_encoding::percent_decode_str(part).decode_utf8().expect("UTF-8").into_owned();
            proptest::prop_assert_eq!(value.split(separator).map(read).collect::<Vec<_>>(), members.clone());
        }
    }
}
