//! The pages of events.

use std::sync::Arc;

use maud::{Markup, html};

use super::super::form::Fields;
use super::super::layout::{self, FormField, hidden};
use super::super::revocations;
use super::super::search::{Searched, bar, choice, digits, issuers, nothing, search_field};
use super::super::show::{count, moment};
use super::super::visitor::Visitor;
use crate::events::log::EventPage;
use crate::state::record::{Event, EventKind, StoredEvent};
use crate::time::Timestamp;

pub(super) const HOME: &str = "/console/events";

/// The kinds of events that can be published, with their labels in the form.
const PUBLISHED: [(EventKind, &str); 6] = [
    (EventKind::SubjectRevoked, "End all tokens of a subject"),
    (EventKind::RoleChanged, "The roles of a subject changed"),
    (EventKind::SessionRevoked, "End the tokens of a login session"),
    (EventKind::ClientRevoked, "End all tokens of a client"),
    (EventKind::TokenRevoked, "End one token"),
    (EventKind::IssuerRevoked, "End all tokens of an issuer"),
];

/// Describes whose tokens an event affects.
pub(in super::super) fn whom(event: &Event) -> Markup {
    html! {
        @if let Some(session) = &event.session {
            "session " code { (session) }
            @if let Some(subject) = &event.subject { " of " code { (subject) } }
        }
        @else if let Some(subject) = &event.subject { (event.subject_kind.as_str()) " " code { (subject) } }
        @else if let Some(client) = &event.client { "client " code { (client) } }
        @else if is_of_token(event) {
            "token " (digits(&event.key.to_string()))
            @if let Some(jti) = &event.jti { br; span.soft { "jti " } code { (jti) } }
        }
        @else { "every token" }
        br; span.soft { "of " } code.soft { (event.issuer) }
    }
}

/// Whether an event, or the one that it undoes, affects a single token.
fn is_of_token(event: &Event) -> bool {
    let issuer = crate::identity::IssuerKey::new(&event.issuer).0;
    event.kind == EventKind::TokenRevoked || (event.kind == EventKind::Undone && event.key != issuer)
}

pub(super) fn list(
    visitor: &Visitor,
    searched: &Searched,
    known: &[Arc<str>],
    found: &Result<EventPage, String>,
) -> Markup {
    let mut types = vec![("", "Any")];
    types.extend(PUBLISHED.iter().map(|(kind, _)| (kind.as_str(), kind.as_str())));
    types.push((EventKind::Undone.as_str(), EventKind::Undone.as_str()));
    let fields = html! {
        (choice("Type", "type", &types, &searched.r#type))
        (issuers(known, Some("Any"), &searched.issuer))
        (search_field("Subject", "subject", &searched.subject))
        (search_field("Client", "client", &searched.client))
    };
    layout::page(
        visitor,
        HOME,
        "Events",
        html! {
            div.bar {
                p { "Events that ended tokens, newest first: revocations, role changes, and their reversals." }
                a.button.push href={ (HOME) "/new" } { span aria-hidden="true" { "+ " } "New event" }
            }
            (bar(HOME, fields, searched.is_narrowed(), found.as_ref().err().map(String::as_str)))
            @if let Ok(part) = found {
                @if !part.items.is_empty() { (table(&part.items, Timestamp::now())) }
                @else if part.next.is_some() { (nothing("Nothing on this page.", "The log continues on the next page.")) }
                @else if searched.is_narrowed() { (nothing("No such event.", "Change the search, or show all.")) }
                @else { (nothing("No events yet.", "Events come from the admin API, from event transmitters and from the authority. You can also publish one here.")) }
                (layout::more(part.next.map(|next| searched.link(HOME, &next.to_string()))))
            }
        },
    )
}

fn table(items: &[StoredEvent], now: Timestamp) -> Markup {
    html! {
        table {
            thead { tr {
                th scope="col" { "Event" } th scope="col" { "Affects" } th scope="col" { "When" }
                th scope="col" { "Source" } th scope="col" { "Received" } th scope="col" { "Undo" }
            } }
            tbody { @for stored in items { tr {
                th scope="row" {
                    (stored.event.kind.as_str()) br; span.soft { "#" (stored.sequence) }
                    @if let Some(version) = stored.event.role_version { br; span.soft { "role version " (version) } }
                }
                td data-name="Affects" { (whom(&stored.event)) }
                td data-name="When" { (moment(stored.event.at, now)) }
                td data-name="Source" { (stored.source.as_str()) }
                td data-name="Received" { (moment(stored.received_at, now)) }
                td data-name="Undo" {
                    @if let Some(undoes) = stored.undoes { span.soft { "undoes #" (undoes) } }
                    @else if stored.undone { span.soft { "undone" } }
                    @else { a href=(revocations::undo_path(stored.sequence)) { "Undo…" span.visually-hidden { " event " (stored.sequence) } } }
                }
            } } }
        }
    }
}

pub(super) fn form(
    visitor: &Visitor,
    known: &[Arc<str>],
    (typed, problem): (&Fields, Option<(&str, &str)>),
) -> Markup {
    let of = |name: &str| problem.filter(|(field, _)| *field == name).map(|(_, why)| why);
    let types: Vec<_> = PUBLISHED.iter().map(|(kind, words)| (kind.as_str(), *words)).collect();
    let field = |label, name, hint| {
        FormField { label, name, value: typed.text(name), hint, problem: of(name), ..FormField::default() }
            .render()
    };
    layout::page(
        visitor,
        HOME,
        "New event",
        html! {
            form.card method="post" action={ (HOME) "/new" } {
                (hidden(visitor))
                (choice("Event type", "type", &types, typed.text("type")))
                @if let Some(why) = of("type") { p.problem { (why) } }
                (issuers(known, None, typed.text("issuer")))
                @if let Some(why) = of("issuer") { p.problem { (why) } }
                (field("Subject", "subject", "The “sub” of its tokens. For events about a subject."))
                (field("Session", "session", "The session claim of its tokens (usually “sid”). For the end of a login session."))
                (field("Client", "client", "The client id. For the end of all tokens of a client."))
                (field("Token", "jti", "The “jti” of the token. For the end of one token."))
                (field("Role version", "role_version", "Tokens with this role version or a later one stay valid. If empty, only tokens issued from now on stay valid."))
                div.actions { button type="submit" { "Continue…" } a href=(HOME) { "Back to the events" } }
            }
        },
    )
}

pub(super) fn confirm(visitor: &Visitor, event: &Event, in_use: usize, fields: &Fields) -> Markup {
    let words = PUBLISHED.iter().find(|(kind, _)| *kind == event.kind).map_or("", |(_, words)| words);
    layout::page(
        visitor,
        HOME,
        "Publish this event?",
        html! {
            div.card { dl {
                dt { "Event type" } dd { (words) " (" (event.kind.as_str()) ")" }
                dt { "Affects" } dd { (whom(event)) }
                @if let Some(version) = event.role_version { dt { "Role version" } dd { (version) } }
            } }
            div.notice.bad {
                p { strong { "It ends " @if event.role_version.is_some() { "up to " } (count(in_use, "token", "tokens")) " in use" } ", and all tokens issued until now that are not in use yet. It takes effect immediately and can be undone." }
            }
            form method="post" action={ (HOME) "/new" } {
                (hidden(visitor))
                @for name in ["type", "issuer", "subject", "client", "jti", "role_version"] {
                    input type="hidden" name=(name) value=(fields.text(name));
                }
                input type="hidden" name="confirmed" value="yes";
                div.actions { button.danger type="submit" { "Publish" } a href=(HOME) { "Do not publish" } }
            }
        },
    )
}
