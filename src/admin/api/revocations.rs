//! `/v1/revocations`: the events that still count, and taking them back.

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};

use super::list::token;
use super::list::{ListPage, MOST, bad, filled, limit, named_or_all, query};
use super::{Api, Id};
use crate::admin::problem::Problem;
use crate::events::EventIssuer;
use crate::events::log::{EventLog, EventPage as Part};
use crate::identity::{ClientKey, Key, SubjectKey, TokenKey};
use crate::state::StoreError;
use crate::state::record::{EventKind, EventSource, StoredEvent};
use crate::time::Now;

/// Events that are looked at, [`MOST`] at a time, for a page of those of one issuer; then the page is handed out as short
/// as it is, with the cursor to go on from.
const LOOKS: usize = 20;

pub(super) fn routes() -> Router<Api> {
    Router::new().route("/v1/revocations", get(list)).route("/v1/revocations/{id}", delete(undo))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedRevocations {
    subject: Option<String>,
    client: Option<String>,
    jti: Option<String>,
    issuer: Option<String>,
    after: Option<u64>,
    limit: Option<usize>,
}

/// Which revocations are asked for.
enum RevocationFilter {
    All,
    Issuer(String),
    /// Those of these kinds that name these keys.
    Named(Vec<(EventKind, Key)>),
}

impl WantedRevocations {
    fn chosen(&self, issuers: &[EventIssuer]) -> Result<RevocationFilter, Problem> {
        let asked = named_or_all(self.issuer.as_deref(), issuers)?;
        let each = |kinds: &[EventKind], key: &dyn Fn(&str) -> Key| {
            let keys = asked.iter().map(|issuer| key(&issuer.issuer));
            RevocationFilter::Named(keys.flat_map(|key| kinds.iter().map(move |kind| (*kind, key))).collect())
        };
        let subject = filled("subject", self.subject.as_ref())?;
        let (client, jti) = (filled("client", self.client.as_ref())?, filled("jti", self.jti.as_ref())?);
        match (subject, client, jti) {
            (Some(subject), None, None) => {
                let kinds = [EventKind::RoleChanged, EventKind::SubjectRevoked];
                Ok(each(&kinds, &|issuer| SubjectKey::new(issuer, subject).0))
            }
            (None, Some(client), None) => {
                Ok(each(&[EventKind::ClientRevoked], &|issuer| ClientKey::new(issuer, client).0))
            }
            (None, None, Some(jti)) => {
                Ok(each(&[EventKind::TokenRevoked], &|issuer| TokenKey::new(issuer, jti).0))
            }
            (None, None, None) => match (&self.issuer, asked.as_slice()) {
                (Some(_), [issuer]) => Ok(RevocationFilter::Issuer(issuer.issuer.to_string())),
                _ => Ok(RevocationFilter::All),
            },
            _ => Err(bad("give one of `subject`, `client` and `jti`".to_owned())),
        }
    }
}

/// A revocation as it is listed.
#[derive(Serialize)]
struct RevocationItem {
    id: u64,
    r#type: &'static str,
    issuer: String,
    subject: Option<Box<str>>,
    client: Option<Box<str>>,
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
            subject: event.subject,
            client: event.client,
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
    let chosen = wanted.chosen(&api.ledger.issuers.load())?;
    let log = &api.ledger.log;
    let page = match &chosen {
        RevocationFilter::All => log.revocations(None, after, limit).await,
        RevocationFilter::Issuer(issuer) => of_issuer(log, issuer, after, limit).await,
        RevocationFilter::Named(keys) => named(log, keys, after, limit).await,
    };
    let Part { items, next } = page.map_err(|error| api.unavailable(&error))?;
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

/// Takes an event back, which is an event of its own; doing it again changes nothing.
async fn undo(State(api): State<Api>, Id(id): Id) -> Result<StatusCode, Problem> {
    let unknown = || Problem::new(StatusCode::NOT_FOUND, "there is no such revocation");
    let sequence = id.parse().map_err(|_not_a_number| unknown())?;
    let undone = api.ledger.log.undo(sequence, EventSource::Admin, Now::read()).await;
    undone.map_err(|error| api.unavailable(&error))?.ok_or_else(unknown)?;
    let labels = [EventKind::Undone.as_str(), EventSource::Admin.as_str()];
    api.metrics.events.with_label_values(&labels).inc();
    Ok(StatusCode::NO_CONTENT)
}
