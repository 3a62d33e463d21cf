//! Shutdown phases: one task advances the phase, all others watch it.

use tokio::sync::watch;

/// How far the shutdown has come. Phases only move forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    Running,
    /// No longer ready; still accepting, so that load balancers can notice.
    Leaving,
    /// Streams that would last are ended; still accepting.
    EndingStreams,
    /// No new connections; requests in flight finish.
    Draining,
    /// Another process takes over: this one receives no more work, and it keeps nothing that the other one needs.
    /// Requests in flight still finish.
    HandedOver,
    /// The drain time is over: what is still open is dropped.
    Stopped,
}

/// The hand that moves the phase.
#[derive(Debug)]
pub struct Trigger(watch::Sender<Phase>);

/// A view of the phase.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<Phase>);

/// A trigger and a first view of it.
#[must_use]
pub fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(Phase::Running);
    (Trigger(sender), Shutdown(receiver))
}

impl Trigger {
    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Moves to `phase` unless it was passed already.
    pub fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|current| {
            let forward = phase > *current;
            if forward {
                *current = phase;
            }
            forward
        });
    }
}

impl Shutdown {
    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Waits until `phase` is reached; at once when the trigger is gone.
    pub async fn reached(&mut self, phase: Phase) {
        // An error means that the trigger was dropped, which is the end in any case.
        drop(self.0.wait_for(|current| *current >= phase).await);
    }
}
