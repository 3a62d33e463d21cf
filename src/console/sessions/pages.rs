//! The pages of sessions.

use std::sync::Arc;

use maud::{Markup, html};

use super::super::layout::{self, hidden};
use super::super::search::{Searched, bar, digits, issuers, non_empty, nothing, search_field};
use super::super::show::{ago, count, moment};
use super::super::visitor::Visitor;
use crate::state::record::SessionRow;
use crate::time::Timestamp;

pub(super) const HOME: &str = "/console/sessions";

/// The path of the page that ends a token.
fn end_path(row: &SessionRow) -> String {
    format!("{HOME}/{}/end", row.token.0)
}

pub(super) fn list(
    visitor: &Visitor,
    searched: &Searched,
    known: &[Arc<str>],
    found: &Result<(Vec<SessionRow>, bool), String>,
) -> Markup {
    let fields = html! {
        (issuers(known, Some("Any"), &searched.issuer))
        (search_field("Subject", "subject", &searched.subject))
        (search_field("Client", "client", &searched.client))
    };
    layout::page(
        visitor,
        HOME,
        "Sessions",
        html! {
            p { "The tokens in use. They are named by a digest, as in log lines: a session does not contain the token or its subject in clear text." }
            (bar(HOME, fields, searched.is_narrowed(), found.as_ref().err().map(String::as_str)))
            @if let Ok((rows, more)) = found {
                @if rows.is_empty() {
                    @if searched.is_narrowed() { (nothing("No such token is in use.", "Change the search, or show all.")) }
                    @else { (nothing("No token is in use.", "A token is listed after the first request with it is forwarded.")) }
                } @else {
                    @if let Some(subject) = non_empty(&searched.subject) {
                        p { a.button.danger href={ (HOME) "/end?" (layout::query(&[("subject", &subject), ("issuer", &searched.issuer)])) } { "End all of this subject…" } }
                    }
                    (table(rows, Timestamp::now()))
                }
                @let next = rows.last().filter(|_| *more).map(|row| row.token.0.to_string());
                (layout::more(next.map(|next| searched.link(HOME, &next))))
            }
        },
    )
}

fn table(rows: &[SessionRow], now: Timestamp) -> Markup {
    html! {
        table {
            thead { tr {
                th scope="col" { "Token" } th scope="col" { "Issuer" } th scope="col" { "Client" } th scope="col" { "First use" }
                th scope="col" { "Last use" } th scope="col" { "Expires" } th scope="col" { "End" }
            } }
            tbody { @for row in rows { @let name = row.token.0.to_string(); tr {
                th scope="row" { (digits(&name)) }
                td data-name="Issuer" { (row.issuer) }
                td data-name="Client" { @match &row.client { Some(client) => code { (client) }, None => span.none { "none" } } }
                td data-name="First use" { (ago(row.first_used_at, now)) }
                td data-name="Last use" { (ago(row.last_used_at, now)) }
                td data-name="Expires" { (ago(row.expires_at, now)) }
                td data-name="End" { a href=(end_path(row)) { "End…" span.visually-hidden { " token " (name.get(..12).unwrap_or(&name)) } } }
            } } }
        }
    }
}

pub(super) fn confirm_one(visitor: &Visitor, row: &SessionRow) -> Markup {
    let now = Timestamp::now();
    layout::page(
        visitor,
        HOME,
        "End this token?",
        html! {
            div.card { dl {
                dt { "Token" } dd { (digits(&row.token.0.to_string())) }
                dt { "Issuer" } dd { (row.issuer) }
                dt { "Client" } dd { @match &row.client { Some(client) => code { (client) }, None => span.none { "none" } } }
                dt { "Last use" } dd { (moment(row.last_used_at, now)) }
                dt { "Expires" } dd { (moment(row.expires_at, now)) }
            } }
            div.notice.bad { p { "Its next request is rejected, and its open streams end. Its application needs a new token. You can undo this on the Revocations page." } }
            form method="post" action=(end_path(row)) {
                (hidden(visitor))
                div.actions { button.danger type="submit" { "End the token" } a href=(HOME) { "Keep it" } }
            }
        },
    )
}

pub(super) fn confirm_all(visitor: &Visitor, searched: &Searched, in_use: usize) -> Markup {
    layout::page(
        visitor,
        HOME,
        "End all tokens of this subject?",
        html! {
            div.card { dl {
                dt { "Subject" } dd { code { (searched.subject) } }
                @if !searched.issuer.is_empty() { dt { "Issuer" } dd { (searched.issuer) } }
            } }
            div.notice.bad { p { strong { (count(in_use, "token", "tokens")) " in use" @if in_use == 1 { " ends." } @else { " end." } } " Tokens that are not in use yet stay valid. To end those as well, publish the event subject-revoked." } }
            form method="post" action={ (HOME) "/end" } {
                (hidden(visitor))
                input type="hidden" name="subject" value=(searched.subject);
                input type="hidden" name="issuer" value=(searched.issuer);
                div.actions { button.danger type="submit" { "End them" } a href=(HOME) { "Keep them" } }
            }
        },
    )
}
