//! Stored idle clocks: last uses, and the last idle timeouts in force.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use super::record::{IdleTerms, PerIssuer, SessionRow};
use super::redis::FirstUse;
use super::session_rows::SessionTrim;
use super::{CHUNK, Store, StoreError, idle_rows, rows, session_rows};
use crate::identity::TokenKey;
use crate::time::{Monotonic, Timestamp};

impl Store {
    /// Deletes the tokens in `gone`, then saves these last uses. Returns the tokens that another replica found
    /// idle in the meantime. A shared store deletes nothing, because other replicas may be using the token.
    ///
    /// # Errors
    /// When the disk is full or fails; some may have been saved then.
    pub async fn save_sessions(
        &self,
        mut used: Vec<SessionRow>,
        gone: Vec<TokenKey>,
    ) -> Result<Vec<TokenKey>, StoreError> {
        if let Some(fleet) = self.fleet() {
            return fleet.save_sessions(used).await;
        }
        // Deleted first, because an evicted token may have been used again since.
        for chunk in gone.chunks(CHUNK) {
            let chunk = chunk.to_vec();
            self.writer
                .run(move |db| chunk.iter().try_for_each(|token| session_rows::forget_session(db, *token)))
                .await?;
        }
        // Sorted in the order of the B-tree, so that neighbouring rows share its pages.
        used.sort_unstable_by_key(|row| row.token);
        for chunk in used.chunks(CHUNK) {
            let chunk = chunk.to_vec();
            let uptime = self.uptime;
            let save = move |db: &Connection| {
                chunk.iter().try_for_each(|row| session_rows::save_session(db, row, uptime))
            };
            self.writer.run(save).await?;
        }
        Ok(Vec::new())
    }

    /// Returns up to `limit` sessions after the given token, ordered by key. Returns none for a shared store,
    /// where last uses are read one by one.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn sessions(
        &self,
        after: Option<TokenKey>,
        limit: usize,
    ) -> Result<Vec<SessionRow>, StoreError> {
        let uptime = self.uptime;
        self.writer.read(move |db| session_rows::sessions(db, after, limit, uptime)).await
    }

    /// Deletes the last uses of tokens that have been unused for `idle` of running time or have expired by it,
    /// and returns how many. Works in small steps, so that an event never waits long.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub async fn trim_sessions(
        &self,
        now: Monotonic,
        idle: &PerIssuer<Duration>,
        leeway: Duration,
    ) -> Result<usize, StoreError> {
        let (now, leeway) = (self.uptime().at(now), rows::millis(leeway));
        let unused_since = idle.map(|idle| now.saturating_sub(rows::millis(*idle)));
        let terms = Arc::new(SessionTrim { now, unused_since, leeway });
        let mut trimmed = 0;
        for part in 0..=u8::MAX {
            let terms = Arc::clone(&terms);
            let trim = move |db: &Connection| session_rows::trim_sessions(db, part, &terms);
            trimmed += self.writer.run(trim).await?;
        }
        Ok(trimmed)
    }

    /// Saves first uses that precede `iat`, for the other replicas.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn save_first_uses(&self, uses: Vec<(TokenKey, Timestamp)>) -> Result<(), StoreError> {
        match self.fleet() {
            Some(fleet) => fleet.save_first_uses(uses).await,
            None => Ok(()),
        }
    }

    /// Returns what all replicas know of a token's first use.
    pub async fn first_use(&self, token: TokenKey) -> FirstUse {
        match self.fleet() {
            Some(fleet) => fleet.first_use(token).await,
            None => FirstUse::Ordinary,
        }
    }

    /// Saves the idle timeouts in force. Other replicas receive them in
    /// [`ReplicaChanges`](super::redis::ReplicaChanges).
    ///
    /// # Errors
    /// When the disk is full or fails, or the shared store cannot be used.
    pub async fn save_idle_terms(&self, terms: PerIssuer<IdleTerms>) -> Result<(), StoreError> {
        if let Some(fleet) = self.fleet() {
            return fleet.save_idle_terms(&terms).await;
        }
        let uptime = self.uptime;
        self.writer.run(move |db| idle_rows::save_idle_terms(db, &terms, uptime)).await
    }

    /// Returns the idle timeouts that were last in force, if any. For a shared store, they come in
    /// [`ReplicaChanges`](super::redis::ReplicaChanges) instead.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn idle_terms(&self) -> Result<Option<PerIssuer<IdleTerms>>, StoreError> {
        let uptime = self.uptime;
        self.writer.read(move |db| idle_rows::idle_terms(db, uptime)).await
    }
}
