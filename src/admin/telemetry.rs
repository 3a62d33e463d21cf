//! The telemetry listener: serves `/metrics`, `/live` and `/ready`, without authentication.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use tokio::net::TcpListener;

use super::health::Health;
use super::server::{AdminLimits, Server};
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::time::{Now, Timestamp};

/// The text exposition format.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves the telemetry listener until the shutdown's last phase. `gauges` brings up to date what is not counted as it
/// happens, before each scrape.
pub async fn serve_telemetry(
    listener: TcpListener,
    metrics: Metrics,
    gauges: impl Fn() + Send + Sync + 'static,
    health: Arc<Health>,
    limits: AdminLimits,
    shutdown: Shutdown,
) {
    let open = metrics.connections.with_label_values(&["telemetry"]);
    let gauges = Arc::new(gauges);
    let page = move || {
        gauges();
        let response = page(&metrics);
        async move { response }
    };
    let router = Router::new()
        .route("/metrics", get(page))
        .route("/live", get("ok\n"))
        .route("/ready", get(ready).with_state(health))
        .fallback((StatusCode::NOT_FOUND, "not found\n"))
        .method_not_allowed_fallback(|| async { (StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n") })
        .layer(axum::middleware::map_response(uncached));
    Server { router, limits, tls: Arc::default(), open }.serve(listener, shutdown).await;
}

fn page(metrics: &Metrics) -> Response {
    metrics.count_down(Timestamp::now());
    match metrics.render() {
        Ok(page) => ([(CONTENT_TYPE, EXPOSITION)], page).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot render the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn ready(State(health): State<Arc<Health>>) -> Response {
    let (ready, body) = health.at(Now::read());
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}

/// What is said here is true now and not later.
pub(super) async fn uncached(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
