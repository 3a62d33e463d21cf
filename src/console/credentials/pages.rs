//! The pages of credentials.

use std::sync::Arc;

use maud::{Markup, html};

use super::super::form::Fields;
use super::super::layout::{self, FormField, boxes, copied, hidden, labels};
use super::super::show::{day, moment};
use super::super::visitor::Visitor;
use super::Shown;
use super::input::{Expiry, OVERLAPS};
use crate::authority::{Credential, Settings, User};
use crate::time::Timestamp;

const HOME: &str = "/console/credentials";
/// Credentials that expire within this time are highlighted.
const SOON: std::time::Duration = std::time::Duration::from_secs(14 * 86_400);

/// The path of a credential's page.
pub(super) fn path(client_id: &str) -> String {
    format!("{HOME}/{}", layout::segment(client_id))
}

pub(super) fn list(visitor: &Visitor, rows: &[Shown], owner: Option<&str>, next: Option<String>) -> Markup {
    let (now, is_operator) = (Timestamp::now(), visitor.user().is_none());
    let asked = owner.filter(|_| is_operator);
    let new = asked.map_or_else(
        || format!("{HOME}/new"),
        |owner| format!("{HOME}/new?{}", layout::query(&[("owner", owner)])),
    );
    layout::page(
        visitor,
        HOME,
        "Application credentials",
        html! {
            @if !is_operator {
                p { "An application that calls the API on your behalf authenticates with a credential: a client id and a secret. Create one for each application, with only the roles that it needs." }
            }
            div.bar {
                @if is_operator {
                    form.bar method="get" action=(HOME) role="search" {
                        (FormField { label: "Owner", name: "owner", value: asked.unwrap_or_default(), ..FormField::default() }.render())
                        button.quiet type="submit" { "Show" }
                    }
                }
                a.button.push href=(new) { span aria-hidden="true" { "+ " } "New credential" }
            }
            @if rows.is_empty() {
                div.card.empty {
                    p { strong { "No credentials yet." } }
                    p { "Create one and give its id and secret to your application, which can then request tokens." }
                }
            } @else {
                table {
                    thead { tr {
                        th scope="col" { "Name" } @if is_operator { th scope="col" { "Owner" } }
                        th scope="col" { "Roles" } th scope="col" { "Scopes" } th scope="col" { "Expires" } th scope="col" { "Last use" }
                    } }
                    tbody { @for row in rows { (line(row, is_operator, now)) } }
                }
                (layout::more(next.map(|after| {
                    let mut pairs = vec![("after", after.as_str())];
                    pairs.extend(asked.map(|owner| ("owner", owner)));
                    format!("{HOME}?{}", layout::query(&pairs))
                })))
            }
        },
    )
}

fn line(row: &Shown, is_operator: bool, now: Timestamp) -> Markup {
    let credential = &row.credential;
    html! {
        tr {
            th scope="row" { a href=(path(&credential.client_id)) { (credential.name) } br; code.soft { (credential.client_id) } }
            @if is_operator { td data-name="Owner" { (credential.owner) } }
            td data-name="Roles" { (roles(row)) }
            td data-name="Scopes" { (labels(&credential.scopes)) }
            td data-name="Expires" { (expiry(credential, now)) }
            td data-name="Last use" { (last_use(row, now)) }
        }
    }
}

/// The roles of a credential; those that its owner no longer has are struck out.
fn roles(row: &Shown) -> Markup {
    let held =
        |role: &str| row.owner.as_ref().is_some_and(|owner| owner.roles.iter().any(|one| **one == *role));
    html! {
        @if row.credential.roles.is_empty() { span.none { "none" } }
        @for role in &row.credential.roles {
            @if held(role) { span.label { (role) } }
            @else { span.label.lost title="The owner no longer has this role, so new tokens do not include it." { (role) span.visually-hidden { " (lost)" } } }
            " "
        }
    }
}

