//! `[telemetry]`: metrics and probes, the log, traces.

use std::net::SocketAddr;

use http::{HeaderName, HeaderValue};

use super::address;
use crate::admin::ReadyWhen;
use crate::config::section::Section;
use crate::config::{describe, material};
use crate::log::{self, Format};
use crate::traces::{self, CollectorUrl, SampleRatio};

/// Header fields of an export that the gate sets.
const RESERVED: [HeaderName; 5] = [
    http::header::CONNECTION,
    http::header::CONTENT_LENGTH,
    http::header::CONTENT_TYPE,
    http::header::HOST,
    http::header::TRANSFER_ENCODING,
];

/// The settings from `[telemetry]`.
pub(super) struct TelemetrySettings {
    pub(super) listen: SocketAddr,
    pub(super) ready_when: ReadyWhen,
    pub(super) log: log::Settings,
    pub(super) traces: Option<traces::Settings>,
}

/// `[telemetry]`.
pub(super) fn telemetry(s: &mut Section<'_>, taken: &mut Vec<SocketAddr>) -> TelemetrySettings {
    let default = SocketAddr::from(([127, 0, 0, 1], 9464));
    let listen = s.parsed("listen", &default.to_string(), |text| address(text, taken)).unwrap_or(default);
    s.narrow("listen", describe::address);
    let log = log::Settings {
        format: s.word("log_format", ("json", Format::Json), &[("pretty", Format::Pretty)]),
        level: s.parsed("log_level", "info", log_level).unwrap_or_default(),
        access_log: s.flag("access_log", true),
        log_paths: s.flag("log_paths", false),
    };
    TelemetrySettings {
        listen,
        ready_when: s.word("ready_when", ("any", ReadyWhen::Any), &[("all", ReadyWhen::All)]),
        traces: traces(s, log.log_paths),
        log,
    }
}

fn log_level(text: &str) -> Result<String, String> {
    log::check_level(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

/// The trace collector; `None` if tracing is off. The other keys are always checked, so that `otlp_endpoint`
/// alone turns tracing on and off.
fn traces(s: &mut Section<'_>, with_paths: bool) -> Option<traces::Settings> {
    let endpoint = s.parsed("otlp_endpoint", "", |text| match text {
        "" => Ok(None),
        text => CollectorUrl::parse(text).map(Some),
    });
    s.describe("otlp_headers", describe::secrets_by_name);
    let headers = s.table("otlp_headers", headers);
    let ca = s.file("otlp_ca");
    material::roots(s, "otlp_ca", ca.as_deref());
    let ratio = SampleRatio::new(s.ratio("trace_sample_ratio", 0.01));
    let service_name = Some(s.text("otlp_service_name", "")).filter(|name| !name.is_empty());
    let endpoint = endpoint.flatten()?;
    if endpoint.is_exposed() && !headers.is_empty() {
        s.problem("otlp_endpoint", "must be https: otlp_headers would travel in clear text");
    }
    Some(traces::Settings { endpoint, headers, ca, ratio, service_name, with_paths })
}

/// `[telemetry.otlp_headers]`.
fn headers(s: &mut Section<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::new();
    for key in s.written() {
        let Some(secret) = s.secret(key) else { continue };
        match (key.parse::<HeaderName>(), HeaderValue::from_str(&secret)) {
            (Ok(name), _) if RESERVED.contains(&name) => s.problem(key, "is set by the gate"),
            (Ok(name), Ok(mut value)) => {
                value.set_sensitive(true);
                headers.push((name, value));
            }
            (Err(_), _) => s.problem(key, "is not a valid header name (letters, digits and `-`)"),
            (Ok(_), Err(_)) => s.problem(key, "must be visible ASCII characters"),
        }
    }
    // Sorted, so that files with the same meaning give equal settings.
    headers.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
    headers
}
