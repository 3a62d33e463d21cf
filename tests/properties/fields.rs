//! What a client sends under a name that folds to an identity or forwarding name never reaches the upstream; what is set
//! there is there once; and what has no meaning on the way passes untouched.
//!
//! The input is field lines.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Version};

use crate::enforce::bearer::BearerSettings;
use crate::enforce::policy::{IdentityClaim, IdentitySettings};
use crate::forward::headers::hop::Listed;
use crate::forward::headers::{self, FieldRules, FieldSink, FreshTrace, Http1Fields, RequestFields};
use crate::forward::{Hop, TrustedFields};

/// Identity headers as they are configured, each with what is known of the token.
const IDENTITY: [(&str, Option<&str>); 3] =
    [("x-auth-subject", Some("alice")), ("x_auth_client", Some("app")), ("x-auth-roles", None)];

/// What the gate says of the request itself.
const SET: [&str; 7] = [
    "forwarded",
    "traceparent",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

/// What no upstream may ever see from a client, in any spelling.
const NEVER: [&str; 33] = [
    "connection",
    "content-length",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    "x-envoy-original-method",
    "x-envoy-original-path",
    "x-forwarded-method",
    "x-forwarded-path",
    "x-forwarded-query",
    "x-forwarded-uri",
    "x-forwarded-url",
    "x-http-destinationurl",
    "x-http-method",
    "x-http-method-override",
    "x-http-path-override",
    "x-method-override",
    "x-original-method",
    "x-original-path",
    "x-original-uri",
    "x-original-url",
    "x-override-url",
    "x-proxy-url",
    "x-request-uri",
    "x-rewrite-path",
    "x-rewrite-url",
    "x-waws-unencoded-url",
];

/// What only a trusted proxy may say.
const TRUSTED: [&str; 4] = ["x-host", "x-original-host", "x-http-host-override", "x-real-ip"];

type Sent = Vec<(String, Vec<u8>)>;

/// What must hold.
pub(super) fn check(input: &[u8]) {
    let mut sent = HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n') {
        let (name, value) = line.split_at(line.iter().position(|byte| *byte == b':').unwrap_or(0));
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            sent.append(name, value);
        }
    }
    let Ok(listed) = Listed::in_connection(&sent) else { return };
    for trusted in
        [None, Some(TrustedFields::Either), Some(TrustedFields::XForwarded), Some(TrustedFields::Forwarded)]
    {
        let mut bytes = Vec::new();
        write(&sent, &listed, trusted, &mut Http1Fields(&mut bytes));
        judge(&sent, &listed, trusted, &lines(&bytes));
        let mut map = HeaderMap::new();
        write(&sent, &listed, trusted, &mut map);
        judge(&sent, &listed, trusted, &pairs(&map));
    }
    let mut trailers = HeaderMap::new();
    headers::request_trailers(&rules(), &sent, &mut trailers);
    for (name, _) in &pairs(&trailers) {
        assert!(!is_ours(name) && !is_never(name), "the trailer {name} passes");
    }
}

fn rules() -> FieldRules {
    let headers = IDENTITY.map(|(name, _)| (HeaderName::from_static(name), IdentityClaim::Subject)).to_vec();
    let identity = IdentitySettings { strip_authorization: true, headers, ..IdentitySettings::default() };
    FieldRules::new(&identity, &BearerSettings::default())
}

fn write<F: FieldSink>(sent: &HeaderMap, listed: &Listed, trusted: Option<TrustedFields>, out: &mut F) {
    let hop = Hop {
        client: std::net::IpAddr::from([192, 0, 2, 7]),
        tls: true,
        trusted,
        host: HeaderValue::from_static("api.example"),
        version: Version::HTTP_11,
        request_id: HeaderValue::from_static("r-1"),
    };
    let known = IDENTITY.iter().filter_map(|(name, value)| Some((name, (*value)?)));
    let identity: Vec<(HeaderName, HeaderValue)> =
        known.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect();
    let request = RequestFields {
        method: &Method::GET,
        headers: sent,
        listed,
        hop: &hop,
        host: &hop.host,
        identity: &identity,
        upgrade: None,
        expect: false,
        trace: FreshTrace { trace_id: 7, parent_id: 9 },
        decided: None,
    };
    headers::request(&rules(), &request, out);
}

