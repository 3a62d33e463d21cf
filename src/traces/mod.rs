//! OpenTelemetry traces: which requests are traced, what a trace contains, and how spans reach the collector.
//!
//! Workers decide, and push one small record of each finished traced request into a bounded queue; the control
//! plane's thread encodes and sends them. Knows W3C Trace Context and OTLP over HTTP, but not tokens: a record
//! contains less than the request's log line.

use std::path::PathBuf;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::client::Url;

mod collector;
pub(crate) mod context;
mod export;
mod ids;
mod otlp;
mod queue;
mod record;

pub use collector::Collector;
pub use context::{RequestTrace, SentContext};
pub use export::Traces;
pub use ids::TraceIds;
pub use queue::SpanQueue;
pub use record::{FinishedCall, FinishedRequest};

/// The path for traces below the endpoint of a collector (OTLP 1.x, OTLP/HTTP).
const PATH: &str = "/v1/traces";

/// The settings of traces (`[telemetry]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The URL that spans are posted to.
    pub endpoint: CollectorUrl,
    /// Header fields for every export, marked as sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// PEM file with the CA certificates for `https`; `None` for those of the system.
    pub ca: Option<PathBuf>,
    /// The share of requests that are traced, unless a trusted proxy decides.
    pub ratio: SampleRatio,
    /// The name of the gate in traces; `None` to use the environment.
    pub service_name: Option<String>,
    /// Whether spans carry the path of the request.
    pub with_paths: bool,
}

/// The URL that spans are posted to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectorUrl {
    /// Its text in log lines.
    text: String,
    url: Url,
}

impl CollectorUrl {
    /// Parses the endpoint of a collector, with or without a trailing `/v1/traces`.
    ///
    /// # Errors
    /// When it is not a valid URL; the message follows the name of the key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let base = text.strip_suffix(PATH).unwrap_or(text).trim_end_matches('/');
        // A collector beside the gate or in its cluster rarely has TLS, and spans contain no secrets.
        let base_url = Url::parse(base, true)
            .map_err(|error| format!("{error}; write, for example, \"http://127.0.0.1:4318\""))?;
        let url = base_url.at(PATH).ok_or_else(|| "must not have a query".to_owned())?;
        Ok(Self { text: format!("{base}{PATH}"), url })
    }

    /// Whether data sent there can be read in transit.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        self.url.is_exposed()
    }
}

/// A share of all requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleRatio {
    /// The share, multiplied by 2⁶³.
    threshold: u64,
}

impl SampleRatio {
    /// Creates it from a number between 0 and 1; others are clamped.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number between 0 and 2⁶³")]
    pub fn new(ratio: f64) -> Self {
        Self { threshold: (ratio.clamp(0.0, 1.0) * (1_u64 << 63) as f64) as u64 }
    }

    /// Whether the request with this random number is sampled.
    const fn takes(self, random: u64) -> bool {
        random >> 1 < self.threshold
    }
}

/// Decides which requests are traced, and queues them when they have ended.
#[derive(Debug, Clone)]
pub struct Tracing {
    ratio: SampleRatio,
    with_paths: bool,
    queue: SpanQueue,
}

impl Tracing {
    /// Creates the tracing for these settings.
    #[must_use]
    pub const fn new(settings: &Settings, queue: SpanQueue) -> Self {
        Self { ratio: settings.ratio, with_paths: settings.with_paths, queue }
    }

    /// Decides about a request. Only a trusted proxy may decide in place of the gate: otherwise anybody could
    /// have all requests traced, at the cost of the collector, or none.
    #[must_use]
    pub fn begin(&self, headers: &HeaderMap, is_trusted: bool, ids: &TraceIds) -> RequestTrace {
        RequestTrace::begin(headers, is_trusted, self.ratio, ids)
    }

    /// Whether spans carry the path of the request.
    #[must_use]
    pub const fn has_paths(&self) -> bool {
        self.with_paths
    }

    /// Queues a traced request that has ended. Never waits.
    pub fn ended(&self, request: FinishedRequest) {
        self.queue.push(request);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_takes_its_share() {
        for (ratio, taken) in [(0.0, 0), (-1.0, 0), (1.0, 1000), (2.0, 1000), (0.25, 250), (0.001, 1)] {
            let (ratio, step) = (SampleRatio::new(ratio), u64::MAX / 1000);
            let numbers = (0..1000).map(|place| place * step + step / 2);
            assert_eq!(numbers.filter(|number| ratio.takes(*number)).count(), taken);
        }
        assert!(SampleRatio::new(1.0).takes(u64::MAX) && !SampleRatio::new(0.0).takes(0));
    }

    #[test]
    fn endpoints_are_read_with_and_without_the_path_of_traces() {
        for (text, expected) in [
            ("http://127.0.0.1:4318", Some("http://127.0.0.1:4318/v1/traces")),
            ("http://127.0.0.1:4318/", Some("http://127.0.0.1:4318/v1/traces")),
            ("http://collector.test:4318/v1/traces", Some("http://collector.test:4318/v1/traces")),
            ("https://api.test/otlp", Some("https://api.test/otlp/v1/traces")),
            ("https://api.test/otlp?x=1", None),
            ("https://user:password@api.test", None),
            ("grpc://api.test", None),
            ("127.0.0.1:4318", None),
        ] {
            let parsed = CollectorUrl::parse(text).ok();
            assert_eq!(parsed.as_ref().map(|url| url.text.as_str()), expected, "{text}");
        }
    }
}
