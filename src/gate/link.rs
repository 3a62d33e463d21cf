//! What the task of an HTTP/1.1 connection, the socket that hyper owns and the request being served tell each other.
//!
//! All three live on one thread. hyper wants a socket that could be sent to another, because of upgrades, and so this
//! is made of atomics and a lock that is never contended.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use super::connections::Place;
use super::framing::Fault;
use super::io::Stream;

/// Most bytes of interim answers that wait for a client that does not read; what is above is left out.
const MAX_INTERIM: usize = 64 * 1024;

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// No byte of a request has come.
    Waiting,
    /// A head has begun.
    Head,
    /// A request is being served.
    Serving,
    /// Its answer was handed to hyper to the end, which may still have to write it.
    Answered,
    /// It is no HTTP any more.
    Tunnel,
}

/// How long each phase may last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For the head of a request, from its first byte or the end of the previous answer.
    pub(super) head: Duration,
    /// Without a request, for a client that does not read its answer, and for one that has ended its side and to
    /// which nothing flows: it may have gone away, or wait for a slow answer.
    pub(super) idle: Duration,
}

/// The reason why reading came to an end.
#[derive(Debug, Clone)]
pub(super) struct Broken {
    pub(super) fault: Fault,
    /// The method of the request at fault, as it was sent.
    pub(super) method: String,
    /// The fault is in a head, which has no answer yet, and not in the body of a request that is being served.
    pub(super) unanswered: bool,
}

#[derive(Debug)]
pub(super) struct Link {
    opened: Instant,
    phase: AtomicU8,
    /// When the phase began, in milliseconds after `opened`.
    since: AtomicU64,
    /// When the client stopped reading, likewise; `NEVER` when it did not.
    stalled: AtomicU64,
    /// When something last flowed to a client that has ended its side, likewise.
    ended: AtomicU64,
    cut: AtomicBool,
    interim_waits: AtomicBool,
    rare: Mutex<Rare>,
}

const NEVER: u64 = u64::MAX;

/// What most requests never touch.
#[derive(Debug, Default)]
struct Rare {
    broken: Option<Broken>,
    /// hyper's read, which waits for the end of an answer.
    reader: Option<Waker>,
    /// Interim answers to be written as soon as hyper has nothing unwritten.
    interim: Vec<u8>,
    /// The final answer, which waits for them.
    answer: Option<Waker>,
    returned: Option<Returned>,
}

/// The socket after hyper is done with it.
#[derive(Debug)]
pub(super) struct Returned {
    pub(super) stream: Stream,
    /// The client may still be sending, so that closing at once could take the answer away from it (RFC 9112 §9.6).
    pub(super) unread: bool,
    pub(super) _place: Place,
}

