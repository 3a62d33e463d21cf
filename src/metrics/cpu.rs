//! `process_cpu_seconds_total` with fractions; the registry's own collector has whole seconds only.

use std::time::Duration;

use prometheus::Counter;
use prometheus::core::Collector as _;
use prometheus::proto::MetricFamily;
use rustix::time::{ClockId, clock_gettime};

/// The CPU time that this process has used, with its fraction.
#[derive(Debug, Clone)]
pub(super) struct Cpu(Counter);

impl Cpu {
    pub(super) const NAME: &str = "process_cpu_seconds_total";

    pub(super) fn new() -> Result<Self, prometheus::Error> {
        Counter::new(Self::NAME, "Total user and system CPU time spent in seconds.").map(Self)
    }

    pub(super) fn gather(&self) -> Vec<MetricFamily> {
        let used = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default();
        // Two scrapes at once may both be late, never early.
        self.0.inc_by((used.as_secs_f64() - self.0.get()).max(0.0));
        self.0.collect()
    }
}
