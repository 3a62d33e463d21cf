//! The fields that a client sends, and those that the upstream sees.

use http::Method;

use super::forwarding::PSEUDONYM;
use super::*;
use crate::enforce::policy::IdentityClaim;

static UNTRUSTED: Hop = HOP;

const HOP: Hop = Hop {
    client: std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7)),
    tls: true,
    trusted: None,
    host: HeaderValue::from_static("api.example:8443"),
    version: Version::HTTP_11,
    request_id: HeaderValue::from_static("r-1"),
};

fn trusted() -> Hop {
    Hop { trusted: Some(TrustedFields::Either), ..HOP }
}

fn map(fields: &[(&str, &[u8])]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value).unwrap());
    }
    map
}

fn rules(strip_authorization: bool) -> FieldRules {
    let header = |name: &'static str, claim| (HeaderName::from_static(name), claim);
    FieldRules::new(
        &IdentitySettings {
            strip_authorization,
            headers: vec![
                header("x-auth-subject", IdentityClaim::Subject),
                header("x-auth-roles", IdentityClaim::Roles),
            ],
            ..IdentitySettings::default()
        },
        &BearerSettings::default(),
    )
}

fn ask<'a>(headers: &'a HeaderMap, hop: &'a Hop) -> RequestFields<'a> {
    let trace = FreshTrace { trace_id: 0xabc, parent_id: 0x1f };
    let listed = Box::leak(Box::new(Listed::in_connection(headers).unwrap()));
    let (method, host) = (&Method::GET, &hop.host);
    RequestFields {
        method,
        headers,
        listed,
        hop,
        host,
        identity: &[],
        upgrade: None,
        expect: false,
        trace,
        decided: None,
    }
}

/// All fields of an HTTP/1.1 head, in order.
fn http1(rules: &FieldRules, asked: &RequestFields<'_>) -> Vec<(String, Vec<u8>)> {
    let mut out = Vec::new();
    request(rules, asked, &mut Http1Fields(&mut out));
    let mut fields = Vec::new();
    for line in out.strip_suffix(b"\r\n").unwrap().split(|b| *b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let colon = line.iter().position(|b| *b == b':').unwrap();
        fields.push((String::from_utf8(line[..colon].to_vec()).unwrap(), line[colon + 2..].to_vec()));
    }
    fields
}

const SET: [&str; 7] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "forwarded",
    "via",
    "x-request-id",
    "traceparent",
];

fn value<'a>(fields: &'a [(String, Vec<u8>)], name: &str) -> &'a str {
    let mut found = fields.iter().filter(|(other, _)| other == name);
    let (_, value) = found.next().unwrap_or_else(|| panic!("no {name} in {fields:?}"));
    assert!(found.next().is_none(), "two {name} in {fields:?}");
    std::str::from_utf8(value).unwrap()
}

type Row = (&'static [(&'static str, &'static [u8])], &'static [(&'static str, &'static [u8])]);

