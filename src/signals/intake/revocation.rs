//! The endpoint for Global Token Revocation (draft-parecki-oauth-global-token-revocation §3 and §4).

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::answer::{Fault, empty, fault, is_type, oauth_error, unavailable};
use super::{EndpointKind, Intake, SignalRequest};
use crate::signals::Signal;
use crate::signals::revocation::{Authorized, RevocationSender, Unrevoked};
use crate::signals::ssf::KeysAsked;
use crate::signals::token::TokenFault;
use crate::state::record::EventSource;
use crate::time::Now;

const KIND: EndpointKind = EndpointKind::GlobalTokenRevocation;

const BARE: HeaderValue = HeaderValue::from_static(r#"Bearer realm="portcullis-signals""#);
const INVALID: HeaderValue =
    HeaderValue::from_static(r#"Bearer realm="portcullis-signals", error="invalid_token""#);

/// Responds with 204 once everything the request asks for is durable and in force.
pub(super) async fn revoke(
    intake: &Intake,
    sender: &RevocationSender,
    request: &SignalRequest<'_>,
) -> Response<Bytes> {
    let name = &sender.settings().name;
    let refused = |status: StatusCode, error: &str, why: &'static str| {
        intake.refused(KIND, name, why);
        oauth_error(status, error, why)
    };
    let Some(body) = request.body else {
        intake.refused(KIND, name, "the body is too large");
        return fault(Some(KIND), Fault::TooLarge);
    };
    let Some(token) = bearer(request.headers) else {
        let why = "the request must have exactly one bearer token";
        return challenged(refused(StatusCode::UNAUTHORIZED, "invalid_token", why), BARE);
    };
    let (authorized, now) = match authorize(sender, token).await {
        Ok(authorized) => authorized,
        Err(TokenFault::Refused(why)) => {
            return challenged(refused(StatusCode::UNAUTHORIZED, "invalid_token", why), INVALID);
        }
        Err(TokenFault::Ask(_) | TokenFault::NoKeys) => {
            intake.refused(KIND, name, "the keys of the provider are temporarily unavailable");
            return unavailable();
        }
    };
    if !is_type(request.headers.get_all(CONTENT_TYPE), "application/json") {
        let why = "the body must be application/json";
        return refused(StatusCode::BAD_REQUEST, "invalid_request", why);
    }
    let events = match sender.read(body, &authorized, now.wall) {
        Ok(events) => events,
        Err(Unrevoked::Malformed(why)) => return refused(StatusCode::BAD_REQUEST, "invalid_request", why),
        Err(Unrevoked::Forbidden(why)) => return refused(StatusCode::FORBIDDEN, "access_denied", why),
        Err(Unrevoked::Nobody(why)) => return refused(StatusCode::NOT_FOUND, "unknown_subject", why),
        Err(Unrevoked::Unprocessable(why)) => {
            return refused(StatusCode::UNPROCESSABLE_ENTITY, "unprocessable_subject", why);
        }
    };
    let source = EventSource::GlobalRevocation;
    let signal = Signal { source, sender: name.clone(), events, passed_over: Vec::new() };
    match intake.senders.log.publish(signal, now).await {
        Ok(()) => empty(StatusCode::NO_CONTENT),
        // The store logs the reason.
        Err(_) => unavailable(),
    }
}

/// Verifies the token. If the known keys do not verify it, newer ones are fetched once.
async fn authorize(sender: &RevocationSender, token: &[u8]) -> Result<(Authorized, Now), TokenFault> {
    let now = Now::read();
    match sender.authorize(token, KeysAsked::Nothing, now.wall) {
        Err(TokenFault::Ask(wanted)) => sender.keys().ask(&wanted).await,
        judged => return judged.map(|authorized| (authorized, now)),
    }
    let now = Now::read();
    sender.authorize(token, KeysAsked::Keys, now.wall).map(|authorized| (authorized, now))
}

/// The bearer token of a request, if there is exactly one (RFC 6750 §2.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let field = fields.next().filter(|_| fields.next().is_none())?.as_bytes();
    let (scheme, token) = field.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii()).filter(|token| !token.is_empty())
}

fn challenged(mut answer: Response<Bytes>, challenge: HeaderValue) -> Response<Bytes> {
    answer.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    answer
}
