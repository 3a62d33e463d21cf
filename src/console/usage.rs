//! The page of usage: shows which application called which route, how often, and when last.

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use maud::Markup;
use serde::Deserialize;

use super::page_error::PageError;
use super::search::non_empty;
use super::visitor::Visitor;
use super::{Console, Shared};
use crate::admin::Permission;
use crate::state::record::UsageRow;
use crate::time::Timestamp;

mod csv;
mod pages;

/// How many rows one page shows.
const PAGE: usize = 100;

pub(super) fn routes() -> Router<Console> {
    Router::new().route("/console/usage", get(list)).route("/console/usage.csv", get(download))
}

/// How an application used a route.
#[derive(Debug, PartialEq, Eq)]
struct RouteUse {
    client: Box<str>,
    /// The name of the credential, if the client is one of the authority's.
    name: Option<Box<str>>,
    route: Box<str>,
    /// Requests by the first digit of the response status, from 1 to 5.
    classes: [u64; 5],
    total: u64,
    last_used_at: Timestamp,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct UsageSearch {
    client: String,
    /// Where the page continues: after this application, and the route in the next field.
    after_client: String,
    after_route: String,
}

async fn found(console: &Shared, visitor: &Visitor, client: &str) -> Result<Vec<RouteUse>, PageError> {
    visitor.require(Permission::Sessions)?;
    let mut rows = totals(console.api.usage(non_empty(client).as_deref()).await?);
    if let Some(authority) = console.api.authority() {
        for row in &mut rows {
            row.name = authority.credential(&row.client).map(|found| found.name.clone());
        }
    }
    Ok(rows)
}

/// Adds up the counts of each application and route, ordered by name.
fn totals(rows: Vec<UsageRow>) -> Vec<RouteUse> {
    let mut totals: BTreeMap<(Box<str>, Box<str>), RouteUse> = BTreeMap::new();
    for UsageRow { client, route, status, count, last_used_at } in rows {
        let entry = totals.entry((client.clone(), route.clone())).or_insert_with(|| RouteUse {
            client,
            name: None,
            route,
            classes: [0; 5],
            total: 0,
            last_used_at,
        });
        if let Some(class) = usize::from(status / 100).checked_sub(1).and_then(|at| entry.classes.get_mut(at))
        {
            *class += count;
        }
        entry.total += count;
        entry.last_used_at = entry.last_used_at.max(last_used_at);
    }
    totals.into_values().collect()
}

async fn list(
    State(console): State<Console>,
    visitor: Visitor,
    Query(searched): Query<UsageSearch>,
) -> Result<Markup, PageError> {
    let mut rows = found(&console, &visitor, &searched.client).await?;
    let most = rows.iter().map(|row| row.total).max().unwrap_or(0);
    if !searched.after_client.is_empty() {
        let after = (&*searched.after_client, &*searched.after_route);
        rows.retain(|row| (&*row.client, &*row.route) > after);
    }
    let more = rows.len() > PAGE;
    rows.truncate(PAGE);
    Ok(pages::list(&visitor, &searched, (&rows, more), most, console.api.usage_bound()))
}

async fn download(
    State(console): State<Console>,
    visitor: Visitor,
    Query(searched): Query<UsageSearch>,
) -> Result<Response, PageError> {
    let rows = found(&console, &visitor, &searched.client).await?;
    let fields = [
        (CONTENT_TYPE, "text/csv; charset=utf-8"),
        (CONTENT_DISPOSITION, "attachment; filename=\"portcullis-usage.csv\""),
    ];
    Ok((fields, csv::file(&rows)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_added_up_by_application_route_and_class() {
        let row = |client: &str, route: &str, status, count, last| UsageRow {
            client: client.into(),
            route: route.into(),
            status,
            count,
            last_used_at: Timestamp::from_secs(last),
        };
        let rows = vec![
            row("b", "/", 200, 1, 5),
            row("a", "/x", 101, 1, 9),
            row("a", "/x", 200, 2, 4),
            row("a", "/x", 204, 4, 3),
            row("a", "/x", 302, 8, 2),
            row("a", "/x", 404, 16, 10),
            row("a", "/x", 599, 32, 1),
            row("a", "/x", 600, 64, 1),
            row("a", "/", 99, 3, 7),
        ];
        let of = |client: &str, route: &str, classes, total, last| RouteUse {
            client: client.into(),
            name: None,
            route: route.into(),
            classes,
            total,
            last_used_at: Timestamp::from_secs(last),
        };
        assert_eq!(
            totals(rows),
            [
                of("a", "/", [0; 5], 3, 7),
                of("a", "/x", [1, 6, 8, 16, 32], 127, 10),
                of("b", "/", [0, 1, 0, 0, 0], 1, 5),
            ]
        );
    }
}
