//! `/v1/users`: the users on whose behalf applications call the API, their roles, and their passwords.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use http::{StatusCode, Uri};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use super::accounts::Issuing;
use super::list::{ListPage, filled, limit, query};
use super::{Api, Id};
use crate::admin::problem::Problem;
use crate::authority::{NewUser, Refused, User};

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/users", get(list).post(create))
        .route("/v1/users/{id}", get(show).delete(delete))
        .route("/v1/users/{id}/roles", put(set_roles))
        .route("/v1/users/{id}/password", put(set_password).delete(remove_password))
}

/// A user as it is shown.
#[derive(Serialize)]
struct UserItem<'a> {
    id: &'a str,
    name: &'a str,
    roles: &'a [Box<str>],
    role_version: u64,
    created_at: String,
    has_password: bool,
    /// Said only of inactive users.
    #[serde(skip_serializing_if = "Option::is_none")]
    active: Option<bool>,
}

impl<'a> From<&'a User> for UserItem<'a> {
    fn from(user: &'a User) -> Self {
        let User { id, name, roles, role_version, created_at, is_active, password } = user;
        let (role_version, created_at) = (*role_version, created_at.to_string());
        let active = (!is_active).then_some(false);
        Self { id, name, roles, role_version, created_at, has_password: password.is_some(), active }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedUsers {
    after: Option<String>,
    limit: Option<usize>,
}

async fn list(Issuing(authority): Issuing, uri: Uri) -> Result<Response, Problem> {
    let wanted: WantedUsers = query(&uri)?;
    let (after, limit) = (filled("after", wanted.after.as_ref())?, limit(wanted.limit)?);
    let mut users = authority.users(after, limit + 1);
    let more = users.len() > limit;
    users.truncate(limit);
    let next = users.last().filter(|_| more).map(|user| &*user.id);
    let items: Vec<UserItem<'_>> = users.iter().map(|user| UserItem::from(&**user)).collect();
    Ok(ListPage { items, next }.into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserCreation {
    id: String,
    name: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
}

async fn create(
    Issuing(authority): Issuing,
    State(api): State<Api>,
    request: Request,
) -> Result<Response, Problem> {
    let UserCreation { id, name, roles } = api.members(request).await?;
    let new = NewUser { id, name: name.unwrap_or_default(), roles };
    let user = authority.create_user(new).await.map_err(|why| api.refused(why))?;
    Ok((StatusCode::CREATED, Json(UserItem::from(&*user))).into_response())
}

async fn show(Issuing(authority): Issuing, State(api): State<Api>, Id(id): Id) -> Result<Response, Problem> {
    let user = authority.user(&id).ok_or_else(|| api.refused(Refused::NoUser))?;
    Ok(Json(UserItem::from(&*user)).into_response())
}

async fn delete(
    Issuing(authority): Issuing,
    State(api): State<Api>,
    Id(id): Id,
) -> Result<StatusCode, Problem> {
    authority.delete_user(&id).await.map_err(|why| api.refused(why))?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Roles {
    roles: Vec<String>,
}

/// Answers only once the tokens with the previous roles are rejected.
async fn set_roles(
    Issuing(authority): Issuing,
    State(api): State<Api>,
    Id(id): Id,
    request: Request,
) -> Result<Response, Problem> {
    let Roles { roles } = api.members(request).await?;
    let user = authority.set_roles(&id, roles).await.map_err(|why| api.refused(why))?;
    Ok(Json(UserItem::from(&*user)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPassword {
    #[serde(deserialize_with = "unquoted")]
    password: Zeroizing<String>,
}

/// A text, or an error that does not quote what is there instead.
fn unquoted<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) => Ok(Zeroizing::new(text)),
        _other => Err(D::Error::custom("must be a string")),
    }
}

async fn set_password(
    Issuing(authority): Issuing,
    State(api): State<Api>,
    Id(id): Id,
    request: Request,
) -> Result<StatusCode, Problem> {
    let NewPassword { password } = api.members(request).await?;
    authority.set_password(&id, Some(password)).await.map_err(|why| api.refused(why))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove_password(
    Issuing(authority): Issuing,
    State(api): State<Api>,
    Id(id): Id,
) -> Result<StatusCode, Problem> {
    authority.set_password(&id, None).await.map_err(|why| api.refused(why))?;
    Ok(StatusCode::NO_CONTENT)
}
