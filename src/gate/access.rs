//! What is counted and logged of a request: one record, written when it is dropped, however the request ended.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use http::{HeaderValue, Method, StatusCode, Uri, Version};
use prometheus::{Histogram, IntCounter, IntCounterVec};
use tokio::time::Instant;

use super::answer::Refusal;
use super::worker::{Generation, Worker};
use crate::authority::{Authority, Endpoint};
use crate::enforce::decide::{Claimed, Judgement, Proof};
use crate::enforce::denial::Reason;
use crate::enforce::policy::Route;
use crate::enforce::token::VerifiedToken;
use crate::forward::{BodyError, ErrorKind, ForwardError};
use crate::log::{AccessRecord, Decision};
use crate::metrics::Metrics;
use crate::metrics::clients::ClientCounters;
use crate::metrics::usage::UsageCounters;
use crate::time::Timestamp;

/// The label of a request that matched no route, and of a decision without a reason.
const NONE: &str = "none";
/// What is written of a request whose client went away before it was answered (nginx's word for it).
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// The methods that get a label of their own: all that are registered with IANA.
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

/// One worker's handles on the metrics of requests under one configuration, so that no label is looked up twice.
pub(super) struct Meters {
    metrics: Metrics,
    routes: Vec<RouteMeters>,
    unrouted: RouteMeters,
    /// Of the authority's paths.
    own: Vec<(Endpoint, RouteMeters)>,
    decisions: RefCell<HashMap<(Decision, Option<Reason>), IntCounter>>,
    proofs: [(Proof, Histogram); 3],
    clients: RefCell<ClientCounters>,
    usage: RefCell<UsageCounters>,
}

/// The handles of one route.
struct RouteMeters {
    pattern: Arc<str>,
    duration: Histogram,
    /// By place in `METHODS` and status.
    requests: RefCell<HashMap<(usize, u16), IntCounter>>,
}

impl RouteMeters {
    fn new(metrics: &Metrics, pattern: Arc<str>) -> Self {
        let duration = metrics.request_duration.with_label_values(&[&pattern]);
        Self { pattern, duration, requests: RefCell::default() }
    }

    fn answered(&self, counters: &IntCounterVec, method: &str, status: u16, after: Duration) {
        let place = METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len());
        let mut requests = self.requests.borrow_mut();
        let counter = requests.entry((place, status)).or_insert_with(|| {
            let method = METHODS.get(place).copied().unwrap_or("other");
            counters.with_label_values(&[&self.pattern, method, itoa::Buffer::new().format(status)])
        });
        counter.inc();
        self.duration.observe(after.as_secs_f64());
    }
}

impl Meters {
    pub(super) fn new(metrics: &Metrics, routes: &[Arc<Route>], authority: Option<&Authority>) -> Self {
        let own =
            |(endpoint, _, path): (Endpoint, _, &str)| (endpoint, RouteMeters::new(metrics, path.into()));
        let own = authority.map(|authority| authority.settings().paths().map(own).into());
        let patterns: Vec<Arc<str>> = routes.iter().map(|route| Arc::clone(route.pattern())).collect();
        let proof = |proof: Proof| (proof, metrics.enforce_duration.with_label_values(&[proof.as_str()]));
        Self {
            metrics: metrics.clone(),
            routes: patterns.iter().map(|pattern| RouteMeters::new(metrics, Arc::clone(pattern))).collect(),
            unrouted: RouteMeters::new(metrics, NONE.into()),
            own: own.unwrap_or_default(),
            decisions: RefCell::default(),
            proofs: [proof(Proof::Cached), proof(Proof::Fresh), proof(Proof::None)],
            usage: RefCell::new(UsageCounters::new(&metrics.usage, patterns.clone())),
            clients: RefCell::new(ClientCounters::new(metrics, patterns)),
        }
    }

    /// A connection was not taken, for lack of room.
    pub(super) fn turned_away(&self) {
        self.decided(Decision::Unavailable, Some(Reason::Overloaded));
    }

    fn decided(&self, decision: Decision, reason: Option<Reason>) {
        let mut decisions = self.decisions.borrow_mut();
        let counter = decisions.entry((decision, reason)).or_insert_with(|| {
            let reason = reason.map_or(NONE, Reason::as_str);
            self.metrics.decisions.with_label_values(&[decision.as_str(), reason])
        });
        counter.inc();
    }

