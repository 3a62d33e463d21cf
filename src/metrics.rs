//! Every instrument on one page. Rooms record on them; only the telemetry listener reads them.
//!
//! Label values come from closed sets or from the configuration, never from a request. [`clients`] is the
//! only exception: it turns clients named in tokens into labels, at most a thousand of them.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use prometheus::{
    Encoder, Gauge, GaugeVec, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    TextEncoder,
};

pub mod clients;
mod cpu;
mod issuers;
mod page;
mod reading;
pub mod usage;

use clients::ClientLabels;
use cpu::Cpu;
use page::MetricsPage;
pub use reading::Traffic;

use crate::time::Timestamp;

/// All instruments of one process.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    /// Requests answered, by `route`, `method`, `status`.
    pub requests: IntCounterVec,
    /// Decisions, by `decision` (allow, deny, unavailable, shadow_deny), `reason` and `route`.
    pub decisions: IntCounterVec,
    /// Time from the request's head to the response's head, by `route`.
    pub request_duration: HistogramVec,
    /// Time inside `enforce`, by `proof` (cached, fresh, none).
    pub enforce_duration: HistogramVec,
    /// Failures towards an upstream, by `upstream` and `kind`.
    pub upstream_errors: IntCounterVec,
    /// Forwarded requests, by `client` and `route`. Counted only through [`clients::ClientCounters`].
    client_requests: IntCounterVec,
    client_labels: ClientLabels,
    /// 1 while `/ready` responds with 200.
    pub ready: IntGauge,
    /// Open connections, by `listener`.
    pub connections: IntGaugeVec,
    /// TLS handshakes, by `result`.
    pub tls_handshakes: IntCounterVec,
    /// Lookups in the proof cache, by `result` (hit, miss).
    pub proof_cache: IntCounterVec,
    /// Keys in force, by `issuer`.
    pub keys: IntGaugeVec,
    /// Seconds since the keys were last confirmed, by `issuer`.
    pub keys_age: GaugeVec,
    /// Key fetches, by `issuer` and `result` (ok, error).
    pub keys_refresh: IntCounterVec,
    /// Difference between our clock and the `iat` of new tokens, by `issuer`.
    pub clock_skew: HistogramVec,
    /// Seconds until a served certificate expires, by `path`.
    certificate_expiry: GaugeVec,
    certificates: Arc<ArcSwap<Vec<(String, Timestamp)>>>,
    /// Events, by `type` and `source` (admin, ssf, authority, replica); the type of a signal that maps to no
    /// event is the reason for that.
    pub events: IntCounterVec,
    /// Signals, by `source` (ssf, logout, gtr, scim), `type` of the resulting event, and whether they ended a
    /// token in use (`matched`: yes, no).
    pub signals: IntCounterVec,
    /// Seconds since the last confirmed heartbeat, by `transmitter`.
    pub signals_age: GaugeVec,
    /// Failed calls to the state store, by `kind` (full, failed, closed).
    pub state_errors: IntCounterVec,
    /// Requests of each client, to be saved in the store.
    pub usage: usage::Tallies,
    /// Tokens that the embedded authority issued.
    pub tokens_issued: IntCounter,
    /// Requests to the authority's token endpoint, by `result` (ok, error) and `error` (RFC 6749 §5.2, or none).
    pub token_requests: IntCounterVec,
    /// Configuration reloads, by `result` (ok, error). Counted only through [`Metrics::reloaded`].
    config_reloads: IntCounterVec,
    /// 1 unless the last reload was refused.
    last_reload: IntGauge,
    reloaded_at: Arc<ArcSwapOption<Timestamp>>,
    /// CPU time of the process, because the registry's own collector has only whole seconds.
    cpu: Cpu,
    /// Tokens in use.
    pub sessions_tracked: IntGauge,
    /// Sessions that left memory, by `cause` (expired, idle, capacity).
    pub sessions_evicted: IntCounterVec,
    /// Current revocations, by `kind` (subject, client, token, issuer).
    pub revocations: IntGaugeVec,
    /// Seconds since the shared state was confirmed; 0 if the store is not shared.
    pub state_age: Gauge,
    /// Last uses read from the shared store because the local clock could not decide.
    pub state_reads: IntCounter,
    /// Last uses written to the shared store.
    pub state_saved: IntCounter,
    /// Gaps found in the shared log, by `held` (true: this gate has the events and publishes them again).
    pub state_gaps: IntCounterVec,
    /// Whether another authority signs as the embedded one's issuer, in a fleet with a shared store.
    pub authority_conflict: IntGauge,
    /// Settings of the shared store that endanger its data, by `setting`: 1 if it should be changed.
    pub state_setup_warnings: IntGaugeVec,
    /// 1 if the store's file is older than when it was last used, or another file.
    pub state_rolled_back: IntGauge,
    /// Responses and tunnels ended because their token was no longer in force, by `reason`.
    pub streams_cut: IntCounterVec,
    /// Spans of traces, by `result` (exported, dropped, failed).
    pub spans: IntCounterVec,
    /// Log lines lost because the destination was blocked, slow or full.
    pub log_lines_dropped: IntCounter,
}

