//! Responses of the gate itself: denials, as JSON with a challenge, or in gRPC's own form.

use std::cell::{Cell, RefCell};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};

use super::challenge::{challenges, description};
use super::http1::Http1Fault;
use crate::enforce::denial::{Denial, Reason, grpc_status};
use crate::enforce::policy::Route;
use crate::forward::ForwardError;
use crate::hex;
use crate::time::Timestamp;

/// The field with the request's id, in the response, all logs, and towards the upstream.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The nonce for the next proof (RFC 9449 §8).
pub(super) const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// How long a client should wait if a request cannot be judged or served at present.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("1");
/// The last second of the year 9999.
const MAX_DATE: u64 = 253_402_300_799;
/// Maximum length of a request id accepted from a trusted proxy.
const MAX_REQUEST_ID: usize = 128;

/// A response of the gate in place of the upstream's, and its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GateRefusal {
    pub(super) status: StatusCode,
    error: &'static str,
    description: &'static str,
    /// The `WWW-Authenticate` fields.
    challenges: Vec<HeaderValue>,
    /// The nonce that the client's next proof must carry.
    nonce: Option<HeaderValue>,
    /// The reason for log and metrics; `None` if the request was let through and failed later.
    pub(super) reason: Option<Reason>,
    /// Whether the connection closes after this response.
    pub(super) close: bool,
}

/// The form of a refusal that the client understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnswerForm {
    /// JSON.
    Json,
    /// The JSON form's fields without the body, for `HEAD` (RFC 9110 §9.3.2).
    Head,
    /// Trailers only: HTTP 200, with the outcome in `grpc-status`.
    Grpc,
}

impl AnswerForm {
    /// The form for a request.
    pub(super) fn of(method: &Method, headers: &HeaderMap) -> Self {
        let grpc = |value: &HeaderValue| {
            value.as_bytes().get(..16).is_some_and(|start| start.eq_ignore_ascii_case(b"application/grpc"))
        };
        match headers.get(CONTENT_TYPE) {
            Some(value) if grpc(value) => Self::Grpc,
            _ if method == Method::HEAD => Self::Head,
            _ => Self::Json,
        }
    }
}

