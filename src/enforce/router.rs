//! Finds the route of a request by host, method and path: a tree of path segments.
//!
//! A route matches on host, method and path together. If several match, the most specific path wins (literal
//! before `{name}` before `{*rest}`, segment by segment from the left), then a route that names the host,
//! then one that names the method, then the best match for an MCP request. No request can match two routes of
//! equal rank, because the tree refuses to hold them.

use std::collections::HashSet;
use std::sync::Arc;

use http::{HeaderMap, Method};

use super::conditions::table::ConditionTable;
use super::mcp::McpFault;
use super::policy::{EncodedSlashes, Route, RouteSettings};
use super::target::{self, Canonical, Target};

mod candidates;

use candidates::{Candidates, Found, WantedRoute, bare_host};

/// An error in a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    /// The route's index in the configuration.
    pub route: usize,
    /// The other route, if two conflict.
    pub other: Option<usize>,
    /// The key at fault.
    pub key: &'static str,
    /// What is wrong with it, in plain words.
    pub message: String,
}

impl std::fmt::Display for PolicyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "routes[{}].{}: {}", self.route, self.key, self.message)
    }
}

impl std::error::Error for PolicyError {}

/// All routes, as a search tree.
#[derive(Debug, Default)]
pub struct Router {
    routes: Vec<Arc<Route>>,
    /// Their conditions on tokens.
    conditions: ConditionTable,
    root: Node,
}

/// The route found for a request.
#[derive(Debug, Clone, Copy)]
pub struct RouteMatch<'n> {
    /// The route.
    pub route: &'n Arc<Route>,
    /// Whether the request has valid MCP fields, where routes have MCP methods.
    pub mcp: Result<(), McpFault>,
}

/// One segment of a pattern.
#[derive(Debug, PartialEq, Eq)]
enum PathSegment {
    Literal(String),
    Any,
    Rest,
}

/// The routes and segments that may follow the same prefix.
#[derive(Debug, Default)]
struct Node {
    /// Sorted by name.
    literals: Vec<(Box<str>, Node)>,
    any: Option<Box<Node>>,
    /// Routes whose pattern ends here.
    here: Candidates,
    /// Routes whose pattern continues with `{*rest}`.
    rest: Candidates,
}

impl Router {
    /// Builds the tree.
    ///
    /// # Errors
    /// Every error in every route: invalid patterns, and routes that could both match one request.
    pub fn new(settings: Vec<RouteSettings>) -> Result<Self, Vec<PolicyError>> {
        let mut router = Self::default();
        let mut errors = Vec::new();
        for (index, settings) in settings.into_iter().enumerate() {
            let mistakes = mistakes(index, &settings);
            let sound = mistakes.is_empty();
            errors.extend(mistakes);
            let route = Arc::new(Route::new(index, settings, &mut router.conditions));
            router.routes.push(Arc::clone(&route));
            match parse(route.pattern(), route.settings().encoded_slashes) {
                Err(message) => errors.push(PolicyError { route: index, other: None, key: "path", message }),
                Ok(segments) if sound => errors.extend(router.root.insert(&segments, route).err()),
                Ok(_) => {}
            }
        }
        if errors.is_empty() { Ok(router) } else { Err(errors) }
    }

    /// All routes, by index.
    #[must_use]
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// The conditions of all routes on tokens.
    pub(super) fn conditions(&self) -> &ConditionTable {
        &self.conditions
    }

    /// Finds the route of a request. The target `*` has no path, so it has no route.
    #[must_use]
    pub fn find(
        &self,
        host: Option<&str>,
        method: &Method,
        target: &Target,
        headers: &HeaderMap,
    ) -> Option<RouteMatch<'_>> {
        let path = target.path_bytes().strip_prefix(b"/")?;
        let wanted = WantedRoute { host: host.map(bare_host), method, headers };
        match self.root.find(path, &wanted)? {
            Found::Route(found) => Some(found),
            Found::Denied => None,
        }
    }
}

impl Node {
    fn insert(&mut self, segments: &[PathSegment], route: Arc<Route>) -> Result<(), PolicyError> {
        let Some((segment, rest)) = segments.split_first() else {
            return self.here.add(route);
        };
        match segment {
            PathSegment::Rest => self.rest.add(route),
            PathSegment::Any => self.any.get_or_insert_default().insert(rest, route),
            PathSegment::Literal(name) => {
                let found = self.literals.binary_search_by(|(other, _)| other.as_ref().cmp(name));
                let place = found.unwrap_or_else(|place| {
                    self.literals.insert(place, (name.as_str().into(), Self::default()));
                    place
                });
                self.literals.get_mut(place).map_or(Ok(()), |(_, node)| node.insert(rest, route))
            }
        }
    }

