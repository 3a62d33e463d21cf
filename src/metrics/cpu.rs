//! `process_cpu_seconds_total` with fractions; the registry's own collector has only whole seconds.

use std::time::Duration;

use prometheus::Counter;
use prometheus::core::Collector as _;
use prometheus::proto::MetricFamily;
use rustix::time::{ClockId, clock_gettime};

/// The CPU time used by this process, with its fraction.
#[derive(Debug, Clone)]
pub(super) struct Cpu(Counter);

impl Cpu {
    pub(super) const NAME: &str = "process_cpu_seconds_total";

    pub(super) fn new() -> Result<Self, prometheus::Error> {
        Counter::new(Self::NAME, "Total user and system CPU time spent in seconds.").map(Self)
    }

    pub(super) fn gather(&self) -> Vec<MetricFamily> {
        let used = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default();
        // Two concurrent scrapes may both be behind, but never ahead.
        self.0.inc_by((used.as_secs_f64() - self.0.get()).max(0.0));
        self.0.collect()
    }
}
