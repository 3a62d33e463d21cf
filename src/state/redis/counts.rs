//! Usage and key sets in the shared store: the counts of all replicas in one hash, and the newest key set of each issuer.

use redis::cmd;

use super::fault::RedisFault;
use super::{RESPONSE_TIMEOUT, SharedStore};
use crate::state::StoreError;
use crate::state::record::UsageRow;
use crate::time::Timestamp;

impl SharedStore {
    /// Adds these counts to those of all replicas.
    ///
    /// If the response is lost, the caller adds them again: counts are then too high, never too low.
    pub(in crate::state) async fn add_usage(&self, rows: Vec<UsageRow>) -> Result<(), StoreError> {
        let mut call = self.scripts.count.call(2);
        call.arg(&self.keys.usage).arg(&self.keys.usage_last);
        for row in &rows {
            call.arg(field(row)).arg(row.count).arg(row.last_used_at.as_millis());
        }
        let lane = self.lane(self.keys.usage.as_bytes())?;
        lane.ask::<i64>(&call, RESPONSE_TIMEOUT).await.inspect_err(|fault| self.report(fault))?;
        Ok(())
    }

    /// Returns the usage of one client, or of all clients, on all replicas.
    pub(in crate::state) async fn usage(&self, client: Option<&str>) -> Result<Vec<UsageRow>, StoreError> {
        let lane = self.lane(self.keys.usage.as_bytes())?;
        let all = |key: &String| {
            let mut all = cmd("HGETALL");
            all.arg(key);
            all
        };
        let counts: Vec<(String, u64)> = lane.ask(&all(&self.keys.usage), RESPONSE_TIMEOUT).await?;
        let last: std::collections::HashMap<String, i64> =
            lane.ask(&all(&self.keys.usage_last), RESPONSE_TIMEOUT).await?;
        let rows = counts.iter().filter_map(|(field, count)| {
            let (client, route, status) = serde_json::from_str::<(Box<str>, Box<str>, u16)>(field).ok()?;
            let last_used_at = Timestamp::from_millis(last.get(field).copied().unwrap_or(0));
            Some(UsageRow { client, route, status, count: *count, last_used_at })
        });
        let mut rows: Vec<UsageRow> =
            rows.filter(|row| client.is_none_or(|client| *row.client == *client)).collect();
        let key = |row: &UsageRow| (row.client.clone(), row.route.clone(), row.status);
        rows.sort_unstable_by_key(key);
        Ok(rows)
    }

    /// Saves a key set unless the store has a newer one.
    pub(in crate::state) async fn save_key_set(
        &self,
        of: (&str, &str),
        body: &[u8],
        fetched_at: Timestamp,
    ) -> Result<(), StoreError> {
        let key = self.keys.key_set(of);
        let mut call = self.scripts.keep.call(1);
        call.arg(&key).arg(body).arg(fetched_at.as_millis());
        self.lane(key.as_bytes())?.ask::<i64>(&call, RESPONSE_TIMEOUT).await?;
        Ok(())
    }

    /// Returns the last good key set that any replica fetched.
    pub(in crate::state) async fn key_set(
        &self,
        of: (&str, &str),
    ) -> Result<Option<(Vec<u8>, Timestamp)>, StoreError> {
        let key = self.keys.key_set(of);
        let mut get = cmd("HMGET");
        get.arg(&key).arg("body").arg("at");
        let answer: Result<(Option<Vec<u8>>, Option<i64>), RedisFault> =
            self.lane(key.as_bytes())?.ask(&get, RESPONSE_TIMEOUT).await;
        let (body, at) = answer?;
        Ok(body.zip(at.map(Timestamp::from_millis)))
    }
}

fn field(row: &UsageRow) -> String {
    // Strings and numbers always serialize.
    serde_json::to_string(&(&row.client, &row.route, row.status)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