/// The errors of the token endpoint.
const TOKEN_ERRORS: [&str; 10] = [
    "invalid_client",
    "invalid_dpop_proof",
    "invalid_request",
    "invalid_scope",
    "method_not_allowed",
    "request_too_large",
    "temporarily_unavailable",
    "unauthorized_client",
    "unsupported_grant_type",
    "use_dpop_nonce",
];

/// Buckets in seconds for decisions, which take microseconds.
const ENFORCE_BUCKETS: &[f64] = &[
    0.000_000_5,
    0.000_001,
    0.000_002,
    0.000_005,
    0.000_01,
    0.000_025,
    0.000_05,
    0.000_1,
    0.000_25,
    0.001,
    0.01,
];

/// Buckets in seconds for whole requests.
const REQUEST_BUCKETS: &[f64] =
    &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Buckets in seconds for clock skew in either direction.
const SKEW_BUCKETS: &[f64] = &[-60.0, -10.0, -5.0, -1.0, 0.0, 1.0, 5.0, 10.0, 60.0, 300.0, 3600.0];

impl Metrics {
    /// Creates and registers every instrument.
    ///
    /// # Errors
    /// When two instruments share a name, which is a bug on this page.
    #[expect(clippy::too_many_lines, reason = "a list without a branch, and one page is the point of it")]
    pub fn new() -> Result<Self, prometheus::Error> {
        let page = MetricsPage(Registry::new());
        #[cfg(target_os = "linux")]
        page.0.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let build_info = page.gauges("portcullis_build_info", "The running build", &["version"])?;
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let metrics = Self {
            requests: page.counters(
                "portcullis_requests_total",
                "Requests answered",
                &["route", "method", "status"],
            )?,
            decisions: page.counters(
                "portcullis_decisions_total",
                "Decisions made",
                &["decision", "reason", "route"],
            )?,
            request_duration: page.histograms(
                "portcullis_request_duration_seconds",
                "From request head to response head",
                &["route"],
                REQUEST_BUCKETS,
            )?,
            enforce_duration: page.histograms(
                "portcullis_enforce_duration_seconds",
                "Time spent deciding",
                &["proof"],
                ENFORCE_BUCKETS,
            )?,
            upstream_errors: page.counters(
                "portcullis_upstream_errors_total",
                "Failed requests to upstreams",
                &["upstream", "kind"],
            )?,
            client_requests: page.counters(
                "portcullis_client_requests_total",
                "Requests forwarded per client",
                &["client", "route"],
            )?,
            client_labels: ClientLabels::default(),
            ready: page.gauge("portcullis_ready", "Whether the gate is ready")?,
            connections: page.gauges("portcullis_connections", "Open connections", &["listener"])?,
            tls_handshakes: page.counters(
                "portcullis_tls_handshakes_total",
                "TLS handshakes",
                &["result"],
            )?,
            proof_cache: page.counters(
                "portcullis_proof_cache_total",
                "Proof cache lookups",
                &["result"],
            )?,
            keys: page.gauges("portcullis_keys", "Usable keys", &["issuer"])?,
            keys_age: page.float_gauges(
                "portcullis_keys_age_seconds",
                "Seconds since the keys were last confirmed",
                &["issuer"],
            )?,
            keys_refresh: page.counters(
                "portcullis_keys_refresh_total",
                "Key fetches",
                &["issuer", "result"],
            )?,
            clock_skew: page.histograms(
                "portcullis_clock_skew_seconds",
                "This gate's clock minus iat of new tokens",
                &["issuer"],
                SKEW_BUCKETS,
            )?,
            certificate_expiry: page.float_gauges(
                "portcullis_certificate_expiry_seconds",
                "Seconds until a certificate expires",
                &["path"],
            )?,
            certificates: Arc::default(),
            events: page.counters("portcullis_events_total", "Events received", &["type", "source"])?,
            signals: page.counters(
                "portcullis_signals_total",
                "Signals received",
                &["source", "type", "matched"],
            )?,
            state_errors: page.counters(
                "portcullis_state_errors_total",
                "Failed calls to the state store",
                &["kind"],
            )?,
            usage: usage::Tallies::default(),
            tokens_issued: page
                .counter("portcullis_tokens_issued_total", "Tokens the embedded authority issued")?,
            token_requests: page.counters(
                "portcullis_token_requests_total",
                "Requests to the token endpoint",
                &["result", "error"],
            )?,
            config_reloads: page.counters(
                "portcullis_config_reloads_total",
                "Configuration reloads",
                &["result"],
            )?,
            last_reload: page.gauge(
                "portcullis_config_last_reload_successful",
                "Whether the last reload was accepted; 1 before the first",
            )?,
            reloaded_at: Arc::default(),
            cpu: Cpu::new()?,
            sessions_tracked: page.gauge("portcullis_sessions_tracked", "Tokens in use")?,
            sessions_evicted: page.counters(
                "portcullis_sessions_evicted_total",
                "Sessions removed from memory",
                &["cause"],
            )?,
            revocations: page.gauges("portcullis_revocations", "Revocations currently in effect", &["kind"])?,
            state_age: page.float_gauge(
                "portcullis_state_age_seconds",
                "Seconds since the shared state was last confirmed",
            )?,
            state_reads: page.counter(
                "portcullis_state_reads_total",
                "Last uses read from the shared store while a request waited",
            )?,
            state_saved: page
                .counter("portcullis_state_saved_total", "Last uses written to the shared store")?,
            state_gaps: page.counters(
                "portcullis_state_gaps_total",
                "Gaps found in the shared log of events",
                &["held"],
            )?,
            authority_conflict: page.gauge(
                "portcullis_authority_conflict",
                "Whether another gate of the fleet runs an authority with different keys for the same issuer",
            )?,
            state_setup_warnings: page.gauges(
                "portcullis_state_setup_warnings",
                "Settings of the shared store that should be changed",
                &["setting"],
            )?,
            state_rolled_back: page.gauge(
                "portcullis_state_rolled_back",
                "1 if the state store is older than when it was last used here, was replaced, or has not been used here before",
            )?,
            signals_age: page.float_gauges(
                "portcullis_signals_age_seconds",
                "Seconds since the last confirmed heartbeat of a transmitter's stream",
                &["transmitter"],
            )?,
            streams_cut: page.counters(
                "portcullis_streams_cut_total",
                "Streams ended because their token was no longer in force",
                &["reason"],
            )?,
            spans: page.counters("portcullis_spans_total", "Spans of traces", &["result"])?,
            log_lines_dropped: page.counter("portcullis_log_lines_dropped_total", "Log lines lost")?,
            registry: page.0,
        };
        metrics.begin_closed_sets();
        Ok(metrics)
    }

