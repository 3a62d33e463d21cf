//! The page of usage.

use maud::{Markup, html};

use super::super::layout;
use super::super::search::{bar, non_empty, nothing, search_field};
use super::super::show::ago;
use super::super::visitor::Visitor;
use super::{RouteUse, UsageSearch};
use crate::time::Timestamp;

const HOME: &str = "/console/usage";

/// A path with the client in the search, if any.
fn link(path: &str, client: &str, more: &[(&str, &str)]) -> String {
    let mut pairs: Vec<_> =
        Some(("client", client)).into_iter().filter(|(_, client)| !client.is_empty()).collect();
    pairs.extend(more);
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", layout::query(&pairs)) }
}

pub(super) fn list(
    visitor: &Visitor,
    searched: &UsageSearch,
    (rows, more): (&[RouteUse], bool),
    most: u64,
    bound: Option<usize>,
) -> Markup {
    let client = &*searched.client;
    let is_narrowed = non_empty(client).is_some();
    layout::page(
        visitor,
        HOME,
        "Usage",
        html! {
            div.bar {
                p { "Which application calls which route: forwarded requests by response status." }
                @if !rows.is_empty() { a.button.quiet.push href=(link("/console/usage.csv", client, &[])) { "Download as CSV" } }
            }
            (bar(HOME, search_field("Client", "client", client), is_narrowed, None))
            @if let Some(bound) = bound {
                div.notice.warn { p { (bound) " clients have rows of their own. Requests of all other clients are counted together as the client “other”." } }
            }
            @if !rows.is_empty() { (table(rows, most, Timestamp::now())) }
            @else if is_narrowed { (nothing("This client has not called any route.", "Client names are case-sensitive. Show all to see the clients.")) }
            @else { (nothing("No usage yet.", "Forwarded requests are counted here if their token names its client.")) }
            (layout::more(rows.last().filter(|_| more).map(|last| {
                link(HOME, client, &[("after_client", &last.client), ("after_route", &last.route)])
            })))
        },
    )
}

fn table(rows: &[RouteUse], most: u64, now: Timestamp) -> Markup {
    html! {
        table {
            thead { tr {
                th scope="col" { "Application" } th scope="col" { "Route" } th.number scope="col" { "Requests" }
                @for class in ["1xx", "2xx", "3xx", "4xx", "5xx"] { th.number scope="col" { (class) } }
                th scope="col" { "Last use" }
            } }
            tbody { @for row in rows { tr {
                th scope="row" { @if let Some(name) = &row.name { (name) br; code.soft { (row.client) } } @else { code { (row.client) } } }
                td data-name="Route" { code { (row.route) } }
                td.number data-name="Requests" { (row.total) (chart(row, most)) }
                @for (class, name) in row.classes.iter().zip(["1xx", "2xx", "3xx", "4xx", "5xx"]) {
                    td.number data-name=(name) { @if *class == 0 { span.none { "0" } } @else { (class) } }
                }
                td data-name="Last use" { (ago(row.last_used_at, now)) }
            } } }
        }
    }
}

/// A bar whose length is the row's share of the longest one; errors have another colour. The numbers
/// beside it say the same.
fn chart(row: &RouteUse, most: u64) -> Markup {
    let width = |count: u64| count.saturating_mul(1_000) / most.max(1);
    let [.., client_errors, server_errors] = row.classes;
    let (whole, bad) = (width(row.total), width(client_errors.saturating_add(server_errors)));
    html! {
        svg.bar viewBox="0 0 1000 60" preserveAspectRatio="none" aria-hidden="true" focusable="false" {
            rect.bar-fill x="0" y="0" width=(whole) height="60" {}
            rect.bar-bad x=(whole.saturating_sub(bad)) y="0" width=(bad) height="60" {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_part_of_the_longest() {
        let row = RouteUse {
            client: "a".into(),
            name: None,
            route: "/".into(),
            classes: [0, 30, 0, 15, 5],
            total: 50,
            last_used_at: Timestamp::from_secs(1),
        };
        let shown = chart(&row, 200).into_string();
        assert!(shown.contains("x=\"0\" y=\"0\" width=\"250\""), "{shown}");
        assert!(shown.contains("x=\"150\" y=\"0\" width=\"100\""), "{shown}");
        assert!(
            chart(&RouteUse { total: 0, classes: [0; 5], ..row }, 0).into_string().contains("width=\"0\"")
        );
    }

    #[test]
    fn names_of_applications_and_routes_are_text() {
        let hostile: Box<str> = "<script>alert(1)</script>".into();
        let row = RouteUse {
            client: hostile.clone(),
            name: Some(hostile.clone()),
            route: hostile,
            classes: [0; 5],
            total: 1,
            last_used_at: Timestamp::from_secs(1),
        };
        let shown = table(&[row], 1, Timestamp::from_secs(2)).into_string();
        assert!(!shown.contains("<script"), "{shown}");
        assert_eq!(shown.matches("&lt;script&gt;").count(), 3);
        assert_eq!(link("/x", "a&b", &[("after_route", "/<")]), "/x?client=a%26b&after_route=%2F%3C");
        assert_eq!(link("/x", "", &[]), "/x");
    }
}
