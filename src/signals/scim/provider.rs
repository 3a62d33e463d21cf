//! The endpoints of one provider: takes a request and returns a complete response.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use serde_json::Value;
use tokio::task::spawn_blocking;

use super::answer::{self, empty, json_answer, list_answer, resource_answer};
use super::copy::{DirectoryCopy, ScimDirectories};
use super::error::ScimError;
use super::group::GroupEdit;
use super::plan::{PlannedAnswer, Planner, ScimPlan, SubjectEnd, WantedChange};
use super::query::{self, ScimQuery, WantedAttributes};
use super::request::{ExpectedVersion, ScimPath, check_content_type, holds, is_authorized};
use super::user::UserFields;
use super::{Settings, accounts, discovery, patch};
use crate::authority::Authority;
use crate::signals::{Signal, SignalLog, SignalRequest};
use crate::state::StoreError;
use crate::state::record::{Event, EventKind, EventSource};
use crate::time::Now;

/// How often a change is planned again because another replica changed the directory first.
const ATTEMPTS: usize = 50;

/// A provider that keeps its users and groups here.
#[derive(Debug)]
pub struct Provider {
    settings: Arc<Settings>,
    /// The URL prefix of its resources.
    base: Arc<str>,
    copy: Arc<DirectoryCopy>,
    signals: Arc<SignalLog>,
    /// The embedded authority, if its users are the provider's.
    authority: Option<Arc<Authority>>,
}

/// The response to a request that does not reach its provider.
#[must_use]
pub fn fault(status: StatusCode, detail: &str) -> Response<Bytes> {
    ScimError::of_status(status, detail).response()
}

impl Provider {
    /// Creates a provider whose directory is among these. `base` is the URL of its endpoints as it knows them;
    /// `authority` is the embedded authority if its subjects are the provider's users.
    #[must_use]
    pub fn new(
        settings: Settings,
        base: &str,
        directories: &ScimDirectories,
        signals: Arc<SignalLog>,
        authority: Option<Arc<Authority>>,
    ) -> Arc<Self> {
        let (copy, base) = (directories.of(&settings.name), format!("{base}/v2").into());
        Arc::new(Self { settings: Arc::new(settings), base, copy, signals, authority })
    }

    /// Its settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Processes a request. Before a success is reported, the effect of a change is durable and in force.
    pub async fn answer(self: &Arc<Self>, request: &SignalRequest<'_>) -> Response<Bytes> {
        let answered = self.try_to_answer(request).await;
        answered.unwrap_or_else(|error| {
            // Clients look for a resource before they create it, so a GET that finds none is not worth a log line.
            if !(request.method == Method::GET && error.status() == StatusCode::NOT_FOUND) {
                self.signals.refused(EventSource::Scim, Some(&self.settings.name), error.word());
            }
            error.response()
        })
    }

    async fn try_to_answer(
        self: &Arc<Self>,
        request: &SignalRequest<'_>,
    ) -> Result<Response<Bytes>, ScimError> {
        if !is_authorized(request.headers, &self.settings.tokens) {
            return Err(ScimError::unauthorized());
        }
        let body = request.body.ok_or_else(ScimError::too_large)?;
        let path = ScimPath::parse(request.path).ok_or_else(|| ScimError::not_found("endpoint"))?;
        path.check(request.method)?;
        let query = ScimQuery::parse(request.query)?;
        if request.method == Method::GET {
            return self.read(path, query, request).await;
        }
        if request.method != Method::DELETE {
            check_content_type(request.headers)?;
        }
        let (expected, work) = (ExpectedVersion::of(request.headers), Arc::clone(self));
        let (method, body) = (request.method.clone(), Bytes::copy_from_slice(body));
        let reading = spawn_blocking(move || wanted(&method, path, &body));
        let (id, wanted) = reading.await.map_err(|_cancelled| StoreError::Closed)??;
        // Runs to completion even if the client disconnects.
        let changing = tokio::spawn(async move { work.change(id, wanted, expected, query.wanted).await });
        changing.await.map_err(|_cancelled| StoreError::Closed)?
    }

    async fn read(
        self: &Arc<Self>,
        path: ScimPath,
        query: ScimQuery,
        request: &SignalRequest<'_>,
    ) -> Result<Response<Bytes>, ScimError> {
        match path {
            ScimPath::Config => Ok(json_answer(StatusCode::OK, &discovery::config(&self.base))),
            ScimPath::ResourceTypes(id) => one_of(discovery::resource_types(&self.base), id, "resource type"),
            ScimPath::Schemas(id) => one_of(discovery::schemas(&self.base), id, "schema"),
            ScimPath::Unsupported(what) => Err(ScimError::not_implemented(what)),
            ScimPath::Users(_) | ScimPath::Groups(_) => {
                self.copy.refresh(&mut self.copy.turn().await).await?;
                let (work, headers) = (Arc::clone(self), request.headers.clone());
                let reading = spawn_blocking(move || match path {
                    ScimPath::Users(Some(id)) => {
                        work.resource(ResourceKind::User, &id, &query.wanted, &headers)
                    }
                    ScimPath::Groups(Some(id)) => {
                        work.resource(ResourceKind::Group, &id, &query.wanted, &headers)
                    }
                    ScimPath::Groups(None) => work.list(ResourceKind::Group, &query),
                    _ => work.list(ResourceKind::User, &query),
                });
                reading.await.map_err(|_cancelled| StoreError::Closed)?
            }
        }
    }