fn expiry(credential: &Credential, now: Timestamp) -> Markup {
    html! {
        @match credential.expires_at {
            None => span.none { "never" },
            Some(end) if end <= now => { span.state.bad { "Expired" } " " (moment(end, now)) },
            Some(end) if end.since(now) < SOON => { span.state.warn { "Soon" } " " (moment(end, now)) },
            Some(end) => (moment(end, now)),
        }
    }
}

fn last_use(row: &Shown, now: Timestamp) -> Markup {
    html! {
        @match row.last_used_at {
            Some(at) => (moment(at, now)),
            None => span.none { "never used" },
        }
    }
}

/// The choice of an expiry. `kept` adds the choice to leave it unchanged.
fn lifetime(
    typed: &Fields,
    problem: Option<&str>,
    kept: Option<Option<Timestamp>>,
    now: Timestamp,
) -> Markup {
    let chosen = match typed.text("lifetime") {
        "" if kept.is_some() => Expiry::KEPT,
        "" => "90d",
        chosen => chosen,
    };
    let stays = match kept {
        Some(Some(end)) => format!("Keep {}", day(end)),
        Some(None) => "Keep: never".to_owned(),
        None => String::new(),
    };
    let kept = kept.map(|_| (Expiry::KEPT, stays.as_str()));
    html! {
        fieldset {
            legend { "Expires" }
            @for (value, words) in kept.into_iter().chain(Expiry::CHOICES) {
                @let id = format!("f-lifetime-{value}");
                div.box { input id=(id) type="radio" name="lifetime" value=(value) checked[value == chosen]; label for=(id) { (words) } }
            }
            div.box {
                input #f-lifetime-date type="radio" name="lifetime" value=(Expiry::DATE) checked[chosen == Expiry::DATE];
                label for="f-lifetime-date" { "At the end of" }
                input type="date" name="expires_at" aria-label="Last day" min=(day(now)) value=(typed.text("expires_at"))
                    data-chooses="f-lifetime-date" aria-invalid=[problem.map(|_| "true")];
            }
            @if let Some(why) = problem { p.problem { (why) } }
        }
    }
}

pub(super) fn form(
    visitor: &Visitor,
    owner: &User,
    settings: &Settings,
    (typed, problem): (&Fields, Option<(&str, &str)>),
    now: Timestamp,
) -> Markup {
    let of = |name: &str| problem.filter(|(field, _)| *field == name).map(|(_, why)| why);
    let other =
        problem.filter(|(field, _)| !["name", "roles", "scopes", "tenant", "expires_at"].contains(field));
    let scopes: Vec<Box<str>> = settings.scopes.iter().map(|scope| scope.as_str().into()).collect();
    layout::page(
        visitor,
        HOME,
        "New credential",
        html! {
            @if let Some((field, why)) = other { div.notice.bad role="alert" { p { (field) ": " (why) } } }
            form.card method="post" action={ (HOME) "/new" } {
                (hidden(visitor))
                input type="hidden" name="owner" value=(owner.id);
                @if visitor.user().is_none() { p { "For the user " strong { (owner.name) } " (" code { (owner.id) } ")." } }
                (FormField { label: "Name", name: "name", value: typed.text("name"), hint: "The name of the application, such as “Nightly export”.", problem: of("name"), required: true, ..FormField::default() }.render())
                (lifetime(typed, of("expires_at"), None, now))
                @if owner.roles.is_empty() { p.hint { "There are no roles to grant: the owner has none." } }
                @else { (boxes("Roles", "role", (&owner.roles, &typed.all("role")), ("Choose from the roles of the owner. If the owner loses a role, the application loses it immediately.", of("roles")))) }
                @if !scopes.is_empty() { (boxes("Scopes", "scope", (&scopes, &typed.all("scope")), ("The scopes that the application can request.", of("scopes")))) }
                @if settings.tenant_parameter.is_some() {
                    (FormField { label: "Tenant", name: "tenant", value: typed.text("tenant"), hint: "The tenant that the application must name when it requests a token. Leave empty if there is none.", problem: of("tenant"), ..FormField::default() }.render())
                }
                div.actions { button type="submit" { "Generate" } a href=(HOME) { "Cancel" } }
            }
        },
    )
}