fn judge(sent: &HeaderMap, listed: &Listed, trusted: Option<TrustedFields>, out: &Sent) {
    let values = |name: &str| -> Vec<&[u8]> {
        out.iter().filter(|(other, _)| fold(other) == fold(name)).map(|(_, value)| &**value).collect()
    };
    for (name, value) in IDENTITY {
        let expected: Vec<&[u8]> = value.iter().map(|value| value.as_bytes()).collect();
        assert_eq!(values(name), expected, "{name} after {sent:?}");
    }
    for name in SET {
        assert_eq!(values(name).len(), 1, "{name} after {sent:?}");
    }
    assert_eq!(values("x-request-id"), [b"r-1"]);
    if trusted.is_none() {
        assert_eq!(values("x-forwarded-for"), [&b"192.0.2.7"[..]]);
        assert_eq!(values("x-forwarded-host"), [&b"api.example"[..]]);
        assert_eq!(values("x-forwarded-proto"), [&b"https"[..]]);
        assert_eq!(values("forwarded"), [&b"for=192.0.2.7;host=\"api.example\";proto=https"[..]]);
    }
    for (name, value) in out {
        let is_te = matches!((name.as_str(), value.as_slice()), ("te", b"trailers") | ("connection", b"te"));
        assert!(is_te || !is_never(name), "{name} passes after {sent:?}");
        assert_ne!(name, "authorization");
        let has_meaning = is_trusted(name);
        assert!(!has_meaning || (trusted.is_some() && !name.contains('_')), "{name} passes after {sent:?}");
        let is_joined = name == "cookie" || is_te || is_ours(name);
        let came = sent.get_all(name.as_str()).iter().any(|other| other.as_bytes() == value.as_slice());
        assert!(is_joined || came, "{name} comes from nowhere after {sent:?}");
    }
    let is_plain = |name: &HeaderName| {
        let folded = fold(name.as_str());
        let known = ["authorization", "cookie", "expect", "max-forwards", "traceparent", "tracestate"];
        !known.contains(&folded.as_str()) && !is_ours(&folded) && !is_never(&folded) && !is_trusted(&folded)
    };
    // Spellings of the rest of the rules' own table.
    let others =
        ["x-override-method", "x-override-uri", "x-override-path", "x-rewrite-uri", "x-replaced-path"];
    for name in sent.keys().filter(|name| is_plain(name) && !listed.contains(name)) {
        if !others.contains(&fold(name.as_str()).as_str()) {
            let came: Vec<&[u8]> = sent.get_all(name).iter().map(HeaderValue::as_bytes).collect();
            let passed: Vec<&[u8]> =
                out.iter().filter(|(other, _)| other == name.as_str()).map(|(_, value)| &**value).collect();
            assert_eq!(passed, came, "{name} does not pass");
        }
    }
}

fn fold(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

fn is_ours(name: &str) -> bool {
    let folded = fold(name);
    SET.contains(&folded.as_str()) || IDENTITY.iter().any(|(ours, _)| fold(ours) == folded)
}

fn is_never(name: &str) -> bool {
    NEVER.contains(&fold(name).as_str())
}

fn is_trusted(name: &str) -> bool {
    let folded = fold(name);
    TRUSTED.contains(&folded.as_str()) || (folded.starts_with("x-forwarded") && !is_ours(name))
}

fn pairs(fields: &HeaderMap) -> Sent {
    fields.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect()
}

/// The fields as another parser reads them.
fn lines(bytes: &[u8]) -> Sent {
    let head = [bytes, b"\r\n"].concat();
    let mut fields = vec![httparse::EMPTY_HEADER; 4096];
    let parsed = httparse::parse_headers(&head, &mut fields);
    let Ok(httparse::Status::Complete((used, fields))) = parsed else {
        unreachable!("what is sent is no head: {}", head.escape_ascii())
    };
    assert_eq!(used, head.len(), "{}", head.escape_ascii());
    fields.iter().map(|field| (field.name.to_owned(), field.value.to_vec())).collect()
}
