//! `/v1/config` and `/v1/reload`: shows the effective configuration and reloads it.

use axum::extract::{Request, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Api, ControlCommand};
use crate::admin::body::read_json;
use crate::admin::problem::Problem;

pub(super) fn routes() -> Router<Api> {
    Router::new().route("/v1/config", get(effective)).route("/v1/reload", post(reload))
}

async fn effective(State(api): State<Api>) -> Json<Value> {
    Json(Value::clone(&api.control.effective.load()))
}

/// A reload takes no arguments.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

async fn reload(State(api): State<Api>, request: Request) -> Result<Json<Value>, Problem> {
    let _: Option<Nothing> = read_json(request, &api.limits).await?;
    let (answer, answered) = oneshot::channel();
    let unavailable =
        || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "cannot reload at the moment; try again");
    api.control.commands.try_send(ControlCommand::Reload(answer)).map_err(|_busy| unavailable())?;
    match answered.await {
        Ok(Ok(())) => Ok(Json(json!({ "reloaded": true }))),
        Ok(Err(problems)) => {
            let detail = "the new configuration was refused; the previous one stays in effect";
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail).with_problems(problems))
        }
        Err(_) => Err(unavailable()),
    }
}
