//! How tokens are presented, correctly and incorrectly.

#![expect(clippy::too_many_lines, reason = "a table is as long as it has rows")]

use http::{HeaderMap, HeaderValue};

use super::*;

const NO_WEBSOCKETS: BearerSettings = BearerSettings { websocket_protocol: None };

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
        (&["DPoP abc"], None, Ok(Some("abc"))),
        (&["dpop  abc"], None, Ok(Some("abc"))),
        (&["DPoP"], None, malformed),
        (&["DPoP a b"], None, malformed),
        (&["DPoP abc, Bearer abc"], None, malformed),
        (&["DPoPabc"], None, Ok(None)),
        (&["DPo abc"], None, Ok(None)),
        (&["DPoP abc", "Bearer abc"], None, ambiguous),
        (&["Bearer abc", "DPoP abc"], None, ambiguous),
        (&["DPoP abc", "DPoP abc"], None, ambiguous),
        (&["DPoP abc", "Basic abc"], None, ambiguous),
        (&["DPoP abc"], Some("access_token=a"), ambiguous),
        (&["Bearerabc"], None, Ok(None)),
        (&["Bear abc"], None, Ok(None)),
        (&["BearerX abc"], None, Ok(None)),
        (&["Token Bearer abc"], None, Ok(None)),
        (&["Bearer"], None, malformed),
        (&["Bearer "], None, malformed),
        (&["Bearer      "], None, malformed),
        (&["Bearer\tabc"], None, malformed),
        (&["Bearer \tabc"], None, malformed),
        (&["Bearer a"], None, Ok(Some("a"))),
        (&["Bearer a="], None, Ok(Some("a="))),
        (&["Bearer abc!"], None, malformed),
        (&["Bearer abc!="], None, malformed),
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
        let found = extract(&headers, query.map(str::as_bytes), &NO_WEBSOCKETS)
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
        (&["DPoP abc"], true),
        (&["Basic x", "dpop"], true),
        (&["Basic x"], false),
        (&["DPoPe x"], false),
        (&["Bearerish x"], false),
        (&[], false),
    ] {
        assert_eq!(is_presented(&headers(fields), &NO_WEBSOCKETS), presented, "{fields:?}");
    }
}

#[test]
fn the_scheme_tells_how_a_token_is_presented() {
    for (fields, scheme) in [
        (&["Bearer abc"][..], TokenScheme::Bearer),
        (&["DPoP abc"], TokenScheme::Dpop),
        (&[" dpop abc"], TokenScheme::Dpop),
        (&["DPoP"], TokenScheme::Dpop),
        (&["Bearer abc", "DPoP abc"], TokenScheme::Dpop),
        (&["Basic abc"], TokenScheme::Bearer),
        (&[], TokenScheme::Bearer),
    ] {
        let headers = headers(fields);
        assert_eq!(super::scheme(&headers), scheme, "{fields:?}");
        if let Ok(Some(token)) = extract(&headers, None, &NO_WEBSOCKETS) {
            assert_eq!(token.scheme(), scheme, "{fields:?}");
        }
    }
}

