//! Receives security event tokens that a transmitter pushes (RFC 8935), at the transmitter's endpoint and
//! at the admin listener.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::answer::{Fault, empty, fault, refused, unavailable};
use super::{EndpointKind, Intake, SignalRequest};
use crate::signals::ssf::{Answer, Code, Receiver, Transmitter, Undelivered};

/// Processes a push to a transmitter's endpoint, which must carry the configured `Authorization`.
pub(super) async fn from_sender(
    intake: &Intake,
    transmitter: &Transmitter,
    request: &SignalRequest<'_>,
) -> Response<Bytes> {
    let mut fields = request.headers.get_all(AUTHORIZATION).iter();
    // With two such fields it is unclear which one counts, so neither does.
    let field = fields.next().filter(|_| fields.next().is_none()).map(HeaderValue::as_bytes);
    let agreed = transmitter.settings().authorization.as_ref();
    if agreed.is_some_and(|agreed| !field.is_some_and(|field| agreed.matches(field))) {
        let description = "the Authorization header does not have the configured value";
        intake.refused(EndpointKind::Ssf, &transmitter.settings().name, description);
        let mut answer = refused(StatusCode::UNAUTHORIZED, Code::AuthenticationFailed, description);
        let challenge = HeaderValue::from_static(r#"Bearer realm="portcullis-signals""#);
        answer.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        return answer;
    }
    let Some(body) = request.body else {
        intake.refused(EndpointKind::Ssf, &transmitter.settings().name, Fault::TooLarge.description());
        return fault(Some(EndpointKind::Ssf), Fault::TooLarge);
    };
    push(&intake.senders.receiver, transmitter, request.headers, body)
        .await
        .unwrap_or_else(|_later| unavailable())
}

/// Processes a push from an authorized sender; responds with 202 once everything the token says is durable and in force.
///
/// # Errors
/// [`Undelivered::NoKeys`] and [`Undelivered::Store`]: the token itself is not at fault and may be sent again.
pub async fn push(
    receiver: &Receiver,
    transmitter: &Transmitter,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response<Bytes>, Undelivered> {
    match receiver.deliver(transmitter, body, content_type(headers)).await {
        Ok(Answer::Accepted) => Ok(empty(StatusCode::ACCEPTED)),
        Ok(Answer::Ok) => Ok(empty(StatusCode::OK)),
        Err(Undelivered::Refused(refusal)) => {
            Ok(refused(StatusCode::BAD_REQUEST, refusal.code, refusal.description))
        }
        Err(later @ (Undelivered::NoKeys | Undelivered::Store(_))) => Err(later),
    }
}

/// The response if no transmitter has the name.
#[must_use]
pub fn unknown() -> Response<Bytes> {
    refused(StatusCode::NOT_FOUND, Code::InvalidRequest, "there is no such transmitter")
}

/// The `Content-Type`, if there is exactly one.
fn content_type(headers: &HeaderMap) -> Option<&str> {
    let mut fields = headers.get_all(CONTENT_TYPE).iter();
    fields.next().filter(|_| fields.next().is_none())?.to_str().ok()
}
