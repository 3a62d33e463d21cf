//! The shutdown sequence of a gate, and its handover to the next process.

use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::handover::{HandoverNames, Offer, Successor};
use super::signals::StopSignals;
use super::{App, RunError, successor};
use crate::shutdown::Phase;

/// How long workers may take to end what remains.
const END_TIMEOUT: Duration = Duration::from_secs(1);
/// How long requests may still begin on connections that are being closed: as long as the HTTP/2 GOAWAY grace
/// period, and a little longer.
const LAST_REQUESTS: Duration = Duration::from_millis(1200);
/// The polling interval for things that do not notify when they end.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Why a gate continues with the next step of its shutdown.
enum NextStep {
    /// The step is complete.
    Done,
    /// Another process takes over.
    Handover(Successor),
    /// It was asked to stop a second time.
    Hurry,
}

impl App {
    /// Shuts down: not ready → `shutdown_delay` → streams end within `stream_drain_timeout` → no new
    /// connections → requests in flight finish within `drain_timeout`. As soon as another process takes over,
    /// no new connections are accepted.
    pub(super) async fn leave<F: Future<Output = ()>>(
        mut self,
        mut stop: StopSignals<F>,
    ) -> Result<(), RunError> {
        let settings = self.wiring.loaded().settings.gate.clone();
        let mut offer = Offer::new(&HandoverNames::of(&self.wiring.loaded().settings));
        // From now on a request for a reload fails immediately.
        self.commands.close();
        while self.commands.try_recv().is_ok() {}
        info!("shutting down: no longer ready");
        self.trigger.advance(Phase::Leaving);
        let accepting = async {
            sleep(settings.shutdown_delay).await;
            let patience = settings.stream_drain_timeout.min(settings.drain_timeout);
            drop(timeout(patience, self.streams_ended()).await);
            self.trigger.advance(Phase::EndingStreams);
            drop(timeout(END_TIMEOUT, self.streams_ended()).await);
        };
        let began = Instant::now();
        let mut next = tokio::select! {
            () = accepting => NextStep::Done,
            successor = offer.accepted() => NextStep::Handover(successor),
            () = stop.requested() => NextStep::Hurry,
        };
        let delay = settings.shutdown_delay.min(began.elapsed());
        let deadline = began.checked_add(delay).and_then(|end| end.checked_add(settings.drain_timeout));
        let drained = loop {
            match next {
                NextStep::Hurry => break false,
                NextStep::Done if self.trigger.phase() >= Phase::Draining => break true,
                NextStep::Done => {
                    info!("draining: no longer accepting connections");
                    self.trigger.advance(Phase::Draining);
                }
                NextStep::Handover(successor) => {
                    // Only once: later processes find the next gate.
                    offer = Offer::none();
                    self.hand_over(successor).await;
                }
            }
            next = tokio::select! {
                () = self.workers.ended() => NextStep::Done,
                () = until(deadline) => NextStep::Hurry,
                () = stop.requested() => NextStep::Hurry,
                successor = offer.accepted() => NextStep::Handover(successor),
            };
        };
        self.end(drained).await;
        Ok(())
    }

    /// Hands addresses and state files over to the next gate. Streams end; requests in flight continue and are
    /// checked against what the next gate stores.
    async fn hand_over(&mut self, mut successor: Successor) {
        info!("draining: another process is taking over");
        self.trigger.advance(Phase::Draining);
        drop(timeout(END_TIMEOUT, self.until(|app| app.wiring.connections().listeners() == 0)).await);
        self.trigger.advance(Phase::HandedOver);
        self.wiring.operators_left().await;
        successor.may_listen().await;
        // Nothing acknowledged may be lost: requests on their way are also uses of their tokens.
        drop(timeout(LAST_REQUESTS, self.workers.ended()).await);
        drop(timeout(END_TIMEOUT, self.wiring.streams_left()).await);
        self.state.release(self.wiring.metrics()).await;
        if let Some(authority) = &self.wiring.lasting().authority {
            authority.close().await;
        }
        info!("released the state store");
        drop(spawn_local(successor::follow(self.state.clone(), self.wiring.settings())));
    }

    async fn end(&mut self, drained: bool) {
        if !drained {
            warn!("drain_timeout passed with requests in flight; ending them");
        }
        self.trigger.advance(Phase::Stopped);
        // Workers check the phase between two polls; one that hangs must not keep the process alive.
        if timeout(END_TIMEOUT, self.workers.ended()).await.is_err() {
            warn!("a worker did not stop; exiting without it");
        }
        // Answer pending requests of operators, and end pages that update themselves.
        drop(timeout(END_TIMEOUT, self.wiring.operators_left()).await);
        // Another gate can then maintain the transmitters' streams at once.
        drop(timeout(END_TIMEOUT, self.wiring.streams_left()).await);
        self.state.save_last(self.wiring.metrics()).await;
        if timeout(END_TIMEOUT, self.wiring.traces_left()).await.is_err() {
            warn!("the collector did not accept the last spans in time; they are lost");
        }
        info!("stopped");
    }

    async fn streams_ended(&self) {
        self.until(|app| app.wiring.connections().streams() == 0).await;
    }

    async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        while !is_so(self) {
            sleep(POLL_INTERVAL).await;
        }
    }
}

/// Waits until a moment, which may be too far away to be represented.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