#[test]
fn a_websocket_may_carry_its_token_among_the_sub_protocols() {
    let too_long = format!("bearer, {}", "a".repeat(MAX_LENGTH + 1));
    let (ambiguous, malformed) = (Err(Reason::Ambiguous), Err(Reason::Malformed));
    type Row<'a> = (&'a [&'a str], &'a [&'a str], Option<&'a str>, Result<Option<&'a str>, Reason>);
    let table: &[Row<'_>] = &[
        (&["bearer, a.b.c"], &[], None, Ok(Some("a.b.c"))),
        (&["bearer,a.b.c"], &[], None, Ok(Some("a.b.c"))),
        (&[" bearer ,\ta.b.c , chat"], &[], Some("x=y"), Ok(Some("a.b.c"))),
        (&["chat, bearer, a.b.c"], &[], None, Ok(Some("a.b.c"))),
        (&["chat", "bearer", "a.b.c"], &[], None, Ok(Some("a.b.c"))),
        (&["bearer,, ,a.b.c"], &[], None, Ok(Some("a.b.c"))),
        // No token is presented.
        (&[], &[], None, Ok(None)),
        (&[""], &[], None, Ok(None)),
        (&["chat"], &[], None, Ok(None)),
        (&["a.b.c"], &[], None, Ok(None)),
        (&["Bearer, a.b.c"], &[], None, Ok(None)),
        (&["bearer2, a.b.c"], &[], None, Ok(None)),
        (&["bearer a.b.c"], &[], None, Ok(None)),
        (&["chat"], &["Bearer a.b.c"], None, Ok(Some("a.b.c"))),
        (&["bearer.a.b.c"], &[], Some("access_token=a"), Ok(None)),
        // Incomplete, or not in the form of a token.
        (&["bearer"], &[], None, malformed),
        (&["bearer,"], &[], None, malformed),
        (&["chat, bearer"], &[], None, malformed),
        (&["bearer, a b"], &[], None, malformed),
        (&["bearer, \"a.b.c\""], &[], None, malformed),
        (&["bearer, =="], &[], None, malformed),
        (&["bearer, \u{e9}"], &[], None, malformed),
        (&[&too_long], &[], None, malformed),
        // Presented twice.
        (&["bearer, bearer, a.b.c"], &[], None, ambiguous),
        (&["bearer, a.b.c, bearer, a.b.c"], &[], None, ambiguous),
        (&["bearer, a.b.c", "bearer, d.e.f"], &[], None, ambiguous),
        (&["bearer, a.b.c, bearer"], &[], None, ambiguous),
        (&["bearer, a.b.c, a.b.c"], &[], None, ambiguous),
        (&["bearer, a.b.c"], &["Bearer a.b.c"], None, ambiguous),
        (&["bearer, a.b.c"], &["Bearer a b"], None, ambiguous),
        (&["bearer, a.b.c"], &["Basic dXNlcjpwYXNz"], None, ambiguous),
        (&["bearer, a.b.c"], &["Basic a", "Bearer b"], None, ambiguous),
        (&["bearer, a.b.c"], &[], Some("access_token=a.b.c"), ambiguous),
        (&["bearer, a b"], &[], Some("x=y&%61ccess_token"), ambiguous),
    ];
    let settings = BearerSettings { websocket_protocol: Some(HeaderValue::from_static("bearer")) };
    for (protocols, fields, query, expected) in table {
        let mut headers = headers(fields);
        for field in *protocols {
            headers.append(
                "sec-websocket-protocol",
                HeaderValue::from_bytes(field.as_bytes()).expect("a value"),
            );
        }
        let read = |headers: &HeaderMap, settings: &BearerSettings| {
            extract(headers, query.map(str::as_bytes), settings)
                .map(|token| token.map(|token| String::from_utf8_lossy(token.as_bytes()).into_owned()))
        };
        // Without a handshake, or without the setting, the field has no meaning.
        let plain = read(&headers, &NO_WEBSOCKETS);
        assert_eq!(read(&headers, &settings), plain, "{protocols:?} without a handshake");
        headers.insert("upgrade", HeaderValue::from_static("h2c, WebSocket"));
        assert_eq!(read(&headers, &NO_WEBSOCKETS), plain, "{protocols:?} without the setting");
        let expected = expected.map(|token| token.map(str::to_owned));
        assert_eq!(read(&headers, &settings), expected, "{protocols:?} {fields:?} {query:?}");
        let is_marked = protocols.iter().any(|field| field.split(',').any(|name| name.trim() == "bearer"));
        assert_eq!(is_presented(&headers, &settings), is_marked || is_presented(&headers, &NO_WEBSOCKETS));
    }
}

#[test]
fn a_token_never_shows_in_debug_output() {
    let token = BearerToken::new(b"secret").expect("a token");
    assert_eq!(format!("{token:?}"), "BearerToken(…)");
}

#[test]
fn a_text_is_a_token_up_to_its_longest_form_padding_included() {
    let a = |length: usize| "a".repeat(length);
    for (text, is_token) in [
        (String::new(), false),
        ("=".to_owned(), false),
        (a(1), true),
        (a(MAX_LENGTH), true),
        (a(MAX_LENGTH + 1), false),
        (format!("{}=", a(MAX_LENGTH - 1)), true),
        (format!("{}=", a(MAX_LENGTH)), false),
        (format!("a{}", "=".repeat(MAX_LENGTH)), false),
    ] {
        assert_eq!(BearerToken::new(text.as_bytes()).is_ok(), is_token, "{} bytes", text.len());
    }
}
