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

use super::link::Link;
use crate::enforce::decide::{Enforcer, Pass, Permit};
use crate::enforce::denial::Reason;
use crate::enforce::policy::Mode;
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

/// How much older than the last byte a last use may be: bytes in quick succession are one use.
const MOMENT: Duration = Duration::from_millis(250);

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
    /// Its route only notes what it would refuse.
    observed: bool,
    /// Why its token is no longer in force.
    ended: Cell<Option<Reason>>,
    waker: RefCell<Option<Waker>>,
    /// The connection, which hyper does not let an answer end while its client does not read. HTTP/2 has none.
    link: Option<Arc<Link>>,
}

/// A place in the list, given up when it is dropped.
pub(super) struct Watched {
    stream: Rc<Stream>,
    streams: Rc<Streams>,
    place: usize,
}

impl Streams {
    /// Keeps an eye on a request; there is nothing to see without a token.
    pub(super) fn watch(
        self: &Rc<Self>,
        enforcer: &Arc<Enforcer>,
        permit: &Permit,
        link: Option<&Arc<Link>>,
    ) -> Option<Rc<Watched>> {
        let route = permit.route().settings();
        let stream = Rc::new(Stream {
            enforcer: Arc::clone(enforcer),
            pass: permit.pass()?.clone(),
            counts: !route.anonymous,
            observed: route.mode == Mode::Shadow,
            ended: Cell::new(None),
            waker: RefCell::new(None),
            link: link.map(Arc::clone),
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
            let Err(reason) = stream.enforcer.judge_again(&stream.pass, now) else { continue };
            if !settings.cut_on_revocation || stream.ended.replace(Some(reason)).is_some() {
                continue;
            }
            let (word, token_hash) = (reason.as_str(), &stream.pass.token.id);
            if stream.observed {
                tracing::info!(reason = word, %token_hash, "a stream would be cut, were its route enforced");
                continue;
            }
            metrics.streams_cut.with_label_values(&[word]).inc();
            tracing::info!(reason = word, %token_hash, "a stream is cut");
            if let Some(link) = &stream.link {
                link.cut();
            }
            if let Some(waker) = stream.waker.take() {
                waker.wake();
            }
        }
    }
}

impl Watched {
    /// Bytes have flowed, which is a use of the token from this moment on, and not from the next look.
    pub(super) fn moved(&self) {
        let Stream { enforcer, pass, counts, .. } = &*self.stream;
        let now = Timestamp::now();
        if *counts && now.since(pass.session.last_used_at()) >= MOMENT {
            enforcer.keep_alive(pass, now);
        }
    }

    /// Ready when the stream must end.
    pub(super) fn poll_cut(&self, cx: &Context<'_>) -> Poll<Reason> {
        if let Some(reason) = self.stream.ended.get().filter(|_| !self.stream.observed) {
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
