//! Targets that are rejected, targets that pass, and the promise that what passes is what is sent.

#![expect(clippy::too_many_lines, reason = "a table is as long as it has rows")]

use proptest::prelude::*;

use http::Uri;

use super::*;

/// Parses a target of an HTTP/1.1 request line for a route that rejects encoded slashes.
fn parse(target: &str) -> Result<Target, BadTarget> {
    read(target.as_bytes())
        .and_then(|target| if target.has_encoded_slash() { Err(BadTarget) } else { Ok(target) })
}

/// The same for a route that keeps them.
fn read(target: &[u8]) -> Result<Target, BadTarget> {
    Target::parse(&Method::GET, &RequestTarget::from_bytes(Bytes::copy_from_slice(target))?)
}

/// Parses a target from HTTP/2, and from a library for URIs.
fn read_uri(target: &str) -> Result<Target, BadTarget> {
    Target::parse(&Method::GET, &RequestTarget::from(&target.parse::<Uri>().map_err(|_invalid| BadTarget)?))
}

/// Drops the host, for comparison with a target from HTTP/2.
fn without_host(mut target: Target) -> Target {
    target.sent.compact();
    target
}

#[test]
fn refuses_what_two_parsers_could_read_differently() {
    let refused = [
        // dot segments
        "/.",
        "/..",
        "/./",
        "/../",
        "/a/.",
        "/a/..",
        "/a/./b",
        "/a/../b",
        "/a/b/..",
        "/..?x",
        "/a/.?x=/",
        // encoded dots, one decoding
        "/%2e",
        "/%2E%2e",
        "/.%2e/a",
        "/%2e./a",
        "/a/%2e/b",
        "/a/%2E%2E/b",
        "/a/%2e%2e",
        "/a/.%2E?x=1",
        // two decodings
        "/%252e%252e/a",
        "/%252e",
        "/.%252e/a",
        "/%252e%2e/a",
        "/a/%252E./b",
        "/%25%32%65/a",
        "/%2%35e/a",
        "/a/%252e%252e%252fb",
        "/a/..%252f",
        "/a%252f..%252fb",
        "/a%252f%2e%2e%255cb",
        "/a%255c..",
        // parameters on dot segments
        "/..;/",
        "/.;x/",
        "/..;a=b/c",
        "/a/..;",
        "/a/.;",
        "/a/%2e%2e;x/b",
        "/a/..%3b/b",
        "/a/..%3Bx=1",
        "/%2e%3b/",
        "/a/..%253bx/b",
        "/a/..%3f",
        "/a/..%23x/b",
        // slashes that only some parsers see
        "/a%2fb",
        "/a%2Fb",
        "/%2f",
        "/a/%2f/b",
        "/%2f%2fhost/a",
        "/a%5cb",
        "/a%5Cb",
        "/a\\b",
        "\\a",
        "/\\",
        "/..\\a",
        // control bytes
        "/%00",
        "/a%00b",
        "/a%00.html",
        "/%0d%0aX:y",
        "/a%0ab",
        "/a%09b",
        "/%1f",
        "/%7f",
        "/a%7Fb",
        "/%1B[0m",
        // empty segments
        "//",
        "//host/a",
        "/a//b",
        "/a//",
        "///",
        "/a///b?x",
        "/;/a",
        "/;x/admin",
        "/a/;/b",
        "/%3b/admin",
        "/a/%3Bx/b",
        // invalid escapes
        "/%",
        "/a%",
        "/%2",
        "/%zz",
        "/a%2/b",
        "/%%32e",
        "/%u002e",
        "/a%g1",
        "/100%/x",
        "/% 41",
        // overlong UTF-8
        "/%c0%ae%c0%ae/a",
        "/%c0%af",
        "/%c1%9c",
        "/%e0%80%af",
        "/%f0%80%80%af",
        "/a%C0%80b",
        // no path
        "*",
        "example.com",
        "example.com:443",
        "http://host?x",
        "http://host?",
        // other schemes, user information
        "ftp://host/a",
        "file://host/a",
        "ws://host/a",
        "http://user@host/a",
        "http://user:pass@host/a",
        "http://good.example@evil.example/",
        // absolute-form, the same rules
        "http://host//a",
        "https://host/../a",
        "https://host/a%2fb",
    ];
    assert!(refused.len() >= 80, "{}", refused.len());
    for target in refused {
        assert_eq!(parse(target), Err(BadTarget), "{target}");
        if let Ok(target) = read_uri(target) {
            assert!(target.has_encoded_slash(), "{target:?}");
        }
    }
}

