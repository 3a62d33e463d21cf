//! One worker's connections to one upstream, kept for further requests.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::dialer::Dialer;
use super::endpoint::{InFlight, UpstreamEndpoint};
use super::error::{Errors, ForwardError};
use super::http1::connection::Http1Connection;
use super::http2::Http2Pool;
use super::patience::{LONGEST_NAP, MAX_IDLE};
use super::upstream::Upstream;
use crate::metrics::Metrics;
use crate::time::Monotonic;

/// A worker's connections to an upstream.
pub(crate) struct UpstreamPool {
    pub(crate) upstream: Arc<Upstream>,
    /// In the order of its endpoints.
    endpoints: Vec<Rc<EndpointPool>>,
    /// Where the search for the next endpoint starts, so that equal ones share the load.
    next: Cell<usize>,
}

/// The endpoints that a request could not connect to, as a bit set.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tried(u64);

impl Tried {
    /// Maximum number of endpoints of an upstream: the bits of the set.
    pub(crate) const MOST: usize = 64;

    fn contains(self, place: usize) -> bool {
        self.0 >> place & 1 == 1
    }

    pub(crate) fn add(&mut self, endpoint: &EndpointPool) {
        self.0 |= 1 << endpoint.place;
    }
}

impl UpstreamPool {
    pub(crate) fn new(upstream: Arc<Upstream>, metrics: &Metrics, places: &Arc<Semaphore>) -> Rc<Self> {
        let errors = Rc::new(Errors::new(metrics, &upstream.settings().name));
        let pool = |place| {
            let (upstream, errors, places) = (Arc::clone(&upstream), Rc::clone(&errors), Arc::clone(places));
            Rc::new(EndpointPool::new(upstream, place, errors, places))
        };
        let endpoints = (0..upstream.endpoints().len().min(Tried::MOST)).map(pool).collect();
        Rc::new(Self { upstream, endpoints, next: Cell::new(0) })
    }

    /// Chooses an endpoint for a request: of those not tried yet, a reachable one with the fewest requests in
    /// flight.
    pub(crate) fn choose(&self, tried: Tried) -> Option<(&Rc<EndpointPool>, Option<InFlight>)> {
        if let [only] = self.endpoints.as_slice() {
            return (!tried.contains(0)).then_some((only, None));
        }
        let (now, count) = (Monotonic::now(), self.endpoints.len());
        let first = self.next.get();
        self.next.set((first + 1) % count.max(1));
        let in_turn = self.endpoints.iter().cycle().skip(first).take(count);
        let untried = in_turn.filter(|pool| !tried.contains(pool.place));
        let chosen = untried.min_by_key(|pool| {
            pool.endpoint().map(|endpoint| (endpoint.standing(now), endpoint.in_flight()))
        })?;
        if let Some(endpoint) = chosen.endpoint() {
            endpoint.note_attempt(now);
        }
        Some((chosen, Some(InFlight::begin(&self.upstream, chosen.place))))
    }

    pub(crate) fn errors(&self) -> Option<&Errors> {
        self.endpoints.first().map(|pool| &*pool.errors)
    }
}

/// A worker's connections to one endpoint of an upstream.
pub(crate) struct EndpointPool {
    pub(crate) upstream: Arc<Upstream>,
    /// Its index among the upstream's endpoints.
    place: usize,
    pub(crate) errors: Rc<Errors>,
    pub(crate) dialer: Dialer,
    /// Permits for connections that the process may still open to all upstreams.
    pub(crate) places: Arc<Semaphore>,
    /// The HTTP/2 connections, each shared by many requests.
    pub(crate) http2: Http2Pool,
    /// The idle HTTP/1.1 connections, the most recently used last.
    idle: RefCell<VecDeque<IdleConnection>>,
    /// Whether a task sweeps `idle`.
    is_swept: Cell<bool>,
}

struct IdleConnection {
    connection: Rc<RefCell<Http1Connection>>,
    since: Instant,
}

impl EndpointPool {
    fn new(upstream: Arc<Upstream>, place: usize, errors: Rc<Errors>, places: Arc<Semaphore>) -> Self {
        Self {
            upstream,
            place,
            errors,
            dialer: Dialer::default(),
            places,
            http2: Http2Pool::default(),
            idle: RefCell::default(),
            is_swept: Cell::new(false),
        }
    }

    /// The endpoint shared by all workers.
    pub(crate) fn endpoint(&self) -> Option<&UpstreamEndpoint> {
        self.upstream.endpoints().get(self.place)
    }

    /// Records that an endpoint of this upstream could not be connected to, while another one could or may
    /// be.
    pub(crate) fn was_unreachable(&self, error: &ForwardError) {
        self.errors.count(error);
        tracing::warn!(upstream = self.upstream.settings().name, %error, "an upstream address is unreachable and will be skipped for a few seconds");
    }

    /// Takes an open connection, the most recently used first. With `ask_kernel`, the kernel is asked whether it
    /// is open, for a request that could not be sent again.
    pub(crate) fn take(&self, ask_kernel: bool) -> Option<Rc<RefCell<Http1Connection>>> {
        let mut idle = self.idle.borrow_mut();
        while let Some(IdleConnection { connection, since }) = idle.pop_back() {
            if since.elapsed() >= self.upstream.settings().idle_timeout {
                // All others have been idle for longer.
                idle.clear();
                return None;
            }
            if connection.borrow_mut().poll_open(ask_kernel) {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for the next request.
    pub(crate) fn put(self: &Rc<Self>, connection: Rc<RefCell<Http1Connection>>) {
        connection.borrow_mut().prepare_for_pool();
        let mut idle = self.idle.borrow_mut();
        if idle.len() < MAX_IDLE {
            idle.push_back(IdleConnection { connection, since: Instant::now() });
        }
        if !self.is_swept.replace(true) {
            drop(tokio::task::spawn_local(sweep_periodically(
                Rc::downgrade(self),
                self.upstream.settings().idle_timeout,
            )));
        }
    }

    /// Closes connections that were idle too long or that the upstream has closed; returns the time until the
    /// next sweep.
    fn sweep(&self) -> Option<Duration> {
        let limit = self.upstream.settings().idle_timeout;
        let mut idle = self.idle.borrow_mut();
        idle.retain(|idle| idle.since.elapsed() < limit && idle.connection.borrow_mut().poll_open(false));
        let oldest = idle.front().map(|idle| limit.saturating_sub(idle.since.elapsed()));
        self.is_swept.set(oldest.is_some());
        oldest
    }
}

async fn sweep_periodically(pool: Weak<EndpointPool>, idle_timeout: Duration) {
    let mut nap = idle_timeout;
    loop {
        tokio::time::sleep(nap.min(LONGEST_NAP)).await;
        match pool.upgrade().and_then(|pool| pool.sweep()) {
            Some(next) => nap = next,
            None => return,
        }
    }
}
