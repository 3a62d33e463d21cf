//! `/v1/credentials`: the credentials with which applications of a user authenticate. A secret is returned only by the
//! call that creates it.
//!
//! With `owner`, a call is restricted to that user's credentials, so that a backend that acts for a user need not check.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::request::Parts;
use http::{StatusCode, Uri};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::accounts::Issuing;
use super::list::{ListPage, bad, filled, limit, query};
use super::{Api, Id};
use crate::admin::problem::Problem;
use crate::authority::{Authority, Credential, Edit, NewCredential, Refused, Secret};
use crate::events::parse;
use crate::time::{Timestamp, parse_duration};

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/credentials", get(list).post(create))
        .route("/v1/credentials/{client_id}", get(show).patch(edit).delete(delete))
        .route("/v1/credentials/{client_id}/secret", post(new_secret))
}

/// A credential as it is shown.
#[derive(Serialize)]
struct CredentialItem<'a> {
    client_id: &'a str,
    name: &'a str,
    owner: &'a str,
    roles: &'a [Box<str>],
    scopes: &'a [Box<str>],
    tenant: Option<&'a str>,
    expires_at: Option<String>,
    created_at: String,
    /// There while the secret before the present one is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    old_secret_expires_at: Option<String>,
}

impl<'a> From<&'a Credential> for CredentialItem<'a> {
    fn from(credential: &'a Credential) -> Self {
        let text = |time: Timestamp| time.to_string();
        let now = Timestamp::now();
        Self {
            client_id: &credential.client_id,
            name: &credential.name,
            owner: &credential.owner,
            roles: &credential.roles,
            scopes: &credential.scopes,
            tenant: credential.tenant.as_deref(),
            expires_at: credential.expires_at.map(text),
            created_at: text(credential.created_at),
            old_secret_expires_at: credential.old_secret_expires_at().filter(|until| *until > now).map(text),
        }
    }
}

/// A credential whose secret was just made.
#[derive(Serialize)]
struct WithSecret<'a> {
    #[serde(flatten)]
    credential: CredentialItem<'a>,
    client_secret: &'a str,
}

fn made(credential: &Credential, secret: &Secret) -> Response {
    let shown = WithSecret { credential: credential.into(), client_secret: secret.reveal() };
    (StatusCode::CREATED, Json(shown)).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedCredentials {
    owner: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

async fn list(Issuing(authority): Issuing, uri: Uri) -> Result<Response, Problem> {
    let wanted: WantedCredentials = query(&uri)?;
    let owner = filled("owner", wanted.owner.as_ref())?;
    let (after, limit) = (filled("after", wanted.after.as_ref())?, limit(wanted.limit)?);
    let mut credentials = authority.credentials(owner, after, limit + 1);
    let more = credentials.len() > limit;
    credentials.truncate(limit);
    let next = credentials.last().filter(|_| more).map(|credential| &*credential.client_id);
    let items: Vec<CredentialItem<'_>> =
        credentials.iter().map(|credential| CredentialItem::from(&**credential)).collect();
    Ok(ListPage { items, next }.into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CredentialCreation {
    name: String,
    owner: String,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    scopes: Vec<String>,
    tenant: Option<String>,
    expires_at: Option<Value>,
}

async fn create(
    Issuing(authority): Issuing,
    State(api): State<Api>,
    uri: Uri,
    request: Request,
) -> Result<Response, Problem> {
    let whose: WhoseCredentials = query(&uri)?;
    let CredentialCreation { name, owner, roles, scopes, tenant, expires_at } = api.members(request).await?;
    if filled("owner", whose.owner.as_ref())?.is_some_and(|acting_for| acting_for != owner) {
        return Err(bad("`owner`: must be the user on whose behalf this call is made".to_owned()));
    }
    let expires_at = expires_at.as_ref().map(end).transpose()?;
    let new = NewCredential { name, owner, roles, scopes, tenant, expires_at };
    let (credential, secret) = authority.create_credential(new).await.map_err(|why| api.refused(why))?;
    Ok(made(&credential, &secret))
}

fn end(value: &Value) -> Result<Timestamp, Problem> {
    parse::time("expires_at", value).map_err(bad)
}

/// The credential that a path names. That of another user than `owner` does not exist.
struct NamedCredential {
    authority: Arc<Authority>,
    credential: Arc<Credential>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WhoseCredentials {
    owner: Option<String>,
}

impl FromRequestParts<Api> for NamedCredential {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let Issuing(authority) = Issuing::from_request_parts(parts, api).await?;
        let Id(client_id) = Id::from_request_parts(parts, api).await?;
        let whose: WhoseCredentials = query(&parts.uri)?;
        let owner = filled("owner", whose.owner.as_ref())?;
        // The owner of a credential never changes, and no client id is given twice: what is found now stays true.
        let found = authority
            .credential(&client_id)
            .filter(|credential| owner.is_none_or(|owner| *credential.owner == *owner));
        let credential = found.ok_or_else(|| api.refused(Refused::NoCredential))?;
        Ok(Self { authority, credential })
    }
}

async fn show(NamedCredential { credential, .. }: NamedCredential) -> Response {
    Json(CredentialItem::from(&*credential)).into_response()
}

/// What may be different. A member that is absent stays as it is, so that is told from `null`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CredentialPatch {
    #[serde(default, deserialize_with = "present")]
    name: Option<String>,
    #[serde(default, deserialize_with = "present")]
    expires_at: Option<Value>,
}

fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(member: D) -> Result<Option<T>, D::Error> {
    T::deserialize(member).map(Some)
}

async fn edit(
    NamedCredential { authority, credential }: NamedCredential,
    State(api): State<Api>,
    request: Request,
) -> Result<Response, Problem> {
    let CredentialPatch { name, expires_at } = api.members(request).await?;
    let expires_at = match expires_at {
        Some(Value::Null) => Some(None),
        Some(value) => Some(Some(end(&value)?)),
        None => None,
    };
    let edited = authority.edit_credential(&credential.client_id, Edit { name, expires_at }).await;
    let credential = edited.map_err(|why| api.refused(why))?;
    Ok(Json(CredentialItem::from(&*credential)).into_response())
}

async fn delete(
    NamedCredential { authority, credential }: NamedCredential,
    State(api): State<Api>,
) -> Result<StatusCode, Problem> {
    authority.delete_credential(&credential.client_id).await.map_err(|why| api.refused(why))?;
    Ok(StatusCode::NO_CONTENT)
}

/// How the new secret takes the place of the one before.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretTurn {
    overlap: Option<String>,
    #[serde(default)]
    end_tokens: bool,
}

async fn new_secret(
    NamedCredential { authority, credential }: NamedCredential,
    State(api): State<Api>,
    request: Request,
) -> Result<Response, Problem> {
    let SecretTurn { overlap, end_tokens } = api.members(request).await?;
    let overlap = overlap.as_deref().map_or(Ok(std::time::Duration::ZERO), parse_duration);
    let overlap = overlap.map_err(|why| bad(format!("`overlap`: {why}")))?;
    let renewed = authority.new_secret(&credential.client_id, overlap, end_tokens).await;
    let (credential, secret) = renewed.map_err(|why| api.refused(why))?;
    Ok(made(&credential, &secret))
}
