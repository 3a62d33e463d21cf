//! Shared parts of all lists: strict query parameters, bounded pages, and a cursor.

use axum::extract::Query;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, Uri};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::admin::problem::Problem;
use crate::events::{EventIssuer, parse};
use crate::state::record::{Event, EventKind};

/// Entries of a page when nobody says how many.
const USUAL: usize = 100;
/// Entries of a page at most.
pub(super) const MOST: usize = 1_000;
/// Times that [`MOST`] entries are looked at for a page of those that no index finds; then the page is handed out as short
/// as it is, with the cursor to go on from.
pub(super) const LOOKS: usize = 20;

/// A page. Every member of an entry is always there, `null` where it has no meaning.
#[derive(Serialize)]
pub(super) struct ListPage<T, C> {
    pub(super) items: Vec<T>,
    /// What `after` must be for the next page; `null` when this was the last.
    pub(super) next: Option<C>,
}

impl<T: Serialize, C: Serialize> IntoResponse for ListPage<T, C> {
    fn into_response(self) -> Response {
        axum::Json(self).into_response()
    }
}

/// The query as what is expected; anything else in it, or twice, is an error, because it was meant to say something.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    let parsed = Query::try_from_uri(uri).map_err(|rejection| bad(rejection.body_text()))?;
    Ok(parsed.0)
}

/// How many entries a page may have.
pub(super) fn limit(asked: Option<usize>) -> Result<usize, Problem> {
    match asked {
        None => Ok(USUAL),
        Some(limit @ 1..=MOST) => Ok(limit),
        Some(_) => Err(bad(format!("`limit` must be between 1 and {MOST}"))),
    }
}

/// The value of a parameter that was given, which must not be empty.
pub(super) fn filled<'a>(name: &str, value: Option<&'a String>) -> Result<Option<&'a str>, Problem> {
    match value {
        Some(value) if value.is_empty() => Err(bad(format!("`{name}` is empty"))),
        value => Ok(value.map(String::as_str)),
    }
}

/// The issuer that was named, or all of them.
pub(super) fn named_or_all<'a>(
    named: Option<&str>,
    issuers: &'a [EventIssuer],
) -> Result<Vec<&'a EventIssuer>, Problem> {
    match named {
        Some(_) => Ok(vec![parse::issuer(named, issuers).map_err(bad)?]),
        None => Ok(issuers.iter().collect()),
    }
}

/// Which token a `token-revoked` event names, from any source and by any name.
pub(super) fn token(event: &Event) -> Option<String> {
    (event.kind == EventKind::TokenRevoked).then(|| event.key.to_string())
}

/// What was asked makes no sense.
pub(super) fn bad(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
}
