//! Uploads, responses and tunnels that outlast their decision: checks them again while they last.
//!
//! A stream is checked as its next request would be: the same method, target, host, token and client certificate, with the
//! configuration and the keys in force. There is one list per worker, processed every `check_interval`. A request that
//! ends before the next check costs only an entry in that list.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::task::{spawn_local, yield_now};
use tokio::time::sleep;

use super::Live;
use super::accept::ClientConnection;
use super::connections::{ConnectionCounts, Streaming};
use super::cut::Cut;
use super::patience::{LAST_LOOKS, SAME_USE};
use crate::enforce::again::Grounds;
use crate::enforce::decide::{Ask, Asked, Permit, Verdict};
use crate::enforce::denial::Reason;
use crate::enforce::policy::{IdleCounts, Mode, Route};
use crate::forward::Flow;
use crate::metrics::Metrics;
use crate::replays::ProofUse;
use crate::time::{Now, Tick};

mod question;

pub(super) use question::StreamQuestion;

/// Live streams, as configured (`[streams]`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamSettings {
    /// Whether they end when their token is no longer in force.
    pub cut_on_revocation: bool,
    /// How often their tokens are judged again.
    pub check_interval: Duration,
}

/// Whole decisions between two breaks for other work: each may verify a signature.
const AT_ONCE: usize = 16;

/// The requests of a worker that were let through and are not over.
pub(super) struct Streams {
    counts: Arc<ConnectionCounts>,
    places: RefCell<Vec<Weak<WatchedStream>>>,
    free: RefCell<Vec<usize>>,
}

/// One of them. Its place in the list is given up when it is dropped.
pub(super) struct WatchedStream {
    place: usize,
    asked: RefCell<StreamQuestion>,
    connection: Rc<ClientConnection>,
    grounds: RefCell<Grounds>,
    /// Which bytes keep its token alive; `None` where the route does not need it.
    counts: Cell<Option<IdleCounts>>,
    /// Its route only notes what it would reject.
    is_observed: Cell<bool>,
    /// That it would be cut was noted.
    is_noted: Cell<bool>,
    /// The answer that a decision depends on is being found out.
    is_asking: Cell<bool>,
    /// Counts it as one that may last indefinitely, if it is.
    lasting: OnceCell<Streaming>,
    /// It lasted already when a worker that drains looked last.
    was_seen: Cell<bool>,
    /// Why it must end.
    ended: Cell<Option<Cut>>,
    waker: RefCell<Option<Waker>>,
    /// When it was last looked whether bytes count as another use.
    looked: Cell<Tick>,
}

/// What a look at a stream found.
enum StreamLook {
    Stands,
    Ended(Reason),
    /// Configuration or keys have changed.
    Anew,
}

impl Streams {
    pub(super) fn new(counts: Arc<ConnectionCounts>) -> Self {
        Self { counts, places: RefCell::default(), free: RefCell::default() }
    }

    /// Keeps an eye on a request that was let through.
    pub(super) fn watch(
        &self,
        live: &Live,
        permit: &Permit,
        question: StreamQuestion,
        connection: &Rc<ClientConnection>,
    ) -> Rc<WatchedStream> {
        let mut places = self.places.borrow_mut();
        let place = self.free.borrow_mut().pop().unwrap_or(places.len());
        let stream = Rc::new(WatchedStream {
            place,
            asked: RefCell::new(question),
            connection: Rc::clone(connection),
            grounds: RefCell::new(Grounds::new(&live.enforcer, permit)),
            counts: Cell::new(counts(permit.route())),
            is_observed: Cell::new(is_observed(permit.route())),
            is_noted: Cell::new(permit.shadow().is_some()),
            is_asking: Cell::new(false),
            lasting: OnceCell::new(),
            was_seen: Cell::new(false),
            ended: Cell::new(None),
            waker: RefCell::new(None),
            looked: Cell::new(Tick::read()),
        });
        match places.get_mut(place) {
            Some(free) => *free = Rc::downgrade(&stream),
            None => places.push(Rc::downgrade(&stream)),
        }
        stream
    }

