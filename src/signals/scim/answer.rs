//! Responses in the format that SCIM clients expect.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, LOCATION};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::directory::ScimDirectory;
use super::query::WantedAttributes;

const LIST_SCHEMA: &str = "urn:ietf:params:scim:api:messages:2.0:ListResponse";

/// A response with a document.
pub(super) fn json_answer(status: StatusCode, body: &Value) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::from(body.to_string()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/scim+json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// A response without a body.
pub(super) fn empty(status: StatusCode) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::new());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// A response with a resource, its version and, if it is new, its location.
pub(super) fn resource_answer(
    status: StatusCode,
    resource: Map<String, Value>,
    revision: u64,
    location: &str,
) -> Response<Bytes> {
    let mut answer = json_answer(status, &Value::Object(resource));
    if let Ok(version) = HeaderValue::try_from(super::version(revision)) {
        answer.headers_mut().insert(ETAG, version);
    }
    if status == StatusCode::CREATED
        && let Ok(location) = HeaderValue::try_from(location)
    {
        answer.headers_mut().insert(LOCATION, location);
    }
    answer
}

/// A page of a list; `first` is counted from 0.
pub(super) fn list_answer(total: usize, first: usize, resources: Vec<Value>) -> Response<Bytes> {
    let body = json!({
        "schemas": [LIST_SCHEMA],
        "totalResults": total,
        "startIndex": first.saturating_add(1),
        "itemsPerPage": resources.len(),
        "Resources": resources,
    });
    json_answer(StatusCode::OK, &body)
}

/// The wanted attributes of a user, and its revision.
pub(super) fn user(
    directory: &ScimDirectory,
    id: &str,
    base: &str,
    wanted: &WantedAttributes,
) -> Option<(Map<String, Value>, u64)> {
    let user = directory.user(id)?;
    let groups = directory.groups_of(user).map(|group| (&*group.id, &*group.display_name));
    let mut shown = user.to_json(base, groups);
    wanted.narrow(&mut shown);
    Some((shown, user.revision))
}

/// The wanted attributes of a group, and its revision. The members of a large group are read only if wanted.
pub(super) fn group(
    directory: &ScimDirectory,
    id: &str,
    base: &str,
    wanted: &WantedAttributes,
) -> Option<(Map<String, Value>, u64)> {
    let group = directory.group(id)?;
    let members = directory.members(id).map(|user| &*user.id);
    let mut shown = group.to_json(base, wanted.has("members").then_some(members));
    wanted.narrow(&mut shown);
    Some((shown, group.revision))
}