#[test]
fn an_encoded_slash_stays_in_its_segment_and_no_reading_of_it_climbs() {
    let kept = [
        ("/a%2fb", "/a%2Fb"),
        ("/a%2Fb", "/a%2Fb"),
        ("/@scope%2fname", "/@scope%2Fname"),
        ("/%40scope%2Fname/-/name-1.0.0.tgz", "/%40scope%2Fname/-/name-1.0.0.tgz"),
        (
            "/api/v4/projects/group%2Fsub%2fproject/issues?x=%2f",
            "/api/v4/projects/group%2Fsub%2Fproject/issues",
        ),
        ("/%61%2f%62", "/a%2Fb"),
        ("/a%2f", "/a%2F"),
        ("/a%2f?b", "/a%2F"),
        ("/a%2f%252fb", "/a%2F%252fb"),
        ("/a%2f...%2fb", "/a%2F...%2Fb"),
        ("/a%2f.b%2fb..", "/a%2F.b%2Fb.."),
        ("/a%2fb;v=1/c", "/a%2Fb;v=1/c"),
    ];
    for (sent, path) in kept {
        let target = read(sent.as_bytes()).unwrap_or_else(|_| panic!("{sent} was refused"));
        assert!(target.has_encoded_slash(), "{sent}");
        assert_eq!((target.as_bytes(), target.path()), (&Bytes::from(sent), path), "{sent}");
        assert_eq!(read_uri(sent), Ok(target), "{sent}");
    }
    let refused = [
        // An empty segment for an upstream that decodes it.
        "/%2f",
        "/%2F",
        "/%2fa",
        "/%2f%2fhost/a",
        "/a/%2fb",
        "/a%2f/b",
        "/a%2f%2fb",
        "/a%2f%2F",
        "//a%2fb",
        "/a%2fb//c",
        "/a%2f;x/b",
        "/a%2f%3bx/b",
        // A dot segment for an upstream that decodes it.
        "/..%2fa",
        "/%2e%2e%2fa",
        "/a%2f..",
        "/a%2f..%2fb",
        "/a%2f%2e%2e%2fb",
        "/a%2f.",
        "/a%2f./b",
        "/a%2f.%2fb",
        "/a%2f..;x/b",
        "/a%2f..%3bx%2fb",
        "/a/.%2e%2fb",
        "/a/../b%2fc",
        "/a%2fb/..",
        "/a%2fb/%2e%2e/c",
        // For one that decodes twice.
        "/a%2f%252e%252e%2fb",
        "/a%2f%252e%252e%252fb",
        "/a%2f..%252fb",
        "/a%252f..%2fb",
        // Other separators, NUL, broken escapes.
        "/a%2fb%5c",
        "/a%5cb%2fc",
        "/a%5C..%2fb",
        "/a%2fb\\",
        "/a%2fb%00",
        "/a%2fb%0a",
        "/a%2",
        "/a%2fb%",
        "/a%2fb%2g",
        "/a%2fb%c0%af",
        "/%c0%ae%2fa",
        "/a%2fb#c",
    ];
    for target in refused {
        assert_eq!(read(target.as_bytes()), Err(BadTarget), "{target}");
    }
}