impl Link {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            opened: Instant::now(),
            phase: AtomicU8::new(Phase::Waiting as u8),
            since: AtomicU64::new(0),
            stalled: AtomicU64::new(NEVER),
            ended: AtomicU64::new(NEVER),
            cut: AtomicBool::new(false),
            interim_waits: AtomicBool::new(false),
            rare: Mutex::default(),
        })
    }

    fn rare(&self) -> MutexGuard<'_, Rare> {
        self.rare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(NEVER)
    }

    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Waiting,
            1 => Phase::Head,
            2 => Phase::Serving,
            3 => Phase::Answered,
            _ => Phase::Tunnel,
        }
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// A head has begun.
    pub(super) fn head_began(&self) {
        if self.phase() == Phase::Waiting {
            self.since.store(self.now(), Ordering::Relaxed);
            self.enter(Phase::Head);
        }
    }

    /// A request was handed out.
    pub(super) fn serving(&self) {
        self.enter(Phase::Serving);
    }

    /// Its answer was handed back to the end.
    pub(super) fn answered(&self) {
        if self.phase() == Phase::Serving {
            self.enter(Phase::Answered);
        }
    }

    /// The client's next bytes are not HTTP.
    pub(super) fn switched(&self) {
        self.enter(Phase::Tunnel);
    }

    /// hyper has nothing unwritten. Returns whether this was the end of an answer.
    pub(super) fn flushed(&self, in_head: bool) -> bool {
        if self.phase() != Phase::Answered {
            return false;
        }
        self.since.store(self.now(), Ordering::Relaxed);
        self.enter(if in_head { Phase::Head } else { Phase::Waiting });
        true
    }

    /// A write did, or did not, find room.
    pub(super) fn wrote(&self, room: bool) {
        let stalled = self.stalled.load(Ordering::Relaxed);
        if room && stalled != NEVER {
            self.stalled.store(NEVER, Ordering::Relaxed);
        } else if !room && stalled == NEVER {
            self.stalled.store(self.now(), Ordering::Relaxed);
        }
    }

    /// The client has ended its side.
    pub(super) fn client_ended(&self) {
        if self.ended.load(Ordering::Relaxed) == NEVER {
            self.ended.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Something was written to it.
    pub(super) fn flowed(&self) {
        if self.ended.load(Ordering::Relaxed) != NEVER {
            self.ended.store(self.now(), Ordering::Relaxed);
        }
    }

    /// The request being served must end, and the connection with it.
    pub(super) fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    /// When patience ends, as things stand; `None` as long as the client is not to blame for what takes time.
    pub(super) fn deadline(&self, patience: Patience) -> Option<Instant> {
        let (since, patience) = match self.phase() {
            Phase::Waiting => (self.since.load(Ordering::Relaxed), patience.idle),
            Phase::Head => (self.since.load(Ordering::Relaxed), patience.head),
            Phase::Serving | Phase::Answered => match self.stalled.load(Ordering::Relaxed) {
                NEVER => (self.ended.load(Ordering::Relaxed), patience.idle),
                // A client that does not read cannot be told.
                stalled if self.cut.load(Ordering::Relaxed) => (stalled, Duration::ZERO),
                stalled => (stalled, patience.idle),
            },
            Phase::Tunnel => return None,
        };
        if since == NEVER {
            None
        } else {
            self.opened.checked_add(Duration::from_millis(since))?.checked_add(patience)
        }
    }

    /// Remembers why reading came to an end.
    pub(super) fn broke(&self, broken: Broken) {
        self.rare().broken = Some(broken);
    }

    pub(super) fn broken(&self) -> Option<Broken> {
        self.rare().broken.clone()
    }

    /// Lets hyper's read wait until [`Link::wake_reader`].
    pub(super) fn park_reader(&self, cx: &Context<'_>) {
        self.rare().reader = Some(cx.waker().clone());
    }

    pub(super) fn wake_reader(&self) {
        if let Some(waker) = self.rare().reader.take() {
            waker.wake();
        }
    }

    /// Queues an interim answer. `100` is left out: hyper sends its own when the body is first asked for.
    pub(super) fn interim(&self, status: StatusCode, headers: &HeaderMap) {
        let mut rare = self.rare();
        let room = MAX_INTERIM.saturating_sub(rare.interim.len());
        let head = interim_head(status, headers);
        if status != StatusCode::CONTINUE && head.len() <= room {
            rare.interim.extend_from_slice(&head);
            self.interim_waits.store(true, Ordering::Relaxed);
        }
    }

    /// Writes what is queued through `write`. Only while hyper has nothing unwritten is this between two messages.
    pub(super) fn poll_interim(
        &self,
        mut write: impl FnMut(&[u8]) -> Poll<std::io::Result<usize>>,
    ) -> Poll<std::io::Result<()>> {
        if !self.interim_waits.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let mut rare = self.rare();
        while !rare.interim.is_empty() {
            match std::task::ready!(write(&rare.interim))? {
                0 => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                written => drop(rare.interim.drain(..written)),
            }
        }
        rare.interim = Vec::new();
        self.interim_waits.store(false, Ordering::Relaxed);
        if let Some(waker) = rare.answer.take() {
            waker.wake();
        }
        Poll::Ready(Ok(()))
    }

    /// Waits until every interim answer was written: the final one must not overtake them.
    pub(super) fn poll_interim_written(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.interim_waits.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        self.rare().answer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Hands the socket over to the task of the connection.
    pub(super) fn give_back(&self, returned: Returned) {
        self.rare().returned = Some(returned);
    }

    pub(super) fn take_back(&self) -> Option<Returned> {
        self.rare().returned.take()
    }
}

fn interim_head(status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    let mut head = Vec::with_capacity(128);
    head.extend_from_slice(b"HTTP/1.1 ");
    head.extend_from_slice(status.as_str().as_bytes());
    head.push(b' ');
    head.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    for (name, value) in headers {
        head.extend_from_slice(b"\r\n");
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
    }
    head.extend_from_slice(b"\r\n\r\n");
    head
}

#[cfg(test)]
mod tests;
