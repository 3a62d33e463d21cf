//! Serves the metadata of protected resources (RFC 9728), without a token.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_REQUEST_METHOD, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT,
    ORIGIN,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use serde_json::json;

use super::access::Record;
use super::answer::X_REQUEST_ID;
use super::body::{AnswerBody, ClientBody, Serving, discard};
use super::http::Head;
use super::meters::OwnEndpoint;
use crate::enforce::resource::{Resource, WELL_KNOWN};
use crate::enforce::target::Target;

/// How long caches may keep a document.
const FOR_MINUTES: HeaderValue = HeaderValue::from_static("public, max-age=300");
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD");

/// The response at the path of a document.
pub(super) enum ResourceAnswer {
    /// The document.
    Document(Bytes),
    /// The response to a preflight of a page of another origin.
    Preflight,
    /// The method is not supported.
    Method,
}

impl ResourceAnswer {
    /// The response to a request, if its path is that of a document. The path is read like that of a route.
    pub(super) fn to(resources: &[Arc<Resource>], head: &Head) -> Option<Self> {
        if resources.is_empty() {
            return None;
        }
        let resource = if head.target.path().contains('%') {
            find(resources, Target::parse(&head.method, &head.target).ok()?.path())?
        } else {
            find(resources, head.target.path())?
        };
        Some(match head.method {
            Method::GET | Method::HEAD => Self::Document(resource.metadata().to_string().into()),
            Method::OPTIONS if is_preflight(&head.headers) => Self::Preflight,
            _ => Self::Method,
        })
    }

    /// Serves the request.
    pub(super) async fn serve(
        self,
        head: &Head,
        body: ClientBody,
        mut record: Box<Record>,
        serving: Option<Serving>,
    ) -> Response<AnswerBody> {
        record.endpoint = Some(OwnEndpoint::Resource);
        let whole = discard(body, head.headers.contains_key(EXPECT)).await;
        let mut response = Response::new(Bytes::new());
        // Pages of any origin may read it: it contains no secret, and some clients run in browsers.
        response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        match self {
            Self::Document(document) => {
                response.headers_mut().insert(CACHE_CONTROL, FOR_MINUTES);
                *response.body_mut() = document;
            }
            Self::Preflight => {
                *response.status_mut() = StatusCode::NO_CONTENT;
                response.headers_mut().insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
                let any = HeaderValue::from_static("*");
                response.headers_mut().insert(ACCESS_CONTROL_ALLOW_HEADERS, any);
            }
            Self::Method => {
                let request_id = record.request_id.to_str().unwrap_or_default();
                let body = json!({
                    "error": "method_not_allowed",
                    "error_description": "The metadata of a resource supports only GET and HEAD",
                    "request_id": request_id,
                });
                *response.body_mut() = body.to_string().into();
                *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
                response.headers_mut().insert(ALLOW, METHODS);
                response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            }
        }
        let (mut parts, bytes) = response.into_parts();
        parts.headers.insert(X_REQUEST_ID, record.request_id.clone());
        if !whole {
            // The rest of the body cannot be told from the next request.
            parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if parts.status != StatusCode::NO_CONTENT {
            parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            parts.headers.insert(CONTENT_LENGTH, bytes.len().into());
        }
        record.answered_here(parts.status);
        let has_body = head.method != Method::HEAD && !bytes.is_empty();
        Response::from_parts(parts, AnswerBody::refusal(has_body.then_some(bytes), record, serving))
    }
}

/// The resource whose metadata is at a path. At the root this is the resource that covers all paths, whatever
/// its URL.
fn find<'r>(resources: &'r [Arc<Resource>], path: &str) -> Option<&'r Arc<Resource>> {
    let rest = path.strip_prefix(WELL_KNOWN)?;
    let named = resources.iter().find(|resource| resource.metadata_path() == path);
    named.or_else(|| resources.iter().find(|resource| rest.is_empty() && resource.is_at_root()))
}

/// Whether this is a browser's preflight for a page's request (Fetch, "CORS-preflight request").
fn is_preflight(headers: &HeaderMap) -> bool {
    headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}
