//! The errors of the OAuth endpoints (RFC 6749 §5.2), and their one form on the wire.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, PRAGMA, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;

use crate::enforce::dpop::ProofFault;

/// Why a request to the authority is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OauthError {
    /// `invalid_request`, with what is wrong.
    Request(&'static str),
    /// `invalid_client`: unknown, wrong secret, expired, of another tenant; which of them nobody is told.
    Client,
    /// `invalid_client`: it did not authenticate, or in a way that is not understood here.
    NoClient,
    /// `invalid_scope`.
    Scope,
    /// `invalid_target` (RFC 8707 §2).
    Target,
    /// `unsupported_grant_type`.
    GrantType,
    /// `unsupported_response_type`: no response type is supported.
    ResponseType,
    /// `unauthorized_client`: its owner no longer holds any of its roles.
    NoRoleLeft,
    /// `invalid_grant`: the token was issued to another client (RFC 6749 §5.2, RFC 7009 §2.1).
    OthersToken,
    /// `invalid_dpop_proof` or `use_dpop_nonce`: what is wrong with the proof (RFC 9449 §5, §8).
    Proof(ProofFault),
    /// Too many failures; how long to wait.
    TooMany(Duration),
    /// The method is not the endpoint's; those that are.
    Method(&'static str),
    /// The body is too large.
    TooLarge,
    /// A store is unavailable, or the random number generator failed.
    Unavailable,
}

impl OauthError {
    /// The `error` of the response.
    pub(super) fn word(self) -> &'static str {
        self.parts().1
    }

    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Request(why) => (StatusCode::BAD_REQUEST, "invalid_request", why),
            Self::Client => (StatusCode::UNAUTHORIZED, "invalid_client", "Client authentication failed"),
            Self::NoClient => (
                StatusCode::UNAUTHORIZED,
                "invalid_client",
                "The client must authenticate with client_id and client_secret, using HTTP Basic or the request body",
            ),
            Self::Scope => (
                StatusCode::BAD_REQUEST,
                "invalid_scope",
                "A requested scope is malformed, unknown, or not granted to the client",
            ),
            Self::GrantType => (
                StatusCode::BAD_REQUEST,
                "unsupported_grant_type",
                "The only supported grant type is client_credentials",
            ),
            Self::Target => (
                StatusCode::BAD_REQUEST,
                "invalid_target",
                "The parameter resource does not identify a resource of this authority",
            ),
            Self::ResponseType => (
                StatusCode::BAD_REQUEST,
                "unsupported_response_type",
                "The authorization endpoint does not issue tokens; use the token endpoint with client_credentials",
            ),
            Self::NoRoleLeft => (
                StatusCode::BAD_REQUEST,
                "unauthorized_client",
                "The owner of the client no longer holds any of the client's roles",
            ),
            Self::OthersToken => {
                (StatusCode::BAD_REQUEST, "invalid_grant", "The token was issued to another client")
            }
            Self::Proof(fault) => (StatusCode::BAD_REQUEST, fault.error(), fault.description()),
            Self::TooMany(_) => (
                StatusCode::TOO_MANY_REQUESTS,
                "temporarily_unavailable",
                "Too many failed authentication attempts; try again later",
            ),
            Self::Method(_) => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "The endpoint does not support this method",
            ),
            Self::TooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", "The request body is too large")
            }
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "temporarily_unavailable",
                "The authority is temporarily unavailable; try again later",
            ),
        }
    }

    /// The answer.
    pub(super) fn to_response(self) -> Response<Bytes> {
        let (status, error, description) = self.parts();
        let mut response =
            json_response(status, &json!({ "error": error, "error_description": description }));
        let headers = response.headers_mut();
        match self {
            // RFC 9110 §15.5.2: every 401 has a challenge; RFC 6749 §5.2: of the scheme the client used, if it used one.
            Self::Client | Self::NoClient => {
                let basic = HeaderValue::from_static(r#"Basic realm="portcullis", charset="UTF-8""#);
                headers.insert(WWW_AUTHENTICATE, basic);
            }
            Self::TooMany(wait) => {
                let seconds = wait.as_millis().div_ceil(1000).max(1);
                headers.insert(RETRY_AFTER, u64::try_from(seconds).unwrap_or(u64::MAX).into());
            }
            Self::Unavailable => drop(headers.insert(RETRY_AFTER, HeaderValue::from_static("5"))),
            Self::Method(allowed) => drop(headers.insert(ALLOW, HeaderValue::from_static(allowed))),
            _ => {}
        }
        response
    }
}

/// An answer that nobody may keep (RFC 6749 §5.1).
pub(super) fn json_response(status: StatusCode, body: &impl serde::Serialize) -> Response<Bytes> {
    // Values of ours, all of them with text for names: they can be written.
    let mut response = Response::new(Bytes::from(serde_json::to_vec(body).unwrap_or_default()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    response
}
