//! The pages of explanations.

use std::sync::Arc;

use maud::{Markup, html};

use super::super::form::Fields;
use super::super::layout::{self, FormField, LINES, hidden};
use super::super::show::{ago, moment};
use super::super::visitor::Visitor;
use crate::enforce::denial::Reason;
use crate::enforce::explain::{Explanation, Finding};
use crate::log::{Decision, Refusal};
use crate::time::Timestamp;

pub(super) const HOME: &str = "/console/explain";
const TITLE: &str = "Explain";
/// How many characters of a request id the list shows.
const SHORT: usize = 12;
/// The methods to choose from.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// The result of a look-up by request id.
pub(super) enum Lookup<'a> {
    /// No id was given.
    Nothing,
    Found(Arc<Refusal>),
    /// No rejected request with this id is stored.
    Unknown(&'a str),
}

/// The request that a form is filled in with.
struct ShownRequest<'a> {
    token: &'a str,
    method: &'a str,
    path: &'a str,
    host: &'a str,
}

/// The page with forms and list. If a rejected request was looked up, the token form contains that request.
pub(super) fn overview(
    visitor: &Visitor,
    lookup: &Lookup<'_>,
    (latest, reason, missed): (&[Arc<Refusal>], &str, u64),
    now: Timestamp,
) -> Markup {
    let asked = match lookup {
        Lookup::Found(refusal) => ShownRequest {
            token: "",
            method: &refusal.method,
            path: refusal.path.as_deref().unwrap_or("/"),
            host: refusal.host.as_deref().unwrap_or_default(),
        },
        Lookup::Nothing | Lookup::Unknown(_) => {
            ShownRequest { token: "", method: "GET", path: "/", host: "" }
        }
    };
    layout::page(
        visitor,
        HOME,
        TITLE,
        html! {
            @match lookup {
                Lookup::Nothing => {}
                Lookup::Found(refusal) => (looked_up(refusal, now)),
                Lookup::Unknown(id) => (not_found(id)),
            }
            div.pair {
                (request_form(if let Lookup::Unknown(id) = lookup { id } else { "" }))
                (token_form(visitor, &asked, None))
            }
            (list(latest, reason, missed, now))
        },
    )
}

/// The form again, with what is wrong.
pub(super) fn again(visitor: &Visitor, typed: &Fields, problem: Option<(&str, &str)>) -> Markup {
    let asked = ShownRequest { token: typed.trimmed("token"), ..asked(typed) };
    layout::page(visitor, HOME, TITLE, token_form(visitor, &asked, problem))
}

/// The verdict, and the form without the token.
pub(super) fn verdict(visitor: &Visitor, typed: &Fields, explanation: &Explanation) -> Markup {
    let asked = asked(typed);
    let failed = |finding: &&Finding| finding.ok == Some(false);
    let (first, rest) = (explanation.checks.iter().filter(failed), explanation.checks.iter());
    let checks = first.chain(rest.filter(|finding| !failed(finding)));
    layout::page(
        visitor,
        HOME,
        TITLE,
        html! {
            @match explanation.reason {
                None => div.notice.good role="status" { p { strong { "This request would be allowed." } } },
                Some(reason) => div.notice.bad role="status" {
                    p { strong { "This request would be rejected: " (reason.as_str()) "." } }
                    p { (reason.meaning()) " The client would receive " (reason.wire().status.as_u16()) ": “" (reason.wire().description) "”." }
                },
            }
            p { code { (asked.method) " " (asked.path) } @if !asked.host.is_empty() { " on " code { (asked.host) } } }
            table {
                caption.visually-hidden { "All checks, failed checks first" }
                thead { tr { th scope="col" { "Check" } th scope="col" { "Result" } th scope="col" { "What was compared" } } }
                tbody { @for finding in checks { tr {
                    th scope="row" { code { (finding.check) } }
                    td data-name="Result" { (result(finding.ok)) }
                    td data-name="What was compared" { (finding.detail.strip_prefix("not checked: ").unwrap_or(&finding.detail)) }
                } } }
            }
            h2 { "Another token or request" }
            (token_form(visitor, &asked, None))
            p { a href=(HOME) { "The latest rejected requests" } }
        },
    )
}

fn result(ok: Option<bool>) -> Markup {
    html! {
        @match ok {
            Some(true) => span.mark.ok { "✓ passed" },
            Some(false) => span.mark.fail { "✗ failed" },
            None => span.none { "– not checked" },
        }
    }
}

fn asked(typed: &Fields) -> ShownRequest<'_> {
    ShownRequest {
        token: "",
        method: typed.trimmed("method"),
        path: typed.trimmed("path"),
        host: typed.trimmed("host"),
    }
}

fn token_form(visitor: &Visitor, asked: &ShownRequest<'_>, problem: Option<(&str, &str)>) -> Markup {
    let of = |name: &str| problem.filter(|(field, _)| *field == name).map(|(_, why)| why);
    let hint = "Without “Bearer”. The gate neither stores nor logs the token, and checking it does not count as use.";
    let is_listed = METHODS.contains(&asked.method);
    html! {
        section.card {
            h2 { "A token and a request" }
            form method="post" action=(HOME) {
                (hidden(visitor))
                (FormField { label: "Token", name: "token", kind: LINES, value: asked.token, hint, problem: of("token"), required: true, ..FormField::default() }.render())
                div.field {
                    label for="f-method" { "Method" }
                    select #f-method name="method" aria-invalid=[of("method").map(|_| "true")] {
                        @if !is_listed { option selected { (asked.method) } }
                        @for method in METHODS { option selected[method == asked.method] { (method) } }
                    }
                    @if let Some(why) = of("method") { p.problem { (why) } }
                }
                (FormField { label: "Path", name: "path", value: asked.path, problem: of("path"), required: true, ..FormField::default() }.render())
                (FormField { label: "Host", name: "host", value: asked.host, hint: "Needed only if routes depend on it.", ..FormField::default() }.render())
                button type="submit" { "Explain" }
            }
        }
    }
}