/// What an untrusted client sends, and what is forwarded (besides the fields that are always set).
const PASSES: &[Row] = &[
    (&[], &[]),
    (&[("accept", b"*/*")], &[("accept", b"*/*")]),
    (&[("accept", b"a"), ("accept", b"b")], &[("accept", b"a"), ("accept", b"b")]),
    (&[("x-latin", b"caf\xe9")], &[("x-latin", b"caf\xe9")]),
    (&[("x-empty", b"")], &[("x-empty", b"")]),
    (&[("cookie", b"a=1")], &[("cookie", b"a=1")]),
    (&[("cookie", b"a=1"), ("cookie", b"b=2"), ("cookie", b"c=3")], &[("cookie", b"a=1; b=2; c=3")]),
    (&[("authorization", b"Bearer t")], &[("authorization", b"Bearer t")]),
    (&[("content-type", b"text/plain"), ("content-length", b"5")], &[("content-type", b"text/plain")]),
    (&[("content_length", b"5")], &[]),
    (&[("host", b"evil.example")], &[]),
    (&[("trailer", b"x-sum")], &[("trailer", b"x-sum")]),
    (&[("max-forwards", b"3")], &[("max-forwards", b"3")]),
    // RFC 9110 §7.6.1
    (&[("connection", b"close")], &[]),
    (&[("connection", b"Close"), ("close", b"1")], &[]),
    (&[("close", b"1")], &[("close", b"1")]),
    (&[("connection", b"keep-alive"), ("keep-alive", b"timeout=5")], &[]),
    (&[("keep_alive", b"timeout=5")], &[]),
    (&[("proxy-connection", b"keep-alive")], &[]),
    (&[("proxy-authorization", b"Basic eA==")], &[]),
    (&[("proxy_authorization", b"Basic eA==")], &[]),
    (&[("proxy-authenticate", b"Basic")], &[]),
    (&[("transfer-encoding", b"chunked")], &[]),
    (&[("transfer_encoding", b"chunked")], &[]),
    (&[("upgrade", b"websocket"), ("connection", b"upgrade")], &[]),
    (&[("http2-settings", b"AAMAAABk"), ("upgrade", b"h2c")], &[]),
    (&[("te", b"gzip")], &[]),
    (&[("te", b"trailers")], &[("te", b"trailers"), ("connection", b"te")]),
    (&[("te", b"gzip;q=0.5, Trailers")], &[("te", b"trailers"), ("connection", b"te")]),
    (&[("connection", b"x-mine"), ("x-mine", b"1")], &[]),
    (&[("connection", b"X-Mine"), ("x-mine", b"1"), ("x-other", b"2")], &[("x-other", b"2")]),
    (&[("connection", b"close, x-mine"), ("x-mine", b"1"), ("x-mine", b"2")], &[]),
    (&[("connection", b"close"), ("connection", b"x-mine"), ("x-mine", b"1")], &[]),
    // One non-ASCII byte must not hide the other names.
    (&[("connection", b"\xff, x-mine"), ("x-mine", b"1")], &[]),
    (&[("connection", b" ,, \tx-mine\t,"), ("x-mine", b"1")], &[]),
    (&[("connection", b"x-min"), ("x-mine", b"1")], &[("x-mine", b"1")]),
    // Fields that a client must not be able to hide.
    (&[("connection", b"authorization"), ("authorization", b"Bearer t")], &[("authorization", b"Bearer t")]),
    (&[("connection", b"cookie"), ("cookie", b"a=1")], &[("cookie", b"a=1")]),
    (&[("connection", b"x-forwarded-for, via, host, content-length, x-request-id")], &[]),
    (&[("connection", b"x-auth-subject, x-auth-roles")], &[]),
    // Identity headers, in every spelling that folds to them.
    (&[("x-auth-subject", b"root")], &[]),
    (&[("X-Auth-Subject", b"root")], &[]),
    (&[("x_auth_subject", b"root")], &[]),
    (&[("X_AUTH-Subject", b"root")], &[]),
    (&[("x-auth_roles", b"admin"), ("x-auth-roles", b"admin")], &[]),
    (&[("x-auth-subjects", b"1")], &[("x-auth-subjects", b"1")]),
    (&[("x-auth.subject", b"1")], &[("x-auth.subject", b"1")]),
    // The method is the one that was judged.
    (&[("x-http-method-override", b"DELETE")], &[]),
    (&[("X-HTTP-Method", b"DELETE")], &[]),
    (&[("x-method-override", b"DELETE")], &[]),
    (&[("x_http_method_override", b"DELETE"), ("x-http_method", b"PUT"), ("x_method_override", b"PUT")], &[]),
    (&[("x-host", b"evil.example"), ("x-original-host", b"evil.example"), ("x_host", b"evil.example")], &[]),
    // This peer is not trusted to say where the request came from.
    (&[("x-forwarded-for", b"10.0.0.1")], &[]),
    (&[("x_forwarded_for", b"10.0.0.1")], &[]),
    (&[("x-forwarded-port", b"1"), ("x-forwarded-server", b"s"), ("x-forwarded-prefix", b"/p")], &[]),
    (&[("x-forwarded", b"for=10.0.0.1"), ("x_forwarded_anything", b"1")], &[]),
    (&[("x-forward", b"1")], &[("x-forward", b"1")]),
    (&[("forwarded", b"for=10.0.0.1"), ("x-real-ip", b"10.0.0.1"), ("x_real_ip", b"10.0.0.1")], &[]),
    (&[("via", b"1.1 someone"), ("x-request-id", b"mine"), ("x_request_id", b"mine")], &[]),
    (&[("tracestate", b"a=1")], &[]),
    (&[("traceparent", b"garbage"), ("tracestate", b"a=1")], &[]),
    (&[("expect", b"100-continue")], &[]),
    (&[("expect", b"something-else")], &[("expect", b"something-else")]),
];