    fn enforced(&self, proof: Proof, took: Duration) {
        if let Some((_, histogram)) = self.proofs.iter().find(|(kind, _)| *kind == proof) {
            histogram.observe(took.as_secs_f64());
        }
    }

    fn forwarded(&self, client: Option<&str>, route: usize) {
        if let Some(client) = client {
            self.clients.borrow_mut().count(client, route);
        }
    }

    fn route(&self, route: Option<&Arc<Route>>, endpoint: Option<Endpoint>) -> &RouteMeters {
        let own = endpoint.and_then(|endpoint| self.own.iter().find(|(known, _)| *known == endpoint));
        let routed = || route.and_then(|route| self.routes.get(route.index()));
        own.map(|(_, meters)| meters).or_else(routed).unwrap_or(&self.unrouted)
    }
}

/// What is to be said of a request.
pub(super) struct Record {
    worker: Rc<Worker>,
    pub(super) generation: Rc<Generation>,
    pub(super) request_id: HeaderValue,
    client: IpAddr,
    began: Instant,
    version: Version,
    method: Method,
    pub(super) uri: Option<Uri>,
    pub(super) status: Option<StatusCode>,
    route: Option<Arc<Route>>,
    /// What the authority was asked for.
    pub(super) endpoint: Option<Endpoint>,
    token: Option<Arc<VerifiedToken>>,
    claimed: Option<Claimed>,
    decision: Option<(Decision, Option<Reason>)>,
    forwarded: bool,
    failure: Option<&'static str>,
    cause: Option<String>,
    /// How long the head of the answer took, which is when the request was counted.
    answered_after: Option<Duration>,
}

impl Record {
    pub(super) fn new(
        worker: Rc<Worker>,
        request_id: HeaderValue,
        client: IpAddr,
        version: Version,
        method: Method,
    ) -> Self {
        let generation = worker.generation();
        Self {
            worker,
            generation,
            request_id,
            client,
            began: Instant::now(),
            version,
            method,
            uri: None,
            status: None,
            route: None,
            endpoint: None,
            token: None,
            claimed: None,
            decision: None,
            forwarded: false,
            failure: None,
            cause: None,
            answered_after: None,
        }
    }

    /// Takes note of what enforcement found, and of how long it took.
    pub(super) fn judged(&mut self, judgement: &Judgement, took: Duration) {
        self.route.clone_from(&judgement.route);
        self.token.clone_from(&judgement.token);
        self.claimed.clone_from(&judgement.claimed);
        self.generation.meters.enforced(judgement.proof, took);
    }

    /// Refused by the gate.
    pub(super) fn denied(&mut self, refusal: &Refusal) {
        let unavailable = refusal.status == StatusCode::SERVICE_UNAVAILABLE;
        self.decided(if unavailable { Decision::Unavailable } else { Decision::Deny }, refusal.reason);
    }

    /// Let through; with a reason why it would not have been, in shadow mode.
    pub(super) fn allowed(&mut self, shadow: Option<Reason>) {
        self.decided(if shadow.is_some() { Decision::ShadowDeny } else { Decision::Allow }, shadow);
        self.forwarded = true;
        if let Some(route) = &self.route {
            self.generation.meters.forwarded(self.known_client(), route.index());
        }
    }

    /// Answered by the authority: nothing was decided about the request that the gate counts as a decision.
    pub(super) fn answered_by_authority(&mut self, status: StatusCode) {
        let decision = match status {
            StatusCode::SERVICE_UNAVAILABLE => Decision::Unavailable,
            status if status.is_success() => Decision::Allow,
            _ => Decision::Deny,
        };
        self.decision = Some((decision, None));
        self.status = Some(status);
    }

    /// Where the request came from.
    pub(super) fn client(&self) -> IpAddr {
        self.client
    }

    /// Whom the token was issued to.
    fn known_client(&self) -> Option<&str> {
        self.token.as_ref().and_then(|token| token.client.as_deref())
    }

