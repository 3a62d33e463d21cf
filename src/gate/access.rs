//! The record of a request for metrics and the log, written when it is dropped, however the request ended.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::USER_AGENT;
use http::{HeaderValue, Method, StatusCode, Version};
use tokio::time::Instant;

use super::answer::GateRefusal;
use super::http::Head;
use super::loggable::{unknown_kid, visible};
use super::meters::OwnEndpoint;
use super::worker::{Generation, Worker};
use crate::enforce::decide::{Claimed, Judgement, Verdict};
use crate::enforce::denial::Reason;
use crate::enforce::policy::Route;
use crate::enforce::token::VerifiedToken;
use crate::forward::{AtCapacity, BodyError, ErrorKind, ForwardError, RequestSlot};
use crate::log::{AccessRecord, Decision};
use crate::metrics::clients::ClientPlace;
use crate::shutdown::Phase;
use crate::time::Timestamp;

mod refused;
mod traced;

use traced::Traced;

/// The logged status of a request whose client left before it was answered (nginx's convention).
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Everything that is logged and measured about a request.
pub(super) struct Record {
    worker: Rc<Worker>,
    pub(super) generation: Rc<Generation>,
    pub(super) request_id: HeaderValue,
    client: IpAddr,
    /// When its head was complete.
    pub(super) began: Instant,
    version: Version,
    method: Method,
    /// `None` if the head cannot be read.
    pub(super) head: Option<Rc<Head>>,
    pub(super) status: Option<StatusCode>,
    route: Option<Arc<Route>>,
    /// The gate's own endpoint that answers it, if any.
    pub(super) endpoint: Option<OwnEndpoint>,
    token: Option<Arc<VerifiedToken>>,
    claimed: Option<Claimed>,
    decision: Option<(Decision, Option<Reason>)>,
    forwarded: bool,
    /// Where requests of its client are counted, once it was forwarded.
    counted_at: Option<ClientPlace>,
    failure: Option<&'static str>,
    cause: Option<String>,
    pub(super) host: Option<HeaderValue>,
    tls: Option<&'static str>,
    /// What a rejected token names as its issuer or audience, or the client of the token endpoint.
    named: Option<(&'static str, String)>,
    /// The client of a token whose issuer is unknown.
    claimed_client: Option<String>,
    /// Counts the bytes of the request body, if there is one.
    pub(super) received: Option<Rc<Cell<u64>>>,
    pub(super) sent: u64,
    /// Counts the bytes to the client in place of `sent`, once the protocol is switched.
    carried: Option<Rc<Cell<u64>>>,
    /// When it was decided, and so forwarded to the upstream.
    forwarded_at: Option<Instant>,
    judged_at: Timestamp,
    upstream_time: Option<Duration>,
    /// Time until the response head, at which the request was counted.
    answered_after: Option<Duration>,
    pub(super) ended_by: Option<&'static str>,
    /// Holds the request's place among those in flight.
    slot: RequestSlot,
    /// Its trace context, if the gate traces.
    traced: Option<Traced>,
}

impl Record {
    pub(super) fn new(
        worker: Rc<Worker>,
        request_id: HeaderValue,
        (client, tls): (IpAddr, Option<&'static str>),
        version: Version,
        method: Method,
    ) -> Self {
        let generation = worker.generation();
        Self {
            worker,
            generation,
            request_id,
            client,
            tls,
            host: None,
            named: None,
            claimed_client: None,
            received: None,
            sent: 0,
            carried: None,
            forwarded_at: None,
            judged_at: Timestamp::EPOCH,
            upstream_time: None,
            answered_after: None,
            ended_by: None,
            began: Instant::now(),
            version,
            method,
            head: None,
            status: None,
            route: None,
            endpoint: None,
            token: None,
            claimed: None,
            decision: None,
            forwarded: false,
            counted_at: None,
            failure: None,
            cause: None,
            slot: RequestSlot::default(),
            traced: None,
        }
    }

    /// Counts the request as in flight for as long as this record exists.
    ///
    /// # Errors
    /// The refusal, when the limit is reached.
    pub(super) fn admit(&mut self) -> Result<(), GateRefusal> {
        let limits = &self.generation.live.settings.limits;
        let slot = self.worker.shared.connections.begin_request(limits);
        self.slot = slot.map_err(|AtCapacity| GateRefusal::OVERLOADED)?;
        Ok(())
    }

    /// Records the route of a request that is denied before its token is judged.
    pub(super) fn routed(&mut self, route: Arc<Route>) {
        self.route = Some(route);
    }

    /// The route, once one matched.
    pub(super) fn route(&self) -> Option<&Arc<Route>> {
        self.route.as_ref()
    }

    /// Records that a preflight was allowed, which the gate answers itself.
    pub(super) fn answered_preflight(&mut self) {
        self.decided(Decision::Allow, None);
    }

    /// Records what enforcement found and how long it took; returns the verdict.
    pub(super) fn judged(&mut self, judgement: Judgement, began: Instant, now: Timestamp) -> Verdict {
        let Judgement { route, token, claimed, proof, verdict } = judgement;
        let ended = Instant::now();
        (self.judged_at, self.forwarded_at) = (now, Some(ended));
        (self.route, self.token, self.claimed) = (route, token, claimed);
        self.generation.meters.enforced(proof, ended.saturating_duration_since(began));
        verdict
    }

    /// Records that the gate denied the request.
    pub(super) fn denied(&mut self, refusal: &GateRefusal) {
        let unavailable = refusal.status == StatusCode::SERVICE_UNAVAILABLE;
        self.decided(if unavailable { Decision::Unavailable } else { Decision::Deny }, refusal.reason);
    }

    /// Records that the request was let through; in shadow mode with the reason why it would have been
    /// denied.
    pub(super) fn allowed(&mut self, shadow: Option<Reason>) {
        self.decided(if shadow.is_some() { Decision::ShadowDeny } else { Decision::Allow }, shadow);
        self.forwarded = true;
        if let Some(route) = &self.route {
            let meters = &self.generation.meters;
            self.counted_at = self.known_client().map(|client| meters.forwarded(client, route.index()));
        }
    }

    /// Records a response by the authority or the intake, whose status stands for the decision.
    pub(super) fn answered_here(&mut self, status: StatusCode) {
        let decision = match status {
            StatusCode::SERVICE_UNAVAILABLE => Decision::Unavailable,
            status if status.is_success() => Decision::Allow,
            _ => Decision::Deny,
        };
        self.decision = Some((decision, None));
        self.answered(status);
    }

    /// The client's address.
    pub(super) fn client(&self) -> IpAddr {
        self.client
    }

    /// The client to which the token was issued.
    fn known_client(&self) -> Option<&str> {
        self.token.as_ref().and_then(|token| token.client.as_deref())
    }

    fn decided(&mut self, decision: Decision, reason: Option<Reason>) {
        self.decision = Some((decision, reason));
        self.generation.meters.decided(decision, reason, self.route.as_ref());
    }

    /// Records the client that called the authority.
    pub(super) fn asked_by(&mut self, client: &str) {
        self.named = Some(("client", visible(client)));
    }

    /// Records the response head: counts the request. It is logged once its body has ended.
    pub(super) fn answered(&mut self, status: StatusCode) {
        let now = Instant::now();
        self.status = Some(status);
        let forwarded_at = self.forwarded_at.filter(|_| self.forwarded);
        self.upstream_time = forwarded_at.map(|at| now.saturating_duration_since(at));
        self.count(status.as_u16(), now);
    }

    fn count(&mut self, status: u16, now: Instant) {
        let meters = &self.generation.meters;
        let duration = now.saturating_duration_since(self.began);
        self.answered_after = Some(duration);
        meters.route(self.route.as_ref(), self.endpoint).answered(
            &meters.metrics.requests,
            self.method.as_str(),
            status,
            duration,
        );
        if let (Some(client), Some(route)) = (self.counted_at, &self.route) {
            meters.used(client, route.index(), status, self.judged_at);
        }
        self.keep_refusal(status, duration);
    }

    /// Keeps a request that was rejected, or would have been without shadow mode, for operators.
    fn keep_refusal(&self, status: u16, duration: Duration) {
        let Some((decision, reason)) = self.decision else { return };
        // A response of the gate's own endpoints is not a decision about a request to an upstream.
        if decision != Decision::Allow && self.endpoint.is_none() {
            let refusals = &self.worker.shared.refusals;
            self.describe((status, duration), (decision, reason), |record| {
                refusals.add(record, Timestamp::now());
            });
        }
    }

    /// Records that the upstream gave no response.
    pub(super) fn failed(&mut self, error: &ForwardError) {
        self.failure = error.kind().map(ErrorKind::as_str);
        self.cause = self.failure.map(|_| error.to_string());
    }

    /// Records that the upstream's response ended with an error.
    pub(super) fn body_failed(&mut self, error: &BodyError) {
        self.failure = error.kind().map(ErrorKind::as_str);
        self.cause = self.failure.map(|_| error.to_string());
        self.ended_by = Some(if self.failure.is_some() { "upstream" } else { "client" });
    }

    /// Records that the protocol is switched; returns the counters of bytes from and to the client.
    pub(super) fn switched(&mut self) -> (Rc<Cell<u64>>, Rc<Cell<u64>>) {
        let up = Rc::clone(self.received.get_or_insert_default());
        let down = Rc::clone(self.carried.get_or_insert_default());
        (up, down)
    }

    fn route_label(&self) -> Option<&str> {
        match self.endpoint {
            Some(_) => Some(&self.generation.meters.route(None, self.endpoint).pattern),
            None => self.route.as_ref().map(|route| route.pattern().as_ref()),
        }
    }

    fn named(&self, wanted: &str) -> Option<&str> {
        self.named.as_ref().filter(|(name, _)| *name == wanted).map(|(_, value)| value.as_str())
    }

    /// Records that the response ends early or never began, because the client left or the time to drain is
    /// over.
    pub(super) fn ended_early(&mut self) {
        let is_stopped = self.worker.shared.shutdown.phase() == Phase::Stopped;
        self.ended_by.get_or_insert(if is_stopped { "gate" } else { "client" });
    }

    /// The client to which the token claims to be issued.
    fn claimed_client(&self) -> Option<&str> {
        let claimed = self.claimed.as_ref().and_then(|claimed| claimed.client.as_deref());
        claimed.or(self.claimed_client.as_deref())
    }

    fn write(&self, status: u16, duration: Duration) {
        let Some((decision, reason)) = self.decision else { return };
        let is_quiet = self.route.as_ref().is_some_and(|route| !route.settings().access_log);
        if is_quiet && decision == Decision::Allow {
            return;
        }
        let log = &self.worker.shared.log;
        if log.wants(decision) {
            self.describe((status, duration), (decision, reason), |record| log.write(record));
        }
    }

    /// Calls `tell` with everything known about the request.
    fn describe(
        &self,
        (status, duration): (u16, Duration),
        (decision, reason): (Decision, Option<Reason>),
        tell: impl FnOnce(&AccessRecord<'_>),
    ) {
        let live = &self.generation.live;
        let issuer = self.token.as_ref().map(|token| token.issuer);
        let issuer = issuer.or(self.claimed.as_ref().map(|claimed| claimed.issuer));
        let issuer = issuer.and_then(|index| live.enforcer.issuer(index));
        let kid = self.claimed.as_ref().and_then(|claimed| claimed.kid.as_deref());
        let kid = kid.map(|kid| match issuer {
            Some(issuer) if issuer.keys.current().knows(kid) => kid.to_owned(),
            // The sender may have written anything, even a secret.
            _ => unknown_kid(kid),
        });
        let omitted = self.token.as_ref().filter(|_| decision == Decision::Allow);
        let user_agent = self.head.as_ref().and_then(|head| head.headers.get(USER_AGENT));
        let upstream = self.route.as_ref().filter(|_| self.forwarded);
        let upstream = upstream.and_then(|route| live.upstreams.get(route.upstream()));
        tell(&AccessRecord {
            request_id: self.request_id.to_str().unwrap_or_default(),
            trace_id: self.traced.as_ref().map(Traced::id),
            method: self.method.as_str(),
            route: self.route_label(),
            path: self.head.as_ref().map(|head| head.target.path()),
            status,
            decision,
            reason: reason.map(Reason::as_str),
            issuer: issuer.map(|issuer| issuer.rules.issuer.as_ref()),
            kid: kid.as_deref(),
            token: self.token.as_ref().map(|token| &token.id.0),
            subject: self.token.as_ref().and_then(|token| token.subject_hash.as_deref()),
            client: self.known_client().or_else(|| self.named("client")),
            claimed: self.named.as_ref().filter(|(name, _)| *name != "client").map(|(n, v)| (*n, v.as_str())),
            claimed_client: self.claimed_client().filter(|_| self.token.is_none()),
            client_address: self.client,
            host: self.host.as_ref().and_then(|host| host.to_str().ok()),
            omitted: omitted.and_then(|token| token.identity.omitted.as_deref()),
            user_agent: user_agent.and_then(|agent| agent.to_str().ok()),
            tls: self.tls,
            bytes_in: self.received.as_ref().map(|received| received.get()),
            bytes_out: self.carried.as_ref().map_or(self.sent, |carried| carried.get()),
            upstream_time: self.upstream_time,
            lasted: self.began.elapsed(),
            ended_by: self.ended_by,
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
                tracing::error!(request_id, "a request handler panicked");
                StatusCode::INTERNAL_SERVER_ERROR.as_u16()
            }
            None => {
                self.ended_early();
                CLIENT_CLOSED_REQUEST
            }
        };
        if self.answered_after.is_none() {
            self.count(status, Instant::now());
        }
        self.write(status, self.answered_after.unwrap_or_default());
        self.export(status);
    }
}