#[test]
fn passes_everything_else_byte_for_byte_and_matches_its_canonical_form() {
    let table = [
        ("/", "/"),
        ("/a", "/a"),
        ("/a/", "/a/"),
        ("/a/b/c?d=e&f=//../%2e%2e/%00\\", "/a/b/c"),
        ("/?", "/"),
        ("/a?%zz%", "/a"),
        ("/a?b?c", "/a"),
        ("/%61dmin", "/admin"),
        ("/%41%7A%30%2D%5F%7e", "/Az0-_~"),
        ("/a%2eb", "/a.b"),
        ("/a..b", "/a..b"),
        ("/...", "/..."),
        ("/.well-known/x", "/.well-known/x"),
        ("/a%2e%2e", "/a.."),
        ("/..a", "/..a"),
        ("/%c3%a9", "/%C3%A9"),
        ("/é", "/%C3%A9"),
        ("/%e9", "/%E9"),
        ("/a%20b", "/a%20b"),
        ("/a%2Cb,c", "/a%2Cb,c"),
        ("/a%2cb", "/a%2Cb"),
        ("/users/%40me", "/users/%40me"),
        ("/users/@me", "/users/@me"),
        ("/a:b", "/a:b"),
        ("/a;v=1/b", "/a;v=1/b"),
        ("/;jsessionid=1", "/;jsessionid=1"),
        ("/a/;x", "/a/;x"),
        ("/a%3bv", "/a%3Bv"),
        ("/100%25", "/100%25"),
        ("/100%2525", "/100%2525"),
        ("/a%252fb", "/a%252fb"),
        ("/%2541", "/%2541"),
        ("/a|b", "/a%7Cb"),
        ("/{a}", "/%7Ba%7D"),
        ("/a[0]", "/a%5B0%5D"),
        ("/a\"b", "/a%22b"),
        ("/a^b", "/a%5Eb"),
        ("/!$&'()*+,;=", "/!$&'()*+,;="),
        ("/%3F", "/%3F"),
        ("/%f0%9f%8d%95", "/%F0%9F%8D%95"),
    ];
    for (target, path) in table {
        let parsed = parse(target).unwrap_or_else(|_| panic!("{target} was refused"));
        assert_eq!((parsed.as_bytes(), parsed.path()), (&Bytes::from(target), path), "{target}");
    }
}

#[test]
fn reads_the_absolute_form_and_the_asterisk() {
    for (target, sent) in [("http://host/a?b", "/a?b"), ("https://host:8443/", "/"), ("HTTP://host", "/")] {
        assert_eq!(parse(target).map(|t| t.as_bytes().clone()), Ok(Bytes::from(sent)), "{target}");
        assert_eq!(read_uri(target).map(without_host), parse(target).map(without_host), "{target}");
    }
    for sent in [
        RequestTarget::from(&Uri::from_static("*")),
        RequestTarget::from_bytes(Bytes::from_static(b"*")).expect("a target"),
    ] {
        let asterisk = Target::parse(&Method::OPTIONS, &sent);
        assert_eq!(asterisk.map(|t| t.path().to_owned()), Ok("*".to_owned()));
        assert_eq!(Target::parse(&Method::GET, &sent), Err(BadTarget), "it is for OPTIONS");
    }
    // A path is checked for OPTIONS as for every other method.
    for (sent, expected) in [("/a//b", None), ("/a/../b", None), ("/%61", Some("/a")), ("/a?b", Some("/a"))] {
        let sent = RequestTarget::from_bytes(Bytes::from_static(sent.as_bytes())).expect("a target");
        let parsed = Target::parse(&Method::OPTIONS, &sent).ok();
        assert_eq!(parsed.as_ref().map(Target::path), expected, "{sent:?}");
    }
}

#[test]
fn a_fragment_never_goes_upstream() {
    // Over HTTP/2 the fragment is removed before it can be rejected.
    let target = read_uri("/a?b#c/../d").expect("a target");
    assert_eq!(target.as_bytes(), "/a?b");
    for target in ["/a?b#c", "/a#c", "/#", "#", "http://host#c", "http://host/a#c", "http://host/a?b#c"] {
        assert_eq!(read(target.as_bytes()), Err(BadTarget), "{target}");
    }
}

