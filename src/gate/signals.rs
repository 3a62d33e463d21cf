//! Serves requests whose path belongs to the endpoints for signals.

use std::sync::Arc;

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT};
use http::{HeaderValue, Method, Response, StatusCode};
use tokio::time::timeout;

use super::access::Record;
use super::answer::X_REQUEST_ID;
use super::authority::{Unread, read};
use super::body::{AnswerBody, ClientBody, Serving, discard};
use super::http::Head;
use super::meters::OwnEndpoint;
use super::patience::AUTHORITY_BODY;
use crate::enforce::target::{RequestTarget, Target};
use crate::signals::SignalRequest;
use crate::signals::intake::{Endpoint, Intake};

/// The endpoint that a target names, if it is below the path of the intake. The path is read like that of a
/// route.
pub(super) fn endpoint(intake: &Intake, method: &Method, target: &RequestTarget) -> Option<Endpoint> {
    if target.path().contains('%') {
        let target = Target::parse(method, target).ok()?;
        return intake.endpoint(target.path());
    }
    intake.endpoint(target.path())
}

/// Serves one request to the intake. Does not wait for the body if the sender exceeds its limit or the
/// endpoint is unknown.
pub(super) async fn serve(
    intake: &Arc<Intake>,
    endpoint: &Endpoint,
    head: &Head,
    body: ClientBody,
    mut record: Box<Record>,
    serving: Option<Serving>,
) -> Response<AnswerBody> {
    record.endpoint = Some(OwnEndpoint::Signals(endpoint.kind));
    let address = record.client();
    let (answer, whole) = match intake.admit(endpoint, &head.method, address) {
        Err(answer) => (*answer, discard(body, head.headers.contains_key(EXPECT)).await),
        Ok(most) => {
            let body = timeout(AUTHORITY_BODY, read(body, most)).await.unwrap_or(Err(Unread::Broken));
            let request = |body| SignalRequest {
                method: &head.method,
                path: endpoint.path(),
                query: head.target.query(),
                headers: &head.headers,
                body,
                address,
            };
            match &body {
                Ok(body) => (intake.answer(endpoint, &request(Some(body))).await, true),
                Err(Unread::TooLarge) => (intake.answer(endpoint, &request(None)).await, false),
                Err(Unread::Broken) => (intake.incomplete(endpoint), false),
            }
        }
    };
    let (mut parts, bytes) = answer.into_parts();
    parts.headers.insert(X_REQUEST_ID, record.request_id.clone());
    if !whole {
        // The rest of the body cannot be told from the next request.
        parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    record.answered_here(parts.status);
    let has_body = head.method != Method::HEAD && !bytes.is_empty();
    if parts.status != StatusCode::NO_CONTENT {
        parts.headers.insert(CONTENT_LENGTH, bytes.len().into());
    }
    Response::from_parts(parts, AnswerBody::refusal(has_body.then_some(bytes), record, serving))
}
