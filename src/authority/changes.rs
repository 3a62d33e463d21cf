//! Carries out changes to users and credentials, so that after a crash at any point, nothing that a stored change has
//! removed is still valid.
//!
//! A change that ends tokens takes four steps: its intent is stored; the event is made durable and put in force; the change
//! itself is stored and the intent deleted, in one transaction; it is shown to the workers. An intent that is found at
//! start was interrupted on its way and is completed. The event and the change are stored apart because events may live in
//! another store; between the two, tokens are rejected that need not be, and never the reverse.
//!
//! What must be undone when a step fails, or is dropped, is a guard: [`Taken`] puts back what it took out of the directory,
//! and [`Intent`] has its change completed later unless it was completed or rolled back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard};
use tracing::{error, warn};

use super::directory::{Credential, Directory, User};
use super::password::PasswordHash;
use super::{Authority, rows};
use crate::events;
use crate::state::StoreError;
use crate::state::record::{Event, EventKind, EventSource};
use crate::time::{Now, Timestamp};

/// The furthest into the future that a change ends tokens of a client or user who may get new ones: until that moment
/// the new ones must wait.
const CATCH_UP: Duration = Duration::from_secs(600);

/// What is to be different.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum AccountChange {
    /// There is a new user.
    CreateUser(Arc<User>),
    /// A user has other roles, and with them another version.
    SetRoles(Arc<User>),
    /// A user has another password, or none. Ends no token and so needs no intent; skipped, it cannot become one.
    #[serde(skip)]
    SetPassword {
        /// The user.
        id: Arc<str>,
        /// Its password from now on.
        password: Option<PasswordHash>,
    },
    /// Users are what their provider wants, new ones among them: all of them at one moment.
    ProvideUsers(Vec<ProvidedChange>),
    /// A user is gone, and its credentials.
    DeleteUser(Arc<str>),
    /// There is a new credential, or one is different; its tokens end, or live on.
    PutCredential {
        /// As it is from now on.
        credential: Arc<Credential>,
        /// Whether its tokens end.
        end_tokens: bool,
    },
    /// A credential is gone.
    DeleteCredential(Arc<str>),
}

/// One user whose provider wants it to be so.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ProvidedChange {
    /// As it is from now on.
    pub(super) user: Arc<User>,
    /// Whether its tokens end.
    pub(super) end_tokens: bool,
}

impl ProvidedChange {
    /// An inactive one loses all tokens, whatever its roles; of another one those end that carry older roles.
    fn event(&self, name: &Arc<str>, at: Timestamp, until: Timestamp) -> Option<Event> {
        let Self { user, end_tokens: true } = self else { return None };
        if !user.is_active {
            return Some(Event::subject(EventKind::SubjectRevoked, name, &user.id, at, until));
        }
        let event = Event::subject(EventKind::RoleChanged, name, &user.id, at, until);
        Some(Event { role_version: Some(user.role_version), ..event })
    }
}

/// What a change took out of the directory. Goes back when it is dropped, unless the change stands.
#[derive(Debug)]
#[must_use]
struct Taken<'a> {
    directory: &'a Directory,
    users: Vec<Arc<User>>,
    credentials: Vec<Arc<Credential>>,
}

impl Taken<'_> {
    /// The change stands.
    fn keep(mut self) {
        (self.users, self.credentials) = (Vec::new(), Vec::new());
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.users.drain(..).for_each(|user| self.directory.put_user(user));
        self.credentials.drain(..).for_each(|credential| self.directory.put_credential(credential));
    }
}

/// An intent that is in the store, or may be. When it is dropped before it is closed, nobody knows how far its change
/// came: the upkeep completes it.
#[derive(Debug)]
#[must_use]
struct Intent<'a> {
    authority: &'a Authority,
    is_open: bool,
}

impl<'a> Intent<'a> {
    /// From before it is stored.
    fn open(authority: &'a Authority) -> Self {
        Self { authority, is_open: true }
    }

    /// The change is complete or rolled back, and the intent deleted.
    fn close(mut self) {
        self.is_open = false;
    }
}

impl Drop for Intent<'_> {
    fn drop(&mut self) {
        if self.is_open {
            self.authority.unsettled.store(true, Ordering::Relaxed);
            self.authority.wake.notify_one();
        }
    }
}

