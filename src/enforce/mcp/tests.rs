//! Which fields can be used for a decision, and how well a route matches them.

use http::HeaderValue;

use super::*;

fn headers(fields: &[(HeaderName, &[u8])]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(name, HeaderValue::from_bytes(value).expect("a value"));
    }
    headers
}

const NOW: (HeaderName, &[u8]) = (VERSION, b"2026-07-28");

#[test]
fn a_call_is_read_from_its_fields() {
    for (method, name, read) in [
        ("tools/list", None, ("tools/list", None)),
        ("tools/call", Some("read_deals"), ("tools/call", Some("read_deals"))),
        ("Tools/Call", Some("Read"), ("Tools/Call", Some("Read"))),
        ("tools/call", Some(""), ("tools/call", Some(""))),
        ("tools/call", Some("=?base64?cmVhZF9kZWFscw==?="), ("tools/call", Some("read_deals"))),
        ("tools/call", Some("=?base64?w6k=?="), ("tools/call", Some("é"))),
        ("=?base64?dG9vbHMvY2FsbA==?=", Some("a"), ("tools/call", Some("a"))),
        ("tools/call", Some("a=?base64?YQ==?="), ("tools/call", Some("a=?base64?YQ==?="))),
        ("tools/call", Some("=?"), ("tools/call", Some("=?"))),
    ] {
        let mut fields = vec![NOW, (METHOD, method.as_bytes())];
        fields.extend(name.map(|name| (NAME, name.as_bytes())));
        let headers = headers(&fields);
        let call = McpCall::read(&headers).expect("a call");
        assert_eq!((&*call.method, call.name.as_deref()), read);
    }
}