    fn decided(&mut self, decision: Decision, reason: Option<Reason>) {
        self.decision = Some((decision, reason));
        self.generation.meters.decided(decision, reason);
    }

    /// There is no answer from the upstream.
    pub(super) fn failed(&mut self, error: &ForwardError) {
        self.failure = error.kind().map(ErrorKind::as_str);
        self.cause = self.failure.map(|_| error.to_string());
    }

    /// The upstream's answer has begun and did not end as it should.
    pub(super) fn broke_off(&mut self, error: &BodyError) {
        self.failure = error.kind().map(ErrorKind::as_str);
        self.cause = self.failure.map(|_| error.to_string());
    }

    /// The head of the answer is there: the request is counted now, and logged when its answer has ended.
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
        self.count(status.as_u16());
    }

    fn count(&mut self, status: u16) {
        let (meters, duration) = (&self.generation.meters, self.began.elapsed());
        meters.route(self.route.as_ref(), self.endpoint).answered(
            &meters.metrics.requests,
            self.method.as_str(),
            status,
            duration,
        );
        if let (true, Some(route), Some(client)) = (self.forwarded, &self.route, self.known_client()) {
            meters.usage.borrow_mut().count(client, route.index(), status, Timestamp::now());
        }
        self.answered_after = Some(duration);
    }

    fn route_label(&self) -> Option<&str> {
        match self.endpoint {
            Some(_) => Some(&self.generation.meters.route(None, self.endpoint).pattern),
            None => self.route.as_ref().map(|route| route.pattern().as_ref()),
        }
    }

    fn write(&self, status: u16, duration: Duration) {
        let Some((decision, reason)) = self.decision else { return };
        let log = &self.worker.shared.log;
        if !log.wants(decision) {
            return;
        }
        let live = &self.generation.live;
        let issuer = self.token.as_ref().map(|token| token.issuer);
        let issuer = issuer.or(self.claimed.as_ref().map(|claimed| claimed.issuer));
        let issuer = issuer.and_then(|index| live.enforcer.issuer(index));
        let kid = self.claimed.as_ref().and_then(|claimed| claimed.kid.as_deref());
        let kid = kid.map(|kid| match issuer {
            Some(issuer) if issuer.keys.current().knows(kid) => kid.to_owned(),
            // Whoever wrote it may have written anything, a secret of theirs included.
            _ => unknown_kid(kid),
        });
        let upstream = self.route.as_ref().filter(|_| self.forwarded);
        let upstream = upstream.and_then(|route| live.upstreams.get(route.upstream()));
        log.write(&AccessRecord {
            request_id: self.request_id.to_str().unwrap_or_default(),
            method: self.method.as_str(),
            route: self.route_label(),
            path: self.uri.as_ref().map(Uri::path),
            status,
            decision,
            reason: reason.map(Reason::as_str),
            issuer: issuer.map(|issuer| issuer.rules.issuer.as_ref()),
            kid: kid.as_deref(),
            token: self.token.as_ref().map(|token| &token.id.0),
            subject: self.token.as_ref().and_then(|token| token.subject_hash.as_deref()),
            client: self.client,
            upstream: upstream.map(|upstream| upstream.settings().name.as_str()),
            failure: self.failure,
            cause: self.cause.as_deref(),
            protocol: self.version,
            duration,
        });
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let status = match self.status {
            Some(status) => status.as_u16(),
            None if std::thread::panicking() => {
                let request_id = self.request_id.to_str().unwrap_or_default();
                tracing::error!(request_id, "a request ended in a panic");
                StatusCode::INTERNAL_SERVER_ERROR.as_u16()
            }
            None => CLIENT_CLOSED_REQUEST,
        };
        if self.answered_after.is_none() {
            self.count(status);
        }
        self.write(status, self.answered_after.unwrap_or_default());
    }
}

/// A key that no issuer has, so that its requests can be told from others'.
fn unknown_kid(kid: &str) -> String {
    let hash = digest::digest(&digest::SHA256, kid.as_bytes());
    hash.as_ref().iter().take(6).fold("unknown:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
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

    #[test]
    fn an_unknown_key_is_not_repeated() {
        assert_eq!(unknown_kid("kid"), "unknown:5c77d7fd8f51");
    }
}