/// Kept while a change is under way. New credentials share their turn, and with it the store's commits; everything else
/// is changed alone.
#[derive(Debug)]
pub(super) enum ChangeTurn {
    Shared(#[expect(dead_code, reason = "held, never looked at")] OwnedRwLockReadGuard<()>),
    Alone(#[expect(dead_code, reason = "held, never looked at")] OwnedRwLockWriteGuard<()>),
}

impl AccountChange {
    /// What ends tokens by it.
    pub(super) fn events(&self, issuer: &events::EventIssuer, at: Timestamp) -> Vec<Event> {
        if let Self::ProvideUsers(users) = self {
            let until = issuer.expiry(at);
            return users.iter().filter_map(|change| change.event(&issuer.issuer, at, until)).collect();
        }
        self.event(issuer, at).into_iter().collect()
    }

    pub(super) fn event(&self, issuer: &events::EventIssuer, at: Timestamp) -> Option<Event> {
        let (name, until) = (&issuer.issuer, issuer.expiry(at));
        let client_revoked = |client_id: &str| Event::client(name, client_id, at, until);
        match self {
            Self::SetRoles(user) => {
                let kind = EventKind::RoleChanged;
                let event = Event::subject(kind, name, &user.id, at, until);
                Some(Event { role_version: Some(user.role_version), ..event })
            }
            Self::DeleteUser(id) => {
                let kind = EventKind::SubjectRevoked;
                Some(Event::subject(kind, name, id, at, until))
            }
            Self::PutCredential { credential, end_tokens: true } => {
                Some(client_revoked(&credential.client_id))
            }
            Self::DeleteCredential(client_id) => Some(client_revoked(client_id)),
            Self::CreateUser(_)
            | Self::SetPassword { .. }
            | Self::ProvideUsers(_)
            | Self::PutCredential { end_tokens: false, .. } => None,
        }
    }

    fn store(&self, db: &rusqlite::Connection) -> rusqlite::Result<()> {
        match self {
            Self::CreateUser(user) | Self::SetRoles(user) => rows::put_user(db, user),
            Self::SetPassword { id, password } => rows::put_password(db, id, password.as_ref()),
            Self::ProvideUsers(users) => users.iter().try_for_each(|change| rows::put_user(db, &change.user)),
            Self::DeleteUser(id) => rows::delete_user(db, id),
            Self::PutCredential { credential, .. } => rows::put_credential(db, credential),
            Self::DeleteCredential(client_id) => rows::delete_credential(db, client_id),
        }
    }

    /// Removes from the directory what must no longer be used to issue tokens, before the moment until which tokens end: a
    /// token issued after that moment was issued by what came then.
    ///
    /// Roles are the exception. Tokens end by their version, whenever they are issued.
    fn take<'a>(&self, directory: &'a Directory) -> Taken<'a> {
        let (users, credentials) = match self {
            Self::DeleteUser(id) => {
                let (user, credentials) = directory.remove_user(id);
                (user.into_iter().collect(), credentials)
            }
            Self::ProvideUsers(users) => {
                let out = users.iter().map(|change| &change.user).filter(|user| !user.is_active);
                let out = out.filter_map(|user| directory.shut_out(&user.id)).collect();
                (out, Vec::new())
            }
            Self::PutCredential { credential, .. } => {
                let before = directory.credential(&credential.client_id);
                directory.put_credential(Arc::clone(credential));
                (Vec::new(), before.into_iter().collect())
            }
            Self::DeleteCredential(client_id) => {
                (Vec::new(), directory.remove_credential(client_id).into_iter().collect())
            }
            Self::CreateUser(_) | Self::SetRoles(_) | Self::SetPassword { .. } => (Vec::new(), Vec::new()),
        };
        Taken { directory, users, credentials }
    }

    /// Shows what there is from now on.
    fn show(self, directory: &Directory) {
        match self {
            Self::CreateUser(user) => directory.put_user(user),
            Self::SetRoles(user) => directory.put_roles(&user),
            Self::ProvideUsers(users) => users.iter().for_each(|change| directory.put_roles(&change.user)),
            Self::SetPassword { id, password } => directory.put_password(&id, password),
            Self::PutCredential { credential, .. } => directory.put_credential(credential),
            Self::DeleteUser(id) => drop(directory.remove_user(&id)),
            Self::DeleteCredential(client_id) => drop(directory.remove_credential(&client_id)),
        }
    }
}

impl Authority {
    /// Waits until nobody else is changing anything.
    pub(super) async fn alone(&self) -> ChangeTurn {
        ChangeTurn::Alone(Arc::clone(&self.changing).write_owned().await)
    }

    /// Waits until nobody is changing anything but by adding to it.
    pub(super) async fn shared(&self) -> ChangeTurn {
        ChangeTurn::Shared(Arc::clone(&self.changing).read_owned().await)
    }

    /// Carries a change out, whether or not the caller waits for it.
    ///
    /// # Errors
    /// When a store cannot be written. Then nothing has changed, unless the disk failed twice: a change whose intent could
    /// not be rolled back is completed later.
    pub(super) async fn carry_out(
        self: &Arc<Self>,
        turn: ChangeTurn,
        change: AccountChange,
    ) -> Result<(), StoreError> {
        let authority = Arc::clone(self);
        let work = async move {
            let outcome = authority.try_to_carry_out(change).await;
            drop(turn);
            outcome
        };
        // Cancelled or panicked: the process is ending, and nothing may be acknowledged.
        tokio::spawn(work).await.unwrap_or(Err(StoreError::Closed))
    }

    /// What comes later must not be overwritten by what was meant before.
    pub(super) async fn settled_alone(&self) -> Result<ChangeTurn, StoreError> {
        let turn = self.alone().await;
        if self.unsettled.load(Ordering::Relaxed) {
            self.settle().await?;
        }
        Ok(turn)
    }