#[test]
fn what_passes_from_an_untrusted_client() {
    let rules = rules(false);
    for (sent, expected) in PASSES {
        let headers = map(sent);
        let mut passed = http1(&rules, &ask(&headers, &UNTRUSTED));
        for name in SET {
            let _ = value(&passed, name);
            passed.retain(|(other, _)| other != name);
        }
        let sort = |mut fields: Vec<(String, Vec<u8>)>| {
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            fields
        };
        let expected = expected.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect();
        assert_eq!(sort(passed), sort(expected), "sent: {sent:?}");
    }
}

/// What a proxy reports about the origin of a request.
const SAID: &[(&str, &[u8])] = &[
    ("x-forwarded-for", b"10.1.1.1"),
    ("x-forwarded-for", b"10.2.2.2, 10.3.3.3"),
    ("x-forwarded-proto", b"http"),
    ("x-forwarded-host", b"public.example"),
    ("x-forwarded-port", b"443"),
    ("x-real-ip", b"10.1.1.1"),
    ("forwarded", b"for=10.1.1.1"),
    ("via", b"1.1 edge"),
];

/// The peer, what it sends, and one field as the upstream sees it.
#[test]
fn where_it_came_from() {
    let v6 = Hop { client: "2001:db8::1".parse().unwrap(), tls: false, ..HOP };
    let mapped = Hop { client: "::ffff:192.0.2.9".parse().unwrap(), ..HOP };
    let http2 = Hop { version: Version::HTTP_2, ..HOP };
    let http10 = Hop { version: Version::HTTP_10, ..HOP };
    let quoted = Hop { host: HeaderValue::from_static("a\"b\\c"), ..HOP };
    type Case<'a> = (&'a Hop, &'a [(&'a str, &'a [u8])], &'a str, &'a str);
    let cases: &[Case<'_>] = &[
        (&UNTRUSTED, &[], "x-forwarded-for", "192.0.2.7"),
        (&UNTRUSTED, &[], "x-forwarded-proto", "https"),
        (&UNTRUSTED, &[], "x-forwarded-host", "api.example:8443"),
        (&UNTRUSTED, &[], "forwarded", "for=192.0.2.7;host=\"api.example:8443\";proto=https"),
        (&UNTRUSTED, &[], "via", "1.1 THIS"),
        (&UNTRUSTED, &[], "x-request-id", "r-1"),
        (&UNTRUSTED, SAID, "x-forwarded-for", "192.0.2.7"),
        (&UNTRUSTED, SAID, "x-forwarded-proto", "https"),
        (&UNTRUSTED, SAID, "x-forwarded-host", "api.example:8443"),
        (&UNTRUSTED, SAID, "forwarded", "for=192.0.2.7;host=\"api.example:8443\";proto=https"),
        (&UNTRUSTED, SAID, "via", "1.1 THIS"),
        (&v6, &[], "x-forwarded-for", "2001:db8::1"),
        (&v6, &[], "x-forwarded-proto", "http"),
        (&v6, &[], "forwarded", "for=\"[2001:db8::1]\";host=\"api.example:8443\";proto=http"),
        (&mapped, &[], "x-forwarded-for", "192.0.2.9"),
        (&mapped, &[], "forwarded", "for=192.0.2.9;host=\"api.example:8443\";proto=https"),
        (&http2, &[], "via", "2 THIS"),
        (&http10, &[], "via", "1.0 THIS"),
        (&quoted, &[], "forwarded", "for=192.0.2.7;host=\"a\\\"b\\\\c\";proto=https"),
        (&trusted(), SAID, "x-forwarded-for", "10.1.1.1, 10.2.2.2, 10.3.3.3, 192.0.2.7"),
        (&trusted(), SAID, "x-forwarded-proto", "http"),
        (&trusted(), SAID, "x-forwarded-host", "public.example"),
        (&trusted(), SAID, "x-forwarded-port", "443"),
        (&trusted(), SAID, "x-real-ip", "10.1.1.1"),
        (
            &trusted(),
            SAID,
            "forwarded",
            "for=10.1.1.1;host=\"public.example\";proto=http, for=10.2.2.2, for=10.3.3.3, \
             for=192.0.2.7;host=\"api.example:8443\";proto=https",
        ),
        (&trusted(), SAID, "via", "1.1 edge, 1.1 THIS"),
        (&trusted(), &[], "x-forwarded-for", "192.0.2.7"),
        (&trusted(), &[], "x-forwarded-proto", "https"),
        (
            &trusted(),
            &[("connection", b"x-forwarded-for"), ("x-forwarded-for", b"1.1.1.1")],
            "x-forwarded-for",
            "1.1.1.1, 192.0.2.7",
        ),
        (&trusted(), &[("x_forwarded_for", b"6.6.6.6")], "x-forwarded-for", "192.0.2.7"),
    ];
    for (hop, sent, name, expected) in cases {
        let headers = map(sent);
        let fields = http1(&rules(false), &ask(&headers, hop));
        let expected = expected.replace("THIS", &PSEUDONYM);
        assert_eq!(value(&fields, name), expected, "{sent:?} from {hop:?}");
    }
    let headers = map(&[("x_forwarded_port", b"1"), ("x-auth-subject", b"root"), ("x_real_ip", b"1.2.3.4")]);
    let fields = http1(&rules(false), &ask(&headers, &trusted()));
    assert_eq!(fields.len(), SET.len(), "a trusted proxy may have let these through: {fields:?}");
}

