//! The style sheet, script and icon, embedded in the binary.

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};

/// Name, media type and content of each asset.
const ALL: [(&str, &str, &str); 3] = [
    ("console.css", "text/css; charset=utf-8", include_str!("assets/console.css")),
    ("console.js", "text/javascript; charset=utf-8", include_str!("assets/console.js")),
    ("icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
];

/// Changes whenever an asset changes, so that browsers can cache assets indefinitely.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let all: String = ALL.iter().map(|(_, _, content)| *content).collect();
    digest(&SHA256, all.as_bytes()).as_ref().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
});

/// The URL of an asset.
pub(super) fn url(name: &str) -> String {
    format!("/console/assets/{name}?v={}", *VERSION)
}

pub(super) fn routes() -> Router {
    Router::new().route("/console/assets/{name}", get(asset))
}

async fn asset(Path(name): Path<String>) -> Response {
    match ALL.iter().find(|(known, _, _)| *known == name) {
        Some((_, kind, content)) => (
            [
                (header::CONTENT_TYPE, *kind),
                (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            ],
            *content,
        )
            .into_response(),
        None => (StatusCode::NOT_FOUND, "not found\n").into_response(),
    }
}