impl GateRefusal {
    /// A limit on connections or requests is reached.
    pub(super) const OVERLOADED: Self = {
        let wire = Reason::Overloaded.wire();
        Self::new(wire.status, wire.error, wire.description, Reason::Overloaded)
    };
    /// The upstream has reached its limit of requests in flight.
    pub(super) const UPSTREAM_OVERLOADED: Self = {
        let wire = Reason::Overloaded.wire();
        Self::new(
            wire.status,
            wire.error,
            "The upstream has reached its request limit; try again later",
            Reason::Overloaded,
        )
    };
    /// The gate is shutting down.
    pub(super) const LEAVING: Self = {
        let wire = Reason::Overloaded.wire();
        Self::new(wire.status, wire.error, "The gate is shutting down", Reason::Overloaded)
    };
    /// The request body is longer than `body_bytes`.
    pub(super) const BODY_TOO_LARGE: Self = Self::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "request_too_large",
        "The request body is too large",
        Reason::Overloaded,
    );
    /// There are more fields than `headers`.
    pub(super) const TOO_MANY_FIELDS: Self = Self::new(
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "headers_too_large",
        "The request has too many header fields",
        Reason::Overloaded,
    );
    /// The header list is larger than `header_bytes`.
    pub(super) const LIST_TOO_LARGE: Self = Self::new(
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "headers_too_large",
        "The request head is too large",
        Reason::Overloaded,
    );
    /// `CONNECT` is not supported: the gate protects one API.
    pub(super) const NO_CONNECT: Self = Self::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "The CONNECT method is not supported",
        Reason::BadTarget,
    );
    /// There is no host, or more than one.
    pub(super) const BAD_HOST: Self = Self::new(
        StatusCode::BAD_REQUEST,
        "invalid_request",
        "The request must name exactly one valid host",
        Reason::BadTarget,
    );
    /// There is more than one `Content-Length`.
    pub(super) const BAD_LENGTH: Self = Self::new(
        StatusCode::BAD_REQUEST,
        "invalid_request",
        "The request has more than one Content-Length",
        Reason::Malformed,
    );
    /// A field has an invalid name.
    pub(super) const BAD_NAME: Self = Self::new(
        StatusCode::BAD_REQUEST,
        "invalid_request",
        "A header field has an invalid name",
        Reason::Malformed,
    );

    const fn new(status: StatusCode, error: &'static str, description: &'static str, reason: Reason) -> Self {
        Self {
            status,
            error,
            description,
            challenges: Vec::new(),
            nonce: None,
            reason: Some(reason),
            close: false,
        }
    }

    /// The refusal for a denial. If `route` matched, its challenges include the route's requirements.
    pub(super) fn denied(denial: &Denial, route: Option<&Route>) -> Self {
        let wire = denial.reason.wire();
        let challenges = challenges(denial, route);
        let nonce = denial.possession.nonce.as_deref().and_then(|nonce| HeaderValue::from_str(nonce).ok());
        Self { challenges, nonce, ..Self::new(wire.status, wire.error, description(denial), denial.reason) }
    }

    /// The same refusal, closing the connection.
    pub(super) fn closing(self) -> Self {
        Self { close: true, ..self }
    }

    /// The response.
    pub(super) fn to_response(&self, form: AnswerForm, request_id: &HeaderValue) -> Response<Option<Bytes>> {
        let mut response = Response::new(None);
        let headers = response.headers_mut();
        headers.reserve(8);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_REQUEST_ID, request_id.clone());
        for challenge in &self.challenges {
            headers.append(WWW_AUTHENTICATE, challenge.clone());
        }
        if let Some(nonce) = &self.nonce {
            headers.insert(DPOP_NONCE, nonce.clone());
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, RETRY_SECONDS);
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if form == AnswerForm::Grpc {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.extend(self.grpc_outcome());
            return response;
        }
        let body = self.json(request_id);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_LENGTH, body.len().into());
        *response.status_mut() = self.status;
        *response.body_mut() = (form == AnswerForm::Json).then(|| body.into());
        response
    }

    /// The outcome for gRPC, as trailers of a response that has begun.
    pub(super) fn grpc_outcome(&self) -> HeaderMap {
        let mut outcome = HeaderMap::with_capacity(2);
        outcome.insert(GRPC_STATUS, u16::from(grpc_status(self.status)).into());
        outcome.insert(GRPC_MESSAGE, percent_encoded(self.description));
        outcome
    }

    /// The response serialized for HTTP/1.1, on a connection that closes after it.
    pub(super) fn to_bytes(&self, request_id: &HeaderValue, head_only: bool) -> Vec<u8> {
        let form = if head_only { AnswerForm::Head } else { AnswerForm::Json };
        let response = self.clone().closing().to_response(form, request_id);
        let mut bytes = Vec::with_capacity(512);
        let reason = response.status().canonical_reason().unwrap_or_default();
        bytes.extend_from_slice(format!("HTTP/1.1 {} {reason}\r\n", response.status().as_u16()).as_bytes());
        for (name, value) in response.headers() {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(response.body().as_deref().unwrap_or_default());
        bytes
    }

    /// The JSON body. It needs no escaping: the texts are ours, and a request id contains no characters that
    /// need it.
    fn json(&self, request_id: &HeaderValue) -> String {
        let (error, description) = (self.error, self.description);
        let request_id = request_id.to_str().unwrap_or_default();
        format!(r#"{{"error":"{error}","error_description":"{description}","request_id":"{request_id}"}}"#)
    }
}

impl From<Reason> for GateRefusal {
    /// A refusal without a route.
    fn from(reason: Reason) -> Self {
        Self::denied(&reason.into(), None)
    }
}

impl From<&ForwardError> for GateRefusal {
    fn from(error: &ForwardError) -> Self {
        let status = error.status();
        let (word, description) = match status {
            StatusCode::PAYLOAD_TOO_LARGE => return Self { reason: None, ..Self::BODY_TOO_LARGE }.closing(),
            _ if matches!(error, ForwardError::Loop) => {
                ("upstream_unreachable", "The request looped back to the gate that forwarded it")
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                ("method_not_allowed", "TRACE requests with credentials are not forwarded")
            }
            StatusCode::BAD_GATEWAY => {
                ("upstream_unreachable", "The upstream did not return a valid response")
            }
            StatusCode::GATEWAY_TIMEOUT => ("upstream_timeout", "The upstream did not respond in time"),
            StatusCode::REQUEST_TIMEOUT => ("invalid_request", "Timed out while reading the request body"),
            _ if matches!(error, ForwardError::Target) => (
                "invalid_request",
                "The query contains characters that HTTP/2 does not allow; percent-encode them",
            ),
            _ => ("invalid_request", "The request is not in a form that can be forwarded"),
        };
        // The rest of a body that failed cannot be told from the next request.
        let close = matches!(error, ForwardError::RequestBody(_));
        Self { status, error: word, description, challenges: Vec::new(), nonce: None, reason: None, close }
    }
}

impl From<Http1Fault> for GateRefusal {
    fn from(fault: Http1Fault) -> Self {
        let (error, reason) = match fault.status {
            StatusCode::METHOD_NOT_ALLOWED => return Self::NO_CONNECT.closing(),
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => ("headers_too_large", Reason::Overloaded),
            StatusCode::URI_TOO_LONG => ("invalid_request", Reason::Overloaded),
            _ if fault.of_target => ("invalid_request", Reason::BadTarget),
            _ => ("invalid_request", Reason::Malformed),
        };
        Self::new(fault.status, error, fault.problem, reason).closing()
    }
}

/// Percent-encodes for `grpc-message`: everything but visible ASCII and spaces, and `%` itself. Our
/// descriptions currently contain none of these.
fn percent_encoded(text: &str) -> HeaderValue {
    const SET: percent_encoding::AsciiSet = percent_encoding::CONTROLS.add(b'%');
    let text = percent_encoding::utf8_percent_encode(text, &SET).to_string();
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

/// Generates request ids: 128 bits that no two requests share. They are not secret.
#[derive(Debug)]
pub(super) struct RequestIds([Cell<u64>; 2]);

impl RequestIds {
    pub(super) fn new() -> Self {
        let mut seed = [0; 16];
        // Without random numbers there is no TLS either; for clear text, the address of a local variable is
        // an acceptable seed.
        if aws_lc_rs::rand::fill(&mut seed).is_err() {
            seed = (std::ptr::from_ref(&seed).addr() as u128 | 1).to_le_bytes();
        }
        let [low, high] = [seed.first_chunk(), seed.last_chunk()];
        Self([low, high].map(|half| Cell::new(u64::from_le_bytes(*half.unwrap_or(&[1; 8])))))
    }

    /// The next id, as 32 hexadecimal digits (xoroshiro128++).
    pub(super) fn next(&self) -> HeaderValue {
        let halves = [self.step(), self.step()].map(u64::to_be_bytes);
        let text = halves.map(|half| half.map(hex::digits));
        HeaderValue::from_bytes(text.as_flattened().as_flattened()).unwrap_or(HeaderValue::from_static("0"))
    }

    fn step(&self) -> u64 {
        let (low, mut high) = (self.0[0].get(), self.0[1].get());
        let result = low.wrapping_add(high).rotate_left(17).wrapping_add(low);
        high ^= low;
        self.0[0].set(low.rotate_left(49) ^ high ^ (high << 21));
        self.0[1].set(high.rotate_left(28));
        result
    }
}

/// Formats `Date` fields (RFC 9110 §5.6.7), once per second.
#[derive(Debug)]
pub(super) struct Dates(RefCell<(i64, HeaderValue)>);

impl Default for Dates {
    fn default() -> Self {
        Self(RefCell::new((i64::MIN, HeaderValue::from_static(""))))
    }
}

impl Dates {
    /// The value at a time.
    pub(super) fn at(&self, now: Timestamp) -> HeaderValue {
        let (second, value) = &mut *self.0.borrow_mut();
        if *second != now.as_secs() {
            *second = now.as_secs();
            // There is no date before 1970 or after 9999; a clock that far off is for the operator to fix.
            let since = Duration::from_secs(u64::try_from(now.as_secs()).unwrap_or(0).min(MAX_DATE));
            let date = httpdate::fmt_http_date(UNIX_EPOCH + since);
            *value = HeaderValue::try_from(date).unwrap_or(HeaderValue::from_static(""));
        }
        value.clone()
    }
}

/// The id that a trusted proxy gave the request, if it is safe in JSON and logs.
pub(super) fn believable_request_id(headers: &HeaderMap) -> Option<&HeaderValue> {
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:+/=@~".contains(&byte);
    let mut values = headers.get_all(X_REQUEST_ID).iter();
    let value = values.next().filter(|value| !value.is_empty() && value.len() <= MAX_REQUEST_ID)?;
    (values.next().is_none() && value.as_bytes().iter().copied().all(harmless)).then_some(value)
}

#[cfg(test)]
mod tests;