/// What is trusted of the peer, what it sends, and what both families then state: who asked, over what and
/// for which host.
#[test]
fn both_families_say_the_same() {
    use TrustedFields::{Either, Forwarded, XForwarded};
    const XFF: (&str, &[u8]) = ("x-forwarded-for", b"203.0.113.9:80, [2001:db8::1]:9, odd");
    const XFP: (&str, &[u8]) = ("x-forwarded-proto", b"http");
    const XFH: (&str, &[u8]) = ("x-forwarded-host", b"public.example");
    const FORWARDED: (&str, &[u8]) =
        ("forwarded", b"for=\"[2001:db8::7]:4711\";host=\"a,b\";proto=http, for=_hidden, for=198.51.100.2");
    const SPOOFED: (&str, &[u8]) = ("forwarded", b"for=6.6.6.6;host=evil;proto=gopher");
    const BROKEN: (&str, &[u8]) = ("forwarded", b"for=\"6.6.6.6");
    type Case<'a> = (Option<TrustedFields>, &'a [(&'a str, &'a [u8])], &'a [&'a str], &'a str, &'a str);
    let xff = ["203.0.113.9", "2001:db8::1", "?", "192.0.2.7"];
    let forwarded = ["2001:db8::7", "?", "198.51.100.2", "192.0.2.7"];
    let own = ["192.0.2.7"];
    let cases: &[Case<'_>] = &[
        (None, &[XFF, XFP, XFH, FORWARDED], &own, "https", "api.example:8443"),
        (Some(Either), &[], &own, "https", "api.example:8443"),
        (Some(Either), &[XFF, XFP, XFH], &xff, "http", "public.example"),
        (Some(Either), &[XFF, SPOOFED], &xff, "https", "api.example:8443"),
        (Some(Either), &[XFP, XFH], &own, "http", "public.example"),
        (Some(Either), &[FORWARDED], &forwarded, "http", "a,b"),
        (Some(Either), &[BROKEN], &own, "https", "api.example:8443"),
        (Some(XForwarded), &[SPOOFED], &own, "https", "api.example:8443"),
        (Some(XForwarded), &[XFF, SPOOFED, XFP], &xff, "http", "api.example:8443"),
        (Some(Forwarded), &[("x-forwarded-for", b"6.6.6.6"), FORWARDED], &forwarded, "http", "a,b"),
        (Some(Forwarded), &[XFF, XFP, XFH], &own, "https", "api.example:8443"),
    ];
    for (trusted, sent, nodes, proto, host) in cases {
        let (headers, hop) = (map(sent), Hop { trusted: *trusted, ..HOP });
        let fields = http1(&rules(false), &ask(&headers, &hop));
        let shown = |node: chain::ForwardedNode| match node {
            chain::ForwardedNode::Address(address) => address.to_string(),
            chain::ForwardedNode::Unknown => "?".to_owned(),
        };
        let out = map(&fields.iter().map(|(name, value)| (name.as_str(), &**value)).collect::<Vec<_>>());
        let elements = chain::forwarded(&out).unwrap();
        let said: Vec<_> = elements.iter().map(|element| shown(element.node)).collect();
        assert_eq!(said, *nodes, "Forwarded: {trusted:?} {sent:?}");
        let said: Vec<_> = chain::x_forwarded_for(&out).map(shown).collect();
        assert_eq!(said, *nodes, "X-Forwarded-For: {trusted:?} {sent:?}");
        assert_eq!(elements[0].proto.as_deref(), Some(proto.as_bytes()), "{trusted:?} {sent:?}");
        assert_eq!(elements[0].host.as_deref(), Some(host.as_bytes()), "{trusted:?} {sent:?}");
        assert_eq!(value(&fields, "x-forwarded-proto"), *proto, "{trusted:?} {sent:?}");
        assert_eq!(value(&fields, "x-forwarded-host"), *host, "{trusted:?} {sent:?}");
    }
}

