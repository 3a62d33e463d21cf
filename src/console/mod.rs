//! The console: web pages on the admin listener for people who manage application credentials and for operators.
//!
//! Pages are rendered on the server and work without JavaScript where possible. Every change uses the same functions as the
//! admin API; the only rule here is who may see which page.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{any, get};
use http::{HeaderValue, Method, StatusCode, header};

use crate::admin::{Access, Api, Peer, Problem};

mod assets;
mod credentials;
mod events;
mod explain;
mod form;
mod layout;
mod live;
mod page_error;
mod revocations;
mod search;
mod sessions;
mod show;
mod sign_in;
mod usage;
mod users;
mod visitor;
mod visits;

use live::LivePage;
use page_error::PageError;
use sign_in::Guesses;
use visitor::Visitor;
use visits::Visits;

pub use live::Watched;

/// The path of the console on the admin listener.
const ROOT: &str = "/console/";

/// The shared state of all pages.
#[derive(Clone)]
struct Console(Arc<Shared>);

struct Shared {
    /// The operations of the admin API.
    api: Api,
    /// The admin tokens.
    access: Arc<Access>,
    /// `console.enabled`, which a reload may change.
    enabled: Arc<AtomicBool>,
    /// The visitors who are signed in.
    visits: Visits,
    /// The limits on guessing passwords and tokens.
    guesses: Guesses,
    /// What the live page shows.
    live: LivePage,
}

impl std::ops::Deref for Console {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Shared {
    /// Whether the configuration enables the console.
    fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    /// Whether anybody could sign in.
    fn can_anybody_sign_in(&self) -> bool {
        self.access.has_tokens()
            || self.api.authority().is_some_and(|authority| authority.has_password_users())
    }
}

/// The pages, for the router of the admin listener; all of them respond with 404 unless `enabled` is true.
///
/// Must be called within a runtime, in which the live page is sampled until the gate has drained.
pub fn router(api: Api, access: Arc<Access>, enabled: Arc<AtomicBool>, watched: Watched) -> Router {
    let console = Console(Arc::new(Shared {
        api,
        access,
        enabled,
        visits: Visits::default(),
        guesses: Guesses::default(),
        live: LivePage::new(watched),
    }));
    tokio::spawn(live::sample(console.clone()));
    let pages = Router::new()
        .route(ROOT, get(home))
        .merge(sign_in::routes())
        .merge(credentials::routes())
        .merge(users::routes())
        .merge(live::routes())
        .merge(explain::routes())
        .merge(events::routes())
        .merge(revocations::routes())
        .merge(sessions::routes())
        .merge(usage::routes())
        .route("/console/{*rest}", any(|| async { PageError::NoPage }))
        .layer(from_fn_with_state(console.clone(), logged))
        // The outermost layer, so that it also applies to every error.
        .layer(from_fn(secured))
        .with_state(console.clone());
    Router::new()
        .route("/console", get(|| async { Redirect::permanent(ROOT) }))
        .merge(assets::routes())
        .merge(pages)
}

/// Redirects to the first page that the visitor may see.
async fn home(visitor: Visitor) -> Response {
    match visitor.tabs().next() {
        Some(tab) => Redirect::to(tab.path).into_response(),
        None => PageError::Forbidden("This token has no permission for any page of the console.".into())
            .into_response(),
    }
}

/// Adds the headers that restrict what a browser does with the pages.
async fn secured(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
             form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
        (header::X_FRAME_OPTIONS, "DENY"),
        // With `no-referrer`, browsers send `Origin: null`, and our own forms would be rejected.
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Serves a page if the console is enabled, and logs what was requested and by whom.
async fn logged(State(console): State<Console>, request: Request, next: Next) -> Response {
    if !console.is_enabled() {
        return Problem::new(StatusCode::NOT_FOUND, "the console is disabled").into_response();
    }
    if !console.can_anybody_sign_in() {
        return PageError::NobodyCanSignIn.into_response();
    }
    let method = request.method().clone();
    // The pattern, not the path: a path may contain the name of a person.
    let path = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let client_address = request.extensions().get::<Peer>().map(|Peer(peer)| peer.ip());
    let client_address = client_address.map(|address| address.to_string()).unwrap_or_default();
    let caller = console.logged_name(request.headers());
    let response = next.run(request).await;
    let (reads, status) = (matches!(method, Method::GET | Method::HEAD), response.status());
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS) {
        tracing::warn!(
            caller,
            client_address,
            method = method.as_str(),
            path,
            status = status.as_u16(),
            "console request rejected"
        );
    } else if reads {
        tracing::debug!(
            caller,
            client_address,
            method = method.as_str(),
            path,
            status = status.as_u16(),
            "console"
        );
    } else {
        tracing::info!(
            caller,
            client_address,
            method = method.as_str(),
            path,
            status = status.as_u16(),
            "console"
        );
    }
    response
}
