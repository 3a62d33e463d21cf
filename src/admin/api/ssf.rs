//! `/v1/ssf/{transmitter}`: security event tokens as a transmitter pushes them (RFC 8935).

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use http::header::{CONTENT_LANGUAGE, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use serde_json::json;

use super::Api;
use crate::admin::body::read;
use crate::admin::problem::Problem;
use crate::admin::server::AdminLimits;
use crate::signals::ssf::{Answer, Code, MAX_BYTES, Undelivered};

/// Seconds after which a transmitter may send again what could not be taken in.
const RETRY_SECONDS: &str = "5";

pub(super) fn routes() -> Router<Api> {
    Router::new().route("/v1/ssf/{transmitter}", post(push))
}

/// Answers 202 when everything the token says is durable and in force, not before.
async fn push(
    State(api): State<Api>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let receiver = &api.ledger.receiver;
    let Some(transmitter) = receiver.transmitter(&name) else {
        return Ok(refused(StatusCode::NOT_FOUND, Code::InvalidRequest, "there is no such transmitter"));
    };
    let (head, body) = request.into_parts();
    let body = read(body, &AdminLimits { body_bytes: MAX_BYTES, ..api.limits }).await?;
    Ok(match receiver.deliver(&transmitter, &body, content_type(&head.headers)).await {
        Ok(Answer::Accepted) => StatusCode::ACCEPTED.into_response(),
        Ok(Answer::Ok) => StatusCode::OK.into_response(),
        Err(Undelivered::Refused(refusal)) => {
            refused(StatusCode::BAD_REQUEST, refusal.code, refusal.description)
        }
        Err(Undelivered::NoKeys) => {
            let detail = "the keys of the transmitter cannot be used now";
            unavailable(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail))
        }
        Err(Undelivered::Store(error)) => unavailable(api.unavailable(&error)),
    })
}

fn unavailable(problem: Problem) -> Response {
    ([(RETRY_AFTER, RETRY_SECONDS)], problem).into_response()
}

/// The one `Content-Type`; two are none.
fn content_type(headers: &HeaderMap) -> Option<&str> {
    let mut fields = headers.get_all(CONTENT_TYPE).iter();
    fields.next().filter(|_| fields.next().is_none())?.to_str().ok()
}

/// An error in the form of RFC 8935 §2.3, which demands the language of the description.
fn refused(status: StatusCode, code: Code, description: &str) -> Response {
    let body = json!({ "err": code.as_str(), "description": description });
    (status, [(CONTENT_LANGUAGE, "en")], Json(body)).into_response()
}
