//! The directories of all providers, each as a copy in memory of the store.
//!
//! The store is authoritative. Changes of other replicas are read before a request is answered; a change that finds the
//! store at another revision is planned again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::OwnedMutexGuard;
use tokio::task::spawn_blocking;

use super::directory::{DirectoryChange, ScimDirectory};
use super::error::ScimError;
use crate::state::{DirectoryEntry, DirectoryNews, DirectoryRevision, Store, StoreError};

/// How often the copy is rebuilt in a row, when other replicas make theirs at the same time.
const ATTEMPTS: usize = 10;

/// The directories of all providers, kept over reloads.
#[derive(Debug)]
pub struct ScimDirectories {
    store: Store,
    by_name: Mutex<BTreeMap<String, Arc<DirectoryCopy>>>,
}

impl ScimDirectories {
    /// Kept in this store.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, by_name: Mutex::default() }
    }

    /// That of a provider.
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

/// How far the copy is that of the store.
#[derive(Debug, Default)]
struct CopyState {
    revision: DirectoryRevision,
    /// The copy says what the store says, as far as this process is the only one that changes it.
    is_current: bool,
}

/// Held while the directory is changed.
#[derive(Debug)]
pub(super) struct DirectoryTurn(OwnedMutexGuard<CopyState>);

impl DirectoryTurn {
    /// The revision after the next change.
    pub(super) fn next_revision(&self) -> u64 {
        self.0.revision.number + 1
    }
}

impl DirectoryCopy {
    /// Waits until nobody else changes it.
    pub(super) async fn turn(&self) -> DirectoryTurn {
        DirectoryTurn(Arc::clone(&self.state).lock_owned().await)
    }

    /// What it says now. Nothing panics while it is written, so what a poisoned lock guards is whole.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, ScimDirectory> {
        self.directory.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes it say what the store says.
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
                self.put_back(state, news).await?;
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

    /// The shared store was emptied, or is one of the past: it gets what it lacks.
    async fn put_back(&self, state: &mut CopyState, news: DirectoryNews) -> Result<(), ScimError> {
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

    /// Changes it, in the store and here. Whether it had the revision that the turn knows: otherwise nothing is changed.
    pub(super) async fn commit(
        &self,
        turn: &mut DirectoryTurn,
        change: DirectoryChange,
    ) -> Result<bool, ScimError> {
        let state = &mut *turn.0;
        let entries = entries(&change)?;
        // Until it is known what became of the change.
        state.is_current = false;
        let changed = self.store.change_directory(&self.name, &state.revision, entries, 0).await?;
        let Some(revision) = changed else { return Ok(false) };
        self.show(false, move || Ok(change)).await?;
        (state.revision, state.is_current) = (revision, true);
        Ok(true)
    }

    /// Shows a change to readers, made on a thread that may take its time. `is_whole`: there is nothing besides.
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
