//! The directories of all providers, each as an in-memory copy of the store.
//!
//! The store is authoritative. Changes by other replicas are read before a request is answered; a change that
//! finds the store at another revision is planned again.

use std::collections::{BTreeMap, HashSet};
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
        if state.is_current && !self.store.is_shared() {
            return Ok(());
        }
        for _ in 0..ATTEMPTS {
            let Some(news) = self.store.directory_news(&self.name, &state.revision).await? else {
                state.is_current = true;
                return Ok(());
            };
            if has_lost_changes(&news, &state.revision) {
                self.restore_store(state, news).await?;
                continue;
            }
            let DirectoryNews { revision, is_whole, entries } = news;
            self.show(is_whole, move || DirectoryChange::parse(entries)).await?;
            (state.revision, state.is_current) = (revision, true);
            return Ok(());
        }
        Err(ScimError::unavailable())
    }

    /// Restores the shared store from the copy after the store was emptied or replaced by an older one.
    async fn restore_store(&self, state: &mut CopyState, news: DirectoryNews) -> Result<(), ScimError> {
        let change = self.read().all();
        let entries = restored(entries(&change)?, news.entries);
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

/// Whether the store is at an earlier state than the copy with the revision `known`. At the same number another
/// replica has restored the store, with its copy.
fn has_lost_changes(news: &DirectoryNews, known: &DirectoryRevision) -> bool {
    news.is_whole && news.revision.number < known.number
}

/// The change that makes a store with the entries `found` equal to a copy with the entries `known`.
fn restored(mut known: Vec<DirectoryEntry>, found: Vec<DirectoryEntry>) -> Vec<DirectoryEntry> {
    let keys: HashSet<Box<str>> = known.iter().map(|entry| entry.key.clone()).collect();
    let strange = found.into_iter().filter(|entry| !keys.contains(&entry.key));
    known.extend(strange.map(|entry| DirectoryEntry { key: entry.key, body: None }));
    known
}

fn entries(change: &DirectoryChange) -> Result<Vec<DirectoryEntry>, ScimError> {
    change.entries().map_err(|error| unreadable(&error))
}

fn unreadable(error: &serde_json::Error) -> ScimError {
    ScimError::from(StoreError::Failed(format!("cannot read or write a user or group: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Now;

    fn entry(key: &str, body: Option<&str>) -> DirectoryEntry {
        DirectoryEntry { key: key.into(), body: body.map(Into::into) }
    }

    #[tokio::test]
    async fn a_change_gets_the_revision_that_it_was_planned_for() {
        let directories = ScimDirectories::new(Store::in_memory(Now::at_millis(0)).unwrap());
        let copy = directories.of("idp");
        let mut turn = copy.turn().await;
        for number in 1..=3 {
            copy.refresh(&mut turn).await.unwrap();
            assert_eq!(turn.next_revision(), number);
            assert!(copy.commit(&mut turn, DirectoryChange::default()).await.unwrap());
            assert_eq!(turn.0.revision.number, number);
        }
    }

    #[test]
    fn only_a_store_at_an_earlier_state_has_lost_changes() {
        let known = DirectoryRevision { number: 7, token: "a".into() };
        for (number, is_whole, lost) in
            [(0, true, true), (6, true, true), (7, true, false), (8, true, false), (6, false, false)]
        {
            let revision = DirectoryRevision { number, token: "b".into() };
            let news = DirectoryNews { revision, is_whole, entries: Vec::new() };
            assert_eq!(has_lost_changes(&news, &known), lost, "{number} {is_whole}");
        }
    }

    #[test]
    fn a_store_is_restored_to_the_copy_and_to_nothing_else() {
        let known = vec![entry("user:1", Some("{}")), entry("user:2", Some("{}"))];
        let found = vec![entry("user:2", Some("old")), entry("user:3", Some("{}"))];
        let change = restored(known, found);
        let expected = [entry("user:1", Some("{}")), entry("user:2", Some("{}")), entry("user:3", None)];
        assert_eq!(change, expected);
    }
}
