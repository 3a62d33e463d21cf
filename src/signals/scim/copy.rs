//! The directories of all providers, each as an in-memory copy of the store.
//!
//! The store is authoritative. Changes by other replicas are read before a request is answered; a change that
//! finds the store at another revision is planned again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::OwnedMutexGuard;
use tokio::task::spawn_blocking;

use super::directory::{DirectoryChange, ScimDirectory};
use super::error::ScimError;
use crate::state::{DirectoryEntry, DirectoryNews, DirectoryRevision, Store, StoreError};

/// How often the copy and the store are compared again when other replicas restore the store at the same time.
const ATTEMPTS: usize = 10;

/// The directories of all providers; they survive reloads.
#[derive(Debug)]
pub struct ScimDirectories {
    store: Store,
    by_name: Mutex<BTreeMap<String, Arc<DirectoryCopy>>>,
}

impl ScimDirectories {
    /// Creates the copies of the directories in this store.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, by_name: Mutex::default() }
    }

    /// Returns the directory of a provider.
    pub(super) fn of(&self, name: &str) -> Arc<DirectoryCopy> {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let copy = by_name.entry(name.to_owned()).or_insert_with(|| {
            let store = self.store.clone();
            Arc::new(DirectoryCopy {
                name: name.to_owned(),
                store,
                state: Arc::default(),
                directory: Arc::default(),
            })
        });
        Arc::clone(copy)
    }
}

/// One directory.
#[derive(Debug)]
pub(super) struct DirectoryCopy {
    name: String,
    store: Store,
    state: Arc<tokio::sync::Mutex<CopyState>>,
    directory: Arc<RwLock<ScimDirectory>>,
}

/// How the copy relates to the store.
#[derive(Debug, Default)]
struct CopyState {
    revision: DirectoryRevision,
    /// Whether the copy equals the store, provided that only this process changes it.
    is_current: bool,
}

/// The exclusive right to change the directory.
#[derive(Debug)]
pub(super) struct DirectoryTurn(OwnedMutexGuard<CopyState>);

impl DirectoryTurn {
    /// The revision number after the next change.
    pub(super) fn next_revision(&self) -> u64 {
        self.0.revision.number + 1
    }
}

impl DirectoryCopy {
    /// Waits for the exclusive right to change the directory.
    pub(super) async fn turn(&self) -> DirectoryTurn {
        DirectoryTurn(Arc::clone(&self.state).lock_owned().await)
    }

    /// Returns the current copy. Nothing panics while writing it, so the value behind a poisoned lock is intact.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, ScimDirectory> {
        self.directory.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Updates the copy from the store.
    pub(super) async fn refresh(&self, turn: &mut DirectoryTurn) -> Result<(), ScimError> {
        let state = &mut *turn.0;
        for _ in 0..ATTEMPTS {
            if state.is_current && !self.store.is_shared() {
                return Ok(());
            }
            let Some(news) = self.store.directory_news(&self.name, &state.revision).await? else {
                state.is_current = true;
                return Ok(());
            };
            if news.is_whole && news.revision.number < state.revision.number {
                self.restore_store(state, news).await?;
                continue;
            }
            let DirectoryNews { revision, is_whole, entries } = news;
            self.show(is_whole, move || DirectoryChange::parse(entries)).await?;
            (state.revision, state.is_current) = (revision, true);
            if !self.store.is_shared() {
                return Ok(());
            }
        }
        Err(ScimError::unavailable())
    }

    /// Restores the shared store from the copy after the store was emptied or replaced by an older one.
    async fn restore_store(&self, state: &mut CopyState, news: DirectoryNews) -> Result<(), ScimError> {
        let change = self.read().all();
        let mut entries = entries(&change)?;
        let known: std::collections::HashSet<Box<str>> =
            entries.iter().map(|entry| entry.key.clone()).collect();
        let strange = news.entries.into_iter().filter(|entry| !known.contains(&entry.key));
        entries.extend(strange.map(|entry| DirectoryEntry { body: None, ..entry }));
        tracing::warn!(
            provider = self.name,
            entries = entries.len(),
            "the shared store has lost a SCIM directory; restoring it from this gate's copy"
        );
        let put =
            self.store.change_directory(&self.name, &news.revision, entries, state.revision.number).await?;
        if let Some(revision) = put {
            state.revision = revision;
        }
        Ok(())
    }

    /// Changes the store and then the copy. Returns false, without a change, if the store no longer has
    /// the revision known here.
    pub(super) async fn commit(
        &self,
        turn: &mut DirectoryTurn,
        change: DirectoryChange,
    ) -> Result<bool, ScimError> {
        let state = &mut *turn.0;
        let entries = entries(&change)?;
        // Until the outcome of the change is known.
        state.is_current = false;
        let changed = self.store.change_directory(&self.name, &state.revision, entries, 0).await?;
        let Some(revision) = changed else { return Ok(false) };
        self.show(false, move || Ok(change)).await?;
        (state.revision, state.is_current) = (revision, true);
        Ok(true)
    }

    /// Applies a change to the copy on a blocking thread. `is_whole`: the change is the complete directory.
    async fn show(
        &self,
        is_whole: bool,
        change: impl FnOnce() -> Result<DirectoryChange, serde_json::Error> + Send + 'static,
    ) -> Result<(), ScimError> {
        let directory = Arc::clone(&self.directory);
        let shown = spawn_blocking(move || {
            let change = change()?;
            let mut fresh = ScimDirectory::default();
            if is_whole {
                fresh.apply(change);
                *directory.write().unwrap_or_else(PoisonError::into_inner) = fresh;
            } else {
                directory.write().unwrap_or_else(PoisonError::into_inner).apply(change);
            }
            Ok::<(), serde_json::Error>(())
        });
        let shown = shown.await.map_err(|_cancelled| StoreError::Closed)?;
        shown.map_err(|error| unreadable(&error))
    }
}

fn entries(change: &DirectoryChange) -> Result<Vec<DirectoryEntry>, ScimError> {
    change.entries().map_err(|error| unreadable(&error))
}

fn unreadable(error: &serde_json::Error) -> ScimError {
    ScimError::from(StoreError::Failed(format!("cannot read or write a user or group: {error}")))
}
