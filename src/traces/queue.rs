//! The bounded queue between the workers and the exporter. Workers never wait for it: what does not fit
//! is dropped and counted.

use std::fmt;
use std::sync::Arc;

use prometheus::IntCounter;
use tokio::sync::{Notify, mpsc};

use super::record::FinishedRequest;

/// The most requests that wait to be exported; further ones are dropped.
pub(super) const CAPACITY: usize = 2048;
/// The number of requests in one export. When that many wait, the exporter wakes early.
pub(super) const BATCH: usize = 512;

/// The sending side, for workers; cheap to clone.
#[derive(Clone)]
pub struct SpanQueue {
    sender: mpsc::Sender<Box<FinishedRequest>>,
    filled: Arc<Notify>,
    dropped: IntCounter,
}

/// The receiving side.
pub(super) struct QueueEnd {
    pub(super) receiver: mpsc::Receiver<Box<FinishedRequest>>,
    /// Notified when a whole batch is waiting.
    pub(super) filled: Arc<Notify>,
}

impl SpanQueue {
    /// Creates a queue that counts the dropped spans.
    pub(super) fn new(dropped: IntCounter) -> (Self, QueueEnd) {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        let filled = Arc::new(Notify::new());
        (Self { sender, filled: Arc::clone(&filled), dropped }, QueueEnd { receiver, filled })
    }

    pub(super) fn push(&self, request: FinishedRequest) {
        let spans = request.spans_count();
        if self.sender.try_send(Box::new(request)).is_err() {
            self.dropped.inc_by(spans);
        }
        // The exporter sleeps until then: waking it for each request would cost a system call each.
        if self.sender.capacity() <= CAPACITY - BATCH {
            self.filled.notify_one();
        }
    }
}

impl QueueEnd {
    /// Takes the next batch; empty if nothing waits.
    pub(super) fn batch(&mut self) -> Vec<FinishedRequest> {
        let mut batch = Vec::new();
        while batch.len() < BATCH
            && let Ok(request) = self.receiver.try_recv()
        {
            batch.push(*request);
        }
        batch
    }
}

impl fmt::Debug for SpanQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpanQueue").finish_non_exhaustive()
    }
}