pub(super) fn choose_owner(visitor: &Visitor, users: &[Arc<User>], named: &str) -> Markup {
    let problem = (!named.is_empty()).then_some("This user does not exist.");
    layout::page(
        visitor,
        HOME,
        "New credential",
        html! {
            form.card method="get" action={ (HOME) "/new" } {
                (FormField { label: "Owner", name: "owner", value: named, hint: "The id of the user on whose behalf the application calls the API.", problem, required: true, ..FormField::default() }.render())
                button type="submit" { "Continue" }
            }
            @if users.is_empty() { div.notice { p { "There are no users yet. " a href="/console/users" { "Create one" } " first." } } }
            @else {
                h2 { "Users" }
                ul { @for user in users { li { a href={ (HOME) "/new?" (layout::query(&[("owner", &user.id)])) } { (user.name) } " " code.soft { (user.id) } } } }
            }
        },
    )
}

pub(super) fn made(visitor: &Visitor, settings: &Settings, credential: &Credential, secret: &str) -> Markup {
    let url = format!("{}{}", settings.issuer.trim_end_matches('/'), settings.token_path);
    let scope = credential.scopes.join(" ");
    let tenant = settings.tenant_parameter.as_deref().zip(credential.tenant.as_deref());
    let mut curl = format!(
        "curl {url} \\\n  --user '{}:{secret}' \\\n  --data grant_type=client_credentials",
        credential.client_id
    );
    if !scope.is_empty() {
        curl.push_str(&format!(" \\\n  --data-urlencode {}", quoted(&format!("scope={scope}"))));
    }
    if let Some((parameter, tenant)) = tenant {
        curl.push_str(&format!(" \\\n  --data-urlencode {}", quoted(&format!("{parameter}={tenant}"))));
    }
    layout::page(
        visitor,
        HOME,
        "Your new secret",
        html! {
            div.notice.warn role="status" { p { strong { "Copy the secret now." } " It is shown only once. If you lose it, create a new one." } }
            section.card {
                (copied("client-id", "Client id", &credential.client_id))
                (copied("client-secret", "Secret key", secret))
            }
            section.card {
                h2 { "Try it" }
                p { "This command requests a token. Send the token with each request as " code { "Authorization: Bearer …" } "." }
                pre tabindex="0" #curl { (curl) }
                button.copy type="button" data-copy="curl" hidden { "Copy" span.visually-hidden { " the command" } }
                p.hint { "In Postman: Authorization → OAuth 2.0 → grant type “Client Credentials”, access token URL " code { (url) } ", the client id and secret from above, scope " code { (scope) } ", “Send as Basic Auth header”." }
            }
            p { a.button href=(path(&credential.client_id)) { "I have copied it" } }
        },
    )
}

/// Quotes a word for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

pub(super) fn sent_before(visitor: &Visitor) -> Markup {
    layout::page(
        visitor,
        HOME,
        "This form was already sent",
        html! {
            div.notice { p { "No second credential was created. A secret is shown only once: if you did not copy it, create a new secret for that credential." } }
            p { a.button href=(HOME) { "Back to the credentials" } }
        },
    )
}

