//! The router finds what a search through all routes finds.
//!
//! The input is lines `METHODS HOSTS PATTERN`, lists with commas and `*` for any; an empty line; and lines
//! `METHOD HOST TARGET`.

use std::cmp::Reverse;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};

use crate::enforce::policy::{EncodedSlashes, RouteSettings};
use crate::enforce::router::Router;
use crate::enforce::target::{RequestTarget, Target};

/// What must hold.
pub(super) fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (routes, requests) = text.split_once("\n\n").unwrap_or((text, ""));
    let routes: Vec<RouteSettings> = routes.lines().take(24).filter_map(route).collect();
    let router = match Router::new(routes.clone()) {
        Ok(router) => router,
        Err(errors) => {
            assert!(!errors.is_empty());
            for error in errors {
                assert!(error.route < routes.len() && error.other.is_none_or(|other| other < error.route));
            }
            return;
        }
    };
    for line in requests.lines().take(24) {
        let mut parts = line.splitn(3, ' ');
        let (Some(method), Some(host), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let (Ok(method), Ok(sent)) =
            (method.parse::<Method>(), RequestTarget::from_bytes(Bytes::copy_from_slice(path.as_bytes())))
        else {
            continue;
        };
        let Ok(target) = Target::parse(&method, &sent) else { continue };
        let host = (host != "-").then_some(host);
        let found = router.find(host, &method, &target, &HeaderMap::new()).map(|found| found.route.index());
        assert_eq!(found, linear(&routes, host, &method, target.path()), "{line} in {text}");
    }
}

fn route(line: &str) -> Option<RouteSettings> {
    let mut parts = line.splitn(3, ' ');
    let mut list = || {
        let text = parts.next()?;
        Some(if text == "*" { Vec::new() } else { text.split(',').map(str::to_owned).collect() })
    };
    let (methods, hosts) = (list()?, list()?);
    let methods = methods.iter().map(|method| method.parse().ok()).collect::<Option<Vec<Method>>>()?;
    Some(RouteSettings {
        path: Arc::from(parts.next()?),
        hosts,
        methods,
        encoded_slashes: EncodedSlashes::Keep,
        ..RouteSettings::default()
    })
}

/// Of all routes that match the one that is most specific: segment by segment, then by host, then by method.
fn linear(routes: &[RouteSettings], host: Option<&str>, method: &Method, path: &str) -> Option<usize> {
    let mut best: Vec<_> = routes
        .iter()
        .enumerate()
        .filter(|(_, route)| route.methods.is_empty() || route.methods.contains(method))
        .filter(|(_, route)| {
            let asked = host.map(bare);
            route.hosts.is_empty() || route.hosts.iter().any(|host| Some(bare(host)) == asked)
        })
        .filter_map(|(index, route)| {
            let named = (Reverse(!route.hosts.is_empty()), Reverse(!route.methods.is_empty()));
            Some((matches(&route.path, path)?, named, index))
        })
        .collect();
    best.sort();
    if let [one, other, ..] = best.as_slice() {
        assert_ne!((&one.0, one.1), (&other.0, other.1), "two routes of one rank match {path}");
    }
    best.first().map(|(.., index)| *index)
}

/// What each segment of a pattern that matches is: 0 a literal, 1 a name, 2 the rest.
fn matches(pattern: &str, path: &str) -> Option<Vec<u8>> {
    let mut segments = path.strip_prefix('/')?.split('/');
    let mut kinds = Vec::new();
    for part in pattern.strip_prefix('/')?.split('/') {
        if part.starts_with("{*") {
            kinds.push(2);
            return Some(kinds);
        }
        let segment = segments.next()?;
        if part.starts_with('{') {
            kinds.push(1);
            if segment.is_empty() {
                return None;
            }
        } else {
            kinds.push(0);
            if canonical(part) != segment {
                return None;
            }
        }
    }
    segments.next().is_none().then_some(kinds)
}

/// RFC 3986 §6.2.2, with everything that is no `pchar` in an escape.
fn canonical(part: &str) -> String {
    let (mut text, mut rest) = (String::new(), part.as_bytes());
    while let [byte, after @ ..] = rest {
        rest = after;
        let digits =
            after.get(..2).filter(|_| *byte == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let byte = escaped.unwrap_or(*byte);
        if escaped.is_some() {
            rest = after.get(2..).unwrap_or_default();
        }
        let is_unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if is_unreserved || (escaped.is_none() && b"!$&'()*+,;=:@".contains(&byte)) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

fn bare(host: &str) -> String {
    let end = host.rfind(']').map(|end| end + 1).or_else(|| host.find(':')).unwrap_or(host.len());
    let name = host.get(..end).unwrap_or(host);
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}
