//! Shutdown phases: one task advances the phase, all others watch it.

use tokio::sync::watch;

/// The phase of the shutdown. Phases only move forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving requests.
    Running,
    /// No longer ready; still accepting, so that load balancers can notice.
    Leaving,
    /// Lasting streams are ended; still accepting.
    EndingStreams,
    /// No new connections; requests in flight may finish.
    Draining,
    /// Another process takes over: this one receives no more work, and has released everything that the other
    /// one needs. Requests in flight may still finish.
    HandedOver,
    /// The drain time is over: everything still open is dropped.
    Stopped,
}

/// Advances the phase.
#[derive(Debug)]
pub struct Trigger(watch::Sender<Phase>);

/// A view of the phase.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<Phase>);

/// Creates a trigger and the first view of its phase.
#[must_use]
pub fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(Phase::Running);
    (Trigger(sender), Shutdown(receiver))
}

impl Trigger {
    /// The current phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Advances to `phase`, unless it has already been reached.
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
    /// The current phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Waits until `phase` is reached; returns at once if the trigger was dropped.
    pub async fn reached(&mut self, phase: Phase) {
        // An error means that the trigger was dropped, and so that the process is ending.
        drop(self.0.wait_for(|current| *current >= phase).await);
    }
}
