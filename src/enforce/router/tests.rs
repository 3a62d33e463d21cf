//! Which route a request takes, and which routes conflict.

#![expect(clippy::too_many_lines, reason = "a table is as long as it has rows")]

use http::Uri;

use super::*;
use crate::enforce::mcp::{self, McpName, McpSettings};
use crate::enforce::policy::{Mode, Requirement};
use crate::enforce::target::RequestTarget;
use crate::enforce::testing::route;

/// Settings from `[METHODS] [HOSTS] PATH`; lists are comma-separated, `*` means any.
fn settings(line: &str) -> RouteSettings {
    let parts: Vec<&str> = line.split(' ').collect();
    let list = |text: &str| match text {
        "*" => Vec::new(),
        text => text.split(',').map(str::to_owned).collect::<Vec<_>>(),
    };
    let methods = list(parts[0]).iter().map(|m| m.parse().expect("a method")).collect();
    RouteSettings { methods, hosts: list(parts[1]), ..route(parts[2]) }
}

fn router(lines: &[&str]) -> Result<Router, Vec<PolicyError>> {
    Router::new(lines.iter().map(|line| settings(line)).collect())
}

fn target(method: &Method, path: &str) -> Target {
    let sent = RequestTarget::from(&path.parse::<Uri>().expect("a target"));
    Target::parse(method, &sent).expect("a sound target")
}

/// The index of the route that a request without MCP fields takes.
fn found(router: &Router, host: Option<&str>, method: &Method, target: &Target) -> Option<usize> {
    let found = router.find(host, method, target, &HeaderMap::new())?;
    assert_eq!(found.mcp, Ok(()));
    Some(found.route.index())
}

const ROUTES: &[&str] = &[
    "GET * /deals/{*rest}",
    "POST * /deals/{id}/lines",
    "GET * /deals/{id}/lines/{line}",
    "* * /deals/special",
    "GET * /deals/special/lines",
    "* * /users/{id}",
    "GET * /users/{id}",
    "* admin.example /users/{id}",
    "GET admin.example,root.example /users/{id}",
    "* * /users/me",
    "GET * /a/{x}/c",
    "GET * /a/b/{*rest}",
    "GET * /a/{x}/{y}",
    "POST * /a/b/c",
    "* * /slash/",
    "* * /files/{name}/",
    "* * /caf%c3%a9/x",
    "* * /naïve",
    "* * /%7euser",
    "* * /at@x",
    "* * /case",
    "* * /CASE",
    "PROPFIND * /dav",
    "* v6.example,[::1] /six",
    "* * /",
    "* only.example /{*rest}",
];

