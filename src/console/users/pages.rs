//! The pages of users.

use std::sync::Arc;

use maud::{Markup, html};

use super::super::form::Fields;
use super::super::layout::{self, FormField, LINES, hidden, labels};
use super::super::show::{count, moment};
use super::super::visitor::Visitor;
use super::InUse;
use crate::authority::{Credential, User};
use crate::time::Timestamp;

const HOME: &str = "/console/users";

/// The path of a user's page.
pub(super) fn path(id: &str) -> String {
    format!("{HOME}/{}", layout::segment(id))
}

pub(super) fn list(
    visitor: &Visitor,
    users: &[Arc<User>],
    next: Option<String>,
    (typed, problem): (&Fields, Option<(&str, &str)>),
    now: Timestamp,
) -> Markup {
    let of = |name: &str| problem.filter(|(field, _)| *field == name).map(|(_, why)| why);
    layout::page(
        visitor,
        HOME,
        "Users",
        html! {
            p { "Applications call the API on behalf of a user, and their tokens include only roles of that user." }
            @if users.is_empty() {
                div.card.empty { p { strong { "No users yet." } } p { "Create one below. Then set a password, or create a credential for the user's first application." } }
            } @else {
                table {
                    thead { tr { th scope="col" { "User" } th scope="col" { "Roles" } th scope="col" { "Password" } th scope="col" { "Created" } } }
                    tbody { @for user in users { tr {
                        th scope="row" { a href=(path(&user.id)) { (user.name) } br; code.soft { (user.id) } }
                        td data-name="Roles" { (labels(&user.roles)) }
                        td data-name="Password" { @if user.has_password() { "set" } @else { span.none { "none" } } }
                        td data-name="Created" { (moment(user.created_at, now)) }
                    } } }
                }
                (layout::more(next.map(|after| format!("{HOME}?{}", layout::query(&[("after", &after)])))))
            }
            section.card {
                h2 { "New user" }
                form method="post" action=(HOME) {
                    (hidden(visitor))
                    (FormField { label: "Id", name: "id", value: typed.text("id"), hint: "The “sub” of the user's tokens. It cannot be changed later.", problem: of("id"), required: true, ..FormField::default() }.render())
                    (FormField { label: "Name", name: "name", value: typed.text("name"), hint: "The display name. If empty, the id is used.", problem: of("name"), ..FormField::default() }.render())
                    (FormField { label: "Roles", name: "roles", kind: LINES, value: typed.text("roles"), hint: "One per line.", problem: of("roles"), ..FormField::default() }.render())
                    button type="submit" { "Create" }
                }
            }
        },
    )
}

