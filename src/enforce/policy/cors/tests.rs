//! The response fields for every kind of origin and route.

use super::*;
use crate::enforce::denial::Reason;
use crate::enforce::policy::{Mode, Route, RouteSettings};
use crate::enforce::router::Router;

const APP: &str = "https://app.example";

fn settings() -> CorsSettings {
    CorsSettings {
        origins: listed(&[APP, "http://localhost:3000"]),
        methods: Vec::new(),
        headers: names(&["authorization", "content-type"]),
        expose: names(&["www-authenticate", "x-request-id"]),
        credentials: false,
        max_age: Duration::from_secs(600),
    }
}

fn listed(origins: &[&str]) -> CorsOrigins {
    CorsOrigins::Listed(origins.iter().map(|text| WebOrigin::parse(text).expect("an origin")).collect())
}

fn names(names: &[&'static str]) -> Vec<HeaderName> {
    names.iter().map(|name| HeaderName::from_static(name)).collect()
}

fn fields(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let field = |(name, value): &(&'static str, &'static str)| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    fields.iter().map(field).collect()
}

fn from(origin: &'static str) -> HeaderMap {
    fields(&[("origin", origin)])
}

/// All fields, sorted, one per line.
fn shown(headers: &HeaderMap) -> String {
    let mut lines: Vec<_> =
        headers.iter().map(|(name, value)| format!("{name}: {}\n", value.to_str().expect("text"))).collect();
    lines.sort();
    lines.concat()
}

const VARY_LINE: &str = "vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers\n";

/// The fields of the response to a preflight, from methods, headers, age, origin and credentials.
fn told(parts: &str) -> String {
    let [methods, headers, max_age, allowed, credentials] =
        parts.split('|').collect::<Vec<_>>().try_into().expect("five parts");
    let lines = [
        ("access-control-allow-credentials", credentials),
        ("access-control-allow-headers", headers),
        ("access-control-allow-methods", methods),
        ("access-control-allow-origin", allowed),
        ("access-control-max-age", max_age),
    ];
    let lines = lines.into_iter().filter(|(_, value)| !matches!(*value, "" | "-"));
    lines.map(|(name, value)| format!("{name}: {value}\n")).collect::<String>() + VARY_LINE
}

#[test]
fn a_preflight_is_told_what_may_be_sent_and_for_how_long() {
    let any = CorsSettings { origins: CorsOrigins::Any, ..settings() };
    let credentials = CorsSettings { credentials: true, ..settings() };
    let bare = CorsSettings { headers: Vec::new(), max_age: Duration::ZERO, ..settings() };
    let own = CorsSettings { methods: vec![Method::PUT, Method::DELETE], ..settings() };
    let (get, none): (&[Method], &[Method]) = (&[Method::GET, Method::PATCH], &[]);
    let asked = Method::from_bytes(b"REPORT").expect("a method");
    let table: [(&CorsSettings, &[Method], &str, &Method, &str); 8] = [
        (
            &settings(),
            get,
            APP,
            &Method::GET,
            "GET, PATCH|authorization, content-type|600|https://app.example|",
        ),
        (
            &settings(),
            none,
            "http://localhost:3000",
            &asked,
            "REPORT|authorization, content-type|600|http://localhost:3000|",
        ),
        (&any, get, "https://evil.example", &Method::GET, "GET, PATCH|authorization, content-type|600|*|"),
        (&any, none, "null", &Method::PUT, "PUT|authorization, content-type|600|*|"),
        (
            &credentials,
            get,
            APP,
            &Method::GET,
            "GET, PATCH|authorization, content-type|600|https://app.example|true",
        ),
        (&bare, get, APP, &Method::GET, "GET, PATCH|-|0|https://app.example|"),
        // What is not allowed is stated, not hidden: the browser names the method in its console.
        (&own, none, APP, &Method::GET, "PUT, DELETE|authorization, content-type|600|https://app.example|"),
        (
            &own,
            &[Method::PUT, Method::DELETE, Method::GET],
            APP,
            &Method::PUT,
            "PUT, DELETE|authorization, content-type|600|https://app.example|",
        ),
    ];
    for (settings, of_route, origin, method, expected) in table {
        let cors = Cors::new(settings, of_route);
        let request =
            HeaderMap::from_iter([(http::header::ORIGIN, HeaderValue::from_str(origin).expect("a value"))]);
        let answer = cors.preflight(&request, method).expect("an allowed origin");
        assert_eq!(shown(&answer), told(expected), "{origin} {method}");
    }
}

#[test]
fn a_preflight_of_another_origin_is_told_nothing() {
    let cors = Cors::new(&settings(), &[Method::GET]);
    let two =
        HeaderMap::from_iter([APP, APP].map(|value| (http::header::ORIGIN, HeaderValue::from_static(value))));
    for request in [
        from("https://evil.example"),
        from("null"),
        from("https://APP.example"),
        from(""),
        two,
        HeaderMap::new(),
    ] {
        assert_eq!(cors.preflight(&request, &Method::GET), None, "{request:?}");
        assert_eq!(cors.allowed_origin(&request), None, "{request:?}");
    }
    let nobody = Cors::new(&CorsSettings { origins: listed(&[]), ..settings() }, &[Method::GET]);
    assert_eq!(nobody.preflight(&from(APP), &Method::GET), None);
}

#[test]
fn what_an_upstream_says_about_cors_is_replaced_whole() {
    let theirs = || {
        fields(&[
            ("access-control-allow-origin", "*"),
            ("access-control-allow-credentials", "true"),
            ("access-control-expose-headers", "x-secret"),
            ("access-control-allow-methods", "DELETE"),
            ("access-control-allow-private-network", "true"),
            ("content-type", "text/plain"),
            ("www-authenticate", "Basic"),
        ])
    };
    let rest = "content-type: text/plain\n";
    let table = [
        (
            settings(),
            Some(APP),
            "access-control-allow-origin: https://app.example\naccess-control-expose-headers: www-authenticate, x-request-id\n",
            "vary: Origin\n",
        ),
        (settings(), None, "", "vary: Origin\n"),
        (
            CorsSettings { expose: Vec::new(), ..settings() },
            Some(APP),
            "access-control-allow-origin: https://app.example\n",
            "vary: Origin\n",
        ),
        (
            CorsSettings { credentials: true, expose: names(&["x-total"]), ..settings() },
            Some(APP),
            "access-control-allow-credentials: true\naccess-control-allow-origin: https://app.example\naccess-control-expose-headers: x-total\n",
            "vary: Origin\n",
        ),
        (
            CorsSettings { origins: CorsOrigins::Any, ..settings() },
            Some("*"),
            "access-control-allow-origin: *\naccess-control-expose-headers: www-authenticate, x-request-id\n",
            "",
        ),
    ];
    for (settings, origin, cors, vary) in table {
        let mut answer = theirs();
        Cors::new(&settings, &[]).replace(origin.map(HeaderValue::from_static).as_ref(), &mut answer);
        assert_eq!(shown(&answer), format!("{cors}{rest}{vary}www-authenticate: Basic\n"), "{settings:?}");
    }
}

#[test]
fn an_answer_of_the_gate_exposes_what_it_says_itself() {
    let origin = HeaderValue::from_static(APP);
    let exposed =
        |expose: &[&'static str], answer: &[(&'static str, &'static str)], origin: Option<&HeaderValue>| {
            let mut answer = fields(answer);
            Cors::new(&CorsSettings { expose: names(expose), ..settings() }, &[]).add(origin, &mut answer);
            assert_eq!(answer.get("access-control-allow-origin"), origin);
            assert_eq!(answer.get(VARY), Some(&HeaderValue::from_static("Origin")));
            answer.get(ACCESS_CONTROL_EXPOSE_HEADERS).map(|value| value.to_str().expect("text").to_owned())
        };
    let challenge = ("www-authenticate", "Bearer");
    for (expose, answer, expected) in [
        (&["www-authenticate", "x-request-id"][..], &[challenge][..], "www-authenticate, x-request-id"),
        (&[], &[challenge], "www-authenticate"),
        (&[], &[], "www-authenticate"),
        (&["x-total"], &[challenge], "x-total, www-authenticate"),
        (&["x-total"], &[("retry-after", "1")], "x-total, www-authenticate, retry-after"),
        (&["retry-after"], &[("retry-after", "1")], "retry-after, www-authenticate"),
        (&[], &[challenge, ("dpop-nonce", "n")], "www-authenticate, dpop-nonce"),
        (&[], &[("grpc-status", "16"), ("grpc-message", "m")], "www-authenticate, grpc-status, grpc-message"),
    ] {
        assert_eq!(
            exposed(expose, answer, Some(&origin)).as_deref(),
            Some(expected),
            "{expose:?} {answer:?}"
        );
        assert_eq!(exposed(expose, answer, None), None);
    }
}

#[test]
fn caches_are_told_once_that_the_answer_depends_on_the_origin() {
    for (before, after) in [
        (&[][..], &["Origin"][..]),
        (&["Accept-Encoding"], &["Accept-Encoding", "Origin"]),
        (&["Accept-Encoding, origin"], &["Accept-Encoding, origin"]),
        (&["ORIGIN ,x"], &["ORIGIN ,x"]),
        (&["accept", " Origin"], &["accept", "Origin"]),
        (&["*"], &["*"]),
        (&["x-origin"], &["x-origin", "Origin"]),
        (&["origins"], &["origins", "Origin"]),
    ] {
        let mut answer: HeaderMap =
            before.iter().map(|value| (VARY, HeaderValue::from_static(value.trim()))).collect();
        Cors::new(&settings(), &[]).replace(None, &mut answer);
        let found: Vec<_> = answer.get_all(VARY).iter().map(|value| value.to_str().expect("text")).collect();
        assert_eq!(found, after, "{before:?}");
    }
}

/// A route as the gate builds it.
fn route(settings: RouteSettings) -> std::sync::Arc<Route> {
    let settings = RouteSettings { path: "/".into(), ..settings };
    std::sync::Arc::clone(&Router::new(vec![settings]).expect("a sound route").routes()[0])
}

#[test]
fn a_request_may_come_from_a_listed_origin_or_say_nothing() {
    let app = || vec![WebOrigin::parse(APP).expect("an origin")];
    let guarded = route(RouteSettings { origins: app(), ..RouteSettings::default() });
    let open = route(RouteSettings::default());
    let twice = fields(&[("origin", APP), ("origin", APP)]);
    for (request, is_listed) in [
        (HeaderMap::new(), true),
        (from(APP), true),
        (from("https://evil.example"), false),
        (from("null"), false),
        (from(""), false),
        (twice, false),
    ] {
        let judged = guarded.judge_origin(&request).map_err(|denial| denial.reason);
        assert_eq!(judged, if is_listed { Ok(()) } else { Err(Reason::BadOrigin) }, "{request:?}");
        assert!(open.judge_origin(&request).is_ok(), "{request:?}");
    }
}

#[test]
fn a_preflight_needs_both_lists_unless_one_of_them_is_only_observed() {
    let (app, other) = ("https://app.example", "http://localhost:3000");
    let with = |mode, cors| {
        let origins = vec![WebOrigin::parse(APP).expect("an origin")];
        route(RouteSettings { origins, cors, mode, ..RouteSettings::default() })
    };
    for (mode, cors, origin, is_allowed) in [
        (Mode::Enforce, Some(settings()), app, true),
        (Mode::Enforce, Some(settings()), other, false),
        (Mode::Shadow, Some(settings()), other, true),
        (Mode::Shadow, Some(settings()), "https://evil.example", false),
        (Mode::Enforce, None, app, false),
        (Mode::Shadow, None, app, false),
    ] {
        let answer = with(mode, cors).preflight(&from(origin), &Method::GET);
        let answer = answer.map(|fields| fields.get(ACCESS_CONTROL_ALLOW_ORIGIN).cloned());
        match is_allowed {
            true => assert_eq!(answer.ok().flatten(), Some(HeaderValue::from_static(origin))),
            false => {
                assert_eq!(answer.err().map(|denial| denial.reason), Some(Reason::BadOrigin), "{origin}")
            }
        }
    }
}