#[test]
fn the_most_specific_route_that_matches_everything_counts() {
    let router = router(ROUTES).expect("sound routes");
    let table: &[(&str, &str, &str, Option<&str>)] = &[
        ("GET", "x", "/deals", Some(ROUTES[0])),
        ("GET", "x", "/deals/", Some(ROUTES[0])),
        ("GET", "x", "/deals/7", Some(ROUTES[0])),
        ("GET", "x", "/deals/7/lines", Some(ROUTES[0])),
        ("POST", "x", "/deals/7/lines", Some(ROUTES[1])),
        ("POST", "x", "/deals/7/lines/", None),
        ("GET", "x", "/deals/7/lines/1", Some(ROUTES[2])),
        ("GET", "x", "/deals/7/lines/1/x", Some(ROUTES[0])),
        ("GET", "x", "/deals/7/lines/", Some(ROUTES[0])),
        ("DELETE", "x", "/deals/7", None),
        ("POST", "x", "/deals", None),
        ("DELETE", "x", "/deals/special", Some(ROUTES[3])),
        ("GET", "x", "/deals/special", Some(ROUTES[3])),
        ("GET", "x", "/deals/special/", Some(ROUTES[0])),
        ("GET", "x", "/deals/special/lines", Some(ROUTES[4])),
        // The literal path has no such method; the next in rank has.
        ("POST", "x", "/deals/special/lines", Some(ROUTES[1])),
        ("GET", "x", "/deals/special/lines/1", Some(ROUTES[2])),
        ("GET", "x", "/dealsx", None),
        ("GET", "x", "/Deals/7", None),
        ("GET", "x", "/deal", None),
        ("GET", "x", "/users/7", Some(ROUTES[6])),
        ("PUT", "x", "/users/7", Some(ROUTES[5])),
        ("PUT", "admin.example", "/users/7", Some(ROUTES[7])),
        ("GET", "admin.example", "/users/7", Some(ROUTES[8])),
        ("GET", "root.example", "/users/7", Some(ROUTES[8])),
        ("PUT", "root.example", "/users/7", Some(ROUTES[5])),
        ("GET", "admin.example", "/users/me", Some(ROUTES[9])),
        ("GET", "x", "/users/%6de", Some(ROUTES[9])),
        ("GET", "x", "/users/Me", Some(ROUTES[6])),
        ("GET", "x", "/users/", None),
        ("GET", "x", "/users", None),
        ("GET", "x", "/users/7/8", None),
        ("GET", "ADMIN.Example", "/users/7", Some(ROUTES[8])),
        ("GET", "admin.example.", "/users/7", Some(ROUTES[8])),
        ("GET", "admin.example:8443", "/users/7", Some(ROUTES[8])),
        ("GET", "admin.example.:8443", "/users/7", Some(ROUTES[8])),
        ("GET", "xadmin.example", "/users/7", Some(ROUTES[6])),
        ("GET", "admin.example..", "/users/7", Some(ROUTES[6])),
        ("GET", "", "/users/7", Some(ROUTES[6])),
        // From the left: `b` before `{x}`, whatever follows.
        ("GET", "x", "/a/b/c", Some(ROUTES[11])),
        ("POST", "x", "/a/b/c", Some(ROUTES[13])),
        ("GET", "x", "/a/q/c", Some(ROUTES[10])),
        ("GET", "x", "/a/q/d", Some(ROUTES[12])),
        ("GET", "x", "/a/b", Some(ROUTES[11])),
        ("GET", "x", "/a/q", None),
        ("GET", "x", "/slash/", Some(ROUTES[14])),
        ("GET", "x", "/slash", None),
        ("GET", "x", "/files/a/", Some(ROUTES[15])),
        ("GET", "x", "/files/a", None),
        ("GET", "x", "/caf%C3%A9/x", Some(ROUTES[16])),
        ("GET", "x", "/caf%c3%a9/%78", Some(ROUTES[16])),
        ("GET", "x", "/café/x", Some(ROUTES[16])),
        ("GET", "x", "/na%c3%afve", Some(ROUTES[17])),
        ("GET", "x", "/~user", Some(ROUTES[18])),
        ("GET", "x", "/%7Euser", Some(ROUTES[18])),
        ("GET", "x", "/at@x", Some(ROUTES[19])),
        ("GET", "x", "/at%40x", None),
        ("GET", "x", "/case", Some(ROUTES[20])),
        ("GET", "x", "/CASE", Some(ROUTES[21])),
        ("GET", "x", "/Case", None),
        ("PROPFIND", "x", "/dav", Some(ROUTES[22])),
        ("propfind", "x", "/dav", None),
        ("GET", "[::1]:8443", "/six", Some(ROUTES[23])),
        ("GET", "[::1]", "/six", Some(ROUTES[23])),
        ("GET", "[::2]", "/six", None),
        ("GET", "x", "/", Some(ROUTES[24])),
        ("GET", "only.example", "/", Some(ROUTES[24])),
        ("GET", "only.example", "/anything/at/all", Some(ROUTES[25])),
        // A path of other routes, with a method that only the catch-all accepts.
        ("DELETE", "only.example", "/deals/7", Some(ROUTES[25])),
        ("OPTIONS", "only.example", "*", None),
        ("GET", "x", "/deals?path=/users/7", Some(ROUTES[0])),
        ("GET", "x", "/nowhere?x=/deals/7", None),
    ];
    assert!(table.len() >= 40);
    for (method, host, path, expected) in table {
        let method: Method = method.parse().expect("a method");
        let target = target(&method, path);
        let found = found(&router, Some(host), &method, &target).map(|index| ROUTES[index]);
        assert_eq!(found, *expected, "{method} {host} {path}");
    }
}

