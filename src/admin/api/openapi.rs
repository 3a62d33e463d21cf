//! `/openapi.json`: the description of the admin API (OpenAPI 3.1), for callers with any permission.
//!
//! The document is a file kept by hand. Deriving it from types would leave out most of what callers need to know, because
//! the types say nothing of permissions, of what each type of event needs, or of statuses. Tests hold it instead: its
//! routes and permissions are compared with those of the router, and a gate is called by it with good and bad input.

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;
use http::header::CONTENT_TYPE;

use super::Api;

/// The document.
const DOCUMENT: &str = include_str!("openapi.json");

pub(super) fn routes() -> Router<Api> {
    Router::new().route("/openapi.json", get(document))
}

async fn document() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT)
}