#[test]
fn path_and_method_are_not_overridden_by_any_sender() {
    let overriding = KNOWN
        .iter()
        .filter(|(name, _)| ["url", "uri", "path", "method", "query"].iter().any(|word| name.contains(word)))
        // The route was chosen by it: it is the judged value itself.
        .filter(|(name, _)| *name != "mcp-method");
    let names: Vec<&str> = overriding.map(|(name, _)| *name).collect();
    for name in ["x-original-url", "x-rewrite-url", "x-forwarded-uri", "x-forwarded-path", "x-override-url"] {
        assert!(names.contains(&name), "{name}");
    }
    for name in ["x-forwarded-method", "x-original-method", "x-http-method-override"] {
        assert!(names.contains(&name), "{name}");
    }
    for name in names.iter().flat_map(|name| [(*name).to_owned(), name.replace('-', "_")]) {
        for trusted in [None, Some(TrustedFields::Either), Some(TrustedFields::XForwarded)] {
            let (headers, hop) = (map(&[(&name, b"/admin")]), Hop { trusted, ..HOP });
            let fields = http1(&rules(false), &ask(&headers, &hop));
            assert!(!fields.iter().any(|(sent, _)| *sent == name), "{name} from {trusted:?}");
        }
    }
}

#[test]
fn max_forwards_counts_down_for_the_methods_that_it_is_about() {
    for (method, sent, left, passes) in [
        (Method::OPTIONS, &[&b"5"[..]][..], Some(5), Some("4")),
        (Method::TRACE, &[b"1"], Some(1), Some("0")),
        (Method::OPTIONS, &[b"0"], Some(0), Some("0")),
        (Method::OPTIONS, &[b"7", b"3"], Some(3), Some("2")),
        (Method::OPTIONS, &[b"99999999999999999999"], Some(u64::MAX), Some("18446744073709551614")),
        (Method::OPTIONS, &[b"-1"], None, None),
        (Method::OPTIONS, &[b""], None, None),
        (Method::OPTIONS, &[], None, None),
        (Method::GET, &[b"0"], None, Some("0")),
        (Method::POST, &[b"odd"], None, Some("odd")),
    ] {
        let headers = map(&sent.iter().map(|value| ("max-forwards", *value)).collect::<Vec<_>>());
        assert_eq!(forwards_left(&method, &headers), left, "{method} {sent:?}");
        let fields = http1(&rules(false), &RequestFields { method: &method, ..ask(&headers, &UNTRUSTED) });
        let found = fields.iter().find(|(name, _)| name == "max-forwards");
        let found = found.map(|(_, value)| std::str::from_utf8(value).unwrap());
        assert_eq!(found, passes, "{method} {sent:?}");
    }
}

#[test]
fn connection_lists_no_more_than_a_message_has_fields() {
    let with = |members: usize, fields: usize| {
        let value = vec!["a"; members / fields].join(",");
        map(&vec![("connection", value.as_bytes()); fields])
    };
    for (members, fields, allowed) in [(256, 1, true), (257, 1, false), (256, 2, true), (512, 2, false)] {
        let listed = Listed::in_connection(&with(members, fields));
        assert_eq!(listed.is_ok(), allowed, "{members} members in {fields} fields");
    }
    assert!(Listed::in_connection(&with(30_000, 1)).is_err());
}

#[test]
fn a_request_that_came_back_is_known_by_its_via() {
    let with = |value: &str| {
        let mut headers = map(&[("via", b"1.1 edge (a proxy, or so)")]);
        headers.append("via", value.replace("THIS", &PSEUDONYM).parse().unwrap());
        came_back(&headers)
    };
    for ours in ["1.1 THIS", "2 THIS", "HTTP/1.1 THIS (kept)", "1.0 other,1.1 THIS", "1.1 THIS\t, 1.1 other"]
    {
        assert!(with(ours), "{ours}");
    }
    for other in ["1.1 portcullis", "1.1 portcullis-0123456789abcdef", "1.1 THIS-2", "1.1 a.THIS", ","] {
        assert!(!with(other), "{other}");
    }
    assert!(!came_back(&map(&[])));
}

