//! How tokens are presented, well and badly.

#![expect(clippy::too_many_lines, reason = "a table is as long as it has rows")]

use http::{HeaderMap, HeaderValue};

use super::*;

fn headers(fields: &[&str]) -> HeaderMap {
    fields
        .iter()
        .map(|f| (AUTHORIZATION, HeaderValue::from_bytes(f.as_bytes()).expect("a field value")))
        .collect()
}

#[test]
fn one_field_of_the_bearer_scheme_is_a_credential() {
    let long = format!("Bearer {}", "a".repeat(MAX_LENGTH));
    let too_long = format!("Bearer {}", "a".repeat(MAX_LENGTH + 1));
    let padded_too_long = format!("Bearer {}=", "a".repeat(MAX_LENGTH));
    let (ambiguous, malformed) = (Err(Reason::Ambiguous), Err(Reason::Malformed));
    type Row<'a> = (&'a [&'a str], Option<&'a str>, Result<Option<&'a str>, Reason>);
    let table: &[Row<'_>] = &[
        (&[], None, Ok(None)),
        (&[], Some("access_token=a"), Ok(None)),
        (&["Bearer abc"], None, Ok(Some("abc"))),
        (&["bearer abc"], None, Ok(Some("abc"))),
        (&["BEARER abc"], None, Ok(Some("abc"))),
        (&["bEaReR    abc"], None, Ok(Some("abc"))),
        (&["Bearer a.b.c"], Some("x=y"), Ok(Some("a.b.c"))),
        (&["Bearer aZ09-._~+/=="], None, Ok(Some("aZ09-._~+/=="))),
        (&[&long], None, Ok(Some(&long[7..]))),
        (&[&too_long], None, malformed),
        (&[&padded_too_long], None, malformed),
        (&[""], None, Ok(None)),
        (&["Basic dXNlcjpwYXNz"], None, Ok(None)),
        (&["Basic dXNlcjpwYXNz"], Some("access_token=a"), Ok(None)),
        (&["DPoP abc"], None, Ok(None)),
        (&["Bearerabc"], None, Ok(None)),
        (&["Bear abc"], None, Ok(None)),
        (&["BearerX abc"], None, Ok(None)),
        (&["Token Bearer abc"], None, Ok(None)),
        (&["Bearer"], None, malformed),
        (&["Bearer "], None, malformed),
        (&["Bearer      "], None, malformed),
        (&["Bearer\tabc"], None, malformed),
        (&["Bearer \tabc"], None, malformed),
        (&["Bearer abc "], None, malformed),
        (&["Bearer a b"], None, malformed),
        (&["Bearer a,b"], None, malformed),
        (&["Bearer abc, Bearer abc"], None, malformed),
        (&["Bearer =="], None, malformed),
        (&["Bearer a=b"], None, malformed),
        (&["Bearer \"abc\""], None, malformed),
        (&["Bearer abc;x"], None, malformed),
        (&["Bearer token=abc"], None, malformed),
        (&["Bearer a%2eb"], None, malformed),
        (&["Bearer \u{e9}"], None, malformed),
        (&[" Bearer abc"], None, Ok(Some("abc"))),
        (&["\tBearer abc"], None, Ok(Some("abc"))),
        (&["Bearer abc", "Bearer abc"], None, ambiguous),
        (&["Bearer abc", "Basic abc"], None, ambiguous),
        (&["Basic abc", "Basic abc"], None, ambiguous),
        (&["", ""], None, ambiguous),
        (&["Bearer abc"], Some("access_token=a"), ambiguous),
        (&["Bearer abc"], Some("access_token"), ambiguous),
        (&["Bearer abc"], Some("a=b&access_token=c"), ambiguous),
        (&["Bearer abc"], Some("a=b;access_token=c"), ambiguous),
        (&["Bearer abc"], Some("%61ccess%5Ftoken=a"), ambiguous),
        (&["Bearer abc"], Some("access%5ftoken="), ambiguous),
        (&["Bearer a b"], Some("access_token=a"), ambiguous),
        (&["Bearer abc"], Some("xaccess_token=a"), Ok(Some("abc"))),
        (&["Bearer abc"], Some("access_tokens=a"), Ok(Some("abc"))),
        (&["Bearer abc"], Some("Access_Token=a"), Ok(Some("abc"))),
        (&["Bearer abc"], Some("q=access_token"), Ok(Some("abc"))),
        (&["Bearer abc"], Some("%zz=a&%=&&=="), Ok(Some("abc"))),
    ];
    assert!(table.len() >= 30);
    for (fields, query, expected) in table {
        let headers = headers(fields);
        let found = extract(&headers, *query)
            .map(|token| token.map(|t| std::str::from_utf8(t.as_bytes()).expect("ASCII")));
        assert_eq!(found, *expected, "{fields:?} {query:?}");
    }
}

#[test]
fn presence_is_a_matter_of_the_scheme_alone() {
    for (fields, presented) in [
        (&["Bearer abc"][..], true),
        (&["bearer"], true),
        (&["Bearer a b", "Basic x"], true),
        (&["Basic x", "BEARER y"], true),
        (&["Basic x"], false),
        (&["Bearerish x"], false),
        (&[], false),
    ] {
        assert_eq!(is_presented(&headers(fields)), presented, "{fields:?}");
    }
}

#[test]
fn a_token_never_shows_in_debug_output() {
    let token = BearerToken::new(b"secret").expect("a token");
    assert_eq!(format!("{token:?}"), "BearerToken(…)");
}
