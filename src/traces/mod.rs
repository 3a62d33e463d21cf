//! OpenTelemetry traces: which requests are traced, what a trace says of them, and how spans reach the collector.
//!
//! Workers decide, and push one small record of each traced request into a bounded queue when it has ended; the control
//! plane's thread encodes and sends. Knows W3C Trace Context and OTLP over HTTP, and nothing of tokens: a record says less
//! than the request's log line.

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

/// The path of the traces below the endpoint of a collector (OTLP 1.x, OTLP/HTTP).
const PATH: &str = "/v1/traces";

/// Where traces go, and which requests are traced (`[telemetry]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where spans are posted.
    pub endpoint: CollectorUrl,
    /// Sent with every export. Marked as sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// PEM file with the roots for `https`; the system's when `None`.
    pub ca: Option<PathBuf>,
    /// The share of requests that are traced where no trusted proxy decides.
    pub ratio: SampleRatio,
    /// What the gate is called in traces; `None`: as the environment says.
    pub service_name: Option<String>,
    /// Whether spans carry the path of the request.
    pub with_paths: bool,
}

/// The URL that spans are posted to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectorUrl {
    /// As operators read it in the log.
    text: String,
    url: Url,
}

impl CollectorUrl {
    /// Parses the endpoint of a collector, with or without `/v1/traces` at its end.
    ///
    /// # Errors
    /// When it is no such URL, in a phrase that follows the name of the key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let base = text.strip_suffix(PATH).unwrap_or(text).trim_end_matches('/');
        // A collector beside the gate or in its cluster rarely has TLS, and spans hold no secret.
        let base_url = Url::parse(base, true)
            .map_err(|error| format!("{error}; write such as \"http://127.0.0.1:4318\""))?;
        let url = base_url.at(PATH).ok_or_else(|| "must not have a query".to_owned())?;
        Ok(Self { text: format!("{base}{PATH}"), url })
    }

    /// Whether what is sent there can be read on the way.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        self.url.is_exposed()
    }
}

/// A share of all requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleRatio {
    /// Of 2⁶³.
    threshold: u64,
}

impl SampleRatio {
    /// From a number between 0 and 1; what is outside counts as the nearer of the two.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number between 0 and 2⁶³")]
    pub fn new(ratio: f64) -> Self {
        Self { threshold: (ratio.clamp(0.0, 1.0) * (1_u64 << 63) as f64) as u64 }
    }

    /// Whether the request that drew this number is in it.
    const fn takes(self, random: u64) -> bool {
        random >> 1 < self.threshold
    }
}

/// Decides which requests are traced, and takes them when they have ended.
#[derive(Debug, Clone)]
pub struct Tracing {
    ratio: SampleRatio,
    with_paths: bool,
    queue: SpanQueue,
}

impl Tracing {
    /// Traces requests by these settings.
    #[must_use]
    pub const fn new(settings: &Settings, queue: SpanQueue) -> Self {
        Self { ratio: settings.ratio, with_paths: settings.with_paths, queue }
    }

    /// Decides about a request. Only a trusted proxy may decide in place of the gate: anybody else could have every request
    /// traced, at the cost of the collector, or none.
    #[must_use]
    pub fn begin(&self, headers: &HeaderMap, is_trusted: bool, ids: &TraceIds) -> RequestTrace {
        RequestTrace::begin(headers, is_trusted, self.ratio, ids)
    }

    /// Whether spans carry the path of the request.
    #[must_use]
    pub const fn has_paths(&self) -> bool {
        self.with_paths
    }

    /// Takes a traced request that has ended. Never waits.
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