#[test]
fn traces_go_on_or_start_here() {
    let fresh = "00-00000000000000000000000000000abc-000000000000001f-01";
    let id = "0af7651916cd43dd8448eb211c80319c";
    let goes_on = |flags: &str| format!("00-{id}-000000000000001f-{flags}");
    for (sent, expected) in [
        (format!("00-{id}-b7ad6b7169203331-01"), goes_on("01")),
        (format!("00-{id}-b7ad6b7169203331-00"), goes_on("00")),
        (format!("cc-{id}-b7ad6b7169203331-01-what-comes-next"), goes_on("01")),
        (format!("cc-{id}-b7ad6b7169203331-01"), goes_on("01")),
        (format!("cc-{id}-b7ad6b7169203331-01.x"), fresh.to_owned()),
        (format!("00-{id}-b7ad6b7169203331-01-more"), fresh.to_owned()),
        (format!("ff-{id}-b7ad6b7169203331-01"), fresh.to_owned()),
        (format!("00-{id}-0000000000000000-01"), fresh.to_owned()),
        ("00-00000000000000000000000000000000-b7ad6b7169203331-01".to_owned(), fresh.to_owned()),
        (format!("00-{}-b7ad6b7169203331-01", id.to_uppercase()), fresh.to_owned()),
        (format!("00-{id}-b7ad6b7169203331-0"), fresh.to_owned()),
        (format!("00_{id}-b7ad6b7169203331-01"), fresh.to_owned()),
        (String::new(), fresh.to_owned()),
    ] {
        let headers = map(&[("traceparent", sent.as_bytes()), ("tracestate", b"v=1")]);
        let fields = http1(&rules(false), &ask(&headers, &UNTRUSTED));
        assert_eq!(value(&fields, "traceparent"), expected, "sent: {sent}");
        assert_eq!(fields.iter().any(|(name, _)| name == "tracestate"), expected != fresh, "sent: {sent}");
    }
    let one = format!("00-{id}-b7ad6b7169203331-01");
    let twice = map(&[("traceparent", one.as_bytes()), ("traceparent", one.as_bytes())]);
    assert_eq!(value(&http1(&rules(false), &ask(&twice, &UNTRUSTED)), "traceparent"), fresh);
}

#[test]
fn a_trace_that_the_gate_decides_about_is_sent_as_it_decided() {
    let sent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = map(&[("traceparent", sent), ("tracestate", b"v=1")]);
    for (flags, goes_on) in [(1, true), (0, true), (3, false)] {
        let decided = Some(SentContext { trace_id: 0xdef, span_id: 0x2e, flags, goes_on });
        let fields = http1(&rules(false), &RequestFields { decided, ..ask(&headers, &UNTRUSTED) });
        let expected = format!("00-00000000000000000000000000000def-000000000000002e-0{flags}");
        assert_eq!(value(&fields, "traceparent"), expected);
        assert_eq!(fields.iter().any(|(name, _)| name == "tracestate"), goes_on);
    }
}

#[test]
fn identity_is_ours_alone() {
    let headers =
        map(&[("x-auth-subject", b"root"), ("x_auth_roles", b"admin"), ("connection", b"x-auth-subject")]);
    let identity = [
        (HeaderName::from_static("x-auth-subject"), HeaderValue::from_static("alice")),
        (HeaderName::from_static("x-auth-roles"), HeaderValue::from_static("reader")),
    ];
    let asked = RequestFields { identity: &identity, ..ask(&headers, &UNTRUSTED) };
    let fields = http1(&rules(false), &asked);
    assert_eq!(value(&fields, "x-auth-subject"), "alice");
    assert_eq!(value(&fields, "x-auth-roles"), "reader");
    assert!(!fields.iter().any(|(name, _)| name.contains('_') || name == "connection"), "{fields:?}");
}

#[test]
fn authorization_can_be_stripped() {
    let headers = map(&[("authorization", b"Bearer t")]);
    let fields = http1(&rules(true), &ask(&headers, &UNTRUSTED));
    assert!(!fields.iter().any(|(name, _)| name == "authorization"));
}