#[test]
fn a_request_without_host_takes_no_route_that_names_one() {
    let router = router(&["* only.example /a", "* * /b"]).expect("sound routes");
    assert!(found(&router, None, &Method::GET, &target(&Method::GET, "/a")).is_none());
    assert!(found(&router, None, &Method::GET, &target(&Method::GET, "/b")).is_some());
}

#[test]
fn routes_that_could_tie_are_a_mistake() {
    let ties: &[[&str; 2]] = &[
        ["* * /a", "* * /a"],
        ["GET * /a/{x}", "GET * /a/{y}"],
        ["GET,POST * /a", "POST,PUT * /a"],
        ["* * /a/{*rest}", "* * /a/{*more}"],
        ["* h.example /a", "* H.Example. /a"],
        ["* h.example,i.example /a", "* i.example /a"],
        ["GET h.example /a", "GET h.example /a"],
        ["* * /%61", "* * /a"],
        ["* * /%c3%a9", "* * /é"],
    ];
    for tie in ties {
        let errors = router(tie).expect_err("a tie");
        let error = &errors[0];
        assert_eq!((errors.len(), error.route, error.other, error.key), (1, 1, Some(0), "path"), "{tie:?}");
        let message = error.to_string();
        for line in tie {
            assert!(message.contains(line.rsplit(' ').next().expect("a path")), "{message}");
        }
    }
    let friends: &[[&str; 2]] = &[
        ["GET * /a", "POST * /a"],
        ["GET * /a", "* * /a"],
        ["* h.example /a", "* i.example /a"],
        ["* h.example /a", "* * /a"],
        ["GET * /a", "* h.example /a"],
        ["* * /a", "* * /a/"],
        ["* * /a/{x}", "* * /a/{*rest}"],
        ["* * /a/{x}", "* * /a/b"],
        ["* * /a/{*rest}", "* * /a"],
        ["* * /a", "* * /A"],
    ];
    for pair in friends {
        assert!(router(pair).is_ok(), "{pair:?}");
    }
}

#[test]
fn patterns_that_are_none_are_mistakes() {
    for path in [
        "",
        "deals",
        "{a}",
        "//",
        "/a//b",
        "/a//",
        "/{*rest}/a",
        "/{*rest}/",
        "/{}",
        "/{*}",
        "/{a}/{a}",
        "/{a}/{*a}",
        "/a{b}",
        "/{a}b",
        "/{a",
        "/a}",
        "/{a b}",
        "/{{a}}",
        "/../a",
        "/a/..",
        "/.",
        "/%2e%2e/a",
        "/a%2fb",
        "/a\\b",
        "/a%zz",
        "/a?b",
        "/a#b",
        "/..;x/a",
        "/;x/a",
        "/%00",
        "/a\tb",
        "/%252e%252e",
    ] {
        let errors = Router::new(vec![route(path)]).expect_err(path);
        assert_eq!((errors.len(), errors[0].route, errors[0].key), (1, 0, "path"), "{path}: {errors:?}");
    }
    for path in [
        "/",
        "/a",
        "/a/",
        "/{a}",
        "/{a}/",
        "/{*rest}",
        "/a/{b}/{*rest}",
        "/a b",
        "/a;b",
        "/;x",
        "/.a",
        "/a%20b",
    ] {
        assert!(Router::new(vec![route(path)]).is_ok(), "{path}");
    }
}

#[test]
fn every_mistake_is_reported_at_once() {
    let requirement = |scope: &str| Requirement { scopes: vec![scope.to_owned()], ..Requirement::default() };
    let errors = Router::new(vec![
        RouteSettings { anonymous: true, requirement: requirement("a"), ..route("/a") },
        RouteSettings { requirement: requirement("a b"), ..route("b") },
        RouteSettings { requirement: requirement("a\"b"), ..route("/c") },
        RouteSettings {
            requirement: Requirement { any_scope: vec![String::new()], ..Requirement::default() },
            ..route("/d")
        },
        route("/e/{x}"),
        route("/e/{y}"),
    ])
    .expect_err("mistakes");
    let found: Vec<_> = errors.iter().map(|e| (e.route, e.key)).collect();
    let expected =
        [(0, "anonymous"), (1, "scopes"), (1, "path"), (2, "scopes"), (3, "any_scope"), (5, "path")];
    assert_eq!(found, expected);
}

