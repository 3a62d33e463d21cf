//! `/v1/usage`: requests by client, route and status.

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::Uri;
use serde::{Deserialize, Serialize};

use super::Api;
use super::list::{ListPage, bad, filled, limit, query};
use crate::admin::problem::Problem;
use crate::state::record::UsageRow;

pub(super) fn routes() -> Router<Api> {
    Router::new().route("/v1/usage", get(list))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedUsage {
    client: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct UsageItem {
    client: Box<str>,
    route: Box<str>,
    status: u16,
    count: u64,
    last_used_at: String,
}

impl From<UsageRow> for UsageItem {
    fn from(row: UsageRow) -> Self {
        let UsageRow { client, route, status, count, last_used_at } = row;
        Self { client, route, status, count, last_used_at: last_used_at.to_string() }
    }
}

/// A page, and what it leaves out.
#[derive(Serialize)]
struct Noted {
    #[serde(flatten)]
    page: ListPage<UsageItem, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// What orders the rows.
type UsagePlace = (Box<str>, Box<str>, u16);

impl Api {
    /// What a client, or every client, used until now: by client, route and status.
    pub(crate) async fn usage(&self, client: Option<&str>) -> Result<Vec<UsageRow>, Problem> {
        self.ledger.usage.list(client).await.map_err(|error| self.unavailable(&error))
    }

    /// How many clients have rows of their own, once no more get any; the rest share `other`.
    pub(crate) fn usage_bound(&self) -> Option<usize> {
        self.ledger.usage.bound()
    }
}

async fn list(State(api): State<Api>, uri: Uri) -> Result<Response, Problem> {
    let wanted: WantedUsage = query(&uri)?;
    let client = filled("client", wanted.client.as_ref())?;
    let after = wanted.after.as_deref().map(|cursor| {
        place(cursor).ok_or_else(|| bad("`after` must be the `next` value of an earlier page".to_owned()))
    });
    let (after, limit) = (after.transpose()?, limit(wanted.limit)?);
    let mut rows = api.usage(client).await?;
    if let Some((client, route, status)) = after {
        let after = (&*client, &*route, status);
        rows.retain(|row| (&*row.client, &*row.route, row.status) > after);
    }
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(cursor);
    let page = ListPage { items: rows.into_iter().map(UsageItem::from).collect(), next };
    let note = api.usage_bound().map(|bound| {
        format!(
            "{bound} clients have rows of their own; requests of all other clients are counted as client \"other\""
        )
    });
    Ok(axum::Json(Noted { page, note }).into_response())
}

/// Names may hold any character, so a cursor is not for reading.
fn cursor(row: &UsageRow) -> String {
    let place = serde_json::json!([row.client, row.route, row.status]);
    BASE64_URL_SAFE_NO_PAD.encode(place.to_string())
}

fn place(cursor: &str) -> Option<UsagePlace> {
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()
}