#[test]
fn http2_has_no_connection_fields_and_keeps_cookies_apart() {
    let headers = map(&[
        ("cookie", b"a=1"),
        ("cookie", b"b=2"),
        ("te", b"trailers"),
        ("connection", b"te, x-a"),
        ("x-a", b"1"),
    ]);
    let mut out = HeaderMap::new();
    request(&rules(false), &ask(&headers, &UNTRUSTED), &mut out);
    assert_eq!(out.get_all(header::COOKIE).iter().collect::<Vec<_>>(), ["a=1", "b=2"]);
    assert_eq!(out.get(header::TE).unwrap(), "trailers");
    assert!(!out.contains_key(header::CONNECTION) && !out.contains_key("x-a"));
    assert_eq!(out.get("x-forwarded-for").unwrap(), "192.0.2.7");
}

#[test]
fn upgrade_and_expectation_are_asked_for_anew() {
    let headers =
        map(&[("upgrade", b"websocket"), ("connection", b"keep-alive, Upgrade"), ("te", b"trailers")]);
    let upgrade = headers.get(header::UPGRADE);
    let asked = RequestFields { upgrade, expect: true, ..ask(&headers, &UNTRUSTED) };
    let fields = http1(&rules(false), &asked);
    assert_eq!(value(&fields, "upgrade"), "websocket");
    assert_eq!(value(&fields, "connection"), "upgrade, te");
    assert_eq!(value(&fields, "expect"), "100-continue");
}

#[test]
fn upgrades_that_may_be_granted() {
    let upgrade = |protocols: &'static [u8]| -> HeaderMap {
        map(&[("connection", b"upgrade"), ("upgrade", protocols)])
    };
    let cases: &[(HeaderMap, Version, bool)] = &[
        (upgrade(b"websocket"), Version::HTTP_11, true),
        (upgrade(b"some-protocol/2, other"), Version::HTTP_11, true),
        (upgrade(b"websocket"), Version::HTTP_10, false),
        (upgrade(b"websocket"), Version::HTTP_2, false),
        (map(&[("upgrade", b"websocket")]), Version::HTTP_11, false),
        (map(&[("upgrade", b"websocket"), ("connection", b"close")]), Version::HTTP_11, false),
        (map(&[("connection", b"upgrade")]), Version::HTTP_11, false),
        (map(&[("connection", b"upgrade"), ("upgrade", b"a"), ("upgrade", b"b")]), Version::HTTP_11, false),
        // A tunnel of HTTP would carry requests that are not judged.
        (upgrade(b"h2c"), Version::HTTP_11, false),
        (upgrade(b"H2C"), Version::HTTP_11, false),
        (upgrade(b"websocket, h2c"), Version::HTTP_11, false),
        (upgrade(b"HTTP/2.0"), Version::HTTP_11, false),
        (upgrade(b"TLS/1.2"), Version::HTTP_11, false),
    ];
    for (headers, version, granted) in cases {
        assert_eq!(
            hop::wanted_upgrade(&Method::GET, *version, headers).is_some(),
            *granted,
            "{headers:?} {version:?}"
        );
    }
    for (answer, wanted, granted) in [
        (map(&[("upgrade", b"websocket")]), "websocket", true),
        (map(&[("upgrade", b"WebSocket")]), "other, websocket", true),
        (map(&[("upgrade", b"h2c")]), "websocket", false),
        (map(&[("upgrade", b"websocket, h2c")]), "websocket", false),
        (map(&[]), "websocket", false),
        (map(&[("upgrade", b"")]), "websocket", false),
    ] {
        assert_eq!(hop::grants_upgrade(&answer, &HeaderValue::from_static(wanted)), granted, "{answer:?}");
    }
}

#[test]
fn request_trailers_cannot_become_what_headers_could_not() {
    let trailers = map(&[
        ("x-sum", b"1"),
        ("grpc-status", b"0"),
        ("x-auth-subject", b"root"),
        ("x_auth_subject", b"root"),
        ("authorization", b"Bearer t"),
        ("content-length", b"5"),
        ("transfer-encoding", b"chunked"),
        ("host", b"evil"),
        ("x-forwarded-for", b"1.1.1.1"),
        ("cookie", b"a=1"),
        ("te", b"trailers"),
        ("connection", b"close"),
    ]);
    let mut out = HeaderMap::new();
    request_trailers(&rules(false), &trailers, &mut out);
    let mut names: Vec<_> = out.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["grpc-status", "x-sum"]);
}

