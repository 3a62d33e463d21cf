//! One worker's handles to the request metrics, looked up once per configuration.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use prometheus::{Histogram, IntCounter, IntCounterVec};

use crate::authority::{Authority, AuthorityEndpoint};
use crate::enforce::decide::Proof;
use crate::enforce::denial::Reason;
use crate::enforce::policy::Route;
use crate::enforce::resource::WELL_KNOWN;
use crate::log::Decision;
use crate::metrics::Metrics;
use crate::metrics::clients::{ClientCounters, ClientPlace};
use crate::signals::intake::{EndpointKind, Intake};
use crate::time::Timestamp;

/// The label of a request that matched no route, and of a decision without a reason.
const NONE: &str = "none";

/// Maximum number of routes whose decision series start at 0; with more, a series starts with its first
/// event.
const MAX_ZEROED_ROUTES: usize = 100;

/// The methods with a label of their own: all that are registered with IANA.
const METHODS: [&str; 40] = [
    "GET",
    "POST",
    "PUT",
    "DELETE",
    "HEAD",
    "OPTIONS",
    "PATCH",
    "CONNECT",
    "TRACE",
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "COPY",
    "LABEL",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "ORDERPATCH",
    "PRI",
    "PROPFIND",
    "PROPPATCH",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
];

/// One worker's handles to the request metrics under one configuration, so that no label is looked up twice.
pub(super) struct Meters {
    pub(super) metrics: Metrics,
    routes: Vec<RouteMeters>,
    unrouted: RouteMeters,
    /// The gate's own endpoints.
    own: Vec<(OwnEndpoint, RouteMeters)>,
    proofs: [(Proof, Histogram); 3],
    clients: RefCell<ClientCounters>,
}

/// The endpoint that answers a request in place of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnEndpoint {
    /// The authority.
    Authority(AuthorityEndpoint),
    /// An endpoint for signals; `None` if no endpoint has that path.
    Signals(Option<EndpointKind>),
    /// The metadata of a protected resource.
    Resource,
}

/// The handles of one route.
pub(super) struct RouteMeters {
    pub(super) pattern: Arc<str>,
    duration: Histogram,
    /// By index in `METHODS` and status.
    requests: Handles<(usize, u16)>,
    decisions: Handles<(Decision, Option<Reason>)>,
}

/// Handles that are looked up once. Each list is short, so it is faster than a map.
struct Handles<K>(RefCell<Vec<(K, IntCounter)>>);

impl<K: PartialEq> Handles<K> {
    const fn new() -> Self {
        Self(RefCell::new(Vec::new()))
    }

    fn count(&self, key: K, look_up: impl FnOnce() -> IntCounter) {
        let mut handles = self.0.borrow_mut();
        match handles.iter().find(|(known, _)| *known == key) {
            Some((_, counter)) => counter.inc(),
            None => {
                let counter = look_up();
                counter.inc();
                handles.push((key, counter));
            }
        }
    }
}

impl RouteMeters {
    fn new(metrics: &Metrics, pattern: Arc<str>) -> Self {
        let duration = metrics.request_duration.with_label_values(&[&pattern]);
        Self { pattern, duration, requests: Handles::new(), decisions: Handles::new() }
    }

    pub(super) fn answered(&self, counters: &IntCounterVec, method: &str, status: u16, after: Duration) {
        let place = METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len());
        self.requests.count((place, status), || {
            let method = METHODS.get(place).copied().unwrap_or("other");
            counters.with_label_values(&[&self.pattern, method, itoa::Buffer::new().format(status)])
        });
        self.duration.observe(after.as_secs_f64());
    }
}

