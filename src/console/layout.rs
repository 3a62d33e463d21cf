//! The shared layout of all pages: the frame with its menu, and the components of forms and tables.

use maud::{DOCTYPE, Markup, html};

use super::assets;
use super::form::{CSRF, ONCE};
use super::visitor::Visitor;
use super::visits::random;

/// A page for a visitor. `path` is the menu entry that it belongs to.
pub(super) fn page(visitor: &Visitor, path: &str, title: &str, body: Markup) -> Markup {
    framed(
        title,
        html! {
            header.top {
                a.brand href=(super::ROOT) { "Portcullis" }
                nav aria-label="Pages" {
                    @for tab in visitor.tabs() {
                        a href=(tab.path) aria-current=[(tab.path == path).then_some("page")] { (tab.name) }
                    }
                }
                form.who method="post" action="/console/sign-out" {
                    (hidden(visitor))
                    span.name title="Signed in" { (visitor.name()) }
                    button.quiet type="submit" { "Sign out" }
                }
            }
            main #content tabindex="-1" { h1 { (title) } (body) }
        },
    )
}

/// A page without a visitor.
pub(super) fn bare(title: &str, body: Markup) -> Markup {
    framed(
        title,
        html! {
            header.top { a.brand href=(super::ROOT) { "Portcullis" } }
            main #content.narrow tabindex="-1" { h1 { (title) } (body) }
        },
    )
}

fn framed(title: &str, body: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Portcullis" }
                link rel="icon" type="image/svg+xml" href=(assets::url("icon.svg"));
                link rel="stylesheet" href=(assets::url("console.css"));
                script src=(assets::url("console.js")) defer {}
            }
            body {
                a.skip href="#content" { "Skip to content" }
                (body)
            }
        }
    }
}

/// The hidden fields that every form of a visitor contains.
pub(super) fn hidden(visitor: &Visitor) -> Markup {
    html! {
        input type="hidden" name=(CSRF) value=(visitor.visit.csrf);
        // If random numbers are unavailable, the form is rejected as one that was sent before.
        input type="hidden" name=(ONCE) value=(random().unwrap_or_default());
    }
}

/// The kind of a multi-line field.
pub(super) const LINES: &str = "lines";

/// A labelled field; shows what is wrong with its value.
pub(super) struct FormField<'a> {
    pub(super) label: &'a str,
    pub(super) name: &'a str,
    pub(super) kind: &'a str,
    pub(super) value: &'a str,
    pub(super) hint: &'a str,
    pub(super) problem: Option<&'a str>,
    pub(super) required: bool,
    pub(super) autocomplete: &'a str,
}

impl Default for FormField<'_> {
    fn default() -> Self {
        Self {
            label: "",
            name: "",
            kind: "text",
            value: "",
            hint: "",
            problem: None,
            required: false,
            autocomplete: "off",
        }
    }
}

impl FormField<'_> {
    pub(super) fn render(&self) -> Markup {
        let (id, hint, problem) =
            (format!("f-{}", self.name), format!("f-{}-hint", self.name), format!("f-{}-problem", self.name));
        let described = [(!self.hint.is_empty(), &hint), (self.problem.is_some(), &problem)];
        let described: Vec<&str> =
            described.iter().filter(|(is, _)| *is).map(|(_, id)| id.as_str()).collect();
        html! {
            div.field {
                label for=(id) { (self.label) }
                @if !self.hint.is_empty() { p.hint id=(hint) { (self.hint) } }
                @let invalid = self.problem.map(|_| "true");
                @let described = (!described.is_empty()).then(|| described.join(" "));
                @if self.kind == LINES {
                    // HTML ignores the first line break of the content.
                    textarea id=(id) name=(self.name) required[self.required] spellcheck="false" autocomplete=(self.autocomplete)
                        aria-invalid=[invalid] aria-describedby=[described] { "\n" (self.value) }
                } @else {
                    input id=(id) name=(self.name) type=(self.kind) value=(self.value) required[self.required]
                        autocomplete=(self.autocomplete) spellcheck="false" aria-invalid=[invalid] aria-describedby=[described];
                }
                @if let Some(why) = self.problem { p.problem id=(problem) { (why) } }
            }
        }
    }
}

/// A checkbox for each of these words, checked if chosen.
pub(super) fn boxes(
    legend: &str,
    name: &str,
    (all, chosen): (&[Box<str>], &[String]),
    (hint, problem): (&str, Option<&str>),
) -> Markup {
    html! {
        fieldset.boxes {
            legend { (legend) }
            @if !hint.is_empty() { p.hint { (hint) } }
            @for (place, word) in all.iter().enumerate() {
                @let id = format!("f-{name}-{place}");
                div.box {
                    input id=(id) type="checkbox" name=(name) value=(word) checked[chosen.iter().any(|one| **one == **word)];
                    label for=(id) { (word) }
                }
            }
            @if let Some(why) = problem { p.problem { (why) } }
        }
    }
}

/// Words as labels; an empty list shows "none".
pub(super) fn labels(words: &[Box<str>]) -> Markup {
    html! {
        @if words.is_empty() { span.none { "none" } }
        @for word in words { span.label { (word) } " " }
    }
}

/// A text with a button to copy it.
pub(super) fn copied(id: &str, label: &str, text: &str) -> Markup {
    html! {
        div.copied {
            span.caption id={ (id) "-label" } { (label) }
            code id=(id) aria-labelledby={ (id) "-label" } tabindex="0" { (text) }
            button.copy type="button" data-copy=(id) hidden { "Copy" span.visually-hidden { " " (label) } }
        }
    }
}

/// The link to the next page of a list.
pub(super) fn more(next: Option<String>) -> Markup {
    html! {
        @if let Some(next) = next {
            nav.more aria-label="More" { a.button href=(next) rel="next" { "Next page" } }
        }
    }
}

/// Encodes a query for a link.
pub(super) fn query(pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

/// Encodes a path segment for a link.
pub(super) fn segment(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
