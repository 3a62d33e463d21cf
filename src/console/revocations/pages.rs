//! The pages of revocations.

use std::sync::Arc;

use maud::{Markup, html};

use super::super::events::whom;
use super::super::layout::{self, hidden};
use super::super::search::{Searched, bar, issuers, nothing, search_field};
use super::super::show::moment;
use super::super::visitor::Visitor;
use super::undo_path;
use crate::events::log::EventPage;
use crate::state::record::StoredEvent;
use crate::time::Timestamp;

pub(super) const HOME: &str = "/console/revocations";

pub(super) fn list(
    visitor: &Visitor,
    searched: &Searched,
    known: &[Arc<str>],
    found: &Result<EventPage, String>,
) -> Markup {
    let now = Timestamp::now();
    let fields = html! {
        (issuers(known, Some("Any"), &searched.issuer))
        (search_field("Subject", "subject", &searched.subject))
        (search_field("Client", "client", &searched.client))
        (search_field("Token (jti)", "jti", &searched.jti))
    };
    layout::page(
        visitor,
        HOME,
        "Revocations",
        html! {
            p { "Revocations in effect, oldest first. A revocation stays in effect until every token that it could end has expired." }
            (bar(HOME, fields, searched.is_narrowed(), found.as_ref().err().map(String::as_str)))
            @if let Ok(part) = found {
                @if part.items.is_empty() {
                    @if part.next.is_some() { (nothing("Nothing on this page.", "There are more on the next page.")) }
                    @else if searched.is_narrowed() { (nothing("No such revocation.", "Change the search, or show all.")) }
                    @else { (nothing("Nothing is revoked.", "To end tokens, publish an event on the Events page, or end them on the Sessions page.")) }
                } @else {
                    table {
                        thead { tr {
                            th scope="col" { "Revocation" } th scope="col" { "Affects" } th scope="col" { "When" }
                            th scope="col" { "In effect until" } th scope="col" { "Source" } th scope="col" { "Undo" }
                        } }
                        tbody { @for stored in &part.items { tr {
                            th scope="row" { (stored.event.kind.as_str()) br; span.soft { "#" (stored.sequence) } }
                            td data-name="Affects" { (whom(&stored.event)) }
                            td data-name="When" { (moment(stored.event.at, now)) }
                            td data-name="In effect until" { (moment(stored.event.expires_at, now)) }
                            td data-name="Source" { (stored.source.as_str()) }
                            td data-name="Undo" { a href=(undo_path(stored.sequence)) { "Undo…" span.visually-hidden { " revocation " (stored.sequence) } } }
                        } } }
                    }
                }
                (layout::more(part.next.map(|next| searched.link(HOME, &next.to_string()))))
            }
        },
    )
}

pub(super) fn confirm(visitor: &Visitor, stored: &StoredEvent) -> Markup {
    let now = Timestamp::now();
    layout::page(
        visitor,
        HOME,
        "Undo this revocation?",
        html! {
            div.card { dl {
                dt { "Revocation" } dd { (stored.event.kind.as_str()) " #" (stored.sequence) }
                dt { "Affects" } dd { (whom(&stored.event)) }
                dt { "When" } dd { (moment(stored.event.at, now)) }
                dt { "Source" } dd { (stored.source.as_str()) }
            } }
            div.notice.bad {
                p { strong { "Tokens that it ended are accepted again" } ", unless another event also ends them or they have expired." }
            }
            form method="post" action=(undo_path(stored.sequence)) {
                (hidden(visitor))
                div.actions { button.danger type="submit" { "Undo" } a href=(HOME) { "Keep it" } }
            }
        },
    )
}