    /// Judges every stream again by what is in force, and ends what may not go on.
    pub(super) async fn judge(&self, live: &Arc<Live>, metrics: &Metrics) {
        let (now, mut anew) = (Now::read(), Vec::new());
        // Waking only queues a task, so nothing gives up its place meanwhile.
        for stream in self.places.borrow().iter().filter_map(Weak::upgrade) {
            match stream.look(live, now) {
                StreamLook::Stands => {}
                StreamLook::Ended(reason) => stream.end(reason, live.streams, metrics),
                StreamLook::Anew => anew.push(Rc::downgrade(&stream)),
            }
        }
        for (count, stream) in anew.into_iter().enumerate() {
            if count % AT_ONCE == AT_ONCE - 1 {
                yield_now().await;
            }
            // No fetch of keys is waited for: those in force are newer than those that proved the token.
            if let Some(stream) = stream.upgrade() {
                stream.decide(live, Asked::KEYS, metrics);
            }
        }
    }

    /// Ends, again and again, what would last longer than the gate.
    pub(super) async fn end_lasting(&self) {
        loop {
            for stream in self.places.borrow().iter().filter_map(Weak::upgrade) {
                if stream.lasting.get().is_some() && stream.was_seen.replace(true) {
                    stream.cut(Cut::Leaving);
                }
            }
            sleep(LAST_LOOKS).await;
        }
    }
}

impl WatchedStream {
    /// What can be said without a whole decision.
    fn look(&self, live: &Live, now: Now) -> StreamLook {
        if self.ended.get().is_some() {
            return StreamLook::Stands;
        }
        self.asked.borrow_mut().compact();
        let grounds = self.grounds.borrow();
        if !grounds.stand(&live.enforcer) {
            return StreamLook::Anew;
        }
        let judged = self.connection.certificate(live, now.wall);
        match judged.and_then(|certificate| grounds.judge(certificate, now)) {
            Ok(()) => StreamLook::Stands,
            Err(reason) => StreamLook::Ended(reason),
        }
    }

    /// Decides on the request again, as if it came now.
    fn decide(self: &Rc<Self>, live: &Arc<Live>, asked: Asked, metrics: &Metrics) {
        let now = Now::read();
        // Its proof was used when it began, and cannot be used again.
        let was_proven = self.grounds.borrow().pass().is_some_and(|pass| pass.is_proven());
        let asked = if was_proven { asked.told_proof(ProofUse::First) } else { asked };
        let verdict = {
            let question = self.asked.borrow();
            match self.connection.certificate(live, now.wall) {
                Err(reason) => Verdict::Deny(reason.into()),
                Ok(certificate) => live.enforcer.decide(&question.request(certificate), asked, now).verdict,
            }
        };
        match verdict {
            Verdict::Allow(permit) => {
                self.grounds.replace(Grounds::new(&live.enforcer, &permit));
                self.counts.set(counts(permit.route()));
                self.is_observed.set(is_observed(permit.route()));
                if let Some(denial) = permit.shadow() {
                    self.end(denial.reason, live.streams, metrics);
                }
            }
            Verdict::Deny(denial) => {
                self.is_observed.set(false);
                self.end(denial.reason, live.streams, metrics);
            }
            Verdict::Ask(ask) => self.find_out(live, ask, asked, metrics),
        }
    }

    /// Finds out what a decision depends on, and then decides.
    fn find_out(self: &Rc<Self>, live: &Arc<Live>, ask: Ask, asked: Asked, metrics: &Metrics) {
        if self.is_asking.replace(true) {
            return;
        }
        let (stream, live, metrics) = (Rc::downgrade(self), Arc::clone(live), metrics.clone());
        drop(spawn_local(async move {
            let asked = live.enforcer.find_out(&ask, asked).await;
            if let Some(stream) = stream.upgrade() {
                stream.is_asking.set(false);
                stream.decide(&live, asked, &metrics);
            }
        }));
    }

