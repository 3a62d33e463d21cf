//! From host, method and path to the one route that counts: a tree of path segments.
//!
//! A route matches on host, method and path together; of those that match, the one with the most specific path counts
//! (literal before `{name}` before `{*rest}`, segment by segment from the left), then the one that names the host, then
//! the one that names the method. No request is matched by two routes of equal rank, because the tree refuses to hold
//! them.

use std::collections::HashSet;
use std::sync::Arc;

use http::Method;

use super::policy::{EncodedSlashes, Route, RouteSettings};
use super::target::{self, Canonical, Target};

/// A mistake in a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    /// The route's place in the configuration.
    pub route: usize,
    /// The other route, when two do not go together.
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

/// All routes, ready to be searched.
#[derive(Debug, Default)]
pub struct Router {
    routes: Vec<Arc<Route>>,
    root: Node,
}

/// One segment of a pattern.
#[derive(Debug, PartialEq, Eq)]
enum PathSegment {
    Literal(String),
    Any,
    Rest,
}

/// What may follow after the same segments.
#[derive(Debug, Default)]
struct Node {
    /// Sorted by name.
    literals: Vec<(Box<str>, Node)>,
    any: Option<Box<Node>>,
    /// Routes whose pattern ends here, the higher rank first.
    here: Vec<Arc<Route>>,
    /// Routes whose pattern goes on with `{*rest}`, the higher rank first.
    rest: Vec<Arc<Route>>,
}

impl Router {
    /// Builds the tree.
    ///
    /// # Errors
    /// Every mistake in every route: patterns that are none, and routes that could both match one request.
    pub fn new(settings: Vec<RouteSettings>) -> Result<Self, Vec<PolicyError>> {
        let mut router = Self::default();
        let mut errors = Vec::new();
        for (index, settings) in settings.into_iter().enumerate() {
            let mistakes = mistakes(index, &settings);
            let sound = mistakes.is_empty();
            errors.extend(mistakes);
            let route = Arc::new(Route::new(index, settings));
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

    /// The route of a request. `*` has no path, so it has no route.
    #[must_use]
    pub fn find(&self, host: Option<&str>, method: &Method, target: &Target) -> Option<&Arc<Route>> {
        let path = target.path().strip_prefix('/')?;
        self.root.find(path.split('/'), &WantedRoute { host: host.map(bare_host), method })
    }
}

impl Node {
    fn insert(&mut self, segments: &[PathSegment], route: Arc<Route>) -> Result<(), PolicyError> {
        let Some((segment, rest)) = segments.split_first() else {
            return add(&mut self.here, route);
        };
        match segment {
            PathSegment::Rest => add(&mut self.rest, route),
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

    /// Visits each node at most once: the tree has one way to each.
    fn find<'n>(
        &'n self,
        mut segments: std::str::Split<'_, char>,
        wanted: &WantedRoute<'_>,
    ) -> Option<&'n Arc<Route>> {
        let Some(segment) = segments.next() else {
            return wanted.pick(&self.here).or_else(|| wanted.pick(&self.rest));
        };
        let literal = || {
            let place = self.literals.binary_search_by(|(name, _)| name.as_ref().cmp(segment)).ok()?;
            self.literals.get(place)?.1.find(segments.clone(), wanted)
        };
        // An empty last segment, as in `/deals/`, is not something to name.
        let any = || self.any.as_ref().filter(|_| !segment.is_empty())?.find(segments.clone(), wanted);
        literal().or_else(any).or_else(|| wanted.pick(&self.rest))
    }
}

/// What a request asks of a route besides the path.
struct WantedRoute<'r> {
    host: Option<&'r str>,
    method: &'r Method,
}

impl WantedRoute<'_> {
    fn pick<'n>(&self, routes: &'n [Arc<Route>]) -> Option<&'n Arc<Route>> {
        routes.iter().find(|route| {
            let RouteSettings { hosts, methods, .. } = route.settings();
            let is_host =
                |host: &String| self.host.is_some_and(|asked| asked.eq_ignore_ascii_case(bare_host(host)));
            (methods.is_empty() || methods.contains(self.method))
                && (hosts.is_empty() || hosts.iter().any(is_host))
        })
    }
}

