//! Explains why a token is rejected: every check with what was compared, and the latest rejected requests by request id.
//!
//! A token arrives in a form body, is checked and discarded: it appears on no page and in no log line.

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, Method, StatusCode, Uri};
use maud::Markup;

use super::Console;
use super::form::{Fields, SentForm};
use super::page_error::PageError;
use super::visitor::Visitor;
use crate::admin::{Permission, Presented};
use crate::time::Timestamp;

mod pages;

use pages::Lookup;

/// How many rejected requests are listed.
const LISTED: usize = 20;

pub(super) fn routes() -> Router<Console> {
    Router::new().route(pages::HOME, get(show).post(judge))
}

async fn show(State(console): State<Console>, visitor: Visitor, uri: Uri) -> Result<Markup, PageError> {
    visitor.require(Permission::Sessions)?;
    let asked = Fields::parse(uri.query().unwrap_or_default().as_bytes());
    let refusals = console.api.refusals();
    let (id, reason) = (asked.trimmed("request"), asked.trimmed("reason"));
    let lookup = match refusals.find(id) {
        _ if id.is_empty() => Lookup::Nothing,
        Some(refusal) => Lookup::Found(refusal),
        None => Lookup::Unknown(id),
    };
    let latest = refusals.latest(LISTED, (!reason.is_empty()).then_some(reason));
    Ok(pages::overview(&visitor, &lookup, (&latest, reason, refusals.missed()), Timestamp::now()))
}

async fn judge(State(console): State<Console>, sent: SentForm) -> Result<Response, PageError> {
    let SentForm { visitor, fields } = sent;
    visitor.require(Permission::Sessions)?;
    let (token, path, host) = (fields.trimmed("token"), fields.trimmed("path"), fields.trimmed("host"));
    let method = Method::from_bytes(fields.trimmed("method").as_bytes());
    let problem = match &method {
        _ if token.is_empty() => Some(("token", "Paste the token here.")),
        _ if !path.starts_with('/') => Some(("path", "A path must begin with “/”.")),
        Err(_) => Some(("method", "This is not a valid HTTP method.")),
        Ok(_) => None,
    };
    let (Ok(method), None) = (method, problem) else {
        let page = pages::again(&visitor, &fields, problem);
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    };
    let (host, headers) = ((!host.is_empty()).then_some(host), HeaderMap::new());
    let presented = Presented { token, method: &method, path, host, headers: &headers };
    let explanation = console.api.explain(&presented).await;
    Ok(pages::verdict(&visitor, &fields, &explanation).into_response())
}
