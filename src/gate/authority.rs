//! Serves requests whose path belongs to the embedded authority.

use std::sync::Arc;

use http::header::{CONNECTION, CONTENT_LENGTH};
use http::{HeaderValue, Method, Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::access::Record;
use super::answer::X_REQUEST_ID;
use super::body::{AnswerBody, ClientBody, Limited, Serving};
use super::http::Head;
use super::meters::OwnEndpoint;
use super::patience::AUTHORITY_BODY;
use crate::authority::{Authority, AuthorityEndpoint, EndpointCall, MAX_BODY};
use crate::enforce::target::{RequestTarget, Target};

/// The authority's endpoint for a target, if any. The path is read like that of a route.
pub(super) fn endpoint(
    authority: &Authority,
    method: &Method,
    target: &RequestTarget,
) -> Option<AuthorityEndpoint> {
    if target.path().contains('%') {
        let target = Target::parse(method, target).ok()?;
        return authority.endpoint(target.path());
    }
    authority.endpoint(target.path())
}

/// Serves one request to the authority.
pub(super) async fn serve(
    authority: &Arc<Authority>,
    endpoint: AuthorityEndpoint,
    head: &Head,
    (body, certificate): (ClientBody, Option<[u8; 32]>),
    mut record: Box<Record>,
    serving: Option<Serving>,
) -> Response<AnswerBody> {
    record.endpoint = Some(OwnEndpoint::Authority(endpoint));
    let body = timeout(AUTHORITY_BODY, read(body, MAX_BODY)).await.unwrap_or(Err(Unread::Broken));
    let call = EndpointCall {
        method: &head.method,
        query: head.target.query(),
        headers: &head.headers,
        body: match &body {
            Ok(body) => Some(body),
            Err(Unread::TooLarge) => None,
            // If the client is still there, it gets the response to an empty body.
            Err(Unread::Broken) => Some(&[]),
        },
        address: record.client(),
        certificate: certificate.as_ref(),
    };
    let enforcer = Arc::clone(&record.generation.live.enforcer);
    let (mut parts, bytes) = authority.answer(endpoint, &call, &enforcer).await.into_parts();
    parts.headers.insert(X_REQUEST_ID, record.request_id.clone());
    parts.headers.insert(CONTENT_LENGTH, bytes.len().into());
    if body.is_err() {
        // The rest of the body cannot be told from the next request.
        parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(client) = crate::authority::named_client(&call) {
        record.asked_by(&client);
    }
    record.answered_here(parts.status);
    let has_body = head.method != Method::HEAD && parts.status != StatusCode::NO_CONTENT;
    Response::from_parts(parts, AnswerBody::refusal(has_body.then_some(bytes), record, serving))
}

/// Why the body is incomplete.
pub(super) enum Unread {
    TooLarge,
    Broken,
}

/// Reads a whole body of at most `most` bytes into memory that is overwritten when dropped, because it
/// contains secrets.
pub(super) async fn read(body: ClientBody, most: usize) -> Result<Zeroizing<Vec<u8>>, Unread> {
    let longest = body.size_hint().upper().map_or(most, |upper| usize::try_from(upper).unwrap_or(most));
    let mut body = Box::pin(Limited::new(body, Some(most as u64), None));
    // Never reallocated, so that no copy is left behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(longest.min(most)));
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => frame.data_ref().into_iter().for_each(|data| bytes.extend_from_slice(data)),
            Err(crate::forward::RequestBodyError::TooLarge) => return Err(Unread::TooLarge),
            Err(_) => return Err(Unread::Broken),
        }
    }
    Ok(bytes)
}
