//! Only a listed origin is allowed, byte for byte, and no answer names another one.

use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::enforce::policy::{CorsOrigins, CorsSettings, RouteSettings, WebOrigin};
use crate::enforce::router::Router;

const LISTED: [&str; 3] = ["https://app.example", "http://localhost:3000", "null"];

/// What must hold, for the lines of the input as the `Origin` fields of a request, and for the first as configuration.
pub(super) fn check(input: &[u8]) {
    let lines: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
    if let Some(Ok(text)) = lines.first().map(|line| std::str::from_utf8(line)) {
        configured(text);
    }
    let sent: Vec<HeaderValue> = lines.iter().filter_map(|line| HeaderValue::from_bytes(line).ok()).collect();
    let request: HeaderMap = sent.iter().map(|value| (ORIGIN, value.clone())).collect();
    let listed = LISTED.map(|text| WebOrigin::parse(text).expect("an origin")).to_vec();
    let is_listed = sent.len() == 1 && LISTED.iter().any(|origin| sent[0] == *origin);
    let cors = CorsSettings {
        origins: CorsOrigins::Listed(listed.clone()),
        methods: Vec::new(),
        headers: Vec::new(),
        expose: Vec::new(),
        credentials: true,
        max_age: std::time::Duration::ZERO,
    };
    let route =
        RouteSettings { path: "/".into(), origins: listed, cors: Some(cors), ..RouteSettings::default() };
    let router = Router::new(vec![route]).expect("a sound route");
    let route = &router.routes()[0];
    assert_eq!(route.judge_origin(&request).is_ok(), sent.is_empty() || is_listed, "{request:?}");
    assert_eq!(route.preflight(&request, &Method::GET).is_ok(), is_listed, "{request:?}");
    let cors = route.cors().expect("CORS");
    let allowed = cors.allowed_origin(&request);
    assert_eq!(allowed.as_ref(), sent.first().filter(|_| is_listed), "{request:?}");
    let wildcard = (ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    for own in [true, false] {
        let mut answer: HeaderMap = HeaderMap::from_iter([wildcard.clone()].into_iter().filter(|_| !own));
        if own {
            cors.add(allowed.as_ref(), &mut answer)
        } else {
            cors.replace(allowed.as_ref(), &mut answer)
        }
        assert_eq!(answer.get(ACCESS_CONTROL_ALLOW_ORIGIN), allowed.as_ref(), "{request:?}");
        let family = |name: &&HeaderName| name.as_str().starts_with("access-control-");
        assert!(is_listed || answer.keys().find(family).is_none(), "{request:?}: {answer:?}");
    }
}

/// What is read is what browsers send: it is read as itself, and the only spelling that a request is allowed by.
fn configured(text: &str) {
    let Ok(origin) = WebOrigin::parse(text) else { return };
    let sent = origin.to_string();
    assert_eq!(WebOrigin::parse(&sent).as_ref(), Ok(&origin), "{text:?}");
    assert!(sent.is_ascii() && sent == sent.to_ascii_lowercase(), "{text:?}");
    assert!(sent == "null" || sent.matches('/').count() == 2, "{text:?}");
}
