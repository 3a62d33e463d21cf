//! `/v1/events`: publishes events that end tokens, and lists the event log.

use std::collections::HashMap;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::list::{LOOKS, ListPage, MOST, bad, limit, query, token};
use super::sessions::SessionFilter;
use super::whom::{Whom, WhomFilter};
use super::{Api, Ledger};
use crate::admin::body::read_document;
use crate::admin::problem::Problem;
use crate::events::log::{EventPage, Published};
use crate::events::parse::{self, Invalid};
use crate::identity::TokenKey;
use crate::state::record::{Event, EventKind, EventSource, StoredEvent};
use crate::time::Now;

pub(super) fn routes() -> Router<Api> {
    Router::new().route("/v1/events", post(accept).get(list))
}

/// Answers 202 when every event is durable and in force, not before; none is accepted when one is bad.
async fn accept(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    let document = read_document(request, &api.limits).await?;
    let document = document.ok_or_else(|| bad("the body contains no event".to_owned()))?;
    let now = Now::read();
    let events = api.read_events(&document, now).map_err(refused)?;
    let published = api.publish(events, now).await?;
    let body = json!({ "accepted": published.accepted, "sequence": published.sequence });
    Ok((StatusCode::ACCEPTED, Json(body)).into_response())
}

fn refused(invalid: Invalid) -> Problem {
    let problem = bad(format!("{invalid}; no event was accepted"));
    match invalid.index {
        Some(index) => problem.with_index(index),
        None => problem,
    }
}

/// Which events of the log are looked for.
#[derive(Debug, Default)]
pub(crate) struct EventSearch {
    pub(crate) kind: Option<EventKind>,
    pub(crate) whom: WhomFilter,
}

impl Api {
    /// Reads one event or several; what is wrong with them otherwise.
    pub(crate) fn read_events(&self, json: &[u8], now: Now) -> Result<Vec<Event>, Invalid> {
        parse::events(json, &self.ledger.issuers.load(), now.wall)
    }

    /// The log before a sequence, newest first. What can be looked up by a key is; the rest of a search looks at
    /// [`LOOKS`] times [`MOST`] events, and then the page is as short as it is, with the place to go on from.
    pub(crate) async fn history(
        &self,
        search: &EventSearch,
        before: Option<u64>,
        limit: usize,
    ) -> Result<EventPage, Problem> {
        let whom = search.whom.chosen(&self.ledger.issuers.load())?;
        let is_wanted = |stored: &StoredEvent| {
            search.kind.is_none_or(|kind| stored.event.kind == kind) && whom.is_named_by(&stored.event)
        };
        let at_once = if search.kind.is_none() && whom == Whom::Anyone { limit + 1 } else { MOST };
        let (mut items, mut before) = (Vec::new(), before.unwrap_or(u64::MAX));
        for _ in 0..LOOKS {
            let read = self.ledger.log.events_before(whom.keys(), before, at_once).await;
            let part = read.map_err(|error| self.unavailable(&error))?;
            let mut theirs = part.items.into_iter().filter(is_wanted);
            items.extend(theirs.by_ref().take(limit - items.len()));
            if theirs.next().is_some() {
                return Ok(EventPage { next: items.last().map(|last| last.sequence), items });
            }
            match part.next {
                Some(next) => before = next,
                None => return Ok(EventPage { items, next: None }),
            }
        }
        Ok(EventPage { items, next: Some(before) })
    }

    /// How many tokens in use an event that happens now ends at most. Sessions do not know their tokens' role versions.
    pub(crate) async fn ended_by(&self, event: &Event) -> Result<usize, Problem> {
        if event.kind == EventKind::TokenRevoked {
            return Ok(usize::from(self.find_session(TokenKey(event.key)).await?.is_some()));
        }
        let Some(chosen) = SessionFilter::ended_by(event) else { return Ok(0) };
        Ok(self.in_use(chosen, None, usize::MAX).await?.0.len())
    }

    /// Makes events durable and puts them in force.
    pub(crate) async fn publish(&self, events: Vec<Event>, now: Now) -> Result<Published, Problem> {
        let mut types = HashMap::new();
        for event in &events {
            *types.entry(event.kind).or_insert(0_u64) += 1;
        }
        let Ledger { log, .. } = &self.ledger;
        let published =
            log.publish(events, EventSource::Admin, now).await.map_err(|error| self.unavailable(&error))?;
        for (kind, count) in types {
            self.metrics
                .events
                .with_label_values(&[kind.as_str(), EventSource::Admin.as_str()])
                .inc_by(count);
        }
        Ok(published)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedEvents {
    after: Option<u64>,
    limit: Option<usize>,
}

/// An event as it is listed.
#[derive(Serialize)]
struct EventItem {
    sequence: u64,
    r#type: &'static str,
    issuer: String,
    subject: Option<Box<str>>,
    /// Which claim the subject is compared with, where there is one.
    subject_kind: Option<&'static str>,
    client: Option<Box<str>>,
    session: Option<Box<str>>,
    jti: Option<Box<str>>,
    /// Of `token-revoked`: the token, as sessions name it.
    token: Option<String>,
    at: String,
    role_version: Option<u64>,
    source: &'static str,
    received_at: String,
    /// Of `revocation-undone` only: which event was undone.
    #[serde(skip_serializing_if = "Option::is_none")]
    undoes: Option<u64>,
}

impl From<StoredEvent> for EventItem {
    fn from(stored: StoredEvent) -> Self {
        let StoredEvent { sequence, event, undoes, source, received_at, .. } = stored;
        Self {
            token: token(&event),
            sequence,
            r#type: event.kind.as_str(),
            issuer: event.issuer.to_string(),
            subject_kind: event.subject.as_ref().map(|_| event.subject_kind.as_str()),
            subject: event.subject,
            client: event.client,
            session: event.session,
            jti: event.jti,
            at: event.at.to_string(),
            role_version: event.role_version,
            source: source.as_str(),
            received_at: received_at.to_string(),
            undoes,
        }
    }
}

/// The log after a sequence, in order.
async fn list(State(api): State<Api>, uri: Uri) -> Result<Response, Problem> {
    let wanted: WantedEvents = query(&uri)?;
    let (after, limit) = (wanted.after.unwrap_or(0), limit(wanted.limit)?);
    let page = api.ledger.log.events(after, limit).await.map_err(|error| api.unavailable(&error))?;
    let items: Vec<EventItem> = page.items.into_iter().map(EventItem::from).collect();
    Ok(ListPage { items, next: page.next }.into_response())
}
