//! The pages of revocations: lists events that are still in effect, and undoes them.

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use http::StatusCode;
use maud::Markup;

use super::Console;
use super::form::SentForm;
use super::page_error::PageError;
use super::search::{Searched, non_empty};
use super::visitor::Visitor;
use crate::admin::{Permission, is_bad};

mod pages;

/// How many revocations one page shows.
const PAGE: usize = 50;

pub(super) fn routes() -> Router<Console> {
    Router::new()
        .route("/console/revocations", get(list))
        .route("/console/revocations/{sequence}/undo", get(confirm).post(undo))
}

/// The path of the page that asks for confirmation before an event is undone.
pub(super) fn undo_path(sequence: u64) -> String {
    format!("{}/{sequence}/undo", pages::HOME)
}

async fn list(
    State(console): State<Console>,
    visitor: Visitor,
    Query(searched): Query<Searched>,
) -> Result<Response, PageError> {
    visitor.require(Permission::Events)?;
    let issuers = console.api.issuers();
    let after = match non_empty(&searched.from) {
        Some(from) => from.parse().map_err(|_not_a_number| PageError::NoPage)?,
        None => 0,
    };
    match console.api.revocations(&searched.whom(), after, PAGE).await {
        Ok(part) => Ok(pages::list(&visitor, &searched, &issuers, &Ok(part)).into_response()),
        Err(problem) if is_bad(&problem) => {
            let page = pages::list(&visitor, &searched, &issuers, &Err(problem.to_string()));
            Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
        }
        Err(problem) => Err(problem.into()),
    }
}

/// Parses the sequence in a path.
fn sequence(text: &str) -> Result<u64, PageError> {
    text.parse().map_err(|_not_a_number| PageError::NoPage)
}

async fn confirm(
    State(console): State<Console>,
    visitor: Visitor,
    Path(text): Path<String>,
) -> Result<Markup, PageError> {
    visitor.require(Permission::Events)?;
    let stored = console.api.revocation(sequence(&text)?).await?;
    Ok(pages::confirm(&visitor, &stored))
}

async fn undo(
    State(console): State<Console>,
    Path(text): Path<String>,
    sent: SentForm,
) -> Result<Redirect, PageError> {
    sent.visitor.require(Permission::Events)?;
    console.api.undo(sequence(&text)?).await?;
    Ok(Redirect::to(pages::HOME))
}
