//! Errors of the admin listener as problem details (RFC 9457).

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;

/// After how long it may be worth trying again what is not available.
const RETRY_AFTER_OUTAGE: Duration = Duration::from_secs(5);

/// An error as a caller sees it.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    detail: Cow<'static, str>,
    challenge: Option<&'static str>,
    problems: Vec<String>,
    index: Option<usize>,
    retry_after: Option<Duration>,
}

impl Problem {
    /// A problem that its status and one sentence describe.
    pub(crate) fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        let retry_after = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER_OUTAGE);
        let (detail, problems) = (detail.into(), Vec::new());
        Self { status, detail, challenge: None, problems, index: None, retry_after }
    }

    /// Its status.
    pub(crate) const fn status(&self) -> StatusCode {
        self.status
    }

    /// With a `WWW-Authenticate` challenge (RFC 6750 §3).
    pub(super) const fn with_challenge(mut self, challenge: &'static str) -> Self {
        self.challenge = Some(challenge);
        self
    }

    /// With everything that is wrong, one sentence each.
    pub(super) fn with_problems(mut self, problems: Vec<String>) -> Self {
        self.problems = problems;
        self
    }

    /// With the time after which it is worth trying again.
    pub(super) const fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// With the place, from 0, of what is at fault in a batch.
    pub(super) const fn with_index(mut self, index: usize) -> Self {
        self.index = Some(index);
        self
    }
}

/// Whether what was asked makes no sense, which who asked can mend.
pub(crate) fn is_bad(problem: &Problem) -> bool {
    problem.status == StatusCode::BAD_REQUEST
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

/// The members of RFC 9457 §3.1, and two of our own.
#[derive(Serialize)]
struct ProblemBody<'a> {
    /// `about:blank`: the status says it all (RFC 9457 §4.2.1), and so the title is the status's.
    r#type: &'static str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    problems: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = ProblemBody {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            problems: &self.problems,
            index: self.index,
        };
        let mut response = (self.status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(wait) = self.retry_after {
            // Whole seconds (RFC 9110 §10.2.3), and not before the time.
            headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_millis().div_ceil(1_000) as u64));
        }
        if let Some(challenge) = self.challenge {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}
