//! Responses of the signal endpoints that are not specific to one protocol, each in the format that its sender expects.

use bytes::Bytes;
use http::header::GetAll;
use http::header::{CACHE_CONTROL, CONTENT_LANGUAGE, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::EndpointKind;
use crate::signals::scim;
use crate::signals::ssf::Code;

/// `Retry-After`, in seconds, for signals that could not be processed.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("5");

/// What is wrong with a request before its signal is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// No endpoint has this path.
    NotFound,
    /// The endpoint does not support the method.
    Method,
    /// The body did not arrive, or not in time.
    Incomplete,
    /// What was sent is not a signal.
    BadRequest,
    /// The body is too long.
    TooLarge,
    /// The sender exceeds its rate limit.
    TooMany,
}

impl Fault {
    pub(super) const fn status(self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Incomplete => StatusCode::REQUEST_TIMEOUT,
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    pub(super) const fn description(self) -> &'static str {
        match self {
            Self::NotFound => "no sender of this name is configured",
            Self::Method => "the endpoint does not support this method",
            Self::Incomplete => "timed out while reading the body",
            Self::BadRequest => "the request is not a valid signal",
            Self::TooLarge => "the body is too large",
            Self::TooMany => "too many requests from this address; try again later",
        }
    }
}

/// The response to a fault, in the error format of the endpoint.
pub(super) fn fault(kind: Option<EndpointKind>, fault: Fault) -> Response<Bytes> {
    match kind {
        Some(EndpointKind::Ssf) => refused(fault.status(), Code::InvalidRequest, fault.description()),
        // OpenID Connect Back-Channel Logout 1.0 §2.8 defines only one error code.
        Some(EndpointKind::Logout) => json_answer(fault.status(), &json!({ "error": "invalid_request" })),
        Some(EndpointKind::GlobalTokenRevocation) => {
            oauth_error(fault.status(), "invalid_request", fault.description())
        }
        Some(EndpointKind::Scim) => scim::fault(fault.status(), fault.description()),
        None => json_answer(fault.status(), &json!({ "error": "not_found" })),
    }
}

/// An error response as in RFC 8935 §2.3, which requires the language of the description.
pub(super) fn refused(status: StatusCode, code: Code, description: &str) -> Response<Bytes> {
    let body = json!({ "err": code.as_str(), "description": description });
    let mut answer = json_answer(status, &body);
    answer.headers_mut().insert(CONTENT_LANGUAGE, HeaderValue::from_static("en"));
    answer
}

/// An error response as in RFC 6749 §5.2.
pub(super) fn oauth_error(status: StatusCode, error: &str, description: &str) -> Response<Bytes> {
    json_answer(status, &json!({ "error": error, "error_description": description }))
}

/// Whether there is exactly one `Content-Type`, and it has this media type; parameters are ignored.
pub(super) fn is_type(fields: GetAll<'_, HeaderValue>, wanted: &str) -> bool {
    let mut fields = fields.iter();
    let field = fields.next().filter(|_| fields.next().is_none()).and_then(|field| field.to_str().ok());
    let essence = field.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case(wanted)
}

/// A response with a JSON document.
pub(super) fn json_answer(status: StatusCode, body: &Value) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::from(body.to_string()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, RETRY_SECONDS);
    }
    answer
}

/// The response when a signal cannot be processed for a reason other than the signal itself.
pub(super) fn unavailable() -> Response<Bytes> {
    json_answer(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": "temporarily_unavailable" }))
}

/// A response without a body.
pub(super) fn empty(status: StatusCode) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::new());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_to_come_again_hears_when_and_no_answer_is_stored() {
        for (answer, status, retry) in [
            (unavailable(), 503, Some(RETRY_SECONDS)),
            (json_answer(StatusCode::SERVICE_UNAVAILABLE, &json!({})), 503, Some(RETRY_SECONDS)),
            (json_answer(StatusCode::BAD_REQUEST, &json!({})), 400, None),
            (json_answer(StatusCode::OK, &json!({})), 200, None),
            (refused(StatusCode::BAD_REQUEST, Code::InvalidRequest, "no"), 400, None),
            (empty(StatusCode::ACCEPTED), 202, None),
        ] {
            assert_eq!(answer.status(), status);
            assert_eq!(answer.headers().get(RETRY_AFTER), retry.as_ref(), "{status}");
            assert_eq!(answer.headers()[CACHE_CONTROL], "no-store", "{status}");
        }
    }
}
