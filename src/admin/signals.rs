//! The separate listener for signals (`[signals] listen`).
//!
//! Knows HTTP and connection limits; the intake decides what a request means.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use prometheus::IntGauge;
use tokio::net::TcpListener;

use super::body::read;
use super::server::{AdminLimits, Peer, Server};
use crate::shutdown::Shutdown;
use crate::signals::SignalRequest;
use crate::signals::intake::Intake;
use crate::tls::ServerTls;

/// Limits of a listener that everybody may be able to reach.
const LIMITS: AdminLimits = AdminLimits {
    connections: 256,
    header_timeout: Duration::from_secs(10),
    body_timeout: Duration::from_secs(10),
    body_bytes: 0,
};

/// Serves the endpoints of the intake in force until the shutdown's last phase. Without one nothing is there.
pub async fn serve_signals(
    listener: TcpListener,
    intake: Arc<ArcSwapOption<Intake>>,
    tls: Arc<ArcSwapOption<ServerTls>>,
    open: IntGauge,
    shutdown: Shutdown,
) {
    let router = Router::new().fallback(answer).with_state(intake);
    Server { router, limits: LIMITS, tls, open }.serve(listener, shutdown).await;
}

async fn answer(State(intake): State<Arc<ArcSwapOption<Intake>>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let not_found = || {
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::NOT_FOUND;
        answer
    };
    let Some(intake) = intake.load_full() else { return not_found() };
    let Some(endpoint) = intake.endpoint(head.uri.path()) else { return not_found() };
    // Every connection has one; without it, nobody is limited by mistake for another.
    let Some(Peer(peer)) = head.extensions.get::<Peer>().copied() else { return not_found() };
    let address = peer.ip().to_canonical();
    let most = match intake.admit(&endpoint, &head.method, address) {
        Ok(most) => most,
        Err(answer) => return (*answer).map(Body::from),
    };
    let body = match read(body, &AdminLimits { body_bytes: most, ..LIMITS }).await {
        Ok(body) => Some(body),
        Err(problem) if problem.status() == StatusCode::PAYLOAD_TOO_LARGE => None,
        Err(_) => return intake.incomplete(&endpoint).map(Body::from),
    };
    let request = SignalRequest {
        method: &head.method,
        path: endpoint.path(),
        query: head.uri.query().map(str::as_bytes),
        headers: &head.headers,
        body: body.as_deref(),
        address,
    };
    intake.answer(&endpoint, &request).await.map(Body::from)
}
