//! The collector that spans are sent to: builds the requests and interprets the responses.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use prost::Message as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

use super::otlp::{self, OtlpResource, OtlpResponse, OtlpSpan};
use super::{CollectorUrl, Settings};
use crate::client::Client;
use crate::tls;

/// The timeout of one export.
const EXPORT: Duration = Duration::from_secs(10);
/// The longest pause that a collector can request.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(30);

/// A collector, with everything that is needed to send spans to it.
pub struct Collector {
    endpoint: CollectorUrl,
    client: Client,
    headers: HeaderMap,
    resource: OtlpResource,
}

/// Why an export failed.
#[derive(Debug)]
pub(super) struct ExportError {
    cause: String,
    /// Whether it may succeed later (OTLP/HTTP, "Failures").
    pub(super) is_temporary: bool,
    /// The pause that the collector requested.
    pub(super) retry_after: Option<Duration>,
}

impl Collector {
    /// Creates a collector from its settings.
    ///
    /// # Errors
    /// When `otlp_ca` cannot be used; the message names it.
    pub fn new(settings: &Settings) -> Result<Arc<Self>, String> {
        let trust = if settings.endpoint.url.uses_tls() {
            tls::client_config(settings.ca.as_deref(), None, &[b"http/1.1"])
                .map_err(|error| error.to_string())
        } else {
            trusts_nobody()
        };
        let trust = trust.map_err(|error| format!("telemetry.otlp_ca: {error}"))?;
        let mut headers: HeaderMap = settings.headers.iter().cloned().collect();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let resource = resource(settings.service_name.as_deref(), |name| std::env::var(name).ok());
        Ok(Arc::new(Self {
            endpoint: settings.endpoint.clone(),
            client: Client::new(trust),
            headers,
            resource,
        }))
    }

    /// Sends spans; returns how many of them the collector rejected.
    pub(super) async fn send(&self, spans: Vec<OtlpSpan>) -> Result<u64, ExportError> {
        let body = otlp::request(self.resource.clone(), spans).encode_to_vec();
        let mut request = Request::new(Bytes::from(body));
        *request.method_mut() = Method::POST;
        *request.headers_mut() = self.headers.clone();
        match timeout(EXPORT, self.client.send(&self.endpoint.url, request)).await {
            Ok(Ok(response)) => rejected(&response),
            Ok(Err(error)) => Err(ExportError::temporary(error.to_string())),
            Err(_elapsed) => Err(ExportError::temporary(format!("no response within {EXPORT:?}"))),
        }
    }
}

/// Returns how many spans a collector has rejected, according to its response.
fn rejected(response: &Response<Bytes>) -> Result<u64, ExportError> {
    let status = response.status();
    if status.is_success() {
        // A body without this information means that all were accepted.
        let partial =
            OtlpResponse::decode(response.body().clone()).ok().and_then(|said| said.partial_success);
        return Ok(partial.and_then(|partial| u64::try_from(partial.rejected_spans).ok()).unwrap_or(0));
    }
    let is_temporary = matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    );
    let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let retry_after = seconds.map(|seconds| Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER));
    Err(ExportError { cause: format!("responded with {status}"), is_temporary, retry_after })
}

/// The resource attributes of the spans. The environment supplies what the configuration does not
/// (`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`), as for programs with an OpenTelemetry SDK.
fn resource(service_name: Option<&str>, environment: impl Fn(&str) -> Option<String>) -> OtlpResource {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let mut values =
        vec![("service.version".to_owned(), version), ("service.instance.id".to_owned(), instance())];
    values.extend(host_name().map(|name| ("host.name".to_owned(), name)));
    let mut set = |key: &str, value: String| match values.iter_mut().find(|(known, _)| known == key) {
        Some((_, known)) => *known = value,
        None => values.push((key.to_owned(), value)),
    };
    set("service.name", "portcullis".to_owned());
    let given = environment("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    for (key, value) in given.split(',').filter_map(|pair| pair.split_once('=')) {
        set(key.trim(), percent_decode_str(value.trim()).decode_utf8_lossy().into_owned());
    }
    let named = service_name.map(str::to_owned).or_else(|| environment("OTEL_SERVICE_NAME"));
    if let Some(name) = named.filter(|name| !name.is_empty()) {
        set("service.name", name);
    }
    OtlpResource { attributes: values.into_iter().map(|(key, value)| otlp::text(&key, value)).collect() }
}

