//! Usage by client and route, kept across restarts: periodically adds the workers' counts to the store.
//!
//! A crash may lose the latest counts; nothing is counted twice.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::sync::Mutex;

use crate::metrics::usage::{Tallies, Used};
use crate::state::record::UsageRow;
use crate::state::{Store, StoreError};
use crate::time::Timestamp;

/// Maximum number of rows added in one step, so that no event waits long.
const CHUNK: usize = 1_000;

/// The counts in the store and those not added yet.
#[derive(Debug)]
pub struct Usage {
    tallies: Tallies,
    store: Store,
    /// Collected but not stored yet. Locked while rows move to the store, so that no list misses them or has
    /// them twice.
    pending: Mutex<HashMap<Used, (u64, Timestamp)>>,
}

impl Usage {
    /// Continues from the stored usage: its clients remain counted by name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn start(tallies: Tallies, store: Store) -> Result<Arc<Self>, StoreError> {
        let mut known = match store.usage(None).await {
            // A shared store may become reachable later; its rows are listed then.
            Err(StoreError::Unreachable(_)) if store.is_shared() => Vec::new(),
            known => known?,
        };
        known.dedup_by(|one, other| one.client == other.client);
        known.iter().for_each(|row| tallies.admit(&row.client));
        Ok(Arc::new(Self { tallies, store, pending: Mutex::default() }))
    }

    /// Adds the counts to the store. What could not be added is tried again next time.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn flush(&self) -> Result<(), StoreError> {
        let mut pending = self.pending.lock().await;
        self.collect(&mut pending);
        while !pending.is_empty() {
            let chunk: Vec<Used> = pending.keys().take(CHUNK).cloned().collect();
            let rows = chunk.iter().filter_map(|used| pending.get(used).map(|counted| row(used, *counted)));
            self.store.add_usage(rows.collect()).await?;
            for used in &chunk {
                pending.remove(used);
            }
        }
        Ok(())
    }

    /// The number of clients counted by name, once the limit is reached; all others share `other`.
    #[must_use]
    pub fn bound(&self) -> Option<usize> {
        self.tallies.bound()
    }

    /// The usage of one client or all clients so far, by client, route and status.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn list(&self, client: Option<&str>) -> Result<Vec<UsageRow>, StoreError> {
        let mut pending = self.pending.lock().await;
        self.collect(&mut pending);
        let key = |row: &UsageRow| (row.client.clone(), row.route.clone(), row.status);
        let stored = self.store.usage(client).await?;
        let mut rows: BTreeMap<_, UsageRow> = stored.into_iter().map(|row| (key(&row), row)).collect();
        let theirs = pending.iter().filter(|(used, _)| client.is_none_or(|client| &*used.client == client));
        for more in theirs.map(|(used, counted)| row(used, *counted)) {
            rows.entry(key(&more))
                .and_modify(|row| {
                    row.count += more.count;
                    row.last_used_at = row.last_used_at.max(more.last_used_at);
                })
                .or_insert(more);
        }
        Ok(rows.into_values().collect())
    }

    fn collect(&self, pending: &mut HashMap<Used, (u64, Timestamp)>) {
        for (used, count, last) in self.tallies.take() {
            let counted = pending.entry(used).or_insert((0, last));
            *counted = (counted.0 + count, counted.1.max(last));
        }
    }
}

fn row(used: &Used, (count, last_used_at): (u64, Timestamp)) -> UsageRow {
    UsageRow {
        client: (&*used.client).into(),
        route: (&*used.route).into(),
        status: used.status,
        count,
        last_used_at,
    }
}
