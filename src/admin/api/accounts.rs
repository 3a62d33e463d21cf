//! Shared parts of the endpoints for users and credentials: access to the authority, and its errors as problem details.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request};
use http::StatusCode;
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::Api;
use super::list::bad;
use crate::admin::body::read_members;
use crate::admin::problem::Problem;
use crate::authority::{Authority, Refused};

/// The authority, for calls that are about it.
pub(super) struct Issuing(pub(super) Arc<Authority>);

impl FromRequestParts<Api> for Issuing {
    type Rejection = Problem;

    async fn from_request_parts(_parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let authority = api.control.authority.clone();
        authority.map(Self).ok_or_else(|| {
            Problem::new(
                StatusCode::NOT_FOUND,
                "this gate does not issue tokens: [authority] is not configured",
            )
        })
    }
}

impl Api {
    /// The members of the body. No body is one without members.
    pub(super) async fn members<T: DeserializeOwned>(&self, request: Request) -> Result<T, Problem> {
        read_members(request, &self.limits).await
    }

    /// Why the authority changed nothing.
    pub(crate) fn refused(&self, refused: Refused) -> Problem {
        let status = match &refused {
            Refused::Invalid { field, why } => return bad(format!("`{field}`: {why}")),
            Refused::Store(error) => return self.unavailable(error),
            Refused::Taken => StatusCode::CONFLICT,
            Refused::NoUser | Refused::NoCredential => StatusCode::NOT_FOUND,
            Refused::NoRandomness | Refused::NoMemory => StatusCode::SERVICE_UNAVAILABLE,
        };
        Problem::new(status, refused.to_string())
    }
}
