//! What outlasts its decision: uploads, answers and tunnels whose token is judged again while they last.
//!
//! One list per worker, looked through every `check_interval`. A request that is over before the next look pays for an
//! entry in that list and nothing else.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::enforce::decide::{Enforcer, Pass, Permit};
use crate::enforce::denial::Reason;
use crate::metrics::Metrics;
use crate::time::Timestamp;

/// Live streams, as configured (`[streams]`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamSettings {
    /// Whether they end when their token is no longer in force.
    pub cut_on_revocation: bool,
    /// How often their tokens are judged again.
    pub check_interval: Duration,
}

/// The requests of a worker that were let through with a token and are not over.
#[derive(Default)]
pub(super) struct Streams {
    places: RefCell<Vec<Option<Rc<Stream>>>>,
    free: RefCell<Vec<usize>>,
}

/// One of them.
struct Stream {
    enforcer: Arc<Enforcer>,
    pass: Pass,
    /// Bytes keep its token alive.
    counts: bool,
    moved: Cell<bool>,
    cut: Cell<Option<Reason>>,
    waker: RefCell<Option<Waker>>,
}

/// A place in the list, given up when it is dropped.
pub(super) struct Watched {
    stream: Rc<Stream>,
    streams: Rc<Streams>,
    place: usize,
}

impl Streams {
    /// Keeps an eye on a request; there is nothing to see without a token.
    pub(super) fn watch(self: &Rc<Self>, enforcer: &Arc<Enforcer>, permit: &Permit) -> Option<Rc<Watched>> {
        let stream = Rc::new(Stream {
            enforcer: Arc::clone(enforcer),
            pass: permit.pass()?.clone(),
            counts: !permit.route().settings().anonymous,
            moved: Cell::new(false),
            cut: Cell::new(None),
            waker: RefCell::new(None),
        });
        let mut places = self.places.borrow_mut();
        let place = self.free.borrow_mut().pop().unwrap_or(places.len());
        match places.get_mut(place) {
            Some(free) => *free = Some(Rc::clone(&stream)),
            None => places.push(Some(Rc::clone(&stream))),
        }
        Some(Rc::new(Watched { stream, streams: Rc::clone(self), place }))
    }

    /// Judges every token again, and ends what may not go on.
    pub(super) fn judge(&self, settings: StreamSettings, metrics: &Metrics, now: Timestamp) {
        // Waking only queues a task, so nothing gives up its place meanwhile.
        for stream in self.places.borrow().iter().flatten() {
            let judged = stream.enforcer.judge_again(&stream.pass, stream.moved.take() && stream.counts, now);
            let Err(reason) = judged else { continue };
            if !settings.cut_on_revocation || stream.cut.replace(Some(reason)).is_some() {
                continue;
            }
            metrics.streams_cut.with_label_values(&[reason.as_str()]).inc();
            tracing::info!(reason = reason.as_str(), token_hash = %stream.pass.token.id, "a stream is cut");
            if let Some(waker) = stream.waker.take() {
                waker.wake();
            }
        }
    }
}

impl Watched {
    /// Bytes have flowed.
    pub(super) fn moved(&self) {
        self.stream.moved.set(true);
    }

    /// Ready when the stream must end.
    pub(super) fn poll_cut(&self, cx: &Context<'_>) -> Poll<Reason> {
        if let Some(reason) = self.stream.cut.get() {
            return Poll::Ready(reason);
        }
        let mut waker = self.stream.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Waits until the stream must end.
    pub(super) async fn cut(&self) -> Reason {
        poll_fn(|cx| self.poll_cut(cx)).await
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(place) = self.streams.places.borrow_mut().get_mut(self.place) {
            *place = None;
        }
        self.streams.free.borrow_mut().push(self.place);
    }
}