fn request_form(typed: &str) -> Markup {
    let hint = "The x-request-id of the response, or the request_id in the log.";
    html! {
        section.card {
            h2 { "A request that was rejected" }
            form method="get" action=(HOME) {
                (FormField { label: "Request id", name: "request", value: typed, hint, required: true, ..FormField::default() }.render())
                button type="submit" { "Look up" }
            }
        }
    }
}

fn not_found(id: &str) -> Markup {
    html! {
        div.notice.warn role="status" {
            p { strong { "No rejected request has the id " code { (id) } "." } }
            p { "The gate keeps the last 1,000 in memory. This request was allowed, is older, or was rejected by another gate or an earlier process; see the log." }
        }
    }
}

/// The start of a request id, which is enough to distinguish it in the list.
fn short(id: &str) -> String {
    if id.chars().count() <= SHORT { id.to_owned() } else { id.chars().take(SHORT).chain(['…']).collect() }
}

/// Describes the decision about a request in a few words.
fn outcome(refusal: &Refusal) -> &'static str {
    match refusal.decision {
        Decision::ShadowDeny => "Forwarded, because its route is in shadow mode. It would have been rejected",
        Decision::Unavailable => "Rejected, because the gate could not decide or had reached a limit",
        Decision::Allow | Decision::Deny => "Rejected",
    }
}

/// The explanation for a rejected request without a reason from the closed set.
const BROKEN: &str = "The request exceeded a limit of the gate or violated a rule of HTTP; see its status.";

fn looked_up(refusal: &Refusal, now: Timestamp) -> Markup {
    let meaning = refusal.reason.and_then(Reason::meaning_of).unwrap_or(BROKEN);
    let client = if refusal.is_client_claimed { "Client, from the token" } else { "Client" };
    let rest = [
        ("Host", refusal.host.as_deref()),
        ("Route", refusal.route.as_deref()),
        ("Issuer", refusal.issuer.as_deref()),
        (client, refusal.client.as_deref()),
        ("Key", refusal.kid.as_deref()),
        ("Token (digest)", refusal.token.as_deref()),
        ("Subject (digest)", refusal.subject.as_deref()),
    ];
    html! {
        section.card {
            h2 { "Request " code { (refusal.request_id) } }
            p { strong { (outcome(refusal)) ": " (refusal.reason.unwrap_or("no reason")) "." } " " (meaning) }
            dl {
                dt { "When" } dd { (moment(refusal.at, now)) }
                dt { "Request" } dd { code { (refusal.method) " " (refusal.path.as_deref().unwrap_or("(an unreadable target)")) } }
                dt { "Status" } dd { (refusal.status) }
                dt { "From" } dd { (refusal.client_address) }
                @for (name, value) in rest { @if let Some(value) = value { dt { (name) } dd { code { (value) } } } }
            }
            p.hint { "The gate does not store tokens. To see all checks, paste the token below." }
        }
    }
}

fn list(latest: &[Arc<Refusal>], wanted: &str, missed: u64, now: Timestamp) -> Markup {
    let mut words: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    words.dedup();
    html! {
        h2 #latest { "The latest rejected requests" }
        form.bar method="get" action={ (HOME) "#latest" } {
            div.field {
                label for="f-reason" { "Reason" }
                select #f-reason name="reason" {
                    option value="" { "any" }
                    @for word in words { option selected[word == wanted] { (word) } }
                }
            }
            button.quiet type="submit" { "Show" }
        }
        @if latest.is_empty() {
            div.card.empty {
                p { strong { "No such request." } }
                p { "Since this gate started, no request has been rejected" @if !wanted.is_empty() { " for this reason" } ", or more than 1,000 others were rejected after it." }
            }
        } @else {
            table {
                thead { tr {
                    th scope="col" { "Request" } th scope="col" { "When" } th scope="col" { "Why" }
                    th scope="col" { "Method and path" } th scope="col" { "Client" } th scope="col" { "From" }
                } }
                tbody { @for refusal in latest { tr {
                    th scope="row" { a href={ (HOME) "?" (layout::query(&[("request", &refusal.request_id)])) } { code { (short(&refusal.request_id)) } } }
                    td.short data-name="When" { (ago(refusal.at, now)) }
                    td data-name="Why" { (refusal.status) " " (refusal.reason.unwrap_or("a limit")) @if refusal.decision == Decision::ShadowDeny { span.soft { " (shadow mode)" } } }
                    td data-name="Method and path" { code { (refusal.method) " " (refusal.path.as_deref().unwrap_or_default()) } }
                    td data-name="Client" { @match refusal.client.as_deref() { Some(client) => (client), None => span.none { "unknown" } } }
                    td.short data-name="From" { (refusal.client_address) }
                } } }
            }
            @if missed > 0 { p.hint { (missed) " more arrived at the same time as others and are only in the log." } }
        }
    }
}
