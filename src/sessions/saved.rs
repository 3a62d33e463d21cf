//! Idle clocks across restarts: last uses are saved in the background and restored at startup.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::limits::SessionLimits;
use super::session::Session;
use super::{Sessions, lock};
use crate::identity::TokenKey;
use crate::state::record::{IdleTerms, SessionRow};
use crate::state::{Store, StoreError};
use crate::time::{Monotonic, Now, Timestamp};

/// Number of lists of sessions to save, one per key prefix; more lists than cores, to reduce contention.
const LISTS: usize = 1 << LIST_BITS;
const LIST_BITS: u32 = 6;
/// Rough number of sessions saved at once. Saving a million sessions must not need memory for a million rows.
const PORTION: usize = 10_000;

/// What has to be saved.
#[derive(Debug)]
pub(super) struct Unsaved {
    /// Whether anything is saved at all.
    is_kept: bool,
    sessions: Box<[Mutex<Vec<Arc<Session>>>]>,
    /// Tokens whose sessions were evicted.
    gone: Mutex<Vec<TokenKey>>,
    most_gone: usize,
    /// First uses that other replicas must know.
    pub(super) first: Mutex<Vec<(TokenKey, Timestamp)>>,
    limits: AtomicBool,
    /// Whether the settings in force were saved, or those of other replicas adopted.
    is_known: AtomicBool,
}

impl Unsaved {
    pub(super) fn new(is_kept: bool, most_gone: usize) -> Self {
        Self {
            is_kept,
            sessions: (0..LISTS).map(|_| Mutex::default()).collect(),
            gone: Mutex::default(),
            most_gone,
            first: Mutex::default(),
            limits: AtomicBool::new(true),
            is_known: AtomicBool::new(false),
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.sessions.iter().map(|list| lock(list).len()).sum()
    }

    pub(super) fn is_kept(&self) -> bool {
        self.is_kept
    }

    pub(super) fn remember(&self, session: &Arc<Session>) {
        let list = session.token().0.high() >> (u64::BITS - LIST_BITS);
        lock(&self.sessions[list as usize]).push(Arc::clone(session));
    }

    pub(super) fn forget(&self, token: TokenKey) {
        let mut gone = lock(&self.gone);
        if self.is_kept && gone.len() < self.most_gone {
            gone.push(token);
        }
    }

    /// Drops evicted sessions from the lists. While the store cannot be written, only sessions in the table
    /// are kept for later; otherwise a disk that is full for a day would fill the memory with dead tokens.
    /// Until then an evicted session is judged by its time of issue.
    fn forget_evicted(&self) {
        self.sessions.iter().for_each(|list| lock(list).retain(|session| !session.is_evicted()));
    }

    /// Records a first use that other replicas must know.
    pub(super) fn note_first_use(&self, token: TokenKey, first: Timestamp) {
        let mut uses = lock(&self.first);
        if uses.len() < self.most_gone {
            uses.push((token, first));
        }
    }

    pub(super) fn limits_changed(&self) {
        self.limits.store(true, Ordering::Relaxed);
    }

    /// Returns true on the first call: the settings have not been saved or compared with saved ones before.
    pub(super) fn is_first_comparison(&self) -> bool {
        !self.is_known.swap(true, Ordering::Relaxed)
    }
}

impl Sessions {
    /// Saves the last uses that changed since the last call; returns how many. What could not be saved is
    /// tried again next time.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn save(&self, store: &Store) -> Result<usize, StoreError> {
        // All three run before an error is returned, so that one failure does not block the others.
        let limits = self.save_limits(store).await;
        let first = self.save_first_uses(store).await;
        let saved = self.save_last_uses(store).await;
        if saved.is_err() {
            self.unsaved.forget_evicted();
        }
        limits.and(first).and(saved)
    }

    async fn save_last_uses(&self, store: &Store) -> Result<usize, StoreError> {
        let (mut saved, mut portion) = (0, Vec::new());
        let (last, lists) = (LISTS - 1, self.unsaved.sessions.iter().enumerate());
        // In key order, as the store keeps them.
        for (place, list) in lists {
            portion.append(&mut *lock(list));
            if portion.len() >= PORTION || place == last {
                saved += portion.len();
                self.save_portion(store, std::mem::take(&mut portion)).await?;
            }
        }
        Ok(saved)
    }

    async fn save_portion(&self, store: &Store, unsaved: Vec<Arc<Session>>) -> Result<(), StoreError> {
        // Deletions go after the sessions: a session that was evicted and came back must be deleted before it
        // is saved again.
        let left = std::mem::take(&mut *lock(&self.unsaved.gone));
        // An evicted session is judged by its time of issue, after a restart too.
        let kept = unsaved.iter().filter(|session| {
            session.clear_unsaved();
            self.is_shared() || !session.is_evicted()
        });
        let rows = kept.map(|session| session.row()).collect();
        let saved = store.save_sessions(rows, left.clone()).await;
        if saved.is_err() {
            let again = unsaved.iter().filter(|session| session.mark_unsaved());
            again.for_each(|session| self.unsaved.remember(session));
            lock(&self.unsaved.gone).extend(left);
        }
        let over: HashSet<TokenKey> = saved?.into_iter().collect();
        unsaved.iter().filter(|session| over.contains(&session.token())).for_each(|session| session.end());
        Ok(())
    }

