//! Application credentials: users manage their own; operators with the permission `authority` manage all.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use http::StatusCode;
use maud::Markup;
use serde::Deserialize;

use super::form::{Fields, ONCE, SentForm};
use super::page_error::PageError;
use super::visitor::Visitor;
use super::{Console, Shared};
use crate::admin::{Permission, SessionFilter};
use crate::authority::{Authority, Credential, Edit, NewCredential, Refused, Secret, User};
use crate::time::Timestamp;

mod input;
mod pages;

use input::Expiry;

/// How many credentials one page shows.
const PAGE: usize = 50;

pub(super) fn routes() -> Router<Console> {
    Router::new()
        .route("/console/credentials", get(list))
        .route("/console/credentials/new", get(blank).post(create))
        .route("/console/credentials/{client_id}", get(show))
        .route("/console/credentials/{client_id}/edit", post(edit))
        .route("/console/credentials/{client_id}/secret", post(new_secret))
        .route("/console/credentials/{client_id}/delete", get(confirm).post(delete))
}

/// A credential with everything that its pages show.
pub(super) struct Shown {
    pub(super) credential: Arc<Credential>,
    pub(super) owner: Option<Arc<User>>,
    /// When a request was last forwarded with one of its tokens, as far as usage is counted by client.
    pub(super) last_used_at: Option<Timestamp>,
}

/// Returns the authority and, if the visitor may see only the credentials of one user, that user. Fails for
/// visitors who may see none.
fn authority_for<'a>(
    console: &'a Shared,
    visitor: &'a Visitor,
) -> Result<(&'a Arc<Authority>, Option<&'a Arc<User>>), PageError> {
    let user = visitor.user();
    if user.is_none() {
        visitor.require(Permission::Authority)?;
    }
    let authority = console.api.authority().ok_or_else(|| {
        PageError::Forbidden("This gate does not issue tokens: [authority] is not configured.".into())
    })?;
    Ok((authority, user))
}

/// Finds the credential of a path. For a user, the credentials of other users do not exist.
fn find<'a>(
    console: &'a Shared,
    visitor: &'a Visitor,
    client_id: &str,
) -> Result<(&'a Arc<Authority>, Arc<Credential>), PageError> {
    let (authority, user) = authority_for(console, visitor)?;
    let credential = authority.credential(client_id);
    let own = credential.filter(|found| user.is_none_or(|user| user.id == found.owner));
    Ok((authority, own.ok_or(PageError::NoPage)?))
}

async fn shown(
    console: &Shared,
    authority: &Authority,
    credential: Arc<Credential>,
) -> Result<Shown, PageError> {
    let usage = console.api.usage(Some(&credential.client_id)).await?;
    let last_used_at = usage.iter().map(|row| row.last_used_at).max();
    Ok(Shown { owner: authority.user(&credential.owner), credential, last_used_at })
}

#[derive(Deserialize, Default)]
struct CredentialListQuery {
    owner: Option<String>,
    after: Option<String>,
}

async fn list(
    State(console): State<Console>,
    visitor: Visitor,
    Query(wanted): Query<CredentialListQuery>,
) -> Result<Markup, PageError> {
    let (authority, user) = authority_for(&console, &visitor)?;
    let asked = wanted.owner.as_deref().filter(|owner| !owner.is_empty());
    let owner = user.map(|user| &*user.id).or(asked);
    let mut found = authority.credentials(owner, wanted.after.as_deref(), PAGE + 1);
    let more = found.len() > PAGE;
    found.truncate(PAGE);
    let mut rows = Vec::with_capacity(found.len());
    for credential in found {
        rows.push(shown(&console, authority, credential).await?);
    }
    let next = rows.last().filter(|_| more).map(|last| last.credential.client_id.to_string());
    Ok(pages::list(&visitor, &rows, owner, next))
}

/// The owner of a new credential: the user who is signed in, or the one that an operator named.
fn owner(authority: &Authority, user: Option<&Arc<User>>, named: &str) -> Option<Arc<User>> {
    user.cloned().or_else(|| authority.user(named))
}

async fn blank(
    State(console): State<Console>,
    visitor: Visitor,
    Query(wanted): Query<CredentialListQuery>,
) -> Result<Markup, PageError> {
    let (authority, user) = authority_for(&console, &visitor)?;
    let named = wanted.owner.unwrap_or_default();
    Ok(match owner(authority, user, &named) {
        Some(owner) => {
            pages::form(&visitor, &owner, &authority.settings(), (&Fields::default(), None), Timestamp::now())
        }
        None => pages::choose_owner(&visitor, &authority.users(None, 1_000), &named),
    })
}