#[test]
fn a_query_may_hold_every_byte_but_control_bytes_and_what_ends_it() {
    for byte in 0..=u8::MAX {
        for target in [[b"/a?b=", &[byte][..], b"c"].concat(), [b"https://host/?", &[byte][..]].concat()] {
            let refused = matches!(byte, 0..=0x20 | 0x7f | b'#');
            let read = read(&target);
            assert_eq!(read.is_err(), refused, "{byte:#x}");
            if let Ok(read) = read {
                let query = target.splitn(2, |&byte| byte == b'?').nth(1);
                assert_eq!(read.query(), query, "{byte:#x}");
                assert!(target.ends_with(read.as_bytes()), "{byte:#x}");
            }
        }
    }
    let json = read(br#"/deals?filter={"a":1}&not=<b>"#).expect("a target");
    assert_eq!((json.path(), json.query()), ("/deals", Some(&br#"filter={"a":1}&not=<b>"#[..])));
}

#[test]
fn a_path_may_hold_what_is_text_and_no_separator() {
    for (target, path) in
        [("/<a>", "/%3Ca%3E"), ("/`a", "/%60a"), ("/\"{a}^|", "/%22%7Ba%7D%5E%7C"), ("/é", "/%C3%A9")]
    {
        let parsed = parse(target).unwrap_or_else(|_| panic!("{target} was refused"));
        assert_eq!((parsed.as_bytes(), parsed.path()), (&Bytes::from(target), path), "{target}");
    }
    for target in [&b"/\xff"[..], b"/a\xc3", b"/\xc0\xaf", b"/\xed\xa0\x80", b"/\x80?a"] {
        assert_eq!(read(target), Err(BadTarget), "{target:?}");
    }
}

#[test]
fn a_target_without_a_form_is_none() {
    let targets = [
        "",
        "a",
        "a/b",
        "?a",
        "*a",
        "**",
        "*/",
        "host:80",
        "host/a",
        "http:",
        "http:/a",
        "http://",
        "http:///a",
        "http://?a",
        "http:// host/a",
        "http://ho st/a",
        "http://h\\st/a",
        "htt://host/a",
        "ftp://host/a",
        "httpss://host/a",
        "://host/a",
    ];
    for target in targets {
        assert_eq!(read(target.as_bytes()), Err(BadTarget), "{target:?}");
    }
}

#[test]
fn a_compact_target_reads_the_same() {
    for text in ["/a%2fb?c#"[..8].to_owned(), "/".to_owned(), "http://host/a?".to_owned()] {
        let sent = RequestTarget::from_bytes(Bytes::from(text)).expect("a target");
        let mut compact = sent.clone();
        compact.compact();
        assert_eq!(
            (compact.as_bytes(), compact.path(), compact.query()),
            (sent.as_bytes(), sent.path(), sent.query())
        );
    }
}

/// Decodes once and keeps invalid escapes, independently of the code under test.
fn decode_once(bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut i = 0;
    while i < bytes.len() {
        let digits = bytes.get(i + 1..i + 3).and_then(|d| std::str::from_utf8(d).ok());
        let value = digits.filter(|d| !d.starts_with('+')).and_then(|d| u8::from_str_radix(d, 16).ok());
        match (bytes[i], value) {
            (b'%', Some(value)) => {
                decoded.push(value);
                i += 3;
            }
            (byte, _) => {
                decoded.push(byte);
                i += 1;
            }
        }
    }
    decoded
}

fn has_dot_segment(path: &[u8]) -> bool {
    path.split(|b| b"/\\".contains(b)).any(|s| s == b"." || s == b"..")
}

/// Paths made of hostile pieces.
fn hostile_path() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "/", ".", "..", "%2e", "%2E", "%252e", "%25", "2e", "%", "%2f", "%252f", "\\", "%5c", ";", "%3b",
        "a", "b", "%61", "?", "%00", "é", "%c3%a9", "25", "%32%65", "#",
    ]);
    prop::collection::vec(pieces, 0..10).prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn what_passes_is_sent_unchanged_and_never_climbs(raw in hostile_path()) {
        if let Ok(target) = read(raw.as_bytes()) {
            prop_assert_eq!(target.as_bytes(), &raw);
            prop_assert_eq!(read_uri(&raw), Ok(target.clone()));
            let path = target.sent.path().as_bytes();
            let once = decode_once(path);
            for level in [path, &once, &decode_once(&once)] {
                prop_assert!(!has_dot_segment(level), "{:?}", String::from_utf8_lossy(level));
            }
            prop_assert!(!path.windows(2).any(|pair| pair == b"//"));
            let slashes = |text: &[u8]| text.iter().filter(|&&b| b == b'/').count();
            prop_assert_eq!(slashes(&once) > slashes(path), target.has_encoded_slash());
            prop_assert_eq!(slashes(target.path().as_bytes()), slashes(path));
            prop_assert!(!once.windows(2).any(|pair| pair == b"//"));
            prop_assert!(!once.iter().any(|b| b.is_ascii_control() || *b == b'\\'));
            // Every decoder gets the canonical form, and it has no other spelling.
            prop_assert_eq!(decode_once(target.path().as_bytes()), once);
            let again = canonical(target.path().as_bytes()).map(|again| again.text.unwrap_or_else(|| target.path().to_owned()));
            prop_assert_eq!(again.as_deref(), Ok(target.path()));
        }
    }

    #[test]
    fn nothing_makes_it_panic(raw in any::<Vec<u8>>()) {
        let _read = read(&raw);
        if let Ok(uri) = Uri::try_from(raw) {
            let _parsed = Target::parse(&Method::GET, &RequestTarget::from(&uri));
        }
    }
}