/// Generates a UUID that identifies this process.
fn instance() -> String {
    let mut random = [0; 16];
    // Without random bytes, the host name still distinguishes processes on different machines.
    if aws_lc_rs::rand::fill(&mut random).is_err() {
        random = u128::from(std::process::id()).to_be_bytes();
    }
    // RFC 9562 §5.4: version 4, and the variant.
    let number = u128::from_be_bytes(random) & !(0xf << 76 | 0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let digits = format!("{number:032x}");
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// TLS settings for a collector without TLS, so that the gate needs no CA certificates for it.
fn trusts_nobody() -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    Ok(Arc::new(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth()))
}

impl ExportError {
    const fn temporary(cause: String) -> Self {
        Self { cause, is_temporary: true, retry_after: None }
    }

    /// The collector rejected some spans and accepted the others.
    pub(super) fn rejected(spans: u64) -> Self {
        Self {
            cause: format!("{spans} spans of a batch were rejected"),
            is_temporary: false,
            retry_after: None,
        }
    }
}

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.endpoint.text)
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Collector").field(&self.endpoint.text).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traces::otlp::OtlpAny;

    fn value(resource: &OtlpResource, key: &str) -> Option<String> {
        let found = resource.attributes.iter().find(|attribute| attribute.key == key)?;
        match found.value.clone()?.value? {
            OtlpAny::Text(text) => Some(text),
            OtlpAny::Integer(_) => None,
        }
    }

    #[test]
    fn the_configuration_names_the_service_before_the_environment_does() {
        let attributes =
            "service.name=of-attributes,k8s.pod.name=a%2Cb, deployment.environment.name = test ,odd";
        for (configured, name, attributes, expected) in [
            (None, None, None, "portcullis"),
            (None, None, Some(attributes), "of-attributes"),
            (None, Some("of-name"), Some(attributes), "of-name"),
            (Some("configured"), Some("of-name"), Some(attributes), "configured"),
        ] {
            let environment = |key: &str| match key {
                "OTEL_SERVICE_NAME" => name.map(str::to_owned),
                _ => attributes.map(str::to_owned),
            };
            let resource = resource(configured, environment);
            assert_eq!(value(&resource, "service.name").as_deref(), Some(expected));
            assert_eq!(value(&resource, "k8s.pod.name").as_deref(), attributes.map(|_| "a,b"));
            assert_eq!(
                value(&resource, "deployment.environment.name").as_deref(),
                attributes.map(|_| "test")
            );
            assert_eq!(value(&resource, "service.version").as_deref(), Some(env!("CARGO_PKG_VERSION")));
            let id = value(&resource, "service.instance.id").unwrap();
            assert_eq!((id.len(), id.as_bytes()[14]), (36, b'4'), "{id}");
        }
    }

    #[test]
    fn answers_say_what_was_rejected_and_whether_it_may_work_later() {
        let answer = |status: u16, retry: Option<&str>, body: &[u8]| {
            let mut response = Response::new(Bytes::copy_from_slice(body));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            if let Some(retry) = retry {
                response.headers_mut().insert(RETRY_AFTER, retry.parse().unwrap());
            }
            rejected(&response)
                .map_err(|error| (error.is_temporary, error.retry_after.map(|time| time.as_secs())))
        };
        // `partial_success { rejected_spans: 3 }`, encoded by hand.
        for (status, retry, body, expected) in [
            (200, None, &b""[..], Ok(0)),
            (200, None, &[0x0a, 0x02, 0x08, 0x03], Ok(3)),
            (202, None, b"not protobuf", Ok(0)),
            (429, Some("7"), b"", Err((true, Some(7)))),
            (503, Some("86400"), b"", Err((true, Some(30)))),
            (503, Some("Wed, 21 Oct 2026 07:28:00 GMT"), b"", Err((true, None))),
            (400, None, b"", Err((false, None))),
            (401, None, b"", Err((false, None))),
            (500, None, b"", Err((false, None))),
            (307, None, b"", Err((false, None))),
        ] {
            assert_eq!(answer(status, retry, body), expected, "{status}");
        }
    }
}
