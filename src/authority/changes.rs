//! How a change to users and credentials is carried out, so that whatever crashes when, what was taken away is never
//! still of use once the change is stored.
//!
//! A change that ends tokens takes four steps: its intent is stored; the event is made durable and put in force; the change
//! itself is stored and the intent forgotten, in one transaction; it is shown to the workers. An intent that is found at
//! start was cut off on its way and is carried out to the end. The event and the change are stored apart because events
//! may live in another store; between the two, tokens are refused that need not be, and never the reverse.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard};
use tracing::{error, warn};

use super::directory::{Credential, Directory, User};
use super::{Authority, rows};
use crate::events;
use crate::state::StoreError;
use crate::state::record::{Event, EventKind, Source};
use crate::time::Timestamp;

/// What is to be different.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Change {
    /// There is a new user.
    CreateUser(Arc<User>),
    /// A user has other roles, and with them another version.
    SetRoles(Arc<User>),
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

/// What was in the directory before it was taken out.
#[derive(Debug, Default)]
struct Taken {
    user: Option<Arc<User>>,
    credentials: Vec<Arc<Credential>>,
}

/// Kept while a change is under way. New credentials share their turn, and with it the store's commits; everything else
/// is changed alone.
#[derive(Debug)]
pub(super) enum Turn {
    Shared(#[expect(dead_code, reason = "held, never looked at")] OwnedRwLockReadGuard<()>),
    Alone(#[expect(dead_code, reason = "held, never looked at")] OwnedRwLockWriteGuard<()>),
}

impl Change {
    /// What ends tokens by it.
    pub(super) fn event(&self, issuer: &events::Issuer, at: Timestamp) -> Option<Event> {
        let until = |kind, versioned| issuer.expiry(kind, versioned, at, at);
        let name = &issuer.issuer;
        let client_revoked =
            |client_id: &str| Event::client(name, client_id, at, until(EventKind::ClientRevoked, false));
        match self {
            Self::SetRoles(user) => {
                let kind = EventKind::RoleChanged;
                let event = Event::subject(kind, name, &user.id, at, until(kind, true));
                Some(Event { role_version: Some(user.role_version), ..event })
            }
            Self::DeleteUser(id) => {
                let kind = EventKind::SubjectRevoked;
                Some(Event::subject(kind, name, id, at, until(kind, false)))
            }
            Self::PutCredential { credential, end_tokens: true } => {
                Some(client_revoked(&credential.client_id))
            }
            Self::DeleteCredential(client_id) => Some(client_revoked(client_id)),
            Self::CreateUser(_) | Self::PutCredential { end_tokens: false, .. } => None,
        }
    }

    fn store(&self, db: &rusqlite::Connection) -> rusqlite::Result<()> {
        match self {
            Self::CreateUser(user) | Self::SetRoles(user) => rows::put_user(db, user),
            Self::DeleteUser(id) => rows::delete_user(db, id),
            Self::PutCredential { credential, .. } => rows::put_credential(db, credential),
            Self::DeleteCredential(client_id) => rows::delete_credential(db, client_id),
        }
    }

    /// Takes out of the directory what no token may be issued by any more, before the moment until which tokens end: a
    /// token issued after that moment was issued by what came then.
    ///
    /// Roles are the exception. Tokens end by their version, whenever they are issued.
    fn take(&self, directory: &Directory) -> Taken {
        match self {
            Self::DeleteUser(id) => {
                let (user, credentials) = directory.remove_user(id);
                Taken { user, credentials }
            }
            Self::PutCredential { credential, .. } => {
                let before = directory.credential(&credential.client_id);
                directory.put_credential(Arc::clone(credential));
                Taken { user: None, credentials: before.into_iter().collect() }
            }
            Self::DeleteCredential(client_id) => Taken {
                user: None,
                credentials: directory.remove_credential(client_id).into_iter().collect(),
            },
            Self::CreateUser(_) | Self::SetRoles(_) => Taken::default(),
        }
    }

    /// Shows what there is from now on.
    fn show(self, directory: &Directory) {
        match self {
            Self::CreateUser(user) | Self::SetRoles(user) => directory.put_user(user),
            Self::PutCredential { credential, .. } => directory.put_credential(credential),
            Self::DeleteUser(id) => drop(directory.remove_user(&id)),
            Self::DeleteCredential(client_id) => drop(directory.remove_credential(&client_id)),
        }
    }
}

impl Authority {
    /// Waits until nobody else is changing anything.
    pub(super) async fn alone(&self) -> Turn {
        Turn::Alone(Arc::clone(&self.changing).write_owned().await)
    }

    /// Waits until nobody is changing anything but by adding to it.
    pub(super) async fn shared(&self) -> Turn {
        Turn::Shared(Arc::clone(&self.changing).read_owned().await)
    }

    /// Carries a change out, whether or not the caller waits for it.
    ///
    /// # Errors
    /// When a store cannot be written. Then nothing has changed, unless the disk failed twice: a change whose intent could
    /// not be taken back is carried out later.
    pub(super) async fn carry_out(self: &Arc<Self>, turn: Turn, change: Change) -> Result<(), StoreError> {
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
    pub(super) async fn settled_alone(&self) -> Result<Turn, StoreError> {
        let turn = self.alone().await;
        if self.unsettled.load(Ordering::Relaxed) {
            self.settle().await?;
        }
        Ok(turn)
    }

    async fn try_to_carry_out(&self, change: Change) -> Result<(), StoreError> {
        let now = Timestamp::now();
        if change.event(&self.event_issuer(), now).is_none() {
            let stored = change.clone();
            self.store.transact(move |db| stored.store(db)).await?;
            change.show(&self.directory);
            return Ok(());
        }
        let before = match &change {
            Change::SetRoles(user) => self.directory.user(&user.id),
            _ => None,
        };
        let text = serde_json::to_string(&change).map_err(|error| StoreError::Failed(error.to_string()))?;
        let intent = self.store.transact(move |db| rows::put_intent(db, &text)).await?;
        let outcome = self.finish(&change, intent).await;
        if outcome.is_err() {
            self.take_back(&change, intent, before).await;
        }
        outcome
    }

    /// Takes the last steps of a change that ends tokens.
    async fn finish(&self, change: &Change, intent: i64) -> Result<(), StoreError> {
        let taken = change.take(&self.directory);
        let outcome = self.publish_and_store(change, intent).await;
        match outcome {
            Ok(()) => change.clone().show(&self.directory),
            Err(_) => {
                taken.user.into_iter().for_each(|user| self.directory.put_user(user));
                taken
                    .credentials
                    .into_iter()
                    .for_each(|credential| self.directory.put_credential(credential));
            }
        }
        outcome
    }

    /// Makes the event durable and puts it in force, then stores the change.
    async fn publish_and_store(&self, change: &Change, intent: i64) -> Result<(), StoreError> {
        let now = Timestamp::now();
        if let Some(event) = change.event(&self.event_issuer(), now) {
            let kind = event.kind;
            self.log.publish(vec![event], Source::Authority, now).await?;
            self.metrics.events.with_label_values(&[kind.as_str(), Source::Authority.as_str()]).inc();
        }
        let change = change.clone();
        self.store
            .transact(move |db| {
                change.store(db)?;
                rows::delete_intent(db, intent)
            })
            .await
    }

    /// Forgets an intent whose event could not be published. The event may have come through all the same, and with it
    /// a version that tokens must have from now on.
    async fn take_back(&self, change: &Change, intent: i64, before: Option<Arc<User>>) {
        let kept = match (change, before) {
            (Change::SetRoles(wanted), Some(before)) => {
                Some(Arc::new(User { role_version: wanted.role_version, ..User::clone(&before) }))
            }
            _ => None,
        };
        let stored = kept.clone();
        let taken_back = self
            .store
            .transact(move |db| {
                stored.iter().try_for_each(|user| rows::put_user(db, user))?;
                rows::delete_intent(db, intent)
            })
            .await;
        match taken_back {
            Ok(()) => kept.into_iter().for_each(|user| self.directory.put_user(user)),
            Err(error) => {
                self.unsettled.store(true, Ordering::Relaxed);
                error!(%error, "a change could not be carried out nor taken back; it will be tried again");
            }
        }
    }

    /// Carries out what was intended and cut off.
    ///
    /// # Errors
    /// When a store cannot be written; what is left will be tried again.
    pub(super) async fn settle(&self) -> Result<(), StoreError> {
        self.unsettled.store(true, Ordering::Relaxed);
        for (intent, text) in self.store.transact(rows::intents).await? {
            let change: Change = serde_json::from_str(&text)
                .map_err(|error| StoreError::Failed(format!("an intent cannot be read: {error}")))?;
            warn!("carrying out a change that was cut off");
            // With an event of now: tokens may have been issued since it was intended.
            self.finish(&change, intent).await?;
        }
        self.unsettled.store(false, Ordering::Relaxed);
        Ok(())
    }
}
