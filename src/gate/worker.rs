//! One worker: the state shared by its connections, its startup and its shutdown.
//!
//! Everything here belongs to one thread. The configuration in force is read again for every request.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use http::HeaderValue;
use prometheus::{IntCounter, IntGauge};
use tokio::sync::{Notify, mpsc};
use tokio::task::spawn_local;
use tokio::time::Instant;

use super::answer::{Dates, GateRefusal, RequestIds};
use super::http2::StreamTasks;
use super::meters::Meters;
use super::patience::CONFIGURATION_LOOK;
use super::streams::Streams;
use super::{Live, WorkersShared, accept};
use crate::enforce::decide::Request;
use crate::enforce::policy::Route;
use crate::forward::{AtCapacity, Forwarder, RequestSlot, Upstream};
use crate::shutdown::Phase;
use crate::time::{Now, Timestamp};
use crate::traces::TraceIds;

/// The state shared by a worker's connections.
pub(super) struct Worker {
    pub(super) shared: WorkersShared,
    pub(super) request_ids: RequestIds,
    pub(super) trace_ids: TraceIds,
    dates: Dates,
    pub(super) connections: IntGauge,
    pub(super) handshakes: Handshakes,
    pub(super) streams: Streams,
    pub(super) stream_tasks: Rc<StreamTasks>,
    newest: RefCell<Cache<Arc<ArcSwap<Live>>, Arc<Live>>>,
    current: RefCell<Rc<Generation>>,
    draining: Cell<bool>,
    drain: Notify,
    open: RefCell<Option<mpsc::Sender<Infallible>>>,
}

/// The handles of `portcullis_tls_handshakes_total`.
pub(super) struct Handshakes {
    pub(super) ok: IntCounter,
    pub(super) error: IntCounter,
}

/// A configuration, prepared for this worker.
pub(super) struct Generation {
    pub(super) live: Arc<Live>,
    pub(super) forwarder: Forwarder,
    pub(super) meters: Meters,
    /// Whether any upstream has a limit on requests.
    has_limited_upstream: bool,
    /// Whether any route has CORS settings.
    pub(super) has_cors: bool,
}

impl Generation {
    fn new(live: Arc<Live>, shared: &WorkersShared, previous: Option<&Self>) -> Rc<Self> {
        let forwarder = Forwarder::new(
            live.upstreams.clone(),
            &live.identity,
            live.enforcer.bearer(),
            (&shared.metrics, shared.connections.upstream_places()),
            previous.map(|previous| &previous.forwarder),
        );
        let meters = Meters::new(
            &shared.metrics,
            live.enforcer.routes(),
            live.authority.as_deref(),
            live.intake.as_deref(),
        );
        let is_limited = |upstream: &Arc<Upstream>| upstream.settings().max_requests.is_some();
        let has_limited_upstream = live.upstreams.iter().any(is_limited);
        let has_cors = live.enforcer.routes().iter().any(|route| route.cors().is_some());
        Rc::new(Self { live, forwarder, meters, has_limited_upstream, has_cors })
    }

    /// The route of a request whose upstream is at its limit. Looks for a route only while any upstream is.
    pub(super) fn full_route(&self, request: &Request<'_>, now: Now) -> Option<Arc<Route>> {
        let upstreams = &self.live.upstreams;
        if !self.has_limited_upstream || !upstreams.iter().any(|upstream| upstream.is_full()) {
            return None;
        }
        let route = self.live.enforcer.route(request, now)?;
        upstreams.get(route.upstream()).filter(|upstream| upstream.is_full()).map(|_| route)
    }

    /// Counts a request of this route at its upstream.
    ///
    /// # Errors
    /// The refusal, when the upstream is at its limit.
    pub(super) fn begin_at_upstream(&self, route: &Route) -> Result<RequestSlot, GateRefusal> {
        let slot = self.live.upstreams.get(route.upstream()).map(|upstream| upstream.begin_request());
        slot.unwrap_or(Ok(RequestSlot::default())).map_err(|AtCapacity| GateRefusal::UPSTREAM_OVERLOADED)
    }
}