#[test]
fn thousands_of_routes_are_searched_without_visiting_them_all() {
    let lines: Vec<String> = (0..5000).map(|n| format!("GET * /service{n}/{{id}}/lines")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let router = router(&lines).expect("sound routes");
    let target = target(&Method::GET, "/service4321/7/lines");
    assert_eq!(found(&router, None, &Method::GET, &target), Some(4321));
}

#[test]
fn a_named_host_counts_more_than_a_named_method() {
    let lines = ["GET * /a", "* h.example /a", "GET h.example /a", "* * /a"];
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2]] {
        // Each route alone with those that rank below it.
        for (left_out, host, method, expected) in [
            (None, "h.example", "GET", "GET h.example /a"),
            (Some(2), "h.example", "GET", "* h.example /a"),
            (None, "h.example", "POST", "* h.example /a"),
            (None, "x", "GET", "GET * /a"),
            (None, "x", "POST", "* * /a"),
        ] {
            let kept: Vec<&str> =
                order.iter().filter(|place| left_out != Some(**place)).map(|place| lines[*place]).collect();
            let (router, method) = (router(&kept).expect("sound"), method.parse().expect("a method"));
            let found = found(&router, Some(host), &method, &target(&method, "/a"));
            assert_eq!(found.map(|index| kept[index]), Some(expected), "{kept:?} {host} {method}");
        }
    }
}

#[test]
fn a_host_is_compared_without_port_and_final_dot() {
    for (host, bare) in [
        ("h.example", "h.example"),
        ("h.example:443", "h.example"),
        ("h.example.", "h.example"),
        ("h.example.:443", "h.example"),
        ("h.example..", "h.example."),
        ("[::1]", "[::1]"),
        ("[::1]:443", "[::1]"),
        ("[::1", "["),
        (":443", ""),
        ("", ""),
    ] {
        assert_eq!(bare_host(host), bare, "{host}");
    }
}

#[test]
fn routes_overlap_when_one_request_can_match_both() {
    let route = |line: &str| Route::new(0, settings(line), &mut ConditionTable::default());
    for (one, other, expected) in [
        ("* * /a", "* * /a", true),
        ("* h /a", "* * /a", true),
        ("* h /a", "* i /a", false),
        ("* h,i /a", "* i,j /a", true),
        ("* h /a", "* H.:80 /a", true),
        ("GET * /a", "* * /a", true),
        ("GET * /a", "POST * /a", false),
        ("GET,POST * /a", "POST,PUT * /a", true),
        ("GET h /a", "* * /a", true),
        ("GET h /a", "GET i /a", false),
        ("GET h /a", "POST h /a", false),
        ("GET * /a", "* h /a", true),
    ] {
        for (one, other) in [(one, other), (other, one)] {
            assert_eq!(candidates::overlap(&route(one), &route(other)), expected, "{one} and {other}");
        }
    }
}

#[test]
fn a_mistake_in_a_pattern_says_what_to_write() {
    let everything = "write {*rest} for everything below, or {name} for any one segment";
    let part = "a wildcard cannot be part of a segment; write {name} for any one segment";
    let only = |segment: &str, meant: &str| format!("\"{segment}\" is not a wildcard here: {meant}");
    for (path, message) in [
        ("/a/*", only("*", everything)),
        ("/**", only("**", everything)),
        ("/***", only("***", part)),
        ("/a*", only("a*", part)),
        ("/*a/b", only("*a", part)),
        ("/:id", only(":id", "write {id} for any one segment")),
        ("/:id/a", only(":id", "write {id} for any one segment")),
        ("/:", only(":", part)),
        ("/:*", only(":*", part)),
        ("/:a*", only(":a*", part)),
        ("deals", "\"deals\" does not start with \"/\"".to_owned()),
        ("/a//b", "it has an empty segment".to_owned()),
        ("/{*rest}/a", "\"{*rest}\" must be the last segment".to_owned()),
        ("/{}", "\"{}\" must be {name} or {*rest}".to_owned()),
        ("/{a}/{a}", "the name \"a\" occurs twice".to_owned()),
        ("/a{b}", "\"a{b}\" is neither a literal nor {name} nor {*rest}".to_owned()),
        ("/a%2fb", "\"a%2fb\" can never match without encoded_slashes = \"keep\"".to_owned()),
        ("/a/..", "\"..\" can never match: such request targets are rejected".to_owned()),
    ] {
        let errors = Router::new(vec![route(path)]).expect_err(path);
        assert_eq!(
            errors.iter().map(|error| error.message.as_str()).collect::<Vec<_>>(),
            [message],
            "{path}"
        );
    }
    assert!(Router::new(vec![route("/a:b")]).is_ok(), "a colon inside is a letter like another");
}

