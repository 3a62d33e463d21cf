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
    /// Forgets the tokens in `gone`, then keeps these last uses; returns the tokens that another replica found idle
    /// meanwhile. A shared store forgets nothing: others may use the token.
    ///
    /// # Errors
    /// When the disk is full or fails; some may have been kept then.
    pub async fn save_sessions(
        &self,
        mut used: Vec<SessionRow>,
        gone: Vec<TokenKey>,
    ) -> Result<Vec<TokenKey>, StoreError> {
        if let Some(fleet) = self.fleet() {
            return fleet.save_sessions(used).await;
        }
        // First, because a token that was evicted may have come back and been used again.
        for chunk in gone.chunks(CHUNK) {
            let chunk = chunk.to_vec();
            self.writer
                .run(move |db| chunk.iter().try_for_each(|token| session_rows::forget_session(db, *token)))
                .await?;
        }
        // In the order of the tree they go into, neighbours share its pages.
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

    /// Up to `limit` sessions after the given token, in the order of their keys; none of a shared store, where last uses
    /// are looked at one by one.
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

    /// Deletes the last uses of tokens that were not used for `idle` of running time, or are dead by it; returns how many.
    /// A little at a time, so that an event never waits long.
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

    /// Keeps first uses that came before `iat`, for those who share the store.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn save_first_uses(&self, uses: Vec<(TokenKey, Timestamp)>) -> Result<(), StoreError> {
        match self.fleet() {
            Some(fleet) => fleet.save_first_uses(uses).await,
            None => Ok(()),
        }
    }

    /// What all replicas know of a token's first use.
    pub async fn first_use(&self, token: TokenKey) -> FirstUse {
        match self.fleet() {
            Some(fleet) => fleet.first_use(token).await,
            None => FirstUse::Ordinary,
        }
    }

    /// Keeps the idle timeouts in force. Those who share the store are told by [`ReplicaChanges`](super::redis::ReplicaChanges).
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

    /// The idle timeouts that were in force last, once some were; of a shared store [`ReplicaChanges`](super::redis::ReplicaChanges) tells it.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn idle_terms(&self) -> Result<Option<PerIssuer<IdleTerms>>, StoreError> {
        let uptime = self.uptime;
        self.writer.read(move |db| idle_rows::idle_terms(db, uptime)).await
    }
}