/// A host without port and final dot.
fn bare_host(host: &str) -> &str {
    let end = match host.rfind(']') {
        Some(bracket) => bracket + 1,
        None => host.find(':').unwrap_or(host.len()),
    };
    let name = host.get(..end).unwrap_or(host);
    name.strip_suffix('.').unwrap_or(name)
}

/// A named host counts more than a named method.
fn rank(route: &Route) -> (bool, bool) {
    (!route.settings().hosts.is_empty(), !route.settings().methods.is_empty())
}

fn add(routes: &mut Vec<Arc<Route>>, route: Arc<Route>) -> Result<(), PolicyError> {
    if let Some(other) = routes.iter().find(|other| rank(other) == rank(&route) && overlap(other, &route)) {
        let message = format!(
            "\"{}\" and \"{}\" (routes[{}]) match the same requests; give one of them other hosts or methods",
            route.pattern(),
            other.pattern(),
            other.index(),
        );
        return Err(PolicyError { route: route.index(), other: Some(other.index()), key: "path", message });
    }
    let place = routes.partition_point(|other| rank(other) >= rank(&route));
    routes.insert(place, route);
    Ok(())
}

/// Whether a request exists that both match, given that their paths do.
fn overlap(one: &Route, other: &Route) -> bool {
    let (one, other) = (one.settings(), other.settings());
    let hosts =
        |host: &String| other.hosts.iter().any(|o| bare_host(host).eq_ignore_ascii_case(bare_host(o)));
    (one.hosts.is_empty() || other.hosts.is_empty() || one.hosts.iter().any(hosts))
        && (one.methods.is_empty()
            || other.methods.is_empty()
            || one.methods.iter().any(|m| other.methods.contains(m)))
}

/// What is wrong with a route apart from its path.
fn mistakes(route: usize, settings: &RouteSettings) -> Vec<PolicyError> {
    let requirement = &settings.requirement;
    let mut errors = Vec::new();
    let mut report = |key, message: String| errors.push(PolicyError { route, other: None, key, message });
    if settings.anonymous && !requirement.is_empty() {
        report("anonymous", "a route without a token cannot require scopes or roles".to_owned());
    }
    for (key, scopes) in [("scopes", &requirement.scopes), ("any_scope", &requirement.any_scope)] {
        // RFC 6750 §3: what a challenge can name, and what a space-delimited claim can hold.
        let is_scope = |s: &str| {
            !s.is_empty() && s.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
        };
        for scope in scopes.iter().filter(|scope| !is_scope(scope)) {
            report(key, format!("{scope:?} is not a scope"));
        }
    }
    errors
}

/// Reads a pattern. Literals take the canonical form that paths are matched in.
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
            return Err(format!("\"{segment}\" is not {{name}} or {{*rest}}"));
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

/// A literal in the form that paths are matched in. Only the last may be empty: `/deals/` is another path than `/deals`.
fn literal(segment: &str, last: bool, encoded_slashes: EncodedSlashes) -> Result<String, String> {
    if segment.is_empty() {
        return if last { Ok(String::new()) } else { Err("a segment is empty".to_owned()) };
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
            _ => "a part of a segment cannot be left open; write {name} for any one segment".to_owned(),
        };
        return Err(format!("\"{segment}\" would match itself only: {meant}"));
    }
    // Followed by a slash, unless it is the last, so that it is judged by the rules of its place.
    let path = if last { format!("/{segment}") } else { format!("/{segment}/") };
    match target::canonical(&path) {
        Ok(Canonical { has_encoded_slash: true, .. }) if encoded_slashes == EncodedSlashes::Reject => {
            Err(format!("\"{segment}\" can never match without encoded_slashes = \"keep\""))
        }
        Ok(Canonical { text: None, .. }) => Ok(segment.to_owned()),
        Ok(Canonical { text: Some(canonical), .. }) => Ok(canonical.trim_matches('/').to_owned()),
        Err(target::BadTarget) => Err(format!("\"{segment}\" can never match: such a target is refused")),
    }
}

#[cfg(test)]
mod tests;