    /// Starts the series of closed label sets at 0, so that `increase()` sees their first event.
    fn begin_closed_sets(&self) {
        for result in ["ok", "error"] {
            self.config_reloads.with_label_values(&[result]);
            self.tls_handshakes.with_label_values(&[result]);
        }
        self.last_reload.set(1);
        for result in ["hit", "miss"] {
            self.proof_cache.with_label_values(&[result]);
        }
        for cause in ["expired", "idle", "capacity"] {
            self.sessions_evicted.with_label_values(&[cause]);
        }
        for kind in ["full", "failed", "closed"] {
            self.state_errors.with_label_values(&[kind]);
        }
        for held in ["true", "false"] {
            self.state_gaps.with_label_values(&[held]);
        }
        for kind in ["subject", "client", "session", "token", "issuer"] {
            self.revocations.with_label_values(&[kind]);
        }
        for result in ["exported", "dropped", "failed"] {
            self.spans.with_label_values(&[result]);
        }
        self.token_requests.with_label_values(&["ok", "none"]);
        for error in TOKEN_ERRORS {
            self.token_requests.with_label_values(&["error", error]);
        }
    }

    /// Sets the certificates in use and when each expires; removes those of an earlier configuration.
    pub fn set_certificates(&self, certificates: Vec<(String, Timestamp)>) {
        self.certificates.store(Arc::new(certificates));
    }

    /// Updates the values that change as time passes; call it before the page is read.
    pub fn count_down(&self, now: Timestamp) {
        self.certificate_expiry.reset();
        for (path, expiry) in self.certificates.load().iter() {
            let left = expiry.since(now).as_secs_f64() - now.since(*expiry).as_secs_f64();
            self.certificate_expiry.with_label_values(&[path]).set(left);
        }
    }

    /// Renders the text exposition format, version 0.0.4.
    ///
    /// # Errors
    /// When an instrument cannot be encoded.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut page = Vec::with_capacity(16 * 1024);
        let mut families = self.registry.gather();
        families.retain(|family| family.name() != Cpu::NAME);
        families.extend(self.cpu.gather());
        TextEncoder::new().encode(&families, &mut page)?;
        Ok(String::from_utf8_lossy(&page).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_counts_down_and_forgets_what_is_not_served_any_more() {
        let metrics = Metrics::new().expect("the page");
        let expiry = Timestamp::from_secs(1000);
        metrics.set_certificates(vec![("old.pem".to_owned(), expiry), ("new.pem".to_owned(), expiry)]);
        metrics.count_down(Timestamp::from_secs(400));
        let page = metrics.render().expect("the page");
        assert!(page.contains("portcullis_certificate_expiry_seconds{path=\"old.pem\"} 600\n"), "{page}");
        metrics.set_certificates(vec![("new.pem".to_owned(), expiry)]);
        metrics.count_down(Timestamp::from_millis(1_001_500));
        let page = metrics.render().expect("the page");
        assert!(page.contains("portcullis_certificate_expiry_seconds{path=\"new.pem\"} -1.5\n"), "{page}");
        assert!(!page.contains("old.pem"), "{page}");
    }
}
