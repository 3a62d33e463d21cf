//! The exporter: takes what the workers have queued, sends it in batches, retries for a while, and counts what is lost.
//!
//! Runs on the control plane's thread. Nothing waits for it except the end of the process, and that not for long.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, sleep};

use super::collector::{Collector, ExportError};
use super::queue::{QueueEnd, SpanQueue};
use super::record::FinishedRequest;
use super::{Settings, Tracing};
use crate::metrics::Metrics;

/// How long a request waits to be exported together with others.
const INTERVAL: Duration = Duration::from_secs(2);
/// How often a batch is sent before it is dropped.
const ATTEMPTS: u32 = 5;
/// The pause after the first attempt; doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The pause between two warnings about an unavailable collector.
const WARNINGS: Duration = Duration::from_secs(60);

/// The traces of the process: the queue and the task that exports them.
pub struct Traces {
    queue: SpanQueue,
    orders: watch::Sender<Orders>,
    task: JoinHandle<()>,
}

/// Instructions for the exporter.
#[derive(Debug, Clone, Default)]
struct Orders {
    /// The collector; `None` if spans are not exported.
    collector: Option<Arc<Collector>>,
    /// Whether to send what is queued once more and then end.
    is_ending: bool,
}

impl Traces {
    /// Starts the exporter on this thread; it exports nothing until it has a collector.
    #[must_use]
    pub fn start(metrics: &Metrics) -> Self {
        let count = |result| metrics.spans.with_label_values(&[result]);
        let (queue, end) = SpanQueue::new(count("dropped"));
        let (orders, given) = watch::channel(Orders::default());
        let (exported, failed) = (count("exported"), count("failed"));
        let exporter = Exporter { end, orders: given, exported, failed, outage: Outage::default() };
        Self { queue, orders, task: spawn_local(exporter.run()) }
    }

    /// The tracing that workers use under these settings.
    #[must_use]
    pub fn tracing(&self, settings: &Settings) -> Tracing {
        Tracing::new(settings, self.queue.clone())
    }

    /// Sets the collector. Without one, queued spans are discarded.
    pub fn export_to(&self, collector: Option<Arc<Collector>>) {
        self.orders.send_modify(|orders| orders.collector = collector);
    }

    /// Sends what is queued and ends. Call this once the workers have ended.
    pub async fn end(&mut self) {
        self.orders.send_modify(|orders| orders.is_ending = true);
        // An error means that the task panicked, which has been logged.
        drop((&mut self.task).await);
    }
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traces").finish_non_exhaustive()
    }
}

struct Exporter {
    end: QueueEnd,
    orders: watch::Receiver<Orders>,
    exported: IntCounter,
    failed: IntCounter,
    outage: Outage,
}

impl Exporter {
    /// Exports until it is asked to end.
    async fn run(mut self) {
        loop {
            let is_watched = self.wait().await;
            loop {
                let batch = self.end.batch();
                if batch.is_empty() {
                    break;
                }
                self.deliver(&batch).await;
            }
            if !is_watched || self.orders.borrow().is_ending {
                return;
            }
        }
    }

    /// Waits until there is something to do. Returns false if there will be no more instructions.
    async fn wait(&mut self) -> bool {
        let exports = {
            let orders = self.orders.borrow_and_update();
            if orders.is_ending {
                return true;
            }
            orders.collector.is_some()
        };
        tokio::select! {
            ordered = self.orders.changed() => ordered.is_ok(),
            () = self.end.filled.notified(), if exports => true,
            () = sleep(INTERVAL), if exports => true,
        }
    }

    /// Sends a batch to the current collector, and retries if that may help.
    async fn deliver(&mut self, batch: &[FinishedRequest]) {
        let count: u64 = batch.iter().map(FinishedRequest::spans_count).sum();
        for attempt in 0..ATTEMPTS {
            let Orders { collector, is_ending } = self.orders.borrow_and_update().clone();
            // If tracing was turned off, the spans are discarded.
            let Some(collector) = collector else { break };
            let error = match collector.send(batch.iter().flat_map(FinishedRequest::spans).collect()).await {
                Ok(rejected) => {
                    let rejected = rejected.min(count);
                    self.exported.inc_by(count - rejected);
                    self.failed.inc_by(rejected);
                    return self.outage.end(&collector, rejected);
                }
                Err(error) => error,
            };
            let is_last = is_ending || !error.is_temporary || attempt + 1 == ATTEMPTS;
            self.outage.warn(&collector, &error, if is_last { count } else { 0 });
            if is_last {
                break;
            }
            let pause = error.retry_after.unwrap_or(FIRST_PAUSE * 2_u32.saturating_pow(attempt));
            tokio::select! {
                // The collector was replaced, or the process ends: continue at once.
                _ = self.orders.changed() => {}
                () = sleep(pause) => {}
            }
        }
        self.failed.inc_by(count);
    }
}

/// A time in which the collector accepts nothing: logs one warning when it begins, and then one per minute.
#[derive(Debug, Default)]
struct Outage {
    /// When the last warning was logged, even for an earlier outage.
    warned: Option<Instant>,
    /// Whether the end of the outage has not been logged yet.
    is_open: bool,
    lost: u64,
}

impl Outage {
    fn warn(&mut self, collector: &Collector, error: &ExportError, lost: u64) {
        self.lost += lost;
        if self.warned.is_none_or(|warned| warned.elapsed() >= WARNINGS) {
            (self.warned, self.is_open) = (Some(Instant::now()), true);
            tracing::warn!(%collector, %error, lost = self.lost, "spans cannot be exported");
        }
    }

    fn end(&mut self, collector: &Collector, rejected: u64) {
        if rejected > 0 {
            let error = ExportError::rejected(rejected);
            return self.warn(collector, &error, rejected);
        }
        if std::mem::take(&mut self.is_open) {
            tracing::info!(%collector, lost = std::mem::take(&mut self.lost), "spans are exported again");
        }
    }
}
