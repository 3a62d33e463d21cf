//! The search that the lists of events, revocations, sessions and usage share, with its search bar.

use std::sync::Arc;

use maud::{Markup, html};
use serde::Deserialize;

use super::layout::{self, FormField};
use crate::admin::{SessionSearch, WhomFilter};

/// The search fields from the query. Empty fields are ignored.
#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub(super) struct Searched {
    pub(super) r#type: String,
    pub(super) issuer: String,
    pub(super) subject: String,
    pub(super) client: String,
    pub(super) session: String,
    pub(super) jti: String,
    /// Where the page begins.
    pub(super) from: String,
}

/// Returns a value unless it is empty.
pub(super) fn non_empty(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

impl Searched {
    /// Converts it to a filter for events.
    pub(super) fn whom(&self) -> WhomFilter {
        WhomFilter {
            subject: non_empty(&self.subject),
            client: non_empty(&self.client),
            session: non_empty(&self.session),
            jti: non_empty(&self.jti),
            issuer: non_empty(&self.issuer),
        }
    }

    /// Converts it to a filter for sessions.
    pub(super) fn sessions(&self) -> SessionSearch {
        SessionSearch {
            subject: non_empty(&self.subject),
            issuer: non_empty(&self.issuer),
            client: non_empty(&self.client),
        }
    }

    /// Whether any field is set.
    pub(super) fn is_narrowed(&self) -> bool {
        [&self.r#type, &self.issuer, &self.subject, &self.client, &self.session, &self.jti]
            .iter()
            .any(|text| non_empty(text).is_some())
    }

    /// The URL of the same search, starting at another place.
    pub(super) fn link(&self, path: &str, from: &str) -> String {
        let all = [
            ("type", &*self.r#type),
            ("issuer", &self.issuer),
            ("subject", &self.subject),
            ("client", &self.client),
            ("session", &self.session),
            ("jti", &self.jti),
            ("from", from),
        ];
        let filled: Vec<_> = all.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        format!("{path}?{}", layout::query(&filled))
    }
}

/// A field with a choice of values, each with its label.
pub(super) fn choice(label: &str, name: &str, options: &[(&str, &str)], chosen: &str) -> Markup {
    let id = format!("f-{name}");
    html! {
        div.field {
            label for=(id) { (label) }
            select id=(id) name=(name) {
                @for (value, text) in options { option value=(value) selected[*value == chosen] { (text) } }
            }
        }
    }
}

/// A choice of issuers; `any` is the label of the choice of all issuers.
pub(super) fn issuers(all: &[Arc<str>], any: Option<&str>, chosen: &str) -> Markup {
    let any = any.map(|text| ("", text));
    let options: Vec<_> = any.into_iter().chain(all.iter().map(|name| (&**name, &**name))).collect();
    choice("Issuer", "issuer", &options, chosen)
}

/// A text field of the search.
pub(super) fn search_field(label: &str, name: &str, value: &str) -> Markup {
    FormField { label, name, value, ..FormField::default() }.render()
}

/// The search bar above a list.
pub(super) fn bar(path: &str, fields: Markup, is_narrowed: bool, problem: Option<&str>) -> Markup {
    html! {
        form.bar method="get" action=(path) role="search" {
            (fields)
            button.quiet type="submit" { "Search" }
            @if is_narrowed { a href=(path) { "Show all" } }
        }
        @if let Some(why) = problem { p.problem role="alert" { (why) } }
    }
}

/// What a list without rows shows.
pub(super) fn nothing(title: &str, text: &str) -> Markup {
    html! { div.card.empty { p { strong { (title) } } p { (text) } } }
}

/// The first digits of a token's digest, as in log lines.
pub(super) fn digits(name: &str) -> Markup {
    html! { code title=(name) { (name.get(..12).unwrap_or(name)) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_empty_is_not_looked_for() {
        let searched = Searched { subject: "  ".into(), client: " a&b ".into(), ..Searched::default() };
        let whom = searched.whom();
        assert_eq!(
            (whom.subject, whom.client.as_deref(), whom.jti, whom.issuer),
            (None, Some("a&b"), None, None)
        );
        assert_eq!(searched.sessions().client.as_deref(), Some("a&b"));
        assert!(
            searched.is_narrowed() && !Searched { from: "7".into(), ..Searched::default() }.is_narrowed()
        );
        assert_eq!(searched.link("/x", "7"), "/x?subject=++&client=+a%26b+&from=7");
    }

    #[test]
    fn names_in_choices_are_text() {
        let shown = choice("L", "n", &[("\"><script>", "<script>")], "").into_string();
        assert!(
            shown.contains("value=\"&quot;&gt;&lt;script&gt;\"") && !shown.contains("<script"),
            "{shown}"
        );
        assert_eq!(
            digits("0123456789abcdef").into_string(),
            "<code title=\"0123456789abcdef\">0123456789ab</code>"
        );
    }
}
