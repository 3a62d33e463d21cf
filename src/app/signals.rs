//! Handles the signals of the process from its first moment: during start, reload and drain.

use std::future::Future;
use std::pin::Pin;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::RunError;

/// What ends the process: SIGTERM, SIGINT, and a future of the caller.
pub(super) struct StopSignals<F> {
    terminate: Signal,
    interrupt: Signal,
    /// `None` once it has completed.
    asked: Option<Pin<Box<F>>>,
}

impl<F: Future<Output = ()>> StopSignals<F> {
    pub(super) fn install(asked: F) -> Result<Self, RunError> {
        let terminate = handler(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: handler(SignalKind::interrupt())?, asked: Some(Box::pin(asked)) })
    }

    /// Waits for the next request to stop. One that arrived while nobody waited counts. Cancel-safe.
    pub(super) async fn requested(&mut self) {
        let Self { terminate, interrupt, asked } = self;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = async { if let Some(asked) = asked { asked.await } }, if asked.is_some() => self.asked = None,
        }
    }
}

/// SIGHUP, which requests a reload. If it arrives during startup, the reload follows after it.
pub(super) fn hangup() -> Result<Signal, RunError> {
    handler(SignalKind::hangup())
}

fn handler(kind: SignalKind) -> Result<Signal, RunError> {
    signal(kind).map_err(|error| RunError::System("cannot install a signal handler", error))
}
