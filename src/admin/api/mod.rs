//! The admin API: every call is authenticated, every group of endpoints names the permission it needs, every error
//! is a problem document. One file per group.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, MatchedPath, Path, Request, State};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use http::request::Parts;
use http::{Method, StatusCode};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use super::Permission;
use super::auth::{Access, Caller};
use super::problem::Problem;
use super::server::{AdminLimits, Peer, Server};
use super::telemetry::uncached;
use crate::authority::Authority;
use crate::enforce::decide::Enforcer;
use crate::events::{EventIssuer, EventLog};
use crate::log::Refusals;
use crate::metrics::Metrics;
use crate::revocations::Revocations;
use crate::sessions::Sessions;
use crate::shutdown::Shutdown;
use crate::signals::ssf::Receiver;
use crate::state::StoreError;
use crate::time::Monotonic;
use crate::usage::Usage;

mod accounts;
mod config;
mod credentials;
mod events;
mod explain;
mod list;
mod openapi;
mod revocations;
mod sessions;
mod ssf;
mod usage;
mod users;
mod whom;

pub(crate) use events::EventSearch;
pub(crate) use explain::Presented;
pub(crate) use sessions::{SessionFilter, SessionSearch};
pub(crate) use whom::WhomFilter;

/// What the admin API can see and set in motion.
#[derive(Debug, Clone)]
pub struct Control {
    /// Commands for the task that runs the process.
    pub commands: mpsc::Sender<ControlCommand>,
    /// The effective configuration, secrets redacted.
    pub effective: Arc<ArcSwap<Value>>,
    /// What decides on requests, for explanations.
    pub enforcer: Arc<ArcSwap<Enforcer>>,
    /// Users and credentials, when this gate issues tokens itself.
    pub authority: Option<Arc<Authority>>,
    /// The latest rejected requests.
    pub refusals: Refusals,
}

/// What a caller may ask of the task that runs the process.
#[derive(Debug)]
pub enum ControlCommand {
    /// Read the configuration again; answered when it is in force, or with everything that is wrong with it.
    Reload(oneshot::Sender<Result<(), Vec<String>>>),
}

/// What decides which tokens are in force, for the endpoints that change it.
#[derive(Debug, Clone)]
pub struct Ledger {
    /// Where events go.
    pub log: Arc<EventLog>,
    /// Where pushed security event tokens go.
    pub receiver: Arc<Receiver>,
    /// What they ended.
    pub revocations: Arc<Revocations>,
    /// The tokens in use.
    pub sessions: Arc<Sessions>,
    /// Who used what.
    pub usage: Arc<Usage>,
    /// The issuers that events may name; a reload puts others here.
    pub issuers: Arc<ArcSwap<Vec<EventIssuer>>>,
}

/// What the endpoints and the pages of the console work with.
#[derive(Debug, Clone)]
pub struct Api {
    control: Control,
    ledger: Ledger,
    metrics: Metrics,
    limits: AdminLimits,
}

impl Api {
    /// What is asked of it is done to these.
    #[must_use]
    pub const fn new(control: Control, ledger: Ledger, metrics: Metrics, limits: AdminLimits) -> Self {
        Self { control, ledger, metrics, limits }
    }

    /// Users and credentials, when this gate issues tokens itself.
    pub(crate) const fn authority(&self) -> Option<&Arc<Authority>> {
        self.control.authority.as_ref()
    }

    /// The latest rejected requests.
    pub(crate) const fn refusals(&self) -> &Refusals {
        &self.control.refusals
    }

    /// All instruments.
    pub(crate) const fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Where pushed security event tokens go.
    pub(crate) fn receiver(&self) -> &Receiver {
        &self.ledger.receiver
    }

    /// The names of the issuers that events may name.
    pub(crate) fn issuers(&self) -> Vec<Arc<str>> {
        self.ledger.issuers.load().iter().map(|known| Arc::clone(&known.issuer)).collect()
    }

    /// Limits of the listener.
    pub(crate) const fn limits(&self) -> &AdminLimits {
        &self.limits
    }