    /// Finds the route for what follows a slash. Visits each node at most once, because the tree has one path
    /// to each.
    fn find<'n>(&'n self, path: &[u8], wanted: &WantedRoute<'_>) -> Option<Found<'n>> {
        let end = path.iter().position(|&byte| byte == b'/');
        let segment = end.and_then(|end| path.get(..end)).unwrap_or(path);
        let after = end.and_then(|end| path.get(end + 1..));
        let below = |node: &'n Self| match after {
            Some(after) => node.find(after, wanted),
            None => node.here.pick(wanted).or_else(|| node.rest.pick(wanted)),
        };
        let literal = || {
            let place = self.literals.binary_search_by(|(name, _)| name.as_bytes().cmp(segment)).ok()?;
            below(&self.literals.get(place)?.1)
        };
        // `{name}` does not match an empty last segment, as in `/deals/`.
        let any = || below(self.any.as_deref().filter(|_| !segment.is_empty())?);
        literal().or_else(any).or_else(|| self.rest.pick(wanted))
    }
}

/// The errors of a route apart from its path.
fn mistakes(route: usize, settings: &RouteSettings) -> Vec<PolicyError> {
    let requirement = &settings.requirement;
    let mut errors = Vec::new();
    let mut report = |key, message: String| errors.push(PolicyError { route, other: None, key, message });
    if settings.anonymous && settings.asks_for_anything() {
        let message = "an anonymous route cannot require scopes, roles or anything else of a token";
        report("anonymous", message.to_owned());
    }
    if !settings.mcp.names.is_empty() && settings.mcp.methods.is_empty() {
        report("mcp_names", "requires mcp_methods: a name has no meaning without its method".to_owned());
    }
    for (key, scopes) in [("scopes", &requirement.scopes), ("any_scope", &requirement.any_scope)] {
        // RFC 6750 §3: the characters that a challenge can name and a space-delimited claim can hold.
        let is_scope = |s: &str| {
            !s.is_empty() && s.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
        };
        for scope in scopes.iter().filter(|scope| !is_scope(scope)) {
            report(key, format!("{scope:?} is not a valid scope"));
        }
    }
    errors
}

/// Parses a pattern. Literals are converted to the canonical form in which paths are matched.
fn parse(pattern: &str, encoded_slashes: EncodedSlashes) -> Result<Vec<PathSegment>, String> {
    let raw = pattern.strip_prefix('/').ok_or_else(|| format!("\"{pattern}\" does not start with \"/\""))?;
    let raw: Vec<&str> = raw.split('/').collect();
    let mut names = HashSet::new();
    let mut segments = Vec::with_capacity(raw.len());
    for (index, segment) in raw.iter().enumerate() {
        let inner = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        let Some(inner) = inner else {
            segments.push(PathSegment::Literal(literal(segment, index + 1 == raw.len(), encoded_slashes)?));
            continue;
        };
        let name = inner.strip_prefix('*').unwrap_or(inner);
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
            return Err(format!("\"{segment}\" must be {{name}} or {{*rest}}"));
        }
        if !names.insert(name) {
            return Err(format!("the name \"{name}\" occurs twice"));
        }
        match inner.starts_with('*') {
            true if index + 1 < raw.len() => return Err(format!("\"{segment}\" must be the last segment")),
            true => segments.push(PathSegment::Rest),
            false => segments.push(PathSegment::Any),
        }
    }
    Ok(segments)
}

/// A literal in the form in which paths are matched. Only the last may be empty: `/deals/` and `/deals` are
/// different paths.
fn literal(segment: &str, last: bool, encoded_slashes: EncodedSlashes) -> Result<String, String> {
    if segment.is_empty() {
        return if last { Ok(String::new()) } else { Err("it has an empty segment".to_owned()) };
    }
    if segment.contains(['{', '}']) {
        return Err(format!("\"{segment}\" is neither a literal nor {{name}} nor {{*rest}}"));
    }
    if segment.contains('*') || segment.starts_with(':') {
        let meant = match segment.strip_prefix(':') {
            Some(name) if !name.is_empty() && !name.contains('*') => {
                format!("write {{{name}}} for any one segment")
            }
            _ if segment == "*" || segment == "**" => {
                "write {*rest} for everything below, or {name} for any one segment".to_owned()
            }
            _ => "a wildcard cannot be part of a segment; write {name} for any one segment".to_owned(),
        };
        return Err(format!("\"{segment}\" is not a wildcard here: {meant}"));
    }
    // Followed by a slash unless it is the last segment, so that it is judged by the rules for its position.
    let path = if last { format!("/{segment}") } else { format!("/{segment}/") };
    match target::canonical(path.as_bytes()) {
        Ok(Canonical { has_encoded_slash: true, .. }) if encoded_slashes == EncodedSlashes::Reject => {
            Err(format!("\"{segment}\" can never match without encoded_slashes = \"keep\""))
        }
        Ok(Canonical { text: None, .. }) => Ok(segment.to_owned()),
        Ok(Canonical { text: Some(canonical), .. }) => Ok(canonical.trim_matches('/').to_owned()),
        Err(target::BadTarget) => {
            Err(format!("\"{segment}\" can never match: such request targets are rejected"))
        }
    }
}

#[cfg(test)]
mod tests;