pub(super) fn details(
    visitor: &Visitor,
    shown: &Shown,
    in_use: usize,
    (typed, problem): (&Fields, Option<(&str, &str)>),
    now: Timestamp,
) -> Markup {
    let credential = &shown.credential;
    let own = path(&credential.client_id);
    let lost = shown
        .owner
        .as_ref()
        .is_none_or(|owner| credential.roles.iter().any(|role| !owner.roles.contains(role)));
    layout::page(
        visitor,
        HOME,
        &credential.name,
        html! {
            @if credential.expires_at.is_some_and(|end| end <= now) {
                div.notice.bad { p { "This credential has expired, so its application cannot get tokens. To use it again, set a later expiry date below." } }
            } @else if credential.expires_at.is_some_and(|end| end.since(now) < SOON) {
                div.notice.warn { p { "This credential expires soon." } }
            }
            @if lost { div.notice.warn { p { "The owner has lost one of its roles. New tokens do not include that role." } } }
            section.card { (facts(shown, in_use, now)) }
            section.card {
                h2 { "Edit" }
                form method="post" action={ (own) "/edit" } {
                    (hidden(visitor))
                    @let of = |name: &str| problem.filter(|(field, _)| *field == name).map(|(_, why)| why);
                    @let name = if problem.is_some() { typed.text("name") } else { &*credential.name };
                    (FormField { label: "Name", name: "name", value: name, problem: of("name"), required: true, ..FormField::default() }.render())
                    (lifetime(typed, of("expires_at"), Some(credential.expires_at), now))
                    button type="submit" { "Save" }
                }
            }
            section.card {
                h2 { "New secret" }
                p { "Use this if the secret has leaked, was lost, or is old." }
                form method="post" action={ (own) "/secret" } {
                    (hidden(visitor))
                    fieldset {
                        legend { "The current secret" }
                        @for (place, (value, words, _)) in OVERLAPS.iter().enumerate() {
                            @let id = format!("f-overlap-{value}");
                            div.box { input id=(id) type="radio" name="overlap" value=(value) checked[place == 0]; label for=(id) { (words) } }
                        }
                    }
                    div.box { input #f-end-tokens type="checkbox" name="end_tokens" value="yes"; label for="f-end-tokens" { "Also end its tokens in use (" (in_use) ")" } }
                    div.actions { button type="submit" { "Create a new secret" } }
                }
            }
            section.card {
                h2 { "Delete" }
                p { "The credential and its tokens end immediately." }
                a.button.danger href={ (own) "/delete" } { "Delete…" }
            }
        },
    )
}

fn facts(shown: &Shown, in_use: usize, now: Timestamp) -> Markup {
    let credential = &shown.credential;
    html! {
        dl {
            dt { "Client id" } dd { code { (credential.client_id) } }
            dt { "Owner" } dd { @match &shown.owner { Some(owner) => { (owner.name) " " code.soft { (owner.id) } }, None => (credential.owner) } }
            dt { "Roles" } dd { (roles(shown)) }
            dt { "Scopes" } dd { (labels(&credential.scopes)) }
            @if let Some(tenant) = &credential.tenant { dt { "Tenant" } dd { (tenant) } }
            dt { "Expires" } dd { (expiry(credential, now)) }
            dt { "Created" } dd { (moment(credential.created_at, now)) }
            dt { "Last use" } dd { (last_use(shown, now)) }
            dt { "Tokens in use" } dd { (in_use) }
            @if let Some(until) = credential.old_secret_expires_at().filter(|until| *until > now) {
                dt { "Old secret" } dd { "works until " (moment(until, now)) }
            }
        }
    }
}

pub(super) fn confirm(visitor: &Visitor, credential: &Credential, in_use: usize) -> Markup {
    let own = path(&credential.client_id);
    layout::page(
        visitor,
        HOME,
        "Delete this credential?",
        html! {
            div.notice.bad {
                p { strong { (credential.name) } " (" code { (credential.client_id) } ")" }
                p { @match in_use {
                    0 => "None of its tokens is in use.",
                    1 => "1 token in use will end.",
                    many => { (many) " tokens in use will end." },
                } " This cannot be undone." }
            }
            form method="post" action={ (own) "/delete" } {
                (hidden(visitor))
                div.actions { button.danger type="submit" { "Delete" } a href=(own) { "Keep it" } }
            }
        },
    )
}
