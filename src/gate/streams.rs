//! Checks uploads, responses and tunnels again that outlast their decision.
//!
//! A stream is judged as its next request would be: with the same method, target, host, token and client
//! certificate, and the configuration and keys in force. Each worker has one list, processed every
//! `check_interval`. A request that ends before the next check costs only an entry in that list.

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

/// Settings for live streams (`[streams]`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamSettings {
    /// Whether they end when their token is no longer in force.
    pub cut_on_revocation: bool,
    /// How often their tokens are judged again.
    pub check_interval: Duration,
}

/// Number of whole decisions before yielding to other work: each may verify a signature.
const DECISIONS_BEFORE_YIELD: usize = 16;

/// A worker's requests that were let through and have not ended.
pub(super) struct Streams {
    counts: Arc<ConnectionCounts>,
    places: RefCell<Vec<Weak<WatchedStream>>>,
    free: RefCell<Vec<usize>>,
}

/// A watched request. It leaves its place in the list on drop.
pub(super) struct WatchedStream {
    place: usize,
    asked: RefCell<StreamQuestion>,
    connection: Rc<ClientConnection>,
    grounds: RefCell<Grounds>,
    /// Which bytes keep its token alive; `None` if the route does not need it.
    counts: Cell<Option<IdleCounts>>,
    /// Whether its route is in shadow mode.
    is_observed: Cell<bool>,
    /// Whether it was already logged that it would be cut.
    is_noted: Cell<bool>,
    /// Whether a question of its decision is being answered.
    is_asking: Cell<bool>,
    /// Counts it as a stream that may last indefinitely, if it is one.
    lasting: OnceCell<Streaming>,
    /// Whether it already lasted at the previous check of a draining worker.
    was_seen: Cell<bool>,
    /// Why it must end.
    ended: Cell<Option<Cut>>,
    waker: RefCell<Option<Waker>>,
    /// When it was last checked whether bytes count as another use.
    looked: Cell<Tick>,
}

/// The result of checking a stream.
enum StreamLook {
    Stands,
    Ended(Reason),
    /// Configuration or keys have changed, so a whole decision is needed.
    Changed,
}

impl Streams {
    pub(super) fn new(counts: Arc<ConnectionCounts>) -> Self {
        Self { counts, places: RefCell::default(), free: RefCell::default() }
    }

    /// Watches a request that was let through.
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

    /// Judges every stream again by the current state, and ends those that may not continue.
    pub(super) async fn judge(&self, live: &Arc<Live>, metrics: &Metrics) {
        let (now, mut changed) = (Now::read(), Vec::new());
        // Waking only queues a task, so no stream leaves its place in the meantime.
        for stream in self.places.borrow().iter().filter_map(Weak::upgrade) {
            match stream.look(live, now) {
                StreamLook::Stands => {}
                StreamLook::Ended(reason) => stream.end(reason, live.streams, metrics),
                StreamLook::Changed => changed.push(Rc::downgrade(&stream)),
            }
        }
        for (count, stream) in changed.into_iter().enumerate() {
            if count % DECISIONS_BEFORE_YIELD == DECISIONS_BEFORE_YIELD - 1 {
                yield_now().await;
            }
            // Does not wait for a fetch of keys: those in force are newer than those that verified the token.
            if let Some(stream) = stream.upgrade() {
                stream.decide(live, Asked::KEYS, metrics);
            }
        }
    }

    /// Periodically ends streams that would outlast the gate, until dropped.
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
    /// Checks what can be judged without a whole decision.
    fn look(&self, live: &Live, now: Now) -> StreamLook {
        if self.ended.get().is_some() {
            return StreamLook::Stands;
        }
        self.asked.borrow_mut().compact();
        let grounds = self.grounds.borrow();
        if !grounds.stand(&live.enforcer) {
            return StreamLook::Changed;
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

    /// Answers the question of a decision, and then decides.
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

    /// Ends the stream, if streams are cut and its route is enforced.
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

    /// Wakes the task that serves it with the reason; returns false if it was cut before.
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

    /// Records that bytes have flowed in this direction. If that is a use of the token, it counts from this
    /// moment, not from the next check.
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

    /// Marks it as a stream that may last indefinitely: a stream of events, or a tunnel.
    pub(super) fn mark_lasting(&self) {
        // Counted only once.
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
    pub(super) async fn draining(&self) {
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

/// Which bytes on a route keep the token alive; `None` on an anonymous route, which does not need it.
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
