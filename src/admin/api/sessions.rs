//! `/v1/sessions`: lists tokens in use, and ends them.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};

use super::list::{ListPage, bad, filled, limit, named_or_all, query};
use super::{Api, Id, Ledger};
use crate::admin::problem::Problem;
use crate::events::{EventIssuer, parse};
use crate::identity::{ClientKey, IssuerKey, Key, SubjectKey, TokenKey};
use crate::revocations::{Snapshot, TokenFacts};
use crate::sessions::Sessions;
use crate::state::record::{Event, EventKind, SessionRow, SubjectKind};
use crate::time::Now;

/// Digits of a token's name, and how many of them are enough to find it by.
const KEY: usize = 32;
const PREFIX: usize = 12;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/sessions", get(list).delete(end_all))
        .route("/v1/sessions/{token}", delete(end_one))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedSessions {
    subject: Option<String>,
    client: Option<String>,
    issuer: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WhoseSessions {
    subject: Option<String>,
    issuer: Option<String>,
}

/// By what sessions are looked for.
#[derive(Debug, Default, Clone)]
pub(crate) struct SessionSearch {
    pub(crate) subject: Option<String>,
    pub(crate) issuer: Option<String>,
    pub(crate) client: Option<String>,
}

/// Which sessions are asked for.
#[derive(Default)]
pub(crate) struct SessionFilter {
    /// One for each issuer that may be meant; none: all.
    subjects: Vec<SubjectKey>,
    issuer: Option<Arc<str>>,
    client: Option<Box<str>>,
    /// A name that the token carries beside its subject: another one of it, or its login session.
    other: Option<Key>,
}

impl SessionFilter {
    /// Those of an application.
    pub(crate) fn of_client(issuer: &Arc<str>, client: &str) -> Self {
        Self { issuer: Some(Arc::clone(issuer)), client: Some(client.into()), ..Self::default() }
    }

    /// Those of a subject.
    pub(crate) fn of_subject(issuer: &Arc<str>, subject: &str) -> Self {
        let subjects = vec![SubjectKey::new(issuer, subject)];
        Self { subjects, issuer: Some(Arc::clone(issuer)), ..Self::default() }
    }

    /// Those whose tokens an event ends that names more than one.
    pub(super) fn ended_by(event: &Event) -> Option<Self> {
        let all = Self { issuer: Some(Arc::clone(&event.issuer)), ..Self::default() };
        match event.kind {
            EventKind::RoleChanged | EventKind::SubjectRevoked
                if event.subject_kind == SubjectKind::Subject =>
            {
                Some(Self { subjects: vec![SubjectKey(event.key)], ..all })
            }
            EventKind::RoleChanged | EventKind::SubjectRevoked | EventKind::SessionRevoked => {
                Some(Self { other: Some(event.key), ..all })
            }
            EventKind::ClientRevoked => Some(Self { client: event.client.clone(), ..all }),
            EventKind::IssuerRevoked => Some(all),
            EventKind::TokenRevoked | EventKind::Undone => None,
        }
    }

    /// For a list: of the issuer that is named, or of all.
    fn listed(search: &SessionSearch, issuers: &[EventIssuer]) -> Result<Self, Problem> {
        let SessionSearch { subject, issuer, client } = search;
        let subject = filled("subject", subject.as_ref())?;
        let client = filled("client", client.as_ref())?.map(Into::into);
        let asked = named_or_all(issuer.as_deref(), issuers)?;
        let only = issuer.as_ref().and(asked.first()).map(|issuer| Arc::clone(&issuer.issuer));
        let subjects = subject
            .into_iter()
            .flat_map(|subject| asked.iter().map(move |issuer| SubjectKey::new(&issuer.issuer, subject)));
        Ok(Self { subjects: subjects.collect(), issuer: only, client, other: None })
    }

    /// The subject by which the table can be searched.
    fn subject(&self) -> Option<SubjectKey> {
        if let [only] = self.subjects.as_slice() { Some(*only) } else { None }
    }

    fn is_theirs(&self, row: &SessionRow) -> bool {
        let is_subject = |subject| self.subjects.contains(&subject);
        self.issuer.as_ref().is_none_or(|issuer| *issuer == row.issuer)
            && self.client.as_ref().is_none_or(|client| row.client.as_deref() == Some(client))
            && self.other.is_none_or(|key| row.names.as_ref().is_some_and(|names| names.has(key)))
            && (self.subjects.is_empty() || row.subject.is_some_and(is_subject))
    }

    /// For a change: of the issuer that is named, or of the only one.
    fn new(
        subject: Option<&String>,
        issuer: Option<&String>,
        issuers: &[EventIssuer],
    ) -> Result<Self, Problem> {
        let subject = filled("subject", subject)?;
        if subject.is_none() && issuer.is_none() {
            return Ok(Self::default());
        }
        let issuer = &parse::issuer(issuer.map(String::as_str), issuers).map_err(bad)?.issuer;
        Ok(Self {
            subjects: subject.into_iter().map(|subject| SubjectKey::new(issuer, subject)).collect(),
            issuer: Some(Arc::clone(issuer)),
            client: None,
            other: None,
        })
    }
}

/// A session as it is listed.
#[derive(Serialize)]
struct SessionItem {
    token: String,
    issuer: String,
    client: Option<String>,
    first_used_at: String,
    last_used_at: String,
    expires_at: String,
}

impl From<SessionRow> for SessionItem {
    fn from(row: SessionRow) -> Self {
        Self {
            token: row.token.0.to_string(),
            issuer: row.issuer.to_string(),
            client: row.client.map(|client| client.to_string()),
            first_used_at: row.first_used_at.to_string(),
            last_used_at: row.last_used_at.to_string(),
            expires_at: row.expires_at.to_string(),
        }
    }
}

async fn list(State(api): State<Api>, uri: Uri) -> Result<Response, Problem> {
    let wanted: WantedSessions = query(&uri)?;
    let limit = limit(wanted.limit)?;
    let search = SessionSearch { subject: wanted.subject, issuer: wanted.issuer, client: wanted.client };
    let (rows, more) = api.sessions(&search, wanted.after.as_deref(), limit).await?;
    let next = rows.last().filter(|_| more).map(|row| row.token.0.to_string());
    Ok(ListPage { items: rows.into_iter().map(SessionItem::from).collect(), next }.into_response())
}

/// Revokes every token that the subject has in use.
async fn end_all(State(api): State<Api>, uri: Uri) -> Result<StatusCode, Problem> {
    let WhoseSessions { subject, issuer } = query(&uri)?;
    let rows = api.sessions_of(subject.as_ref(), issuer.as_ref()).await?;
    api.end_sessions(&rows).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Revokes one token in use, named as the list names it or by the beginning of that name, such as logs have.
async fn end_one(State(api): State<Api>, Id(name): Id) -> Result<StatusCode, Problem> {
    let row = api.session(&name).await?;
    api.end_sessions(&[row]).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The lowest key that begins with these digits.
fn first(name: &str) -> Option<TokenKey> {
    if (PREFIX..=KEY).contains(&name.len()) { token(&format!("{name:0<KEY$}")) } else { None }
}

/// The key before this one: lists begin after a key.
fn before(token: TokenKey) -> Option<TokenKey> {
    let before = u128::from_be_bytes(token.0.to_bytes()).checked_sub(1);
    before.map(|key| TokenKey(Key::from_bytes(key.to_be_bytes())))
}

impl Api {
    /// Up to `limit` sessions that are looked for, after the one that the page before gave as `next`; and whether there
    /// are more.
    pub(crate) async fn sessions(
        &self,
        search: &SessionSearch,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<SessionRow>, bool), Problem> {
        let place = |text| {
            token(text).ok_or_else(|| bad("`after` must be the `next` value of an earlier page".to_owned()))
        };
        let after = after.map(place).transpose()?;
        let chosen = SessionFilter::listed(search, &self.ledger.issuers.load())?;
        self.in_use(chosen, after, limit).await
    }

    /// Every session of a subject; without an issuer, of the only one.
    pub(crate) async fn sessions_of(
        &self,
        subject: Option<&String>,
        issuer: Option<&String>,
    ) -> Result<Vec<SessionRow>, Problem> {
        if subject.is_none() {
            return Err(bad("`subject` is required".to_owned()));
        }
        let chosen = SessionFilter::new(subject, issuer, &self.ledger.issuers.load())?;
        Ok(self.in_use(chosen, None, usize::MAX).await?.0)
    }

    /// The session of a token that is named as the list names it, or by the beginning of that name.
    pub(crate) async fn session(&self, name: &str) -> Result<SessionRow, Problem> {
        let unknown = || Problem::new(StatusCode::NOT_FOUND, "no such token is in use");
        let name = name.to_ascii_lowercase();
        let first = first(&name).ok_or_else(unknown)?;
        let (rows, _) = self.in_use(SessionFilter::default(), before(first), 2).await?;
        let mut named = rows.into_iter().filter(|row| row.token.0.to_string().starts_with(&name));
        let one = named.next().ok_or_else(unknown)?;
        if named.next().is_some() {
            let detail = "several tokens in use match; give more characters of the name";
            return Err(Problem::new(StatusCode::CONFLICT, detail));
        }
        Ok(one)
    }

    /// The session of exactly this token.
    pub(super) async fn find_session(&self, token: TokenKey) -> Result<Option<SessionRow>, Problem> {
        let (mut rows, _) = self.in_use(SessionFilter::default(), before(token), 1).await?;
        Ok(rows.pop().filter(|row| row.token == token))
    }

    /// Revokes the tokens of these sessions.
    pub(crate) async fn end_sessions(&self, rows: &[SessionRow]) -> Result<(), Problem> {
        let (now, issuers) = (Now::read(), self.ledger.issuers.load_full());
        // A token of an issuer that is no longer configured is accepted by nobody.
        let of = |row: &SessionRow| issuers.iter().find(|issuer| issuer.issuer == row.issuer);
        let events =
            rows.iter().filter_map(|row| Some(of(row)?.token_revoked(row.token, now.wall))).collect();
        self.publish(events, now).await?;
        Ok(())
    }

    /// Up to `limit` sessions after a token, in the order of their keys, and whether there are more.
    pub(crate) async fn in_use(
        &self,
        chosen: SessionFilter,
        after: Option<TokenKey>,
        limit: usize,
    ) -> Result<(Vec<SessionRow>, bool), Problem> {
        let Ledger { sessions, revocations, .. } = &self.ledger;
        let (sessions, revocations) = (Arc::clone(sessions), Arc::clone(revocations));
        let now = Now::read();
        // A table of a million sessions takes a while to look through.
        let looked = tokio::task::spawn_blocking(move || {
            look(&sessions, &revocations.load(), &chosen, (after, limit), now)
        });
        looked
            .await
            .map_err(|_ending| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the gate is shutting down"))
    }
}

fn look(
    sessions: &Sessions,
    revocations: &Snapshot,
    chosen: &SessionFilter,
    (after, limit): (Option<TokenKey>, usize),
    now: Now,
) -> (Vec<SessionRow>, bool) {
    let wanted = |row: &SessionRow| chosen.is_theirs(row) && !is_ended(revocations, row, now);
    let mut found = sessions.list(chosen.subject(), after, limit.saturating_add(1), now, wanted);
    let more = found.len() > limit;
    found.truncate(limit);
    (found, more)
}

/// Whether the token of a session was certainly ended. A session does not know its token's role version: where it would
/// matter, the token counts as the latest.
fn is_ended(revocations: &Snapshot, row: &SessionRow, now: Now) -> bool {
    let facts = TokenFacts {
        token: row.token,
        issuer: IssuerKey::new(&row.issuer),
        subject: row.subject,
        client: row.client.as_ref().map(|client| ClientKey::new(&row.issuer, client)),
        issued_at: row.issued_at.min(row.first_used_at),
        role_version: Some(u64::MAX),
        names: row.names.clone(),
    };
    revocations.judge(&facts, now).is_some()
}

/// The key that 32 hex digits name.
fn token(text: &str) -> Option<TokenKey> {
    let is_key = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let bits = u128::from_str_radix(text, 16).ok().filter(|_| is_key)?;
    Some(TokenKey(Key::from_bytes(bits.to_be_bytes())))
}
