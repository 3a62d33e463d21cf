//! Errors in the format that SCIM clients expect (RFC 7644 §3.12).

use bytes::Bytes;
use http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Map, Value};

use super::answer::json_answer;
use crate::state::StoreError;

const SCHEMA: &str = "urn:ietf:params:scim:api:messages:2.0:Error";

/// Why a request was rejected; it has changed nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ScimError {
    status: StatusCode,
    kind: Option<&'static str>,
    detail: String,
    /// The methods that the endpoint supports, when the request used another one.
    allow: Option<&'static str>,
}

impl ScimError {
    fn new(status: StatusCode, kind: Option<&'static str>, detail: impl Into<String>) -> Self {
        Self { status, kind, detail: detail.into(), allow: None }
    }

    fn bad(kind: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Some(kind), detail)
    }

    /// An error that the endpoints of all senders share.
    pub(super) fn of_status(status: StatusCode, detail: &str) -> Self {
        Self::new(status, None, detail)
    }

    /// The filter is invalid or not supported.
    pub(super) fn filter(detail: impl Into<String>) -> Self {
        Self::bad("invalidFilter", detail)
    }

    /// The body is not a valid request of this kind.
    pub(super) fn syntax(detail: impl Into<String>) -> Self {
        Self::bad("invalidSyntax", detail)
    }

    /// The PATCH path names no supported attribute.
    pub(super) fn path(detail: impl Into<String>) -> Self {
        Self::bad("invalidPath", detail)
    }

    /// The attribute cannot have this value.
    pub(super) fn value(detail: impl Into<String>) -> Self {
        Self::bad("invalidValue", detail)
    }

    /// The operation matches no existing value.
    pub(super) fn no_target(detail: impl Into<String>) -> Self {
        Self::bad("noTarget", detail)
    }

    /// The attribute cannot be changed.
    pub(super) fn mutability(detail: impl Into<String>) -> Self {
        Self::bad("mutability", detail)
    }

    /// Another resource has this value.
    pub(super) fn taken(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, Some("uniqueness"), detail)
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, None, "a bearer token of this provider is required")
    }

    pub(super) fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, None, format!("there is no such {what}"))
    }

    pub(super) fn method(allow: &'static str) -> Self {
        let error =
            Self::new(StatusCode::METHOD_NOT_ALLOWED, None, "the endpoint does not support this method");
        Self { allow: Some(allow), ..error }
    }

    pub(super) fn media_type() -> Self {
        let detail = "the body must be application/scim+json or application/json";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, None, detail)
    }

    pub(super) fn too_large() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, None, "the body is larger than 1 MiB")
    }

    pub(super) fn outdated() -> Self {
        let detail = "the version of the resource does not match If-Match";
        Self::new(StatusCode::PRECONDITION_FAILED, None, detail)
    }

    pub(super) fn not_implemented(what: &str) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, None, format!("{what} is not supported"))
    }

    /// The directory has no room for another resource.
    pub(super) fn full(what: &str) -> Self {
        let detail = format!("the directory has reached its maximum number of {what}");
        Self::new(StatusCode::INSUFFICIENT_STORAGE, None, detail)
    }

    pub(super) fn unavailable() -> Self {
        let detail = "the change could not be saved; send it again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, None, detail)
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// A word or two that describe the error; contains nothing from the request.
    pub(super) fn word(&self) -> &'static str {
        self.kind.or(self.status.canonical_reason()).unwrap_or_default()
    }

    /// Converts it to a response.
    pub(super) fn response(&self) -> Response<Bytes> {
        let mut body = Map::new();
        body.insert("schemas".to_owned(), Value::from(vec![SCHEMA]));
        body.insert("status".to_owned(), self.status.as_str().into());
        if let Some(kind) = self.kind {
            body.insert("scimType".to_owned(), kind.into());
        }
        body.insert("detail".to_owned(), self.detail.as_str().into());
        let mut answer = json_answer(self.status, &Value::Object(body));
        let headers = answer.headers_mut();
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        match self.status {
            StatusCode::UNAUTHORIZED => {
                let challenge = HeaderValue::from_static(r#"Bearer realm="portcullis-scim""#);
                headers.insert(WWW_AUTHENTICATE, challenge);
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
            }
            _ => {}
        }
        answer
    }
}

impl From<StoreError> for ScimError {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "cannot read or write a SCIM directory");
        Self::unavailable()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_can_do_about_it_is_in_the_fields() {
        for (error, name, expected) in [
            (ScimError::unavailable(), RETRY_AFTER, Some("5")),
            (ScimError::from(StoreError::Closed), RETRY_AFTER, Some("5")),
            (ScimError::unauthorized(), WWW_AUTHENTICATE, Some(r#"Bearer realm="portcullis-scim""#)),
            (ScimError::method("GET, POST"), ALLOW, Some("GET, POST")),
            (ScimError::full("users"), RETRY_AFTER, None),
            (ScimError::value("no"), WWW_AUTHENTICATE, None),
        ] {
            let answer = error.response();
            let found = answer.headers().get(&name).map(|value| value.to_str().unwrap());
            assert_eq!(found, expected, "{}: {name}", error.word());
        }
    }
}