    fn resource(
        &self,
        kind: ResourceKind,
        id: &str,
        wanted: &WantedAttributes,
        headers: &http::HeaderMap,
    ) -> Result<Response<Bytes>, ScimError> {
        let directory = self.copy.read();
        let revision = match kind {
            ResourceKind::User => directory.user(id).map(|user| user.revision),
            ResourceKind::Group => directory.group(id).map(|group| group.revision),
        };
        let revision = revision.ok_or_else(|| ScimError::not_found(kind.word()))?;
        if holds(headers, revision) {
            return Ok(empty(StatusCode::NOT_MODIFIED));
        }
        drop(directory);
        self.shown(kind, id, StatusCode::OK, wanted)
    }

    fn shown(
        &self,
        kind: ResourceKind,
        id: &str,
        status: StatusCode,
        wanted: &WantedAttributes,
    ) -> Result<Response<Bytes>, ScimError> {
        let directory = self.copy.read();
        let (found, segment) = match kind {
            ResourceKind::User => (answer::user(&directory, id, &self.base, wanted), "Users"),
            ResourceKind::Group => (answer::group(&directory, id, &self.base, wanted), "Groups"),
        };
        let (resource, revision) = found.ok_or_else(|| ScimError::not_found(kind.word()))?;
        Ok(resource_answer(status, resource, revision, &super::location(&self.base, segment, id)))
    }

    fn list(&self, kind: ResourceKind, query: &ScimQuery) -> Result<Response<Bytes>, ScimError> {
        let directory = self.copy.read();
        let base = &*self.base;
        let (total, resources) = match kind {
            ResourceKind::User => {
                let (total, page) = query::users(&directory, query)?;
                let ids = page.iter().map(|user| answer::user(&directory, &user.id, base, &query.wanted));
                (total, ids.flatten().map(|(shown, _)| Value::Object(shown)).collect())
            }
            ResourceKind::Group => {
                let (total, page) = query::groups(&directory, query)?;
                let ids = page.iter().map(|group| answer::group(&directory, &group.id, base, &query.wanted));
                (total, ids.flatten().map(|(shown, _)| Value::Object(shown)).collect())
            }
        };
        Ok(list_answer(total, query.first, resources))
    }

    /// Plans a change, ends the tokens that it affects, and changes the directory: in this order, each step
    /// durable before the next.
    async fn change(
        self: Arc<Self>,
        id: String,
        wanted: WantedChange,
        expected: ExpectedVersion,
        shown: WantedAttributes,
    ) -> Result<Response<Bytes>, ScimError> {
        let mut turn = self.copy.turn().await;
        for _ in 0..ATTEMPTS {
            self.copy.refresh(&mut turn).await?;
            let (work, revision) = (Arc::clone(&self), turn.next_revision());
            let (id, wanted, expected) = (id.clone(), wanted.clone(), expected.clone());
            let planning = spawn_blocking(move || work.plan(&id, wanted, &expected, revision));
            let ScimPlan { change, ends, accounts, answer } =
                planning.await.map_err(|_cancelled| StoreError::Closed)??;
            if !change.is_empty() {
                self.end_tokens(ends, accounts).await?;
                if !self.copy.commit(&mut turn, change).await? {
                    continue;
                }
            }
            drop(turn);
            let work = Arc::clone(&self);
            let showing = spawn_blocking(move || work.answer_planned(&answer, &shown));
            return showing.await.map_err(|_cancelled| StoreError::Closed)?;
        }
        Err(ScimError::unavailable())
    }

    fn plan(
        &self,
        id: &str,
        wanted: WantedChange,
        expected: &ExpectedVersion,
        revision: u64,
    ) -> Result<ScimPlan, ScimError> {
        let authority = self.authority.clone();
        let has_account = |id: &str| authority.as_ref().is_some_and(|authority| authority.user(id).is_some());
        let planner = Planner {
            directory: &self.copy.read(),
            settings: &self.settings,
            has_account: if authority.is_some() { Some(&has_account) } else { None },
            now: Now::read().wall,
            revision,
        };
        planner.plan(id, wanted, |revision| expected.allows(revision))
    }

