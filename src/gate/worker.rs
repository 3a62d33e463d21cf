//! One worker: what its connections share, and how it begins and ends.
//!
//! Everything here belongs to one thread. The configuration in force is looked at anew for every request.

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

use super::answer::{Dates, RequestIds};
use super::meters::Meters;
use super::patience::CONFIGURATION_LOOK;
use super::streams::Streams;
use super::{Live, WorkersShared, accept};
use crate::forward::Forwarder;
use crate::shutdown::Phase;
use crate::time::Timestamp;

/// What the connections of a worker share.
pub(super) struct Worker {
    pub(super) shared: WorkersShared,
    pub(super) request_ids: RequestIds,
    dates: Dates,
    pub(super) connections: IntGauge,
    pub(super) handshakes: Handshakes,
    pub(super) streams: Rc<Streams>,
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

/// What a configuration comes down to on this worker.
pub(super) struct Generation {
    pub(super) live: Arc<Live>,
    pub(super) forwarder: Forwarder,
    pub(super) meters: Meters,
}

impl Generation {
    fn new(live: Arc<Live>, shared: &WorkersShared, previous: Option<&Self>) -> Rc<Self> {
        let forwarder = Forwarder::new(
            live.upstreams.clone(),
            &live.identity,
            live.enforcer.bearer(),
            &shared.metrics,
            previous.map(|previous| &previous.forwarder),
        );
        let meters = Meters::new(&shared.metrics, live.enforcer.routes(), live.authority.as_deref());
        Rc::new(Self { live, forwarder, meters })
    }
}

impl Worker {
    fn new(shared: WorkersShared, open: mpsc::Sender<Infallible>) -> Rc<Self> {
        let newest = Cache::new(Arc::clone(&shared.live));
        let current = Generation::new(shared.live.load_full(), &shared, None);
        let handshakes = &shared.metrics.tls_handshakes;
        Rc::new(Self {
            request_ids: RequestIds::new(),
            dates: Dates::default(),
            connections: shared.metrics.connections.with_label_values(&["public"]),
            handshakes: Handshakes {
                ok: handshakes.with_label_values(&["ok"]),
                error: handshakes.with_label_values(&["error"]),
            },
            streams: Rc::new(Streams::new(Arc::clone(&shared.connections))),
            newest: RefCell::new(newest),
            current: RefCell::new(current),
            draining: Cell::new(false),
            drain: Notify::new(),
            open: RefCell::new(Some(open)),
            shared,
        })
    }

    /// The configuration in force. Connections to upstreams that have not changed are kept across generations.
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

    /// What a connection holds as long as it is open; `None` once connections are only ended.
    pub(super) fn open(&self) -> Option<mpsc::Sender<Infallible>> {
        self.open.borrow().clone()
    }

    /// Waits until connections are to be ended.
    pub(super) async fn drained(&self) {
        if !self.draining.get() {
            self.drain.notified().await;
        }
    }

    /// Judges what lasts, again and again. Never sleeps long, so that a shorter interval of another configuration takes
    /// effect at once.
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
    let (streams, mut ending) = (Rc::clone(&worker.streams), shutdown.clone());
    spawn_local(async move {
        ending.reached(Phase::EndingStreams).await;
        streams.end_lasting().await;
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