    async fn save_limits(&self, store: &Store) -> Result<(), StoreError> {
        // The terms in a shared store are compared with ours before it counts as fresh, so saving waits for
        // that.
        if !store.freshness().is_fresh(Monotonic::now())
            || !self.unsaved.limits.swap(false, Ordering::Relaxed)
        {
            return Ok(());
        }
        let terms = |limits: &SessionLimits| IdleTerms { timeout: limits.idle, floor: limits.floor };
        let terms = self.limits.load().map(terms);
        let saved = store.save_idle_terms(terms).await;
        match saved {
            Ok(()) => self.unsaved.is_known.store(true, Ordering::Relaxed),
            Err(_) => self.unsaved.limits_changed(),
        }
        saved
    }

    pub(super) async fn save_first_uses(&self, store: &Store) -> Result<(), StoreError> {
        let first = std::mem::take(&mut *lock(&self.unsaved.first));
        if first.is_empty() {
            return Ok(());
        }
        let saved = store.save_first_uses(first.clone()).await;
        if saved.is_err() {
            lock(&self.unsaved.first).extend(first);
        }
        saved
    }

    /// Restores what was saved before a restart; returns the number of sessions. Call it before the first
    /// request.
    ///
    /// Skips only what is idle by the monotonic clock, because the wall clock at startup may be wrong by
    /// years.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn restore(&self, store: &Store, now: Now) -> Result<usize, StoreError> {
        const PAGE: usize = 10_000;
        self.restore_limits(store, now).await?;
        let limits = self.limits.load_full();
        let is_idle = |row: &SessionRow| {
            let (limits, last) = (limits.of(&row.issuer), row.last_used_monotonic);
            limits.idle.is_some_and(|idle| now.monotonic.since(last) > idle)
                || limits.floor.is_some_and(|floor| last < floor.monotonic)
        };
        let mut after = None;
        loop {
            let rows = store.sessions(after, PAGE).await?;
            after = rows.last().map(|row| row.token);
            let complete = rows.len() < PAGE;
            for row in rows.into_iter().filter(|row| !is_idle(row)) {
                let restore = || Arc::new(Session::from_row(&row, &self.names, now.monotonic));
                self.table.enter(row.token, restore);
            }
            if complete {
                self.table.settle();
                return Ok(self.tracked());
            }
        }
    }

    /// Continues from the settings that were in force when the store was last written.
    async fn restore_limits(&self, store: &Store, now: Now) -> Result<(), StoreError> {
        let Some(terms) = store.idle_terms().await? else { return Ok(()) };
        let (configured, theirs) = (self.limits.load_full(), self.on_shared_clock(now));
        let go_on = |configured: &SessionLimits, IdleTerms { timeout, floor }: &IdleTerms| {
            let before = SessionLimits { idle: *timeout, floor: *floor, own_floor: None, ..*configured };
            before.with_idle(configured.idle, theirs)
        };
        self.limits.store(Arc::new(configured.zip(&terms, go_on)));
        Ok(())
    }

    /// Deletes the saved last uses of tokens that are permanently idle or dead by the store's running time
    /// and the settings in force; returns how many.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub async fn trim(&self, store: &Store, now: Monotonic) -> Result<usize, StoreError> {
        let limits = self.limits.load_full();
        let idle = limits.map(|limits| limits.idle.unwrap_or(Duration::MAX));
        store.trim_sessions(now, &idle, limits.common().leeway).await
    }

    /// Marks every session to be saved again, because the store lost them or must keep them longer.
    pub fn save_again(&self) {
        self.unsaved.limits_changed();
        for session in self.table.iter() {
            self.note_first_use(&session);
            if session.mark_unsaved() {
                self.unsaved.remember(&session);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Key;

    fn tokens() -> [TokenKey; 3] {
        [1, 2, 3].map(|byte| TokenKey(Key::from_bytes([byte; 16])))
    }

    #[test]
    fn tokens_that_left_for_room_are_kept_in_mind_up_to_the_bound() {
        for (is_kept, most, expected) in
            [(true, 0, 0), (true, 2, 2), (true, 3, 3), (true, 4, 3), (false, 0, 0), (false, 4, 0)]
        {
            let unsaved = Unsaved::new(is_kept, most);
            tokens().into_iter().for_each(|token| unsaved.forget(token));
            assert_eq!(*lock(&unsaved.gone), tokens()[..expected], "{is_kept} {most}");
        }
    }

    #[test]
    fn first_uses_are_kept_in_mind_up_to_the_bound() {
        for (most, expected) in [(0, 0), (1, 1), (2, 2), (3, 3), (4, 3)] {
            let unsaved = Unsaved::new(true, most);
            tokens().into_iter().for_each(|token| unsaved.note_first_use(token, Timestamp::EPOCH));
            assert_eq!(lock(&unsaved.first).len(), expected, "{most}");
        }
    }
}
