//! The pages of sessions: lists tokens in use, and ends them.

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

/// How many sessions one page shows.
const PAGE: usize = 50;

pub(super) fn routes() -> Router<Console> {
    Router::new()
        .route("/console/sessions", get(list))
        .route("/console/sessions/end", get(confirm_all).post(end_all))
        .route("/console/sessions/{token}/end", get(confirm_one).post(end_one))
}

async fn list(
    State(console): State<Console>,
    visitor: Visitor,
    Query(searched): Query<Searched>,
) -> Result<Response, PageError> {
    visitor.require(Permission::Sessions)?;
    let issuers = console.api.issuers();
    let after = non_empty(&searched.from);
    match console.api.sessions(&searched.sessions(), after.as_deref(), PAGE).await {
        Ok(found) => Ok(pages::list(&visitor, &searched, &issuers, &Ok(found)).into_response()),
        Err(problem) if is_bad(&problem) => {
            let page = pages::list(&visitor, &searched, &issuers, &Err(problem.to_string()));
            Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
        }
        Err(problem) => Err(problem.into()),
    }
}

async fn confirm_one(
    State(console): State<Console>,
    visitor: Visitor,
    Path(token): Path<String>,
) -> Result<Markup, PageError> {
    visitor.require(Permission::Sessions)?;
    let row = console.api.session(&token).await?;
    Ok(pages::confirm_one(&visitor, &row))
}

async fn end_one(
    State(console): State<Console>,
    Path(token): Path<String>,
    sent: SentForm,
) -> Result<Redirect, PageError> {
    sent.visitor.require(Permission::Sessions)?;
    let row = console.api.session(&token).await?;
    console.api.end_sessions(&[row]).await?;
    Ok(Redirect::to(pages::HOME))
}

async fn confirm_all(
    State(console): State<Console>,
    visitor: Visitor,
    Query(searched): Query<Searched>,
) -> Result<Response, PageError> {
    visitor.require(Permission::Sessions)?;
    let of = searched.sessions();
    match console.api.sessions_of(of.subject.as_ref(), of.issuer.as_ref()).await {
        Ok(rows) => Ok(pages::confirm_all(&visitor, &searched, rows.len()).into_response()),
        Err(problem) if is_bad(&problem) => {
            let page = pages::list(&visitor, &searched, &console.api.issuers(), &Err(problem.to_string()));
            Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
        }
        Err(problem) => Err(problem.into()),
    }
}

async fn end_all(State(console): State<Console>, sent: SentForm) -> Result<Redirect, PageError> {
    let SentForm { visitor, fields } = sent;
    visitor.require(Permission::Sessions)?;
    let (subject, issuer) = (non_empty(fields.text("subject")), non_empty(fields.text("issuer")));
    let rows = console.api.sessions_of(subject.as_ref(), issuer.as_ref()).await?;
    console.api.end_sessions(&rows).await?;
    Ok(Redirect::to(pages::HOME))
}
