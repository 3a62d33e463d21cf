//! The endpoint for logout tokens (OpenID Connect Back-Channel Logout 1.0 §2.5 and §2.8).

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Response, StatusCode};

use super::answer::{Fault, empty, fault, is_type, unavailable};
use super::{EndpointKind, Intake, SignalRequest};
use crate::authority::form::{FormError, FormFields};
use crate::signals::Signal;
use crate::signals::logout::LogoutSender;
use crate::signals::ssf::KeysAsked;
use crate::signals::token::TokenFault;
use crate::state::record::{Event, EventSource};
use crate::time::Now;

/// Responds with 200 once everything the token says is durable and in force.
pub(super) async fn logout(
    intake: &Intake,
    sender: &LogoutSender,
    request: &SignalRequest<'_>,
) -> Response<Bytes> {
    let name = &sender.settings().name;
    let refused = |fault_: Fault, why: &'static str| {
        intake.refused(EndpointKind::Logout, name, why);
        fault(Some(EndpointKind::Logout), fault_)
    };
    let Some(body) = request.body else { return refused(Fault::TooLarge, "the body is too large") };
    let form = match form(request.headers, body) {
        Ok(form) => form,
        Err(why) => return refused(Fault::BadRequest, why),
    };
    let Some(token) = form.get("logout_token") else {
        return refused(Fault::BadRequest, "the field `logout_token` is missing");
    };
    let (events, now) = match judge(sender, token.as_bytes()).await {
        Ok(judged) => judged,
        Err(TokenFault::Refused(why)) => return refused(Fault::BadRequest, why),
        Err(TokenFault::Ask(_) | TokenFault::NoKeys) => {
            intake.refused(EndpointKind::Logout, name, "the keys of the issuer are temporarily unavailable");
            return unavailable();
        }
    };
    let signal =
        Signal { source: EventSource::Logout, sender: name.clone(), events, passed_over: Vec::new() };
    match intake.senders.log.publish(signal, now).await {
        Ok(()) => empty(StatusCode::OK),
        // The store logs the reason.
        Err(_) => unavailable(),
    }
}

/// Verifies and reads the token. If the known keys do not verify it, newer ones are fetched once.
async fn judge(sender: &LogoutSender, token: &[u8]) -> Result<(Vec<Event>, Now), TokenFault> {
    let now = Now::read();
    match sender.read(token, KeysAsked::Nothing, now.wall) {
        Err(TokenFault::Ask(wanted)) => sender.keys().ask(&wanted).await,
        judged => return judged.map(|events| (events, now)),
    }
    let now = Now::read();
    sender.read(token, KeysAsked::Keys, now.wall).map(|events| (events, now))
}

/// Parses the form; fields other than the token are ignored (§2.5).
fn form(headers: &HeaderMap, body: &[u8]) -> Result<FormFields, &'static str> {
    if !is_type(headers.get_all(CONTENT_TYPE), "application/x-www-form-urlencoded") {
        return Err("the body must be application/x-www-form-urlencoded");
    }
    FormFields::parse(body).map_err(|error| match error {
        FormError::Encoding => "the body is not valid form-encoded UTF-8",
        FormError::Repeated => "a field is repeated",
        FormError::TooMany => "the body has too many fields",
    })
}
