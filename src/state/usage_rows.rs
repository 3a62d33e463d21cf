//! Usage: how often each client called each route.

use super::record::UsageRow;
use super::{Store, StoreError, rows};

impl Store {
    /// Adds these counts to the stored ones.
    ///
    /// # Errors
    /// When the disk is full or fails; nothing is added then.
    pub async fn add_usage(&self, rows: Vec<UsageRow>) -> Result<(), StoreError> {
        if let Some(fleet) = self.fleet() {
            return fleet.add_usage(rows).await;
        }
        self.writer.run(move |db| rows.iter().try_for_each(|row| rows::add_usage(db, row))).await
    }

    /// Returns the usage of one client, or of all clients.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn usage(&self, client: Option<&str>) -> Result<Vec<UsageRow>, StoreError> {
        if let Some(fleet) = self.fleet() {
            return fleet.usage(client).await;
        }
        let client = client.map(str::to_owned);
        self.writer.read(move |db| rows::usage(db, client.as_deref())).await
    }
}
