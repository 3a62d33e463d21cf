//! The users of the authority, for operators with the permission `authority`.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use http::StatusCode;
use maud::Markup;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::form::{Fields, SentForm};
use super::page_error::PageError;
use super::visitor::Visitor;
use super::{Console, Shared};
use crate::admin::{Permission, SessionFilter};
use crate::authority::{Authority, NewUser, Refused, User};
use crate::time::Timestamp;

mod pages;

/// How many users one page shows.
const PAGE: usize = 50;

pub(super) fn routes() -> Router<Console> {
    Router::new()
        .route("/console/users", get(list).post(create))
        .route("/console/users/{id}", get(show))
        .route("/console/users/{id}/roles", post(roles))
        .route("/console/users/{id}/password", post(password))
        .route("/console/users/{id}/delete", get(confirm).post(delete))
}

/// The tokens of a user that are in use and would end if the roles change.
pub(super) struct InUse {
    pub(super) tokens: usize,
    /// The names of the applications that they were issued to.
    pub(super) applications: BTreeSet<String>,
}

fn authority_for<'a>(console: &'a Shared, visitor: &Visitor) -> Result<&'a Arc<Authority>, PageError> {
    visitor.require(Permission::Authority)?;
    console.api.authority().ok_or_else(|| {
        PageError::Forbidden("This gate does not issue tokens: [authority] is not configured.".into())
    })
}

async fn in_use(console: &Shared, authority: &Authority, user: &User) -> Result<InUse, PageError> {
    let theirs = SessionFilter::of_subject(&authority.settings().issuer, &user.id);
    let (rows, _) = console.api.in_use(theirs, None, usize::MAX).await?;
    let name = |client_id: &str| {
        authority.credential(client_id).map_or_else(|| client_id.to_owned(), |found| found.name.to_string())
    };
    let applications = rows.iter().filter_map(|row| row.client.as_deref()).map(name).collect();
    Ok(InUse { tokens: rows.len(), applications })
}

#[derive(Deserialize, Default)]
struct UserListQuery {
    after: Option<String>,
}

async fn list(
    State(console): State<Console>,
    visitor: Visitor,
    Query(wanted): Query<UserListQuery>,
) -> Result<Markup, PageError> {
    let authority = authority_for(&console, &visitor)?;
    Ok(listed(authority, &visitor, wanted.after.as_deref(), (&Fields::default(), None)))
}

fn listed(
    authority: &Authority,
    visitor: &Visitor,
    after: Option<&str>,
    typed: (&Fields, Option<(&str, &str)>),
) -> Markup {
    let mut users = authority.users(after, PAGE + 1);
    let more = users.len() > PAGE;
    users.truncate(PAGE);
    let next = users.last().filter(|_| more).map(|last| last.id.to_string());
    pages::list(visitor, &users, next, typed, Timestamp::now())
}

async fn create(State(console): State<Console>, sent: SentForm) -> Result<Response, PageError> {
    let SentForm { visitor, fields } = sent;
    let authority = authority_for(&console, &visitor)?;
    let new = NewUser {
        id: fields.trimmed("id").to_owned(),
        name: fields.trimmed("name").to_owned(),
        roles: fields.lines("roles"),
    };
    let (field, why) = match authority.create_user(new).await {
        Ok(user) => return Ok(Redirect::to(&pages::path(&user.id)).into_response()),
        Err(Refused::Invalid { field, why }) => (field, why),
        Err(Refused::Taken) => ("id", "This id is already in use.".to_owned()),
        Err(refused) => return Err(console.api.refused(refused).into()),
    };
    let page = listed(authority, &visitor, None, (&fields, Some((field, &why))));
    Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
}

async fn show(
    State(console): State<Console>,
    visitor: Visitor,
    Path(id): Path<String>,
) -> Result<Markup, PageError> {
    let authority = authority_for(&console, &visitor)?;
    let user = authority.user(&id).ok_or(PageError::NoPage)?;
    details(&console, authority, &visitor, &user, (&Fields::default(), None)).await
}

