//! Requests that are not forwarded: those that loop back, those with `Max-Forwards: 0`, and those that would
//! expose credentials.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode};

use super::body::{ForwardBody, ResponseSource};
use super::error::ForwardError;
use super::headers;
use super::message::PreparedRequest;

impl PreparedRequest<'_> {
    /// The response, or the refusal, if the request is not forwarded.
    pub(crate) fn ends_here(&self) -> Result<Option<Response<ForwardBody>>, ForwardError> {
        if headers::came_back(self.headers) {
            return Err(ForwardError::Loop);
        }
        if self.method == Method::TRACE && (self.order.has_token || has_credentials(self.headers)) {
            return Err(ForwardError::Trace);
        }
        match headers::forwards_left(self.method, self.headers) {
            // A TRACE response would echo the request, which is of no use here.
            Some(0) if self.method == Method::TRACE => Err(ForwardError::Trace),
            Some(0) => Ok(Some(self.options())),
            _ => Ok(None),
        }
    }

    /// The response to `OPTIONS` as its final recipient (RFC 9110 §9.3.7).
    fn options(&self) -> Response<ForwardBody> {
        let mut answer = Response::new(ForwardBody::new(ResponseSource::Empty));
        *answer.status_mut() = StatusCode::OK;
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        let methods: Vec<&str> = self.order.methods.iter().map(Method::as_str).collect();
        if let (false, Ok(allowed)) = (methods.is_empty(), HeaderValue::try_from(methods.join(", "))) {
            headers.insert(header::ALLOW, allowed);
        }
        answer
    }
}

/// Whether a TRACE contains credentials (RFC 9110 §9.3.8), which the response would reveal.
fn has_credentials(headers: &HeaderMap) -> bool {
    [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE]
        .iter()
        .any(|name| headers.contains_key(name))
}
