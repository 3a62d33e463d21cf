//! JSON bodies of admin requests: bounded in size and time, of the right type, and strict.

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::problem::Problem;
use super::server::AdminLimits;
use crate::events::parse::members;

/// Reads the body as JSON; `None` when there is no body at all.
pub(super) async fn read_json<T: DeserializeOwned>(
    request: Request,
    limits: &AdminLimits,
) -> Result<Option<T>, Problem> {
    let Some(bytes) = read_document(request, limits).await? else { return Ok(None) };
    members(&bytes).map(Some).map_err(unexpected)
}

/// Reads the members of a JSON object; no body at all is an object without members.
pub(super) async fn read_members<T: DeserializeOwned>(
    request: Request,
    limits: &AdminLimits,
) -> Result<T, Problem> {
    let bytes = read_document(request, limits).await?;
    members(bytes.as_deref().unwrap_or(b"{}")).map_err(unexpected)
}

fn unexpected(what: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, format!("the body is invalid: {what}"))
}

/// Reads the body, which must say that it is JSON; `None` when there is no body at all.
pub(super) async fn read_document(request: Request, limits: &AdminLimits) -> Result<Option<Bytes>, Problem> {
    let (head, body) = request.into_parts();
    let bytes = read(body, limits).await?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if !head.headers.get(CONTENT_TYPE).is_some_and(|value| is_json(value.as_bytes())) {
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/json"));
    }
    Ok(Some(bytes))
}

/// Reads the body within the limits.
pub(crate) async fn read(body: Body, limits: &AdminLimits) -> Result<Bytes, Problem> {
    let too_large = || {
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body exceeds {} bytes", limits.body_bytes))
    };
    // What announces itself as too large is refused before it is sent.
    if body.size_hint().lower() > u64::try_from(limits.body_bytes).unwrap_or(u64::MAX) {
        return Err(too_large());
    }
    match timeout(limits.body_timeout, Limited::new(body, limits.body_bytes).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(StatusCode::BAD_REQUEST, "cannot read the body")),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "timed out while reading the body")),
    }
}

/// `application/json`, with parameters or without (RFC 9110 §8.3.1).
fn is_json(value: &[u8]) -> bool {
    let essence = value.split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
}