    /// The store could not do what was asked.
    fn unavailable(&self, error: &StoreError) -> Problem {
        self.metrics.state_errors.with_label_values(&[error.kind()]).inc();
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

/// The id in a path, percent-decoded.
struct Id(String);

impl FromRequestParts<Api> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let found: Result<Path<String>, PathRejection> = Path::from_request_parts(parts, api).await;
        found.map(|Path(id)| Self(id)).map_err(|rejection| list::bad(rejection.body_text()))
    }
}

/// Serves the admin listener until the shutdown's last phase: the API, and `pages` beside it.
pub async fn serve_admin(
    listener: TcpListener,
    access: Arc<Access>,
    api: Api,
    pages: Router,
    shutdown: Shutdown,
) {
    let (open, limits) = (api.metrics.connections.with_label_values(&["admin"]), api.limits);
    let tls = Arc::clone(&access.tls);
    let router = router(api, access).merge(pages);
    Server { router, limits, tls, open }.serve(listener, shutdown).await;
}

/// Every group of endpoints with the permission it needs.
fn router(api: Api, access: Arc<Access>) -> Router {
    Router::new()
        .merge(permitted(Permission::Config, config::routes()))
        .merge(either(Permission::Signals, Permission::Events, ssf::routes()))
        .merge(permitted(Permission::Events, events::routes()))
        .merge(permitted(Permission::Events, revocations::routes()))
        .merge(permitted(Permission::Sessions, sessions::routes()))
        .merge(permitted(Permission::Sessions, usage::routes()))
        .merge(permitted(Permission::Sessions, explain::routes()))
        .merge(permitted(Permission::Authority, users::routes()))
        .merge(permitted(Permission::Authority, credentials::routes()))
        .merge(openapi::routes())
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "there is no such endpoint") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "the endpoint does not support this method")
        })
        .layer(from_fn_with_state(access, authenticated))
        .layer(map_response(uncached))
        .with_state(api)
}

/// These endpoints for callers with this permission.
fn permitted(permission: Permission, routes: Router<Api>) -> Router<Api> {
    routes.route_layer(from_fn_with_state(permission, require))
}

/// These endpoints for callers with one of two permissions; the answer to others names the first.
fn either(first: Permission, second: Permission, routes: Router<Api>) -> Router<Api> {
    routes.route_layer(from_fn_with_state((first, second), require_either))
}

async fn require_either(
    State((first, second)): State<(Permission, Permission)>,
    Extension(caller): Extension<Caller>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    caller.require(if caller.may(second) { second } else { first })?;
    Ok(next.run(request).await)
}

async fn require(
    State(permission): State<Permission>,
    Extension(caller): Extension<Caller>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    caller.require(permission)?;
    Ok(next.run(request).await)
}

/// Lets a request through with the caller among its extensions, and logs who asked for what.
async fn authenticated(
    State(access): State<Arc<Access>>,
    Extension(Peer(peer)): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let method = request.method().clone();
    // The pattern, not the path: a path may name a person.
    let path = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let (name, response) = match access.authenticate(request.headers(), peer.ip(), Monotonic::now()) {
        Ok(caller) => {
            let name = Arc::clone(&caller.name);
            request.extensions_mut().insert(caller);
            (Some(name), next.run(request).await)
        }
        Err(problem) => (None, problem.into_response()),
    };
    let status = response.status();
    let (caller, client_address) = (name.as_deref().unwrap_or("unknown"), peer.ip());
    let (method, reads) = (method.as_str(), matches!(method, Method::GET | Method::HEAD));
    let is_refused =
        matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS);
    if is_refused {
        tracing::warn!(caller, %client_address, method, path, status = status.as_u16(), "admin call rejected");
    } else if reads {
        tracing::debug!(caller, %client_address, method, path, status = status.as_u16(), "admin call");
    } else {
        tracing::info!(caller, %client_address, method, path, status = status.as_u16(), "admin call");
    }
    response
}
