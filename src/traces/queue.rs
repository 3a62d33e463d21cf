//! The bounded queue between the workers and the exporter. Workers never wait for it: what finds no room is counted.

use std::fmt;
use std::sync::Arc;

use prometheus::IntCounter;
use tokio::sync::{Notify, mpsc};

use super::record::FinishedRequest;

/// Requests that wait to be exported; more are dropped.
pub(super) const ROOM: usize = 2048;
/// Requests of one export. So many wake the exporter before its time.
pub(super) const BATCH: usize = 512;

/// Where workers put traced requests that have ended; cheap to clone.
#[derive(Clone)]
pub struct SpanQueue {
    sender: mpsc::Sender<Box<FinishedRequest>>,
    filled: Arc<Notify>,
    dropped: IntCounter,
}

/// The other end.
pub(super) struct QueueEnd {
    pub(super) receiver: mpsc::Receiver<Box<FinishedRequest>>,
    /// There is a whole batch.
    pub(super) filled: Arc<Notify>,
}

impl SpanQueue {
    /// A queue that counts the spans for which there is no room.
    pub(super) fn new(dropped: IntCounter) -> (Self, QueueEnd) {
        let (sender, receiver) = mpsc::channel(ROOM);
        let filled = Arc::new(Notify::new());
        (Self { sender, filled: Arc::clone(&filled), dropped }, QueueEnd { receiver, filled })
    }

    pub(super) fn push(&self, request: FinishedRequest) {
        let spans = request.spans_count();
        if self.sender.try_send(Box::new(request)).is_err() {
            self.dropped.inc_by(spans);
        }
        // The exporter sleeps meanwhile: waking it for each request would cost a system call each.
        if self.sender.capacity() <= ROOM - BATCH {
            self.filled.notify_one();
        }
    }
}

impl QueueEnd {
    /// The next batch; empty when nothing waits.
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