    /// The same, for as long as it is polled.
    pub(super) async fn try_to_carry_out(&self, change: AccountChange) -> Result<(), StoreError> {
        if change.events(&self.event_issuer(), Timestamp::now()).is_empty() {
            let stored = change.clone();
            self.store.transact(move |db| stored.store(db)).await?;
            change.show(&self.directory);
            return Ok(());
        }
        let text = serde_json::to_string(&change).map_err(|error| StoreError::Failed(error.to_string()))?;
        let intent = Intent::open(self);
        let id = self.store.transact(move |db| rows::put_intent(db, &text)).await?;
        match self.finish(&change, id).await {
            Ok(()) => {
                intent.close();
                Ok(())
            }
            Err(error) => {
                self.take_back(intent, id, &change).await;
                Err(error)
            }
        }
    }

    /// Takes the last steps of a change that ends tokens.
    async fn finish(&self, change: &AccountChange, intent: i64) -> Result<(), StoreError> {
        let taken = change.take(&self.directory);
        self.publish_and_store(change, intent).await?;
        taken.keep();
        change.clone().show(&self.directory);
        Ok(())
    }

    /// Makes the event durable and puts it in force, then stores the change.
    async fn publish_and_store(&self, change: &AccountChange, intent: i64) -> Result<(), StoreError> {
        let now = Now::read();
        let events = change.events(&self.event_issuer(), self.ends_until(change, now.wall));
        if !events.is_empty() {
            let kinds: Vec<EventKind> = events.iter().map(|event| event.kind).collect();
            self.log.publish(events, EventSource::Authority, now).await?;
            for kind in kinds {
                let labels = [kind.as_str(), EventSource::Authority.as_str()];
                self.metrics.events.with_label_values(&labels).inc();
            }
        }
        let change = change.clone();
        self.store
            .transact(move |db| {
                change.store(db)?;
                rows::delete_intent(db, intent)
            })
            .await
    }

    /// The moment until which a change ends what was issued. When the wall clock is behind what it said when tokens were
    /// issued, that is when the latest of them was, or these tokens would outlive the change.
    pub(super) fn ends_until(&self, change: &AccountChange, now: Timestamp) -> Timestamp {
        let latest = Timestamp::from_millis(self.latest_issue.load(Ordering::Relaxed));
        match change {
            // Nothing is issued to this client any more.
            AccountChange::DeleteCredential(_) => now.max(latest),
            _ => now.max(latest.min(now.plus(CATCH_UP))),
        }
    }

    /// Deletes an intent whose change failed. The event may have been published all the same, and with it a role version
    /// that tokens must have from now on: the user keeps its roles with that version. It gets it only when the intent is
    /// gone for certain, or tokens with these roles and that version would outlive the completed change.
    async fn take_back(&self, intent: Intent<'_>, id: i64, change: &AccountChange) {
        let keep = |wanted: &Arc<User>| {
            let before = self.directory.user(&wanted.id)?;
            Some(Arc::new(User { role_version: wanted.role_version, ..User::clone(&before) }))
        };
        let kept: Vec<Arc<User>> = match change {
            AccountChange::SetRoles(wanted) => keep(wanted).into_iter().collect(),
            AccountChange::ProvideUsers(users) => {
                users.iter().filter_map(|change| keep(&change.user)).collect()
            }
            _ => Vec::new(),
        };
        let stored = kept.clone();
        let taken_back = self
            .store
            .transact(move |db| {
                stored.iter().try_for_each(|user| rows::put_user(db, user))?;
                rows::delete_intent(db, id)
            })
            .await;
        match taken_back {
            Ok(()) => {
                kept.into_iter().for_each(|user| self.directory.put_user(user));
                intent.close();
            }
            Err(error) => {
                error!(%error, "cannot complete or roll back a change; will complete it later");
                drop(intent);
            }
        }
    }

    /// Completes the changes that were interrupted.
    ///
    /// # Errors
    /// When a store cannot be written; what is left will be tried again.
    pub(super) async fn settle(&self) -> Result<(), StoreError> {
        let was_interrupted_here = self.unsettled.swap(true, Ordering::Relaxed);
        for (intent, text) in self.store.transact(rows::intents).await? {
            let change: AccountChange = serde_json::from_str(&text)
                .map_err(|error| StoreError::Failed(format!("cannot read an unfinished change: {error}")))?;
            warn!("completing an interrupted change");
            // With an event of now: tokens may have been issued since it was intended.
            self.finish(&change, intent).await?;
        }
        if was_interrupted_here {
            // A change that was dropped on its way may have been stored or not.
            self.refresh().await?;
        }
        self.unsettled.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Makes the directory what the store holds.
    pub(super) async fn refresh(&self) -> Result<(), StoreError> {
        let stored = self.store.transact(|db| Ok((rows::users(db)?, rows::credentials(db)?))).await?;
        self.directory.replace(stored.0, stored.1);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