async fn details(
    console: &Shared,
    authority: &Authority,
    visitor: &Visitor,
    user: &User,
    typed: (&Fields, Option<(&str, &str)>),
) -> Result<Markup, PageError> {
    let in_use = in_use(console, authority, user).await?;
    let credentials = authority.credentials(Some(&user.id), None, 1_000);
    Ok(pages::details(visitor, user, &in_use, &credentials, typed, Timestamp::now()))
}

/// Shows what a change of roles would end; makes the change once confirmed.
async fn roles(
    State(console): State<Console>,
    Path(id): Path<String>,
    sent: SentForm,
) -> Result<Response, PageError> {
    let SentForm { visitor, fields } = sent;
    let authority = authority_for(&console, &visitor)?;
    let user = authority.user(&id).ok_or(PageError::NoPage)?;
    let wanted = fields.lines("roles");
    let is_same = wanted.len() == user.roles.len()
        && user.roles.iter().all(|role| wanted.iter().any(|one| *one == **role));
    if is_same {
        return Ok(Redirect::to(&pages::path(&id)).into_response());
    }
    // Only what was shown counts as confirmed: if the roles have changed since, they are shown again.
    let was_shown = fields.text("version") == user.role_version.to_string();
    if !fields.is_ticked("confirmed") || !was_shown {
        let in_use = in_use(&console, authority, &user).await?;
        return Ok(pages::confirm_roles(&visitor, &user, &wanted, &in_use).into_response());
    }
    match authority.set_roles(&id, wanted).await {
        Ok(_) => Ok(Redirect::to(&pages::path(&id)).into_response()),
        Err(Refused::Invalid { field, why }) => {
            let page = details(&console, authority, &visitor, &user, (&fields, Some((field, &why)))).await?;
            Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
        }
        Err(refused) => Err(console.api.refused(refused).into()),
    }
}

async fn password(
    State(console): State<Console>,
    Path(id): Path<String>,
    sent: SentForm,
) -> Result<Response, PageError> {
    let SentForm { visitor, fields } = sent;
    let authority = authority_for(&console, &visitor)?;
    let user = authority.user(&id).ok_or(PageError::NoPage)?;
    let removed = fields.is_ticked("remove");
    let new = (!removed).then(|| Zeroizing::new(fields.text("password").to_owned()));
    let changed = if !removed && fields.text("password") != fields.text("again") {
        Err(Refused::Invalid { field: "again", why: "The passwords do not match.".to_owned() })
    } else {
        authority.set_password(&id, new).await
    };
    match changed {
        Ok(_) => Ok(Redirect::to(&pages::path(&id)).into_response()),
        Err(Refused::Invalid { field, why }) => {
            let page =
                details(&console, authority, &visitor, &user, (&Fields::default(), Some((field, &why))))
                    .await?;
            Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
        }
        Err(refused) => Err(console.api.refused(refused).into()),
    }
}

async fn confirm(
    State(console): State<Console>,
    visitor: Visitor,
    Path(id): Path<String>,
) -> Result<Markup, PageError> {
    let authority = authority_for(&console, &visitor)?;
    let user = authority.user(&id).ok_or(PageError::NoPage)?;
    let in_use = in_use(&console, authority, &user).await?;
    let credentials = authority.credentials(Some(&user.id), None, 1_000).len();
    Ok(pages::confirm_delete(&visitor, &user, &in_use, credentials))
}

async fn delete(
    State(console): State<Console>,
    Path(id): Path<String>,
    sent: SentForm,
) -> Result<Response, PageError> {
    let authority = authority_for(&console, &sent.visitor)?;
    authority.delete_user(&id).await.map_err(|refused| console.api.refused(refused))?;
    Ok(Redirect::to("/console/users").into_response())
}