async fn create(State(console): State<Console>, sent: SentForm) -> Result<Response, PageError> {
    let SentForm { visitor, fields } = sent;
    let (authority, user) = authority_for(&console, &visitor)?;
    let owner = owner(authority, user, fields.text("owner")).ok_or(PageError::NoPage)?;
    let (settings, now) = (authority.settings(), Timestamp::now());
    let again = |problem: (&str, &str)| {
        let page = pages::form(&visitor, &owner, &settings, (&fields, Some(problem)), now);
        Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
    };
    let expires_at = match Expiry::read(&fields, now) {
        Ok(expiry) => expiry,
        Err(why) => return again(("expires_at", why)),
    };
    if !console.visits.is_first(&visitor.cookie, fields.text(ONCE)) {
        return Ok(pages::sent_before(&visitor).into_response());
    }
    let tenant = fields.trimmed("tenant");
    let new = NewCredential {
        name: fields.trimmed("name").to_owned(),
        owner: owner.id.to_string(),
        roles: fields.all("role"),
        scopes: fields.all("scope"),
        tenant: (!tenant.is_empty()).then(|| tenant.to_owned()),
        expires_at,
    };
    match authority.create_credential(new).await {
        Ok((credential, secret)) => {
            Ok((StatusCode::CREATED, made(&visitor, authority, &credential, &secret)).into_response())
        }
        Err(Refused::Invalid { field, why }) => again((field, &why)),
        Err(refused) => Err(console.api.refused(refused).into()),
    }
}

fn made(visitor: &Visitor, authority: &Authority, credential: &Credential, secret: &Secret) -> Markup {
    pages::made(visitor, &authority.settings(), credential, secret.reveal())
}

async fn show(
    State(console): State<Console>,
    visitor: Visitor,
    Path(client_id): Path<String>,
) -> Result<Markup, PageError> {
    details(&console, &visitor, &client_id, (&Fields::default(), None)).await
}

async fn details(
    console: &Shared,
    visitor: &Visitor,
    client_id: &str,
    typed: (&Fields, Option<(&str, &str)>),
) -> Result<Markup, PageError> {
    let (authority, credential) = find(console, visitor, client_id)?;
    let in_use = tokens(console, authority, &credential).await?;
    let shown = shown(console, authority, credential).await?;
    Ok(pages::details(visitor, &shown, in_use, typed, Timestamp::now()))
}

/// Counts how many of its tokens are in use.
async fn tokens(
    console: &Shared,
    authority: &Authority,
    credential: &Credential,
) -> Result<usize, PageError> {
    let theirs = SessionFilter::of_client(&authority.settings().issuer, &credential.client_id);
    Ok(console.api.in_use(theirs, None, usize::MAX).await?.0.len())
}

async fn edit(
    State(console): State<Console>,
    Path(client_id): Path<String>,
    sent: SentForm,
) -> Result<Response, PageError> {
    let SentForm { visitor, fields } = sent;
    let (authority, credential) = find(&console, &visitor, &client_id)?;
    let edit = match Expiry::read(&fields, Timestamp::now()) {
        Ok(expires_at) => {
            let unchanged = fields.text("lifetime") == Expiry::KEPT;
            Edit {
                name: Some(fields.trimmed("name").to_owned()),
                expires_at: (!unchanged).then_some(expires_at),
            }
        }
        Err(why) => {
            let page = details(&console, &visitor, &client_id, (&fields, Some(("expires_at", why)))).await?;
            return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
        }
    };
    match authority.edit_credential(&credential.client_id, edit).await {
        Ok(_) => Ok(Redirect::to(&pages::path(&client_id)).into_response()),
        Err(Refused::Invalid { field, why }) => {
            let page = details(&console, &visitor, &client_id, (&fields, Some((field, &why)))).await?;
            Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
        }
        Err(refused) => Err(console.api.refused(refused).into()),
    }
}

async fn new_secret(
    State(console): State<Console>,
    Path(client_id): Path<String>,
    sent: SentForm,
) -> Result<Response, PageError> {
    let SentForm { visitor, fields } = sent;
    let (authority, credential) = find(&console, &visitor, &client_id)?;
    let overlap = input::overlap(&fields)
        .ok_or_else(|| PageError::Unreadable("This is not one of the choices.".into()))?;
    if !console.visits.is_first(&visitor.cookie, fields.text(ONCE)) {
        return Ok(pages::sent_before(&visitor).into_response());
    }
    let ends = fields.is_ticked("end_tokens");
    let renewed = authority.new_secret(&credential.client_id, overlap, ends).await;
    let (credential, secret) = renewed.map_err(|refused| console.api.refused(refused))?;
    Ok((StatusCode::CREATED, made(&visitor, authority, &credential, &secret)).into_response())
}

async fn confirm(
    State(console): State<Console>,
    visitor: Visitor,
    Path(client_id): Path<String>,
) -> Result<Markup, PageError> {
    let (authority, credential) = find(&console, &visitor, &client_id)?;
    let in_use = tokens(&console, authority, &credential).await?;
    Ok(pages::confirm(&visitor, &credential, in_use))
}

async fn delete(
    State(console): State<Console>,
    Path(client_id): Path<String>,
    sent: SentForm,
) -> Result<Response, PageError> {
    let (authority, credential) = find(&console, &sent.visitor, &client_id)?;
    let deleted = authority.delete_credential(&credential.client_id).await;
    deleted.map_err(|refused| console.api.refused(refused))?;
    Ok(Redirect::to("/console/credentials").into_response())
}