    /// Ends it, where streams are cut and its route is enforced.
    fn end(&self, reason: Reason, settings: StreamSettings, metrics: &Metrics) {
        if !settings.cut_on_revocation {
            return;
        }
        let word = reason.as_str();
        let token_hash = self.grounds.borrow().pass().map(|pass| pass.token.id.to_string());
        if self.is_observed.get() {
            if !self.is_noted.replace(true) {
                tracing::info!(
                    reason = word,
                    token_hash,
                    "a stream would have been ended, but its route is in shadow mode"
                );
            }
            return;
        }
        if self.cut(Cut::Denied(reason)) {
            metrics.streams_cut.with_label_values(&[word]).inc();
            tracing::info!(reason = word, token_hash, "ending a stream: its token is no longer in force");
        }
    }

    /// Tells those who serve it, unless they were told before.
    fn cut(&self, why: Cut) -> bool {
        if self.ended.get().is_some() {
            return false;
        }
        self.ended.set(Some(why));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        true
    }

    /// Bytes have flowed in this direction. Where that is a use of the token, it is one from this moment on, and not from
    /// the next look.
    pub(super) fn moved(&self, flow: Flow) {
        let grounds = self.grounds.borrow();
        let counts = is_use(self.counts.get(), flow);
        let Some(pass) = grounds.pass().filter(|_| counts) else { return };
        let tick = Tick::read();
        if tick.since(self.looked.get()) < SAME_USE {
            return;
        }
        self.looked.set(tick);
        let now = Now::read();
        if pass.last_used().is_none_or(|last| now.monotonic.since(last) >= SAME_USE) {
            grounds.keep_alive(now);
        }
    }

    /// From now on it is a stream that may last indefinitely: one of events, or a tunnel.
    pub(super) fn lasts(&self) {
        // Once is enough.
        self.lasting.get_or_init(|| self.connection.worker.streams.counts.streaming());
    }

    /// Ready when the stream must end.
    pub(super) fn poll_cut(&self, cx: &Context<'_>) -> Poll<Cut> {
        if let Some(cut) = self.ended.get() {
            return Poll::Ready(cut);
        }
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Waits until the stream must end because its next request would be rejected.
    pub(super) async fn denied(&self) {
        self.until(|cut| cut != Cut::Leaving).await;
    }

    /// Waits until the stream must end because the gate is shutting down.
    pub(super) async fn left(&self) {
        self.until(|cut| cut == Cut::Leaving).await;
    }

    async fn until(&self, is_meant: impl Fn(Cut) -> bool) {
        poll_fn(|cx| match self.poll_cut(cx) {
            Poll::Ready(cut) if is_meant(cut) => Poll::Ready(()),
            Poll::Ready(_) | Poll::Pending => Poll::Pending,
        })
        .await;
    }
}

/// Which bytes on a route keep the token alive: an anonymous one does not need it.
fn counts(route: &Route) -> Option<IdleCounts> {
    (!route.settings().anonymous).then_some(route.settings().idle_counts)
}

/// Whether bytes in this direction are a use of the token.
fn is_use(counts: Option<IdleCounts>, flow: Flow) -> bool {
    match counts {
        Some(IdleCounts::Any) => true,
        Some(IdleCounts::Client) => flow == Flow::Up,
        Some(IdleCounts::Request) | None => false,
    }
}

fn is_observed(route: &Route) -> bool {
    route.settings().mode == Mode::Shadow
}

impl Drop for WatchedStream {
    fn drop(&mut self) {
        let Streams { places, free, .. } = &self.connection.worker.streams;
        if let Some(place) = places.borrow_mut().get_mut(self.place) {
            *place = Weak::new();
        }
        free.borrow_mut().push(self.place);
    }
}