#[test]
fn a_pattern_with_an_encoded_slash_belongs_to_a_route_that_keeps_them() {
    let keep = RouteSettings { encoded_slashes: EncodedSlashes::Keep, ..route("/a%2fb") };
    let router = Router::new(vec![keep]).expect("a sound route");
    for (path, is_found) in [("/a%2Fb", true), ("/a%2fb", true), ("/a/b", false), ("/ab", false)] {
        let target = target(&Method::GET, path);
        assert_eq!(found(&router, None, &Method::GET, &target).is_some(), is_found, "{path}");
    }
}

/// Routes as `PATH|METHODS|MCP METHODS|MCP NAMES`.
fn mcp_router(lines: &[&str]) -> Result<Router, Vec<PolicyError>> {
    let list =
        |text: &str| text.split(',').filter(|one| !one.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let settings = lines.iter().map(|line| {
        let parts: Vec<&str> = line.split('|').collect();
        let mode = if parts[0].ends_with("shadow") { Mode::Shadow } else { Mode::Enforce };
        RouteSettings {
            mode,
            methods: list(parts[1]).iter().map(|method| method.parse().expect("a method")).collect(),
            mcp: McpSettings {
                methods: list(parts[2]),
                names: list(parts[3]).iter().map(|name| McpName::new(name)).collect(),
            },
            ..route(parts[0])
        }
    });
    Router::new(settings.collect())
}

fn mcp_headers(method: &str, name: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (field, value) in [(mcp::METHOD, method), (mcp::NAME, name), (mcp::VERSION, "2026-07-28")] {
        if value != "-" {
            headers.insert(field, value.parse().expect("a value"));
        }
    }
    headers
}

#[test]
fn mcp_requests_take_the_route_that_fits_best_and_others_are_denied() {
    let router = mcp_router(&[
        "/mcp|POST|tools/list,server/discover|",
        "/mcp|POST|tools/call|read_*",
        "/mcp|POST|tools/call|read_secrets,write_deal",
        "/mcp|POST|prompts/get|",
        "/mcp|GET||",
        "/any|||",
        "/any||tools/call|",
        "/any||tools/call|exact",
        "/{*rest}|||",
    ])
    .expect("no ties");
    for (http, path, method, name, expected) in [
        ("POST", "/mcp", "tools/list", "-", Some(0)),
        ("POST", "/mcp", "server/discover", "-", Some(0)),
        ("POST", "/mcp", "tools/call", "read_deals", Some(1)),
        ("POST", "/mcp", "tools/call", "=?base64?cmVhZF9kZWFscw==?=", Some(1)),
        ("POST", "/mcp", "tools/call", "read_secrets", Some(2)),
        ("POST", "/mcp", "tools/call", "=?base64?cmVhZF9zZWNyZXRz?=", Some(2)),
        ("POST", "/mcp", "tools/call", "write_deal", Some(2)),
        ("POST", "/mcp", "prompts/get", "anything", Some(3)),
        // No other route is searched, neither with another path nor for any method.
        ("POST", "/mcp", "tools/call", "delete_deal", None),
        ("POST", "/mcp", "tools/call", "Read_deals", None),
        ("POST", "/mcp", "tools/call", "", None),
        ("POST", "/mcp", "Tools/list", "-", None),
        ("POST", "/mcp", "tools/listx", "-", None),
        ("POST", "/mcp", "resources/read", "read_deals", None),
        // Not a request to routes with MCP methods.
        ("GET", "/mcp", "-", "-", Some(4)),
        ("GET", "/mcp", "tools/call", "delete_deal", Some(4)),
        ("PUT", "/mcp", "-", "-", Some(8)),
        ("POST", "/mcp/", "tools/call", "delete_deal", Some(8)),
        ("POST", "/any", "tools/call", "exact", Some(7)),
        ("POST", "/any", "tools/call", "other", Some(6)),
        ("POST", "/any", "tools/list", "-", Some(5)),
    ] {
        let (method_of_http, headers) = (http.parse().expect("a method"), mcp_headers(method, name));
        let found = router.find(None, &method_of_http, &target(&method_of_http, path), &headers);
        let shown = format!("{http} {path} {method} {name}");
        assert!(found.is_none_or(|found| found.mcp.is_ok()), "{shown}");
        assert_eq!(found.map(|found| found.route.index()), expected, "{shown}");
    }
}

#[test]
fn a_request_that_does_not_say_its_mcp_method_or_name_is_rejected_by_a_route_that_is_enforced() {
    let router = mcp_router(&[
        "/mcp|||",
        "/mcp||tools/call|read",
        "/mixed/shadow||tools/call|",
        "/shadow||tools/call|a",
        "/shadow||tools/call|b",
    ])
    .expect("no ties");
    for (path, method, name, fault) in [
        ("/mcp", "-", "-", Some(McpFault::Absent("Mcp-Method"))),
        ("/mcp", "-", "read", Some(McpFault::Absent("Mcp-Method"))),
        // Otherwise a tool with its own route could be called through the route for any request.
        ("/mcp", "tools/call", "-", Some(McpFault::Absent("Mcp-Name"))),
        ("/mcp", "tools/call", "=?base64?!?=", Some(McpFault::Unreadable("Mcp-Name"))),
        ("/mcp", "tools/list", "-", None),
        ("/mcp", "tools/call", "other", None),
        ("/mixed/shadow", "tools/call", "-", None),
        ("/shadow", "tools/call", "-", Some(McpFault::Absent("Mcp-Name"))),
    ] {
        let headers = mcp_headers(method, name);
        let found =
            router.find(None, &Method::POST, &target(&Method::POST, path), &headers).expect("a route");
        assert_eq!(found.mcp.err(), fault, "{path} {method} {name}");
    }
    let mut old = mcp_headers("tools/call", "read");
    old.insert(mcp::VERSION, "2025-11-25".parse().expect("a value"));
    let found = router.find(None, &Method::POST, &target(&Method::POST, "/mcp"), &old).expect("a route");
    assert_eq!(found.mcp, Err(McpFault::TooOld));
    let mut settings: Vec<RouteSettings> = ["a", "b"]
        .map(|name| RouteSettings {
            mcp: McpSettings { methods: vec!["tools/call".to_owned()], names: vec![McpName::new(name)] },
            ..route("/mcp")
        })
        .into();
    for enforced in [0, 1] {
        settings.iter_mut().for_each(|route| route.mode = Mode::Shadow);
        settings[enforced].mode = Mode::Enforce;
        let router = Router::new(settings.clone()).expect("no ties");
        let target = target(&Method::POST, "/mcp");
        let found = router.find(None, &Method::POST, &target, &HeaderMap::new()).expect("a route");
        assert_eq!((found.route.index(), found.mcp.is_err()), (enforced, true));
    }
}

#[test]
fn routes_that_fit_one_mcp_request_equally_well_are_a_mistake() {
    for (lines, key) in [
        (["/mcp||tools/call|", "/mcp||tools/list,tools/call|"], Some("mcp_methods")),
        (["/mcp||tools/call|a", "/mcp||tools/call|a,b"], Some("mcp_names")),
        (["/mcp||tools/call|a*", "/mcp||tools/call|*b"], Some("mcp_names")),
        (["/mcp|POST|tools/call|", "/mcp||tools/call|"], None),
        (["/mcp||tools/call|a*", "/mcp||tools/call|ab"], None),
        (["/mcp||tools/call|", "/mcp|||"], None),
        (["/mcp|||", "/mcp|||"], Some("path")),
        (["/mcp||tools/call|", "/mcp/||tools/call|"], None),
        (["/mcp|||a", "/b|||"], Some("mcp_names")),
    ] {
        let errors = mcp_router(&lines).err().unwrap_or_default();
        assert_eq!(errors.iter().map(|error| error.key).next(), key, "{lines:?} {errors:?}");
        assert!(errors.len() <= 1, "{errors:?}");
    }
}
