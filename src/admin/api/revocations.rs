//! `/v1/revocations`: lists the events still in effect, and undoes them.

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};

use super::list::{LOOKS, ListPage, MOST, limit, query, token};
use super::whom::{Whom, WhomFilter};
use super::{Api, Id};
use crate::admin::problem::Problem;
use crate::events::log::{EventLog, EventPage as Part};
use crate::identity::Key;
use crate::state::StoreError;
use crate::state::record::{EventKind, EventSource, StoredEvent};
use crate::time::Now;

pub(super) fn routes() -> Router<Api> {
    Router::new().route("/v1/revocations", get(list)).route("/v1/revocations/{id}", delete(undo))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedRevocations {
    subject: Option<String>,
    client: Option<String>,
    session: Option<String>,
    jti: Option<String>,
    issuer: Option<String>,
    after: Option<u64>,
    limit: Option<usize>,
}

/// A revocation as it is listed.
#[derive(Serialize)]
struct RevocationItem {
    id: u64,
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
    expires_at: String,
    source: &'static str,
}

impl From<StoredEvent> for RevocationItem {
    fn from(stored: StoredEvent) -> Self {
        let StoredEvent { sequence, event, source, .. } = stored;
        Self {
            token: token(&event),
            id: sequence,
            r#type: event.kind.as_str(),
            issuer: event.issuer.to_string(),
            subject_kind: event.subject.as_ref().map(|_| event.subject_kind.as_str()),
            subject: event.subject,
            client: event.client,
            session: event.session,
            jti: event.jti,
            at: event.at.to_string(),
            expires_at: event.expires_at.to_string(),
            source: source.as_str(),
        }
    }
}

async fn list(State(api): State<Api>, uri: Uri) -> Result<Response, Problem> {
    let wanted: WantedRevocations = query(&uri)?;
    let (after, limit) = (wanted.after.unwrap_or(0), limit(wanted.limit)?);
    let WantedRevocations { subject, client, session, jti, issuer, .. } = wanted;
    let whom = WhomFilter { subject, client, session, jti, issuer };
    let Part { items, next } = api.revocations(&whom, after, limit).await?;
    let items: Vec<RevocationItem> = items.into_iter().map(RevocationItem::from).collect();
    Ok(ListPage { items, next }.into_response())
}

/// The revocations under a few keys, merged in the order of the log.
async fn named(
    log: &EventLog,
    keys: &[(EventKind, Key)],
    after: u64,
    limit: usize,
) -> Result<Part, StoreError> {
    let (mut items, mut more) = (Vec::new(), false);
    for of in keys {
        let part = log.revocations(Some(*of), after, limit).await?;
        more |= part.next.is_some();
        items.extend(part.items);
    }
    items.sort_unstable_by_key(|stored| stored.sequence);
    more |= items.len() > limit;
    items.truncate(limit);
    Ok(Part { next: items.last().filter(|_| more).map(|last| last.sequence), items })
}

async fn of_issuer(log: &EventLog, issuer: &str, mut after: u64, limit: usize) -> Result<Part, StoreError> {
    let mut items = Vec::new();
    for _ in 0..LOOKS {
        let part = log.revocations(None, after, MOST).await?;
        let mut theirs = part.items.into_iter().filter(|stored| &*stored.event.issuer == issuer);
        items.extend(theirs.by_ref().take(limit - items.len()));
        if theirs.next().is_some() {
            return Ok(Part { next: items.last().map(|last| last.sequence), items });
        }
        match part.next {
            Some(next) => after = next,
            None => return Ok(Part { items, next: None }),
        }
    }
    Ok(Part { items, next: Some(after) })
}

/// Undoes an event, which is an event of its own; doing it again changes nothing.
async fn undo(State(api): State<Api>, Id(id): Id) -> Result<StatusCode, Problem> {
    let sequence = id.parse().map_err(|_not_a_number| unknown())?;
    api.undo(sequence).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn unknown() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is no such revocation")
}

impl Api {
    /// The events still in effect, in order.
    pub(crate) async fn revocations(
        &self,
        of: &WhomFilter,
        after: u64,
        limit: usize,
    ) -> Result<Part, Problem> {
        let log = &self.ledger.log;
        let part = match of.chosen(&self.ledger.issuers.load())? {
            Whom::Anyone => log.revocations(None, after, limit).await,
            Whom::Issuer(issuer) => of_issuer(log, &issuer, after, limit).await,
            whom => {
                let each = |key: &Key| whom.kinds().iter().map(move |kind| (*kind, *key)).collect::<Vec<_>>();
                let keys: Vec<_> = whom.keys().iter().flat_map(each).collect();
                named(log, &keys, after, limit).await
            }
        };
        part.map_err(|error| self.unavailable(&error))
    }

    /// The event with this sequence, which still counts.
    pub(crate) async fn revocation(&self, sequence: u64) -> Result<StoredEvent, Problem> {
        let before = sequence.checked_sub(1).ok_or_else(unknown)?;
        let part = self.ledger.log.revocations(None, before, 1).await;
        let found = part.map_err(|error| self.unavailable(&error))?.items.pop();
        found.filter(|stored| stored.sequence == sequence).ok_or_else(unknown)
    }

    /// Undoes the event with this sequence.
    pub(crate) async fn undo(&self, sequence: u64) -> Result<(), Problem> {
        let undone = self.ledger.log.undo(sequence, EventSource::Admin, Now::read()).await;
        undone.map_err(|error| self.unavailable(&error))?.ok_or_else(unknown)?;
        let labels = [EventKind::Undone.as_str(), EventSource::Admin.as_str()];
        self.metrics.events.with_label_values(&labels).inc();
        Ok(())
    }
}