#[test]
fn answers_lose_the_fields_of_their_hop() {
    let mut headers = map(&[
        ("connection", b"close, x-mine"),
        ("x-mine", b"1"),
        ("close", b"1"),
        ("keep-alive", b"timeout=5"),
        ("proxy-authenticate", b"Basic"),
        ("www-authenticate", b"Bearer realm=\"upstream\""),
        ("upgrade", b"h2c"),
        ("set-cookie", b"a=1"),
        ("set-cookie", b"b=2"),
    ]);
    hop::strip_answer(&mut headers).unwrap();
    assert_eq!(
        headers,
        map(&[
            ("www-authenticate", b"Bearer realm=\"upstream\""),
            ("set-cookie", b"a=1"),
            ("set-cookie", b"b=2")
        ])
    );
}

#[test]
fn a_websockets_token_is_taken_out_of_the_sub_protocols() {
    let bearer = BearerSettings { websocket_protocol: Some(HeaderValue::from_static("bearer")) };
    let table: &[(&[&str], Option<&str>)] = &[
        (&["bearer, a.b.c"], None),
        (&["bearer, a.b.c, chat"], Some("chat")),
        (&["chat,bearer,a.b.c , super"], Some("chat, super")),
        (&["chat", "bearer", "a.b.c", "super"], Some("chat, super")),
        (&["chat , super"], Some("chat, super")),
        (&["bearer"], None),
        (&["bearer, bearer, a.b.c"], None),
        (&["bearer, a.b.c, bearer, d.e.f, chat"], Some("chat")),
        (&["a.b.c, bearer, a.b.c, a.b.c"], None),
        (&["Bearer, chat"], Some("Bearer, chat")),
        (&[",, ,"], None),
    ];
    let identity = IdentitySettings::default();
    for (sent, expected) in table {
        let mut fields: Vec<(&str, &[u8])> =
            sent.iter().map(|v| ("sec-websocket-protocol", v.as_bytes())).collect();
        fields.push(("sec_websocket_protocol", b"bearer, a.b.c"));
        let headers = map(&fields);
        let rules = FieldRules::new(&identity, &bearer);
        let found = |fields: Vec<(String, Vec<u8>)>| {
            let found =
                fields.into_iter().filter(|(name, _)| name.replace('_', "-") == "sec-websocket-protocol");
            found.map(|(_, value)| String::from_utf8(value).unwrap()).collect::<Vec<_>>()
        };
        let expected: Vec<String> = expected.iter().map(|&value| value.to_owned()).collect();
        assert_eq!(found(http1(&rules, &ask(&headers, &UNTRUSTED))), expected, "{sent:?}");
        // Without the setting they are forwarded unchanged.
        let rules = FieldRules::new(&identity, &BearerSettings::default());
        let kept = found(http1(&rules, &ask(&headers, &UNTRUSTED)));
        assert_eq!(
            kept[..sent.len()],
            sent.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>()[..],
            "{sent:?}"
        );
    }
}

#[test]
fn the_word_before_a_token_is_selected_where_the_upstream_selects_nothing() {
    let bearer = BearerSettings { websocket_protocol: Some(HeaderValue::from_static("bearer")) };
    let rules = FieldRules::new(&IdentitySettings::default(), &bearer);
    let none = FieldRules::new(&IdentitySettings::default(), &BearerSettings::default());
    let websocket: (&str, &[u8]) = ("upgrade", b"WebSocket");
    let table: &[(&str, Option<&str>, Option<&str>)] = &[
        ("bearer, a.b.c", None, Some("bearer")),
        ("chat, bearer, a.b.c", None, Some("bearer")),
        ("chat, bearer, a.b.c", Some("chat"), Some("chat")),
        ("chat", None, None),
        ("chat", Some("chat"), Some("chat")),
        ("Bearer, a.b.c", None, None),
    ];
    for (offered, selected, expected) in table {
        let asked = map(&[("sec-websocket-protocol", offered.as_bytes())]);
        let mut fields = vec![websocket];
        fields.extend(selected.map(|name| ("sec-websocket-protocol", name.as_bytes())));
        let answer = |rules: &FieldRules, fields: &[(&str, &[u8])]| {
            let mut answer = map(fields);
            rules.select_sub_protocol(&asked, &mut answer);
            answer.get("sec-websocket-protocol").map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(answer(&rules, &fields).as_deref(), *expected, "{offered}");
        assert_eq!(answer(&none, &fields).as_deref(), *selected, "{offered} without the setting");
        let other = [("upgrade", &b"chat"[..])];
        assert_eq!(answer(&rules, &other), None, "{offered} to another protocol");
    }
}