impl Meters {
    pub(super) fn new(
        metrics: &Metrics,
        routes: &[Arc<Route>],
        authority: Option<&Authority>,
        intake: Option<&Intake>,
    ) -> Self {
        let mut own = Vec::new();
        let settings = authority.map(|authority| authority.settings());
        for (endpoint, _, path) in settings.iter().flat_map(|settings| settings.paths()) {
            own.push((OwnEndpoint::Authority(endpoint), RouteMeters::new(metrics, path.into())));
        }
        for (kind, pattern) in intake.iter().flat_map(|intake| intake.patterns()) {
            own.push((OwnEndpoint::Signals(kind), RouteMeters::new(metrics, pattern.into())));
        }
        own.push((OwnEndpoint::Resource, RouteMeters::new(metrics, WELL_KNOWN.into())));
        let patterns: Vec<Arc<str>> = routes.iter().map(|route| Arc::clone(route.pattern())).collect();
        let proof = |proof: Proof| (proof, metrics.enforce_duration.with_label_values(&[proof.as_str()]));
        let meters = Self {
            metrics: metrics.clone(),
            routes: patterns.iter().map(|pattern| RouteMeters::new(metrics, Arc::clone(pattern))).collect(),
            unrouted: RouteMeters::new(metrics, NONE.into()),
            own,
            proofs: [proof(Proof::Cached), proof(Proof::Fresh), proof(Proof::None)],
            clients: RefCell::new(ClientCounters::new(metrics, patterns)),
        };
        meters.begin_decisions();
        meters
    }

    /// Starts decision series at 0, so that `increase()` sees their first event.
    fn begin_decisions(&self) {
        let routes = if self.routes.len() > MAX_ZEROED_ROUTES { &[] } else { &self.routes[..] };
        for route in std::iter::once(&self.unrouted).chain(routes) {
            let decisions = &self.metrics.decisions;
            decisions.with_label_values(&[Decision::Allow.as_str(), NONE, &route.pattern]);
            for reason in Reason::ALL {
                let unavailable = reason.wire().status == StatusCode::SERVICE_UNAVAILABLE;
                let decision = if unavailable { Decision::Unavailable } else { Decision::Deny };
                decisions.with_label_values(&[decision.as_str(), reason.as_str(), &route.pattern]);
            }
        }
    }

    /// Counts a connection that was refused because a limit was reached.
    pub(super) fn turned_away(&self) {
        self.decided(Decision::Unavailable, Some(Reason::Overloaded), None);
    }

    pub(super) fn decided(&self, decision: Decision, reason: Option<Reason>, route: Option<&Arc<Route>>) {
        let meters = self.route(route, None);
        meters.decisions.count((decision, reason), || {
            let reason = reason.map_or(NONE, Reason::as_str);
            self.metrics.decisions.with_label_values(&[decision.as_str(), reason, &meters.pattern])
        });
    }

    pub(super) fn enforced(&self, proof: Proof, took: Duration) {
        if let Some((_, histogram)) = self.proofs.iter().find(|(kind, _)| *kind == proof) {
            histogram.observe(took.as_secs_f64());
        }
    }

    /// Counts a forwarded request of a client.
    pub(super) fn forwarded(&self, client: &str, route: usize) -> ClientPlace {
        self.clients.borrow_mut().forwarded(client, route)
    }

    /// Counts the response to a forwarded request of a client.
    pub(super) fn used(&self, client: ClientPlace, route: usize, status: u16, now: Timestamp) {
        self.clients.borrow_mut().answered(client, route, status, now);
    }

    pub(super) fn route(&self, route: Option<&Arc<Route>>, endpoint: Option<OwnEndpoint>) -> &RouteMeters {
        let own = endpoint.and_then(|endpoint| self.own.iter().find(|(known, _)| *known == endpoint));
        let routed = || route.and_then(|route| self.routes.get(route.index()));
        own.map(|(_, meters)| meters).or_else(routed).unwrap_or(&self.unrouted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_registered_ones_and_unknown_ones_share_a_label() {
        let metrics = Metrics::new().unwrap();
        let meters = RouteMeters::new(&metrics, "/a".into());
        for (method, status) in [("GET", 200), ("GET", 200), ("PROPFIND", 207), ("BREW", 418), ("get", 418)] {
            meters.answered(&metrics.requests, method, status, Duration::from_millis(1));
        }
        let page = metrics.render().unwrap();
        for line in [
            r#"portcullis_requests_total{method="GET",route="/a",status="200"} 2"#,
            r#"portcullis_requests_total{method="PROPFIND",route="/a",status="207"} 1"#,
            r#"portcullis_requests_total{method="other",route="/a",status="418"} 2"#,
            r#"portcullis_request_duration_seconds_count{route="/a"} 5"#,
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
    }
}
