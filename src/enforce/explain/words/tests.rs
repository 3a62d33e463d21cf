//! What the details of a check say.

use serde_json::json;

use super::*;

#[test]
fn a_token_is_valid_from_its_nbf_on() {
    let secs = Timestamp::from_secs;
    let told = |not_before, now| {
        let times = Validity { issued_at: secs(0), expires_at: secs(900), not_before };
        super::not_before(&times, Duration::from_secs(30), secs(now))
    };
    assert_eq!(told(None, 100), "nbf is absent");
    let since = format!("valid since {}", secs(100));
    assert_eq!((told(Some(secs(100)), 100), told(Some(secs(100)), 101)), (since.clone(), since));
    assert!(told(Some(secs(100)), 99).ends_with("; leeway 30s"), "{}", told(Some(secs(100)), 99));
}

#[test]
fn only_a_token_of_the_legacy_issuer_without_an_end_is_said_to_never_expire() {
    for (payload, expected) in [
        (json!({"iss": LEGACY}), true),
        (json!({"iss": LEGACY, "exp": 900}), false),
        (json!({"iss": "https://idp.example/"}), false),
        (json!({}), false),
    ] {
        let told = dates(payload.as_object().unwrap(), None);
        assert_eq!(told.ends_with(NEVER_EXPIRES), expected, "{payload}: {told}");
    }
}

#[test]
fn quotes_stay_and_what_a_terminal_would_interpret_does_not() {
    for (text, expected) in [
        ("it's \"a\" \\", "it's \"a\" \\"),
        ("a\nb\u{1b}[2J", "a\\nb\\u{1b}[2J"),
        (&"é".repeat(LONGEST), &*"é".repeat(LONGEST)),
        (&"é".repeat(LONGEST + 1), &*("é".repeat(LONGEST) + "…")),
    ] {
        assert_eq!(escaped(text), expected);
    }
}

#[test]
fn the_fields_of_an_mcp_call_are_told_where_a_route_depends_on_them() {
    let call =
        |name: Option<&'static str>| McpCall { method: "tools/call".into(), name: name.map(Into::into) };
    let (named, unnamed) = (call(Some("search")), call(None));
    assert_eq!(mcp(true, Ok(&named), Ok(())), "Mcp-Method \"tools/call\", Mcp-Name \"search\"");
    assert_eq!(mcp(true, Ok(&unnamed), Ok(())), "Mcp-Method \"tools/call\"");
    assert_eq!(mcp(false, Ok(&named), Ok(())), "the route does not depend on MCP headers");
}
