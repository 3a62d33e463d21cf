//! The routes of one pattern, and how one is chosen: by host and method, then by MCP fields.

use std::sync::Arc;

use http::{HeaderMap, Method};

use super::{PolicyError, RouteMatch};
use crate::enforce::mcp::{McpCall, McpFault};
use crate::enforce::policy::{Mode, Route, RouteSettings};

/// Routes with the same pattern, sorted by descending rank.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    routes: Vec<Arc<Route>>,
    /// Whether any of them matches MCP requests only.
    has_mcp: bool,
}

/// The properties of a request that decide between routes of one pattern.
pub(super) struct WantedRoute<'r> {
    pub(super) host: Option<&'r str>,
    pub(super) method: &'r Method,
    pub(super) headers: &'r HeaderMap,
}

/// The result for a request whose pattern has routes for its host and method.
pub(super) enum Found<'n> {
    Route(RouteMatch<'n>),
    /// They match other MCP requests only. Less specific patterns are not searched: listing the tools of a
    /// path denies all others.
    Denied,
}

impl Candidates {
    /// Adds a route.
    ///
    /// # Errors
    /// When some request would match this route and another equally well.
    pub(super) fn add(&mut self, route: Arc<Route>) -> Result<(), PolicyError> {
        let rivals = self.routes.iter().filter(|other| rank(other) == rank(&route) && overlap(other, &route));
        let tied =
            |other: &Arc<Route>| Some((other.index(), route.settings().mcp.tie(&other.settings().mcp)?));
        if let Some((other, (key, what))) = rivals.filter_map(tied).next() {
            return Err(tie(&self.routes, &route, other, key, &what));
        }
        self.has_mcp |= route.settings().mcp.is_named();
        let place = self.routes.partition_point(|other| rank(other) >= rank(&route));
        self.routes.insert(place, route);
        Ok(())
    }

    /// Chooses the route of a request; `None` if none matches its host and method.
    pub(super) fn pick<'n>(&'n self, wanted: &WantedRoute<'_>) -> Option<Found<'n>> {
        let mut matching = self.routes.iter().filter(|route| wanted.matches(route));
        if !self.has_mcp {
            return matching.next().map(|route| Found::Route(RouteMatch { route, mcp: Ok(()) }));
        }
        let matching: Vec<&Arc<Route>> = matching.collect();
        let mut groups = matching.chunk_by(|one, other| rank(one) == rank(other));
        let found = groups.find_map(|group| pick_of(group, wanted.headers));
        (!matching.is_empty()).then(|| found.map_or(Found::Denied, Found::Route))
    }
}

/// Chooses the route of a request among those of equal rank.
fn pick_of<'n>(group: &[&'n Arc<Route>], headers: &HeaderMap) -> Option<RouteMatch<'n>> {
    if !group.iter().any(|route| route.settings().mcp.is_named()) {
        return group.first().map(|route| RouteMatch { route, mcp: Ok(()) });
    }
    let rejected = |fault| {
        // Prefers an enforced route: one in shadow mode must not let the request pass.
        let is_enforced = |route: &&&'n Arc<Route>| route.settings().mode == Mode::Enforce;
        let route = group.iter().find(is_enforced).or_else(|| group.first());
        route.map(|route| RouteMatch { route, mcp: Err(fault) })
    };
    let call = match McpCall::read(headers) {
        Ok(call) => call,
        Err(fault) => return rejected(fault),
    };
    if group.iter().any(|route| route.settings().mcp.needs_name(&call)) {
        return rejected(McpFault::Absent("Mcp-Name"));
    }
    let fits = group.iter().filter_map(|route| Some((route.settings().mcp.fit(&call)?, route)));
    fits.max_by_key(|(fit, _)| *fit).map(|(_, route)| RouteMatch { route, mcp: Ok(()) })
}

impl WantedRoute<'_> {
    fn matches(&self, route: &Route) -> bool {
        let RouteSettings { hosts, methods, .. } = route.settings();
        let is_host =
            |host: &String| self.host.is_some_and(|asked| asked.eq_ignore_ascii_case(bare_host(host)));
        (methods.is_empty() || methods.contains(self.method))
            && (hosts.is_empty() || hosts.iter().any(is_host))
    }
}

/// A host without port and final dot.
pub(super) fn bare_host(host: &str) -> &str {
    let end = match host.rfind(']') {
        Some(bracket) => bracket + 1,
        None => host.find(':').unwrap_or(host.len()),
    };
    let name = host.get(..end).unwrap_or(host);
    name.strip_suffix('.').unwrap_or(name)
}

/// Ranks a route: a named host takes precedence over a named method.
fn rank(route: &Route) -> (bool, bool) {
    (!route.settings().hosts.is_empty(), !route.settings().methods.is_empty())
}

fn tie(routes: &[Arc<Route>], route: &Route, other: usize, key: &'static str, what: &str) -> PolicyError {
    let theirs = routes.iter().find(|route| route.index() == other);
    let (own, theirs) = (route.pattern(), theirs.map_or("", |route| route.pattern()));
    let message = match key {
        "path" => format!(
            "\"{own}\" and \"{theirs}\" (routes[{other}]) match the same requests; give one of them different hosts or methods"
        ),
        _ => format!(
            "{what} and routes[{other}] match the same requests equally well; change one so that only one matches"
        ),
    };
    PolicyError { route: route.index(), other: Some(other), key, message }
}

/// Whether some request matches both, given that their paths can match the same one, and ignoring MCP fields.
pub(super) fn overlap(one: &Route, other: &Route) -> bool {
    let (one, other) = (one.settings(), other.settings());
    let hosts =
        |host: &String| other.hosts.iter().any(|o| bare_host(host).eq_ignore_ascii_case(bare_host(o)));
    (one.hosts.is_empty() || other.hosts.is_empty() || one.hosts.iter().any(hosts))
        && (one.methods.is_empty()
            || other.methods.is_empty()
            || one.methods.iter().any(|m| other.methods.contains(m)))
}
