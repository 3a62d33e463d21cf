//! `/v1/ssf/{transmitter}`: accepts security event tokens that a transmitter pushes (RFC 8935).

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use http::StatusCode;

use super::{Api, Id};
use crate::admin::body::read;
use crate::admin::problem::Problem;
use crate::admin::server::AdminLimits;
use crate::signals::intake::push;
use crate::signals::ssf::{MAX_BYTES, Undelivered};

pub(super) fn routes() -> Router<Api> {
    Router::new().route("/v1/ssf/{transmitter}", post(push_to))
}

/// Answers 202 when everything the token says is durable and in force, not before.
async fn push_to(State(api): State<Api>, Id(name): Id, request: Request) -> Result<Response, Problem> {
    let receiver = &api.ledger.receiver;
    let Some(transmitter) = receiver.transmitter(&name) else {
        return Ok(push::unknown().map(Body::from));
    };
    let (head, body) = request.into_parts();
    let body = read(body, &AdminLimits { body_bytes: MAX_BYTES, ..api.limits }).await?;
    Ok(match push::push(receiver, &transmitter, &head.headers, &body).await {
        Ok(answer) => answer.map(Body::from),
        // It is counted where it happened.
        Err(Undelivered::Store(error)) => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response()
        }
        Err(Undelivered::NoKeys | Undelivered::Refused(_)) => {
            let detail = "the keys of the transmitter are temporarily unavailable";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response()
        }
    })
}