    /// Makes the end of tokens durable and puts it in force. The embedded authority ends the tokens of its own users.
    async fn end_tokens(
        &self,
        ends: Vec<(Box<str>, SubjectEnd)>,
        accounts: Vec<super::plan::WantedAccount>,
    ) -> Result<(), ScimError> {
        let before = self.signals.in_force();
        if let Some(authority) = &self.authority {
            accounts::provide(authority, accounts).await?;
        }
        if ends.is_empty() {
            return Ok(());
        }
        let now = Now::read();
        let issuer = &self.settings.issuer;
        let event = |(subject, end): (Box<str>, SubjectEnd)| {
            let kind = match end {
                SubjectEnd::Revoked => EventKind::SubjectRevoked,
                SubjectEnd::RolesChanged => EventKind::RoleChanged,
            };
            Event::subject(kind, &issuer.issuer, &subject, now.wall, issuer.expiry(now.wall))
        };
        let events = ends.into_iter().map(event).collect();
        let (source, sender) = (EventSource::Scim, self.settings.name.clone());
        let signal = Signal { source, sender, events, passed_over: Vec::new() };
        if self.authority.is_some() {
            self.signals.tell(signal, before).await;
            return Ok(());
        }
        Ok(self.signals.publish(signal, now).await?)
    }

    fn answer_planned(
        &self,
        planned: &PlannedAnswer,
        shown: &WantedAttributes,
    ) -> Result<Response<Bytes>, ScimError> {
        match planned {
            PlannedAnswer::CreatedUser(id) => self.shown(ResourceKind::User, id, StatusCode::CREATED, shown),
            PlannedAnswer::User(id) => self.shown(ResourceKind::User, id, StatusCode::OK, shown),
            PlannedAnswer::CreatedGroup(id) => {
                self.shown(ResourceKind::Group, id, StatusCode::CREATED, shown)
            }
            PlannedAnswer::Group(id) => self.shown(ResourceKind::Group, id, StatusCode::OK, shown),
            PlannedAnswer::NoContent => Ok(empty(StatusCode::NO_CONTENT)),
        }
    }
}

/// The kinds of resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ResourceKind {
    User,
    Group,
}

impl ResourceKind {
    const fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
        }
    }
}

/// Parses a request that changes something; returns the id of the resource and the change.
fn wanted(method: &Method, path: ScimPath, body: &[u8]) -> Result<(String, WantedChange), ScimError> {
    let (kind, id) = match path {
        ScimPath::Users(id) => (ResourceKind::User, id),
        ScimPath::Groups(id) => (ResourceKind::Group, id),
        _ => return Err(ScimError::not_found("endpoint")),
    };
    let wanted = match (kind, method) {
        (ResourceKind::User, &Method::POST) => WantedChange::CreateUser(UserFields::parse(body)?, new_id()?),
        (ResourceKind::User, &Method::PUT) => WantedChange::ReplaceUser(UserFields::parse(body)?),
        (ResourceKind::User, &Method::PATCH) => WantedChange::PatchUser(patch::parse(body)?),
        (ResourceKind::User, _) => WantedChange::DeleteUser,
        (ResourceKind::Group, &Method::POST) => WantedChange::CreateGroup(GroupEdit::parse(body)?, new_id()?),
        (ResourceKind::Group, &Method::PUT) => WantedChange::ReplaceGroup(GroupEdit::parse(body)?),
        (ResourceKind::Group, &Method::PATCH) => WantedChange::PatchGroup(patch::parse(body)?),
        (ResourceKind::Group, _) => WantedChange::DeleteGroup,
    };
    Ok((id.unwrap_or_default(), wanted))
}

/// Generates a random UUID (RFC 9562 §5.4).
fn new_id() -> Result<Box<str>, ScimError> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_unspecified| ScimError::unavailable())?;
    let number = u128::from_be_bytes(bytes);
    let number = number & !(0xf << 76) | (4 << 76);
    let number = number & !(0x3 << 62) | (2 << 62);
    let text = format!("{number:032x}");
    let parts = [(0, 8), (8, 12), (12, 16), (16, 20), (20, 32)];
    let parts: Vec<&str> = parts.iter().filter_map(|(from, to)| text.get(*from..*to)).collect();
    Ok(parts.join("-").into())
}

/// Returns all of these, or the one with this id.
fn one_of(all: Vec<Value>, id: Option<String>, what: &str) -> Result<Response<Bytes>, ScimError> {
    let Some(id) = id else { return Ok(list_answer(all.len(), 0, all)) };
    let found = all.into_iter().find(|one| one.get("id").and_then(Value::as_str) == Some(&id));
    found.map(|one| json_answer(StatusCode::OK, &one)).ok_or_else(|| ScimError::not_found(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_id_is_a_random_uuid_of_version_4() {
        let ids: Vec<_> = (0..200).map(|_| new_id().unwrap()).collect();
        for id in &ids {
            let parts: Vec<_> = id.split('-').collect();
            assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "{id}");
            assert!(parts[2].starts_with('4') && parts[3].starts_with(['8', '9', 'a', 'b']), "{id}");
        }
        // In 200 ids a random digit has more than half of its 16 values.
        let digits =
            |at: usize| ids.iter().map(|id| id.as_bytes()[at]).collect::<std::collections::BTreeSet<_>>();
        for at in (0..36).filter(|at| ![8, 13, 14, 18, 19, 23].contains(at)) {
            assert!(digits(at).len() > 8, "the digit at {at} is not random");
        }
        assert_eq!(digits(19).len(), 4, "two of its bits are random");
    }
}