impl Worker {
    fn new(shared: WorkersShared, open: mpsc::Sender<Infallible>) -> Rc<Self> {
        let newest = Cache::new(Arc::clone(&shared.live));
        let current = Generation::new(shared.live.load_full(), &shared, None);
        let handshakes = &shared.metrics.tls_handshakes;
        Rc::new(Self {
            request_ids: RequestIds::new(),
            trace_ids: TraceIds::default(),
            dates: Dates::default(),
            connections: shared.metrics.connections.with_label_values(&["public"]),
            handshakes: Handshakes {
                ok: handshakes.with_label_values(&["ok"]),
                error: handshakes.with_label_values(&["error"]),
            },
            streams: Streams::new(Arc::clone(&shared.connections)),
            stream_tasks: Rc::default(),
            newest: RefCell::new(newest),
            current: RefCell::new(current),
            draining: Cell::new(false),
            drain: Notify::new(),
            open: RefCell::new(Some(open)),
            shared,
        })
    }

    /// The configuration in force. Connections to unchanged upstreams are kept across generations.
    pub(super) fn generation(&self) -> Rc<Generation> {
        let mut newest = self.newest.borrow_mut();
        let (live, mut current) = (newest.load(), self.current.borrow_mut());
        if !Arc::ptr_eq(live, &current.live) {
            *current = Generation::new(Arc::clone(live), &self.shared, Some(&current));
        }
        Rc::clone(&current)
    }

    /// The time for a `Date` field.
    pub(super) fn date(&self) -> HeaderValue {
        self.dates.at(Timestamp::coarse())
    }

    /// A guard that a connection holds while it is open; `None` once the worker only closes connections.
    pub(super) fn open(&self) -> Option<mpsc::Sender<Infallible>> {
        self.open.borrow().clone()
    }

    /// Waits until connections must close.
    pub(super) async fn drained(&self) {
        if !self.draining.get() {
            self.drain.notified().await;
        }
    }

    /// Judges lasting streams periodically. Never sleeps long, so that a shorter interval in a new
    /// configuration takes effect at once.
    async fn watch(self: Rc<Self>) {
        let mut looked = Instant::now();
        loop {
            let live = Arc::clone(&self.generation().live);
            let wait = live.streams.check_interval.saturating_sub(looked.elapsed());
            if wait.is_zero() {
                looked = Instant::now();
                self.streams.judge(&live, &self.shared.metrics).await;
            } else {
                tokio::time::sleep(wait.min(CONFIGURATION_LOOK)).await;
            }
        }
    }

    fn drain(&self) {
        self.draining.set(true);
        self.drain.notify_waiters();
    }
}

/// Serves until everything is drained, or until the time for it is over.
pub(super) async fn run(listeners: Vec<TcpListener>, shared: WorkersShared) -> std::io::Result<()> {
    let (open, mut all_closed) = mpsc::channel(1);
    let (mut shutdown, mut stop) = (shared.shutdown.clone(), shared.shutdown.clone());
    let worker = Worker::new(shared, open);
    spawn_local(Rc::clone(&worker).watch());
    let (ending_worker, mut ending) = (Rc::clone(&worker), shutdown.clone());
    spawn_local(async move {
        ending.reached(Phase::EndingStreams).await;
        ending_worker.streams.end_lasting().await;
    });
    let listening = worker.shared.connections.listening(listeners.len());
    let mut accepting = Vec::with_capacity(listeners.len());
    for listener in listeners {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        accepting.push(spawn_local(accept::run(Rc::clone(&worker), listener)));
    }
    shutdown.reached(Phase::Draining).await;
    worker.drain();
    for task in accepting {
        // An error would mean that the task panicked; its listener is closed all the same.
        drop(task.await);
    }
    drop(listening);
    drop(worker.open.borrow_mut().take());
    tokio::select! {
        _ = all_closed.recv() => {}
        () = stop.reached(Phase::Stopped) => {}
    }
    Ok(())
}