#[test]
fn fields_that_cannot_be_decided_by_are_faults() {
    use McpFault::{Absent, NoDate, Repeated, TooOld, Unreadable};
    let call = (METHOD, &b"tools/call"[..]);
    let version = |text: &'static str| (VERSION, text.as_bytes());
    let name = |text: &'static [u8]| vec![NOW, (METHOD, &b"tools/call"[..]), (NAME, text)];
    type Fields = Vec<(HeaderName, &'static [u8])>;
    let table: Vec<(Fields, McpFault)> = vec![
        (vec![], Absent("MCP-Protocol-Version")),
        (vec![call.clone()], Absent("MCP-Protocol-Version")),
        (vec![NOW], Absent("Mcp-Method")),
        (vec![NOW, (METHOD, b"")], Absent("Mcp-Method")),
        (vec![NOW, NOW, call.clone()], Repeated("MCP-Protocol-Version")),
        (vec![NOW, call.clone(), call.clone()], Repeated("Mcp-Method")),
        (vec![NOW, call.clone(), (NAME, b"a"), (NAME, b"a")], Repeated("Mcp-Name")),
        (vec![version("2026-07-27"), call.clone()], TooOld),
        (vec![version("2025-11-25"), call.clone()], TooOld),
        (vec![version("0000-01-01"), call.clone()], TooOld),
        (vec![version(""), call.clone()], NoDate),
        (vec![version("latest"), call.clone()], NoDate),
        (vec![version("DRAFT-2026-v1"), call.clone()], NoDate),
        (vec![version("2026-7-28"), call.clone()], NoDate),
        (vec![version("2026-13-01"), call.clone()], NoDate),
        (vec![version("2026-00-01"), call.clone()], NoDate),
        (vec![version("2026-08-00"), call.clone()], NoDate),
        (vec![version("2026-08-32"), call.clone()], NoDate),
        (vec![version("2026-08-011"), call.clone()], NoDate),
        (vec![version("2026/08/01"), call.clone()], NoDate),
        (vec![version("+026-08-01"), call.clone()], NoDate),
        (vec![version("2026-07-28, 2026-07-28"), call.clone()], NoDate),
        (name("é".as_bytes()), Unreadable("Mcp-Name")),
        (name(b"a\tb"), Unreadable("Mcp-Name")),
        (name(b"=?base64?!!!!?="), Unreadable("Mcp-Name")),
        (name(b"=?base64?YQ?="), Unreadable("Mcp-Name")),
        (name(b"=?base64?YR==?="), Unreadable("Mcp-Name")),
        (name(b"=?base64?YQ==  ?="), Unreadable("Mcp-Name")),
        (name(b"=?base64?-_-_?="), Unreadable("Mcp-Name")),
        (name(b"=?base64?/w==?="), Unreadable("Mcp-Name")),
        (name(b"=?base64?YQBi?="), Unreadable("Mcp-Name")),
        (name(b"=?base64?YQpi?="), Unreadable("Mcp-Name")),
        (name(b"=?base64?YQ=="), Unreadable("Mcp-Name")),
        (name(b"=?BASE64?YQ==?="), Unreadable("Mcp-Name")),
        (vec![NOW, (METHOD, b"=?base64?!?=")], Unreadable("Mcp-Method")),
    ];
    for (fields, fault) in table {
        assert_eq!(McpCall::read(&headers(&fields)), Err(fault), "{fields:?}");
        assert!(!fault.to_string().is_empty());
    }
    for good in ["2026-07-28", "2026-07-29", "2026-12-31", "2027-01-01", "9999-12-31"] {
        assert!(McpCall::read(&headers(&[(VERSION, good.as_bytes()), call.clone()])).is_ok(), "{good}");
    }
}

fn settings(methods: &[&str], names: &[&str]) -> McpSettings {
    McpSettings {
        methods: methods.iter().map(|method| (*method).to_owned()).collect(),
        names: names.iter().map(|name| McpName::new(name)).collect(),
    }
}

#[test]
fn the_best_fit_of_a_route_counts() {
    let call = |method: &'static str, name: Option<&'static str>| McpCall {
        method: method.into(),
        name: name.map(Into::into),
    };
    for (settings, call, fit) in [
        (settings(&[], &[]), call("any", None), Some(McpFit::Any)),
        (settings(&["tools/list"], &[]), call("tools/list", None), Some(McpFit::Method)),
        (settings(&["tools/list"], &[]), call("tools/list", Some("a")), Some(McpFit::Method)),
        (settings(&["tools/list"], &[]), call("Tools/list", None), None),
        (settings(&["tools/call"], &["a*"]), call("tools/call", Some("ab")), Some(McpFit::Glob)),
        (settings(&["tools/call"], &["a*", "ab"]), call("tools/call", Some("ab")), Some(McpFit::Exact)),
        (settings(&["tools/call"], &["a*"]), call("tools/call", Some("Ab")), None),
        (settings(&["tools/call"], &["a*"]), call("tools/call", None), None),
        (settings(&["tools/call"], &["a*"]), call("prompts/get", Some("ab")), None),
    ] {
        assert_eq!(settings.fit(&call), fit, "{settings:?} {call:?}");
    }
    let named = settings(&["tools/call", "tools/list"], &["a"]);
    assert!(named.needs_name(&call("tools/call", None)));
    assert!(!named.needs_name(&call("tools/list", None)), "no request of this method has a name");
    assert!(!named.needs_name(&call("tools/call", Some(""))));
    assert!(!settings(&["tools/call"], &[]).needs_name(&call("tools/call", None)));
    assert!(!settings(&["prompts/get"], &["a"]).needs_name(&call("tools/call", None)));
}

#[test]
fn a_tie_names_what_is_at_fault_as_it_is_configured() {
    for name in ["read", "read_*", "*"] {
        assert_eq!(McpName::new(name).as_str(), name);
        let (one, other) = (settings(&["a", "b"], &["x", name]), settings(&["b"], &[name]));
        assert_eq!(one.tie(&other), Some(("mcp_names", format!("{name:?}"))));
    }
    let (one, other) = (settings(&["a", "b"], &[]), settings(&["b"], &[]));
    assert_eq!(one.tie(&other), Some(("mcp_methods", "\"b\"".to_owned())));
}

#[test]
fn routes_are_tied_where_one_request_fits_both_equally_well() {
    let key = |one: &McpSettings, other: &McpSettings| one.tie(other).map(|(key, _)| key);
    for (one, other, tied) in [
        (settings(&[], &[]), settings(&[], &[]), Some("path")),
        (settings(&["a"], &[]), settings(&[], &[]), None),
        (settings(&["a"], &[]), settings(&["b"], &[]), None),
        (settings(&["a", "b"], &[]), settings(&["b"], &[]), Some("mcp_methods")),
        (settings(&["a"], &["x"]), settings(&["a"], &[]), None),
        (settings(&["a"], &["x"]), settings(&["a"], &["x"]), Some("mcp_names")),
        (settings(&["a"], &["x"]), settings(&["a"], &["y"]), None),
        (settings(&["a"], &["x"]), settings(&["b"], &["x"]), None),
        (settings(&["a"], &["x*"]), settings(&["a"], &["xy"]), None),
        (settings(&["a"], &["x*"]), settings(&["a"], &["*y"]), Some("mcp_names")),
        (settings(&["a"], &["x*"]), settings(&["a"], &["y*"]), None),
        (settings(&["a"], &["q", "x*"]), settings(&["a"], &["x*", "r"]), Some("mcp_names")),
    ] {
        assert_eq!(key(&one, &other), tied, "{one:?} {other:?}");
        assert_eq!(key(&other, &one), tied, "{other:?} {one:?}");
    }
}