pub(super) fn details(
    visitor: &Visitor,
    user: &User,
    in_use: &InUse,
    credentials: &[Arc<Credential>],
    (typed, problem): (&Fields, Option<(&str, &str)>),
    now: Timestamp,
) -> Markup {
    let of = |name: &str| problem.filter(|(field, _)| *field == name).map(|(_, why)| why);
    let own = path(&user.id);
    let held = user.roles.join("\n");
    let roles = if of("roles").is_some() { typed.text("roles") } else { &held };
    layout::page(
        visitor,
        HOME,
        &user.name,
        html! {
            section.card { dl {
                dt { "Id" } dd { code { (user.id) } }
                dt { "Roles" } dd { (labels(&user.roles)) }
                dt { "Role version" } dd { (user.role_version) }
                dt { "Created" } dd { (moment(user.created_at, now)) }
                dt { "Tokens in use" } dd { (in_use.tokens) }
                dt { "Credentials" } dd {
                    @if credentials.is_empty() { span.none { "none" } }
                    @for one in credentials { div { a href={ "/console/credentials/" (layout::segment(&one.client_id)) } { (one.name) } } }
                    div { a href={ "/console/credentials/new?" (layout::query(&[("owner", &user.id)])) } { "+ New credential" } }
                }
            } }
            section.card {
                h2 { "Roles" }
                form method="post" action={ (own) "/roles" } {
                    (hidden(visitor))
                    (FormField { label: "Roles", name: "roles", kind: LINES, value: roles, hint: "One per line. The effects of a change are shown before you confirm it.", problem: of("roles"), ..FormField::default() }.render())
                    button type="submit" { "Change roles…" }
                }
            }
            section.card {
                h2 { "Password" }
                p { @if user.has_password() { "The user can sign in to this console. A new password signs the user out everywhere." } @else { "With a password, the user can sign in to this console and create credentials." } }
                form method="post" action={ (own) "/password" } {
                    (hidden(visitor))
                    // Password managers need a user name.
                    input type="text" value=(user.id) autocomplete="username" readonly hidden;
                    (FormField { label: "New password", name: "password", kind: "password", hint: "At least 8 characters.", problem: of("password"), required: true, autocomplete: "new-password", ..FormField::default() }.render())
                    (FormField { label: "Repeat the password", name: "again", kind: "password", problem: of("again"), required: true, autocomplete: "new-password", ..FormField::default() }.render())
                    button type="submit" { "Set password" }
                }
                @if user.has_password() {
                    form.actions method="post" action={ (own) "/password" } {
                        (hidden(visitor))
                        input type="hidden" name="remove" value="yes";
                        button.danger type="submit" { "Remove the password" }
                    }
                }
            }
            section.card {
                h2 { "Delete" }
                p { "The user and its credentials are deleted, and their tokens end immediately." }
                a.button.danger href={ (own) "/delete" } { "Delete…" }
            }
        },
    )
}

/// Describes what a change ends.
fn consequences(in_use: &InUse) -> Markup {
    html! {
        p {
            @match in_use.tokens {
                0 => "No token of this user is in use.",
                1 => "1 token in use will end.",
                many => { (many) " tokens in use will end." },
            }
        }
        @if !in_use.applications.is_empty() {
            p { "Applications that must request a new token:" }
            ul { @for name in &in_use.applications { li { (name) } } }
        }
    }
}

pub(super) fn confirm_roles(visitor: &Visitor, user: &User, wanted: &[String], in_use: &InUse) -> Markup {
    let own = path(&user.id);
    let gained: Vec<Box<str>> = wanted
        .iter()
        .filter(|role| !user.roles.iter().any(|held| **held == ***role))
        .map(|role| role.as_str().into())
        .collect();
    let lost: Vec<Box<str>> =
        user.roles.iter().filter(|held| !wanted.iter().any(|role| **role == ***held)).cloned().collect();
    layout::page(
        visitor,
        HOME,
        "Change these roles?",
        html! {
            div.card { dl {
                dt { "User" } dd { (user.name) " " code.soft { (user.id) } }
                dt { "Gains" } dd { (labels(&gained)) }
                dt { "Loses" } dd { (labels(&lost)) }
            } }
            div.notice.warn { (consequences(in_use)) }
            form method="post" action={ (own) "/roles" } {
                (hidden(visitor))
                input type="hidden" name="roles" value=(wanted.join("\n"));
                input type="hidden" name="version" value=(user.role_version);
                input type="hidden" name="confirmed" value="yes";
                div.actions { button.danger type="submit" { "Change roles" } a href=(own) { "Keep them" } }
            }
        },
    )
}

pub(super) fn confirm_delete(visitor: &Visitor, user: &User, in_use: &InUse, credentials: usize) -> Markup {
    let own = path(&user.id);
    layout::page(
        visitor,
        HOME,
        "Delete this user?",
        html! {
            div.notice.bad {
                p { strong { (user.name) } " (" code { (user.id) } ") with " (count(credentials, "credential", "credentials")) ". This cannot be undone." }
                (consequences(in_use))
            }
            form method="post" action={ (own) "/delete" } {
                (hidden(visitor))
                div.actions { button.danger type="submit" { "Delete" } a href=(own) { "Keep it" } }
            }
        },
    )
}
