//! The pages of events that end tokens: their log, and a form to publish one.

use axum::Router;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use http::StatusCode;
use maud::Markup;
use serde_json::{Map, Value};

use super::form::{Fields, SentForm};
use super::page_error::PageError;
use super::search::{Searched, non_empty};
use super::visitor::Visitor;
use super::{Console, Shared};
use crate::admin::{EventSearch, Permission, is_bad};
use crate::state::record::EventKind;
use crate::time::Now;

mod pages;

pub(super) use pages::whom;

/// How many events one page shows.
const PAGE: usize = 50;

pub(super) fn routes() -> Router<Console> {
    Router::new().route("/console/events", get(list)).route("/console/events/new", get(blank).post(publish))
}

async fn list(
    State(console): State<Console>,
    visitor: Visitor,
    Query(searched): Query<Searched>,
) -> Result<Response, PageError> {
    visitor.require(Permission::Events)?;
    let issuers = console.api.issuers();
    let kind = match non_empty(&searched.r#type) {
        Some(word) => Some(EventKind::from_word(&word).ok_or(PageError::NoPage)?),
        None => None,
    };
    let before = match non_empty(&searched.from) {
        Some(from) => Some(from.parse().map_err(|_not_a_number| PageError::NoPage)?),
        None => None,
    };
    let search = EventSearch { kind, whom: searched.whom() };
    match console.api.history(&search, before, PAGE).await {
        Ok(part) => Ok(pages::list(&visitor, &searched, &issuers, &Ok(part)).into_response()),
        Err(problem) if is_bad(&problem) => {
            let page = pages::list(&visitor, &searched, &issuers, &Err(problem.to_string()));
            Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
        }
        Err(problem) => Err(problem.into()),
    }
}

async fn blank(
    State(console): State<Console>,
    visitor: Visitor,
    Query(searched): Query<Searched>,
) -> Result<Markup, PageError> {
    visitor.require(Permission::Events)?;
    let Searched { r#type, issuer, subject, session, client, jti, .. } = searched;
    let of = |(name, value): (&str, String)| (name.to_owned(), value);
    let pairs = [
        ("type", r#type),
        ("issuer", issuer),
        ("subject", subject),
        ("session", session),
        ("client", client),
        ("jti", jti),
    ];
    let fields = Fields::of(pairs.map(of).into());
    Ok(pages::form(&visitor, &console.api.issuers(), (&fields, None)))
}

/// Shows how many tokens an event would end; publishes it once confirmed.
async fn publish(State(console): State<Console>, sent: SentForm) -> Result<Response, PageError> {
    let SentForm { visitor, fields } = sent;
    visitor.require(Permission::Events)?;
    let now = Now::read();
    let read = document(&fields).and_then(|json| {
        let read = console.api.read_events(&json, now);
        read.map_err(|invalid| (at_fault(&invalid.what), invalid.what))
    });
    let mut events = match read {
        Ok(events) => events,
        Err((field, why)) => return Ok(again(&console, &visitor, &fields, (field, &why))),
    };
    if fields.is_ticked("confirmed") {
        console.api.publish(events, now).await?;
        return Ok(Redirect::to(pages::HOME).into_response());
    }
    let Some(event) = events.pop() else { return Err(PageError::NoPage) };
    let in_use = console.api.ended_by(&event).await?;
    Ok(pages::confirm(&visitor, &event, in_use, &fields).into_response())
}

fn again(console: &Shared, visitor: &Visitor, fields: &Fields, problem: (&str, &str)) -> Response {
    let page = pages::form(visitor, &console.api.issuers(), (fields, Some(problem)));
    (StatusCode::UNPROCESSABLE_ENTITY, page).into_response()
}

/// Converts the form to a request body of the admin API.
fn document(fields: &Fields) -> Result<Vec<u8>, (&'static str, String)> {
    let mut members = Map::new();
    for name in ["type", "issuer", "subject", "session", "client", "jti"] {
        if let Some(text) = non_empty(fields.text(name)) {
            members.insert(name.to_owned(), Value::String(text));
        }
    }
    if let Some(version) = non_empty(fields.text("role_version")) {
        let version: u64 =
            version.parse().map_err(|_not_a_number| ("role_version", "Enter a whole number.".to_owned()))?;
        members.insert("role_version".to_owned(), version.into());
    }
    Ok(Value::Object(members).to_string().into_bytes())
}

/// The field that an error message is about: the first one that it names.
fn at_fault(what: &str) -> &'static str {
    let named = ["subject", "session", "client", "jti", "role_version", "issuer"]
        .into_iter()
        .find(|name| what.contains(&format!("`{name}`")));
    named.unwrap_or(if what.contains("issuer") { "issuer" } else { "type" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_becomes_the_document_of_the_api() {
        let json = |form: &[u8]| document(&Fields::parse(form)).map(|json| String::from_utf8(json).unwrap());
        assert_eq!(
            json(b"type=role-changed&issuer=https://a/&subject=+s%22+&client=&jti=&role_version=7&csrf=x"),
            Ok(r#"{"issuer":"https://a/","role_version":7,"subject":"s\"","type":"role-changed"}"#
                .to_owned())
        );
        for version in ["-1", "1.5", "seven", "18446744073709551616"] {
            let form = format!("type=role-changed&role_version={version}");
            assert_eq!(json(form.as_bytes()).unwrap_err().0, "role_version", "{version}");
        }
    }

    #[test]
    fn complaints_stand_beside_their_fields() {
        for (what, field) in [
            ("subject-revoked needs `subject`", "subject"),
            ("`client` is not allowed in subject-revoked", "client"),
            ("`jti` is empty", "jti"),
            ("`role_version` is too large", "role_version"),
            ("\"x\" is not a configured issuer", "issuer"),
            ("`issuer` is needed, because there is not exactly one", "issuer"),
            ("\"x\" is not an event type", "type"),
            ("missing field `type`", "type"),
        ] {
            assert_eq!(at_fault(what), field, "{what}");
        }
    }
}
